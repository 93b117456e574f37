//! How many workers were busy over the time of a copy.

use std::time::Duration;

/// How many workers were busy over the time of a copy whose number of workers was found while it ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Busy {
    /// Moments since the start of the copy, and how many workers were busy, on average, since the moment before.
    series: Vec<(Duration, f64)>,
}

impl Busy {
    /// So many moments are kept at most: enough for a chart, few enough for a report of a copy that takes days.
    const KEPT: usize = 1024;

    /// Adds a moment later than all before. Of too many, neighbours are merged.
    pub(crate) fn push(&mut self, at: Duration, busy: f64) {
        if self.series.len() >= Self::KEPT {
            let mut before = Duration::ZERO;
            let pairs = self.series.chunks(2).map(|pair| {
                let begun = std::mem::replace(&mut before, pair[pair.len() - 1].0);
                let mut time = 0.0;
                let mut sum = 0.0;
                let mut from = begun;
                for &(to, busy) in pair {
                    let seconds = to.saturating_sub(from).as_secs_f64();
                    time += seconds;
                    sum += busy * seconds;
                    from = to;
                }
                (before, sum / time.max(1e-9))
            });
            self.series = pairs.collect();
        }
        self.series.push((at, busy));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// How many workers were busy, as pairs of a moment since the start of the copy and the mean since the pair before.
    #[must_use]
    pub fn series(&self) -> &[(Duration, f64)] {
        &self.series
    }

    /// The fewest.
    #[must_use]
    pub fn least(&self) -> usize {
        self.counts().next().map_or(0, |(count, _)| count)
    }

    /// The most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.counts().last().map_or(0, |(count, _)| count)
    }

    /// So many or fewer for half of the time, so many or more for the other half.
    #[must_use]
    pub fn median(&self) -> usize {
        let all: Duration = self.counts().map(|(_, time)| time).sum();
        let mut passed = Duration::ZERO;
        let mut counts = self.counts();
        let half = counts.find(|(_, time)| {
            passed += *time;
            passed * 2 >= all
        });
        half.map_or(0, |(count, _)| count)
    }

    /// Whole numbers of workers, the fewest first, each with how long they were busy.
    fn counts(&self) -> impl Iterator<Item = (usize, Duration)> + use<> {
        let mut before = Duration::ZERO;
        let intervals = self.series.iter().map(|&(at, busy)| {
            let begun = std::mem::replace(&mut before, at);
            (whole(busy), at.saturating_sub(begun))
        });
        let mut counts: Vec<_> = intervals.collect();
        counts.sort_unstable();
        counts.into_iter()
    }
}

/// A mean number of workers as a whole one: there is always one at least.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole(workers: f64) -> usize {
    workers.round().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments of 10 ms each.
    fn busy(counts: &[f64]) -> Busy {
        let mut busy = Busy::default();
        for (i, &count) in (1..).zip(counts) {
            busy.push(Duration::from_millis(10 * i), count);
        }
        busy
    }

    #[test]
    fn they_are_counted_by_the_time_that_they_were_busy() {
        let mut several = busy(&[0.2, 2.0, 2.0, 31.6]);
        assert_eq!((several.least(), several.most()), (1, 32));
        assert_eq!(several.median(), 2);
        several.push(Duration::from_millis(100), 31.9);
        assert_eq!(several.median(), 32);
    }

    #[test]
    fn a_long_series_is_merged_and_means_the_same() {
        let counts: Vec<f64> = (0..5000).map(|i| f64::from(i % 2)).collect();
        let series = busy(&counts);
        assert!(series.series().len() <= Busy::KEPT);
        assert_eq!(
            series.series().last().unwrap().0,
            Duration::from_millis(50_000)
        );
        let mut before = Duration::ZERO;
        let sum: f64 = series
            .series()
            .iter()
            .map(|&(at, busy)| busy * (at - std::mem::replace(&mut before, at)).as_secs_f64())
            .sum();
        assert!((sum - 25.0).abs() < 0.01, "{sum}");
    }
}
