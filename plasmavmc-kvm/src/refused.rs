//! The one refusal of this crate: a VM is not started, or an image not made, because of something that its
//! owner or the host's operator can change.
//!
//! A refusal comes before anything was made, names the field of the specification it is about, and says
//! what to do. What breaks later is another kind of error, and must never be dressed up as one of these.

use std::fmt;
use std::path::PathBuf;

use plasmavmc_types::{DiskFormat, DiskLocation, MachineType};

use crate::qemu::QemuVersion;

/// What was refused, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// As the caller wrote it: `disks[1].location`. A program of the host: `qemu`, `qemu-img`.
    pub field: String,
    pub reason: Reason,
}

/// Why. The text is the rest of a sentence that begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("is not installed: {program} was not found")]
    ProgramMissing { program: String },
    #[error("is version {found}, which is older than {}", QemuVersion::OLDEST)]
    QemuTooOld { found: QemuVersion },
    #[error("does not work: {program} {problem}")]
    ProgramFailed { program: String, problem: String },
    #[error("is {machine}, which this host's QEMU does not know")]
    UnknownMachine {
        machine: MachineType,
        newest: Option<String>,
    },
    #[error("is {wanted_mb} MB, but the host has {host_mb} MB in all")]
    MemoryExceedsHost { wanted_mb: u64, host_mb: u64 },
    #[error("names bridge {bridge}, which this host does not have")]
    NoBridge { bridge: String },
    #[error("names {interface}, which is no bridge")]
    NotABridge { interface: String },
    #[error("asks for UEFI{}, but this host has no such firmware", if *secure_boot { " with secure boot" } else { "" })]
    NoFirmware { secure_boot: bool },

    #[error("is {}, which does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("is {}, which is no file and no block device", path.display())]
    NotAFile { path: PathBuf },
    #[error("is {}, which cannot be opened: {problem}", path.display())]
    NotReadable { path: PathBuf, problem: String },
    #[error("is {}, which cannot be written: {problem}", path.display())]
    ReadOnly { path: PathBuf, problem: String },
    #[error("is {}, which exists already", path.display())]
    Exists { path: PathBuf },
    #[error("is {}, which did not answer within {waited_ms} ms", path.display())]
    StorageHangs { path: PathBuf, waited_ms: u128 },
    #[error("is {expected}, but {} is {found}", path.display())]
    WrongFormat {
        path: PathBuf,
        expected: FormatName,
        found: String,
    },
    #[error("is {}, which is damaged: {problem}", path.display())]
    Corrupt { path: PathBuf, problem: String },
    #[error("is {wanted_bytes} bytes, but {} has {found_bytes}", path.display())]
    SizeDiffers {
        path: PathBuf,
        wanted_bytes: u64,
        found_bytes: u64,
    },
    #[error("asks for {wanted_bytes} bytes, but {} has {found_bytes}: an image never shrinks", path.display())]
    WouldShrink {
        path: PathBuf,
        wanted_bytes: u64,
        found_bytes: u64,
    },
    #[error("is {}, which stands on {found:?}, while the specification says {}", path.display(), named_or_none(named))]
    BackingDiffers {
        path: PathBuf,
        found: String,
        named: Option<PathBuf>,
    },
    #[error("is {}, which stands on no image, while the specification names {}", path.display(), named.display())]
    BackingUnused { path: PathBuf, named: PathBuf },
    #[error("is {}, which keeps its data in another file", path.display())]
    ExternalData { path: PathBuf },
    #[error("is {}, which is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("is {}, where only {free_bytes} bytes are free", folder.display())]
    NoSpace { folder: PathBuf, free_bytes: u64 },
    #[error("is none or directsync, which the file system of {} does not support", path.display())]
    NoDirectIo { path: PathBuf },

    #[error("is {location}, whose path on this host nobody told")]
    NotPlaced { location: DiskLocation },
    #[error("has {wanted} queues, but {given} tap descriptors were made")]
    TapsDiffer { wanted: u16, given: usize },
    #[error("is {text:?}, which {problem}")]
    UnsafeText { text: String, problem: &'static str },
    #[error("does not fit: machine type {machine} has room for {room}")]
    NoSlot { machine: MachineType, room: u8 },
    #[error("cannot be plugged into a running VM: {problem}")]
    NotHotPluggable { problem: &'static str },
}

/// A format under its name in a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatName(pub DiskFormat);

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
        })
    }
}

fn named_or_none(named: &Option<PathBuf>) -> String {
    match named {
        None => "that it stands on none".to_owned(),
        Some(path) => path.display().to_string(),
    }
}

impl Refused {
    pub fn new(field: impl Into<String>, reason: Reason) -> Self {
        Self {
            field: field.into(),
            reason,
        }
    }

    /// What to do, as a sentence of its own.
    pub fn remedy(&self) -> String {
        self.reason.remedy()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.field, self.reason, self.remedy())
    }
}

impl Reason {
    fn remedy(&self) -> String {
        match self {
            Reason::ProgramMissing { program } if program.ends_with("qemu-img") => "Install qemu-utils.".to_owned(),
            Reason::ProgramMissing { .. } => "Install qemu-system-x86, or say where it is.".to_owned(),
            Reason::QemuTooOld { .. } => format!("Install QEMU {} or newer.", QemuVersion::OLDEST),
            Reason::ProgramFailed { program, .. } => format!("Run {program} by hand to see what it says."),
            Reason::UnknownMachine {
                newest: Some(newest), ..
            } => {
                format!("Use {newest} or older, or an alias: q35, pc.")
            }
            Reason::UnknownMachine { newest: None, .. } => "Use q35 or pc.".to_owned(),
            Reason::MemoryExceedsHost { host_mb, .. } => {
                format!("Ask for less than {host_mb} MB, or for a bigger host.")
            }
            Reason::NoBridge { bridge } => format!("Create it (ip link add {bridge} type bridge), or name another."),
            Reason::NotABridge { .. } => "Name a bridge.".to_owned(),
            Reason::NoFirmware { .. } => "Install ovmf, or use BIOS.".to_owned(),
            Reason::Missing { .. } => "Create it, or correct the path.".to_owned(),
            Reason::NotAFile { .. } => "Name an image file or a block device.".to_owned(),
            Reason::NotReadable { .. } => "Correct its owner and permissions.".to_owned(),
            Reason::ReadOnly { .. } => "Make it writable, or set read_only.".to_owned(),
            Reason::Exists { .. } => "Choose another name, or delete it first.".to_owned(),
            Reason::StorageHangs { .. } => "See whether its storage can be reached, and try again.".to_owned(),
            Reason::WrongFormat { .. } => "Set the format it has, or convert it.".to_owned(),
            Reason::Corrupt { .. } => "Restore it from a backup; `qemu-img check` says more.".to_owned(),
            Reason::SizeDiffers { .. } => "Set the size it has, or resize the image first.".to_owned(),
            Reason::WouldShrink { .. } => "Ask for a size that is at least as large.".to_owned(),
            Reason::BackingDiffers { .. } => {
                "If it is meant to be a clone of that image, name it under backing; otherwise convert it.".to_owned()
            }
            Reason::BackingUnused { .. } => "Leave out the backing, or make the image anew as a clone.".to_owned(),
            Reason::ExternalData { .. } => "Convert it to an image that keeps its own data.".to_owned(),
            Reason::InUse { .. } => "Stop what uses it; a VM that was killed lets go of it at once.".to_owned(),
            Reason::NoSpace { .. } => "Free some space there, or use another folder.".to_owned(),
            Reason::NoDirectIo { .. } => "Use cache writeback.".to_owned(),
            Reason::NotPlaced { .. } => "See whether its pool is available on this host.".to_owned(),
            Reason::TapsDiffer { .. } => "Make one descriptor for each queue.".to_owned(),
            Reason::UnsafeText { .. } => "Rename it.".to_owned(),
            Reason::NoSlot { .. } => "Use fewer devices, the virtio_scsi bus, or machine type q35.".to_owned(),
            Reason::NotHotPluggable { .. } => "Change the specification and restart the VM.".to_owned(),
        }
    }
}
