//! `cp`'s destination rules: from operands, as they were given, to pairs of one source and one destination each.
//!
//! 1. `-t DIR`: every source goes into DIR, which must be a directory.
//! 2. `-T`: the one source becomes exactly the target.
//! 3. Else, if the target is a directory (or a symbolic link to one), every source goes into it; if it is not, there may
//!    be only one source, and that becomes the target.
//!
//! Into a directory a source goes by its last component, without slashes at its end; one that ends in `.` or `..` (or is
//! `/`) is the directory's own contents and merges with the target. After this, nobody asks again where something goes.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::backup::backup_name;
use crate::cancel::Canceller;
use crate::context::Context;
use crate::counters::Counters;
use crate::data;
use crate::error::{Error, Operation};
use crate::gate::Gate;
use crate::handles::Tables;
use crate::job::{Closed, Controls, Job, Task};
use crate::live::Progress;
use crate::local::is_local;
use crate::observer::{Observer, Silent};
use crate::operands::{Meeting, may_prune};
use crate::options::{Backup, Delete, Options};
use crate::path::{join, split, strip_slashes};
use crate::pool::{BuildError, Pool};
use crate::report::Report;
use crate::roots::copy_roots;
use crate::sys::{self, Errno, FileId, Kind, Stat};
use crate::tuner::Tuner;

/// The most workers that a tuner may find, unless there are more processors: 128 hide a latency of 5 ms behind 25,000
/// system calls a second. A place that is never used costs some 2 µs, for memory that rayon gets ready.
const MOST_TUNED: usize = 128;

/// For how long a copy that may have any number of workers has one. What ends sooner would end later with more: each costs some
/// 100 µs to start and to end.
const HEAD_START: Duration = Duration::from_micros(500);

/// Where the sources go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `cp`'s last operand: a directory to copy into, or the copy's own name.
    Path(PathBuf),
    /// A directory to copy into (`-t`).
    Directory(PathBuf),
    /// The copy's own name, even if a directory has it (`-T`).
    Exactly(PathBuf),
}

/// One source and its one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Root {
    /// What is copied.
    pub source: PathBuf,
    /// What its copy is called.
    pub dest: PathBuf,
    /// The target directory in which the source's leading directories are made, with [`Options::parents`].
    pub within: Option<PathBuf>,
}

/// A copy, ready to be started: what goes where, and how. It is a [`Task`] for a [`crate::Pool`].
///
/// ```
/// use poolcp::{Options, Plan, Pool, Target};
///
/// # let dir = tempfile::tempdir()?;
/// # let source = dir.path().join("photos");
/// # std::fs::create_dir(&source)?;
/// # std::fs::write(source.join("cat.jpg"), "meow")?;
/// # let target = dir.path().join("backup");
/// let plan = Plan::resolve([source], Target::Path(target.clone()), Options::archive())?;
/// let pool = Pool::builder().threads(10).build()?;
/// let report = pool.apply_async(plan)?.join()?;
/// assert!(report.is_success());
/// assert_eq!(std::fs::read(target.join("cat.jpg"))?, b"meow");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Plan {
    roots: Vec<Root>,
    /// The directory that the copies are made in, if there is one.
    target: Option<TargetDir>,
    options: Options,
    observer: Arc<dyn Observer>,
    counters: Arc<Counters>,
    canceller: Canceller,
}

/// A target directory: found by its path once, and from then on the same.
#[derive(Clone, Debug)]
pub(crate) struct TargetDir {
    pub path: PathBuf,
    pub id: FileId,
}

impl TargetDir {
    fn find(path: &Path) -> sys::Result<Self> {
        let stat = sys::stat_at(sys::cwd(), path.as_os_str(), true)?;
        if stat.kind != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        Ok(Self {
            path: path.to_owned(),
            id: stat.id,
        })
    }
}

// Not derived: an observer can be anything.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("roots", &self.roots)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Decides where each source goes, by the module's rules.
    ///
    /// # Errors
    ///
    /// [`Operation::TargetDirectory`], [`Operation::Target`] or [`Operation::ParentsTarget`] if a target must be a
    /// directory and is not. A source that does not exist is no error yet: it becomes one, among the others, when it is
    /// copied.
    pub fn resolve(
        sources: impl IntoIterator<Item = impl Into<PathBuf>>,
        target: Target,
        mut options: Options,
    ) -> Result<Self, Error> {
        let sources: Vec<PathBuf> = sources.into_iter().map(Into::into).collect();
        let found = match &target {
            Target::Directory(dir) | Target::Path(dir) => TargetDir::find(dir),
            Target::Exactly(_) => Err(Errno::NOTDIR),
        };
        let (roots, target) = match (target, found) {
            (Target::Directory(dir) | Target::Path(dir), Ok(found)) => {
                (into_dir(sources, &dir, &options), Some(found))
            }
            (Target::Directory(dir), Err(errno)) => {
                return Err(Error::new(Operation::TargetDirectory, dir).with_errno(errno));
            }
            (Target::Path(dest), Err(errno)) if sources.len() > 1 => {
                return Err(Error::new(Operation::Target, dest).with_errno(errno));
            }
            (Target::Path(dest) | Target::Exactly(dest), _) => {
                (exactly(sources, dest, &mut options)?, None)
            }
        };
        if options.delete != Delete::Nothing {
            if options.ask || options.backup != Backup::No {
                let dest = roots.first().map(|root| root.dest.as_path());
                let dest = dest.unwrap_or(Path::new(""));
                return Err(Error::new(Operation::DeleteKeeps, dest));
            }
            may_prune(&roots, &options)?;
        }
        Ok(Self {
            roots,
            // Leading directories are made by their paths.
            target: target.filter(|_| !options.parents),
            options,
            observer: Arc::new(Silent),
            counters: Arc::default(),
            canceller: Canceller::default(),
        })
    }

    /// Lets `observer` watch the copy.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// A view on what the copy will have done at any moment; also [`Job::progress`].
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::of(&self.counters)
    }

    /// What stops the copy, before its start or while it runs; also [`Job::cancel`].
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The pairs of source and destination.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }
}

impl Plan {
    /// Starts the copy on a pool of its own, whose workers have nothing else to do: the pool is closed when this returns.
    ///
    /// `threads` is the number of workers. With 0 it is found while the copy runs: if it takes longer than half a millisecond,
    /// for which this waits, there are as many as there are processors, and then more or fewer work as the devices need it.
    /// [`Report::busy`] tells how many.
    ///
    /// That allows what a shared pool does not: each worker has a descriptor table and a working directory of its own
    /// (unshare(2)), and the kernel need not arbitrate between them. The workers inherit the descriptors that the process
    /// has open, so a pipe or a socket that is closed elsewhere stays open until [`Pool::join`] has returned; and an
    /// [`Observer`], which runs on the workers, must not use a file in one call that was opened in another, nor rely on the working directory.
    /// What the observer itself owns is closed for good only if the program keeps it ([`Arc`]) until [`Pool::join`] has returned,
    /// and until then the workers keep some of the copied directories open. A program that minds runs the plan on a pool that it has made itself.
    ///
    /// ```
    /// # use poolcp::{Options, Plan, Target};
    /// # let dir = tempfile::tempdir()?;
    /// # let (source, target) = (dir.path().join("a"), dir.path().join("b"));
    /// # std::fs::create_dir(&source)?;
    /// let plan = Plan::resolve([source], Target::Path(target), Options::archive())?;
    /// let (pool, job) = plan.start(10)?;
    /// let report = job.join()?;
    /// pool.join();
    /// assert_eq!(report.workers, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The system does not give as many threads.
    pub fn start(self, threads: usize) -> Result<(Pool, Job<Report>), BuildError> {
        let tables = Tables::best();
        if threads == 0 {
            return self.start_tuned(tables);
        }
        let pool = Pool::builder().tables(tables).threads(threads).build()?;
        let job = start(&pool, self.controls(), move || self.copy(tables));
        Ok((pool, job))
    }

    /// Starts the copy with one worker and, once it has been found to last, with as many as processors and a tuner that finds
    /// out how many there should be.
    fn start_tuned(self, tables: Tables) -> Result<(Pool, Job<Report>), BuildError> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let most = MOST_TUNED.max(cores);
        let gate = Arc::new(Gate::new(most, cores));
        let builder = Pool::builder().tables(tables).threads(1);
        let pool = builder.gate(Arc::clone(&gate)).build()?;
        let crew = pool.crew();
        let counters = Arc::clone(&self.counters);
        let tuner = Arc::new(Tuner::new(Arc::clone(crew), gate, counters, cores));
        let own = Arc::clone(&tuner);
        let job = start(&pool, self.controls(), move || {
            let tuned = Tuned(own);
            let mut report = self.copy(tables);
            let busy = tuned.0.stop();
            report.workers = busy.most();
            report.busy = Some(busy);
            report
        });
        if !job.ends_within(HEAD_START) {
            // Who is refused is missed by nobody.
            crew.grow(cores);
            if let Ok(thread) = tuner.start() {
                pool.adopt(thread);
            }
        }
        Ok((pool, job))
    }

    /// Whether a pool would help. Where all that is to be done is to copy one small file, and as fast as it goes, starting
    /// workers takes longer than the copy: [`Task::run`] does it on the calling thread.
    #[must_use]
    pub fn needs_pool(&self) -> bool {
        let is_small = |root: &Root| {
            let looked = sys::stat_at(sys::cwd(), root.source.as_os_str(), true);
            looked.is_ok_and(|stat| stat.kind == Kind::File && !data::is_large(&stat))
        };
        self.options.ask
            || self.options.bandwidth.is_some()
            || !matches!(&self.roots[..], [only] if is_small(only))
    }

    /// Whether a plan that needs no pool may take long enough for somebody to ask how far it is, or to stop it: the file is not
    /// very small, or of unknown size; or one end is a FIFO or a device, or on a filesystem that may be another machine's.
    #[must_use]
    pub fn may_take_long(&self) -> bool {
        let stat = |path: &Path| sys::stat_at(sys::cwd(), path.as_os_str(), true);
        let is_plain = |stat: &Stat| stat.kind == Kind::File;
        let is_quick = |stat: &Stat| is_plain(stat) && (1..1 << 20).contains(&stat.size);
        let is_near = |dir: &OsStr| {
            let dir = sys::open_dest_dir(sys::cwd(), dir, true);
            dir.is_ok_and(is_local)
        };
        !self.roots.iter().all(|root| {
            let (source, dest) = (stat(&root.source), stat(&root.dest));
            let (from, _) = split(root.source.as_os_str());
            let (to, _) = split(root.dest.as_os_str());
            source.as_ref().is_ok_and(is_quick)
                && dest.as_ref().map_or(true, is_plain)
                && is_near(from)
                && (from == to || is_near(to))
        })
    }

    fn copy(self, tables: Tables) -> Report {
        let meeting = Meeting::of(&self.roots, &self.options);
        // One small file needs no pool, and starts none.
        let workers = if rayon::current_thread_index().is_some() || self.needs_pool() {
            rayon::current_num_threads()
        } else {
            1
        };
        let is_durable = self.options.durable;
        let mut cx = Context::new(
            self.options,
            self.observer,
            self.counters,
            self.canceller,
            workers,
            tables,
            meeting,
        );
        let in_order = meeting != Meeting::Never || cx.options.ask;
        if is_durable && !cx.options.dry_run {
            cx.watch_filesystems(&self.roots);
        }
        copy_roots(&cx, &self.roots, self.target, in_order);
        cx.make_durable();
        cx.report()
    }
}

/// Starts a pool's only job.
fn start<F>(pool: &Pool, controls: Controls, copy: F) -> Job<Report>
where
    F: FnOnce() -> Report + Send + 'static,
{
    let started = pool.job().name("copy").apply_async(Copy { controls, copy });
    pool.close();
    match started {
        Ok(job) => job,
        Err(Closed) => unreachable!("nobody else knows this pool yet, so nobody has closed it"),
    }
}

/// A copy in a way of its own, which is to be watched and stopped as any other.
struct Copy<F> {
    controls: Controls,
    copy: F,
}

impl<F: FnOnce() -> Report + Send + 'static> Task for Copy<F> {
    type Output = Report;

    fn run(self) -> Report {
        (self.copy)()
    }

    fn controls(&self) -> Controls {
        self.controls.clone()
    }
}

/// Stops the tuner when the copy ends, in a panic too.
struct Tuned(Arc<Tuner>);

impl Drop for Tuned {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Task for Plan {
    type Output = Report;

    /// Copies, on the pool that this is called on; outside of any, on this thread and on rayon's global pool if there are
    /// directories.
    fn run(self) -> Report {
        // An observer may copy something on a worker.
        self.copy(Tables::of_this_thread())
    }

    fn controls(&self) -> Controls {
        let controls = Controls::default().canceller(self.canceller());
        controls.progress(self.progress())
    }
}

/// Each becomes the target itself, which makes sense for one only.
fn exactly(
    sources: Vec<PathBuf>,
    dest: PathBuf,
    options: &mut Options,
) -> Result<Vec<Root>, Error> {
    if sources.len() > 1 {
        return Err(Error::new(Operation::Target, dest).with_errno(Errno::NOTDIR));
    }
    if options.parents {
        return Err(Error::new(Operation::ParentsTarget, dest));
    }
    let mut dest = dest;
    // Letter by letter, as cp does.
    if sources
        .iter()
        .any(|source| source.as_os_str() == dest.as_os_str())
        && let Some(backup) = onto_itself(&dest, options)?
    {
        dest = backup;
        options.backup = Backup::No;
    }
    let root = |source| Root {
        source,
        dest: dest.clone(),
        within: None,
    };
    Ok(sources.into_iter().map(root).collect())
}

/// Where the copy of a file onto itself goes: forced, and with a backup wanted, that backup is all that is made.
fn onto_itself(dest: &Path, options: &Options) -> Result<Option<PathBuf>, Error> {
    let name = dest.as_os_str();
    let is_file = || sys::stat_at(sys::cwd(), name, true).is_ok_and(|stat| stat.kind == Kind::File);
    if !options.force || options.backup == Backup::No || !is_file() {
        return Ok(None);
    }
    backup_name(sys::cwd(), name, options.backup, &options.suffix)
        .map(|backup| Some(PathBuf::from(backup)))
        .map_err(|errno| Error::new(Operation::Backup, dest).with_errno(errno))
}

fn into_dir(sources: Vec<PathBuf>, dir: &Path, options: &Options) -> Vec<Root> {
    let root = |mut source: PathBuf| {
        if options.strip_trailing_slashes {
            source = strip_slashes(&source).to_owned();
        }
        let dest = if options.parents {
            join(dir, strip_slashes(&source).as_os_str())
        } else {
            match split(source.as_os_str()).1 {
                // Not out of the directory again.
                name if name == ".." => join(dir, OsStr::new(".")),
                name => join(dir, name),
            }
        };
        Root {
            source,
            dest,
            within: options.parents.then(|| dir.to_owned()),
        }
    };
    sources.into_iter().map(root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dests(sources: &[&str], dir: &str) -> Vec<String> {
        let sources = sources.iter().map(PathBuf::from).collect();
        let roots = into_dir(sources, Path::new(dir), &Options::default());
        let shown = |root: &Root| root.dest.display().to_string();
        roots.iter().map(shown).collect()
    }

    #[test]
    fn a_source_goes_into_a_directory_by_its_last_component() {
        assert_eq!(
            dests(&["a", "x/b", "x/c/", "/d//", "x/.", "."], "t"),
            ["t/a", "t/b", "t/c", "t/d", "t/.", "t/."]
        );
        assert_eq!(dests(&["a"], "./t//"), ["./t/a"]);
        assert_eq!(dests(&["a"], "/"), ["/a"]);
    }

    #[test]
    fn root_and_dot_dot_merge_with_the_target() {
        assert_eq!(dests(&["/", "..", "x/.."], "t"), ["t/", "t/.", "t/."]);
    }

    #[test]
    fn several_sources_need_a_directory() {
        let two = ["a", "b"];
        let error = Plan::resolve(two, Target::Exactly("/dev/null".into()), Options::default());
        let text = error.err().map(|error| error.to_string());
        assert_eq!(text.as_deref(), Some("target '/dev/null': Not a directory"));
        let plan = Plan::resolve(two, Target::Path("/nonexistent".into()), Options::default());
        let text = plan.err().map(|error| error.to_string());
        assert_eq!(
            text.as_deref(),
            Some("target '/nonexistent': No such file or directory")
        );
    }
}
