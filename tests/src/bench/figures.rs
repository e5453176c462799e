//! Medians, percentiles and ratios.

use std::time::Duration;

/// The middle of `values`, the mean of the two middle ones for an even count. `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// The smallest of `values` that at least `fraction` of them do not exceed. `None` if there are none.
pub fn percentile<T: Ord + Copy>(values: &mut [T], fraction: f64) -> Option<T> {
    let last = values.len().checked_sub(1)?;
    let rank = (values.len() as f64 * fraction).ceil() as usize;
    let (_, value, _) = values.select_nth_unstable(rank.saturating_sub(1).min(last));
    Some(*value)
}

/// The median of `ours[i] / theirs[i]`. Both of a pair were measured one right after the other, so that
/// what the machine does over minutes cancels out.
pub fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .filter(|ratio| ratio.is_finite())
        .collect();
    median(&ratios)
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Median, 99th percentile and worst of some durations, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub p50_s: f64,
    pub p99_s: f64,
    pub max_s: f64,
}

impl Spread {
    pub fn of(durations: &[Duration]) -> Option<Self> {
        let seconds: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
        let mut sorted = durations.to_vec();
        Some(Self {
            p50_s: median(&seconds)?,
            p99_s: percentile(&mut sorted, 0.99)?.as_secs_f64(),
            max_s: durations.iter().max()?.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 0.99), Some(198));
        assert_eq!(percentile(&mut values, 0.5), Some(100));
        assert_eq!(percentile(&mut values, 1.0), Some(200));
        assert_eq!(percentile(&mut [7], 0.99), Some(7));
        assert_eq!(percentile::<u32>(&mut [], 0.99), None);
    }

    #[test]
    fn a_ratio_pairs_its_rounds() {
        // A machine that slows down by half in the second pair changes nothing.
        assert_eq!(paired_ratio(&[20.0, 10.0], &[10.0, 5.0]), Some(2.0));
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn a_spread_of_few_has_its_worst_as_p99() {
        let spread = Spread::of(&[1, 2, 9].map(Duration::from_secs)).expect("three values");
        assert_eq!((spread.p50_s, spread.p99_s, spread.max_s), (2.0, 9.0, 9.0));
    }
}
