//! `plasmavmc.EventService`: what happens, as it happens. core::events puts changes into words.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use plasmavmc_core::events;
use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::api;
use plasmavmc_proto::api::WatchEventsRequest;
use plasmavmc_proto::api::event_service_server::EventService;
use plasmavmc_types::{HostId, VmId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::error::ApiError;
use super::{Api, find_host, find_vm, history};
use crate::clock::wall_ms;
use crate::store::{Change, Changes, ChangesError, StoredValue};

/// Events that a slow client may lag behind by.
const QUEUE: usize = 1024;
/// A client that takes nothing for so long has gone away.
const SEND_WITHIN: Duration = Duration::from_secs(30);

type Outcome = Result<api::Event, Status>;

pub(super) async fn watch(backend: Backend, request: WatchEventsRequest) -> Result<mpsc::Receiver<Outcome>, ApiError> {
    let permit = backend.watch_permit()?;
    backend.catch_up().await?;
    let (asked, changes) = backend.mirror.follow(|view| {
        let vm = match request.vm.as_str() {
            "" => None,
            vm => Some(find_vm(view, vm)?),
        };
        let host = match request.host.as_str() {
            "" => None,
            host => Some(find_host(view, host)?),
        };
        Ok::<_, ApiError>((view.revision, vm, host))
    });
    let (revision, vm, host) = asked?;
    let past = match request.from_revision {
        0 => Vec::new(),
        from => history::between(&backend, from, revision).await?,
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let teller = Teller {
        backend,
        vm,
        host,
        sender,
        _permit: permit,
    };
    tokio::spawn(teller.run(past, changes));
    Ok(receiver)
}

struct Teller {
    backend: Backend,
    vm: Option<VmId>,
    host: Option<HostId>,
    sender: mpsc::Sender<Outcome>,
    _permit: OwnedSemaphorePermit,
}

/// The client has gone, or does not read.
struct Gone;

impl Teller {
    async fn run(self, past: Vec<Change>, changes: Changes) {
        let error = tokio::select! {
            () = self.sender.closed() => return,
            () = self.backend.stop.cancelled() => ApiError::Stopping,
            ended = self.stream(past, changes) => match ended {
                Ok(error) => error,
                Err(Gone) => return,
            },
        };
        // A client that is gone needs no reason.
        let _ = self.sender.try_send(Err(error.into()));
    }

    async fn stream(&self, past: Vec<Change>, mut changes: Changes) -> Result<ApiError, Gone> {
        self.tell(&past, &times_of_past(&past)).await?;
        loop {
            match changes.next().await {
                Ok(batch) => {
                    let now_ms = wall_ms();
                    let times: Vec<u64> = batch.iter().map(|change| at_ms(change).unwrap_or(now_ms)).collect();
                    self.tell(&batch, &times).await?;
                }
                Err(ChangesError::Lagged { .. }) => return Ok(ApiError::FellBehind),
                Err(ChangesError::Stopped) => return Ok(ApiError::Stopping),
            }
        }
    }

    async fn tell(&self, changes: &[Change], at_ms: &[u64]) -> Result<(), Gone> {
        let told = self.backend.mirror.read(|view| {
            let timed = changes.iter().zip(at_ms);
            let told = timed.filter_map(|(change, at_ms)| self.event(view, change, *at_ms));
            let mut told: Vec<api::Event> = told.collect();
            // Whoever resumes between two events of one transaction gets both, rather than neither.
            for index in 1..told.len() {
                if told[index - 1].revision == told[index].revision {
                    told[index - 1].resume_from = told[index].revision.saturating_sub(1);
                }
            }
            told
        });
        for event in told {
            self.sender
                .send_timeout(Ok(event), SEND_WITHIN)
                .await
                .map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn event(&self, view: &ClusterView, change: &Change, at_ms: u64) -> Option<api::Event> {
        let event = events::of(view, change.as_event_source()?)?;
        let is_meant =
            self.vm.is_none_or(|vm| event.vm == Some(vm)) && self.host.is_none_or(|host| event.host == Some(host));
        is_meant.then(|| api::Event {
            revision: change.revision,
            resume_from: change.revision,
            at_ms,
            kind: event.kind.to_owned(),
            vm_id: event.vm.map(|vm| vm.to_string()).unwrap_or_default(),
            vm_name: name_of(view, change, event.vm),
            host: event.host.map(|host| view.host_name(host)).unwrap_or_default(),
            text: event.text,
            operation: event.operation.map(|id| id.to_string()).unwrap_or_default(),
        })
    }
}

/// A VM that is gone is still called what it was.
fn name_of(view: &ClusterView, change: &Change, vm: Option<VmId>) -> String {
    let Some(vm) = vm else {
        return String::new();
    };
    match change.after.as_ref().or(change.before.as_ref()) {
        Some(StoredValue::VmRecord(record)) => record.spec().name.to_string(),
        Some(StoredValue::Operation(operation)) => operation.vm_name.to_string(),
        _ => view
            .vms
            .get(&vm)
            .and_then(|vm| vm.name())
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

/// When it happened, if whoever wrote it says so.
fn at_ms(change: &Change) -> Option<u64> {
    let written = match (&change.before, &change.after) {
        (None, Some(StoredValue::VmRecord(record))) => record.created_at_ms(),
        (_, Some(StoredValue::Operation(operation))) => operation.updated_at_ms,
        (_, Some(StoredValue::Decision(decision))) => decision.at_ms,
        // Else the state is from before, and something beside it has changed.
        (before, Some(StoredValue::Status(status))) if !is_same_state(before.as_ref(), status) => status.since_ms,
        _ => 0,
    };
    (written > 0).then_some(written)
}

fn is_same_state(before: Option<&StoredValue>, after: &plasmavmc_types::VmStatus) -> bool {
    matches!(before, Some(StoredValue::Status(before)) if before.state == after.state)
}

/// When each of these happened, in their order. What does not say it happened after what came before it, and with what
/// stands in the same transaction: the store knows no time.
fn times_of_past(changes: &[Change]) -> Vec<u64> {
    let first = changes.iter().find_map(at_ms).unwrap_or_else(wall_ms);
    let mut latest_ms = first;
    let times = changes.iter().map(|change| {
        if let Some(at_ms) = at_ms(change) {
            latest_ms = at_ms;
        }
        latest_ms
    });
    times.collect()
}

#[tonic::async_trait]
impl EventService for Api {
    type WatchEventsStream = BoxStream<'static, Outcome>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let events = watch(self.backend()?, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(events).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::{Decision, Placement};

    use super::*;
    use crate::store::ParsedKey;

    fn change(revision: u64, key: ParsedKey, after: StoredValue) -> Change {
        Change {
            revision,
            key,
            before: None,
            after: Some(after),
            is_unreadable: false,
        }
    }

    #[test]
    fn what_tells_no_time_is_not_told_as_new() {
        let vm = VmId::from_uuid(uuid::Uuid::from_u128(1));
        let host = HostId::from_uuid(uuid::Uuid::from_u128(2));
        let placed = |revision| {
            let placement = StoredValue::Placement(Placement::first(host));
            change(revision, ParsedKey::Placement(vm), placement)
        };
        let decided = |revision, at_ms| {
            let decision = StoredValue::Decision(Decision {
                at_ms,
                kind: "place".to_owned(),
                vm: Some(vm),
                host: Some(host),
                text: String::new(),
                evidence: Vec::new(),
            });
            change(revision, ParsedKey::Decision(String::new()), decision)
        };
        let changes = [placed(1), decided(2, 5_000), placed(2), decided(3, 7_000), placed(4)];
        assert_eq!(times_of_past(&changes), [5_000, 5_000, 5_000, 7_000, 7_000]);
    }
}
