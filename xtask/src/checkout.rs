//! Where this checkout is and where cargo builds into.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The folders of this checkout.
#[derive(Debug, Clone)]
pub struct Checkout {
    pub root: PathBuf,
    pub target: PathBuf,
}

fn root_above(folder: &Path) -> Option<&Path> {
    folder
        .ancestors()
        .find(|candidate| candidate.join("xtask/Cargo.toml").is_file())
}

/// The two ways we build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Checkout {
    /// Finds the checkout around the current folder. Not the one this program was built from: checkouts
    /// may share a target folder, and then one program. Asks cargo for the target folder, which the
    /// environment or a configuration file may have moved.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("there is no current folder")?;
        let root = root_above(&here)
            .with_context(|| format!("{} is in no checkout of PlasmaVMC", here.display()))?
            .to_owned();
        let metadata = cargo_metadata::MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo metadata failed")?;
        Ok(Self {
            root,
            target: metadata.target_directory.into_std_path_buf(),
        })
    }

    /// Where a built binary lies.
    pub fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.target.join(folder).join(name)
    }

    /// What `setup` fetched; never outside the target folder, so that removing it removes everything.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The guests that `guest-image` built.
    pub fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// A cargo command that runs in the root of the checkout.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).args(arguments);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_from_any_folder_below_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("chainfire/src");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(root_above(&deep), None);
        std::fs::create_dir(folder.path().join("xtask")).unwrap();
        std::fs::write(folder.path().join("xtask/Cargo.toml"), "").unwrap();
        assert_eq!(root_above(&deep), Some(folder.path()));
        assert_eq!(root_above(folder.path()), Some(folder.path()));
    }
}
