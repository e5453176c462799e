//! A network that carries one way only: a host that hears nothing, and one that nobody hears. Whichever it is and
//! whatever it was to the others, what it ran runs elsewhere, and never twice.

use plasmavmc_tests::cluster::ha::leader;
use plasmavmc_tests::hosts::{Lab, LabError};

use crate::failover::{freezes_and_loses, on_hosts};

/// Cuts one host of three, the leader or another, from both others in one way.
fn one_way(is_leader: bool, cut: fn(&Lab, usize) -> Result<(), LabError>) {
    on_hosts(3, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let island = if is_leader { leads } else { (leads + 1) % 3 };
        let asked = (leads + 2) % 3;
        freezes_and_loses(&cluster, island, asked, || Ok(cut(cluster.lab(), island)?)).await
    });
}

#[test]
fn a_host_that_hears_nothing_freezes_and_loses_what_was_moved() {
    one_way(false, Lab::deafen);
}

#[test]
fn a_host_that_nobody_hears_freezes_and_loses_what_was_moved() {
    one_way(false, Lab::mute);
}

#[test]
fn a_leader_that_hears_nothing_freezes_and_loses_what_was_moved() {
    one_way(true, Lab::deafen);
}

#[test]
fn a_leader_that_nobody_hears_freezes_and_loses_what_was_moved() {
    one_way(true, Lab::mute);
}
