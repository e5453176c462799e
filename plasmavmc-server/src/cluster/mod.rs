//! Belonging to a cluster: founding one, joining one, taking hosts in and out, and how it is.
//!
//! ```text
//!   enrolment    this server's way from outside to inside
//!   records      what it writes of itself on the way
//!   admit        the other side of joining; tokens say who may
//!   remove       the way out
//!   reach        what other members answer: that they serve, since when they have listened
//!   status       how the cluster is, with warnings
//!   timings      changing them while it runs
//!   leadership   whether this server's member of the store leads
//!   service      the calls
//! ```

mod admit;
mod enrolment;
pub mod leadership;
mod reach;
mod records;
mod remove;
mod service;
mod status;
mod timings;
mod tokens;

pub use enrolment::Enrolment;
pub use reach::Peers;
pub use records::own_record;
pub use service::ClusterService;
