//! `plasmavmc-bench kv`: ChainFire beside etcd on one machine.
//!
//! Why it exists: a figure from one machine says little, a ratio taken in one run says much. So both
//! stores run at once on one disk, are spoken to by one load generator over gRPC, and take turns.
//!
//! What must never happen:
//! - a side treated differently from the other: what differs between them is how a call is spelled
//!   ([`client`]) and how a member is started ([`programs`]), nothing else;
//! - a figure from a round in which a call failed, unless failing is what the section counts;
//! - a process or a folder left behind, however the run ends ([`reaper`]).

pub mod client;
pub mod cluster;
pub mod etcd;
pub mod figures;
pub mod lab;
pub mod load;
pub mod process;
pub mod programs;
pub mod reaper;
pub mod report;
pub mod roaming;
pub mod sections;
pub mod watching;
