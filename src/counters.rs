//! What a copy has done, counted while it runs.
//!
//! [`Counters`] are what the workers write. Each worker has a slot of its own on its own cache lines, so counting costs no traffic
//! between cores; a reader adds the slots up. [`Stats`] are plain sums; they add up over workers, jobs and processes.

use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::busy::whole;
use crate::live::Underway;

/// How a file's bytes came to the copy: the rungs of the ladder in `ladder.rs`, fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The copy shares the source's blocks until one of the two is written; nothing moved.
    Reflink,
    /// Moved inside the kernel by copy_file_range(2).
    Kernel,
    /// Read into a buffer and written from it.
    ReadWrite,
}

/// What is counted, as an index into a worker's slot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Files,
    Directories,
    Symlinks,
    HardLinks,
    Specials,
    Bytes,
    Reflinked,
    InKernel,
    ReadWritten,
    /// Bytes read back.
    Verified,
    /// Nanoseconds spent on it.
    Verifying,
    /// Files that got other attributes and no data.
    Dressed,
    Skipped,
    Excluded,
    Deleted,
    Warnings,
    Errors,
    /// Entries that were listed, and operands.
    Found,
    /// Entries about which nothing is left to be done.
    Done,
}

/// One more than the last [`Count`].
const COUNTS: usize = Count::Done as usize + 1;

/// A worker's own counters. 128 bytes is two cache lines: the processor prefetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot([AtomicU64; COUNTS]);

/// Slots, for as many workers as a tuner finds at most on all but the largest machines: more share them, which costs a
/// little and counts as well.
const SLOTS: usize = 128;

/// The counters of a copy.
#[derive(Debug)]
pub(crate) struct Counters {
    slots: [Slot; SLOTS],
    /// How many workers were busy a moment ago; 0 where nobody looks.
    busy: AtomicUsize,
    pub(crate) underway: Underway,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot::default()),
            busy: AtomicUsize::new(0),
            underway: Underway::default(),
        }
    }
}

impl Counters {
    pub(crate) fn add(&self, count: Count, n: u64) {
        let worker = rayon::current_thread_index().unwrap_or(0);
        // Relaxed: a count orders nothing. The end of a copy is seen through the job's own synchronisation.
        let slot = &self.slots[worker % SLOTS].0[count as usize];
        if slot
            .fetch_add(n, Ordering::Relaxed)
            .checked_add(n)
            .is_none()
        {
            slot.store(u64::MAX, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_bytes(&self, method: Method, n: u64) {
        let count = match method {
            Method::Reflink => Count::Reflinked,
            Method::Kernel => Count::InKernel,
            Method::ReadWrite => Count::ReadWritten,
        };
        self.add(count, n);
    }

    /// Says how many workers have been busy, on average, since this was called last.
    pub(crate) fn set_busy(&self, workers: f64) {
        self.busy.store(whole(workers), Ordering::Relaxed);
    }

    /// How many workers were busy a moment ago, if anybody looks.
    pub(crate) fn busy(&self) -> Option<usize> {
        Some(self.busy.load(Ordering::Relaxed)).filter(|busy| *busy > 0)
    }

    /// Entries have been found, and so many of them may have to be listed.
    pub(crate) fn found(&self, entries: u64, dirs: u64) {
        self.add(Count::Found, entries);
        self.underway.add_unlisted(dirs);
    }

    /// How many entries have been found, and about how many of them nothing is left to be done.
    pub(crate) fn entries(&self) -> (u64, u64) {
        // In this order: what is done has been found.
        let done = self.total(Count::Done);
        (self.total(Count::Found), done)
    }

    fn total(&self, count: Count) -> u64 {
        let slots = self.slots.iter();
        let counts = slots.map(|slot| slot.0[count as usize].load(Ordering::Relaxed));
        counts.fold(0, u64::saturating_add)
    }

    pub(crate) fn sum(&self) -> Stats {
        let total = |count: Count| self.total(count);
        Stats {
            files: total(Count::Files),
            directories: total(Count::Directories),
            symlinks: total(Count::Symlinks),
            hard_links: total(Count::HardLinks),
            specials: total(Count::Specials),
            bytes: total(Count::Bytes),
            reflinked_bytes: total(Count::Reflinked),
            kernel_bytes: total(Count::InKernel),
            read_write_bytes: total(Count::ReadWritten),
            verified_bytes: total(Count::Verified),
            verify_nanoseconds: total(Count::Verifying),
            skipped: total(Count::Skipped),
            excluded: total(Count::Excluded),
            dressed: total(Count::Dressed),
            deleted: total(Count::Deleted),
            warnings: total(Count::Warnings),
            errors: total(Count::Errors),
        }
    }
}

/// Counts of what a copy has done. They add up, as far as a number goes: sparse files may be of any size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Regular files copied.
    pub files: u64,
    /// Directories made, or merged into.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names given to files that were copied already.
    pub hard_links: u64,
    /// FIFOs, sockets and device files made.
    pub specials: u64,
    /// Sizes of the regular files copied, in bytes, holes included.
    pub bytes: u64,
    /// Bytes shared with the source instead of moved.
    pub reflinked_bytes: u64,
    /// Bytes moved inside the kernel.
    pub kernel_bytes: u64,
    /// Bytes read and written.
    pub read_write_bytes: u64,
    /// Bytes read back and found to be as they were written (`--verify`).
    pub verified_bytes: u64,
    /// What that took, in nanoseconds, over all workers.
    pub verify_nanoseconds: u64,
    /// Destinations left alone on purpose.
    pub skipped: u64,
    /// Sources left out by the filter; a directory counts as one.
    pub excluded: u64,
    /// Entries whose data was up to date, and that got attributes only.
    pub dressed: u64,
    /// Entries of the destination removed because the source does not have them (`--delete`).
    pub deleted: u64,
    /// Warnings.
    pub warnings: u64,
    /// Errors.
    pub errors: u64,
}

impl Stats {
    /// The bytes that really moved.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.kernel_bytes.saturating_add(self.read_write_bytes)
    }
}

impl Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            directories: self.directories.saturating_add(other.directories),
            symlinks: self.symlinks.saturating_add(other.symlinks),
            hard_links: self.hard_links.saturating_add(other.hard_links),
            specials: self.specials.saturating_add(other.specials),
            bytes: self.bytes.saturating_add(other.bytes),
            reflinked_bytes: self.reflinked_bytes.saturating_add(other.reflinked_bytes),
            kernel_bytes: self.kernel_bytes.saturating_add(other.kernel_bytes),
            read_write_bytes: self.read_write_bytes.saturating_add(other.read_write_bytes),
            verified_bytes: self.verified_bytes.saturating_add(other.verified_bytes),
            verify_nanoseconds: self
                .verify_nanoseconds
                .saturating_add(other.verify_nanoseconds),
            skipped: self.skipped.saturating_add(other.skipped),
            excluded: self.excluded.saturating_add(other.excluded),
            dressed: self.dressed.saturating_add(other.dressed),
            deleted: self.deleted.saturating_add(other.deleted),
            warnings: self.warnings.saturating_add(other.warnings),
            errors: self.errors.saturating_add(other.errors),
        }
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_add_up() {
        let one = Stats {
            files: 1_234_567,
            kernel_bytes: 1 << 30,
            read_write_bytes: 1 << 29,
            ..Stats::default()
        };
        let mut sum = one;
        sum += one;
        assert_eq!(sum.files, 2 * 1_234_567);
        assert_eq!(sum.bytes_moved(), 3 << 30);
    }

    #[test]
    fn what_no_number_can_say_is_the_greatest_one() {
        let counters = Counters::default();
        for _ in 0..3 {
            counters.add(Count::Bytes, 7 << 60);
        }
        let stats = counters.sum();
        assert_eq!(stats.bytes, u64::MAX);
        assert_eq!((stats + stats).bytes, u64::MAX);
    }
}
