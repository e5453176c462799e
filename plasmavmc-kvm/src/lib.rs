//! One QEMU: how it is started, spoken to and found again.
//!
//! Owns: the command line (a pure function of the specification), the process and its identity, the QMP
//! and guest-agent transports, adoption after a restart, disk images, and the probe that finds out which
//! accelerator really runs a guest.
//!
//! Must never: decide where or whether a VM runs, know of the store or of other hosts, take a process for
//! dead because it does not answer, or let a guest execute that nobody told to.

// Not forbidden, because a tap cannot be made without: see `tap::sys`, the only place.
#![deny(unsafe_code)]

pub mod accel;
pub mod adopt;
pub mod argv;
pub mod channel;
pub mod image;
pub mod keeper;
pub mod machine;
pub mod preflight;
mod program;
pub mod qemu;
pub mod qga;
pub mod qmp;
pub mod refused;
pub mod runtime;
pub mod tap;
