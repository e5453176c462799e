//! A disk without room under a server: what cannot be kept is refused, what runs goes on, and room is all it takes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Affinity, vm::State};
use plasmavmc_tests::cluster::{Client, HostedCluster, bare, code_and_reason, measured, until};
use plasmavmc_tests::hosts::DiskPlan;
use tonic::{Code, Status};

use crate::{SOON, done};

const DISK: DiskPlan = DiskPlan::Limited { mib: 160 };

fn with_full_disks(hosts: usize, test: impl AsyncFnOnce(&HostedCluster) -> Result<()> + Send) {
    let cluster = HostedCluster::build_with(hosts, DISK).unwrap();
    let outcome = cluster.run(|| async {
        cluster.form().await?;
        test(&cluster).await
    });
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

#[test]
fn a_full_disk_refuses_what_cannot_be_kept_and_stops_nothing() {
    with_full_disks(1, async |cluster| {
        let client = cluster.client(0)?;
        let kept = client.running(bare("kept")).await?;
        let qemus = cluster.qemus(0);
        cluster.lab()[0].fill_disk()?;
        let mut attempts = 0;
        let (request, refused) = until("a refusal for want of room", SOON, async || {
            // What was accepted before the room was looked at is kept, and would be answered again.
            attempts += 1;
            let mut request = bare(&format!("too-much-{attempts}"));
            request.powered_off = true;
            request.request_id = request.name.clone();
            match client.create(request.clone()).await {
                Err(status) if code_and_reason(&status) == (Code::ResourceExhausted, "DISK_FULL".to_owned()) => {
                    Ok((request, status))
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        ensure!(refused.message().contains("room"), "no remedy: {refused:?}");
        ensure!(cluster.qemus(0) == qemus, "a VM was touched");

        let freed = Instant::now();
        cluster.lab()[0].free_disk()?;
        let created = until("room to be noticed", SOON, async || {
            client.create(request.clone()).await
        })
        .await?;
        measured("a VM is accepted after there is room", freed);
        client.until_state(&created.id, State::Stopped, SOON).await?;
        let back = client.until_state(&kept.id, State::Running, SOON).await?;
        ensure!(back.pid == kept.pid, "{back:?}");
        for vm in client.list().await? {
            done(&client.delete(&vm.id, true).await?)?;
        }
        ensure!(cluster.qemus(0).is_empty());
        Ok(())
    });
}

#[test]
fn a_full_disk_of_the_leader_costs_an_election() {
    with_full_disks(3, async |cluster| {
        let asked = cluster.client(0)?;
        let leader = asked.status().await?.leader;
        let full = cluster.host_called(&leader)?;
        let others = (0..3).filter(|host| *host != full);
        let others = others
            .map(|host| cluster.client(host))
            .collect::<Result<Vec<Client>>>()?;
        let other = others.first().context("two others")?;
        let began = Instant::now();
        cluster.lab()[full].fill_disk()?;
        until("another leader", SOON, async || match other.status().await {
            Ok(status) if !status.leader.is_empty() && status.leader != leader => Ok(()),
            answer => Err(format!("{answer:?}")),
        })
        .await?;
        measured("another host leads after the leader's disk was full", began);
        let mut request = bare("elsewhere");
        request.request_id = "elsewhere".to_owned();
        // Its own host has no room for what QEMU writes, either.
        let roomy = (0..3).filter(|host| *host != full).map(|host| format!("h{}", host + 1));
        request.affinity = Some(Affinity {
            hosts: roomy.collect(),
            ..Affinity::default()
        });
        let created: Result<_, _> = until("a VM from the others", SOON, async || {
            other
                .create(request.clone())
                .await
                .map_err(|status: Status| status.to_string())
        })
        .await;
        let created = created?;
        other.until_state(&created.id, State::Running, SOON).await?;
        measured("a VM runs after the leader's disk was full", began);
        cluster.lab()[full].free_disk()?;
        for host in 0..3 {
            cluster.until_whole(host, 3).await?;
        }
        done(&cluster.client(full)?.delete(&created.id, true).await?)?;
        Ok(())
    });
}
