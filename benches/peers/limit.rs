//! The limit: how fast a tree could be copied by somebody who knew everything about it beforehand.
//!
//! It is a copier ([`crate::copier`]) that cheats in every way that does not change the result. It has a list of its work, its
//! threads run already when the clock is started, it asks for nothing that it knows, makes only the system calls that the
//! result needs, checks nothing, and shares nothing between its threads but a counter of handed out units; each has a
//! descriptor table of its own. A copier that has to find out what there is can come near its time and not below it, unless
//! it uses calls in a way that no variant does.
//!
//! # Variants
//!
//! How data moves ([`Method`]), whether directories are made ahead or by whoever needs them first, and the number of threads.
//! Which is best depends on the cell, so a search outside the rounds finds out: all methods with both kinds of directories
//! at one number of threads, then the two best of them at all numbers ([`crate::measure`] says what `--hurry` leaves out). The
//! two fastest runs of the search take part in the rounds, and the better of them is the cell's limit. On ext4, what is not small
//! gets its blocks before it is written in all of them: nobody has been seen to be faster without.
//!
//! # The clock
//!
//! The process loads the list, says "ready", waits for a line, copies, and answers with what it has used in between. Its own
//! start and end do not count. In between the bench may empty caches; the process has nothing open then.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contestant::Mode;
use crate::runner::{self, Outcome, Usage, Watched};

/// The first argument of a process that is the limit; the second is the [`Task`].
pub const ROLE: &str = "--limit";

/// What it says when it waits for the clock.
pub const READY: &str = "ready";

/// From "let one thread do it" to many more than cores, which is what cold caches like.
const THREADS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// So many threads keep a disk busy: the search on cold caches begins there.
const COLD_THREADS: usize = 16;

/// Sizes in bytes. Smaller files may be better off when read and written: that is less to set up than sharing an extent.
const THRESHOLDS: [u64; 3] = [0, 16 << 10, 64 << 10];

/// One way to copy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    pub method: Method,
    /// All directories are made before the first file.
    pub ahead: bool,
    pub threads: usize,
}

/// How data moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    ReadWrite,
    /// copy_file_range(2) for files of this size or more.
    InKernel(u64),
    /// FICLONE for files of this size or more.
    Clone(u64),
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = |size: u64| match size {
            0 => String::new(),
            size => format!(" from {} KiB", size >> 10),
        };
        match self.method {
            Method::ReadWrite => write!(f, "read/write"),
            Method::InKernel(size) => write!(f, "copy_file_range{}", from(size)),
            Method::Clone(size) => write!(f, "FICLONE{}", from(size)),
        }?;
        let directories = if self.ahead { "ahead" } else { "just in time" };
        let s = if self.threads == 1 { "" } else { "s" };
        write!(f, ", directories {directories}, {} thread{s}", self.threads)
    }
}

/// The first half of the search: all ways at one number of threads.
pub fn ways(can_clone: bool, is_cold: bool, cores: usize) -> Vec<Variant> {
    let mut methods = vec![Method::ReadWrite];
    methods.extend(THRESHOLDS.map(Method::InKernel));
    if can_clone {
        methods.extend(THRESHOLDS.map(Method::Clone));
    }
    let threads = if is_cold { COLD_THREADS } else { cores };
    let both = |method| {
        [false, true].map(|ahead| Variant {
            method,
            ahead,
            threads,
        })
    };
    methods.into_iter().flat_map(both).collect()
}

/// The second half: this way at the other numbers of threads.
pub fn other_threads(way: Variant) -> Vec<Variant> {
    let others = THREADS.into_iter().filter(|&n| n != way.threads);
    others.map(|threads| Variant { threads, ..way }).collect()
}

/// What the process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Path of the saved list.
    pub list: String,
    pub source: String,
    pub copy: String,
    pub mode: Mode,
    pub variant: Variant,
    /// What is not small gets its blocks before it is written.
    pub allocates: bool,
}

/// A limit process that has loaded its list and waits.
pub struct Ready(Watched);

/// Starts the process and waits until it is ready.
pub fn prepare(task: &Task, patience: Duration) -> io::Result<Ready> {
    let mut command = runner::own_program()?;
    command.arg(ROLE).arg(serde_json::to_string(task)?);
    let mut process = Watched::start(command.stdin(Stdio::piped()))?;
    match process.answer(patience)? {
        Some(line) if line == READY => Ok(Ready(process)),
        other => Err(io::Error::other(format!("the limit said {other:?}"))),
    }
}

impl Ready {
    /// Starts the clock, and waits for the end so long at most.
    pub fn go(mut self, patience: Duration) -> io::Result<Outcome> {
        if let Some(input) = &mut self.0.child.stdin {
            input.write_all(b"go\n")?;
        }
        let Some(answer) = self.0.answer(patience)? else {
            return Ok(Outcome::Hung(patience));
        };
        match serde_json::from_str::<Result<Usage, String>>(&answer)? {
            Ok(usage) => Ok(Outcome::Done(usage)),
            Err(message) => Ok(Outcome::Failed(message)),
        }
    }
}

/// A path as [`Task`] has it: text, as all paths of this bench are.
pub fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
