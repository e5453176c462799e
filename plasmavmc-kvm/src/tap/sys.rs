//! The requests to the kernel that make a tap and put it on a bridge. The only unsafe code of this crate: the
//! kernel has no other way to make a tap, and no safe name for it exists.
//!
//! All of them pass one value of fixed size, [`Request`], that the kernel reads and writes during the call and
//! keeps no pointer to. It is plain bytes: whatever is written there is a valid value.

#![allow(unsafe_code, reason = "each block states why it is sound")]

use std::os::fd::AsFd;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Updater, ioctl};

/// From linux/if_tun.h and linux/sockios.h.
const TUNSETIFF: Opcode = 0x4004_54ca;
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCGIFMTU: Opcode = 0x8921;
const SIOCSIFMTU: Opcode = 0x8922;
const SIOCSIFHWADDR: Opcode = 0x8924;
const SIOCBRADDIF: Opcode = 0x89a2;

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_MULTI_QUEUE: u16 = 0x0100;
/// Fail if the interface is there already, instead of becoming one more queue of it.
const IFF_TUN_EXCL: u16 = 0x8000;
const IFF_UP: u16 = 0x0001;
const ARPHRD_ETHER: u16 = 1;

const NAME_BYTES: usize = 16;
/// The largest member of the kernel's union is `ifmap`: 24 bytes with 64-bit addresses, 16 with 32-bit ones.
const VALUE_BYTES: usize = if cfg!(target_pointer_width = "64") { 24 } else { 16 };

/// The kernel's `struct ifreq`: a name, and a union of values.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
struct Request {
    name: [u8; NAME_BYTES],
    value: [u8; VALUE_BYTES],
}

const _: () = assert!(size_of::<Request>() == NAME_BYTES + VALUE_BYTES);

impl Request {
    /// A name that does not fit, or that has a zero inside, names no interface.
    fn new(interface: &str, value: &[u8]) -> Result<Self> {
        let mut request = Self {
            name: [0; NAME_BYTES],
            value: [0; VALUE_BYTES],
        };
        let name = interface.as_bytes();
        // The last byte stays zero.
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains(&0) {
            return Err(Errno::NODEV);
        }
        request.name[..name.len()].copy_from_slice(name);
        request.value[..value.len()].copy_from_slice(value);
        Ok(request)
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.value[0], self.value[1]])
    }

    fn number(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }
}

fn perform<const OPCODE: Opcode>(descriptor: impl AsFd, request: &mut Request) -> Result<()> {
    // SAFETY: every opcode in this module takes a pointer to a `struct ifreq`, of which the kernel reads and
    // writes at most its size; `Request` has its layout and size, any bytes are a valid one, and the exclusive
    // borrow lasts through the call, after which the kernel keeps no pointer. That meaning of the opcodes is
    // the one they have on a tun file and on a socket; this module's parent, its only user, passes no other.
    unsafe { ioctl(descriptor, Updater::<OPCODE, Request>::new(request)) }
}

/// What a descriptor of `/dev/net/tun` becomes.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// It makes the tap, which must not exist.
    pub first: bool,
    /// The tap has several queues.
    pub several: bool,
}

/// Makes a descriptor of `/dev/net/tun` a queue of a tap. Frames come with virtio's header and without one of
/// the kernel's own, as QEMU wants them.
pub fn set_interface(tun: impl AsFd, tap: &str, queue: Queue) -> Result<()> {
    let mut flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if queue.several {
        flags |= IFF_MULTI_QUEUE;
    }
    if queue.first {
        flags |= IFF_TUN_EXCL;
    }
    let mut request = Request::new(tap, &flags.to_ne_bytes())?;
    perform::<TUNSETIFF>(tun, &mut request)
}

pub fn set_address(socket: impl AsFd, interface: &str, address: [u8; 6]) -> Result<()> {
    let mut value = [0; 8];
    value[..2].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
    value[2..].copy_from_slice(&address);
    perform::<SIOCSIFHWADDR>(socket, &mut Request::new(interface, &value)?)
}

/// The largest packet an interface takes.
pub fn mtu(socket: impl AsFd, interface: &str) -> Result<i32> {
    let mut request = Request::new(interface, &[])?;
    perform::<SIOCGIFMTU>(socket, &mut request)?;
    Ok(request.number())
}

pub fn set_mtu(socket: impl AsFd, interface: &str, mtu: i32) -> Result<()> {
    perform::<SIOCSIFMTU>(socket, &mut Request::new(interface, &mtu.to_ne_bytes())?)
}

pub fn add_to_bridge(socket: impl AsFd, bridge: &str, port_index: u32) -> Result<()> {
    perform::<SIOCBRADDIF>(socket, &mut Request::new(bridge, &port_index.to_ne_bytes())?)
}

/// Turns an interface on, and leaves its other flags as they are.
pub fn turn_on(socket: impl AsFd, interface: &str) -> Result<()> {
    let mut request = Request::new(interface, &[])?;
    perform::<SIOCGIFFLAGS>(&socket, &mut request)?;
    let flags = request.flags() | IFF_UP;
    perform::<SIOCSIFFLAGS>(&socket, &mut Request::new(interface, &flags.to_ne_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_fit_names_no_interface() {
        for bad in ["", "a-name-of-16-byt", "with\0zero"] {
            assert_eq!(Request::new(bad, &[]).unwrap_err(), Errno::NODEV, "{bad:?}");
        }
        let longest = Request::new("a-name-of-15-by", &7_u16.to_ne_bytes()).unwrap();
        assert_eq!((longest.name[15], longest.flags()), (0, 7));
    }

    #[test]
    fn the_kernel_is_asked_for_real() {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None).unwrap();
        assert_eq!(mtu(&socket, "lo").unwrap(), 65536);
        assert_eq!(mtu(&socket, "pv-no-such").unwrap_err(), Errno::NODEV);
    }
}
