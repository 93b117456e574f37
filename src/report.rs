//! The report at the end of a copy: the sums, the time and the errors; as text here, as JSON in [`crate::json`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use humansize::{BINARY, format_size};

use crate::busy::Busy;
use crate::counters::Stats;
use crate::error::{Error, Operation};
use crate::options::Options;
use crate::wording::thousands;

/// What one finished copy did. `Display` is the text for a terminal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The counts.
    pub stats: Stats,
    /// From the start of the copy to its end.
    pub elapsed: Duration,
    /// How many workers the pool had; where the number was found while the copy ran, the most that were busy at a time.
    pub workers: usize,
    /// It was told to stop, by a [`crate::Canceller`], and may not have copied everything.
    pub cancelled: bool,
    /// Nothing was changed: the counts are what would have been done.
    pub dry_run: bool,
    /// How many workers were busy over time, where their number was found while the copy ran.
    pub busy: Option<Busy>,
    /// The first errors, at most [`Report::KEPT_ERRORS`]; [`Stats::errors`] counts them all.
    pub errors: Vec<Error>,
    /// All errors, counted by their kind, the most frequent first.
    pub error_counts: Vec<ErrorCount>,
    /// The first warnings, at most [`Report::KEPT_ERRORS`]; [`Stats::warnings`] counts them all.
    pub warnings: Vec<Error>,
    /// What was asked for.
    pub options: Options,
}

/// How many errors of one kind there were. `Display` is the message that they share, without their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorCount {
    /// What was being done.
    pub operation: Operation,
    /// The kernel's error number (errno(3)); `None` where a rule, and not the kernel, said no.
    pub errno: Option<i32>,
    /// How often.
    pub count: u64,
}

impl fmt::Display for ErrorCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation.explain(self.errno, "FILE", "FILE"))
    }
}

/// What has been told of, as much of it as a report has.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub errors: Vec<Error>,
    pub warnings: Vec<Error>,
    counts: HashMap<(Operation, Option<i32>), u64>,
    /// How much memory they take, about, in bytes.
    room: usize,
}

impl Told {
    pub(crate) fn error(&mut self, error: Error) {
        let kind = (error.operation(), error.errno());
        *self.counts.entry(kind).or_default() += 1;
        if self.errors.len() < Report::KEPT_ERRORS && self.take_room(&error) {
            self.errors.push(error);
        }
    }

    /// Takes the room for one more, if there is as much.
    fn take_room(&mut self, error: &Error) -> bool {
        let room = self.room + error.size();
        let has_room = self.errors.is_empty() || room <= Report::KEPT_BYTES;
        if has_room {
            self.room = room;
        }
        has_room
    }

    pub(crate) fn warning(&mut self, warning: &Error) {
        if self.warnings.len() < Report::KEPT_ERRORS && self.take_room(warning) {
            self.warnings.push(warning.clone());
        }
    }

    /// The errors by their kind, the most frequent first.
    pub(crate) fn counts(&self) -> Vec<ErrorCount> {
        let counts = self.counts.iter();
        let mut counts: Vec<_> = counts
            .map(|(&(operation, errno), &count)| ErrorCount {
                operation,
                errno,
                count,
            })
            .collect();
        // Those that are equally frequent in an order that is always the same.
        counts.sort_by_cached_key(|kind| (Reverse(kind.count), kind.to_string()));
        counts
    }
}

impl Report {
    /// How many errors a report keeps: all, of any copy that somebody will look at one by one; few enough that a run over a
    /// broken disk does not keep a message for each of its files in memory (some 200 bytes each).
    pub const KEPT_ERRORS: usize = 10_000;

    /// And how much memory they may take, in bytes: paths may be long.
    const KEPT_BYTES: usize = 32 << 20;

    /// How many of them the text shows.
    const SHOWN_ERRORS: usize = 10;

    /// Whether everything that was asked for was done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.stats.errors == 0 && !self.cancelled
    }

    /// Rates count at least a microsecond, so that an empty copy divides by something.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn whole_per_second(&self, count: u64) -> u64 {
        self.per_second(count).round() as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        let made = [
            (stats.files, "file", "files"),
            (stats.directories, "directory", "directories"),
            (stats.symlinks, "symlink", "symlinks"),
            (stats.hard_links, "hard link", "hard links"),
            (stats.specials, "special file", "special files"),
        ];
        let made = list(made.iter().enumerate().filter_map(|(i, &(n, one, many))| {
            let word = if n == 1 { one } else { many };
            (i == 0 || n > 0).then(|| format!("{} {word}", thousands(n)))
        }));
        if self.dry_run {
            row(
                f,
                "dry run",
                "nothing was changed; this is what would be done",
            )?;
        }
        row(f, "copied", &made)?;
        row(f, "bytes", &bytes_line(stats))?;
        let files = thousands(self.whole_per_second(stats.files));
        let bytes = format_size(self.whole_per_second(stats.bytes), BINARY);
        row(f, "rate", &format!("{files} files/s, {bytes}/s"))?;
        row(f, "time", &seconds(self.elapsed))?;
        if stats.verify_nanoseconds > 0 {
            let size = format_size(stats.verified_bytes, BINARY);
            let spent = seconds(Duration::from_nanos(stats.verify_nanoseconds));
            row(
                f,
                "verified",
                &format!("{size}, {spent} of the workers' time"),
            )?;
        }
        row(f, "workers", &workers_line(self))?;
        for (label, count) in [
            ("updated", stats.dressed),
            ("deleted", stats.deleted),
            ("skipped", stats.skipped),
            ("left out", stats.excluded),
            ("warnings", stats.warnings),
        ] {
            if count > 0 {
                row(f, label, &thousands(count))?;
            }
        }
        if self.cancelled {
            row(f, "stopped", "before the end")?;
        }
        if stats.errors == 0 {
            return row(f, "errors", "none");
        }
        row(f, "errors", &thousands(stats.errors))?;
        let shown = &self.errors[..self.errors.len().min(Self::SHOWN_ERRORS)];
        for error in shown {
            writeln!(f, "  {error}")?;
        }
        let more = stats.errors - shown.len() as u64;
        if more > 0 {
            writeln!(f, "  and {} more:", thousands(more))?;
        }
        for kind in &self.error_counts {
            let is_kind =
                |error: &&Error| (error.operation(), error.errno()) == (kind.operation, kind.errno);
            let more = kind.count - shown.iter().filter(is_kind).count() as u64;
            if more > 0 {
                writeln!(f, "  {:>7} times {kind}", thousands(more))?;
            }
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    writeln!(f, "{label:<9} {value}")
}

fn bytes_line(stats: &Stats) -> String {
    let size = format_size(stats.bytes, BINARY);
    let methods = [
        (stats.reflinked_bytes, "shared"),
        (stats.kernel_bytes, "moved in the kernel"),
        (stats.read_write_bytes, "read and written"),
    ];
    let used: Vec<_> = methods.iter().filter(|(n, _)| *n > 0).collect();
    match used[..] {
        [] => size,
        // One method for all: its size is the size.
        [(n, how)] if *n == stats.bytes => format!("{size}, {how}"),
        _ => {
            let parts = used
                .iter()
                .map(|(n, how)| format!("{} {how}", format_size(*n, BINARY)));
            format!("{size}: {}", list(parts))
        }
    }
}

/// `4`, if that was asked for; else what was found, `1 to 32 (median 16), auto`.
fn workers_line(report: &Report) -> String {
    match &report.busy {
        None => thousands(report.workers as u64),
        Some(busy) if busy.least() == busy.most() => format!("{}, auto", busy.most()),
        Some(busy) => {
            let (least, median, most) = (busy.least(), busy.median(), busy.most());
            format!("{least} to {most} (median {median}), auto")
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{:.3} s", duration.as_secs_f64()),
        1..60 => format!("{:.2} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            format!("{hours} h {minutes:02} min {:02} s", seconds % 60)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::Errno;

    pub(crate) fn report() -> Report {
        Report {
            stats: Stats {
                files: 1_234_567,
                directories: 1,
                bytes: 3 << 30,
                kernel_bytes: 1 << 30,
                read_write_bytes: 1 << 29,
                ..Stats::default()
            },
            elapsed: Duration::from_millis(2_000),
            workers: 2,
            cancelled: false,
            dry_run: false,
            busy: None,
            errors: Vec::new(),
            error_counts: Vec::new(),
            warnings: Vec::new(),
            options: Options::default(),
        }
    }

    #[test]
    fn text_is_aligned_and_fits_80_columns() {
        let text = report().to_string();
        assert_eq!(
            text,
            "copied    1,234,567 files, 1 directory\n\
             bytes     3 GiB: 1 GiB moved in the kernel, 512 MiB read and written\n\
             rate      617,284 files/s, 1.50 GiB/s\n\
             time      2.00 s\n\
             workers   2\n\
             errors    none\n"
        );
        assert!(text.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn text_shows_the_first_errors_and_counts_the_rest() {
        let mut report = report();
        let mut told = Told::default();
        for i in 0..1234 {
            told.error(Error::new(Operation::Stat, format!("f{i}")));
            if i < 7 {
                let full = Error::new(Operation::Write, format!("f{i}"));
                told.error(full.with_errno(Errno::NOSPC));
            }
        }
        report.error_counts = told.counts();
        report.errors = told.errors;
        report.stats.errors = 1241;
        let text = report.to_string();
        assert!(
            text.ends_with(
                "  error writing 'f4': No space left on device\n  \
                 and 1,231 more:\n    \
                 1,229 times cannot stat FILE\n        \
                 2 times error writing FILE: No space left on device\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_empty_copy_has_a_finite_rate() {
        let mut report = report();
        (report.stats, report.elapsed) = (Stats::default(), Duration::ZERO);
        assert!(report.to_string().contains("0 files/s"));
    }

    #[test]
    fn workers_that_were_found_are_told_as_how_many_were_busy() {
        let mut busy = Busy::default();
        for (moment, workers) in [(10, 0.2), (20, 2.0), (30, 2.0), (40, 31.6), (100, 31.9)] {
            busy.push(Duration::from_millis(moment), workers);
        }
        let mut report = report();
        report.busy = Some(busy);
        let text = report.to_string();
        assert!(
            text.contains("\nworkers   1 to 32 (median 32), auto\n"),
            "{text}"
        );
        assert_eq!(report.to_json()["busy_workers"]["series"][3][1], 31.6);
        let mut steady = Busy::default();
        steady.push(Duration::from_millis(10), 2.0);
        steady.push(Duration::from_millis(20), 1.9);
        report.busy = Some(steady);
        assert!(report.to_string().contains("\nworkers   2, auto\n"));
    }
}
