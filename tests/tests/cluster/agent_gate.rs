//! I9: a graceful action begins only if the guest agent has just answered, else it fails fast and says why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Operation, RebootVmRequest, RestartVmRequest, StopVmRequest, operation, vm::State};
use plasmavmc_tests::cluster::{Client, measured, micro, with_cluster};
use tonic::{Code, Status};

use crate::{BOOT, SOON, done, only_qemu};

#[test]
fn graceful_actions_need_an_agent_that_answers_and_refuse_without_one() {
    with_cluster(1, |cluster| async move {
        let client = cluster.client(0)?;
        let begun = Instant::now();
        let willing = client.running(micro("willing", "")?).await?;
        let mute = client.running(micro("mute", "micro.do=mute")?).await?;
        let answers = |vm: &plasmavmc_proto::api::Vm| vm.agent == "responding";
        client
            .until_vm(&willing.id, "the agent to answer", BOOT, answers)
            .await?;
        measured("an agent answers after its VM was ordered", begun);

        let pid = only_qemu(&cluster, &willing)?;
        let wait = true;
        let request = RebootVmRequest {
            id: willing.id.clone(),
            wait,
            ..Default::default()
        };
        done(&client.vms().reboot_vm(request).await?.into_inner())?;
        ensure!(only_qemu(&cluster, &willing)? == pid, "a reboot keeps the process");
        client
            .until_vm(&willing.id, "the agent to answer", BOOT, answers)
            .await?;
        let request = RestartVmRequest {
            id: willing.id.clone(),
            wait,
            ..Default::default()
        };
        done(&client.vms().restart_vm(request).await?.into_inner())?;
        ensure!(only_qemu(&cluster, &willing)? != pid, "a restart is a new process");
        client
            .until_vm(&willing.id, "the agent to answer", BOOT, answers)
            .await?;
        done(&client.stop(&willing.id, false).await?)?;
        client.until_state(&willing.id, State::Stopped, SOON).await?;

        client
            .until_vm(&mute.id, "the mute agent to be known as such", BOOT, |vm| {
                vm.agent == "not_responding"
            })
            .await?;
        refuses(&client, &mute.id).await?;
        ensure!(client.get(&mute.id).await?.state() == State::Running, "it was touched");
        done(&client.stop(&mute.id, true).await?).context("pulling the plug")?;
        for vm in [&willing, &mute] {
            done(&client.delete(&vm.id, false).await?)?;
        }
        cluster.until_no_debris(&client, SOON).await
    });
}

async fn refuses(client: &Client, id: &str) -> Result<()> {
    let wait = true;
    let stop = StopVmRequest {
        id: id.to_owned(),
        wait,
        ..Default::default()
    };
    let reboot = RebootVmRequest {
        id: id.to_owned(),
        wait,
        ..Default::default()
    };
    let restart = RestartVmRequest {
        id: id.to_owned(),
        wait,
        ..Default::default()
    };
    for action in ["stop", "reboot", "restart"] {
        let begun = Instant::now();
        let mut vms = client.vms();
        let answer = match action {
            "stop" => vms.stop_vm(stop.clone()).await,
            "reboot" => vms.reboot_vm(reboot.clone()).await,
            _ => vms.restart_vm(restart.clone()).await,
        };
        let took = measured(&format!("{action} of a VM with a silent agent is refused"), begun);
        is_agent_silent(answer.map(tonic::Response::into_inner)).with_context(|| action)?;
        ensure!(took < Duration::from_secs(20), "it took {took:?}");
    }
    Ok(())
}

/// Refused at once or by the operation: the same code and reason.
fn is_agent_silent(answer: Result<Operation, Status>) -> Result<()> {
    match answer {
        Err(status) => {
            let (code, reason) = plasmavmc_tests::cluster::code_and_reason(&status);
            ensure!(
                code == Code::FailedPrecondition && reason == "AGENT_SILENT",
                "{status:?}"
            );
        }
        Ok(operation) => {
            let error = operation.error.clone().unwrap_or_default();
            let is_refused = operation.state() == operation::State::Failed;
            let is_precondition = error.code == Code::FailedPrecondition as u32 && error.reason == "AGENT_SILENT";
            ensure!(is_refused && is_precondition, "{operation:?}");
        }
    }
    Ok(())
}
