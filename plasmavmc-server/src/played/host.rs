//! A host that is played: it beats, claims what is placed on it, says that it runs, or that nothing does, and carries
//! out orders at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::Kv;
use plasmavmc_core::code::Code;
use plasmavmc_core::lifecycle::{Verdict, verdict};
use plasmavmc_core::view::{ClusterView, Stored, VmView};
use plasmavmc_types::{
    AttemptId, Beat, BeatFields, BeatSequence, BootId, Capacity, Epoch, HostFacts, HostId, HostMode, InstanceNonce,
    ObservedState, Operation, OperationKind, OperationState, PauseCause, PowerWanted, QemuProcess, Session,
    SessionState, Usage, VmId, VmRecord, VmStatus,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Book;
use crate::clock::wall_ms;
use crate::store::{Mirror, Write, WriteError, keys};

const BEAT: Duration = Duration::from_secs(1);

pub struct Host {
    id: HostId,
    kv: Arc<dyn Kv>,
    mirror: Mirror,
    book: Book,
    session: Session,
    session_revision: u64,
    sequence: u64,
}

/// What follows at one VM.
struct Step {
    write: Write,
    /// Whether its QEMU runs from then on.
    runs: bool,
}

impl Host {
    pub async fn open(id: HostId, kv: Arc<dyn Kv>, mirror: Mirror, book: Book) -> Self {
        let session = Session {
            epoch: Epoch::FIRST,
            instance: InstanceNonce::from_uuid(Uuid::new_v4()),
            boot_id: BootId::from_uuid(Uuid::new_v4()),
            state: SessionState::Open,
        };
        let mut host = Self {
            id,
            kv,
            mirror,
            book,
            session,
            session_revision: 0,
            sequence: 1,
        };
        let write = Write::new()
            .expect_absent(keys::session(id))
            .put_session(id, &session)
            .put_first_beat(id, &host.beat(), 0);
        host.session_revision = write.commit(&*host.kv).await.unwrap().revision;
        host.mirror.reached(host.session_revision, super::SOON).await.unwrap();
        host
    }

    fn beat(&self) -> Beat {
        let fields = BeatFields {
            epoch: self.session.epoch,
            instance: self.session.instance,
            boot_id: self.session.boot_id,
            sequence: BeatSequence(self.sequence),
            lease_ms: 4000,
            failover_ms: 6000,
            capacity: Capacity {
                vcpus: 8,
                memory_mb: 16_384,
            },
            usage: Usage::default(),
            facts: HostFacts::default(),
        };
        Beat::new(fields).unwrap()
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut revision = self.mirror.revision();
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = beats.tick() => self.send_beat().await,
                changed = revision.changed() => if changed.is_err() { return },
            }
            revision.borrow_and_update();
            self.look().await;
        }
    }

    async fn send_beat(&mut self) {
        self.sequence += 1;
        let write = Write::new().expect(keys::session(self.id), self.session_revision);
        write.put_beat(self.id, &self.beat()).commit(&*self.kv).await.unwrap();
    }

    async fn look(&self) {
        let placed: BTreeSet<VmId> = self.mirror.read(|view| {
            let vms = view.vms.iter();
            let here = vms.filter(|(_, vm)| vm.placement.as_ref().is_some_and(|at| at.value.host == self.id));
            here.map(|(id, _)| *id).collect()
        });
        for id in placed {
            let Some(Step { write, runs }) = self.mirror.read(|view| self.step(view, id)) else {
                continue;
            };
            // A process ends before it is said to have ended, and begins after it was claimed.
            let had = if runs { None } else { self.book.lock().remove(&id) };
            assert!(had.is_none_or(|host| host == self.id), "VM {id} ran elsewhere");
            match write.commit(&*self.kv).await {
                Ok(_) if runs => {
                    let before = self.book.lock().insert(id, self.id);
                    assert!(before.is_none_or(|host| host == self.id), "VM {id} runs twice");
                }
                Ok(_) | Err(WriteError::Raced) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn step(&self, view: &ClusterView, id: VmId) -> Option<Step> {
        let vm = view.vms.get(&id)?;
        let record = vm.record.as_ref()?;
        let host = view.hosts.get(&self.id)?.record.as_ref()?;
        let guarded = Write::new()
            .expect(keys::session(self.id), self.session_revision)
            .expect_seen(keys::placement(id), vm.placement.as_ref())
            .expect_seen(keys::status(id), vm.status.as_ref());
        let open = view.open_operations(id);
        let orders = open.iter().filter(|operation| {
            let operation = &operation.value;
            operation.kind.is_order() && operation.state == OperationState::Pending && !operation.cancel_requested
        });
        let first = orders.min_by_key(|operation| operation.value.kind != OperationKind::Stop { force: true });
        let is_deleted = record.value.is_deleted();
        if let Some(order) = first.filter(|_| !is_deleted && vm.current_status().is_some()) {
            return Some(self.ordered(vm, record, order, guarded));
        }
        let is_wanted = record.value.power() == PowerWanted::On && !is_deleted;
        let next = match (vm.current_status().map(|status| &status.value.state), is_wanted) {
            (None, true) => ObservedState::Starting,
            (Some(ObservedState::Stopped), true) if host.value.mode() == HostMode::Active => ObservedState::Starting,
            (Some(ObservedState::Starting), true) => ObservedState::Running,
            (Some(ObservedState::Stopped), _) | (Some(_), true) => return None,
            (_, false) => ObservedState::Stopped,
        };
        let mut write = guarded;
        if next == ObservedState::Starting {
            write = write.expect(keys::vm_record(id), record.revision);
        }
        if next == ObservedState::Running {
            let starts = |operation: &&&Stored<Operation>| !operation.value.kind.is_order();
            let starts = open
                .iter()
                .filter(starts)
                .filter(|start| start.value.kind != OperationKind::Delete);
            write = starts.fold(write, |write, start| end(write, start, OperationState::Done, "it runs"));
        }
        let runs = next != ObservedState::Stopped;
        let write = write.put_status(id, &status(vm, next)?);
        Some(Step { write, runs })
    }

    fn ordered(&self, vm: &VmView, record: &Stored<VmRecord>, order: &Stored<Operation>, guarded: Write) -> Step {
        let (id, kind) = (order.value.vm, order.value.kind);
        let state = vm.current_status().map(|status| status.value.state.vm_state());
        let state = state.unwrap_or(plasmavmc_types::VmState::Pending);
        let runs_now = self.book.lock().contains_key(&id);
        let is_stop = matches!(kind, OperationKind::Stop { .. });
        let (next, ending) = match verdict(kind, state) {
            Verdict::Refused(reason, text) => {
                let error = Code::FailedPrecondition.error(reason, text);
                (None, OperationState::Failed(error))
            }
            Verdict::IsSo(_) => (None, OperationState::Done),
            _ => {
                let next = match kind {
                    OperationKind::Stop { .. } => Some(ObservedState::Stopped),
                    OperationKind::Pause => Some(ObservedState::Paused {
                        cause: PauseCause::Asked,
                    }),
                    OperationKind::Resume | OperationKind::Reboot | OperationKind::Restart { .. } => {
                        Some(ObservedState::Running)
                    }
                    _ => None,
                };
                (next, OperationState::Done)
            }
        };
        let mut write = end(guarded, order, ending.clone(), "as it was asked");
        if is_stop && ending == OperationState::Done && record.value.power() == PowerWanted::On {
            let off = record.value.with_power(PowerWanted::Off).unwrap();
            write = write.expect(keys::vm_record(id), record.revision).put_record(&off);
        }
        let runs = match &next {
            Some(next) => *next != ObservedState::Stopped,
            None => runs_now,
        };
        if let Some(status) = next.and_then(|next| status(vm, next)) {
            write = write.put_status(id, &status);
        }
        Step { write, runs }
    }
}

fn end(write: Write, operation: &Stored<Operation>, state: OperationState, step: &str) -> Write {
    let ended = operation.value.moved(state, step, wall_ms());
    write
        .expect(keys::operation(ended.id), operation.revision)
        .put_operation(&ended)
}

/// A start is a new attempt; everything else belongs to the one that is claimed.
fn status(vm: &VmView, state: ObservedState) -> Option<VmStatus> {
    let placement = vm.placement.as_ref()?.value;
    let generation = vm.record.as_ref()?.value.generation().get();
    let claimed = vm.current_status().filter(|_| state != ObservedState::Starting);
    let fresh = || AttemptId::from_uuid(Uuid::new_v4());
    let base = match claimed {
        Some(status) => status.value.clone(),
        None => VmStatus::claim(placement.incarnation, false, fresh()).ok()?,
    };
    let needs_process = matches!(state, ObservedState::Running | ObservedState::Paused { .. });
    let edited = base.edit(|fields| {
        fields.process = needs_process.then_some(QemuProcess {
            pid: 7,
            start_time_ticks: 7,
        });
        fields.generation = generation;
        fields.state = state;
    });
    edited.ok()
}
