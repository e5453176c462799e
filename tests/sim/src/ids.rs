//! Ids made of numbers, so that a replay has the same ones.

use plasmavmc_types::{AttemptId, BootId, HostId, InstanceNonce, OperationId, VmId};
use uuid::Uuid;

fn uuid(kind: u128, number: u64) -> Uuid {
    Uuid::from_u128((kind << 96) | (0x4000_u128 << 64) | (0x8000_u128 << 48) | u128::from(number))
}

pub fn vm(number: u64) -> VmId {
    VmId::from_uuid(uuid(1, number))
}

pub fn host(number: u64) -> HostId {
    HostId::from_uuid(uuid(2, number))
}

pub fn operation(number: u64) -> OperationId {
    OperationId::from_uuid(uuid(3, number))
}

pub fn attempt(number: u64) -> AttemptId {
    AttemptId::from_uuid(uuid(4, number))
}

pub fn instance(number: u64) -> InstanceNonce {
    InstanceNonce::from_uuid(uuid(5, number))
}

pub fn boot(number: u64) -> BootId {
    BootId::from_uuid(uuid(6, number))
}
