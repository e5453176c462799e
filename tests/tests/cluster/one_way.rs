//! A network that carries one way only: a host that hears nothing, and one that nobody hears. Whichever it is and
//! whatever it was to the others, what it ran runs elsewhere, and never twice.

use anyhow::Result;
use plasmavmc_tests::cluster::HostedCluster;
use plasmavmc_tests::cluster::ha::leader;

use crate::failover::{freezes_and_loses, on_hosts};

/// Which way nothing goes any more.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Deaf,
    Mute,
}

/// Cuts one host of three, the leader or another, from both others in one way.
fn one_way(is_leader: bool, cut: Cut) {
    on_hosts(3, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let island = if is_leader { leads } else { (leads + 1) % 3 };
        let asked = (leads + 2) % 3;
        freezes_and_loses(&cluster, island, asked, || cut_off(&cluster, island, cut)).await
    });
}

fn cut_off(cluster: &HostedCluster, island: usize, cut: Cut) -> Result<()> {
    for other in (0..3).filter(|host| *host != island) {
        let (from, to) = match cut {
            Cut::Deaf => (other, island),
            Cut::Mute => (island, other),
        };
        cluster.lab().cut_one_way(from, to)?;
    }
    Ok(())
}

#[test]
fn a_host_that_hears_nothing_freezes_and_loses_what_was_moved() {
    one_way(false, Cut::Deaf);
}

#[test]
fn a_host_that_nobody_hears_freezes_and_loses_what_was_moved() {
    one_way(false, Cut::Mute);
}

#[test]
fn a_leader_that_hears_nothing_freezes_and_loses_what_was_moved() {
    one_way(true, Cut::Deaf);
}

#[test]
fn a_leader_that_nobody_hears_freezes_and_loses_what_was_moved() {
    one_way(true, Cut::Mute);
}
