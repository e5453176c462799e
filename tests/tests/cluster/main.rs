//! Whole clusters: real servers, real QEMUs, and clients that know only the public API.

mod agent_gate;
mod comeback;
mod disk_full;
mod failover;
mod failpoints;
mod life;
mod partition;
mod qemu_killed;
mod race;
mod recover;
mod server_killed;
mod witness;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{CreateVmRequest, Operation, Vm, operation, vm};
use plasmavmc_tests::cluster::{Client, Cluster, describe};

/// For what takes a moment: generous, because a machine that runs two tests at a time is slow. What is promised
/// to users is measured and printed.
pub const SOON: Duration = Duration::from_secs(30);
/// A guest boots under TCG.
pub const BOOT: Duration = Duration::from_secs(120);

/// Creates a VM and sees that it runs.
pub async fn running(client: &Client, mut request: CreateVmRequest) -> Result<Vm> {
    request.wait = true;
    let name = request.name.clone();
    let vm = client
        .create(request)
        .await
        .with_context(|| format!("creating {name}"))?;
    ensure!(vm.state() == vm::State::Running, "{}", describe(&vm));
    ensure!(!vm.host.is_empty() && vm.pid > 0, "{vm:?}");
    Ok(vm)
}

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
