//! What all workers of one copy share: the options, the counters, the observer, and the few facts that are looked up once.
//!
//! Everything here is either immutable, or a counter, or behind a lock that is held for a moment and never across a call
//! into rayon.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::closing::most_waiting;
use crate::data::{How, Ladder};
use crate::decide::Why;
use crate::dir::{Entry, Place};
use crate::durable::Filesystems;
use crate::error::{Error, Operation};
use crate::handles::{Handles, Tables};
use crate::limit::Limiter;
use crate::links::{Links, Writers};
use crate::options::Options;
use crate::plan::Root;
use crate::report::{Count, Counters, Report, Told};
use crate::sys::{self, FileId};

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

    /// Asked with [`Options::ask`]: whether a destination may be replaced. The worker that asks waits for the answer; only
    /// one asks at a time, in `cp`'s order. "No" unless the observer says otherwise.
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
    /// It has been given attributes; its data was up to date.
    Dressed,
    /// It has been left alone on purpose.
    Skipped,
    /// It has been removed, as the source does not have it ([`Done::source`] is empty).
    Deleted,
}

impl What {
    fn count(self) -> Count {
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

/// Locks, whatever a panicking thread left behind: every value here is valid between any two statements that change it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shared state of one copy.
pub(crate) struct Context {
    pub options: Options,
    pub counters: Arc<Counters>,
    pub links: Links,
    pub writers: Writers,
    pub process: Process,
    pub handles: Handles,
    /// How fast data may move, if that is limited.
    pub limit: Option<Limiter>,
    pub max_nested: u32,
    /// How many files that it is done with a worker may keep open, see `closing.rs`.
    pub max_waiting: usize,
    /// The same name may be met more than once: an operand is, or is inside, another one.
    pub names_repeat: bool,
    observer: Arc<dyn Observer>,
    told: Mutex<Told>,
    /// The observer wants to hear what is done.
    keeps_log: bool,
    ladders: Mutex<HashMap<(u64, u64), Arc<Ladder>>>,
    /// A sieve for the two maps below, which every directory is looked up in and hardly any is found.
    known_dirs: Sieve,
    /// The operands that are directories.
    operand_dirs: Mutex<HashMap<FileId, OperandDir>>,
    /// Their copies.
    copied_dirs: Mutex<HashMap<FileId, CopiedDir>>,
    /// The operands' copies and the symbolic links that this run made, if an operand might meet another one's.
    made: Option<Mutex<HashSet<Made>>>,
    canceller: Canceller,
    /// Something could not be copied.
    is_incomplete: AtomicBool,
    /// And so something was not removed, which has been told.
    has_spared: AtomicBool,
    /// The filesystems that are written, if the copy is to be durable.
    filesystems: Option<Filesystems>,
    workers: usize,
    started: Instant,
}

/// How operands may get into each other's way. Unless they never do, they are copied one after the other, as `cp` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Never,
    /// One may meet what another one's copy made or changes: two have the same destination, one merges with the directory that
    /// the others go into, one's source is another's destination, or their leading directories are made.
    Possible,
    /// The same file may be copied twice: an operand is, or is inside, another one.
    Twice,
}

/// Stops a copy before its end, from any thread or from a signal handler.
///
/// The workers take up nothing new then, remove the files that they have not completed, give the directories that they have
/// made their attributes, and the copy ends with a [`Report`] that says so.
///
/// ```
/// # use poolcp::{Options, Plan, Pool, Target};
/// # let dir = tempfile::tempdir()?;
/// # let (source, target) = (dir.path().join("a"), dir.path().join("b"));
/// # std::fs::write(&source, "x")?;
/// let plan = Plan::resolve([source], Target::Path(target.clone()), Options::default())?;
/// let canceller = plan.canceller();
/// canceller.cancel();
/// let report = Pool::builder().build()?.apply_async(plan)?.join()?;
/// assert!(report.cancelled && !target.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Stops the copy.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag behind it, for those who can set a flag and nothing else: signal handlers.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// A directory that is an operand: met again, it would be copied twice.
#[derive(Clone)]
pub(crate) struct OperandDir {
    /// Its copy's place.
    pub entry: Option<Entry>,
    /// Its copy's path.
    pub dest: PathBuf,
}

/// The copy of the operand `of`; this run made it, if it is `fresh`.
struct CopiedDir {
    of: FileId,
    fresh: bool,
}

/// A set of files that says of most others that they are not in it, without a lock: two that all workers take for each
/// directory would be a queue on a machine with many processors, where a directory has few files.
#[derive(Default)]
struct Sieve([AtomicU64; 16]);

impl Sieve {
    fn bit(id: FileId) -> (usize, u64) {
        // Inode numbers of one filesystem are close together, and so they are in here.
        let bit = id.ino ^ (id.dev << 3);
        // Cannot be cut: it is less than 16.
        let word = usize::try_from(bit / 64 % 16).unwrap_or(0);
        (word, 1 << (bit % 64))
    }

    /// Adds a file, before whatever else is kept about it.
    fn add(&self, id: FileId) {
        let (word, bit) = Self::bit(id);
        // Whoever must find the file has learnt of it from whoever added it, or later from the maps' locks.
        self.0[word].fetch_or(bit, Ordering::SeqCst);
    }

    /// False if the file was never added.
    fn may_have(&self, id: FileId) -> bool {
        let (word, bit) = Self::bit(id);
        self.0[word].load(Ordering::SeqCst) & bit != 0
    }
}

/// Something that was made, and must not be overwritten or written through.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Made {
    /// The copy of an operand, under its own name.
    Operand(FileId, Entry),
    /// A symbolic link, anywhere.
    Link(FileId),
}

/// What the process is allowed to do, and what the kernel gives its new files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub superuser: bool,
    pub uid: u32,
    pub gid: u32,
    /// `None` where it cannot be known.
    pub umask: Option<u32>,
    /// What cannot be done through a descriptor can be done through its link in /proc.
    pub has_proc: bool,
}

impl Process {
    fn new() -> Self {
        let (uid, gid) = sys::effective_ids();
        let umask = sys::umask();
        Self {
            superuser: sys::is_superuser(),
            uid,
            gid,
            umask,
            // That is where it comes from.
            has_proc: umask.is_some(),
        }
    }
}

/// Descriptors that are not for the workers: the standard streams, and what the rest of the process may want.
const SPARE_DESCRIPTORS: usize = 8;

/// How deep a worker that may have `share` files open may nest its waits: each level may hold a file's and a
/// directory's two descriptors.
///
/// A level needs some 2 KiB of stack, a few times that where rayon splits a wide directory: 32 levels are far below what
/// [`crate::Pool`] gives its workers, and no worker that deep lacks company.
fn max_nested(share: usize) -> u32 {
    // Cannot fail to convert after the clamp.
    u32::try_from((share / 8).clamp(1, 32)).unwrap_or(1)
}

impl Context {
    pub(crate) fn new(
        options: Options,
        observer: Arc<dyn Observer>,
        counters: Arc<Counters>,
        canceller: Canceller,
        workers: usize,
        tables: Tables,
        meeting: Meeting,
    ) -> Self {
        let limit = sys::raise_open_files_limit().saturating_sub(SPARE_DESCRIPTORS);
        let share = match tables {
            Tables::Shared => limit / workers.max(1),
            Tables::PerWorker => limit,
        };
        Self {
            keeps_log: observer.keeps_log() && !options.dry_run,
            limit: options.bandwidth.map(Limiter::new),
            options,
            counters,
            links: Links::default(),
            writers: Writers::default(),
            process: Process::new(),
            handles: Handles::new(workers, share, tables),
            max_nested: max_nested(share),
            max_waiting: most_waiting(share),
            names_repeat: meeting == Meeting::Twice,
            observer,
            told: Mutex::default(),
            ladders: Mutex::default(),
            known_dirs: Sieve::default(),
            operand_dirs: Mutex::default(),
            copied_dirs: Mutex::default(),
            made: (meeting != Meeting::Never).then(Mutex::default),
            canceller,
            is_incomplete: AtomicBool::new(false),
            has_spared: AtomicBool::new(false),
            filesystems: None,
            workers,
            started: Instant::now(),
        }
    }

    /// A file or a directory has got all that it gets, and is synced if the copy is to be durable and nothing else would do.
    pub(crate) fn complete(&self, fd: impl AsFd) -> sys::Result<()> {
        match &self.filesystems {
            Some(filesystems) => filesystems.complete(fd),
            None => Ok(()),
        }
    }

    /// A file has got its data, from front to back if `in_order`, and its time is next; see [`Filesystems::filled`].
    pub(crate) fn filled(&self, file: impl AsFd, in_order: bool) -> sys::Result<()> {
        match &self.filesystems {
            Some(filesystems) => filesystems.filled(file, in_order),
            None => Ok(()),
        }
    }

    /// A directory on a filesystem is written to.
    pub(crate) fn meet_filesystem(&self, dev: u64, path: impl FnOnce() -> PathBuf) {
        if let Some(filesystems) = &self.filesystems {
            filesystems.meet(dev, path);
        }
    }

    /// Counts an error, keeps it for the report and shows it.
    pub(crate) fn error(&self, error: Error) {
        self.is_incomplete.store(true, Ordering::Release);
        self.tell_error(error);
    }

    /// The same for what should have been removed: nothing is lost by that, so other things still are.
    pub(crate) fn fail_to_delete(&self, error: Error) {
        self.tell_error(error);
    }

    /// Whether what the source does not have may be removed from `dest`. Once it may not, that is told.
    pub(crate) fn may_delete(&self, dest: impl FnOnce() -> PathBuf) -> bool {
        if !self.is_incomplete.load(Ordering::Acquire) {
            return true;
        }
        if !self.has_spared.swap(true, Ordering::Relaxed) {
            self.warning(&Error::new(Operation::Spare, dest()));
        }
        false
    }

    fn tell_error(&self, error: Error) {
        self.counters.add(Count::Errors, 1);
        self.observer.error(&error);
        lock(&self.told).error(error);
    }

    /// Shows and counts something that does not make the copy incomplete.
    pub(crate) fn warning(&self, warning: &Error) {
        self.counters.add(Count::Warnings, 1);
        self.observer.warning(warning);
        lock(&self.told).warning(warning);
    }

    /// Remembers something that was made, if another operand may meet it.
    pub(crate) fn remember(&self, what: impl FnOnce() -> Option<Made>) {
        // What cannot be looked at any more is not there to be overwritten.
        if let Some(made) = &self.made
            && let Some(what) = what()
        {
            lock(made).insert(what);
        }
    }

    /// Whether this run has made it.
    pub(crate) fn has_made(&self, what: impl FnOnce() -> Option<Made>) -> bool {
        let Some(made) = &self.made else {
            return false;
        };
        what().is_some_and(|what| lock(made).contains(&what))
    }

    /// Whether nothing new is to be taken up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.canceller.is_cancelled()
    }

    /// Counts what the filter leaves out.
    pub(crate) fn leave_out(&self, source: impl FnOnce() -> PathBuf) {
        self.counters.add(Count::Excluded, 1);
        if self.interest() == Interest::Ways {
            self.tell(|| Event::LeftOut { source: source() });
        }
    }

    /// What stops the copy.
    pub(crate) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// Counts what has been done about an entry, and tells an observer that wants to know.
    pub(crate) fn done(&self, what: What, place: Place<'_>) {
        self.counters.add(what.count(), 1);
        self.log(what, place);
    }

    /// Tells an observer that wants to know what an entry is, now that nothing is left to be done about it.
    pub(crate) fn log(&self, what: What, place: Place<'_>) {
        if self.keeps_log {
            self.observer.done(&Done {
                what,
                source: place.source_path(),
                dest: place.dest_path(),
            });
        }
    }

    /// Counts what has been removed from the destination, and tells an observer that wants to know.
    pub(crate) fn deleted(&self, dest: &Path) {
        self.counters.add(Count::Deleted, 1);
        if self.keeps_log {
            self.observer.done(&Done {
                what: What::Deleted,
                source: PathBuf::new(),
                dest: dest.to_owned(),
            });
        }
    }

    /// What the observer wants to hear about.
    pub(crate) fn interest(&self) -> Interest {
        self.observer.interest()
    }

    /// Tells an observer that wants to know.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.interest() > Interest::Nothing {
            self.observer.entry(&event());
        }
    }

    /// Asks whether a destination may be replaced.
    pub(crate) fn may_overwrite(&self, question: &Question) -> bool {
        self.observer.may_overwrite(question)
    }

    /// The ladder for copies from one device to another.
    pub(crate) fn ladder(&self, source_dev: u64, dest_dev: u64) -> Arc<Ladder> {
        let mut ladders = lock(&self.ladders);
        Arc::clone(ladders.entry((source_dev, dest_dev)).or_default())
    }

    /// Remembers a directory that is an operand, and the one that is its copy; `fresh` if this run made that.
    pub(crate) fn add_operand_dir(
        &self,
        source: FileId,
        dest: FileId,
        fresh: bool,
        place: Place<'_>,
    ) {
        let operand = OperandDir {
            entry: place.dest_entry(),
            dest: place.dest_path(),
        };
        self.known_dirs.add(source);
        self.known_dirs.add(dest);
        // The first one counts: a second one is already known.
        lock(&self.operand_dirs).entry(source).or_insert(operand);
        let mut copied = lock(&self.copied_dirs);
        let fresh = fresh || copied.get(&dest).is_some_and(|copied| copied.fresh);
        copied.insert(dest, CopiedDir { of: source, fresh });
    }

    /// Whether a directory is an operand or the copy of one, and so cannot simply be copied.
    pub(crate) fn is_known_dir(&self, id: FileId) -> bool {
        self.known_dirs.may_have(id)
            && (lock(&self.operand_dirs).contains_key(&id)
                || lock(&self.copied_dirs).contains_key(&id))
    }

    /// The operand that a directory is.
    pub(crate) fn operand_dir(&self, id: FileId) -> Option<OperandDir> {
        lock(&self.operand_dirs).get(&id).cloned()
    }

    /// Whether a directory, met while the operand `of` is copied, would be copied into itself. One that was there before
    /// another operand was copied to it is a directory like any other.
    pub(crate) fn is_copied_dir(&self, id: FileId, of: FileId) -> bool {
        let copied = lock(&self.copied_dirs);
        copied
            .get(&id)
            .is_some_and(|copied| copied.fresh || copied.of == of)
    }

    /// Notes which filesystems the operands go to, on the thread that will call [`Context::make_durable`].
    pub(crate) fn watch_filesystems(&mut self, roots: &[Root]) {
        self.filesystems = Some(Filesystems::of(roots));
    }

    /// Waits until everything is on its device, if that is asked for.
    pub(crate) fn make_durable(&mut self) {
        let filesystems = self.filesystems.take();
        for error in filesystems.into_iter().flat_map(Filesystems::sync) {
            self.error(error);
        }
    }

    /// The report, once everything has ended.
    pub(crate) fn report(&self) -> Report {
        let told = std::mem::take(&mut *lock(&self.told));
        Report {
            stats: self.counters.sum(),
            elapsed: self.started.elapsed(),
            workers: self.workers,
            cancelled: self.is_cancelled(),
            dry_run: self.options.dry_run,
            busy: None,
            error_counts: told.counts(),
            errors: told.errors,
            warnings: told.warnings,
            options: self.options.clone(),
        }
    }
}
