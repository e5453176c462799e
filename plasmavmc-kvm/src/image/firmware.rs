//! The UEFI firmware of this host, and each VM's own copy of its variables.

use std::fs::File;
use std::io;
use std::path::Path;

use super::ImageError;
use super::make::Partial;
use super::probe::{Use, look, within_deadline};
use crate::argv::{Medium, UefiFirmware, UefiFirmwares};
use crate::refused::{Reason, Refused};

/// Where distributions keep it: Debian and its children, then Fedora and its.
const FOLDERS: &[&str] = &["/usr/share/OVMF", "/usr/share/edk2/ovmf"];
const PLAIN: &[(&str, &str)] = &[("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")];
/// With Microsoft's keys in the variables, which the boot loaders of distributions are signed for.
const SECURE: &[(&str, &str)] = &[
    ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    ("OVMF_CODE.secboot.fd", "OVMF_VARS.secboot.fd"),
];

impl UefiFirmwares {
    /// What is installed.
    pub fn installed() -> Self {
        Self::installed_in(FOLDERS)
    }

    fn installed_in(folders: &[&str]) -> Self {
        let find = |names: &[(&str, &str)]| {
            let pairs = folders
                .iter()
                .flat_map(|folder| names.iter().map(move |names| (Path::new(folder), names)));
            let mut firmwares = pairs.map(|(folder, (code, vars))| UefiFirmware {
                code: folder.join(code),
                vars_template: folder.join(vars),
            });
            firmwares.find(|firmware| firmware.code.is_file() && firmware.vars_template.is_file())
        };
        Self {
            plain: find(PLAIN),
            secure_boot: find(SECURE),
        }
    }
}

/// Makes the VM's copy of the firmware's variables, if it has none yet. One that is there is kept: it holds
/// the guest's boot entries.
pub async fn keep_uefi_vars(firmware: &UefiFirmware, copy: &Path) -> Result<(), ImageError> {
    let intended = Use {
        writes: true,
        is_direct: false,
    };
    let refuse = |reason| Refused::new("firmware", reason);
    match look(copy, intended).await {
        Ok(seen) if seen.medium == Medium::File => return Ok(()),
        Ok(_) => return Err(refuse(Reason::NotAFile { path: copy.to_owned() }).into()),
        Err(Reason::Missing { .. }) => {}
        Err(reason) => return Err(refuse(reason).into()),
    }
    let (template, target) = (firmware.vars_template.clone(), copy.to_owned());
    let copied = within_deadline(copy, move || -> Result<(), ImageError> {
        let mut partial = Partial::begin(&target).map_err(|reason| Refused::new("firmware", reason))?;
        let copied = File::open(&template).and_then(|mut from| io::copy(&mut from, &mut partial.file));
        let finished = copied.and_then(|_| partial.finish());
        finished.map_err(|source| ImageError::Io {
            what: "make",
            path: target,
            source,
        })
    });
    copied.await.map_err(refuse)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firmware_counts_only_with_its_variables() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_str().unwrap()];
        let put = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        put("OVMF_CODE_4M.fd");
        put("OVMF_CODE.fd");
        assert_eq!(UefiFirmwares::installed_in(&folders), UefiFirmwares::default());
        put("OVMF_VARS.fd");
        let plain = UefiFirmwares::installed_in(&folders).plain.unwrap();
        assert!(plain.code.ends_with("OVMF_CODE.fd"));
    }

    #[tokio::test]
    async fn a_copy_is_made_once_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let firmware = UefiFirmware {
            code: folder.path().join("code"),
            vars_template: folder.path().join("template"),
        };
        std::fs::write(&firmware.vars_template, "empty").unwrap();
        let copy = folder.path().join("vars.fd");
        keep_uefi_vars(&firmware, &copy).await.unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"empty");
        std::fs::write(&copy, "boot entries").unwrap();
        keep_uefi_vars(&firmware, &copy).await.unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"boot entries");
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
    }
}
