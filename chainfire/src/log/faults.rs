//! Faults on demand: a slow disk, and a log that lies.
//!
//! The lying log is there to prove that the tests notice one. It is compiled only with the feature
//! `faults`; without it nothing here does anything.

#[cfg(feature = "faults")]
use std::{
    io,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

#[cfg(feature = "faults")]
use openraft::storage::LogFlushed;
#[cfg(feature = "faults")]
use raft_log::api::raft_log_writer::RaftLogWriter;

#[cfg(feature = "faults")]
use super::payload::{StoredLogId, StoredPayload};
#[cfg(feature = "faults")]
use super::{flush::Waiter, writer::Writer};
#[cfg(feature = "faults")]
use crate::raft::types::TypeConfig;

/// What the environment asks for.
#[derive(Debug, Default)]
pub struct Faults {
    #[cfg(feature = "faults")]
    delay: Duration,
    #[cfg(feature = "faults")]
    lies: bool,
    #[cfg(feature = "faults")]
    write_is_due: AtomicBool,
}

#[cfg(not(feature = "faults"))]
impl Faults {
    pub fn from_environment() -> Self {
        Self {}
    }

    pub fn delay_sync(&self) {}
}

#[cfg(feature = "faults")]
impl Faults {
    /// `CHAINFIRE_FAULT_LOG_DELAY_MS`: each sync takes that much longer.
    /// `CHAINFIRE_FAULT_BREAK=ack-before-fsync`: appends are acknowledged before they are written.
    pub fn from_environment() -> Self {
        let delay_ms = std::env::var("CHAINFIRE_FAULT_LOG_DELAY_MS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Self {
            delay: Duration::from_millis(delay_ms),
            lies: std::env::var("CHAINFIRE_FAULT_BREAK").is_ok_and(|name| name == "ack-before-fsync"),
            write_is_due: AtomicBool::new(false),
        }
    }

    /// Called where the data sync is, once for each.
    #[expect(clippy::disallowed_methods, reason = "a slow disk blocks the thread that syncs")]
    pub fn delay_sync(&self) {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
    }

    pub fn lies(&self) -> bool {
        self.lies
    }
}

/// Acknowledges at once what is written only later.
#[cfg(feature = "faults")]
#[expect(
    clippy::disallowed_methods,
    reason = "a lie that is told on purpose, by a thread that nobody waits for"
)]
pub fn append_and_lie(
    writer: &Arc<Writer>,
    entries: Vec<(StoredLogId, StoredPayload)>,
    callback: LogFlushed<TypeConfig>,
) -> io::Result<()> {
    const AT_LEAST: Duration = Duration::from_millis(50);
    writer.submit(None, |log| log.append(entries).map(drop))?;
    callback.log_io_completed(Ok(()));
    if !writer.faults().write_is_due.swap(true, Ordering::AcqRel) {
        let writer = Arc::clone(writer);
        std::thread::spawn(move || {
            std::thread::sleep(writer.faults().delay.max(AT_LEAST));
            writer.faults().write_is_due.store(false, Ordering::Release);
            let (answer, _) = tokio::sync::oneshot::channel();
            writer.submit(Some(Waiter::Order(answer)), |_| Ok(()))
        });
    }
    Ok(())
}
