//! How work is shared out with `par_iter`: in what pieces, and with a bound on how deep waiting may nest on one worker's stack.
//!
//! A rayon worker that waits for a stolen part of its `par_iter` runs other tasks meanwhile, on top of its own stack.
//! Such a task may wait in turn, and so on: the nesting follows the luck of stealing, not the shape of the tree, and
//! has no bound of its own. Here it gets one: a worker that is already waiting so many times works serially instead of
//! waiting once more. Every wait of a copy but that for an operand's directories (`roots.rs`) goes through [`in_parallel`], so a
//! worker's stack holds at most that many copies of the frames between two waits, and no more open files than those hold. A
//! worker that waits here is in no leaf (`gate.rs`), whatever it did before: others may work instead.

use std::cell::Cell;

use rayon::prelude::*;

use crate::gate;

thread_local! {
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// How deep a worker that may have `share` files open may nest its waits: each level may hold a file's and a
/// directory's two descriptors.
///
/// A level needs some 2 KiB of stack, a few times that where rayon splits a wide directory: 32 levels are far below what
/// [`crate::Pool`] gives its workers, and no worker that deep lacks company.
pub(crate) fn most_nested(share: usize) -> u32 {
    // Cannot fail to convert after the clamp.
    u32::try_from((share / 8).clamp(1, 32)).unwrap_or(1)
}

/// Takes back one level when its wait ends, in a panic too.
struct Level;

impl Drop for Level {
    fn drop(&mut self) {
        NESTED.set(NESTED.get() - 1);
    }
}

/// Runs `parallel`, which may wait for other workers, if this thread is a worker and waits less than `max` times already;
/// else `serial`, which does the same work alone.
pub(crate) fn in_parallel<T>(
    max: u32,
    parallel: impl FnOnce() -> T,
    serial: impl FnOnce() -> T,
) -> T {
    if NESTED.get() >= max || rayon::current_thread_index().is_none() {
        return serial();
    }
    NESTED.set(NESTED.get() + 1);
    let _level = Level;
    gate::rest(parallel)
}

/// Entries of a directory for all workers, who take a few at a time.
///
/// Few, because the kernel lets a file have one writer at a time: large ones are better copied by a worker each than one after
/// the other by all of them, and what waits in a piece, others cannot take. But no single ones where there are enough for all
/// who could be of use: a piece costs some 150 ns (rayon's split, the gate, the directory's descriptors), a hundredth of
/// what a small file takes.
pub(crate) fn in_pieces<T: Sync>(entries: &[T]) -> impl IndexedParallelIterator<Item = &T> {
    let (least, most) = divide(entries.len(), gate::useful());
    entries.par_iter().with_min_len(least).with_max_len(most)
}

/// How many entries a piece has, at least and at most.
fn divide(entries: usize, workers: usize) -> (usize, usize) {
    const PIECES_PER_WORKER: usize = 2;
    const MOST: usize = 4;
    let least = (entries / workers.saturating_mul(PIECES_PER_WORKER)).clamp(1, MOST);
    // rayon halves: what is not divided any more has less than twice the least.
    (least, 2 * least - 1)
}

#[cfg(test)]
mod tests {
    use super::divide;

    #[test]
    fn pieces_are_small_and_enough_for_all() {
        assert_eq!(divide(0, 2), (1, 1));
        assert_eq!(divide(1, 2), (1, 1));
        assert_eq!(divide(16, 2), (4, 7));
        assert_eq!(divide(16, 3), (2, 3));
        assert_eq!(divide(16, 64), (1, 1));
        assert_eq!(divide(1000, 64), (4, 7));
        assert_eq!(divide(50_000, 2), (4, 7));
        assert_eq!(divide(1000, usize::MAX), (1, 1));
    }
}
