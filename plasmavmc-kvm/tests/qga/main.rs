//! The guest agent: a real one in a real guest, and such as answer late, twice, wrongly, or not at all.

mod hostile;
#[path = "../channel/qemu.rs"]
mod qemu;
mod real;
mod scene;
