//! A monitor made of a listener and text: it does what a test tells it to.

use std::path::PathBuf;
use std::time::Duration;

use plasmavmc_kvm::qmp::{Connection, connect};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

pub const GREETING: &str = concat!(
    r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "#,
    r#""capabilities": ["oob"]}}"#,
    "\n"
);
pub const SOON: Duration = Duration::from_secs(20);

pub struct Peer {
    reader: BufReader<OwnedReadHalf>,
    /// Gone after an end of stream.
    writer: Option<OwnedWriteHalf>,
}

pub struct Monitor {
    folder: TempDir,
    listener: UnixListener,
}

impl Monitor {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("qmp.sock")).unwrap();
        Self { folder, listener }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("qmp.sock")
    }

    pub async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer::new(stream)
    }

    /// A connection on which the capabilities are agreed on.
    pub async fn connected(&self) -> (Connection, Peer) {
        let path = self.path();
        let greet = async {
            let mut peer = self.accept().await;
            peer.send(GREETING.as_bytes()).await;
            let command = peer.read().await;
            peer.answer(&command, json!({})).await;
            peer
        };
        let (connection, peer) = tokio::join!(connect(&path, SOON), greet);
        (connection.unwrap(), peer)
    }
}

impl Peer {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer: Some(writer),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("the stream has not been ended");
        // A client that hung up is one of the outcomes that tests look at.
        let _ = writer.write_all(bytes).await;
    }

    /// The next command.
    pub async fn read(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(SOON, self.reader.read_line(&mut line)).await;
        assert!(read.unwrap().unwrap() > 0, "the client hung up");
        serde_json::from_str(&line).unwrap()
    }

    pub async fn answer(&mut self, command: &Value, value: Value) {
        let reply = json!({ "return": value, "id": command["id"] });
        self.send(format!("{reply}\r\n").as_bytes()).await;
    }

    pub fn end(&mut self) {
        self.writer = None;
    }

    /// Waits until the client hangs up.
    pub async fn until_hung_up(&mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(SOON, self.reader.read_to_end(&mut rest)).await;
        // Hung up with bytes unread is a reset.
        let _ = end.expect("the client hangs up");
    }
}
