//! By which ways data comes from one filesystem to another: what is still to be tried between the two, what an error of one way
//! means for it, and which were tried for a file. `data.rs` goes these ways.
//!
//! From the fastest way to the one that always works; each step down is taken by the kernel's answer, never by guessing
//! what a filesystem can do:
//! 1. **Reflink** (`FICLONE`): the copy shares the source's blocks. Takes the same time for any size. btrfs, xfs, bcachefs,
//!    NFS 4.2 and others, within one filesystem. On xfs that time is more than a small file needs, see [`SHARED_FROM_ON_XFS`].
//! 2. **Kernel** (`copy_file_range`): no byte crosses into the process. Costs more than reading and writing for small
//!    files, and for those that several workers copy (`chunks.rs`); less for all between.
//! 3. **Read and write** through a buffer of the worker's own.
//!
//! What a pair of filesystems has refused for good (`EOPNOTSUPP`, `EXDEV`, …) is remembered in [`Ladder`], so that a tree
//! of 100,000 files asks once and not 100,000 times.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use crate::local::{is_ext4, is_fuse, is_local, is_overlay, is_xfs};
use crate::sys::Errno;

/// Files from this size on share their blocks on xfs, unless all are to. There, sharing is a series of transactions, which costs
/// more than to write the one block of a file below, and shares no more than that: tiny files on one image take 0.81
/// of the time with 2 workers, a source tree 0.95. But what is shared need not be read: a file that is not in memory is shared
/// whatever its size (a source tree from a disk with cold caches takes 0.67 of the time so). Where data may lie beside its inode
/// (btrfs) sharing is the faster way for every size: a source tree takes 1.25 times as long if files below 2 KiB are written.
const SHARED_FROM_ON_XFS: u64 = 4 << 10;

/// Which rungs a pair of filesystems still offers, and what else has been found out about the two.
#[derive(Debug)]
pub(crate) struct Ladder {
    pub reflink: AtomicBool,
    /// Below this size sharing is not worth it.
    pub shared_from: u64,
    pub kernel: AtomicBool,
    /// Blocks are better asked for before they are written.
    pub allocates: AtomicBool,
    /// No source has more than its size says.
    pub sizes_are_true: bool,
    /// A file takes writes at any offset, in any order, as far as is known.
    pub writes_anywhere: bool,
    /// To open a file for writing copies it first, if that was not done before.
    pub copies_up: bool,
    /// A file can take another name.
    pub renames: AtomicBool,
    /// The source's filesystem may show one name at several places, once somebody has asked.
    pub shows_twice: OnceLock<bool>,
}

impl Ladder {
    /// All rungs, between two filesystems that these files or directories are on.
    pub(crate) fn between(source: impl AsFd, dest: impl AsFd) -> Self {
        let shared_from = if is_xfs(&dest) { SHARED_FROM_ON_XFS } else { 1 };
        Self {
            reflink: AtomicBool::new(true),
            shared_from,
            kernel: AtomicBool::new(true),
            allocates: AtomicBool::new(is_ext4(&dest)),
            sizes_are_true: is_local(source),
            writes_anywhere: !is_fuse(&dest),
            copies_up: is_overlay(dest),
            renames: AtomicBool::new(true),
            shows_twice: OnceLock::new(),
        }
    }
}

/// What a failed call of a rung means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepDown {
    /// Not for this file; another may be luckier.
    ThisFile,
    /// Not between these filesystems.
    Always,
    /// A real error: the next rung would not do better.
    Fail,
}

/// How an error of `copy_file_range` is taken: it refuses for reasons of its own long before an ordinary read or write would fail
/// (copy_file_range(2), "ERRORS"; network and FUSE filesystems add the rest).
pub(crate) fn step_down(errno: Errno) -> StepDown {
    match errno {
        errno if is_refused_for_good(errno) => StepDown::Always,
        Errno::INVAL
        | Errno::PERM
        | Errno::BADF
        | Errno::NOENT
        | Errno::ACCESS
        | Errno::TXTBSY
        | Errno::OVERFLOW => StepDown::ThisFile,
        _ => StepDown::Fail,
    }
}

/// How an error of `FICLONE` is taken. Filesystems refuse for reasons of all kinds (ioctl_ficlone(2) has some; OpenZFS says `EAGAIN` of
/// a file that was written a moment ago), so that only what would befall a write, too, is a real one.
pub(crate) fn step_down_from_sharing(errno: Errno) -> StepDown {
    match errno {
        errno if is_refused_for_good(errno) => StepDown::Always,
        Errno::IO | Errno::NOMEM | Errno::NOSPC | Errno::DQUOT => StepDown::Fail,
        _ => StepDown::ThisFile,
    }
}

/// Whether the kernel, or a pair of filesystems, does not have a call at all.
fn is_refused_for_good(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSYS | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY
    )
}

/// Which ways were tried for one file's data, and with what success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct How {
    /// Copying inside the kernel.
    pub offload: Tried,
    /// Sharing blocks.
    pub reflink: Tried,
    /// How holes were found.
    pub holes: Holes,
}

/// What came of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tried {
    /// It was not tried.
    #[default]
    Unknown,
    /// It was forbidden, or not needed.
    No,
    /// It was not worth trying.
    Avoided,
    /// The kernel refused it.
    Unsupported,
    /// It carried the data.
    Yes,
}

/// How holes were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holes {
    /// They were not looked for.
    #[default]
    No,
    /// The filesystem was asked (`SEEK_HOLE`).
    Seek,
    /// Blocks of zeros became holes.
    Zeros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_is_remembered_refused_is_not_and_real_errors_fail() {
        assert_eq!(step_down(Errno::XDEV), StepDown::Always);
        assert_eq!(step_down(Errno::OPNOTSUPP), StepDown::Always);
        for errno in [Errno::INVAL, Errno::PERM, Errno::TXTBSY, Errno::BADF] {
            assert_eq!(step_down(errno), StepDown::ThisFile);
        }
        for errno in [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::FBIG] {
            assert_eq!(step_down(errno), StepDown::Fail);
        }
        assert_eq!(step_down_from_sharing(Errno::XDEV), StepDown::Always);
        for errno in [Errno::INVAL, Errno::AGAIN, Errno::STALE, Errno::BUSY] {
            assert_eq!(step_down_from_sharing(errno), StepDown::ThisFile);
        }
        for errno in [Errno::NOSPC, Errno::IO, Errno::DQUOT] {
            assert_eq!(step_down_from_sharing(errno), StepDown::Fail);
        }
    }
}
