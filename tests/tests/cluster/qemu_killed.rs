//! Scenario 4: a QEMU is killed. The state is true within a second, and the restart policy acts.

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{RestartPolicy, Vm, vm::State};
use plasmavmc_tests::cluster::{Client, Cluster, bare, measured, with_cluster};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Instant;

use crate::{SOON, done, only_qemu};

#[test]
fn a_killed_qemu_is_told_at_once_and_started_again() {
    with_cluster(3, |cluster| async move {
        let clients = cluster
            .nodes()
            .iter()
            .map(|node| node.client())
            .collect::<Result<Vec<_>>>()?;
        let first = clients.first().context("three")?;
        let vm = first.running(bare("phoenix")).await?;
        let pid = only_qemu(&cluster, &vm)?;
        let killed = kill(pid)?;
        for client in &clients {
            client
                .until_vm(&vm.id, "the state to leave RUNNING", SOON, |seen| {
                    seen.state() != State::Running || seen.pid != vm.pid
                })
                .await?;
        }
        measured("all nodes know that a QEMU was killed", killed);
        let again = first
            .until_vm(&vm.id, "it to run again", SOON, |seen| {
                seen.state() == State::Running && seen.pid != vm.pid
            })
            .await?;
        measured("it runs again", killed);
        ensure!(again.host == vm.host && again.last_exit.contains('9'), "{again:?}");
        only_qemu(&cluster, &again)?;
        Ok(())
    });
}

#[test]
fn a_crash_loop_ends_in_failed_with_the_reason_and_a_start_begins_anew() {
    with_cluster(1, |cluster| async move {
        let client = cluster.client(0)?;
        let mut request = bare("doomed");
        request.restart = Some(RestartPolicy {
            never: false,
            tries: 2,
            window_s: 600,
        });
        let vm = client.running(request).await?;
        let failed = crash_until_failed(&cluster, &client, &vm).await?;
        ensure!(!failed.reason.is_empty(), "it does not say why: {failed:?}");
        ensure!(cluster.site().qemus_of(&vm.id).is_empty(), "a failed VM runs");
        let explained = client
            .vms()
            .explain_vm(plasmavmc_proto::api::ExplainVmRequest { id: vm.id.clone() })
            .await?
            .into_inner();
        ensure!(!explained.summary.is_empty(), "{explained:?}");
        done(&client.start(&vm.id).await?)?;
        client.until_state(&vm.id, State::Running, SOON).await?;
        done(&client.delete(&vm.id, true).await?)?;
        cluster.until_no_debris(&client, SOON).await
    });
}

async fn crash_until_failed(cluster: &Cluster, client: &Client, vm: &Vm) -> Result<Vm> {
    let mut crashes = 0;
    let mut last = vm.pid;
    let begun = Instant::now();
    let mut pid = only_qemu(cluster, vm)?;
    loop {
        kill(pid)?;
        crashes += 1;
        let seen = client
            .until_vm(&vm.id, "another start, or the end of them", SOON, |seen| {
                seen.state() == State::Failed || (seen.state() == State::Running && seen.pid != last)
            })
            .await?;
        if seen.state() == State::Failed {
            measured(&format!("given up after {crashes} crashes"), begun);
            ensure!(crashes == 3, "two restarts were allowed, {crashes} crashes were seen");
            return Ok(seen);
        }
        ensure!(crashes < 10, "it is started for ever");
        last = seen.pid;
        pid = only_qemu(cluster, vm)?;
    }
}

fn kill(pid: i32) -> Result<Instant> {
    let killed = Instant::now();
    kill_process(Pid::from_raw(pid).context("a pid")?, Signal::KILL)?;
    Ok(killed)
}
