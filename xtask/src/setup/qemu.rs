//! QEMU, of one version throughout.
//!
//! `qemu-utils` from one source and `qemu-system-x86` from another exclude each other, and a machine image
//! may come with the one from a source that is no longer configured. Then apt gives up, unless it is told a
//! version that both packages have, and that it may go down to it. That is tried second, because whoever
//! chose a newer QEMU should keep it where it works.

use std::process::Command;

use anyhow::{Context, Result};

use super::debian::{self, Administrator, Program};
use crate::step;

/// The packages that must agree on a version.
const OF_ONE_VERSION: [&str; 2] = ["qemu-system-x86", "qemu-utils"];
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

const PROGRAMS: &[Program] = &[
    Program {
        name: "qemu-system-x86_64",
        package: "qemu-system-x86",
        used_for: "running VMs",
    },
    Program {
        name: "qemu-img",
        package: "qemu-utils",
        used_for: "making disks",
    },
    // No program, but found the same way: an absolute path is looked for where it says.
    Program {
        name: FIRMWARE,
        package: "ovmf",
        used_for: "VMs that boot by UEFI",
    },
];

pub fn ensure() -> Result<()> {
    let Err(plain) = debian::ensure(PROGRAMS) else {
        return Ok(());
    };
    let Some((administrator, version)) = Administrator::find().zip(common_version()) else {
        return Err(plain);
    };
    step::announce(&format!(
        "the plain way failed; try QEMU {version} for all its packages"
    ));
    step::run(
        "install QEMU of one version",
        administrator
            .apt_get(&[
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "--allow-downgrades",
            ])
            .args(OF_ONE_VERSION.map(|package| format!("{package}={version}")))
            .arg("ovmf"),
    )
    .with_context(|| format!("first, without a version: {plain:#}"))
}

/// The newest version that the configured sources have of all packages.
fn common_version() -> Option<String> {
    let [first, second] = OF_ONE_VERSION.map(versions_on_offer);
    newest_common(&first, &second)
}

/// Newest first, as apt has them. Only what a source offers, not what happens to be installed.
fn versions_on_offer(package: &str) -> Vec<String> {
    let answer = Command::new("apt-cache").args(["madison", package]).output();
    let text = answer.map(|answer| answer.stdout).unwrap_or_default();
    read_madison(&String::from_utf8_lossy(&text))
}

/// Lines of ` package | version | source`.
fn read_madison(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.contains("Packages"))
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect()
}

fn newest_common(first: &[String], second: &[String]) -> Option<String> {
    first.iter().find(|version| second.contains(version)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_newest_that_both_packages_have() {
        let system = "qemu-system-x86 | 1:7.2+deb12u18 | http://m bookworm/main amd64 Packages\n\
                      qemu-system-x86 | 1:7.2+deb12u13 | http://m bookworm-security/main amd64 Packages\n";
        let utils = "qemu-utils | 1:10.0.2 | http://m bookworm-backports/main amd64 Packages\n\
                     qemu-utils | 1:7.2+deb12u18 | http://m bookworm/main amd64 Packages\n\
                     qemu | 1:9.9 | http://m bookworm/main Sources\n";
        let (system, utils) = (read_madison(system), read_madison(utils));
        assert_eq!(utils, ["1:10.0.2", "1:7.2+deb12u18"]);
        assert_eq!(newest_common(&system, &utils).as_deref(), Some("1:7.2+deb12u18"));
        assert_eq!(newest_common(&system, &[]), None);
    }
}
