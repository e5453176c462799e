use plasmavmc_proto::api::{
    ClusterMember, ClusterStatus, ClusterTimings, Condition, Decision, Disk, DiskLocation, Event, ExplainVmResponse,
    Host, HostLease, HostLoss, HostTimings, HostVerdict, Nic, Operation, OperationError, SetTimingsResponse,
    Unprotected, Vm, VmSpec, disk_location, host, nic, operation, vm,
};

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn check(shown: &str, expected: &str) {
    assert_eq!(shown, expected.trim_matches('\n'), "\n{shown}\n");
}

fn web() -> Vm {
    let disk = Disk {
        name: "root".to_owned(),
        location: Some(DiskLocation {
            location: Some(disk_location::Location::Path("/srv/web.qcow2".to_owned())),
        }),
        size_mb: 10_240,
        ..Disk::default()
    };
    let nic = Nic {
        name: "net0".to_owned(),
        network: Some(nic::Network::User(true)),
        ..Nic::default()
    };
    let spec = VmSpec {
        name: "web".to_owned(),
        vcpus: 2,
        memory_mb: 4096,
        disks: vec![disk],
        nics: vec![nic],
        priority: Some(200),
        ..VmSpec::default()
    };
    Vm {
        id: "7d0c0b5e-0000-4000-8000-000000000001".to_owned(),
        name: "web".to_owned(),
        vmid: 101,
        state: vm::State::Running.into(),
        host: "h1".to_owned(),
        power_on: true,
        spec: Some(spec),
        generation: 3,
        incarnation: 1,
        agent: "not_responding".to_owned(),
        pid: 4242,
        qemu_state: "running".to_owned(),
        conditions: vec![Condition {
            name: "tcg".to_owned(),
            text: "no KVM on h1".to_owned(),
        }],
        created_at_ms: NOW - 3_600_000,
        ..Vm::default()
    }
}

fn lost() -> Vm {
    Vm {
        id: "7d0c0b5e-0000-4000-8000-000000000002".to_owned(),
        name: "database".to_owned(),
        vmid: 7,
        state: vm::State::Unknown.into(),
        reason: "h2 was last heard of 12 s ago".to_owned(),
        host: "h2".to_owned(),
        last_heard_ms: 12_000,
        spec: Some(VmSpec {
            vcpus: 16,
            memory_mb: 1000,
            ..VmSpec::default()
        }),
        ..Vm::default()
    }
}

fn stop_failed() -> Operation {
    Operation {
        id: "11111111-0000-4000-8000-000000000001".to_owned(),
        kind: "stop".to_owned(),
        vm_name: "web".to_owned(),
        state: operation::State::Failed.into(),
        step: "asking the agent".to_owned(),
        error: Some(OperationError {
            code: 9,
            reason: "AGENT_SILENT".to_owned(),
            message: "the agent is silent".to_owned(),
        }),
        created_at_ms: NOW - 90_000,
        host: "h1".to_owned(),
        ..Operation::default()
    }
}

#[test]
fn vms_in_a_table() {
    let expected = "
VMID  NAME      STATE             HOST  VCPUS  MEMORY  AGENT           AGE
 101  web       running           h1        2      4G  not responding  60m
   7  database  unknown (12s ago)  h2       16   1000M  -               -
";
    // The column is as wide as its widest value.
    let expected = expected
        .replace("STATE             HOST", "STATE              HOST")
        .replace("running           h1", "running            h1");
    check(&vms_table(&[web(), lost()], false, false, NOW), &expected);
}

#[test]
fn no_vms_are_no_table() {
    assert_eq!(vms_table(&[], false, false, NOW), "");
}

#[test]
fn a_wide_table_has_ids_and_reasons() {
    let shown = vms_table(&[lost()], true, false, NOW);
    assert!(
        shown.contains("7d0c0b5e-0000-4000-8000-000000000002  h2 was last heard of 12 s ago"),
        "{shown}"
    );
}

#[test]
fn colours_are_there_only_when_asked_for() {
    assert!(vms_table(&[web()], false, true, NOW).contains("\u{1b}["));
    assert!(!vms_table(&[web()], false, false, NOW).contains('\u{1b}'));
}

#[test]
fn what_a_server_says_cannot_move_the_cursor() {
    let vm = Vm {
        reason: "a\u{1b}[2Jb\nc".to_owned(),
        ..web()
    };
    for shown in [
        vms_table(std::slice::from_ref(&vm), true, false, NOW),
        vm_text(&vm, NOW),
        vm_line(&vm),
    ] {
        assert!(!shown.contains('\u{1b}') && shown.contains("a [2Jb c"), "{shown}");
    }
}

#[test]
fn one_vm() {
    let expected = "
name          web
vmid          101
id            7d0c0b5e-0000-4000-8000-000000000001
state         running
host          h1
wanted        on
agent         not responding
qemu          running (pid 4242)
conditions    tcg: no KVM on h1
generation    3
incarnation   1
created       2023-11-14T21:13:20Z (60m ago)
vcpus         2
memory        4G
firmware      bios
disks         name=root path=/srv/web.qcow2 format=qcow2 size_mb=10240 bus=virtio_blk cache=none aio=unspecified discard=unspecified
nics          name=net0 user=true model=virtio
display       vnc
watchdog      none
agent policy  required
ha            auto
priority      200
";
    check(&vm_text(&web(), NOW), expected);
}

#[test]
fn hosts_in_a_table() {
    let alive = Host {
        name: "h1".to_owned(),
        state: host::State::Alive.into(),
        mode: host::Mode::Active.into(),
        addresses: vec!["10.0.0.1:50051".to_owned()],
        vcpus: 8,
        vcpus_used: 2,
        memory_mb: 16_384,
        memory_used_mb: 4096,
        vms: 1,
        accelerator: "tcg: the probe hung".to_owned(),
        ..Host::default()
    };
    let silent = Host {
        name: "h2".to_owned(),
        state: host::State::Silent.into(),
        mode: host::Mode::Draining.into(),
        last_heard_ms: 8_000,
        ..Host::default()
    };
    let expected = "
NAME  STATE          MODE      VMS  VCPUS  MEMORY  ACCELERATOR  ADDRESS
h1    alive          active      1    2/8  4G/16G  tcg          10.0.0.1:50051
h2    silent (8.0s)  draining    0    0/0   0M/0M  -            -
";
    check(&hosts_table(&[alive.clone(), silent], false), expected);
    assert!(
        host_text(&alive).contains("memory       4G of 16G used"),
        "{}",
        host_text(&alive)
    );
}

fn a_cluster_of_two() -> ClusterStatus {
    let member = |id, name: &str, role: &str, is_reachable| ClusterMember {
        id,
        name: name.to_owned(),
        address: format!("10.0.0.{id}:50052"),
        role: role.to_owned(),
        is_reachable,
        is_witness: false,
    };
    ClusterStatus {
        witnesses: 0,
        cluster_id: "c-1".to_owned(),
        has_quorum: true,
        leader: "h1".to_owned(),
        term: 3,
        members: vec![member(1, "h1", "leader", true), member(2, "h2", "voter", false)],
        hosts_alive: 1,
        hosts: 2,
        vms: 4,
        vms_running: 3,
        revision: 77,
        answered_by: "h1".to_owned(),
        warnings: vec!["h2 does not answer".to_owned()],
        version: "0.1.0".to_owned(),
        commit_latency_ms: 1.25,
        freeze_after_ms: 4000,
        failover_after_ms: 6000,
        beat_ms: 500,
        other_timings: vec![HostTimings {
            host: "h2".to_owned(),
            freeze_after_ms: 12_000,
            failover_after_ms: 15_000,
        }],
        leases: vec![HostLease {
            host: "h1".to_owned(),
            leased_vms: 2,
            left_ms: 3400,
        }],
        unprotected: vec![Unprotected {
            vm: "db".to_owned(),
            host: "h1".to_owned(),
            reason: "no other host can open its disk root".to_owned(),
        }],
        losses: vec![HostLoss {
            host: "h1".to_owned(),
            homeless: vec!["web".to_owned(), "mail".to_owned()],
        }],
    }
}

#[test]
fn the_status_of_a_cluster() {
    let expected = "
cluster         c-1
quorum          yes: changes are possible
leader          h1 (term 3)
hosts           1 of 2 alive
vms             3 of 4 running
revision        77
commit latency  1.2 ms, of 4.0s for which a lease lasts
timings         beat 500ms, freeze after 4.0s, failover after 6.0s
other timings   h2: freeze after 12s, failover after 15s
leased vms      2 on h1, which has 3.4s left
not leased      db on h1: no other host can open its disk root
would not fit   after losing h1: web, mail
answered by     h1
version         0.1.0
warnings        h2 does not answer

MEMBER  NAME  ROLE    REACHABLE  ADDRESS
     1  h1    leader  yes        10.0.0.1:50052
     2  h2    voter   no         10.0.0.2:50052
";
    check(&status_text(&a_cluster_of_two(), false), expected);
    let headless = status_text(&ClusterStatus::default(), false);
    assert!(
        headless.contains("NO: nothing can be changed") && headless.contains("none (term 0)"),
        "{headless}"
    );
}

#[test]
fn changed_timings_are_shown_beside_the_old_ones() {
    let timings = |beat_ms, freeze_after_ms, failover_after_ms| ClusterTimings {
        beat_ms,
        freeze_after_ms,
        failover_after_ms,
    };
    let answer = SetTimingsResponse {
        before: Some(timings(1000, 4000, 6000)),
        after: Some(timings(1000, 2500, 15_000)),
    };
    let expected = "
TIMING          WAS   IS
beat            1.0s  1.0s
freeze-after    4.0s  2.5s
failover-after  6.0s  15s
";
    check(&timings_table(&answer, false), expected);
}

#[test]
fn operations_in_a_table() {
    let expected = "
ID                                    KIND  VM   STATE   HOST  AGE  STEP
11111111-0000-4000-8000-000000000001  stop  web  failed  h1    90s  the agent is silent (AGENT_SILENT)
";
    check(&operations_table(&[stop_failed()], false, NOW), expected);
}

#[test]
fn a_vm_is_explained() {
    let verdict = |host: &str, fits, reasons: &[&str]| HostVerdict {
        host: host.to_owned(),
        fits,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        score: 40,
    };
    let explained = ExplainVmResponse {
        vm: Some(lost()),
        summary: "Its host is silent.".to_owned(),
        decisions: vec![Decision {
            revision: 12,
            at_ms: NOW - 300_000,
            kind: "place".to_owned(),
            text: "on h2".to_owned(),
            evidence: vec!["h2 had 4096 MB free at revision 11".to_owned()],
        }],
        hosts: vec![
            verdict("h1", false, &["needs 1000 MB, 512 free", "is draining"]),
            verdict("h3", true, &[]),
        ],
        operations: vec![stop_failed()],
    };
    let expected = "
database (vmid 7) is unknown (12s ago) on h2: h2 was last heard of 12 s ago

Its host is silent.

Where it could go:
HOST  FITS  SCORE  WHY NOT
h1    no        -  needs 1000 MB, 512 free; is draining
h3    yes      40  -

What was decided:
   5m ago  place: on h2 (revision 12)
           because h2 had 4096 MB free at revision 11

What was asked of it:
ID                                    KIND  VM   STATE   HOST  AGE  STEP
11111111-0000-4000-8000-000000000001  stop  web  failed  h1    90s  the agent is silent (AGENT_SILENT)
";
    check(&explain_text(&explained, false, NOW), expected);
}

#[test]
fn events_are_lines() {
    let event = Event {
        revision: 5,
        at_ms: NOW,
        kind: "vm.state".to_owned(),
        vm_name: "web".to_owned(),
        host: "h1".to_owned(),
        text: "running".to_owned(),
        ..Event::default()
    };
    check(
        &event_line(&event),
        "2023-11-14T22:13:20Z  vm.state           web@h1               running",
    );
}

#[test]
fn json_and_yaml_of_a_list() {
    let member = ClusterMember {
        id: 1,
        name: "h1".to_owned(),
        ..ClusterMember::default()
    };
    let list = Node::List(vec![node_of(&member)]);
    check(
        &written(Form::Json, &list),
        "[\n  {\n    \"id\": 1,\n    \"name\": \"h1\",\n    \"address\": \"\",\n    \"role\": \"\",\n    \
         \"is_reachable\": false,\n    \"is_witness\": false\n  }\n]",
    );
    check(
        &written(Form::Yaml, &list),
        "- id: 1\n  name: h1\n  address: ''\n  role: ''\n  is_reachable: false\n  is_witness: false",
    );
}
