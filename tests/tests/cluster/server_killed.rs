//! Scenarios 2 and 3: a server is killed; what it ran goes on; it comes back and takes over what is there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{host, vm::State};
use plasmavmc_tests::cluster::{Cluster, bare, code_and_reason, measured, micro, until, with_cluster};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{BOOT, SOON, done, only_qemu};

#[test]
fn a_killed_server_is_noticed_its_vms_run_on_and_are_adopted() {
    with_cluster(3, |cluster| async move {
        let first = cluster.client(0)?;
        let vm = first.running(bare("survivor")).await?;
        let pid = only_qemu(&cluster, &vm)?;
        let owner = cluster.node_called(&vm.host)?;

        let killed = owner.kill();
        for other in cluster.others(owner) {
            let client = other.client()?;
            let seen = client
                .get(&vm.id)
                .await
                .with_context(|| format!("asking {}", other.name))?;
            ensure!(seen.id == vm.id && seen.host == vm.host, "{seen:?}");
        }
        measured("the others answer after a server was killed", killed);
        let other = cluster.others(owner).first().context("another")?.client()?;
        cluster
            .until_host(&other, &owner.name, host::State::Fenced, SOON)
            .await?;
        measured("a host whose server was killed is given up", killed);
        let unknown = other.until_state(&vm.id, State::Unknown, SOON).await?;
        ensure!(unknown.last_heard_ms > 0, "{unknown:?}");
        ensure!(only_qemu(&cluster, &vm)? == pid, "its QEMU does not run on");

        let started = cluster.restart(owner, &[])?;
        let client = owner.client()?;
        let seen = client.until_state(&vm.id, State::Running, SOON).await?;
        measured("a restarted server has adopted its VM", started);
        ensure!(seen.pid == vm.pid && only_qemu(&cluster, &vm)? == pid, "{seen:?}");
        // Adopted, not merely believed in: it still obeys.
        done(&other.stop(&vm.id, true).await?)?;
        ensure!(cluster.site().qemus_of(&vm.id).is_empty());
        done(&other.delete(&vm.id, false).await?)?;
        cluster.until_no_debris(&other, SOON).await
    });
}

#[test]
fn what_happened_while_a_server_was_away_is_true_after_it_came_back() {
    with_cluster(1, |cluster| async move {
        let node = cluster.nodes().first().context("one")?;
        let client = cluster.client(0)?;
        let mut vms = Vec::new();
        for name in ["stays", "dies", "obeys"] {
            let mut request = bare(name);
            // What died is not started again, so that one sees what was found.
            request.restart = Some(plasmavmc_proto::api::RestartPolicy {
                never: true,
                ..Default::default()
            });
            vms.push(client.running(request).await?);
        }
        let [stays, dies, obeys] = vms.as_slice() else {
            anyhow::bail!("three");
        };
        let pid = only_qemu(&cluster, stays)?;
        let victim = Pid::from_raw(only_qemu(&cluster, dies)?).context("a pid")?;
        node.kill();
        kill_process(victim, Signal::KILL)?;
        let started = cluster.restart(node, &[])?;
        cluster.until_serves(node).await?;
        let failed = client
            .until_vm(&dies.id, "the dead VM to be told as such", SOON, |vm| {
                !matches!(vm.state(), State::Running | State::Starting | State::Unknown)
            })
            .await?;
        measured("state is true after a restart", started);
        ensure!(!failed.reason.is_empty(), "it does not say why: {failed:?}");
        let seen = client.until_state(&stays.id, State::Running, SOON).await?;
        ensure!(seen.pid == u32::try_from(pid)?, "{seen:?}");
        done(&client.stop(&obeys.id, true).await?)?;
        for vm in [stays, dies, obeys] {
            done(&client.delete(&vm.id, true).await?)?;
        }
        cluster.until_no_debris(&client, SOON).await
    });
}

#[test]
fn a_server_that_is_told_to_end_ends_and_its_vms_run_on() {
    with_cluster(1, |cluster| async move {
        let node = cluster.nodes().first().context("one")?;
        let client = cluster.client(0)?;
        let vm = client.running(bare("upgraded")).await?;
        let pid = only_qemu(&cluster, &vm)?;
        for _ in 0..3 {
            let begun = Instant::now();
            node.stop()?;
            measured("a server ends on SIGTERM", begun);
            ensure!(only_qemu(&cluster, &vm)? == pid);
            let started = cluster.restart(node, &[])?;
            let client = cluster.until_serves(node).await?;
            client.until_state(&vm.id, State::Running, SOON).await?;
            measured("it serves again", started);
            ensure!(only_qemu(&cluster, &vm)? == pid);
        }
        Ok(())
    });
}

#[test]
fn a_leader_that_is_killed_leaves_a_cluster_that_creates_vms() {
    with_cluster(3, |cluster| async move {
        let leader = cluster.leader(&cluster.client(0)?).await?;
        let killed = leader.kill();
        let other = cluster.others(leader).first().context("another")?.client()?;
        let vm = create_despite(&other, SOON).await?;
        measured("a VM runs that was ordered after the leader's death", killed);
        ensure!(vm.host != leader.name, "it is placed on a dead host: {vm:?}");
        cluster.restart(leader, &[])?;
        cluster.until_all_whole().await
    });
}

/// Calls that fall into an election may be refused; they are repeated with the same request id.
async fn create_despite(
    client: &plasmavmc_tests::cluster::Client,
    within: Duration,
) -> Result<plasmavmc_proto::api::Vm> {
    let mut request = bare("after-the-leader");
    request.wait = true;
    request.request_id = "create-after-the-leader".to_owned();
    let created =
        plasmavmc_tests::cluster::until("a VM", within, async || client.create(request.clone()).await).await?;
    client.until_state(&created.id, State::Running, within).await
}

#[test]
fn the_console_of_a_vm_here_needs_no_quorum() {
    with_cluster(3, |cluster| async move {
        let vm = cluster.client(0)?.running(micro("lonely", "")?).await?;
        let owner = cluster.node_called(&vm.host)?;
        until_shown(&cluster, &owner.api, "micro: booted", BOOT).await?;
        for other in cluster.others(owner) {
            other.kill();
        }
        until_shown(&cluster, &owner.api, "micro: booted", SOON).await?;
        let refused = owner.client()?.get(&vm.id).await;
        let is_cut_off = refused.as_ref().is_err_and(|status| {
            let remedy = status
                .get_details_error_info()
                .and_then(|info| info.metadata.get("remedy").cloned());
            code_and_reason(status) == (Code::Unavailable, "NO_QUORUM".to_owned()) && remedy.is_some()
        });
        ensure!(is_cut_off, "{refused:?}");
        Ok(())
    });
}

/// Looks at the console with the command line until it has shown this.
async fn until_shown(cluster: &Cluster, server: &str, wanted: &str, within: Duration) -> Result<()> {
    until("the console", within, async || {
        let output = tokio::process::Command::new(&cluster.programs().cli)
            .args(["--server", server, "vm", "console", "lonely", "--linger", "500ms"])
            .stdin(std::process::Stdio::null())
            .output()
            .await;
        let output = output.map_err(|error| error.to_string())?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if text.contains(wanted) { Ok(()) } else { Err(text) }
    })
    .await
}
