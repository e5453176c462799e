use plasmavmc_types::{Label, PoolName, VmSpecFields};

use super::*;
use crate::samples::{Cluster, host_id, vm_id};

fn pool(name: &str) -> PoolName {
    PoolName::new(name).unwrap()
}

fn on_pool(fields: &mut VmSpecFields, name: &str) {
    let volume = DiskLocation::Volume {
        pool: pool(name),
        volume: Label::new("data").unwrap(),
    };
    fields.disks = vec![Disk::new(Label::new("data").unwrap(), volume, 64)];
}

/// Three hosts, of which the first two share a pool.
fn cluster(edit: impl FnOnce(&mut VmSpecFields)) -> Cluster {
    let shares = |fields: &mut plasmavmc_types::BeatFields| {
        fields.facts.pools = vec![pool("shared"), pool("local")];
        fields.facts.shared_pools = vec![pool("shared")];
    };
    Cluster::default()
        .with_host(1, shares)
        .with_host(2, shares)
        .with_host(3, |_| ())
        .with_vm_of(1, edit)
}

#[track_caller]
fn check(cluster: &Cluster, host: u32, voters: usize, expected: &str) {
    let record = &cluster.view.vms[&vm_id(1)].record.as_ref().unwrap().value;
    match leasing(&cluster.view, host_id(host), record, voters) {
        Leasing::Leased => assert_eq!(expected, "leased"),
        Leasing::Not(why) => assert!(why.contains(expected), "{why}"),
    }
}

#[test]
fn what_another_host_can_start_is_leased() {
    check(&cluster(|_| ()), 1, 3, "leased");
    check(&cluster(|fields| on_pool(fields, "shared")), 1, 3, "leased");
}

#[test]
fn what_nobody_else_can_start_is_not() {
    check(&cluster(|_| ()), 1, 2, "2 voters");
    check(&cluster(|fields| fields.ha = HaPolicy::Off), 1, 3, "ha = off");
    check(&cluster(|fields| on_pool(fields, "local")), 1, 3, "disk data");
    check(&cluster(|fields| on_pool(fields, "shared")), 3, 3, "disk data");
    let bound = |fields: &mut VmSpecFields| fields.affinity.hosts = vec![plasmavmc_types::HostName::new("h1").unwrap()];
    check(&cluster(bound), 1, 3, "no other host");
    let alone = Cluster::of_hosts(1).with_vm(1);
    check(&alone, 1, 3, "no other host");
    check(&alone.with_witness(2).with_witness(3), 1, 3, "no other host");
    let two = Cluster::of_hosts(2).with_witness(3).with_vm(1);
    check(&two, 1, 3, "leased");
    check(&two, 1, 2, "a witness");
}

#[test]
fn what_cannot_be_promised_is_refused_with_the_remedy() {
    let refused = |edit: fn(&mut VmSpecFields), voters: usize| {
        let cluster = cluster(|fields| {
            edit(fields);
            fields.ha = HaPolicy::On;
        });
        let record = &cluster.view.vms[&vm_id(1)].record.as_ref().unwrap().value;
        refusal(&cluster.view, record.spec(), voters)
    };
    assert_eq!(refused(|_| (), 3), None);
    assert_eq!(refused(|fields| on_pool(fields, "shared"), 3), None);
    assert!(refused(|_| (), 1).unwrap().contains("add hosts, or a witness"));
    assert!(
        refused(|fields| on_pool(fields, "local"), 3)
            .unwrap()
            .contains("two hosts share")
    );
    let bound = |fields: &mut VmSpecFields| fields.affinity.hosts = vec![plasmavmc_types::HostName::new("h1").unwrap()];
    assert!(refused(bound, 3).unwrap().contains("name another one"));
}
