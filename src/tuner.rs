//! Finds the number of workers of a copy while it runs: looks at the workers, asks the [`Controller`], and does what it
//! says.
//!
//! This is a thread of its own, which sleeps nearly all the time: the thread that waits for the copy may be anybody's,
//! and a worker may be blocked for seconds. Every few milliseconds it adds up
//!
//! - what has been done, from the copy's counters;
//! - the time that the workers were at work, from the [`Gate`];
//! - the time that they ran and the time that they were queued for a processor, from `/proc/self/task/*/schedstat` (the
//!   rest of the time at work they were blocked). Where there is no /proc, or the kernel does not say, nothing is
//!   tried: as many work as there are processors.
//!
//! Then the gate holds workers back, or lets them go on, and the [`Crew`] starts threads that were never needed before.
//! It also keeps the [`Busy`] series for the report.
//!
//! # What it costs
//!
//! Starting the thread, by the thread that starts the copy, if that is not over at once; then some 5 µs for each worker
//! each time that it looks. With many workers it looks less often, so that this stays below a hundredth of
//! one processor. Whoever ends the copy wakes it, and it ends at once, or after the look at the workers that it is at.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::busy::Busy;
use crate::controller::{Controller, Observation};
use crate::counters::{Counters, Stats};
use crate::gate::Gate;
use crate::lock::lock;
use crate::pool::Crew;
use crate::sys;

/// While there are more workers than may work, how often they are given what the others do not use any more: short against
/// what anybody notices at the end of a copy, long against the 5 µs that it takes.
const SWEEP: Duration = Duration::from_millis(1);

/// Looking at the workers may take this part of the time of one processor, unless that made it rarer than [`RAREST`].
const SHARE: u32 = 100;

/// Whatever it costs, often enough to follow what happens.
const RAREST: Duration = Duration::from_millis(50);

/// A file and this many bytes are about the same work: 64 KiB are copied in some 20 µs from and to memory, where a
/// small file takes 10 to 20, and read in some 200 µs from a disk that has found a small one in 100 to 300.
const BYTES_PER_ENTRY: u64 = 64 << 10;

/// The tuner of one copy.
#[derive(Debug)]
pub(crate) struct Tuner {
    crew: Arc<Crew>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    started: Instant,
    cores: usize,
    is_over: Mutex<bool>,
    ended: Condvar,
    seen: Mutex<Seen>,
}

/// What has been seen.
#[derive(Debug)]
struct Seen {
    busy: Busy,
    last: Sums,
}

/// Sums since the beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    at: Duration,
    worked: Duration,
    ran: Duration,
    queued: Duration,
    work: u64,
}

impl Tuner {
    pub(crate) fn new(
        crew: Arc<Crew>,
        gate: Arc<Gate>,
        counters: Arc<Counters>,
        cores: usize,
    ) -> Self {
        Self {
            crew,
            gate,
            counters,
            started: Instant::now(),
            cores,
            is_over: Mutex::default(),
            ended: Condvar::new(),
            seen: Mutex::new(Seen {
                busy: Busy::default(),
                last: Sums::default(),
            }),
        }
    }

    /// Starts the tuner's thread.
    ///
    /// # Errors
    ///
    /// The system refuses it. The copy then goes on with the workers that it has.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let tuner = Arc::clone(self);
        let thread = thread::Builder::new().name("poolcp-tuner".to_owned());
        thread.spawn(move || {
            // Whatever ends this thread: without it nobody may be held back.
            let _open = Open(&tuner.gate);
            tuner.run();
        })
    }

    /// The copy is over: ends the thread, and says how many workers were busy.
    pub(crate) fn stop(&self) -> Busy {
        *lock(&self.is_over) = true;
        self.ended.notify_all();
        let now = self.started.elapsed();
        let worked = self.gate.worked();
        let mut seen = lock(&self.seen);
        let last = seen.last;
        let busy = mean(
            worked.saturating_sub(last.worked),
            now.saturating_sub(last.at),
        );
        // The end of a copy is not typical of it; it counts only where there is little else.
        if now.saturating_sub(last.at) >= Duration::from_millis(5) || seen.busy.is_empty() {
            seen.busy.push(now, busy);
        }
        seen.busy.clone()
    }

    fn run(&self) {
        let most = self.gate.most();
        let mut controller = Controller::new(self.cores, most);
        let mut next = Duration::from_millis(10);
        let mut is_crowded = false;
        while !self.sleep(next, is_crowded) {
            let began = Instant::now();
            let Some(seen) = self.observe() else {
                // Without a look at the workers there is nothing to go by.
                continue;
            };
            let cost = began.elapsed() * SHARE;
            let decision = controller.decide(&seen);
            self.gate.set_limit(decision.limit);
            if let Some(useful) = decision.useful {
                self.gate.set_useful(useful);
            }
            if !self.crew.grow(decision.limit) {
                controller.set_most(self.crew.started());
            }
            is_crowded = self.crew.started() > decision.limit;
            next = decision.next.max(cost.min(RAREST));
        }
    }

    /// Sleeps; true if the copy is over. Where there are more workers than may work, one can come to wait at any time.
    fn sleep(&self, duration: Duration, is_crowded: bool) -> bool {
        let end = Instant::now() + duration;
        let mut is_over = lock(&self.is_over);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if *is_over || left.is_zero() {
                return *is_over;
            }
            let pause = if is_crowded { left.min(SWEEP) } else { left };
            let woken = self.ended.wait_timeout(is_over, pause);
            is_over = woken.unwrap_or_else(PoisonError::into_inner).0;
            // The gate's lock is held for a moment only, and nobody who has it wants this one.
            self.gate.sweep();
        }
    }

    /// What has been going on since the last time; `None` if the system does not say.
    fn observe(&self) -> Option<Observation> {
        let (mut ran, mut queued) = (Duration::ZERO, Duration::ZERO);
        let mut is_known = true;
        let worked = self.gate.worked();
        for thread in self.gate.threads() {
            match sys::scheduling(thread) {
                Some(scheduling) => {
                    ran += scheduling.ran;
                    queued += scheduling.queued;
                }
                None => is_known = false,
            }
        }
        // A kernel that does not keep these times says 0 of all.
        is_known &= !ran.is_zero() || worked.is_zero();
        let now = Sums {
            at: self.started.elapsed(),
            worked,
            ran,
            queued,
            work: work(&self.counters.sum()),
        };
        let mut seen = lock(&self.seen);
        let last = std::mem::replace(&mut seen.last, now);
        let interval = now.at.saturating_sub(last.at);
        let busy = mean(now.worked.saturating_sub(last.worked), interval);
        seen.busy.push(now.at, busy);
        self.counters.set_busy(busy);
        is_known.then(|| Observation {
            interval,
            may_seek: self.gate.is_seeking(),
            busy,
            running: mean(now.ran.saturating_sub(last.ran), interval),
            queued: mean(now.queued.saturating_sub(last.queued), interval),
            #[allow(clippy::cast_precision_loss)]
            work: (now.work - last.work) as f64 / BYTES_PER_ENTRY as f64,
        })
    }
}

/// Lets all workers go when it goes.
struct Open<'a>(&'a Gate);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.set_limit(usize::MAX);
    }
}

/// Work in bytes: an entry counts as [`BYTES_PER_ENTRY`].
fn work(stats: &Stats) -> u64 {
    let entries = stats.files
        + stats.directories
        + stats.symlinks
        + stats.hard_links
        + stats.specials
        + stats.skipped
        + stats.errors;
    (entries * BYTES_PER_ENTRY).saturating_add(stats.bytes_moved())
}

/// How many there were at a time, on average.
fn mean(sum: Duration, interval: Duration) -> f64 {
    sum.as_secs_f64() / interval.as_secs_f64().max(1e-6)
}
