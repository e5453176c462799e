//! Whole clusters: real servers, real QEMUs, and clients that know only the public API.

mod agent_gate;
mod comeback;
mod departure;
mod disk_full;
mod failover;
mod failpoints;
mod life;
mod one_way;
mod partition;
mod qemu_killed;
mod race;
mod recover;
mod server_killed;
mod shared_disk;
mod timings;
mod witness;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Operation, Vm, operation};
use plasmavmc_tests::cluster::Cluster;

/// For what takes a moment: generous, because a machine that runs two tests at a time is slow. What is promised
/// to users is measured and printed.
pub const SOON: Duration = Duration::from_secs(30);
/// A guest boots under TCG.
pub const BOOT: Duration = Duration::from_secs(120);

/// The one QEMU of a VM.
pub fn only_qemu(cluster: &Cluster, vm: &Vm) -> Result<i32> {
    let pids = cluster.site().qemus_of(&vm.id);
    ensure!(pids.len() == 1, "{} has the QEMUs {pids:?}", vm.name);
    pids.first().copied().context("one")
}

/// An operation that ended well.
pub fn done(operation: &Operation) -> Result<()> {
    ensure!(operation.state() == operation::State::Done, "{operation:?}");
    Ok(())
}
