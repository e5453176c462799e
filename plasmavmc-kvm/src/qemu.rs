//! The QEMU of this host: where it is, how old it is, which boards it has.
//!
//! Must never start a VM: it asks the program about itself only.

use std::fmt;
use std::path::{Path, PathBuf};

use plasmavmc_types::{MachineFamily, MachineType};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::program::{Limits, ProgramError, run};
use crate::refused::{Reason, Refused};

/// Where QEMU is looked for. Some distributions keep it out of the path.
const PROGRAMS: &[&str] = &["qemu-system-x86_64", "/usr/libexec/qemu-kvm"];

/// The version of a QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl QemuVersion {
    /// The oldest that is supported: the one in Debian 12.
    pub const OLDEST: Self = Self::new(7, 2, 0);

    pub const fn new(major: u32, minor: u32, micro: u32) -> Self {
        Self { major, minor, micro }
    }

    /// Out of what `--version` says.
    fn read(text: &str) -> Option<Self> {
        let after = text.split_once(" version ")?.1;
        let number: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = number.split('.').map(str::parse);
        let mut part = || parts.next()?.ok();
        Some(Self::new(part()?, part()?, part().unwrap_or(0)))
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A QEMU that is installed and new enough.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    version: QemuVersion,
    machines: OnceCell<Vec<String>>,
}

impl Qemu {
    /// The one at this path, or else the one that is installed.
    pub async fn find(program: Option<&Path>) -> Result<Self, Refused> {
        let candidates: Vec<PathBuf> = match program {
            Some(program) => vec![program.to_owned()],
            None => PROGRAMS.iter().map(PathBuf::from).collect(),
        };
        for program in &candidates {
            // The whole path: whoever starts it later has other folders to look in, or none.
            let program = &on_path(program);
            match run(program, ["--version"], Limits::QUICK).await {
                Ok(output) => return Self::checked(program.clone(), &output),
                Err(ProgramError::Missing { .. }) => {}
                Err(error) => return Err(failed(program, error.to_string())),
            }
        }
        let program = candidates
            .first()
            .map(|program| program.display().to_string())
            .unwrap_or_default();
        Err(Refused::new("qemu", Reason::ProgramMissing { program }))
    }

    fn checked(program: PathBuf, output: &[u8]) -> Result<Self, Refused> {
        let text = String::from_utf8_lossy(output);
        let Some(version) = QemuVersion::read(&text) else {
            return Err(failed(&program, "does not tell its version".to_owned()));
        };
        if version < QemuVersion::OLDEST {
            return Err(Refused::new("qemu", Reason::QemuTooOld { found: version }));
        }
        let machines = OnceCell::new();
        Ok(Self {
            program,
            version,
            machines,
        })
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn version(&self) -> QemuVersion {
        self.version
    }

    /// Refuses a board that this QEMU does not have. QEMU is asked once.
    pub async fn check_machine(&self, machine: &MachineType) -> Result<(), Refused> {
        let known = self.machines.get_or_try_init(|| self.read_machines()).await?;
        if known.iter().any(|name| name == machine.as_str()) {
            return Ok(());
        }
        let newest = newest_of(known, machine.family());
        let machine = machine.clone();
        Err(Refused::new("machine", Reason::UnknownMachine { machine, newest }))
    }

    async fn read_machines(&self) -> Result<Vec<String>, Refused> {
        let output = run(&self.program, ["-machine", "help"], Limits::QUICK).await;
        let output = output.map_err(|error| failed(&self.program, error.to_string()))?;
        let text = String::from_utf8_lossy(&output);
        let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }
}

/// Where a program without a folder is found; as it was if nowhere.
fn on_path(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|path| path.is_file()).unwrap_or_else(|| program.to_owned())
}

fn newest_of(known: &[String], family: MachineFamily) -> Option<String> {
    let prefix = match family {
        MachineFamily::Q35 => "pc-q35-",
        MachineFamily::Pc => "pc-i440fx-",
    };
    let version_of = |name: &String| -> Option<(u32, u32)> {
        let (major, minor) = name.strip_prefix(prefix)?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let newest = known.iter().filter(|name| version_of(name).is_some());
    newest.max_by_key(|name| version_of(name)).cloned()
}

fn failed(program: &Path, problem: String) -> Refused {
    let program = program.display().to_string();
    Refused::new("qemu", Reason::ProgramFailed { program, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let table = [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright",
                (7, 2, 22),
            ),
            ("QEMU emulator version 10.0.2\n", (10, 0, 2)),
            ("QEMU emulator version 8.2.0-rc1 (v8.2.0-rc1)", (8, 2, 0)),
        ];
        for (text, (major, minor, micro)) in table {
            assert_eq!(QemuVersion::read(text), Some(QemuVersion::new(major, minor, micro)));
        }
        assert_eq!(QemuVersion::read("qemu: command not found"), None);
        assert!(QemuVersion::new(10, 0, 0) > QemuVersion::new(9, 2, 0));
    }

    #[tokio::test]
    async fn a_qemu_that_is_missing_old_or_mute_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = async |script: &str, expected: &str| {
            let program = folder.path().join("qemu");
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let refused = Qemu::find(Some(&program)).await.unwrap_err();
            assert_eq!(refused.field, "qemu");
            assert!(refused.to_string().contains(expected), "{refused}");
        };
        check(
            "echo QEMU emulator version 6.2.0",
            "6.2.0, which is older than 7.2.0. Install QEMU 7.2.0",
        )
        .await;
        check("true", "does not tell its version").await;
        check("echo broken >&2; exit 1", "broken").await;
        let missing = Qemu::find(Some(&folder.path().join("none"))).await.unwrap_err();
        assert!(matches!(missing.reason, Reason::ProgramMissing { .. }), "{missing}");
    }

    #[tokio::test]
    async fn the_installed_qemu_knows_its_boards() {
        let qemu = Qemu::find(None).await.unwrap();
        for good in ["q35", "pc", "pc-q35-7.2"] {
            qemu.check_machine(&MachineType::new(good).unwrap()).await.unwrap();
        }
        let refused = qemu
            .check_machine(&MachineType::new("pc-q35-99.9").unwrap())
            .await
            .unwrap_err();
        assert_eq!(refused.field, "machine");
        assert!(refused.remedy().starts_with("Use pc-q35-"), "{refused}");
    }
}
