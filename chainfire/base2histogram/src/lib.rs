//! Stands in for the crate of this name, of which the Raft log uses three calls to time its writes.
//!
//! The original builds look-up tables for sixteen resolutions when the first histogram is made, 26 MB that stay: more
//! than a third of what a member of a small cluster took. The log uses one resolution, and this crate has that one,
//! without tables. To be removed when the original builds only what is used.
//!
//! ```text
//!   value   0 1 2 3 | 4 5 6 7 | 8-9 10-11 12-13 14-15 | 16-19 20-23 24-27 28-31 | ...   four buckets to a power of two
//!   bucket  0 1 2 3 | 4 5 6 7 |  8    9     10    11  |  12    13    14    15   | ...
//! ```
#![forbid(unsafe_code)]

/// Buckets to a power of two.
const GROUP: usize = 4;
/// Bits of a value below its highest that choose its bucket.
const BITS: u32 = GROUP.trailing_zeros();
/// One group for what is below [`GROUP`], and one for each higher power of two.
const BUCKETS: usize = GROUP * (1 + (u64::BITS - BITS) as usize);

/// How often values occurred; what it says of them is at most an eighth off.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
}

/// The values below which so many percent of all are; 0 where nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PercentileStats {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
        }
    }
}

impl Histogram {
    pub fn record(&mut self, value: u64) {
        let count = &mut self.buckets[bucket_of(value)];
        *count = count.saturating_add(1);
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
        }
    }

    /// The middle of the bucket that holds the value of this rank.
    fn percentile(&self, percent: u128) -> u64 {
        let total: u128 = self.buckets.iter().copied().map(u128::from).sum();
        let rank = (total * percent).div_ceil(100);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += u128::from(*count);
            if *count > 0 && below >= rank {
                let (first, last) = bounds_of(bucket);
                return first + (last - first) / 2;
            }
        }
        0
    }
}

fn bucket_of(value: u64) -> usize {
    let Some(highest_bit) = value.checked_ilog2().filter(|bit| *bit >= BITS) else {
        return usize::try_from(value).unwrap_or(0);
    };
    let shift = highest_bit - BITS;
    // The highest bit and the two below it: 4 to 7.
    let leading = usize::try_from(value >> shift).unwrap_or(GROUP);
    GROUP * shift as usize + leading
}

/// The least and the greatest value of a bucket.
fn bounds_of(bucket: usize) -> (u64, u64) {
    if bucket < GROUP {
        return (bucket as u64, bucket as u64);
    }
    let shift = bucket / GROUP - 1;
    let first = ((GROUP + bucket % GROUP) as u64) << shift;
    (first, first + ((1_u64 << shift) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gap_or_overlap() {
        let mut next = 0_u64;
        for bucket in 0..BUCKETS {
            let (first, last) = bounds_of(bucket);
            assert_eq!(first, next, "bucket {bucket}");
            assert_eq!((bucket_of(first), bucket_of(last)), (bucket, bucket));
            assert!(last - first <= first / 4, "bucket {bucket} is too wide");
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket holds the greatest value");
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        histogram.record(3);
        let only = PercentileStats { p50: 3, p90: 3, p99: 3 };
        assert_eq!(histogram.percentile_stats(), only);
        let mut histogram = Histogram::default();
        for value in 1..=1000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        for (told, exact) in [(stats.p50, 500_u64), (stats.p90, 900), (stats.p99, 990)] {
            assert!(told.abs_diff(exact) <= exact / 8, "{told} instead of {exact}");
        }
    }
}
