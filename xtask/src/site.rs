//! A folder in the target folder, and the end of every server, guard and QEMU that runs in it.
//!
//! Like the folders of the cluster tests, with the same script: it ends what runs here even when this program is
//! killed. Nothing else ends a QEMU: that it outlives its server is the point of the system.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const REAPER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/src/cluster/reaper.sh"));

pub struct Site {
    folder: PathBuf,
    reaper: Child,
}

impl Site {
    pub fn below(parent: &Path, prefix: &str) -> Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?.keep();
        let reaper = Command::new("bash")
            .args(["-c", REAPER, "plasmavmc-reaper"])
            .env("FOLDER", &folder)
            .env("KEEP", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start bash")?;
        Ok(Self { folder, reaper })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        // It ends by itself: each of its loops is bounded.
        let _ = self.reaper.wait();
    }
}
