use plasmavmc_types::{
    Disk, DiskLocation, HostMode, HostName, Label, MacAddress, Nic, NicNetwork, ObservedState, PoolName, VmSpecFields,
};
use proptest::prelude::*;

use super::*;
use crate::samples::{Cluster, host_id, vm_id};
use crate::view::PlacementMode;

/// What comes of asking all hosts to take VM 1.
fn asked<T>(cluster: &Cluster, look: impl FnOnce(&Asked<'_>) -> T) -> T {
    let (roll, loads) = (Roll::of(&cluster.view, &cluster.heard), Loads::of(&cluster.view));
    look(&roll.ask(&loads, vm_id(1)).unwrap())
}

/// Where VM 1 goes, as the number of a host; 0: nowhere.
fn check(cluster: &Cluster, expected: u32) {
    let verdicts = verdicts(&cluster.view, &cluster.heard, vm_id(1));
    let expected = (expected != 0).then(|| host_id(expected));
    assert_eq!(
        asked(cluster, |asked| asked.choose().map(|chosen| chosen.host)),
        expected,
        "{verdicts:#?}"
    );
    assert_eq!(verdicts.iter().any(Verdict::fits), expected.is_some(), "{verdicts:#?}");
}

/// Host 1 refuses VM 1 with these words.
fn refused(cluster: &Cluster, words: &str) {
    let verdicts = verdicts(&cluster.view, &cluster.heard, vm_id(1));
    let first = verdicts.iter().find(|verdict| verdict.host == host_id(1)).unwrap();
    assert!(first.reasons.iter().any(|reason| reason.contains(words)), "{first:#?}");
    let sentence = asked(cluster, |asked| asked.why_nowhere());
    assert!(sentence.contains(words), "{sentence}");
}

fn two() -> Cluster {
    Cluster::of_hosts(2)
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn volume(pool: &str) -> impl FnOnce(&mut VmSpecFields) {
    let pool = PoolName::new(pool).unwrap();
    move |fields| {
        let volume = label("root");
        let location = DiskLocation::Volume { pool, volume };
        fields.disks = vec![Disk::new(label("root"), location, 1024)];
    }
}

#[test]
fn the_first_of_equal_hosts_is_taken() {
    check(&two().with_vm(1), 1);
}

#[test]
fn vms_are_spread_or_packed() {
    let mut cluster = two().with_vm(1).with_vm(2).placed(2, 1);
    check(&cluster, 2);
    cluster.view.placement_mode = PlacementMode::Pack;
    check(&cluster, 1);
}

#[test]
fn a_host_that_is_not_there_or_is_emptied_gets_nothing() {
    let cluster = Cluster::of_hosts(1).with_vm(1);
    refused(&cluster.clone().silent(1, 12_000), "last heard of 12 s ago");
    refused(&cluster.clone().mode(1, HostMode::Draining), "being drained");
    refused(&cluster.clone().mode(1, HostMode::Maintenance), "in maintenance");
    let mut removed = cluster.clone();
    removed.view.hosts.get_mut(&host_id(1)).unwrap().record = None;
    refused(&removed, "was removed");
    let mut fenced = cluster.clone();
    let session = &mut fenced.view.hosts.get_mut(&host_id(1)).unwrap().session;
    session.as_mut().unwrap().value = session.as_ref().unwrap().value.fenced();
    refused(&fenced, "is over");
    let mut unheard = cluster;
    unheard.heard.ago_ms.clear();
    refused(&unheard, "not heard of");
}

#[test]
fn a_host_that_may_be_gone_is_taken_only_where_nothing_else_fits() {
    check(&two().with_vm(1).silent(1, 2_000), 1);
    check(&two().with_vm(1).silent(1, 2_001), 2);
    check(&two().with_vm(1).silent(1, 2_001).silent(2, 2_001), 1);
    // Heard within the second, and yet not since this leader leads.
    check(&two().with_vm(1).silent(1, 900).leading_for(899), 2);
    check(&two().with_vm(1).silent(1, 900).leading_for(900), 1);
}

#[test]
fn a_witness_gets_no_vms() {
    let cluster = Cluster::default().with_witness(1).with_vm(1);
    refused(&cluster, "it is a witness: it votes, and runs no VMs");
    check(&cluster.with_host(2, |_| ()), 2);
}

#[test]
fn memory_and_processors_are_counted_by_what_was_placed() {
    let big = |fields: &mut VmSpecFields| fields.memory_mb = 7169;
    let cluster = Cluster::of_hosts(1).with_vm_of(1, big).with_vm(2).placed(2, 1);
    refused(&cluster, "needs 7169 MB, 7168 of 8192 free");
    check(&cluster.clone().off(2), 1);
    // Off, but its host has not said that it is.
    let still_runs = cluster.off(2).says(2, ObservedState::Running);
    check(&still_runs, 0);
    check(&still_runs.says(2, ObservedState::Stopped), 1);

    let wide = Cluster::of_hosts(1).with_vm_of(1, |fields| fields.vcpus = 33);
    refused(&wide, "needs 33 vcpus, 32 of 32 free (4 for each of its 8 processors)");
}

#[test]
fn pools_and_bridges_have_to_be_there() {
    let cluster = two().with_vm_of(1, volume("nfs"));
    refused(&cluster, "has no pool nfs");
    let nfs = PoolName::new("nfs").unwrap();
    check(&cluster.with_host(2, |beat| beat.facts.pools = vec![nfs]), 2);

    let plugged = |fields: &mut VmSpecFields| {
        let mac: MacAddress = "52:54:00:00:00:01".parse().unwrap();
        let network = NicNetwork::Bridge(plasmavmc_types::BridgeName::new("br0").unwrap());
        fields.nics = vec![Nic::new(label("lan"), mac, network)];
    };
    refused(&two().with_vm_of(1, plugged), "has no bridge br0");
}

#[test]
fn affinity_is_kept_from_both_sides() {
    let bound = |fields: &mut VmSpecFields| fields.affinity.hosts = vec![HostName::new("h2").unwrap()];
    refused(&two().with_vm_of(1, bound), "bound to h2");

    let apart = |fields: &mut VmSpecFields| fields.affinity.apart_from = vec![vm_id(2)];
    refused(&two().with_vm_of(1, apart).with_vm(2).placed(2, 1), "apart from");
    let other_says = |fields: &mut VmSpecFields| fields.affinity.apart_from = vec![vm_id(1)];
    refused(&two().with_vm(1).with_vm_of(2, other_says).placed(2, 1), "has VM vm2");

    let together = |fields: &mut VmSpecFields| fields.affinity.together_with = vec![vm_id(2)];
    let cluster = two().with_vm_of(1, together).with_vm(2);
    refused(&cluster.clone().placed(2, 2), "must be with VM vm2, which is on h2");
    check(&cluster.clone().placed(2, 2), 2);
    check(&cluster, 1);
}

#[test]
fn preferences_order_the_hosts_that_fit_and_bind_nobody() {
    let rather = |edit: fn(&mut plasmavmc_types::Affinity)| {
        let cluster = Cluster::of_hosts(3).with_vm(2).placed(2, 1).with_vm(3).placed(3, 2);
        cluster.with_vm_of(1, move |fields| edit(&mut fields.affinity))
    };
    let on_h2 = rather(|affinity| affinity.prefer_hosts = vec![HostName::new("h2").unwrap()]);
    check(&rather(|_| ()), 3);
    check(&on_h2, 2);
    check(&on_h2.clone().mode(2, HostMode::Draining), 3);
    // Rather where it will be heard than where it would like to be.
    check(&on_h2.silent(2, 2_001), 3);
    check(&rather(|affinity| affinity.prefer_together_with = vec![vm_id(2)]), 1);
    let apart = |affinity: &mut plasmavmc_types::Affinity| affinity.prefer_apart_from = vec![vm_id(2), vm_id(3)];
    check(&rather(apart).mode(3, HostMode::Draining), 1);
    // Where more is met.
    let both = rather(|affinity| {
        affinity.prefer_hosts = vec![HostName::new("h1").unwrap()];
        affinity.prefer_together_with = vec![vm_id(3)];
        affinity.prefer_apart_from = vec![vm_id(2)];
    });
    check(&both, 2);
}

#[test]
fn a_vm_whose_data_lie_on_one_host_stays_there() {
    let file = |fields: &mut VmSpecFields| {
        let location = DiskLocation::File {
            path: "/d/root.qcow2".into(),
        };
        fields.disks = vec![Disk::new(label("root"), location, 1024)];
    };
    let stopped = |cluster: Cluster| cluster.placed(1, 2).says(1, ObservedState::Stopped);
    refused(&stopped(two().with_vm_of(1, file)), "lie on h2 and are not shared");

    let nfs = PoolName::new("nfs").unwrap();
    let with_pool = |shared: bool| {
        (1..=2).fold(Cluster::default(), |cluster, number| {
            cluster.with_host(number, |beat| {
                beat.facts.pools = vec![nfs.clone()];
                beat.facts.shared_pools = if shared { vec![nfs.clone()] } else { Vec::new() };
            })
        })
    };
    refused(&stopped(with_pool(false).with_vm_of(1, volume("nfs"))), "not shared");
    check(&stopped(with_pool(true).with_vm_of(1, volume("nfs"))), 1);
    // Never claimed: nothing of it lies anywhere.
    check(&with_pool(false).with_vm_of(1, volume("nfs")).placed(1, 2), 1);
}

#[test]
fn without_hosts_that_is_what_is_said() {
    let cluster = Cluster::default().with_vm(1);
    assert_eq!(
        asked(&cluster, |asked| asked.why_nowhere()),
        "no host has joined the cluster yet"
    );
}

#[test]
fn of_many_hosts_only_some_are_named() {
    let big = |fields: &mut VmSpecFields| fields.memory_mb = 8193;
    let sentence = asked(&Cluster::of_hosts(16).with_vm_of(1, big), |asked| asked.why_nowhere());
    assert!(sentence.ends_with("h9: needs 8193 MB, 8192 of 8192 free"), "{sentence}");
    let sentence = asked(&Cluster::of_hosts(20).with_vm_of(1, big), |asked| asked.why_nowhere());
    assert!(sentence.ends_with("; and 4 more"), "{sentence}");
}

proptest! {
    #[test]
    fn a_host_is_never_filled_beyond_what_it_has(
        sizes in prop::collection::vec((1u32..12, 64u64..6000), 1..24), pack: bool,
    ) {
        let mut cluster = Cluster::of_hosts(3);
        if pack {
            cluster.view.placement_mode = PlacementMode::Pack;
        }
        for (number, (vcpus, memory_mb)) in (1..).zip(&sizes) {
            cluster = cluster.with_vm_of(number, |fields| {
                (fields.vcpus, fields.memory_mb) = (*vcpus, *memory_mb);
            });
        }
        let (roll, mut loads) = (Roll::of(&cluster.view, &cluster.heard), Loads::of(&cluster.view));
        let mut used = std::collections::BTreeMap::<HostId, (u64, u64)>::new();
        for vm in cluster.view.vms.values() {
            let record = &vm.record.as_ref().unwrap().value;
            let chosen = roll.ask(&loads, record.id()).unwrap().choose().map(|chosen| chosen.host);
            if let Some(chosen) = chosen {
                loads.place(record, chosen);
                let used = used.entry(chosen).or_default();
                used.0 += u64::from(record.spec().vcpus);
                used.1 += record.spec().memory_mb;
            }
        }
        for (vcpus, memory_mb) in used.into_values() {
            prop_assert!(vcpus <= 32 && memory_mb <= 8192, "{vcpus} {memory_mb}");
        }
    }
}
