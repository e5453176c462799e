//! What the guard says to people: a few lines on standard error, in its life.
//!
//! Must never happen: waiting for whoever reads them. A line that finds no room is lost.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines are cut here, so that one line is one write that a pipe takes whole.
const LONGEST_LINE_BYTES: usize = 1000;

pub fn say(text: &str) {
    let stderr = io::stderr();
    let mut end = text.len().min(LONGEST_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let line = format!("plasmavmc-guard: {}\n", &text[..end]);
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut writable, Some(&at_once)).is_ok_and(|ready| ready == 1) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}
