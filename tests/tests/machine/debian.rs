//! What people really run: systemd on a root file system, and how it is left behind.

use anyhow::Result;
use plasmavmc_kvm::image::QemuImg;
use plasmavmc_kvm::machine::{Cause, Machine};
use plasmavmc_tests::vms::{debian, debian_disk, has_agent};
use plasmavmc_types::{DiskFormat, VmSpec};
use rustix::process::{Pid, Signal, kill_process};

use crate::freeze::{said_of_disk, tells_of_repair};
use crate::{SOON, STOP, at_a_place, cause, exec, until};

/// What is shown is its root file system; cloud-init takes a half of each boot under TCG, and most of the first.
const WITHOUT_CLOUD_INIT: &str = "cloud-init=disabled";
/// Writes to the root file system until it is in the journal, and goes on when nobody asks any more.
const WRITES: &str =
    "echo kept > /root/kept && sync && (while :; do date >> /root/going-on; sync; done > /dev/null 2>&1 &)";

#[test]
fn a_kill_leaves_debian_a_journal_to_replay_and_a_graceful_stop_leaves_none() {
    at_a_place(async |place| {
        let clone = place.folder().join("root.qcow2");
        let base = debian_disk()?;
        let images = QemuImg::find(None).await?;
        images
            .clone_linked("root", &clone, (&base, DiskFormat::Qcow2), None)
            .await?;
        let spec: VmSpec = debian("debian", &clone, WITHOUT_CLOUD_INIT)?;
        let started = async || -> Result<Machine> {
            let machine = place.launch(spec.clone()).await?;
            machine.cont().await?;
            has_agent(&machine).await?;
            Ok(machine)
        };
        let writing = async |machine: &Machine| {
            let writes = exec("/bin/sh", &["-c", WRITES]);
            machine.agent().exec(&writes, SOON).await.map(drop)
        };

        let first = started().await?;
        writing(&first).await?;
        kill_process(Pid::from_raw(first.state().borrow().pid).unwrap(), Signal::KILL)?;
        until(&first, "gone", SOON, |state| state.phase.is_gone()).await;

        let second = started().await?;
        let said = said_of_disk(&second).await?;
        assert!(tells_of_repair(&said), "after a kill: {said}");
        let kept = second.agent().exec(&exec("/bin/cat", &["/root/kept"]), SOON).await?;
        assert_eq!(kept.stdout.bytes, b"kept\n", "what was synced before the kill");
        writing(&second).await?;
        second.stop(STOP).await?;
        assert_eq!(cause(&second), Some(Cause::Stopped));

        let third = started().await?;
        let said = said_of_disk(&third).await?;
        assert!(!tells_of_repair(&said), "after a graceful stop: {said}");
        third.kill().await?;
        Ok(())
    });
}
