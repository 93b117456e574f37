//! What a test may need and a machine may lack, and how the lack is said.

use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::FileType;

use crate::disks::{ALL_FORMATS, Disk, LoopDevice, Mount};
use crate::harness::{ACCESS_ACL, Sandbox, acl_for, set_capability};
use crate::passthrough::{Manners, Passthrough};
use crate::programs::{PID_NAMESPACE, is_root, poolcp, without_proc};

/// Skips the test, by name and with the reason, unless this machine has what it needs.
macro_rules! needs {
    ($($need:ident),+ $(,)?) => {
        $(if !$crate::needs::Need::$need.is_met() {
            fn here() {}
            let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
            $crate::needs::say_skipped(test, $crate::needs::Need::$need);
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
                let [unshare, words @ ..] = PID_NAMESPACE;
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

/// Straight to standard error: what goes through the print macros is hidden while a test passes.
pub fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub fn say_skipped(test: &str, need: Need) {
    say(&format!("skipped {test}: needs {need}"));
}
