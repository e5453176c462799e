use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plasmavmc_kvm::argv::{Medium, Placed};
use plasmavmc_kvm::refused::{Reason, Refused};
use plasmavmc_types::{BackingImage, Disk, DiskCache, DiskFormat, DiskLocation, Label, PoolName};

use crate::{Images, disk, qemu_img};

impl Images {
    async fn refusal(&self, disk: &Disk) -> Refused {
        let checked = self.program.check_disk("disks[0]", disk, &Placed::default()).await;
        checked.expect_err("taken, but should be refused")
    }

    async fn take(&self, disk: &Disk) {
        let checked = self.program.check_disk("disks[0]", disk, &Placed::default()).await;
        assert_eq!(checked.unwrap().len(), 1 + disk.backing.len());
    }
}

fn clone_of(path: &Path, base: &Path, format: DiskFormat) -> Disk {
    let location = DiskLocation::File { path: base.to_owned() };
    Disk {
        backing: vec![BackingImage { location, format }],
        ..disk(path, DiskFormat::Qcow2)
    }
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// A paused QEMU that has an image open.
struct Holder(Child);

impl Holder {
    fn start(path: &Path, read_only: bool) -> Self {
        let node = serde_json::json!({
            "driver": "file", "filename": path, "node-name": "held", "locking": "on", "read-only": read_only,
        });
        let mut child = Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-S",
                "-qmp",
                "stdio",
                "-blockdev",
                &node.to_string(),
            ])
            .args(["-device", "virtio-blk-pci,drive=held"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("install qemu-system-x86");
        // It greets early, but answers only when it has opened everything.
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"{\"execute\":\"qmp_capabilities\"}")
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answered = lines.map(Result::unwrap).find(|line| line.contains("return"));
        assert!(answered.is_some(), "QEMU did not start");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn good_images_are_taken_with_their_medium() {
    let images = Images::new().await;
    for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
        let path = images.create(&format!("{format:?}"), format).await;
        let found = images
            .program
            .check_disk("d", &disk(&path, format), &Placed::default())
            .await
            .unwrap();
        assert_eq!(
            (found[0].path.as_path(), found[0].medium),
            (path.as_path(), Medium::File)
        );
    }
}

#[tokio::test]
async fn what_is_not_there_or_no_image_is_refused() {
    let images = Images::new().await;
    let refused = images.refusal(&disk(&images.path("none"), DiskFormat::Raw)).await;
    assert_eq!(refused.field, "disks[0].location");
    assert!(matches!(refused.reason, Reason::Missing { .. }), "{refused}");
    let refused = images.refusal(&disk(images.folder.path(), DiskFormat::Raw)).await;
    assert!(matches!(refused.reason, Reason::NotAFile { .. }), "{refused}");
    let pipe = images.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = images.refusal(&disk(&pipe, DiskFormat::Raw)).await;
    assert!(matches!(refused.reason, Reason::NotAFile { .. }), "{refused}");
    let location = DiskLocation::Volume {
        pool: PoolName::new("nfs").unwrap(),
        volume: Label::new("x").unwrap(),
    };
    let refused = images
        .refusal(&Disk {
            location,
            ..disk(&pipe, DiskFormat::Raw)
        })
        .await;
    assert!(matches!(refused.reason, Reason::NotPlaced { .. }), "{refused}");
}

#[tokio::test]
async fn a_wrong_format_or_size_is_told_from_what_a_guest_wrote() {
    let images = Images::new().await;
    let qcow2 = images.create("a.qcow2", DiskFormat::Qcow2).await;
    let refused = images.refusal(&disk(&qcow2, DiskFormat::Raw)).await;
    assert_eq!(refused.field, "disks[0].format");
    assert!(refused.to_string().contains("is raw, but"), "{refused}");
    let raw = images.create("a.raw", DiskFormat::Raw).await;
    let refused = images.refusal(&disk(&raw, DiskFormat::Qcow2)).await;
    assert!(
        matches!(&refused.reason, Reason::WrongFormat { found, .. } if found.starts_with("raw")),
        "{refused}"
    );

    // A guest writes a header into its raw disk: that is its own business.
    let header = std::fs::read(&qcow2).unwrap();
    patch(&raw, 0, &header[..512]);
    images.take(&disk(&raw, DiskFormat::Raw)).await;

    let refused = images
        .refusal(&Disk {
            size_mb: 9,
            ..disk(&qcow2, DiskFormat::Qcow2)
        })
        .await;
    assert_eq!(refused.field, "disks[0].size_mb");
    assert!(matches!(refused.reason, Reason::SizeDiffers { .. }), "{refused}");
}

#[tokio::test]
async fn a_damaged_image_is_refused() {
    let images = Images::new().await;
    let damage = async |offset, bytes: &[u8]| {
        let path = images.create("bad.qcow2", DiskFormat::Qcow2).await;
        patch(&path, offset, bytes);
        let refused = images.refusal(&disk(&path, DiskFormat::Qcow2)).await;
        assert!(matches!(refused.reason, Reason::Corrupt { .. }), "{offset}: {refused}");
        std::fs::remove_file(&path).unwrap();
    };
    // An unknown version; where the list of clusters lies; the mark of damage; a name beyond the header.
    damage(4, &99u32.to_be_bytes()).await;
    damage(40, &u64::MAX.to_be_bytes()).await;
    damage(72, &2u64.to_be_bytes()).await;
    damage(8, &(1u64 << 40).to_be_bytes()).await;
    let cut = images.path("cut.qcow2");
    std::fs::write(&cut, b"QFI\xfb\0\0\0\x03").unwrap();
    let refused = images.refusal(&disk(&cut, DiskFormat::Qcow2)).await;
    assert!(matches!(refused.reason, Reason::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn an_image_stands_only_on_what_the_specification_names() {
    let images = Images::new().await;
    let base = images.create("base.raw", DiskFormat::Raw).await;
    let path = images.path("clone.qcow2");
    let text = path.to_str().unwrap();
    for (backing, format) in [
        ("/etc/shadow", "raw"),
        ("../../../etc/shadow", "raw"),
        ("json:{\"driver\":\"null-co\"}", "raw"),
        ("nbd:localhost:10809", "raw"),
        ("nbd+unix:///x?socket=/tmp/x", "raw"),
        ("file:/etc/shadow", "raw"),
    ] {
        qemu_img(&[
            "create", "-q", "-f", "qcow2", "-u", "-F", format, "-b", backing, text, "8M",
        ]);
        for asked in [disk(&path, DiskFormat::Qcow2), clone_of(&path, &base, DiskFormat::Raw)] {
            let refused = images.refusal(&asked).await;
            assert_eq!(refused.field, "disks[0].backing");
            assert!(
                matches!(&refused.reason, Reason::BackingDiffers { found, .. } if found == backing),
                "{refused}"
            );
        }
    }
    // Named, it is allowed; named in vain, it is not.
    qemu_img(&[
        "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "base.raw", text, "8M",
    ]);
    images.take(&clone_of(&path, &base, DiskFormat::Raw)).await;
    let alone = images.create("alone.qcow2", DiskFormat::Qcow2).await;
    let refused = images.refusal(&clone_of(&alone, &base, DiskFormat::Raw)).await;
    assert!(matches!(refused.reason, Reason::BackingUnused { .. }), "{refused}");
    // The image below is looked at as well.
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-F",
        "raw",
        "-b",
        "/etc/shadow",
        text,
        "8M",
    ]);
    let top = images.path("top.qcow2");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-F",
        "qcow2",
        "-b",
        text,
        top.to_str().unwrap(),
        "8M",
    ]);
    let refused = images.refusal(&clone_of(&top, &path, DiskFormat::Qcow2)).await;
    assert!(matches!(refused.reason, Reason::BackingDiffers { .. }), "{refused}");
}

#[tokio::test]
async fn an_image_that_keeps_its_data_elsewhere_is_refused() {
    let images = Images::new().await;
    let path = images.path("ext.qcow2");
    let options = format!("data_file={}", images.path("data.raw").display());
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &options,
        path.to_str().unwrap(),
        "8M",
    ]);
    let refused = images.refusal(&disk(&path, DiskFormat::Qcow2)).await;
    assert!(matches!(refused.reason, Reason::ExternalData { .. }), "{refused}");
}

#[tokio::test]
async fn an_image_in_use_is_refused_as_its_qemu_would_refuse_it() {
    let images = Images::new().await;
    let path = images.create("a.raw", DiskFormat::Raw).await;
    let writable = disk(&path, DiskFormat::Raw);
    let read_only = Disk {
        read_only: true,
        ..writable.clone()
    };
    images.take(&writable).await;
    {
        let _writer = Holder::start(&path, false);
        for asked in [&writable, &read_only] {
            let refused = images.refusal(asked).await;
            assert!(matches!(refused.reason, Reason::InUse { .. }), "{refused}");
        }
    }
    {
        let _reader = Holder::start(&path, true);
        images.take(&read_only).await;
        let refused = images.refusal(&writable).await;
        assert!(matches!(refused.reason, Reason::InUse { .. }), "{refused}");
    }
    // SIGKILL lets go of it at once.
    images.take(&writable).await;
}

#[tokio::test]
async fn a_folder_or_file_that_is_read_only_or_without_direct_io_is_named() {
    let images = Images::new().await;
    let tmpfs = crate::make::Tmpfs::mount(&images.path("small"), "size=16m");
    let path = images.path("small/a.raw");
    images.program.create("x", &path, DiskFormat::Raw, 8).await.unwrap();
    tmpfs.remount("ro");
    let cached = Disk {
        cache: DiskCache::Writeback,
        ..disk(&path, DiskFormat::Raw)
    };
    let refused = images.refusal(&cached).await;
    assert!(matches!(refused.reason, Reason::ReadOnly { .. }), "{refused}");
    images
        .take(&Disk {
            read_only: true,
            ..cached
        })
        .await;
    let made = images
        .program
        .create("x", &images.path("small/b"), DiskFormat::Raw, 8)
        .await;
    assert!(made.unwrap_err().to_string().contains("cannot be written"));
}
