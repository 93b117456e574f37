//! A state that several threads share, and the sleep until it changes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How long a waiting worker that found no other work sleeps before it looks again. The end of what it waits for wakes it
/// at once; only new work, which rayon announces to idle workers alone, has to be looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A value under a lock, and the sleep until it changes.
#[derive(Debug, Default)]
pub(crate) struct Monitor<S> {
    state: Mutex<S>,
    changed: Condvar,
}

impl<S> Monitor<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }

    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits at most so long, and says whether the state is as wanted. A rayon worker is not lent.
    pub(crate) fn sleep(&self, timeout: Duration, wanted: impl Fn(&S) -> bool) -> bool {
        let slept = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !wanted(state));
        wanted(&slept.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until the state is as wanted or the deadline has passed, whichever is first.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        wanted: impl Fn(&S) -> bool,
    ) -> MutexGuard<'_, S> {
        let mut state = self.lock();
        while !wanted(&state) {
            // On a rayon worker, what is waited for may itself be waiting for a worker: lend this one, unlocked.
            drop(state);
            let lent = rayon::yield_now();
            state = self.lock();
            if wanted(&state) {
                break;
            }
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            let pause = match lent {
                Some(rayon::Yield::Executed) => continue,
                Some(rayon::Yield::Idle) => {
                    Some(left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN)))
                }
                // Not a rayon worker.
                None => left,
            };
            state = match pause {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(pause) => {
                    let woken = self.changed.wait_timeout(state, pause);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state
    }
}
