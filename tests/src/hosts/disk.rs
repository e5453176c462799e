//! The disks of hosts. They outlive power cuts of their host, and end with the lab.
//!
//! A limited disk is a tmpfs in the lab's own mount namespace: the machine's mounts are never touched.
//! Nothing on a tmpfs is lost by killing processes, and nothing on a real disk either: what was written
//! but not synced survives a power cut here. Whether data was synced is for tests that watch system calls.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::LabError;
use super::namespace::{Holder, feed};

/// What a host's data folder is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPlan {
    /// A folder on this machine's disk.
    Folder,
    /// Memory of a limited size, which can be filled.
    Limited { mib: u32 },
}

/// Where a host keeps its data.
#[derive(Debug)]
pub(super) struct Disk {
    plan: DiskPlan,
    /// As processes on the host see it.
    inside: PathBuf,
    /// As the test's process sees it.
    outside: PathBuf,
}

impl Disk {
    /// `anchor` is the process in whose mount namespace the disk appears.
    pub fn make(plan: DiskPlan, folder: &Path, anchor: &Holder) -> Result<Self, LabError> {
        std::fs::create_dir_all(folder).map_err(LabError::file(folder))?;
        let mut outside = folder.to_owned();
        if let DiskPlan::Limited { mib } = plan {
            let mut mount = Command::new("nsenter");
            mount
                .arg(format!("--mount={}", anchor.namespace("mnt").display()))
                .arg("--");
            mount
                .args(["mount", "-t", "tmpfs", "-o", &format!("size={mib}m,mode=755"), "disk"])
                .arg(folder);
            feed(mount, "mount", "mount", "")?;
            let relative = folder.strip_prefix("/").unwrap_or(folder);
            outside = PathBuf::from(format!("/proc/{}/root", anchor.pid())).join(relative);
        }
        Ok(Self {
            plan,
            inside: folder.to_owned(),
            outside,
        })
    }

    pub fn inside(&self) -> &Path {
        &self.inside
    }

    pub fn outside(&self) -> &Path {
        &self.outside
    }

    /// Leaves no room; false if the disk has no limit.
    pub fn fill(&self) -> Result<bool, LabError> {
        if self.plan == DiskPlan::Folder {
            return Ok(false);
        }
        let path = self.filler();
        let mut filler = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(LabError::file(&path))?;
        let mut block = vec![0xa5_u8; 1 << 20];
        // Ever smaller blocks, to the last page.
        while !block.is_empty() {
            match filler.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
                Err(error) => return Err(LabError::file(path)(error)),
            }
        }
        Ok(true)
    }

    pub fn free(&self) -> Result<(), LabError> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(LabError::file(self.filler())(error)),
            _ => Ok(()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.outside.join("filler")
    }
}
