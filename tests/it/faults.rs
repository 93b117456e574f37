//! Every system call fails, one at a time.
//!
//! A tree with everything in it is copied under strace, which makes the n-th call of a kind fail with an error that the
//! kernel might give (`-e inject=SYSCALL:error=ERRNO:when=N`). Only calls about the two trees are counted and failed: strace
//! knows their paths (`-P`). [`FAULTS`] lists the calls and errors with what may come of them; a call that a copy makes and
//! nobody has listed fails the test. After each case:
//!
//! 1. The program ended, with exit code 0 or 1 and without a panic.
//! 2. After exit code 0 the copy is complete: it is what it is without the fault.
//! 3. After exit code 1 each entry that is not as it would be is named in a message. A missing directory excuses what is
//!    in it.
//! 4. No new file is there in part: it is complete, or it is gone.
//! 5. Nothing else is there: no temporary name, no backup that nobody asked for.
//! 6. No mode has a bit that neither the source nor what was there before has, and no ACL is lost in silence.
//! 7. The source is what it was.
//!
//! `cargo test` tries a quarter of the errors in each scenario, at one call each. Everything, some 7,500 cases in five minutes
//! (with `POOLCP_FAULTS_TABLE` set, the number of cases of each kind is shown):
//!
//!     cargo test --release --test it -- --ignored --nocapture every_call

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::disks::{Disk, Format};
use crate::harness::{
    ACCESS_ACL, DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, set_mtime, set_xattr,
};
use crate::needs::say;
use crate::programs::{Call, Run, TRACE};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree};

/// What may come of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The call is indispensable: exit code 1.
    Fails,
    /// There is another way: exit code 0, and a complete copy.
    Recovers,
    /// One or the other, depending on what the call was for.
    Either,
}

use Outcome::{Either, Fails, Recovers};

/// A call, the errors that it may give, and what may come of them.
struct Fault {
    syscall: &'static str,
    errnos: &'static [&'static str],
    outcome: Outcome,
    why: &'static str,
}

const fn fault(
    syscall: &'static str,
    errnos: &'static [&'static str],
    outcome: Outcome,
    why: &'static str,
) -> Fault {
    Fault {
        syscall,
        errnos,
        outcome,
        why,
    }
}

/// The calls that a copy makes about its files.
const FAULTS: &[Fault] = &[
    fault(
        "openat",
        &[
            "EACCES", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "EROFS", "ENOENT",
            "ELOOP", "EPERM", "ETXTBSY", "ENXIO",
        ],
        Either,
        "a directory can be listed in three ways, EPERM may be about O_NOATIME, and the umask need not be known",
    ),
    fault(
        "newfstatat",
        &["EIO", "EACCES", "ENOMEM", "ENOENT", "ELOOP"],
        Either,
        "some looks only serve a message or a comparison, and the other kind of stat does as well",
    ),
    fault(
        "fstat",
        &["EIO", "ENOMEM"],
        Either,
        "an operand's file system need not be known",
    ),
    fault(
        "statx",
        &["EIO", "EACCES", "ENOMEM"],
        Recovers,
        "only jwalk uses it, which has a substitute",
    ),
    fault(
        "getdents64",
        &["EIO", "ENOMEM"],
        Either,
        "the directory is listed in another way, but for the numbers of its backups; ENOENT would say that it has been removed, and that nothing is in it",
    ),
    fault(
        "fchdir",
        &["EACCES", "EIO"],
        Recovers,
        "a directory is listed by way of /proc",
    ),
    fault(
        "mkdirat",
        &[
            "EACCES",
            "EIO",
            "ENOSPC",
            "EDQUOT",
            "EROFS",
            "EMLINK",
            "ENOENT",
            "ENAMETOOLONG",
            "EPERM",
        ],
        Fails,
        "nothing else makes a directory",
    ),
    fault(
        "symlinkat",
        &[
            "EACCES",
            "EIO",
            "ENOSPC",
            "EDQUOT",
            "EROFS",
            "EPERM",
            "ENAMETOOLONG",
        ],
        Fails,
        "nothing else makes a symbolic link",
    ),
    fault(
        "mknodat",
        &["EACCES", "EIO", "ENOSPC", "EDQUOT", "EROFS", "EPERM"],
        Fails,
        "nothing else makes a FIFO",
    ),
    fault(
        "linkat",
        &[
            "EACCES", "EIO", "ENOSPC", "EDQUOT", "EROFS", "EPERM", "EMLINK", "EXDEV",
        ],
        Fails,
        "a second copy would not be a link",
    ),
    fault(
        "linkat",
        &["EEXIST"],
        Either,
        "the link replaces what has the name",
    ),
    fault(
        "renameat",
        &["EIO", "ENOSPC", "EROFS"],
        Fails,
        "what has the name cannot be replaced",
    ),
    fault(
        "renameat",
        &["EACCES", "EPERM", "EXDEV", "EBUSY"],
        Either,
        "where its inode has to stay, a file is written in place",
    ),
    fault(
        "flock",
        &["EWOULDBLOCK", "ENOLCK", "EOPNOTSUPP", "EIO"],
        Recovers,
        "another name is taken, and a file without a lock is not swept by others that cannot lock it, either",
    ),
    fault(
        "renameat2",
        &["EACCES", "EIO", "ENOSPC", "EROFS", "EPERM", "EBUSY"],
        Fails,
        "no backup, no copy",
    ),
    fault(
        "renameat2",
        &["EINVAL"],
        Recovers,
        "a file system that does not know the flag",
    ),
    fault(
        "unlinkat",
        &["EACCES", "EIO", "EROFS", "EPERM", "EBUSY"],
        Fails,
        "what has the name cannot be replaced",
    ),
    fault(
        "unlinkat",
        &["ENOENT"],
        Either,
        "somebody else has removed it",
    ),
    fault(
        "read",
        &["EIO", "EISDIR", "ENOMEM"],
        Fails,
        "nothing else gets the data",
    ),
    fault(
        "pread64",
        &["EIO", "ENOMEM"],
        Fails,
        "nothing else gets the data",
    ),
    fault(
        "write",
        &["EIO", "ENOSPC", "EDQUOT", "EFBIG", "EPERM"],
        Fails,
        "nothing else puts the data",
    ),
    fault(
        "pwrite64",
        &["EIO", "ENOSPC", "EDQUOT", "EFBIG", "EPERM"],
        Fails,
        "nothing else puts the data",
    ),
    fault(
        "copy_file_range",
        &["EIO", "ENOSPC", "EDQUOT", "EFBIG", "ENOMEM"],
        Fails,
        "reading and writing would not do better",
    ),
    fault(
        "copy_file_range",
        &[
            "EXDEV",
            "EINVAL",
            "EOPNOTSUPP",
            "ENOSYS",
            "EPERM",
            "EBADF",
            "ETXTBSY",
            "EOVERFLOW",
            "ENOENT",
            "EACCES",
            "EINTR",
        ],
        Recovers,
        "data is read and written, or the call repeated",
    ),
    fault(
        "ioctl",
        &["EIO", "ENOSPC", "EDQUOT", "ENOMEM"],
        Either,
        "where a file is shared, copying would not do better; an old file's flags need not be known",
    ),
    fault(
        "ioctl",
        &[
            "EOPNOTSUPP",
            "EXDEV",
            "EINVAL",
            "ENOTTY",
            "ENOSYS",
            "EPERM",
            "EBADF",
            "ETXTBSY",
            "EINTR",
        ],
        Recovers,
        "what cannot be shared is copied",
    ),
    fault(
        "lseek",
        &["EIO"],
        Either,
        "where holes are is not known; the order of inodes can be had otherwise",
    ),
    fault(
        "lseek",
        &["EINVAL", "EOPNOTSUPP"],
        Recovers,
        "a file system that does not tell holes",
    ),
    fault(
        "ftruncate",
        &["EIO", "ENOSPC", "EFBIG", "EPERM", "EINVAL"],
        Fails,
        "the size would be wrong",
    ),
    fault("ftruncate", &["EINTR"], Recovers, "the call is repeated"),
    fault(
        "close",
        &["EIO", "ENOSPC", "EDQUOT"],
        Either,
        "a source that was read has nothing to lose",
    ),
    fault(
        "close_range",
        &["ENOSYS", "EPERM", "EINVAL"],
        Recovers,
        "files are closed one by one",
    ),
    fault(
        "fstatfs",
        &["EIO", "ENOSYS", "EACCES"],
        Recovers,
        "what kind of file system it is only saves calls",
    ),
    fault(
        "readlinkat",
        &["EIO", "EACCES", "ENOENT", "EINVAL", "ENOMEM"],
        Fails,
        "nothing else tells what a symbolic link says",
    ),
    fault(
        "fchownat",
        &["EPERM", "EIO", "EDQUOT", "EROFS", "EINVAL"],
        Fails,
        "ownership was asked for, by the superuser",
    ),
    fault(
        "fchmod",
        &["EPERM", "EIO", "EROFS"],
        Either,
        "nothing else sets the mode, but a directory that was there is narrowed first, and gets its mode once more",
    ),
    fault(
        "chmod",
        &["EPERM", "EIO", "EROFS"],
        Fails,
        "nothing else sets the mode of a FIFO",
    ),
    fault(
        "fchmodat",
        &["EPERM", "EIO", "EROFS"],
        Fails,
        "nothing else sets the mode of a FIFO",
    ),
    fault(
        "utimensat",
        &["EPERM", "EIO", "EROFS", "EACCES"],
        Either,
        "EPERM may be about the access time of a file that is only touched",
    ),
    fault(
        "flistxattr",
        &["EIO", "EACCES", "E2BIG", "ENOMEM"],
        Either,
        "attributes were required; or they are those of a file that is written in place then",
    ),
    fault(
        "llistxattr",
        &["EIO", "EACCES", "E2BIG", "ENOMEM"],
        Fails,
        "attributes were required",
    ),
    fault(
        "fgetxattr",
        &["EIO", "EACCES", "ENOMEM"],
        Either,
        "whether there is a default ACL need not be known",
    ),
    fault(
        "lgetxattr",
        &["EIO", "EACCES", "ENOMEM"],
        Fails,
        "attributes were required",
    ),
    fault(
        "fsetxattr",
        &["EIO", "EPERM", "ENOSPC", "EDQUOT", "EOPNOTSUPP", "E2BIG"],
        Fails,
        "attributes were required",
    ),
    fault(
        "lsetxattr",
        &["EIO", "EPERM", "ENOSPC", "EDQUOT", "EOPNOTSUPP", "E2BIG"],
        Fails,
        "attributes were required",
    ),
    fault(
        "fremovexattr",
        &["EIO", "EPERM", "EROFS"],
        Fails,
        "an ACL that was inherited would stay",
    ),
    fault(
        "setxattr",
        &["EIO", "EPERM", "ENOSPC", "EDQUOT", "EOPNOTSUPP", "E2BIG"],
        Fails,
        "attributes were required",
    ),
    fault(
        "removexattr",
        &["EIO", "EPERM", "EROFS"],
        Fails,
        "an ACL that was inherited would stay",
    ),
    fault(
        "lremovexattr",
        &["EIO", "EPERM", "EROFS"],
        Fails,
        "an ACL that was inherited would stay",
    ),
    fault(
        "prlimit64",
        &["EPERM", "ENOSYS"],
        Recovers,
        "what the limits are need not be known",
    ),
    fault("mkdirat", &["EEXIST"], Either, "it is there"),
    fault(
        "fremovexattr",
        &["ENODATA", "EOPNOTSUPP"],
        Either,
        "there is none",
    ),
];

/// Calls that are not about files, and those that the kernel does not fail.
const NOT_FAILED: &[&str] = &[
    // Memory: Rust's answer to too little is to end the process.
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    // Threads, and waiting.
    "futex",
    "sched_yield",
    "sched_getaffinity",
    "rt_sigprocmask",
    "rt_sigaction",
    "sigaltstack",
    "gettid",
    "prctl",
    "set_robust_list",
    "rseq",
    "clone3",
    "exit",
    "exit_group",
    "restart_syscall",
    "clock_nanosleep",
    // The process.
    "geteuid",
    "getegid",
    "getrandom",
    "faccessat2",
    // Whether operands are inside each other: what cannot be found is not.
    "getcwd",
    "readlink",
    // Its failure leaves the worker with what it shares: `descriptors_may_be_shared`.
    "unshare",
    // Debug builds check descriptors with it, and abort.
    "fcntl",
];

/// A command line, and what is there before.
struct Scenario {
    name: &'static str,
    args: &'static [&'static str],
    /// The directory that the copy is made in or as.
    dest: &'static str,
    prepare: fn(&Sandbox),
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "archive",
        args: &["-a", "--preserve=xattr", "source", "-T", "copy"],
        dest: "copy",
        prepare: |_| {},
    },
    Scenario {
        name: "merge",
        args: &["-a", "--preserve=xattr", "source", "-T", "copy"],
        dest: "copy",
        prepare: make_older_copy,
    },
    Scenario {
        name: "plain",
        args: &["-r", "--sparse=always", "source", "-T", "copy"],
        dest: "copy",
        prepare: |_| {},
    },
    Scenario {
        name: "plain merge",
        args: &["-r", "--reflink=never", "source", "-T", "copy"],
        dest: "copy",
        prepare: make_older_copy,
    },
    Scenario {
        name: "backups",
        args: &[
            "-a",
            "--preserve=xattr",
            "--backup=numbered",
            "source",
            "-T",
            "copy",
        ],
        dest: "copy",
        prepare: make_older_copy,
    },
    Scenario {
        name: "removal",
        args: &[
            "-a",
            "--preserve=xattr",
            "--remove-destination",
            "source",
            "-T",
            "copy",
        ],
        dest: "copy",
        prepare: make_older_copy,
    },
    Scenario {
        name: "operands",
        args: &[
            "-p",
            "source/small",
            "source/medium",
            "source/dir/hard",
            "source/sparse",
            "copy",
        ],
        dest: "copy",
        prepare: |sandbox| drop(sandbox.dir("copy")),
    },
    Scenario {
        name: "links",
        args: &["-rl", "source", "-T", "copy"],
        dest: "copy",
        prepare: |_| {},
    },
];

/// One of everything. Modes and owners are such that a wrong one shows.
fn make_source(sandbox: &Sandbox) {
    sandbox.file("source/empty", 0);
    sandbox.file("source/small", 3000);
    sandbox.file("source/medium", 5000);
    sandbox.file("source/dir/large", 300_000);
    sandbox.file("source/dir/sub/file", 100);
    sandbox.sparse("source/sparse", 200_000, &[(40_960, 5000), (150_000, 3000)]);
    sandbox.hard_link("source/dir/hard", "source/small");
    sandbox.hard_link("source/dir/sub/hard", "source/small");
    sandbox.symlink("source/dir/link", "sub/file");
    sandbox.fifo("source/dir/fifo");
    sandbox.dir("source/dir/empty");
    set_xattr(&sandbox.path("source/medium"), "user.poolcp", b"value");
    set_xattr(&sandbox.path("source/dir"), "user.poolcp", b"value");
    set_xattr(&sandbox.path("source/dir/link"), "trusted.poolcp", b"value");
    set_xattr(&sandbox.path("source/dir/large"), ACCESS_ACL, &acl_for(7));
    set_xattr(&sandbox.path("source/dir/sub"), DEFAULT_ACL, &acl_for(8));
    chown(&sandbox.path("source/dir/sub/file"), NOBODY, NOBODY);
    chown(&sandbox.path("source/dir/empty"), NOBODY, NOBODY);
    chown(&sandbox.path("source/dir/link"), NOBODY, NOBODY);
    chmod(&sandbox.path("source/dir/sub/file"), 0o4751);
    chmod(&sandbox.path("source/medium"), 0o640);
    chmod(&sandbox.path("source/sparse"), 0o400);
    chmod(&sandbox.path("source/dir/fifo"), 0o620);
    chmod(&sandbox.path("source/dir/sub"), 0o711);
    chmod(&sandbox.path("source/dir/empty"), 0o1733);
    for (at, path) in Snapshot::of(&sandbox.path("source")).paths().enumerate() {
        // The root's path is empty; a name behind it would be another file's.
        let path = if path.as_os_str().is_empty() {
            sandbox.path("source")
        } else {
            sandbox.path("source").join(path)
        };
        set_mtime(&path, 1_000_000_000 + at as i64, 1);
    }
}

/// What a copy may find: files that are written in place or replaced, an ACL that has to go, and what is not in the source.
fn make_older_copy(sandbox: &Sandbox) {
    for (name, len) in [
        ("small", 10),
        ("medium", 9000),
        ("dir/large", 10),
        ("dir/link", 10),
        ("kept", 10),
    ] {
        chmod(&sandbox.file(format!("copy/{name}"), len), 0o600);
    }
    sandbox.hard_link("copy/kept-too", "copy/medium");
    sandbox.file("copy/empty", 0);
    sandbox.dir("copy/dir/sub");
    set_xattr(&sandbox.path("copy/small"), ACCESS_ACL, &acl_for(9));
    set_xattr(&sandbox.path("copy/dir"), DEFAULT_ACL, &acl_for(9));
}

/// The n-th call about the files of a scenario, and the error that it gives.
struct Case<'a> {
    scenario: &'a Scenario,
    fault: &'a Fault,
    errno: &'static str,
    n: usize,
}

/// Where a scenario is played again and again.
struct Stage {
    sandbox: Sandbox,
    scenario: &'static Scenario,
    source: Snapshot,
    before: Option<Snapshot>,
    /// What the copy is without a fault.
    complete: Snapshot,
}

impl Stage {
    fn new(scenario: &'static Scenario) -> Self {
        let sandbox = Sandbox::small_in_memory();
        make_source(&sandbox);
        (scenario.prepare)(&sandbox);
        let dest = sandbox.path(scenario.dest);
        let before = dest.exists().then(|| Snapshot::of(&dest).blurred());
        let mut stage = Self {
            source: Snapshot::of(&sandbox.path("source")).without(&["same file as"]),
            complete: Snapshot::of(&sandbox.path("source")),
            sandbox,
            scenario,
            before,
        };
        stage.call().ok();
        stage.complete = Snapshot::of(&dest).blurred();
        stage
    }

    fn reset(&self) {
        let dest = self.sandbox.path(self.scenario.dest);
        if dest.exists() {
            fs::remove_dir_all(&dest).expect("remove");
        }
        (self.scenario.prepare)(&self.sandbox);
    }

    fn call(&self) -> Call {
        self.sandbox
            .poolcp(["-j1"].iter().chain(self.scenario.args))
            .umask(0o022)
            .patience(Duration::from_secs(60))
    }

    /// What strace has to know so that it counts calls about these files only: each way in which a path is given.
    fn paths(&self) -> Vec<String> {
        let here = self.sandbox.path("");
        let here = here.to_str().expect("a path").trim_end_matches('/');
        let mut paths: Vec<String> = [here, ".", "/proc/self/status"].map(String::from).to_vec();
        for (root, snapshot) in [
            ("source", &self.source),
            (self.scenario.dest, &self.complete),
        ] {
            for path in snapshot.paths() {
                let path = Path::new(root).join(path);
                let path = path.to_str().expect("a name").trim_end_matches('/');
                paths.extend([path.to_owned(), format!("{here}/{path}")]);
                let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
                // What cannot be opened has its attributes by way of /proc.
                if name == "link" || name == "fifo" {
                    paths.extend((3..20).map(|fd| format!("/proc/thread-self/fd/{fd}/{name}")));
                }
            }
        }
        paths.extend((3..20).map(|fd| format!("/proc/thread-self/fd/{fd}")));
        paths
            .into_iter()
            .flat_map(|path| ["-P".to_owned(), path])
            .collect()
    }

    /// The calls about these files, each with the numbers under which they can be failed.
    fn count_calls(&self) -> BTreeMap<String, BTreeSet<usize>> {
        self.reset();
        let mut options = self.paths();
        options.push("-y".to_owned());
        self.call().traced(&options).ok();
        let mut counts = BTreeMap::new();
        let mut numbers: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        let mut left_out = Vec::new();
        for (thread, call, rest) in self.trace() {
            let count = counts.entry((thread, call.clone())).or_insert(0);
            *count += 1;
            // The kernel has nothing to say when a directory is closed; the standard library relies on that.
            let path = rest.split(['<', '>']).nth(1).unwrap_or_default();
            if call == "close" && Path::new(path).is_dir() {
                left_out.push(*count);
            }
            numbers.entry(call).or_default().insert(*count);
        }
        if let Some(closes) = numbers.get_mut("close") {
            closes.retain(|n| !left_out.contains(n));
        }
        numbers
    }

    /// The calls that a worker makes from its beginning on, about whatever.
    fn all_calls(&self) -> BTreeSet<String> {
        self.reset();
        self.call().traced(&[""; 0]).ok();
        let trace = self.trace();
        let workers: BTreeSet<u32> = trace
            .iter()
            .filter(|(_, call, flags)| call == "unshare" && flags.starts_with("CLONE_F"))
            .map(|(thread, ..)| *thread)
            .collect();
        trace
            .into_iter()
            .filter(|(thread, ..)| workers.contains(thread))
            .map(|(_, call, _)| call)
            .collect()
    }

    /// Thread, call and the rest, line by line.
    fn trace(&self) -> Vec<(u32, String, String)> {
        let text = fs::read(self.sandbox.path(TRACE)).expect("a trace");
        let text = String::from_utf8_lossy(&text);
        let parts = |line: &str| {
            let (thread, rest) = line.split_once(' ')?;
            let (call, rest) = rest.trim_start().split_once('(')?;
            let mut bytes = call.bytes();
            let is_name = bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_name.then_some((thread.parse().ok()?, call.to_owned(), rest.to_owned()))
        };
        text.lines().filter_map(parts).collect()
    }

    /// Plays one case; what is not as it must be is returned.
    fn play(&self, case: &Case) -> Result<(), String> {
        self.reset();
        let Case {
            fault, errno, n, ..
        } = case;
        let mut options = self.paths();
        let calls = format!("trace={}", fault.syscall);
        let inject = format!("inject={}:error={errno}:when={n}", fault.syscall);
        options.extend(["-e".to_owned(), calls, "-e".to_owned(), inject]);
        let run = self.call().traced(&options).run_in_time()?;
        let trace = fs::read(self.sandbox.path(TRACE)).expect("a trace");
        if !String::from_utf8_lossy(&trace).contains("(INJECTED)") {
            return Err("the call was not made".to_owned());
        }
        let mut wrong = self.judge(&run, fault);
        if let Some(difference) = self
            .source
            .difference(&Snapshot::of(&self.sandbox.path("source")).without(&["same file as"]))
            && self.scenario.name != "links"
        {
            wrong += &format!("the source changed: {difference}");
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{wrong}{run:#?}"))
        }
    }

    fn judge(&self, run: &Run, fault: &Fault) -> String {
        let dest = self.sandbox.path(self.scenario.dest);
        let after = if dest.exists() {
            Snapshot::of(&dest).blurred()
        } else {
            self.complete.clone().only(|_| false)
        };
        let mut wrong = String::new();
        match (run.code, fault.outcome) {
            (0, Fails) => wrong += "exit code 0\n",
            (1, Recovers) => wrong += "exit code 1\n",
            (0 | 1, _) => {}
            (code, _) => _ = writeln!(wrong, "exit code {code}"),
        }
        if run.code == 0 {
            let difference = self.complete.difference(&after).unwrap_or_default();
            // Holes that cannot be found are filled.
            let is_hole = |line: &&str| fault.syscall == "lseek" && line.contains(" allocated ");
            for line in difference.lines().filter(|line| !is_hole(line)) {
                _ = writeln!(wrong, "exit code 0, but {line}");
            }
            return wrong;
        }
        let told = Told::new(run, self.scenario.dest);
        if told.names.is_empty() {
            wrong += "no message names a file\n";
        }
        let paths: BTreeSet<&Path> = self.complete.paths().chain(after.paths()).collect();
        for path in paths {
            self.judge_entry(path, &after, &told, &mut wrong);
        }
        wrong
    }

    /// All names that a file has in the copy, or had there before.
    fn names_of(&self, path: &Path) -> Vec<PathBuf> {
        let mut names = vec![path.to_owned()];
        for snapshot in self.before.iter().chain([&self.complete]) {
            let first = |path: &Path| {
                let first = snapshot.fact(path, "same file as");
                first.map_or_else(|| format!("{path:?}"), str::to_owned)
            };
            let same: Vec<PathBuf> = snapshot
                .paths()
                .filter(|other| names.iter().any(|name| first(name) == first(other)))
                .map(Path::to_owned)
                .collect();
            names.extend(same);
        }
        names
    }

    fn judge_entry(&self, path: &Path, after: &Snapshot, told: &Told, wrong: &mut String) {
        let is_there = |snapshot: &Snapshot| snapshot.fact(path, "kind").is_some();
        let was_there = self.before.as_ref().is_some_and(is_there);
        let mut say = |what: &str| _ = writeln!(wrong, "{}: {what}", path.display());
        if !is_there(after) {
            if !told.names(path) && !told.is_in_failed_directory(path) {
                say("is missing, and nobody says so");
            }
            return;
        }
        if !is_there(&self.complete) {
            // A destination whose backup was to be made, or that was to be removed, may still be there.
            if !was_there {
                say("should not be there");
            }
            return;
        }
        // What is done to a file is done to all its names, and told about one.
        let names = self.names_of(path);
        let differing = self.complete.differing(after, path);
        // The first name of a file may be another one.
        let differing: Vec<_> = differing
            .into_iter()
            .filter(|name| *name != "same file as")
            .collect();
        if differing.is_empty() {
            return;
        }
        if !names.iter().any(|name| told.names(name)) && !told.is_in_failed_directory(path) {
            say(&format!("{differing:?} differ, and nobody says so"));
        }
        if !was_there && (differing.contains(&"content") || differing.contains(&"size")) {
            say("is a part of a file");
        }
        let mode = |snapshot: &Snapshot| mode_of(snapshot, path);
        let before = self.before.as_ref().map_or(0, |old| {
            names.iter().fold(0, |all, name| all | mode_of(old, name))
        });
        let wider = mode(after) & !(mode(&self.complete) | before);
        if wider != 0 {
            say(&format!("has {wider:04o} more than it should"));
        }
        // The bits of the group are the limit of an ACL; without that they are the group's own.
        let acl = |snapshot: &Snapshot| {
            let list = snapshot.fact(path, "xattrs").unwrap_or_default();
            list.split(' ')
                .find(|one| one.starts_with(ACCESS_ACL))
                .map(String::from)
        };
        let is_old = before == mode(after)
            && self
                .before
                .as_ref()
                .is_some_and(|old| acl(old) == acl(after));
        if acl(&self.complete) != acl(after) && mode(after) & 0o070 != 0 && !is_old {
            say(&format!(
                "its group has rights that its ACL did not give: {:?}",
                acl(after)
            ));
        }
    }
}

fn mode_of(snapshot: &Snapshot, path: &Path) -> u32 {
    let mode = snapshot.fact(path, "mode").unwrap_or("0");
    u32::from_str_radix(mode, 8).expect("a mode")
}

/// What messages name.
struct Told {
    names: BTreeSet<PathBuf>,
    failed_directories: BTreeSet<PathBuf>,
}

impl Told {
    fn new(run: &Run, dest: &str) -> Self {
        let mut told = Self {
            names: BTreeSet::new(),
            failed_directories: BTreeSet::new(),
        };
        for line in run.messages() {
            let no_directory = [
                "cannot create directory",
                "cannot access",
                "cannot stat",
                "target ",
                "cannot overwrite",
            ];
            let is_no_directory = no_directory.iter().any(|words| line.starts_with(words));
            for name in line.split('\'').skip(1).step_by(2) {
                let name = Path::new(name);
                let Ok(name) = name.strip_prefix("source").or(name.strip_prefix(dest)) else {
                    continue;
                };
                told.names.insert(name.to_owned());
                if is_no_directory {
                    told.failed_directories.insert(name.to_owned());
                }
            }
        }
        told
    }

    /// A backup goes by the name that it is made of; a copy of an operand by the operand's.
    fn names(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let (original, _) = text.split_once(".~").unwrap_or((&text, ""));
        self.names
            .iter()
            .any(|name| name == Path::new(original) || name.file_name() == Some(path.as_os_str()))
    }

    fn is_in_failed_directory(&self, path: &Path) -> bool {
        self.failed_directories
            .iter()
            .any(|dir| path.starts_with(dir))
    }
}

/// Plays cases on all processors; `choose` says which of the calls fail.
fn play(
    scenarios: impl Iterator<Item = &'static Scenario>,
    choose: impl Fn(&[usize], usize) -> Vec<usize>,
) {
    let mut seed = 0;
    let mut done = BTreeMap::new();
    let mut failures = Vec::new();
    for scenario in scenarios {
        let stage = Stage::new(scenario);
        let calls = stage.count_calls();
        for call in stage.all_calls() {
            let is_listed = FAULTS.iter().any(|fault| fault.syscall == call);
            if !is_listed && !NOT_FAILED.contains(&call.as_str()) {
                failures.push(format!("{}: {call} is made and not listed", scenario.name));
            }
        }
        let mut cases = Vec::new();
        for fault in FAULTS {
            let Some(numbers) = calls.get(fault.syscall) else {
                continue;
            };
            let numbers: Vec<usize> = numbers.iter().copied().collect();
            for errno in fault.errnos {
                seed += 1;
                for n in choose(&numbers, seed) {
                    cases.push(Case {
                        scenario,
                        fault,
                        errno,
                        n,
                    });
                }
            }
        }
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    let stage = Stage::new(scenario);
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(wrong) = stage.play(case) {
                            let Case {
                                scenario,
                                fault,
                                errno,
                                n,
                            } = case;
                            let text = format!(
                                "{}: {} number {n} fails with {errno} ({:?}: {})\n{wrong}",
                                scenario.name, fault.syscall, fault.outcome, fault.why
                            );
                            found.lock().expect("a lock").push(text);
                        }
                    }
                });
            }
        });
        for case in &cases {
            *done.entry((case.fault.syscall, case.errno)).or_insert(0) += 1;
        }
        failures.extend(found.into_inner().expect("a lock"));
    }
    let total: usize = done.values().sum();
    say(&format!(
        "{total} faults of {} kinds, {} judged wrong",
        done.len(),
        failures.len()
    ));
    for ((syscall, errno), count) in &done {
        if std::env::var_os("POOLCP_FAULTS_TABLE").is_some() {
            say(&format!("  {syscall} {errno}: {count}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn a_call_that_fails_is_told_and_everything_else_is_copied() {
    needs!(Strace, TrustedXattrs, Acls);
    // A quarter of the errors in each scenario, now at one call and now at another.
    play(SCENARIOS.iter(), |numbers, seed| {
        if seed % 4 != 0 {
            return Vec::new();
        }
        let at = seed * 7919 % numbers.len().max(1);
        numbers.get(at).copied().into_iter().collect()
    });
}

#[test]
#[ignore = "takes five minutes"]
fn every_call_that_fails_is_told_and_everything_else_is_copied() {
    needs!(Strace, TrustedXattrs, Acls);
    play(SCENARIOS.iter(), |numbers, _| numbers.to_vec());
}

#[test]
fn a_directory_that_cannot_be_listed_is_told_and_the_rest_is_copied() {
    needs!(Strace, TrustedXattrs, Acls);
    let sandbox = Sandbox::new();
    make_source(&sandbox);
    let dir = sandbox.path("source/dir");
    let fault = [
        "-P",
        dir.to_str().expect("a path"),
        "--inject",
        "getdents64:error=EIO",
    ];
    let copy = sandbox.poolcp(["-a", "source", "copy"]).traced(&fault);
    copy.fails(&["cannot access 'source/dir': Input/output error"]);
    let is_other = |path: &str| !path.starts_with("dir/");
    let facts = |name| {
        let snapshot = Snapshot::of(&sandbox.path(name)).only(is_other);
        snapshot.without(&["same file as"])
    };
    assert_same(&facts("source"), &facts("copy"), "all but what is in it");
}

#[test]
fn descriptors_may_be_shared() {
    needs!(Strace, TrustedXattrs, Acls);
    let sandbox = Sandbox::new();
    make_source(&sandbox);
    let copy = sandbox.poolcp(["-a", "-j4", "source", "copy"]);
    copy.traced(&["--inject", "unshare:error=EPERM"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
}

#[test]
fn few_descriptors_may_be_shared_by_many() {
    needs!(Strace);
    let sandbox = Sandbox::in_memory();
    for chain in 0..30 {
        let mut path = format!("source/{chain}");
        for depth in 0..30 {
            path = format!("{path}/{depth}");
            sandbox.file(format!("{path}/file"), 10);
        }
    }
    for workers in ["-j32", "-jauto"] {
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        let copy = sandbox.poolcp(["-r", workers, "source", "copy"]);
        let refused = ["--inject", "unshare:error=EPERM"];
        copy.max_open_files(512).traced(&refused).ok();
        let facts = |name| Snapshot::of(&sandbox.path(name)).without(&["mtime"]);
        assert_same(&facts("source"), &facts("copy"), workers);
    }
}

#[test]
fn a_lease_is_waited_for() {
    needs!(Strace);
    let sandbox = Sandbox::in_memory();
    let source = sandbox.file("source", 100_000);
    let dest = sandbox.file("dest", 10);
    // What the kernel says as long as another process has not given back its lease (fcntl(2)).
    let leased = ["--inject", "openat:error=EAGAIN:when=1..5"];
    for name in ["source", "dest"] {
        for force in ["-f", "-v"] {
            fs::write(&dest, "old").expect("write");
            let inode = fs::metadata(&dest).expect("metadata").ino();
            let copy = sandbox.poolcp([force, "--atomic=never", "source", "dest"]);
            copy.traced(&[&["-P", name][..], &leased].concat()).ok();
            assert!(fs::read(&source).expect("read") == fs::read(&dest).expect("read"));
            assert_eq!(fs::metadata(&dest).expect("metadata").ino(), inode);
        }
    }
}

#[test]
fn blocks_that_cannot_be_had_beforehand_are_had_by_writing() {
    needs!(Strace, Formats);
    let sandbox = Sandbox::in_memory();
    let at = sandbox.dir("disk");
    let disk = Disk::make(sandbox.path("image"), Format::Ext4, &at).expect("a disk");
    let mount = disk.mount("").expect("mount");
    let source = fs::read(sandbox.file("source", 1_000_000)).expect("read");
    for errno in ["none", "EOPNOTSUPP", "ENOSPC", "EDQUOT", "EIO", "EINTR"] {
        let fault = match errno {
            "none" => "trace=fallocate".to_owned(),
            errno => format!("inject=fallocate:error={errno}"),
        };
        let copy = sandbox.poolcp(["source", "disk/copy"]);
        copy.traced(&["-e", &fault]).ok();
        assert!(
            fs::read(at.join("copy")).expect("read") == source,
            "{errno}"
        );
        let calls = fs::read_to_string(sandbox.path(TRACE)).expect("read");
        assert!(calls.contains("FALLOC_FL_KEEP_SIZE"), "{errno}: {calls}");
    }
    mount.unmount();
}
