//! The public calls. Any server answers any of them: reads come from its mirror behind a barrier, writes are
//! transactions of the store, which leads them to the leader.
//!
//! ```text
//!   error       every refusal, and the one table to gRPC
//!   backend     the store, its mirror, limits;  caller: how long the caller waits
//!   requests    a repeated request is answered like the first
//!   numbers     which vmid a new VM gets
//!   show        what clients see of VMs, hosts and operations
//!   history     what changed between two revisions, for streams that resume
//!   vms, operations, hosts, events, console    the services, call by call
//! ```
//! Must never: write what was not decided on the revision it compares, carry a repeated request out twice, or
//! keep a caller waiting beyond its deadline.

mod backend;
mod caller;
mod console;
mod error;
mod events;
mod history;
mod hosts;
mod numbers;
mod operations;
mod requests;
mod show;
mod vms;

use std::sync::Arc;

use chainfire::node::Node;
use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{HostId, VmId, VmRef};
use tokio::sync::watch;

use crate::agent::ConsoleHub;
use crate::serve::CommitLatency;

pub use backend::{Backend, wall_clock_ms};
pub use console::NodeService;
pub use error::{ApiError, ClusterError, DOMAIN, TokenError};

/// This server's place in a cluster.
#[derive(Debug)]
pub struct Place {
    pub backend: Backend,
    pub node: Node,
    pub consoles: ConsoleHub,
    pub commits: Arc<CommitLatency>,
}

/// Whether this server has a place.
#[derive(Debug, Clone)]
pub enum Seating {
    /// It belongs to no cluster.
    Outside,
    /// It founds one, joins one, or was started again a moment ago: whoever calls now may call again soon.
    OnTheWay,
    Inside(Arc<Place>),
}

impl Seating {
    pub fn place(&self) -> Result<&Arc<Place>, ApiError> {
        match self {
            Seating::Outside => Err(ApiError::NotInACluster),
            Seating::OnTheWay => Err(ApiError::Starting),
            Seating::Inside(place) => Ok(place),
        }
    }
}

pub type Seat = watch::Receiver<Seating>;

pub fn place_of(seat: &Seat) -> Result<Arc<Place>, ApiError> {
    seat.borrow().place().cloned()
}

/// The services of VMs, hosts, operations and events. Clones share everything.
#[derive(Debug, Clone)]
pub struct Api {
    seat: Seat,
}

impl Api {
    pub fn new(seat: Seat) -> Self {
        Self { seat }
    }

    fn place(&self) -> Result<Arc<Place>, ApiError> {
        place_of(&self.seat)
    }

    fn backend(&self) -> Result<Backend, ApiError> {
        Ok(self.place()?.backend.clone())
    }
}

/// The VM that a caller means.
fn find_vm(view: &ClusterView, text: &str) -> Result<VmId, ApiError> {
    let reference: VmRef = text
        .parse()
        .map_err(|invalid: plasmavmc_types::Invalid| ApiError::Field {
            field: "id".to_owned(),
            problem: format!("names no VM: {invalid}"),
        })?;
    view.find(&reference)
        .ok_or_else(|| ApiError::VmNotFound(text.to_owned()))
}

/// The host that a caller means, by id or name.
pub fn find_host(view: &ClusterView, text: &str) -> Result<HostId, ApiError> {
    if text.is_empty() {
        return Err(ApiError::Field {
            field: "id".to_owned(),
            problem: "is empty: give the name or the id of a host".to_owned(),
        });
    }
    let is_known = |id: &HostId| view.hosts.get(id).is_some_and(|host| host.record.is_some());
    let by_id = text.parse::<HostId>().ok().filter(is_known);
    by_id
        .or_else(|| view.host_named(text))
        .ok_or_else(|| ApiError::HostNotFound(text.to_owned()))
}

#[cfg(test)]
mod tests;
