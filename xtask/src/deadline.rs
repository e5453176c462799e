//! Waiting for conditions of other processes, always with a deadline and always interruptible.
//!
//! The only place of xtask that sleeps: between two looks at a condition that cannot notify us.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Set by Ctrl-C, a closed terminal or a polite kill, so that whoever waits can clean up.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over from their default action, which would leave children behind.
    pub fn install() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
        }
        Ok(Self(flag))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits for `look` to find something. Every miss says why, and the last reason becomes the error.
    pub fn await_condition<T, Reason: Display>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Result<T, Reason>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            let reason = match look() {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            };
            if self.is_set() {
                bail!("interrupted while waiting for {what}");
            }
            if begun.elapsed() >= within {
                bail!("{what}: not within {} s: {reason}", within.as_secs_f32());
            }
            pause();
        }
    }

    /// Waits until interrupted, or until `ended` has a reason to stop earlier.
    pub fn await_interrupt(&self, mut ended: impl FnMut() -> Option<String>) -> Option<String> {
        while !self.is_set() {
            if let Some(reason) = ended() {
                return Some(reason);
            }
            pause();
        }
        None
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state of another process cannot be awaited, only looked at"
)]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never_interrupted() -> Interrupt {
        Interrupt(Arc::new(AtomicBool::new(false)))
    }

    #[test]
    fn what_is_there_is_found_at_once() {
        let found = never_interrupted().await_condition("five", Duration::ZERO, || Ok::<_, String>(5));
        assert_eq!(found.unwrap(), 5);
    }

    #[test]
    fn a_deadline_tells_the_last_reason() {
        let mut looks = 0;
        let waited = never_interrupted().await_condition("a miracle", Duration::from_millis(50), || {
            looks += 1;
            Err::<(), _>(format!("look {looks} saw none"))
        });
        let text = waited.unwrap_err().to_string();
        assert!(text.contains(&format!("look {looks} saw none")), "{text}");
        assert!(looks > 1);
    }

    #[test]
    fn an_interrupt_ends_a_wait_before_its_deadline() {
        let interrupt = never_interrupted();
        interrupt.0.store(true, Ordering::SeqCst);
        let waited = interrupt.await_condition("ages", Duration::from_secs(3600), || Err::<(), _>("not yet"));
        assert!(waited.unwrap_err().to_string().starts_with("interrupted"));
    }
}
