//! From snapshots of a copy to what can honestly be said about it: how fast it is, how far, and when it will be over.
//!
//! 1. The **rate** is that of the last seconds, not of the whole copy: it says what is going on now.
//! 2. **How far** it is, and the **time left**, are said only when all entries have been found. The bytes of a file are known
//!    once it has been opened; one that has not is taken to be like those that have. So these two are estimates, unless the
//!    only files left are large ones that are open.
//! 3. How far it is never goes backwards: an estimate that was too high stays until it is true.
//!
//! Pure functions of numbers and moments; nothing here looks at a clock.

use std::collections::VecDeque;
use std::time::Duration;

use poolcp::{LargeFile, Snapshot};

/// The rate is that of so much time: long enough to be read before it changes, short enough to be of now.
const WINDOW: Duration = Duration::from_secs(5);

/// Over less time than this nothing is foretold.
const SHORTEST: Duration = Duration::from_millis(400);

/// Making an entry is about as much work as moving so many bytes: 64 KiB are copied in some 20 µs from and to memory, where
/// a small file takes 10 to 20.
const ENTRY: f64 = 65_536.0;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub elapsed: Duration,
    pub found: u64,
    pub done: u64,
    /// All entries have been found.
    pub is_found: bool,
    pub bytes: u64,
    /// What `bytes` will be at the end, if that is certain.
    pub total: Option<u64>,
    /// Bytes a second.
    pub rate: u64,
    /// How far it is, from 0 to 1.
    pub fraction: Option<f64>,
    pub left: Option<Duration>,
    pub busy: Option<usize>,
    pub errors: u64,
    /// The largest first.
    pub large: Vec<LargeFile>,
}

/// What was seen before.
#[derive(Debug, Default)]
pub struct Pace {
    seen: VecDeque<Seen>,
    fraction: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    at: Duration,
    bytes: u64,
    work: f64,
}

// For people: what is lost in the conversions is far below what is shown.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
impl Pace {
    /// What there is to be said at a moment since the start; `passes` is how often each byte is moved (2 if it is read back).
    pub fn view(&mut self, elapsed: Duration, now: Snapshot, passes: u64) -> View {
        let stats = &now.stats;
        let bytes = stats.bytes_moved().saturating_add(stats.reflinked_bytes);
        let work = now.done as f64 * ENTRY + bytes as f64 + stats.verified_bytes as f64;
        let seen = Seen {
            at: elapsed,
            bytes,
            work,
        };
        let first = self.remember(seen);
        let time = elapsed.saturating_sub(first.at).as_secs_f64();
        let per_second = |amount: f64| amount / time.max(1e-3);
        let left = work_left(&now, bytes, passes);
        let total = (now.is_found && now.found == now.done + now.large.len() as u64).then(|| {
            let to_come = |file: &LargeFile| file.size.saturating_sub(file.moved);
            let to_come = now.large.iter().map(to_come);
            to_come.fold(bytes, u64::saturating_add)
        });
        if let Some(left) = left {
            let fraction = work / (work + left).max(1.0);
            // All is only all when it is.
            let most = if now.done == now.found { 1.0 } else { 0.99 };
            let fraction = fraction.min(most).max(self.fraction.unwrap_or(0.0));
            self.fraction = Some(fraction);
        }
        let speed = per_second(work - first.work);
        let left = left.filter(|_| speed > 0.0 && time >= SHORTEST.as_secs_f64());
        View {
            elapsed,
            found: now.found,
            done: now.done,
            is_found: now.is_found,
            bytes,
            total,
            rate: per_second(bytes.saturating_sub(first.bytes) as f64) as u64,
            fraction: self.fraction,
            // More than a year is nothing to tell.
            left: left.map(|left| Duration::from_secs_f64((left / speed).min(3e7))),
            busy: now.busy_workers,
            errors: stats.errors,
            large: now.large,
        }
    }

    /// Adds what is seen now, and says with what to compare it.
    fn remember(&mut self, seen: Seen) -> Seen {
        // A copy that was at rest or has just begun has a first moment: the start itself.
        if self.seen.is_empty() {
            self.seen.push_back(Seen::default());
        }
        self.seen.push_back(seen);
        while self.seen.len() > 2 && seen.at.saturating_sub(self.seen[1].at) >= WINDOW {
            self.seen.pop_front();
        }
        self.seen[0]
    }
}

/// How much work is left; `None` if that cannot be known.
#[allow(clippy::cast_precision_loss)]
fn work_left(now: &Snapshot, bytes: u64, passes: u64) -> Option<f64> {
    let known = now.done + now.large.len() as u64;
    if !now.is_found || known == 0 {
        return None;
    }
    let unopened = now.found.saturating_sub(known) as f64;
    let of_large =
        |count: fn(&LargeFile) -> u64| now.large.iter().map(count).fold(0, u64::saturating_add);
    let (size, moved) = (of_large(|file| file.size), of_large(|file| file.moved));
    let verified = of_large(|file| file.verified.unwrap_or(0));
    let mean = (bytes.saturating_sub(moved).saturating_add(size)) as f64 / known as f64;
    let passes = passes as f64;
    let of_open = size as f64 * passes - (moved as f64 + verified as f64);
    let entries = unopened + now.large.len() as f64;
    Some(of_open.max(0.0) + entries * ENTRY + unopened * mean * passes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(done: u64, found: u64, bytes: u64) -> Snapshot {
        let mut now = Snapshot::default();
        (now.done, now.found, now.is_found) = (done, found, true);
        now.stats.kernel_bytes = bytes;
        now
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn nothing_is_foretold_before_everything_is_found() {
        let mut pace = Pace::default();
        let mut now = snapshot(500, 1000, 1 << 20);
        now.is_found = false;
        let view = pace.view(seconds(5), now, 1);
        assert_eq!((view.fraction, view.left, view.total), (None, None, None));
        let view = pace.view(seconds(5), snapshot(500, 1000, 1 << 20), 1);
        assert_eq!(view.fraction, Some(0.5));
        let left = view.left.expect("half of it is left").as_secs_f64();
        assert!((4.9..5.1).contains(&left), "{left}");
        assert_eq!(view.total, None, "the other half may have any size");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        for second in 1..=10 {
            pace.view(seconds(second), snapshot(0, 9, second * 1_000_000), 1);
        }
        let view = pace.view(seconds(20), snapshot(0, 9, 10_000_000), 1);
        assert_eq!(view.rate, 0, "nothing has moved for ten seconds");
        let view = pace.view(seconds(21), snapshot(0, 9, 30_000_000), 1);
        assert!(view.rate > 1_500_000, "{}", view.rate);
    }

    #[test]
    fn how_far_it_is_never_goes_backwards_and_ends_at_one() {
        let mut pace = Pace::default();
        let small = pace.view(seconds(1), snapshot(90, 100, 1000), 1);
        let large = pace.view(seconds(2), snapshot(91, 100, 900 << 20), 1);
        assert!(large.fraction >= small.fraction);
        let nearly = pace.view(seconds(3), snapshot(99, 100, 1 << 40), 1);
        assert!(nearly.fraction < Some(1.0));
        let end = pace.view(seconds(4), snapshot(100, 100, 1 << 40), 1);
        assert_eq!(end.fraction, Some(1.0));
        assert_eq!(end.total, Some(1 << 40));
    }

    #[test]
    fn of_a_sole_empty_copy_nothing_is_divided_by_nothing() {
        let view = Pace::default().view(Duration::ZERO, snapshot(0, 0, 0), 1);
        assert_eq!((view.rate, view.fraction, view.left), (0, None, None));
    }
}
