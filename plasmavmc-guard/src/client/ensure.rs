//! A connection to the guard of a folder, started if there is none.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{Client, EnsureError};

const START_PATIENCE: Duration = Duration::from_secs(12);

/// Connects to the guard that serves a folder, and starts one if none does: in its own session, as nobody's
/// child. Several callers at once end up with the same one.
pub async fn ensure_running(folder: &Path, program: &Path) -> Result<Client, EnsureError> {
    if let Ok(client) = Client::connect(folder) {
        return Ok(client);
    }
    // This one starts the guard, waits until it listens, and ends; so the guard has no parent to outlive.
    let starting = Command::new(program)
        .arg("start")
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(START_PATIENCE, starting)
        .await
        .map_err(|_| EnsureError::TimedOut { after: START_PATIENCE })?
        .map_err(|source| EnsureError::Program {
            program: program.to_owned(),
            source,
        })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(EnsureError::NotStarted { output });
    }
    Ok(Client::connect(folder)?)
}
