//! VMs that only one client knows: one call after the other, so that every answer is foretold.

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{
    CreateVmRequest, DeleteVmRequest, GetVmRequest, Operation, PauseVmRequest, ResetVmRequest, ResumeVmRequest,
    StartVmRequest, StopVmRequest, UpdateVmRequest, Vm, VmSpec, vm::State,
};
use rand::RngExt;
use tonic::{Code, Status};

use super::asker::{Asker, Refusal};
use crate::cluster::{Client, bare, describe};

/// At a time; a QEMU is started rarely, or the machine does nothing else.
const AT_MOST: usize = 4;

/// What one VM of the model is.
#[derive(Debug, Clone)]
struct Expected {
    id: String,
    name: String,
    vmid: u32,
    state: State,
    generation: u64,
    priority: u32,
}

pub struct Own {
    client: u64,
    made: u64,
    vms: Vec<Expected>,
    /// Those that were deleted.
    gone: Vec<String>,
}

/// What the model foretells of an action.
enum Foretold {
    Done(State),
    Refused(Code, &'static str),
}

impl Own {
    pub fn new(client: u64) -> Self {
        Self {
            client,
            made: 0,
            vms: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub async fn step(&mut self, asker: &mut Asker) -> Result<()> {
        let is_full = self.vms.len() >= AT_MOST;
        match asker.random.random_range(0..100) {
            0..20 if !is_full => self.create(asker).await,
            0..20 => self.delete(asker).await,
            20..25 => self.create_twice(asker).await,
            25..50 => self.get(asker).await,
            50..70 => self.update(asker).await,
            70..73 => self.get_gone(asker).await,
            73..95 => self.act(asker).await,
            _ => self.delete(asker).await,
        }
    }

    fn pick(&self, asker: &mut Asker) -> Option<usize> {
        (!self.vms.is_empty()).then(|| asker.random.random_range(0..self.vms.len()))
    }

    async fn create(&mut self, asker: &mut Asker) -> Result<()> {
        self.made += 1;
        let is_on = asker.random.random_bool(0.15);
        let mut request = bare(&format!("own-{}-{}", self.client, self.made));
        request.powered_off = !is_on;
        request.wait = true;
        request.priority = Some(asker.random.random_range(0..=255));
        request.request_id = asker.request_id();
        let answered = asker
            .ask_once(
                "create",
                async |client| client.create(request.clone()).await,
                |vm| vm.id.clone(),
            )
            .await?;
        let vm = answered
            .answer
            .map_err(|refusal| anyhow::anyhow!("creating {}: {refusal:?}", request.name))?;
        let state = if is_on { State::Running } else { State::Stopped };
        let expected = Expected {
            id: vm.id.clone(),
            name: request.name.clone(),
            vmid: vm.vmid,
            state,
            generation: vm.generation,
            priority: request.priority.unwrap_or_default(),
        };
        compare(&expected, &vm).context("created")?;
        self.vms.push(expected);
        self.refuse_other_content(asker, request).await
    }

    /// The id of a request stands for its content.
    async fn refuse_other_content(&mut self, asker: &mut Asker, mut request: CreateVmRequest) -> Result<()> {
        if !asker.random.random_bool(0.1) {
            return Ok(());
        }
        request.memory_mb += 1;
        let answered = asker
            .ask("create with another's id", async |client| {
                client.create(request.clone()).await
            })
            .await?;
        let refusal = answered.answer.err().context("an id was used for two contents")?;
        ensure!(refusal.reason == "REQUEST_ID_REUSED", "{refusal:?}");
        Ok(())
    }

    async fn create_twice(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(index) = self.pick(asker) else { return Ok(()) };
        let by_name = asker.random.random_bool(0.5);
        let mut request = bare(&self.vms[index].name);
        if !by_name {
            self.made += 1;
            request.name = format!("own-{}-{}", self.client, self.made);
            request.vmid = self.vms[index].vmid;
        }
        request.powered_off = true;
        request.request_id = asker.request_id();
        let answered = asker
            .ask("create twice", async |client| client.create(request.clone()).await)
            .await?;
        let refusal = answered.answer.err().context("two VMs of one name or number")?;
        ensure!(refusal.code == Code::AlreadyExists, "{refusal:?}");
        Ok(())
    }

    async fn get(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(index) = self.pick(asker) else { return Ok(()) };
        let expected = self.vms[index].clone();
        let key = match asker.random.random_range(0..3) {
            0 => expected.id.clone(),
            1 => expected.name.clone(),
            _ => expected.vmid.to_string(),
        };
        let answered = asker.ask("get", async |client| client.get(&key).await).await?;
        let vm = answered
            .answer
            .map_err(|refusal| anyhow::anyhow!("getting {key}: {refusal:?}"))?;
        compare(&expected, &vm).context("got")
    }

    async fn get_gone(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(id) = self.gone.last().cloned() else {
            return Ok(());
        };
        let request = GetVmRequest { id, stale: false };
        let call = async |client: Client| {
            client
                .vms()
                .get_vm(request.clone())
                .await
                .map(tonic::Response::into_inner)
        };
        let answered = asker.ask("get gone", call).await?;
        let refusal = answered.answer.err().context("a deleted VM is there")?;
        ensure!(refusal.code == Code::NotFound, "{refusal:?}");
        Ok(())
    }

    async fn update(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(index) = self.pick(asker) else { return Ok(()) };
        let expected = self.vms[index].clone();
        let is_stale = asker.random.random_bool(0.2);
        // Always another one: an update that changes nothing may leave the generation as it is.
        let priority = (expected.priority + asker.random.random_range(1..=200)) % 256;
        let request = UpdateVmRequest {
            id: expected.id.clone(),
            spec: Some(VmSpec {
                priority: Some(priority),
                ..VmSpec::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["priority".to_owned()],
            }),
            generation: if is_stale {
                expected.generation + 1000
            } else {
                expected.generation
            },
            request_id: asker.request_id(),
        };
        let call = async |client: Client| {
            client
                .vms()
                .update_vm(request.clone())
                .await
                .map(tonic::Response::into_inner)
        };
        let answered = asker.ask_once("update", call, |vm| vm.generation.to_string()).await?;
        if is_stale {
            let refusal = answered
                .answer
                .err()
                .context("an update of another generation was taken")?;
            ensure!(
                matches!(refusal.code, Code::Aborted | Code::FailedPrecondition),
                "{refusal:?}"
            );
            return Ok(());
        }
        let vm = answered
            .answer
            .map_err(|refusal| anyhow::anyhow!("updating {}: {refusal:?}", expected.name))?;
        ensure!(
            vm.generation == expected.generation + 1,
            "generation {} after {}",
            vm.generation,
            expected.generation
        );
        let model = &mut self.vms[index];
        model.generation = vm.generation;
        model.priority = priority;
        Ok(())
    }

    async fn delete(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(index) = self.pick(asker) else { return Ok(()) };
        let expected = self.vms[index].clone();
        let force = asker.random.random_bool(0.7);
        let request = DeleteVmRequest {
            id: expected.id.clone(),
            force,
            generation: 0,
            wait: true,
            request_id: asker.request_id(),
        };
        let call = async |client: Client| {
            client
                .vms()
                .delete_vm(request.clone())
                .await
                .map(tonic::Response::into_inner)
        };
        let answered = asker.ask("delete", call).await?;
        if !force && expected.state != State::Stopped {
            return is_refused(answered.answer.map(drop), Code::FailedPrecondition, "VM_RUNNING");
        }
        let operation = answered
            .answer
            .map_err(|refusal| anyhow::anyhow!("deleting {}: {refusal:?}", expected.name))?;
        let end = asker.end_of(operation).await?;
        ensure!(end.is_ok(), "deleting {}: {end:?}", expected.name);
        self.vms.swap_remove(index);
        self.gone.push(expected.id);
        Ok(())
    }

    async fn act(&mut self, asker: &mut Asker) -> Result<()> {
        let Some(index) = self.pick(asker) else { return Ok(()) };
        let expected = self.vms[index].clone();
        let action = ["start", "stop", "pause", "resume", "reset"][asker.random.random_range(0..5)];
        let request_id = asker.request_id();
        let call = async |client: Client| order(client, action, &expected.id, &request_id).await;
        let answered = asker.ask(action, call).await?;
        let ended = match answered.answer {
            Ok(operation) => asker.end_of(operation).await?,
            Err(refusal) => Err(refusal),
        };
        match foretell(action, expected.state) {
            Foretold::Refused(code, reason) => {
                is_refused(ended, code, reason).with_context(|| format!("{action}: {expected:?}"))
            }
            Foretold::Done(state) => {
                ensure!(ended.is_ok(), "{action} of {expected:?}: {ended:?}");
                self.vms[index].state = state;
                self.settled(asker, index).await
            }
        }
    }

    /// The state after an action that is done, and the generation that came of it.
    async fn settled(&mut self, asker: &mut Asker, index: usize) -> Result<()> {
        let expected = self.vms[index].clone();
        let answered = asker.ask("get", async |client| client.get(&expected.id).await).await?;
        let vm = answered.answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        ensure!(vm.generation >= expected.generation, "the generation went back: {vm:?}");
        self.vms[index].generation = vm.generation;
        compare(&self.vms[index], &vm).context("after an action that is done")
    }
}

async fn order(client: Client, action: &str, id: &str, request_id: &str) -> Result<Operation, Status> {
    let (id, request_id, wait) = (id.to_owned(), request_id.to_owned(), true);
    let mut vms = client.vms();
    let answer = match action {
        "start" => {
            vms.start_vm(StartVmRequest {
                id,
                wait,
                request_id,
                timeout_s: 0,
            })
            .await
        }
        "stop" => {
            vms.stop_vm(StopVmRequest {
                id,
                force: true,
                wait,
                request_id,
                timeout_s: 0,
            })
            .await
        }
        "pause" => vms.pause_vm(PauseVmRequest { id, wait, request_id }).await,
        "resume" => vms.resume_vm(ResumeVmRequest { id, wait, request_id }).await,
        _ => vms.reset_vm(ResetVmRequest { id, wait, request_id }).await,
    };
    Ok(answer?.into_inner())
}

/// The table of `plasmavmc_core::lifecycle`, as its documentation has it.
fn foretell(action: &str, state: State) -> Foretold {
    use Foretold::{Done, Refused};
    let not_running = Refused(Code::FailedPrecondition, "VM_NOT_RUNNING");
    match (action, state) {
        ("start", State::Paused) => Refused(Code::FailedPrecondition, "VM_PAUSED"),
        ("start", _) => Done(State::Running),
        ("stop", _) => Done(State::Stopped),
        (_, State::Stopped) => not_running,
        ("pause", _) => Done(State::Paused),
        ("resume", _) => Done(State::Running),
        (_, state) => Done(state),
    }
}

fn is_refused(ended: Result<(), Refusal>, code: Code, reason: &str) -> Result<()> {
    let refusal = ended
        .err()
        .with_context(|| format!("it was done, and should have been refused: {reason}"))?;
    ensure!(
        refusal.code == code && refusal.reason == reason,
        "{refusal:?} instead of {code:?} {reason}"
    );
    Ok(())
}

fn compare(expected: &Expected, vm: &Vm) -> Result<()> {
    let priority = vm.spec.as_ref().and_then(|spec| spec.priority);
    let is_same = vm.id == expected.id
        && vm.name == expected.name
        && vm.vmid == expected.vmid
        && vm.state() == expected.state
        && vm.generation == expected.generation
        && priority == Some(expected.priority)
        && vm.power_on == (expected.state != State::Stopped);
    ensure!(
        is_same,
        "{expected:?} was expected; {}, generation {}, {vm:?}",
        describe(vm),
        vm.generation
    );
    Ok(())
}
