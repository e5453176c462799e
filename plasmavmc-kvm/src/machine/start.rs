//! From a specification to a machine that waits for its first `cont`, or from a process that runs already.
//!
//! ```text
//!  folder -> lock -> channels -> record -> guard spawns -> QMP greets -> prepared
//!    <-------- undone backwards when a step fails; a process is killed and waited for ----
//! ```

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_guard::wire::{Cgroup, DeathSignal, Held, Key, Lease, Output, SpawnOrder};
use plasmavmc_types::{AttemptId, Label, QemuRunState, VmId, VmSpec};
use tokio::time::Instant;

use super::devices::{Ledger, forget_missing};
use super::error::MachineError;
use super::hands::{Channels, last_words, query_status};
use super::task::{Monitor, Task};
use super::{Host, Machine, MachineState, Phase, patience};
use crate::argv::{HostFacts, Placed, command_line};
use crate::channel::SocketOwner;
use crate::keeper::Lifeline;
use crate::qmp::{self, ConnectError, Connection};
use crate::runtime::{FolderLock, RuntimeFolder, StartRecord, file};

/// The number of the folder's lock in QEMU; those of the taps follow.
const LOCK_NUMBER: i32 = 3;
/// A VM with many disks and cards, and what QEMU opens for itself.
const OPEN_FILES: u64 = 4096;
/// QEMUs are killed for want of memory before the server is, and the guard last.
const OOM_SCORE: i16 = 300;
/// QEMU makes its monitor's socket some 30 ms after its start.
const LOOK_FOR_MONITOR_EVERY: Duration = Duration::from_millis(2);

/// What is started.
#[derive(Debug)]
pub struct StartPlan {
    pub id: VmId,
    pub attempt: AttemptId,
    pub spec: VmSpec,
    pub facts: HostFacts,
    pub placed: Placed,
    /// For each NIC on a bridge, by name: one open tap a queue.
    pub taps: BTreeMap<Label, Vec<OwnedFd>>,
    /// It may be started elsewhere once the lease of this host is over: the guard holds it by that lease.
    pub lease: Option<Lease>,
}

/// Starts a VM. Its guest does not execute yet. Nothing is left behind if this fails; unless nobody can tell
/// whether the process runs, and no guard can end it: then its folder stays, for who adopts it.
pub async fn launch(host: &Arc<Host>, plan: StartPlan) -> Result<Machine, MachineError> {
    let folder = RuntimeFolder::create(&host.vms, plan.id)?;
    let key = Key {
        vm: plan.id,
        attempt: plan.attempt,
    };
    let lock = folder.lock()?;
    match prepare_and_spawn(host, &folder, &lock, plan).await {
        Ok((record, channels, held)) => {
            // From here on QEMU's own copy of the lock says that it runs.
            drop(lock);
            connect_first(host, Arc::new(folder), record, channels, held).await
        }
        Err(MachineError::Keeper(error)) if error.may_have_started(key) => {
            // Our lock is also that of a process that may run: only without ours it tells whether one does.
            drop(lock);
            undo(host, Arc::new(folder), key, None).await;
            Err(error.into())
        }
        Err(error) => {
            folder.remove(lock)?;
            Err(error)
        }
    }
}

async fn prepare_and_spawn(
    host: &Arc<Host>,
    folder: &RuntimeFolder,
    lock: &FolderLock,
    plan: StartPlan,
) -> Result<(StartRecord, Channels, Held), MachineError> {
    let StartPlan {
        id,
        attempt,
        spec,
        facts,
        mut placed,
        taps,
        lease,
    } = plan;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![lock.as_fd()];
    for (nic, queues) in &taps {
        let first = LOCK_NUMBER + descriptors.len() as i32;
        let numbers = (first..).take(queues.len()).collect();
        placed.taps.insert(nic.clone(), numbers);
        descriptors.extend(queues.iter().map(AsFd::as_fd));
    }
    let line = command_line(&spec, id, &facts, &placed)?;
    let owner = host.run_as.as_ref();
    let socket_owner = owner.map(|owner| SocketOwner {
        uid: owner.uid,
        gid: owner.gid,
    });
    if let Some(owner) = owner {
        folder.give_to(owner.uid, owner.gid)?;
    }
    let channels = Channels::listen(folder, spec.name.as_str(), socket_owner)?;
    let record = StartRecord {
        id,
        attempt,
        spec,
        host: facts,
        placed,
        slots: line.slots,
    };
    folder.write_record(&record)?;
    let key = Key { vm: id, attempt };
    let path = folder.path().to_string_lossy().into_owned();
    let mut order = SpawnOrder::new(key, host.qemu.program().to_string_lossy(), path);
    order.arguments = line.arguments;
    order.environment.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
    order.output = Output::File(file::QEMU_LOG.to_owned());
    order.descriptors = (LOCK_NUMBER..).take(descriptors.len()).collect();
    order.owner = host.run_as.clone();
    order.open_files = Some(OPEN_FILES);
    order.oom_score_adj = OOM_SCORE;
    // Nothing that may be started elsewhere runs on without a guard.
    order.death_signal = lease.is_some().then_some(DeathSignal::Stop);
    order.lease = lease;
    order.cgroup = host.cgroup.as_ref().map(|parent| Cgroup {
        folder: parent.join(format!("vm-{id}")).to_string_lossy().into_owned(),
        cpu_weight: None,
        memory_max: None,
    });
    let held = host.keeper.spawn(&order, &descriptors).await?;
    Ok((record, channels, held))
}

/// Waits for the monitor of a process that has just been spawned.
async fn connect_first(
    host: &Arc<Host>,
    folder: Arc<RuntimeFolder>,
    record: StartRecord,
    channels: Channels,
    held: Held,
) -> Result<Machine, MachineError> {
    let lifeline = match host.keeper.watch(&held).await {
        Ok(lifeline) => lifeline,
        Err(error) => {
            // It has ended so soon that there is nothing to watch, or the guard is in trouble.
            undo(host, folder, held.key, None).await;
            return Err(error.into());
        }
    };
    let connected = tokio::select! {
        () = lifeline.ended() => None,
        connected = await_monitor(&folder) => Some(connected),
    };
    let said = last_words(&folder.path());
    let failure = match connected {
        Some(Ok((connection, state))) => {
            return Ok(adopt_process(
                host,
                folder,
                record,
                channels,
                held,
                lifeline,
                Some((connection, state)),
            ));
        }
        Some(Err(source)) => MachineError::Monitor { source, said },
        None => MachineError::EndedAtStart { said },
    };
    undo(host, folder, held.key, Some(lifeline)).await;
    Err(failure)
}

/// Ends a process that is not wanted after all, and cleans up behind it.
async fn undo(host: &Host, folder: Arc<RuntimeFolder>, key: Key, lifeline: Option<Lifeline>) {
    if let Err(error) = host.keeper.kill(key).await {
        tracing::warn!(vm = %key.vm, %error, "a QEMU that failed to start cannot be killed");
        return;
    }
    if let Some(lifeline) = lifeline
        && tokio::time::timeout(patience::KILL, lifeline.ended()).await.is_err()
    {
        tracing::warn!(vm = %key.vm, "a QEMU that failed to start does not end");
        return;
    }
    host.keeper.collect(key, patience::COLLECT).await;
    clear(folder).await;
}

/// Removes the folder of a process that is gone, which the lock proves.
pub(super) async fn clear(folder: Arc<RuntimeFolder>) {
    let deadline = Instant::now() + patience::COLLECT;
    loop {
        match folder.lock() {
            Ok(lock) => {
                let removed = folder.remove(lock);
                if let Err(error) = removed {
                    tracing::warn!(%error, "a runtime folder cannot be removed");
                }
                return;
            }
            Err(crate::runtime::RuntimeError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_FOR_MONITOR_EVERY).await;
            }
            Err(crate::runtime::RuntimeError::Gone { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "a runtime folder cannot be cleared");
                return;
            }
        }
    }
}

async fn await_monitor(folder: &RuntimeFolder) -> Result<(Connection, QemuRunState), ConnectError> {
    let path = folder.path().join(file::QMP_SOCKET);
    let deadline = Instant::now() + patience::GREETING;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match reach(&path, left).await {
            // Not there yet, or there and not listening yet.
            Err(ConnectError::Socket(_)) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_FOR_MONITOR_EVERY).await;
            }
            reached => return reached,
        }
    }
}

/// Connects and asks what QEMU does.
pub(super) async fn reach(
    path: &std::path::Path,
    within: Duration,
) -> Result<(Connection, QemuRunState), ConnectError> {
    let connection = qmp::connect(path, within).await?;
    let state = query_status(&connection.qmp, within)
        .await
        .map_err(|source| ConnectError::Negotiation {
            path: path.to_owned(),
            source,
        })?;
    Ok((connection, state))
}

/// Takes over a process that runs already. Its monitor may not answer: then the machine is unreachable until
/// it does.
pub async fn take_over(
    host: &Arc<Host>,
    folder: RuntimeFolder,
    record: StartRecord,
    held: Held,
) -> Result<Machine, MachineError> {
    let owner = host.run_as.as_ref().map(|owner| SocketOwner {
        uid: owner.uid,
        gid: owner.gid,
    });
    let folder = Arc::new(folder);
    // First: QEMU connects to these by itself, within a second.
    let channels = Channels::take_over(&folder, record.spec.name.as_str(), owner)?;
    let lifeline = host.keeper.watch(&held).await?;
    let path = folder.path().join(file::QMP_SOCKET);
    let is_held = held.lease.is_some_and(|lease| lease.frozen);
    let reached = match reach_unless(is_held, &path).await {
        None => None,
        Some(Ok((connection, _))) if connection.qmp.peer_pid().is_some_and(|pid| pid != held.pid) => {
            tracing::warn!(vm = %held.key.vm, pid = held.pid, "another process answers at its monitor");
            None
        }
        Some(Ok(reached)) => Some(reached),
        Some(Err(error)) => {
            tracing::warn!(vm = %held.key.vm, pid = held.pid, %error, "its monitor does not answer");
            None
        }
    };
    let mut ledger = Ledger {
        folder: Arc::clone(&folder),
        record,
    };
    if let Some((connection, _)) = &reached
        && let Err(error) = forget_missing(&connection.qmp, &mut ledger).await
    {
        tracing::warn!(vm = %held.key.vm, %error, "its devices cannot be compared with its record");
    }
    let record = ledger.record;
    Ok(adopt_process(host, folder, record, channels, held, lifeline, reached))
}

/// A process that the guard has stopped answers nobody, and need not be waited for.
async fn reach_unless(
    is_stopped: bool,
    path: &std::path::Path,
) -> Option<Result<(Connection, QemuRunState), ConnectError>> {
    match is_stopped {
        true => None,
        false => Some(reach(path, patience::COMMAND).await),
    }
}

fn adopt_process(
    host: &Arc<Host>,
    folder: Arc<RuntimeFolder>,
    record: StartRecord,
    channels: Channels,
    held: Held,
    lifeline: Lifeline,
    reached: Option<(Connection, QemuRunState)>,
) -> Machine {
    let mut state = MachineState {
        phase: Phase::Unreachable,
        qemu: QemuRunState::PreLaunch,
        pid: held.pid,
        leased: held.lease.is_some(),
        frozen: held.lease.is_some_and(|lease| lease.frozen) || folder.is_marked_frozen(),
        resets: 0,
        disk_trouble: None,
        action: None,
        last_words: String::new(),
    };
    let monitor = match reached {
        None => Monitor::Lost,
        Some((connection, qemu)) => {
            state.phase = super::phase::follow(state.phase, &super::phase::Signal::Reported(qemu.clone()));
            state.qemu = qemu;
            Monitor::Connected(connection)
        }
    };
    Task::spawn(
        Arc::clone(host),
        folder,
        record,
        Arc::new(channels),
        held.key,
        lifeline,
        monitor,
        state,
    )
}
