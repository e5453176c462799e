//! The layout of a snapshot file, written and read.
//!
//! ```text
//! magic "CFSNAP\0\1" | u32 length | SnapshotHeader | rows ... | u32 0xffffffff | u64 rows | SHA-256
//! row: u32 key length | key | u32 row length | Row
//! ```
//! The digest in the header must be that of the rows: a scan that was not of one revision, or a row that
//! was damaged before it was written, does not become a snapshot.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::super::row::{Digest, Head, Row};
use super::SnapshotError;
use crate::proto;

const MAGIC: &[u8; 8] = b"CFSNAP\0\x01";
const FORMAT: u32 = 1;
const END: u32 = u32::MAX;
/// No part of a file may claim to be larger: a flipped length must not eat the memory.
const MAX_PART_BYTES: u32 = 64 << 20;

/// Writes a snapshot file under its final name.
pub fn write_file(
    path: &Path,
    meta: &proto::StateMeta,
    rows: impl Iterator<Item = Result<(Bytes, Row), SnapshotError>>,
) -> Result<(), SnapshotError> {
    let temporary = path.with_extension("tmp");
    let written = write_temporary(&temporary, meta, rows).and_then(|()| persist_as(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_temporary(
    path: &Path,
    meta: &proto::StateMeta,
    rows: impl Iterator<Item = Result<(Bytes, Row), SnapshotError>>,
) -> Result<(), SnapshotError> {
    let context = |source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    let mut out = HashingWriter {
        inner: BufWriter::with_capacity(1 << 20, File::create(path).map_err(context)?),
        hasher: Sha256::new(),
    };
    let header = proto::SnapshotHeader {
        meta: Some(meta.clone()),
        format: FORMAT,
    };
    out.write_all(MAGIC).map_err(context)?;
    out.write_part(&header.encode_to_vec()).map_err(context)?;
    let mut digest = Digest::default();
    let mut count: u64 = 0;
    for row in rows {
        let (key, row) = row?;
        digest.add(&Head::of(&key, &row));
        count += 1;
        out.write_part(&key).map_err(context)?;
        out.write_part(&row.encode()).map_err(context)?;
    }
    if count != meta.keys || Digest::from_bytes(&meta.digest) != Some(digest) {
        return Err(SnapshotError::Damaged {
            path: path.to_owned(),
            reason: format!(
                "the state has {count} rows that do not add up to its record of {}",
                meta.keys
            ),
        });
    }
    out.write_all(&END.to_be_bytes()).map_err(context)?;
    out.write_all(&count.to_be_bytes()).map_err(context)?;
    let HashingWriter { mut inner, hasher } = out;
    inner.write_all(&hasher.finalize()).map_err(context)?;
    let file = inner.into_inner().map_err(|error| context(error.into_error()))?;
    file.sync_all().map_err(context)
}

pub(super) fn persist_as(temporary: &Path, path: &Path) -> Result<(), SnapshotError> {
    let context = |source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    std::fs::rename(temporary, path).map_err(context)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(context)
}

struct HashingWriter {
    inner: BufWriter<File>,
    hasher: Sha256,
}

impl HashingWriter {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }

    fn write_part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(bytes)
    }
}

/// Reads a snapshot row by row. Only after the last row is it known that the file was whole.
#[derive(Debug)]
pub struct SnapshotReader {
    path: PathBuf,
    inner: BufReader<File>,
    hasher: Sha256,
    meta: proto::StateMeta,
    digest: Digest,
    rows: u64,
    finished: bool,
}

impl SnapshotReader {
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(|source| SnapshotError::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut reader = Self {
            path: path.to_owned(),
            inner: BufReader::with_capacity(1 << 20, file),
            hasher: Sha256::new(),
            meta: proto::StateMeta::default(),
            digest: Digest::default(),
            rows: 0,
            finished: false,
        };
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(SnapshotError::NotASnapshot { path: path.to_owned() });
        }
        let header = reader.read_part()?.ok_or_else(|| reader.damaged("it has no header"))?;
        let header = proto::SnapshotHeader::decode(header).map_err(|error| reader.damaged(error))?;
        if header.format > FORMAT {
            return Err(SnapshotError::Newer {
                path: path.to_owned(),
                format: header.format,
            });
        }
        reader.meta = header.meta.ok_or_else(|| reader.damaged("its header is empty"))?;
        Ok(reader)
    }

    pub fn meta(&self) -> &proto::StateMeta {
        &self.meta
    }

    pub fn into_meta(self) -> proto::StateMeta {
        self.meta
    }

    /// The next row; `None` when all of the file has been read and found whole.
    pub fn next_row(&mut self) -> Result<Option<(Bytes, Row)>, SnapshotError> {
        if self.finished {
            return Ok(None);
        }
        let Some(key) = self.read_part()? else {
            self.finish()?;
            return Ok(None);
        };
        let row = self.read_part()?.ok_or_else(|| self.damaged("a key has no row"))?;
        let row = Row::decode(row).map_err(|error| self.damaged(error))?;
        self.digest.add(&Head::of(&key, &row));
        self.rows += 1;
        Ok(Some((key, row)))
    }

    fn finish(&mut self) -> Result<(), SnapshotError> {
        let mut count = [0; 8];
        self.read_exact(&mut count)?;
        let expected = self.hasher.clone().finalize();
        let mut sum = [0; 32];
        self.inner.read_exact(&mut sum).map_err(|error| self.damaged(error))?;
        if sum[..] != expected[..] {
            return Err(self.damaged("its checksum is wrong"));
        }
        if u64::from_be_bytes(count) != self.rows || self.meta.keys != self.rows {
            return Err(self.damaged("it has another number of rows than it says"));
        }
        if Digest::from_bytes(&self.meta.digest) != Some(self.digest) {
            return Err(self.damaged("its rows do not add up to its digest"));
        }
        let mut rest = [0; 1];
        if self.inner.read(&mut rest).map_err(|error| self.damaged(error))? != 0 {
            return Err(self.damaged("something follows its end"));
        }
        self.finished = true;
        Ok(())
    }

    /// A part, or `None` at the end mark.
    fn read_part(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length == END {
            return Ok(None);
        }
        if length > MAX_PART_BYTES {
            return Err(self.damaged("a part is too long"));
        }
        let mut part = vec![0; length as usize];
        self.read_exact(&mut part)?;
        Ok(Some(part.into()))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        self.inner.read_exact(buffer).map_err(|error| self.damaged(error))?;
        self.hasher.update(&*buffer);
        Ok(())
    }

    fn damaged(&self, reason: impl ToString) -> SnapshotError {
        SnapshotError::Damaged {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}
