//! Large files, which several workers copy.
//!
//! From [`PARALLEL_FROM`] up a file is copied in chunks that idle workers steal. Chunks are independent ranges: they share
//! no position, and none waits for another. They are begun in the file's order, which is how disks like to read and filesystems
//! to allocate.
//!
//! Not to FUSE: some of its servers take a file from front to back only, as those do that hand it on to an object store.
//!
//! On the filesystems of one machine, a worker that is alone at a file copies its chunk inside the kernel, and several read and
//! write: only one worker at a time can write to a file (its lock in the kernel), but others can read what they write next, while
//! `copy_file_range` has the lock for both. In memory, two workers so take 0.8 of the time that they take inside the kernel, and
//! 0.85 of one worker's; more cannot gain more.
//!
//! That a file is complete is told by the end of rayon's `try_reduce`, and by nothing else: it returns once every chunk that was
//! begun has ended, on whatever worker, and what they did happened before that. Chunks share a count of those that were begun,
//! from which each of them takes one number in one step: there are as many as numbers. Besides, they share a count of those at work,
//! the two flags of the ladder and the one that says whether the kernel was of use, which only choose between ways that are all
//! right: no order of their loads and stores makes a difference. The lowest number at which the source ended keeps none but later
//! chunks from being copied, or begun; the first failure, and the first one to close, are behind locks. A failure keeps chunks from
//! being begun, and the file from being committed. So there is no completion logic here that a model checker could go through.

use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::data::End;
use crate::error::{Failure, Operation, failed};
use crate::gate;
use crate::lock::lock;
use crate::sys::{self, Errno, Stat};

/// Files from this size on are copied in chunks by several workers.
pub(crate) const PARALLEL_FROM: u64 = 64 << 20;

/// The size of a chunk: some tens of milliseconds of work, so that the last one to end is not waited for long.
const CHUNK: u64 = 16 << 20;

/// A source and a destination file, open.
pub(crate) struct Ends {
    pub source: OwnedFd,
    pub dest: OwnedFd,
}

/// A worker's own descriptors of a file that several copy.
struct Own<'a> {
    ends: Result<Option<Ends>, Failure>,
    /// The first failure to close one. Some filesystems tell only then, and only once, that they could not keep what was written.
    unclosed: &'a Mutex<Option<Errno>>,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Ok(Some(ends)) = mem::replace(&mut self.ends, Ok(None))
            && let Err(errno) = sys::close(ends.dest)
        {
            lock(self.unclosed).get_or_insert(errno);
        }
    }
}

/// Whether a file is so large that it is copied in chunks, by several workers, if it has as much data.
pub(crate) fn is_large(stat: &Stat) -> bool {
    stat.size >= PARALLEL_FROM
}

/// Copies ranges in chunks, each by `copy` on whatever worker takes it, which is told whether it is the only one at the file.
/// `ends` are the worker's own that has begun; `reopen` opens them for another one that needs its own.
pub(crate) fn in_chunks(
    ranges: &[Range<u64>],
    ends: (BorrowedFd, BorrowedFd),
    reopen: &(dyn Fn() -> Result<Option<Ends>, Failure> + Sync),
    copy: &(impl Fn(BorrowedFd, BorrowedFd, Range<u64>, bool) -> Result<End, Failure> + Sync),
) -> Result<End, Failure> {
    let chunks = Chunks::of(ranges);
    // Whoever begins one takes the first that is left, and not its own: there are as many to take as to begin.
    let begun = AtomicUsize::new(0);
    let at_work = AtomicUsize::new(0);
    // The first of those that came to the source's end: what has a higher number is behind it.
    let ended_at = AtomicUsize::new(usize::MAX);
    let unclosed = Mutex::new(None);
    let open = || Own {
        ends: reopen(),
        unclosed: &unclosed,
    };
    let failed_first = Mutex::new(None);
    let end = (0..chunks.count)
        .into_par_iter()
        .map_init(open, |own, _| {
            gate::work(|| {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                // No chunk that is still to be begun has a lower number.
                if number > ended_at.load(Ordering::Relaxed) {
                    return Err(Over);
                }
                let chunk = chunks.get(number);
                let alone = at_work.fetch_add(1, Ordering::Relaxed) == 0;
                let end = match &own.ends {
                    Ok(None) => copy(ends.0, ends.1, chunk, alone),
                    Ok(Some(Ends { source, dest })) => {
                        copy(source.as_fd(), dest.as_fd(), chunk, alone)
                    }
                    Err(failure) => Err(*failure),
                };
                if matches!(end, Ok(End::Elsewhere)) {
                    ended_at.fetch_min(number, Ordering::Relaxed);
                }
                at_work.fetch_sub(1, Ordering::Relaxed);
                end.map_err(|failure| {
                    lock(&failed_first).get_or_insert(failure);
                    Over
                })
            })
        })
        .try_reduce(|| End::AtOnce, |a, b| Ok(a.max(b)));
    let unclosed = lock(&unclosed).take().map(failed(Operation::Close));
    match lock(&failed_first).take().or(unclosed) {
        Some(failure) => Err(failure),
        None => Ok(end.unwrap_or(End::Elsewhere)),
    }
}

/// No more chunks are begun.
struct Over;

/// Ranges in pieces of at most [`CHUNK`] bytes. They are not written down: a file may call itself as large as it likes.
struct Chunks<'a> {
    ranges: &'a [Range<u64>],
    /// How many pieces there are before each range.
    before: Vec<usize>,
    count: usize,
}

impl<'a> Chunks<'a> {
    fn of(ranges: &'a [Range<u64>]) -> Self {
        let mut count = 0;
        let before = ranges.iter().map(|range| {
            let before = count;
            let pieces = (range.end - range.start).div_ceil(CHUNK);
            // Cut only where numbers have 32 bits, and a file calls itself larger than there is room for anywhere.
            count = usize::saturating_add(count, usize::try_from(pieces).unwrap_or(usize::MAX));
            before
        });
        Self {
            ranges,
            before: before.collect(),
            count,
        }
    }

    /// One of them, by its number.
    fn get(&self, number: usize) -> Range<u64> {
        let at = self.before.partition_point(|&before| before <= number) - 1;
        let range = &self.ranges[at];
        let start = range.start + (number - self.before[at]) as u64 * CHUNK;
        start..range.end.min(start.saturating_add(CHUNK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_range_once() {
        let all = |ranges: &[Range<u64>]| {
            let chunks = Chunks::of(ranges);
            let all = (0..chunks.count).map(|number| chunks.get(number));
            all.collect::<Vec<_>>()
        };
        for len in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let pieces = all(std::slice::from_ref(&(7..7 + len)));
            assert_eq!(pieces[0].start, 7);
            assert_eq!(pieces[pieces.len() - 1].end, 7 + len);
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(pieces.iter().all(|piece| piece.end - piece.start <= CHUNK));
        }
        let ranges = [0..CHUNK + 1, 5 * CHUNK..6 * CHUNK, 7 * CHUNK..7 * CHUNK + 1];
        let [first, rest @ ..] = &all(&ranges)[..] else {
            panic!("none");
        };
        assert_eq!(*first, 0..CHUNK);
        assert_eq!(
            rest,
            [CHUNK..CHUNK + 1, ranges[1].clone(), ranges[2].clone()]
        );
        let huge = std::slice::from_ref(&(0..1 << 54));
        assert_eq!(Chunks::of(huge).count, 1 << 30);
        assert!(all(&[]).is_empty());
    }
}
