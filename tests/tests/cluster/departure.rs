//! A host is shut down, on purpose: its guests power off first, and what can run elsewhere does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Affinity, HaPolicy, Host, host, vm::State};
use plasmavmc_tests::cluster::ha::{leader, leased_on, movable, state_of, until_elsewhere};
use plasmavmc_tests::cluster::{HostedCluster, measured, micro, until};

use crate::failover::on_hosts;
use crate::{BOOT, SOON};

const HOSTS: usize = 3;
/// For guests to power off, in these tests.
const WITHIN: Duration = Duration::from_secs(20);

async fn host_of(cluster: &HostedCluster, asked: usize, host: usize) -> Result<Host> {
    let hosts = cluster.client(asked)?.list_hosts().await?;
    let name = cluster.name(host);
    hosts.into_iter().find(|host| host.name == name).context("the host")
}

#[test]
fn what_runs_on_a_host_that_is_shut_down_leaves_it_or_waits_for_it() {
    on_hosts(HOSTS, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let (leaves, asked) = ((leads + 1) % HOSTS, leads);
        let client = cluster.client(asked)?;
        let mut willing = micro("willing", "")?;
        willing.set_ha(HaPolicy::Auto);
        let willing = leased_on(&cluster, leaves, willing).await?;
        // Without a guest, it cannot power off.
        let deaf = leased_on(&cluster, leaves, movable("deaf")).await?;
        let mut bound = micro("bound", "")?;
        bound.affinity = Some(Affinity {
            hosts: vec![cluster.name(leaves)],
            ..Affinity::default()
        });
        let bound = client.running(bound).await?;
        for vm in [&willing, &bound] {
            let answers = |vm: &plasmavmc_proto::api::Vm| vm.agent == "responding";
            client.until_vm(&vm.id, "the agent to answer", BOOT, answers).await?;
        }

        let begun = Instant::now();
        let within = format!("{}s", WITHIN.as_secs());
        let words = ["host", "prepare-shutdown", "--this-host", "--within", &within];
        let cli = cluster.programs().cli.clone();
        let moves = async {
            let moved = until_elsewhere(&cluster, asked, &willing, BOOT).await?;
            Ok::<_, anyhow::Error>((
                moved,
                measured("a VM of a host that is shut down runs elsewhere", begun),
            ))
        };
        let ((is_done, said), moved) = tokio::try_join!(cluster.runs(leaves, &cli, &words, BOOT), moves)?;
        let took = measured("a host with a deaf guest is empty", begun);
        ensure!(is_done && took >= WITHIN, "after {took:?}: {said}");
        ensure!(moved.1 < WITHIN, "its plug was pulled: {:?}", moved.1);
        ensure!(moved.0.incarnation == willing.incarnation + 1, "{:?}", moved.0);
        ensure!(cluster.qemus(leaves).is_empty(), "{:?}", cluster.qemus(leaves));
        until_elsewhere(&cluster, asked, &deaf, SOON).await?;
        let waits = client.until_state(&bound.id, State::Stopped, SOON).await?;
        ensure!(waits.host == bound.host, "{waits:?}");
        let shown = host_of(&cluster, asked, leaves).await?;
        ensure!(shown.mode() == host::Mode::ShuttingDown, "{shown:?}");

        goes_and_comes_back(&cluster, leaves, asked, &bound.id).await?;
        let still = client.get(&willing.id).await?;
        ensure!(still.pid == moved.0.pid && still.host == moved.0.host, "{still:?}");
        Ok(())
    });
}

#[test]
fn what_is_to_stay_waits_for_its_host_though_others_have_room() {
    on_hosts(HOSTS, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let (leaves, asked) = ((leads + 1) % HOSTS, leads);
        let client = cluster.client(asked)?;
        let vm = leased_on(&cluster, leaves, movable("faithful")).await?;
        let words = [
            "host",
            "prepare-shutdown",
            "--this-host",
            "--vms",
            "stay",
            "--within",
            "1s",
        ];
        let cli = cluster.programs().cli.clone();
        let (is_done, said) = cluster.runs(leaves, &cli, &words, BOOT).await?;
        ensure!(is_done, "{said}");
        ensure!(cluster.qemus(leaves).is_empty(), "{:?}", cluster.qemus(leaves));
        client.until_state(&vm.id, State::Stopped, SOON).await?;

        goes_down(&cluster, leaves, asked).await?;
        // One that is placed after the host was given up shows that the leader has planned since, and left the other.
        client.running(movable("later")).await?;
        let waits = client.get(&vm.id).await?;
        ensure!(
            waits.state() == State::Stopped && waits.host == vm.host && waits.incarnation == vm.incarnation,
            "{waits:?}"
        );

        comes_back(&cluster, leaves, asked).await?;
        let runs = client.until_state(&vm.id, State::Running, SOON).await?;
        ensure!(runs.host == vm.host && runs.incarnation == vm.incarnation, "{runs:?}");
        Ok(())
    });
}

/// It goes down, which alarms nobody, and is a host like any other when it is back.
async fn goes_and_comes_back(cluster: &HostedCluster, leaves: usize, asked: usize, bound: &str) -> Result<()> {
    goes_down(cluster, leaves, asked).await?;
    comes_back(cluster, leaves, asked).await?;
    cluster.client(asked)?.until_state(bound, State::Running, SOON).await?;
    Ok(())
}

/// Until it is fenced.
async fn goes_down(cluster: &HostedCluster, leaves: usize, asked: usize) -> Result<()> {
    cluster.lab()[leaves].power_cut()?;
    until("the host to be fenced", SOON, async || {
        let shown = host_of(cluster, asked, leaves)
            .await
            .map_err(|error| error.to_string())?;
        match shown.state() {
            host::State::Fenced => Ok(()),
            _ => Err(format!("{shown:?}")),
        }
    })
    .await?;
    let warnings = cluster.client(asked)?.status().await?.warnings;
    let name = cluster.name(leaves);
    ensure!(!warnings.iter().any(|warning| warning.contains(&name)), "{warnings:?}");
    Ok(())
}

async fn comes_back(cluster: &HostedCluster, leaves: usize, asked: usize) -> Result<()> {
    cluster.boots_anew(leaves)?;
    cluster.lab()[leaves].power_on()?;
    cluster.serve(leaves, &[])?;
    cluster.until_whole(asked, HOSTS).await?;
    let shown = host_of(cluster, asked, leaves).await?;
    ensure!(shown.mode() == host::Mode::Active, "{shown:?}");
    Ok(())
}

#[test]
fn a_host_that_is_cut_off_and_shut_down_lets_nothing_execute_once_more() {
    on_hosts(HOSTS, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let (leaves, asked) = ((leads + 1) % HOSTS, leads);
        let vm = leased_on(&cluster, leaves, movable("islander")).await?;
        let qemus = cluster.qemus(leaves);
        let mainland: Vec<usize> = (0..HOSTS).filter(|host| *host != leaves).collect();
        cluster.lab().partition(&[&[leaves], &mainland])?;
        until("the VM to be frozen", SOON, async || {
            let states: Vec<_> = qemus.iter().map(|pid| state_of(*pid)).collect();
            match states.as_slice() {
                ['T'] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let cli = cluster.programs().cli.clone();
        let words = ["--timeout", "3s", "host", "prepare-shutdown", "--this-host"];
        let (is_done, said) = cluster.runs(leaves, &cli, &words, SOON).await?;
        ensure!(!is_done && said.contains("cannot prepare the shutdown"), "{said}");

        let server = cluster.programs().server.clone();
        let dir = cluster.dir(leaves).to_string_lossy().into_owned();
        let (is_done, said) = cluster.runs(leaves, &server, &["--dir", &dir, "end-vms"], SOON).await?;
        ensure!(is_done && said.contains("killed what had not powered off: 1"), "{said}");
        ensure!(cluster.qemus(leaves).is_empty(), "{:?}", cluster.qemus(leaves));
        let (is_done, said) = cluster.runs(leaves, &server, &["--dir", &dir, "end-vms"], SOON).await?;
        ensure!(is_done && said.contains("no QEMU was left"), "{said}");
        let moved = until_elsewhere(&cluster, asked, &vm, SOON).await?;
        ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
        Ok(())
    });
}
