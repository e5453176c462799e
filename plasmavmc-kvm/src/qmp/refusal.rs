//! A "no" from QEMU or from the guest agent.

use std::fmt;

use serde_json::Value;

/// What kind of refusal. Peers newer than this code may use others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorClass {
    Generic,
    /// The command does not exist there, or is switched off.
    CommandNotFound,
    DeviceNotActive,
    DeviceNotFound,
    KvmMissingCap,
    Other(String),
}

impl ErrorClass {
    fn from_name(name: &str) -> Self {
        match name {
            "GenericError" => Self::Generic,
            "CommandNotFound" => Self::CommandNotFound,
            "DeviceNotActive" => Self::DeviceNotActive,
            "DeviceNotFound" => Self::DeviceNotFound,
            "KVMMissingCap" => Self::KvmMissingCap,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The peer understood a command and did not carry it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub class: ErrorClass,
    /// In the peer's words.
    pub text: String,
}

impl Refusal {
    /// From the `error` member of a reply, whatever is in it: it is a "no" even if we cannot read why.
    pub(crate) fn from_error(error: &Value) -> Self {
        let class = error.get("class").and_then(Value::as_str).unwrap_or_default();
        let text = match error.get("desc").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => format!("it gave no reason but {}", excerpt(error.to_string().as_bytes())),
        };
        Self {
            class: ErrorClass::from_name(class),
            text,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The beginning of something too long or too strange for a message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}
