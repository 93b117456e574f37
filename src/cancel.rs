//! Stopping a copy before its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops a copy before its end, from any thread or from a signal handler.
///
/// The workers take up nothing new then, remove the files that they have not completed, give the directories that they have
/// made their attributes, and the copy ends with a [`crate::Report`] that says so. A worker in a system call that waits for somebody
/// else (whoever opens or writes to a FIFO, a dead server) is waited for.
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
