//! Times as people read them.

/// How long ago: `45s`, `12m`, `3h`, `5d`. Empty where the time is not known.
pub fn age(now_ms: u64, then_ms: u64) -> String {
    if then_ms == 0 {
        return String::new();
    }
    // A clock that is behind must not show an age of centuries.
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long something takes: `350ms`, `2.4s`, `75s`, `12m`.
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => age(ms + 1, 1),
    }
}

/// The time in UTC, to the second; RFC 3339.
pub fn clock_time(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(ms / 1000);
    // Years beyond 9999 have no form.
    if ms / 1000 > 253_402_300_799 {
        ms.to_string()
    } else {
        humantime::format_rfc3339_seconds(time).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let table = [
            (0, ""),
            (1_000_000_000, "0s"),
            (2_000_000_000, "0s"),
            (999_955_000, "45s"),
            (999_280_000, "12m"),
            (989_200_000, "3h"),
            (568_000_000, "5d"),
        ];
        for (then, text) in table {
            assert_eq!(age(1_000_000_000, then), text);
        }
        assert_eq!(
            (milliseconds(350), milliseconds(2450)),
            ("350ms".to_owned(), "2.4s".to_owned())
        );
        assert_eq!((milliseconds(75_000), clock_time(0)), ("75s".to_owned(), String::new()));
        assert_eq!(clock_time(1_700_000_000_123), "2023-11-14T22:13:20Z");
        assert_eq!(clock_time(u64::MAX), u64::MAX.to_string());
    }
}
