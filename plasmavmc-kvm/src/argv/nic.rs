//! Network cards, and what they are plugged into on the host.
//!
//! QEMU makes no tap itself: its sandbox forbids it the programs and the rights. It is handed descriptors.

use plasmavmc_types::{Nic, NicModel, NicNetwork};

use super::names::{netdev_id, nic_device_id};
use super::option::Object;
use super::slots::Place;
use crate::refused::{Reason, Refused};

/// The host's side of a card. `taps` are numbers of descriptors, or names given to them over QMP.
pub(super) fn netdev(nic: &Nic, field: &str, taps: &[String]) -> Result<Object, Refused> {
    let id = netdev_id(&nic.name);
    let wanted = match nic.network {
        NicNetwork::User => 0,
        NicNetwork::Named(_) | NicNetwork::Bridge(_) => nic.queues,
    };
    if taps.len() != usize::from(wanted) {
        let given = taps.len();
        return Err(Refused::new(
            format!("{field}.queues"),
            Reason::TapsDiffer { wanted, given },
        ));
    }
    let tap = Object::new("type", "tap").with("id", id.as_str());
    Ok(match taps {
        [] => Object::new("type", "user").with("id", id),
        [one] => tap.with("fd", one.as_str()),
        several => tap.with("fds", several.join(":")),
    })
}

/// The card that the guest sees. Without a boot index it brings no boot ROM, which not every host has.
pub(super) fn nic_device(nic: &Nic, place: Place, boot_index: Option<usize>) -> Object {
    let driver = match nic.model {
        NicModel::Virtio => "virtio-net-pci",
        NicModel::E1000 => "e1000",
    };
    let has_queues = nic.queues > 1;
    let no_rom = boot_index.is_none().then_some("");
    let device = Object::new("driver", driver)
        .with("id", nic_device_id(&nic.name))
        .with("netdev", netdev_id(&nic.name))
        .with("mac", nic.mac.to_string())
        .with_some("mq", has_queues.then_some(true))
        // One for each direction of each queue, one for changes, one for control.
        .with_some("vectors", has_queues.then(|| 2 * nic.queues + 2))
        .with_some("romfile", no_rom)
        .with_some("bootindex", boot_index);
    place.of(device)
}
