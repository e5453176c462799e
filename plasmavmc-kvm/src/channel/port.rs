//! What the rest of the program holds of a channel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::inbox::{Inbox, Incoming};
use super::outbox::Fate;
use super::socket::{Listener, SocketError, SocketOwner};
use super::task::{Order, Task};

/// Frames that wait for the task.
const QUEUE: usize = 32;
/// The longest frame that is sent.
const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// How a channel behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelOptions {
    /// What may wait for the consumer; the rest is dropped and counted.
    pub inbox_bytes: usize,
    /// Whom QEMU runs as, where that is not this process' user.
    pub owner: Option<SocketOwner>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            inbox_bytes: 4 * 1024 * 1024,
            owner: None,
        }
    }
}

/// Who is at the other end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelState {
    /// Counts connections from 1 on.
    pub sessions: u64,
    pub connected: bool,
    /// The process that is connected, as the kernel tells it.
    pub peer_pid: Option<i32>,
}

/// Why a frame is not with QEMU. That it is with QEMU does not mean that a guest has read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("QEMU is not connected to {path:?}")]
    NotConnected { path: PathBuf },
    #[error("nothing could be written to {path:?} within {} s: nobody in the guest reads", after.as_secs_f32())]
    NotSent { path: PathBuf, after: Duration },
    /// The rest follows, unless the session ends.
    #[error("only {written} bytes could be written to {path:?} within {} s: nobody in the guest reads", after.as_secs_f32())]
    Unfinished {
        path: PathBuf,
        written: usize,
        after: Duration,
    },
    #[error("QEMU disconnected from {path:?} after {written} bytes of the frame")]
    Disconnected { path: PathBuf, written: usize },
    #[error("a frame of {bytes} bytes is too long for a channel; at most {limit} are sent")]
    TooLong { bytes: usize, limit: usize },
    #[error("the channel {path:?} is closed on this side")]
    Closed { path: PathBuf },
}

impl SendError {
    /// Whether QEMU has got some of the frame.
    pub fn was_begun(&self) -> bool {
        match self {
            Self::Unfinished { .. } => true,
            Self::Disconnected { written, .. } => *written > 0,
            Self::NotConnected { .. } | Self::NotSent { .. } | Self::TooLong { .. } | Self::Closed { .. } => false,
        }
    }
}

/// A channel's consumer end. The listener and its socket file go when it is dropped or closed.
#[derive(Debug)]
pub struct Channel {
    inbox: Arc<Inbox>,
    sender: ChannelSender,
    state: watch::Receiver<ChannelState>,
    /// Ends the task when it goes.
    _alive: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Channel {
    /// Listens at `path`, in the place of an older socket. Needs a tokio runtime.
    pub fn listen(path: &Path, options: ChannelOptions) -> Result<Self, SocketError> {
        let listener = Listener::bind(path, options.owner)?;
        let inbox = Arc::new(Inbox::new(options.inbox_bytes));
        let (orders, taken) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(ChannelState::default());
        let (alive, released) = oneshot::channel();
        let task = Task::new(listener, Arc::clone(&inbox), taken, publish);
        Ok(Self {
            inbox,
            sender: ChannelSender {
                orders,
                path: path.into(),
            },
            state,
            _alive: alive,
            task: tokio::spawn(task.run(released)),
        })
    }

    /// What comes next; nothing once the channel has ended. Safe to drop while it waits.
    pub async fn receive(&mut self) -> Option<Incoming> {
        self.inbox.take().await
    }

    /// The end that writes. Clones may be kept anywhere; they do not keep the channel open.
    pub fn sender(&self) -> ChannelSender {
        self.sender.clone()
    }

    pub fn state(&self) -> watch::Receiver<ChannelState> {
        self.state.clone()
    }

    /// All bytes that were dropped because nobody took them.
    pub fn lost_bytes(&self) -> u64 {
        self.inbox.lost_bytes()
    }

    /// Ends the session and the listener, and waits until their descriptors are closed.
    pub async fn close(self) {
        let Self { _alive, task, .. } = self;
        drop(_alive);
        // It ends at once. A panic in it has been reported by the runtime.
        let _ = task.await;
    }
}

/// Writes frames into a channel.
#[derive(Debug, Clone)]
pub struct ChannelSender {
    orders: mpsc::Sender<Order>,
    path: Arc<Path>,
}

impl ChannelSender {
    /// Writes a frame, whole and after all earlier ones. Without a session it fails at once.
    pub async fn send(&self, frame: Vec<u8>, within: Duration) -> Result<(), SendError> {
        let path = || self.path.to_path_buf();
        if frame.len() > MAX_FRAME_BYTES {
            return Err(SendError::TooLong {
                bytes: frame.len(),
                limit: MAX_FRAME_BYTES,
            });
        }
        let deadline = Instant::now() + within;
        let (fate, told) = oneshot::channel();
        let order = Order::Send { frame, deadline, fate };
        match tokio::time::timeout_at(deadline.into(), self.orders.send(order)).await {
            Err(_) => {
                return Err(SendError::NotSent {
                    path: path(),
                    after: within,
                });
            }
            Ok(Err(_)) => return Err(SendError::Closed { path: path() }),
            Ok(Ok(())) => {}
        }
        // The task keeps the deadline, since it alone knows how much was written.
        let path = path();
        match told.await {
            Ok(Some(Fate::Written)) => Ok(()),
            Ok(Some(Fate::NotSent)) => Err(SendError::NotSent { path, after: within }),
            Ok(Some(Fate::Unfinished { written })) => Err(SendError::Unfinished {
                path,
                written,
                after: within,
            }),
            Ok(Some(Fate::Disconnected { written })) => Err(SendError::Disconnected { path, written }),
            Ok(None) => Err(SendError::NotConnected { path }),
            Err(_) => Err(SendError::Closed { path }),
        }
    }

    /// Ends the session. QEMU makes a new one.
    pub async fn disconnect(&self) {
        // A channel that is closed has no session either.
        let _ = self.orders.send(Order::Disconnect).await;
    }
}
