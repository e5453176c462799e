//! Which kernel modules a guest needs, in the order in which they can be inserted.
//!
//! A kernel package has no list of dependencies (its installation makes one), but each module names its
//! own in a section of text. Must never leave a module out silently: one that is missing later shows as a
//! device that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The modules of an unpacked kernel package.
pub struct Modules {
    by_name: BTreeMap<String, PathBuf>,
}

/// One module, ready to be inserted once those before it are.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

impl Modules {
    /// Finds the modules below `folder`.
    pub fn below(folder: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = module_name(&entry.path()) {
                    by_name.insert(name, entry.path());
                }
            }
        }
        Ok(Self { by_name })
    }

    /// The wanted modules and all that they need, each after those it needs, each once and none of `already`.
    pub fn in_order(&self, wanted: &[&str], already: &BTreeSet<String>) -> Result<Vec<Module>> {
        let mut seen = already.clone();
        let mut ordered = Vec::new();
        for name in wanted {
            self.visit(&canonical(name), &mut seen, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, ordered: &mut Vec<Module>) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.by_name.get(name) else {
            bail!("the kernel package has no module {name}: take a kernel that has, or leave it out of the recipe");
        };
        let content = read(path)?;
        for needed in dependencies(&content) {
            self.visit(&needed, seen, ordered)?;
        }
        ordered.push(Module {
            name: name.to_owned(),
            content,
        });
        Ok(())
    }
}

/// Names use `-` and `_` at will; the kernel means the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(canonical(stem))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .context("cannot run xz (Debian package xz-utils)")?;
    if !output.status.success() {
        bail!("xz cannot unpack {}: {}", path.display(), output.status);
    }
    Ok(output.stdout)
}

/// What a module says that it needs: a zero-terminated `depends=a,b` in its section of text.
fn dependencies(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = content[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(folder: &Path, depends: &[(&str, &str)]) -> Modules {
        for (name, needs) in depends {
            let content = format!("ELF\0license=GPL\0depends={needs}\0name={name}\0");
            std::fs::write(folder.join(format!("{name}.ko")), content).unwrap();
        }
        Modules::below(folder).unwrap()
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let all = modules(
            folder.path(),
            &[
                ("virtio-pci", "virtio,virtio_ring"),
                ("virtio", "virtio_ring"),
                ("virtio_ring", ""),
            ],
        );
        let ordered = all.in_order(&["virtio_pci", "virtio"], &BTreeSet::new()).unwrap();
        assert_eq!(names(&ordered), ["virtio_ring", "virtio", "virtio_pci"]);
        let already = BTreeSet::from(["virtio_ring".to_owned()]);
        let rest = all.in_order(&["virtio"], &already).unwrap();
        assert_eq!(names(&rest), ["virtio"]);
    }

    #[test]
    fn a_missing_module_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let all = modules(folder.path(), &[("a", "absent")]);
        let error = all.in_order(&["a"], &BTreeSet::new()).err().unwrap();
        assert!(error.to_string().contains("no module absent"), "{error}");
    }
}
