//! How fast data may move (`--bwlimit`).
//!
//! A token bucket that all workers of a copy share. It is kept as one moment, the one at which everything that was asked for
//! so far may have moved ([`Bucket`]): who wants to move more gets the time right after it, and waits until that has passed.
//! So turns come in the order in which they were asked for, and no worker starves, however many there are.
//!
//! What was not used is lost but for [`BURST`], which makes up for a disk that pauses and a sleep that lasts too long. Data
//! moves in pieces of [`Limiter::piece`] at most, read into a buffer before they are paid for and written after, or paid for
//! and then moved by the kernel. What is shared with the source (reflinks) does not move, and is not limited.
//!
//! A worker that waits here is out of its leaf (`gate.rs`), so that nobody takes it for one that a device keeps waiting and
//! lets more work; it looks up often enough that a copy that is stopped ends at once.
//!
//! Where there is no limit, all this is one look at an `Option`.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::Canceller;
use crate::gate;
use crate::lock::lock;

/// How much of the past may be made up for. Together with a piece it is a tenth of a second, which no graph shows; under
/// load a sleep may well last some tens of milliseconds too long.
const BURST: Duration = Duration::from_millis(80);

/// A piece is what may move in this part of a second: 20 ms, so that workers take turns quickly.
const PIECES_A_SECOND: u64 = 50;

/// The block of most filesystems: pieces are whole ones, and one at least. Below 40 kB/s that takes longer than the tenth of
/// a second, but less would only cost more calls.
const BLOCK: u64 = 4096;

/// How long a waiting worker sleeps before it looks whether it should stop: nobody notices so little, and hundreds of
/// workers that look up so often take next to no processor time.
const LOOK_UP: Duration = Duration::from_millis(50);

/// When what may move: a pure function of time, which is counted from the start of the copy.
#[derive(Debug)]
struct Bucket {
    /// Bytes per second.
    rate: NonZeroU64,
    /// All that was asked for so far may have moved by then.
    free: Duration,
}

impl Bucket {
    /// When so many more bytes may move, asked for `now`.
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let begin = self.free.max(now.saturating_sub(BURST));
        self.free = begin.saturating_add(self.time_for(bytes));
        self.free
    }

    /// So many bytes did not move after all: those who come next have the time.
    fn give_back(&mut self, bytes: u64) {
        self.free = self.free.saturating_sub(self.time_for(bytes));
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let rate = self.rate.get();
        let part = u128::from(bytes % rate) * 1_000_000_000 / u128::from(rate);
        // Cannot fail to convert: it is less than a second.
        Duration::new(bytes / rate, u32::try_from(part).unwrap_or(0))
    }
}

/// The limit of one copy.
#[derive(Debug)]
pub(crate) struct Limiter {
    bucket: Mutex<Bucket>,
    started: Instant,
    piece: u64,
}

impl Limiter {
    /// A limit in bytes per second, from now on.
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        let piece = rate.get() / PIECES_A_SECOND / BLOCK * BLOCK;
        Self {
            bucket: Mutex::new(Bucket {
                rate,
                free: Duration::ZERO,
            }),
            started: Instant::now(),
            piece: piece.max(BLOCK),
        }
    }

    /// The most bytes that anybody should move at once; a multiple of most filesystems' block size.
    pub(crate) fn piece(&self) -> u64 {
        self.piece
    }

    /// Waits until so many bytes may move, or until the copy is stopped.
    pub(crate) fn wait(&self, bytes: u64, canceller: &Canceller) {
        if self.wait_for_turn(bytes, canceller) > BURST && !canceller.is_cancelled() {
            // All have been held up together (by Ctrl-Z, say), and must not all go on together.
            self.wait_for_turn(bytes, canceller);
        }
    }

    /// Returns how much too late it is now.
    fn wait_for_turn(&self, bytes: u64, canceller: &Canceller) -> Duration {
        let moment = lock(&self.bucket).take(bytes, self.started.elapsed());
        let left = || moment.saturating_sub(self.started.elapsed());
        if !left().is_zero() {
            gate::rest(|| {
                while !left().is_zero() && !canceller.is_cancelled() {
                    thread::sleep(left().min(LOOK_UP));
                }
            });
        }
        self.started.elapsed().saturating_sub(moment)
    }

    /// So many of the bytes that were waited for did not move.
    pub(crate) fn give_back(&self, bytes: u64) {
        lock(&self.bucket).give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(rate: u64) -> Bucket {
        Bucket {
            rate: NonZeroU64::new(rate).unwrap(),
            free: Duration::ZERO,
        }
    }

    #[test]
    fn bytes_take_their_time_from_the_first_one_on() {
        let mut bucket = bucket(1000);
        assert_eq!(bucket.take(500, Duration::ZERO), SECOND / 2);
        assert_eq!(bucket.take(500, Duration::ZERO), SECOND);
        assert_eq!(bucket.take(1000, SECOND), SECOND * 2);
    }

    #[test]
    fn turns_come_in_order_whatever_their_size() {
        let mut bucket = bucket(1 << 20);
        let moments: Vec<_> = [1 << 20, 1, 1 << 30, 1]
            .map(|bytes| bucket.take(bytes, Duration::ZERO))
            .into();
        assert!(moments.is_sorted());
        assert!(moments[1] - moments[0] <= Duration::from_micros(1));
    }

    #[test]
    fn of_a_pause_only_a_burst_is_made_up_for() {
        let mut bucket = bucket(1000);
        bucket.take(1000, Duration::ZERO);
        let now = SECOND * 60;
        assert_eq!(bucket.take(0, now), now - BURST);
        // What is asked for after that is in time again.
        assert_eq!(bucket.take(1000, now), now - BURST + SECOND);
    }

    #[test]
    fn a_late_worker_loses_nothing() {
        let mut bucket = bucket(1000);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            // Oversleeps, and moves what it paid for, in less than a burst together.
            now = bucket.take(100, now).max(now) + BURST / 2;
        }
        let lost = now - SECOND * 10;
        assert!(lost < BURST, "{lost:?}");
    }

    #[test]
    fn no_window_has_more_than_its_share_and_a_burst() {
        let rate = 10_000;
        let mut bucket = bucket(rate);
        let mut moves = Vec::new();
        let mut now = Duration::ZERO;
        // Workers that come in bunches, after pauses of all lengths.
        for round in 0..200 {
            now += Duration::from_millis(round * 7 % 311);
            for worker in 0..5 {
                let bytes = 1 + (round * 31 + worker * 97) % 200;
                moves.push((bucket.take(bytes, now).max(now), bytes));
            }
        }
        moves.sort_unstable();
        for (first, &(begin, _)) in moves.iter().enumerate() {
            let mut sum = 0;
            for &(at, bytes) in &moves[first..] {
                sum += bytes;
                let fair = (at - begin + BURST).as_secs_f64() * rate as f64;
                // The first piece was waited for before the window began.
                assert!(sum as f64 <= fair + 200.0 + 1.0, "{sum} of {fair}");
            }
        }
    }

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let mut bucket = bucket(1000);
        bucket.take(1000, Duration::ZERO);
        bucket.give_back(900);
        assert_eq!(bucket.take(100, Duration::ZERO), SECOND / 5);
    }

    #[test]
    fn absurd_numbers_are_a_long_wait_and_no_panic() {
        let mut bucket = bucket(1);
        bucket.take(u64::MAX, Duration::ZERO);
        assert_eq!(bucket.take(u64::MAX, Duration::ZERO), Duration::MAX);
        bucket.give_back(u64::MAX);
        let mut fast = super::tests::bucket(u64::MAX);
        assert_eq!(fast.take(1 << 40, Duration::ZERO).as_micros(), 0);
    }

    #[test]
    fn pieces_are_blocks_and_short() {
        let piece = |rate| Limiter::new(NonZeroU64::new(rate).unwrap()).piece();
        assert_eq!(piece(1), BLOCK);
        assert_eq!(piece(50 << 20), 1 << 20);
        assert!(piece(123_456_789).is_multiple_of(BLOCK));
        assert!(piece(123_456_789) * PIECES_A_SECOND <= 123_456_789);
    }
}
