//! Packets with descriptors on a SOCK_SEQPACKET socket, and how its two ends find each other.
//!
//! Nothing here waits: a socket that is not ready says so with [`rustix::io::Errno::AGAIN`].

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::{MAX_DESCRIPTORS, MAX_PACKET_BYTES};

/// The socket's name in the guard's folder.
pub const SOCKET_NAME: &str = "guard.sock";

/// What arrived.
#[derive(Debug)]
pub enum Received {
    Packet {
        bytes: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    },
    /// Longer than [`MAX_PACKET_BYTES`], or with more descriptors than the limit: only a part is here.
    Cut,
    /// The other side closed.
    Closed,
}

/// Two connected ends.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Listens under [`SOCKET_NAME`] in the current folder, so that the folder's path may have any length.
pub fn listen_here() -> Result<OwnedFd> {
    match rustix::fs::unlink(SOCKET_NAME) {
        Err(Errno::NOENT) | Ok(()) => {}
        Err(errno) => return Err(errno),
    }
    let socket = unconnected()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(SOCKET_NAME)?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Connects to the guard that listens in a folder. The path goes through a descriptor: a socket's own path
/// must not pass 107 bytes.
pub fn connect(folder: &Path) -> Result<OwnedFd> {
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd());
    let socket = unconnected()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn unconnected() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Sends one packet whole, or nothing.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Takes the next packet, if there is one.
pub fn receive(socket: impl AsFd) -> Result<Received> {
    receive_flagged(socket, RecvFlags::DONTWAIT, MAX_DESCRIPTORS)
}

/// Waits for the next packet; for the two ends of a pair that have nothing else to do.
pub(crate) fn receive_waiting(socket: impl AsFd, most_descriptors: usize) -> Result<Received> {
    receive_flagged(socket, RecvFlags::empty(), most_descriptors)
}

fn receive_flagged(socket: impl AsFd, flags: RecvFlags, most_descriptors: usize) -> Result<Received> {
    let mut bytes = vec![0; MAX_PACKET_BYTES];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(most_descriptors))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Received::Cut);
    }
    if received.bytes == 0 {
        return Ok(Received::Closed);
    }
    bytes.truncate(received.bytes);
    Ok(Received::Packet { bytes, descriptors })
}
