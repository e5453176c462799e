//! Programs that come from Debian packages.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// A program and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    pub used_for: &'static str,
}

/// What makes hosts out of namespaces and watches the system calls of what runs there.
pub const FOR_NAMESPACES: &[Program] = &[
    Program {
        name: "ip",
        package: "iproute2",
        used_for: "networks between the hosts of a test",
    },
    Program {
        name: "unshare",
        package: "util-linux",
        used_for: "hosts as namespaces",
    },
    Program {
        name: "nsenter",
        package: "util-linux",
        used_for: "commands inside those hosts",
    },
    Program {
        name: "strace",
        package: "strace",
        used_for: "proving that acknowledged writes were synced",
    },
    Program {
        name: "nft",
        package: "nftables",
        used_for: "cutting hosts off from each other",
    },
    Program {
        name: FAKETIME,
        package: "libfaketime",
        used_for: "stepping the clock of a host",
    },
];

const FAKETIME: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
} else {
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
};

/// What builds the guests of the tests.
pub const FOR_GUESTS: &[Program] = &[
    Program {
        name: "debootstrap",
        package: "debootstrap",
        used_for: "the tree of the debian guest",
    },
    Program {
        name: "mkfs.ext4",
        package: "e2fsprogs",
        used_for: "file systems for guests",
    },
    Program {
        name: "setpriv",
        package: "util-linux",
        used_for: "ending a build together with its children",
    },
    Program {
        name: "xz",
        package: "xz-utils",
        used_for: "unpacking kernels",
    },
    Program {
        name: "zstd",
        package: "zstd",
        used_for: "unpacking kernels",
    },
    Program {
        name: "gzip",
        package: "gzip",
        used_for: "packing an initramfs",
    },
];

/// The peer that VMs are measured against. Absolute paths are looked for where they say.
pub const LIBVIRT: &[Program] = &[
    Program {
        name: "virsh",
        package: "libvirt-clients",
        used_for: "the peer of `bench vm`",
    },
    Program {
        name: "/usr/sbin/libvirtd",
        package: "libvirt-daemon",
        used_for: "the peer of `bench vm`",
    },
    Program {
        name: "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
        package: "libvirt-daemon-driver-qemu",
        used_for: "the peer of `bench vm`",
    },
];

/// Installs the packages of those programs that are missing.
pub fn ensure(programs: &[Program]) -> Result<()> {
    let missing = missing(programs, |name| step::find_program(name).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    packages.dedup();
    let Some(administrator) = Administrator::find() else {
        bail!("{}", advice(&missing, &packages));
    };
    step::run("apt-get update", &mut administrator.apt_get(&["update", "--quiet"]))?;
    step::run(
        &format!("install {}", packages.join(" ")),
        administrator
            .apt_get(&["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(&packages),
    )
    .with_context(|| advice(&missing, &packages))
}

fn missing(programs: &[Program], is_there: impl Fn(&str) -> bool) -> Vec<Program> {
    programs
        .iter()
        .copied()
        .filter(|program| !is_there(program.name))
        .collect()
}

fn advice(missing: &[Program], packages: &[&str]) -> String {
    let mut text = String::from("these programs are missing and cannot be installed from here:\n");
    for Program {
        name,
        package,
        used_for,
    } in missing
    {
        text += &format!("  {name} (Debian package {package}): {used_for}\n");
    }
    text + &format!(
        "install them and try again: sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// A way to run apt-get with the rights it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Administrator {
    Root,
    Sudo,
}

impl Administrator {
    /// `None` where there is no apt-get, or no right to use it without a question.
    pub fn find() -> Option<Self> {
        step::find_program("apt-get")?;
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            Some(Administrator::Root)
        } else if step::succeeds(Command::new("sudo").args(["-n", "true"])) {
            Some(Administrator::Sudo)
        } else {
            None
        }
    }

    pub fn apt_get(self, arguments: &[&str]) -> Command {
        // `env` because sudo drops variables.
        let mut command = match self {
            Administrator::Root => Command::new("env"),
            Administrator::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "env"]);
                sudo
            }
        };
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(arguments);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let found = missing(FOR_NAMESPACES, |name| name != "strace");
        assert_eq!(found.iter().map(|program| program.name).collect::<Vec<_>>(), ["strace"]);
        assert!(missing(FOR_NAMESPACES, |_| true).is_empty());
    }

    #[test]
    fn the_advice_names_program_package_and_command() {
        let text = advice(&FOR_NAMESPACES[..1], &["iproute2"]);
        assert!(text.contains("ip (Debian package iproute2)"), "{text}");
        assert!(
            text.ends_with("apt-get install --no-install-recommends iproute2"),
            "{text}"
        );
    }
}
