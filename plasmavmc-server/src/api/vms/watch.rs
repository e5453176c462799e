//! WatchVms: everything that is there, then every change.
//!
//! What clients see of a VM also changes with time: a host that falls silent writes nothing. So what was sent
//! last is compared with what would be sent now, at every change of a VM and, of all, every second.
//!
//! Must never: leave a client with a state that is not so, or hold anything up because a client is slow. Its
//! stream ends instead, and says where to resume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plasmavmc_proto::api;
use plasmavmc_types::VmId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::MissedTickBehavior;
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
    let (all, changes) = backend.mirror.follow(|view| {
        let ids: BTreeSet<VmId> = view.vms.keys().copied().collect();
        (view.revision, ids)
    });
    let (revision, ids) = all;
    let past = match request.from_revision {
        0 => None,
        from => Some(history::between(&backend, from, revision).await?),
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        backend,
        only,
        sent: BTreeMap::new(),
        sender,
        _permit: permit,
    };
    tokio::spawn(watcher.run(ids, past, revision, changes));
    Ok(receiver)
}

struct Watcher {
    backend: Backend,
    only: Option<VmId>,
    /// What the client knows.
    sent: BTreeMap<VmId, api::Vm>,
    sender: mpsc::Sender<Outcome>,
    _permit: OwnedSemaphorePermit,
}

/// The client has gone, or does not read.
struct Gone;

impl Watcher {
    async fn run(mut self, ids: BTreeSet<VmId>, past: Option<Vec<Change>>, revision: u64, changes: Changes) {
        let sender = self.sender.clone();
        let stop = self.backend.stop.clone();
        let error = tokio::select! {
            () = sender.closed() => return,
            () = stop.cancelled() => ApiError::Stopping,
            ended = self.stream(ids, past, revision, changes) => match ended {
                Ok(error) => error,
                Err(Gone) => return,
            },
        };
        // A client that is gone needs no reason.
        let _ = sender.try_send(Err(error.into()));
    }

    async fn stream(
        &mut self,
        ids: BTreeSet<VmId>,
        past: Option<Vec<Change>>,
        revision: u64,
        mut changes: Changes,
    ) -> Result<ApiError, Gone> {
        match past {
            None => self.tell(ids, revision).await?,
            Some(past) => {
                // The client knows the others already, as they are.
                let touched = touched(&past);
                let known = ids.difference(&touched).copied().collect();
                self.sent = self
                    .look(&known)
                    .into_iter()
                    .filter_map(|(id, vm)| Some((id, vm?)))
                    .collect();
                let gone: Vec<VmId> = touched.difference(&ids).copied().collect();
                self.sent.extend(gone.into_iter().map(|id| (id, api::Vm::default())));
                self.tell(touched, revision).await?;
            }
        }
        self.send(api::WatchVmsResponse {
            revision,
            is_current: true,
            ..Default::default()
        })
        .await?;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                batch = changes.next() => match batch {
                    Ok(batch) => touched(&batch),
                    Err(ChangesError::Lagged { .. }) => return Ok(ApiError::FellBehind),
                    Err(ChangesError::Stopped) => return Ok(ApiError::Stopping),
                },
                _ = tick.tick() => self.backend.mirror.read(|view| view.vms.keys().copied().collect()),
            };
            let revision = self.backend.mirror.read(|view| view.revision);
            self.tell(changed, revision).await?;
        }
    }

    /// What these VMs look like now.
    fn look(&self, ids: &BTreeSet<VmId>) -> Vec<(VmId, Option<api::Vm>)> {
        let wanted = ids.iter().filter(|id| self.only.is_none_or(|only| only == **id));
        self.backend.look(|view, heard| {
            let showing = Showing::new(view, heard);
            wanted.map(|id| (*id, showing.vm(*id))).collect()
        })
    }

    /// Sends what differs from what the client knows.
    async fn tell(&mut self, ids: BTreeSet<VmId>, revision: u64) -> Result<(), Gone> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pending = Vec::new();
        for (id, vm) in self.look(&ids) {
            pending.extend(self.difference(id, vm));
        }
        for changes in pending.chunks(MESSAGE_VMS) {
            self.send(api::WatchVmsResponse {
                changes: changes.to_vec(),
                revision,
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
