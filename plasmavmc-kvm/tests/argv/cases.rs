//! Every case is a specification and its command line, both in files: what is reviewed is what is tested.
//! `PLASMAVMC_BLESS=1` writes the command lines anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plasmavmc_kvm::argv::{Accelerator, CommandLine, HostFacts, Placed, PlacedImage, UefiFirmware, UefiFirmwares};
use plasmavmc_kvm::argv::{command_line, vm_id_of};
use plasmavmc_kvm::qemu::QemuVersion;
use plasmavmc_types::{Label, VmId, VmSpec};
use serde::Deserialize;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    spec: VmSpec,
    #[serde(default = "oldest")]
    qemu: QemuVersion,
    #[serde(default = "tcg")]
    accelerator: Accelerator,
    #[serde(default)]
    placed: FilePlaced,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FilePlaced {
    #[serde(default)]
    images: Vec<PlacedImage>,
    #[serde(default)]
    taps: BTreeMap<Label, Vec<i32>>,
}

fn oldest() -> QemuVersion {
    QemuVersion::OLDEST
}

fn tcg() -> Accelerator {
    Accelerator::Tcg
}

/// A case with its images below some folder.
pub struct Case {
    pub name: String,
    pub spec: VmSpec,
    pub host: HostFacts,
    pub placed: Placed,
}

pub fn id() -> VmId {
    VmId::from_uuid(Uuid::from_u128(0x00a1_b2c3_d4e5_4f60_8123_4567_89ab_cdef))
}

/// The host of the tests, with the firmware of Debian's ovmf.
pub fn host(qemu: QemuVersion, accelerator: Accelerator) -> HostFacts {
    let firmware = |code: &str, vars: &str| {
        Some(UefiFirmware {
            code: Path::new("/usr/share/OVMF").join(code),
            vars_template: Path::new("/usr/share/OVMF").join(vars),
        })
    };
    let uefi = UefiFirmwares {
        plain: firmware("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        secure_boot: firmware("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    };
    HostFacts {
        qemu,
        accelerator,
        uefi,
    }
}

/// All cases; the images of the files, `/images`, are in the given folder.
pub fn all(images: &str) -> Vec<Case> {
    let mut paths: Vec<PathBuf> = folder()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(!paths.is_empty(), "no cases in {}", folder().display());
    paths.iter().map(|path| read(path, images)).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/argv/cases")
}

fn read(path: &Path, images: &str) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.replace("\"/images/", &format!("\"{images}/"));
    let file: File = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let placed = Placed {
        images: file.placed.images,
        taps: file.placed.taps,
        uefi_vars: Some(format!("{images}/uefi-vars.fd").into()),
    };
    Case {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        spec: file.spec,
        host: host(file.qemu, file.accelerator),
        placed,
    }
}

impl Case {
    pub fn command_line(&self) -> CommandLine {
        command_line(&self.spec, id(), &self.host, &self.placed).unwrap_or_else(|refused| panic!("{refused}"))
    }
}

#[test]
fn every_case_has_the_command_line_that_was_reviewed() {
    for case in all("/images") {
        let line = case.command_line();
        assert_eq!(line, case.command_line(), "{}: not the same twice", case.name);
        let path = folder().join(format!("{}.args", case.name));
        if std::env::var_os("PLASMAVMC_BLESS").is_some() {
            std::fs::write(&path, line.to_string()).unwrap();
        }
        let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(line.to_string(), reviewed, "{}: not as reviewed", case.name);
    }
}

#[test]
fn a_qemu_of_ours_is_known_by_its_arguments() {
    for case in all("/images") {
        assert_eq!(vm_id_of(&case.command_line().arguments), Some(id()), "{}", case.name);
    }
    let uuid = id().to_string();
    let marked = format!("guest=plasmavmc/{uuid}/a,debug-threads=on");
    let other = Uuid::from_u128(1).to_string();
    for strange in [
        vec!["-uuid", &uuid],
        vec!["-name", "guest=web", "-uuid", &uuid],
        vec!["-name", &marked],
        vec!["-name", &marked, "-uuid", &other],
        vec!["-uuid", &uuid, "-name"],
    ] {
        assert_eq!(vm_id_of(&strange), None, "{strange:?}");
    }
}
