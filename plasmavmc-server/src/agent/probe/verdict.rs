//! Whether a pool that is marked as shared is: decided on what was seen in it. Pure.
//!
//! ```text
//!   seen of another host that lives                          what it says
//!   its file is there, and somebody else holds its lock      a witness: the folder is one, and locks conflict
//!   its file is there, not locked, and it goes on writing    locks do not reach from host to host: never shared
//!     there, which it does only while it holds the lock
//!   it offers the pool, and has no file here                 it has another folder under this name
//!   its file is there, not locked, and stands still          nothing: its server was just restarted, most often
//!   nothing of it is there                                   nothing: it does not have the pool (yet)
//! ```
//! What was proven stays proven until something speaks against it, also when the witness has died: it is then that
//! what ran there has to be started here. The proof is kept in our own file in the pool, so it is gone with the
//! mount, and there again with it.
//!
//! Must never: call shared what no other host was ever seen in; say that locks do not work because a server was
//! restarted, or because a cache was old.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_types::{HostId, InstanceNonce};
use uuid::Uuid;

/// A contradiction has to last: other hosts see what we make only after their caches are old (NFS: a minute), and a
/// server that ends holds its locks for a moment.
pub const LASTS_MS: u64 = 75_000;
/// So often must a host have written on between two looks that found its lock free. Twice, since what is read first
/// may be older than it seems.
const WRITES: u8 = 2;

/// What a host writes into its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    pub instance: InstanceNonce,
    /// One process of its server; it holds the lock whenever it writes.
    pub writer: Uuid,
    /// One more each time it writes.
    pub count: u64,
}

/// Another host's file, as it was when its lock was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Absent if it cannot be read now.
    pub sign: Option<Sign>,
    pub is_locked: bool,
}

/// What one look at a pool found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// Its mount says that it cannot be shared.
    Refused(String),
    /// Another process holds the lock of our own file.
    Occupied,
    Seen {
        /// Our file holds the proof of an earlier look, or of an earlier process.
        is_proven: bool,
        others: BTreeMap<HostId, Sight>,
    },
}

/// Another host that lives, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub name: String,
    pub instance: InstanceNonce,
    /// It has a pool of this name.
    pub has_it: bool,
    /// It offers that as shared.
    pub offers_it: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// No other host has it yet.
    #[default]
    Alone,
    /// Other hosts have it, and nothing is proven yet.
    Open,
    Shared,
    /// Why not, and what to do.
    NotShared(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    sign: Sign,
    writes: u8,
}

/// What is kept from look to look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    pub is_proven: bool,
    suspects: BTreeMap<HostId, Suspect>,
    /// Hosts that offer the pool and have no file in it, and since when. One stays until it shows, or gives the pool
    /// up: if each gave up offering because the other offers, both would begin again.
    strangers: BTreeMap<HostId, u64>,
    occupied_since_ms: Option<u64>,
}

impl Memory {
    /// What a look means, with all those before it.
    pub fn learn(&mut self, looked: &Looked, alive: &BTreeMap<HostId, Other>, now_ms: u64) -> Verdict {
        let sights = match looked {
            Looked::Refused(why) => {
                *self = Self::default();
                return Verdict::NotShared(why.clone());
            }
            Looked::Occupied => return self.occupied(now_ms),
            Looked::Seen { is_proven, others } => {
                self.is_proven = *is_proven;
                self.occupied_since_ms = None;
                others
            }
        };
        self.suspect(sights, alive);
        self.miss(sights, alive, now_ms);
        if let Some(why) = self.contradiction(alive, now_ms) {
            self.is_proven = false;
            return Verdict::NotShared(why);
        }
        let mut witnesses = sights.iter().filter(|(host, sight)| {
            let instance = alive.get(host).map(|other| other.instance);
            sight.is_locked && instance.is_some() && sight.sign.map(|sign| sign.instance) == instance
        });
        if self.is_proven {
            return Verdict::Shared;
        }
        let is_company = alive
            .iter()
            .any(|(host, other)| other.has_it || sights.contains_key(host));
        match (witnesses.next().is_some() && self.strangers.is_empty(), is_company) {
            (true, _) => {
                self.is_proven = true;
                Verdict::Shared
            }
            (false, true) => Verdict::Open,
            (false, false) => Verdict::Alone,
        }
    }

    fn occupied(&mut self, now_ms: u64) -> Verdict {
        let since_ms = *self.occupied_since_ms.get_or_insert(now_ms);
        match now_ms.saturating_sub(since_ms) >= LASTS_MS {
            true => Verdict::NotShared(
                "another process holds the file of this host in it: give each host an id of its own, and start one \
                 server on each"
                    .to_owned(),
            ),
            false if self.is_proven => Verdict::Shared,
            false => Verdict::Open,
        }
    }

    /// Hosts whose lock is free, and how often they wrote since.
    fn suspect(&mut self, sights: &BTreeMap<HostId, Sight>, alive: &BTreeMap<HostId, Other>) {
        let before = std::mem::take(&mut self.suspects);
        for (host, sight) in sights.iter().filter(|(_, sight)| !sight.is_locked) {
            let is_now = |sign: &Sign| alive.get(host).is_some_and(|other| other.instance == sign.instance);
            // What cannot be read just now changes nothing.
            let Some(sign) = sight.sign.or(before.get(host).map(|suspect| suspect.sign)) else {
                continue;
            };
            if !is_now(&sign) {
                continue;
            }
            let known = before.get(host).filter(|known| known.sign.writer == sign.writer);
            let writes = known.map_or(0, |known| {
                known.writes.saturating_add((sign.count > known.sign.count).into())
            });
            self.suspects.insert(*host, Suspect { sign, writes });
        }
    }

    /// Hosts that offer the pool without being here.
    fn miss(&mut self, sights: &BTreeMap<HostId, Sight>, alive: &BTreeMap<HostId, Other>, now_ms: u64) {
        self.strangers.retain(|host, _| {
            let has_it = alive.get(host).is_some_and(|other| other.has_it);
            has_it && !sights.contains_key(host)
        });
        let missing = alive
            .iter()
            .filter(|(host, other)| other.offers_it && !sights.contains_key(host));
        for (host, _) in missing {
            self.strangers.entry(*host).or_insert(now_ms);
        }
    }

    fn contradiction(&self, alive: &BTreeMap<HostId, Other>, now_ms: u64) -> Option<String> {
        let names = |hosts: BTreeSet<&HostId>| {
            let names = hosts.into_iter().filter_map(|host| alive.get(host));
            names.map(|other| other.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let refuted = self.suspects.iter().filter(|(_, suspect)| suspect.writes >= WRITES);
        let refuted: BTreeSet<&HostId> = refuted.map(|(host, _)| host).collect();
        if !refuted.is_empty() {
            return Some(format!(
                "this host does not see the file locks of {}: mount it as NFSv4, without nolock and local_lock, or use \
                 a file system for clusters",
                names(refuted)
            ));
        }
        let strangers = self.strangers.iter();
        let strangers = strangers.filter(|(_, since_ms)| now_ms.saturating_sub(**since_ms) >= LASTS_MS);
        let strangers: BTreeSet<&HostId> = strangers.map(|(host, _)| host).collect();
        (!strangers.is_empty()).then(|| {
            format!(
                "{} offers a pool of this name that is another folder: is it mounted on both? Or give one of them \
                 another name",
                names(strangers)
            )
        })
    }
}

#[cfg(test)]
mod tests;
