//! What has to be there before anything runs: folders, and the claim to them.

use std::io;
use std::path::{Path, PathBuf};

use chainfire::claim::{Claim, ClaimError, claim};

use crate::config::Config;

#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    #[error("cannot make or open {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is in use by another server: stop it, or give this one a folder of its own with --dir")]
    InUse { path: PathBuf },
}

/// Makes the folder of what must survive, and takes it.
pub fn prepare(config: &Config) -> Result<Claim, GroundError> {
    let folders = &config.folders;
    make(&folders.state)?;
    let path = folders.state.join("server.lock");
    claim(&path).map_err(|error| match error {
        ClaimError::Io(source) => GroundError::Io { path, source },
        ClaimError::Held => GroundError::InUse { path },
    })
}

/// Makes the folders of what runs here.
pub fn prepare_for_vms(config: &Config) -> Result<(), GroundError> {
    let folders = &config.folders;
    for folder in [&folders.run, &folders.vms] {
        make(folder)?;
    }
    // The folder of a pool that was named is somebody else's: a mount that is missing must be noticed.
    let own = config.pools.iter().filter(|pool| pool.path.starts_with(&folders.state));
    for pool in own {
        make(&pool.path)?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), GroundError> {
    std::fs::create_dir_all(folder).map_err(|source| GroundError::Io {
        path: folder.to_owned(),
        source,
    })
}
