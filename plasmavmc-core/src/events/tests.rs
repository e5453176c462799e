use plasmavmc_types::{OperationKind, VmStatusFields};

use super::*;
use crate::code::Code;
use crate::samples::{Cluster, NOW_MS, host_id, operation_id, process, vm_id};

#[track_caller]
fn check(view: &ClusterView, changed: Changed<'_>, expected: Option<(&str, &str)>) -> Option<Event> {
    let event = of(view, changed);
    let found = event.as_ref().map(|event| (event.kind, event.text.as_str()));
    assert_eq!(found, expected);
    event
}

fn cluster() -> Cluster {
    Cluster::of_hosts(2).with_vm(1).placed(1, 1)
}

#[test]
fn a_vm_is_created_changed_and_removed() {
    let view = cluster().view;
    let record = view.vms[&vm_id(1)].record.as_ref().unwrap().value.clone();
    let id = vm_id(1);
    let of_record = |before, after, expected| check(&view, Changed::VmRecord(id, before, after), expected);
    let event = of_record(
        None,
        Some(&record),
        Some(("vm.created", "VM vm1 was created: 1 vcpus, 1024 MB")),
    );
    assert_eq!(event.unwrap().vm, Some(id));
    let off = record.with_power(PowerWanted::Off).unwrap();
    of_record(Some(&record), Some(&off), Some(("vm.power", "VM vm1 is wanted off")));
    let bigger = record.spec().edit(|fields| fields.memory_mb = 2048).unwrap();
    let changed = record.with_spec(bigger).unwrap();
    of_record(
        Some(&record),
        Some(&changed),
        Some(("vm.updated", "VM vm1 was changed: generation 2")),
    );
    let deleted = record.delete().unwrap();
    of_record(
        Some(&record),
        Some(&deleted),
        Some(("vm.deleted", "VM vm1 is to be deleted")),
    );
    of_record(Some(&deleted), None, Some(("vm.removed", "VM vm1 is no more")));
    of_record(Some(&record), Some(&record), None);
}

#[test]
fn a_vm_is_placed_and_moved() {
    let view = cluster().view;
    let first = Placement::first(host_id(1));
    let second = first.next(host_id(2)).unwrap();
    let placed = Changed::Placement(vm_id(1), None, Some(&first));
    check(&view, placed, Some(("vm.placed", "VM vm1 was placed on h1")));
    let moved = Changed::Placement(vm_id(1), Some(&first), Some(&second));
    check(&view, moved, Some(("vm.moved", "VM vm1 was moved from h1 to h2")));
    check(&view, Changed::Placement(vm_id(1), Some(&first), None), None);
}

#[test]
fn a_status_tells_states_crashes_and_the_agent() {
    let view = cluster().says(1, ObservedState::Running).view;
    let running = view.vms[&vm_id(1)].status.as_ref().unwrap().value.clone();
    let edited = |edit: fn(&mut VmStatusFields)| running.edit(edit).unwrap();
    let of_status = |before, after, expected| check(&view, Changed::Status(vm_id(1), before, Some(after)), expected);
    let event = of_status(None, &running, Some(("vm.state", "VM vm1 is running")));
    assert_eq!(event.unwrap().host, Some(host_id(1)));
    let failed = edited(|fields| {
        let reason = "no disk".to_owned();
        (fields.state, fields.process) = (ObservedState::Failed { reason }, None);
    });
    of_status(Some(&running), &failed, Some(("vm.state", "VM vm1 is failed: no disk")));
    let crashed = edited(|fields| {
        (fields.state, fields.process) = (ObservedState::Starting, None);
        fields.crashes_at_ms = vec![NOW_MS];
    });
    of_status(
        Some(&running),
        &crashed,
        Some(("vm.crashed", "VM vm1 died by itself: ")),
    );
    let answering = edited(|fields| fields.agent = plasmavmc_types::AgentHealth::Responding);
    of_status(
        Some(&running),
        &answering,
        Some(("vm.agent", "the agent of VM vm1 answers")),
    );
    let other_process = edited(|fields| {
        let pid = process().pid + 1;
        fields.process = Some(plasmavmc_types::QemuProcess { pid, ..process() });
    });
    of_status(Some(&running), &other_process, None);
    check(&view, Changed::Status(vm_id(1), Some(&running), None), None);
}

#[test]
fn operations_begin_and_end() {
    let view = cluster().with_operation(1, 1, OperationKind::Reboot).view;
    let pending = &view.operations[&operation_id(1)].value;
    let id = pending.id;
    check(
        &view,
        Changed::Operation(id, None, Some(pending)),
        Some(("operation.begun", "reboot of VM vm1 was asked for")),
    );
    let error = Code::Aborted.error("X", "it went wrong");
    let failed = pending.moved(OperationState::Failed(error), "", NOW_MS);
    let event = check(
        &view,
        Changed::Operation(id, Some(pending), Some(&failed)),
        Some(("operation.ended", "reboot of VM vm1 failed: it went wrong")),
    );
    assert_eq!(event.unwrap().operation, Some(id));
    let stepped = pending.moved(OperationState::Pending, "waits", NOW_MS);
    check(&view, Changed::Operation(id, Some(pending), Some(&stepped)), None);
    check(&view, Changed::Operation(id, Some(&failed), None), None);
}

#[test]
fn hosts_join_change_and_report_for_duty() {
    let view = cluster().view;
    let id = host_id(1);
    let host = &view.hosts[&id];
    let record = &host.record.as_ref().unwrap().value;
    check(
        &view,
        Changed::HostRecord(id, None, Some(record)),
        Some(("host.joined", "host h1 joined the cluster")),
    );
    let draining = record.with_mode(plasmavmc_types::HostMode::Draining);
    let changed = Changed::HostRecord(id, Some(record), Some(&draining));
    check(&view, changed, Some(("host.mode", "host h1 is draining from now on")));
    for (leaving, text) in [
        (
            Leaving::Move,
            "host h1 is being shut down; its VMs go elsewhere where they can",
        ),
        (Leaving::Stay, "host h1 is being shut down; its VMs wait for it"),
    ] {
        let departs = cluster().departing(1, leaving, 1).view;
        let departs = &departs.hosts[&id].record.as_ref().unwrap().value;
        let changed = Changed::HostRecord(id, Some(record), Some(departs));
        check(&view, changed, Some(("host.shutdown", text)));
        let back = Changed::HostRecord(id, Some(departs), Some(record));
        check(
            &view,
            back,
            Some(("host.shutdown", "host h1 is not shut down after all")),
        );
    }
    let session = host.session.as_ref().unwrap().value;
    let opened = Changed::Session(id, None, Some(&session));
    check(
        &view,
        opened,
        Some(("host.session", "host h1 reported for duty: session 1")),
    );
    let fenced = session.fenced();
    let over = Changed::Session(id, Some(&session), Some(&fenced));
    check(
        &view,
        over,
        Some(("host.session", "host h1 was fenced: session 1 is over")),
    );
    check(&view, Changed::Session(id, Some(&session), Some(&session)), None);
}

#[test]
fn only_waiting_is_told_of_what_is_decided() {
    let view = cluster().view;
    let decision = |kind: &str| Decision {
        at_ms: NOW_MS,
        kind: kind.to_owned(),
        vm: Some(vm_id(1)),
        host: None,
        text: "no host fits".to_owned(),
        evidence: Vec::new(),
    };
    let waits = decision(crate::plan::WAIT);
    check(
        &view,
        Changed::Decision(Some(&waits)),
        Some(("vm.waits", "VM vm1 waits: no host fits")),
    );
    check(&view, Changed::Decision(Some(&decision("place"))), None);
}
