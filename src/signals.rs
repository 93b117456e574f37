//! What signals do.
//!
//! | signal | |
//! |---|---|
//! | SIGINT, SIGTERM, SIGHUP | The first one asks the copy to stop, which then cleans up and is reported, and the process ends as by the signal itself: a shell stops its script for Ctrl-C only then. A second one ends the process at once, but for the first moment: one act of the user may send two (timeout(1) does, and a terminal that is closed). So does [`GRACE`] without an end: what a worker waits for may never come, a FIFO's other end for example, or somebody who reads what the process says. |
//! | SIGUSR1 | One line about how far the copy is, as dd(1) prints one: at any time (but after the answer, where somebody is asked), terminal or not, and by the name `cp`, too. By itself it would end the process, which nobody wants who sends it. |
//! | SIGTSTP | The live view is taken away before the process stops. Where nobody could let it go on, it does not stop. |
//!
//! A signal that is ignored, as nohup(1) makes SIGHUP be, stays so.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use poolcp::Canceller;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

use crate::job_control;
use crate::own_status::own_status;

/// How long a copy may take to stop. Between two looks at whether it should, a worker copies 16 MiB at most.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long somebody who waits for a signal sleeps at a time.
const LOOK_UP: Duration = Duration::from_millis(250);

/// The signals that came.
pub struct Signals {
    /// Those that stop the copy.
    stopping: Vec<i32>,
    /// The last one that did; 0 if none came.
    last: Arc<AtomicUsize>,
    /// The next one that stops the copy ends the process.
    ends_now: Arc<AtomicBool>,
    asks: Arc<AtomicBool>,
    pauses: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals stop a copy, or ask about it. SIGTSTP is waited for only if something `is_drawn` that would have
    /// to be taken away.
    pub fn handle(canceller: &Canceller, is_drawn: bool) -> io::Result<Self> {
        let ignored = ignored();
        let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
        let stopping = [SIGINT, SIGTERM, SIGHUP].into_iter();
        let signals = Self {
            stopping: stopping.filter(|&signal| !is_ignored(signal)).collect(),
            last: Arc::default(),
            ends_now: Arc::default(),
            asks: Arc::default(),
            pauses: Arc::default(),
        };
        for &signal in &signals.stopping {
            let ends_now = Arc::clone(&signals.ends_now);
            if is_spared() {
                flag::register_conditional_shutdown(signal, exit_code(signal), ends_now)?;
            } else {
                flag::register_conditional_default(signal, ends_now)?;
            }
            // Cannot fail to convert: they are small.
            let number = signal.unsigned_abs() as usize;
            flag::register_usize(signal, Arc::clone(&signals.last), number)?;
            flag::register(signal, canceller.flag())?;
        }
        if !is_ignored(SIGUSR1) {
            flag::register(SIGUSR1, Arc::clone(&signals.asks))?;
        }
        // Whoever writes beyond a limit (ulimit -f) then gets an error, for the one file.
        flag::register(SIGXFSZ, Arc::default())?;
        if is_drawn && !is_ignored(SIGTSTP) {
            flag::register(SIGTSTP, Arc::clone(&signals.pauses))?;
        }
        Ok(signals)
    }

    /// Sees to it that the process ends in time once a signal has stopped the copy, on a thread of its own that waits for nobody:
    /// all others may wait for whoever reads what they write.
    pub fn enforce(&self) {
        let (last, ends_now) = (Arc::clone(&self.last), Arc::clone(&self.ends_now));
        let watchdog = thread::Builder::new().spawn(move || {
            while last.load(Ordering::Relaxed) == 0 {
                thread::sleep(LOOK_UP);
            }
            thread::sleep(LOOK_UP);
            ends_now.store(true, Ordering::Relaxed);
            // Who waits for the copy comes first, and says so.
            thread::sleep(GRACE + LOOK_UP);
            end_by(&last);
        });
        if watchdog.is_err() {
            self.end_at_second();
        }
    }

    /// Whatever comes second ends the process, as soon as it may come.
    pub fn end_at_second(&self) {
        for &signal in &self.stopping {
            // Refused, too, it is the copy alone that can end.
            let _ = flag::register(signal, Arc::clone(&self.ends_now));
        }
    }

    /// Ends the process as the signal would have that has stopped the copy; does nothing if none came.
    pub fn end_process(&self) {
        end_by(&self.last);
    }

    /// Whether somebody has asked how far it is since this was called last.
    pub fn asks(&self) -> bool {
        self.asks.swap(false, Ordering::Relaxed)
    }

    /// Stops the process if it was told to (Ctrl-Z), until it is told to go on. `clean` is called before.
    pub fn pause(&self, clean: impl FnOnce()) {
        if self.pauses.swap(false, Ordering::Relaxed) && !job_control::is_orphaned() {
            clean();
            // Refused, the process would only not stop.
            let _ = emulate_default_handler(SIGTSTP);
        }
    }
}

/// Ends the process as this signal would have, if it is one.
fn end_by(signal: &AtomicUsize) {
    let signal = i32::try_from(signal.load(Ordering::Relaxed)).unwrap_or(0);
    if signal != 0 {
        if !is_spared() {
            // Refused, the exit code says it.
            let _ = emulate_default_handler(signal);
        }
        process::exit(exit_code(signal));
    }
}

/// The process's ignored signals, signal 1 in the lowest bit. None, where there is no /proc.
fn ignored() -> u64 {
    let mask = own_status("SigIgn:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    mask.unwrap_or(0)
}

/// Whether the kernel spares this process all signals that nobody handles, as it does the first one of a PID namespace, a
/// container's for example (pid_namespaces(7)). What a signal would do it has to do by itself.
fn is_spared() -> bool {
    process::id() == 1
}

/// What a shell makes of the end by a signal.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}
