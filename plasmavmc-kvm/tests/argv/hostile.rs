//! Whatever a name, path or kernel command line contains, it stays one value of one option.

use std::path::PathBuf;

use plasmavmc_kvm::argv::{Accelerator, Medium, Placed, PlacedImage, command_line};
use plasmavmc_kvm::qemu::QemuVersion;
use plasmavmc_types::{
    BackingImage, Cdrom, DirectBoot, Disk, DiskFormat, DiskLocation, Firmware, Label, PoolName, VmName, VmSpec,
    VmSpecFields,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::cases::{host, id};

const BENIGN: [&str; 5] = ["/a", "/b", "/c", "/d", "/e"];

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn file(path: &str) -> DiskLocation {
    DiskLocation::File { path: path.into() }
}

/// A VM that puts each text wherever a free text can go: three images, a volume's path and the firmware's
/// variables; the last of all is the kernel's command line.
fn arguments(paths: &[String; 5], cmdline: &str) -> Option<Vec<String>> {
    let [disk, backing, iso, volume, vars] = paths;
    let mut fields = VmSpecFields::new(VmName::new("vm").unwrap(), 1, 64);
    let pool_location = DiskLocation::Volume {
        pool: PoolName::new("nfs").unwrap(),
        volume: label("data"),
    };
    let clone = Disk {
        backing: vec![BackingImage {
            location: file(backing),
            format: DiskFormat::Raw,
        }],
        ..Disk::new(label("root"), file(disk), 8)
    };
    fields.disks = vec![clone, Disk::new(label("data"), pool_location.clone(), 8)];
    fields.cdroms = vec![Cdrom {
        name: label("cd"),
        image: Some(file(iso)),
    }];
    fields.firmware = Firmware::Uefi { secure_boot: false };
    fields.direct_boot = Some(DirectBoot {
        kernel: "/kernel".into(),
        initrd: None,
        cmdline: cmdline.to_owned(),
    });
    let spec = VmSpec::new(fields).ok()?;
    let placed = Placed {
        images: vec![PlacedImage {
            location: pool_location,
            path: volume.into(),
            medium: Medium::File,
        }],
        uefi_vars: Some(PathBuf::from(vars)),
        ..Placed::default()
    };
    let host = host(QemuVersion::OLDEST, Accelerator::Tcg);
    Some(command_line(&spec, id(), &host, &placed).ok()?.arguments)
}

fn benign() -> Vec<String> {
    arguments(&BENIGN.map(str::to_owned), "quiet").unwrap()
}

/// The benign value with every benign path replaced, wherever it stands as a value of its own.
fn replaced(value: Value, paths: &[String; 5]) -> Value {
    match value {
        Value::String(text) => match BENIGN.iter().position(|benign| *benign == text) {
            Some(index) => Value::String(paths[index].clone()),
            None => Value::String(text),
        },
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, replaced(value, paths)))
            .collect(),
        other => other,
    }
}

/// Mostly what may be in a path. Control characters, which are refused, come seldom, so that most texts get
/// to the command line.
fn hostile_text() -> impl Strategy<Value = String> {
    let printable = prop::sample::select(vec![
        ",", ",,", "=", " ", "\"", "'", "\\", "{", "}", ":", "-S", "-drive", "file=", "json:{", "nbd:", "%s", "ä",
        "日", "\u{202e}", "\u{fffd}", "$(x)", "`", ";", "a", "/",
    ]);
    let control = prop::sample::select(vec!["\0", "\n", "\r", "\u{85}"]);
    let piece = prop_oneof![200 => printable, 1 => control];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_becomes_an_option(
        texts in prop::array::uniform5(hostile_text()),
        cmdline in hostile_text(),
    ) {
        let paths = texts.map(|text| format!("/x{text}"));
        let is_plain = |text: &String| !text.contains(char::is_control);
        let Some(found) = arguments(&paths, &cmdline) else {
            // Refused: because of a control character, or because two images are one, as `/x` and `/x/` are.
            let distinct: std::collections::BTreeSet<_> = paths.iter().map(std::path::Path::new).collect();
            prop_assert!(!paths.iter().all(is_plain) || !is_plain(&cmdline) || distinct.len() < 5);
            return Ok(());
        };
        prop_assert!(paths.iter().all(is_plain) && is_plain(&cmdline));
        let benign: Vec<String> = benign();
        let append = benign.iter().position(|argument| argument == "-append").unwrap();
        if cmdline.is_empty() {
            prop_assert!(!found.contains(&"-append".to_owned()));
            return Ok(());
        }
        prop_assert_eq!(found.len(), benign.len());
        for (index, (benign, found)) in benign.into_iter().zip(found).enumerate() {
            if index == append + 1 {
                prop_assert_eq!(found, cmdline.clone());
            } else if benign.starts_with('{') {
                let benign = replaced(serde_json::from_str(&benign).unwrap(), &paths);
                prop_assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), benign);
            } else {
                prop_assert_eq!(found, benign);
            }
        }
    }
}

#[test]
fn a_path_that_means_something_else_to_qemu_is_refused() {
    let check = |vars: &str, initrd: &str, field: &str| {
        let mut fields = VmSpecFields::new(VmName::new("vm").unwrap(), 1, 64);
        fields.firmware = Firmware::Uefi { secure_boot: false };
        fields.direct_boot = Some(DirectBoot {
            kernel: "/kernel".into(),
            initrd: Some(initrd.into()),
            cmdline: String::new(),
        });
        let spec = VmSpec::new(fields).unwrap();
        let placed = Placed {
            uefi_vars: Some(vars.into()),
            ..Placed::default()
        };
        let host = host(QemuVersion::OLDEST, Accelerator::Tcg);
        let refused = command_line(&spec, id(), &host, &placed).unwrap_err();
        assert_eq!(refused.field, field, "{refused}");
    };
    check("nbd:localhost:1", "/initrd", "firmware");
    check("/a\nb", "/initrd", "firmware");
    check("/vars", "/initrd,/etc/shadow", "direct_boot.initrd");
}
