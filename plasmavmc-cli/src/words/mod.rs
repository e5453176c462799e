//! What people write after a flag: sizes, disks, network cards, policies.
//!
//! Every parser here says what is wrong, with the word it is about, and shows how it is written right. None may
//! guess: a word that could mean two things is refused.

mod disk;
mod nic;
mod pairs;
mod policy;
mod size;

pub use disk::{DiskWords, parse_disk};
pub use nic::parse_nic;
pub use policy::{parse_dependency, parse_duration, parse_restart, parse_vm};
pub use size::{parse_size_mb, show_size_mb};
