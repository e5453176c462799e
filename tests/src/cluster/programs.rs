//! The programs under test, as `cargo xtask test` names them or as cargo leaves them beside the tests.

use std::path::PathBuf;

use anyhow::{Context, Result};

pub const SERVER_ENV: &str = "PLASMAVMC_SERVER_BIN";
const MORTAL_ENV: &str = "PLASMAVMC_MORTAL_SERVER_BIN";
const CLI_ENV: &str = "PLASMAVMC_CLI_BIN";
const GUARD_ENV: &str = "PLASMAVMC_GUARD_BIN";
const CHAINFIRE_ENV: &str = "CHAINFIRE_BIN";

/// Where everything is that a cluster is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    pub server: PathBuf,
    pub guard: PathBuf,
    pub cli: PathBuf,
    /// For backups of the store.
    pub chainfire: PathBuf,
}

impl Programs {
    pub fn find() -> Result<Self> {
        Ok(Self {
            server: find(SERVER_ENV, "plasmavmc-server")?,
            guard: find(GUARD_ENV, "plasmavmc-guard")?,
            cli: find(CLI_ENV, "plasmavmc")?,
            chainfire: find(CHAINFIRE_ENV, "chainfire")?,
        })
    }

    /// With the server that can be told to die, which is a program of this package.
    pub fn mortal() -> Result<Self> {
        Ok(Self {
            server: find(MORTAL_ENV, "plasmavmc-mortal-server")?,
            ..Self::find()?
        })
    }
}

fn find(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let program = std::env::current_exe()?;
    let beside = program.ancestors().skip(1).take(2);
    let mut candidates = beside.map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!("no `{name}` beside this program: `cargo xtask test` builds it, or name it in {variable}")
    })
}
