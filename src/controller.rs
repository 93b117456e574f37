//! How many workers are to work: from what was seen in the last few milliseconds to a number.
//!
//! Nothing here measures, sleeps or knows what a thread is: `tuner.rs` does that. A [`Controller`] is told
//! [`Observation`]s and answers each with a [`Decision`]; the same observations give the same decisions, so it is
//! tested on simulated devices.
//!
//! # The reasons
//!
//! A worker's time goes three ways: it *runs*, it is *queued* for a processor, or it is *blocked*: by a device, a
//! network, a lock of the kernel, or the kernel's wish to slow down whoever writes too much. The three are seen
//! directly, in any interval, however few files it has completed. What to do about them:
//!
//! - **Blocked, and processors left**: more workers, if what blocks them is a latency, which others can use. With a
//!   share *u* of a worker's time on a processor (not counting what it is queued), *cores* / *u* workers can use all
//!   processors (Little's law), so not many more are tried.
//! - **Blocked by a lock, or by a device that is busy**: more workers wait more, and a lock that is waited for costs
//!   more than one that is not. That looks the same as a latency, and only the throughput tells: so every step up is a
//!   trial.
//! - **Queued for more than half of the time, and hardly ever blocked**: so many do nothing but wait for a processor;
//!   without them it is the same. If others keep the processors busy, more workers would get more of them, at the
//!   others' expense: they are not tried.
//! - **Running**: there are as many as processors. Fewer may do better still, where the running is mostly waiting for spin
//!   locks and cache lines; again only the throughput tells.
//! - **Not even the permitted ones are busy**: there is no work for more. Whatever is tried would prove nothing.
//!
//! # The states
//!
//! ```text
//!        ┌──────── a reason to try another number ────────┐
//!        │                                                 ▼
//!   ┌─ Settled ◄── m stays, or not worth it: n again ── Trial(n → m)
//!   │     ▲
//!   └─────┘ at once, where there is nothing to measure: up when all are blocked, down when most are queued
//! ```
//!
//! A trial compares the throughput with m to that with n just before: up, it must gain [`GAIN`]; down, it may lose
//! [`LOSS`]. It ends when the difference is clear against the noise (estimated from successive intervals), or after
//! [`LONGEST_TRIAL`] intervals. Between the two thresholds n stays. A step is a doubling or a halving; after one has failed,
//! half of one is tried. Where workers are hardly ever blocked a step up is smaller, as few of them as can use what is left of
//! the processors.
//!
//! In the first [`SHORT_RUN`] of a copy, which may be all of it, only workers that wait for most of their time are joined by
//! others: what a failed trial costs would not come back.
//!
//! At the beginning, workers that are blocked for most of their time double after two intervals each, for as
//! long as that does not clearly fail: a cold disk is noisy, and waiting for certainty would cost more than a few
//! workers too many, which are found out afterwards. Each leap is measured against the best so far, so that small losses
//! do not add up.
//!
//! After a verdict against it, the same way is not tried again for a while, and for twice as long each time. Intervals
//! that do not fit the last ones (another share of time on processors) end all that: they are another device, or
//! another kind of work, and what was learnt about the one before is forgotten. So a run pays for a few trials in its
//! first second, and then hardly anything.
//!
//! # What it comes to
//!
//! On the simulated devices of the tests (processors, latencies, sleeping and spinning locks, changes between them)
//! without noise it has more than nine tenths of the best throughput from half a second on, after a start or a change,
//! and stays within one step. With a throughput that varies by 15 % from interval to interval, the median run still
//! does. `cargo test --lib plots -- --ignored --nocapture` draws them.
//!
//! # The signals that are not used
//!
//! /proc/pressure tells of the whole machine, averaged over others' work: a worker's own time in a queue says the same
//! about this copy, sooner. Context switches tell that something blocked, but not for how long.

use std::time::Duration;

/// How often to look, at first and whenever something is being tried.
const SHORT: Duration = Duration::from_millis(10);

/// How often to look once nothing has been tried for a second.
const LONG: Duration = Duration::from_millis(40);

/// What a trial of more workers must gain: less is not worth keeping threads for. (Two workers on ext4 wait for its journal for a
/// tenth of their time; a third one gains a tenth.)
const GAIN: f64 = 0.04;

/// By how much noise may hide a failure while the number still grows in leaps.
const HARM: f64 = 0.15;

/// What a trial of fewer workers may lose.
const LOSS: f64 = 0.02;

/// Below this share of the permitted workers at work, there is no work for more, and the throughput is that of a lack
/// of work.
const HUNGRY: f64 = 0.75;

/// Above this share of the processors in use by the workers, more cannot run more that is worth mentioning.
const SATURATED: f64 = 0.95;

/// Above this share of its time on a processor, were nobody in the way, a worker does not wait for anything worth
/// mentioning.
const RUNNING: f64 = 0.95;

/// Below this share, waiting is what most of the time goes to: the number may grow in leaps.
const WAITING: f64 = 0.35;

/// From this share on, all but nothing but waiting goes on: the number may grow without a measure of throughput.
const BLOCKED: f64 = 0.8;

/// How many times as many workers are tried as could use all processors if they took turns perfectly, which they do not.
const ROOM: f64 = 3.0;

/// And how many times as many are tried in one step.
const TURNS: f64 = 1.3;

/// How much must have been done in a window for its throughput to mean anything, in units of [`Observation::work`].
const MEASURABLE: f64 = 24.0;

/// How long what is done is looked at for, at least, so that the kernel's own accounting, in ticks of up to 10 ms,
/// means something.
const SHORTEST_WINDOW: u32 = 2;

/// The most intervals that a trial may take.
const LONGEST_TRIAL: u32 = 20;

/// How well the throughput before a trial must be known, as a standard error relative to it, and after how many
/// intervals it need not be.
const BASE_ERROR: f64 = 0.07;
const LONGEST_BASE: u32 = 16;

/// How many intervals in a row that do not fit those before are a change and not a burst.
const CHANGE: u32 = 4;

/// How many intervals without enough work end a trial.
const PATIENCE: u32 = 3;

/// How many intervals the settled state remembers.
const MEMORY: u32 = 20;

/// A run may be over by then, and not get back what a trial costs: before, only those who wait for most of their time are
/// joined by others.
const SHORT_RUN: Duration = Duration::from_millis(200);

/// The first pause after a trial that failed, upwards and downwards, and the longest.
const PAUSE_UP: Duration = Duration::from_millis(80);
const PAUSE_DOWN: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What was seen since the last decision. Numbers of workers are means over the interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    pub interval: Duration,
    /// Workers in leaf work: running, queued or blocked.
    pub busy: f64,
    /// Workers on a processor.
    pub running: f64,
    /// Workers waiting for a processor.
    pub queued: f64,
    /// What was done, in any unit that is about the same work for each entry and each piece of a file.
    pub work: f64,
}

/// What to do until the next observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// How many workers may work.
    pub limit: usize,
    /// When to observe next.
    pub next: Duration,
}

/// Observations at one number of workers, added up.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    intervals: f64,
    seconds: f64,
    busy: f64,
    running: f64,
    queued: f64,
    work: f64,
}

impl Window {
    fn add(&mut self, seen: &Observation) {
        let seconds = seen.interval.as_secs_f64();
        self.intervals += 1.0;
        self.seconds += seconds;
        self.busy += seen.busy * seconds;
        self.running += seen.running * seconds;
        self.queued += seen.queued * seconds;
        self.work += seen.work;
    }

    /// Makes room for one interval more: what is older than [`MEMORY`] intervals fades.
    fn fade(&mut self) {
        let most = f64::from(MEMORY);
        if self.intervals >= most {
            let rest = (most - 1.0) / self.intervals;
            self.intervals *= rest;
            self.seconds *= rest;
            self.busy *= rest;
            self.running *= rest;
            self.queued *= rest;
            self.work *= rest;
        }
    }

    fn rate(&self) -> f64 {
        self.work / self.seconds.max(1e-9)
    }

    /// Workers at work, on average.
    fn busy(&self) -> f64 {
        self.busy / self.seconds.max(1e-9)
    }

    /// Processors that the workers use.
    fn running(&self) -> f64 {
        self.running / self.seconds.max(1e-9)
    }

    /// The share of a busy worker's time that wants a processor.
    fn active(&self) -> f64 {
        ((self.running + self.queued) / self.busy.max(1e-9)).clamp(0.0, 1.0)
    }

    /// The share of a busy worker's time on a processor, were nobody in the way.
    fn effort(&self) -> f64 {
        let free = (self.busy - self.queued).max(self.running).max(1e-9);
        (self.running / free).clamp(0.0, 1.0)
    }

    /// The share of a busy worker's time that waits for a processor.
    fn queued(&self) -> f64 {
        (self.queued / self.busy.max(1e-9)).clamp(0.0, 1.0)
    }

    /// The share of a busy worker's time that waits for something else.
    fn blocked(&self) -> f64 {
        1.0 - self.active()
    }

    fn is_measurable(&self) -> bool {
        self.work >= MEASURABLE
    }
}

/// Which way a trial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Settled,
    Trial {
        way: Way,
        /// The number before, and what was seen with it.
        from: usize,
        before: Window,
    },
}

/// What a trial has shown.
struct Verdict {
    /// The throughput, relative to that before.
    ratio: f64,
    /// It is no matter of chance.
    is_clear: bool,
    is_passed: bool,
}

/// When a way may be tried again.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first: Duration,
    pause: Duration,
    until: Duration,
    /// Half a step is what to try next: a whole one has failed.
    is_fine: bool,
}

impl Patience {
    fn new(first: Duration) -> Self {
        Self {
            first,
            pause: first,
            until: first,
            is_fine: false,
        }
    }

    /// A trial of this length has failed: what takes long to find out is not to be asked often.
    fn failed(&mut self, now: Duration, trial: Duration) {
        self.until = now + self.pause.max(trial * 3);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.is_fine = !self.is_fine;
    }

    /// What was learnt does not hold any more.
    fn forget(&mut self, now: Duration) {
        self.pause = self.first;
        self.until = self.until.min(now);
        self.is_fine = false;
    }
}

/// Finds the number of workers.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    cores: usize,
    most: usize,
    limit: usize,
    state: State,
    window: Window,
    /// The next interval began with another number: it belongs to neither.
    unsettled: bool,
    /// How many intervals there has been too little work for.
    starved: u32,
    /// Nothing has been tried in vain yet.
    is_ramp: bool,
    /// The number, and what was seen with it, that was a little better than the present one.
    best: Option<(usize, Window)>,
    /// The time since the beginning.
    now: Duration,
    /// When something was last tried.
    tried: Duration,
    up: Patience,
    down: Patience,
    /// Intervals that do not fit those in the window.
    odd: Window,
    /// The variance of one interval's throughput, relative to it.
    noise: f64,
    samples: f64,
    last_rate: Option<f64>,
}

impl Controller {
    /// For a machine with so many processors and a pool of at most so many workers; begins with as many as processors.
    pub(crate) fn new(cores: usize, most: usize) -> Self {
        let most = most.max(1);
        Self {
            cores: cores.max(1),
            most,
            limit: cores.clamp(1, most),
            state: State::Settled,
            window: Window::default(),
            // The first interval has the start of the threads in it, and the first directory alone.
            unsettled: true,
            starved: 0,
            is_ramp: true,
            best: None,
            now: Duration::ZERO,
            tried: Duration::ZERO,
            up: Patience {
                until: Duration::ZERO,
                ..Patience::new(PAUSE_UP)
            },
            down: Patience::new(PAUSE_DOWN),
            odd: Window::default(),
            // A twentieth, until there is something to estimate it from.
            noise: 0.0025,
            samples: 1.0,
            last_rate: None,
        }
    }

    /// The system gives no more workers than these.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = most.max(1);
        self.limit = self.limit.min(self.most);
    }

    pub(crate) fn decide(&mut self, seen: &Observation) -> Decision {
        self.now += seen.interval;
        if self.unsettled {
            self.unsettled = false;
            self.last_rate = None;
        } else if seen.busy < HUNGRY * as_f64(self.limit) {
            self.last_rate = None;
            self.starve();
        } else {
            self.starved = 0;
            self.learn_noise(seen);
            self.take_in(seen);
            if self.window.intervals >= f64::from(SHORTEST_WINDOW) {
                match self.state {
                    State::Settled => self.look_around(),
                    State::Trial { way, from, before } => self.judge(way, from, &before),
                }
            }
        }
        let quiet = self.now.saturating_sub(self.tried) > Duration::from_secs(1);
        Decision {
            limit: self.limit,
            next: if quiet { LONG } else { SHORT },
        }
    }

    /// An interval without work for all who may work: its throughput says nothing.
    fn starve(&mut self) {
        self.starved += 1;
        match self.state {
            State::Settled => self.window = Window::default(),
            // Threads that have just been started are no lack of work yet.
            State::Trial { way, from, before } if self.starved >= PATIENCE => {
                self.give_up(way, from, &before);
            }
            State::Trial { .. } => {}
        }
    }

    /// Adds an interval to those before, or puts it in their place if they were about something else.
    fn take_in(&mut self, seen: &Observation) {
        let mut one = Window::default();
        one.add(seen);
        let is_odd = self.window.intervals >= f64::from(SHORTEST_WINDOW)
            && differ(one.active(), self.window.active());
        if is_odd {
            self.odd.add(seen);
            if self.odd.intervals < f64::from(CHANGE) {
                // A burst of the kernel's writing back, or chance.
                return;
            }
            // Another kind of work, or another kind of device: what was learnt does not hold any more.
            self.window = self.odd;
            self.state = State::Settled;
            self.tried = self.now;
            // Many may be blocked by each other.
            self.is_ramp = self.limit <= self.cores;
            self.best = None;
            self.up.forget(self.now);
            self.down.forget(self.now);
        } else {
            self.window.fade();
            self.window.add(seen);
        }
        self.odd = Window::default();
    }

    /// Learns how much the throughput of successive intervals differs.
    fn learn_noise(&mut self, seen: &Observation) {
        let rate = seen.work / seen.interval.as_secs_f64().max(1e-9);
        if let Some(last) = self.last_rate.replace(rate) {
            let mean = f64::midpoint(rate, last);
            if mean > 0.0 {
                // The difference of two has twice the variance of one.
                let variance = ((rate - last) / mean).powi(2) / 2.0;
                self.samples += 1.0;
                let weight = (1.0 / self.samples).max(0.1);
                self.noise += weight * (variance - self.noise);
            }
        }
    }

    /// How many workers can use all processors, at their present share of time on them.
    fn most_useful(&self) -> usize {
        let least = as_f64(self.cores) / as_f64(self.most);
        let enough = as_f64(self.cores) / self.window.effort().max(least);
        ceil(ROOM * enough).clamp(1, self.most)
    }

    /// A few more workers than can use all processors if they take turns perfectly, and more than there are: where little is to
    /// be won, little is risked.
    fn next_useful(&self) -> usize {
        let enough = as_f64(self.cores) / self.window.effort().max(1e-3);
        ceil(TURNS * enough).max(self.limit + 1)
    }

    /// Settled: is there a reason to try another number?
    fn look_around(&mut self) {
        let window = self.window;
        let effort = window.effort();
        if self.limit > self.cores && window.queued() >= 0.5 && effort >= RUNNING {
            let others = window.busy() * (1.0 - window.queued());
            self.go_to(ceil(others).max(self.cores).min(self.limit - 1));
            return;
        }
        // Fewer than the processors may be running all of the time because they are fewer.
        let is_free = window.running() < SATURATED * as_f64(self.cores)
            && (effort < RUNNING || self.limit < self.cores);
        let useful = self.most_useful();
        // A trial is no better than what it is compared with.
        let is_measured = window.is_measurable()
            && (self.noise <= window.intervals * BASE_ERROR.powi(2)
                || window.intervals >= f64::from(LONGEST_BASE));
        self.is_ramp &= effort < WAITING;
        let is_time = self.now >= self.up.until
            && (self.now >= SHORT_RUN || effort < WAITING || self.limit < self.cores);
        if is_free && useful > self.limit && is_time {
            if is_measured || (self.is_ramp && window.is_measurable()) {
                let more = if self.up.is_fine {
                    (self.limit * 3).div_ceil(2)
                } else {
                    self.limit * 2
                };
                self.try_out(Way::Up, more.min(useful).min(self.next_useful()));
                return;
            } else if window.blocked() >= BLOCKED {
                self.go_to((self.limit * 4).min(useful));
                return;
            }
        }
        if self.limit > 1 && self.now >= self.down.until && is_measured {
            let fewer = if self.down.is_fine {
                self.limit * 3 / 4
            } else {
                self.limit.div_ceil(2)
            };
            // Where all wait for others to leave them a processor, or a few run more than fewer could run, there is nothing
            // that these could do better. Many may be spinning.
            let may_help =
                window.queued() < 0.5 && (self.limit > 4 || window.running() < as_f64(fewer));
            if may_help {
                self.try_out(Way::Down, fewer);
            }
        }
    }

    fn judge(&mut self, way: Way, from: usize, before: &Window) {
        let window = self.window;
        let verdict = self.compare(way, &window, before);
        let is_over = self.is_ramp || window.intervals >= f64::from(LONGEST_TRIAL);
        if !(is_over || (verdict.is_clear && window.is_measurable())) {
            return;
        }
        if !verdict.is_passed {
            self.give_up(way, from, before);
        } else {
            // Small losses must not add up: the next leap is measured against the best so far.
            self.best = (self.is_ramp && verdict.ratio < 1.0).then_some((from, *before));
            self.accept(way);
        }
    }

    /// Compares what was tried with the number before.
    fn compare(&self, way: Way, tried: &Window, before: &Window) -> Verdict {
        let ratio = tried.rate() / before.rate().max(1e-9);
        let threshold = match way {
            Way::Up => 1.0 + GAIN,
            Way::Down => 1.0 - LOSS,
        };
        // The noise of both ends.
        let error =
            (self.noise / before.intervals + self.noise / tried.intervals).sqrt() * ratio.max(0.5);
        // In doubt, no: fewer threads are kinder, and the next trial comes.
        let doubt = match way {
            Way::Up if self.is_ramp => -error.min(HARM),
            Way::Up => 0.5 * error,
            Way::Down => 0.0,
        };
        Verdict {
            ratio,
            is_clear: (ratio - threshold).abs() > 2.0 * error,
            is_passed: ratio >= threshold + doubt,
        }
    }

    /// The number that was tried stays.
    fn accept(&mut self, way: Way) {
        self.state = State::Settled;
        match way {
            Way::Up => {
                self.up.forget(self.now);
                // Luck may have judged: soon enough, it is asked the other way round.
                self.down = Patience::new(PAUSE_DOWN);
                self.down.until += self.now;
            }
            Way::Down => {
                self.down.forget(self.now);
                let trial = Duration::from_secs_f64(self.window.seconds);
                self.up.failed(self.now, trial);
            }
        }
        self.look_around();
    }

    /// Back to the number before the trial, and what is known of it.
    fn give_up(&mut self, way: Way, from: usize, known: &Window) {
        let trial = Duration::from_secs_f64(self.window.seconds);
        self.is_ramp = false;
        match way {
            Way::Up => self.up.failed(self.now, trial),
            Way::Down => self.down.failed(self.now, trial),
        }
        self.go_to(from);
        self.window = *known;
    }

    fn try_out(&mut self, way: Way, limit: usize) {
        let (from, before) = match (way, self.best.take()) {
            (Way::Up, Some(best)) => best,
            _ => (self.limit, self.window),
        };
        self.go_to(limit);
        self.state = State::Trial { way, from, before };
    }

    /// Another number, to stay.
    fn go_to(&mut self, limit: usize) {
        self.limit = limit.clamp(1, self.most);
        self.state = State::Settled;
        self.window = Window::default();
        self.odd = Window::default();
        self.best = None;
        self.unsettled = true;
        self.starved = 0;
        self.tried = self.now;
    }
}

/// Whether two shares of time are of different kinds of work.
fn differ(a: f64, b: f64) -> bool {
    (a - b).abs() > 0.25 || a > 3.0 * b + 0.05 || b > 3.0 * a + 0.05
}

/// Numbers of workers are small.
#[allow(clippy::cast_precision_loss)]
fn as_f64(n: usize) -> f64 {
    n as f64
}

/// Rounds up; a cast saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn ceil(x: f64) -> usize {
    x.ceil() as usize
}

#[cfg(test)]
mod tests {
    //! The controller on devices that follow a formula, so that the best number is known.

    use super::*;
    use std::fmt::Write;

    /// A device: what so many workers get out of it.
    trait Device {
        /// What is seen in a second of `workers` working at the time `at`, in seconds.
        fn serve(&self, workers: f64, at: f64) -> Observation;
    }

    /// What is seen where so many workers run and are queued, and so much work is done in a second.
    fn seen(busy: f64, running: f64, queued: f64, work: f64) -> Observation {
        Observation {
            interval: Duration::from_secs(1),
            busy,
            running,
            queued,
            work,
        }
    }

    /// Nothing but processors: each more than they are loses a little to switching.
    struct Processors {
        cores: f64,
        /// Units of work that one does in a second.
        rate: f64,
    }

    impl Device for Processors {
        fn serve(&self, workers: f64, _: f64) -> Observation {
            let running = workers.min(self.cores);
            let queued = workers - running;
            seen(
                workers,
                running,
                queued,
                running * self.rate * (1.0 - 0.002 * queued),
            )
        }
    }

    /// A latency that so many can wait for at a time, and some work of a processor for each unit.
    struct Latency {
        cores: f64,
        latency: f64,
        depth: f64,
        cpu: f64,
    }

    impl Device for Latency {
        fn serve(&self, workers: f64, _: f64) -> Observation {
            let Self {
                cores,
                latency,
                depth,
                cpu,
            } = *self;
            // Little's law, and the two things that can be full.
            let work = (workers / (latency + cpu))
                .min(depth / latency)
                .min(cores / cpu);
            let running = work * cpu;
            let queued = if running >= 0.99 * cores {
                (workers - running - work * latency).max(0.0)
            } else {
                0.0
            };
            seen(workers, running, queued, work)
        }
    }

    /// A lock that each unit of work needs for some of its time, and that costs more the more there are who want it. Those
    /// who wait for it sleep, or spin.
    struct Lock {
        cores: f64,
        /// Seconds of a processor for a unit, for one alone.
        cpu: f64,
        /// The share of that with the lock held.
        locked: f64,
        /// What each further worker adds to the time.
        friction: f64,
        spins: bool,
    }

    impl Device for Lock {
        fn serve(&self, workers: f64, _: f64) -> Observation {
            let cpu = self.cpu * (1.0 + self.friction * (workers - 1.0));
            let at_once = workers.min(self.cores).min(1.0 / self.locked);
            let wanted = if at_once < self.cores.min(workers) && !self.spins {
                at_once
            } else {
                workers
            };
            let running = wanted.min(self.cores);
            seen(workers, running, wanted - running, at_once / cpu)
        }
    }

    /// One device after the other, each until its time.
    struct Then(Vec<(f64, Box<dyn Device>)>);

    impl Device for Then {
        fn serve(&self, workers: f64, at: f64) -> Observation {
            let now = self.0.iter().find(|(until, _)| at < *until);
            now.unwrap_or(&self.0[0]).1.serve(workers, at)
        }
    }

    /// Numbers that look random and are the same in each run.
    struct Random(u64);

    impl Random {
        /// Normally distributed, as nearly as twelve dice are.
        fn normal(&mut self) -> f64 {
            let mut die = || {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                f64::from(u32::try_from(self.0 >> 40).unwrap()) / f64::from(1 << 24)
            };
            (0..12).map(|_| die()).sum::<f64>() - 6.0
        }
    }

    /// A run: the time, the number of workers from then on, and the throughput with it.
    struct Run {
        points: Vec<(f64, usize, f64)>,
        seconds: f64,
    }

    const MOST: usize = 128;

    /// Lets a controller work on a device whose throughput is disturbed, so much in each interval of 10 ms.
    fn run(device: &dyn Device, cores: usize, seconds: f64, noise: f64, seed: u64) -> Run {
        let controller = Controller::new(cores, MOST);
        go_on(controller, device, seconds, noise, seed)
    }

    /// The same for one that has a past.
    fn go_on(
        mut controller: Controller,
        device: &dyn Device,
        seconds: f64,
        noise: f64,
        seed: u64,
    ) -> Run {
        let mut random = Random(0x9E37_79B9 + (seed << 32));
        let (mut limit, mut at, mut pause) = (controller.limit, 0.0, 0.01);
        let mut points = Vec::new();
        while at < seconds {
            let full = device.serve(as_f64(limit), at);
            points.push((at, limit, full.work));
            let disturbance = (noise * random.normal() * (0.01_f64 / pause).sqrt()).exp();
            let on_cpu = (noise * 0.5 * random.normal()).exp();
            let decision = controller.decide(&Observation {
                interval: Duration::from_secs_f64(pause),
                work: full.work * pause * disturbance,
                running: (full.running * on_cpu).min(full.busy),
                ..full
            });
            at += pause;
            limit = decision.limit;
            pause = decision.next.as_secs_f64();
        }
        Run { points, seconds }
    }

    impl Run {
        /// The mean throughput between two times.
        fn rate(&self, from: f64, to: f64) -> f64 {
            let (mut work, mut time) = (0.0, 0.0);
            for (i, &(at, _, rate)) in self.points.iter().enumerate() {
                let next = self.points.get(i + 1).map_or(self.seconds, |next| next.0);
                let part = (next.min(to) - at.max(from)).max(0.0);
                work += rate * part;
                time += part;
            }
            work / time
        }

        /// The limits between two times, each as often as it was seen.
        fn limits(&self, from: f64, to: f64) -> Vec<usize> {
            let points = self.points.iter();
            let mut limits: Vec<_> = points
                .filter(|(at, ..)| (from..to).contains(at))
                .map(|&(_, limit, _)| limit)
                .collect();
            limits.sort_unstable();
            limits
        }

        fn plot(&self, title: &str, device: &dyn Device) -> String {
            let mut text = format!("\n{title}\n  time     best    here  workers\n");
            let step = self.seconds / 40.0;
            for i in 0..40 {
                let from = step * f64::from(i);
                let to = from + step;
                let best = best(device, from + step / 2.0).1;
                let limits = self.limits(from, to);
                let Some(&most) = limits.last() else { continue };
                let median = limits[limits.len() / 2];
                let bar = "#".repeat(median) + &"-".repeat(most - median);
                let rate = self.rate(from, to);
                writeln!(text, "{from:5.2} s {best:8.0} {rate:7.0}  {median:3} {bar}").unwrap();
            }
            text
        }
    }

    /// The best fixed number of workers at a time, and its throughput.
    fn best(device: &dyn Device, at: f64) -> (usize, f64) {
        (1..=MOST)
            .map(|workers| (workers, device.serve(as_f64(workers), at).work))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap()
    }

    /// A name, a device, the machine's processors, and the times at which the device changes.
    type Case = (&'static str, Box<dyn Device>, usize, Vec<f64>);

    /// What the tests are about.
    fn devices() -> Vec<Case> {
        let cpu = |cores| {
            Box::new(Processors {
                cores,
                rate: 40_000.0,
            })
        };
        let latency = |latency, depth, cpu| {
            Box::new(Latency {
                cores: 2.0,
                latency,
                depth,
                cpu,
            })
        };
        let lock = |cores, locked, friction, spins| {
            Box::new(Lock {
                cores,
                cpu: 5e-5,
                locked,
                friction,
                spins,
            })
        };
        let changing = Then(vec![
            (1.5, cpu(2.0)),
            (3.0, latency(0.01, 48.0, 1e-5)),
            (4.5, cpu(2.0)),
            (6.0, lock(2.0, 0.6, 0.04, false)),
        ]);
        vec![
            ("2 processors", cpu(2.0), 2, vec![]),
            ("64 processors", cpu(64.0), 64, vec![]),
            (
                "a latency of 40 ms for each file, no end of it",
                latency(0.04, 1e9, 1e-5),
                2,
                vec![],
            ),
            (
                "a latency of 0.3 ms, 16 at a time",
                latency(0.0003, 16.0, 1e-5),
                2,
                vec![],
            ),
            (
                "a latency of 0.2 ms and 0.1 ms of processor",
                latency(0.0002, 1e9, 1e-4),
                2,
                vec![],
            ),
            (
                "a lock that sleepers wait for, 2 processors",
                lock(2.0, 0.6, 0.04, false),
                2,
                vec![],
            ),
            (
                "a lock that is spun on, 64 processors",
                lock(64.0, 0.1, 0.02, true),
                64,
                vec![],
            ),
            ("changing", Box::new(changing), 2, vec![1.5, 3.0, 4.5]),
        ]
    }

    /// What is asked of runs that have had half a second since their start or a change of the device.
    struct Demand {
        noise: f64,
        seeds: u64,
        /// The share of the best throughput that each of them has. Half of them have nine tenths.
        share: f64,
        /// How many of the runs may be further than a step (a doubling) from their median for more than a quarter of
        /// the time, in a hundred.
        astray: usize,
    }

    impl Demand {
        fn check(&self) {
            let mut failures = String::new();
            for (name, device, cores, changes) in devices() {
                let end = changes.last().map_or(3.0, |last| last + 1.5);
                let runs: Vec<Run> = (0..self.seeds)
                    .map(|seed| run(&*device, cores, end, self.noise, seed))
                    .collect();
                let begins = std::iter::once(0.0).chain(changes.iter().copied());
                let ends = changes.iter().copied().chain([end]);
                for (begin, end) in begins.zip(ends) {
                    let (number, best) = best(&*device, begin);
                    let settled = begin + 0.5;
                    let shares = runs.iter().map(|run| run.rate(settled, end) / best);
                    let mut shares: Vec<_> = shares.collect();
                    shares.sort_unstable_by(f64::total_cmp);
                    let (worst, median) = (shares[0], shares[shares.len() / 2]);
                    let astray = runs
                        .iter()
                        .filter(|run| run.is_astray(settled, end))
                        .count();
                    let is_steady = astray * 100 <= runs.len() * self.astray;
                    if worst < self.share || median < 0.9 || !is_steady {
                        let what = format!(
                            "{worst:.2}, median {median:.2} of the best ({number}), {astray} astray"
                        );
                        writeln!(failures, "{name}, from {settled} s: {what}").unwrap();
                    }
                }
            }
            assert!(failures.is_empty(), "\n{failures}");
        }
    }

    impl Run {
        /// Whether the number was further than a step from its median for more than a quarter of the time.
        fn is_astray(&self, from: f64, to: f64) -> bool {
            let limits = self.limits(from, to);
            let median = limits[limits.len() / 2];
            let is_near = |limit: &&usize| **limit * 2 >= median && **limit <= median * 2;
            limits.iter().filter(is_near).count() * 4 < limits.len() * 3
        }
    }

    #[test]
    fn half_a_second_finds_nine_tenths_of_the_best_and_stays_within_a_step_of_it() {
        let demand = Demand {
            noise: 0.0,
            seeds: 1,
            share: 0.9,
            astray: 0,
        };
        demand.check();
        for (name, device, cores, changes) in devices() {
            if changes.is_empty() {
                let limits = run(&*device, cores, 3.0, 0.0, 0).limits(0.5, 3.0);
                let (least, most) = (limits[0], limits[limits.len() - 1]);
                let median = limits[limits.len() / 2];
                let is_near = least * 2 >= median && most <= median * 2;
                assert!(is_near, "{name}: {least} to {most}, median {median}");
            }
        }
    }

    #[test]
    fn so_it_does_in_most_runs_where_throughput_is_noisy() {
        let demand = Demand {
            noise: 0.15,
            seeds: 40,
            share: 0.75,
            astray: 15,
        };
        demand.check();
    }

    #[test]
    fn one_worker_that_has_all_it_wants_is_joined_by_others_for_the_other_processors() {
        let device = Processors {
            cores: 2.0,
            rate: 40_000.0,
        };
        for seed in 0..40 {
            // As after a trial that was passed by luck.
            let mut controller = Controller::new(2, MOST);
            controller.go_to(1);
            controller.is_ramp = false;
            controller.up.failed(Duration::ZERO, Duration::ZERO);
            let limits = go_on(controller, &device, 2.0, 0.15, seed).limits(0.5, 2.0);
            let median = limits[limits.len() / 2];
            assert!((2..=4).contains(&median), "{limits:?}");
        }
    }

    #[test]
    fn a_short_run_pays_for_no_trial_unless_workers_do_little_but_wait() {
        let mut is_ramp_seen = false;
        for (name, device, cores, _) in devices() {
            let first = device.serve(as_f64(cores), 0.0);
            let waits = first.running < WAITING * as_f64(cores);
            is_ramp_seen |= waits;
            for seed in 0..20 {
                let limits = run(&*device, cores, 0.14, 0.15, seed).limits(0.0, 0.14);
                let most = limits[limits.len() - 1];
                assert_eq!(waits, most > cores, "{name}: {limits:?}");
                assert_eq!(limits[0], cores, "{name}: {limits:?}");
            }
        }
        assert!(is_ramp_seen);
    }

    /// Shows what it does; `cargo test -- --ignored --nocapture plots`.
    #[test]
    #[ignore = "shows plots"]
    fn plots() {
        for noise in [0.0, 0.15] {
            for (name, device, cores, changes) in devices() {
                let end = changes.last().map_or(2.0, |last| last + 1.5);
                let run = run(&*device, cores, end, noise, 1);
                println!("{}", run.plot(&format!("{name}, noise {noise}"), &*device));
            }
        }
    }
}
