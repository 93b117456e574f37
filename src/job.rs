//! What a pool runs, and what can be asked of it while it runs: whether it is alive, how far it is, to stop, and for its result.
//! The pool itself is in `pool.rs`.

use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cancel::Canceller;
use crate::live::Progress;
use crate::monitor::Monitor;
use crate::pool::Pool;

/// Something a pool can run: any closure `FnOnce() -> T`, or a type of one's own.
///
/// ```
/// use poolcp::{Pool, Task};
///
/// struct Repeat {
///     word: &'static str,
///     times: usize,
/// }
///
/// impl Task for Repeat {
///     type Output = String;
///
///     fn run(self) -> String {
///         self.word.repeat(self.times)
///     }
/// }
///
/// let pool = Pool::builder().threads(1).build()?;
/// let job = pool.apply_async(Repeat { word: "ab", times: 2 })?;
/// assert_eq!(job.join()?, "abab");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Task: Send + 'static {
    /// What the task returns to its joiner.
    type Output: Send + 'static;

    /// Does the work, on a worker of the pool.
    ///
    /// It may panic: see [`JobError::Panicked`]. A field whose `drop` panics while that panic is under way aborts the
    /// process, as it does everywhere in Rust.
    fn run(self) -> Self::Output;

    /// What can be done about the task from outside while it is alive: by [`Job::cancel`] and [`Job::progress`]. Nothing,
    /// unless the task says otherwise.
    ///
    /// ```
    /// use poolcp::{Canceller, Controls, Pool, Task};
    ///
    /// #[derive(Default)]
    /// struct CountForEver(Canceller);
    ///
    /// impl Task for CountForEver {
    ///     type Output = u64;
    ///
    ///     fn run(self) -> u64 {
    ///         (0..).take_while(|_| !self.0.is_cancelled()).count() as u64
    ///     }
    ///
    ///     fn controls(&self) -> Controls {
    ///         Controls::default().canceller(self.0.clone())
    ///     }
    /// }
    ///
    /// let pool = Pool::builder().threads(1).build()?;
    /// let job = pool.apply_async(CountForEver::default())?;
    /// assert!(job.cancel());
    /// println!("stopped at {}", job.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn controls(&self) -> Controls {
        Controls::default()
    }
}

/// What can be done about a task while it is alive; see [`Task::controls`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Controls {
    canceller: Option<Canceller>,
    progress: Option<Progress>,
}

impl Controls {
    /// The task looks at `canceller`, and ends soon when it is told to.
    pub fn canceller(mut self, canceller: Canceller) -> Self {
        self.canceller = Some(canceller);
        self
    }

    /// The task is a copy, and this is a view on it.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl<F, T> Task for F
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn run(self) -> T {
        self()
    }
}

/// What a pool knows of its jobs.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub closed: bool,
    /// Waiting or running, daemons apart.
    pub jobs: usize,
    pub daemons: usize,
}

impl Ledger {
    fn count(&mut self, daemon: bool) -> &mut usize {
        if daemon {
            &mut self.daemons
        } else {
            &mut self.jobs
        }
    }
}

/// A job before its start; made by [`Pool::job`].
#[derive(Debug)]
#[must_use = "a job starts with `apply_async`"]
pub struct JobBuilder<'pool> {
    pool: &'pool Pool,
    name: Option<String>,
    daemon: bool,
}

impl<'pool> JobBuilder<'pool> {
    pub(crate) fn new(pool: &'pool Pool) -> Self {
        Self {
            pool,
            name: None,
            daemon: false,
        }
    }

    /// What the job is called; `job-ID` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the pool goes without waiting for the job.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Hands the task to the pool, as [`Pool::apply_async`].
    ///
    /// # Errors
    ///
    /// When the pool has been closed; the task is dropped.
    pub fn apply_async<K: Task>(self, task: K) -> Result<Job<K::Output>, Closed> {
        let daemon = self.daemon;
        // Before the job counts: this is somebody else's code, and may panic.
        let controls = task.controls();
        let ledger = Arc::clone(self.pool.ledger());
        ledger.update(|ledger| {
            if ledger.closed {
                return Err(Closed);
            }
            *ledger.count(daemon) += 1;
            Ok(())
        })?;
        let id = JobId::next();
        let outcome = Arc::new(Monitor::default());
        let job = Job {
            id,
            name: self.name.unwrap_or_else(|| format!("job-{id}")),
            daemon,
            controls,
            outcome: Arc::clone(&outcome),
        };
        self.pool.rayon().spawn_fifo(move || {
            let result =
                catch_unwind(AssertUnwindSafe(|| task.run())).map_err(JobError::from_panic);
            // A daemon is struck off before its end shows: who has joined it and then joins the pool finds no daemon and
            // gets the workers joined.
            if daemon {
                ledger.update(|ledger| *ledger.count(daemon) -= 1);
            }
            outcome.update(|outcome| *outcome = Some(result));
            // The last owner drops the result, and a result's own `drop` may panic.
            contain(|| drop(outcome));
            // Any other job is struck off after: who has joined the pool finds it ended.
            if !daemon {
                ledger.update(|ledger| *ledger.count(daemon) -= 1);
            }
        });
        Ok(job)
    }
}

/// A task in a pool, and the way to its result. Dropping it detaches the task, which still runs and which the pool still
/// waits for; its result is dropped.
pub struct Job<T> {
    id: JobId,
    name: String,
    daemon: bool,
    controls: Controls,
    outcome: Arc<Monitor<Option<Result<T, JobError>>>>,
}

impl<T> Job<T> {
    /// Its number, unique in the process.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Its name; `job-ID` unless it was given one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is waiting or running.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.outcome.lock().is_none()
    }

    /// Whether the pool goes without waiting for it.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// Tells the task to stop, and returns at once. False if it cannot be told: only a task that has a [`Canceller`], as a
    /// [`crate::Plan`] has, looks up from its work. One that has not begun yet ends as soon as it begins.
    ///
    /// A copy that is cancelled takes up nothing new and removes what it has not completed; its report says that it was.
    ///
    /// ```
    /// use poolcp::{Options, Plan, Pool, Target};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (source, target) = (dir.path().join("photos"), dir.path().join("backup"));
    /// # std::fs::create_dir(&source)?;
    /// # std::fs::write(source.join("cat.jpg"), "meow")?;
    /// let pool = Pool::builder().threads(2).build()?;
    /// let plan = Plan::resolve([source], Target::Path(target), Options::archive())?;
    /// let copy = pool.apply_async(plan)?;
    /// assert!(copy.cancel());
    /// let report = copy.join()?;
    /// assert!(report.cancelled && !report.is_success());
    ///
    /// let sum = pool.apply_async(|| (1..=10).sum::<u32>())?;
    /// assert!(!sum.cancel(), "nobody asks a closure to stop");
    /// assert_eq!(sum.join()?, 55);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        let canceller = self.controls.canceller.as_ref();
        canceller.inspect(|canceller| canceller.cancel()).is_some()
    }

    /// A view on the copy that the task is, which outlives the job. `None` if it is something else.
    ///
    /// ```
    /// use poolcp::{Options, Plan, Pool, Target};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (source, target) = (dir.path().join("photos"), dir.path().join("backup"));
    /// # std::fs::create_dir(&source)?;
    /// # std::fs::write(source.join("cat.jpg"), "meow")?;
    /// let plan = Plan::resolve([source], Target::Path(target), Options::archive())?;
    /// let (pool, copy) = plan.start(0)?;
    /// let progress = copy.progress().expect("it is a copy");
    /// while !copy.join_timeout(Duration::from_millis(100)) {
    ///     let now = progress.snapshot();
    ///     println!("{} of {} entries, {:?}", now.done, now.found, now.stats);
    ///     for file in &now.large {
    ///         println!("{}: {} of {} bytes", file.source.display(), file.moved, file.size);
    ///     }
    /// }
    /// let report = copy.join()?;
    /// let end = progress.snapshot();
    /// assert_eq!(end.stats, report.stats);
    /// assert!(end.is_found && end.done == 2 && end.found == 2);
    /// # pool.join();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.controls.progress.clone()
    }

    /// Waits for the job to end and takes its result.
    ///
    /// # Errors
    ///
    /// When the task panicked. The pool lives on.
    ///
    /// ```
    /// use poolcp::{JobError, Pool};
    ///
    /// let pool = Pool::builder().threads(1).build()?;
    /// let broken = pool.apply_async(|| -> u32 { panic!("no such luck") })?;
    /// match broken.join() {
    ///     Err(JobError::Panicked { message }) => assert_eq!(message, "no such luck"),
    ///     other => unreachable!("{other:?}"),
    /// }
    /// assert_eq!(pool.apply_async(|| 1)?.join()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) -> Result<T, JobError> {
        let outcome = self.outcome.wait(None, Option::is_some).take();
        // `wait` without a deadline returns only once there is an outcome, and `join` alone takes it, consuming the job.
        outcome.expect("a job that has ended has an outcome")
    }

    /// Waits for the job to end, at most so long; true once it has ended. On a rayon worker it can take longer, by the
    /// work that worker takes up meanwhile.
    ///
    /// ```
    /// use poolcp::Pool;
    /// use std::time::Duration;
    ///
    /// let pool = Pool::builder().threads(1).build()?;
    /// let job = pool.apply_async(|| std::thread::sleep(Duration::from_millis(30)))?;
    /// let mut ticks = 0;
    /// while !job.join_timeout(Duration::from_millis(10)) {
    ///     ticks += 1; // draw the progress bar
    /// }
    /// job.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        // A timeout beyond what the clock can count is none.
        let deadline = Instant::now().checked_add(timeout);
        self.outcome.wait(deadline, Option::is_some).is_some()
    }

    /// The same, but the thread does nothing else meanwhile, even if it is a worker of a pool: of another one than the job's, or
    /// it would wait in vain.
    pub(crate) fn ends_within(&self, timeout: Duration) -> bool {
        self.outcome.sleep(timeout, Option::is_some)
    }
}

// Not derived: a job can be shown whatever its result is.
impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("daemon", &self.daemon)
            .field("alive", &self.is_alive())
            .finish()
    }
}

/// A job's number, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only the number has to be unique, nothing else is published with it.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pool has been closed and takes no more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool is closed")
    }
}

impl std::error::Error for Closed {}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError {
    /// The task panicked.
    Panicked {
        /// What it said, or a fixed text when its payload is not a string.
        message: String,
    },
}

impl JobError {
    fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_string()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "a panic without a message".to_string()
        };
        contain(|| drop(payload));
        Self::Panicked { message }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { message } => write!(f, "the task panicked: {message}"),
        }
    }
}

impl std::error::Error for JobError {}

/// Runs what may panic only in somebody's `drop`, and ends the panic here.
fn contain(action: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(action)) {
        // Leaked, because dropping it may panic in turn, without end.
        mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Uncontrolled;

    impl Task for Uncontrolled {
        type Output = ();

        fn run(self) {}

        fn controls(&self) -> Controls {
            panic!("no controls");
        }
    }

    #[test]
    fn a_pool_does_not_wait_for_a_task_that_never_became_a_job() {
        let pool = Pool::builder().threads(1).build().unwrap();
        let handed = catch_unwind(AssertUnwindSafe(|| pool.apply_async(Uncontrolled)));
        assert!(handed.is_err());
        pool.close();
        pool.join();
    }
}
