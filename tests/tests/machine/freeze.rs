//! A file system inside a guest: that a freeze stops its writes, and how it is left behind.
//!
//! Evidence comes from both sides: what the guest's kernel says when it mounts the disk, and what the
//! superblock on the host's file says when nobody has it mounted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plasmavmc_kvm::channel::{Watched, Watcher};
use plasmavmc_kvm::machine::Machine;
use plasmavmc_kvm::qga::FreezeState;
use plasmavmc_tests::vms::{Place, disk, has_booted, micro};
use plasmavmc_types::{DiskFormat, VmSpec};
use rustix::process::{Pid, Signal, kill_process};

use crate::{SOON, STOP, at_a_place, cause, exec, until, words};

const DISK_MB: u64 = 32;
/// Under TCG on a busy machine.
const LINES: Duration = Duration::from_secs(90);
/// So much the guest does while its file system is frozen.
const TICKS: u32 = 15;

fn ext4(place: &Place) -> Result<PathBuf> {
    let path = place.folder().join("data.raw");
    std::fs::File::create(&path)?.set_len(DISK_MB * 1024 * 1024)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path).output();
    let made = made.context("running mkfs.ext4 (Debian package e2fsprogs)")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(path)
}

fn with_data(name: &str, data: &Path) -> Result<VmSpec> {
    let data = disk("data", data, DiskFormat::Raw, DISK_MB)?;
    micro(name, "", |fields| fields.disks.push(data))
}

/// Whether the journal holds something that the next mount has to replay, as the superblock says.
fn needs_recovery(data: &Path) -> Result<bool> {
    let output = Command::new("dumpe2fs").arg("-h").arg(data).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let features = text.lines().find(|line| line.starts_with("Filesystem features:"));
    Ok(features.context("no features")?.contains("needs_recovery"))
}

/// What the guest's kernel has said about its disk.
pub async fn said_of_disk(machine: &Machine) -> Result<String> {
    let grep = exec("/bin/sh", &["-c", "dmesg | grep -F '(vda)'"]);
    let outcome = machine.agent().exec(&grep, SOON).await?;
    let said = String::from_utf8(outcome.stdout.bytes)?;
    ensure!(said.contains("mounted filesystem"), "it has mounted nothing: {said:?}");
    Ok(said)
}

pub fn tells_of_repair(said: &str) -> bool {
    ["recovery complete", "orphan", "recovering journal", "replay"]
        .iter()
        .any(|word| said.contains(word))
}

/// The console, line by line.
struct Lines {
    watcher: Watcher,
    rest: Vec<u8>,
}

impl Lines {
    fn of(machine: &Machine) -> Self {
        Self {
            watcher: machine.channels().console.watch(),
            rest: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            let watched = tokio::time::timeout(LINES, self.watcher.next()).await;
            match watched.context("the console is silent")?.context("the console ended")? {
                Watched::Bytes(bytes) => self.rest.extend(bytes),
                Watched::Missed { bytes } => anyhow::bail!("{bytes} bytes of the console were missed"),
            }
        }
    }

    /// Until so many lines begin with a word; returns how many began with the other meanwhile.
    async fn until(&mut self, word: &str, times: u32, other: &str) -> Result<u32> {
        let (mut seen, mut others) = (0, 0);
        while seen < times {
            let line = self.next().await?;
            seen += u32::from(line.starts_with(word));
            others += u32::from(line.starts_with(other));
        }
        Ok(others)
    }
}

#[test]
fn a_freeze_stops_the_writes_and_leaves_the_disk_in_order_and_a_thaw_lets_them_go_on() {
    at_a_place(async |place| {
        let data = ext4(&place)?;
        let machine = place.launch(with_data("frozen", &data)?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        let agent = machine.agent();
        let mut lines = Lines::of(&machine);
        words(&machine, &["count"]).await?;
        words(&machine, &["count-data"]).await?;
        lines.until("data ", 3, "count ").await?;
        assert_eq!(agent.freeze_state(SOON).await?, FreezeState::Thawed);
        assert!(needs_recovery(&data)?, "a mounted journal is expected to say so");

        assert_eq!(agent.freeze(SOON).await?, 1, "file systems");
        assert_eq!(agent.freeze_state(SOON).await?, FreezeState::Frozen);
        // What was written before the freeze may be told after it; the first ticks come behind that.
        lines.until("count ", 5, "data ").await?;
        let written = lines.until("count ", TICKS, "data ").await?;
        assert_eq!(written, 0, "writes to a frozen file system");
        // A copy that is taken now is whole without its journal.
        assert!(!needs_recovery(&data)?);

        assert_eq!(agent.thaw(SOON).await?, 1, "file systems");
        assert_eq!(agent.freeze_state(SOON).await?, FreezeState::Thawed);
        lines.until("data ", 3, "count ").await?;
        machine.stop(STOP).await?;
        assert!(!needs_recovery(&data)?);
        Ok(())
    });
}

#[test]
fn a_graceful_stop_leaves_no_journal_to_replay_and_a_kill_does() {
    at_a_place(async |place| {
        let data = ext4(&place)?;
        let started = async |name: &str| -> Result<Machine> {
            let machine = place.launch(with_data(name, &data)?).await?;
            machine.cont().await?;
            has_booted(&machine).await?;
            Ok(machine)
        };
        let writing = async |machine: &Machine| -> Result<()> {
            let mut lines = Lines::of(machine);
            words(machine, &["count-data"]).await?;
            lines.until("data ", 3, "count ").await.map(drop)
        };

        let first = started("first").await?;
        writing(&first).await?;
        first.stop(STOP).await?;
        assert!(!needs_recovery(&data)?, "a graceful stop has to unmount");

        let second = started("second").await?;
        let said = said_of_disk(&second).await?;
        assert!(!tells_of_repair(&said), "{said}");
        writing(&second).await?;
        // The host's loss of a process, not of its memory: what QEMU wrote is in the file.
        kill_process(Pid::from_raw(second.state().borrow().pid).unwrap(), Signal::KILL)?;
        until(&second, "gone", SOON, |state| state.phase.is_gone()).await;
        assert!(needs_recovery(&data)?, "nothing has unmounted");

        let third = started("third").await?;
        let said = said_of_disk(&third).await?;
        assert!(tells_of_repair(&said), "{said}");
        let kept = exec("/bin/cat", &["/data/count"]);
        let kept = third.agent().exec(&kept, SOON).await?.stdout.bytes;
        assert!(kept.starts_with(b"count "), "{:?}", String::from_utf8_lossy(&kept));
        third.stop(STOP).await?;
        assert_eq!(cause(&third), Some(plasmavmc_kvm::machine::Cause::Stopped));
        assert!(!needs_recovery(&data)?);
        Ok(())
    });
}
