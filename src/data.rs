//! The bytes of one regular file, and nothing else about it: names, attributes and decisions live in other rooms.
//!
//! They take the highest rung of the ladder that carries them (`ladder.rs`), holes stay holes (`ranges.rs`), and large files are cut
//! into chunks (`chunks.rs`).

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::{fill, go_on, part, pay, with_buffer};
use crate::cancel::Canceller;
use crate::chunks::{Ends, PARALLEL_FROM, in_chunks};
use crate::counters::{Counters, Method};
use crate::error::{Failure, Operation, failed};
use crate::ladder::{Holes, How, Ladder, StepDown, Tried, step_down, step_down_from_sharing};
use crate::limit::Limiter;
use crate::live::Shown;
use crate::local::is_local;
use crate::nest::in_parallel;
use crate::options::{Reflink, Sparse};
use crate::ranges::{HOLE_BLOCK, data_ranges, runs, total};
use crate::sys::{self, Errno, Kind, Stat};
use crate::verify::{Piece, Written};

/// Files from this size on are copied inside the kernel, up to those that are cut into chunks. Below, copy_file_range gains
/// nothing on ext4, and on xfs it loses a quarter to looking for blocks to share; above, one pass over the bytes beats two (by
/// 4 % on a source tree on tmpfs).
const KERNEL_FROM: u64 = 4 << 10;

/// Ranges from this size on get their blocks before they are written, on ext4: in one step, where each page would otherwise ask
/// for a block to be kept for it. The file does not grow by that. (1 GiB in memory, 2 workers, medians of 7 to 9 interleaved: files
/// of 32 KiB take 1.04 of the time so, of 128 KiB 1.00, of 512 KiB 0.90, of 2 and 8 MiB 0.80, one of 4 GiB 0.60; with a sync(2) at
/// the end, 0.97. On xfs it changes nothing, and btrfs takes 1.07 to 1.11 of the time.)
const ALLOCATED_FROM: u64 = 256 << 10;

/// Files below this size are not looked at once more after they were copied if one call has taken them whole. Who writes a file
/// in several steps can be met in between, but no look at its times would tell that. (Without that look, a tree of tiny files in
/// memory takes 0.97 of the time.)
const GLIMPSE: u64 = 64 << 10;

/// The most that one copy_file_range call is asked for: it ends soon enough to be counted and to be stopped.
const KERNEL_CALL: u64 = 16 << 20;

/// So many ranges of data between holes are found before they are copied, however many a file has: a MiB of memory.
const RANGES: usize = 1 << 16;

/// A copy of one file's data, about to be made.
#[derive(Clone, Copy)]
pub(crate) struct Transfer<'a> {
    pub source: BorrowedFd<'a>,
    /// Empty, and opened for writing.
    pub dest: BorrowedFd<'a>,
    /// The source's facts, taken from its descriptor.
    pub stat: &'a Stat,
    /// The destination has no offsets.
    pub in_sequence: bool,
    pub reflink: Reflink,
    pub sparse: Sparse,
    pub ladder: &'a Ladder,
    /// Bytes are counted as they move, so that a large file is seen to advance.
    pub counters: &'a Counters,
    /// Told as well, so that it can be seen which file advances.
    pub shown: &'a Shown<'a>,
    /// Told what is written, if that is going to be read back.
    pub written: Option<&'a Written>,
    /// Reads back what has been written so far: of a file with very many ranges not all are to be remembered.
    pub check: &'a (dyn Fn() -> Result<(), Failure> + Sync),
    /// Asked between two pieces.
    pub canceller: &'a Canceller,
    /// How fast data may move, if that is limited.
    pub limit: Option<&'a Limiter>,
    /// How deep waits may nest, for [`in_parallel`].
    pub max_nested: u32,
    /// Opens both files again for another worker, where it needs descriptors of its own.
    pub reopen: &'a (dyn Fn() -> Result<Option<Ends>, Failure> + Sync),
}

/// Whether anything was done to a file between two looks at it.
fn is_touched(before: &Stat, now: &Stat) -> bool {
    is_written(before, now) || before.times.changed != now.times.changed
}

/// Whether a file's data was changed, going by what a writer leaves behind. The change time says more, but also that a link to
/// the file was made or removed, as this very run may have done.
pub(crate) fn is_written(before: &Stat, now: &Stat) -> bool {
    (before.size, before.times.modified) != (now.size, now.times.modified)
}

/// Makes a destination that was written as it was before, and a source that was read: both are at their beginning again.
pub(crate) fn empty(source: BorrowedFd<'_>, dest: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::set_size(dest, 0).map_err(failed(Operation::Extend))?;
    sys::rewind(dest).map_err(failed(Operation::Extend))?;
    sys::rewind(source).map_err(failed(Operation::Read))
}

/// Where a range of the source ended, or the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Where it did when it was looked at, as far as that was to be seen, and one call came to it.
    AtOnce,
    /// There, after several calls.
    AsExpected,
    /// Before that, or after it.
    Elsewhere,
}

impl End {
    /// Where it is, after so many calls that brought data.
    fn at(end: u64, expected: u64, calls: u32) -> Self {
        if end != expected {
            Self::Elsewhere
        } else if calls > 1 {
            Self::AsExpected
        } else {
            Self::AtOnce
        }
    }
}

impl Transfer<'_> {
    /// Copies the data, by the highest rung that takes it, and says whether the source changed meanwhile: then these are its
    /// facts now, and what was copied may be a mix of before and after.
    pub(crate) fn run(&self) -> Result<(How, Option<Stat>), Failure> {
        let (how, end) = self.copy()?;
        // A pipe or a device is not the same from one moment to the next.
        let is_stream = self.stat.kind != Kind::File;
        let is_one_call = self.stat.size < GLIMPSE
            && end == End::AtOnce
            && how.holes != Holes::Seek
            && self.limit.is_none();
        if is_stream || is_one_call {
            return Ok((how, None));
        }
        let now = sys::fstat(self.source).map_err(failed(Operation::Read))?;
        Ok((how, is_touched(self.stat, &now).then_some(now)))
    }

    fn copy(&self) -> Result<(How, End), Failure> {
        let size = self.stat.size;
        let mut how = How {
            reflink: self.share()?,
            ..How::default()
        };
        if how.reflink == Tried::Yes {
            self.count(Method::Reflink, size);
            return Ok((how, End::AtOnce));
        }
        // An early end is a lie about the size (sysfs claims 4096 for everything) or a file that was cut meanwhile, which its
        // facts will tell.
        let end = match self.copy_data(&mut how) {
            Err(failure) if failure.errno == Errno::SPIPE => self.copy_in_sequence(failure)?,
            copied => copied?,
        };
        Ok((how, end))
    }

    /// Copies the data by the lower rungs.
    fn copy_data(&self, how: &mut How) -> Result<End, Failure> {
        let size = self.stat.size;
        how.offload = Tried::Avoided;
        if self.in_sequence {
            self.copy_to_end()
        } else if self.sparse == Sparse::Always {
            how.holes = Holes::Zeros;
            self.copy_without_zeros()
        } else if self.sparse == Sparse::Auto && self.has_holes() {
            how.holes = Holes::Seek;
            match self.copy_between_holes(how)? {
                // What looked like holes was a wrong size: take what there is.
                end if end == End::Elsewhere || self.goes_on()? => self.start_over(),
                end => {
                    sys::set_size(self.dest, size).map_err(failed(Operation::Extend))?;
                    Ok(end)
                }
            }
        } else if size < KERNEL_FROM {
            self.copy_to_end()
        } else {
            match self.copy_ranges(std::slice::from_ref(&(0..size)), how)? {
                end if end != End::Elsewhere && self.goes_on()? => {
                    self.copy_range(size..u64::MAX, 0)
                }
                end => Ok(end),
            }
        }
    }

    /// Whether the source has more than its size says, as a server may that does not know it, or a file that grows.
    fn goes_on(&self) -> Result<bool, Failure> {
        if self.ladder.sizes_are_true {
            return Ok(false);
        }
        let read = sys::read_at(self.source, &mut [0], self.stat.size);
        Ok(read.map_err(failed(Operation::Read))? > 0)
    }

    /// Copies what is not in holes.
    fn copy_between_holes(&self, how: &mut How) -> Result<End, Failure> {
        let size = self.stat.size;
        let mut offset = 0;
        while offset < size {
            let (ranges, next) =
                data_ranges(self.source, offset..size, RANGES).map_err(failed(Operation::Read))?;
            if offset == 0 {
                let is_all = next >= size;
                self.shown.set_size(if is_all {
                    total(&ranges)
                } else {
                    self.stat.allocated.min(size)
                });
            }
            if self.copy_ranges(&ranges, how)? == End::Elsewhere {
                return Ok(End::Elsewhere);
            }
            offset = next;
            if offset < size && self.written.is_some() {
                (self.check)()?;
            }
        }
        Ok(End::AsExpected)
    }

    /// One end calls itself a regular file and has no positions (FUSE's streams): it can only be read or written from front
    /// to back, and has not been yet.
    fn copy_in_sequence(&self, failure: Failure) -> Result<End, Failure> {
        match sys::rewind(self.source) {
            // It is the source that has none, and nothing has been read of it yet.
            Err(Errno::SPIPE) if failure.operation != Operation::Write => {}
            rewound => rewound.map_err(|_| failure)?,
        }
        self.copy_to_end()
    }

    /// Tries the first rung.
    fn share(&self) -> Result<Tried, Failure> {
        match self.reflink {
            Reflink::Never => return Ok(Tried::No),
            Reflink::Auto if self.written.is_some() => return Ok(Tried::No),
            // What is shared is not written, and so cannot be verified.
            Reflink::Always if self.written.is_some() => {
                return Err(failed(Operation::Clone)(Errno::OPNOTSUPP));
            }
            Reflink::Auto if self.sparse != Sparse::Auto => return Ok(Tried::No),
            Reflink::Auto if self.stat.size < self.ladder.shared_from && !self.waits_for_disk() => {
                return Ok(Tried::Unknown);
            }
            Reflink::Auto if !self.ladder.reflink.load(Ordering::Relaxed) => {
                return Ok(Tried::Unsupported);
            }
            Reflink::Auto | Reflink::Always => {}
        }
        match sys::clone_file(self.source, self.dest) {
            Ok(()) => return Ok(Tried::Yes),
            Err(errno) if self.reflink == Reflink::Always => {
                return Err(failed(Operation::Clone)(errno));
            }
            Err(errno) => match step_down_from_sharing(errno) {
                StepDown::ThisFile => {}
                StepDown::Always => self.ladder.reflink.store(false, Ordering::Relaxed),
                StepDown::Fail => return Err(failed(Operation::Clone)(errno)),
            },
        }
        Ok(Tried::Unsupported)
    }

    /// Whether a file that could share its blocks would have to be read from its disk to be written.
    fn waits_for_disk(&self) -> bool {
        self.stat.size > 0
            && self.ladder.reflink.load(Ordering::Relaxed)
            && !sys::is_in_memory(self.source)
    }

    /// Fewer blocks than the size needs; a file that is less than a block short may have its end inside its inode.
    fn has_holes(&self) -> bool {
        self.stat.allocated + (HOLE_BLOCK as u64) <= self.stat.size
    }

    /// Copies ranges, in chunks by several workers if they are large.
    fn copy_ranges(&self, ranges: &[Range<u64>], how: &mut How) -> Result<End, Failure> {
        let bytes = total(ranges);
        let is_large = bytes >= PARALLEL_FROM && self.ladder.writes_anywhere;
        let by_kernel = self.may_use_kernel();
        // Where the kernel reads and writes itself, it does it in fewer steps; but several at one file wait less for each other
        // if they do it (medians of 5, 2 processors: 8 files of 256 MiB 0.48 by the kernel and 0.60 s, one of 4 GiB 1.69 and 1.52).
        let only_alone = is_large && is_local(self.dest);
        let in_kernel = AtomicBool::new(false);
        let copy = |source: BorrowedFd, dest: BorrowedFd, range: Range<u64>, alone: bool| {
            let transfer = Transfer {
                source,
                dest,
                ..*self
            };
            transfer.allocate(&range);
            let mut offset = range.start;
            let mut calls = 0;
            if by_kernel && (alone || !only_alone) && self.ladder.kernel.load(Ordering::Relaxed) {
                (offset, calls) = transfer.copy_range_in_kernel(&range)?;
                if offset > range.start {
                    in_kernel.store(true, Ordering::Relaxed);
                }
            }
            transfer.copy_range(offset..range.end, calls)
        };
        let serial = || {
            ranges.iter().try_fold(End::AtOnce, |end, range| {
                Ok(end.max(copy(self.source, self.dest, range.clone(), true)?))
            })
        };
        let end = if is_large {
            let ends = (self.source, self.dest);
            let parallel = || in_chunks(ranges, ends, self.reopen, &copy);
            in_parallel(self.max_nested, parallel, serial)
        } else {
            serial()
        };
        if !matches!(end, Ok(End::AtOnce | End::AsExpected)) {
            self.give_back_blocks();
        }
        if in_kernel.into_inner() {
            how.offload = Tried::Yes;
        } else if by_kernel && bytes > 0 && how.offload != Tried::Yes {
            how.offload = Tried::Unsupported;
        }
        end
    }

    /// Asks for a range's blocks before they are written, where that is faster; no more than a file has that is copied in one
    /// piece. If there are not as many, writing will tell.
    fn allocate(&self, range: &Range<u64>) {
        let len = (range.end - range.start).min(PARALLEL_FROM);
        if len >= ALLOCATED_FROM
            && self.ladder.allocates.load(Ordering::Relaxed)
            && sys::allocate(self.dest, range.start, len) == Err(Errno::OPNOTSUPP)
        {
            // It is an ext2 or ext3.
            self.ladder.allocates.store(false, Ordering::Relaxed);
        }
    }

    /// Gives back the blocks that nothing was written to: setting a size that a file has already does that.
    fn give_back_blocks(&self) {
        if self.ladder.allocates.load(Ordering::Relaxed)
            && let Ok(stat) = sys::fstat(self.dest)
        {
            // What goes wrong with the copy is known already.
            let _ = sys::set_size(self.dest, stat.size);
        }
    }

    /// Whether the second rung is wanted at all: a copy that is to have blocks of its own, and no holes, must not get a
    /// filesystem to share them.
    fn may_use_kernel(&self) -> bool {
        self.sparse == Sparse::Auto && self.reflink != Reflink::Never && self.written.is_none()
    }

    /// Copies one range by reading and writing, after so many calls that brought what is before it.
    fn copy_range(&self, range: Range<u64>, mut calls: u32) -> Result<End, Failure> {
        let mut offset = range.start;
        let mut piece = Piece::begin(self.written, offset);
        while offset < range.end {
            self.go_on()?;
            let copy = |buffer: &mut [u8]| {
                self.copy_piece(self.part(buffer), offset, range.end, &mut piece)
            };
            let count = with_buffer(copy)?;
            if count == 0 {
                piece.end();
                return Ok(End::Elsewhere);
            }
            offset += count;
            calls = calls.saturating_add(1);
            self.count(Method::ReadWrite, count);
        }
        piece.end();
        Ok(End::at(offset, range.end, calls))
    }

    /// The second rung; returns how far it came, in how many calls. Some kernels answer 0 for files whose data is made up when it
    /// is read, so 0 is not believed: the caller reads on from there.
    fn copy_range_in_kernel(&self, range: &Range<u64>) -> Result<(u64, u32), Failure> {
        let mut offset = range.start;
        let mut calls = 0_u32;
        while offset < range.end {
            self.go_on()?;
            let most = self.limit.map_or(KERNEL_CALL, Limiter::piece);
            let len = (range.end - offset).min(KERNEL_CALL).min(most);
            self.pay(len)?;
            // Cannot fail to convert: KERNEL_CALL fits any usize.
            let room = usize::try_from(len).unwrap_or(usize::MAX);
            let copied = sys::copy_range(self.source, self.dest, offset, room);
            self.give_back(len - copied.map_or(0, |count| count as u64));
            match copied {
                Ok(0) => break,
                Ok(count) => {
                    offset += count as u64;
                    calls = calls.saturating_add(1);
                    self.count(Method::Kernel, count as u64);
                }
                Err(errno) => match step_down(errno) {
                    StepDown::ThisFile => break,
                    StepDown::Always => {
                        self.ladder.kernel.store(false, Ordering::Relaxed);
                        break;
                    }
                    StepDown::Fail => return Err(failed(Operation::Transfer)(errno)),
                },
            }
        }
        Ok((offset, calls))
    }

    /// Reads once at `offset`, not beyond `end`, and writes all of it there.
    fn copy_piece(
        &self,
        buffer: &mut [u8],
        offset: u64,
        end: u64,
        piece: &mut Piece,
    ) -> Result<u64, Failure> {
        let room = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let count = sys::read_at(self.source, &mut buffer[..room], offset)
            .map_err(failed(Operation::Read))?;
        self.pay(count as u64)?;
        self.write_all_at(&buffer[..count], offset)?;
        piece.add(&buffer[..count]);
        Ok(count as u64)
    }

    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let count =
                sys::write_at(self.dest, bytes, offset).map_err(failed(Operation::Write))?;
            bytes = rest(bytes, count)?;
            offset += count as u64;
        }
        Ok(())
    }

    /// Bytes have come to the copy.
    fn count(&self, method: Method, bytes: u64) {
        self.counters.add_bytes(method, bytes);
        self.shown.add(bytes);
    }

    fn go_on(&self) -> Result<(), Failure> {
        go_on(self.canceller)
    }

    /// So much of a buffer as may be filled at once.
    fn part<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        part(self.limit, buffer)
    }

    /// Waits until so many bytes may move.
    fn pay(&self, bytes: u64) -> Result<(), Failure> {
        pay(self.limit, bytes, self.canceller)
    }

    /// So many of those did not.
    fn give_back(&self, bytes: u64) {
        if let Some(limit) = self.limit.filter(|_| bytes > 0) {
            limit.give_back(bytes);
        }
    }

    /// Forgets what was copied, and copies from the beginning to wherever the source ends.
    fn start_over(&self) -> Result<End, Failure> {
        empty(self.source, self.dest)?;
        self.written.into_iter().for_each(Written::clear);
        self.shown.begin_again(self.stat.size);
        self.copy_to_end()
    }

    /// Reads from front to back and writes as it goes: the fewest system calls for a small file, and the only way for one
    /// whose size is not known (/proc says 0) or that can only be read in order.
    fn copy_to_end(&self) -> Result<End, Failure> {
        let size = self.stat.size;
        let mut copied = 0;
        let mut calls = 0_u32;
        let mut piece = Piece::begin(self.written, 0);
        with_buffer(|buffer| {
            let buffer = self.part(buffer);
            loop {
                self.go_on()?;
                let count = sys::read(self.source, buffer).map_err(failed(Operation::Read))?;
                self.pay(count as u64)?;
                let mut bytes = &buffer[..count];
                piece.add(bytes);
                while !bytes.is_empty() {
                    let written = sys::write(self.dest, bytes).map_err(failed(Operation::Write))?;
                    bytes = rest(bytes, written)?;
                }
                copied += count as u64;
                if count > 0 {
                    calls = calls.saturating_add(1);
                    self.count(Method::ReadWrite, count as u64);
                }
                // A read that did not fill the buffer and reached the size needs no second one to say "the end", if that is known.
                let is_short = count < buffer.len() && self.ladder.sizes_are_true;
                let at_end = size > 0 && copied >= size && is_short;
                if count == 0 || at_end {
                    return Ok(());
                }
            }
        })?;
        piece.end();
        Ok(End::at(copied, size, calls))
    }

    /// Reads all and writes only the blocks that are not zero (`--sparse=always`).
    fn copy_without_zeros(&self) -> Result<End, Failure> {
        let mut offset = 0;
        let mut calls = 0;
        // With its zeros: what became a hole is read back, too.
        let mut piece = Piece::begin(self.written, 0);
        with_buffer(|buffer| {
            let buffer = self.part(buffer);
            loop {
                self.go_on()?;
                let (count, reads) = fill(self.source, buffer)?;
                calls = u32::saturating_add(calls, reads);
                piece.add(&buffer[..count]);
                for run in runs(&buffer[..count]) {
                    if !run.zeros {
                        let start = offset + run.range.start as u64;
                        let bytes = &buffer[run.range];
                        self.pay(bytes.len() as u64)?;
                        self.write_all_at(bytes, start)?;
                        self.count(Method::ReadWrite, bytes.len() as u64);
                    }
                }
                offset += count as u64;
                if count < buffer.len() {
                    return Ok(());
                }
            }
        })?;
        piece.end();
        sys::set_size(self.dest, offset).map_err(failed(Operation::Extend))?;
        Ok(End::at(offset, self.stat.size, calls))
    }
}

/// What is left to be written. A filesystem that takes nothing, and gives no reason, would be asked for ever: it is taken
/// for full.
fn rest(bytes: &[u8], written: usize) -> Result<&[u8], Failure> {
    if written == 0 {
        return Err(failed(Operation::Write)(Errno::NOSPC));
    }
    Ok(&bytes[written..])
}
