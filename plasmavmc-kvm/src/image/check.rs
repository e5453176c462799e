//! Whether an image can be used as the specification says, before anything is started.

use std::path::Path;

use plasmavmc_types::{Cdrom, Disk, DiskFormat, DiskLocation};

use super::QemuImg;
use super::header::{Qcow2Header, guess_format};
use super::probe::{Look, Use, look};
use crate::argv::{Placed, PlacedImage};
use crate::refused::{FormatName, Reason, Refused};

const MIB: u64 = 1 << 20;

/// One image of a chain, with what is said of it.
struct Layer<'a> {
    field: String,
    location: &'a DiskLocation,
    format: DiskFormat,
    /// The size that the specification gives it, if it does.
    size_mb: Option<u64>,
    intended: Use,
}

impl QemuImg {
    /// Checks a disk and all that it stands on, from the bottom up. Returns where the images are and on
    /// what medium, for [`Placed`].
    pub async fn check_disk(&self, field: &str, disk: &Disk, placed: &Placed) -> Result<Vec<PlacedImage>, Refused> {
        let is_direct = disk.cache.is_direct();
        let own = Layer {
            field: format!("{field}.location"),
            location: &disk.location,
            format: disk.format,
            size_mb: Some(disk.size_mb),
            intended: Use {
                writes: !disk.read_only,
                is_direct,
            },
        };
        let backing = disk.backing.iter().enumerate().map(|(index, image)| Layer {
            field: format!("{field}.backing[{index}].location"),
            location: &image.location,
            format: image.format,
            size_mb: None,
            intended: Use {
                writes: false,
                is_direct,
            },
        });
        let layers: Vec<Layer> = std::iter::once(own).chain(backing).collect();
        let mut found = Vec::new();
        let mut below = None;
        for layer in layers.iter().rev() {
            let image = self
                .check_layer(layer, below, placed)
                .await
                .map_err(|refused| name_field(refused, field))?;
            found.push(image);
            below = found.last().map(|image: &PlacedImage| image.path.clone());
        }
        Ok(found)
    }

    /// Checks the image in a CD-ROM drive, if there is one.
    pub async fn check_cdrom(
        &self,
        field: &str,
        cdrom: &Cdrom,
        placed: &Placed,
    ) -> Result<Option<PlacedImage>, Refused> {
        let Some(location) = &cdrom.image else {
            return Ok(None);
        };
        let layer = Layer {
            field: format!("{field}.image"),
            location,
            format: DiskFormat::Raw,
            size_mb: None,
            intended: Use {
                writes: false,
                is_direct: false,
            },
        };
        self.check_layer(&layer, None, placed).await.map(Some)
    }

    async fn check_layer(
        &self,
        layer: &Layer<'_>,
        below: Option<std::path::PathBuf>,
        placed: &Placed,
    ) -> Result<PlacedImage, Refused> {
        let refuse = |reason| Refused::new(layer.field.as_str(), reason);
        let (path, _) = placed.resolve(&layer.field, layer.location)?;
        let seen = look(path, layer.intended).await.map_err(refuse)?;
        match layer.format {
            DiskFormat::Raw => judge_raw(layer, path, &seen).map_err(refuse)?,
            DiskFormat::Qcow2 => {
                judge_qcow2(layer, path, &seen, below.as_deref()).map_err(refuse)?;
                self.inspect(&layer.field, path, layer.format, seen.medium).await?;
            }
        }
        Ok(PlacedImage {
            location: layer.location.clone(),
            path: path.to_owned(),
            medium: seen.medium,
        })
    }
}

/// The field that has to be changed is not always the path.
fn name_field(mut refused: Refused, disk: &str) -> Refused {
    let other = match refused.reason {
        Reason::WrongFormat { .. } if refused.field == format!("{disk}.location") => "format",
        Reason::SizeDiffers { .. } => "size_mb",
        Reason::NoDirectIo { .. } => "cache",
        Reason::BackingDiffers { .. } | Reason::BackingUnused { .. } => "backing",
        _ => return refused,
    };
    refused.field = format!("{disk}.{other}");
    refused
}

/// A raw image is whatever the guest wrote, and a guest may write a qcow2 header into its disk. It cannot
/// change the length of the file, though: a header in a file of another length is a format set wrongly.
fn judge_raw(layer: &Layer, path: &Path, seen: &Look) -> Result<(), Reason> {
    let size = check_size(layer, path, seen.bytes);
    let is_written_by_a_guest = layer.size_mb.is_some() && size.is_ok();
    if Qcow2Header::read(&seen.head).is_some() && !is_written_by_a_guest {
        return Err(wrong_format(layer, path, seen));
    }
    size
}

fn judge_qcow2(layer: &Layer, path: &Path, seen: &Look, below: Option<&Path>) -> Result<(), Reason> {
    let path_buf = || path.to_owned();
    let header = match Qcow2Header::read(&seen.head) {
        None => return Err(wrong_format(layer, path, seen)),
        Some(header) => header.map_err(|problem| Reason::Corrupt {
            path: path_buf(),
            problem: problem.to_owned(),
        })?,
    };
    if header.is_corrupt {
        let problem = "QEMU marked it so when it found that out".to_owned();
        return Err(Reason::Corrupt {
            path: path_buf(),
            problem,
        });
    }
    if header.is_encrypted {
        let (expected, found) = (FormatName(layer.format), "an encrypted qcow2".to_owned());
        return Err(Reason::WrongFormat {
            path: path_buf(),
            expected,
            found,
        });
    }
    if header.has_external_data {
        return Err(Reason::ExternalData { path: path_buf() });
    }
    match (&header.backing, below) {
        (None, None) => {}
        (None, Some(named)) => {
            return Err(Reason::BackingUnused {
                path: path_buf(),
                named: named.to_owned(),
            });
        }
        (Some(_), Some(named)) if header.stands_on(path, named) => {}
        (Some(found), named) => {
            let (found, named) = (found.clone(), named.map(Path::to_owned));
            return Err(Reason::BackingDiffers {
                path: path_buf(),
                found,
                named,
            });
        }
    }
    check_size(layer, path, header.size_bytes)
}

/// Images from elsewhere need not end on a whole MiB.
fn check_size(layer: &Layer, path: &Path, found_bytes: u64) -> Result<(), Reason> {
    match layer.size_mb {
        Some(size_mb) if found_bytes.div_ceil(MIB) != size_mb => Err(Reason::SizeDiffers {
            path: path.to_owned(),
            wanted_bytes: size_mb.saturating_mul(MIB),
            found_bytes,
        }),
        _ => Ok(()),
    }
}

fn wrong_format(layer: &Layer, path: &Path, seen: &Look) -> Reason {
    Reason::WrongFormat {
        path: path.to_owned(),
        expected: FormatName(layer.format),
        found: guess_format(&seen.head).to_owned(),
    }
}
