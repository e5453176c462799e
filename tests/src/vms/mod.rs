//! Real VMs on this host, for tests: a guard of their own, the guests, and an end that always comes.

mod place;
mod specs;

pub use place::{GUESTS_ENV, Place, guard_binary, guest};
pub use specs::{boot_id, debian, debian_disk, disk, has_agent, has_booted, micro, paused};
