//! Cutting a stream of bytes into lines, with a bound.
//!
//! Must never: hold more than the limit of a line that does not end, or look at a byte twice.

/// A line that grew beyond what is accepted. The stream has lost its meaning: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {limit} bytes without an end")]
pub struct LineTooLong {
    pub limit: usize,
}

/// Bytes go in as they come, lines come out whole.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// Where the first unread line begins.
    start: usize,
    /// Up to here there is no end of a line after `start`.
    scanned: usize,
    limit: usize,
}

/// What an idle buffer may keep allocated. One big reply must not cost its memory for good.
const KEPT_CAPACITY: usize = 64 * 1024;

impl Lines {
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            limit,
        }
    }

    /// Takes bytes in. All finished lines are to be taken out before the next call.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer.shrink_to(KEPT_CAPACITY);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. An error means that the rest cannot be understood any more.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let end = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n');
        let length = end.map_or(self.buffer.len(), |found| self.scanned + found) - self.start;
        if length > self.limit {
            return Err(LineTooLong { limit: self.limit });
        }
        let Some(found) = end else {
            self.scanned = self.buffer.len();
            return Ok(None);
        };
        let from = self.start;
        let to = self.scanned + found;
        self.start = to + 1;
        self.scanned = self.start;
        Ok(Some(self.buffer[from..to].trim_ascii_end()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], limit: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line()? {
                found.push(line.to_vec());
            }
        }
        Ok(found)
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit_and_not_before() {
        assert_eq!(cut(&[b"12345678", b"\n"], 8), Ok(vec![b"12345678".to_vec()]));
        assert_eq!(cut(&[b"12345678", b"9"], 8), Err(LineTooLong { limit: 8 }));
        assert_eq!(cut(&[b"123456789\n"], 8), Err(LineTooLong { limit: 8 }));
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_lines_are_the_same(
            texts in prop::collection::vec("[ -~]{0,40}[!-~]", 0..20),
            sizes in prop::collection::vec(1_usize..17, 1..40),
        ) {
            let whole: Vec<u8> = texts.iter().flat_map(|text| format!("{text}\r\n").into_bytes()).collect();
            let mut pieces = Vec::new();
            let mut rest = &whole[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let expected: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
            prop_assert_eq!(cut(&pieces, 100), Ok(expected));
        }
    }
}
