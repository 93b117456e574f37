//! Parts of a file: those that hold data, the chunks that several workers copy, runs of zeros in what was read.
//!
//! A source with fewer blocks than its size needs has holes; only its data is copied, found with `SEEK_DATA` and
//! `SEEK_HOLE`. Each answer must lie beyond the last, so a file that changes meanwhile cannot make the search loop.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Errno};

/// The size of a chunk: some tens of milliseconds of work, so that the last one to end is not waited for long.
pub(crate) const CHUNK: u64 = 16 << 20;

/// With `--sparse=always`, a run of zeros becomes a hole in units of this size, the block size of most filesystems.
pub(crate) const HOLE_BLOCK: usize = 4096;

/// The first ranges within `range` that hold data, `most` of them at most, and where to look for more: not where it ends.
/// Where the filesystem cannot say, all is data.
pub(crate) fn data_ranges(
    source: BorrowedFd<'_>,
    range: Range<u64>,
    most: usize,
) -> sys::Result<(Vec<Range<u64>>, u64)> {
    let Range {
        start: mut offset,
        end: size,
    } = range;
    let mut ranges = Vec::new();
    while offset < size && ranges.len() < most {
        let start = match sys::next_data(source, offset) {
            Ok(Some(start)) => start.max(offset),
            Ok(None) => return Ok((ranges, size)),
            Err(errno) if tells_no_holes(errno) => {
                ranges.push(offset..size);
                return Ok((ranges, size));
            }
            Err(errno) => return Err(errno),
        };
        if start >= size {
            return Ok((ranges, size));
        }
        // A hole punched between the two questions would end where it starts.
        let end = match sys::next_hole(source, start) {
            Ok(end) => end.clamp(start + 1, size),
            // It has become shorter between the two questions, which reading will show.
            Err(Errno::NXIO) => size,
            Err(errno) if tells_no_holes(errno) => size,
            Err(errno) => return Err(errno),
        };
        ranges.push(start..end);
        offset = end;
    }
    Ok((ranges, offset))
}

/// Whether a filesystem does not know where a file's holes are (lseek(2); some on FUSE say `EOPNOTSUPP`).
fn tells_no_holes(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::OPNOTSUPP)
}

/// A range of a buffer whose blocks are all zeros, or none of them is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub range: Range<usize>,
    pub zeros: bool,
}

/// The runs of a buffer, in blocks of [`HOLE_BLOCK`] bytes.
pub(crate) fn runs(bytes: &[u8]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    for block in bytes.chunks(HOLE_BLOCK) {
        let zeros = block.iter().all(|&byte| byte == 0);
        let end = start + block.len();
        match runs.last_mut() {
            Some(run) if run.zeros == zeros => run.range.end = end,
            _ => runs.push(Run {
                range: start..end,
                zeros,
            }),
        }
        start = end;
    }
    runs
}

/// How many bytes are in ranges.
pub(crate) fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Ranges in pieces of at most [`CHUNK`] bytes. They are not written down: a file may call itself as large as it likes.
pub(crate) struct Chunks<'a> {
    ranges: &'a [Range<u64>],
    /// How many pieces there are before each range.
    before: Vec<usize>,
    pub count: usize,
}

impl<'a> Chunks<'a> {
    pub(crate) fn of(ranges: &'a [Range<u64>]) -> Self {
        let mut count = 0;
        let before = ranges.iter().map(|range| {
            let before = count;
            let pieces = (range.end - range.start).div_ceil(CHUNK);
            // Cannot be cut: sizes are below 2^63.
            count += usize::try_from(pieces).unwrap_or(usize::MAX);
            before
        });
        Self {
            ranges,
            before: before.collect(),
            count,
        }
    }

    /// One of them, by its number.
    pub(crate) fn get(&self, number: usize) -> Range<u64> {
        let at = self.before.partition_point(|&before| before <= number) - 1;
        let range = &self.ranges[at];
        let start = range.start + (number - self.before[at]) as u64 * CHUNK;
        start..range.end.min(start.saturating_add(CHUNK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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

    #[test]
    fn data_between_holes_is_found_so_many_ranges_at_a_time() {
        use std::os::unix::fs::FileExt;

        let file = tempfile::tempfile().unwrap();
        let size = 20 << 20;
        file.set_len(size).unwrap();
        for n in 0..10 {
            file.write_all_at(b"data", n << 21).unwrap();
        }
        let (all, end) = data_ranges(file.as_fd(), 0..size, 100).unwrap();
        assert_eq!((all.is_empty(), end), (false, size));
        let mut found = Vec::new();
        let mut offset = 0;
        while offset < size {
            let (ranges, next) = data_ranges(file.as_fd(), offset..size, 3).unwrap();
            assert!(ranges.len() <= 3 && next > offset);
            found.extend(ranges);
            offset = next;
        }
        assert_eq!(found, all);
    }

    #[test]
    fn runs_are_whole_blocks() {
        let mut bytes = vec![0; 3 * HOLE_BLOCK + 10];
        bytes[HOLE_BLOCK + 1] = 1;
        let run = |range, zeros| Run { range, zeros };
        assert_eq!(
            runs(&bytes),
            [
                run(0..HOLE_BLOCK, true),
                run(HOLE_BLOCK..2 * HOLE_BLOCK, false),
                run(2 * HOLE_BLOCK..bytes.len(), true),
            ]
        );
        assert!(runs(&[]).is_empty());
    }
}
