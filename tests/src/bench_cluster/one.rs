//! One VM: from the order to a guest that executes, beside libvirt, round by round.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plasmavmc_kvm::image::QemuImg;
use plasmavmc_proto::api::{CreateVmRequest, Disk, DiskLocation, Display, disk_location::Location, vm::State};
use plasmavmc_types::DiskFormat;

use super::Figures;
use crate::bench_vm::libvirt::Libvirt;
use crate::bench_vm::{MEMORY_MB, millis, percentile, rounded};
use crate::cluster::{Client, Cluster, bare, describe};

const DISK_MB: u64 = 1024;

pub async fn measure(cluster: &Cluster, rounds: usize, figures: &mut Figures) -> Result<()> {
    let folder = cluster.folder().join("one");
    std::fs::create_dir_all(&folder)?;
    let image = folder.join("disk.qcow2");
    let img = QemuImg::find(None).await?;
    img.create("disks[0].location", &image, DiskFormat::Qcow2, DISK_MB)
        .await?;
    let peer = Libvirt::start(&folder, &image).await?;
    let follower = follower(cluster).await?;
    let mut request = bare("bench-one");
    request.memory_mb = MEMORY_MB;
    request.rng = None;
    request.balloon = None;
    request.pvpanic = None;
    request.set_display(Display::Vnc);
    request.disks.push(Disk {
        name: "root".to_owned(),
        location: Some(DiskLocation {
            location: Some(Location::Path(image.to_string_lossy().into_owned())),
        }),
        size_mb: DISK_MB,
        ..Disk::default()
    });
    request.wait = true;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // Round 0 warms both up.
    for round in 0..=rounds {
        for side in [round % 2, 1 - round % 2] {
            let took = if side == 0 {
                our_round(&follower, &request).await?
            } else {
                peer.running_round().await?.0
            };
            if round > 0 {
                if side == 0 { &mut ours } else { &mut theirs }.push(took);
            }
        }
    }
    let (our, their) = (percentile(&mut ours, 0.5), percentile(&mut theirs, 0.5));
    let worst = percentile(&mut ours, 0.99);
    eprintln!(
        "create to running: {our:.1} ms (p99 {worst:.1}) through a follower, libvirt {their:.1} ms, ratio {:.3}",
        our / their
    );
    for (key, value) in [
        ("create_to_running_p50_ms", our),
        ("create_to_running_p99_ms", worst),
        ("peer_create_ms", their),
        ("create_ratio", our / their),
    ] {
        figures.insert(key, rounded(value));
    }
    figures.insert("rounds", rounds.into());
    Ok(())
}

/// A node that does not lead, on whose way to the leader is one hop more.
async fn follower(cluster: &Cluster) -> Result<Client> {
    let leader = cluster.leader(&cluster.client(0)?).await?;
    cluster.others(leader).first().context("a follower")?.client()
}

async fn our_round(client: &Client, request: &CreateVmRequest) -> Result<f64> {
    let begun = Instant::now();
    let vm = client.create(request.clone()).await?;
    let took = millis(begun.elapsed());
    ensure!(vm.state() == State::Running, "{}", describe(&vm));
    client.delete(&vm.id, true).await?;
    Ok(took)
}
