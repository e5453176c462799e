//! Sizes: `512M`, `4G`, `1T`. A number without a unit is refused, since it is megabytes to one reader and bytes to
//! the next.

const UNITS: [(&str, u64); 3] = [("T", 1024 * 1024), ("G", 1024), ("M", 1)];

/// A size in MiB.
pub fn parse_size_mb(text: &str) -> Result<u64, String> {
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    if number.is_empty() {
        return Err(format!("{text:?} is no size; write 512M, 4G or 1T"));
    }
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit; write {number}M or {number}G"));
    }
    let letter = unit
        .strip_suffix("iB")
        .or_else(|| unit.strip_suffix('B'))
        .unwrap_or(unit);
    let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(letter));
    let Some((_, mb)) = known else {
        return Err(format!("{text:?} has the unit {unit:?}; M, G and T are allowed"));
    };
    in_mb(number, *mb).ok_or_else(|| format!("{text:?} is no whole number of MiB, or too large"))
}

/// `1.5` of a unit, only where it comes out even.
fn in_mb(number: &str, unit_mb: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.len() > 6 {
        return None;
    }
    let whole_mb = whole.parse::<u64>().ok()?.checked_mul(unit_mb)?;
    if fraction.is_empty() {
        return Some(whole_mb);
    }
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let parts = fraction.parse::<u64>().ok()?.checked_mul(unit_mb)?;
    parts
        .is_multiple_of(scale)
        .then(|| whole_mb.checked_add(parts / scale))
        .flatten()
}

/// The shortest exact way to write it.
pub fn show_size_mb(mb: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| mb >= *unit && mb.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", mb / unit),
        None => format!("{mb}M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let table = [
            ("512M", 512),
            ("512m", 512),
            ("512MiB", 512),
            ("512MB", 512),
            ("4G", 4096),
            ("1.5G", 1536),
            ("0.25t", 262_144),
            ("1T", 1_048_576),
            ("0M", 0),
        ];
        for (text, mb) in table {
            assert_eq!(parse_size_mb(text), Ok(mb), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_why() {
        let table = [
            ("", "is no size; write 512M"),
            ("G", "is no size"),
            ("-1G", "is no size"),
            ("512", "has no unit; write 512M or 512G"),
            ("512K", "unit \"K\"; M, G and T are allowed"),
            ("4 G", "unit \" G\""),
            ("1.3G", "no whole number of MiB"),
            ("1.G", "no whole number of MiB"),
            (".5G", "no whole number of MiB"),
            ("1.2.3G", "no whole number of MiB"),
            ("99999999999999999999G", "too large"),
            ("18446744073709551615T", "too large"),
        ];
        for (text, says) in table {
            let error = parse_size_mb(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_size_that_is_shown_reads_back() {
        for (mb, text) in [
            (0, "0M"),
            (512, "512M"),
            (1024, "1G"),
            (1536, "1536M"),
            (1_048_576, "1T"),
        ] {
            assert_eq!(show_size_mb(mb), text);
            assert_eq!(parse_size_mb(text), Ok(mb));
        }
    }
}
