//! Where the `chainfire` binary is.

use std::path::PathBuf;

/// Names the binary, if it is not beside the tests.
pub const BINARY_ENV: &str = "CHAINFIRE_BIN";

/// The binary to test: the one the environment names, or the one built beside this program.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_ENV).map(PathBuf::from) {
        anyhow::ensure!(
            path.is_file(),
            "{BINARY_ENV} names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    let program = std::env::current_exe()?;
    let beside = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("chainfire"));
    let candidates: Vec<PathBuf> = beside.collect();
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        anyhow::anyhow!(
            "no `chainfire` binary at {candidates:?}: `cargo xtask test` builds it, \
             or set {BINARY_ENV} to one built with --features faults"
        )
    })
}
