//! The process that comes after: it inherits, tells what it found, and ends every VM.

use anyhow::{Context, Result};
use plasmavmc_kvm::adopt::inherit;

use super::{At, Testimony};
use crate::vms::Place;

pub async fn run(at: &At) -> Result<()> {
    let place = Place::at(&at.dir).await?;
    let inheritance = inherit(place.host()).await?;
    let testimony = Testimony {
        machines: inheritance
            .machines
            .iter()
            .map(|machine| {
                let state = machine.state();
                let state = state.borrow();
                (format!("{:?}", state.phase), state.pid)
            })
            .collect(),
        ended: inheritance.ended.len(),
        cleared: inheritance.cleared.len(),
        left_alone: inheritance
            .left_alone
            .iter()
            .map(|(vm, reason)| format!("{vm}: {reason}"))
            .collect(),
    };
    for machine in inheritance.machines {
        machine.kill().await.context("ending a VM")?;
    }
    println!("{}", serde_json::to_string(&testimony)?);
    Ok(())
}
