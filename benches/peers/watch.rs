//! How busy others keep the machine while something is measured.

use std::fs;
use std::time::Instant;

use nix::sys::resource::UsageWho;

use crate::machine::Machine;
use crate::runner::usage;

/// Watches how much of the processors goes to what is not measured. Who shares the machine measures the others, too, and
/// should know it. The kernel's own threads, which write back what was copied, cannot be told from others.
pub struct Watch {
    start: Instant,
    /// Seconds of all processors, of everybody; and of this process and those that it has started.
    busy: f64,
    own: f64,
}

impl Watch {
    /// Nothing where the system does not tell.
    pub fn start() -> Option<Self> {
        Some(Self {
            start: Instant::now(),
            busy: busy_seconds()?,
            own: own_seconds()?,
        })
    }

    /// The part, from 0 to 1, of all processors that others had since the start.
    pub fn others(&self) -> Option<f64> {
        let all = self.start.elapsed().as_secs_f64() * Machine::here().cores as f64;
        let others = (busy_seconds()? - self.busy) - (own_seconds()? - self.own);
        Some((others / all).clamp(0.0, 1.0))
    }
}

fn busy_seconds() -> Option<f64> {
    /// What the kernel counts in, for programs to see.
    const TICKS: f64 = 100.0;
    let text = fs::read_to_string("/proc/stat").ok()?;
    let words = text.lines().next()?.split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal
    let ticks: Vec<f64> = words.filter_map(|word| word.parse().ok()).take(8).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((ticks.iter().sum::<f64>() - idle) / TICKS)
}

fn own_seconds() -> Option<f64> {
    let seconds = |who| usage(who, 0.0).map(|usage| usage.user + usage.system).ok();
    Some(seconds(UsageWho::RUSAGE_SELF)? + seconds(UsageWho::RUSAGE_CHILDREN)?)
}
