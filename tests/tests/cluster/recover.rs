//! The majority is lost for good, and what one member knows goes on.

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Vm, host, vm::State};
use plasmavmc_tests::cluster::ha::{movable, running_leased};
use plasmavmc_tests::cluster::{Cluster, Node, until, with_cluster};

use crate::{SOON, only_qemu};

const ACCEPT: &str = "--i-accept-that-what-only-the-lost-members-knew-is-lost";
/// Above this are the incarnations of a cluster that was recovered.
const RECOVERED: u64 = 1 << 32;

/// A leased VM on one host.
async fn vm_on(cluster: &Cluster, node: &Node, name: &str) -> Result<Vm> {
    let client = node.client()?;
    for other in cluster.others(node) {
        client.drain(&other.name).await?;
    }
    let vm = running_leased(&client, movable(name)).await?;
    for other in cluster.others(node) {
        client.activate(&other.name).await?;
    }
    ensure!(vm.host == node.name, "{vm:?}");
    Ok(vm)
}

fn refused(cluster: &Cluster, node: &Node, more: &[&str], why: &str) -> Result<()> {
    let (is_done, said) = node.recover(cluster.programs(), more)?;
    ensure!(!is_done && said.contains(why), "{said}");
    Ok(())
}

/// The machine of a node loses its power, as far as that can be had on this one.
fn switch_off(cluster: &Cluster, node: &Node) -> Result<()> {
    node.kill();
    for pid in cluster.site().qemus(node.dir()) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    Ok(())
}

#[test]
fn one_member_goes_on_when_the_others_are_lost_for_good() {
    with_cluster(3, |cluster| async move {
        let [left, lost, back] = cluster.nodes() else {
            anyhow::bail!("not three");
        };
        let client = left.client()?;
        let kept = vm_on(&cluster, left, "kept").await?;
        let stranded = vm_on(&cluster, lost, "stranded").await?;
        let before = client.status().await?.cluster_id;

        refused(&cluster, left, &[ACCEPT], "in use by another server")?;
        left.stop()?;
        refused(&cluster, left, &[ACCEPT], "refused: 2 of the 3 voters answer")?;
        switch_off(&cluster, lost)?;
        refused(&cluster, left, &[ACCEPT], "refused: 1 of the 3 voters answer")?;
        switch_off(&cluster, back)?;
        refused(&cluster, left, &[], "nothing was changed")?;
        let (is_done, said) = left.recover(cluster.programs(), &[ACCEPT])?;
        ensure!(is_done && said.contains("plasmavmc cluster remove h2 --dead"), "{said}");

        goes_on_anew(&cluster, left, &before, &kept).await?;
        nobody_comes_back_as_he_was(&cluster, left, back, &before).await?;
        confirmed_off_it_moves(&cluster, left, lost, &stranded).await
    });
}

/// All members are lost with their stores. What a backup knows goes on, and what came after it is lost.
#[test]
fn a_backup_goes_on_when_every_member_is_lost() {
    with_cluster(3, |cluster| async move {
        let [left, lost, other] = cluster.nodes() else {
            anyhow::bail!("not three");
        };
        let client = left.client()?;
        let kept = vm_on(&cluster, left, "kept").await?;
        let stranded = vm_on(&cluster, lost, "stranded").await?;
        let before = client.status().await?.cluster_id;
        let file = cluster.site().folder().join("store.backup");
        left.back_up(cluster.programs(), &file)?;
        let later = vm_on(&cluster, left, "later").await?;
        for node in [left, lost, other] {
            switch_off(&cluster, node)?;
        }
        let backup = ["--backup", file.to_str().context("a plain path")?];
        refused(&cluster, left, &backup, "holds a store already")?;
        std::fs::remove_dir_all(left.dir().join("chainfire"))?;
        refused(&cluster, left, &backup, "nothing was changed")?;
        let spoilt = cluster.site().folder().join("spoilt.backup");
        let mut bytes = std::fs::read(&file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&spoilt, bytes)?;
        let from_spoilt = ["--backup", spoilt.to_str().context("a plain path")?, ACCEPT];
        refused(&cluster, left, &from_spoilt, "spoilt.backup")?;
        let (is_done, said) = left.recover(cluster.programs(), &[backup[0], backup[1], ACCEPT])?;
        ensure!(is_done && said.contains("plasmavmc cluster remove h2 --dead"), "{said}");
        goes_on_anew(&cluster, left, &before, &kept).await?;
        let gone = client.get(&later.id).await.unwrap_err();
        ensure!(gone.code() == tonic::Code::NotFound, "{gone:?}");
        confirmed_off_it_moves(&cluster, left, lost, &stranded).await
    });
}

/// One member is a cluster of its own, and what it knew to run on it runs there again.
async fn goes_on_anew(cluster: &Cluster, left: &Node, before: &str, kept: &Vm) -> Result<()> {
    cluster.restart(left, &[])?;
    let client = cluster.until_serves(left).await?;
    let status = client.status().await?;
    ensure!(status.cluster_id != before && status.members.len() == 1, "{status:?}");
    let after = client.create(movable("after")).await?;
    let after = client.until_state(&after.id, State::Running, SOON).await?;
    ensure!(after.incarnation > RECOVERED, "{after:?}");
    // It was leased: what the lost members may have made of it is not known, and here it starts anew.
    let what = "what ran here to run anew";
    let is_anew = |vm: &Vm| vm.state() == State::Running && vm.incarnation > RECOVERED;
    let kept = client.until_vm(&kept.id, what, SOON, is_anew).await?;
    only_qemu(cluster, &kept)?;
    Ok(())
}

/// Its member is of another cluster now, whatever it knows.
async fn nobody_comes_back_as_he_was(cluster: &Cluster, left: &Node, back: &Node, before: &str) -> Result<()> {
    cluster.restart(back, &[])?;
    let old = back.client()?;
    until("the old member to be there, without a quorum", SOON, async || {
        let status = old.status().await.map_err(|status| status.to_string())?;
        if status.cluster_id == before && !status.has_quorum {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await?;
    let status = left.client()?.status().await?;
    ensure!(status.has_quorum && status.members.len() == 1, "{status:?}");
    back.kill();
    Ok(())
}

/// What the lost host had stays where it is until somebody says that the host is off.
async fn confirmed_off_it_moves(cluster: &Cluster, left: &Node, lost: &Node, stranded: &Vm) -> Result<()> {
    let client = left.client()?;
    cluster
        .until_host(&client, &lost.name, host::State::Fenced, SOON)
        .await?;
    let seen = client.get(&stranded.id).await?;
    ensure!(
        seen.state() == State::Unknown && seen.host == lost.name && seen.reason.contains("was recovered"),
        "{seen:?}"
    );
    ensure!(seen.incarnation == stranded.incarnation, "{seen:?}");
    client.remove_dead(&lost.name).await?;
    let moved = client.until_state(&stranded.id, State::Running, SOON).await?;
    ensure!(moved.host == left.name && moved.incarnation > RECOVERED, "{moved:?}");
    only_qemu(cluster, &moved)?;
    Ok(())
}
