//! Guests with a disk on a pool that all hosts share, which count on it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use plasmavmc_proto::api::{CreateVmRequest, Disk, DiskFormat, DiskLocation, HaPolicy, Volume, disk_location};

use super::{Entry, Reader};
use crate::cluster::lab::SHARED_POOL;
use crate::cluster::{HostedCluster, micro, until};

/// A guest boots under TCG, on a machine that is busy.
const COUNTS_WITHIN: Duration = Duration::from_secs(120);
const DISK_MB: u64 = 8;

/// A guest that counts on its disk from its boot on; the disk is called as the VM is.
pub fn counting(name: &str) -> Result<CreateVmRequest> {
    let mut request = micro(name, "micro.do=count-disk")?;
    let volume = Volume {
        pool: SHARED_POOL.to_owned(),
        volume: name.to_owned(),
    };
    let mut disk = Disk {
        name: "data".to_owned(),
        location: Some(DiskLocation {
            location: Some(disk_location::Location::Volume(volume)),
        }),
        size_mb: DISK_MB,
        ..Disk::default()
    };
    disk.set_format(DiskFormat::Raw);
    request.disks = vec![disk];
    request.set_ha(HaPolicy::On);
    Ok(request)
}

/// Reads the disk of such a VM from now on.
pub fn read(cluster: &HostedCluster, name: &str) -> Result<Reader> {
    let entries = std::fs::read_dir(cluster.shared_pool()?)?.flatten();
    let mut files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    let is_it = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == name);
    let image = files.find(is_it).with_context(|| format!("no image of {name}"))?;
    Ok(Reader::of(&image))
}

/// Waits until the newest write is as wanted; answers it.
pub async fn until_counted(reader: &Reader, what: &str, wanted: impl Fn(&Entry) -> bool) -> Result<Entry> {
    until(what, COUNTS_WITHIN, async || {
        let ledger = reader.ledger();
        match ledger.newest() {
            Some(entry) if wanted(entry) => Ok(entry.clone()),
            _ => Err(format!("{ledger:?}")),
        }
    })
    .await
}
