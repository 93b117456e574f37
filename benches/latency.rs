//! How a copy's time depends on the number of workers where each operation takes its time.
//!
//! On a network filesystem, or a disk that has not been read yet, a worker waits for nearly all of its time, and a machine's
//! processors say nothing about how many workers are right: hundreds may wait at once. Here the waiting is made to measure.
//! A filesystem in user space shows a directory in memory, and answers each operation 5 ms late, any number of them at once
//! (`tests/it/passthrough.rs` says how it makes sure of that).
//!
//! # What is measured
//!
//! The time that a program takes, from its start to its end, to copy a tree of small files:
//!
//! | cell | from | to |
//! |---|---|---|
//! | `from` | the slow filesystem | memory |
//! | `to` | memory | the slow filesystem |
//! | `both` | the slow filesystem | the slow filesystem |
//!
//! by `poolcp -r` with 1 to 64 workers and with as many as it finds right by itself (`-j auto`, the default); and by
//! `cp -r`, and rsync, cpz and xcp if they are on `PATH` or in `POOLCP_PEERS` (directories, separated as in `PATH` and looked
//! at before it). One worker copies some 30 files in a second, however many there are, so runs that are expected to be slow
//! copy one of the tree's sixteen branches. Every copy is compared with its source, byte by byte.
//!
//! The goal: with `-j auto` at least 20 times as many files in a second as with `-j 1`.
//!
//! Each row of the result also has the operations that a file took, everything included, and the most operations that
//! were waited for at once: with N workers N, or a little more, for the kernel reads ahead. The kernel makes names in one
//! directory one by one, so where copies are made there may be fewer.
//!
//! # How to run it
//!
//! ```text
//! cargo bench --bench latency                        # everything, some ten minutes
//! cargo bench --bench latency -- from                # one cell
//! cargo bench --bench latency -- --delay 20          # milliseconds
//! cargo bench --bench latency -- --depth 16          # a device that works on 16 operations at once
//! cargo bench --bench latency -- --rounds 5          # medians of 5, interleaved
//! cargo bench --bench latency -- --test              # tiny, in seconds
//! ```
//!
//! It needs the right to mount, and /dev/fuse; without them it says so, and succeeds. The data (less than 100 MB) lies in a
//! new directory inside the one that `POOLCP_BENCH_DIR` names, or else in /dev/shm; it is removed at the end, but not if the
//! bench is killed. The filesystem is unmounted in any case.

// What only the tests use of it.
#[allow(dead_code)]
#[path = "../tests/it/passthrough.rs"]
mod passthrough;
mod tools;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use passthrough::{Manners, Passthrough};
use tempfile::TempDir;
use tools::Tool;

/// The fixed numbers of workers.
const WORKERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The goal: how many times faster than one worker poolcp must be by itself.
const GOAL: f64 = 20.0;

/// As many operations at once as any copier here could have under way, workers and the kernel's own (reading ahead,
/// releasing) together.
const UNLIMITED: usize = 256;

/// How much is copied.
#[derive(Clone, Copy)]
struct Shape {
    branches: usize,
    /// In each branch.
    dirs: usize,
    /// In each of those.
    files: usize,
}

/// Three seconds for 32 workers: time for a controller to find its number and to be seen using it.
const WHOLE: Shape = Shape {
    branches: 16,
    dirs: 12,
    files: 20,
};

/// For runs that take many times as long.
const PART: Shape = Shape {
    branches: 1,
    ..WHOLE
};

/// For `--test`.
const TINY: Shape = Shape {
    branches: 2,
    dirs: 3,
    files: 4,
};

/// From this number of workers on the whole tree is copied.
const WHOLE_FROM: usize = 8;

/// Measures copies to and from a filesystem that takes its time
#[derive(Parser)]
struct Args {
    /// Which of from, to and both; all without this
    cells: Vec<String>,
    /// How long each operation takes, in milliseconds
    #[arg(long, default_value_t = 5)]
    delay: u64,
    /// How many operations are under way at once, at most
    #[arg(long, default_value_t = UNLIMITED)]
    depth: usize,
    /// How often each copy is made
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Everything once and tiny, in seconds
    #[arg(long)]
    test: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// `cargo test` runs benches as well, without `--bench`, and with whatever options its tests are to get.
    fn get() -> Self {
        let is_bench = env::args_os().any(|arg| arg == "--bench");
        if is_bench {
            Self::parse()
        } else {
            Self::parse_from(["latency", "--test"])
        }
    }

    fn wants(&self, cell: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|wanted| wanted == cell)
    }
}

fn main() -> ExitCode {
    let args = Args::get();
    let (whole, part) = if args.test {
        (TINY, TINY)
    } else {
        (WHOLE, PART)
    };
    let data = Data::make(whole, part).expect("the sources can be made");
    let manners = Manners {
        delay: Duration::from_millis(args.delay),
        depth: args.depth,
        ..Manners::default()
    };
    let slow = match Passthrough::mount(&data.path("below"), &data.path("slow"), manners) {
        Ok(slow) => slow,
        Err(error) => {
            println!("latency: left out, for no FUSE filesystem can be mounted here: {error}");
            return ExitCode::SUCCESS;
        }
    };
    let mut copiers: Vec<Copier> = WORKERS.map(Copier::Fixed).into();
    copiers.push(Copier::Auto);
    copiers.extend(Tool::all().map(Copier::Other));
    if args.test {
        copiers.retain(|copier| !matches!(copier, Copier::Fixed(2..=32)));
    }
    let depth = if args.depth == UNLIMITED {
        "as many at once as there are".to_owned()
    } else {
        format!("{} at once", args.depth)
    };
    println!(
        "Each operation takes {} ms, {depth}; {} files, or {} where a number is marked *; rounds: {}.",
        args.delay,
        whole.count(),
        part.count(),
        args.rounds
    );
    for cell in Cell::ALL.iter().filter(|cell| args.wants(cell.name)) {
        measure(cell, &data, &slow, &copiers, &args);
    }
    ExitCode::SUCCESS
}

/// Where from, and where to.
struct Cell {
    name: &'static str,
    /// The directories of [`Data`] that the program is given.
    from: &'static str,
    to: &'static str,
    /// Where the copy is then, to be looked at and removed without delay.
    copied: &'static str,
}

impl Cell {
    const ALL: [Self; 3] = [
        Self {
            name: "from",
            from: "slow",
            to: "plain",
            copied: "plain",
        },
        Self {
            name: "to",
            from: "plain",
            to: "slow",
            copied: "below",
        },
        Self {
            name: "both",
            from: "slow",
            to: "slow",
            copied: "below",
        },
    ];
}

/// Makes all copies of a cell, in turns, and prints its table.
fn measure(cell: &Cell, data: &Data, slow: &Passthrough, copiers: &[Copier], args: &Args) {
    let mut rows: Vec<Row> = copiers.iter().map(Row::of).collect();
    for _ in 0..args.rounds {
        for row in &mut rows {
            let tree = if row.copier.is_slow() && !args.test {
                Tree::Part
            } else {
                Tree::Whole
            };
            row.runs.push(run(cell, data, slow, row.copier, tree));
        }
    }
    println!("\n{}\n", cell.name);
    println!("| copier | files | time, s | files/s | gain | operations a file | most at once |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let one = rows[0].rate();
    for row in &rows {
        println!("{}", row.text(one));
    }
    let auto = rows.iter().find(|row| matches!(row.copier, Copier::Auto));
    if let Some(gain) = auto.and_then(|row| Some(row.rate()? / one?))
        && !args.test
    {
        let met = if gain >= GOAL {
            "reached"
        } else {
            "not reached"
        };
        println!("\n-j auto: {gain:.1} times -j 1; the goal of {GOAL:.0} is {met}.");
    }
}

/// Which of the two trees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    Whole,
    Part,
}

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
        }
    }
}

/// What came of one copy.
struct Run {
    tree: Tree,
    files: usize,
    time: Duration,
    operations: u64,
    most_at_once: usize,
    /// As the program reports it.
    workers: Option<u64>,
}

/// All copies by one copier. One that fails has fewer.
struct Row<'a> {
    copier: &'a Copier,
    runs: Vec<Result<Run, String>>,
}

impl<'a> Row<'a> {
    fn of(copier: &'a Copier) -> Self {
        Self {
            copier,
            runs: Vec::new(),
        }
    }

    /// The run with the median time; what went wrong if any failed.
    fn median(&self) -> Result<&Run, &String> {
        let runs: Result<Vec<&Run>, &String> = self.runs.iter().map(Result::as_ref).collect();
        let mut runs = runs?;
        runs.sort_unstable_by_key(|run| run.time);
        Ok(runs[runs.len() / 2])
    }

    /// Files in a second.
    fn rate(&self) -> Option<f64> {
        let run = self.median().ok()?;
        Some(run.files as f64 / run.time.as_secs_f64())
    }

    fn text(&self, one: Option<f64>) -> String {
        let name = self.copier.name();
        let run = match self.median() {
            Ok(run) => run,
            Err(failure) => return format!("| {name} | failed: {failure} | | | | | |"),
        };
        let workers = match (self.copier, run.workers) {
            (Copier::Auto, Some(workers)) => format!(" ({workers} workers)"),
            _ => String::new(),
        };
        let mark = if run.tree == Tree::Part { "*" } else { "" };
        let rate = run.files as f64 / run.time.as_secs_f64();
        let gain = one.map_or(String::new(), |one| format!("{:.1}", rate / one));
        format!(
            "| {name}{workers} | {}{mark} | {:.3} | {rate:.0} | {gain} | {:.1} | {} |",
            run.files,
            run.time.as_secs_f64(),
            run.operations as f64 / run.files as f64,
            run.most_at_once,
        )
    }
}

/// Copies, compares and removes the copy.
fn run(
    cell: &Cell,
    data: &Data,
    slow: &Passthrough,
    copier: &Copier,
    tree: Tree,
) -> Result<Run, String> {
    let source = data.path(cell.from).join(tree.name());
    let copy = data.path(cell.to).join("copy");
    let mut command = copier.command(&source, &copy);
    command.stdin(Stdio::null()).env("NO_COLOR", "1");

    wait_until_idle(slow);
    slow.asked().take_most_waited_for();
    let before = slow.asked().operations();
    let start = Instant::now();
    let output = command.output().map_err(|error| error.to_string());
    let time = start.elapsed();
    wait_until_idle(slow);
    let operations = slow.asked().operations() - before;
    let most_at_once = slow.asked().take_most_waited_for();

    let copied = data.path(cell.copied).join("copy");
    let compared = output.and_then(|output| {
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(text.lines().next().unwrap_or("no message").to_owned());
        }
        // The twin in memory: they are the same, and this one is quick to read.
        let original = data.path("plain").join(tree.name());
        let files = same_files(&original, &copied).map_err(|error| error.to_string())?;
        Ok((files, output.stdout))
    });
    let _ = fs::remove_dir_all(&copied);
    let (files, stdout) = compared?;
    let report: Option<serde_json::Value> = serde_json::from_slice(&stdout).ok();
    Ok(Run {
        tree,
        files,
        time,
        operations,
        most_at_once,
        workers: report.and_then(|report| report["workers"].as_u64()),
    })
}

/// What nobody waits for (releasing closed files) must not burden the next copy.
fn wait_until_idle(slow: &Passthrough) {
    // Between the end of a program and its last request's arrival there may be nothing under way.
    let pause = Duration::from_millis(20);
    thread::sleep(pause);
    while !slow.asked().is_idle() {
        thread::sleep(pause);
    }
}

/// Compares two trees and counts their files.
fn same_files(original: &Path, copy: &Path) -> io::Result<usize> {
    let mut files = 0;
    let mut names = 0;
    for entry in fs::read_dir(original)? {
        let entry = entry?;
        let (one, other) = (entry.path(), copy.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            files += same_files(&one, &other)?;
        } else if fs::read(&one)? == fs::read(&other)? {
            files += 1;
        } else {
            let text = format!("{} differs", other.display());
            return Err(io::Error::other(text));
        }
        names += 1;
    }
    if fs::read_dir(copy)?.count() == names {
        Ok(files)
    } else {
        let text = format!("{} has more than its original", copy.display());
        Err(io::Error::other(text))
    }
}

/// A program that copies, and how.
enum Copier {
    /// `poolcp -j N`
    Fixed(usize),
    /// `poolcp`
    Auto,
    Other(Tool),
}

impl Copier {
    fn name(&self) -> String {
        match self {
            Self::Fixed(workers) => format!("poolcp -j {workers}"),
            Self::Auto => "poolcp -j auto".to_owned(),
            Self::Other(tool) => tool.name(),
        }
    }

    /// Whether it is expected to have few operations under way. The others have one, or as many as there are processors.
    fn is_slow(&self) -> bool {
        match self {
            Self::Fixed(workers) => *workers < WHOLE_FROM,
            Self::Auto => false,
            Self::Other(_) => true,
        }
    }

    fn command(&self, source: &Path, copy: &Path) -> Command {
        let workers = match self {
            Self::Other(tool) => return tool.command(source, copy),
            Self::Fixed(workers) => workers.to_string(),
            Self::Auto => "auto".to_owned(),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_poolcp"));
        command
            .args(["-r", "--report=json", "-j", &workers])
            .args([source, copy]);
        command
    }
}

/// The sources: two trees, each in memory (`plain`) and below the slow filesystem.
struct Data(TempDir);

impl Data {
    fn make(whole: Shape, part: Shape) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = match env::var_os("POOLCP_BENCH_DIR") {
            Some(dir) => dir.into(),
            None if memory.is_dir() => memory.to_owned(),
            None => env::temp_dir(),
        };
        let dir = tempfile::Builder::new()
            .prefix("poolcp-bench-")
            .tempdir_in(base)?;
        let data = Self(dir);
        fs::create_dir(data.path("slow"))?;
        for parent in ["plain", "below"] {
            for (tree, shape) in [(Tree::Whole, whole), (Tree::Part, part)] {
                shape.make(&data.path(parent).join(tree.name()))?;
            }
        }
        Ok(data)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Shape {
    fn count(&self) -> usize {
        self.branches * self.dirs * self.files
    }

    fn make(&self, root: &Path) -> io::Result<()> {
        for branch in 0..self.branches {
            for dir in 0..self.dirs {
                let dir = root.join(format!("branch-{branch}/dir-{dir}"));
                fs::create_dir_all(&dir)?;
                for file in 0..self.files {
                    fs::write(dir.join(format!("file-{file}")), content(branch + file))?;
                }
            }
        }
        Ok(())
    }
}

/// From nothing to 12 KiB: small enough to be read and written in one go.
fn content(number: usize) -> Vec<u8> {
    let len = (number * 1009) % (12 << 10);
    (0..len).map(|at| (at + number) as u8).collect()
}
