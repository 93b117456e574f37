//! Somebody who may write one of the directories swaps names while they are copied.
//!
//! The attacker is a thread that gives a name in a tree to something else and back again, with
//! `renameat2(RENAME_EXCHANGE)`, as fast as it can, while poolcp copies again and again. What it swaps in leads out of the
//! tree, to a canary. Whatever else happens to the copy, a canary in the way of the source is never read, so that its
//! content never appears in the copy, and one in the way of the destination is never written, nor are its attributes
//! changed.
//!
//! What the attacker may win is what `cp` promises to anybody: a symbolic link that is at the destination when the copy
//! looks is written through if the source is a file. So a destination that is overwritten is attacked at the one moment
//! that matters, between the look and the opening, which strace makes long.
//!
//! Each attack takes two seconds. For a minute each, with the numbers of swaps and copies:
//!
//!     cargo test --release --test it -- --ignored --nocapture --test-threads 1 for_a_minute

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::process::Signal;

use crate::harness::{
    ACCESS_ACL, DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, has_xattr, mode, set_xattr,
};
use crate::needs::say;
use crate::programs::{is_root, signal, start};
use crate::snapshot::{Snapshot, assert_same};

const BRIEF: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// In no file that may be read.
const SECRET: &[u8] = b"the canary's own song";

/// Makes what a name is swapped with, called `swap`.
type MakeSwap = fn(&Sandbox);

/// A tree, a name in it, and what the attacker swaps in.
struct Attack {
    what: &'static str,
    options: &'static [&'static str],
    /// The name under attack.
    name: &'static str,
    make_swap: MakeSwap,
    /// What is there before each copy.
    before: Before,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The last copy.
    Copy,
    /// Nothing.
    Nothing,
    /// The last copy; of the name and what it is swapped with, one was removed.
    File,
    /// The last copy, and a directory that the source does not have: it is going to be removed with all that is in it.
    Extraneous,
}

/// Leads to the directory outside.
fn to_directory(sandbox: &Sandbox) {
    sandbox.symlink("swap", sandbox.path("outside"));
}

/// Leads to a file outside.
fn to_file(sandbox: &Sandbox) {
    sandbox.symlink("swap", sandbox.path("outside/file"));
}

impl Attack {
    /// Sets the stage again. The attacker goes on, but has nothing to swap while one of the names is missing.
    fn reset(&self, sandbox: &Sandbox) {
        let (name, swap) = (sandbox.path(self.name), sandbox.path("swap"));
        match self.before {
            Before::Copy => return,
            Before::Nothing => {
                // What is swapped while it is removed may be in the way.
                while fs::symlink_metadata(sandbox.path("copy/dir")).is_ok() {
                    let _ = fs::remove_dir_all(sandbox.path("copy/dir"));
                    let _ = fs::remove_file(sandbox.path("copy/dir"));
                }
            }
            Before::File => fs::remove_file(&name).expect("remove"),
            Before::Extraneous => {}
        }
        if self.name.starts_with("copy") {
            // Either of the two was there, or is by now.
            while fs::symlink_metadata(&swap).is_ok() {
                let _ = fs::remove_file(&swap);
                let _ = fs::remove_dir_all(&swap);
            }
            if self.before == Before::Extraneous {
                // With nothing to be swapped for.
                let _ = fs::remove_dir_all(sandbox.path("copy/extra"));
                make_extraneous(sandbox);
            }
            (self.make_swap)(sandbox);
            if self.before == Before::File {
                fs::write(name, "old").expect("write");
            }
        }
    }
}

/// Names that are outside, too.
fn make_extraneous(sandbox: &Sandbox) {
    for i in 0..20 {
        sandbox.file(format!("copy/extra/dir/{i}"), 10);
    }
    sandbox.file("copy/extra/dir/file", 10);
    sandbox.file("copy/extra/dir/sub/file", 10);
}

const ATTACKS: &[Attack] = &[
    Attack {
        what: "a source directory becomes a link",
        options: &["-a"],
        name: "source/dir",
        make_swap: to_directory,
        before: Before::Nothing,
    },
    Attack {
        what: "a source directory far above becomes a link",
        options: &["-r"],
        name: "source/dir/sub",
        make_swap: to_directory,
        before: Before::Nothing,
    },
    Attack {
        what: "a source file becomes a link",
        options: &["-a"],
        name: "source/dir/file",
        make_swap: to_file,
        before: Before::Nothing,
    },
    Attack {
        what: "a source file that is copied in parts becomes a link",
        options: &["-a"],
        name: "source/dir/large",
        make_swap: to_file,
        before: Before::Nothing,
    },
    Attack {
        what: "a source file becomes a FIFO",
        options: &["-r"],
        name: "source/dir/file",
        make_swap: |sandbox| drop(sandbox.fifo("swap")),
        before: Before::Nothing,
    },
    Attack {
        what: "a destination directory becomes a link",
        options: &["-a"],
        name: "copy/dir",
        make_swap: to_directory,
        before: Before::Copy,
    },
    Attack {
        what: "a new destination directory becomes a link",
        options: &["-a", "--keep-directory-symlink"],
        name: "copy/dir/sub",
        make_swap: to_directory,
        before: Before::Nothing,
    },
    Attack {
        what: "a new destination directory becomes the attacker's own",
        options: &["-r"],
        name: "copy/dir/sub",
        make_swap: |sandbox| {
            let dir = sandbox.dir("swap");
            chmod(&dir, 0o777);
            if is_root() {
                chown(&dir, NOBODY, NOBODY);
            }
        },
        before: Before::Nothing,
    },
    Attack {
        what: "a new destination file becomes a link",
        options: &["-a"],
        name: "copy/dir/file",
        make_swap: to_file,
        before: Before::Nothing,
    },
    Attack {
        what: "a new destination file that is copied in parts becomes a link",
        options: &["-a"],
        name: "copy/dir/large",
        make_swap: to_file,
        before: Before::Nothing,
    },
    Attack {
        what: "a new destination file that is copied in parts becomes a FIFO",
        options: &["-a"],
        name: "copy/dir/large",
        make_swap: |sandbox| drop(sandbox.fifo("swap")),
        before: Before::Nothing,
    },
    Attack {
        what: "a destination file that is replaced becomes a link",
        options: &["-a", "--remove-destination"],
        name: "copy/dir/file",
        make_swap: to_file,
        before: Before::File,
    },
    Attack {
        what: "a new FIFO becomes a link",
        options: &["-a"],
        name: "copy/dir/fifo",
        make_swap: to_file,
        before: Before::Nothing,
    },
    Attack {
        what: "a new FIFO becomes a hard link to a file",
        options: &["-a"],
        name: "copy/dir/fifo",
        make_swap: |sandbox| drop(sandbox.hard_link("swap", "outside/file")),
        before: Before::Nothing,
    },
    Attack {
        what: "a new symbolic link becomes a hard link to a file",
        options: &["-a"],
        name: "copy/dir/link",
        make_swap: |sandbox| drop(sandbox.hard_link("swap", "outside/file")),
        before: Before::Nothing,
    },
    Attack {
        what: "a directory that is deleted becomes a link",
        options: &["-a", "--update=changed", "--delete"],
        name: "copy/extra/dir",
        make_swap: to_directory,
        before: Before::Extraneous,
    },
    Attack {
        what: "a directory in one that is deleted becomes a link",
        options: &["-a", "--update=changed", "--delete"],
        name: "copy/extra/dir/sub",
        make_swap: to_directory,
        before: Before::Extraneous,
    },
];

fn make_world(sandbox: &Sandbox) {
    for i in 0..20 {
        sandbox.file(format!("source/dir/{i}"), 1000);
        sandbox.file(format!("source/dir/sub/{i}"), 1000);
    }
    sandbox.file("source/dir/file", 1000);
    sandbox.file("source/dir/sub/file", 1000);
    sandbox.symlink("source/dir/link", "file");
    chmod(&sandbox.fifo("source/dir/fifo"), 0o622);
    sandbox.dir("copy");
    for name in ["file", "0", "sub/file"] {
        let path = sandbox.file(format!("outside/{name}"), 0);
        fs::write(&path, SECRET).expect("write");
        chmod(&path, 0o600);
    }
    if is_root() {
        chown(&sandbox.path("source/dir/fifo"), NOBODY, NOBODY);
        chown(&sandbox.path("source/dir/link"), NOBODY, NOBODY);
    }
}

/// Whether a file below a directory contains the secret. Links are not followed: what they say is not a secret.
fn is_known_in(dir: &Path) -> bool {
    let Ok(listing) = fs::read_dir(dir) else {
        return false;
    };
    listing.flatten().any(|entry| {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => is_known_in(&path),
            Ok(meta) if meta.is_file() && meta.len() < 10_000 => {
                let content = fs::read(&path).unwrap_or_default();
                content.windows(SECRET.len()).any(|bytes| bytes == SECRET)
            }
            _ => false,
        }
    })
}

/// Whether a directory belongs to another user and has a copy in it.
fn is_strangers_copy(dir: &Path) -> bool {
    // Held, so that both questions are about the same one.
    let held = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(dir);
    let Ok(held) = held else {
        return false;
    };
    let owner = held.metadata().expect("metadata").uid();
    let file = format!("/proc/self/fd/{}/file", held.as_raw_fd());
    owner == NOBODY && Path::new(&file).exists()
}

fn run(attack: &Attack, time: Duration) {
    let sandbox = Sandbox::in_memory();
    make_world(&sandbox);
    if attack.name.ends_with("large") {
        // Just large enough to be copied in parts, and all of it data.
        sandbox.sparse("source/dir/large", 64 << 20, &[(0, 64 << 20)]);
    }
    (attack.make_swap)(&sandbox);
    match attack.before {
        Before::File => drop(sandbox.file(attack.name, 10)),
        Before::Extraneous => make_extraneous(&sandbox),
        Before::Copy | Before::Nothing => {}
    }
    // A hard link counts in the canary's own facts.
    let outside = Snapshot::of(&sandbox.path("outside"));
    let (swaps, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut codes = [0_u64; 2];
    thread::scope(|scope| {
        scope.spawn(|| {
            let (name, swap) = (sandbox.path(attack.name), sandbox.path("swap"));
            while !done.load(Ordering::Relaxed) {
                // It fails for as long as there is nothing to be swapped.
                if renameat_with(CWD, &name, CWD, &swap, RenameFlags::EXCHANGE).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // The attacker has to be stopped whatever happens here.
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let start = Instant::now();
            while start.elapsed() < time {
                attack.reset(&sandbox);
                let args = ["-j4"].iter().chain(attack.options);
                let args = args.chain(&["source/.", "copy"]);
                let run = sandbox.poolcp(args).run();
                codes[usize::try_from(run.code).expect("a code")] += 1;
                // Where names change under it, the test would follow them, too.
                let is_read =
                    attack.name.starts_with("source") && is_known_in(&sandbox.path("copy"));
                assert!(!is_read, "{}: read: {run:#?}", attack.what);
                for dir in [sandbox.path(attack.name), sandbox.path("swap")] {
                    let is_given_away = is_root() && is_strangers_copy(&dir);
                    assert!(!is_given_away, "{}: copied to another user", attack.what);
                }
                if let Some(difference) =
                    outside.difference(&Snapshot::of(&sandbox.path("outside")))
                {
                    panic!("{}: {difference}{run:#?}", attack.what);
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
    });
    let swaps = swaps.into_inner();
    say(&format!(
        "{}: {swaps} swaps, {} copies, {} of them with errors",
        attack.what,
        codes[0] + codes[1],
        codes[1]
    ));
    assert!(swaps > 0, "{}: nothing was swapped", attack.what);
}

#[test]
fn names_that_are_swapped_lead_nowhere() {
    ATTACKS.iter().for_each(|attack| run(attack, BRIEF));
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn names_that_are_swapped_for_a_minute_lead_nowhere() {
    ATTACKS.iter().for_each(|attack| run(attack, LONG));
}

/// Whether some process has a file open.
fn is_open(path: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("list").flatten();
    let descriptors = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    let mut links = descriptors.flatten().flatten();
    links.any(|link| fs::read_link(link.path()).is_ok_and(|to| to == path))
}

#[test]
fn a_destination_that_is_swapped_before_it_is_opened_is_not_written() {
    needs!(Strace);
    let swaps: [(MakeSwap, &str); 3] = [
        (to_file, "Too many levels of symbolic links"),
        (
            |sandbox| drop(sandbox.hard_link("swap", "outside/file")),
            "Stale file handle",
        ),
        (
            |sandbox| drop(sandbox.fifo("swap")),
            "No such device or address",
        ),
    ];
    for (make_swap, reason) in swaps {
        let sandbox = Sandbox::new();
        make_world(&sandbox);
        let source = sandbox.file("file", 100);
        let target = sandbox.file("target", 10);
        make_swap(&sandbox);
        let outside = Snapshot::of(&sandbox.path("outside"));
        // By the time that the source is open, the destination has been looked at.
        let delay = [
            "-P",
            "target",
            "--inject",
            "openat:delay_enter=2000000:when=1",
        ];
        let copy = sandbox.poolcp(["file", "target"]).traced(&delay);
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_open(&source) {
                    thread::sleep(Duration::from_millis(1));
                }
                renameat_with(
                    CWD,
                    sandbox.path("swap"),
                    CWD,
                    &target,
                    RenameFlags::EXCHANGE,
                )
                .expect("swap");
            });
            copy.run()
        });
        let expected = format!("cannot create regular file 'target': {reason}");
        assert_eq!((run.code, run.messages()), (1, vec![expected.as_str()]));
        assert_same(&outside, &Snapshot::of(&sandbox.path("outside")), reason);
    }
}

#[test]
fn what_takes_the_name_of_a_new_fifo_or_link_gets_no_attributes() {
    needs!(Root, Strace);
    let makes: [(MakeSwap, &str); 2] = [
        (|sandbox| drop(sandbox.fifo("source/name")), "mknodat"),
        (
            |sandbox| drop(sandbox.symlink("source/name", "x")),
            "symlinkat",
        ),
    ];
    for (make, call) in makes {
        let sandbox = Sandbox::new();
        make(&sandbox);
        chown(&sandbox.path("source/name"), NOBODY, NOBODY);
        let secret = sandbox.file("outside/file", 10);
        chmod(&secret, 0o600);
        sandbox.hard_link("swap", "outside/file");
        let outside = Snapshot::of(&sandbox.path("outside"));
        let delay = format!("{call}:delay_exit=1000000");
        let copy = sandbox.poolcp(["-a", "-j1", "source", "copy"]);
        let name = sandbox.path("copy/name");
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                while fs::symlink_metadata(&name).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                renameat_with(CWD, sandbox.path("swap"), CWD, &name, RenameFlags::EXCHANGE)
                    .expect("swap");
            });
            copy.traced(&["--inject", &delay]).run()
        });
        let told = vec!["preserving permissions for 'copy/name': Stale file handle"];
        assert_eq!((run.code, run.messages()), (1, told), "{call}");
        assert_same(&outside, &Snapshot::of(&sandbox.path("outside")), call);
    }
}

#[test]
fn a_target_directory_that_is_swapped_is_not_looked_for_again() {
    let sandbox = Sandbox::in_memory();
    sandbox.dir("target");
    sandbox.dir("outside");
    let names: Vec<String> = (0..2000).map(|i| format!("source/{i}")).collect();
    for name in &names {
        sandbox.file(name, 10);
    }
    sandbox.symlink("swap", "outside");
    let args = ["-j2", "-t", "target"].into_iter();
    let copy = sandbox.poolcp(args.chain(names.iter().map(String::as_str)));
    let mut run = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            let target = sandbox.path("target");
            while fs::read_dir(&target).expect("list").next().is_none() {
                thread::yield_now();
            }
            renameat_with(
                CWD,
                sandbox.path("swap"),
                CWD,
                &target,
                RenameFlags::EXCHANGE,
            )
            .expect("swap");
        });
        run = Some(copy.run());
    });
    let run = run.expect("a run");
    let count = |name| fs::read_dir(sandbox.path(name)).expect("list").count();
    assert_eq!(count("outside"), 0);
    // A worker that has the directory open goes on in it; one that has not does not take another one for it.
    let told = "target: directory was moved while being copied";
    let refused = run
        .messages()
        .iter()
        .filter(|line| line.replace('\'', "") == told)
        .count();
    assert_eq!(refused, run.messages().len(), "{run:#?}");
    assert_eq!(count("swap") + refused, names.len());
}

#[test]
fn what_takes_the_name_of_a_leading_directory_gets_no_attributes() {
    needs!(Strace);
    let sandbox = Sandbox::new();
    let source = sandbox.file("a/b/file", 100);
    chmod(&sandbox.path("a/b"), 0o777);
    sandbox.dir("target");
    chmod(&sandbox.dir("outside"), 0o700);
    let outside = Snapshot::of(&sandbox.path("outside"));
    let path = source.to_str().expect("UTF-8");
    let delay = "read:delay_enter=1000000:when=1";
    let delay = ["-P", path, "--trace=read", "--inject", delay];
    let args = ["-p", "--parents", "a/b/file", "target"];
    let copy = sandbox.poolcp(args).traced(&delay);
    let run = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_open(&source) {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(100));
            let made = sandbox.path("target/a/b");
            fs::rename(&made, sandbox.path("target/a/moved")).expect("move");
            symlink(sandbox.path("outside"), &made).expect("link");
        });
        copy.run()
    });
    let told = "failed to preserve times for 'target/a/b': Stale file handle";
    assert_eq!((run.code, run.messages()), (1, vec![told]));
    assert_same(&outside, &Snapshot::of(&sandbox.path("outside")), "outside");
}

#[test]
fn what_takes_the_name_of_a_finished_copy_is_not_linked_to_its_other_names() {
    needs!(Strace);
    // Once the copy is another name's, once its inode may be free for what comes in its place. Others can reach it in a directory
    // that was there, and in one that is not closed to them while it is made.
    let ways = [("-aT", true), ("-aT", false), ("-dr", true)];
    for (option, is_kept) in ways {
        if !is_kept && !is_root() {
            say("who is not the superuser cannot be two users");
            continue;
        }
        let sandbox = Sandbox::new();
        let first = sandbox.file("source/d1/a", 10);
        sandbox.dir("source/d2");
        sandbox.hard_link("source/d2/b", &first);
        if option == "-aT" {
            sandbox.dir("copy");
        }
        let names = [sandbox.path("copy/d1/a"), sandbox.path("copy/d2/b")];
        let delay = ["--trace=linkat", "--inject", "linkat:delay_enter=1000000"];
        let call = sandbox
            .poolcp([option, "-j1", "source", "copy"])
            .umask(0o022);
        let call = call.traced(&delay);
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                // Whichever comes first is the one that the other is linked to.
                let is_complete =
                    |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.len() == 10);
                let made = loop {
                    if let Some(made) = names.iter().find(is_complete) {
                        break made;
                    }
                    thread::sleep(Duration::from_millis(1));
                };
                thread::sleep(Duration::from_millis(200));
                if is_kept {
                    fs::rename(made, sandbox.path("kept")).expect("rename");
                } else {
                    fs::remove_file(made).expect("remove");
                }
                fs::write(made, "mallory").expect("write");
                if !is_kept {
                    chown(made, NOBODY, NOBODY);
                }
            });
            call.run()
        });
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.messages()[0].ends_with("Stale file handle"), "{run:?}");
        // One of the two is what was put there, and the other one is not there.
        assert!(names[0].exists() != names[1].exists());
    }
}

#[test]
fn a_report_takes_nothing_from_somebody_elses_file() {
    needs!(Root);
    let sandbox = Sandbox::in_memory();
    sandbox.file("a", 10);
    let planted = sandbox.file("shared/report", 10);
    let shared = sandbox.path("shared");
    chmod(&shared, 0o1777);
    chown(&planted, NOBODY, NOBODY);
    chmod(&planted, 0o6777);
    let option = "--report-file=shared/report";
    sandbox.poolcp(["--report=text", option, "a", "copy"]).ok();
    assert_eq!(mode(&planted), 0o600);
    // One's own stays as private as it was, and no program.
    chmod(&planted, 0o4640);
    sandbox.poolcp(["--report=text", option, "a", "copy"]).ok();
    assert_eq!(mode(&planted), 0o640);
    // Others' links are not followed to what is not there, nor where the kernel forbids it.
    fs::remove_file(&planted).expect("remove");
    let precious = sandbox.path("precious");
    symlink(&precious, &planted).expect("link");
    std::os::unix::fs::lchown(&planted, Some(NOBODY), Some(NOBODY)).expect("give");
    let told = "cannot write 'shared/report': Permission denied";
    sandbox
        .poolcp(["--report=text", option, "a", "copy"])
        .fails(&[told]);
    assert!(!precious.exists());
}

#[test]
fn nothing_is_written_through_an_old_link_to_a_new_one() {
    for (link, way) in [("config.local", "config.local"), ("dir", "dir/file")] {
        let sandbox = Sandbox::new();
        let precious = sandbox.file("precious/file", 10);
        let before = fs::read(&precious).expect("read");
        // The first one is met before the second in any order: it is an operand of its own.
        let target = if link == "dir" {
            sandbox.path("precious")
        } else {
            precious.clone()
        };
        sandbox.symlink(format!("tree/{link}"), &target);
        sandbox.file("tree/config", 20);
        sandbox.symlink("copy/config", way);
        let first = format!("tree/{link}");
        let run = sandbox.poolcp(["-a", &first, "tree/config", "copy"]).run();
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("just-created symlink"), "{run:?}");
        assert_eq!(fs::read(&precious).expect("read"), before);
        // In one directory that was there.
        let args = ["-rT", "-j1", "tree", "copy"];
        fs::remove_file(sandbox.path("copy").join(link)).expect("remove");
        sandbox.poolcp(args).run();
        // If it comes first the old link leads to nothing.
        assert_eq!(fs::read(&precious).expect("read"), before);
    }
}

#[test]
fn whom_a_directory_is_not_for_is_kept_out_while_it_is_filled() {
    needs!(Root, GnuEnv);
    let sandbox = Sandbox::in_memory();
    sandbox.file("secret/a", 5 << 20);
    chmod(&sandbox.path("secret"), 0o700);
    let planted = sandbox.dir("shared/secret");
    chmod(&planted, 0o777);
    chown(&planted, NOBODY, NOBODY);
    let args = ["-aq", "--bwlimit=1M", "secret", "shared"];
    let mut child = start(&sandbox, &args);
    wait_for_an_entry(&planted);
    let there = fs::metadata(&planted).expect("look");
    assert_eq!((there.mode() & 0o7777, there.uid()), (0o700, 0));
    signal(&child, Signal::INT);
    child.wait().expect("wait");
}

#[test]
fn the_owner_of_a_directory_has_no_say_while_it_is_filled_for_another() {
    needs!(Root, GnuEnv);
    for options in ["-aqT", "-rqT --preserve=ownership"] {
        let sandbox = Sandbox::in_memory();
        sandbox.file("source/bin/a", 2 << 20);
        let bin = sandbox.dir("copy/bin");
        chown(&bin, NOBODY, NOBODY);
        let mut args: Vec<&str> = options.split(' ').collect();
        args.extend(["--bwlimit=1M", "source", "copy"]);
        let mut child = start(&sandbox, &args);
        wait_for_an_entry(&bin);
        assert_eq!(fs::metadata(&bin).expect("look").uid(), 0);
        assert!(child.wait().expect("wait").success());
        let there = fs::metadata(&bin).expect("look");
        assert_eq!((there.uid(), there.gid()), (0, 0));
    }
}

#[test]
fn a_default_acl_that_comes_late_is_nobodys_key() {
    needs!(Root, Acls, GnuEnv);
    let sandbox = Sandbox::in_memory();
    for file in ["a", "b", "c", "dir/d"] {
        chmod(&sandbox.file(format!("source/{file}"), 500 << 10), 0o660);
    }
    // Theirs before and after, so that they may give it one at any time.
    for dir in ["source", "copy"] {
        chown(&sandbox.dir(dir), NOBODY, NOBODY);
    }
    let copy = sandbox.path("copy");
    let mut child = start(&sandbox, &["-aqTj1", "--bwlimit=1M", "source", "copy"]);
    wait_for_an_entry(&copy);
    set_xattr(&copy, DEFAULT_ACL, &acl_for(NOBODY));
    assert!(child.wait().expect("wait").success());
    for name in ["", "a", "b", "c", "dir", "dir/d"] {
        for acl in [ACCESS_ACL, DEFAULT_ACL] {
            assert!(!has_xattr(&copy.join(name), acl), "{name}");
        }
    }
}

fn wait_for_an_entry(dir: &Path) {
    let begun = Instant::now();
    while fs::read_dir(dir).expect("list").next().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
