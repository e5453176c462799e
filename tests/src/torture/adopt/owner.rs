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
    // Each step is told before it begins: if this process hangs, the last one says where.
    let step = |name: &str| println!("{name}");
    step("launch");
    let machine = place.launch(spec).await?;
    step("cont");
    machine.cont().await?;
    match at.script % 3 {
        0 => {
            step("stop");
            // The end of the guard, or of this process, may come first.
            let _ = machine.stop(STOP).await;
        }
        1 => {
            step("pause");
            machine.pause().await?;
            step("resume");
            machine.resume().await?;
            step("wait");
            tokio::time::sleep(STOP).await;
        }
        _ => {
            step("kill");
            machine.kill().await?;
        }
    }
    step("close");
    machine.close().await;
    step("end");
    Ok(())
}
