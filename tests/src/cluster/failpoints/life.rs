//! The life of a VM, each step of which has to come to its end whatever the server went through.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use plasmavmc_proto::api::{
    CancelOperationRequest, DeleteVmRequest, Operation, PauseVmRequest, RebootVmRequest, ResetVmRequest,
    RestartVmRequest, ResumeVmRequest, StartVmRequest, StopVmRequest, UpdateVmRequest, Vm, VmSpec, operation,
    vm::State,
};
use tonic::{Code, Status};

use super::persistent::Persistent;
use crate::cluster::client::has_ended;
use crate::cluster::{Client, Cluster, bare, code_and_reason, describe, micro, until};

const SOON: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(120);
/// A server that was restarted may find that what it did cannot be gone on with, and says so: then one asks again.
const TRIES: usize = 5;
const NEW_PRIORITY: u32 = 77;
/// More than any machine has that runs tests.
const TOO_BIG_MB: u64 = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    Bare,
    /// With an agent, which graceful actions need.
    Micro,
}

struct Life<'a> {
    cluster: &'a Cluster,
    client: &'a Persistent<'a>,
    /// Distinguishes this case's requests from those of others.
    case: String,
    id: String,
    /// The disk that was made for it.
    disk: Option<PathBuf>,
}

pub async fn whole(cluster: &Cluster, client: &Persistent<'_>, case: &str, guest: Guest) -> Result<()> {
    let name = format!("vm-{case}");
    if guest == Guest::Bare {
        never_placed(cluster, client, case, &name).await?;
    }
    client.begin("create");
    let mut request = match guest {
        Guest::Bare => bare(&name),
        Guest::Micro => micro(&name, "")?,
    };
    request.disks.push(disk(&name));
    request.request_id = format!("{case}-create");
    let created = client.call(async |client| client.create(request.clone()).await).await?;
    let mut life = Life {
        cluster,
        client,
        case: case.to_owned(),
        id: created.context("creating")?.id,
        disk: Some(client.pool().join(format!("{name}-root"))),
    };
    life.is(State::Running).await?;
    match guest {
        Guest::Bare => life.bare().await?,
        Guest::Micro => life.micro().await?,
    }
    life.delete().await
}

/// A VM that no host has room for: it waits, says why, and can be given up and deleted.
async fn never_placed(cluster: &Cluster, client: &Persistent<'_>, case: &str, name: &str) -> Result<()> {
    client.begin("create without room");
    let mut request = bare(&format!("{name}-too-big"));
    request.memory_mb = TOO_BIG_MB;
    request.request_id = format!("{case}-create-too-big");
    let created = client.call(async |client| client.create(request.clone()).await).await?;
    let mut life = Life {
        cluster,
        client,
        case: format!("{case}-too-big"),
        id: created.context("creating what has no room")?.id,
        disk: None,
    };
    client.begin("wait for room");
    let operation = until("the creation to say why it waits", SOON, async || {
        let open = client.call(async |client| client.open_operations().await).await;
        let open = open
            .map_err(|error| error.to_string())?
            .map_err(|status| status.to_string())?;
        let mine = open.into_iter().find(|operation| operation.vm_id == life.id);
        mine.filter(|operation| operation.step.contains("no host fits"))
            .ok_or("it does not say why")
            .map_err(str::to_owned)
    })
    .await?;
    client.begin("cancel");
    let request = CancelOperationRequest {
        id: operation.id.clone(),
    };
    let call = async |client: Client| client.operations().cancel_operation(request.clone()).await;
    client.call(call).await?.context("cancelling")?;
    let ended = life.ended(operation).await?;
    ensure!(ended.state() == operation::State::Cancelled, "{ended:?}");
    life.delete().await
}

/// In the pool that every server has.
fn disk(vm: &str) -> plasmavmc_proto::api::Disk {
    use plasmavmc_proto::api::{Disk, DiskLocation, Volume, disk_location::Location};
    let volume = Volume {
        pool: "default".to_owned(),
        volume: format!("{vm}-root"),
    };
    Disk {
        name: "root".to_owned(),
        location: Some(DiskLocation {
            location: Some(Location::Volume(volume)),
        }),
        size_mb: 1,
        ..Disk::default()
    }
}

impl Life<'_> {
    async fn bare(&mut self) -> Result<()> {
        let wait = true;
        self.carry_out("pause", async |client, id, request_id| {
            client.vms().pause_vm(PauseVmRequest { id, wait, request_id }).await
        })
        .await?;
        self.is(State::Paused).await?;
        self.carry_out("resume", async |client, id, request_id| {
            client.vms().resume_vm(ResumeVmRequest { id, wait, request_id }).await
        })
        .await?;
        self.is(State::Running).await?;
        self.carry_out("reset", async |client, id, request_id| {
            client.vms().reset_vm(ResetVmRequest { id, wait, request_id }).await
        })
        .await?;
        self.is(State::Running).await?;
        self.update().await?;
        self.restart(true).await?;
        self.stop(true).await?;
        self.start().await
    }

    async fn micro(&mut self) -> Result<()> {
        self.has_agent().await?;
        self.carry_out("reboot", async |client, id, request_id| {
            let request = RebootVmRequest {
                id,
                wait: true,
                request_id,
                timeout_s: 0,
            };
            client.vms().reboot_vm(request).await
        })
        .await?;
        self.has_agent().await?;
        self.stop(false).await?;
        self.start().await
    }

    async fn stop(&mut self, force: bool) -> Result<()> {
        self.carry_out("stop", async |client, id, request_id| {
            let request = StopVmRequest {
                id,
                force,
                wait: true,
                request_id,
                timeout_s: 0,
            };
            client.vms().stop_vm(request).await
        })
        .await?;
        self.is(State::Stopped).await
    }

    async fn start(&mut self) -> Result<()> {
        self.carry_out("start", async |client, id, request_id| {
            let request = StartVmRequest {
                id,
                wait: true,
                request_id,
                timeout_s: 0,
            };
            client.vms().start_vm(request).await
        })
        .await?;
        self.is(State::Running).await
    }

    async fn restart(&mut self, force: bool) -> Result<()> {
        self.carry_out("restart", async |client, id, request_id| {
            let request = RestartVmRequest {
                id,
                force,
                wait: true,
                request_id,
                timeout_s: 0,
            };
            client.vms().restart_vm(request).await
        })
        .await?;
        self.is(State::Running).await
    }

    async fn update(&mut self) -> Result<()> {
        self.client.begin("update");
        let spec = VmSpec {
            priority: Some(NEW_PRIORITY),
            ..VmSpec::default()
        };
        let request = UpdateVmRequest {
            id: self.id.clone(),
            spec: Some(spec),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["priority".to_owned()],
            }),
            generation: 0,
            request_id: format!("{}-update", self.case),
        };
        let call = async |client: Client| client.vms().update_vm(request.clone()).await;
        self.client.call(call).await?.context("updating")?;
        let vm = self.get().await?;
        let priority = vm.spec.as_ref().and_then(|spec| spec.priority);
        ensure!(priority == Some(NEW_PRIORITY), "{vm:?}");
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        self.client.begin("delete");
        let request = DeleteVmRequest {
            id: self.id.clone(),
            force: true,
            generation: 0,
            wait: true,
            request_id: format!("{}-delete", self.case),
        };
        let deleted = self
            .client
            .call(async |client| client.vms().delete_vm(request.clone()).await)
            .await?;
        deleted.context("deleting")?;
        until("the VM to be gone", SOON, async || {
            let id = self.id.clone();
            let answer = self.client.call(async |client| client.get(&id).await).await;
            match answer.map_err(|error| error.to_string())? {
                Err(status) if status.code() == Code::NotFound => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        // Nobody's data goes with a VM. What is left of it besides is debris.
        if let Some(disk) = self.disk.take() {
            std::fs::remove_file(&disk).with_context(|| format!("removing {}", disk.display()))?;
        }
        let client = self.cluster.client(0)?;
        until("no debris", SOON, async || {
            self.client.revive().map_err(|error| error.to_string())?;
            let left = self.cluster.debris(&client).await;
            let left = left.map_err(|error| format!("{error:#}"))?;
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        })
        .await
    }

    /// Asks for an action until it is done: at once, or again after a server that was restarted gave it up.
    async fn carry_out(
        &mut self,
        step: &'static str,
        action: impl AsyncFn(Client, String, String) -> Result<tonic::Response<Operation>, Status>,
    ) -> Result<()> {
        self.client.begin(step);
        let mut last = String::new();
        for attempt in 0..TRIES {
            let request_id = format!("{}-{step}-{attempt}", self.case);
            let id = self.id.clone();
            let call = async |client: Client| action(client, id.clone(), request_id.clone()).await;
            let answer = self.client.call(call).await?;
            let ended = match answer {
                Ok(operation) => self.ended(operation.into_inner()).await?,
                Err(status) => {
                    // Only the end of a server excuses a refusal, and it says why.
                    let is_excused = matches!(status.code(), Code::FailedPrecondition | Code::Aborted);
                    ensure!(is_excused && self.client.died_in().is_some(), "{step}: {status:?}");
                    last = format!("{:?}", code_and_reason(&status));
                    continue;
                }
            };
            if ended.state() == operation::State::Done {
                return Ok(());
            }
            let error = ended.error.clone().unwrap_or_default();
            // Only the end of a server excuses a failure, and it says so.
            ensure!(self.client.died_in().is_some(), "{step} failed undisturbed: {ended:?}");
            ensure!(
                !error.reason.is_empty() && !error.message.is_empty(),
                "{step} failed without a reason: {ended:?}"
            );
            last = format!("{ended:?}");
        }
        bail!("{step} is not done after {TRIES} tries: {last}")
    }

    /// The operation as it ended: one that was waited for may have lost its waiter.
    async fn ended(&self, operation: Operation) -> Result<Operation> {
        if has_ended(&operation) {
            return Ok(operation);
        }
        let id = operation.id;
        until(&format!("operation {id} to end"), SOON, async || {
            let looked = self.client.call(async |client| client.operation(&id).await).await;
            let operation = looked
                .map_err(|error| error.to_string())?
                .map_err(|status| status.to_string())?;
            if has_ended(&operation) {
                Ok(operation)
            } else {
                Err(format!("{operation:?}"))
            }
        })
        .await
    }

    async fn get(&self) -> Result<Vm> {
        let id = self.id.clone();
        Ok(self.client.call(async |client| client.get(&id).await).await??)
    }

    /// Waits until the VM is in a state, and its processes are what that state says.
    async fn is(&self, state: State) -> Result<()> {
        let qemus = usize::from(matches!(state, State::Running | State::Paused));
        until(&format!("{} to be {state:?}", self.id), SOON, async || {
            let vm = self.get().await.map_err(|error| error.to_string())?;
            let pids = self.cluster.site().qemus_of(&self.id);
            if pids.len() > 1 {
                return Err(format!("it has {} QEMUs: {pids:?}", pids.len()));
            }
            if vm.state() == state && pids.len() == qemus {
                Ok(())
            } else {
                Err(format!("{}; {pids:?}", describe(&vm)))
            }
        })
        .await
    }

    async fn has_agent(&self) -> Result<()> {
        until("the agent to answer", BOOT, async || {
            let vm = self.get().await.map_err(|error| error.to_string())?;
            if vm.agent == "responding" {
                Ok(())
            } else {
                Err(describe(&vm))
            }
        })
        .await
    }
}
