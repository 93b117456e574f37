//! Where an entry is that is being copied, and what it is called: a directory, its two ends as this worker has them open, the names
//! in them, the paths for messages and the errors that are made with those.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dir::Dir;
use crate::error::{Error, Failure, Operation, unless_panic};
use crate::handles::Pair;
use crate::links::Name;
use crate::path::{split, strip_slashes};
use crate::sys::{self, Errno, FileId};

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

/// A directory entry, whatever path leads to it: the directory that it is in, and its name there.
pub(crate) type DirEntry = (FileId, OsString);

/// The entry that a path from an open directory means. If links are not to be followed, one that leads to its directory is another.
pub(crate) fn dir_entry(dir: BorrowedFd<'_>, path: &OsStr, follow: bool) -> Option<DirEntry> {
    let (parent, base) = split(path);
    // A slash behind a link's name follows it.
    let stripped = strip_slashes(Path::new(parent)).as_os_str();
    let parent = if follow { parent } else { stripped };
    let parent = sys::stat_at(dir, parent, follow).ok()?;
    Some((parent.id, base.to_owned()))
}

/// Where an entry is and what it is called: a directory, this worker's descriptors of it, and the names.
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

    /// The same for longer than a task.
    pub(crate) fn to_name(self) -> Name {
        let Names { source, dest } = self.names;
        Name {
            dir: Arc::clone(self.dir),
            source: source.to_owned(),
            dest: dest.to_owned(),
        }
    }

    /// Does something about the entry; a panic is an error then, as any other.
    pub(crate) fn unless_panic<T>(
        &self,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        unless_panic(|| self.source_path(), work)
    }

    pub(crate) fn source_entry(&self) -> Option<DirEntry> {
        dir_entry(self.pair.source(), self.names.source, true)
    }

    pub(crate) fn dest_entry(&self) -> Option<DirEntry> {
        dir_entry(self.pair.dest(), self.names.dest, true)
    }

    /// An error about the source.
    pub(crate) fn source_error(&self, operation: Operation, errno: Errno) -> Error {
        Error::new(operation, self.source_path()).with_errno(errno)
    }

    /// An error about the destination; the source is its other path.
    pub(crate) fn dest_error(&self, operation: Operation, errno: Errno) -> Error {
        self.refused(operation).with_errno(errno)
    }

    /// What has the destination's name cannot be known.
    pub(crate) fn unreachable(&self, errno: Errno) -> Error {
        Error::new(Operation::Stat, self.dest_path()).with_errno(errno)
    }

    /// A failure to do something with the entry's data or attributes, with its paths.
    pub(crate) fn explain(&self, failure: Failure) -> Error {
        let Failure { operation, errno } = failure;
        match operation {
            Operation::Read | Operation::Open => self.source_error(operation, errno),
            // It was read, and is something else.
            Operation::Verify if errno == Errno::BADMSG => self.refused(Operation::Differs),
            // Nothing failed.
            Operation::Interrupted => self.refused(operation),
            _ => self.dest_error(operation, errno),
        }
    }

    /// A rule that forbids this entry.
    pub(crate) fn refused(&self, operation: Operation) -> Error {
        Error::new(operation, self.dest_path()).with_other(self.source_path())
    }
}
