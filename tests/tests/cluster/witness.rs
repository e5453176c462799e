//! Two hosts and a witness: whichever of the three is lost, and whichever leads, the VMs go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plasmavmc_proto::api::{Vm, host, vm::State};
use plasmavmc_tests::cluster::ha::{leader, movable, running_leased, until_elsewhere, until_leads, watched};
use plasmavmc_tests::cluster::{HostedCluster, code_and_reason, measured, until};

use crate::SOON;

const WITNESS: usize = 2;
const ELSEWHERE_WITHIN: Duration = Duration::from_secs(20);
/// What the manual promises.
const MOST_MEMORY_KB: u64 = 60 << 10;

/// Two hosts, a witness, and what watches them.
fn on_two_and_a_witness<F: Future<Output = Result<()>>>(test: impl FnOnce(Arc<HostedCluster>) -> F + Send) {
    watched(HostedCluster::build(3), &["--witness"], |cluster, _| test(cluster));
}

/// Cuts the power of one and sees that the VM runs: elsewhere, or as before. Then all are there again.
async fn lose(cluster: &HostedCluster, victim: usize, vm: &Vm) -> Result<Vm> {
    let asked = if victim == WITNESS { 0 } else { 1 - victim };
    let is_hit = cluster.host_called(&vm.host)? == victim;
    let cut = Instant::now();
    cluster.lab()[victim].power_cut()?;
    let seen = if is_hit {
        let moved = until_elsewhere(cluster, asked, vm, ELSEWHERE_WITHIN).await?;
        measured("a VM of a host without power runs on the only other one", cut);
        ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
        ensure!(cut.elapsed() < ELSEWHERE_WITHIN, "{:?}", cut.elapsed());
        moved
    } else {
        until_noticed(cluster, asked, victim).await?;
        let seen = cluster.client(asked)?.get(&vm.id).await?;
        ensure!(
            seen.state() == State::Running && seen.pid == vm.pid && seen.incarnation == vm.incarnation,
            "{seen:?}"
        );
        seen
    };
    cluster.lab()[victim].power_on()?;
    // Not told again what it is.
    cluster.serve(victim, &[])?;
    cluster.until_whole(asked, 3).await?;
    Ok(seen)
}

/// Waits until the others go on without the one that was lost, and say so.
async fn until_noticed(cluster: &HostedCluster, asked: usize, victim: usize) -> Result<()> {
    let client = cluster.client(asked)?;
    until("the loss to be noticed", SOON, async || {
        let status = client.status().await.map_err(|status| status.to_string())?;
        let lost = status
            .members
            .iter()
            .find(|member| member.name == format!("h{}", victim + 1));
        match lost {
            Some(lost) if status.has_quorum && !lost.is_reachable && !status.leader.is_empty() => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    })
    .await
}

#[test]
fn a_witness_votes_and_runs_nothing() {
    on_two_and_a_witness(|cluster| async move {
        // Any member answers, this one too.
        let client = cluster.client(WITNESS)?;
        let vm = running_leased(&client, movable("first")).await?;
        ensure!(cluster.host_called(&vm.host)? != WITNESS, "{vm:?}");
        let hosts = client.list_hosts().await?;
        let states: Vec<host::State> = hosts.iter().map(|host| host.state()).collect();
        ensure!(
            states == [host::State::Alive, host::State::Alive, host::State::Witness],
            "{hosts:?}"
        );
        let status = cluster.client(0)?.status().await?;
        ensure!(
            (status.hosts, status.hosts_alive, status.witnesses) == (2, 2, 1) && status.warnings.is_empty(),
            "{status:?}"
        );
        let leases: Vec<(&str, u32)> = status
            .leases
            .iter()
            .map(|lease| (&*lease.host, lease.leased_vms))
            .collect();
        ensure!(
            leases == [(&*vm.host, 1)] && status.unprotected.is_empty() && status.losses.is_empty(),
            "{status:?}"
        );
        ensure!(
            status.members.iter().filter(|member| member.role != "learner").count() == 3,
            "{status:?}"
        );
        let refused = client.drain("h3").await.unwrap_err();
        ensure!(code_and_reason(&refused).1 == "HOST_IS_WITNESS", "{refused:?}");
        let memory_kb = cluster.server_memory_kb(WITNESS)?;
        println!("the witness takes {} MB", memory_kb / 1024);
        ensure!(memory_kb < MOST_MEMORY_KB, "{memory_kb} kB");
        ensure!(
            cluster.lab()[WITNESS].processes().len() <= 2,
            "something else runs on the witness"
        );
        Ok(())
    });
}

#[test]
fn each_of_two_hosts_and_a_witness_may_be_lost() {
    on_two_and_a_witness(|cluster| async move {
        let mut vm = running_leased(&cluster.client(0)?, movable("wanderer")).await?;
        for victim in [WITNESS, 0, 1] {
            vm = lose(&cluster, victim, &vm).await?;
        }
        Ok(())
    });
}

#[test]
fn a_witness_that_leads_fails_over_and_may_be_lost_as_well() {
    on_two_and_a_witness(|cluster| async move {
        let vm = running_leased(&cluster.client(0)?, movable("wanderer")).await?;
        until_leads(&cluster, WITNESS).await?;
        let victim = cluster.host_called(&vm.host)?;
        let vm = lose(&cluster, victim, &vm).await?;
        ensure!(leader(&cluster, 0).await? == WITNESS, "it was to lead all the time");
        lose(&cluster, WITNESS, &vm).await?;
        Ok(())
    });
}
