//! Hosts for tests: each a network and a PID namespace on one switch, so that a test can cut the power of
//! a machine, part networks and fill disks, on any Linux machine where it is root.
//!
//! ```text
//!  the test's process                     the lab
//!  ┌──────────────┐ setns   ┌──────────────────────────────────┐
//!  │ Lab::run ────┼────────▶│ switch: bridge, 10.77.0.1        │  links: nftables on the bridge
//!  │              │         └──┬──────────────┬─────────────┬──┘
//!  │ pipes to     │         ┌──┴───┐       ┌──┴───┐      ┌──┴───┐
//!  │ every init ──┼────────▶│ h0   │       │ h1   │      │ h2   │  net + pid + mount + uts namespace
//!  └──────────────┘         │ init │       │ init │      │ init │  each with its own disk
//!                           └──────┘       └──────┘      └──────┘
//! ```
//!
//! Nothing of a lab may outlive the process that made it, however that process ends. So nothing has a
//! name in the system: namespaces live by their processes and by descriptors of the owner, and every
//! process that holds something reads a pipe from the owner and ends at its end. The one thing with a
//! name is the lab's folder; [`folder`] says how that goes away.
//!
//! A lab needs root. Where namespaces cannot be made, making one fails and says so; it never skips.

mod disk;
mod error;
mod folder;
mod host;
mod lab;
mod links;
mod namespace;
mod process;

pub use disk::DiskPlan;
pub use error::LabError;
pub use folder::{KEEP_ENV, LastWill, OwnedFolder};
pub use host::Host;
pub use lab::{Lab, LabPlan};
pub use process::{Process, Program};
