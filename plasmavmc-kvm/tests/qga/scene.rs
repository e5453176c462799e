//! A socket in the place of QEMU, and text in the place of an agent.

use std::time::{Duration, Instant};

use plasmavmc_kvm::channel::{Channel, ChannelOptions};
use plasmavmc_kvm::qga::{Agent, AgentOptions, QgaError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub const SOON: Duration = Duration::from_secs(20);
pub const SHORT: Duration = Duration::from_millis(150);

/// A guest's end of the channel.
pub struct Guest {
    pub stream: UnixStream,
    pub read: Vec<u8>,
}

pub struct Scene {
    pub folder: TempDir,
    pub agent: Agent,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channel = Channel::listen(&folder.path().join("qga.sock"), ChannelOptions::default()).unwrap();
        let options = AgentOptions { sync_within: SHORT };
        let agent = Agent::attach(channel, "web-1", options);
        Self { folder, agent }
    }

    pub async fn guest(&self) -> Guest {
        let stream = UnixStream::connect(self.folder.path().join("qga.sock")).await.unwrap();
        Guest {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn start() -> (Self, Guest) {
        let scene = Self::new();
        let guest = scene.guest().await;
        // Connected means: the client has seen it. A first command may come before.
        let deadline = Instant::now() + SOON;
        while matches!(scene.ping().await, Err(QgaError::NotConnected { .. })) {
            assert!(Instant::now() < deadline);
        }
        (scene, guest)
    }

    pub async fn ping(&self) -> Result<Value, QgaError> {
        self.agent.execute_raw("guest-ping", Value::Null, SHORT).await
    }

    /// After anything at all, an agent that works is believed again.
    pub async fn assert_next_good_command_works(&self, guest: &mut Guest) {
        let good = async {
            let command = guest.serve_sync_until_command().await;
            assert_eq!(command["execute"], "good");
            guest.send("{\"return\": \"good\"}\n").await;
        };
        let (answer, ()) = tokio::join!(self.agent.execute_raw("good", json!({}), SOON), good);
        assert_eq!(answer.unwrap(), json!("good"));
    }
}

impl Guest {
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next line the host sent, with the mark taken away.
    pub async fn line(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).filter(|&byte| byte != 0xFF).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let read = tokio::time::timeout(SOON, self.stream.read_buf(&mut self.read)).await;
            assert!(read.expect("the host sends").unwrap() > 0, "the host hung up");
        }
    }

    pub async fn echo(&mut self, sync: &Value) {
        let id = &sync["arguments"]["id"];
        let mark: &[u8] = if sync["execute"] == "guest-sync-delimited" {
            &[0xFF]
        } else {
            &[]
        };
        self.send_bytes(&[mark, format!("{{\"return\": {id}}}\n").as_bytes()].concat())
            .await;
    }

    /// Echoes every sync and gives the first other command.
    pub async fn serve_sync_until_command(&mut self) -> Value {
        loop {
            let line = self.line().await;
            if line["execute"] != "guest-sync-delimited" {
                return line;
            }
            self.echo(&line).await;
        }
    }
}
