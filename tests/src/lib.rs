//! What the tests of the whole system stand on: hosts made of namespaces, recorded histories and the
//! checkers that judge them, and the programs that torture real processes.
//!
//! - [`hosts`]: machines for tests, with power cuts, partitions and full disks. Knows no PlasmaVMC.
//! - [`members`]: ChainFire members as real processes, on such hosts or on loopback.
//! - [`history`]: what clients saw, and whether a store that keeps its promises could have shown it.
//! - [`trace`]: the system calls of a process, in time.
//! - [`channel_torture`]: guest channels under abuse, with a real guest.
//! - [`cluster`]: whole clusters of servers, their clients, and the races and crashes they are put through.
//! - [`prose`]: the commands that the documentation prints, and hosts to type them on.
//! - [`vms`]: real VMs on this host, with a guard of their own.
//! - [`bench_vm`]: a VM beside libvirt's, and many in one process.
//! - [`bench_cluster`]: a cluster's VMs beside libvirt's, and hundreds of them.
//! - [`bench`]: the store against etcd, in one interleaved run.
//! - [`torture`]: clients and faults together, for minutes.

#![forbid(unsafe_code)]

pub mod bench;
pub mod bench_cluster;
pub mod bench_vm;
pub mod channel_torture;
pub mod cluster;
pub mod history;
pub mod hosts;
pub mod members;
pub mod prose;
pub mod torture;
pub mod trace;
pub mod vms;
