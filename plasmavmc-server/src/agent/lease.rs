//! The leash: the guard is told the deadline with every beat that counted, and tells what it froze.
//!
//! ```text
//!   beat counted --> deadline --> guard            guard: frozen, by the deadline or since it took over --> the loop
//!   connection breaks: the guard died. It is started again at once, and told the deadline again.
//! ```
//! The deadline goes over the guard's socket, not through a file: it is the guard's alone, lives as long as the guard,
//! and a guard that follows one that died holds none, which is the safe side.
//!
//! Must never: tell a deadline that is later than a beat that counted allows.

use std::time::Duration;

use plasmavmc_guard::client::{CallError, Client, Events};
use plasmavmc_guard::wire::{Event, Held, Status};
use plasmavmc_kvm::machine::SharedHost;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::beat::{BeatState, Lease};
use super::vms::News;
use crate::chain::chain;

/// Before a guard is looked for again that could not be started.
const TRY_AGAIN: Duration = Duration::from_millis(50);

pub struct Leash {
    pub kvm: SharedHost,
    pub contact: watch::Receiver<BeatState>,
    pub told: mpsc::Sender<News>,
    /// Whether the guard runs before everything ordinary, with its memory locked.
    pub is_punctual: watch::Sender<bool>,
    pub stop: CancellationToken,
}

/// Why a connection is of no more use.
enum Lost {
    GuardDied,
    Call(CallError),
    /// Nobody wants to know any more.
    Over,
}

impl Leash {
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.hold()).await;
    }

    async fn hold(&mut self) {
        let mut complained = false;
        loop {
            match self.kvm.keeper.follow().await {
                Ok((client, events)) => {
                    complained = false;
                    match self.follow(&client, events).await {
                        Lost::Over => return,
                        Lost::GuardDied => tracing::warn!("the guard has died: another one takes over"),
                        Lost::Call(error) => {
                            tracing::warn!(error = %chain(&error), "the guard does not answer as it should")
                        }
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(error = %chain(&error), "no guard runs here: nothing is started");
                    }
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    async fn follow(&mut self, client: &Client, mut events: Events) -> Lost {
        let mut told: Option<Lease> = None;
        // First the deadline: what a guard finds at its start is frozen, and waits for it.
        if let Err(lost) = self.tell(client, &mut told).await {
            return lost;
        }
        match client.status().await {
            Ok(status) => self.note_standing(&status),
            Err(error) => return Lost::Call(error),
        }
        let held = match client.list().await {
            Ok(held) => held,
            Err(error) => return Lost::Call(error),
        };
        for held in held.into_iter().filter(is_frozen) {
            if self.pass_on(held).await.is_err() {
                return Lost::Over;
            }
        }
        loop {
            let outcome = tokio::select! {
                changed = self.contact.changed() => match changed {
                    Ok(()) => self.tell(client, &mut told).await,
                    Err(_) => return Lost::Over,
                },
                event = events.next() => match event {
                    Some(Event::Frozen(held)) => self.pass_on(held).await,
                    Some(Event::Exited(_)) => Ok(()),
                    None => return Lost::GuardDied,
                },
            };
            if let Err(lost) = outcome {
                return lost;
            }
        }
    }

    async fn tell(&mut self, client: &Client, told: &mut Option<Lease>) -> Result<(), Lost> {
        let Some(lease) = self.contact.borrow_and_update().lease else {
            return Ok(());
        };
        if *told == Some(lease) {
            return Ok(());
        }
        *told = Some(lease);
        client.lease(lease.epoch, lease.until_ms).await.map_err(Lost::Call)
    }

    async fn pass_on(&self, held: Held) -> Result<(), Lost> {
        let (vm, attempt) = (held.key.vm, held.key.attempt);
        tracing::warn!(%vm, %attempt, "the guard holds it still: this host has no lease");
        self.told
            .send(News::Frozen { vm, attempt })
            .await
            .map_err(|_| Lost::Over)
    }

    fn note_standing(&self, status: &Status) {
        let obstacles: Vec<&str> = [&status.memory_not_locked, &status.not_realtime]
            .into_iter()
            .filter_map(|obstacle| obstacle.as_deref())
            .collect();
        let is_punctual = obstacles.is_empty();
        let was = self.is_punctual.send_replace(is_punctual);
        if was != is_punctual || !is_punctual {
            tracing::info!(is_punctual, obstacles = obstacles.join("; "), "the guard");
        }
    }
}

fn is_frozen(held: &Held) -> bool {
    held.lease.is_some_and(|lease| lease.frozen)
}
