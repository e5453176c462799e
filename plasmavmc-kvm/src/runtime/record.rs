//! What was started: written before the start, read by a server that finds the VM running.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

use plasmavmc_types::{AttemptId, VmId, VmSpec};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{RuntimeError, RuntimeFolder, file, io_error};
use crate::argv::{HostFacts, PciSlots, Placed};

/// Every version of this program reads the formats up to its own.
const FORMAT: u32 = 1;
const MAX_RECORD_BYTES: u64 = 1 << 20;
const NEW_RECORD: &str = "machine.json.new";

/// All that the command line was made of, and which attempt made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRecord {
    pub id: VmId,
    pub attempt: AttemptId,
    pub spec: VmSpec,
    pub host: HostFacts,
    pub placed: Placed,
    /// Changes when devices are plugged in and out.
    pub slots: PciSlots,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    machine: &'a StartRecord,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Stored {
    machine: StartRecord,
}

impl RuntimeFolder {
    /// Writes the record as a whole, or leaves the earlier one.
    pub fn write_record(&self, record: &StartRecord) -> Result<(), RuntimeError> {
        let path = self.path().join(file::MACHINE);
        let written = Written {
            format: FORMAT,
            machine: record,
        };
        let write = || -> io::Result<()> {
            let bytes = serde_json::to_vec(&written)?;
            self.unlink(NEW_RECORD)?;
            let mut new = self.open_file(NEW_RECORD, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            new.write_all(&bytes)?;
            new.sync_all()?;
            rustix::fs::renameat(&self.folder, NEW_RECORD, &self.folder, file::MACHINE)?;
            Ok(rustix::fs::fsync(&self.folder)?)
        };
        write().map_err(io_error("write", &path))
    }

    /// The record, if one was written.
    pub fn read_record(&self) -> Result<Option<StartRecord>, RuntimeError> {
        let path = self.path().join(file::MACHINE);
        let bad = |problem: String| RuntimeError::BadRecord {
            path: path.clone(),
            problem,
        };
        let open = match self.open_file(file::MACHINE, OFlags::RDONLY) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(bad("it is a link".to_owned()));
            }
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        // The folder may belong to the user QEMU runs as, who must not tell us what to believe.
        let metadata = open.metadata().map_err(io_error("look at", &path))?;
        let own = rustix::process::geteuid().as_raw();
        if !metadata.is_file() || metadata.nlink() != 1 || metadata.uid() != own {
            return Err(bad("it is not a file of ours".to_owned()));
        }
        if metadata.len() > MAX_RECORD_BYTES {
            return Err(bad(format!("it has more than {MAX_RECORD_BYTES} bytes")));
        }
        let mut bytes = Vec::new();
        let mut limited = open.take(MAX_RECORD_BYTES);
        limited.read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        let Format { format } = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if format > FORMAT {
            return Err(RuntimeError::NewerRecord { path, format });
        }
        let Stored { machine } = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if machine.id != self.id {
            return Err(bad(format!("it is about VM {}", machine.id)));
        }
        Ok(Some(machine))
    }
}
