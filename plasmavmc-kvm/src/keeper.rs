//! The way to the guard: one connection that is made again when it breaks.
//!
//! The guard may be killed, upgraded or replaced at any time while its children run on. Its orders can be
//! repeated without harm (the same order has the same effect once), so what went unanswered is asked again,
//! once, of whoever holds the children then.
//!
//! Every call ends in time, whatever becomes of the guard: a guard that dies under load is looked for, started,
//! and asked again, and each of these may take its own full patience.
//!
//! Must never happen: a second guard started while one lives (the guard's own lock sees to that), an end of a
//! process invented because nobody answered, or a start called undone that may have been done.

use std::future::Future;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use plasmavmc_guard::client::{CallError, Client, EnsureError, Events, ensure_running};
use plasmavmc_guard::wire::{ExitReason, Held, Key, Phase, Refusal, SpawnOrder};
use plasmavmc_types::Epoch;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The kernel tells the guard and us of an end at the same time; it may be a moment behind.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// For all of a call: an order that breaks, a guard that is started, and the order again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for a start, which the guard itself gives up after 10 s.
const SPAWN_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("no guard runs and none can be started: {0}")]
    NoGuard(#[from] EnsureError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The order may have been carried out: ask what the guard holds.
    #[error("it is not known whether the guard did it, and no guard can be asked")]
    Unknown(#[source] Box<KeeperError>),
    #[error("the guard was asked for {} s without an answer; it may still do it", after.as_secs_f32())]
    TimedOut { after: Duration },
    #[error("the end of process {pid} cannot be watched")]
    Watch {
        pid: i32,
        #[source]
        source: std::io::Error,
    },
}

impl KeeperError {
    /// What the guard said, if it said no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Call(CallError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// Whether a process of this attempt may exist all the same, after an order to start it failed so.
    pub(crate) fn may_have_started(&self, key: Key) -> bool {
        match self {
            Self::Call(CallError::Refused(Refusal::Busy(held))) => held.key == key,
            Self::NoGuard(_) | Self::Call(CallError::Refused(_) | CallError::NotSent(_)) => false,
            Self::Call(_) | Self::Unknown(_) | Self::TimedOut { .. } | Self::Watch { .. } => true,
        }
    }
}

/// Who has processes started and ended.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    program: PathBuf,
    client: Mutex<Option<Client>>,
}

impl Keeper {
    /// `folder` is the guard's, `program` what is started if no guard runs.
    pub fn new(folder: PathBuf, program: PathBuf) -> Self {
        Self {
            folder,
            program,
            client: Mutex::new(None),
        }
    }

    async fn client(&self) -> Result<Client, KeeperError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref() {
            return Ok(client.clone());
        }
        let client = ensure_running(&self.folder, &self.program).await?;
        *kept = Some(client.clone());
        Ok(client)
    }

    async fn again<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, KeeperError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let first = match call(self.client().await?).await {
            Ok(answer) => return Ok(answer),
            Err(refused @ CallError::Refused(_)) => return Err(refused.into()),
            Err(first) => first,
        };
        *self.client.lock().await = None;
        let again = async { Ok(call(self.client().await?).await?) };
        match (again.await, first) {
            (Ok(answer), _) => Ok(answer),
            // Whoever refuses now has been asked: that is an answer. What was never sent was never done.
            (Err(error @ KeeperError::Call(CallError::Refused(_))), _) | (Err(error), CallError::NotSent(_)) => {
                Err(error)
            }
            (Err(error), _) => Err(KeeperError::Unknown(Box::new(error))),
        }
    }

    /// The same, within the time for all of it.
    async fn in_time<T, F>(&self, patience: Duration, call: impl Fn(Client) -> F) -> Result<T, KeeperError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        tokio::time::timeout(patience, self.again(call))
            .await
            .unwrap_or(Err(KeeperError::TimedOut { after: patience }))
    }

    pub async fn spawn(&self, order: &SpawnOrder, descriptors: &[BorrowedFd<'_>]) -> Result<Held, KeeperError> {
        self.in_time(SPAWN_PATIENCE, |client| async move {
            client.spawn(order.clone(), descriptors).await
        })
        .await
    }

    pub async fn list(&self) -> Result<Vec<Held>, KeeperError> {
        self.in_time(PATIENCE, |client| async move { client.list().await })
            .await
    }

    /// Sends SIGKILL. A process that is gone already is no error.
    pub async fn kill(&self, key: Key) -> Result<(), KeeperError> {
        match self
            .in_time(PATIENCE, |client| async move { client.kill(key).await })
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.refusal(), Some(Refusal::Unknown { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets a process run again that the guard stopped, if the guard finds the deadline ahead, and of this session.
    pub async fn thaw(&self, key: Key, epoch: Epoch) -> Result<(), KeeperError> {
        let thawed = self.in_time(PATIENCE, |client| async move { client.thaw(key, epoch).await });
        thawed.await.map(drop)
    }

    /// A connection of its own to the guard, which is started if none runs. Told by it is what it does unasked; that it
    /// breaks says that the guard died.
    pub async fn follow(&self) -> Result<(Client, Events), KeeperError> {
        let client = ensure_running(&self.folder, &self.program).await?;
        let events = client.subscribe().await?;
        Ok((client, events))
    }

    /// What tells when the process ends.
    pub async fn watch(&self, held: &Held) -> Result<Lifeline, KeeperError> {
        let key = held.key;
        let pidfd = self
            .in_time(PATIENCE, |client| async move { client.pidfd(key).await })
            .await?;
        Lifeline::new(pidfd).map_err(|source| KeeperError::Watch { pid: held.pid, source })
    }

    /// Makes the guard forget a process that has ended.
    pub async fn forget(&self, key: Key) -> Result<(), KeeperError> {
        match self
            .in_time(PATIENCE, |client| async move { client.collect(key).await })
            .await
        {
            Err(error) if !matches!(error.refusal(), Some(Refusal::Unknown { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    /// How a process ended that has ended, and the guard forgets it. Unknown if nobody can tell in time.
    pub async fn collect(&self, key: Key, within: Duration) -> ExitReason {
        let deadline = Instant::now() + within;
        let unknown = ExitReason::Unknown { kill_ordered: false };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .in_time(left, |client| async move { client.collect(key).await })
                .await
            {
                Ok(Held {
                    phase: Phase::Exited(exit),
                    ..
                }) => return exit.reason,
                Ok(_) => return unknown,
                Err(error) if matches!(error.refusal(), Some(Refusal::Unknown { .. })) => return unknown,
                Err(_) if Instant::now() >= deadline => return unknown,
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// Tells when a process ends, whoever its parent is.
#[derive(Debug)]
pub struct Lifeline(pipe::Receiver);

impl Lifeline {
    pub fn new(pidfd: OwnedFd) -> std::io::Result<Self> {
        // Any type of tokio's will do that only asks the kernel when a descriptor is ready.
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(pidfd)?))
    }

    /// Returns when the process has ended. Safe to drop while it waits.
    pub async fn ended(&self) {
        // It fails only when the runtime shuts down, and then nobody waits any more.
        if self.0.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
