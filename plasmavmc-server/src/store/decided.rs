//! Between the store and the decisions of plasmavmc-core: what is to be written becomes a transaction, and what
//! changed becomes what events are made of.

use plasmavmc_core::change::{self, Part, Put};
use plasmavmc_core::events::Changed;

use super::keys::{self, ParsedKey};
use super::mirror::Change;
use super::values::StoredValue;
use super::write::Write;

impl From<&Part> for ParsedKey {
    fn from(part: &Part) -> Self {
        match part {
            Part::VmRecord(vm) => ParsedKey::VmRecord(*vm),
            Part::Placement(vm) => ParsedKey::Placement(*vm),
            Part::Status(vm) => ParsedKey::Status(*vm),
            Part::HostRecord(host) => ParsedKey::HostRecord(*host),
            Part::Session(host) => ParsedKey::Session(*host),
            Part::Beat(host) => ParsedKey::Beat(*host),
            Part::Operation(id) => ParsedKey::Operation(*id),
            Part::Name(name) => ParsedKey::Name(name.clone()),
            Part::Number(number) => ParsedKey::Number(*number),
            Part::Decision(id) => ParsedKey::Decision(id.clone()),
        }
    }
}

impl Write {
    /// The transaction that carries out what was decided. The salt keeps apart decisions of one millisecond:
    /// draw it.
    pub fn of(decided: &change::Change, salt: u16) -> Self {
        let expects = decided.expects.iter();
        let write = expects.fold(Self::new(), |write, (part, revision)| {
            write.expect(ParsedKey::from(part), *revision)
        });
        let write = decided.puts.iter().fold(write, Self::put_decided);
        let removes = decided.removes.iter();
        let write = removes.fold(write, |write, part| write.delete(ParsedKey::from(part)));
        match &decided.decision {
            Some(decision) => write.put_decision(&keys::decision_id(decision.at_ms, salt), decision),
            None => write,
        }
    }

    fn put_decided(self, put: &Put) -> Self {
        match put {
            Put::VmRecord(record) => self.put_record(record),
            Put::Placement(vm, placement) => self.put_placement(*vm, placement),
            Put::Status(vm, status) => self.put_status(*vm, status),
            Put::HostRecord(record) => self.put_host(record),
            Put::Session(host, session) => self.put_session(*host, session),
            Put::Operation(operation) => self.put_operation(operation),
        }
    }
}

/// Both sides of a change, if its key holds this kind of value.
macro_rules! sides {
    ($change:expr, $kind:ident) => {{
        let side = |value: &'a Option<StoredValue>| match value {
            Some(StoredValue::$kind(value)) => Some(value),
            _ => None,
        };
        (side(&$change.before), side(&$change.after))
    }};
}

impl<'a> Change {
    /// What events are made of; `None` for keys that no event is about, and for a value that cannot be read,
    /// of which nothing can be said.
    pub fn as_event_source(&'a self) -> Option<Changed<'a>> {
        if self.is_unreadable {
            return None;
        }
        let changed = match &self.key {
            ParsedKey::VmRecord(vm) => {
                let (before, after) = sides!(self, VmRecord);
                Changed::VmRecord(*vm, before, after)
            }
            ParsedKey::Placement(vm) => {
                let (before, after) = sides!(self, Placement);
                Changed::Placement(*vm, before, after)
            }
            ParsedKey::Status(vm) => {
                let (before, after) = sides!(self, Status);
                Changed::Status(*vm, before, after)
            }
            ParsedKey::HostRecord(host) => {
                let (before, after) = sides!(self, HostRecord);
                Changed::HostRecord(*host, before, after)
            }
            ParsedKey::Session(host) => {
                let (before, after) = sides!(self, Session);
                Changed::Session(*host, before, after)
            }
            ParsedKey::Operation(id) => {
                let (before, after) = sides!(self, Operation);
                Changed::Operation(*id, before, after)
            }
            ParsedKey::Decision(_) => Changed::Decision(sides!(self, Decision).1),
            _ => return None,
        };
        Some(changed)
    }
}
