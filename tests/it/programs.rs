//! Running programs in a sandbox, with limits, as another user, or traced; and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{NOBODY, Sandbox};

/// A user who has no processes.
pub const LONELY: u32 = 64_321;

/// A run that takes longer hangs. Long, because a machine that is busy with other things is no failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

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

/// A command that runs another one as the first process of a PID namespace.
pub const PID_NAMESPACE: [&str; 6] = [
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
];

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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

pub fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    // What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
    Command::new("env")
        .arg("--default-signal")
        .arg(poolcp())
        .args(args)
        .current_dir(sandbox.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start poolcp")
}

pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It may have come to its end already.
    let _ = kill_process(pid.expect("a pid"), signal);
}

impl Sandbox {
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
            cwd: self.root().to_owned(),
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
}
