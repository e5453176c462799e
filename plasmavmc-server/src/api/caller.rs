//! How long the caller waits. gRPC tells it in the head of a call.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The end of a wait, whatever the caller says: an operation that takes longer has failed long before.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long an answer may be on its way.
const ON_THE_WAY: Duration = Duration::from_millis(200);

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub deadline: Instant,
}

impl Caller {
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        Self::within(timeout_of(request.metadata()).map_or(LONGEST, answer_within))
    }

    pub fn within(span: Duration) -> Self {
        Self {
            deadline: Instant::now() + span.min(LONGEST),
        }
    }
}

/// The caller gives up at its own deadline: an answer that says how far it has come has to be there before.
fn answer_within(timeout: Duration) -> Duration {
    timeout.saturating_sub(ON_THE_WAY.min(timeout / 10))
}

/// At most eight digits and a unit; anything else is no timeout.
fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_before_its_caller_gives_up() {
        let check = |timeout_ms, expected_ms| {
            let within = answer_within(Duration::from_millis(timeout_ms));
            assert_eq!(within, Duration::from_millis(expected_ms), "{timeout_ms} ms");
        };
        check(0, 0);
        check(100, 90);
        check(2000, 1800);
        check(60_000, 59_800);
    }

    #[test]
    fn the_timeout_of_a_call_is_read() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout_of(&metadata)
        };
        assert_eq!(read("10S"), Some(Duration::from_secs(10)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for nonsense in ["", "S", "10", "-1S", "123456789S", "1d"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
