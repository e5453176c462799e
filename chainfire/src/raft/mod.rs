//! Replication: openraft with what it lacks around it.
//!
//! - [`proposer`]: many transactions become one log entry; a follower hands them to the leader.
//! - [`reads`]: many linearizable reads share one quorum round.
//! - [`election`]: who stands for election, when, and only if a quorum would vote for him.
//! - [`network`]: the calls to other members, [`service`] the answers to theirs, [`parts`] a snapshot on its way.
//! - [`commit_notice`]: word of a commit goes with the next entries where it can.
//!
//! What must never happen: an answer to a client before its entry is committed and applied; a vote or an
//! entry acknowledged before it is on the disk; a retry of something that may have been carried out.

pub mod commit_notice;
pub mod contact;
pub mod election;
pub mod network;
pub mod parts;
pub mod proposer;
pub mod reads;
pub mod service;
pub mod timing;
pub mod types;
