//! Where the volumes of a pool lie on this host: a volume is a file of its own name in the pool's folder.
//!
//! Must never: follow a volume's name out of its pool (a [`Label`] has no slash and no dot to lead there).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use plasmavmc_kvm::argv::{Medium, PlacedImage};
use plasmavmc_types::{DiskLocation, PoolName, VmSpec};

/// A pool of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub folder: PathBuf,
    /// The same folder on every host that has a pool of this name.
    pub is_shared: bool,
}

/// The pools of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools(BTreeMap<PoolName, Pool>);

impl Pools {
    pub fn new(pools: BTreeMap<PoolName, Pool>) -> Self {
        Self(pools)
    }

    /// Those that are there now: a pool whose folder is gone is not offered. Touches the pools, so it may hang with
    /// their storage.
    pub fn present(&self) -> Vec<PoolName> {
        let present = self.0.iter().filter(|(_, pool)| pool.folder.is_dir());
        present.map(|(name, _)| name.clone()).collect()
    }

    /// Those that are marked as shared, whether they proved to be or not.
    pub fn shared(&self) -> impl Iterator<Item = (&PoolName, &Path)> {
        let shared = self.0.iter().filter(|(_, pool)| pool.is_shared);
        shared.map(|(name, pool)| (name, pool.folder.as_path()))
    }

    /// The folders of shared pools that hold disks which the VM writes.
    pub fn shared_below(&self, spec: &VmSpec) -> Vec<PathBuf> {
        let is_below = |name: &PoolName| {
            let mut written = spec.disks.iter().filter(|disk| !disk.read_only);
            written.any(|disk| matches!(&disk.location, DiskLocation::Volume { pool, .. } if pool == name))
        };
        let below = self.shared().filter(|(name, _)| is_below(name));
        below.map(|(_, folder)| folder.to_owned()).collect()
    }

    /// Every volume that a VM names, with its path here. A pool that is not known here is left out: whoever
    /// needs the volume says so, and names the field.
    pub fn place(&self, spec: &VmSpec) -> Vec<PlacedImage> {
        let disks = spec.disks.iter().flat_map(|disk| {
            let backing = disk.backing.iter().map(|image| &image.location);
            std::iter::once(&disk.location).chain(backing)
        });
        let images = spec.cdroms.iter().filter_map(|cdrom| cdrom.image.as_ref());
        let locations: BTreeSet<&DiskLocation> = disks.chain(images).collect();
        locations
            .into_iter()
            .filter_map(|location| self.find(location))
            .collect()
    }

    fn find(&self, location: &DiskLocation) -> Option<PlacedImage> {
        let DiskLocation::Volume { pool, volume } = location else {
            return None;
        };
        Some(PlacedImage {
            location: location.clone(),
            path: self.0.get(pool)?.folder.join(volume.as_str()),
            medium: Medium::File,
        })
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::{Disk, Label, VmName, VmSpecFields};

    use super::*;

    fn volume(pool: &str, volume: &str) -> DiskLocation {
        DiskLocation::Volume {
            pool: PoolName::new(pool).unwrap(),
            volume: Label::new(volume).unwrap(),
        }
    }

    #[test]
    fn a_volume_is_a_file_in_the_folder_of_its_pool() {
        let folder = tempfile::tempdir().unwrap();
        let name = PoolName::new("default").unwrap();
        let away = PoolName::new("away").unwrap();
        let at = |folder: &std::path::Path| Pool {
            folder: folder.to_owned(),
            is_shared: true,
        };
        let pools = Pools::new(BTreeMap::from([
            (name.clone(), at(folder.path())),
            (away, at(&folder.path().join("missing"))),
        ]));
        assert_eq!(pools.present(), [name]);
        let mut fields = VmSpecFields::new(VmName::new("vm").unwrap(), 1, 64);
        fields.disks = vec![
            Disk::new(Label::new("root").unwrap(), volume("default", "root"), 8),
            Disk::new(Label::new("data").unwrap(), volume("unknown", "data"), 8),
        ];
        let placed = pools.place(&VmSpec::new(fields).unwrap());
        assert_eq!(placed.len(), 1);
        assert_eq!(placed[0].path, folder.path().join("root"));
    }

    #[test]
    fn claims_lie_in_the_shared_pools_that_a_vm_writes_to() {
        let pool = |is_shared| Pool {
            folder: PathBuf::from(if is_shared { "/shared" } else { "/own" }),
            is_shared,
        };
        let names = ["own", "shared", "other", "seed"];
        let pools = names.map(|name| (PoolName::new(name).unwrap(), pool(name != "own")));
        let pools = Pools::new(BTreeMap::from(pools));
        let mut fields = VmSpecFields::new(VmName::new("vm").unwrap(), 1, 64);
        let disk = |pool: &str| Disk::new(Label::new(format!("on-{pool}")).unwrap(), volume(pool, "v"), 8);
        fields.disks = vec![disk("own"), disk("shared"), disk("seed")];
        fields.disks[2].read_only = true;
        let below = pools.shared_below(&VmSpec::new(fields).unwrap());
        assert_eq!(below, [PathBuf::from("/shared")]);
        assert_eq!(pools.shared().count(), 3);
    }
}
