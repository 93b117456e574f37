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
//! - **Blocked by a disk that may have to seek** (`disk.rs`): two who read at two places can be several times slower than one
//!   who reads on where he is. So where several are so slow that it may be that ([`MOST_MOVES`]), one works alone, and several are
//!   then tried; if they do not get more done it is left at one, and asked again after [`LONGEST_PAUSE`]. The kernel takes for
//!   such a disk what does not say otherwise, so this may be any virtual disk: once several have got more done it is one like others.
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
//!   └─────┘ at once, where there is nothing to measure: up when all are blocked, down when most are queued,
//!           to one when a disk may have to seek
//! ```
//!
//! A trial compares the throughput with m to that with n just before: up, it must gain [`GAIN`]; down, it may lose
//! [`LOSS`]. It ends when the difference is clear against the noise (estimated from successive intervals), or after
//! [`LONGEST_TRIAL`] intervals. Between the two thresholds n stays. A step is a doubling or a halving; after one has failed,
//! half of one is tried. Where workers run for most of their time ([`BUSY`]) a step up is smaller, as few of them as can use
//! what is left of the processors.
//!
//! In the first [`SHORT_RUN`] of a copy, which may be all of it, nothing is tried unless workers wait for most of their time, or
//! are fewer than the processors: what a failed trial costs would not come back.
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
//! does. (A tenth of a second later where a disk may have to seek, for that comes first.)
//! `cargo test --lib plots -- --ignored --nocapture` draws them.
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

/// Above this share, little is to be won by more workers, and little is to be risked for it.
const BUSY: f64 = 0.65;

/// Below this share, waiting is what most of the time goes to: the number may grow in leaps.
const WAITING: f64 = 0.5;

/// From this share on, all but nothing but waiting goes on: the number may grow without a measure of throughput.
const BLOCKED: f64 = 0.8;

/// How many times as many workers there are at once, where nothing can be measured, and in the trial whether a disk seeks.
const AT_ONCE: usize = 4;

/// More than so many units in a second no disk reads that has to move for each of them.
const MOST_MOVES: f64 = 1000.0;

/// How many times as much [`AT_ONCE`] times as many workers get done, at least, where what they wait for is a latency.
const LIKE_A_LATENCY: f64 = 2.0;

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

/// How many intervals make a rough measure.
const ROUGH: f64 = 4.0;

/// How many intervals in a row that do not fit those before are a change and not a burst.
const CHANGE: u32 = 4;

/// How many intervals without enough work end a trial.
const LONGEST_HUNGER: u32 = 3;

/// How many intervals the settled state remembers.
const MEMORY: u32 = 20;

/// A run may be over by then, and not get back what a trial costs.
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
    /// What is read may be on a disk that has to seek.
    pub may_seek: bool,
}

/// What to do until the next observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// How many workers may work.
    pub limit: usize,
    /// How many could use all processors, if that is known, be it allowed or not.
    pub useful: Option<usize>,
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

/// What is known of a disk that may have to seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeking {
    /// There is none.
    No,
    /// It may have to; several workers have not been found to be better than one.
    Maybe,
    /// It does well with several workers.
    Refuted,
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
    skips_next: bool,
    /// How many intervals there has been too little work for.
    starved: u32,
    /// Nothing has been tried in vain yet.
    is_ramp: bool,
    seeking: Seeking,
    /// When several may be tried again at a disk that seeks.
    ask_again: Duration,
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
            skips_next: true,
            starved: 0,
            is_ramp: true,
            seeking: Seeking::No,
            ask_again: Duration::ZERO,
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
        if seen.may_seek && self.seeking == Seeking::No {
            self.seeking = Seeking::Maybe;
        }
        if self.skips_next {
            self.skips_next = false;
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
        let is_known = self.window.intervals > 0.0;
        Decision {
            limit: self.limit,
            useful: is_known.then(|| ceil(self.enough()).clamp(1, self.most)),
            next: if quiet { LONG } else { SHORT },
        }
    }

    /// An interval without work for all who may work: its throughput says nothing.
    fn starve(&mut self) {
        self.starved += 1;
        match self.state {
            State::Settled => self.window = Window::default(),
            // Threads that have just been started are no lack of work yet.
            State::Trial { way, from, before } if self.starved >= LONGEST_HUNGER => {
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

    /// How many workers use all processors if they take turns perfectly, at their present share of time on them.
    fn enough(&self) -> f64 {
        let least = as_f64(self.cores) / as_f64(self.most);
        as_f64(self.cores) / self.window.effort().max(least)
    }

    /// How many can be of use: they do not take turns perfectly.
    fn most_useful(&self) -> usize {
        ceil(ROOM * self.enough()).clamp(1, self.most)
    }

    /// A few more workers than can use all processors if they take turns perfectly, and more than there are.
    fn next_useful(&self) -> usize {
        ceil(TURNS * self.enough()).max(self.limit + 1)
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
        let may_seek = self.limit == 1 || window.rate() < MOST_MOVES;
        if self.seeking == Seeking::Maybe && effort < WAITING && may_seek {
            // The answer will be so clear that a rough measure will do; and whatever is so slow must be asked, too.
            let is_known = window.intervals >= ROUGH
                && (window.is_measurable() || window.intervals >= f64::from(LONGEST_BASE));
            if self.limit > 1 {
                self.go_to(1);
            } else if is_known && self.now >= self.ask_again {
                self.is_ramp = false;
                self.try_out(Way::Up, AT_ONCE.min(useful));
            }
            return;
        }
        let is_time = self.now >= self.up.until
            && (self.now >= SHORT_RUN || effort < WAITING || self.limit < self.cores);
        if is_free && useful > self.limit && is_time {
            if is_measured || (self.is_ramp && window.is_measurable()) {
                let more = if self.up.is_fine {
                    (self.limit * 3).div_ceil(2)
                } else {
                    self.limit * 2
                };
                let most = if effort >= BUSY {
                    self.next_useful().min(useful)
                } else {
                    useful
                };
                self.try_out(Way::Up, more.min(most));
                return;
            } else if window.blocked() >= BLOCKED {
                self.go_to((self.limit * AT_ONCE).min(useful));
                return;
            }
        }
        if self.limit > 1 && self.now >= self.down.until.max(SHORT_RUN) && is_measured {
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
        let waits = before.effort().min(window.effort()) < WAITING;
        let is_about_seeking = self.seeking == Seeking::Maybe && way == Way::Up && waits;
        // Where one alone would have done much and several have done little, that is a measure, too.
        let expected = before.rate() * window.seconds;
        let is_measurable = window.is_measurable()
            || (is_about_seeking && window.work > 0.0 && expected >= MEASURABLE);
        if !(is_over || (verdict.is_clear && is_measurable)) {
            return;
        }
        if !verdict.is_passed {
            self.give_up(way, from, before);
            if is_about_seeking {
                self.ask_again = self.now + LONGEST_PAUSE;
            }
        } else {
            if is_about_seeking {
                self.seeking = Seeking::Refuted;
                // So much better than one alone: this is the beginning of what else would have begun at once.
                self.is_ramp = verdict.ratio >= LIKE_A_LATENCY;
            }
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
        self.skips_next = true;
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
mod simulation;
