//! A serial console: what it showed lately, and anybody who looks on.
//!
//! Watchers read from the scroll-back itself, each at its own place, so a slow one costs nothing: it falls
//! out of the scroll-back and is told how much it missed.
//!
//! Must never: slow the guest down because a watcher is slow, or forget the scroll-back when QEMU reconnects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::inbox::Incoming;
use super::port::{Channel, ChannelSender, SendError};

/// The last bytes of a console, with their place in all that it ever showed.
#[derive(Debug)]
struct Scrollback {
    bytes: VecDeque<u8>,
    /// The place of the first byte that is kept.
    start: u64,
    limit_bytes: usize,
}

impl Scrollback {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(self.limit_bytes);
        self.bytes.drain(..surplus);
        self.start += surplus as u64;
    }

    /// Bytes that were never seen here still take their places.
    fn skip(&mut self, count: u64) {
        self.start = self.end() + count;
        self.bytes.clear();
    }

    fn from(&self, place: u64) -> Vec<u8> {
        let skipped = usize::try_from(place.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.iter().skip(skipped).copied().collect()
    }
}

/// Gives what a console showed before this process looked.
pub type Past = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// What a watcher sees next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    Bytes(Vec<u8>),
    /// So many bytes went by before they were read.
    Missed {
        bytes: u64,
    },
}

/// A console and its scroll-back. It ends when it is dropped or closed.
#[derive(Debug)]
pub struct Console {
    scrollback: Arc<Mutex<Scrollback>>,
    /// How much the console has shown in all.
    shown: watch::Receiver<u64>,
    sender: ChannelSender,
    /// Ends the task when it goes.
    _alive: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Console {
    pub fn attach(channel: Channel, scrollback_bytes: usize) -> Self {
        Self::attach_after(channel, scrollback_bytes, Box::new(Vec::new))
    }

    /// A console that somebody else attached to before. Its past is asked for when QEMU has connected: from then on
    /// nothing goes by unseen, and what falls into the same moment is shown twice rather than not at all.
    pub fn attach_after(channel: Channel, scrollback_bytes: usize, past: Past) -> Self {
        let scrollback = Arc::new(Mutex::new(Scrollback {
            bytes: VecDeque::new(),
            start: 0,
            limit_bytes: scrollback_bytes,
        }));
        let (show, shown) = watch::channel(0);
        let (alive, released) = tokio::sync::oneshot::channel();
        let sender = channel.sender();
        let task = tokio::spawn(follow(channel, Arc::clone(&scrollback), show, released, past));
        Self {
            scrollback,
            shown,
            sender,
            _alive: alive,
            task,
        }
    }

    /// A new watcher, who first sees what is kept of the past.
    pub fn watch(&self) -> Watcher {
        Watcher {
            place: self.scrollback.lock().start,
            scrollback: Arc::clone(&self.scrollback),
            shown: self.shown.clone(),
        }
    }

    /// What is kept of the past.
    pub fn scrollback(&self) -> Vec<u8> {
        self.scrollback.lock().from(0)
    }

    /// Types into the console.
    pub async fn write(&self, bytes: Vec<u8>, within: Duration) -> Result<(), SendError> {
        self.sender.send(bytes, within).await
    }

    /// Ends the console and its channel, and waits for both.
    pub async fn close(self) {
        let Self { _alive, task, .. } = self;
        drop(_alive);
        // It ends at once. A panic in it has been reported by the runtime.
        let _ = task.await;
    }
}

async fn follow(
    mut channel: Channel,
    scrollback: Arc<Mutex<Scrollback>>,
    show: watch::Sender<u64>,
    mut released: tokio::sync::oneshot::Receiver<()>,
    past: Past,
) {
    let mut past = Some(past);
    loop {
        let incoming = tokio::select! {
            _ = &mut released => break,
            incoming = channel.receive() => incoming,
        };
        let end = {
            let mut scrollback = scrollback.lock();
            match incoming {
                Some(Incoming::Data(bytes)) => scrollback.append(&bytes),
                Some(Incoming::Lost { bytes }) => scrollback.skip(bytes),
                Some(Incoming::Connected) => {
                    if let Some(past) = past.take() {
                        scrollback.append(&past());
                    }
                }
                Some(Incoming::Disconnected) => {}
                None => break,
            }
            scrollback.end()
        };
        show.send_replace(end);
    }
    channel.close().await;
}

/// One who looks on.
#[derive(Debug, Clone)]
pub struct Watcher {
    scrollback: Arc<Mutex<Scrollback>>,
    shown: watch::Receiver<u64>,
    /// Up to where it has seen.
    place: u64,
}

impl Watcher {
    /// What comes next; nothing once the console has ended and all was seen. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Watched> {
        loop {
            // Before the look: what is appended after it wakes us up again.
            self.shown.borrow_and_update();
            if let Some(seen) = self.look() {
                return Some(seen);
            }
            if self.shown.changed().await.is_err() {
                return self.look();
            }
        }
    }

    fn look(&mut self) -> Option<Watched> {
        let scrollback = self.scrollback.lock();
        if self.place < scrollback.start {
            let bytes = scrollback.start - self.place;
            self.place = scrollback.start;
            return Some(Watched::Missed { bytes });
        }
        let bytes = scrollback.from(self.place);
        self.place = scrollback.end();
        (!bytes.is_empty()).then_some(Watched::Bytes(bytes))
    }
}
