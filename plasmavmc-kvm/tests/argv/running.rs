//! A real QEMU, in a real runtime folder, that is gone when the test is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plasmavmc_kvm::argv::CommandLine;
use plasmavmc_kvm::runtime::{RuntimeFolder, file};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::cases::id;

const DEADLINE: Duration = Duration::from_secs(20);

pub struct Running {
    child: Child,
    qmp: BufReader<UnixStream>,
    log: PathBuf,
}

impl Running {
    /// Starts QEMU in this VM's folder, and waits until it has greeted.
    pub async fn start(line: &CommandLine, vms: &Path) -> Self {
        let folder = RuntimeFolder::create(vms, id()).unwrap();
        let log = folder.path().join(file::QEMU_LOG);
        let child = Command::new("qemu-system-x86_64")
            .args(&line.arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("install qemu-system-x86");
        let mut guard = KillOnDrop(Some(child));
        let connect = async {
            loop {
                if let Ok(stream) = UnixStream::connect(folder.short_path(file::QMP_SOCKET)).await {
                    return stream;
                }
                let ended = guard.0.as_mut().unwrap().try_wait().unwrap();
                let said = || std::fs::read_to_string(&log).unwrap();
                assert!(ended.is_none(), "QEMU refused, {ended:?}: {}\n{line}", said());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stream = tokio::time::timeout(DEADLINE, connect).await.expect("no QMP socket");
        let child = guard.0.take().unwrap();
        let mut running = Self {
            child,
            qmp: BufReader::new(stream),
            log,
        };
        let greeting = running.read_line().await;
        assert!(greeting["QMP"].is_object(), "{greeting}");
        running.ask("qmp_capabilities", json!({})).await;
        running
    }

    /// What QEMU returns; events are passed over.
    pub async fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.qmp.get_mut().write_all(text.as_bytes()).await.unwrap();
        loop {
            let mut line = self.read_line().await;
            assert!(line.get("error").is_none(), "{text}: {line}");
            if let Some(value) = line.get_mut("return") {
                return value.take();
            }
        }
    }

    async fn read_line(&mut self) -> Value {
        let mut line = String::new();
        let read = self.qmp.read_line(&mut line);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("QEMU is silent")
            .unwrap();
        assert_ne!(line, "", "QEMU ended: {}", std::fs::read_to_string(&self.log).unwrap());
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// The path that QEMU has open for a disk.
    pub async fn path_of(&mut self, file_node: &str) -> Option<String> {
        let nodes = self.ask("query-named-block-nodes", json!({ "flat": true })).await;
        let node = nodes.as_array()?.iter().find(|node| node["node-name"] == file_node)?;
        Some(node["file"].as_str()?.to_owned())
    }

    pub async fn quit(mut self) {
        self.ask("quit", json!({})).await;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself already.
    let _ = child.kill();
    let _ = child.wait();
}
