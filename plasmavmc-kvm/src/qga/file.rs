//! Reading and writing files of a guest.
//!
//! The agent's handles stay open until they are closed, and it has few. So a handle closes itself when it
//! goes out of scope, whatever happened.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agent::Agent;
use super::error::QgaError;

/// What is moved by one command: small, so that others get their turn in between.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a handle that nobody waits for has to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    pub bytes: Vec<u8>,
    /// There was more.
    pub truncated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Piece {
    #[serde(default)]
    buf_b64: String,
    eof: bool,
}

#[derive(Deserialize)]
struct Written {
    count: usize,
}

/// An open file in the guest.
struct OpenFile<'a> {
    agent: &'a Agent,
    handle: i64,
    is_open: bool,
    deadline: Instant,
}

impl Agent {
    /// Reads a file up to a limit.
    pub async fn read_file(&self, path: &str, limit_bytes: usize, within: Duration) -> Result<FileContent, QgaError> {
        let mut file = OpenFile::open(self, path, "r", within).await?;
        let mut bytes = Vec::new();
        let truncated = loop {
            // One byte more than wanted tells whether there is more.
            let wanted = (limit_bytes + 1 - bytes.len()).min(PIECE_BYTES);
            let piece = file.command("guest-file-read", json!({ "count": wanted })).await?;
            let piece = self.understood("guest-file-read", Piece::deserialize(piece))?;
            let read = self.decoded("guest-file-read", &piece.buf_b64)?;
            let is_end = piece.eof || read.is_empty();
            bytes.extend(read);
            if bytes.len() > limit_bytes {
                bytes.truncate(limit_bytes);
                break true;
            }
            if is_end {
                break false;
            }
        };
        file.close().await?;
        Ok(FileContent { bytes, truncated })
    }

    /// Writes a file anew. It is complete, as far as the guest's file system promises, only if this
    /// succeeds; after a failure there may be a part of it.
    pub async fn write_file(&self, path: &str, bytes: &[u8], within: Duration) -> Result<(), QgaError> {
        let mut file = OpenFile::open(self, path, "w", within).await?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_BYTES)];
            let arguments = json!({ "buf-b64": STANDARD.encode(piece) });
            let written = file.command("guest-file-write", arguments).await?;
            let written = self.understood("guest-file-write", Written::deserialize(written))?;
            if written.count == 0 || written.count > piece.len() {
                let problem = format!("{} of {} bytes written", written.count, piece.len());
                return self.understood("guest-file-write", Err(serde::de::Error::custom(problem)));
            }
            rest = &rest[written.count..];
        }
        file.command("guest-file-flush", json!({})).await?;
        file.close().await
    }
}

impl<'a> OpenFile<'a> {
    async fn open(agent: &'a Agent, path: &str, mode: &str, within: Duration) -> Result<Self, QgaError> {
        const COMMAND: &str = "guest-file-open";
        let deadline = Instant::now() + within;
        let opened = agent
            .execute_raw(COMMAND, json!({ "path": path, "mode": mode }), within)
            .await?;
        Ok(Self {
            handle: agent.understood(COMMAND, i64::deserialize(opened))?,
            agent,
            is_open: true,
            deadline,
        })
    }

    async fn command(&mut self, name: &str, mut arguments: Value) -> Result<Value, QgaError> {
        arguments["handle"] = self.handle.into();
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.agent.execute_raw(name, arguments, left).await
    }

    async fn close(mut self) -> Result<(), QgaError> {
        self.command("guest-file-close", json!({})).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for OpenFile<'_> {
    fn drop(&mut self) {
        if self.is_open {
            let arguments = json!({ "handle": self.handle });
            self.agent
                .ask_without_waiting("guest-file-close", arguments, CLOSE_WITHIN);
        }
    }
}
