//! `bench vm`: starting and ending one VM beside libvirt, and one process that holds many.
//!
//! Both sides start the same QEMU with the same disk and devices, stopped before its first instruction, in
//! turn, round after round: only the ratios of one run mean anything. libvirt is used as its users do, through
//! `virsh`, whose own start (some milliseconds) is part of its time.

mod holder;
pub(crate) mod libvirt;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_kvm::image::QemuImg;
use plasmavmc_types::{Disk, DiskFormat};
use serde_json::Value;

use crate::vms::{Place, disk, paused};
use libvirt::Libvirt;

pub use holder::{Hold, hold};

const DISK_MB: u64 = 1024;
pub(crate) const MEMORY_MB: u64 = 64;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Fewer rounds, fewer VMs.
    #[arg(long)]
    pub quick: bool,
    /// How many VMs one process holds.
    #[arg(long)]
    pub held: Option<usize>,
}

/// Milliseconds of one thing, round by round.
#[derive(Debug, Default)]
struct Times {
    start: Vec<f64>,
    destroy: Vec<f64>,
}

/// Runs everything and answers the figures by name.
pub async fn run(options: &Options) -> Result<BTreeMap<&'static str, Value>> {
    let rounds = if options.quick { 5 } else { 20 };
    let count = options.held.unwrap_or(if options.quick { 50 } else { 200 });
    let mut figures = BTreeMap::new();
    beside_libvirt(rounds, &mut figures).await.context("beside libvirt")?;
    holder::measure(count, &mut figures).await.context("many VMs")?;
    Ok(figures)
}

async fn beside_libvirt(rounds: usize, figures: &mut BTreeMap<&'static str, Value>) -> Result<()> {
    let place = Place::new().await?;
    let image = place.folder().join("disk.qcow2");
    QemuImg::find(None)
        .await?
        .create("disks[0].location", &image, DiskFormat::Qcow2, DISK_MB)
        .await?;
    let root = disk("root", &image, DiskFormat::Qcow2, DISK_MB)?;
    let peer = Libvirt::start(place.folder(), &image).await?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    // Round 0 warms both up.
    for round in 0..=rounds {
        for side in [round % 2, 1 - round % 2] {
            let (start, destroy) = if side == 0 {
                our_round(&place, &root).await?
            } else {
                peer.round().await?
            };
            if round > 0 {
                let times = if side == 0 { &mut ours } else { &mut theirs };
                times.start.push(start);
                times.destroy.push(destroy);
            }
        }
    }
    for (name, ours, theirs) in [
        ("start", &mut ours.start, &mut theirs.start),
        ("destroy", &mut ours.destroy, &mut theirs.destroy),
    ] {
        let (our, their) = (percentile(ours, 0.5), percentile(theirs, 0.5));
        eprintln!(
            "{name:8} ours {our:7.1} ms   libvirt {their:7.1} ms   ratio {:.3}   (medians of {rounds})",
            our / their
        );
        let keys = if name == "start" {
            ["start_ms", "peer_start_ms", "start_ratio"]
        } else {
            ["destroy_ms", "peer_destroy_ms", "destroy_ratio"]
        };
        for (key, value) in keys.into_iter().zip([our, their, our / their]) {
            figures.insert(key, rounded(value));
        }
    }
    figures.insert("rounds", rounds.into());
    Ok(())
}

/// From the order to QMP's answer, and from the order to the end of the process.
async fn our_round(place: &Place, root: &Disk) -> Result<(f64, f64)> {
    let spec = paused("bench")?.edit(|fields| {
        fields.memory_mb = MEMORY_MB;
        fields.disks.push(root.clone());
    })?;
    let begun = Instant::now();
    let machine = place.launch(spec).await?;
    let start = millis(begun.elapsed());
    let begun = Instant::now();
    machine.kill().await?;
    let destroy = millis(begun.elapsed());
    ensure!(place.qemus().is_empty(), "a QEMU is left");
    Ok((start, destroy))
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn rounded(value: f64) -> Value {
    ((value * 1000.0).round() / 1000.0).into()
}

/// The value below which that share of them lies.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = (last as f64 * share).ceil() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_round_up() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&mut values, 0.5), 3.0);
        assert_eq!(percentile(&mut values, 0.99), 4.0);
        assert_eq!(percentile(&mut values, 0.0), 1.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
