//! Frames on their way out, without a socket.

use std::collections::VecDeque;
use std::time::Instant;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    /// Nothing of it was written by its deadline.
    NotSent,
    /// It was begun and not finished by its deadline. The rest follows when the guest reads again.
    Unfinished {
        written: usize,
    },
    /// The session ended first.
    Disconnected {
        written: usize,
    },
}

struct Frame<T> {
    bytes: Vec<u8>,
    written: usize,
    deadline: Instant,
    /// Gone once the fate is told.
    token: Option<T>,
}

/// Frames in the order in which they are written.
pub(super) struct Outbox<T> {
    frames: VecDeque<Frame<T>>,
}

const MAX_FRAMES: usize = 64;

impl<T> Outbox<T> {
    pub fn new() -> Self {
        Self {
            frames: VecDeque::new(),
        }
    }

    pub fn has_room(&self) -> bool {
        self.frames.len() < MAX_FRAMES
    }

    pub fn push(&mut self, bytes: Vec<u8>, deadline: Instant, token: T) {
        self.frames.push_back(Frame {
            bytes,
            written: 0,
            deadline,
            token: Some(token),
        });
    }

    /// What to write now.
    pub fn next(&self) -> Option<&[u8]> {
        self.frames.front().map(|frame| &frame.bytes[frame.written..])
    }

    /// So much of `next` was written.
    pub fn written(&mut self, count: usize, fates: &mut Vec<(T, Fate)>) {
        let Some(frame) = self.frames.front_mut() else { return };
        frame.written += count;
        if frame.written >= frame.bytes.len() {
            let done = self.frames.pop_front().and_then(|frame| frame.token);
            fates.extend(done.map(|token| (token, Fate::Written)));
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.frames.iter().filter(|frame| frame.token.is_some());
        waiting.map(|frame| frame.deadline).min()
    }

    pub fn expire(&mut self, now: Instant, fates: &mut Vec<(T, Fate)>) {
        self.frames.retain_mut(|frame| {
            if frame.deadline > now {
                return true;
            }
            let fate = match frame.written {
                0 => Fate::NotSent,
                written => Fate::Unfinished { written },
            };
            fates.extend(frame.token.take().map(|token| (token, fate)));
            frame.written > 0
        });
    }

    /// The session ended: nothing of this is for the next one.
    pub fn disconnect(&mut self, fates: &mut Vec<(T, Fate)>) {
        for frame in self.frames.drain(..) {
            let fate = Fate::Disconnected { written: frame.written };
            fates.extend(frame.token.map(|token| (token, fate)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_frame_that_was_begun_is_finished_and_one_that_was_not_is_taken_back() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        let mut fates = Vec::new();
        outbox.push(b"first".to_vec(), start, 1);
        outbox.push(b"second".to_vec(), start, 2);
        outbox.push(b"third".to_vec(), start + Duration::from_secs(1), 3);
        outbox.written(2, &mut fates);
        outbox.expire(start, &mut fates);
        assert_eq!(fates, [(1, Fate::Unfinished { written: 2 }), (2, Fate::NotSent)]);
        assert_eq!(outbox.next_deadline(), Some(start + Duration::from_secs(1)));

        fates.clear();
        assert_eq!(outbox.next(), Some(&b"rst"[..]));
        outbox.written(3, &mut fates);
        assert_eq!(outbox.next(), Some(&b"third"[..]));
        outbox.written(5, &mut fates);
        assert_eq!(fates, [(3, Fate::Written)], "its fate was told before");
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn nothing_goes_over_into_the_next_session() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        let mut fates = Vec::new();
        outbox.push(b"first".to_vec(), start, 1);
        outbox.push(b"second".to_vec(), start, 2);
        outbox.written(1, &mut fates);
        outbox.disconnect(&mut fates);
        let gone = |written| Fate::Disconnected { written };
        assert_eq!(fates, [(1, gone(1)), (2, gone(0))]);
        assert_eq!(outbox.next(), None);
    }
}
