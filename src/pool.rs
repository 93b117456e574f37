//! The pool of workers: create it, hand it the work, close it, join it.
//!
//! This is the lifecycle of Python's `multiprocessing.Pool`, on rayon's threads. rayon has the workers and the stealing of
//! work, but not what a program needs around them: a job that can be asked whether it is alive, waited for with a time
//! limit and joined for its result, a panic that reaches the joiner instead of aborting the process, and an end at which
//! the workers are known to be gone. That is all this module adds. The `poolcp` binary itself runs on it.
//!
//! What is not here: `map` and its kin (use rayon's `par_iter` inside a task, it runs on this pool), `terminate` and
//! `kill` (a thread cannot be stopped from outside; [`Job::cancel`] asks a task that listens), worker processes, queues (use [`std::sync::mpsc`]) and async.
//!
//! | Python                                   | here                                                           |
//! |------------------------------------------|----------------------------------------------------------------|
//! | `Pool(processes)`                        | [`Pool::builder()`], [`PoolBuilder::threads`]                  |
//! | `Pool.apply_async(f)`                    | [`Pool::apply_async`]                                          |
//! | `class MyProcess(Process): def run(…)`   | `impl` [`Task`] `for MyTask`                                   |
//! | `Process(name=…, daemon=True)`           | [`Pool::job`], [`JobBuilder::name`], [`JobBuilder::daemon`]    |
//! | `AsyncResult.get()`                      | [`Job::join`]                                                  |
//! | `AsyncResult.wait(t)`, `Process.join(t)` | [`Job::join_timeout`]                                          |
//! | `AsyncResult.ready()`                    | `!`[`Job::is_alive`]                                           |
//! | `Process.is_alive()`                     | [`Job::is_alive`], true for a waiting job too                  |
//! | `Process.name`, `.pid`, `.daemon`        | [`Job::name`], [`Job::id`], [`Job::is_daemon`]                 |
//! | `Pool.close()`                           | [`Pool::close`]                                                |
//! | `Pool.join()`                            | [`Pool::join`], or drop the pool                               |
//! | `Pool.terminate()`                       | for a copy: [`Canceller::cancel`](crate::Canceller::cancel)    |
//!
//! ```
//! use poolcp::Pool;
//!
//! let pool = Pool::builder().threads(2).build()?;
//! let sum = pool.apply_async(|| (1..=10).sum::<u32>())?;
//! let text = pool.apply_async(|| "ten".to_string())?;
//! assert_eq!(sum.join()?, 55);
//! assert_eq!(text.join()?, "ten");
//! pool.close();
//! assert!(pool.apply_async(|| ()).is_err());
//! pool.join();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Who may wait for whom
//!
//! - **Any thread for any job**, daemon or not. A thread outside sleeps until the job ends. A rayon worker that waits takes
//!   up other work of its own pool meanwhile (so a pool of one thread can start a job and join it); when there is none it
//!   sleeps too, and looks for work every few milliseconds. What it takes up runs on top of the waiting task: the wait
//!   lasts at least as long as that work, which matters with a daemon that never ends, and a lock held across the wait
//!   deadlocks if that work wants it. The waits inside rayon's own `join`, `scope` and `par_iter` do the same. So start
//!   a long-lived daemon first, and give the pool a thread for it. Nothing bounds how deep that goes: who queues thousands of jobs
//!   that wait for others gives the workers a stack for it ([`PoolBuilder::stack_size`]), or lets them not wait.
//! - **The pool for its jobs**: [`Pool::join`] and dropping the pool wait for all jobs but the daemons, also for those
//!   whose [`Job`] was dropped.
//! - **No job for its own pool**, which would be a wait for itself. When the last `Arc<Pool>` goes inside a task of that
//!   pool, the pool is closed only: the jobs it has are still run, then its workers end, and nobody waits for them.
//! - **Nobody for a daemon**, except by [`Job::join`]. A daemon is not stopped when the pool goes, and one that has not
//!   begun still begins. Until the last daemon has ended, all workers of the pool stay, asleep if they have no work; then
//!   they end by themselves. The end of `main` ends them with the process.
//!
//! # Why this needs no model checker
//!
//! A pool's ledger (closed or not, how many jobs) and a job's outcome are each a state behind a lock with a condition variable
//! (`Monitor`), and no other state is shared. Every change is made under the lock and followed by `notify_all`; every wait
//! checks its condition under the lock, each time it wakes, so that no end can be missed; and a worker that waits looks
//! again every few milliseconds anyway. No code of a task runs under a lock, and no thread ever holds two: the crew's lock is held
//! while threads are started, who do not take it. So there is neither an order of locks to get wrong nor a state that is half
//! changed, and the states are few enough to be tried one by one, as the tests below do. The gate has rules
//! of its own (`gate.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use crate::background::background;
use crate::gate::{self, Gate};
use crate::handles::Tables;
use crate::job::Ledger;
use crate::lock::lock;
use crate::monitor::Monitor;
use crate::sys;
use crate::wording::without_number;

pub use crate::job::{Closed, Controls, Job, JobBuilder, JobError, JobId, Task};

/// rayon's own frames overflow the smallest stack the system grants.
const LEAST_STACK: usize = 128 << 10;

/// What a pool is to be like; made by [`Pool::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    threads: usize,
    name: String,
    stack_size: Option<usize>,
    background: bool,
    tables: Tables,
    /// Where workers with a working directory of their own begin.
    working_dir: Option<Arc<OwnedFd>>,
    /// For a pool that grows: behind which gate its workers work.
    gate: Option<Arc<Gate>>,
}

impl PoolBuilder {
    /// How many workers; 0, the default, is as many as the system says run in parallel
    /// ([`std::thread::available_parallelism`]).
    ///
    /// A worker that copies needs some six open files. They share what the process may have (getrlimit(2), `RLIMIT_NOFILE`,
    /// which a copy raises as far as it may): too many workers for that, or too many copies at a time, make errors of what they
    /// cannot open.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// What the workers' threads are called: `NAME-0`, `NAME-1` and so on; "poolcp" unless set. Linux shows the first 15
    /// bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The size of each worker's stack in bytes; the standard library's default unless set, and 128 KiB at least.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Whether the workers let the rest of the machine go first, as [`crate::background()`] does for a thread; false unless set.
    /// A worker that the system refuses that works on with the priority it has.
    ///
    /// ```
    /// use poolcp::Pool;
    ///
    /// let pool = Pool::builder().threads(2).background(true).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Which descriptor tables and working directories the workers use. Not public: workers with their own must run nothing
    /// but what knows of it.
    pub(crate) fn tables(mut self, tables: Tables) -> Self {
        self.tables = tables;
        if tables == Tables::PerWorker {
            // Workers that start late are to find what a relative path meant when the copy began.
            self.working_dir = sys::open_working_dir().ok().map(Arc::new);
        }
        self
    }

    /// Lets the pool grow to as many workers as the gate is for; [`PoolBuilder::threads`] are started at once, and more by
    /// [`Crew::grow`].
    pub(crate) fn gate(mut self, gate: Arc<Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread. The threads already started are joined before this returns.
    ///
    /// ```
    /// use poolcp::Pool;
    ///
    /// let too_much = usize::MAX / 4 * 3;
    /// let error = Pool::builder().threads(2).stack_size(too_much).build().unwrap_err();
    /// assert!(error.to_string().starts_with("cannot start worker thread poolcp-0 (1 of 2): "));
    /// assert!(std::error::Error::source(&error).is_some());
    /// ```
    pub fn build(self) -> Result<Pool, BuildError> {
        let threads = match self.threads {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            n => n.min(rayon::max_num_threads()),
        };
        let places = self.gate.as_ref().map_or(threads, |gate| gate.most());
        let mut crew = Members::default();
        let mut refusal = None;
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(places)
            // Jobs catch their own panics. This is for what a task gives to `rayon::spawn` itself: without a handler a
            // panic there aborts the process. The payload is leaked because dropping it may panic again.
            .panic_handler(mem::forget)
            .spawn_handler(|worker| {
                if worker.index() >= threads {
                    crew.reserve.push_back(worker);
                    return Ok(());
                }
                match self.start(worker) {
                    Ok(handle) => {
                        crew.threads.0.push(handle);
                        Ok(())
                    }
                    Err(cause) => {
                        let kind = cause.kind();
                        refusal = Some(cause);
                        Err(kind.into())
                    }
                }
            })
            .build();
        match built {
            Ok(rayon) => Ok(Pool {
                ledger: Arc::default(),
                rayon,
                crew: Arc::new(Crew {
                    settings: self,
                    members: Mutex::new(crew),
                }),
                workers: Workers::default(),
            }),
            // rayon has told the threads already started to end; `crew`, dropped here, joins them.
            Err(error) => {
                let (name, started) = (self.name, crew.threads.0.len());
                Err(BuildError {
                    thread: format!("{name}-{started} ({} of {threads})", started + 1),
                    cause: refusal.unwrap_or_else(|| io::Error::other(error)),
                })
            }
        }
    }

    fn start(&self, worker: rayon::ThreadBuilder) -> io::Result<JoinHandle<()>> {
        if self.name.contains('\0') {
            // The standard library would panic.
            let reason = "a thread's name cannot contain a NUL";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut thread = thread::Builder::new().name(format!("{}-{}", self.name, worker.index()));
        if let Some(bytes) = self.stack_size {
            thread = thread.stack_size(bytes.max(LEAST_STACK));
        }
        let tables = self.tables;
        let working_dir = self.working_dir.clone();
        let is_background = self.background;
        let gate = self.gate.clone();
        thread.spawn(move || {
            if is_background {
                // Refused, it is as fast as ever.
                let _ = background();
            }
            if tables == Tables::PerWorker {
                Tables::mark_own();
                // Refused (to this thread alone: see [`Tables::best`]), the worker goes on with what it shares.
                let _ = sys::unshare_thread(working_dir.as_ref().map(|dir| dir.as_fd()));
            }
            // The crew has another one, so that nothing is closed here.
            drop(working_dir);
            if let Some(gate) = gate {
                gate::attach(&gate, worker.index(), sys::thread_id());
            }
            worker.run();
        })
    }
}

/// The threads of a pool, and the places for more.
///
/// rayon hands out a builder for each place of a pool, and does not ask when it is run. Until then the place is one of
/// a worker that is never idle, as far as rayon knows: nobody tries to wake it, and its queue, which thieves look at in
/// passing, is empty.
#[derive(Debug)]
pub(crate) struct Crew {
    settings: PoolBuilder,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    threads: Workers,
    /// What goes with the pool and is no worker.
    others: Workers,
    reserve: VecDeque<rayon::ThreadBuilder>,
}

impl Crew {
    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    /// How many workers have been started.
    pub(crate) fn started(&self) -> usize {
        self.members().threads.0.len()
    }

    /// Starts workers until there are `threads`, or all that the pool has places for. False if the system refuses one.
    pub(crate) fn grow(&self, threads: usize) -> bool {
        let mut members = self.members();
        while members.threads.0.len() < threads
            && let Some(worker) = members.reserve.pop_front()
        {
            match self.settings.start(worker) {
                Ok(handle) => members.threads.0.push(handle),
                // The place is lost with its builder, which does not matter: its turn would have come first again.
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes the threads, to be joined, and gives up the places for more.
    fn disband(&self) -> Workers {
        let Members {
            mut threads,
            mut others,
            ..
        } = mem::take(&mut *self.members());
        threads.0.append(&mut others.0);
        threads
    }
}

/// Workers that several jobs share; see the [module](self) for its life and for who may wait for whom.
///
/// Inside a task, rayon's `par_iter`, `join` and `scope` run on the same workers:
///
/// ```
/// use poolcp::Pool;
/// use rayon::prelude::*;
///
/// let pool = Pool::builder().threads(4).name("sums").build()?;
/// let job = pool.apply_async(|| (1..=1000_u64).into_par_iter().map(|n| n * n).sum::<u64>())?;
/// assert_eq!(job.join()?, 333_833_500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    ledger: Arc<Monitor<Ledger>>,
    // Fields are dropped in this order: rayon tells its workers to end, then they are joined, and what they had with the crew
    // goes on this thread.
    rayon: rayon::ThreadPool,
    /// Empty until the pool goes.
    workers: Workers,
    crew: Arc<Crew>,
}

impl Pool {
    /// A pool's settings, to be changed and then built.
    ///
    /// ```
    /// use poolcp::Pool;
    ///
    /// let pool = Pool::builder().threads(3).name("copy").stack_size(1 << 20).build()?;
    /// assert_eq!(pool.threads(), 3);
    /// let worker = pool.apply_async(|| std::thread::current().name().map(String::from))?;
    /// assert!(worker.join()?.unwrap().starts_with("copy-"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            threads: 0,
            name: "poolcp".to_string(),
            stack_size: None,
            background: false,
            tables: Tables::Shared,
            working_dir: None,
            gate: None,
        }
    }

    /// What it knows of its jobs.
    pub(crate) fn ledger(&self) -> &Arc<Monitor<Ledger>> {
        &self.ledger
    }

    /// Its threads, as rayon has them.
    pub(crate) fn rayon(&self) -> &rayon::ThreadPool {
        &self.rayon
    }

    /// The pool's threads.
    pub(crate) fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// A thread that ends by itself when the pool's jobs have ended, and is to be gone when the pool is.
    pub(crate) fn adopt(&self, thread: JoinHandle<()>) {
        self.crew.members().others.0.push(thread);
    }

    /// How many workers there are; at most, in a pool that grows.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.rayon.current_num_threads()
    }

    /// Hands a task to the pool and returns at once. Jobs handed in by one thread begin in that order.
    ///
    /// # Errors
    ///
    /// When the pool has been closed; the task is dropped.
    pub fn apply_async<K: Task>(&self, task: K) -> Result<Job<K::Output>, Closed> {
        self.job().apply_async(task)
    }

    /// A job that is given a name or made a daemon before it starts.
    ///
    /// ```
    /// use poolcp::Pool;
    ///
    /// let pool = Pool::builder().threads(1).build()?;
    /// let job = pool.job().name("nightly").daemon(true).apply_async(|| 7)?;
    /// assert_eq!(job.name(), "nightly");
    /// assert!(job.is_daemon());
    /// assert_eq!(job.join()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn job(&self) -> JobBuilder<'_> {
        JobBuilder::new(self)
    }

    /// Takes no more jobs from now on; those it has are run. Closing twice is closing once.
    pub fn close(&self) {
        self.ledger.update(|ledger| ledger.closed = true);
    }

    /// Closes the pool, waits for all jobs but the daemons, then for the workers' threads to be gone.
    ///
    /// While a daemon is alive the workers are left to end by themselves. Otherwise this also waits for what tasks gave
    /// to `rayon::spawn`. Dropping the pool does the same.
    ///
    /// ```
    /// use poolcp::Pool;
    /// use std::sync::mpsc;
    ///
    /// let pool = Pool::builder().threads(2).build()?;
    /// let (stop, stopped) = mpsc::channel::<()>();
    /// let clock = pool.job().daemon(true).apply_async(move || stopped.recv().is_err())?;
    /// let copy = pool.apply_async(|| "copied")?;
    /// pool.join();
    /// assert!(!copy.is_alive());
    /// assert!(clock.is_alive());
    /// drop(stop);
    /// assert!(clock.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) {
        drop(self);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
        // On a worker of this pool, waiting would be for the very job that waits.
        let own_worker = self.rayon.current_thread_index().is_some();
        let is_left = own_worker || self.ledger.wait(None, |ledger| ledger.jobs == 0).daemons > 0;
        self.workers = self.crew.disband();
        if is_left {
            // Without its handle a thread is left to itself.
            self.workers.0.clear();
        }
    }
}

/// The workers' threads; dropping it joins those still in it.
#[derive(Debug, Default)]
struct Workers(Vec<JoinHandle<()>>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in self.0.drain(..) {
            // An error would be a worker's panic, and no panic leaves rayon's main loop.
            let _ = worker.join();
        }
    }
}

/// The system refused a worker's thread; its reason is in the text and is the error's source.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildError {
    thread: String,
    cause: io::Error,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, cause } = self;
        let cause = without_number(cause);
        write!(f, "cannot start worker thread {thread}: {cause}")
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};
    use std::time::{Duration, Instant};

    fn pool(threads: usize, name: &str) -> Pool {
        Pool::builder().threads(threads).name(name).build().unwrap()
    }

    fn start<K: Task>(pool: &Pool, task: K) -> Job<K::Output> {
        pool.apply_async(task).unwrap()
    }

    /// How many threads of this process are called `NAME-…`.
    fn alive(name: &str) -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names
            .filter(|comm| comm.starts_with(&format!("{name}-")))
            .count()
    }

    /// The kernel wakes a thread's joiner a moment before it takes the thread off /proc, hence the patience.
    fn assert_gone(name: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while alive(name) > 0 {
            assert!(Instant::now() < end, "workers {name}-… are still there");
            thread::yield_now();
        }
    }

    /// Runs one job on each worker at the same time and returns their threads' names.
    fn worker_names(pool: &Pool) -> BTreeSet<String> {
        let meet = Arc::new(Barrier::new(pool.threads()));
        let jobs = Vec::from_iter((0..pool.threads()).map(|_| {
            let meet = Arc::clone(&meet);
            let task = move || {
                meet.wait();
                thread::current().name().unwrap().to_string()
            };
            start(pool, task)
        }));
        jobs.into_iter().map(|job| job.join().unwrap()).collect()
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn workers_are_named_and_numbered() {
        let names = worker_names(&pool(4, "named"));
        assert_eq!(
            Vec::from_iter(names),
            ["named-0", "named-1", "named-2", "named-3"]
        );
    }

    #[test]
    fn closed_pool_refuses_but_runs_what_it_has() {
        let pool = pool(1, "closed");
        let (open, gate) = mpsc::channel::<()>();
        let job = start(&pool, move || gate.recv().is_err());
        pool.close();
        pool.close();
        assert_eq!(pool.apply_async(|| ()).unwrap_err(), Closed);
        assert!(job.is_alive());
        drop(open);
        assert!(job.join().unwrap());
    }

    #[test]
    fn join_and_drop_wait_for_all_jobs_detached_ones_too() {
        for end in [Pool::join, drop] {
            let pool = pool(2, "waits");
            let done = Arc::new(AtomicUsize::new(0));
            for _ in 0..100 {
                let done = Arc::clone(&done);
                drop(pool.apply_async(move || done.fetch_add(1, Ordering::SeqCst)));
            }
            end(pool);
            assert_eq!(done.load(Ordering::SeqCst), 100);
        }
    }

    #[test]
    fn workers_are_gone_after_join() {
        let pool = pool(3, "gone");
        worker_names(&pool);
        assert_eq!(alive("gone"), 3);
        pool.join();
        assert_gone("gone");
    }

    #[test]
    fn daemon_is_not_waited_for_and_workers_end_after_it() {
        let pool = pool(2, "daemon");
        let (stop, stopped) = mpsc::channel::<()>();
        let task = move || stopped.recv().is_err();
        let daemon = pool.job().daemon(true).apply_async(task).unwrap();
        let job = start(&pool, || 1);
        pool.join();
        assert!(daemon.is_daemon() && daemon.is_alive());
        assert!(!job.is_daemon() && !job.is_alive());
        drop(stop);
        assert!(daemon.join().unwrap());
        assert_gone("daemon");
    }

    #[test]
    fn panic_message_reaches_the_joiner_and_the_pool_lives_on() {
        let pool = pool(1, "panics");
        let message = |job: Job<()>| match job.join().unwrap_err() {
            JobError::Panicked { message } => message,
        };
        let number = 7;
        let plain = start(&pool, || panic!("plain"));
        assert_eq!(message(plain), "plain");
        let formatted = start(&pool, move || panic!("no. {number}"));
        assert_eq!(message(formatted), "no. 7");
        let odd = start(&pool, || std::panic::panic_any(PanicsOnDrop));
        assert_eq!(message(odd), "a panic without a message");
        assert_eq!(start(&pool, || 1).join(), Ok(1));
    }

    #[test]
    fn panics_in_drop_and_in_rayon_spawn_leave_the_pool_alive() {
        let pool = pool(1, "drops");
        let held = PanicsOnDrop;
        assert!(start(&pool, move || drop(held)).join().is_err());
        let (open, gate) = mpsc::channel::<()>();
        let task = move || gate.recv().map_err(|_| PanicsOnDrop);
        drop(start(&pool, task));
        drop(open);
        let spawner = start(&pool, || rayon::spawn(|| panic!("in a spawn")));
        assert_eq!(spawner.join(), Ok(()));
        assert_eq!(start(&pool, || 1).join(), Ok(1));
        pool.join();
    }

    #[test]
    fn several_jobs_share_a_pool() {
        let pool = pool(2, "shared");
        let (ping, pinged) = mpsc::channel();
        let (pong, ponged) = mpsc::channel();
        let first = start(&pool, move || ping.send(1).map(|()| ponged.recv()));
        let second = start(&pool, move || pinged.recv().map(|n| pong.send(n + 1)));
        assert_eq!(first.join().unwrap(), Ok(Ok(2)));
        assert_eq!(second.join().unwrap(), Ok(Ok(())));
    }

    #[test]
    fn jobs_have_unique_ids_and_names_from_them() {
        let pool = pool(1, "ids");
        let first = start(&pool, || ());
        let second = start(&pool, || ());
        assert!(first.id() < second.id());
        assert_eq!(first.name(), format!("job-{}", first.id()));
    }

    #[test]
    fn join_timeout_tells_running_from_ended() {
        let pool = pool(1, "timeout");
        let (open, gate) = mpsc::channel::<()>();
        let job = start(&pool, move || gate.recv().is_err());
        assert!(!job.join_timeout(Duration::from_millis(1)));
        drop(open);
        assert!(job.join_timeout(Duration::MAX));
        assert!(job.join().unwrap());
    }

    #[test]
    fn job_joined_from_the_only_worker_does_not_deadlock() {
        let pool = Arc::new(pool(1, "nested"));
        let inner_pool = Arc::clone(&pool);
        let outer = start(&pool, move || {
            let first = start(&inner_pool, || 20);
            let second = start(&inner_pool, || 22);
            while !second.join_timeout(Duration::ZERO) {}
            first.join().unwrap() + second.join().unwrap()
        });
        assert_eq!(outer.join(), Ok(42));
    }

    #[test]
    fn pool_dropped_by_its_own_worker_does_not_wait_for_itself() {
        let pool = Arc::new(pool(1, "itself"));
        let own = Arc::clone(&pool);
        let (open, gate) = mpsc::channel::<()>();
        let task = move || gate.recv().is_err() && Arc::into_inner(own).is_some();
        let job = start(&pool, task);
        let later = start(&pool, || 1);
        drop(pool);
        drop(open);
        assert!(job.join().unwrap());
        assert_eq!(later.join(), Ok(1));
        assert_gone("itself");
    }

    #[test]
    fn a_pool_grows_to_its_places_and_all_its_threads_go_with_it() {
        let gate = Arc::new(Gate::new(6, 6));
        let builder = Pool::builder().threads(1).name("grows");
        let pool = builder.gate(gate).build().unwrap();
        assert_eq!(pool.crew().started(), 1);
        // Nobody but the second worker can end the first one's wait.
        let (send, receive) = mpsc::channel();
        let first = start(&pool, move || receive.recv());
        let second = start(&pool, move || send.send(7));
        assert!(!second.join_timeout(Duration::from_millis(20)));
        assert!(pool.crew().grow(2));
        assert_eq!(first.join().unwrap(), Ok(7));
        assert_eq!(second.join().unwrap(), Ok(()));
        assert!(pool.crew().grow(100));
        assert_eq!(pool.crew().started(), 6);
        let all = start(&pool, || {
            // One for each: they meet.
            let barrier = Barrier::new(6);
            rayon::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|_| {
                        barrier.wait();
                    });
                }
            });
        });
        all.join().unwrap();
        let crew = Arc::clone(pool.crew());
        pool.join();
        assert_gone("grows");
        assert!(crew.grow(7));
        assert_eq!(crew.started(), 0, "a pool that is gone starts nobody");
    }

    #[test]
    fn zero_threads_lets_the_system_decide_and_a_nul_in_the_name_is_an_error() {
        let system = thread::available_parallelism().unwrap().get();
        assert_eq!(pool(0, "zero").threads(), system);
        let error = Pool::builder().name("a\0b").build().unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn refused_thread_is_a_build_error_and_those_started_are_gone() {
        // Run again in a process with 7.5 GB of address space: enough for some of these stacks, but not for all.
        // A limit on threads would do nothing for root.
        if std::env::var_os("POOL_TEST_LIMITED").is_some() {
            let builder = Pool::builder()
                .threads(20)
                .name("refused")
                .stack_size(1_000_000_000);
            let error = builder.build().unwrap_err();
            assert!(error.thread.starts_with("refused-"), "{error}");
            assert!(!error.thread.starts_with("refused-0 "), "{error}");
            assert!(error.cause.raw_os_error().is_some());
            assert_gone("refused");
            return;
        }
        let name = "refused_thread_is_a_build_error_and_those_started_are_gone";
        let limited = Command::new("sh")
            .args(["-c", "ulimit -v 7500000 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(format!(
                "{}::{name}",
                module_path!().split_once("::").unwrap().1
            ))
            .env("POOL_TEST_LIMITED", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&limited.stdout);
        assert!(
            limited.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
