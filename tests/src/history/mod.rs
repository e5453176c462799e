//! What clients of a store saw, and whether a store that keeps its promises could have shown it.
//!
//! Clients record every call with its times, answer or lack of one ([`Op`]), every listing ([`Reading`])
//! and every watch ([`WatchRun`]). [`judge`] then asks:
//!
//! | question | module |
//! |---|---|
//! | can the calls on each key be put in an order that explains every answer? | [`linear`] |
//! | does every write have its own revision, and do revisions follow real time? | [`revisions`] |
//! | does every listing show the state at the revision it names? | [`reading`] |
//! | did every watch deliver every change, once, in order? | [`watching`] |
//! | is every acknowledged write there at the end? | [`lost`] |
//!
//! The checkers must never accept a bad history for being in a hurry: a search that gives up is a
//! violation too ([`Violation::Undecided`]). Each kind of violation has a test with a history made by hand.

pub mod linear;
pub mod lost;
mod op;
pub mod reading;
pub mod revisions;
#[cfg(test)]
mod sample;
mod truth;
mod verdict;
mod violation;
pub mod watching;

pub use op::{Action, Answer, End, Guard, Nanos, Op};
pub use reading::Reading;
pub use truth::Truth;
pub use verdict::{History, Verdict, judge};
pub use violation::{Violation, ViolationKind};
pub use watching::{SeenBatch, WatchRun};
