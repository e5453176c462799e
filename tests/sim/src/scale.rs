//! How long the controller thinks when many hosts fail at once, against the size of the cluster.

use std::collections::BTreeMap;
use std::time::Instant;

use plasmavmc_core::plan::plan;
use plasmavmc_core::view::{ClusterView, Contact, Heard, Stored};
use plasmavmc_types::{
    Address, AttemptId, Beat, BeatFields, BeatSequence, BootId, Capacity, Epoch, HostFacts, HostId, HostName,
    HostRecord, Incarnation, InstanceNonce, Invalid, ObservedState, Placement, QemuProcess, Session, SessionState,
    Usage, VmId, VmName, VmNumber, VmRecord, VmSpec, VmSpecFields, VmStatus,
};
use serde::Serialize;
use uuid::Uuid;

const NOW_MS: u64 = 1_000_000_000;

/// One size, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    pub hosts: u32,
    pub vms: u32,
    pub failed: u32,
    /// Until nothing was left to be done.
    pub steps: u32,
    pub longest_step_ms: f64,
    pub median_step_ms: f64,
    /// VMs on the emptiest and on the fullest host that lives, in the end.
    pub least: u32,
    pub most: u32,
}

/// Fails so many hosts of a cluster at once and plans until everything is placed again.
pub fn cost(hosts: u32, vms: u32, failed: u32) -> Result<Cost, Invalid> {
    let (mut view, heard) = cluster(hosts, vms, failed)?;
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        let actions = plan(&view, &heard, NOW_MS);
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        if actions.is_empty() {
            break;
        }
        for action in actions {
            let revision = view.revision + 1;
            action.change.apply_to(&mut view, revision);
            if let Some(vm) = action.vm {
                run(&mut view, vm)?;
            }
        }
    }
    let mut per_host = BTreeMap::<HostId, u32>::new();
    for vm in view.vms.values() {
        if let Some(placement) = &vm.placement {
            *per_host.entry(placement.value.host).or_default() += 1;
        }
    }
    let steps = u32::try_from(took.len()).unwrap_or(u32::MAX);
    took.sort_by(f64::total_cmp);
    Ok(Cost {
        hosts,
        vms,
        failed,
        steps,
        longest_step_ms: took.last().copied().unwrap_or_default(),
        median_step_ms: took.get(took.len() / 2).copied().unwrap_or_default(),
        least: per_host.values().min().copied().unwrap_or_default(),
        most: per_host.values().max().copied().unwrap_or_default(),
    })
}

/// What the largest step may take on the leader, which has beats to answer meanwhile.
const GOAL_MS: f64 = 50.0;

/// Prints a row for each size, doubling, and the last one as JSON. Whether the largest is within the goal.
pub fn print(hosts: u32) -> bool {
    let mut last = None;
    for halvings in (0..4).rev() {
        let size = (hosts >> halvings).max(20);
        match cost(size, size * 20, size / 20) {
            Ok(cost) => {
                eprintln!(
                    "{:>5} hosts, {:>6} VMs, {:>3} failed: {:>3} steps, median {:.1} ms, longest {:.1} ms, {} to {} VMs a host",
                    cost.hosts,
                    cost.vms,
                    cost.failed,
                    cost.steps,
                    cost.median_step_ms,
                    cost.longest_step_ms,
                    cost.least,
                    cost.most
                );
                last = Some(cost);
            }
            Err(invalid) => {
                eprintln!("error: {invalid}");
                return false;
            }
        }
    }
    let Some(cost) = last else { return false };
    println!("{}", serde_json::json!(cost));
    cost.longest_step_ms <= GOAL_MS
}

fn id(kind: u128, number: u32) -> Uuid {
    Uuid::from_u128((kind << 96) | u128::from(number))
}

fn cluster(hosts: u32, vms: u32, failed: u32) -> Result<(ClusterView, Heard), Invalid> {
    let mut view = ClusterView::default();
    let mut heard = Heard {
        leading_for_ms: Some(60_000),
        contact: Contact {
            quorum_ago_ms: Some(100),
            flowing_for_ms: 60_000,
            listening_for_ms: 600_000,
            ..Contact::default()
        },
        ..Heard::default()
    };
    for number in 1..=hosts {
        add_host(&mut view, number, number <= failed)?;
        heard.ago_ms.insert(HostId::from_uuid(id(2, number)), 500);
    }
    for number in 1..=vms {
        let vm = VmId::from_uuid(id(1, number));
        let name = VmName::new(format!("vm{number}"))?;
        let spec = VmSpec::new(VmSpecFields::new(name.clone(), 1, 128))?;
        let record = VmRecord::create(vm, VmNumber::new(100 + number)?, spec)?;
        view.revision += 1;
        let host = HostId::from_uuid(id(2, (number - 1) % hosts + 1));
        let stored = view.vms.entry(vm).or_default();
        stored.record = Some(Stored::new(record, view.revision));
        stored.placement = Some(Stored::new(Placement::first(host), view.revision));
        view.names.insert(name, vm);
        run(&mut view, vm)?;
    }
    Ok((view, heard))
}

fn add_host(view: &mut ClusterView, number: u32, is_fenced: bool) -> Result<(), Invalid> {
    let host = HostId::from_uuid(id(2, number));
    let name = HostName::new(format!("h{number}"))?;
    let address: Address = format!("h{number}:50051").parse()?;
    let (instance, boot_id) = (
        InstanceNonce::from_uuid(id(3, number)),
        BootId::from_uuid(id(4, number)),
    );
    let session = Session {
        epoch: Epoch::FIRST,
        instance,
        boot_id,
        state: if is_fenced {
            SessionState::Fenced
        } else {
            SessionState::Open
        },
    };
    let beat = Beat::new(BeatFields {
        epoch: Epoch::FIRST,
        instance,
        boot_id,
        sequence: BeatSequence(1),
        lease_ms: 4000,
        failover_ms: 6000,
        capacity: Capacity {
            vcpus: 16,
            memory_mb: 65_536,
        },
        usage: Usage::default(),
        facts: HostFacts::default(),
    })?;
    view.revision += 1;
    let stored = view.hosts.entry(host).or_default();
    stored.record = Some(Stored::new(HostRecord::new(host, name, vec![address])?, view.revision));
    stored.session = Some(Stored::new(session, view.revision));
    stored.beat = Some(Stored::new(beat, view.revision));
    Ok(())
}

/// The host where it is placed has started it.
fn run(view: &mut ClusterView, vm: VmId) -> Result<(), Invalid> {
    view.revision += 1;
    let revision = view.revision;
    let Some(stored) = view.vms.get_mut(&vm) else {
        return Ok(());
    };
    let incarnation = stored
        .placement
        .as_ref()
        .map_or(Incarnation::FIRST, |at| at.value.incarnation);
    let claim = VmStatus::claim(incarnation, true, AttemptId::from_uuid(id(5, 1)))?;
    let status = claim.edit(|fields| {
        fields.state = ObservedState::Running;
        fields.process = Some(QemuProcess {
            pid: 1,
            start_time_ticks: 1,
        });
    })?;
    stored.status = Some(Stored::new(status, revision));
    Ok(())
}
