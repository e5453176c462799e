//! Requests that tests start from.

use anyhow::{Context, Result};
use plasmavmc_proto::api::{AgentPolicy, CreateVmRequest, DirectBoot, Display, HaPolicy};

use crate::vms::guest;

/// The micro guest, which has a guest agent. `words` are what it shall do, as its init takes them on the
/// kernel's command line.
pub fn micro(name: &str, words: &str) -> Result<CreateVmRequest> {
    let folder = guest("micro")?;
    let own = std::fs::read_to_string(folder.join("cmdline")).context("reading the guest's command line")?;
    let path = |file: &str| folder.join(file).to_string_lossy().into_owned();
    let mut request = bare(name);
    request.memory_mb = 256;
    request.direct_boot = Some(DirectBoot {
        kernel: path("kernel"),
        initrd: path("initrd"),
        cmdline: format!("{} {words}", own.trim()).trim().to_owned(),
    });
    request.set_agent(AgentPolicy::Required);
    Ok(request)
}

/// A VM without a guest: as small as QEMU takes it, and nobody in it to ask.
pub fn bare(name: &str) -> CreateVmRequest {
    let mut request = CreateVmRequest {
        name: name.to_owned(),
        vcpus: 1,
        memory_mb: 16,
        rng: Some(false),
        balloon: Some(false),
        pvpanic: Some(false),
        ..CreateVmRequest::default()
    };
    request.set_display(Display::None);
    request.set_agent(AgentPolicy::None);
    request.set_ha(HaPolicy::Off);
    request
}
