//! Waiting for what nobody announces.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until there is an answer. Every miss says why; the last reason becomes the error.
pub async fn until<T, Reason: Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, Reason>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let reason = match look().await {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        if begun.elapsed() >= within {
            bail!("{what}: not within {within:?}: {reason}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells readers of the test's output what was measured; thresholds of tests are generous, figures are not.
pub fn measured(what: &str, begun: Instant) -> Duration {
    let took = begun.elapsed();
    println!("measured: {what}: {:.3} s", took.as_secs_f64());
    took
}
