//! Copies directory trees with a pool of workers.
//!
//! The idea is that of a process pool: create the pool, hand it the work, close it, join it. Here the workers are threads
//! and the work is a copy, with `cp`'s rules and semantics:
//!
//! ```
//! use poolcp::{Options, Plan, Pool, Target};
//!
//! # let dir = tempfile::tempdir()?;
//! # let source = dir.path().join("src");
//! # std::fs::create_dir(&source)?;
//! # std::fs::write(source.join("main.rs"), "fn main() {}")?;
//! # let target = dir.path().join("copy");
//! let pool = Pool::builder().threads(10).build()?;
//! let plan = Plan::resolve([&source], Target::Path(target.clone()), Options::archive())?;
//! let copy = pool.apply_async(plan)?;
//! pool.close();
//! let report = copy.join()?;
//! pool.join();
//!
//! assert!(report.is_success());
//! assert_eq!(report.stats.files, 1);
//! # assert!(target.join("main.rs").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Options`] are plain values with `cp`'s defaults; [`Options::archive`] and [`Options::recursive`] are `cp -a` and `cp -r`,
//! and every field can be changed. A program whose process is there for the copy alone, as the binary is, uses [`Plan::start`]
//! instead of a pool of its own, and gets a little more speed.
//!
//! # The life of a pool
//!
//! It is that of Python's `multiprocessing.Pool`, and so are the names. [`pool`] has the whole table, and who may wait for whom.
//!
//! | Python | here | |
//! |---|---|---|
//! | `pool = Pool(10)` | [`Pool::builder()`]`.threads(10).build()?` | the workers are there |
//! | `job = pool.apply_async(f)` | [`let job = pool.apply_async(plan)?`](Pool::apply_async) | a [`Plan`], a closure, or any [`Task`] |
//! | `pool.close()` | [`pool.close()`](Pool::close) | takes no more work |
//! | `job.get()` | [`job.join()?`](Job::join) | waits for the result; a panic becomes a [`JobError`] |
//! | `pool.join()` | [`pool.join()`](Pool::join) | the workers are gone |
//! | `pool.terminate()` | [`canceller.cancel()`](Canceller::cancel) | stops a copy, which cleans up after itself; threads cannot be killed |
//!
//! # Watching and stopping
//!
//! Both are had from the [`Plan`] before it starts, and used from any thread: [`Plan::progress`] is a view on the counts,
//! [`Plan::canceller`] stops the copy, and an [`Observer`] hears of every error, and of every entry if it wants to.
//!
//! ```
//! use std::time::Duration;
//! # use poolcp::{Options, Plan, Pool, Target};
//!
//! # let dir = tempfile::tempdir()?;
//! # let (source, target) = (dir.path().join("a"), dir.path().join("b"));
//! # std::fs::write(&source, vec![1; 1 << 20])?;
//! # let options = Options::default();
//! let plan = Plan::resolve([source], Target::Path(target), options)?;
//! let (progress, canceller) = (plan.progress(), plan.canceller());
//! let (pool, copy) = plan.start(0)?; // as many workers as do good
//! while !copy.join_timeout(Duration::from_millis(100)) {
//!     let stats = progress.stats();
//!     println!("{} files, {} bytes", stats.files, stats.bytes_moved());
//!     if stats.errors > 100 {
//!         canceller.cancel();
//!     }
//! }
//! let report = copy.join()?;
//! pool.join();
//! assert!(report.is_success() && !report.cancelled);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Errors
//!
//! There are three kinds, and none of them panics in the caller:
//!
//! 1. What makes a copy impossible is the `Err` of [`Plan::resolve`] (an [`Error`]), [`PoolBuilder::build`] and
//!    [`Plan::start`] (a [`BuildError`]) or [`Pool::apply_async`] ([`Closed`]).
//! 2. What goes wrong with an entry while it is copied is data: it is counted in [`Stats::errors`], handed to the
//!    [`Observer`], kept in [`Report::errors`], and the other entries go on. Each is an [`Error`]: the [`Operation`], the
//!    path or the two paths, the kernel's error number, and all that in `cp`'s words. [`Report::is_success`] asks for none.
//! 3. A task that panics is a [`JobError`] for who joins it. (In a copy, that is an error of the entry, [`Operation::Panic`].)
//!
//! ```
//! use poolcp::{Operation, Options, Plan, Pool, Target};
//!
//! # let dir = tempfile::tempdir()?;
//! # let target = dir.path().join("copy");
//! let plan = Plan::resolve(["/nonexistent"], Target::Path(target), Options::archive())?;
//! let report = Pool::builder().build()?.apply_async(plan)?.join()?;
//!
//! assert!(!report.is_success());
//! let error = &report.errors[0];
//! assert_eq!(error.to_string(), "cannot stat '/nonexistent': No such file or directory");
//! assert_eq!(error.operation(), Operation::Stat);
//! assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! [`Options::bandwidth`] is the most bytes per second that all workers of a copy move together; [`background()`] and
//! [`PoolBuilder::background`] let everything else on the machine go first.
//!
//! ```
//! use std::num::NonZeroU64;
//! use std::time::Duration;
//! # use poolcp::{Options, Plan, Pool, Target};
//!
//! # let dir = tempfile::tempdir()?;
//! # let (source, target) = (dir.path().join("a"), dir.path().join("b"));
//! # std::fs::write(&source, vec![1; 200_000])?;
//! let mut options = Options::default();
//! options.bandwidth = NonZeroU64::new(1_000_000);
//! let plan = Plan::resolve([source], Target::Path(target), options)?; // of a file of 200,000 bytes
//! let pool = Pool::builder().threads(4).background(true).build()?;
//! let report = pool.apply_async(plan)?.join()?;
//! # let moved = report.stats.bytes_moved();
//! assert!(moved == 0 || report.elapsed >= Duration::from_millis(190));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Units
//!
//! Sizes are bytes, rates bytes per second, durations are [`std::time::Duration`]s, modes are as in chmod(2), error numbers as
//! in errno(3). Paths are any bytes but NUL; nothing has to be UTF-8, and what is shown of the rest is quoted ([`quote()`]).
//!
//! # What stays
//!
//! Versions follow semver. Structures and enumerations that will grow are `#[non_exhaustive]`: options are made from a
//! default and changed, and a `match` needs an arm for what is to come. Of the dependencies one type is part of what is
//! promised: `serde_json::Value` of version 1 ([`Report::to_json`]). Texts may change, but for `cp`'s own words; programs read
//! the [JSON report](json#the-schema-schema-1), which has a version.
//!
//! # The way of the data
//!
//! ```text
//! operands ──► Plan::resolve ──► Plan ──► Pool::apply_async ──► Job<Report>
//!                                  │
//!                      tree.rs: a task a directory ──► file.rs: decide, clear, make, fill, dress, commit
//!                                  │                      │
//!                      list by jwalk, spawn the           ├─ decide.rs: what to do about what is there
//!                      subdirectories, par_iter           ├─ backup.rs: what was there, under another name
//!                      over the files                     ├─ data.rs: reflink, kernel, read and write; chunks.rs
//!                                                         ├─ dress.rs, meta.rs: owner, xattrs and ACLs, mode, times
//!                                                         └─ links.rs: hard links
//! ```
//!
//! # The house
//!
//! | file | what lives there |
//! |---|---|
//! | `options.rs` | what is asked for, as plain values |
//! | `plan.rs` | `cp`'s destination rules, applied once |
//! | `start.rs` | starting a copy, with a pool of its own or without one |
//! | `pool.rs` | the pool of workers, over rayon |
//! | `job.rs` | what a pool runs, and what can be asked of it meanwhile |
//! | `monitor.rs` | a state that threads share, and the sleep until it changes |
//! | `gate.rs` | how many of its workers work at a time |
//! | `controller.rs` | how many should: a pure function from observations to a number |
//! | `controller/simulation.rs` | simulated devices that it is tested on |
//! | `tuner.rs` | the observations, and what is made of the number (`-j auto`) |
//! | `roots.rs` | the operands |
//! | `tree.rs` | the recursion: directories, and who finishes what |
//! | `enter.rs` | opening a directory's two ends, and what is known of it then |
//! | `list.rs` | what a directory holds, and which of it is copied; the only user of jwalk |
//! | `filter.rs` | which entries are left out: by globs, size and age |
//! | `gitignore.rs` | what git ignores; with `filter.rs` the only user of the crate ignore |
//! | `glob.rs` | git's globs in that crate's words |
//! | `dir.rs` | a directory of the tree: its place, its facts, what is pending in it |
//! | `place.rs` | where an entry is and what it is called, and errors about it |
//! | `handles.rs` | each worker's open directories |
//! | `parents.rs` | leading directories (`--parents`) |
//! | `file.rs` | one entry that is not a directory, from the decision to the commit |
//! | `entry.rs` | it itself: looked at, opened, remembered |
//! | `clear.rs` | what has its destination's name already |
//! | `facts.rs` | what has to be known about an entry |
//! | `decide.rs` | what is done about it: a pure function from options and facts to a plan |
//! | `decide/tests.rs` | tables of decisions, and random worlds |
//! | `sameness.rs`, `difference.rs` | whether both ends are one file; in what one is no copy of the other |
//! | `make_file.rs`, `open_dest.rs` | making a regular file; opening what its data goes to |
//! | `make_name.rs`, `make_dir.rs` | making what is only a name and attributes; a directory |
//! | `dress.rs` | the attributes of what is no directory: those that it is made with, those that it gets at the end |
//! | `ahead.rs` | directories that are made long before they are filled |
//! | `closing.rs` | closing files, many in one call |
//! | `staged.rs` | new files that are not complete, and names that change hands in one step |
//! | `sweep.rs` | what runs that were killed have left of such files |
//! | `backup.rs` | destinations that are kept under another name |
//! | `data.rs` | the bytes of one file |
//! | `ladder.rs` | the ways that they may take between two filesystems |
//! | `chunks.rs` | large files, which several workers copy |
//! | `buffer.rs` | a worker's buffer, filled and paid for |
//! | `ranges.rs` | which parts of a file hold data |
//! | `disk.rs` | which disks may have to seek |
//! | `local.rs` | which filesystems are this machine's own |
//! | `mounts.rs` | what is mounted where |
//! | `meta.rs` | attributes: read, and given in the right order |
//! | `prune.rs` | what the destination has and the source does not |
//! | `links.rs` | hard links; several names at the destination for one file: who copies, and who links |
//! | `further.rs` | linking further names to the first one's copy |
//! | `limit.rs` | how fast data may move (`--bwlimit`) |
//! | `background.rs` | how much others come first (`--background`) |
//! | `verify.rs` | reading back what was written |
//! | `durable.rs` | writing everything to its device |
//! | `context.rs` | what the workers of one copy share |
//! | `meeting.rs` | how operands may get into each other's way, found out before |
//! | `operands.rs` | the operands, watched while they are copied |
//! | `observer.rs`, `cancel.rs` | what a copy tells and asks, what stops it: [`Observer`], [`Canceller`] |
//! | `nest.rs` | in what pieces work is shared out, and a bound on how deep waiting for it nests on a stack |
//! | `counters.rs` | what the workers count, and the sums: [`Stats`] |
//! | `busy.rs` | how many workers were busy over time: [`Busy`] |
//! | `report.rs` | [`Report`], and its text |
//! | `json.rs` | the report as JSON, and its schema |
//! | `live.rs` | what a copy is doing at this moment: [`Progress`], [`Snapshot`] |
//! | `error.rs`, `quote.rs` | [`Error`] in `cp`'s words, file names as `cp` quotes them |
//! | `lock.rs`, `own_status.rs`, `wording.rs` | what the binary has, too: locks, whoever panicked; what the kernel says of this process; numbers and errors in words |
//! | `path.rs` | paths as bytes: last component, joining |
//! | `sys.rs` | the system calls on what is copied, as safe functions |
//! | `sys/` | by what they are about: `names.rs`, `bytes.rs`, `attributes.rs`, `filesystem.rs`, `process.rs`; the only `unsafe` |
//!
//! The binary adds
//!
//! | file | what lives there |
//! |---|---|
//! | `main.rs` | the thread that waits for the copy |
//! | `terminal.rs`, `verbose.rs` | what the workers tell and ask; what `-v` and `--debug` say of an entry |
//! | `args.rs`, `getopt.rs`, `cli.rs` | the command line: clap's definition, GNU's rules for the words, what they mean |
//! | `words.rs` | what the words behind options mean |
//! | `selection.rs` | what globs, sizes and moments mean; the only user of jiff |
//! | `progress.rs` | the live view (indicatif): when it is drawn, and who may print meanwhile |
//! | `pace.rs`, `status.rs`, `screen.rs` | what it can say as numbers; in words, as many as there is room for; on a terminal |
//! | `signals.rs`, `job_control.rs`, `prompt.rs` | signals, a shell's jobs, questions |
//! | `units.rs` | numbers of bytes |
//! | `generate.rs`, `complete.bash`, `manual.roff` | completions and the manual page |
//! | `journal.rs` | the log of all entries (`--log`) |
//! | `report_place.rs`, `advice.rs` | the report: where it goes; what to do next |
//! | `streams.rs` | standard output and error as files for the report and the log |
//!
//! # Invariants
//!
//! 1. No task waits for another except inside rayon's `par_iter` and `scope`, and a worker that waits there, or that is
//!    held back (`gate.rs`), holds nothing that one at work needs. Directories are finished by whoever ends the last
//!    thing in them; a further name of a file that is being copied, or written in place, is left with the worker that
//!    does it. (With `-i`, one worker at a time waits for a person.)
//! 2. No lock and no borrow is held across a call into rayon: a stolen task runs on the same thread meanwhile.
//! 3. Everything below an operand, and each operand's copy in a target directory, is reached from an open directory, by one
//!    name, without following links that were not asked for; what is opened again, or for writing, must be what it was
//!    before. No descriptor leaves the thread that opened it, but for a large file's where all threads share one table.
//! 4. A directory's owner, ACL, mode and times are set after all its children; until then it is its owner's to write.
//! 5. Nothing has more permission on the way than at its end.
//! 6. An error is data: it is counted and shown, and the siblings go on. So is a panic, which is an error of the entry that is
//!    being copied.
//! 7. There is one decision path, and nothing is touched before it ends: `decide.rs`. A question that it asks for is answered by
//!    the observer; the binary's main thread does that, and workers never read standard input.
//! 8. Memory is bounded by the depth of the tree, its widest directory, the parts with data that the sparse files under way
//!    have (`data.rs`; 65,536 of each at a time), and the inodes that have names outside of what is copied (`links.rs`; where
//!    links are followed and kept, `-aL`, or a filesystem is mounted twice, any may), and symbolic links that are made in what was
//!    there or, where operands overlap, anywhere, and the directories of those (`operands.rs`); open files by the number of workers: some six each, and more where the limit is higher.
//!
//! # What an entry costs
//!
//! A new file without attributes to keep (`-r`) is these system calls (`strace -f -c` on 1,000 files):
//!
//! | call | why |
//! |---|---|
//! | openat(2) of the source | by its name in an open directory, following nothing; `O_NOATIME` where that is allowed |
//! | fstat(2) of it | it is still what was listed, and of what mode and size |
//! | openat(2) of the copy | `O_CREAT` and `O_EXCL`: what has come there meanwhile is not written to |
//! | read(2) and write(2), or copy_file_range(2), or `FICLONE` | by size and filesystem; on xfs after a cachestat(2) of a small file, on ext4 after a fallocate(2) of a larger one (`data.rs`) |
//! | 1/16 of a close_range(2) | both files, with others (`closing.rs`) |
//!
//! A directory is openat(2) and fstat(2) of both ends, mkdirat(2), two close(2); and fchdir(2), statx(2), openat(2), fstat(2), two
//! getdents64(2) and close(2) so that jwalk can list it by a path. That is jwalk's price: with the same list read from the
//! descriptor that is open anyway (`list.rs` falls back on that), 20,000 directories in memory take 0.74 of the time (11
//! interleaved rounds, 2 workers), and 100,000 tiny files 0.94 (9).
//!
//! On a disk that may have to seek (and with `-i`, or backups in a directory that was there) a directory is listed twice, the
//! second time for the numbers of its inodes, which jwalk does not tell: its entries are copied in that order, in which they lie on
//! the disk, and with `-j auto` by one worker for as long as several are not found to be better. That takes 1.08 of the time for
//! 50,000 files in one directory of ext4 if all of them are in memory (11 interleaved rounds; no more than usual for a source
//! tree), and a small part of it if they are not: `cargo bench --bench seeking`.
//!
//! A further name of a file that is copied already is an fstatat(2) and a linkat(2), and, where others may have reached the first
//! one since, an fstatat(2) that sees what was linked. That it is one can be known only from its inode number: where most of the
//! last names in a directory were further names the next one is looked at before it is opened (`dir.rs`). Five trees whose files
//! are links to each other's take 0.82 of the time so (11 interleaved rounds in memory).
//!
//! Measured, and left out: **io_uring**. 100,000 files of up to 1 KiB in memory, one thread, medians of 5 interleaved: with sources
//! opened, read and closed in batches of 32 (linked entries, direct descriptors) a copy takes 1.24 of the time; with the copies
//! made so, too, 1.27 and 1.4 of the processor time, because the kernel leaves each `O_CREAT` to a thread of its own
//! (`io_openat_force_async` in its io_uring/openclose.c). **Reading ahead** on a disk that seeks, by an open(2) and a
//! posix_fadvise(2) for each file of a directory before the first one is copied: 0.95 of the time for a source tree, 0.69 for one
//! directory of small files, but three system calls for each file that is in memory; of each chunk of a large file on a disk that
//! does not seek, by posix_fadvise(2): 1.13 of the time with `POSIX_FADV_WILLNEED`, 1.41 with `POSIX_FADV_SEQUENTIAL` (7
//! interleaved, 2 workers). **Other allocators**, although a directory's list is most of what is allocated: with mimalloc 2.0
//! 20,000 directories in memory take 1.00 of the time and 100,000 tiny files 1.03, with jemalloc 5.3 the directories take 1.05 (15,
//! 9 and 15 interleaved, 2 workers).
//!
//! What a file costs does not grow with their number. A million files of up to 1 KiB in memory take 1.05 times as long as 20
//! copies of 50,000 that stay (medians of 5 in turn; the rounds' ratios are between 0.91 and 1.08). If the 50,000 are removed
//! each time they take 0.88 of that for each file, with any copier (cp, cpz and fcp 0.88), because the kernel finds its
//! inodes' memory ready then (`inode_init_once` and `allocate_slab` are the whole difference in `perf record`).
//!
//! # What the workers share
//!
//! All of it, with how often it is touched and what that costs. Measured with 64 workers on 2 processors, on a tree of
//! 31,595 files in 2,022 directories in memory (`perf record`, `perf stat -e syscalls:sys_enter_futex`), in 11 and 6 runs: they
//! take 0.81 to 1.01 s of processor time (median 0.86) where 2 workers take 0.79 to 0.85 (0.81), with the start of 62 threads in
//! it, and 0.01 to 0.02 futex calls a file; with `-j auto` it is 0.003. poolcp's own code is 5 % of the samples, and nothing
//! below that waits is more than 0.2 %.
//!
//! | what | touched | how it is kept cheap |
//! |---|---|---|
//! | the descriptor table, the working directory | at every open and close, by the kernel | one for each worker (`handles.rs`) |
//! | the counters | 4 times a file | a slot for each worker (`counters.rs`) |
//! | directories that are not listed yet | twice a directory | one atomic addition |
//! | the large files under way | twice a file of 16 MiB and more; at each piece of one | a lock; an atomic addition to the file's own count (`live.rs`) |
//! | which chunk of a large file is next, and how many workers are at it | three times a chunk of 16 MiB | atomic additions (`chunks.rs`) |
//! | the gate | once a file, only read; twice a batch, the worker's own cache lines | `gate.rs`; nothing where the number of workers is fixed |
//! | the ladder of a pair of filesystems | once or twice a file, only read | borrowed from the directory, which has it from its parent (`dir.rs`) |
//! | the registry of hard links | twice a file that has several names | 64 locks, each on cache lines of its own (`links.rs`) |
//! | whether the last files of a directory were further names | twice a file with `-a`, mostly read | a byte beside the directory's facts (`dir.rs`) |
//! | what is pending in a directory | twice a subdirectory, and for names that are left | one atomic count a directory (`dir.rs`) |
//! | the operands' directories | once a directory, only read | a sieve before the locks (`operands.rs`) |
//! | directories that are made and wait, on btrfs | three times a directory | an atomic addition, a lock around a push or a pop (`ahead.rs`) |
//! | keys of directories, rayon's count of tasks | once or twice a directory | one atomic addition, some 100 ns if all fight for it |
//! | rayon's queues | when a worker has run out of work | stealing: 0.1 % of the samples, and 0.1 % for their memory's epochs |
//! | rayon's injector | once a copy | |
//! | the observer, the list of errors | for what is told | a lock |
//! | the limit, where there is one | 50 times a second or more, or once a small file | a lock around an addition (`limit.rs`) |
//! | the kernel's lock on a directory | when a name is made in it | not ours; a directory's files are copied by fewer workers if that is faster (`controller.rs`) |
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod ahead;
mod background;
mod backup;
mod buffer;
mod busy;
mod cancel;
mod chunks;
mod clear;
mod closing;
mod context;
mod controller;
mod counters;
mod data;
mod decide;
mod difference;
mod dir;
mod disk;
mod dress;
mod durable;
mod enter;
mod entry;
mod error;
mod facts;
mod file;
mod filter;
mod further;
mod gate;
mod gitignore;
mod glob;
mod handles;
mod job;
pub mod json;
mod ladder;
mod limit;
mod links;
mod list;
mod live;
mod local;
mod lock;
mod make_dir;
mod make_file;
mod make_name;
mod meeting;
mod meta;
mod monitor;
mod mounts;
mod nest;
mod observer;
mod open_dest;
mod operands;
mod options;
mod own_status;
mod parents;
mod path;
mod place;
mod plan;
pub mod pool;
mod prune;
mod quote;
mod ranges;
mod report;
mod roots;
mod sameness;
mod staged;
mod start;
mod sweep;
mod sys;
mod tree;
mod tuner;
mod verify;
mod wording;

pub use background::background;
pub use busy::Busy;
pub use cancel::Canceller;
pub use counters::{Method, Stats};
pub use difference::Why;
pub use error::{Error, Operation};
pub use filter::{Filter, InvalidGlob, Rule};
pub use ladder::{Holes, How, Tried};
pub use live::{LargeFile, Progress, Snapshot};
pub use observer::{Done, Event, Interest, Observer, Question, What};
pub use options::{
    Atomic, Backup, Delete, Effort, Follow, Make, Options, Overwrite, Preserve, Reflink, Sparse,
};
pub use plan::{Plan, Root, Target};
pub use pool::{
    BuildError, Closed, Controls, Job, JobBuilder, JobError, JobId, Pool, PoolBuilder, Task,
};
pub use quote::{quote, quote_argument};
pub use report::{ErrorCount, Report};
