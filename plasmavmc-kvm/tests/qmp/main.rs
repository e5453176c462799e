//! QMP against real QEMUs, and against peers that break every rule.

mod corpus;
mod faithful;
mod hostile;
#[path = "../channel/qemu.rs"]
mod qemu;
mod real;
