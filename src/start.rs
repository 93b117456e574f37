//! Starting a copy: on a pool of its own, on one that is there, or on none, where that takes longer than the copy.

use std::ffi::OsStr;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::chunks::is_large;
use crate::context::Context;
use crate::gate::Gate;
use crate::handles::Tables;
use crate::job::{Closed, Controls, Job, Task};
use crate::local::is_local;
use crate::meeting::Meeting;
use crate::path::split;
use crate::plan::{Plan, Root};
use crate::pool::{BuildError, Pool};
use crate::report::Report;
use crate::roots::copy_roots;
use crate::sys::{self, Kind, Stat};
use crate::tuner::Tuner;

/// The most workers that a tuner may find, unless there are more processors: 128 hide a latency of 5 ms behind 25,000
/// system calls a second. A place that is never used costs some 2 µs, for memory that rayon gets ready.
const MOST_TUNED: usize = 128;

/// For how long a copy that may have any number of workers has one. What ends sooner would end later with more: each costs some
/// 100 µs to start and to end.
const HEAD_START: Duration = Duration::from_micros(500);

impl Plan {
    /// Starts the copy on a pool of its own, whose workers have nothing else to do: the pool is closed when this returns.
    ///
    /// `threads` is the number of workers. With 0 it is found while the copy runs: if it takes longer than half a millisecond,
    /// for which this waits, there are as many as there are processors, and then more or fewer work as the devices need it.
    /// [`Report::busy`] tells how many.
    ///
    /// That allows what a shared pool does not: each worker has a descriptor table and a working directory of its own
    /// (unshare(2)), and the kernel need not arbitrate between them. The workers inherit the descriptors that the process has
    /// open, so a pipe or a socket that is closed elsewhere stays open until [`Pool::join`] has returned; and an
    /// [`Observer`](crate::Observer), which runs on the workers, must not use a file in one call that was opened in another,
    /// nor rely on the working directory. What the observer itself owns is closed for good only if the program keeps it
    /// ([`Arc`]) until [`Pool::join`] has returned, and until then the workers keep some of the copied directories open. A
    /// program that minds runs the plan on a pool that it has made itself.
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
            looked.is_ok_and(|stat| stat.kind == Kind::File && !is_large(&stat))
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
