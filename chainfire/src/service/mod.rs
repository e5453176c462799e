//! The gRPC faces of a member.

mod cluster;
mod kv;
mod seats;
mod server;

pub use cluster::ClusterService;
pub use kv::KvService;
pub use server::{Server, ServerError, member_routes, serve_connections};
