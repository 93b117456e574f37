//! A sandbox with builders, running programs in it, twins for `cp`, and what this machine can do.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::passthrough::{Manners, Passthrough};
use crate::snapshot::Snapshot;

/// The user that stands for anybody but the superuser.
pub const NOBODY: u32 = 65534;

/// A user who has no processes.
pub const LONELY: u32 = 64_321;

/// Where a file system in memory is.
const IN_MEMORY: &str = "/dev/shm";

/// A run that takes longer hangs. Long, because a machine that is busy with other things is no failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Skips the test, by name and with the reason, unless this machine has what it needs.
macro_rules! needs {
    ($($need:ident),+ $(,)?) => {
        $(if !$crate::harness::Need::$need.is_met() {
            fn here() {}
            let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
            $crate::harness::say_skipped(test, $crate::harness::Need::$need);
            return;
        })+
    };
}

/// What a test may need and a machine may lack.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    Root,
    /// `setpriv` to become another user, who can reach the program.
    OrdinaryUser,
    GnuCp9,
    /// `cp -n` of GNU coreutils 9.2 to 9.4 calls a skipped file a failure.
    SilentNoClobber,
    Rsync,
    Git,
    /// `env` that undoes what whoever runs the tests has done to signals.
    GnuEnv,
    /// A terminal of a program's own, with such an `env`.
    Terminal,
    Mknod,
    Mount,
    Fuse,
    Ext4,
    NoProc,
    /// Threads with a table of descriptors each.
    OwnTables,
    PidNamespace,
    UserXattrs,
    TrustedXattrs,
    Capabilities,
    Acls,
    /// `strace` that may trace, and can make system calls fail.
    Strace,
    LoopDevice,
    /// The file systems of [`Format`], each with what repairs it.
    Formats,
    /// `prlimit`, and root to become a user with a limit of threads.
    ThreadLimit,
    /// More than a thousand threads at a time.
    ThousandThreads,
    Bash,
    Zsh,
    Fish,
    Man,
    Mandoc,
    Ionice,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::OrdinaryUser => "setpriv, and a program that other users can reach",
            Self::GnuCp9 => "cp of GNU coreutils 9",
            Self::SilentNoClobber => "cp whose -n skips in silence",
            Self::Rsync => "rsync",
            Self::Git => "git",
            Self::GnuEnv => "env of GNU coreutils 8.31",
            Self::Terminal => "setsid of util-linux, and env of GNU coreutils 8.31",
            Self::Mknod => "the right to make device files",
            Self::Mount => "the right to mount a tmpfs",
            Self::Fuse => "the right to mount a FUSE file system",
            Self::Ext4 => "mkfs.ext4, and the right to mount",
            Self::NoProc => "unshare, and the right to hide /proc",
            Self::OwnTables => "the right to give a thread tables of its own",
            Self::PidNamespace => "unshare, and the right to number processes anew",
            Self::UserXattrs => "a file system with user attributes",
            Self::TrustedXattrs => "the right to set trusted attributes",
            Self::Capabilities => "setcap",
            Self::Acls => "a file system with ACLs",
            Self::Strace => "strace, and the right to trace",
            Self::Formats => "mkfs and checkers of ext4, xfs and btrfs, and the right to mount",
            Self::LoopDevice => "losetup, and the right to use it",
            Self::ThreadLimit => "prlimit, and root",
            Self::ThousandThreads => "the right to have a thousand threads",
            Self::Bash => "bash, and script of util-linux",
            Self::Zsh => "zsh, and script of util-linux",
            Self::Fish => "fish",
            Self::Man => "man of man-db, and groff",
            Self::Mandoc => "mandoc",
            Self::Ionice => "ionice",
        })
    }
}

impl Need {
    pub fn is_met(self) -> bool {
        let probe = Sandbox::new();
        match self {
            Self::Root => is_root(),
            Self::OrdinaryUser => {
                let call = probe.call(poolcp(), ["--version"]).by_ordinary_user();
                !is_root() || (is_installed("setpriv") && call.run().code == 0)
            }
            Self::GnuCp9 => {
                let version = Command::new("cp").arg("--version").output();
                version.is_ok_and(|out| out.stdout.starts_with(b"cp (GNU coreutils) 9."))
            }
            Self::SilentNoClobber => {
                probe.file("a", 1);
                let run = probe.cp(["-n", "a", "a"]).run();
                Self::GnuCp9.is_met() && run.code == 0 && run.stderr.is_empty()
            }
            Self::Rsync => is_installed("rsync"),
            Self::Git => is_installed("git"),
            Self::GnuEnv => probe.call("env", ["--default-signal", "true"]).run().code == 0,
            Self::Terminal => {
                let help = Command::new("setsid").arg("--help").output();
                let says = |out: Output| String::from_utf8_lossy(&out.stdout).contains("--ctty");
                help.is_ok_and(says) && Self::GnuEnv.is_met()
            }
            Self::Mknod => probe
                .try_device("null", FileType::CharacterDevice, 1, 3)
                .is_ok(),
            Self::Mount => Mount::tmpfs(&probe.dir("mnt"), "64k").is_some(),
            Self::Fuse => {
                let at = probe.dir("mnt");
                Passthrough::mount(&probe.dir("below"), &at, Manners::default()).is_ok()
            }
            Self::Ext4 => Mount::ext4(&probe, "mnt", &[]).is_some(),
            Self::NoProc => {
                is_installed("unshare") && without_proc(probe.call("true", [""; 0])).run().code == 0
            }
            Self::OwnTables => {
                // On a thread that nobody else needs.
                let refused = thread::spawn(|| unshare(CloneFlags::CLONE_FILES).is_err());
                !refused.join().expect("a thread")
            }
            Self::PidNamespace => {
                let mut words = PID_NAMESPACE.split_whitespace();
                let unshare = words.next().unwrap_or_default();
                let probe = Command::new(unshare).args(words).arg("true").status();
                probe.is_ok_and(|status| status.success())
            }
            Self::UserXattrs => probe.can_set("user.poolcp", b"x"),
            Self::TrustedXattrs => probe.can_set("trusted.poolcp", b"x"),
            Self::Capabilities => is_installed("setcap") && set_capability(&probe.file("f", 1)),
            Self::Acls => probe.can_set(ACCESS_ACL, &acl_for(1)),
            Self::Strace => {
                // An error that the program does not know comes from nobody else.
                let fault = ["--inject", "openat:error=EXFULL"];
                let call = probe.call("true", [""; 0]).traced(&fault);
                is_installed("strace") && call.run().code == 127
            }
            Self::ThreadLimit => {
                is_root() && probe.call("true", [""; 0]).max_threads(8).run().code == 0
            }
            Self::ThousandThreads => can_have_threads(1100),
            Self::Formats => ALL_FORMATS.iter().all(|&format| {
                let disk = Disk::make(probe.path("disk"), format, &probe.dir("mnt"));
                disk.is_some_and(|disk| disk.mount("").is_some())
            }),
            Self::Bash => is_installed("bash") && is_installed("script"),
            Self::Zsh => is_installed("zsh") && is_installed("script"),
            Self::Fish => is_installed("fish"),
            Self::Man => is_installed("man") && is_installed("groff"),
            Self::Mandoc => is_installed("mandoc"),
            Self::Ionice => is_installed("ionice"),
            Self::LoopDevice => LoopDevice::attach(&probe.file("disk", 1 << 20)).is_some(),
        }
    }
}

/// Straight to standard error: what goes through the print macros is hidden while a test passes.
pub fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub fn say_skipped(test: &str, need: Need) {
    say(&format!("skipped {test}: needs {need}"));
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs another one as the first process of a PID namespace.
pub const PID_NAMESPACE: &str = "unshare --pid --fork --kill-child --mount-proc --";

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--help").output();
    version.is_ok()
}

/// Whether so many threads can be there at once, beside those that are.
fn can_have_threads(count: usize) -> bool {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // They end when all have been tried.
        let _closed = gate.lock();
        let wait = || drop(gate.lock());
        let small = || thread::Builder::new().stack_size(64 << 10);
        (0..count).all(|_| small().spawn_scoped(scope, wait).is_ok())
    })
}

/// Gives a file a capability that it can have without being dangerous.
pub fn set_capability(file: &Path) -> bool {
    let status = Command::new("setcap")
        .arg("cap_net_raw=p")
        .arg(file)
        .status();
    status.is_ok_and(|status| status.success())
}

pub fn poolcp() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_poolcp"))
}

/// poolcp by the name `cp`: its messages begin as `cp`'s do, and it makes no report.
pub fn poolcp_as_cp() -> &'static Path {
    static LINK: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("by-the-name-of-cp");
        fs::create_dir_all(&dir).expect("make a directory");
        // Several test processes may do this at once.
        let new = dir.join(format!("cp-{}", std::process::id()));
        symlink(poolcp(), &new).expect("make a symlink");
        fs::rename(&new, dir.join("cp")).expect("rename a symlink");
        dir.join("cp")
    });
    &LINK
}

// ---- Running programs ----

/// What strace has to say, beside the files of a test.
pub const TRACE: &str = "trace";

/// A program that is going to be run in a sandbox.
pub struct Call {
    program: PathBuf,
    args: Vec<OsString>,
    cwd: PathBuf,
    /// Shell commands before the program: limits of the process.
    before: String,
    ordinary: bool,
    threads: Option<usize>,
    unshared: bool,
    strace: Option<Vec<OsString>>,
    stdin: String,
    environment: Vec<(OsString, OsString)>,
    stdout: Option<File>,
    patience: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    pub fn umask(mut self, umask: u32) -> Self {
        self.before += &format!("umask {umask:03o}; ");
        self
    }

    /// The hard limit, too, so that the program cannot raise it again.
    pub fn max_open_files(mut self, max: usize) -> Self {
        self.before += &format!("ulimit -n {max}; ");
        self
    }

    /// Shell commands before it.
    pub fn before(mut self, commands: &str) -> Self {
        self.before += commands;
        self
    }

    /// As another user who has no processes and may have few threads: the limit is on all that a user has. It does not hold
    /// for the superuser.
    pub fn max_threads(mut self, max: usize) -> Self {
        self.threads = Some(max);
        self
    }

    pub fn by_ordinary_user(mut self) -> Self {
        self.ordinary = true;
        self
    }

    /// In a directory of the sandbox instead of in its root.
    pub fn inside(mut self, dir: &str) -> Self {
        self.cwd.push(dir);
        self
    }

    /// What it can read from standard input; without this, nothing.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin += text;
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let pair = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push(pair);
        self
    }

    /// How long it may take, where that is known to be short.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub fn stdout_to(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Under strace, with these options. What it writes is in the file [`TRACE`] where the program runs.
    pub fn traced<A: AsRef<OsStr>>(mut self, options: &[A]) -> Self {
        let options = options.iter().map(|option| option.as_ref().to_owned());
        self.strace = Some(options.collect());
        self
    }

    fn command(&self) -> Command {
        let mut line: Vec<OsString> = Vec::new();
        if self.unshared {
            line.extend(["unshare", "--mount", "--"].map(OsString::from));
        }
        if !self.before.is_empty() {
            let script = format!("{} exec \"$@\"", self.before);
            line.extend(["sh", "-c", &script, "sh"].map(OsString::from));
        }
        if self.ordinary && is_root() {
            let id = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            line.push("setpriv".into());
            line.extend(id.map(OsString::from));
            line.extend(["--clear-groups", "--"].map(OsString::from));
        }
        if let Some(max) = self.threads {
            // Set by the user whom it is for.
            let id = format!("--reuid={LONELY}");
            line.extend(["setpriv", &id, "--clear-groups", "--", "prlimit"].map(OsString::from));
            line.push(format!("--nproc={max}:{max}").into());
            line.push("--".into());
        }
        if let Some(options) = &self.strace {
            line.extend(["strace", "-f", "--quiet=all", "-o"].map(OsString::from));
            line.push(self.cwd.join(TRACE).into());
            line.extend(options.iter().cloned());
            line.push("--".into());
        }
        line.push(self.program.clone().into());
        line.extend(self.args.iter().cloned());
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .current_dir(&self.cwd)
            .env("LC_ALL", "C")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(if self.stdin.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; a program that does not end in time, or by a signal, fails the test.
    #[track_caller]
    pub fn run(self) -> Run {
        self.run_in_time().unwrap_or_else(|hang| panic!("{hang}"))
    }

    /// Runs it to its end. One that does not end in time is killed, and what it was doing is the error.
    #[track_caller]
    pub fn run_in_time(self) -> Result<Run, String> {
        let mut command = self.command();
        if let Some(stdout) = self.stdout {
            command.stdout(stdout);
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        if let Some(mut stdin) = child.stdin.take() {
            // The program may end without reading it.
            let _ = stdin.write_all(self.stdin.as_bytes());
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let output = match receiver.recv_timeout(self.patience) {
            Ok(output) => output.expect("wait for a program"),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let pid = pid.expect("a child's pid");
                let threads = threads(pid);
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                // It may still be writing.
                let _ = receiver.recv();
                return Err(format!("{:?} hangs; its threads:\n{threads}", self.args));
            }
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if let Some(signal) = output.status.signal() {
            panic!("signal {signal} ended {:?}:\n{stderr}", self.args);
        }
        assert!(
            !stderr.contains("panicked at"),
            "{:?}:\n{stderr}",
            self.args
        );
        Ok(Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr,
        })
    }

    /// Runs it and expects success in silence.
    #[track_caller]
    pub fn ok(self) -> Run {
        let run = self.run();
        assert!(run.code == 0 && run.stderr.is_empty(), "{run:#?}");
        run
    }

    /// Runs it and expects a failure and these messages, in any order.
    #[track_caller]
    pub fn fails(self, messages: &[&str]) -> Run {
        let run = self.run();
        let mut expected = messages.to_vec();
        expected.sort_unstable();
        assert_eq!((run.code, run.messages()), (1, expected), "{run:#?}");
        run
    }
}

impl Run {
    /// The lines of standard error, sorted, without the program's name.
    pub fn messages(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self
            .stderr
            .lines()
            .map(|line| {
                let own = line.strip_prefix("poolcp: ").or(line.strip_prefix("cp: "));
                own.unwrap_or(line)
            })
            .collect();
        lines.sort_unstable();
        lines
    }

    /// The report that was asked for with `--report=json`.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// What each thread of a process that hangs is doing: its state (S waits, D waits for a disk, R would run) and where in the
/// kernel.
fn threads(pid: Pid) -> String {
    let root = format!("/proc/{}/task", pid.as_raw_nonzero());
    let listing = fs::read_dir(root).into_iter().flatten().flatten();
    let about = |dir: PathBuf| {
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find(|line| line.starts_with("State:"));
        let name = read("comm");
        let (name, state) = (name.trim(), state.unwrap_or_default());
        format!("  {name} {state} {} {}", read("wchan"), read("syscall"))
    };
    listing.map(|task| about(task.path())).collect()
}

/// The same call in a mount namespace whose /proc is empty.
pub fn without_proc(mut call: Call) -> Call {
    call.unshared = true;
    call.before = format!("mount -t tmpfs none /proc || exit 99; {}", call.before);
    call
}

// ---- Files ----

/// A directory of its own for each test, with helpers that make things in it. All names are relative to it; parents are
/// made where they are missing.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir()).expect("a temporary directory")
    }

    /// On a file system in memory, if there is one with room for the largest tests, two at a time (a container may have one of
    /// 64 MiB): for tens of thousands of entries, whose journal would cost more time than all other tests.
    pub fn in_memory() -> Self {
        const ENOUGH: u64 = 2 << 30;
        let disk = rustix::fs::statvfs(IN_MEMORY);
        if disk.is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ENOUGH) {
            Self::small_in_memory()
        } else {
            Self::new()
        }
    }

    /// The same for a few small files, whatever room there is: listings and numbers of inodes have an order there, and nothing
    /// shares blocks.
    pub fn small_in_memory() -> Self {
        Self::below(Path::new(IN_MEMORY)).unwrap_or_else(|_| Self::new())
    }

    fn below(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("poolcp-")
            .tempdir_in(parent)?;
        // Its own mode is 0700, and some tests act as another user.
        chmod(dir.path(), 0o755);
        Ok(Self(dir))
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    fn with_parent(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make parents");
        path
    }

    pub fn dir(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("make a directory");
        path
    }

    /// A file of `len` bytes, none of its blocks zero, different for each name and the same in each sandbox.
    pub fn file(&self, name: impl AsRef<OsStr>, len: usize) -> PathBuf {
        let path = self.with_parent(name);
        let inside = path.strip_prefix(self.0.path()).expect("a path inside");
        let mut hasher = DefaultHasher::new();
        hasher.write(inside.as_os_str().as_bytes());
        fs::write(&path, content(len, hasher.finish())).expect("write a file");
        path
    }

    /// A file of `size` bytes with data at `ranges` (offset, length) and holes everywhere else.
    pub fn sparse(&self, name: impl AsRef<OsStr>, size: u64, ranges: &[(u64, usize)]) -> PathBuf {
        let path = self.with_parent(name);
        let file = File::create(&path).expect("make a file");
        file.set_len(size).expect("set a size");
        for &(offset, len) in ranges {
            file.write_all_at(&content(len, offset), offset)
                .expect("write");
        }
        path
    }

    pub fn symlink(&self, name: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        symlink(target.as_ref(), &path).expect("make a symlink");
        path
    }

    pub fn hard_link(&self, name: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        hard_link(&self.path(to), &path);
        path
    }

    pub fn fifo(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        fifo(&path);
        path
    }

    pub fn socket(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        drop(UnixListener::bind(&path).expect("make a socket"));
        path
    }

    pub fn device(
        &self,
        name: impl AsRef<OsStr>,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> PathBuf {
        self.try_device(name, kind, major, minor)
            .expect("make a device file")
    }

    fn try_device(
        &self,
        name: impl AsRef<OsStr>,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> rustix::io::Result<PathBuf> {
        let path = self.with_parent(name);
        mknod(&path, kind, makedev(major, minor)).map(|()| path)
    }

    pub fn can_set(&self, attribute: &str, value: &[u8]) -> bool {
        let file = self.file("probe", 1);
        rustix::fs::lsetxattr(file, attribute, value, XattrFlags::empty()).is_ok()
    }

    /// Gives everything to the ordinary user, so that tests mean the same whoever runs them.
    pub fn give_to_ordinary_user(&self) {
        if is_root() {
            let everything = Command::new("chown")
                .arg("-hR")
                .arg(format!("{NOBODY}:{NOBODY}"))
                .arg(self.0.path())
                .status();
            assert!(everything.expect("chown").success());
        }
    }

    // ---- Programs ----

    pub fn call<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = A>,
    ) -> Call {
        Call {
            program: program.as_ref().to_owned(),
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            cwd: self.0.path().to_owned(),
            before: String::new(),
            ordinary: false,
            threads: None,
            unshared: false,
            strace: None,
            stdin: String::new(),
            environment: Vec::new(),
            stdout: None,
            patience: PATIENCE,
        }
    }

    /// `poolcp`, without its report unless that is asked for.
    pub fn poolcp<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        let mut call = self.call(poolcp(), args);
        call.args.insert(0, "--report=none".into());
        call
    }

    pub fn cp<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        self.call("cp", args)
    }

    /// Everything in it, for a comparison with a twin.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0.path()).blurred()
    }
}

impl Drop for Sandbox {
    /// Lets the directory be removed by a user who has made some of it unreadable.
    fn drop(&mut self) {
        if !is_root() {
            let _ = Command::new("chmod")
                .arg("-R")
                .arg("u+rwx")
                .arg(self.0.path())
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// `len` bytes that look random, made from `seed`.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The standard library's may follow a symbolic link.
pub fn hard_link(to: &Path, path: &Path) {
    rustix::fs::linkat(CWD, to, CWD, path, AtFlags::empty()).expect("make a link");
}

pub fn fifo(path: &Path) {
    mknod(path, FileType::Fifo, 0).expect("make a fifo");
}

fn mknod(path: &Path, kind: FileType, device: u64) -> rustix::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device)
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("metadata").mode() & 0o7777
}

pub fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("metadata").blocks() * 512
}

/// Of a symbolic link itself.
pub fn chown(path: &Path, uid: u32, gid: u32) {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).expect("chown");
}

/// Sets the modification time (and another access time), of a symbolic link itself.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = |tv_sec| Timespec {
        tv_sec,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(seconds / 2),
        last_modification: time(seconds),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set times");
}

pub fn set_atime(path: &Path, time: SystemTime) {
    let file = File::open(path).expect("open");
    file.set_times(FileTimes::new().set_accessed(time))
        .expect("set times");
}

pub fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("cannot set {name} of {}: {error}", path.display()));
}

pub fn has_xattr(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0; 4096]).is_ok()
}

pub const ACCESS_ACL: &str = "system.posix_acl_access";
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

/// An ACL `user::rwx,user:UID:r-x,group::r-x,mask::rwx,other::---` as the kernel keeps it (version 2 of acl(5)'s format).
pub fn acl_for(uid: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 7, NO_ID),
        (0x02, 5, uid),
        (0x04, 5, NO_ID),
        (0x10, 7, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A mounted file system, until it goes out of scope.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "poolcp-test"])
            .arg(at)
            .output();
        mount
            .is_ok_and(|out| out.status.success())
            .then(|| Self(at.to_owned()))
    }

    /// Two directories as one; what is written goes to the upper one.
    pub fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Option<Self> {
        let [lower, upper, work] = [lower, upper, work].map(Path::display);
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "overlay", "-o", &options, "overlay"]);
        let is_mounted = mount.arg(at).output().is_ok_and(|out| out.status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    /// Shows a directory at another place, too.
    pub fn bind(dir: &Path, at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mounted = mount.arg("--bind").args([dir, at]).output();
        let is_mounted = mounted.is_ok_and(|out| out.status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    /// A new file system of 64 MiB, in a file of the sandbox next to the directory.
    pub fn ext4(sandbox: &Sandbox, at: &str, options: &[&str]) -> Option<Self> {
        let image = sandbox.sparse(format!("{at}.ext4"), 64 << 20, &[]);
        let at = sandbox.dir(at);
        let run = |program: &str, args: &[&OsStr]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let quietly = ["-q", "-F"].iter().chain(options).map(OsStr::new);
        let make: Vec<&OsStr> = quietly.chain([image.as_os_str()]).collect();
        let mount = ["-t", "ext4", "-o", "loop"].map(OsStr::new);
        let mount = [&mount[..], &[image.as_os_str(), at.as_os_str()]].concat();
        (run("mkfs.ext4", &make) && run("mount", &mount)).then(|| Self(at))
    }
}

/// What a disk is formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ext4,
    Xfs,
    Btrfs,
}

pub const ALL_FORMATS: [Format; 3] = [Format::Ext4, Format::Xfs, Format::Btrfs];

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// A program that finds fault with an image, and repairs nothing.
    fn check(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["e2fsck", "-fn"],
            Self::Xfs => &["xfs_repair", "-n"],
            Self::Btrfs => &["btrfs", "check"],
        }
    }
}

/// A file with a file system in it, and where that is mounted.
pub struct Disk {
    image: PathBuf,
    format: Format,
    at: PathBuf,
}

impl Disk {
    /// A new one of 512 MiB, the least that all formats take.
    pub fn make(image: PathBuf, format: Format, at: &Path) -> Option<Self> {
        Self::sized(image, format, at, 512 << 20)
    }

    pub fn sized(image: PathBuf, format: Format, at: &Path, size: u64) -> Option<Self> {
        File::create(&image)
            .and_then(|file| file.set_len(size))
            .ok()?;
        // What ext4 would write in its own time is written now.
        let options: &[&str] = match format {
            Format::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Format::Xfs | Format::Btrfs => &["-q", "-f"],
        };
        let made = Command::new(format!("mkfs.{}", format.name()))
            .args(options)
            .arg(&image)
            .output();
        made.is_ok_and(|out| out.status.success()).then(|| Self {
            image,
            format,
            at: at.to_owned(),
        })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    pub fn mount(&self, options: &str) -> Option<Mount> {
        let options = format!("loop,{options}");
        let mount = Command::new("mount")
            .args(["-t", self.format.name(), "-o"])
            .arg(options.trim_end_matches(','))
            .args([&self.image, &self.at])
            .output();
        mount
            .is_ok_and(|out| out.status.success())
            .then(|| Mount(self.at.clone()))
    }

    /// What is on the device at this moment, as another disk: as if the machine had stopped. The image must be on a file system
    /// that can share blocks, so that no write comes between.
    pub fn stopped_now(&self, image: PathBuf) -> Self {
        let _ = fs::remove_file(&image);
        let shared = Command::new("cp")
            .arg("--reflink=always")
            .args([&self.image, &image])
            .status();
        assert!(shared.expect("cp").success());
        Self {
            image,
            format: self.format,
            at: self.at.clone(),
        }
    }

    /// Finds fault with the file system, which must not be mounted.
    #[track_caller]
    pub fn check(&self) {
        let check = self.format.check();
        let found = Command::new(check[0])
            .args(&check[1..])
            .arg(&self.image)
            .output();
        let found = found.expect("run a checker");
        let told = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{:?}: {told}", self.format);
    }
}

impl Mount {
    /// Unmounts it, and ends only then: a loop device is gone, too.
    pub fn unmount(self) {
        let begin = Instant::now();
        loop {
            let out = Command::new("umount").arg("-d").arg(&self.0).output();
            let out = out.expect("umount");
            if out.status.success() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{out:?}");
            thread::sleep(Duration::from_millis(50));
        }
        std::mem::forget(self);
    }

    pub fn remount(at: &Path, options: &str) {
        let options = format!("remount,{options}");
        let mount = Command::new("mount")
            .args(["-o", &options])
            .arg(at)
            .status();
        assert!(mount.expect("mount").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file as a disk, until it goes out of scope.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    pub fn attach(file: &Path) -> Option<Self> {
        let out = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let out = out.ok().filter(|out| out.status.success())?;
        let device = String::from_utf8_lossy(&out.stdout);
        Some(Self(device.trim().into()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

// ---- Referees ----

/// Runs each command line (words between spaces) with `cp` and with poolcp, each time on twins of what `setup` makes:
/// exit code, messages, output and everything that is there afterwards must agree.
#[track_caller]
pub fn same_as_cp(setup: impl Fn(&Sandbox), lines: &[&str]) {
    same_as_cp_when(setup, lines, |call| call);
}

/// The same, with limits or as another user.
#[track_caller]
pub fn same_as_cp_when(setup: impl Fn(&Sandbox), lines: &[&str], when: impl Fn(Call) -> Call) {
    let disagree = |line: &&str| disagreement(&setup, line, &when);
    let disagreements: Vec<String> = lines.iter().filter_map(disagree).collect();
    assert!(disagreements.is_empty(), "\n{}", disagreements.join("\n"));
}

fn disagreement(
    setup: impl Fn(&Sandbox),
    line: &str,
    when: impl Fn(Call) -> Call,
) -> Option<String> {
    let twins = [Sandbox::new(), Sandbox::new()];
    let [ours, theirs] = &twins;
    twins.iter().for_each(setup);
    let args = line.split(' ');
    let expected = when(theirs.cp(args.clone())).run();
    let run = when(ours.poolcp(args)).run();
    let mut text = String::new();
    let told = |run: &Run| (run.code, sorted(&run.stderr), sorted(&run.stdout));
    if told(&run) != told(&expected) {
        text = format!(
            "  cp:     {:?}\n  poolcp: {:?}\n",
            told(&expected),
            told(&run)
        );
    }
    if let Some(difference) = theirs.snapshot().difference(&ours.snapshot()) {
        let difference: String = difference
            .lines()
            .map(|line| format!("  {line}\n"))
            .collect();
        text += &difference;
    }
    (!text.is_empty()).then(|| format!("cp {line}\n{text}"))
}

/// Lines as a set; the workers' order is not `cp`'s.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.replace("poolcp", "cp"))
        .collect();
    lines.sort_unstable();
    lines
}

/// Asks rsync whether it would change anything to make `copy` the same as `source`, by content.
#[track_caller]
pub fn assert_rsync_agrees(source: &Path, copy: &Path) {
    let text = changes_by_rsync(source, copy);
    assert!(text.is_empty(), "rsync would change:\n{text}");
}

/// What rsync would change to make `copy` the same as `source`, by content.
#[track_caller]
pub fn changes_by_rsync(source: &Path, copy: &Path) -> String {
    let with_slash = |path: &Path| {
        let mut text = path.as_os_str().to_owned();
        text.push("/");
        text
    };
    let out = Command::new("rsync")
        .args(["-aHAXni", "--delete", "--checksum"])
        .args([with_slash(source), with_slash(copy)])
        .output()
        .expect("run rsync");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{out:?}");
    text.into_owned()
}
