//! The task that keeps this host in contact: it opens the session, and then beats.
//!
//! ```text
//!   closed --opened--> open --beat, beat, beat ... --a beat says that the session is not ours--> closed
//! ```
//! A beat is one transaction, sent once: if its answer is lost, nobody knows whether it counted, and the next
//! one has a higher number. It compares the session it belongs to, and that no later beat is stored. What it
//! carries is at hand when it is due; it waits for nothing.
//!
//! The timings of the cluster may change at any moment. A beat is made of one look at them: what it says of its lease
//! and of a fence ([`plasmavmc_core::terms`]), the deadline that follows from it, and for how long its answer is worth
//! something.
//!
//! Must never happen: a beat sent twice; a beat that counts in another session; a moment published that is
//! later than the sending of a beat that counted (leases are reckoned from it).

use std::time::Duration;

use plasmavmc_core::liveness::early_ms;
use plasmavmc_core::terms::{Granted, Terms};
use plasmavmc_types::{Beat, BeatFields, BeatSequence, Capacity, Epoch, HostFacts, Invalid, Session, Timings, Usage};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::session::{Attempted, Held, Opener, Quiet, SessionError};
use crate::chain::chain;
use crate::clock::boottime_ms;
use crate::failpoint;
use crate::store::{Mirror, Write, WriteError, keys};

/// Between two tries to open a session that is not ours to open now.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Said again and again, not only once.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The contact of this host with the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BeatState {
    /// When the last beat was sent that is known to have counted.
    pub last_ok: Option<Instant>,
    /// The session is open, as far as this host knows.
    pub open: bool,
    /// It, with the revision that every write of this host compares.
    pub held: Option<Held>,
    /// Of the session that is open, or was open last.
    pub lease: Option<Lease>,
}

/// Until when leased VMs may execute on this host: reckoned from the sending of a beat that counted, by a clock that
/// goes on while the host sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub epoch: Epoch,
    /// In milliseconds of CLOCK_BOOTTIME.
    pub until_ms: u64,
}

impl Lease {
    pub fn left_ms(&self) -> u64 {
        self.until_ms.saturating_sub(boottime_ms())
    }
}

/// What a beat carries besides its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    pub usage: Usage,
    pub facts: HostFacts,
}

/// Opens, beats, and opens again after a fence.
#[derive(Debug)]
pub struct Heart {
    pub opener: Opener,
    pub mirror: Mirror,
    pub capacity: Capacity,
    pub load: watch::Receiver<Load>,
    pub state: watch::Sender<BeatState>,
    /// Whether the guard can be counted on to act in time.
    pub is_punctual: watch::Receiver<bool>,
    pub stop: CancellationToken,
}

/// Why the beats of a session ended.
enum Ended {
    Stopped,
    Lost,
}

impl Heart {
    pub async fn run(self) {
        while let Some(held) = self.open().await {
            self.publish(held, None);
            match self.beat(held).await {
                Ended::Stopped => break,
                Ended::Lost => {
                    tracing::warn!(epoch = %held.epoch(), "the session of this host was taken away");
                    self.state.send_modify(|state| (state.open, state.held) = (false, None));
                }
            }
        }
        self.state.send_modify(|state| (state.open, state.held) = (false, None));
    }

    /// Tries until the session is open. Nothing if the agent is stopped.
    async fn open(&self) -> Option<Held> {
        let mut quiet: Option<(Quiet, Instant)> = None;
        let mut complained: Option<Instant> = None;
        loop {
            let timings = self.timings();
            let still = quiet.filter(|(quiet, since)| since.elapsed() >= quiet.patience(&timings));
            // A new session begins with nothing granted.
            let first = |session, sequence| self.make(session, sequence, Terms::of(&timings));
            let attempt = self.opener.attempt(still.map(|(quiet, _)| quiet), first);
            let attempted = tokio::select! {
                () = self.stop.cancelled() => return None,
                attempted = attempt => attempted,
            };
            match attempted {
                Ok(Attempted::Held(held)) => return Some(held),
                Ok(Attempted::Raced) => {}
                Ok(Attempted::Silence(seen)) if quiet.is_none_or(|(known, _)| known != seen) => {
                    tracing::info!(
                        "this machine was rebooted; waiting until it is certain that nobody else beats for it"
                    );
                    quiet = Some((seen, Instant::now()));
                }
                Ok(Attempted::Silence(_)) => {}
                Ok(Attempted::Occupied(session)) => complain(&mut complained, || occupied(&session)),
                Err(error) => complain(&mut complained, || chain(&error)),
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
        }
    }

    async fn beat(&self, held: Held) -> Ended {
        let mut sequence = held.sequence;
        let inherited = held.inherited.map(|stored| Granted::inherited(stored, boottime_ms()));
        let mut granted = inherited.unwrap_or_default();
        let mut pace = Pace::default();
        let mut every = pace.every(&self.timings());
        let mut ticks = ticks(every);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ended::Stopped,
                _ = ticks.tick() => {}
            }
            sequence = BeatSequence(sequence.0.saturating_add(1));
            let (sent, sent_ms) = (Instant::now(), boottime_ms());
            let timings = self.timings();
            let terms = granted.terms(&timings, sent_ms);
            // Two beats later the answer is worth nothing any more, and the next beat is due.
            let within = pace.every(&timings) * 2;
            match self.send(&held, sequence, terms, within).await {
                Ok(true) => {
                    granted.add(sent_ms, terms);
                    pace.note_counted(&timings);
                    let until_ms = until_ms(sent_ms, &timings, *self.is_punctual.borrow());
                    let epoch = held.epoch();
                    self.publish(held, Some((sent, Lease { epoch, until_ms })));
                }
                Ok(false) if self.is_lost(&held).await => return Ended::Lost,
                Ok(false) => tracing::warn!("a beat came too late to count"),
                Err(error) => tracing::warn!(error = %chain(&error), "a beat is not known to have counted"),
            }
            let next = pace.every(&self.timings());
            if every != next {
                every = next;
                ticks = self::ticks(every);
            }
        }
    }

    /// Those of the cluster, as far as this server knows.
    fn timings(&self) -> Timings {
        self.mirror.read(|view| view.timings)
    }

    /// Sends one beat, once. Whether it counted; an error says that nobody knows.
    async fn send(
        &self,
        held: &Held,
        sequence: BeatSequence,
        terms: Terms,
        within: Duration,
    ) -> Result<bool, SessionError> {
        let beat = self.make(held.session, sequence, terms)?;
        let host = self.opener.host;
        let write = Write::new()
            .expect(keys::session(host), held.revision)
            .put_beat(host, &beat);
        match failpoint::BEAT
            .around(write.commit_within(&*self.opener.kv, within))
            .await
        {
            Ok(_) => Ok(true),
            Err(WriteError::Raced) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the stored session is another one. What cannot be found out counts as no.
    async fn is_lost(&self, held: &Held) -> bool {
        let key = keys::session(self.opener.host);
        let read = self.opener.kv.get(key, chainfire::kv::Consistency::Linearizable).await;
        match read {
            Ok(answer) => answer.kv.map_or(0, |kv| kv.mod_revision) != held.revision,
            Err(_) => false,
        }
    }

    fn make(&self, session: Session, sequence: BeatSequence, terms: Terms) -> Result<Beat, Invalid> {
        let load = self.load.borrow().clone();
        Beat::new(BeatFields {
            epoch: session.epoch,
            instance: session.instance,
            boot_id: session.boot_id,
            sequence,
            lease_ms: terms.lease_ms,
            failover_ms: terms.failover_ms,
            capacity: self.capacity,
            usage: load.usage,
            facts: load.facts,
        })
    }

    /// A lease whose answer came when it was over already is none.
    fn publish(&self, held: Held, sent: Option<(Instant, Lease)>) {
        let sent = sent.filter(|(_, lease)| lease.left_ms() > 0);
        self.state.send_modify(|state| {
            *state = BeatState {
                last_ok: sent.map(|(at, _)| at).or(state.last_ok),
                open: true,
                held: Some(held),
                lease: sent.map(|(_, lease)| lease).or(state.lease),
            };
        });
    }
}

/// Until when leased VMs may execute if a beat counts that was sent at this moment under these timings.
fn until_ms(sent_ms: u64, timings: &Timings, is_punctual: bool) -> u64 {
    let lasts_ms = timings.freeze_after_ms.saturating_sub(early_ms(timings, is_punctual));
    sent_ms.saturating_add(lasts_ms)
}

/// How often it beats. A longer time holds only once a beat has counted that came under it: until then the lease is the
/// shorter one, and must not run out between two beats, or for the loss of one.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    counted_ms: Option<u64>,
}

impl Pace {
    fn note_counted(&mut self, timings: &Timings) {
        self.counted_ms = Some(timings.beat_ms);
    }

    fn every(self, timings: &Timings) -> Duration {
        let today_ms = timings.beat_ms;
        Duration::from_millis(self.counted_ms.map_or(today_ms, |counted_ms| counted_ms.min(today_ms)))
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    // After a stall one beat is worth as much as all that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn complain(last: &mut Option<Instant>, text: impl FnOnce() -> String) {
    if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
        tracing::warn!("this host has no session and carries out nothing: {}", text());
        *last = Some(Instant::now());
    }
}

fn occupied(session: &Session) -> String {
    format!(
        "instance {} of boot {} holds epoch {} of it. If that is another machine with a copy of this one's disk, give \
         one of them another host id. If it was an earlier boot of this machine, whose board or network cards were \
         changed, it goes on once that session is fenced",
        session.instance, session.boot_id, session.epoch
    )
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::TimingsFields;

    use super::*;

    fn timings(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> Timings {
        let fields = TimingsFields {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        };
        Timings::new(fields).unwrap()
    }

    #[test]
    fn a_slower_pace_waits_for_a_beat_that_counted_under_it() {
        let (usual, slow, fast) = (
            timings(1000, 4000, 6000),
            timings(3000, 12_000, 16_000),
            timings(500, 2500, 4000),
        );
        let mut pace = Pace::default();
        let check = |pace: Pace, today, ms| assert_eq!(pace.every(today), Duration::from_millis(ms), "{pace:?}");
        check(pace, &usual, 1000);
        pace.note_counted(&usual);
        check(pace, &slow, 1000);
        check(pace, &fast, 500);
        pace.note_counted(&slow);
        check(pace, &slow, 3000);
        check(pace, &usual, 1000);
    }

    #[test]
    fn the_deadline_is_of_the_timings_that_the_beat_was_sent_under() {
        let tight = timings(1000, 4000, 5000);
        assert_eq!(until_ms(10_000, &tight, true), 14_000);
        assert_eq!(until_ms(10_000, &tight, false), 12_000);
        assert_eq!(until_ms(10_000, &timings(500, 2500, 5500), false), 12_500);
    }
}
