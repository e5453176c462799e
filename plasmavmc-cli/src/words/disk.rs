//! Disks: `path=/x.qcow2,size=10G`, or `pool=default,volume=web-root,size=10G,from=/images/debian.qcow2`.

use plasmavmc_proto::api::{
    BackingImage, Disk, DiskAio, DiskBus, DiskCache, DiskDiscard, DiskFormat, DiskLocation, Volume, disk_location,
};

use super::pairs::Pairs;
use super::size::parse_size_mb;

const KEYS: &[&str] = &[
    "path",
    "pool",
    "volume",
    "size",
    "from",
    "from-format",
    "format",
    "bus",
    "cache",
    "aio",
    "discard",
    "serial",
    "name",
];
const FORMATS: &[(&str, DiskFormat)] = &[("qcow2", DiskFormat::Qcow2), ("raw", DiskFormat::Raw)];
const BUSES: &[(&str, DiskBus)] = &[
    ("virtio-blk", DiskBus::VirtioBlk),
    ("virtio-scsi", DiskBus::VirtioScsi),
    ("sata", DiskBus::Sata),
];
const CACHES: &[(&str, DiskCache)] = &[
    ("none", DiskCache::None),
    ("writeback", DiskCache::Writeback),
    ("writethrough", DiskCache::Writethrough),
    ("directsync", DiskCache::Directsync),
    ("unsafe", DiskCache::Unsafe),
];
const AIOS: &[(&str, DiskAio)] = &[
    ("threads", DiskAio::Threads),
    ("native", DiskAio::Native),
    ("io-uring", DiskAio::IoUring),
];
const DISCARDS: &[(&str, DiskDiscard)] = &[("unmap", DiskDiscard::Unmap), ("ignore", DiskDiscard::Ignore)];

/// A disk as it was written. It gets a name, and a volume its own, once the VM's name is known.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskWords {
    disk: Disk,
}

impl DiskWords {
    /// The disk at this place of the VM's list.
    pub fn named(mut self, vm: &str, index: usize) -> Disk {
        if self.disk.name.is_empty() {
            self.disk.name = format!("disk{index}");
        }
        let location = self
            .disk
            .location
            .as_mut()
            .and_then(|location| location.location.as_mut());
        if let Some(disk_location::Location::Volume(volume)) = location
            && volume.volume.is_empty()
        {
            volume.volume = format!("{vm}-{}", self.disk.name);
        }
        self.disk
    }
}

/// Reads one `--disk`.
pub fn parse_disk(text: &str) -> Result<DiskWords, String> {
    let mut pairs = Pairs::parse(text, KEYS, &["readonly"])?;
    let location = location(&mut pairs)?;
    let size = pairs.take("size").ok_or("the size is missing; add size=10G")?;
    let size_mb = parse_size_mb(size).map_err(|problem| format!("size {problem}"))?;
    if size_mb == 0 {
        return Err("size is 0; a disk has at least 1M".to_owned());
    }
    let disk = Disk {
        name: pairs.take("name").unwrap_or_default().to_owned(),
        location: Some(location),
        format: pairs.take_word("format", FORMATS)?.unwrap_or_default().into(),
        size_mb,
        bus: pairs.take_word("bus", BUSES)?.unwrap_or_default().into(),
        read_only: pairs.take_flag("readonly")?,
        backing: backing(&mut pairs)?,
        cache: pairs.take_word("cache", CACHES)?.unwrap_or_default().into(),
        aio: pairs.take_word("aio", AIOS)?.unwrap_or_default().into(),
        discard: pairs.take_word("discard", DISCARDS)?.unwrap_or_default().into(),
        serial: pairs.take("serial").unwrap_or_default().to_owned(),
    };
    Ok(DiskWords { disk })
}

fn location(pairs: &mut Pairs<'_>) -> Result<DiskLocation, String> {
    let has_volume = pairs.has("volume");
    let location = match (pairs.take("path"), pairs.take("pool")) {
        (Some(_), Some(_)) => return Err("path and pool are both given; a disk is in one place".to_owned()),
        (Some(_), None) if has_volume => return Err("volume needs pool, and excludes path".to_owned()),
        (Some(path), None) => file(path, "path")?,
        (None, Some(pool)) => disk_location::Location::Volume(Volume {
            pool: pool.to_owned(),
            volume: pairs.take("volume").unwrap_or_default().to_owned(),
        }),
        (None, None) if has_volume => return Err("volume needs pool; add pool=default".to_owned()),
        (None, None) => {
            return Err("it is not said where the disk is; add path=/file.qcow2 or pool=default".to_owned());
        }
    };
    Ok(DiskLocation {
        location: Some(location),
    })
}

/// `from=/image.qcow2`, or `from=POOL:VOLUME`.
fn backing(pairs: &mut Pairs<'_>) -> Result<Vec<BackingImage>, String> {
    let format = pairs.take_word("from-format", FORMATS)?;
    let Some(from) = pairs.take("from") else {
        return match format {
            Some(_) => Err("from-format is given without from".to_owned()),
            None => Ok(Vec::new()),
        };
    };
    let location = match from.split_once(':') {
        Some((pool, volume)) if !from.starts_with('/') && !pool.is_empty() && !volume.is_empty() => {
            disk_location::Location::Volume(Volume {
                pool: pool.to_owned(),
                volume: volume.to_owned(),
            })
        }
        _ => file(from, "from")?,
    };
    let image = BackingImage {
        location: Some(DiskLocation {
            location: Some(location),
        }),
        format: format.unwrap_or_default().into(),
    };
    Ok(vec![image])
}

/// A host reads it, not this command: what is relative to here means nothing there.
fn file(path: &str, key: &str) -> Result<disk_location::Location, String> {
    if path.starts_with('/') {
        Ok(disk_location::Location::Path(path.to_owned()))
    } else {
        Err(format!("{key} is {path:?}; a host needs an absolute path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Disk) {
        assert_eq!(
            parse_disk(text).map(|words| words.named("web", 1)),
            Ok(expected),
            "{text}"
        );
    }

    fn at_path(path: &str) -> Option<DiskLocation> {
        Some(DiskLocation {
            location: Some(disk_location::Location::Path(path.to_owned())),
        })
    }

    fn in_pool(pool: &str, volume: &str) -> Option<DiskLocation> {
        let volume = Volume {
            pool: pool.to_owned(),
            volume: volume.to_owned(),
        };
        Some(DiskLocation {
            location: Some(disk_location::Location::Volume(volume)),
        })
    }

    #[test]
    fn disks_are_read() {
        let named = |name: &str, location| Disk {
            name: name.to_owned(),
            location,
            size_mb: 10_240,
            ..Disk::default()
        };
        check("path=/x.qcow2,size=10G", named("disk1", at_path("/x.qcow2")));
        check("pool=default,size=10G", named("disk1", in_pool("default", "web-disk1")));
        check(
            "pool=default,volume=v,size=10G,name=root",
            named("root", in_pool("default", "v")),
        );
        let image = |location| BackingImage { location, format: 0 };
        check(
            "pool=p,volume=v,size=10G,from=/image.qcow2",
            Disk {
                backing: vec![image(at_path("/image.qcow2"))],
                ..named("disk1", in_pool("p", "v"))
            },
        );
        check(
            "pool=p,volume=v,size=10G,from=p:golden",
            Disk {
                backing: vec![image(in_pool("p", "golden"))],
                ..named("disk1", in_pool("p", "v"))
            },
        );
        let full = "path=/x,size=10G,format=raw,bus=virtio-scsi,readonly,cache=directsync,aio=native,discard=ignore,\
                    serial=S1";
        check(
            full,
            Disk {
                format: DiskFormat::Raw.into(),
                bus: DiskBus::VirtioScsi.into(),
                read_only: true,
                cache: DiskCache::Directsync.into(),
                aio: DiskAio::Native.into(),
                discard: DiskDiscard::Ignore.into(),
                serial: "S1".to_owned(),
                ..named("disk1", at_path("/x"))
            },
        );
    }

    #[test]
    fn what_is_no_disk_is_told_why() {
        let table = [
            ("", "nothing between two commas"),
            ("/x.qcow2", "\"/x.qcow2\" is unknown; path=, pool="),
            ("path=/x", "the size is missing; add size=10G"),
            ("size=10G", "not said where the disk is"),
            ("path=x,size=1G", "path is \"x\"; a host needs an absolute path"),
            ("path=/x,pool=p,size=1G", "path and pool are both given"),
            ("path=/x,volume=v,size=1G", "volume needs pool, and excludes path"),
            ("volume=v,size=1G", "volume needs pool; add pool=default"),
            ("path=/x,size=10", "size \"10\" has no unit"),
            ("path=/x,size=0M", "size is 0"),
            ("path=/x,size=1G,size=2G", "size is given twice"),
            ("path=/x,size=", "size has no value"),
            ("path=/x,size", "size has no value; write size=..."),
            ("path=/x,size=1G,", "nothing between two commas"),
            ("path=/x,size=1G,colour=red", "\"colour\" is unknown"),
            (
                "path=/x,size=1G,format=vmdk",
                "format is \"vmdk\"; qcow2, raw are allowed",
            ),
            ("path=/x,size=1G,bus=ide", "bus is \"ide\"; virtio-blk"),
            (
                "path=/x,size=1G,readonly=maybe",
                "readonly is \"maybe\"; true, false are allowed",
            ),
            (
                "path=/x,size=1G,from=image",
                "from is \"image\"; a host needs an absolute path",
            ),
            ("path=/x,size=1G,from-format=raw", "from-format is given without from"),
        ];
        for (text, says) in table {
            let error = parse_disk(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
