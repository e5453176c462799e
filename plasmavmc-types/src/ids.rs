//! Typed ids and counters: two of different kinds never compare, and none is a bare string or number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Invalid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| Invalid::whole($what, format!("{text:?} is no UUID")))
            }
        }
    };
}

uuid_id!(
    /// A VM, for all its life and never again.
    VmId,
    "VM id"
);
uuid_id!(
    /// A host, for as long as it belongs to the cluster.
    HostId,
    "host id"
);
uuid_id!(
    /// One life of a host: drawn once per boot and kept in memory. A restarted server has the same one, a
    /// rebooted or cloned host another.
    InstanceNonce,
    "instance nonce"
);
uuid_id!(
    /// The boot id of the host's kernel.
    BootId,
    "boot id"
);
uuid_id!(
    /// Something that takes longer than a call.
    OperationId,
    "operation id"
);
uuid_id!(
    /// One attempt to start a VM. Answers to another attempt are discarded.
    AttemptId,
    "attempt id"
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            pub const FIRST: Self = Self(1);

            /// For what was stored; 0 stands for "none yet" and sorts below [`Self::FIRST`].
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after; `None` at the end of the range, which no cluster lives to see.
            #[must_use]
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// The fencing token of a VM: one more at every placement on a host. Whoever holds a lower one than the
    /// placement has lost the VM.
    Incarnation
);
impl Incarnation {
    /// Below these bits is the counter, above them how often the cluster was recovered: see [`Self::next_in`].
    const COUNTER_BITS: u32 = 32;

    /// The one after, in this generation of the cluster. A cluster that lost its majority does not know which numbers
    /// were given last; all of a later generation are above all of an earlier one. Without a recovery the generation is
    /// 0, and numbers are plain ones.
    #[must_use]
    pub fn next_in(self, generation: u32) -> Option<Self> {
        self.max(Self::floor(generation)).next()
    }

    /// The number below all of a generation.
    pub fn floor(generation: u32) -> Self {
        Self(u64::from(generation) << Self::COUNTER_BITS)
    }
}

counter!(
    /// The number of a host's session: one more at every opening.
    Epoch
);
counter!(
    /// The number of a VM's specification: one more at every change of what is wanted.
    Generation
);

/// The short number of a VM (its `vmid`), unique in the cluster, usable wherever an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct VmNumber(u32);

impl VmNumber {
    pub const MIN: u32 = 1;
    /// Nine digits: what people and other tools still handle.
    pub const MAX: u32 = 999_999_999;

    pub fn new(number: u32) -> Result<Self, Invalid> {
        if (Self::MIN..=Self::MAX).contains(&number) {
            Ok(Self(number))
        } else {
            let problem = format!("{number} is not in {} to {}", Self::MIN, Self::MAX);
            Err(Invalid::whole("vmid", problem))
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for VmNumber {
    type Error = Invalid;

    fn try_from(number: u32) -> Result<Self, Invalid> {
        Self::new(number)
    }
}

impl From<VmNumber> for u32 {
    fn from(number: VmNumber) -> Self {
        number.0
    }
}

impl fmt::Display for VmNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_show() {
        let text = "6f1c2d3e-0000-4000-8000-00000000002a";
        let id: VmId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(
            "web-1".parse::<VmId>().unwrap_err().to_string(),
            "invalid VM id: \"web-1\" is no UUID"
        );
    }

    #[test]
    fn counters_go_up_by_one_and_never_wrap() {
        assert_eq!(Incarnation::FIRST.next(), Some(Incarnation::from_raw(2)));
        assert!(Incarnation::from_raw(0) < Incarnation::FIRST);
        let third = Incarnation::from_raw(3);
        assert_eq!(third.next_in(0), third.next());
        let recovered = third.next_in(2).unwrap();
        assert_eq!(recovered.get(), (2 << 32) + 1);
        assert_eq!(recovered.next_in(2), recovered.next());
        // What an earlier generation knows does not lower it.
        assert_eq!(recovered.next_in(1), recovered.next());
        assert_eq!(Epoch::from_raw(u64::MAX).next(), None);
    }

    #[test]
    fn numbers_have_bounds_in_code_and_in_json() {
        assert_eq!(VmNumber::new(101).unwrap().get(), 101);
        assert!(VmNumber::new(0).is_err());
        assert!(VmNumber::new(VmNumber::MAX + 1).is_err());
        assert_eq!(serde_json::from_str::<VmNumber>("101").unwrap(), VmNumber(101));
        assert!(serde_json::from_str::<VmNumber>("0").is_err());
    }
}
