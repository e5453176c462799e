//! Plain validated data: what a VM, a host and their records are.
//!
//! Every type here can only be made valid: fields are private, or any value of them is fine, and what
//! comes from outside goes through a constructor that names everything wrong at once ([`Invalid`]). The
//! same holds for serde, which uses those constructors.
//!
//! This crate must never do I/O, read a clock, draw random numbers or depend on another crate of the
//! workspace: ids and times are made at the rim and handed in.

#![forbid(unsafe_code)]

mod address;
mod host;
mod ids;
mod invalid;
mod name;
mod operation;
mod reference;
mod spec;
mod state;
mod status;
mod text;
mod timings;
mod vm;

pub use address::Address;
pub use host::{
    Beat, BeatFields, BeatSequence, Capacity, Departure, HostFacts, HostMode, HostRecord, Leaving, Session,
    SessionState, Usage,
};
pub use ids::{AttemptId, BootId, Epoch, Generation, HostId, Incarnation, InstanceNonce, OperationId, VmId, VmNumber};
pub use invalid::{Checks, Invalid, Problem};
pub use name::{HostName, Label, PoolName, RequestId, TokenId, VmName};
pub use operation::{Decision, Operation, OperationError, OperationKind, OperationState};
pub use reference::VmRef;
pub use spec::{
    Affinity, AgentPolicy, BackingImage, BridgeName, Cdrom, Cpu, CpuModel, Dependency, DependencyReached, DirectBoot,
    Disk, DiskAio, DiskBus, DiskCache, DiskDiscard, DiskFormat, DiskLocation, DiskSerial, Display, Firmware,
    GuestWatchdog, HaPolicy, MacAddress, MachineFamily, MachineType, Nic, NicModel, NicNetwork, RestartPolicy, VmSpec,
    VmSpecFields,
};
pub use state::{ParseVmStateError, PauseCause, QemuRunState, VmState};
pub use status::{AgentHealth, Condition, Exit, ObservedState, QemuProcess, VmStatus, VmStatusFields};
pub use timings::{Timings, TimingsFields};
pub use vm::{Placement, PowerWanted, VmRecord, VmRecordParts};
