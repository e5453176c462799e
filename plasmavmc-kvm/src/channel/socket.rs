//! Unix sockets by path, however long the path is.
//!
//! A socket address holds 107 bytes of path. Folders of tests and of careful administrators are longer, so
//! a long path is reached through a descriptor of its folder: `/proc/self/fd/N/name`.
//!
//! Must never: leave a moment in which the path of a listener leads nowhere (a QEMU that is just connecting
//! would have to wait another second), or let anybody connect before mode and owner are set.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// What `sockaddr_un` holds, without the final zero.
const ADDRESS_BYTES: usize = 107;
/// Connections that wait to be accepted. QEMU holds one; the rest is for one that replaces it.
const BACKLOG: i32 = 4;

/// Why a socket could not be reached or offered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the socket path {path:?} has no file name; give the path of the socket itself")]
    NoName { path: PathBuf },
    #[error("the socket name in {path:?} is too long; at most {limit} bytes fit, whatever the folder is")]
    NameTooLong { path: PathBuf, limit: usize },
    #[error("there is no socket {path:?}; its process has not made it yet, or is gone")]
    Missing { path: PathBuf },
    #[error("nobody listens at the socket {path:?}; the process that made it has ended")]
    Refused { path: PathBuf },
    #[error("the process at the socket {path:?} accepts nobody; it hangs, is stopped, or serves somebody else")]
    NotAccepting { path: PathBuf },
    #[error("{path:?} is in the way of a socket and is none itself; move it away")]
    NotASocket { path: PathBuf },
    #[error("cannot {action} the socket {path:?}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Who may connect to a listener, besides root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOwner {
    pub uid: u32,
    pub gid: u32,
}

/// A path that fits into a socket address, while this value lives.
struct Reachable {
    address: SocketAddrUnix,
    /// What the address passes through, for a long path.
    _folder: Option<OwnedFd>,
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SocketError::Missing { path: path.to_owned() },
        io::ErrorKind::ConnectionRefused => SocketError::Refused { path: path.to_owned() },
        io::ErrorKind::WouldBlock => SocketError::NotAccepting { path: path.to_owned() },
        _ => SocketError::Io {
            path: path.to_owned(),
            action,
            source,
        },
    }
}

fn reach(path: &Path, action: &'static str) -> Result<Reachable, SocketError> {
    let address = |path: &Path| SocketAddrUnix::new(path).map_err(io::Error::from);
    if path.as_os_str().len() <= ADDRESS_BYTES {
        return Ok(Reachable {
            address: address(path).map_err(failed(path, action))?,
            _folder: None,
        });
    }
    let name = path
        .file_name()
        .ok_or_else(|| SocketError::NoName { path: path.to_owned() })?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(parent, flags, Mode::empty())
        .map_err(io::Error::from)
        .map_err(failed(path, action))?;
    let prefix = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let short = Path::new(&prefix).join(name);
    if short.as_os_str().len() > ADDRESS_BYTES {
        return Err(SocketError::NameTooLong {
            path: path.to_owned(),
            limit: ADDRESS_BYTES - prefix.len() - 1,
        });
    }
    Ok(Reachable {
        address: address(&short).map_err(failed(path, action))?,
        _folder: Some(folder),
    })
}

fn new_socket(path: &Path, action: &'static str) -> Result<OwnedFd, SocketError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(io::Error::from)
        .map_err(failed(path, action))
}

/// Connects, without waiting: a peer whose queue is full is `NotAccepting`.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, SocketError> {
    const ACTION: &str = "connect to";
    let reachable = reach(path, ACTION)?;
    let socket = new_socket(path, ACTION)?;
    rustix::net::connect(&socket, &reachable.address)
        .map_err(io::Error::from)
        .map_err(failed(path, ACTION))?;
    UnixStream::from_std(socket.into()).map_err(failed(path, ACTION))
}

/// A listener, and the file that leads to it. The file goes with it, unless it leads to another by then.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file that is ours.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`, in the place of whatever socket was there: an old one is replaced in one step.
    pub fn bind(path: &Path, owner: Option<SocketOwner>) -> Result<Self, SocketError> {
        const ACTION: &str = "listen at";
        let name = path
            .file_name()
            .ok_or_else(|| SocketError::NoName { path: path.to_owned() })?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(SocketError::NotASocket { path: path.to_owned() });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, ACTION)(error)),
            _ => {}
        }
        let mut new_name = name.to_owned();
        new_name.push(".new");
        let new_path = path.with_file_name(new_name);
        match std::fs::remove_file(&new_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new_path, ACTION)(error)),
            _ => {}
        }
        let reachable = reach(&new_path, ACTION)?;
        let socket = new_socket(path, ACTION)?;
        rustix::net::bind(&socket, &reachable.address)
            .map_err(io::Error::from)
            .map_err(failed(path, ACTION))?;
        let offered = offer(socket, &new_path, path, owner);
        if offered.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&new_path);
        }
        offered.map_err(failed(path, ACTION))
    }

    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// From a bound socket to a listener at its final path. Nobody can connect before `listen`.
fn offer(socket: OwnedFd, new_path: &Path, path: &Path, owner: Option<SocketOwner>) -> io::Result<Listener> {
    std::fs::set_permissions(new_path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(SocketOwner { uid, gid }) = owner {
        std::os::unix::fs::chown(new_path, Some(uid), Some(gid))?;
    }
    let there = std::fs::symlink_metadata(new_path)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let socket = UnixListener::from_std(socket.into())?;
    std::fs::rename(new_path, path)?;
    Ok(Listener {
        socket,
        path: path.to_owned(),
        identity: (there.dev(), there.ino()),
    })
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = |there: std::fs::Metadata| (there.dev(), there.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
