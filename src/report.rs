//! What a copy did: counters while it runs, their sums, and the report at the end as text and as JSON.
//!
//! Three tiers:
//! 1. `Counters`: what the workers write. Each worker has a slot of its own on its own cache lines, so counting costs
//!    no traffic between cores; a reader adds the slots up.
//! 2. [`Stats`]: plain sums; they add up over workers, jobs and processes.
//! 3. [`Report`]: the sums, the time and the errors of one finished copy.
//!
//! The report as JSON is in [`crate::json`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use humansize::{BINARY, format_size};

use crate::error::{Error, Operation};
use crate::live::Underway;
use crate::options::Options;

/// How a file's bytes came to the copy: the rungs of the ladder in `data.rs`, fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The copy shares the source's blocks until one of the two is written; nothing moved.
    Reflink,
    /// Moved inside the kernel by copy_file_range(2).
    Kernel,
    /// Read into a buffer and written from it.
    ReadWrite,
}

/// What is counted, as an index into a worker's slot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Files,
    Directories,
    Symlinks,
    HardLinks,
    Specials,
    Bytes,
    Reflinked,
    InKernel,
    ReadWritten,
    /// Bytes read back.
    Verified,
    /// Nanoseconds spent on it.
    Verifying,
    /// Files that got other attributes and no data.
    Dressed,
    Skipped,
    Excluded,
    Deleted,
    Warnings,
    Errors,
    /// Entries that were listed, and operands.
    Found,
    /// Entries about which nothing is left to be done.
    Done,
}

/// One more than the last [`Count`].
const COUNTS: usize = Count::Done as usize + 1;

/// A worker's own counters. 128 bytes is two cache lines: the processor prefetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot([AtomicU64; COUNTS]);

/// Slots, for as many workers as a tuner finds at most on all but the largest machines: more share them, which costs a
/// little and counts as well.
const SLOTS: usize = 128;

/// The counters of a copy.
#[derive(Debug)]
pub(crate) struct Counters {
    slots: [Slot; SLOTS],
    /// How many workers were busy a moment ago; 0 where nobody looks.
    busy: AtomicUsize,
    pub(crate) underway: Underway,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot::default()),
            busy: AtomicUsize::new(0),
            underway: Underway::default(),
        }
    }
}

impl Counters {
    pub(crate) fn add(&self, count: Count, n: u64) {
        let worker = rayon::current_thread_index().unwrap_or(0);
        // Relaxed: a count orders nothing. The end of a copy is seen through the job's own synchronisation.
        self.slots[worker % SLOTS].0[count as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, method: Method, n: u64) {
        let count = match method {
            Method::Reflink => Count::Reflinked,
            Method::Kernel => Count::InKernel,
            Method::ReadWrite => Count::ReadWritten,
        };
        self.add(count, n);
    }

    /// Says how many workers have been busy, on average, since this was called last.
    pub(crate) fn set_busy(&self, workers: f64) {
        self.busy.store(whole(workers), Ordering::Relaxed);
    }

    /// How many workers were busy a moment ago, if anybody looks.
    pub(crate) fn busy(&self) -> Option<usize> {
        Some(self.busy.load(Ordering::Relaxed)).filter(|busy| *busy > 0)
    }

    /// Entries have been found, and so many of them may have to be listed.
    pub(crate) fn found(&self, entries: u64, dirs: u64) {
        self.add(Count::Found, entries);
        self.underway.add_unlisted(dirs);
    }

    /// How many entries have been found, and about how many of them nothing is left to be done.
    pub(crate) fn entries(&self) -> (u64, u64) {
        // In this order: what is done has been found.
        let done = self.total(Count::Done);
        (self.total(Count::Found), done)
    }

    fn total(&self, count: Count) -> u64 {
        let slots = self.slots.iter();
        slots
            .map(|slot| slot.0[count as usize].load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn sum(&self) -> Stats {
        let total = |count: Count| self.total(count);
        Stats {
            files: total(Count::Files),
            directories: total(Count::Directories),
            symlinks: total(Count::Symlinks),
            hard_links: total(Count::HardLinks),
            specials: total(Count::Specials),
            bytes: total(Count::Bytes),
            reflinked_bytes: total(Count::Reflinked),
            kernel_bytes: total(Count::InKernel),
            read_write_bytes: total(Count::ReadWritten),
            verified_bytes: total(Count::Verified),
            verify_nanoseconds: total(Count::Verifying),
            skipped: total(Count::Skipped),
            excluded: total(Count::Excluded),
            dressed: total(Count::Dressed),
            deleted: total(Count::Deleted),
            warnings: total(Count::Warnings),
            errors: total(Count::Errors),
        }
    }
}

/// Counts of what a copy has done. They add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Regular files copied.
    pub files: u64,
    /// Directories made, or merged into.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names given to files that were copied already.
    pub hard_links: u64,
    /// FIFOs, sockets and device files made.
    pub specials: u64,
    /// Sizes of the regular files copied, in bytes, holes included.
    pub bytes: u64,
    /// Bytes shared with the source instead of moved.
    pub reflinked_bytes: u64,
    /// Bytes moved inside the kernel.
    pub kernel_bytes: u64,
    /// Bytes read and written.
    pub read_write_bytes: u64,
    /// Bytes read back and found to be as they were written (`--verify`).
    pub verified_bytes: u64,
    /// What that took, in nanoseconds, over all workers.
    pub verify_nanoseconds: u64,
    /// Destinations left alone on purpose.
    pub skipped: u64,
    /// Sources left out by the filter; a directory counts as one.
    pub excluded: u64,
    /// Entries whose data was up to date, and that got attributes only.
    pub dressed: u64,
    /// Entries of the destination removed because the source does not have them (`--delete`).
    pub deleted: u64,
    /// Warnings.
    pub warnings: u64,
    /// Errors.
    pub errors: u64,
}

impl Stats {
    /// The bytes that really moved.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.kernel_bytes + self.read_write_bytes
    }
}

impl Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            directories: self.directories + other.directories,
            symlinks: self.symlinks + other.symlinks,
            hard_links: self.hard_links + other.hard_links,
            specials: self.specials + other.specials,
            bytes: self.bytes + other.bytes,
            reflinked_bytes: self.reflinked_bytes + other.reflinked_bytes,
            kernel_bytes: self.kernel_bytes + other.kernel_bytes,
            read_write_bytes: self.read_write_bytes + other.read_write_bytes,
            verified_bytes: self.verified_bytes + other.verified_bytes,
            verify_nanoseconds: self.verify_nanoseconds + other.verify_nanoseconds,
            skipped: self.skipped + other.skipped,
            excluded: self.excluded + other.excluded,
            dressed: self.dressed + other.dressed,
            deleted: self.deleted + other.deleted,
            warnings: self.warnings + other.warnings,
            errors: self.errors + other.errors,
        }
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// How many workers were busy over the time of a copy whose number of workers was found while it ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Busy {
    /// Moments since the start of the copy, and how many workers were busy, on average, since the moment before.
    series: Vec<(Duration, f64)>,
}

impl Busy {
    /// So many moments are kept at most: enough for a chart, few enough for a report of a copy that takes days.
    const KEPT: usize = 1024;

    /// Adds a moment later than all before. Of too many, neighbours are merged.
    pub(crate) fn push(&mut self, at: Duration, busy: f64) {
        if self.series.len() >= Self::KEPT {
            let mut before = Duration::ZERO;
            let pairs = self.series.chunks(2).map(|pair| {
                let begun = std::mem::replace(&mut before, pair[pair.len() - 1].0);
                let mut time = 0.0;
                let mut sum = 0.0;
                let mut from = begun;
                for &(to, busy) in pair {
                    let seconds = to.saturating_sub(from).as_secs_f64();
                    time += seconds;
                    sum += busy * seconds;
                    from = to;
                }
                (before, sum / time.max(1e-9))
            });
            self.series = pairs.collect();
        }
        self.series.push((at, busy));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// How many workers were busy, as pairs of a moment since the start of the copy and the mean since the pair before.
    #[must_use]
    pub fn series(&self) -> &[(Duration, f64)] {
        &self.series
    }

    /// The fewest.
    #[must_use]
    pub fn least(&self) -> usize {
        self.counts().next().map_or(0, |(count, _)| count)
    }

    /// The most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.counts().last().map_or(0, |(count, _)| count)
    }

    /// So many or fewer for half of the time, so many or more for the other half.
    #[must_use]
    pub fn median(&self) -> usize {
        let all: Duration = self.counts().map(|(_, time)| time).sum();
        let mut passed = Duration::ZERO;
        let mut counts = self.counts();
        let half = counts.find(|(_, time)| {
            passed += *time;
            passed * 2 >= all
        });
        half.map_or(0, |(count, _)| count)
    }

    /// Whole numbers of workers, the fewest first, each with how long they were busy.
    fn counts(&self) -> impl Iterator<Item = (usize, Duration)> + use<> {
        let mut before = Duration::ZERO;
        let intervals = self.series.iter().map(|&(at, busy)| {
            let begun = std::mem::replace(&mut before, at);
            (whole(busy), at.saturating_sub(begun))
        });
        let mut counts: Vec<_> = intervals.collect();
        counts.sort_unstable();
        counts.into_iter()
    }
}

/// A mean number of workers as a whole one: there is always one at least.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(workers: f64) -> usize {
    workers.round().max(1.0) as usize
}

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
}

impl Told {
    pub(crate) fn error(&mut self, error: Error) {
        let kind = (error.operation(), error.errno());
        *self.counts.entry(kind).or_default() += 1;
        if self.errors.len() < Report::KEPT_ERRORS {
            self.errors.push(error);
        }
    }

    pub(crate) fn warning(&mut self, warning: &Error) {
        if self.warnings.len() < Report::KEPT_ERRORS {
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

/// A number with a comma between each three digits.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    fn report() -> Report {
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
    fn json_has_bytes_and_seconds() {
        let mut report = report();
        let error = Error::new(Operation::Open, "x").with_errno(crate::sys::Errno::ACCESS);
        report.errors.push(error);
        report.stats.errors = 1;
        let json = report.to_json();
        assert_eq!(json["bytes"], 3_u64 << 30);
        assert_eq!(json["elapsed_seconds"], 2.0);
        assert_eq!(json["error_list"][0]["errno"], 13);
        assert_eq!(json["error_list"][0]["operation"], "Open");
    }

    #[test]
    fn an_empty_copy_has_a_finite_rate() {
        let mut report = report();
        (report.stats, report.elapsed) = (Stats::default(), Duration::ZERO);
        assert!(report.to_string().contains("0 files/s"));
    }

    /// Moments of 10 ms each.
    fn busy(counts: &[f64]) -> Busy {
        let mut busy = Busy::default();
        for (i, &count) in (1..).zip(counts) {
            busy.push(Duration::from_millis(10 * i), count);
        }
        busy
    }

    #[test]
    fn busy_workers_are_counted_by_the_time_that_they_were_busy() {
        let mut several = busy(&[0.2, 2.0, 2.0, 31.6]);
        assert_eq!((several.least(), several.most()), (1, 32));
        assert_eq!(several.median(), 2);
        several.push(Duration::from_millis(100), 31.9);
        assert_eq!(several.median(), 32);
        let mut report = report();
        report.busy = Some(several);
        let text = report.to_string();
        assert!(
            text.contains("\nworkers   1 to 32 (median 32), auto\n"),
            "{text}"
        );
        assert_eq!(report.to_json()["busy_workers"]["series"][3][1], 31.6);
        report.busy = Some(busy(&[2.0, 1.9]));
        assert!(report.to_string().contains("\nworkers   2, auto\n"));
    }

    #[test]
    fn a_long_series_is_merged_and_means_the_same() {
        let counts: Vec<f64> = (0..5000).map(|i| f64::from(i % 2)).collect();
        let series = busy(&counts);
        assert!(series.series().len() <= Busy::KEPT);
        assert_eq!(
            series.series().last().unwrap().0,
            Duration::from_millis(50_000)
        );
        let mut before = Duration::ZERO;
        let sum: f64 = series
            .series()
            .iter()
            .map(|&(at, busy)| busy * (at - std::mem::replace(&mut before, at)).as_secs_f64())
            .sum();
        assert!((sum - 25.0).abs() < 0.01, "{sum}");
    }

    #[test]
    fn stats_add_up() {
        let mut sum = report().stats;
        sum += report().stats;
        assert_eq!(sum.files, 2 * 1_234_567);
        assert_eq!(sum.bytes_moved(), 3 << 30);
    }
}
