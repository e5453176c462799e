//! Images, with the real qemu-img and a real QEMU that holds one.

mod check;
mod make;

use std::path::{Path, PathBuf};
use std::process::Command;

use plasmavmc_kvm::image::QemuImg;
use plasmavmc_types::{Disk, DiskFormat, DiskLocation, Label};

/// A folder for images, and the program that makes them.
struct Images {
    folder: tempfile::TempDir,
    program: QemuImg,
}

impl Images {
    async fn new() -> Self {
        Self {
            // Not in /tmp, which may be a tmpfs without direct I/O.
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            program: QemuImg::find(None).await.unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn create(&self, name: &str, format: DiskFormat) -> PathBuf {
        let path = self.path(name);
        self.program.create("test", &path, format, 8).await.unwrap();
        path
    }

    /// What is in the folder, hidden files too.
    fn names(&self) -> Vec<String> {
        let entries = self.folder.path().read_dir().unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn disk(path: &Path, format: DiskFormat) -> Disk {
    let location = DiskLocation::File { path: path.to_owned() };
    Disk {
        format,
        ..Disk::new(Label::new("root").unwrap(), location, 8)
    }
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("install qemu-utils");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
