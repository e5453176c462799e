//! Random clusters: a plan that was carried out leaves nothing to do, and moves nothing that may run.

use std::collections::BTreeMap;

use plasmavmc_types::Leaving;
use proptest::prelude::*;

use super::*;

/// A VM in some situation.
#[derive(Debug, Clone)]
struct Situation {
    memory_mb: u64,
    power_off: bool,
    placed_on: Option<u32>,
    state: Option<u8>,
    is_moved: bool,
    needs_first: bool,
    operation: Option<(u8, bool, bool)>,
    is_deleted: bool,
}

fn situation() -> impl Strategy<Value = Situation> {
    let operation = prop::option::of((0u8..6, any::<bool>(), any::<bool>()));
    let place = (
        prop::option::of(1u32..=3),
        prop::option::of(0u8..5),
        prop::bool::weighted(0.2),
    );
    let wish = (64u64..6000, prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    (wish, place, any::<bool>(), operation).prop_map(|(wish, place, needs_first, operation)| Situation {
        memory_mb: wish.0,
        power_off: wish.1,
        is_deleted: wish.2,
        placed_on: place.0,
        state: place.1,
        is_moved: place.2,
        needs_first,
        operation,
    })
}

fn cluster_of(situations: &[Situation], modes: &[u8]) -> Cluster {
    let mut cluster = Cluster::of_hosts(3);
    for (host, mode) in (1..).zip(modes) {
        cluster = match mode {
            0 => cluster.mode(host, HostMode::Draining),
            1 => cluster.silent(host, 60_000),
            2 => cluster.departing(host, Leaving::Move, NOW_MS + 60_000),
            3 => cluster
                .departing(host, Leaving::Stay, NOW_MS - 60_000)
                .silent(host, 60_000),
            _ => cluster,
        };
    }
    for (number, it) in (1..).zip(situations) {
        cluster = cluster.with_vm_of(number, |fields| {
            fields.memory_mb = it.memory_mb;
            if it.needs_first && number > 1 {
                let until = DependencyReached::Running;
                fields.depends_on = vec![Dependency { vm: vm_id(1), until }];
            }
        });
        if it.power_off {
            cluster = cluster.off(number);
        }
        if let Some(host) = it.placed_on {
            cluster = cluster.placed(number, host);
            let reason = "broken".to_owned();
            let states = [
                ObservedState::Starting,
                ObservedState::Running,
                ObservedState::Stopping,
                ObservedState::Stopped,
                ObservedState::Failed { reason },
            ];
            if let Some(state) = it.state {
                cluster = cluster.says(number, states[usize::from(state)].clone());
            }
            if it.is_moved {
                cluster = cluster.placed(number, host % 3 + 1);
            }
        }
        if it.is_deleted {
            cluster = cluster.deleted(number);
        }
        if let Some((kind, is_late, is_cancelled)) = it.operation {
            let kinds = [
                OperationKind::Create,
                OperationKind::Start,
                STOP,
                OperationKind::Stop { force: true },
                OperationKind::Reboot,
                OperationKind::Delete,
            ];
            cluster = cluster.with_operation_of(number, number, kinds[usize::from(kind)], |operation| {
                operation.cancel_requested = is_cancelled;
                if is_late {
                    operation.deadline_ms = NOW_MS - 60_000;
                }
            });
        }
    }
    cluster
}

proptest! {
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(
        situations in prop::collection::vec(situation(), 0..12), modes in prop::collection::vec(0u8..8, 3),
    ) {
        let cluster = cluster_of(&situations, &modes);
        let actions = plan_of(&cluster);
        let once = after(&cluster, &actions);
        // Only what was moved may say in its new place that it waits.
        let notes = plan_of(&once);
        let is_note = |action: &ControlAction| action.kind == ControlKind::NoteWaiting;
        prop_assert!(notes.iter().all(is_note), "{:#?} after {:#?}", notes, actions);
        let twice = after(&once, &notes);
        prop_assert_eq!(plan_of(&twice), Vec::new());
    }

    #[test]
    fn a_plan_moves_nothing_that_may_run_and_fills_no_host_beyond_its_memory(
        situations in prop::collection::vec(situation(), 0..12), modes in prop::collection::vec(0u8..5, 3),
    ) {
        let cluster = cluster_of(&situations, &modes);
        let before = used(&cluster.view);
        let actions = plan_of(&cluster);
        let after = after(&cluster, &actions);
        for action in &actions {
            let Some(vm) = action.vm.and_then(|vm| cluster.view.vms.get(&vm)) else { continue };
            if matches!(action.kind, ControlKind::Replace | ControlKind::Forget) {
                let claimed = vm.current_status().is_some();
                prop_assert!(!claimed || crate::visible::runs_nowhere(vm), "{:#?}", vm);
            }
        }
        for (host, (memory_mb, gets)) in used(&after.view) {
            let had = before.get(&host).map_or(0, |(memory_mb, _)| *memory_mb);
            prop_assert!(memory_mb <= 8192.max(had), "{host}: {memory_mb} MB of {gets} VMs, {had} before");
        }
    }
}

/// By what is wanted on or may run.
fn used(view: &ClusterView) -> BTreeMap<HostId, (u64, u32)> {
    let mut used = BTreeMap::<HostId, (u64, u32)>::new();
    for vm in view.vms.values() {
        let (Some(record), Some(placement)) = (&vm.record, &vm.placement) else {
            continue;
        };
        let may_run = vm.current_status().is_some() && !crate::visible::runs_nowhere(vm);
        if is_wanted_on(&record.value) || may_run {
            let used = used.entry(placement.value.host).or_default();
            used.0 += record.value.spec().memory_mb;
            used.1 += 1;
        }
    }
    used
}
