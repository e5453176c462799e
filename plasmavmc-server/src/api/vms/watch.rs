//! WatchVms: everything that is there, then every change.
//!
//! What clients see of a VM also changes with time: a host that falls silent writes nothing. So what was sent
//! last is compared with what would be sent now, at every change of a VM and, of all, every second.
//!
//! Must never: leave a client with a state that is not so, or hold anything up because a client is slow. Its
//! stream ends instead, and says where to resume.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_proto::api;
use plasmavmc_types::VmId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;

use crate::api::backend::Backend;
use crate::api::error::ApiError;
use crate::api::show::Showing;
use crate::api::{find_vm, history};
use crate::store::{Change, Changes, ChangesError, ParsedKey, StoredValue};

/// VMs of one message.
const MESSAGE_VMS: usize = 200;
/// Messages that a slow client may lag behind by.
const QUEUE: usize = 64;
/// A client that takes nothing for so long has gone away.
const SEND_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Outcome = Result<api::WatchVmsResponse, Status>;

/// Begins to watch; the stream is what the receiver gets.
pub async fn watch(backend: Backend, request: api::WatchVmsRequest) -> Result<mpsc::Receiver<Outcome>, ApiError> {
    let permit = backend.watch_permit()?;
    backend.catch_up().await?;
    let only = match request.id.as_str() {
        "" => None,
        id => Some(backend.mirror.read(|view| find_vm(view, id))?),
    };
    let heard = backend.mirror.heard(Instant::now());
    let (seen, changes) = backend.mirror.follow(|view| {
        let showing = Showing::new(view, &heard);
        let rows = view.vms.keys().map(|id| (*id, showing.vm(*id)));
        let rows = rows.filter(|(id, _)| only.is_none_or(|only| only == *id)).collect();
        Seen {
            revision: view.revision,
            rows,
        }
    });
    let past = match request.from_revision {
        0 => None,
        from => Some((from, history::between(&backend, from, seen.revision).await?)),
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        backend,
        only,
        sent: BTreeMap::new(),
        resumes_from: past.as_ref().map_or(0, |(from, _)| *from),
        sender,
        _permit: permit,
    };
    let past = past.map(|(_, changes)| touched(&changes));
    tokio::spawn(watcher.run(seen, past, changes));
    Ok(receiver)
}

/// VMs as they are at a revision; `None`: not there.
struct Seen {
    revision: u64,
    rows: Vec<(VmId, Option<api::Vm>)>,
}

struct Watcher {
    backend: Backend,
    only: Option<VmId>,
    /// What the client knows.
    sent: BTreeMap<VmId, api::Vm>,
    /// All up to here has been sent.
    resumes_from: u64,
    sender: mpsc::Sender<Outcome>,
    _permit: OwnedSemaphorePermit,
}

/// The client has gone, or does not read.
struct Gone;

impl Watcher {
    async fn run(mut self, seen: Seen, past: Option<BTreeSet<VmId>>, changes: Changes) {
        let sender = self.sender.clone();
        let stop = self.backend.stop.clone();
        let error = tokio::select! {
            () = sender.closed() => return,
            () = stop.cancelled() => ApiError::Stopping,
            ended = self.stream(seen, past, changes) => match ended {
                Ok(error) => error,
                Err(Gone) => return,
            },
        };
        // A client that is gone needs no reason.
        let _ = sender.try_send(Err(error.into()));
    }

    async fn stream(
        &mut self,
        mut seen: Seen,
        past: Option<BTreeSet<VmId>>,
        mut changes: Changes,
    ) -> Result<ApiError, Gone> {
        if let Some(touched) = past {
            // The client knows the others already, as they are.
            let (news, known): (Vec<_>, Vec<_>) = seen.rows.into_iter().partition(|(id, _)| touched.contains(id));
            self.sent = known.into_iter().filter_map(|(id, vm)| Some((id, vm?))).collect();
            let gone: Vec<VmId> = touched
                .into_iter()
                .filter(|id| news.iter().all(|(new, _)| new != id))
                .collect();
            let gone = gone.into_iter().filter(|id| self.only.is_none_or(|only| only == *id));
            let gone: Vec<VmId> = gone.collect();
            self.sent.extend(gone.iter().map(|id| (*id, api::Vm::default())));
            seen.rows = news.into_iter().chain(gone.into_iter().map(|id| (id, None))).collect();
        }
        let revision = seen.revision;
        self.tell(seen).await?;
        self.resumes_from = revision;
        self.send(api::WatchVmsResponse {
            revision,
            is_current: true,
            ..Default::default()
        })
        .await?;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                batch = changes.next() => match batch {
                    Ok(batch) => Some(batch),
                    Err(error) => return Ok(ended(error)),
                },
                _ = tick.tick() => None,
            };
            match self.look(&mut changes, first) {
                Ok(seen) => self.tell(seen).await?,
                Err(error) => return Ok(ended(error)),
            }
        }
    }

    /// All that has changed up to one revision; without a change, everything.
    fn look(&self, changes: &mut Changes, first: Option<Arc<Vec<Change>>>) -> Result<Seen, ChangesError> {
        let heard = self.backend.mirror.heard(Instant::now());
        self.backend.mirror.catch_up(changes, |view, more| {
            let batches = first.iter().chain(more);
            let mut ids: BTreeSet<VmId> = batches.flat_map(|batch| touched(batch)).collect();
            if first.is_none() {
                ids.extend(view.vms.keys());
            }
            ids.retain(|id| self.only.is_none_or(|only| only == *id));
            let revision = view.revision;
            if ids.is_empty() {
                // Most changes are beats, and many may watch.
                return Seen {
                    revision,
                    rows: Vec::new(),
                };
            }
            let showing = Showing::new(view, &heard);
            let rows = ids.into_iter().map(|id| (id, showing.vm(id))).collect();
            Seen { revision, rows }
        })
    }

    /// Sends what differs from what the client knows. Only the last message says that all of it was sent.
    async fn tell(&mut self, seen: Seen) -> Result<(), Gone> {
        let mut pending = Vec::new();
        for (id, vm) in seen.rows {
            pending.extend(self.difference(id, vm));
        }
        let messages = pending.len().div_ceil(MESSAGE_VMS);
        for (number, changes) in (1..).zip(pending.chunks(MESSAGE_VMS)) {
            if number == messages && self.resumes_from != 0 {
                self.resumes_from = seen.revision;
            }
            self.send(api::WatchVmsResponse {
                changes: changes.to_vec(),
                revision: self.resumes_from,
                is_current: false,
            })
            .await?;
        }
        Ok(())
    }

    fn difference(&mut self, id: VmId, now: Option<api::Vm>) -> Option<api::watch_vms_response::Change> {
        use api::watch_vms_response::change;
        let told = match now {
            Some(vm) if self.sent.get(&id).is_some_and(|sent| is_same(sent, &vm)) => return None,
            Some(vm) => {
                self.sent.insert(id, vm.clone());
                change::Change::Vm(vm)
            }
            None => {
                self.sent.remove(&id)?;
                change::Change::Removed(id.to_string())
            }
        };
        Some(api::watch_vms_response::Change { change: Some(told) })
    }

    async fn send(&self, message: api::WatchVmsResponse) -> Result<(), Gone> {
        self.sender
            .send_timeout(Ok(message), SEND_WITHIN)
            .await
            .map_err(|_| Gone)
    }
}

fn ended(error: ChangesError) -> ApiError {
    match error {
        ChangesError::Lagged { .. } => ApiError::FellBehind,
        ChangesError::Stopped => ApiError::Stopping,
    }
}

/// Whether nothing changed but the age of the host's last word.
fn is_same(one: &api::Vm, other: &api::Vm) -> bool {
    let still = |vm: &api::Vm| {
        // The reason tells the age too, in words.
        let reason = if vm.state() == api::vm::State::Unknown {
            String::new()
        } else {
            vm.reason.clone()
        };
        api::Vm {
            last_heard_ms: 0,
            reason,
            ..vm.clone()
        }
    };
    still(one) == still(other)
}

/// The VMs that changes are about.
fn touched(changes: &[Change]) -> BTreeSet<VmId> {
    let vm = |change: &Change| match &change.key {
        ParsedKey::Operation(_) => match change.after.as_ref().or(change.before.as_ref()) {
            Some(StoredValue::Operation(operation)) => Some(operation.vm),
            _ => None,
        },
        key => key.vm(),
    };
    changes.iter().filter_map(vm).collect()
}
