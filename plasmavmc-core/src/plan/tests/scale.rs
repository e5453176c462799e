//! A large cluster in which many hosts fail at once: a few steps are enough, nobody gets too much, the load is spread.

use std::collections::BTreeMap;

use super::failover::{fenced, leased, listening};
use super::*;

/// So many hosts with so many VMs each, of which the first few were fenced.
fn cluster(hosts: u32, vms_each: u32, failed: u32) -> Cluster {
    let mut cluster = Cluster::of_hosts(hosts);
    let small = |fields: &mut VmSpecFields| fields.memory_mb = 128;
    for number in 0..hosts * vms_each {
        let vm = number + 1;
        cluster = leased(cluster.with_vm_of(vm, small).placed(vm, number % hosts + 1), vm);
    }
    let cluster = (1..=failed).fold(cluster, fenced);
    listening(cluster)
}

/// Steps until nothing is left to be done: how many, and where everything is in the end.
fn settle(mut cluster: Cluster) -> (usize, Cluster) {
    for steps in 0.. {
        let actions = plan(&cluster.view, &cluster.heard, NOW_MS);
        if actions.is_empty() {
            return (steps, cluster);
        }
        cluster = after(&cluster, &actions);
        for vm in actions.iter().filter_map(|action| action.vm) {
            let id = vm.to_string();
            let number = u32::from_str_radix(&id[id.len() - 12..], 16).unwrap();
            cluster = leased(cluster, number);
        }
    }
    unreachable!("it ends")
}

#[test]
fn fifty_of_a_thousand_hosts_fail_and_twenty_thousand_vms_stay_spread() {
    let (hosts, each, failed) = (1000, 20, 50);
    let (steps, end) = settle(cluster(hosts, each, failed));
    assert!(steps <= 20, "{steps} steps for {} VMs", failed * each);
    let mut per_host = BTreeMap::<HostId, u32>::new();
    for vm in end.view.vms.values() {
        *per_host.entry(vm.placement.as_ref().unwrap().value.host).or_default() += 1;
    }
    assert_eq!(per_host.len(), usize::try_from(hosts - failed).unwrap());
    let (least, most) = (per_host.values().min().unwrap(), per_host.values().max().unwrap());
    assert!(*least >= each && *most <= each + 2, "{least} to {most}");
}
