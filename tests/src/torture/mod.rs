//! Real members, random clients and faults together, judged by what the clients saw.
//!
//! A run is a series of phases. In each, clients work on keys of that phase only while a nemesis
//! strikes; then everything is mended, the members must become whole, and the phase's history is judged.
//! A run that has not met every kind of fault proves nothing and fails.
//!
//! [`kv`] is about faults of hosts and networks, [`corrupt`] about faults of files, [`follower`] about
//! absences that nobody may notice, [`adopt`] about owners of VMs that die.

pub mod adopt;
mod clients;
pub mod corrupt;
mod damage;
mod faults;
pub mod follower;
pub mod kv;
mod nemesis;
mod phase;
mod watchers;
mod writes;

pub use faults::{Fault, Sabotage};
