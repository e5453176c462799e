//! Whether the clock of this machine is kept right.
//!
//! No lease depends on the time of day, only on the rate of clocks; but logs of several hosts are read side by side,
//! and guests take their time from here.

use std::path::Path;

use super::{Finding, Verdict, output_of};

const CHECK: &str = "clock";

pub async fn findings() -> Vec<Finding> {
    vec![
        synchronised().await,
        source(Path::new(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )),
    ]
}

async fn synchronised() -> Finding {
    // systemd-timesyncd leaves this file once it has been right.
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Finding::good(CHECK, "synchronised by systemd-timesyncd");
    }
    // The kernel's own word (adjtimex), whoever keeps the clock.
    let told = output_of("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await;
    match told.as_deref() {
        Some("yes") => return Finding::good(CHECK, "synchronised"),
        Some("no") => return unsynchronised("the kernel says that it is not synchronised"),
        _ => {}
    }
    match output_of("chronyc", &["-c", "tracking"]).await {
        Some(tracking) => of_chrony(&tracking),
        None => Finding::new(
            CHECK,
            Verdict::Warning,
            "neither systemd nor chrony tells whether it is synchronised",
        )
        .with("apt-get install chrony, on every host"),
    }
}

fn unsynchronised(says: &str) -> Finding {
    Finding::new(CHECK, Verdict::Warning, says).with("timedatectl set-ntp true, or apt-get install chrony")
}

/// The fields of `chronyc -c tracking`: the fifth is the offset, the last says `Normal` once it is right.
fn of_chrony(tracking: &str) -> Finding {
    let fields: Vec<&str> = tracking.split(',').collect();
    match (
        fields.last(),
        fields.get(4).and_then(|offset| offset.parse::<f64>().ok()),
    ) {
        (Some(&"Normal"), Some(offset)) => Finding::good(
            CHECK,
            format!("synchronised by chrony, {:.3} ms off", offset.abs() * 1000.0),
        ),
        _ => unsynchronised("chrony runs, but has not synchronised it"),
    }
}

fn source(file: &Path) -> Finding {
    let check = "clock source";
    match std::fs::read_to_string(file).as_deref().map(str::trim) {
        Ok(source @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page")) => {
            Finding::good(check, source)
        }
        Ok(source) => Finding::new(
            check,
            Verdict::Note,
            format!("{source}: slower to read than tsc, and may drift more"),
        ),
        Err(error) => Finding::new(check, Verdict::Note, format!("not known: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chrony_is_believed_when_it_says_normal() {
        let normal =
            "A9FEA97B,169.254.169.123,4,1700000000.1,-0.000012,0.00001,0.00002,-5.1,0.0,0.02,0.0003,0.0002,16.1,Normal";
        let finding = of_chrony(normal);
        assert_eq!(
            (finding.verdict, finding.says.as_str()),
            (Verdict::Good, "synchronised by chrony, 0.012 ms off")
        );
        for bad in [
            "",
            "x",
            "7F7F0101,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised",
        ] {
            assert_eq!(of_chrony(bad).verdict, Verdict::Warning, "{bad}");
        }
    }
}
