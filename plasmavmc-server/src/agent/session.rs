//! The right of this host to beat and to report: opened by this host, ended by a fence.
//!
//! ```text
//!   stored session                           what this instance does
//!   none                                     opens epoch 1
//!   fenced, of this machine                  opens the next epoch: what it had may be elsewhere by now
//!   fenced, of anybody else                  opens the next epoch once nothing that one may still run is placed here
//!   open, of this instance                   goes on in it: only the server was restarted
//!   open, of an earlier boot of this machine opens the next epoch, once that boot's beats have stood still
//!   open, of anybody else                    waits until it is fenced, and says so
//! ```
//! Reopening after a reboot without a fence is safe for this reason: what ran under the old session ran in a
//! boot of this machine, and a machine runs one boot at a time, so all of it ended with that boot. Three things
//! have to hold together for it. The nonce of the old session stands in our own instance file, as that of an
//! earlier boot. The mark of the machine beside it (board and network cards, never anything on the disk) is
//! ours: a copy of the disk in another machine reads the same file, has another mark, and waits. And no beat
//! comes for as long as a living host may take between two: a clone that has even the marks in common is heard,
//! as long as it is in contact. All of it is compared in the transaction that opens, with the beat.
//!
//! A fence stops what was leased, and only that. A stranger that took the place of a fenced host would start what is
//! not leased a second time, so it waits until all of it has gone elsewhere, or an operator takes the host out.
//!
//! Must never happen: two instances that both hold an open session; an instance that was displaced by another
//! one and takes its place back.

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::{Consistency, Key, Kv, KvError};
use plasmavmc_core::terms::Terms;
use plasmavmc_core::visible::runs_nowhere;
use plasmavmc_types::{Beat, BeatSequence, Epoch, HostId, Invalid, Session, SessionState, Timings};

use super::instance::Instance;
use crate::failpoint;
use crate::store::{CodecError, Mirror, Write, WriteError, codec, keys};

/// For the opening transaction.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// What to do about the session that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is ours and open.
    GoOn,
    Open {
        epoch: Epoch,
    },
    /// As `Open`, if nothing that another instance may still run is placed here.
    Displace {
        epoch: Epoch,
    },
    /// As `Open`, if the beats stand still.
    Reopen {
        epoch: Epoch,
    },
    /// Until it is fenced.
    Wait,
}

/// The rules, as in the table above.
pub fn judge(stored: Option<&Session>, me: &Instance) -> Option<Opening> {
    let Some(session) = stored else {
        return Some(Opening::Open { epoch: Epoch::FIRST });
    };
    let next = session.epoch.next();
    let is_mine = session.instance == me.life.nonce && session.boot_id == me.life.boot_id;
    Some(match session.state {
        SessionState::Fenced | SessionState::Unconfirmed
            if is_mine || me.outlived(session.instance, session.boot_id) =>
        {
            Opening::Open { epoch: next? }
        }
        SessionState::Fenced | SessionState::Unconfirmed => Opening::Displace { epoch: next? },
        SessionState::Open if is_mine => Opening::GoOn,
        SessionState::Open if me.outlived(session.instance, session.boot_id) => Opening::Reopen { epoch: next? },
        SessionState::Open => Opening::Wait,
    })
}

/// An open session of this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub session: Session,
    /// What every write of this host compares.
    pub revision: u64,
    /// The last beat that is stored.
    pub sequence: BeatSequence,
    /// What it says of time, if the session goes on: the guard may hold the deadline of an earlier process to it.
    pub inherited: Option<Terms>,
}

impl Held {
    pub fn epoch(&self) -> Epoch {
        self.session.epoch
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session of this host cannot be read")]
    Kv(#[from] KvError),
    #[error("the session of this host cannot be written")]
    Write(#[from] WriteError),
    #[error("the session of this host is stored in a form that this version does not understand: {problem}")]
    Unreadable { problem: String },
    #[error("no beat can be made")]
    Beat(#[from] Invalid),
    #[error("there is no epoch left")]
    NoEpochLeft,
}

/// What an attempt to open came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    Held(Held),
    /// Somebody else changed it meanwhile.
    Raced,
    /// Another instance holds it.
    Occupied(Session),
    /// The beats of the earlier boot have to stand still for some time.
    Silence(Quiet),
}

/// A beat, and since when it has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    pub beat_revision: u64,
    /// What it says of time.
    told: Option<Terms>,
}

impl Quiet {
    /// How long it has to stand still: nobody who is in contact is silent for so long, neither by the timings of today
    /// nor by those that the beat was sent under.
    pub fn patience(&self, timings: &Timings) -> Duration {
        let told_ms = self.told.map_or(0, |terms| terms.failover_ms);
        Duration::from_millis(told_ms.max(timings.failover_after_ms))
    }
}

/// What is stored of this host's session and beat.
struct Seen {
    session: Option<Session>,
    session_revision: u64,
    sequence: BeatSequence,
    beat_revision: u64,
    told: Option<Terms>,
}

/// Opens sessions of one instance of a host.
#[derive(Debug)]
pub struct Opener {
    pub host: HostId,
    pub instance: Instance,
    pub kv: Arc<dyn Kv>,
    pub mirror: Mirror,
}

impl Opener {
    /// Tries once. `quiet` is the beat that was seen to stand still for long enough; `first` makes the beat that
    /// goes with the opening.
    pub async fn attempt(
        &self,
        quiet: Option<Quiet>,
        first: impl Fn(Session, BeatSequence) -> Result<Beat, Invalid>,
    ) -> Result<Attempted, SessionError> {
        let seen = self.look().await?;
        let opening = judge(seen.session.as_ref(), &self.instance).ok_or(SessionError::NoEpochLeft)?;
        let epoch = match (opening, seen.session) {
            (Opening::GoOn, Some(session)) => {
                return Ok(Attempted::Held(Held {
                    session,
                    revision: seen.session_revision,
                    sequence: seen.sequence,
                    inherited: seen.told,
                }));
            }
            (Opening::Wait, Some(session)) => return Ok(Attempted::Occupied(session)),
            (Opening::Reopen { .. }, _) if quiet.is_none_or(|quiet| quiet.beat_revision != seen.beat_revision) => {
                return Ok(Attempted::Silence(Quiet {
                    beat_revision: seen.beat_revision,
                    told: seen.told,
                }));
            }
            (Opening::Displace { .. }, Some(session)) if self.may_run_here().await? => {
                return Ok(Attempted::Occupied(session));
            }
            (Opening::Open { epoch } | Opening::Reopen { epoch } | Opening::Displace { epoch }, _) => epoch,
            // Neither comes without a session.
            (Opening::GoOn | Opening::Wait, None) => return Ok(Attempted::Raced),
        };
        self.open(epoch, &seen, first).await
    }

    async fn open(
        &self,
        epoch: Epoch,
        seen: &Seen,
        first: impl Fn(Session, BeatSequence) -> Result<Beat, Invalid>,
    ) -> Result<Attempted, SessionError> {
        let session = Session {
            epoch,
            instance: self.instance.life.nonce,
            boot_id: self.instance.life.boot_id,
            state: SessionState::Open,
        };
        let sequence = BeatSequence(seen.sequence.0.saturating_add(1));
        let beat = first(session, sequence)?;
        let write = Write::new()
            .expect(keys::session(self.host), seen.session_revision)
            .put_session(self.host, &session)
            .put_first_beat(self.host, &beat, seen.beat_revision);
        let opened = match failpoint::SESSION
            .around(write.commit_within(&*self.kv, OPEN_WITHIN))
            .await
        {
            Err(WriteError::Raced) => return Ok(Attempted::Raced),
            opened => opened?,
        };
        tracing::info!(%epoch, instance = %session.instance, "the session of this host is open");
        Ok(Attempted::Held(Held {
            session,
            revision: opened.revision,
            sequence,
            inherited: None,
        }))
    }

    /// Whether anything is placed on this host that somebody claimed and has not called over. While the session is fenced
    /// nothing is placed here, and nobody but the controller writes of what is: it can only become less.
    async fn may_run_here(&self) -> Result<bool, SessionError> {
        let answer = self.kv.get(keys::session(self.host), Consistency::Linearizable).await?;
        if self.mirror.reached(answer.revision, OPEN_WITHIN).await.is_err() {
            return Ok(true);
        }
        Ok(self.mirror.read(|view| {
            let mut placed = view.vms.values().filter(|vm| {
                let placement = vm.placement.as_ref();
                placement.is_some_and(|placement| placement.value.host == self.host)
            });
            placed.any(|vm| vm.status.is_some() && !runs_nowhere(vm))
        }))
    }

    async fn look(&self) -> Result<Seen, SessionError> {
        let get = async |key: Key| self.kv.get(key, Consistency::Linearizable).await;
        let unreadable = |error: CodecError| SessionError::Unreadable {
            problem: error.to_string(),
        };
        let session = get(keys::session(self.host)).await?.kv;
        let beat = get(keys::beat(self.host)).await?.kv;
        let decoded = session.as_ref().map(|kv| codec::decode_session(&kv.value));
        // The number counts here; one of a later version has it, too, whatever else it is.
        let sequence = beat.as_ref().and_then(|kv| kv.value.first_chunk::<8>().copied());
        let told = beat.as_ref().and_then(|kv| codec::decode_beat(&kv.value).ok());
        Ok(Seen {
            session: decoded.transpose().map_err(unreadable)?,
            session_revision: session.map_or(0, |kv| kv.mod_revision),
            sequence: BeatSequence(sequence.map_or(0, u64::from_be_bytes)),
            beat_revision: beat.map_or(0, |kv| kv.mod_revision),
            told: told.as_ref().map(Terms::told_by),
        })
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::{BootId, InstanceNonce};
    use uuid::Uuid;

    use super::super::instance::Life;
    use super::*;

    fn nonce(number: u128) -> InstanceNonce {
        InstanceNonce::from_uuid(Uuid::from_u128(number))
    }

    fn boot(number: u128) -> BootId {
        BootId::from_uuid(Uuid::from_u128(number))
    }

    fn life(number: u128, machine: &str) -> Life {
        Life {
            boot_id: boot(number),
            nonce: nonce(number),
            machine: Some(machine.to_owned()),
        }
    }

    fn check(stored: Option<(u64, u128, u128, SessionState)>, expected: Opening) {
        let me = Instance {
            life: life(3, "board"),
            past: vec![life(1, "another board"), life(2, "board")],
        };
        let session = stored.map(|(epoch, instance, boot_id, state)| Session {
            epoch: Epoch::from_raw(epoch),
            instance: nonce(instance),
            boot_id: boot(boot_id),
            state,
        });
        assert_eq!(judge(session.as_ref(), &me), Some(expected), "{session:?}");
    }

    #[test]
    fn a_session_is_opened_by_who_may_and_waited_for_by_all_others() {
        let open = |epoch| Opening::Open {
            epoch: Epoch::from_raw(epoch),
        };
        check(None, open(1));
        let displaced = Opening::Displace {
            epoch: Epoch::from_raw(5),
        };
        check(Some((4, 9, 9, SessionState::Fenced)), displaced);
        check(Some((4, 1, 1, SessionState::Fenced)), displaced);
        check(Some((4, 2, 2, SessionState::Fenced)), open(5));
        check(Some((4, 3, 3, SessionState::Unconfirmed)), open(5));
        check(Some((4, 9, 9, SessionState::Unconfirmed)), displaced);
        check(Some((4, 3, 3, SessionState::Fenced)), open(5));
        check(Some((4, 3, 3, SessionState::Open)), Opening::GoOn);
        let reopened = Opening::Reopen {
            epoch: Epoch::from_raw(5),
        };
        check(Some((4, 2, 2, SessionState::Open)), reopened);
        // The disk came from another machine.
        check(Some((4, 1, 1, SessionState::Open)), Opening::Wait);
        // Nobody we know.
        check(Some((4, 9, 9, SessionState::Open)), Opening::Wait);
        // Another instance of this very boot: what it started may run.
        check(Some((4, 9, 3, SessionState::Open)), Opening::Wait);
        // A nonce of ours, but not as we had it.
        check(Some((4, 3, 9, SessionState::Open)), Opening::Wait);
        check(Some((4, 2, 9, SessionState::Open)), Opening::Wait);
    }

    #[test]
    fn beats_of_an_earlier_boot_stand_still_for_as_long_as_they_say_themselves() {
        let check = |told_ms: Option<u64>, expected_ms| {
            let told = told_ms.map(|failover_ms| Terms {
                lease_ms: 4000,
                failover_ms,
            });
            let quiet = Quiet { beat_revision: 7, told };
            assert_eq!(quiet.patience(&Timings::default()), Duration::from_millis(expected_ms));
        };
        check(None, 6000);
        check(Some(5000), 6000);
        check(Some(25_000), 25_000);
    }

    #[test]
    fn epochs_end_and_do_not_wrap() {
        let me = Instance {
            life: life(3, "board"),
            past: Vec::new(),
        };
        let last = Session {
            epoch: Epoch::from_raw(u64::MAX),
            instance: nonce(9),
            boot_id: boot(9),
            state: SessionState::Fenced,
        };
        assert_eq!(judge(Some(&last), &me), None);
    }
}
