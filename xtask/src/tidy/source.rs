//! The text files of this tree that rules look at.

use std::path::Path;

use anyhow::{Context, Result};

/// A file with its path relative to the root, with `/` between the parts.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

const EXTENSIONS: [&str; 4] = ["rs", "sh", "proto", "md"];

/// Reads them all, in a fixed order. Walks the folders instead of asking git, so that a file is checked
/// before it is added and a source archive can be checked too.
pub fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(root: &Path, folder: &str, sources: &mut Vec<Source>) -> Result<()> {
    let entries = std::fs::read_dir(root.join(folder)).with_context(|| format!("cannot list {folder:?}"))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry.file_type()?;
        // `target` may also stand in a crate's folder, when somebody built it alone.
        if kind.is_dir() && !name.starts_with('.') && name != "target" {
            collect(root, &path, sources)?;
        } else if kind.is_file() && has_known_extension(name) {
            let text = std::fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

fn has_known_extension(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_sources_and_skips_what_was_built() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "a/src/lib.rs",
            "a/target/debug/x.rs",
            ".git/y.md",
            "b.proto",
            "c.bin",
            "d.sh",
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let found = read_all(folder.path()).unwrap();
        let paths: Vec<&str> = found.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(paths, ["a/src/lib.rs", "b.proto", "d.sh"]);
    }
}
