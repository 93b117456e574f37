//! A worker's buffer: lent to whoever reads, filled as far as a limit allows, and paid for.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;

use crate::cancel::Canceller;
use crate::error::{Failure, Operation, failed};
use crate::limit::Limiter;
use crate::sys::{self, Errno};

/// A worker's buffer, in bytes: large enough that system calls cost nothing beside the bytes, small enough that it stays
/// in a core's second-level cache between the read and the write.
const BUFFER: usize = 256 << 10;

thread_local! {
    static WORKER_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's buffer to `work`, which must not call into rayon: a stolen task would ask for it again.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    WORKER_BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            // Not resized: zeros that come from the kernel cost nothing until they are touched.
            *buffer = vec![0; BUFFER];
        }
        work(buffer)
    })
}

/// Whether the copy has not been stopped.
pub(crate) fn go_on(canceller: &Canceller) -> Result<(), Failure> {
    if canceller.is_cancelled() {
        return Err(failed(Operation::Interrupted)(Errno::CANCELED));
    }
    Ok(())
}

/// So much of a buffer as may be filled at once.
pub(crate) fn part<'b>(limit: Option<&Limiter>, buffer: &'b mut [u8]) -> &'b mut [u8] {
    match limit.map(|limit| usize::try_from(limit.piece())) {
        Some(Ok(most)) if most < buffer.len() => &mut buffer[..most],
        _ => buffer,
    }
}

/// Waits until so many bytes may move, if there is a limit. Fails if the copy was stopped.
pub(crate) fn pay(
    limit: Option<&Limiter>,
    bytes: u64,
    canceller: &Canceller,
) -> Result<(), Failure> {
    if let Some(limit) = limit {
        limit.wait(bytes, canceller);
    }
    go_on(canceller)
}

/// Reads until the buffer is full or the file ends, so that block boundaries stay where they are in the file. Returns how much
/// that was, and how many calls brought it.
pub(crate) fn fill(source: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, u32), Failure> {
    let mut filled = 0;
    let mut calls = 0;
    while filled < buffer.len() {
        match sys::read(source, &mut buffer[filled..]).map_err(failed(Operation::Read))? {
            0 => break,
            count => filled += count,
        }
        calls += 1;
    }
    Ok((filled, calls))
}
