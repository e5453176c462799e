//! Gives passed descriptors the numbers they must have in the program.
//!
//! Done without ever naming a descriptor by number that somebody else may own: first everything is moved
//! above the range that orders may use, then duplicated down, and the kernel is asked for "the lowest free
//! one from N on". If that is not N, N is in use, and that is an error.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::wire::order::HIGHEST_NUMBER;

/// The launcher keeps its own descriptors from here on.
pub const OWN_LOWEST: i32 = HIGHEST_NUMBER + 1;

/// Returns the placed ones: they stay open across exec, and until it they must not be dropped. Everything
/// else above standard error is closed by exec.
pub fn place(passed: Vec<OwnedFd>, numbers: &[i32]) -> io::Result<Vec<OwnedFd>> {
    if passed.len() != numbers.len() {
        let problem = format!("{} descriptors came for {} numbers", passed.len(), numbers.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let moved: Vec<OwnedFd> = passed
        .into_iter()
        .map(|descriptor| fcntl_dupfd_cloexec(&descriptor, OWN_LOWEST))
        .collect::<Result<_, _>>()?;
    crate::sys::close_on_exec_from(3)?;
    let mut placed = Vec::with_capacity(moved.len());
    for (descriptor, number) in moved.iter().zip(numbers) {
        let copy = fcntl_dupfd_cloexec(descriptor, *number)?;
        if copy.as_raw_fd() != *number {
            let problem = format!("number {number} is in use");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
        }
        fcntl_setfd(&copy, FdFlags::empty())?;
        placed.push(copy);
    }
    Ok(placed)
}
