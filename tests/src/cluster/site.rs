//! The folder of a cluster, and the end of everything that runs in it.
//!
//! A small process waits for the end of a pipe from the owner. The end comes when the owner drops the site and
//! just so when the owner is killed: there is one way of cleaning up, and every run of every test takes it.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Pid;

use crate::hosts::KEEP_ENV;

const REAPER: &str = include_str!("reaper.sh");

/// A folder whose processes end with it.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
    reaper: Child,
}

impl Site {
    /// In the system's temporary folder.
    pub fn new() -> Result<Self> {
        Self::below(&std::env::temp_dir())
    }

    pub fn below(parent: &Path) -> Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let folder = tempfile::Builder::new().prefix("plasmavmc-").tempdir_in(parent)?.keep();
        let keep = std::env::var_os(KEEP_ENV).map_or("", |_| "keep");
        let reaper = Command::new("bash")
            .args(["-c", REAPER, "plasmavmc-reaper"])
            .env("FOLDER", &folder)
            .env("KEEP", keep)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting bash")?;
        Ok(Self { folder, reaper })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every QEMU below a folder of the site, by the folder it runs in.
    pub fn qemus(&self, below: &Path) -> Vec<Pid> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_here = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            name.starts_with("qemu-system") && cwd.starts_with(below)
        };
        pids.filter(is_here).filter_map(Pid::from_raw).collect()
    }

    /// The QEMU of a VM, found as an operator finds it: `pgrep -f "qemu.*$VM_ID"`. All of them, to see doubles.
    pub fn qemus_of(&self, vm: &str) -> BTreeSet<i32> {
        let mine = |pid: &Pid| {
            let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(vm)
        };
        let all = self.qemus(&self.folder);
        all.into_iter().filter(mine).map(Pid::as_raw_pid).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        // It ends by itself: each of its loops is bounded.
        let _ = self.reaper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_ours_outlives_a_site_and_what_is_not_ours_does() {
        let site = Site::new().unwrap();
        let folder = site.folder().to_owned();
        // A program of ours, by its name; what it does is of no matter.
        let ours = folder.join("plasmavmc-fake");
        std::fs::copy("/bin/sleep", &ours).unwrap();
        let mut fake = Command::new(&ours).arg("60").spawn().unwrap();
        let mut somebody = Command::new("sleep").arg("60").current_dir(&folder).spawn().unwrap();
        drop(site);
        assert!(!folder.exists());
        assert!(!fake.wait().unwrap().success());
        assert!(somebody.try_wait().unwrap().is_none());
        somebody.kill().unwrap();
        somebody.wait().unwrap();
    }
}
