//! The guard: the parent of every QEMU on a host, and the deadman that freezes what has lost its lease.
//!
//! Owns: spawning, exit status, the deadline, SIGSTOP and SIGCONT, and the small client with which the
//! server talks to it. They come with the issue that brings the first VM; there is no code here before.
//!
//! Must never: open a network socket, touch a storage pool, wait for anything that may hang, start a
//! thread or a runtime, or let a leased QEMU execute past the deadline, whatever the server does or says.

#![forbid(unsafe_code)]
