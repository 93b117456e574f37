//! Depth, width, many workers, few descriptors, no /proc; and millions of files, of which memory must not grow.
//!
//! The long versions, some minutes for each million, with what was used at each step (`POOLCP_MILLIONS` says how many; 10 unless
//! set):
//!
//!     cargo test --release --test it -- --ignored --nocapture --test-threads 1 millions

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use poolcp::{Options, Plan, Pool, Target};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::harness::{Sandbox, chmod, mode, set_xattr};
use crate::needs::{Need, say};
use crate::programs::{poolcp, without_proc};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree};

/// Deep enough that no path reaches the end of it (PATH_MAX is 4096), and no recursion either.
const LEVELS: usize = 10_000;

fn open_dir(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .expect("open")
}

/// What a umask of 022 leaves as it is.
fn mode_at(level: usize) -> u32 {
    [0o700, 0o755, 0o711, 0o750, 0o705][level % 5]
}

/// A chain of directories, each with a file in it and a mode that tells its level.
fn make_chain(root: &Path) {
    fs::create_dir(root).expect("make a directory");
    let mut dir = open(root);
    for level in 0..LEVELS {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&dir, "file", flags, mode).expect("make a file");
        rustix::io::write(file, &level.to_le_bytes()).expect("write");
        rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).expect("make a directory");
        let below = open_dir(&dir, "d").expect("open a directory");
        rustix::fs::fchmod(&below, Mode::from_raw_mode(mode_at(level))).expect("chmod");
        dir = below;
    }
}

/// How many levels of the chain are there, in full.
fn count_levels(root: &Path) -> usize {
    let mut dir = open(root);
    for level in 0..=LEVELS {
        let Ok(below) = open_dir(&dir, "d") else {
            return level;
        };
        let file = rustix::fs::openat(&dir, "file", OFlags::RDONLY, Mode::empty()).expect("a file");
        let mut bytes = [0; size_of::<usize>()];
        rustix::io::read(file, &mut bytes).expect("read");
        assert_eq!(usize::from_le_bytes(bytes), level);
        let mode = rustix::fs::fstat(&below).expect("stat").st_mode & 0o7777;
        assert_eq!(mode, mode_at(level), "level {level}");
        dir = below;
    }
    LEVELS + 1
}

/// A chain that is there, or comes to be there, and is removed in the end: `rm -r` takes a time that grows with the square
/// of the depth, and the standard library's `remove_dir_all` a stack that grows with it.
struct Chain(PathBuf);

impl Drop for Chain {
    fn drop(&mut self) {
        // Half a chain, after a failure, is removed as far as it goes.
        let _ = remove_chain(&self.0);
    }
}

fn remove_chain(root: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let mut depth = 0;
    while let Ok(below) = open_dir(&dir, "d") {
        let _ = rustix::fs::unlinkat(&dir, "file", AtFlags::empty());
        dir = below;
        depth += 1;
    }
    for _ in 0..depth {
        dir = open_dir(&dir, "..")?;
        rustix::fs::unlinkat(&dir, "d", AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn remove(path: &Path) {
    let removed = Command::new("rm").arg("-rf").arg(path).status();
    assert!(removed.expect("rm").success());
}

#[test]
fn a_chain_longer_than_any_path_is_copied_with_few_descriptors() {
    let sandbox = Sandbox::in_memory();
    let source = Chain(sandbox.path("source"));
    make_chain(&source.0);
    for options in [["-r", "-j2"], ["-r", "-j16"], ["-a", "-j1"], ["-a", "-j8"]] {
        let name = options.concat();
        let copy = Chain(sandbox.path(&name));
        let args = [options[0], options[1], "source", "-T", "--", &name];
        sandbox.poolcp(args).umask(0o022).max_open_files(256).ok();
        assert_eq!(count_levels(&copy.0), LEVELS, "{options:?}");
    }
}

#[test]
fn a_directory_of_many_files_is_copied_by_any_number_of_workers() {
    let sandbox = Sandbox::in_memory();
    sandbox.dir("source");
    for i in 0..20_000 {
        fs::write(sandbox.path(format!("source/{i}")), i.to_string()).expect("write");
    }
    let source = Snapshot::of(&sandbox.path("source"));
    for workers in ["-j1", "-j2", "-j10", "-j64", "-jauto"] {
        sandbox.poolcp(["-a", workers, "source", "copy"]).ok();
        assert_same(&source, &Snapshot::of(&sandbox.path("copy")), workers);
        remove(&sandbox.path("copy"));
    }
}

/// Directories with files and links between them.
fn make_bush(sandbox: &Sandbox, width: usize, depth: usize) {
    for wide in 0..width {
        let mut dir = format!("source/{wide}");
        for deep in 0..depth {
            sandbox.file(format!("{dir}/file"), 10 * wide + deep);
            dir += &format!("/{deep}");
        }
        sandbox.file(format!("{dir}/leaf"), wide);
        if wide > 0 {
            sandbox.hard_link(format!("{dir}/linked"), "source/0/file");
        }
    }
}

#[test]
fn a_thousand_workers_copy_a_tree() {
    needs!(ThousandThreads);
    let sandbox = Sandbox::in_memory();
    make_bush(&sandbox, 20, 5);
    sandbox.poolcp(["-a", "-j1024", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-j1024");
}

#[test]
fn a_wide_and_deep_tree_is_copied_with_few_descriptors() {
    needs!(OwnTables);
    let sandbox = Sandbox::in_memory();
    make_bush(&sandbox, 40, 30);
    let source = Snapshot::of(&sandbox.path("source"));
    let mut failures = String::new();
    let workers = [("2", 64), ("4", 64), ("16", 64), ("64", 256), ("auto", 64)];
    for (workers, descriptors) in workers {
        let option = format!("-j{workers}");
        let copy = sandbox.poolcp(["-a", &option, "source", "copy"]);
        let run = copy.max_open_files(descriptors).run();
        let copied = Snapshot::of(&sandbox.path("copy"));
        if run.code != 0 || source.difference(&copied).is_some() {
            let first = run.stderr.lines().next().unwrap_or("entries are missing");
            failures += &format!("\n{workers} workers, {descriptors} descriptors: {first}");
        }
        remove(&sandbox.path("copy"));
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn many_operands_are_copied() {
    let sandbox = Sandbox::in_memory();
    let mut names: Vec<String> = (0..3000).map(|i| format!("file{i}")).collect();
    for name in &names {
        sandbox.file(Path::new("source").join(name), 1);
    }
    names
        .iter_mut()
        .for_each(|name| *name = format!("source/{name}"));
    sandbox.dir("target");
    let args = ["-p", "-j8", "-t", "target"]
        .into_iter()
        .chain(names.iter().map(String::as_str));
    sandbox.poolcp(args).ok();
    let (source, target) = (
        Snapshot::of(&sandbox.path("source")),
        Snapshot::of(&sandbox.path("target")),
    );
    assert_same(
        &source.without(&["mtime"]),
        &target.without(&["mtime"]),
        "-t",
    );
}

#[test]
fn a_tree_is_copied_where_there_is_no_proc() {
    needs!(GnuCp9);
    needs!(NoProc);
    let sandbox = Sandbox::new();
    make_bush(&sandbox, 5, 5);
    sandbox.symlink("source/link", "nowhere");
    without_proc(sandbox.poolcp(["-a", "source", "copy"])).ok();
    assert_same_tree(
        &sandbox.path("source"),
        &sandbox.path("copy"),
        "-a without /proc",
    );
    for umask in [0o022, 0o077, 0o000] {
        let plain = format!("plain{umask}");
        without_proc(sandbox.poolcp(["-r", "source", &plain]).umask(umask)).ok();
        let cps = format!("cp{umask}");
        sandbox.cp(["-r", "source", &cps]).umask(umask).ok();
        let what = format!("-r without /proc, umask {umask:03o}");
        let [plain, cps] = [plain, cps].map(|name| Snapshot::of(&sandbox.path(name)).blurred());
        assert_same(&cps, &plain, &what);
    }
}

#[test]
fn special_files_and_attributes_are_kept_where_there_is_no_proc() {
    needs!(NoProc, TrustedXattrs);
    let sandbox = Sandbox::new();
    chmod(&sandbox.fifo("source/dir/fifo"), 0o765);
    sandbox.symlink("source/dir/link", "nowhere");
    set_xattr(&sandbox.file("source/dir/file", 10), "trusted.poolcp", b"x");
    without_proc(sandbox.poolcp(["-a", "source", "copy"])).ok();
    assert_same_tree(
        &sandbox.path("source"),
        &sandbox.path("copy"),
        "-a without /proc",
    );
    // The names on the command line, and what has no attributes to keep but the ACL that it might have.
    chmod(&sandbox.fifo("fifo"), 0o664);
    sandbox.symlink("link", "nowhere");
    without_proc(sandbox.poolcp(["-a", "fifo", "link", "copy"])).ok();
    without_proc(sandbox.poolcp(["-a", "fifo", "other"])).ok();
    assert_eq!(
        [
            mode(&sandbox.path("copy/fifo")),
            mode(&sandbox.path("other"))
        ],
        [0o664; 2]
    );
    for umask in [0o022, 0o077] {
        for (options, name) in [
            ("--no-preserve=mode", "plain"),
            ("--preserve=ownership", "owned"),
        ] {
            let made = ["poolcp", "cp"].map(|program| {
                let copy = format!("{program}-{name}-{umask}");
                let args = ["-r", options, "source", copy.as_str()];
                match program {
                    "cp" => sandbox.cp(args).umask(umask).ok(),
                    _ => without_proc(sandbox.poolcp(args)).umask(umask).ok(),
                };
                Snapshot::of(&sandbox.path(copy)).blurred()
            });
            assert_same(
                &made[1],
                &made[0],
                &format!("{options} without /proc, umask {umask:03o}"),
            );
        }
    }
}

#[test]
fn symbolic_links_in_the_way_of_a_chain_are_not_entered() {
    let sandbox = Sandbox::new();
    sandbox.file("outside/file", 10);
    sandbox.file("source/dir/file", 20);
    sandbox.symlink("target/dir", "../outside");
    sandbox
        .poolcp(["-r", "source/.", "target"])
        .fails(&["cannot overwrite non-directory 'target/./dir' with directory 'source/./dir'"]);
    let outside = rustix::fs::statat(CWD, sandbox.path("outside/file"), AtFlags::empty());
    assert_eq!(outside.expect("stat").st_size, 10);
}

// ---- Endurance ----

/// The most that a process has used.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    /// Of memory, in KiB.
    memory: u64,
    /// Of descriptors, in any one of its tables: workers have their own.
    descriptors: usize,
}

impl Peak {
    /// Looks at a process again.
    fn look(&mut self, process: &str) {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let memory = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        self.memory = self.memory.max(memory.unwrap_or(0));
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let open = fs::read_dir(task.path().join("fd"));
            let count = open.map_or(0, Iterator::count);
            self.descriptors = self.descriptors.max(count);
        }
    }
}

/// Copies a tree with a process of its own, and says what that used.
fn copy_and_watch(sandbox: &Sandbox, source: &str) -> Peak {
    let mut child = Command::new(poolcp())
        .args(["-aqT", "-j8", source, "copy"])
        .current_dir(sandbox.path(""))
        .spawn()
        .expect("start");
    let mut peak = Peak::default();
    let status = loop {
        peak.look(&child.id().to_string());
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success());
    remove(&sandbox.path("copy"));
    peak
}

/// Directories of files, most of them empty.
fn make_files(sandbox: &Sandbox, name: &str, dirs: usize, files: usize) {
    for dir in 0..dirs {
        let dir = sandbox.dir(format!("{name}/{dir}"));
        for file in 0..files {
            let text = if file % 50 == 0 { "some text" } else { "" };
            fs::write(dir.join(file.to_string()), text).expect("write");
        }
    }
}

/// What a peak may differ by from run to run: buffers of workers, and what the allocator keeps.
const NOISE: u64 = 12 << 10;

/// Copies a tree, and one with so many times more directories; says what one of them alone takes if it has all the files.
fn check_memory(dirs: usize, times: usize, files: usize) {
    let sandbox = Sandbox::in_memory();
    make_files(&sandbox, "small", dirs, files);
    let small = copy_and_watch(&sandbox, "small");
    remove(&sandbox.path("small"));
    make_files(&sandbox, "large", dirs * times, files);
    let large = copy_and_watch(&sandbox, "large");
    remove(&sandbox.path("large"));
    make_files(&sandbox, "flat", 1, dirs * times * files);
    let flat = copy_and_watch(&sandbox, "flat");
    let all = dirs * times * files;
    say(&format!(
        "{} files: {small:?}; {all} files: {large:?}; {all} in one directory: {flat:?}",
        dirs * files
    ));
    assert!(small.memory > 0 && large.memory > 0, "too fast to be seen");
    assert!(large.memory < small.memory + NOISE);
    // 32 directories that are kept by each worker, two for each, and as many again that are in use while work is stolen.
    // Where workers may have no tables of their own, those of all are in one.
    let sharers = if Need::OwnTables.is_met() { 1 } else { 8 };
    assert!(large.descriptors < 200 * sharers && flat.descriptors < 200 * sharers);
    // A listing with its names, and no more than that: some hundred bytes for each.
    assert!(flat.memory < small.memory + NOISE + all as u64 / 4);
}

#[test]
fn memory_does_not_grow_with_the_number_of_files() {
    check_memory(20, 50, 100);
}

#[test]
#[ignore = "takes minutes"]
fn memory_does_not_grow_with_millions_of_files() {
    check_memory(50, 20, 1000);
}

/// Copies the same tree again and again with one pool, and finds that this uses no more after many times than after two.
fn check_endurance(times: usize, dirs: usize, files: usize) {
    let sandbox = Sandbox::in_memory();
    make_files(&sandbox, "source", dirs, files);
    let pool = Pool::builder().threads(8).build().expect("a pool");
    let mut peaks = Vec::new();
    for _ in 0..times {
        let target = Target::Exactly(sandbox.path("copy"));
        let plan = Plan::resolve([sandbox.path("source")], target, Options::archive());
        let job = pool.apply_async(plan.expect("a plan")).expect("a job");
        let report = job.join().expect("a report");
        assert!(report.is_success());
        assert_eq!(report.stats.files, (dirs * files) as u64);
        remove(&sandbox.path("copy"));
        let mut peak = Peak::default();
        peak.look("self");
        peaks.push(peak);
        say(&format!("{} files: {peak:?}", peaks.len() * dirs * files));
    }
    let (second, last) = (peaks[1], peaks[times - 1]);
    assert!(last.memory < second.memory + NOISE, "{peaks:?}");
    assert!(last.descriptors <= second.descriptors, "{peaks:?}");
}

#[test]
#[ignore = "takes minutes, and no other test may run beside it"]
fn many_millions_of_files_are_copied_one_after_the_other() {
    let millions = std::env::var("POOLCP_MILLIONS");
    let millions: usize = millions.map_or(10, |text| text.parse().expect("a number"));
    check_endurance(2 * millions, 500, 1000);
}
