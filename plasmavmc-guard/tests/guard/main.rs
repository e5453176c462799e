//! The guard, on real processes: shells that end when and how a test says, and a QEMU.

mod adoption;
mod cgroups;
mod claims;
mod clients;
mod exits;
mod launcher;
mod leases;
mod leases_handed_on;
mod place;
mod qemu;
mod scale;
mod spawning;
mod starting;
mod upgrading;
