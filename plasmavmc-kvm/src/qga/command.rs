//! The commands that are one question and one answer.

use std::time::Duration;

use qapi::qga;
use serde_json::{Value, json};

use super::agent::Agent;
use super::error::QgaError;
use super::owner::Expect;

/// What a guest is told to do with itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    PowerDown,
    Halt,
    Reboot,
}

/// What is known after a guest was told to shut down. That it did is told by QEMU's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownAnswer {
    /// The agent went on without a refusal.
    Accepted,
    /// The agent fell silent, as it does when the shutdown ends it first.
    Silent,
}

/// Whether the guest's file systems take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeState {
    Thawed,
    Frozen,
}

impl Agent {
    /// The agent's version and commands.
    pub async fn info(&self, within: Duration) -> Result<qga::GuestAgentInfo, QgaError> {
        self.execute(&qga::guest_info {}, within).await
    }

    pub async fn os_info(&self, within: Duration) -> Result<qga::GuestOSInfo, QgaError> {
        self.execute(&qga::guest_get_osinfo {}, within).await
    }

    pub async fn network_interfaces(&self, within: Duration) -> Result<Vec<qga::GuestNetworkInterface>, QgaError> {
        self.execute(&qga::guest_network_get_interfaces {}, within).await
    }

    /// Stops all writes to the guest's file systems, and tells how many there are. Thaw soon: a guest cannot
    /// be frozen and useful.
    pub async fn freeze(&self, within: Duration) -> Result<u64, QgaError> {
        let count = self.execute(&qga::guest_fsfreeze_freeze {}, within).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub async fn thaw(&self, within: Duration) -> Result<u64, QgaError> {
        let count = self.execute(&qga::guest_fsfreeze_thaw {}, within).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub async fn freeze_state(&self, within: Duration) -> Result<FreezeState, QgaError> {
        let status = self.execute(&qga::guest_fsfreeze_status {}, within).await?;
        Ok(match status {
            qga::GuestFsfreezeStatus::thawed => FreezeState::Thawed,
            qga::GuestFsfreezeStatus::frozen => FreezeState::Frozen,
        })
    }

    /// Sets the guest's clock: to a time since 1970, or to that of its hardware clock.
    pub async fn set_time(&self, time: Option<Duration>, within: Duration) -> Result<(), QgaError> {
        let nanoseconds = time.map(|time| i64::try_from(time.as_nanos())).transpose();
        let time = nanoseconds.map_err(|error| QgaError::BadArguments {
            command: "guest-set-time".to_owned(),
            problem: error.to_string(),
        })?;
        self.execute(&qga::guest_set_time { time }, within).await?;
        Ok(())
    }

    /// Tells the guest to shut down. The agent answers only a refusal; a sync behind the command tells
    /// whether there was one, unless the shutdown is faster.
    pub async fn shutdown(&self, mode: ShutdownMode, within: Duration) -> Result<ShutdownAnswer, QgaError> {
        let mode = match mode {
            ShutdownMode::PowerDown => "powerdown",
            ShutdownMode::Halt => "halt",
            ShutdownMode::Reboot => "reboot",
        };
        let arguments = json!({ "mode": mode });
        let answer = self
            .ask("guest-shutdown", arguments, Expect::NothingUnlessRefused, within)
            .await;
        match answer {
            Ok(Value::Null) => Ok(ShutdownAnswer::Accepted),
            Ok(_) | Err(QgaError::NoAnswer { .. } | QgaError::Interrupted { .. }) => Ok(ShutdownAnswer::Silent),
            Err(error) => Err(error),
        }
    }
}
