//! Every key of the store, and nothing else that is a key.
//!
//! A text is a key in exactly one form: what parses is written back as the same bytes. So two keys never mean
//! the same thing, and a key that somebody wrote by hand in another form is not taken for one of ours.

use chainfire::kv::Key;
use plasmavmc_types::{HostId, OperationId, RequestId, TokenId, VmId, VmName, VmNumber};
use uuid::Uuid;

/// What every key of ours begins with.
pub const ALL: &str = "/";

/// A key by what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParsedKey {
    Config,
    HostRecord(HostId),
    Session(HostId),
    Beat(HostId),
    VmRecord(VmId),
    Placement(VmId),
    Status(VmId),
    Name(VmName),
    Number(VmNumber),
    Request(RequestId),
    Operation(OperationId),
    /// What follows `/decisions/`, as in `ClusterView::decisions`.
    Decision(String),
    Token(TokenId),
}

impl ParsedKey {
    /// The bytes of the key.
    pub fn key(&self) -> Key {
        Key::from(self.to_string())
    }

    /// The VM it is about, if it says so by itself.
    pub fn vm(&self) -> Option<VmId> {
        match self {
            ParsedKey::VmRecord(vm) | ParsedKey::Placement(vm) | ParsedKey::Status(vm) => Some(*vm),
            _ => None,
        }
    }

    pub fn host(&self) -> Option<HostId> {
        match self {
            ParsedKey::HostRecord(host) | ParsedKey::Session(host) | ParsedKey::Beat(host) => Some(*host),
            _ => None,
        }
    }
}

impl std::fmt::Display for ParsedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParsedKey::Config => f.write_str("/cluster/config"),
            ParsedKey::HostRecord(host) => write!(f, "/hosts/{host}/record"),
            ParsedKey::Session(host) => write!(f, "/hosts/{host}/session"),
            ParsedKey::Beat(host) => write!(f, "/hosts/{host}/beat"),
            ParsedKey::VmRecord(vm) => write!(f, "/vms/{vm}/record"),
            ParsedKey::Placement(vm) => write!(f, "/vms/{vm}/placement"),
            ParsedKey::Status(vm) => write!(f, "/vms/{vm}/status"),
            ParsedKey::Name(name) => write!(f, "/names/{name}"),
            ParsedKey::Number(number) => write!(f, "/vmids/{:010}", number.get()),
            ParsedKey::Request(id) => write!(f, "/requests/{id}"),
            ParsedKey::Operation(id) => write!(f, "/ops/{id}"),
            ParsedKey::Decision(id) => write!(f, "/decisions/{id}"),
            ParsedKey::Token(id) => write!(f, "/tokens/{id}"),
        }
    }
}

impl From<&ParsedKey> for Key {
    fn from(key: &ParsedKey) -> Self {
        key.key()
    }
}

impl From<ParsedKey> for Key {
    fn from(key: ParsedKey) -> Self {
        key.key()
    }
}

/// What a key is about; `None`: it is none of ours.
pub fn parse(key: &[u8]) -> Option<ParsedKey> {
    let text = std::str::from_utf8(key).ok()?;
    let mut parts = text.strip_prefix('/')?.split('/');
    let (kind, id, part) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let uuid = || Uuid::try_parse(id).ok();
    let parsed = match (kind, part) {
        ("cluster", None) if id == "config" => ParsedKey::Config,
        ("hosts", Some("record")) => ParsedKey::HostRecord(HostId::from_uuid(uuid()?)),
        ("hosts", Some("session")) => ParsedKey::Session(HostId::from_uuid(uuid()?)),
        ("hosts", Some("beat")) => ParsedKey::Beat(HostId::from_uuid(uuid()?)),
        ("vms", Some("record")) => ParsedKey::VmRecord(VmId::from_uuid(uuid()?)),
        ("vms", Some("placement")) => ParsedKey::Placement(VmId::from_uuid(uuid()?)),
        ("vms", Some("status")) => ParsedKey::Status(VmId::from_uuid(uuid()?)),
        ("names", None) => ParsedKey::Name(VmName::new(id).ok()?),
        ("vmids", None) => ParsedKey::Number(VmNumber::new(id.parse().ok()?).ok()?),
        ("requests", None) => ParsedKey::Request(RequestId::new(id).ok()?),
        ("ops", None) => ParsedKey::Operation(OperationId::from_uuid(uuid()?)),
        ("decisions", None) if is_decision_id(id) => ParsedKey::Decision(id.to_owned()),
        ("tokens", None) => ParsedKey::Token(TokenId::new(id).ok()?),
        _ => return None,
    };
    // An id may also be written with capitals, a number with a plus.
    (parsed.to_string() == text).then_some(parsed)
}

pub fn config() -> Key {
    ParsedKey::Config.key()
}

pub fn host_record(host: HostId) -> Key {
    ParsedKey::HostRecord(host).key()
}

pub fn session(host: HostId) -> Key {
    ParsedKey::Session(host).key()
}

pub fn beat(host: HostId) -> Key {
    ParsedKey::Beat(host).key()
}

pub fn vm_record(vm: VmId) -> Key {
    ParsedKey::VmRecord(vm).key()
}

pub fn placement(vm: VmId) -> Key {
    ParsedKey::Placement(vm).key()
}

pub fn status(vm: VmId) -> Key {
    ParsedKey::Status(vm).key()
}

pub fn name(name: &VmName) -> Key {
    ParsedKey::Name(name.clone()).key()
}

pub fn number(number: VmNumber) -> Key {
    ParsedKey::Number(number).key()
}

pub fn request(id: &RequestId) -> Key {
    ParsedKey::Request(id.clone()).key()
}

pub fn operation(id: OperationId) -> Key {
    ParsedKey::Operation(id).key()
}

pub fn token(id: &TokenId) -> Key {
    ParsedKey::Token(id.clone()).key()
}

/// The key of a decision, made with [`decision_id`].
pub fn decision(id: &str) -> Key {
    ParsedKey::Decision(id.to_owned()).key()
}

/// The end of a decision's key: sorts by time. The salt keeps apart what is decided in one millisecond.
pub fn decision_id(at_ms: u64, salt: u16) -> String {
    format!("{at_ms:020}-{salt:04x}")
}

fn is_decision_id(text: &str) -> bool {
    let Some((time, salt)) = text.split_once('-') else {
        return false;
    };
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    time.len() == 20 && time.parse::<u64>().is_ok() && salt.len() == 4 && salt.bytes().all(is_hex)
}

#[cfg(test)]
mod tests;
