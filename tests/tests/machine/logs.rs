//! What a guest says for ever does not fill the host's memory.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use plasmavmc_kvm::runtime::{LONGEST_LOG_BYTES, file};
use plasmavmc_tests::vms::{has_booted, micro};

use crate::{at_a_place, words};

/// The log is looked at every ten seconds.
const LOOKED_AT: Duration = Duration::from_secs(60);

#[test]
fn a_console_log_that_grew_too_long_is_cut_and_the_guest_goes_on_at_its_end() {
    at_a_place(async |place| {
        let machine = place.launch(micro("loud", "", |_| {})?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        let log = place
            .host()
            .vms
            .join(machine.key().vm.to_string())
            .join(file::CONSOLE_LOG);
        // As if the guest had said it.
        let mut writer = File::options().append(true).open(&log)?;
        writer.write_all(&vec![b'.'; LONGEST_LOG_BYTES as usize])?;
        words(&machine, &["count"]).await?;
        let is_in_order = || -> anyhow::Result<bool> {
            let log = std::fs::read(&log)?;
            let is_short = (log.len() as u64) < LONGEST_LOG_BYTES / 2;
            assert!(!log.contains(&0), "a hole in the log");
            Ok(is_short && log.starts_with(b".") && String::from_utf8_lossy(&log).contains("\ncount 150"))
        };
        let deadline = Instant::now() + LOOKED_AT;
        while !is_in_order()? {
            assert!(Instant::now() < deadline, "it is {} bytes long", log.metadata()?.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        machine.kill().await?;
        Ok(())
    });
}
