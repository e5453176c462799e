use std::path::{Path, PathBuf};
use std::process::Command;

use plasmavmc_kvm::argv::{Medium, Placed};
use plasmavmc_kvm::image::ImageError;
use plasmavmc_kvm::refused::Reason;
use plasmavmc_types::{BackingImage, Disk, DiskFormat, DiskLocation};

use crate::{Images, disk};

/// A small file system of its own, unmounted when dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    pub fn mount(path: &Path, options: &str) -> Self {
        std::fs::create_dir(path).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", options, "tmpfs", path.to_str().unwrap()],
        );
        Self(path.to_owned())
    }

    pub fn remount(&self, options: &str) {
        run(
            "mount",
            &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()],
        );
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?} failed; it needs root");
}

fn reason_of(error: ImageError) -> Reason {
    match error {
        ImageError::Refused(refused) => refused.reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_image_is_there_as_a_whole_or_not_at_all() {
    let images = Images::new().await;
    let path = images.create("a,b=c.qcow2", DiskFormat::Qcow2).await;
    let info = images
        .program
        .inspect("x", &path, DiskFormat::Qcow2, Medium::File)
        .await
        .unwrap();
    assert_eq!(info.size_bytes, 8 << 20);
    let again = images.program.create("x", &path, DiskFormat::Raw, 1).await.unwrap_err();
    assert!(matches!(reason_of(again), Reason::Exists { .. }));
    // One that cannot be made leaves nothing.
    let huge = images
        .program
        .create("x", &images.path("huge"), DiskFormat::Qcow2, u64::MAX >> 20)
        .await;
    assert!(matches!(huge, Err(ImageError::Failed { .. })), "{huge:?}");
    assert_eq!(images.names(), ["a,b=c.qcow2"]);
}

#[tokio::test]
async fn of_many_who_make_the_same_image_one_wins() {
    let images = Images::new().await;
    let path = images.path("one");
    let mut winners = 0;
    let mut tasks = tokio::task::JoinSet::new();
    for size_mb in 1..=8 {
        let (program, path) = (images.program.clone(), path.clone());
        tasks.spawn(async move { program.create("x", &path, DiskFormat::Raw, size_mb).await });
    }
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(()) => winners += 1,
            Err(error) => assert!(matches!(reason_of(error), Reason::Exists { .. })),
        }
    }
    assert_eq!((winners, images.names()), (1, vec!["one".to_owned()]));
}

#[tokio::test]
async fn a_try_that_is_cancelled_or_crashed_leaves_nothing_for_long() {
    let images = Images::new().await;
    let path = images.path("late");
    let creation = images.program.create("x", &path, DiskFormat::Qcow2, 8);
    // Ends before qemu-img can.
    let cancelled = tokio::time::timeout(std::time::Duration::from_millis(1), creation).await;
    assert!(cancelled.is_err());
    let gone = async {
        while !images.names().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), gone)
        .await
        .expect("something is left");

    for (name, age) in [(".late.partial.0", "2 hours ago"), (".late.partial.1", "now")] {
        run("touch", &["-d", age, images.path(name).to_str().unwrap()]);
    }
    images.create("late", DiskFormat::Qcow2).await;
    assert_eq!(images.names(), [".late.partial.1", "late"]);
}

#[tokio::test]
async fn a_clone_stands_on_its_base_and_is_never_smaller() {
    let images = Images::new().await;
    for (base_name, format) in [("raw, base", DiskFormat::Raw), ("qcow2", DiskFormat::Qcow2)] {
        let base = images.create(base_name, format).await;
        let path = images.path(&format!("clone of {base_name}"));
        let smaller = images
            .program
            .clone_linked("x", &path, (&base, format), Some(7))
            .await
            .unwrap_err();
        assert!(matches!(reason_of(smaller), Reason::WouldShrink { .. }));
        images
            .program
            .clone_linked("x", &path, (&base, format), Some(16))
            .await
            .unwrap();
        let location = DiskLocation::File { path: base };
        let clone = Disk {
            backing: vec![BackingImage { location, format }],
            size_mb: 16,
            ..disk(&path, DiskFormat::Qcow2)
        };
        images
            .program
            .check_disk("x", &clone, &Placed::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_image_grows_and_never_shrinks() {
    let images = Images::new().await;
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let path = images.create(&format!("{format:?}"), format).await;
        let grown = images.program.resize("x", &path, format, 16).await.unwrap();
        assert_eq!(grown.size_bytes, 16 << 20);
        let same = images.program.resize("x", &path, format, 16).await.unwrap();
        assert_eq!(same.size_bytes, grown.size_bytes);
        let shrunk = images.program.resize("x", &path, format, 8).await.unwrap_err();
        assert!(matches!(reason_of(shrunk), Reason::WouldShrink { .. }));
    }
}

#[tokio::test]
async fn a_full_file_system_is_named_and_left_as_it_was() {
    let images = Images::new().await;
    let _tmpfs = Tmpfs::mount(&images.path("full"), "size=1m");
    let full = images
        .program
        .create("disks[0].location", &images.path("full/a"), DiskFormat::Qcow2, 8)
        .await;
    let refused = full.unwrap_err();
    assert!(
        refused.to_string().contains("bytes are free. Free some space"),
        "{refused}"
    );
    assert!(matches!(reason_of(refused), Reason::NoSpace { .. }));
    assert_eq!(images.path("full").read_dir().unwrap().count(), 0);
}
