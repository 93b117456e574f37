//! What all workers of one copy share: the options, the counters, the observer, and the few facts that are looked up once.
//!
//! Everything here is either immutable, or a counter, or behind a lock that is held for a moment (longer only where a filesystem
//! is met for the first time) and never across a call into rayon.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::ahead::Queue;
use crate::cancel::Canceller;
use crate::closing::most_waiting;
use crate::counters::{Count, Counters};
use crate::disk;
use crate::durable::Filesystems;
use crate::error::{Error, Operation, unless_panic};
use crate::gate;
use crate::handles::{Handles, Tables};
use crate::ladder::Ladder;
use crate::limit::Limiter;
use crate::links::{Links, Writers};
use crate::lock::lock;
use crate::meeting::Meeting;
use crate::nest::most_nested;
use crate::observer::{Done, Event, Interest, Observer, Question, What};
use crate::operands::Operands;
use crate::options::Options;
use crate::place::Place;
use crate::plan::Root;
use crate::report::{Report, Told};
use crate::sys;
use crate::tree::DirTask;

/// The shared state of one copy.
pub(crate) struct Context {
    pub options: Options,
    pub counters: Arc<Counters>,
    pub links: Links,
    pub writers: Writers,
    pub process: Process,
    pub handles: Handles,
    pub operands: Operands,
    /// How fast data may move, if that is limited.
    pub limit: Option<Limiter>,
    pub max_nested: u32,
    /// How many files that it is done with a worker may keep open, see `closing.rs`.
    pub max_waiting: usize,
    observer: Arc<dyn Observer>,
    told: Mutex<Told>,
    /// When the copy began, by the clock that filesystems have.
    began: SystemTime,
    /// The leading directories that a dry run has said it would make.
    rehearsed_parents: Mutex<HashSet<PathBuf>>,
    /// The observer wants to hear what is done.
    keeps_log: bool,
    ladders: Mutex<HashMap<(u64, u64), Arc<Ladder>>>,
    /// Whether the devices that are read may have to seek.
    seeking: Mutex<HashMap<u64, bool>>,
    /// Directories that are made, and wait to be filled.
    pub ahead: Queue<DirTask>,
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

/// What the process is allowed to do, and what the kernel gives its new files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub superuser: bool,
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
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
            umask: umask.unwrap_or_else(sys::umask_by_setting),
            // That is where it comes from, if anywhere.
            has_proc: umask.is_some(),
        }
    }
}

/// Descriptors that are not for the workers: the standard streams, and what the rest of the process may want.
const SPARE_DESCRIPTORS: usize = 8;

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
        let operands = Operands::new(meeting, &options);
        Self {
            keeps_log: observer.keeps_log() && !options.dry_run,
            limit: options.bandwidth.map(Limiter::new),
            options,
            counters,
            links: Links::default(),
            writers: Writers::default(),
            process: Process::new(),
            handles: Handles::new(workers, share, tables),
            operands,
            max_nested: most_nested(share),
            max_waiting: most_waiting(share),
            observer,
            told: Mutex::default(),
            began: SystemTime::now(),
            rehearsed_parents: Mutex::default(),
            ladders: Mutex::default(),
            seeking: Mutex::default(),
            ahead: Queue::default(),
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

    /// A file has got its data, so that it is written back in one piece if `in_one_piece`, and its time is next; see
    /// [`Filesystems::filled`].
    pub(crate) fn filled(&self, file: impl AsFd, in_one_piece: bool) -> sys::Result<()> {
        match &self.filesystems {
            Some(filesystems) => filesystems.filled(file, in_one_piece),
            None => Ok(()),
        }
    }

    /// A directory on a filesystem is written to.
    pub(crate) fn meet_filesystem(&self, dev: u64, path: impl FnOnce() -> PathBuf) {
        if let Some(filesystems) = &self.filesystems {
            filesystems.meet(dev, path);
        }
    }

    /// Says that what had a destination's name is gone.
    pub(crate) fn tell_removed(&self, place: Place<'_>) {
        self.tell(|| Event::Removed {
            dest: place.dest_path(),
        });
    }

    /// Whether something was made since the copy began, be it by another clock that is a little ahead.
    pub(crate) fn is_younger(&self, birth: SystemTime) -> bool {
        let age = birth.duration_since(self.began);
        age.is_ok_and(|age| age > Duration::from_secs(1))
    }

    /// Whether a leading directory would be made, as far as this dry run has not said so already.
    pub(crate) fn rehearse_parent(&self, dest: &Path) -> bool {
        lock(&self.rehearsed_parents).insert(dest.to_owned())
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
        lock(&self.told).error(error.clone());
        self.watched(&error, |observer| observer.error(&error));
    }

    /// Tells the observer of an error. That it panics is an error as well, of which it is not told.
    fn watched(&self, error: &Error, tell: impl FnOnce(&dyn Observer)) {
        let told = unless_panic(
            || error.path().to_owned(),
            || {
                tell(&*self.observer);
                Ok(())
            },
        );
        if let Err(panic) = told {
            self.is_incomplete.store(true, Ordering::Release);
            self.counters.add(Count::Errors, 1);
            lock(&self.told).error(panic);
        }
    }

    /// Shows and counts something that does not make the copy incomplete.
    pub(crate) fn warning(&self, warning: &Error) {
        self.counters.add(Count::Warnings, 1);
        lock(&self.told).warning(warning);
        self.watched(warning, |observer| observer.warning(warning));
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
        self.log_done(|| Done {
            what,
            source: place.source_path(),
            dest: place.dest_path(),
        });
    }

    fn log_done(&self, done: impl FnOnce() -> Done) {
        if self.keeps_log {
            self.observer.done(&done());
        }
    }

    /// Counts what has been removed from the destination, and tells an observer that wants to know.
    pub(crate) fn deleted(&self, dest: &Path) {
        self.counters.add(Count::Deleted, 1);
        self.log_done(|| Done {
            what: What::Deleted,
            source: PathBuf::new(),
            dest: dest.to_owned(),
        });
    }

    /// Counts a leading directory that has been made, and tells an observer that wants to know.
    pub(crate) fn made_parent(&self, source: &Path, dest: &Path) {
        self.counters.add(What::Directory.count(), 1);
        self.log_done(|| Done {
            what: What::Directory,
            source: source.to_owned(),
            dest: dest.to_owned(),
        });
        self.tell(|| Event::MadeParent {
            source: source.to_owned(),
            dest: dest.to_owned(),
        });
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
        // Somebody has to think: others may work meanwhile.
        gate::rest(|| self.observer.may_overwrite(question))
    }

    /// The ladder for copies from one device to another, each with something that is on it.
    pub(crate) fn ladder(
        &self,
        (source_dev, source): (u64, impl AsFd),
        (dest_dev, dest): (u64, impl AsFd),
    ) -> Arc<Ladder> {
        let mut ladders = lock(&self.ladders);
        let ladder = ladders.entry((source_dev, dest_dev));
        Arc::clone(ladder.or_insert_with(|| Arc::new(Ladder::between(source, dest))))
    }

    /// A device is read: tells the tuner, the first time, if it may have to seek; and the caller. `source` is on it.
    pub(crate) fn meet_source(&self, dev: u64, source: impl AsFd) -> bool {
        let mut seeking = lock(&self.seeking);
        *seeking.entry(dev).or_insert_with(|| {
            let may_seek = disk::may_seek(source);
            if may_seek {
                gate::meet_seeking();
            }
            may_seek
        })
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
