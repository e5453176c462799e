use std::os::unix::fs::{PermissionsExt, symlink};

use plasmavmc_types::{AttemptId, VmName, VmSpec, VmSpecFields};
use uuid::Uuid;

use super::*;
use crate::argv::{Accelerator, HostFacts, Placed, UefiFirmwares, command_line};
use crate::qemu::QemuVersion;

fn id(number: u128) -> VmId {
    VmId::from_uuid(Uuid::from_u128(number))
}

fn record(number: u128) -> StartRecord {
    let spec = VmSpec::new(VmSpecFields::new(VmName::new("a").unwrap(), 1, 64)).unwrap();
    let host = HostFacts {
        qemu: QemuVersion::OLDEST,
        accelerator: Accelerator::Tcg,
        uefi: UefiFirmwares::default(),
    };
    let placed = Placed::default();
    let slots = command_line(&spec, id(number), &host, &placed).unwrap().slots;
    StartRecord {
        id: id(number),
        attempt: AttemptId::from_uuid(Uuid::from_u128(9)),
        spec,
        host,
        placed,
        slots,
    }
}

#[test]
fn a_record_reads_back_and_a_later_one_replaces_it() {
    let vms = tempfile::tempdir().unwrap();
    let folder = RuntimeFolder::create(vms.path(), id(1)).unwrap();
    assert_eq!(folder.read_record().unwrap(), None);
    folder.write_record(&record(1)).unwrap();
    // What an interrupted write leaves is no hindrance.
    std::fs::write(folder.path().join("machine.json.new"), "half").unwrap();
    let mut second = record(1);
    second.attempt = AttemptId::from_uuid(Uuid::from_u128(10));
    folder.write_record(&second).unwrap();
    assert_eq!(folder.read_record().unwrap(), Some(second));
}

#[test]
fn a_record_that_is_not_ours_is_refused() {
    let vms = tempfile::tempdir().unwrap();
    let folder = RuntimeFolder::create(vms.path(), id(1)).unwrap();
    let path = folder.path().join(file::MACHINE);
    let check = |expected: &str| {
        let text = folder.read_record().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        std::fs::remove_file(&path).unwrap();
    };
    std::fs::write(&path, "{").unwrap();
    check("cannot be used");
    std::fs::write(&path, r#"{"format":2,"anything":1}"#).unwrap();
    check("later version");
    let outside = vms.path().join("outside");
    std::fs::write(&outside, serde_json::to_vec(&record(1)).unwrap()).unwrap();
    symlink(&outside, &path).unwrap();
    check("it is a link");
    std::fs::hard_link(&outside, &path).unwrap();
    check("not a file of ours");
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    check("more than");
    RuntimeFolder::create(vms.path(), id(2))
        .unwrap()
        .write_record(&record(2))
        .unwrap();
    std::fs::rename(vms.path().join(id(2).to_string()).join(file::MACHINE), &path).unwrap();
    check("it is about VM");
}

#[test]
fn one_starter_at_a_time_and_no_removal_under_a_qemu() {
    let vms = tempfile::tempdir().unwrap();
    let folder = RuntimeFolder::create(vms.path(), id(1)).unwrap();
    let lock = folder.lock().unwrap();
    let other = RuntimeFolder::create(vms.path(), id(1)).unwrap();
    assert!(matches!(other.lock(), Err(RuntimeError::Locked { .. })));
    // What a QEMU inherits holds the lock when its starter is gone.
    let inherited = lock.as_fd().try_clone_to_owned().unwrap();
    drop(lock);
    assert!(matches!(other.lock(), Err(RuntimeError::Locked { .. })));
    drop(inherited);
    let lock = other.lock().unwrap();
    other.remove(lock).unwrap();
    assert!(matches!(folder.lock(), Err(RuntimeError::Gone { .. })));
    assert_eq!(std::fs::read_dir(vms.path()).unwrap().count(), 0);
}

#[test]
fn removal_follows_no_link_and_may_be_repeated() {
    let vms = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    let folder = RuntimeFolder::create(vms.path(), id(1)).unwrap();
    symlink(outside.path(), folder.path().join("way-out")).unwrap();
    std::fs::create_dir_all(folder.path().join("deep/deeper")).unwrap();
    // A removal was interrupted once.
    std::fs::create_dir_all(vms.path().join(format!("{}.removed/deep", id(1)))).unwrap();
    let lock = folder.lock().unwrap();
    let second = RuntimeFolder::open(vms.path(), id(1)).unwrap().unwrap();
    folder.remove(lock).unwrap();
    assert!(outside.path().join("precious").exists());
    assert!(RuntimeFolder::open(vms.path(), id(1)).unwrap().is_none());
    assert!(matches!(second.lock(), Err(RuntimeError::Gone { .. })));
}

#[test]
fn a_link_or_file_in_the_place_of_a_folder_is_not_used() {
    let vms = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), vms.path().join(id(1).to_string())).unwrap();
    std::fs::write(vms.path().join(id(2).to_string()), "").unwrap();
    for number in [1, 2] {
        let refused = RuntimeFolder::create(vms.path(), id(number));
        assert!(matches!(refused, Err(RuntimeError::NotAFolder { .. })), "{number}");
    }
}

#[test]
fn a_folder_is_closed_to_others_even_if_it_was_open() {
    let vms = tempfile::tempdir().unwrap();
    let path = vms.path().join(id(1).to_string());
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    RuntimeFolder::create(vms.path(), id(1)).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_scan_tells_vms_from_leftovers_and_strangers() {
    let vms = tempfile::tempdir().unwrap();
    assert_eq!(scan(&vms.path().join("none")).unwrap(), Found::default());
    for number in [2, 1] {
        RuntimeFolder::create(vms.path(), id(number)).unwrap();
    }
    let leftover = vms.path().join(format!("{}.removed", id(3)));
    std::fs::create_dir(&leftover).unwrap();
    let stranger = vms.path().join("notes");
    std::fs::write(&stranger, "").unwrap();
    let found = scan(vms.path()).unwrap();
    assert_eq!(found.vms, [id(1), id(2)]);
    assert_eq!(found.strangers, [stranger]);
    assert!(!leftover.exists());
}
