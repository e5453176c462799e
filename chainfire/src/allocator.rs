//! Giving memory that is free back to the system. The only unsafe code of this crate.
//!
//! The allocator keeps what was freed between things that live: after a start, what reading the store took; after
//! much was written, what the window and sled let go of. A host would rather give it to its VMs.

#![expect(unsafe_code, reason = "each block states why it is sound")]

/// Gives back what is free. Takes some milliseconds, in which others may wait for memory: not for a busy moment.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and no pointer, touches free memory only, and takes the locks of the allocator
    // itself, so that any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_lies_free_between_things_that_live_goes_back() {
        let mut held: Vec<Option<Vec<u8>>> = (0..64 * 1024).map(|_| Some(vec![1; 1024])).collect();
        for (number, piece) in held.iter_mut().enumerate() {
            if number % 64 != 0 {
                *piece = None;
            }
        }
        let before = resident_kib();
        give_back();
        let after = resident_kib();
        assert!(after + 32 * 1024 < before, "{before} KiB before, {after} KiB after");
        drop(held);
    }
}
