//! The durable log against crashes, damage and full disks.

mod crash;
mod damage;
mod disk_full;
mod frozen_bytes;
mod refusals;
mod site;
mod store;
