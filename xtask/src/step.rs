//! Running other programs, and saying so.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Tells people, on stderr, what happens next. Stdout belongs to results.
pub fn announce(text: &str) {
    eprintln!("==> {text}");
}

/// Runs a program to its end and fails unless it succeeded.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    announce(what);
    let status = command
        .status()
        .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}: {status}");
    }
    Ok(())
}

/// Whether a program runs and answers success; its output is not shown.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Finds a program as a shell would, and in the folders for administrators, which the search path of
/// other users often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(name, &path).or_else(|| find_in(name, OsStr::new("/usr/local/sbin:/usr/sbin:/sbin")))
}

fn find_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_only_where_it_is() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_failing_step_names_itself() {
        let error = run("the impossible", &mut Command::new("false")).unwrap_err();
        assert!(format!("{error:#}").starts_with("the impossible: "), "{error:#}");
    }
}
