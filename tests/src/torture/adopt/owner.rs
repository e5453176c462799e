//! The process that is killed: it starts a VM, lets it run, and stops it, at an even pace.

use std::time::Duration;

use anyhow::Result;
use plasmavmc_types::AgentPolicy;

use super::At;
use crate::vms::{Place, paused};

/// A guest without a system answers no button: a graceful stop is under way until its deadline.
const STOP: Duration = Duration::from_millis(300);

pub async fn run(at: &At) -> Result<()> {
    let place = Place::at(&at.dir).await?;
    let spec = paused("victim")?.edit(|fields| fields.agent = AgentPolicy::None)?;
    let machine = place.launch(spec).await?;
    machine.cont().await?;
    match at.script % 3 {
        0 => {
            // The end of the guard, or of this process, may come first.
            let _ = machine.stop(STOP).await;
        }
        1 => {
            machine.pause().await?;
            machine.resume().await?;
            tokio::time::sleep(STOP).await;
        }
        _ => machine.kill().await?,
    }
    machine.close().await;
    Ok(())
}
