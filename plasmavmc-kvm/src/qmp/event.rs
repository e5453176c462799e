//! What QEMU says unasked.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// When something happened, on the host's clock, as QEMU tells it. -1 where it could not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    pub seconds: i64,
    pub microseconds: i64,
}

/// An event. Kept as it came, because a QEMU newer than this code has events and values of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    /// An object; null if the event carries none.
    pub data: Value,
    pub at: Option<EventTime>,
}

impl Event {
    /// The event as a type, if it is one this code knows, with values it knows.
    pub fn known(&self) -> Option<qapi::qmp::Event> {
        let at = self.at?;
        let mut whole = json!({
            "event": self.name,
            "timestamp": { "seconds": at.seconds, "microseconds": at.microseconds },
        });
        if !self.data.is_null() {
            whole["data"] = self.data.clone();
        }
        serde_json::from_value(whole).ok()
    }

    /// What the event carries, as a type of the caller's choice.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.data)
    }
}

/// Why there is no next event just now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// The stream goes on after it. What the lost ones told has to be asked for.
    #[error("{missed} events were lost, because they were not taken in time; query the state anew")]
    Lagged { missed: u64 },
    #[error("the connection to QEMU's monitor has ended")]
    Closed,
}

/// A stream of events, from the moment it was asked for.
#[derive(Debug)]
pub struct Events {
    /// Empty if the connection had ended before.
    receiver: Option<broadcast::Receiver<Event>>,
}

impl Events {
    pub(super) fn new(receiver: Option<broadcast::Receiver<Event>>) -> Self {
        Self { receiver }
    }

    /// The next event. Safe to drop while it waits.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        let Some(receiver) = &mut self.receiver else {
            return Err(EventsError::Closed);
        };
        receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => EventsError::Lagged { missed },
            broadcast::error::RecvError::Closed => EventsError::Closed,
        })
    }
}
