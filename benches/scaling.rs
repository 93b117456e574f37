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
//! - The disk. Sources are in the page cache after the first read, and copies end in it: nothing here waits for them to be
//!   written back. Only where the writing back keeps a processor or a journal busy does it show, as noise.
//! - Making files on ext4, alas. For minutes ext4 avoids the inodes of removed files, and it looks for others one by one
//!   among those of the copies before. That takes several times as long as copying a small file and does not get faster
//!   with more threads. For the groups with many files choose another filesystem.
//!
//! # How to run it
//!
//! ```text
//! cargo bench --bench scaling                               # everything, some five minutes
//! cargo bench --bench scaling -- small-tree                 # one group
//! POOLCP_BENCH_DIR=/dev/shm cargo bench --bench scaling     # the data elsewhere: here in memory
//! cargo bench --bench scaling -- --test                     # each once and smaller, in seconds
//! ```
//!
//! The data lies in a new directory inside the one that `POOLCP_BENCH_DIR` names, or else inside the system's temporary
//! one. It needs 1.1 GiB of room, and is removed at the end, but not if the bench is killed. It is the same in every run.
//!
//! The report is `target/criterion/report/index.html`; each group's page there has the line chart of time over threads
//! ("Input"). Its time axis does not begin at zero. criterion would draw the chart over its own `Throughput` instead, were
//! that set, and it is the same for all threads, so there would be no chart; therefore this bench prints the rates itself,
//! from the median of all copies including those that criterion warms up with.

#[path = "peers/random.rs"]
mod random;

use std::cell::{LazyCell, RefCell};
use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use humansize::{BINARY, format_size};
use poolcp::{Options, Plan, Pool, Reflink, Target};
use tempfile::TempDir;

use random::SplitMix64;

/// Doubling shows where more stops to help, up to more threads than most machines have cores; and 10, the number in the
/// exercise that poolcp began as.
const THREADS: [usize; 7] = [1, 2, 4, 8, 10, 16, 32];

/// The fewest that criterion takes: a copy is long enough that its time scatters little, and slow disks have few to give.
const SAMPLES: usize = 10;

/// Enough to fill the page cache with the source and the kernel's caches with its names, which the first copy does.
const WARM_UP: Duration = Duration::from_secs(1);

/// With three groups of seven thread counts, this makes some five minutes, warming up and charts included. criterion fits
/// the removals into it, too.
const MEASUREMENT: Duration = Duration::from_secs(8);

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

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let base = env::var_os("POOLCP_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    // Not to stdout, where `--list` is read by programs.
    eprintln!(
        "The data is in {} (POOLCP_BENCH_DIR chooses another directory).",
        base.display()
    );
    let scale = if is_test() { TEST } else { FULL };

    let recursive = Options::recursive();
    scaling(&mut criterion, "small-tree", &recursive, || {
        Source::generate(&base, |files| make_small_tree(files, &scale))
    });
    scaling(&mut criterion, "flat-directory", &recursive, || {
        Source::generate(&base, |files| make_flat_directory(files, &scale))
    });
    let mut moving = Options::recursive();
    moving.reflink = Reflink::Never;
    scaling(&mut criterion, "huge-file", &moving, || {
        Source::generate(&base, |files| files.write("huge", scale.huge_size))
    });
    criterion.final_summary();
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
    generate: impl FnOnce() -> io::Result<Source>,
) {
    let source = LazyCell::new(|| generate().expect("the source can be generated"));
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
            print_rates(&source, times.into_inner());
        }
    }
    group.finish();
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
    /// Holds both, and removes them in the end.
    dir: TempDir,
    files: u64,
    bytes: u64,
}

impl Source {
    /// Makes the files and waits until they are on the disk, so that writing them back does not disturb the copies.
    fn generate(base: &Path, make: impl FnOnce(&mut Files) -> io::Result<()>) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("poolcp-bench-")
            .tempdir_in(base)?;
        let mut files = Files {
            root: dir.path().join("source"),
            random: SplitMix64::new(SEED),
            files: 0,
            bytes: 0,
        };
        fs::create_dir(&files.root)?;
        make(&mut files)?;
        rustix::fs::syncfs(File::open(dir.path())?)?;
        Ok(Self {
            files: files.files,
            bytes: files.bytes,
            dir,
        })
    }

    /// Copies, checks and removes the copy; returns how long the copying alone took.
    fn time_copy(&self, pool: &Pool, options: &Options) -> Duration {
        let copy = self.dir.path().join("copy");
        let source = self.dir.path().join("source");
        let plan = Plan::resolve([source], Target::Exactly(copy.clone()), options.clone());
        let plan = plan.expect("one source has one destination");

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
}

/// A source while it is made.
struct Files {
    root: PathBuf,
    random: SplitMix64,
    files: u64,
    bytes: u64,
}

impl Files {
    /// Makes a file of random bytes: nothing in it can become a hole or be compressed.
    fn write(&mut self, path: impl AsRef<Path>, size: u64) -> io::Result<()> {
        let mut file = File::create_new(self.root.join(path))?;
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            self.random.fill(&mut piece[..len]);
            file.write_all(&piece[..len])?;
            left -= len as u64;
        }
        self.files += 1;
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
