//! Makes images, and makes them larger.
//!
//! ```text
//!   nothing --create, clone--> .NAME.partial.N --synced, linked--> NAME --resize--> NAME, larger
//!      ^                            |
//!      +---- failed, cancelled -----+   what a crash leaves is removed by a later try
//! ```
//!
//! It has to work on NFS, too. So there is no `flock` on what `qemu-img` opens, since there it would be in
//! the way of QEMU's own locks, and no renaming that must not replace, since there is none.

use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plasmavmc_types::DiskFormat;
use rustix::fs::{CWD, RenameFlags};

use super::header::Qcow2Header;
use super::probe::{Use, look, within_deadline};
use super::{ImageInfo, QemuImg, lone_node};
use crate::argv::Medium;
use crate::program::{Limits, ProgramError, run};
use crate::refused::{FormatName, Reason, Refused};

const MIB: u64 = 1 << 20;
/// With less than this, not even an empty image is made.
const MIN_FREE_BYTES: u64 = 4 * MIB;

/// How many may make the same image at once; one of them wins.
const MAX_AT_ONCE: u32 = 16;
/// Much longer than it takes to make one.
const STALE_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something that the caller can change.
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("qemu-img could not make {}: {complaint}", path.display())]
    Failed { path: PathBuf, complaint: String },
}

impl QemuImg {
    /// Makes an empty image. `field` is what the caller calls it, for refusals.
    pub async fn create(&self, field: &str, path: &Path, format: DiskFormat, size_mb: u64) -> Result<(), ImageError> {
        let name = FormatName(format).to_string();
        self.make(field, path, size_mb, &["-f", &name]).await
    }

    /// Makes a qcow2 image that stands on another one, which must not be written from now on. Without a
    /// size it is as large as that one.
    pub async fn clone_linked(
        &self,
        field: &str,
        path: &Path,
        base: (&Path, DiskFormat),
        size_mb: Option<u64>,
    ) -> Result<(), ImageError> {
        let (base, format) = base;
        let refuse = |reason| Refused::new(field, reason);
        let base_bytes = size_of(field, base, format, false).await?.bytes;
        let base_mb = base_bytes.div_ceil(MIB);
        let size_mb = size_mb.unwrap_or(base_mb);
        if size_mb < base_mb {
            let (path, wanted_bytes) = (base.to_owned(), size_mb.saturating_mul(MIB));
            let found_bytes = base_bytes;
            return Err(refuse(Reason::WouldShrink {
                path,
                wanted_bytes,
                found_bytes,
            })
            .into());
        }
        let Some(text) = base.to_str().filter(|_| base.is_absolute()) else {
            let (text, problem) = (base.to_string_lossy().into_owned(), "is no absolute path in UTF-8");
            return Err(refuse(Reason::UnsafeText { text, problem }).into());
        };
        let name = FormatName(format).to_string();
        // -u: it does not open the other image, nor what that one names.
        self.make(field, path, size_mb, &["-f", "qcow2", "-u", "-F", &name, "-b", text])
            .await
    }

    /// Makes an image larger that nobody uses. One that is in use is resized by its QEMU.
    pub async fn resize(
        &self,
        field: &str,
        path: &Path,
        format: DiskFormat,
        size_mb: u64,
    ) -> Result<ImageInfo, ImageError> {
        let wanted_bytes = size_mb.saturating_mul(MIB);
        let Sized {
            bytes: found_bytes,
            medium,
        } = size_of(field, path, format, true).await?;
        let path_buf = path.to_owned();
        if wanted_bytes < found_bytes {
            let reason = Reason::WouldShrink {
                path: path_buf,
                wanted_bytes,
                found_bytes,
            };
            return Err(Refused::new(field, reason).into());
        }
        if wanted_bytes > found_bytes {
            let node = lone_node(field, path, format, medium)?;
            let arguments = ["resize", "-q", &node, &wanted_bytes.to_string()];
            let resized = run(&self.program, arguments, Limits::QUICK).await;
            resized.map_err(|error| self.make_error(field, path, error))?;
        }
        Ok(self.inspect(field, path, format, medium).await?)
    }

    async fn make(&self, field: &str, path: &Path, size_mb: u64, arguments: &[&str]) -> Result<(), ImageError> {
        let refuse = |reason| Refused::new(field, reason);
        let target = path.to_owned();
        let begun = within_deadline(path, move || Partial::begin(&target))
            .await
            .map_err(refuse)?;
        let partial = begun.map_err(refuse)?;
        let size = size_mb.saturating_mul(MIB).to_string();
        let mut all: Vec<OsString> = ["create", "-q"].iter().chain(arguments).map(Into::into).collect();
        all.extend([partial.path.as_os_str().to_owned(), size.into()]);
        let made = run(&self.program, all, Limits::QUICK).await;
        made.map_err(|error| self.make_error(field, path, error))?;
        match within_deadline(path, move || partial.finish()).await.map_err(refuse)? {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(refuse(Reason::Exists { path: path.to_owned() }).into())
            }
            Err(source) => Err(ImageError::Io {
                what: "finish",
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn make_error(&self, field: &str, path: &Path, error: ProgramError) -> ImageError {
        let refuse = |reason| ImageError::Refused(Refused::new(field, reason));
        match error {
            ProgramError::Failed { complaint } if complaint.contains("No space left") => {
                let folder = path.parent().unwrap_or(path).to_owned();
                let free_bytes = free_bytes(&folder).unwrap_or(0);
                refuse(Reason::NoSpace { folder, free_bytes })
            }
            ProgramError::Failed { complaint } if complaint.contains("Failed to get") => {
                refuse(Reason::InUse { path: path.to_owned() })
            }
            ProgramError::Failed { complaint } => ImageError::Failed {
                path: path.to_owned(),
                complaint,
            },
            other => refuse(self.reason_of(other, path)),
        }
    }
}

struct Sized {
    bytes: u64,
    medium: Medium,
}

/// The size of an image as a guest sees it, out of its header.
async fn size_of(field: &str, path: &Path, format: DiskFormat, writes: bool) -> Result<Sized, Refused> {
    let refuse = |reason| Refused::new(field, reason);
    let is_direct = false;
    let seen = look(path, Use { writes, is_direct }).await.map_err(refuse)?;
    let medium = seen.medium;
    let path = path.to_owned();
    match (format, Qcow2Header::read(&seen.head)) {
        (DiskFormat::Raw, _) => Ok(Sized {
            bytes: seen.bytes,
            medium,
        }),
        (DiskFormat::Qcow2, Some(Ok(header))) if header.has_external_data => Err(refuse(Reason::ExternalData { path })),
        (DiskFormat::Qcow2, Some(Ok(header))) => Ok(Sized {
            bytes: header.size_bytes,
            medium,
        }),
        (DiskFormat::Qcow2, Some(Err(problem))) => {
            let problem = problem.to_owned();
            Err(refuse(Reason::Corrupt { path, problem }))
        }
        (DiskFormat::Qcow2, None) => {
            let found = super::header::guess_format(&seen.head).to_owned();
            let expected = FormatName(format);
            Err(refuse(Reason::WrongFormat { path, expected, found }))
        }
    }
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let free = rustix::fs::statvfs(folder)?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize))
}

/// An image under construction. Gone when dropped, unless it was finished.
pub(super) struct Partial {
    path: PathBuf,
    target: PathBuf,
    pub file: File,
}

impl Partial {
    pub fn begin(target: &Path) -> Result<Self, Reason> {
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Reason::NotAFile {
                path: target.to_owned(),
            });
        };
        if target.symlink_metadata().is_ok() {
            return Err(Reason::Exists {
                path: target.to_owned(),
            });
        }
        let free_bytes = free_bytes(folder).map_err(|_| Reason::Missing {
            path: folder.to_owned(),
        })?;
        if free_bytes < MIN_FREE_BYTES {
            let folder = folder.to_owned();
            return Err(Reason::NoSpace { folder, free_bytes });
        }
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".partial.");
        remove_stale(folder, &prefix);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let read_only = |error: io::Error| {
            let (path, problem) = (folder.to_owned(), error.to_string());
            Reason::ReadOnly { path, problem }
        };
        for number in 0..MAX_AT_ONCE {
            let mut name = prefix.clone();
            name.push(number.to_string());
            let path = folder.join(name);
            match options.open(&path) {
                Ok(file) => {
                    let target = target.to_owned();
                    return Ok(Self { path, target, file });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(read_only(error)),
            }
        }
        Err(Reason::InUse {
            path: target.to_owned(),
        })
    }

    /// Gives the image its name, when all of it is on the disk. The name may be taken by now.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        match std::fs::hard_link(&self.path, &self.target) {
            // Not every file system has links.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
                ) =>
            {
                rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE)?;
            }
            linked => linked?,
        }
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // If this fails, a later try does it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what crashes left long ago. What is younger may be under construction on another host.
fn remove_stale(folder: &Path, prefix: &OsStr) {
    let is_stale = |entry: &DirEntry| {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        is_ours && age().is_some_and(|age| age > STALE_AFTER)
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(is_stale) {
        let _ = std::fs::remove_file(entry.path());
    }
}
