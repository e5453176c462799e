//! The guard: the parent of every QEMU on a host, and the deadman that freezes what has lost its lease.
//!
//! The server may be restarted, upgraded and killed at any time; somebody has to keep the processes, see them
//! end, and know why. That is all this program does, so that it has little reason to change and none to
//! crash.
//!
//! ```text
//!   wire       orders, answers, events, and how they travel
//!   daemon     the guard: one loop; the life of a child is drawn there
//!   deadman    until when leased children may execute: the rule, without clock or process
//!   launch     from an order to a process: the program started a second time, becoming the child
//!   claims     a look at storage pools: the program started a second time, to be left if it hangs
//!   sentinel   what stops adopted children when the guard dies: the program beside itself
//!   records    its folder: lock, socket, a record for each child
//!   identity   whether a process is the one of a record
//!   client     (feature `client`) how the server talks to it
//! ```
//!
//! What is leased may execute until the deadline that the server's session moves on. When it passes, the guard
//! freezes them, whatever the server does, and keeps them so until it is ordered to thaw and the deadline is
//! ahead. A guard that dies takes nothing with it: the kernel stops its leased children, and the next guard
//! holds them frozen. A frozen child is killed on the proof that another host claimed its VM.
//!
//! Must never: open a network socket, touch a storage pool itself, wait for anything that may hang, start a
//! thread or a runtime, send SIGCONT without the deadline ahead, or let a leased QEMU execute past the deadline,
//! whatever the server does or says.

#![deny(unsafe_code)]

mod cgroup;
pub mod claims;
#[cfg(feature = "client")]
pub mod client;
pub mod daemon;
pub mod deadman;
mod identity;
mod journal;
pub mod launch;
mod records;
pub mod sentinel;
mod standing;
pub mod starting;
mod sys;
pub mod wire;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
        let below = folders.iter().flat_map(|folder| sources(folder));
        files.into_iter().chain(below.collect::<Vec<_>>()).collect()
    }

    /// The client is built into the guard wherever the whole workspace is; it must not be used there.
    #[test]
    fn the_guard_itself_has_no_runtime_and_no_threads() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for path in sources(&src) {
            if path.starts_with(src.join("client")) || path.ends_with("lib.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["tokio::", "thread::spawn", "crate::client"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}
