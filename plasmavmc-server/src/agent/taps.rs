//! The one place where the cards of a VM are plugged into this host's bridges.
//!
//! Must never: start a VM with a card that leads nowhere.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use plasmavmc_types::{BridgeName, Label, NicNetwork, VmId, VmSpec};

#[derive(Debug, thiserror::Error)]
pub enum TapsError {
    #[error(
        "NIC {nic} is to be plugged into {network}, which this version does not do yet: give it network `user`, or leave \
         it out"
    )]
    NotYet { nic: Label, network: String },
}

impl TapsError {
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotYet { .. } => true,
        }
    }
}

/// Opens the taps of all cards that need some: one a queue.
pub fn open_taps(
    spec: &VmSpec,
    _vm: VmId,
    _networks: &BTreeMap<Label, BridgeName>,
) -> Result<BTreeMap<Label, Vec<OwnedFd>>, TapsError> {
    for nic in &spec.nics {
        let network = match &nic.network {
            NicNetwork::User => continue,
            NicNetwork::Bridge(bridge) => format!("bridge {bridge}"),
            NicNetwork::Named(network) => format!("network {network}"),
        };
        return Err(TapsError::NotYet {
            nic: nic.name.clone(),
            network,
        });
    }
    Ok(BTreeMap::new())
}
