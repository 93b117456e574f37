//! What a copy tells whoever watches it, and asks.

use std::path::PathBuf;

use crate::counters::Count;
use crate::difference::Why;
use crate::error::Error;
use crate::ladder::How;

/// Watches a copy while it runs. All methods do nothing by default, and all are called from the workers, several at a
/// time: they should be quick, and write whole lines.
pub trait Observer: Send + Sync {
    /// An entry could not be copied, or not completely.
    fn error(&self, error: &Error) {
        let _ = error;
    }

    /// Something is not as asked for, but nothing that was asked for is missing.
    fn warning(&self, warning: &Error) {
        let _ = warning;
    }

    /// What [`Observer::entry`] is called for. Building the paths costs time that few want to pay.
    fn interest(&self) -> Interest {
        Interest::Nothing
    }

    /// Something is about to be done, or has been, as `cp -v` says it.
    fn entry(&self, event: &Event) {
        let _ = event;
    }

    /// Whether [`Observer::done`] is called. Asked once, at the beginning.
    fn keeps_log(&self) -> bool {
        false
    }

    /// Something has been done about an entry, for a log. An entry about which nothing could be done is told by
    /// [`Observer::error`] instead.
    fn done(&self, done: &Done) {
        let _ = done;
    }

    /// Asked with [`crate::Options::ask`]: whether a destination may be replaced. The worker that asks waits for the answer;
    /// only one asks at a time, in `cp`'s order. "No" unless the observer says otherwise.
    fn may_overwrite(&self, question: &Question) -> bool {
        let _ = question;
        false
    }
}

/// What an [`Observer`] wants to hear about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Interest {
    /// Errors and warnings only.
    #[default]
    Nothing,
    /// Each entry.
    Entries,
    /// Each entry and, once a file is there, how its data came: [`Event::Copied`] instead of [`Event::Copying`].
    Ways,
}

/// What happens to one entry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is about to be made.
    Copying {
        /// What is copied.
        source: PathBuf,
        /// What its copy is called.
        dest: PathBuf,
        /// What the destination that was there is called now.
        backup: Option<PathBuf>,
        /// Why.
        why: Why,
    },
    /// A leading directory has been made (`--parents`).
    MadeParent {
        /// The source's leading directory.
        source: PathBuf,
        /// Its copy.
        dest: PathBuf,
    },
    /// A regular file has been made, and its data came like this.
    Copied {
        /// What was copied.
        source: PathBuf,
        /// What its copy is called.
        dest: PathBuf,
        /// What the destination that was there is called now.
        backup: Option<PathBuf>,
        /// Why.
        why: Why,
        /// The ways that were tried.
        how: How,
    },
    /// A destination that was in the way has been removed.
    Removed {
        /// What it was called.
        dest: PathBuf,
    },
    /// A destination has its name back, because its copy could not be made.
    Restored {
        /// What it is called.
        dest: PathBuf,
        /// What it was called meanwhile.
        backup: PathBuf,
    },
    /// A destination is left alone.
    Skipped {
        /// What it is called.
        dest: PathBuf,
    },
    /// An entry of the destination has been removed because the source does not have it ([`crate::Options::delete`]).
    Deleted {
        /// What it was called.
        dest: PathBuf,
        /// It was a directory, empty by then.
        is_dir: bool,
        /// The source has something of another kind there, which takes its place.
        in_the_way: bool,
    },
    /// A source is left out by [`crate::Options::filter`]; only [`Interest::Ways`] hears of it.
    LeftOut {
        /// What it is called.
        source: PathBuf,
    },
}

/// What has been done about one entry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Done {
    /// What.
    pub what: What,
    /// What was to be copied.
    pub source: PathBuf,
    /// What its copy is called.
    pub dest: PathBuf,
}

/// What can have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A regular file has been copied.
    File,
    /// A directory has been made, or was there and is merged into. What is in it comes later.
    Directory,
    /// A symbolic link has been made.
    Symlink,
    /// A further name has been given to a file, in the copy or (`-l`) in the source.
    HardLink,
    /// A FIFO, a socket or a device file has been made.
    Special,
    /// It has been given attributes; its data was up to date, or not asked for.
    Dressed,
    /// It has been left alone on purpose.
    Skipped,
    /// It has been removed, as the source does not have it ([`Done::source`] is empty).
    Deleted,
}

impl What {
    /// What it is counted as.
    pub(crate) fn count(self) -> Count {
        match self {
            Self::File => Count::Files,
            Self::Directory => Count::Directories,
            Self::Symlink => Count::Symlinks,
            Self::HardLink => Count::HardLinks,
            Self::Special => Count::Specials,
            Self::Dressed => Count::Dressed,
            Self::Skipped => Count::Skipped,
            Self::Deleted => Count::Deleted,
        }
    }
}

/// A destination that exists, to be replaced or not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// What is there.
    pub dest: PathBuf,
    /// Its permission bits, if the process may not write it.
    pub unwritable: Option<u32>,
    /// An unwritable destination would be removed, not opened.
    pub removes: bool,
}

/// Watches nothing.
pub(crate) struct Silent;

impl Observer for Silent {}
