//! Open directories: each worker has its own.
//!
//! Names below a directory are reached through its two descriptors and through nothing else. Those belong to the worker that
//! opened them; a worker that comes to a directory which another one opened (it stole some of its files, or ends the last of
//! its children) opens it once more for itself. So no descriptor is used by two threads, which lets workers have a
//! descriptor table each (see [`crate::Plan::start`]): the kernel locks a shared one at every open and close, and counts
//! references at every call, which costs 2 % with two workers and grows with their number. It also lets them have a working
//! directory each, from which jwalk lists a directory without the way through /proc, which saves another 3 %.
//!
//! A worker keeps the directories that it used last, few of them, however many are unfinished: a chain of 10,000
//! directories has 10,000 unfinished ancestors. A directory that is not among them is found in one of two ways:
//! 1. from a child that has just ended, through `..`, in one step;
//! 2. else by walking down from its nearest ancestor that is open here.
//!
//! Both check the device and inode numbers against those of the first time: a directory that was moved or swapped
//! meanwhile is an error, never a way out of the tree.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::dir::Dir;
use crate::error::{Error, Operation};
use crate::lock::lock;
use crate::sys::{self, FileId, SourceFlags};

/// A source and a destination directory, open.
pub(crate) enum Pair {
    /// The working directory, for both: the operands' names are ordinary paths from here.
    Cwd,
    /// The working directory for the operands, and the target directory for their copies.
    Target(OwnedFd),
    Open {
        source: OwnedFd,
        dest: OwnedFd,
    },
}

impl Pair {
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cwd | Self::Target(_) => sys::cwd(),
            Self::Open { source, .. } => source.as_fd(),
        }
    }

    pub(crate) fn dest(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cwd => sys::cwd(),
            Self::Target(dest) | Self::Open { dest, .. } => dest.as_fd(),
        }
    }
}

/// Which descriptor table and working directory the workers of a copy use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    /// The process's.
    Shared,
    /// Each its own.
    PerWorker,
}

thread_local! {
    static HAS_OWN: Cell<bool> = const { Cell::new(false) };
}

impl Tables {
    /// Those of the pool that this thread is a worker of; the process's, if it is none.
    pub(crate) fn of_this_thread() -> Self {
        if HAS_OWN.get() {
            Self::PerWorker
        } else {
            Self::Shared
        }
    }

    /// This thread is a worker with tables of its own.
    pub(crate) fn mark_own() {
        HAS_OWN.set(true);
    }

    /// What workers that run nothing but copies can have.
    pub(crate) fn best() -> Self {
        if sys::may_unshare() {
            Self::PerWorker
        } else {
            Self::Shared
        }
    }
}

/// The directories that one worker has open, the last used one at the end. Only that worker ever takes the lock, so it costs
/// nothing; it is there because the compiler cannot know.
#[derive(Default)]
#[repr(align(128))]
struct Kept(Mutex<Vec<(u64, Arc<Pair>)>>);

/// All workers' open directories.
pub(crate) struct Handles {
    kept: Box<[Kept]>,
    /// How many directories a worker keeps.
    capacity: usize,
    tables: Tables,
    next_key: AtomicU64,
    cwd: Arc<Pair>,
}

impl Handles {
    /// For `workers` workers (and one other thread) that may have `share` files open each.
    pub(crate) fn new(workers: usize, share: usize, tables: Tables) -> Self {
        Self {
            kept: (0..=workers).map(|_| Kept::default()).collect(),
            // Beyond some 32 a directory is hardly ever asked for again; a quarter of the share, at two descriptors each,
            // leaves the other half for files, listings and directories in use.
            capacity: (share / 4).clamp(2, 32),
            tables,
            next_key: AtomicU64::new(1),
            cwd: Arc::new(Pair::Cwd),
        }
    }

    /// Which descriptor table the workers use.
    pub(crate) fn tables(&self) -> Tables {
        self.tables
    }

    /// A key for a new directory.
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    fn kept(&self) -> &Mutex<Vec<(u64, Arc<Pair>)>> {
        let other = self.kept.len() - 1;
        let worker = rayon::current_thread_index().map_or(other, |index| index.min(other));
        &self.kept[worker].0
    }

    fn get(&self, key: u64) -> Option<Arc<Pair>> {
        let mut kept = lock(self.kept());
        let at = kept.iter().rposition(|(other, _)| *other == key)?;
        kept[at..].rotate_left(1);
        kept.last().map(|(_, pair)| Arc::clone(pair))
    }

    /// Keeps a directory that has just been opened, instead of the one that was not used for longest.
    pub(crate) fn keep(&self, key: u64, pair: Pair) -> Arc<Pair> {
        let pair = Arc::new(pair);
        let mut kept = lock(self.kept());
        if kept.len() >= self.capacity {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&pair)));
        pair
    }

    /// Closes a directory that is done with, as far as this worker is concerned.
    pub(crate) fn close(&self, dir: &Dir) {
        lock(self.kept()).retain(|(key, _)| *key != dir.key());
    }

    /// The descriptors of a directory, for this worker.
    pub(crate) fn open(&self, dir: &Dir) -> Result<Arc<Pair>, Error> {
        if let Some(pair) = self.get(dir.key()) {
            return Ok(pair);
        }
        let mut closed = Vec::new();
        let mut lowest = dir;
        let mut pair = loop {
            let Some(parent) = lowest.parent() else {
                break self.open_top(lowest)?;
            };
            closed.push(lowest);
            if let Some(pair) = self.get(parent.key()) {
                break pair;
            }
            lowest = parent;
        };
        while let Some(dir) = closed.pop() {
            pair = self.keep(dir.key(), below(dir, &pair)?);
        }
        Ok(pair)
    }

    /// What is above the operands: the working directory, which is always open, and perhaps a target directory.
    fn open_top(&self, top: &Dir) -> Result<Arc<Pair>, Error> {
        let Some(target) = top.target() else {
            return Ok(Arc::clone(&self.cwd));
        };
        let error = |errno| Error::new(Operation::Target, &target.path).with_errno(errno);
        let opened = sys::open_dest_dir(sys::cwd(), target.path.as_os_str(), true);
        let fd = opened.map_err(error)?;
        if sys::fstat(&fd).map_err(error)?.id != target.id {
            return Err(Error::new(Operation::Moved, &target.path));
        }
        Ok(self.keep(top.key(), Pair::Target(fd)))
    }

    /// Opens a directory from a child that has just ended here, unless it is open.
    pub(crate) fn open_above(&self, dir: &Dir, child: &Pair) {
        if dir.parent().is_none() || self.get(dir.key()).is_some() {
            return;
        }
        let source = sys::open_parent(child.source());
        let dest = sys::open_parent(child.dest());
        // If the child was moved away (or reached through a symbolic link), the walk down still finds this directory, or
        // says that it is gone.
        if let Ok(pair) = checked(dir, source, dest) {
            self.keep(dir.key(), pair);
        }
    }
}

impl Drop for Handles {
    /// What workers with tables of their own still keep is closed when they end: here, on one of them, the same numbers
    /// would be other files.
    fn drop(&mut self) {
        if self.tables == Tables::PerWorker {
            for kept in &self.kept {
                let pairs = std::mem::take(&mut *lock(&kept.0));
                pairs.into_iter().for_each(|(_, pair)| leave_open(pair));
            }
        }
    }
}

/// Lets go of a pair whose descriptors are another thread's.
fn leave_open(pair: Arc<Pair>) {
    let Some(pair) = Arc::into_inner(pair) else {
        return;
    };
    let fds = match pair {
        Pair::Open { source, dest } => [Some(source), Some(dest)],
        Pair::Target(dest) => [Some(dest), None],
        Pair::Cwd => [None, None],
    };
    for fd in fds.into_iter().flatten() {
        let _: RawFd = fd.into_raw_fd();
    }
}

/// Opens a directory below its parent.
fn below(dir: &Dir, parent: &Pair) -> Result<Pair, Error> {
    // Either may have been a symbolic link that was followed the first time; the inode numbers decide.
    let flags = SourceFlags {
        follow: true,
        wait: false,
        no_atime: dir.facts().is_some_and(|facts| facts.no_atime),
    };
    let source = sys::open_source_dir(parent.source(), dir.source_name(), flags);
    let dest = if dir.is_rehearsed() {
        sys::open_nowhere()
    } else {
        sys::open_dest_dir(parent.dest(), dir.dest_name(), true)
    };
    checked(dir, source, dest)
}

/// Makes sure that what was opened is what was open the first time.
fn checked(
    dir: &Dir,
    source: sys::Result<OwnedFd>,
    dest: sys::Result<OwnedFd>,
) -> Result<Pair, Error> {
    let here = OsStr::new("");
    let check = |opened: sys::Result<OwnedFd>, first: Option<FileId>, is_source| {
        let error = |operation| {
            let path = if is_source {
                dir.source_path(here)
            } else {
                dir.dest_path(here)
            };
            Error::new(operation, path)
        };
        let fd = opened.map_err(|errno| error(Operation::List).with_errno(errno))?;
        let now = sys::fstat(&fd).map_err(|errno| error(Operation::Stat).with_errno(errno))?;
        if first == Some(now.id) {
            Ok(fd)
        } else {
            Err(error(Operation::Moved))
        }
    };
    let facts = dir.facts();
    Ok(Pair::Open {
        source: check(source, facts.map(|facts| facts.source_id), true)?,
        dest: check(dest, facts.map(|facts| facts.dest_id), false)?,
    })
}
