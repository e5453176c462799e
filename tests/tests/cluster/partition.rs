//! Hosts cut off from each other: nobody is killed, what is said is true, and all comes back by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::vm::State;
use plasmavmc_tests::cluster::{Client, HostedCluster, bare, measured, until};
use tonic::Code;

use crate::{SOON, done};

#[test]
fn a_host_that_is_cut_off_keeps_its_vms_and_comes_back() {
    let cluster = HostedCluster::build(3).unwrap();
    let outcome = cluster.run(async || {
        cluster.form().await?;
        cut_off_and_back(&cluster).await
    });
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

async fn cut_off_and_back(cluster: &HostedCluster) -> Result<()> {
    let asked = cluster.client(0)?;
    let mut request = bare("islander");
    // On a follower or the leader, as it happens: the host that is cut off is the one that runs it.
    request.affinity = None;
    let vm = asked.running(request).await?;
    let island = cluster.host_called(&vm.host)?;
    let mainland: Vec<usize> = (0..3).filter(|host| *host != island).collect();
    let before = cluster.qemus(island);
    ensure!(before.len() == 1, "{before:?}");

    let cut = Instant::now();
    cluster.lab().partition(&[&[island], &mainland])?;
    let first = cluster.client(*mainland.first().context("two")?)?;
    until("the mainland to serve", SOON, async || first.get(&vm.id).await).await?;
    let unknown = first.until_state(&vm.id, State::Unknown, SOON).await?;
    measured("the VM of a host that is cut off is told as unknown", cut);
    ensure!(unknown.last_heard_ms > 0, "{unknown:?}");
    let other = running_despite(&first).await?;
    ensure!(other.host != vm.host, "placed on the host that is cut off: {other:?}");

    let lonely = Client::with_deadline(&cluster.api(island), Duration::from_secs(5))?;
    let refused = lonely.create(bare("on-the-island")).await;
    let codes = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
    ensure!(
        refused.as_ref().is_err_and(|status| codes.contains(&status.code())),
        "{refused:?}"
    );
    ensure!(cluster.qemus(island) == before, "its VM was touched");

    let healed = Instant::now();
    cluster.lab().heal()?;
    let back = first.until_state(&vm.id, State::Running, SOON).await?;
    measured("it is known again after the network is mended", healed);
    ensure!(back.pid == vm.pid && cluster.qemus(island) == before, "{back:?}");
    for host in 0..3 {
        cluster.until_whole(host, 3).await?;
    }
    for id in [&vm.id, &other.id] {
        done(&cluster.client(island)?.delete(id, true).await?)?;
    }
    Ok(())
}

/// A call that falls into an election may be refused.
async fn running_despite(client: &Client) -> Result<plasmavmc_proto::api::Vm> {
    let mut request = bare("mainlander");
    request.request_id = "mainlander".to_owned();
    let created = until("a VM on the mainland", SOON, async || {
        client.create(request.clone()).await
    })
    .await?;
    client.until_state(&created.id, State::Running, SOON).await
}
