//! Reading back what was written (`--verify`).
//!
//! While a file is copied, its bytes are hashed as they come from the source (BLAKE3), piece by piece. Once all is written it
//! is read back, and each piece must have the same hash. It is read from the device and not from memory: the data is written
//! out first (fdatasync(2)) and then dropped from the page cache (posix_fadvise(2), `POSIX_FADV_DONTNEED`). On a filesystem
//! that lives in memory there is nothing else to read.
//!
//! Bytes that never came by cannot be hashed, so with this option data is neither shared with the source nor copied inside
//! the kernel. The source's holes were never written, and are not read. A limit of the bandwidth holds for what is read back, too.
//!
//! A file with very many holes has as many pieces, so it is read back from time to time while it is copied.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::Instant;

use blake3::{Hash, Hasher};

use crate::buffer::{self, with_buffer};
use crate::context::Context;
use crate::counters::Count;
use crate::error::{Failure, Operation, failed};
use crate::live::Shown;
use crate::lock::lock;
use crate::sys::{self, Errno};

/// What was written of one file.
#[derive(Default)]
pub(crate) struct Written(Mutex<Vec<(Range<u64>, Hash)>>);

/// A piece of a file while it is written, from front to back; `None` if nothing is going to be verified.
/// A hash under way is 2 KB, too much to be moved around where there is none.
pub(crate) struct Piece<'a>(Option<Box<Hashed<'a>>>);

struct Hashed<'a> {
    of: &'a Written,
    range: Range<u64>,
    hasher: Hasher,
}

impl<'a> Piece<'a> {
    /// A piece that begins at `start`.
    pub(crate) fn begin(of: Option<&'a Written>, start: u64) -> Self {
        Self(of.map(|of| {
            Box::new(Hashed {
                of,
                range: start..start,
                hasher: Hasher::new(),
            })
        }))
    }

    /// These bytes come next.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if let Some(hashed) = &mut self.0 {
            hashed.hasher.update(bytes);
            hashed.range.end += bytes.len() as u64;
        }
    }

    /// The piece is complete.
    pub(crate) fn end(self) {
        if let Some(hashed) = self.0
            && !hashed.range.is_empty()
        {
            let Hashed { of, range, hasher } = *hashed;
            lock(&of.0).push((range, hasher.finalize()));
        }
    }
}

impl Written {
    /// Forgets everything: the file is written anew.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Reads everything back, through a descriptor that was opened for reading.
    ///
    /// # Errors
    ///
    /// `EBADMSG` if something else was read; others if nothing could be, or the copy was stopped.
    pub(crate) fn check(&self, dest: &OwnedFd, cx: &Context, shown: &Shown) -> Result<(), Failure> {
        let begin = Instant::now();
        sys::sync_data(dest).map_err(failed(Operation::Verify))?;
        sys::drop_cache(dest).map_err(failed(Operation::Verify))?;
        let pieces = std::mem::take(&mut *lock(&self.0));
        for (range, hash) in pieces {
            let len = range.end - range.start;
            if hash_of(dest, range, cx)? != hash {
                return Err(failed(Operation::Verify)(Errno::BADMSG));
            }
            cx.counters.add(Count::Verified, len);
            shown.add_verified(len);
        }
        let spent = begin.elapsed().as_nanos();
        // 584 years fit.
        cx.counters
            .add(Count::Verifying, u64::try_from(spent).unwrap_or(u64::MAX));
        Ok(())
    }
}

fn hash_of(file: &OwnedFd, range: Range<u64>, cx: &Context) -> Result<Hash, Failure> {
    let limit = cx.limit.as_ref();
    let mut hasher = Hasher::new();
    let mut offset = range.start;
    with_buffer(|buffer| {
        let buffer = buffer::part(limit, buffer);
        while offset < range.end {
            let room = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
            let room = room.min(buffer.len());
            match sys::read_at(file.as_fd(), &mut buffer[..room], offset)
                .map_err(failed(Operation::Verify))?
            {
                // It is shorter than what was written.
                0 => break,
                count => {
                    buffer::pay(limit, count as u64, cx.canceller())?;
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
            }
        }
        Ok(hasher.finalize())
    })
}
