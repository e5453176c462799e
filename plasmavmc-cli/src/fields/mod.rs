//! Messages as JSON and YAML, by the descriptors of the API: a field that is added there is read and written here
//! without a line of code, and an unknown one is refused by its path.
//!
//! The form: names as in the .proto files, numbers as numbers, enum values as short lower-case words (`running`,
//! `qcow2`, `virtio_blk`), and every field there, so that a script never has to guess why one is missing.

mod node;
mod read;
mod sparse;
mod write;

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor};

pub use node::Node;
pub use read::{FieldError, merge};
pub use sparse::without_defaults;
pub use write::{node_of, node_of_bytes};

/// A message of the API, with its name there.
pub trait Described: prost::Message + Default {
    const NAME: &'static str;
}

macro_rules! described {
    ($($message:ident)*) => {$(
        impl Described for plasmavmc_proto::api::$message {
            const NAME: &'static str = concat!("plasmavmc.", stringify!($message));
        }
    )*};
}

described! {
    ClusterMember ClusterStatus CreateTokenResponse CreateVmRequest Event ExplainVmResponse Host Operation SetTimingsResponse Vm
    VmSpec
    WatchVmsResponse
}

/// The description of a message. `None`: this program does not know it.
pub fn descriptor(name: &str) -> Option<MessageDescriptor> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(plasmavmc_proto::DESCRIPTORS).ok());
    pool.as_ref()?.get_message_by_name(name)
}

/// A value of an enum as people write it: `DISK_FORMAT_QCOW2` is `qcow2`, `STATE_UNSPECIFIED` is `unspecified`.
fn short_name(of: &EnumDescriptor, value: &str) -> String {
    let mut prefix = String::new();
    for c in of.name().chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix.push('_');
    value.strip_prefix(&prefix).unwrap_or(value).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
