//! What signals do. The first one asks the copy to stop, which then cleans up and is reported; a second one ends the process at
//! once, and so does [`GRACE`] without an end: what a worker waits for may never come, a FIFO's other end for example. A signal
//! that is ignored, as nohup(1) makes SIGHUP be, stays so.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use poolcp::Canceller;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How long a copy may take to stop. Between two looks at whether it should, a worker copies 16 MiB at most.
pub const GRACE: Duration = Duration::from_secs(5);

/// The signals that came.
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// From now on signals stop a copy.
    pub fn stop(canceller: &Canceller) -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            // In this order: it looks at the flag before it is set.
            flag::register_conditional_shutdown(signal, 128 + signal, canceller.flag())?;
            // Cannot fail to convert: they are small.
            flag::register_usize(signal, Arc::clone(&last), signal.unsigned_abs() as usize)?;
            flag::register(signal, canceller.flag())?;
        }
        Ok(Self(last))
    }

    /// What a shell expects as the exit code of a process that a signal ended; `None` if none came.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}

/// The process's ignored signals, signal 1 in the lowest bit (proc_pid_status(5), `SigIgn`). None, where there is no /proc.
fn ignored() -> u64 {
    // Room for all of it: one call is enough.
    let mut status = [0; 4096];
    let read = File::open("/proc/self/status").and_then(|mut file| file.read(&mut status));
    let text = str::from_utf8(&status[..read.unwrap_or(0)]).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}
