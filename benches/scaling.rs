//! How a copy's time depends on the number of workers.
//!
//! poolcp exists because one thread leaves most of a machine idle while it copies. This bench shows what more threads
//! bring, where they stop to bring anything, and that too many of them do no harm: the answers behind the default number of
//! workers, and the first place to look after a change to the recursion, the chunks or the pool.
//!
//! # What is measured
//!
//! The time from handing a copy to a pool that is there already until its report is there, for 1 to 32 threads:
//!
//! | group | what is copied | what it strains |
//! |---|---|---|
//! | `small-tree` | thousands of small files in hundreds of nested directories, sized as in a source tree | opening, making and closing; stealing of directories |
//! | `flat-directory` | thousands of 4 KiB files in one directory | the kernel's lock on one directory |
//! | `huge-file` | one file of 512 MiB | moving bytes in chunks; the kernel's lock on one file |
//! | `cold-small-tree`, `cold-flat-directory`, `cold-huge-file` | the same, from a disk | the disk, which wants to be asked for several things at once |
//!
//! Before each copy of a cold group the source's data is dropped from memory (posix_fadvise(2), which everybody may do and
//! which disturbs nobody else); names and inodes may stay. Where that does not work, as in memory, those groups are left out.
//!
//! Every copy goes to a destination that does not exist and must report success, the right number of files and the right
//! number of bytes. The first two groups copy as `poolcp -r` does, so on a filesystem that can share blocks (btrfs, xfs)
//! they measure reflinks. `huge-file` forbids them, because a reflink takes the same time for any size and any number of
//! threads; it always measures moving bytes. Do not expect much of more threads there: the copy ends in the page cache, and
//! tmpfs, ext4 and xfs let one thread at a time write to a file in it.
//!
//! # What is not measured
//!
//! - Making the data, starting the threads, removing the copies.
//! - Writing to the disk. Copies end in the page cache: nothing here waits for them to be written back. Only where the writing
//!   back keeps a processor or a journal busy does it show, as noise. Reading from it is what the cold groups are about.
//! - Making files on ext4, alas. For minutes ext4 avoids the inodes of removed files, and it looks for others one by one
//!   among those of the copies before. That takes several times as long as copying a small file and does not get faster
//!   with more threads. For the groups with many files choose another filesystem.
//!
//! # How to run it
//!
//! ```text
//! cargo bench --bench scaling                               # everything, under ten minutes
//! cargo bench --bench scaling -- flat-directory             # two groups
//! cargo bench --bench scaling -- chart                      # the chart alone, some two minutes
//! POOLCP_BENCH_DIR=/dev/shm cargo bench --bench scaling     # the data elsewhere: here in memory
//! cargo bench --bench scaling -- --test                     # each once and smaller, in seconds
//! ```
//!
//! The data lies in a new directory inside the one that `POOLCP_BENCH_DIR` names, or else inside the system's temporary
//! one; the sources of the cold groups in one inside of what `POOLCP_BENCH_DISK` names, or else of the temporary one. It
//! needs 1.1 GiB of room, and is removed at the end, but not if the bench is killed. It is the same in every run.
//!
//! The chart of all groups is `target/scaling.svg`: how many times as fast as one thread they are. criterion measures one
//! number of threads after the other; for the chart they take turns, 11 times, and the speed-up is the median of the rounds'
//! ratios, with bars from the lower to the upper quartile. `benches/scaling.svg` was made with `POOLCP_BENCH_DIR=/dev/shm`.
//!
//! criterion's own report is `target/criterion/report/index.html`; each group's page there has the line chart of time over threads
//! ("Input"). Its time axis does not begin at zero. criterion would draw the chart over its own `Throughput` instead, were
//! that set, and it is the same for all threads, so there would be no chart; therefore this bench prints the rates itself,
//! from the median of all copies including those that criterion warms up with.

#[path = "peers/machine.rs"]
mod machine;
#[path = "peers/plot.rs"]
mod plot;
#[path = "peers/random.rs"]
mod random;

use std::cell::{LazyCell, RefCell};
use std::env;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use humansize::{BINARY, format_size};
use poolcp::{Options, Plan, Pool, Reflink, Target};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tempfile::TempDir;

use machine::Machine;
use plot::{Chart, Curve, Panel, Spread};
use random::SplitMix64;

/// Doubling shows where more stops to help, up to more threads than most machines have cores; and 10, the number in the
/// exercise that poolcp began as.
const THREADS: [usize; 7] = [1, 2, 4, 8, 10, 16, 32];

/// The fewest that criterion takes: a copy is long enough that its time scatters little, and slow disks have few to give.
const SAMPLES: usize = 10;

/// Enough to fill the page cache with the source and the kernel's caches with its names, which the first copy does.
const WARM_UP: Duration = Duration::from_secs(1);

/// With six groups of seven thread counts, this makes some five minutes, warming up included. criterion fits
/// the removals into it, too.
const MEASUREMENT: Duration = Duration::from_secs(5);

/// Enough that the median of the ratios keeps still on a machine that is not quite idle.
const ROUNDS: usize = 11;

/// The word that asks for the chart alone.
const CHART: &str = "chart";

/// The median of file sizes in source trees: it is 4.6 to 5.2 KB in /usr/include and in Python's standard library.
const MEDIAN_SIZE: f64 = 4096.0;

/// The standard deviation of the sizes' logarithms, between those of the same two trees (1.4 and 1.8). It makes the mean
/// size 3.6 times the median: most files are small, most bytes are in large ones.
const SIZE_SPREAD: f64 = 1.6;

/// No file of the tree is larger: about the largest in those trees, and far from being cut into chunks.
const LARGEST_SMALL_FILE: u64 = 2 << 20;

/// One block of most filesystems: a file with next to no data, so that what counts is the directory it is in.
const FLAT_FILE_SIZE: u64 = 4096;

/// What the huge file is written in: a small part of any such file, and cheap to hold.
const PIECE: usize = 1 << 20;

/// Any number will do, as long as it stays: a new one makes other trees, which old results cannot be compared with.
const SEED: u64 = 1;

/// How much there is to copy.
struct Scale {
    tree_files: u64,
    tree_dirs: usize,
    flat_files: u64,
    huge_size: u64,
}

/// For measuring. A copy takes tens of milliseconds even in memory, so that starting and ending it do not count; and a
/// second or two on a slow disk, so that the samples can be taken in the time for them.
const FULL: Scale = Scale {
    tree_files: 4096,
    // 8 files in each, on average, as in the trees that `MEDIAN_SIZE` is from.
    tree_dirs: 512,
    // About as many names as in `small-tree`, so that the two can be compared.
    flat_files: 4096,
    // A chunk of 16 MiB for each of 32 threads.
    huge_size: 512 << 20,
};

/// For `--test`, which only asks whether it all works.
const TEST: Scale = Scale {
    // Few, but several in each directory still.
    tree_files: 128,
    tree_dirs: 16,
    // Enough for each of 32 threads to find some.
    flat_files: 256,
    // The smallest that is cut into chunks.
    huge_size: 64 << 20,
};

/// What is copied, in the words of the chart, and the name of its group.
const WORKLOADS: [(&str, &str); 3] = [
    ("small tree", "small-tree"),
    ("flat directory", "flat-directory"),
    ("huge file", "huge-file"),
];

/// Whether the source is in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Warm,
    Cold,
}

impl Cache {
    fn group(self, name: &str) -> String {
        match self {
            Self::Warm => name.to_owned(),
            Self::Cold => format!("cold-{name}"),
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Warm => "source in memory",
            Self::Cold => "source on disk",
        }
    }
}

/// What came of one workload in the rounds for the chart.
struct Study {
    cache: Cache,
    workload: &'static str,
    /// Seconds, in the order of [`THREADS`].
    rounds: Vec<[f64; THREADS.len()]>,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let directory = |name| env::var_os(name).map_or_else(env::temp_dir, PathBuf::from);
    let base = directory("POOLCP_BENCH_DIR");
    let disk = directory("POOLCP_BENCH_DISK");
    // Not to stdout, where `--list` is read by programs.
    eprintln!(
        "The data is in {}, that of the cold groups in {} (POOLCP_BENCH_DIR and POOLCP_BENCH_DISK choose others).",
        base.display(),
        disk.display()
    );
    let scale = if is_test() { TEST } else { FULL };
    let mut studies = Vec::new();
    for cache in [Cache::Warm, Cache::Cold] {
        let place = if cache == Cache::Warm { &base } else { &disk };
        if cache == Cache::Cold && !can_be_cold(place) {
            eprintln!(
                "No cold groups: data in {} stays in memory.",
                disk.display()
            );
            continue;
        }
        for (words, name) in WORKLOADS {
            let mut options = Options::recursive();
            if name == "huge-file" {
                options.reflink = Reflink::Never;
            }
            let source = LazyCell::new(|| {
                let source = Source::generate(place, &base, cache, |files| match name {
                    "small-tree" => make_small_tree(files, &scale),
                    "flat-directory" => make_flat_directory(files, &scale),
                    _ => files.write("huge", scale.huge_size),
                });
                source.expect("the source can be generated")
            });
            let group = cache.group(name);
            scaling(&mut criterion, &group, &options, &source);
            if wants_chart() {
                eprintln!("Rounds for the chart: {group}");
                studies.push(Study {
                    cache,
                    workload: words,
                    rounds: rounds(&source, &options),
                });
            }
        }
    }
    criterion.final_summary();
    if studies.is_empty() {
        return;
    }
    match save_chart(&studies, &base) {
        Ok(path) => eprintln!("The chart is {}.", path.display()),
        Err(error) => eprintln!("The chart could not be written: {error}"),
    }
}

/// The chart belongs to a run of everything, and to the word that asks for it and that no group has in its name.
fn wants_chart() -> bool {
    let words: Vec<_> = env::args().skip(1).collect();
    let asks = words.iter().any(|word| word == CHART);
    let is_list = words.iter().any(|word| word == "--list");
    !is_list && (asks || words.iter().all(|word| word.starts_with('-')))
}

/// By criterion's own rule: `cargo test` runs benches as well, without `--bench`, and then nothing is measured either.
fn is_test() -> bool {
    let given = |flag| env::args_os().any(|arg| arg == flag);
    given("--test") || !given("--bench")
}

/// Measures one group. The source is made when the first copy wants it: not for a group that a filter leaves out.
fn scaling(
    criterion: &mut Criterion,
    name: &str,
    options: &Options,
    source: &LazyCell<Source, impl FnOnce() -> Source>,
) {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT)
        // The same number of copies in each sample: the other mode's samples of 1, 2, … 10 would take 55.
        .sampling_mode(SamplingMode::Flat);
    for threads in THREADS {
        let pool = Pool::builder().threads(threads).build();
        let pool = pool.expect("the system grants the threads");
        let times = RefCell::new(Vec::new());
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|iterations| {
                let copy = |_| source.time_copy(&pool, options);
                let new: Vec<Duration> = (0..iterations).map(copy).collect();
                let sum = new.iter().sum();
                times.borrow_mut().extend(new);
                sum
            });
        });
        if !is_test() {
            print_rates(source, times.into_inner());
        }
    }
    group.finish();
}

/// Copies in rounds, in which each number of threads has its turn: what else the machine does meanwhile hits all alike, and
/// what each brings is the ratio of two times that are next to each other.
fn rounds(source: &Source, options: &Options) -> Vec<[f64; THREADS.len()]> {
    let pools = THREADS.map(|threads| {
        let pool = Pool::builder().threads(threads).build();
        pool.expect("the system grants the threads")
    });
    let mut rounds = Vec::new();
    let count = if is_test() { 1 } else { ROUNDS };
    for round in 0..=count {
        let mut times = [0.0; THREADS.len()];
        for turn in 0..THREADS.len() {
            // Nobody is always the first, or after the same. Seven is prime: each step visits all.
            let number = (turn * (1 + round % 3) + round) % THREADS.len();
            times[number] = source.time_copy(&pools[number], options).as_secs_f64();
        }
        // The first round fills the kernel's caches.
        if round > 0 {
            rounds.push(times);
        }
    }
    rounds
}

/// Whether data on this directory's filesystem can be dropped from memory.
fn can_be_cold(directory: &Path) -> bool {
    let try_it = || -> io::Result<bool> {
        let mut file = tempfile::tempfile_in(directory)?;
        file.write_all(&[1; 1 << 16])?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        // Without waiting, only what is in memory can be read.
        let read = preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT);
        Ok(read == Err(Errno::AGAIN))
    };
    try_it().unwrap_or(false)
}

/// Draws the rounds; of a test, into a corner of its own.
fn save_chart(studies: &[Study], base: &Path) -> io::Result<PathBuf> {
    let panels = [Cache::Warm, Cache::Cold].map(|cache| Panel {
        name: cache.describe().to_owned(),
        curves: studies
            .iter()
            .filter(|study| study.cache == cache)
            .map(curve)
            .collect(),
    });
    let machine = Machine::here();
    let filesystem = if base.starts_with("/dev/shm") {
        "copies to memory".to_owned()
    } else {
        format!("copies to {}", base.display())
    };
    let date = machine::date();
    let chart = Chart {
        title: "How many times as fast as with one thread".to_owned(),
        subtitle: format!(
            "poolcp {}, {} processors ({}, {} GiB), Linux {}, {filesystem}, {}",
            env!("CARGO_PKG_VERSION"),
            machine.cores,
            machine.processor,
            machine.memory_gib,
            machine.kernel,
            date.split('T').next().unwrap_or_default()
        ),
        unit: "speed-up",
        ideal: true,
        panels: panels
            .into_iter()
            .filter(|panel| !panel.curves.is_empty())
            .collect(),
    };
    let corner = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = match corner.parent() {
        Some(target) if !is_test() => target,
        _ => corner,
    };
    fs::create_dir_all(place)?;
    let path = place.join("scaling.svg");
    fs::write(&path, chart.draw())?;
    Ok(path)
}

/// A workload's speed-up: of the ratios of all rounds the median, and the quartiles.
fn curve(study: &Study) -> Curve {
    let point = |(number, &threads): (usize, &usize)| {
        let ratios = study.rounds.iter().map(|times| times[0] / times[number]);
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let quartile = |part| ratios[(ratios.len() - 1) * part / 4];
        let spread = Spread {
            low: quartile(1),
            middle: quartile(2),
            high: quartile(3),
        };
        println!(
            "{:>16}, {}, {threads:2} threads: {:.2} ({:.2} to {:.2})",
            study.workload,
            study.cache.describe(),
            spread.middle,
            spread.low,
            spread.high
        );
        (threads, spread)
    };
    Curve {
        name: study.workload.to_owned(),
        points: THREADS.iter().enumerate().map(point).collect(),
        levels: Vec::new(),
    }
}

/// Prints a line in the style of those that criterion has just printed; nothing if it measured nothing.
fn print_rates(source: &LazyCell<Source, impl FnOnce() -> Source>, mut times: Vec<Duration>) {
    if times.is_empty() {
        return;
    }
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64();
    let bytes = format_size((source.bytes as f64 / median) as u64, BINARY);
    let files = match source.files {
        // That would be copies per second.
        1 => String::new(),
        files => format!("{:.0} files/s, ", files as f64 / median),
    };
    println!("{:24}rate:   {files}{bytes}/s", "");
}

/// What is copied, and where to.
struct Source {
    /// Holds the source, and removes it in the end.
    dir: TempDir,
    /// The same for the copies.
    copies: TempDir,
    /// All files, if their data is to be dropped from memory before each copy.
    cold: Vec<PathBuf>,
    files: u64,
    bytes: u64,
}

impl Source {
    /// Makes the files and waits until they are on the disk, so that writing them back does not disturb the copies.
    fn generate(
        place: &Path,
        copies: &Path,
        cache: Cache,
        make: impl FnOnce(&mut Files) -> io::Result<()>,
    ) -> io::Result<Self> {
        let new = |parent| {
            tempfile::Builder::new()
                .prefix("poolcp-bench-")
                .tempdir_in(parent)
        };
        let dir = new(place)?;
        let mut files = Files {
            root: dir.path().join("source"),
            random: SplitMix64::new(SEED),
            paths: Vec::new(),
            bytes: 0,
        };
        fs::create_dir(&files.root)?;
        make(&mut files)?;
        rustix::fs::syncfs(File::open(dir.path())?)?;
        Ok(Self {
            files: files.paths.len() as u64,
            bytes: files.bytes,
            copies: new(copies)?,
            cold: if cache == Cache::Cold {
                files.paths
            } else {
                Vec::new()
            },
            dir,
        })
    }

    /// Copies, checks and removes the copy; returns how long the copying alone took.
    fn time_copy(&self, pool: &Pool, options: &Options) -> Duration {
        let copy = self.copies.path().join("copy");
        let source = self.dir.path().join("source");
        let plan = Plan::resolve([source], Target::Exactly(copy.clone()), options.clone());
        let plan = plan.expect("one source has one destination");

        self.chill().expect("data can be dropped from memory");

        let start = Instant::now();
        let job = pool.apply_async(plan).expect("the pool is open");
        let report = job.join().expect("the copy does not panic");
        let time = start.elapsed();

        assert!(report.is_success(), "{report}");
        assert_eq!(report.stats.files, self.files);
        assert_eq!(report.stats.bytes, self.bytes);
        if options.reflink == Reflink::Never {
            assert_eq!(report.stats.bytes_moved(), self.bytes);
        }
        fs::remove_dir_all(copy).expect("the copy can be removed");
        time
    }

    /// Drops the data of what is to be cold from memory.
    fn chill(&self) -> io::Result<()> {
        for path in &self.cold {
            let all: Option<NonZero<u64>> = None;
            rustix::fs::fadvise(File::open(path)?, 0, all, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// A source while it is made.
struct Files {
    root: PathBuf,
    random: SplitMix64,
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl Files {
    /// Makes a file of random bytes: nothing in it can become a hole or be compressed.
    fn write(&mut self, path: impl AsRef<Path>, size: u64) -> io::Result<()> {
        let path = self.root.join(path);
        let mut file = File::create_new(&path)?;
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            self.random.fill(&mut piece[..len]);
            file.write_all(&piece[..len])?;
            left -= len as u64;
        }
        self.paths.push(path);
        self.bytes += size;
        Ok(())
    }
}

/// Each directory is in a random one made before it, which gives branches of all depths; each file is in any of them.
fn make_small_tree(files: &mut Files, scale: &Scale) -> io::Result<()> {
    let mut dirs = vec![PathBuf::new()];
    while dirs.len() < scale.tree_dirs {
        let parent = files.random.pick(&dirs);
        let dir = parent.join(format!("dir-{}", dirs.len()));
        fs::create_dir(files.root.join(&dir))?;
        dirs.push(dir);
    }
    for number in 0..scale.tree_files {
        let dir = files.random.pick(&dirs);
        let size = file_size(&mut files.random);
        files.write(dir.join(format!("file-{number}")), size)?;
    }
    Ok(())
}

fn make_flat_directory(files: &mut Files, scale: &Scale) -> io::Result<()> {
    (0..scale.flat_files)
        .try_for_each(|number| files.write(format!("file-{number}"), FLAT_FILE_SIZE))
}

/// Log-normal.
fn file_size(random: &mut SplitMix64) -> u64 {
    let size = MEDIAN_SIZE * (SIZE_SPREAD * random.normal()).exp();
    (size as u64).min(LARGEST_SMALL_FILE)
}
