//! Handing open files to QEMU, whose sandbox keeps it from opening them itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::QmpError;
use super::handle::{Qmp, Sending};

impl Qmp {
    /// Gives QEMU a descriptor under a name, for the options that take one (`fd=NAME` of a tap, migration).
    pub async fn getfd(&self, name: &str, fd: OwnedFd, within: Duration) -> Result<(), QmpError> {
        self.send_fd("getfd", json!({ "fdname": name }), fd, within).await?;
        Ok(())
    }

    /// Adds a descriptor to a set, so that `/dev/fdset/SET` opens it. The answer is its number in QEMU.
    /// `label` is shown by `query-fdsets`: with it, sets are recognised after an adoption.
    pub async fn add_fd(&self, set: u32, label: &str, fd: OwnedFd, within: Duration) -> Result<i64, QmpError> {
        const COMMAND: &str = "add-fd";
        let arguments = json!({ "fdset-id": set, "opaque": label });
        let added = self.send_fd(COMMAND, arguments, fd, within).await?;
        let added: qapi::qmp::AddfdInfo = serde_json::from_value(added).map_err(|error| QmpError::Unexpected {
            command: COMMAND.to_owned(),
            source: Arc::new(error),
        })?;
        Ok(added.fd)
    }

    async fn send_fd(&self, command: &str, arguments: Value, fd: OwnedFd, within: Duration) -> Result<Value, QmpError> {
        let sending = Sending {
            // Out of band it could overtake the descriptor of a command in its turn.
            oob: false,
            fd: Some(fd),
        };
        self.send(command, arguments, sending, within).await
    }
}
