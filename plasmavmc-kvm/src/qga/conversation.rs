//! What the agent's bytes mean, without a channel.
//!
//! Must never: take a line for an answer that began before the last sync was echoed, or hold more of one
//! than the limit.

use serde_json::Value;

use crate::qmp::Refusal;

/// The byte that no JSON text contains: it ends whatever was half said.
pub(super) const MARK: u8 = 0xFF;

/// What we wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Syncing {
        id: u64,
    },
    Answering,
    /// A command that answers nothing on success was sent, and a sync behind it.
    Confirming {
        id: u64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// The agent is there, and has nothing more to say about the past.
    Synced,
    Answer(Result<Value, Refusal>),
    /// The command before the confirming sync was not refused.
    Confirmed,
    /// The answer is longer than accepted.
    TooLong,
}

pub(super) struct Conversation {
    phase: Phase,
    line: Vec<u8>,
    /// The line began with a mark.
    marked: bool,
    /// The line is not to be understood: too long, or its beginning is missing.
    spoilt: bool,
    limit_bytes: usize,
}

impl Conversation {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            phase: Phase::Idle,
            line: Vec::new(),
            marked: false,
            spoilt: false,
            limit_bytes,
        }
    }

    /// The sync to send. Everything up to its echo is of the past.
    pub fn sync(&mut self, id: u64) -> Vec<u8> {
        self.phase = Phase::Syncing { id };
        let mut frame = vec![MARK];
        frame.extend(command("guest-sync-delimited", &serde_json::json!({ "id": id })));
        frame
    }

    /// A command was sent, and its answer is the next line.
    pub fn expect_answer(&mut self) {
        self.phase = Phase::Answering;
    }

    /// A command was sent that answers only if refused. This is to be sent after it.
    pub fn confirm(&mut self, id: u64) -> Vec<u8> {
        self.phase = Phase::Confirming { id };
        command("guest-sync", &serde_json::json!({ "id": id }))
    }

    /// Nothing is expected any more.
    pub fn give_up(&mut self) {
        self.phase = Phase::Idle;
    }

    /// The connection is a new one.
    pub fn restart(&mut self) {
        self.phase = Phase::Idle;
        self.end_line();
    }

    /// Bytes are missing here.
    pub fn lost(&mut self) {
        self.spoilt = true;
        self.line.clear();
    }

    pub fn receive(&mut self, mut bytes: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n' || byte == MARK) {
            heard.extend(self.append(&bytes[..end]));
            if bytes[end] == MARK {
                self.end_line();
                self.marked = true;
            } else {
                heard.extend(self.understand());
                self.end_line();
            }
            bytes = &bytes[end + 1..];
        }
        heard.extend(self.append(bytes));
        heard
    }

    fn append(&mut self, bytes: &[u8]) -> Option<Heard> {
        if self.spoilt || self.phase == Phase::Idle {
            // What nobody waits for is not kept. A line that we join late is not one.
            self.spoilt |= !bytes.is_empty();
            return None;
        }
        if self.line.len() + bytes.len() > self.limit_bytes {
            self.lost();
            let waited_for = self.phase == Phase::Answering;
            return waited_for.then(|| {
                self.phase = Phase::Idle;
                Heard::TooLong
            });
        }
        self.line.extend_from_slice(bytes);
        None
    }

    fn end_line(&mut self) {
        self.line = Vec::new();
        self.marked = false;
        self.spoilt = false;
    }

    fn understand(&mut self) -> Option<Heard> {
        if self.spoilt {
            return None;
        }
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(&self.line) else {
            return None;
        };
        let echoes = |id: u64, answer: &serde_json::Map<String, Value>| answer.get("return") == Some(&id.into());
        let heard = match self.phase {
            Phase::Idle => return None,
            Phase::Syncing { id } if self.marked && echoes(id, &answer) => Heard::Synced,
            Phase::Syncing { .. } => return None,
            // A marked line echoes a sync of the past, whatever else it says.
            Phase::Answering | Phase::Confirming { .. } if self.marked => return None,
            Phase::Confirming { id } if echoes(id, &answer) => Heard::Confirmed,
            Phase::Answering | Phase::Confirming { .. } => match (answer.remove("error"), answer.remove("return")) {
                (Some(error), _) => Heard::Answer(Err(Refusal::from_error(&error))),
                (None, Some(value)) if self.phase == Phase::Answering => Heard::Answer(Ok(value)),
                (None, _) => return None,
            },
        };
        self.phase = Phase::Idle;
        Some(heard)
    }
}

/// A command as it is sent.
pub(super) fn command(name: &str, arguments: &Value) -> Vec<u8> {
    let whole = if arguments.is_null() {
        serde_json::json!({ "execute": name })
    } else {
        serde_json::json!({ "execute": name, "arguments": arguments })
    };
    let mut frame = whole.to_string().into_bytes();
    frame.push(b'\n');
    frame
}

#[cfg(test)]
mod tests;
