//! `package`: what is installed on a host, as a Debian package and as a tarball.
//!
//! Both are the same tree of files and the same scripts, so that one rule holds for both: no step of installing,
//! upgrading or removing touches a VM that runs (`packaging/README.md`).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::checkout::{Checkout, Profile};
use crate::step;

const PROGRAMS: [&str; 3] = ["plasmavmc-server", "plasmavmc-guard", "plasmavmc"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/plasmavmc"),
    ("zsh", "usr/share/zsh/vendor-completions/_plasmavmc"),
    ("fish", "usr/share/fish/vendor_completions.d/plasmavmc.fish"),
];

/// Builds the release programs and packs them, or packs the debug build that is there. The last lines, on stdout, are the files.
pub fn run(checkout: &Checkout, profile: Profile) -> Result<ExitCode> {
    if profile == Profile::Release {
        build(checkout)?;
    }
    let scratch = tempfile::tempdir_in(&checkout.target).context("cannot make a folder to pack in")?;
    let files = scratch.path().join("files");
    lay_out(checkout, profile, &files)?;
    let output = checkout.target.join("package");
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let version = version(checkout)?;
    println!(
        "{}",
        debian_package(checkout, &files, scratch.path(), &output, &version)?.display()
    );
    println!(
        "{}",
        tarball(checkout, &files, scratch.path(), &output, &version)?.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Without the tests, whose features (a store that fails on purpose) must not be in what is installed. The debug build is the tests' own,
/// and is packed as it is: building it here would replace it under them.
fn build(checkout: &Checkout) -> Result<()> {
    let packages = ["-p", "plasmavmc-server", "-p", "plasmavmc-guard", "-p", "plasmavmc-cli"];
    step::run(
        "build what is packaged",
        checkout.cargo(&["build", "--release", "--bins"]).args(packages),
    )
}

/// The tree as it is on a host.
fn lay_out(checkout: &Checkout, profile: Profile, files: &Path) -> Result<()> {
    for program in PROGRAMS {
        let target = files.join("usr/bin").join(program);
        copy(&checkout.binary(profile, program), &target, 0o755)?;
        step::run("strip", Command::new("strip").arg("--strip-debug").arg(&target))?;
    }
    let packaging = checkout.root.join("packaging");
    for (from, to) in [
        (
            "systemd/plasmavmc-server.service",
            "lib/systemd/system/plasmavmc-server.service",
        ),
        (
            "systemd/plasmavmc-guests.service",
            "lib/systemd/system/plasmavmc-guests.service",
        ),
        ("server.toml", "etc/plasmavmc/server.toml"),
        ("default", "etc/default/plasmavmc-server"),
    ] {
        copy(&packaging.join(from), &files.join(to), 0o644)?;
    }
    let documents = files.join("usr/share/doc/plasmavmc");
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&checkout.root.join(name), &documents.join(name), 0o644)?;
    }
    copy_folder(&checkout.root.join("runbooks"), &documents.join("runbooks"))?;
    let cli = checkout.binary(profile, "plasmavmc");
    for (shell, path) in SHELLS {
        let script = output_of(Command::new(&cli).args(["completions", shell]))?;
        write(&files.join(path), script.as_bytes(), 0o644)?;
    }
    step::run(
        "write manual pages",
        Command::new(&cli).arg("man").arg(files.join("usr/share/man/man1")),
    )
}

fn debian_package(checkout: &Checkout, files: &Path, scratch: &Path, output: &Path, version: &str) -> Result<PathBuf> {
    let tree = scratch.join("debian");
    copy_folder(files, &tree)?;
    let source = checkout.root.join("packaging/debian");
    let size = output_of(Command::new("du").args(["--summarize", "--block-size=1K"]).arg(files))?;
    let size = size.split_whitespace().next().unwrap_or("0").to_owned();
    let architecture = output_of(Command::new("dpkg").arg("--print-architecture"))?;
    let control = std::fs::read_to_string(source.join("control"))?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture.trim())
        .replace("@SIZE@", &size);
    write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    copy(&source.join("conffiles"), &tree.join("DEBIAN/conffiles"), 0o644)?;
    for script in SCRIPTS {
        copy(&source.join(script), &tree.join("DEBIAN").join(script), 0o755)?;
    }
    let package = output.join(format!("plasmavmc_{version}_{}.deb", architecture.trim()));
    step::run(
        "dpkg-deb --build",
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "--build"])
            .arg(&tree)
            .arg(&package)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(package)
}

fn tarball(checkout: &Checkout, files: &Path, scratch: &Path, output: &Path, version: &str) -> Result<PathBuf> {
    let name = format!("plasmavmc-{version}-{}", std::env::consts::ARCH);
    let tree = scratch.join(&name);
    copy_folder(files, &tree.join("files"))?;
    let packaging = checkout.root.join("packaging");
    copy(&packaging.join("install.sh"), &tree.join("install.sh"), 0o755)?;
    for script in SCRIPTS {
        copy(
            &packaging.join("debian").join(script),
            &tree.join("scripts").join(script),
            0o755,
        )?;
    }
    let archive = output.join(format!("{name}.tar.gz"));
    step::run(
        "tar",
        Command::new("tar")
            .args(["--create", "--gzip", "--owner=root:0", "--group=root:0", "--directory"])
            .arg(scratch)
            .arg("--file")
            .arg(&archive)
            .arg(&name),
    )?;
    Ok(archive)
}

fn version(checkout: &Checkout) -> Result<String> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(checkout.root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let server = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "plasmavmc-server");
    Ok(server.context("there is no plasmavmc-server")?.version.to_string())
}

fn output_of(command: &mut Command) -> Result<String> {
    let what = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {what}"))?;
    if !output.status.success() {
        bail!(
            "{what}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &content, mode)
}

fn write(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(to, content)?;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
    };
    make().with_context(|| format!("cannot write {}", to.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            let mode = entry.metadata()?.permissions().mode();
            copy(&entry.path(), &target, mode & 0o755)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packaging() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
    }

    /// Runs a maintainer script with programs that only write down how they were called.
    fn calls_of(script: &str, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let calls = folder.path().join("calls");
        for name in ["systemctl", "kill", "rm", "find", "useradd", "usermod"] {
            let text = format!("#!/bin/sh\necho {name} \"$@\" >>{}\n", calls.display());
            write(&folder.path().join(name), text.as_bytes(), 0o755).unwrap();
        }
        // A VM runs on this host, and what is asked for by name is there.
        write(&folder.path().join("pgrep"), b"#!/bin/sh\necho 1\n", 0o755).unwrap();
        write(&folder.path().join("getent"), b"#!/bin/sh\nexit 0\n", 0o755).unwrap();
        let search = format!("{}:/usr/bin:/bin", folder.path().display());
        let status = Command::new("/bin/sh")
            .arg(packaging().join("debian").join(script))
            .args(arguments)
            .env("PATH", search)
            .status()
            .unwrap();
        assert!(status.success(), "{script} {arguments:?}");
        std::fs::read_to_string(calls).unwrap_or_default()
    }

    #[test]
    fn no_maintainer_script_touches_a_vm_that_runs() {
        let steps = [
            ("prerm", vec!["upgrade", "0.2.0"]),
            ("postinst", vec!["configure", "0.1.0"]),
            ("prerm", vec!["remove"]),
            ("postrm", vec!["remove"]),
            ("postrm", vec!["purge"]),
        ];
        for (script, arguments) in steps {
            let calls = calls_of(script, &arguments);
            for forbidden in ["kill -9", "kill -KILL", "/var/lib/plasmavmc", "/run/plasmavmc", "qemu"] {
                assert!(!calls.contains(forbidden), "{script} {arguments:?} does this: {calls}");
            }
            let stops = |call: &str| call.contains("plasmavmc-guests") && call.contains("stop");
            assert!(
                !calls.lines().any(stops),
                "{script} {arguments:?} empties the host: {calls}"
            );
        }
    }

    #[test]
    fn the_guests_leave_before_the_server_and_the_network_go() {
        let unit = std::fs::read_to_string(packaging().join("systemd/plasmavmc-guests.service")).unwrap();
        for needed in [
            "After=plasmavmc-server.service network-online.target remote-fs.target",
            "Type=oneshot",
            "RemainAfterExit=yes",
            "ExecStop=/usr/bin/plasmavmc host prepare-shutdown --this-host --within 90s",
            "ExecStopPost=/usr/bin/plasmavmc-server end-vms",
        ] {
            assert!(unit.lines().any(|line| line == needed), "{needed} is missing");
        }
        // It goes with the server only where the system goes down.
        for wrong in ["BindsTo=", "PartOf=", "Requires="] {
            assert!(
                !unit.contains(wrong),
                "{wrong} would empty a host at a restart of its server"
            );
        }
    }

    #[test]
    fn the_unit_signals_the_server_only_and_keeps_what_vms_need() {
        let unit = std::fs::read_to_string(packaging().join("systemd/plasmavmc-server.service")).unwrap();
        for needed in [
            "KillMode=process",
            "OOMPolicy=continue",
            "Restart=always",
            "RuntimeDirectoryPreserve=yes",
            "ExecStart=/usr/bin/plasmavmc-server",
        ] {
            assert!(unit.lines().any(|line| line == needed), "{needed} is missing");
        }
    }
}
