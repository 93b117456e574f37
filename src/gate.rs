//! How many of a pool's workers work at a time: each needs a permit to do so, and the number of permits can change.
//!
//! A rayon pool cannot change its size. So a pool whose size is found while it runs (`tuner.rs`) has more places for
//! workers than will be needed, starts threads as they are wanted, and holds some of them back when fewer do better.
//! They are held back here, at the leaves of the work: a file, a part of one, the listing of a directory. A worker
//! outside of any leaf is in rayon, asleep or looking for work, and needs no permit.
//!
//! # Who may wait for whom
//!
//! A worker that is held back has work in hand: a part of a `par_iter`, say, which somebody waits for. Nothing is lost by
//! that as long as its turn comes, and it does, because permits pass on:
//! 1. A permit belongs to a worker until somebody else needs it: [`work`] and [`step`] keep it, so that a worker goes
//!    from file to file without asking anybody. When a worker leaves a leaf its permit is *idle*, and may be taken
//!    away.
//! 2. A worker without a permit takes a free one, or an idle one, or waits in a queue, asleep. [`Gate::sweep`], which
//!    the tuner calls every millisecond while there are more workers than may work, gives the queue what has become idle
//!    since. So when those who may work run out of other work, those who wait are next; nobody has to know that somebody
//!    has run out.
//! 3. When there are more permits out than there may be, idle ones are taken first, and workers give up others at their
//!    next [`step`].
//!
//! A worker waits here only before a leaf or between two, with no lock held, and a leaf waits for no rayon task: where
//! a leaf has to (chunks of its file that others have stolen), [`rest`] takes it out of the leaf meanwhile.
//!
//! # What it costs
//!
//! Between two files, one relaxed load of a flag that changes hardly more often than the number of permits, and so stays in
//! all cores' caches. At the beginning and at the end of a batch, one uncontended atomic operation on the worker's own
//! cache lines and one look at the clock (in the vDSO), for the time at work that the tuner wants to know: some 60 ns
//! for each directory or part of one that a worker takes. Where the number of workers is fixed there is no gate, and all this is a
//! look at a thread-local that is empty.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The permits of one pool.
#[derive(Debug)]
pub(crate) struct Gate {
    signs: Signs,
    posts: Box<[Post]>,
    permits: Mutex<Permits>,
    epoch: Instant,
}

/// What all workers read, at every step or in every directory, and one thing that they say: on cache lines of its own, next to
/// nothing that changes often.
#[derive(Debug)]
#[repr(align(128))]
struct Signs {
    /// More permits are out than there may be.
    over: AtomicBool,
    /// How many workers could be of use, as far as is known.
    useful: AtomicUsize,
    /// What is read is on a disk that may have to seek.
    seeking: AtomicBool,
}

/// A worker's own state, on its own cache lines: only when it is idle does anybody else write it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Post {
    state: AtomicU8,
    /// When the present leaf was entered, in nanoseconds since the gate's epoch.
    since: AtomicU64,
    /// The time in all leaves before, in nanoseconds.
    worked: AtomicU64,
    /// The thread's number; 0 before it has started.
    thread: AtomicI32,
    /// Somebody has given this worker a permit.
    called: Condvar,
}

/// Outside of any leaf, or waiting, and without a permit.
const NONE: u8 = 0;
/// Outside of any leaf, with a permit, which anybody may take away.
const IDLE: u8 = 1;
/// In a leaf. Only the worker itself leaves this state.
const BUSY: u8 = 2;

#[derive(Debug)]
struct Permits {
    limit: usize,
    /// How many workers are idle or busy.
    out: usize,
    /// Workers without a permit that want to work, the first to come at the front.
    queue: VecDeque<usize>,
}

impl Gate {
    /// A gate for at most `most` workers, of whom `limit` may work at a time.
    pub(crate) fn new(most: usize, limit: usize) -> Self {
        Self {
            signs: Signs {
                over: AtomicBool::new(false),
                useful: AtomicUsize::new(most),
                seeking: AtomicBool::new(false),
            },
            posts: (0..most).map(|_| Post::default()).collect(),
            permits: Mutex::new(Permits {
                limit,
                out: 0,
                queue: VecDeque::new(),
            }),
            epoch: Instant::now(),
        }
    }

    /// The most workers that it is for.
    pub(crate) fn most(&self) -> usize {
        self.posts.len()
    }

    /// Changes how many may work at a time. Those who are too many stop at their next step; nobody is waited for.
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut permits = self.lock();
        permits.limit = limit;
        self.settle(&mut permits);
    }

    /// Says how many workers could be of use: work is divided among so many.
    pub(crate) fn set_useful(&self, useful: usize) {
        self.signs.useful.store(useful, Ordering::Relaxed);
    }

    /// Whether a worker has met a disk that may have to seek.
    pub(crate) fn is_seeking(&self) -> bool {
        self.signs.seeking.load(Ordering::Relaxed)
    }

    /// Gives idle permits to those who wait.
    pub(crate) fn sweep(&self) {
        self.settle(&mut self.lock());
    }

    /// How many workers are held back.
    #[cfg(test)]
    fn held_back(&self) -> usize {
        self.lock().queue.len()
    }

    /// The time that all workers together have spent in leaves.
    pub(crate) fn worked(&self) -> Duration {
        let posts = self.posts.iter();
        let nanoseconds = posts.map(|post| {
            let before = post.worked.load(Ordering::Relaxed);
            let since = post.since.load(Ordering::Relaxed);
            // A leaf that ends between these loads is counted too little now and right the next time.
            match post.state.load(Ordering::Relaxed) {
                BUSY => before + self.now().saturating_sub(since),
                _ => before,
            }
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// The numbers of the threads that have started.
    pub(crate) fn threads(&self) -> impl Iterator<Item = i32> + '_ {
        let threads = self.posts.iter();
        threads
            .map(|post| post.thread.load(Ordering::Relaxed))
            .filter(|thread| *thread != 0)
    }

    fn lock(&self) -> MutexGuard<'_, Permits> {
        lock(&self.permits)
    }

    fn now(&self) -> u64 {
        // 584 years fit.
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes back what is too much, as far as it is idle, and gives out what there is to those who wait.
    fn settle(&self, permits: &mut Permits) {
        while permits.out > permits.limit && self.take_idle() {
            permits.out -= 1;
        }
        while !permits.queue.is_empty() {
            if permits.out < permits.limit {
                permits.out += 1;
            } else if permits.out > permits.limit || !self.take_idle() {
                break;
            }
            if let Some(index) = permits.queue.pop_front() {
                let post = &self.posts[index];
                post.since.store(self.now(), Ordering::Relaxed);
                post.state.store(BUSY, Ordering::Release);
                post.called.notify_one();
            }
        }
        let over = permits.out > permits.limit;
        // Written only if it changes: all workers have it in their caches.
        if self.signs.over.load(Ordering::Relaxed) != over {
            self.signs.over.store(over, Ordering::Relaxed);
        }
    }

    /// Takes the permit of a worker that does not use it. Only under the lock.
    fn take_idle(&self) -> bool {
        self.posts.iter().any(|post| {
            // Looked at first: a failed exchange would still take the cache line away from its worker.
            post.state.load(Ordering::Relaxed) == IDLE
                && post
                    .state
                    .compare_exchange(IDLE, NONE, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn enter(&self, index: usize) {
        let post = &self.posts[index];
        // First, so that whoever sees the new state sees no older beginning.
        post.since.store(self.now(), Ordering::Relaxed);
        if post
            .state
            .compare_exchange(IDLE, BUSY, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            self.await_permit(index);
        }
    }

    #[cold]
    fn await_permit(&self, index: usize) {
        let post = &self.posts[index];
        let mut permits = self.lock();
        permits.queue.push_back(index);
        self.settle(&mut permits);
        while post.state.load(Ordering::Acquire) != BUSY {
            permits = post
                .called
                .wait(permits)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leave(&self, index: usize) {
        let post = &self.posts[index];
        let spent = self
            .now()
            .saturating_sub(post.since.load(Ordering::Relaxed));
        // Not `fetch_add`: nobody else writes it.
        let worked = post.worked.load(Ordering::Relaxed) + spent;
        post.worked.store(worked, Ordering::Relaxed);
        post.state.store(IDLE, Ordering::Release);
        if self.signs.over.load(Ordering::Relaxed) {
            self.settle(&mut self.lock());
        }
    }

    fn is_busy(&self, index: usize) -> bool {
        // Only this thread sets or leaves this state while it runs.
        self.posts[index].state.load(Ordering::Relaxed) == BUSY
    }
}

// ---- The workers' side ----

thread_local! {
    /// The gate that this thread works behind, and its place there.
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

struct Place {
    gate: Arc<Gate>,
    index: usize,
}

impl Place {
    fn is_busy(&self) -> bool {
        self.gate.is_busy(self.index)
    }
}

/// Makes the calling thread the worker `index` behind a gate, for as long as it lives. `thread` is the thread's number.
pub(crate) fn attach(gate: &Arc<Gate>, index: usize, thread: i32) {
    gate.posts[index].thread.store(thread, Ordering::Relaxed);
    let gate = Arc::clone(gate);
    // A thread is started for one pool, so there is nothing that this could replace.
    PLACE.with(|place| place.set(Place { gate, index }).ok());
}

/// This thread is in a leaf, until this goes, in a panic too.
pub(crate) struct Working {
    /// It was not in one before.
    entered: bool,
    /// It has to go on its own thread.
    _here: PhantomData<*const ()>,
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.entered {
            PLACE.with(|place| {
                if let Some(place) = place.get() {
                    place.gate.leave(place.index);
                }
            });
        }
    }
}

/// Begins leaf work, which waits for no other worker, when this one may work; for [`work`] and for where no function
/// can be.
pub(crate) fn start_work() -> Working {
    // Borrowed, not cloned: all workers would count references to one gate.
    let entered = PLACE.with(|place| match place.get() {
        Some(place) if !place.is_busy() => {
            place.gate.enter(place.index);
            true
        }
        _ => false,
    });
    Working {
        entered,
        _here: PhantomData,
    }
}

/// Returns to a leaf when it goes.
struct Resting<'a>(&'a Place);

impl<'a> Resting<'a> {
    fn start(place: &'a Place) -> Self {
        place.gate.leave(place.index);
        Self(place)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.gate.enter(self.0.index);
    }
}

/// Runs leaf work, which waits for no other worker, when this one may work.
pub(crate) fn work<T>(leaf: impl FnOnce() -> T) -> T {
    let _working = start_work();
    leaf()
}

/// Between two pieces of leaf work: lets others go on if this worker is one too many.
#[inline]
pub(crate) fn step() {
    PLACE.with(|place| {
        if let Some(place) = place.get()
            && place.gate.signs.over.load(Ordering::Relaxed)
            && place.is_busy()
        {
            drop(Resting::start(place));
        }
    });
}

/// How many workers of this thread's pool could be of use: all, until more is known.
pub(crate) fn useful() -> usize {
    let useful = |place: &Place| place.gate.signs.useful.load(Ordering::Relaxed);
    let useful = PLACE.with(|place| place.get().map(useful));
    useful.unwrap_or_else(rayon::current_num_threads)
}

/// A worker has met a disk that may have to seek.
pub(crate) fn meet_seeking() {
    PLACE.with(|place| {
        if let Some(place) = place.get() {
            place.gate.signs.seeking.store(true, Ordering::Relaxed);
        }
    });
}

/// Runs something that may wait for other workers, in the midst of leaf work or outside of it.
pub(crate) fn rest<T>(wait: impl FnOnce() -> T) -> T {
    PLACE.with(|place| {
        let inside = place.get().filter(|place| place.is_busy());
        let _resting = inside.map(Resting::start);
        wait()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc;
    use std::thread;

    /// Runs `task` on so many workers behind a gate, while somebody sweeps as the tuner does.
    fn workers(gate: &Arc<Gate>, count: usize, task: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..count)
                .map(|index| {
                    let task = &task;
                    scope.spawn(move || {
                        attach(gate, index, 1);
                        task(index);
                    })
                })
                .collect();
            while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                gate.sweep();
                thread::sleep(Duration::from_millis(1));
            }
        });
    }

    /// How many are inside, and how many there were at most.
    #[derive(Default)]
    struct Inside {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Inside {
        fn visit(&self) {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            thread::yield_now();
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn no_more_work_than_may_and_all_come_to_their_end() {
        for limit in [1, 2, 5] {
            let gate = Arc::new(Gate::new(8, limit));
            let inside = Inside::default();
            let done = AtomicUsize::new(0);
            workers(&gate, 8, |_| {
                for _ in 0..50 {
                    work(|| {
                        for _ in 0..10 {
                            inside.visit();
                            done.fetch_add(1, Ordering::SeqCst);
                            step();
                        }
                    });
                }
            });
            assert_eq!(done.into_inner(), 8 * 50 * 10);
            let most = inside.most.into_inner();
            assert!(most <= limit, "{most} of {limit}");
            assert_eq!(gate.held_back(), 0);
        }
    }

    #[test]
    fn those_who_become_too_many_stop_at_their_next_step_and_go_on_when_they_may() {
        let gate = Arc::new(Gate::new(4, 4));
        let barrier = Barrier::new(4);
        let inside = Inside::default();
        let after = AtomicUsize::new(0);
        workers(&gate, 4, |_| {
            work(|| {
                // All four are at work.
                if barrier.wait().is_leader() {
                    gate.set_limit(1);
                }
                barrier.wait();
                // What is over the limit is given up here, by whoever comes first.
                step();
                for _ in 0..100 {
                    if gate.lock().out == 1 {
                        inside.visit();
                    }
                    step();
                }
                after.fetch_add(1, Ordering::SeqCst);
            });
        });
        assert_eq!(after.into_inner(), 4);
        assert_eq!(inside.most.into_inner(), 1);
        gate.set_limit(usize::MAX);
        assert!(!gate.signs.over.load(Ordering::Relaxed));
    }

    #[test]
    fn a_worker_that_waits_for_another_lets_it_work() {
        let gate = Arc::new(Gate::new(2, 1));
        let (send, receive) = mpsc::channel();
        let receive = Mutex::new(receive);
        workers(&gate, 2, |index| {
            if index == 0 {
                work(|| {
                    let receive = receive.lock().unwrap();
                    // For ever, if the permit stayed here.
                    let said = rest(|| receive.recv().unwrap());
                    assert_eq!(said, "done");
                    assert!(gate.is_busy(0));
                });
            } else {
                work(|| send.send("done").unwrap());
            }
        });
    }

    #[test]
    fn work_within_work_is_one_leaf_and_a_panic_leaves_it() {
        let gate = Arc::new(Gate::new(1, 1));
        workers(&gate, 1, |_| {
            work(|| work(step));
            let panicked = std::panic::catch_unwind(|| work(|| panic!("no such luck")));
            assert!(panicked.is_err());
            assert!(!gate.is_busy(0));
            work(|| assert!(gate.is_busy(0)));
        });
        assert!(gate.worked() > Duration::ZERO);
    }

    #[test]
    fn all_could_be_of_use_until_more_is_known() {
        let gate = Arc::new(Gate::new(8, 2));
        workers(&gate, 1, |_| {
            assert_eq!(useful(), 8);
            gate.set_useful(3);
            assert_eq!(useful(), 3);
        });
    }

    #[test]
    fn without_a_gate_nobody_is_held_back() {
        assert_eq!(work(|| rest(|| 7)), 7);
        step();
        assert_eq!(useful(), rayon::current_num_threads());
    }
}
