//! How rows lie in the base: in blocks, each of them one value of sled.
//!
//! A block is a run of rows in the order in which they were stored, each behind its length. It is written
//! once and never changed. What it says of a key holds until a later row says something else of it, be it
//! of the same block or of one with a higher number; a row without content says that the key is gone.

use bytes::Bytes;
use prost::Message;

use super::super::row::Row;
use super::BaseError;
use crate::proto;

/// A block is full at this size. Only its last row may go beyond it, so that every offset is below.
const FULL_BYTES: usize = 4096;
/// And at this many rows, for each of which there is one bit that says whether it still counts.
const FULL_ROWS: u8 = 64;

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub block: u64,
    /// Its length, with what is before it to say so.
    pub bytes: u32,
    offset: u16,
    /// The how-manieth of its block it is.
    pub slot: u8,
}

impl Place {
    fn new(block: u64, offset: usize, bytes: usize, slot: usize) -> Result<Self, BaseError> {
        let damaged = |_| BaseError::DamagedBlock { number: block };
        let slot = u8::try_from(slot).map_err(damaged)?;
        if slot >= FULL_ROWS {
            return Err(BaseError::DamagedBlock { number: block });
        }
        Ok(Self {
            block,
            bytes: u32::try_from(bytes).map_err(damaged)?,
            offset: u16::try_from(offset).map_err(damaged)?,
            slot,
        })
    }
}

/// A block that has not been stored yet.
#[derive(Debug, Default)]
struct Packed {
    bytes: Vec<u8>,
    rows: u8,
}

impl Packed {
    fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.rows == FULL_ROWS
    }
}

/// Puts rows into blocks with consecutive numbers.
#[derive(Debug)]
pub struct Packer {
    first: u64,
    full: Vec<Packed>,
    open: Packed,
}

impl Packer {
    /// The first block gets the number `first`.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            full: Vec::new(),
            open: Packed::default(),
        }
    }

    pub fn add(&mut self, key: &Bytes, row: Option<&Row>) -> Result<Place, BaseError> {
        let row = proto::BlockRow {
            key: key.clone(),
            row: row.map(Row::to_proto),
        };
        self.push(&row.encode_length_delimited_to_vec())
    }

    /// Adds a row as it lies in another block.
    pub fn add_again(&mut self, row: &StoredRow) -> Result<Place, BaseError> {
        self.push(&row.bytes)
    }

    fn push(&mut self, row: &[u8]) -> Result<Place, BaseError> {
        if self.open.is_full() {
            self.full.push(std::mem::take(&mut self.open));
        }
        let block = self.first + self.full.len() as u64;
        let place = Place::new(block, self.open.bytes.len(), row.len(), usize::from(self.open.rows))?;
        self.open.bytes.extend_from_slice(row);
        self.open.rows += 1;
        Ok(place)
    }

    /// The blocks, in the order of their numbers.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        if self.open.rows > 0 {
            self.full.push(self.open);
        }
        self.full.into_iter().map(|block| block.bytes).collect()
    }
}

/// A row of a stored block.
#[derive(Debug)]
pub struct StoredRow {
    pub place: Place,
    bytes: Bytes,
}

impl StoredRow {
    /// The row at a place of a block.
    pub fn at(place: Place, block: &[u8]) -> Result<Self, BaseError> {
        let begin = usize::from(place.offset);
        let bytes = block.get(begin..begin + place.bytes as usize);
        let bytes = bytes.ok_or(BaseError::DamagedBlock { number: place.block })?;
        Ok(Self {
            place,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// The key, and its row unless it is gone.
    pub fn decode(&self) -> Result<(Bytes, Option<Row>), BaseError> {
        let row = proto::BlockRow::decode_length_delimited(self.bytes.clone())?;
        Ok((row.key, row.row.map(Row::from_proto)))
    }
}

/// All rows of a block.
pub fn rows(number: u64, block: Bytes) -> Result<Vec<StoredRow>, BaseError> {
    let mut rows = Vec::new();
    let mut offset = 0;
    while offset < block.len() {
        let mut rest = block.slice(offset..);
        let length = prost::decode_length_delimiter(&mut rest)?;
        let end = (block.len() - rest.len()).saturating_add(length);
        if end > block.len() {
            return Err(BaseError::DamagedBlock { number });
        }
        rows.push(StoredRow {
            place: Place::new(number, offset, end - offset, rows.len())?,
            bytes: block.slice(offset..end),
        });
        offset = end;
    }
    Ok(rows)
}
