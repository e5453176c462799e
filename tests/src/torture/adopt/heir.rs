//! The process that comes after: it inherits, tells what it found, and ends every VM.

use std::time::Instant;

use anyhow::{Context, Result};
use plasmavmc_kvm::adopt::inherit;

use super::{At, Testimony};
use crate::vms::Place;

pub async fn run(at: &At) -> Result<()> {
    let place = Place::at(&at.dir).await?;
    let begun = Instant::now();
    let inheritance = inherit(place.host()).await?;
    let inherit_ms = begun.elapsed().as_millis();
    let mut testimony = Testimony {
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
        inherit_ms,
        end_ms: 0,
    };
    let begun = Instant::now();
    for machine in inheritance.machines {
        machine.kill().await.context("ending a VM")?;
    }
    testimony.end_ms = begun.elapsed().as_millis();
    println!("{}", serde_json::to_string(&testimony)?);
    Ok(())
}
