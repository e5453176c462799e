//! A snapshot on its way to another member, or to whoever makes a backup: in pieces, never as a whole.

use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::proto;
use crate::state::SnapshotFile;

const PART_BYTES: usize = 256 << 10;

/// A snapshot as the messages that carry it.
pub fn parts(start: proto::SnapshotStart, file: SnapshotFile) -> impl Stream<Item = proto::SnapshotPart> {
    use proto::snapshot_part::Part;
    let first = futures::stream::iter([proto::SnapshotPart {
        part: Some(Part::Start(start)),
    }]);
    first.chain(chunks(file).map(|data| proto::SnapshotPart {
        part: Some(Part::Data(data)),
    }))
}

/// A snapshot's bytes in pieces. An unreadable piece ends the stream early, which the receiver notices.
pub fn chunks(file: SnapshotFile) -> impl Stream<Item = Bytes> {
    futures::stream::unfold((file, 0), |(file, offset)| async move {
        let data = match file.read_at(offset, PART_BYTES) {
            Ok(data) if !data.is_empty() => data,
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!(%error, path = %file.path.display(), "a snapshot cannot be read");
                return None;
            }
        };
        let next = offset + data.len() as u64;
        Some((data, (file, next)))
    })
}
