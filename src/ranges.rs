//! Parts of a file: those that hold data, runs of zeros in what was read.
//!
//! A source with fewer blocks than its size needs has holes; only its data is copied, found with `SEEK_DATA` and
//! `SEEK_HOLE`. Each answer must lie beyond the last, so a file that changes meanwhile cannot make the search loop.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Errno};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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
