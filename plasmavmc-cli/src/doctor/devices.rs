//! QEMU, and the devices it needs: what is there, and what this user may open.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Finding, Verdict};

pub fn findings() -> Vec<Finding> {
    let mut findings = vec![
        who(),
        program("qemu-system-x86_64", "qemu-system-x86"),
        program("qemu-img", "qemu-utils"),
    ];
    findings.push(device(
        "/dev/kvm",
        "guests run many times slower, under TCG",
        "switch virtualisation on in the firmware, and nested virtualisation if this is a VM; then modprobe kvm_intel \
         or kvm_amd",
        "usermod -aG kvm USER, or run the server as root",
    ));
    findings.push(device(
        "/dev/net/tun",
        "only `--nic user` works, no bridges",
        "modprobe tun",
        "run the server as root, or prepare taps for its user",
    ));
    findings
}

fn who() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::good("user", "root");
    }
    let says = "not root: no taps and bridges, no cgroups, no real-time priority and locked memory for the guard; VMs \
                run as this user";
    Finding::new("user", Verdict::Note, says)
}

fn program(name: &str, package: &str) -> Finding {
    match found_in_path(name) {
        Some(path) => Finding::good(name, path.display().to_string()),
        None => Finding::new(name, Verdict::Bad, "is not in PATH").with(format!("apt-get install {package}")),
    }
}

fn found_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn device(path: &str, without: &str, if_missing: &str, if_forbidden: &str) -> Finding {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Finding::good(path, "opens"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::new(path, Verdict::Warning, format!("this user may not open it: {without}")).with(if_forbidden)
        }
        Err(error) => {
            Finding::new(path, Verdict::Warning, format!("does not open ({error}): {without}")).with(if_missing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_a_remedy() {
        let finding = program("no-such-program-here", "some-package");
        assert_eq!(
            (finding.verdict, finding.remedy.as_str()),
            (Verdict::Bad, "apt-get install some-package")
        );
        assert_eq!(program("sh", "dash").verdict, Verdict::Good);
        let finding = device("/dev/no-such-device", "nothing works", "make it", "open it");
        assert_eq!(
            (finding.verdict, finding.remedy.as_str()),
            (Verdict::Warning, "make it")
        );
        assert_eq!(device("/dev/null", "", "", "").verdict, Verdict::Good);
    }
}
