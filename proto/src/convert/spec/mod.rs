//! What is wanted of a VM.

mod devices;
mod read;
mod write;

#[cfg(test)]
mod tests;

use plasmavmc_types::{Invalid, MacAddress, VmId, VmRef, VmSpec};

use crate::api;

/// Reads what a client wrote: VMs may be named by number or name, and are looked up; NICs without an address
/// get a new one.
pub fn spec_from_api(
    spec: api::VmSpec,
    resolve: impl Fn(&VmRef) -> Option<VmId>,
    mut new_mac: impl FnMut() -> MacAddress,
) -> Result<VmSpec, Invalid> {
    let find = |text: &str| {
        let reference: VmRef = text.parse().map_err(|invalid: Invalid| invalid.to_string())?;
        resolve(&reference).ok_or_else(|| format!("is {text}, and there is no such VM"))
    };
    read::read(spec, &find, &mut || Some(new_mac()))
}

/// Reads what was stored: VMs are ids, and every NIC has its address.
impl TryFrom<api::VmSpec> for VmSpec {
    type Error = Invalid;

    fn try_from(spec: api::VmSpec) -> Result<Self, Invalid> {
        let find = |text: &str| text.parse::<VmId>().map_err(|invalid| invalid.to_string());
        read::read(spec, &find, &mut || None)
    }
}
