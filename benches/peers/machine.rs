//! Where and when something was measured: without that, numbers say nothing.

use std::fs;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_gib: f64,
    pub kernel: String,
}

impl Machine {
    /// Looks at this one.
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processor = field(&read("/proc/cpuinfo"), "model name");
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_gib: (memory("MemTotal") as f64 / f64::from(1 << 30) * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// A line of /proc/meminfo, in bytes; 0 if there is none.
pub fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&text, name).unwrap_or_default();
    let kib = kib
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The first value that has this name.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// In UTC, as ISO 8601 has it.
pub fn date() -> String {
    let output = Command::new("date").args(["-u", "+%FT%TZ"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}
