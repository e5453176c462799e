//! How a VM is plugged into networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BridgeName;
use crate::invalid::Checks;
use crate::{Invalid, Label};

/// More would only cost descriptors.
const MAX_QUEUES: u16 = 16;

/// A network interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Unique among the disks, CD-ROMs and NICs of the VM.
    pub name: Label,
    /// Part of the specification, so that the guest finds the same card wherever it runs.
    pub mac: MacAddress,
    pub network: NicNetwork,
    #[serde(default)]
    pub model: NicModel,
    #[serde(default = "one_queue")]
    pub queues: u16,
}

fn one_queue() -> u16 {
    1
}

/// What a NIC is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NicNetwork {
    /// A network of the cluster; each host knows the bridge it is on.
    Named(Label),
    /// A bridge that every host this VM may run on must have.
    Bridge(BridgeName),
    /// The outside world through QEMU itself: no privileges, no way in, slow.
    User,
}

impl Nic {
    /// A card with the default for all the rest.
    pub fn new(name: Label, mac: MacAddress, network: NicNetwork) -> Self {
        Self {
            name,
            mac,
            network,
            model: NicModel::default(),
            queues: one_queue(),
        }
    }

    pub(super) fn check(&self, field: &str, checks: &mut Checks) {
        let queues = format!("{field}.queues");
        checks.require_range(&queues, self.queues, 1..=MAX_QUEUES);
        let has_queues = self.model == NicModel::Virtio && self.network != NicNetwork::User;
        checks.require(self.queues <= 1 || has_queues, queues, || {
            format!(
                "is {}, but only a virtio card on a bridge has more than one",
                self.queues
            )
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicModel {
    #[default]
    Virtio,
    E1000,
}

/// The address of one network card: never a group address, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    pub fn new(bytes: [u8; 6]) -> Result<Self, Invalid> {
        let address = Self(bytes);
        if bytes == [0; 6] {
            Err(Invalid::whole("MAC address", "is all zero"))
        } else if bytes[0] & 1 == 1 {
            Err(Invalid::whole(
                "MAC address",
                format!("{address} means a group, not one card"),
            ))
        } else {
            Ok(address)
        }
    }

    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::whole("MAC address", format!("{text:?} is not of the form 52:54:00:12:34:56"));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(malformed)?;
            let is_hex = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !is_hex {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_back_in_lower_case() {
        let address: MacAddress = "52:54:00:AB:cd:01".parse().unwrap();
        assert_eq!(address.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(address.bytes(), [0x52, 0x54, 0, 0xab, 0xcd, 1]);
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let table = [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:1",
            "52:54:00:ab:cd:+1",
            "52-54-00-ab-cd-01",
            "01:54:00:ab:cd:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ];
        for bad in table {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
