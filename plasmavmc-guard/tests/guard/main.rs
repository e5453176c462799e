//! The guard, on real processes: shells that end when and how a test says, and a QEMU.

mod adoption;
mod clients;
mod exits;
mod launcher;
mod place;
mod qemu;
mod scale;
mod spawning;
mod starting;
mod upgrading;
