//! Serial consoles: those of VMs here from this host's agent, those of others through the server of their host.
//!
//! Must never: slow a guest down because a client is slow. It falls out of the scroll-back, and is told how much
//! it missed.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use plasmavmc_kvm::channel::Watched;
use plasmavmc_proto::api::{ConsoleInput, ConsoleOutput};
use plasmavmc_proto::node::node_client::NodeClient;
use plasmavmc_proto::node::node_server::Node;
use plasmavmc_proto::node::{ListeningRequest, ListeningResponse};
use plasmavmc_types::{Address, HostId, PowerWanted, VmId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::backend::Backend;
use super::error::ApiError;
use super::{Place, find_vm};
use crate::agent::{Attached, ConsoleError, Keyboard};

/// Bytes of one message; the scroll-back comes in several.
const MESSAGE_BYTES: usize = 64 * 1024;
const QUEUE: usize = 16;
/// How long a client has to say which console it means.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for what is stored now; then what is known here has to do.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long another server may take to answer.
const PEER_WITHIN: Duration = Duration::from_secs(5);

/// Between the VM and the reason, in the words of [`ApiError::NoConsole`].
const NO_CONSOLE_NOW: &str = " has no console now: ";

type Output = BoxStream<'static, Result<ConsoleOutput, Status>>;

/// The console of a VM, wherever it runs.
pub async fn anywhere(place: Arc<Place>, mut input: Streaming<ConsoleInput>) -> Result<Output, ApiError> {
    let first = first_of(&mut input).await?;
    if let Err(error) = caught_up(&place.backend).await {
        // Without a quorum the console of a VM that runs here is what one needs, and it needs nobody else.
        let is_here = |owner: &Owner| owner.host == place.backend.host && place.consoles.attach(owner.vm).is_ok();
        let known = owner(&place.backend, &first.id).ok().filter(is_here);
        return here(&place, known.ok_or(error)?.vm, first, input);
    }
    let Owner {
        vm,
        host,
        name,
        address,
    } = owner(&place.backend, &first.id)?;
    if host == place.backend.host {
        return here(&place, vm, first, input);
    }
    let Some(address) = address else {
        let why = "it has no address in the cluster".to_owned();
        return Err(ApiError::HostUnreachable { host: name, why });
    };
    let called = first.id.clone();
    let first = ConsoleInput {
        id: vm.to_string(),
        ..first
    };
    let (stop, permit) = (place.backend.stop.clone(), place.backend.watch_permit()?);
    let output = there(&called, name, address, first, input).await?;
    let output = output.take_until(stop.cancelled_owned());
    Ok(output
        .map(move |message| {
            let _permit = &permit;
            message
        })
        .boxed())
}

async fn caught_up(backend: &Backend) -> Result<(), ApiError> {
    let caught_up = tokio::time::timeout(CATCH_UP_WITHIN, backend.catch_up());
    caught_up.await.unwrap_or(Err(ApiError::Behind(CATCH_UP_WITHIN)))
}

/// Where a VM is.
struct Owner {
    vm: VmId,
    host: HostId,
    name: String,
    address: Option<Address>,
}

fn owner(backend: &Backend, vm: &str) -> Result<Owner, ApiError> {
    backend.mirror.read(|view| {
        let id = find_vm(view, vm)?;
        let known = view.vms.get(&id);
        let is_wanted = known
            .and_then(|vm| vm.record.as_ref())
            .is_some_and(|record| record.value.power() == PowerWanted::On);
        let is_gone = known
            .and_then(|vm| vm.status.as_ref())
            .is_none_or(|status| status.value.process.is_none());
        if is_gone && !is_wanted {
            return Err(no_console(vm, "it is switched off: start it first"));
        }
        let placement = known.and_then(|vm| vm.placement.as_ref());
        let placement =
            placement.ok_or_else(|| no_console(vm, "it is on no host yet; 'plasmavmc vm explain' says why"))?;
        let host = placement.value.host;
        let record = view.hosts.get(&host).and_then(|host| host.record.as_ref());
        Ok(Owner {
            vm: id,
            host,
            name: view.host_name(host),
            address: record.and_then(|record| record.value.cluster_address().cloned()),
        })
    })
}

fn no_console(vm: &str, why: impl Into<String>) -> ApiError {
    ApiError::NoConsole {
        vm: vm.to_owned(),
        why: why.into(),
    }
}

async fn first_of(input: &mut Streaming<ConsoleInput>) -> Result<ConsoleInput, ApiError> {
    let missing = || ApiError::Field {
        field: "id".to_owned(),
        problem: "is missing: the first message says which VM's console is meant".to_owned(),
    };
    match tokio::time::timeout(FIRST_WITHIN, input.message()).await {
        Ok(Ok(Some(first))) if !first.id.is_empty() => Ok(first),
        _ => Err(missing()),
    }
}

/// The console of a VM on this host.
fn here(place: &Place, vm: VmId, first: ConsoleInput, input: Streaming<ConsoleInput>) -> Result<Output, ApiError> {
    let attached = place
        .consoles
        .attach(vm)
        .map_err(|error| no_console(&first.id, error.to_string()))?;
    let permit = place.backend.watch_permit()?;
    let stop = place.backend.stop.clone();
    let (sender, output) = mpsc::channel(QUEUE);
    let keyboard = attached.keyboard();
    tokio::spawn(async move {
        let _permit = permit;
        let (called, typed) = (first.id, first.data);
        let reason = tokio::select! {
            () = sender.closed() => return,
            () = stop.cancelled() => ApiError::Stopping,
            () = show(attached, first.no_history, &sender) => no_console(&called, "its QEMU has ended"),
            error = type_in(keyboard, typed, input) => no_console(&called, error.to_string()),
        };
        // A client that is gone needs no reason.
        let _ = sender.try_send(Err(reason.into()));
    });
    Ok(ReceiverStream::new(output).boxed())
}

async fn show(mut attached: Attached, no_history: bool, sender: &mpsc::Sender<Result<ConsoleOutput, Status>>) {
    // What is there at once was there before.
    if let Some(Some(Watched::Bytes(past))) = attached.next().now_or_never()
        && !no_history
        && send(sender, past, true).await.is_err()
    {
        return;
    }
    while let Some(watched) = attached.next().await {
        let sent = match watched {
            Watched::Bytes(bytes) => send(sender, bytes, false).await,
            Watched::Missed { bytes } => {
                let lost = ConsoleOutput {
                    lost_bytes: bytes,
                    ..Default::default()
                };
                sender.send(Ok(lost)).await.map_err(drop)
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn send(
    sender: &mpsc::Sender<Result<ConsoleOutput, Status>>,
    bytes: Vec<u8>,
    is_history: bool,
) -> Result<(), ()> {
    for part in bytes.chunks(MESSAGE_BYTES) {
        let message = ConsoleOutput {
            data: part.to_vec(),
            is_history,
            lost_bytes: 0,
        };
        sender.send(Ok(message)).await.map_err(drop)?;
    }
    Ok(())
}

/// Types what comes. A client that has nothing more to type still looks on.
async fn type_in(keyboard: Keyboard, first: Vec<u8>, mut input: Streaming<ConsoleInput>) -> ConsoleError {
    if !first.is_empty()
        && let Err(error) = keyboard.send(first).await
    {
        return error;
    }
    while let Ok(Some(message)) = input.message().await {
        if message.data.is_empty() {
            continue;
        }
        if let Err(error) = keyboard.send(message.data).await {
            return error;
        }
    }
    std::future::pending().await
}

/// The console of a VM on another host, through its server.
async fn there(
    called: &str,
    host: String,
    address: Address,
    first: ConsoleInput,
    input: Streaming<ConsoleInput>,
) -> Result<Streaming<ConsoleOutput>, ApiError> {
    let unreachable = |why: String| ApiError::HostUnreachable {
        host: host.clone(),
        why,
    };
    let channel = chainfire::transport::connect(address.as_str(), &Default::default())
        .map_err(|error| unreachable(error.to_string()))?;
    let typed = typed(first, input);
    let mut client = NodeClient::new(channel);
    match tokio::time::timeout(PEER_WITHIN, client.console(typed)).await {
        Ok(Ok(output)) => Ok(output.into_inner()),
        Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
            // It says so of the id; the client knows the VM by what it called it.
            let why = status.message().split_once(NO_CONSOLE_NOW).map(|(_, why)| why);
            Err(no_console(called, why.unwrap_or(status.message())))
        }
        Ok(Err(status)) => Err(unreachable(status.message().to_owned())),
        Err(_) => Err(unreachable(format!("no answer within {} s", PEER_WITHIN.as_secs()))),
    }
}

/// What a client types, until it goes.
fn typed(first: ConsoleInput, mut input: Streaming<ConsoleInput>) -> ReceiverStream<ConsoleInput> {
    let (sender, typed) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(message) = next {
            if sender.send(message).await.is_err() {
                return;
            }
            next = tokio::select! {
                () = sender.closed() => return,
                message = input.message() => message.ok().flatten(),
            };
        }
    });
    ReceiverStream::new(typed)
}

/// The calls of other servers.
#[derive(Debug, Clone)]
pub struct NodeService {
    place: Arc<Place>,
}

impl NodeService {
    pub fn new(place: Arc<Place>) -> Self {
        Self { place }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    type ConsoleStream = Output;

    async fn console(
        &self,
        request: Request<Streaming<ConsoleInput>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        let mut input = request.into_inner();
        let first = first_of(&mut input).await?;
        let vm = self.place.backend.mirror.read(|view| find_vm(view, &first.id))?;
        Ok(Response::new(here(&self.place, vm, first, input)?))
    }

    async fn listening(&self, _: Request<ListeningRequest>) -> Result<Response<ListeningResponse>, Status> {
        let member = self.place.node.member().map_err(ApiError::from)?;
        Ok(Response::new(ListeningResponse {
            cluster_id: member.cluster_id().to_owned(),
            since_revision: self.place.backend.mirror.listens_since(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_another_server_is_found_in_its_sentence() {
        let said = no_console("7f3c", "its QEMU has ended").to_string();
        let why = said.split_once(NO_CONSOLE_NOW).map(|(_, why)| why);
        assert_eq!(why, Some("its QEMU has ended"));
    }
}
