//! Failures of hosts, judged from outside of them.
//!
//! Must never: believe a server about what runs. The [`Sampler`] looks at the processes of this machine, of which the
//! hosts are parts.

pub mod failover;
pub mod guests;
mod ledger;
mod sampler;
mod strikes;
pub mod torture;
mod watched;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use plasmavmc_proto::api::{CreateVmRequest, HaPolicy, Vm, vm};

pub use ledger::{Entry, Ledger, Reader};
pub use sampler::{Double, Sampler, state_of};
pub use strikes::signal;
pub use watched::watched;

use super::{Client, HostedCluster, bare, until};

const ELECTED: Duration = Duration::from_secs(30);

/// A VM without a guest that is started elsewhere when its host dies.
pub fn movable(name: &str) -> CreateVmRequest {
    let mut request = bare(name);
    request.set_ha(HaPolicy::Auto);
    request
}

/// A leased VM on this host: the others take nothing while it is placed, and nothing binds it afterwards.
pub async fn leased_on(cluster: &HostedCluster, host: usize, request: CreateVmRequest) -> Result<Vm> {
    let hosts = cluster.lab().hosts().len();
    let client = cluster.client(host)?;
    let others = || (0..hosts).filter(|other| *other != host);
    for other in others() {
        client.drain(&cluster.name(other)).await?;
    }
    let vm = running_leased(&client, request).await?;
    for other in others() {
        client.activate(&cluster.name(other)).await?;
    }
    ensure!(cluster.host_called(&vm.host)? == host, "{vm:?}");
    Ok(vm)
}

/// The store's member that leads, by the index of its host, as another host says.
pub async fn leader(cluster: &HostedCluster, asked: usize) -> Result<usize> {
    let client = cluster.client(asked)?;
    let name = until("a leader", Duration::from_secs(30), async || {
        let status = client.status().await.map_err(|status| status.to_string())?;
        match status.leader.as_str() {
            "" => Err("nobody leads".to_owned()),
            name => Ok(name.to_owned()),
        }
    })
    .await?;
    cluster.host_called(&name)
}

/// Holds the servers of the two others of three still until this one leads: who stood for election meanwhile is heard
/// first.
pub async fn until_leads(cluster: &HostedCluster, wanted: usize) -> Result<()> {
    let client = cluster.client(wanted)?;
    for _ in 0..20 {
        let leads = leader(cluster, wanted).await?;
        if leads == wanted {
            return Ok(());
        }
        let other = (0..3).find(|host| ![leads, wanted].contains(host));
        let servers = (cluster.server(leads), other.and_then(|other| cluster.server(other)));
        let (Some(leading), Some(other)) = servers else {
            bail!("a host has no server");
        };
        leading.pause();
        other.pause();
        // It has stood for election by then, and nobody voted.
        let missed = until("one to be alone", ELECTED, async || {
            let status = client.status().await.map_err(|status| status.to_string())?;
            if status.has_quorum { Err(status.leader) } else { Ok(()) }
        })
        .await;
        other.resume();
        missed?;
        let elected = until("another leader", ELECTED, async || {
            let status = client.status().await.map_err(|status| status.to_string())?;
            let is_other = status.has_quorum && !status.leader.is_empty() && status.leader != cluster.name(leads);
            if is_other { Ok(()) } else { Err(status.leader) }
        })
        .await;
        leading.resume();
        elected?;
    }
    bail!("{} never led", cluster.name(wanted));
}

/// Creates a VM and sees that it runs, leased: it can be started elsewhere from now on.
pub async fn running_leased(client: &Client, request: CreateVmRequest) -> Result<Vm> {
    let vm = client.running(request).await?;
    ensure!(vm.leased, "{vm:?}");
    Ok(vm)
}

/// Waits until a VM runs on another host, in a process that exists.
pub async fn until_elsewhere(cluster: &HostedCluster, asked: usize, vm: &Vm, within: Duration) -> Result<Vm> {
    let client = cluster.client(asked)?;
    let began = Instant::now();
    until(&format!("{} to run elsewhere", vm.name), within, async || {
        let seen = client.get(&vm.id).await.map_err(|status| status.to_string())?;
        let is_there = seen.state() == vm::State::Running && seen.host != vm.host;
        if is_there {
            Ok(seen)
        } else {
            Err(format!("after {:?}: {seen:?}", began.elapsed()))
        }
    })
    .await
}
