//! Taps: the host's ends of the cards that are on a bridge, opened for a QEMU that may not open them itself.
//!
//! ```text
//!   guest's card --- QEMU --- descriptor (one a queue) --- tap "pv0123456789ab" --- bridge
//! ```
//! A tap is not persistent: it lives as long as a descriptor of it does. So nothing is left of one whose QEMU
//! ended, whoever killed it, and nobody has to clean up. Our own descriptors are copies that the start of the
//! VM closes.
//!
//! Must never happen: a card that joins the tap of another VM because the names are alike (the first queue
//! insists on making it anew); a bridge that changes its own address or its packet size because a tap came.
//!
//! All of it happens in the network namespace of the calling thread, and waits for nothing but the kernel.

mod sys;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use plasmavmc_types::{BridgeName, Label, Nic, NicNetwork, VmId, VmSpec};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::argv::taps_of;

/// The bridge on this host of each network of the cluster that it is on.
pub type Networks = BTreeMap<Label, BridgeName>;

/// Before the digits of a tap's name.
const PREFIX: &str = "pv";
/// With the prefix within the 15 bytes that a name may have.
const DIGITS: usize = 12;
/// First byte of a tap's own address. A bridge takes the lowest address of its ports for its own, and this is
/// above that of every real card.
const HIGH: u8 = 0xfe;
const TUN: &str = "/dev/net/tun";

#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error("{TUN} is not there: load the module (modprobe tun)")]
    NoTun {
        #[source]
        source: std::io::Error,
    },
    #[error(
        "no right to {what}: bridges need CAP_NET_ADMIN (in systemd's unit AmbientCapabilities=CAP_NET_ADMIN) and {TUN} \
         open for reading and writing; a card of network user needs neither"
    )]
    NotPermitted {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("this host does not know which bridge network {network} is on: tell it in the host's configuration")]
    NoSuchNetwork { network: Label },
    #[error("there is no bridge {bridge} on this host: create it (ip link add {bridge} type bridge)")]
    NoSuchBridge { bridge: BridgeName },
    #[error("{bridge} is no bridge: name one")]
    NotABridge { bridge: BridgeName },
    /// It is this VM's own, or a stranger's.
    #[error("a network interface {tap} exists already: is NIC {nic} in use by a QEMU that is still ending?")]
    NameTaken { tap: String, nic: Label },
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// The name of a card's tap: the same each time, so that people and rules find it again. It is made of the
/// card's name, not of its place among the cards, which shifts when another is unplugged.
pub fn tap_name(vm: VmId, nic: &Label) -> String {
    // FNV-1a: it has to be the same in every version of this program, and nobody gains by a collision, which
    // is seen when the tap is made.
    let text = format!("{vm}/{nic}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digits = format!("{hash:016x}");
    format!("{PREFIX}{}", &digits[..DIGITS])
}

/// Opens the taps of all cards that need some: what [`crate::machine::StartPlan::taps`] wants. Nothing is left
/// behind if one fails.
pub fn open_taps(spec: &VmSpec, vm: VmId, networks: &Networks) -> Result<BTreeMap<Label, Vec<OwnedFd>>, TapError> {
    let mut taps = BTreeMap::new();
    for nic in &spec.nics {
        let queues = open_nic(nic, vm, networks)?;
        if !queues.is_empty() {
            taps.insert(nic.name.clone(), queues);
        }
    }
    Ok(taps)
}

/// Opens the taps of one card, one a queue; none for a card that needs none. For a card that is plugged in.
pub fn open_nic(nic: &Nic, vm: VmId, networks: &Networks) -> Result<Vec<OwnedFd>, TapError> {
    let bridge = match &nic.network {
        NicNetwork::User => return Ok(Vec::new()),
        NicNetwork::Bridge(bridge) => bridge,
        NicNetwork::Named(network) => networks.get(network).ok_or_else(|| TapError::NoSuchNetwork {
            network: network.clone(),
        })?,
    };
    let control = control_socket()?;
    if let Err(errno) = name_to_index(&control, bridge.as_str()) {
        return Err(match errno {
            Errno::NODEV => TapError::NoSuchBridge { bridge: bridge.clone() },
            errno => failed(format!("look up bridge {bridge}"), errno),
        });
    }
    let tap = tap_name(vm, &nic.name);
    let queues = open_queues(&tap, nic)?;
    // From here on the descriptors hold it: an error drops them, and the tap with them.
    plug_in(&control, &tap, nic, bridge)?;
    Ok(queues)
}

fn open_queues(tap: &str, nic: &Nic) -> Result<Vec<OwnedFd>, TapError> {
    let queues = taps_of(nic);
    let wanted = |first| sys::Queue {
        first,
        several: queues > 1,
    };
    (0..queues)
        .map(|number| {
            let queue = open_tun()?;
            match sys::set_interface(&queue, tap, wanted(number == 0)) {
                Ok(()) => Ok(queue),
                // The second is told for one that is no tap at all.
                Err(Errno::BUSY | Errno::INVAL) => Err(TapError::NameTaken {
                    tap: tap.to_owned(),
                    nic: nic.name.clone(),
                }),
                Err(errno) => Err(failed(format!("make tap {tap}"), errno)),
            }
        })
        .collect()
}

fn open_tun() -> Result<OwnedFd, TapError> {
    use rustix::fs::{Mode, OFlags};
    match rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(tun) => Ok(tun),
        Err(errno @ (Errno::NOENT | Errno::NODEV | Errno::NXIO)) => Err(TapError::NoTun { source: errno.into() }),
        Err(errno) => Err(failed(format!("open {TUN}"), errno)),
    }
}

/// Any socket will do: the kernel takes it for the network namespace it is of.
fn control_socket() -> Result<OwnedFd, TapError> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| failed("open a socket".to_owned(), errno))
}

/// Gives the tap its address and size, puts it on the bridge and turns it on: in this order, so that the
/// bridge never sees another address or size.
fn plug_in(control: &OwnedFd, tap: &str, nic: &Nic, bridge: &BridgeName) -> Result<(), TapError> {
    let doing = |what: &str| {
        let what = format!("{what} tap {tap}");
        move |errno| failed(what, errno)
    };
    let mut address = nic.mac.bytes();
    // Never the guest's own, which the bridge has to find behind the tap.
    address[0] = if address[0] == HIGH { HIGH - 4 } else { HIGH };
    sys::set_address(control, tap, address).map_err(doing("give an address to"))?;
    let mtu = sys::mtu(control, bridge.as_str()).map_err(doing("read the bridge's packet size for"))?;
    match sys::set_mtu(control, tap, mtu) {
        // No bridge has one that a tap cannot have; a loopback has.
        Err(Errno::INVAL) => return Err(TapError::NotABridge { bridge: bridge.clone() }),
        done => done.map_err(doing("set the packet size of"))?,
    }
    let index = name_to_index(control, tap).map_err(doing("find"))?;
    match sys::add_to_bridge(control, bridge.as_str(), index) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::INVAL) => return Err(TapError::NotABridge { bridge: bridge.clone() }),
        Err(Errno::NODEV) => return Err(TapError::NoSuchBridge { bridge: bridge.clone() }),
        Err(errno) => return Err(failed(format!("put tap {tap} on bridge {bridge}"), errno)),
    }
    sys::turn_on(control, tap).map_err(doing("turn on"))
}

fn failed(what: String, errno: Errno) -> TapError {
    let source = errno.into();
    match errno {
        Errno::PERM | Errno::ACCESS => TapError::NotPermitted { what, source },
        _ => TapError::Io { what, source },
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::{MacAddress, VmName, VmSpecFields};

    use super::*;

    fn vm(last: u8) -> VmId {
        format!("00000000-0000-4000-8000-0000000000{last:02x}").parse().unwrap()
    }

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    #[test]
    fn a_name_is_the_same_for_ever_and_fits_and_is_its_own() {
        // Frozen: what runs was named by an earlier version.
        assert_eq!(tap_name(vm(1), &label("net0")), "pv7821f2bee260");
        let mut names = std::collections::BTreeSet::new();
        for id in 0..64 {
            for nic in 0..32 {
                let name = tap_name(vm(id), &label(&format!("net{nic}")));
                assert!(name.len() <= 15, "{name}");
                assert!(names.insert(name));
            }
        }
    }

    #[test]
    fn cards_without_a_bridge_need_nothing_and_unknown_networks_are_named() {
        let mac = MacAddress::new([0x52, 0x54, 0, 0, 0, 1]).unwrap();
        let mut fields = VmSpecFields::new(VmName::new("taps").unwrap(), 1, 64);
        fields.nics.push(Nic::new(label("net0"), mac, NicNetwork::User));
        let spec = VmSpec::new(fields).unwrap();
        assert!(open_taps(&spec, vm(1), &Networks::new()).unwrap().is_empty());

        let named = Nic::new(label("net0"), mac, NicNetwork::Named(label("blue")));
        let error = open_nic(&named, vm(1), &Networks::new()).unwrap_err();
        assert!(error.to_string().contains("network blue"), "{error}");
        let networks = Networks::from([(label("blue"), BridgeName::new("pv-no-bridge").unwrap())]);
        let error = open_nic(&named, vm(1), &networks).unwrap_err();
        assert!(matches!(error, TapError::NoSuchBridge { .. }), "{error}");
    }

    #[test]
    fn a_lack_of_rights_says_which() {
        let error = failed("make tap pv1".to_owned(), Errno::PERM);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}
