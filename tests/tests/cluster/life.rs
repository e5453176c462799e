//! Scenario 1: a VM is created through any node, runs on some host, and is seen alike from all.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{PauseVmRequest, ResetVmRequest, RestartVmRequest, ResumeVmRequest, Vm, vm::State};
use plasmavmc_tests::cluster::{Client, bare, measured, with_cluster};

use crate::{SOON, done, only_qemu};

#[test]
fn a_vm_is_created_through_any_node_and_seen_alike_from_all() {
    with_cluster(3, |cluster| async move {
        let mut created = Vec::new();
        for node in cluster.nodes() {
            let begun = Instant::now();
            let vm = node.client()?.running(bare(&format!("through-{}", node.name))).await?;
            measured(&format!("created through {}, runs on {}", node.name, vm.host), begun);
            created.push(vm);
        }
        for node in cluster.nodes() {
            let client = node.client()?;
            let listed = client.list().await?;
            ensure!(listed.len() == created.len(), "{} lists {listed:?}", node.name);
            for vm in &created {
                for key in [vm.id.clone(), vm.name.clone(), vm.vmid.to_string()] {
                    let seen = client.get(&key).await.with_context(|| format!("getting {key}"))?;
                    same(vm, &seen)?;
                }
                let seen = listed.iter().find(|listed| listed.id == vm.id).context("not listed")?;
                same(vm, seen)?;
            }
        }
        for vm in &created {
            let pid = only_qemu(&cluster, vm)?;
            ensure!(
                vm.pid == u32::try_from(pid)?,
                "{} is process {pid}, not {}",
                vm.name,
                vm.pid
            );
            let host = cluster.node_called(&vm.host)?;
            let there = cluster.site().qemus(host.dir());
            ensure!(
                there.iter().any(|other| other.as_raw_pid() == pid),
                "not on {}",
                vm.host
            );
        }
        Ok(())
    });
}

fn same(expected: &Vm, seen: &Vm) -> Result<()> {
    let key = |vm: &Vm| {
        (
            vm.id.clone(),
            vm.name.clone(),
            vm.vmid,
            vm.state,
            vm.host.clone(),
            vm.pid,
        )
    };
    ensure!(key(expected) == key(seen), "{expected:?} was created, {seen:?} is seen");
    Ok(())
}

#[test]
fn a_vm_goes_through_its_life_and_leaves_nothing() {
    with_cluster(3, |cluster| async move {
        // Every call goes through another node: none is special.
        let clients: Vec<Client> = cluster
            .nodes()
            .iter()
            .map(|node| node.client())
            .collect::<Result<_>>()?;
        let [a, b, c] = clients.as_slice() else {
            anyhow::bail!("three nodes");
        };
        let vm = a.running(bare("life")).await?;
        let id = vm.id.clone();
        let first = only_qemu(&cluster, &vm)?;

        let wait = true;
        let request = PauseVmRequest {
            id: id.clone(),
            wait,
            ..Default::default()
        };
        done(&b.vms().pause_vm(request).await?.into_inner())?;
        c.until_state(&id, State::Paused, SOON).await?;
        let request = ResumeVmRequest {
            id: id.clone(),
            wait,
            ..Default::default()
        };
        done(&c.vms().resume_vm(request).await?.into_inner())?;
        a.until_state(&id, State::Running, SOON).await?;
        let request = ResetVmRequest {
            id: id.clone(),
            wait,
            ..Default::default()
        };
        done(&a.vms().reset_vm(request).await?.into_inner())?;
        ensure!(only_qemu(&cluster, &vm)? == first, "a reset keeps the process");

        let request = RestartVmRequest {
            id: id.clone(),
            force: true,
            wait,
            ..Default::default()
        };
        done(&b.vms().restart_vm(request).await?.into_inner())?;
        b.until_state(&id, State::Running, SOON).await?;
        ensure!(only_qemu(&cluster, &vm)? != first, "a restart is a new process");

        done(&b.stop(&id, true).await?)?;
        let stopped = c.until_state(&id, State::Stopped, SOON).await?;
        ensure!(
            !stopped.power_on && cluster.site().qemus_of(&id).is_empty(),
            "{stopped:?}"
        );
        done(&c.stop(&id, true).await?).context("stopping what is stopped")?;
        done(&c.start(&id).await?)?;
        done(&a.start(&id).await?).context("starting what runs")?;
        let again = a.until_state(&id, State::Running, SOON).await?;
        only_qemu(&cluster, &again)?;

        done(&b.delete(&id, true).await?)?;
        let gone = a.get(&id).await;
        ensure!(
            gone.as_ref()
                .is_err_and(|status| status.code() == tonic::Code::NotFound),
            "{gone:?}"
        );
        cluster.until_no_debris(c, SOON).await
    });
}
