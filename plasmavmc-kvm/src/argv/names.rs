//! What things are called inside QEMU, so that they can be found again over QMP.
//!
//! A name depends on the device's own name only: it stays the same whatever else is plugged in or out.

use plasmavmc_types::{Disk, Label};

/// QEMU takes 31 bytes for the name of a block node; this is what our longest prefix leaves of them.
const MAX_KEY_BYTES: usize = 20;
const HEX_DIGITS: usize = 16;

/// A name short enough for a block node. Long ones keep their beginning and get a digest; the dot keeps
/// them apart from names that are short already, since those have none.
fn key(name: &Label) -> String {
    let text = name.as_str();
    if text.len() <= MAX_KEY_BYTES {
        return text.to_owned();
    }
    // FNV-1a: it has to be the same in every version of this program, and nothing else.
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (start, _) = text.split_at(MAX_KEY_BYTES - HEX_DIGITS - 1);
    format!("{start}.{digest:016x}")
}

/// The block node that the guest's disk or CD-ROM reads and writes: `block_resize`, `blockdev-del`.
pub fn disk_node(disk: &Label) -> String {
    format!("disk-{}", key(disk))
}

/// The block node of the file below it.
pub fn file_node(disk: &Label) -> String {
    format!("file-{}", key(disk))
}

/// The nodes of a backing image, counted from the disk down: its format and its file.
pub(super) fn backing_nodes(disk: &Label, layer: usize) -> (String, String) {
    (
        format!("back{layer}-{}", key(disk)),
        format!("backfile{layer}-{}", key(disk)),
    )
}

/// All block nodes of a disk, each before those it stands on.
pub fn disk_nodes_of(disk: &Disk) -> Vec<String> {
    let mut nodes = vec![disk_node(&disk.name), file_node(&disk.name)];
    for layer in 1..=disk.backing.len() {
        let (format, file) = backing_nodes(&disk.name, layer);
        nodes.extend([format, file]);
    }
    nodes
}

/// The device that the guest sees as a disk or CD-ROM: `device_del`.
pub fn disk_device_id(disk: &Label) -> String {
    format!("disk-{}", key(disk))
}

/// The device that the guest sees as a network card.
pub fn nic_device_id(nic: &Label) -> String {
    format!("nic-{}", key(nic))
}

/// The host's side of a network card: `netdev_del`.
pub fn netdev_id(nic: &Label) -> String {
    format!("net-{}", key(nic))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MAX_NODE_NAME_BYTES: usize = 31;

    proptest! {
        #[test]
        fn different_disks_have_different_names_that_qemu_takes(
            labels in prop::collection::btree_set("[a-z][a-z0-9]{0,61}", 1..20),
        ) {
            let labels: Vec<Label> = labels.into_iter().filter_map(|text| Label::new(text).ok()).collect();
            let mut seen = BTreeSet::new();
            for label in &labels {
                let (format, file) = backing_nodes(label, 8);
                for name in [disk_node(label), file_node(label), format, file] {
                    prop_assert!(name.len() <= MAX_NODE_NAME_BYTES, "{}", name);
                    prop_assert!(seen.insert(name.clone()), "{}", name);
                }
            }
        }
    }
}
