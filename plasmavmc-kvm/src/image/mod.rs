//! Disk images: looked at, made, cloned, made larger.
//!
//! Must never happen here: a format that is guessed; a file that is opened because an image names it; a
//! lock of QEMU's passed over; an image that is half there under its own name; one that shrinks.
//!
//! An image is looked at twice. First by ourselves ([`probe`], [`header`]), which opens one file and
//! nothing else; then, if nothing speaks against it, by `qemu-img`, which is told the format and that the
//! image stands on nothing.

mod check;
mod firmware;
mod header;
mod make;
mod probe;

use std::path::{Path, PathBuf};

use plasmavmc_types::DiskFormat;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::argv::Medium;
use crate::program::{Limits, ProgramError, run};
use crate::refused::{FormatName, Reason, Refused};

pub use firmware::keep_uefi_vars;
pub use make::ImageError;

/// The `qemu-img` of this host.
#[derive(Debug, Clone)]
pub struct QemuImg {
    program: PathBuf,
}

/// What `qemu-img info` says of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ImageInfo {
    /// As the guest sees it.
    #[serde(rename = "virtual-size")]
    pub size_bytes: u64,
    /// What it takes on the host.
    #[serde(rename = "actual-size")]
    pub allocated_bytes: u64,
}

impl QemuImg {
    /// The one at this path, or else the one that is installed.
    pub async fn find(program: Option<&Path>) -> Result<Self, Refused> {
        let program = program.unwrap_or(Path::new("qemu-img")).to_owned();
        let name = program.display().to_string();
        match run(&program, ["--version"], Limits::QUICK).await {
            Ok(_) => Ok(Self { program }),
            Err(ProgramError::Missing { .. }) => {
                Err(Refused::new("qemu-img", Reason::ProgramMissing { program: name }))
            }
            Err(error) => {
                let problem = error.to_string();
                Err(Refused::new(
                    "qemu-img",
                    Reason::ProgramFailed { program: name, problem },
                ))
            }
        }
    }

    /// What an image of this format is, whatever it stands on. Refuses one that somebody writes.
    pub async fn inspect(
        &self,
        field: &str,
        path: &Path,
        format: DiskFormat,
        medium: Medium,
    ) -> Result<ImageInfo, Refused> {
        let refuse = |reason| Refused::new(field, reason);
        let node = lone_node(field, path, format, medium)?;
        let output = run(&self.program, ["info", "--output=json", &node], Limits::QUICK).await;
        let output = output.map_err(|error| refuse(self.reason_of(error, path)))?;
        serde_json::from_slice(&output).map_err(|error| {
            let (program, problem) = (self.program.display().to_string(), error.to_string());
            refuse(Reason::ProgramFailed { program, problem })
        })
    }

    /// What a failure of `qemu-img` with this image means.
    fn reason_of(&self, error: ProgramError, path: &Path) -> Reason {
        let path = path.to_owned();
        match error {
            ProgramError::Failed { complaint } if complaint.contains("Failed to get") => Reason::InUse { path },
            ProgramError::Failed { complaint } => Reason::Corrupt {
                path,
                problem: complaint,
            },
            ProgramError::Deadline { deadline, .. } => Reason::StorageHangs {
                path,
                waited_ms: deadline.as_millis(),
            },
            other => Reason::ProgramFailed {
                program: self.program.display().to_string(),
                problem: other.to_string(),
            },
        }
    }
}

/// What a file that is only read lies on, if it can be read.
pub(crate) async fn check_readable(path: &Path) -> Result<Medium, Reason> {
    let intended = probe::Use {
        writes: false,
        is_direct: false,
    };
    Ok(probe::look(path, intended).await?.medium)
}

/// An image as `qemu-img` takes it: its format is said, and that it stands on nothing.
fn lone_node(field: &str, path: &Path, format: DiskFormat, medium: Medium) -> Result<String, Refused> {
    let Some(text) = path.to_str() else {
        let text = path.to_string_lossy().into_owned();
        return Err(Refused::new(
            field,
            Reason::UnsafeText {
                text,
                problem: "is not UTF-8",
            },
        ));
    };
    let driver = match medium {
        Medium::File => "file",
        Medium::BlockDevice => "host_device",
    };
    let file = json!({ "driver": driver, "filename": text, "locking": "on" });
    let mut node = json!({ "driver": FormatName(format).to_string(), "file": file });
    if format == DiskFormat::Qcow2 {
        node["backing"] = Value::Null;
    }
    Ok(format!("json:{node}"))
}
