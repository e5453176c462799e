//! VMs that all clients fight for: few names, few numbers, every kind of call.

use anyhow::Result;
use plasmavmc_proto::api::{DeleteVmRequest, StartVmRequest, StopVmRequest, UpdateVmRequest, Vm, VmSpec};
use rand::RngExt;
use tonic::Code;

use super::asker::{Answered, Asker, Refusal};
use super::history::{Answer, Ask, Event, Seen};
use crate::cluster::{Client, bare};

const NAMES: u32 = 3;
const NUMBERS: u32 = 2;
const FIRST_NUMBER: u32 = 90_000;
const REMEMBERED: usize = 12;

pub async fn step(asker: &mut Asker) -> Result<()> {
    match asker.random.random_range(0..100) {
        0..22 => create(asker).await,
        22..42 => get_name(asker).await,
        42..52 => get_id(asker).await,
        52..72 => update(asker).await,
        72..82 => delete(asker).await,
        82..87 => start_or_stop(asker).await,
        _ => list(asker).await,
    }
}

fn name(asker: &mut Asker) -> String {
    format!("contested-{}", asker.random.random_range(0..NAMES))
}

fn known(asker: &mut Asker) -> Option<String> {
    let last = asker.known.len().checked_sub(1)?;
    // The newest are the most likely to be there.
    let back = asker.random.random_range(0..=last.min(3));
    asker.known.get(last - back).cloned()
}

fn learn(asker: &mut Asker, id: &str) {
    if !asker.known.iter().any(|known| known == id) {
        asker.known.push(id.to_owned());
    }
    if asker.known.len() > REMEMBERED {
        asker.known.remove(0);
    }
}

fn seen(vm: &Vm) -> Seen {
    Seen {
        id: vm.id.clone(),
        name: vm.name.clone(),
        vmid: vm.vmid,
        generation: vm.generation,
        priority: vm.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default(),
        power_on: vm.power_on,
        deleting: vm.deleting,
    }
}

fn answer_of(answer: Result<&Vm, &Refusal>) -> Answer {
    match answer {
        Ok(vm) => Answer::Vm(seen(vm)),
        Err(refusal) => match refusal.code {
            Code::NotFound => Answer::NotFound,
            Code::AlreadyExists => Answer::Exists,
            _ => Answer::Refused(format!("{:?} {}", refusal.code, refusal.reason)),
        },
    }
}

fn note<T>(asker: &mut Asker, ask: Ask, answered: &Answered<T>, answer: Answer) {
    let event = Event {
        call_ns: answered.call_ns,
        return_ns: answered.return_ns,
        ask,
        answer,
    };
    asker.record(event);
}

async fn create(asker: &mut Asker) -> Result<()> {
    let mut request = bare(&name(asker));
    request.powered_off = true;
    request.priority = Some(asker.random.random_range(0..=255));
    if asker.random.random_bool(0.3) {
        request.vmid = FIRST_NUMBER + asker.random.random_range(0..NUMBERS);
    }
    request.request_id = asker.request_id();
    let call = async |client: Client| client.create(request.clone()).await;
    let answered = asker.ask_once("contested create", call, |vm| vm.id.clone()).await?;
    if let Ok(vm) = &answered.answer {
        learn(asker, &vm.id);
    }
    let ask = Ask::Create {
        name: request.name.clone(),
        vmid: request.vmid,
    };
    let answer = answer_of(answered.answer.as_ref());
    note(asker, ask, &answered, answer);
    Ok(())
}

async fn get_name(asker: &mut Asker) -> Result<()> {
    let name = name(asker);
    let answered = asker
        .ask("contested get", async |client| client.get(&name).await)
        .await?;
    if let Ok(vm) = &answered.answer {
        learn(asker, &vm.id);
    }
    let answer = answer_of(answered.answer.as_ref());
    note(asker, Ask::GetName { name }, &answered, answer);
    Ok(())
}

async fn get_id(asker: &mut Asker) -> Result<()> {
    let Some(id) = known(asker) else { return Ok(()) };
    let answered = asker.ask("contested get", async |client| client.get(&id).await).await?;
    let answer = answer_of(answered.answer.as_ref());
    note(asker, Ask::GetId { id }, &answered, answer);
    Ok(())
}

async fn update(asker: &mut Asker) -> Result<()> {
    let Some(id) = known(asker) else { return Ok(()) };
    let mut generation = 0;
    if asker.random.random_bool(0.6) {
        let answered = asker.ask("contested get", async |client| client.get(&id).await).await?;
        generation = answered.answer.as_ref().map_or(1, |vm| vm.generation);
        let answer = answer_of(answered.answer.as_ref());
        note(asker, Ask::GetId { id: id.clone() }, &answered, answer);
    }
    let priority = asker.random.random_range(0..=255);
    let request = UpdateVmRequest {
        id: id.clone(),
        spec: Some(VmSpec {
            priority: Some(priority),
            ..VmSpec::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["priority".to_owned()],
        }),
        generation,
        request_id: asker.request_id(),
    };
    let call = async |client: Client| {
        client
            .vms()
            .update_vm(request.clone())
            .await
            .map(tonic::Response::into_inner)
    };
    let answered = asker.ask("contested update", call).await?;
    let answer = answer_of(answered.answer.as_ref());
    let ask = Ask::Update {
        id,
        generation,
        priority,
    };
    note(asker, ask, &answered, answer);
    Ok(())
}

async fn delete(asker: &mut Asker) -> Result<()> {
    let Some(id) = known(asker) else { return Ok(()) };
    let request = DeleteVmRequest {
        id: id.clone(),
        force: true,
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
    let mut answered = asker.ask("contested delete", call).await?;
    let answer = match &answered.answer {
        Ok(operation) => match asker.end_of(operation.clone()).await? {
            Ok(()) => Answer::Done,
            Err(refusal) => Answer::Refused(format!("{:?} {}", refusal.code, refusal.reason)),
        },
        Err(refusal) => answer_of(Err(refusal)),
    };
    answered.return_ns = asker.now();
    note(asker, Ask::Delete { id }, &answered, answer);
    Ok(())
}

async fn start_or_stop(asker: &mut Asker) -> Result<()> {
    let Some(id) = known(asker) else { return Ok(()) };
    let is_start = asker.random.random_bool(0.4);
    let request_id = asker.request_id();
    let call = async |client: Client| {
        let (id, request_id) = (id.clone(), request_id.clone());
        let mut vms = client.vms();
        let answer = if is_start {
            vms.start_vm(StartVmRequest {
                id,
                wait: true,
                request_id,
                timeout_s: 0,
            })
            .await
        } else {
            vms.stop_vm(StopVmRequest {
                id,
                force: true,
                wait: true,
                request_id,
                timeout_s: 0,
            })
            .await
        };
        answer.map(tonic::Response::into_inner)
    };
    let mut answered = asker
        .ask(if is_start { "contested start" } else { "contested stop" }, call)
        .await?;
    let answer = match &answered.answer {
        Ok(operation) => match asker.end_of(operation.clone()).await? {
            Ok(()) => Answer::Done,
            Err(refusal) => Answer::Refused(format!("{:?} {}", refusal.code, refusal.reason)),
        },
        Err(refusal) => answer_of(Err(refusal)),
    };
    answered.return_ns = asker.now();
    note(asker, Ask::Power { id }, &answered, answer);
    Ok(())
}

async fn list(asker: &mut Asker) -> Result<()> {
    let answered = asker.ask("contested list", async |client| client.list().await).await?;
    let answer = match &answered.answer {
        Ok(vms) => Answer::Vms(
            vms.iter()
                .filter(|vm| vm.name.starts_with("contested-"))
                .map(seen)
                .collect(),
        ),
        Err(refusal) => Answer::Refused(format!("{refusal:?}")),
    };
    note(asker, Ask::List, &answered, answer);
    Ok(())
}
