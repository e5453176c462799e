//! From a socket's path to a connection that takes commands.
//!
//! ```text
//!  connect -> greeting -> qmp_capabilities -> ready
//! ```
//! A QEMU that is stopped by a signal accepts and never greets; so does one whose monitor another client
//! holds. So the greeting has a deadline and an error of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};

use super::error::QmpError;
use super::event::Events;
use super::handle::Qmp;
use super::message::{Greeting, Message};
use super::refusal::excerpt;
use super::task::{Order, Task};
use crate::channel::{Lines, SocketError, socket};

/// Commands that wait for the task.
const QUEUE: usize = 32;
/// Events that a subscriber may be behind, before it is told that it lost some. Their places are allocated
/// from the start, and a host has hundreds of connections.
const EVENTS_KEPT: usize = 128;
const MAX_GREETING_BYTES: usize = 64 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot reach QEMU's monitor: {0}")]
    Socket(#[from] SocketError),
    #[error(
        "QEMU at {path:?} did not greet within {} s: it is stopped, hangs, or somebody else holds its monitor",
        after.as_secs_f32()
    )]
    NoGreeting { path: PathBuf, after: Duration },
    #[error("QEMU at {path:?} closed its monitor before it greeted; it has ended")]
    Eof { path: PathBuf },
    #[error("{path:?} is no QMP monitor: it sent {line}")]
    NotQmp { path: PathBuf, line: String },
    #[error("the connection to {path:?} broke before QEMU greeted")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("QEMU at {path:?} did not agree on capabilities: {source}")]
    Negotiation {
        path: PathBuf,
        #[source]
        source: QmpError,
    },
}

/// A fresh connection. `events` begins with the first event that came over it.
#[derive(Debug)]
pub struct Connection {
    pub qmp: Qmp,
    pub events: Events,
}

/// Connects to the monitor at `path`, greets, and agrees on out-of-band execution where it is offered.
/// `within` is for all of it.
pub async fn connect(path: &Path, within: Duration) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + within;
    let stream = socket::connect(path)?;
    let peer_pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let greeting = match tokio::time::timeout_at(deadline.into(), read_greeting(path, &stream)).await {
        Ok(greeting) => greeting?,
        Err(_) => {
            return Err(ConnectError::NoGreeting {
                path: path.to_owned(),
                after: within,
            });
        }
    };
    let (orders, taken) = mpsc::channel(QUEUE);
    let (events, subscribed) = broadcast::channel(EVENTS_KEPT);
    let (ended, see_end) = watch::channel(None);
    let mut qmp = Qmp {
        orders,
        events: events.downgrade(),
        ended: see_end,
        greeting: Arc::new(greeting),
        oob: false,
        peer_pid,
    };
    let task = Task {
        stream,
        orders: taken,
        events,
        ended,
    };
    tokio::spawn(task.run());
    let left = deadline.saturating_duration_since(Instant::now());
    negotiate(&mut qmp, left)
        .await
        .map_err(|source| ConnectError::Negotiation {
            path: path.to_owned(),
            source,
        })?;
    Ok(Connection {
        qmp,
        events: Events::new(Some(subscribed)),
    })
}

async fn negotiate(qmp: &mut Qmp, within: Duration) -> Result<(), QmpError> {
    let offered = qmp.greeting.oob;
    let arguments = if offered {
        json!({ "enable": ["oob"] })
    } else {
        json!({})
    };
    qmp.execute_raw("qmp_capabilities", arguments, within).await?;
    // If the task is gone, the first command says so.
    if offered && qmp.orders.send(Order::EnableOob).await.is_ok() {
        qmp.oob = true;
    }
    Ok(())
}

/// Reads the first line. Nothing follows it before we have spoken.
async fn read_greeting(path: &Path, stream: &UnixStream) -> Result<Greeting, ConnectError> {
    let path = || path.to_owned();
    let mut lines = Lines::new(MAX_GREETING_BYTES);
    let mut buffer = [0; 4096];
    loop {
        let read = match stream.readable().await {
            Ok(()) => stream.try_read(&mut buffer),
            Err(error) => Err(error),
        };
        match read {
            Ok(0) => return Err(ConnectError::Eof { path: path() }),
            Ok(count) => lines.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(ConnectError::Eof { path: path() });
            }
            Err(source) => return Err(ConnectError::Io { path: path(), source }),
        }
        let line = match lines.next_line() {
            Ok(None) => continue,
            Ok(Some(line)) => line,
            Err(too_long) => {
                return Err(ConnectError::NotQmp {
                    path: path(),
                    line: too_long.to_string(),
                });
            }
        };
        return match Message::from_line(line) {
            Message::Greeting(greeting) => Ok(greeting),
            _ => Err(ConnectError::NotQmp {
                path: path(),
                line: excerpt(line),
            }),
        };
    }
}
