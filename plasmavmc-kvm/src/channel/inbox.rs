//! What came in and was not taken yet, within a bound.
//!
//! Must never: make the reader wait, or lose anything without a mark in its place.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What a channel's consumer gets, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// QEMU has connected. Half a frame from before will never be finished.
    Connected,
    Data(Vec<u8>),
    /// So many bytes are missing here, because nobody took them in time.
    Lost {
        bytes: u64,
    },
    Disconnected,
}

/// Small reads are put together up to this size.
const GATHERED_BYTES: usize = 64 * 1024;
/// Changes of connection that are kept while nobody looks.
const MAX_ENTRIES: usize = 4096;

/// A queue from the task to the consumer.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Incoming>,
    bytes: usize,
    limit_bytes: usize,
    lost_bytes: u64,
    closed: bool,
}

impl Inbox {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                bytes: 0,
                limit_bytes,
                lost_bytes: 0,
                closed: false,
            }),
            filled: Notify::new(),
        }
    }

    pub fn put(&self, incoming: Incoming) {
        self.state.lock().put(incoming);
        self.filled.notify_one();
    }

    pub fn put_data(&self, bytes: &[u8]) {
        self.state.lock().put_data(bytes);
        self.filled.notify_one();
    }

    /// Nothing comes after this.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// The next entry; nothing once the channel is closed and everything was taken. For one consumer. Safe
    /// to drop while it waits.
    pub async fn take(&self) -> Option<Incoming> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(incoming) = state.take() {
                    return Some(incoming);
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// All bytes that were ever dropped.
    pub fn lost_bytes(&self) -> u64 {
        self.state.lock().lost_bytes
    }
}

impl State {
    fn put(&mut self, incoming: Incoming) {
        if self.entries.len() >= MAX_ENTRIES {
            // A consumer that is this far behind has lost track anyway: one mark for all of it.
            let lost = std::mem::take(&mut self.entries).iter().map(missing).sum();
            self.lost_bytes += self.bytes as u64;
            self.bytes = 0;
            self.entries.push_back(Incoming::Lost { bytes: lost });
        }
        self.entries.push_back(incoming);
    }

    fn put_data(&mut self, bytes: &[u8]) {
        if self.bytes + bytes.len() > self.limit_bytes {
            let more = bytes.len() as u64;
            self.lost_bytes += more;
            match self.entries.back_mut() {
                Some(Incoming::Lost { bytes }) => *bytes += more,
                _ => self.put(Incoming::Lost { bytes: more }),
            }
            return;
        }
        self.bytes += bytes.len();
        match self.entries.back_mut() {
            Some(Incoming::Data(last)) if last.len() + bytes.len() <= GATHERED_BYTES => last.extend_from_slice(bytes),
            _ => {
                self.bytes -= bytes.len();
                self.put(Incoming::Data(Vec::new()));
                self.bytes += bytes.len();
                if let Some(Incoming::Data(last)) = self.entries.back_mut() {
                    last.extend_from_slice(bytes);
                }
            }
        }
    }

    fn take(&mut self) -> Option<Incoming> {
        let incoming = self.entries.pop_front()?;
        if let Incoming::Data(bytes) = &incoming {
            self.bytes -= bytes.len();
        }
        Some(incoming)
    }
}

/// The bytes that are missing when this entry is thrown away.
fn missing(incoming: &Incoming) -> u64 {
    match incoming {
        Incoming::Data(bytes) => bytes.len() as u64,
        Incoming::Lost { bytes } => *bytes,
        Incoming::Connected | Incoming::Disconnected => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(inbox: &Inbox) -> Vec<Incoming> {
        inbox.close();
        let mut all = Vec::new();
        while let Some(incoming) = inbox.take().await {
            all.push(incoming);
        }
        all
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_counted_and_marked_in_its_place() {
        let inbox = Inbox::new(10);
        inbox.put(Incoming::Connected);
        inbox.put_data(b"12345678");
        inbox.put_data(b"abc");
        inbox.put_data(b"def");
        assert_eq!(inbox.take().await, Some(Incoming::Connected));
        assert_eq!(inbox.take().await, Some(Incoming::Data(b"12345678".to_vec())));
        inbox.put_data(b"later");
        assert_eq!(inbox.lost_bytes(), 6);
        let rest = taken(&inbox).await;
        assert_eq!(rest, [Incoming::Lost { bytes: 6 }, Incoming::Data(b"later".to_vec())]);
    }

    #[tokio::test]
    async fn small_reads_are_gathered_within_one_session_only() {
        let inbox = Inbox::new(100);
        inbox.put_data(b"ab");
        inbox.put_data(b"cd");
        inbox.put(Incoming::Disconnected);
        inbox.put_data(b"ef");
        let all = taken(&inbox).await;
        let data = |bytes: &[u8]| Incoming::Data(bytes.to_vec());
        assert_eq!(all, [data(b"abcd"), Incoming::Disconnected, data(b"ef")]);
    }

    #[tokio::test]
    async fn a_storm_of_connections_takes_no_more_than_its_bound() {
        let inbox = Inbox::new(1_000_000);
        for _ in 0..10 * MAX_ENTRIES {
            inbox.put(Incoming::Connected);
            inbox.put_data(b"x");
            inbox.put(Incoming::Disconnected);
        }
        let all = taken(&inbox).await;
        assert!(all.len() <= MAX_ENTRIES, "{}", all.len());
        let kept = all.iter().map(missing).sum::<u64>();
        assert_eq!(kept, 10 * MAX_ENTRIES as u64, "bytes vanished without a mark");
        assert_eq!(all.last(), Some(&Incoming::Disconnected));
    }
}
