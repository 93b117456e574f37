//! A directory that is being copied: its two descriptors, its place in the tree, and what is still to come before it is
//! finished.
//!
//! Names below a directory are reached through its descriptors and through nothing else. There may be more directories in
//! the works than the process may have open files (a chain of 10,000 has 10,000 unfinished ancestors), so descriptors are
//! kept within a budget:
//! 1. A directory opened beyond the budget makes its parent give up its descriptors. The parent has done its own work by
//!    then, or has a worker that holds them still; they close when the last user lets go.
//! 2. A child that ends brings its parent's descriptors back, through `..`, in one step.
//! 3. Whoever needs a directory that is closed all the same walks down to it from the nearest open ancestor. (A hard link
//!    to a file in a directory that is finished needs it, too.)
//!
//! Rules 2 and 3 check the device and inode numbers against those of the first time: a directory that was moved or swapped
//! meanwhile is an error, never a way out of the tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::context::{Context, lock};
use crate::data::Ladder;
use crate::error::{Error, Operation};
use crate::meta::Attributes;
use crate::sys::{self, Errno, FileId, SourceFlags};

/// How many directories are open, and how many may be.
#[derive(Debug)]
pub(crate) struct Budget {
    open: AtomicUsize,
    max: usize,
}

impl Budget {
    /// For a process that may have `limit` files open: what the workers need for the files in their hands, a listing and a
    /// directory that is being opened is set aside first.
    pub(crate) fn new(limit: usize, workers: usize) -> Arc<Self> {
        const STANDARD_STREAMS_AND_SPARE: usize = 16;
        const PER_WORKER: usize = 8;
        let spare = STANDARD_STREAMS_AND_SPARE + PER_WORKER * workers;
        // More than 1024 open directories help nobody: tasks run depth first, so few wait for a turn.
        let max = (limit.saturating_sub(spare) / 2).clamp(4, 1024);
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max,
        })
    }

    fn is_spent(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.max
    }
}

/// A source and a destination directory, open.
pub(crate) enum Pair {
    /// The working directory, for both: the operands' names are ordinary paths from here.
    Cwd,
    Open {
        source: OwnedFd,
        dest: OwnedFd,
        budget: Arc<Budget>,
    },
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Self::Open { budget, .. } = self {
            budget.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Pair {
    pub(crate) fn new(source: OwnedFd, dest: OwnedFd, budget: &Arc<Budget>) -> Self {
        budget.open.fetch_add(1, Ordering::Relaxed);
        Self::Open {
            source,
            dest,
            budget: Arc::clone(budget),
        }
    }

    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cwd => sys::CWD,
            Self::Open { source, .. } => source.as_fd(),
        }
    }

    pub(crate) fn dest(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cwd => sys::CWD,
            Self::Open { dest, .. } => dest.as_fd(),
        }
    }
}

/// What is known of a directory and does not change while it is copied.
pub(crate) struct DirFacts {
    pub source_id: FileId,
    pub dest_id: FileId,
    /// This run made the destination: nothing was in it, and nothing is in it that this run did not make.
    pub fresh: bool,
    /// The destination has a default ACL, which new files inherit.
    pub default_acl: bool,
    /// New files in the destination belong to the process's user and group, as the directory itself did when it was made.
    pub plain_owner: bool,
    /// Whether to ask for sources without a change of their access time.
    pub no_atime: bool,
    /// What the destination gets when all its children are done: the source's attributes, if any are kept.
    pub attributes: Option<Attributes>,
    /// And the mode that it could not have while it was written.
    pub private_until: Option<u32>,
    /// The rungs between the two filesystems.
    pub ladder: Arc<Ladder>,
}

/// One directory of the tree.
pub(crate) struct Dir {
    parent: Option<Arc<Dir>>,
    source_name: OsString,
    /// `None`: the same as the source's.
    dest_name: Option<OsString>,
    /// `None` for the operands' place, which is not copied itself.
    facts: Option<DirFacts>,
    pair: Mutex<Option<Arc<Pair>>>,
    /// What must end before this directory can be finished: its own listing and files, its subdirectories, the names in it
    /// that other workers will link.
    pending: AtomicUsize,
}

impl Dir {
    /// The place that operands are named from.
    pub(crate) fn operands() -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            source_name: OsString::new(),
            dest_name: None,
            facts: None,
            pair: Mutex::new(Some(Arc::new(Pair::Cwd))),
            pending: AtomicUsize::new(1),
        })
    }

    /// A directory that has just been opened, with its own work pending.
    pub(crate) fn new(
        cx: &Context,
        parent: Arc<Self>,
        names: Names<'_>,
        facts: DirFacts,
        pair: Pair,
    ) -> Arc<Self> {
        if cx.budget.is_spent() {
            parent.close();
        }
        Arc::new(Self {
            parent: Some(parent),
            source_name: names.source.to_owned(),
            dest_name: (names.dest != names.source).then(|| names.dest.to_owned()),
            facts: Some(facts),
            pair: Mutex::new(Some(Arc::new(pair))),
            pending: AtomicUsize::new(1),
        })
    }

    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The facts; `None` for the operands' place.
    pub(crate) fn facts(&self) -> Option<&DirFacts> {
        self.facts.as_ref()
    }

    /// Whether nothing can be in the destination but what this run made.
    pub(crate) fn is_fresh(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.fresh)
    }

    fn dest_name(&self) -> &OsStr {
        self.dest_name.as_deref().unwrap_or(&self.source_name)
    }

    /// One more thing to wait for. Called only by someone whose own work here is still pending.
    pub(crate) fn add_pending(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing less; true if it was the last. Acquire and release: the one who finishes sees what all others did.
    pub(crate) fn end_pending(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The path of a name in the source, for messages.
    pub(crate) fn source_path(&self, name: &OsStr) -> PathBuf {
        self.path(name, |dir| &dir.source_name)
    }

    /// The path of a name in the destination, for messages.
    pub(crate) fn dest_path(&self, name: &OsStr) -> PathBuf {
        self.path(name, Self::dest_name)
    }

    fn path<'a>(&'a self, name: &'a OsStr, name_of: impl Fn(&'a Self) -> &'a OsStr) -> PathBuf {
        let mut names = vec![name];
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(name_of(dir));
            dir = parent;
        }
        names.iter().rev().collect()
    }

    /// Whether this directory or one that it is in has `id` as its source.
    pub(crate) fn is_below(&self, id: FileId) -> bool {
        let mut dir = Some(self);
        while let Some(this) = dir {
            if this.facts.as_ref().is_some_and(|f| f.source_id == id) {
                return true;
            }
            dir = this.parent.as_deref();
        }
        false
    }

    // ---- Descriptors ----

    /// The descriptors; opened again if they had been given up (rule 3).
    pub(crate) fn open(self: &Arc<Self>, cx: &Context) -> Result<Arc<Pair>, Error> {
        if let Some(pair) = lock(&self.pair).as_ref() {
            return Ok(Arc::clone(pair));
        }
        let mut closed = vec![self];
        let mut pair = loop {
            let lowest = closed[closed.len() - 1];
            // The operands' place is always open, so the walk up ends there at the latest.
            let Some(parent) = &lowest.parent else {
                return Ok(Arc::new(Pair::Cwd));
            };
            if let Some(pair) = lock(&parent.pair).as_ref() {
                break Arc::clone(pair);
            }
            closed.push(parent);
        };
        while let Some(dir) = closed.pop() {
            pair = Arc::new(dir.open_below(cx, &pair)?);
        }
        self.keep(cx, &pair);
        Ok(pair)
    }

    fn open_below(&self, cx: &Context, parent: &Pair) -> Result<Pair, Error> {
        // An operand may be a symbolic link that was followed the first time; the inode numbers decide.
        let is_operand = matches!(parent, Pair::Cwd);
        let flags = SourceFlags {
            follow: true,
            no_atime: self.facts.as_ref().is_some_and(|facts| facts.no_atime),
        };
        let source = sys::open_source_dir(parent.source(), &self.source_name, flags);
        let dest = sys::open_dest_dir(parent.dest(), self.dest_name(), is_operand);
        self.checked(cx, source, dest)
    }

    /// Opens this directory from one of its children (rule 2), if it was closed.
    pub(crate) fn reopen_from(&self, cx: &Context, child: &Pair) {
        if lock(&self.pair).is_some() {
            return;
        }
        let source = sys::open_parent(child.source());
        let dest = sys::open_parent(child.dest());
        // If the child was moved away (or reached through a symbolic link), rule 3 still finds this directory, or says
        // that it is gone.
        if let Ok(pair) = self.checked(cx, source, dest) {
            self.keep(cx, &Arc::new(pair));
        }
    }

    fn checked(
        &self,
        cx: &Context,
        source: sys::Result<OwnedFd>,
        dest: sys::Result<OwnedFd>,
    ) -> Result<Pair, Error> {
        let source = self.check(source, true)?;
        let dest = self.check(dest, false)?;
        Ok(Pair::new(source, dest, &cx.budget))
    }

    fn check(&self, opened: sys::Result<OwnedFd>, is_source: bool) -> Result<OwnedFd, Error> {
        let error = |operation| {
            let path = if is_source {
                self.source_path(OsStr::new(""))
            } else {
                self.dest_path(OsStr::new(""))
            };
            Error::new(operation, path)
        };
        let fd = opened.map_err(|errno| error(Operation::List).with_errno(errno))?;
        let now = sys::fstat(&fd).map_err(|errno| error(Operation::Stat).with_errno(errno))?;
        let then = self.facts.as_ref().map(|facts| {
            if is_source {
                facts.source_id
            } else {
                facts.dest_id
            }
        });
        if then != Some(now.id) {
            return Err(error(Operation::Moved));
        }
        Ok(fd)
    }

    fn keep(&self, cx: &Context, pair: &Arc<Pair>) {
        if !cx.budget.is_spent() {
            *lock(&self.pair) = Some(Arc::clone(pair));
        }
    }

    /// Gives up the descriptors; they close when their last user is done. The operands' place stays.
    pub(crate) fn close(&self) {
        if self.facts.is_some() {
            lock(&self.pair).take();
        }
    }
}

impl Drop for Dir {
    /// Lets go of the ancestors one by one: dropping a chain of 10,000 from its end would otherwise call itself 10,000
    /// levels deep.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(dir) = parent {
            parent = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// An entry's name in the source and in the destination: the same but for operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub source: &'a OsStr,
    pub dest: &'a OsStr,
}

impl<'a> Names<'a> {
    pub(crate) fn same(name: &'a OsStr) -> Self {
        Self {
            source: name,
            dest: name,
        }
    }
}

/// Where an entry is and what it is called: a directory with its descriptors, and the names.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub dir: &'a Arc<Dir>,
    pub pair: &'a Pair,
    pub names: Names<'a>,
}

impl Place<'_> {
    pub(crate) fn source_path(&self) -> PathBuf {
        self.dir.source_path(self.names.source)
    }

    pub(crate) fn dest_path(&self) -> PathBuf {
        self.dir.dest_path(self.names.dest)
    }

    /// An error about the source.
    pub(crate) fn source_error(&self, operation: Operation, errno: Errno) -> Error {
        Error::new(operation, self.source_path()).with_errno(errno)
    }

    /// An error about the destination; the source is its other path.
    pub(crate) fn dest_error(&self, operation: Operation, errno: Errno) -> Error {
        self.refused(operation).with_errno(errno)
    }

    /// A rule that forbids this entry.
    pub(crate) fn refused(&self, operation: Operation) -> Error {
        Error::new(operation, self.dest_path()).with_other(self.source_path())
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn directories_leave_descriptors_for_files() {
        for (limit, workers) in [(256, 2), (1024, 16), (65_536, 64)] {
            assert!(2 * Budget::new(limit, workers).max + 8 * workers < limit);
        }
        assert_eq!(Budget::new(16, 64).max, 4);
        assert_eq!(Budget::new(usize::MAX, 2).max, 1024);
    }
}
