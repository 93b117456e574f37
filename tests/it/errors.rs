//! What goes wrong: how it is told, and what is left behind.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::disks::{LoopDevice, Mount};
use crate::harness::{Sandbox, chmod, chown, mode};
use crate::programs::{Call, poolcp};
use crate::referees::same_as_cp_when;
use crate::snapshot::assert_same_tree;

const MIB: usize = 1 << 20;

/// No blocks are shared: there is data that takes time everywhere.
const NO_SHARING: &str = "ioctl:error=EOPNOTSUPP";

/// Longer than what is waited for ever takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_missing_source_is_told_and_the_others_are_copied() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.file("dir/b", 10);
    sandbox.dir("target");
    let args = ["-r", "a", "missing", "dir", "gone/away", "target"];
    sandbox.poolcp(args).fails(&[
        "cannot stat 'missing': No such file or directory",
        "cannot stat 'gone/away': No such file or directory",
    ]);
    assert!(sandbox.path("target/a").exists() && sandbox.path("target/dir/b").exists());
}

#[test]
fn an_unreadable_file_leaves_no_copy_and_does_not_stop_its_siblings() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    for i in 0..100 {
        sandbox.file(format!("source/{i}"), 10);
    }
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("source/50"), 0o000);
    let copy = sandbox
        .poolcp(["-a", "-j4", "source", "copy"])
        .by_ordinary_user();
    copy.fails(&["cannot open 'source/50' for reading: Permission denied"]);
    let copied = fs::read_dir(sandbox.path("copy")).expect("list").count();
    assert_eq!(copied, 99);
}

#[test]
fn messages_are_whole_lines_when_all_workers_fail_at_once() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    let mut expected = Vec::new();
    for i in 0..2000 {
        let name = format!("source/{}/{i}", i % 16);
        chmod(&sandbox.file(&name, 1), 0o000);
        expected.push(format!(
            "cannot open '{name}' for reading: Permission denied"
        ));
    }
    sandbox.give_to_ordinary_user();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let run = sandbox
        .poolcp(["-r", "-j16", "source", "copy"])
        .by_ordinary_user();
    let run = run.fails(&expected);
    assert!(
        run.stderr
            .lines()
            .all(|line| line.starts_with("poolcp: cannot open 'source/"))
    );
}

#[test]
fn a_full_file_system_leaves_no_partial_file_and_names_it() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("source/large", 3 * MIB);
    sandbox.file("source/medium", MIB + 300_000);
    sandbox.file("source/small", 100);
    let parallel = sandbox.sparse("parallel", 80 * MIB as u64, &[(0, 70 * MIB)]);
    let mounted = sandbox.dir("full");
    for options in ["-r", "-a", "-rj8"] {
        let _mount = Mount::tmpfs(&mounted, "1m").expect("a tmpfs");
        let run = sandbox.poolcp([options, "source", "full/copy"]).run();
        assert_eq!(run.code, 1, "{run:?}");
        for name in ["large", "medium"] {
            assert!(
                run.stderr.contains(&format!("full/copy/{name}'")),
                "{options}: {run:?}"
            );
            assert!(
                !mounted.join("copy").join(name).exists(),
                "{options}: {name}"
            );
        }
        assert!(
            run.stderr
                .lines()
                .all(|line| line.ends_with(": No space left on device"))
        );
        let run = sandbox
            .poolcp([parallel.as_os_str(), "full/parallel".as_ref()])
            .run();
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("'full/parallel'"), "{run:?}");
        assert!(!mounted.join("parallel").exists());
    }
}

#[test]
fn a_file_system_without_room_for_names_is_told() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    for i in 0..50 {
        sandbox.file(format!("source/{i}/file"), 0);
    }
    let mounted = sandbox.dir("full");
    let _mount = Mount::tmpfs(&mounted, "1m,nr_inodes=40").expect("a tmpfs");
    let run = sandbox.poolcp(["-a", "-j8", "source", "full/copy"]).run();
    assert_eq!(run.code, 1);
    let no_space = |line: &str| line.ends_with(": No space left on device");
    assert!(
        !run.stderr.is_empty() && run.stderr.lines().all(no_space),
        "{run:?}"
    );
}

#[test]
fn a_read_only_target_is_told() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 10);
    sandbox.dir("target");
    let _mount = Mount::tmpfs(&sandbox.path("target"), "1m,ro").expect("a tmpfs");
    let args = ["-r", "source", "target"];
    sandbox
        .poolcp(args)
        .fails(&["cannot create directory 'target/source': Read-only file system"]);
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    needs!(GnuCp9);
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    let full = || {
        OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full")
    };
    let report = sandbox
        .poolcp(["--report=json", "a", "b"])
        .stdout_to(full())
        .run();
    assert_eq!(report.code, 1, "{report:?}");
    assert!(report.stderr.contains("write error"), "{report:?}");
    assert_eq!(fs::read(sandbox.path("b")).expect("read").len(), 10);
    for args in [["--help"], ["--version"]] {
        let run = sandbox.call(poolcp(), args).stdout_to(full()).run();
        assert_eq!(run.code, 1, "{run:?}");
    }
    let verbose = |call: Call| call.stdout_to(full()).run().code;
    let cp = verbose(sandbox.cp(["-v", "a", "c"]));
    assert_eq!(
        verbose(sandbox.poolcp(["-v", "a", "c"])),
        cp,
        "-v to a full disk"
    );
}

#[test]
fn a_reader_of_v_that_goes_away_is_no_reason_to_panic() {
    let sandbox = Sandbox::new();
    for i in 0..500 {
        sandbox.file(format!("source/{i}"), 1);
    }
    // The pipe's other end is closed before anything is written.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    let run = sandbox
        .poolcp(["-rv", "source", "copy"])
        .stdout_to(writer)
        .run();
    assert_eq!(run.messages(), ["write error: Broken pipe"]);
    assert_eq!(run.code, 1);
    assert_eq!(
        fs::read_dir(sandbox.path("copy")).expect("list").count(),
        500
    );
}

#[test]
fn wrong_command_lines_are_refused_with_a_hint() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 1);
    sandbox.file("b", 1);
    for (args, message) in [
        (&["--bogus", "a", "b"][..], "unrecognized option '--bogus'"),
        (&["-Q", "a", "b"], "invalid option -- 'Q'"),
        (
            &["-j", "many", "a", "b"],
            "invalid number of threads: 'many' (1 to 1024, or auto)",
        ),
        (&[], "missing file operand"),
        (&["a"], "missing destination file operand after 'a'"),
        (&["-T", "a", "b", "c"], "extra operand 'c'"),
    ] {
        let run = sandbox.poolcp(args).run();
        let hint = "Try 'poolcp --help' for more information.";
        assert_eq!(
            run.stderr,
            format!("poolcp: {message}\n{hint}\n"),
            "{args:?}"
        );
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{args:?}");
    }
}

#[test]
fn help_and_version_are_answers() {
    let sandbox = Sandbox::new();
    let version = sandbox.call(poolcp(), ["--version"]).ok();
    assert!(version.stdout.starts_with("poolcp "), "{version:?}");
    let help = sandbox.call(poolcp(), ["--help"]).ok();
    assert!(help.stdout.contains("--recursive"), "{help:?}");
}

#[test]
fn reflink_always_fails_where_nothing_can_be_shared() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("a", 5000);
    sandbox.dir("other");
    let _mount = Mount::tmpfs(&sandbox.path("other"), "1m").expect("a tmpfs");
    let run = sandbox.poolcp(["--reflink=always", "a", "other/b"]).run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stderr
            .starts_with("poolcp: failed to clone 'other/b' from 'a': "),
        "{run:?}"
    );
    assert!(!sandbox.path("other/b").exists());
    sandbox.poolcp(["--reflink=auto", "a", "other/b"]).ok();
    assert!(sandbox.path("other/b").exists());
}

/// Runs `change` over and over while copies are made, and expects each of them to end, in success or in a failure.
fn while_changing(sandbox: &Sandbox, options: &str, change: impl Fn(usize) + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                change(round);
            }
        });
        for round in 0..8 {
            let copy = format!("copy{round}");
            let run = sandbox.poolcp([options, "-j4", "source", &copy]).run();
            if run.code > 1 {
                done.store(true, Ordering::Relaxed);
                panic!("{run:?}");
            }
            fs::remove_dir_all(sandbox.path(copy)).expect("remove");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn sources_that_shrink_and_grow_end() {
    let sandbox = Sandbox::new();
    let sizes = [100, 5000, 300_000, 5 * MIB];
    let files = [0, 1, 2, 3].map(|i| sandbox.file(format!("source/{i}"), sizes[i]));
    for options in ["-r", "-a", "-rL"] {
        while_changing(&sandbox, options, |round| {
            for (path, size) in files.iter().zip(sizes) {
                let file = OpenOptions::new().write(true).open(path).expect("open");
                let cut = if round % 2 == 0 { 0 } else { size };
                file.set_len(cut as u64).expect("set a size");
            }
        });
    }
}

#[test]
fn sources_that_come_and_go_end() {
    let sandbox = Sandbox::new();
    sandbox.file("source/stays", 10);
    while_changing(&sandbox, "-a", |round| {
        let name = format!("source/dir{}", round % 7);
        for i in 0..20 {
            let file = sandbox.file(format!("{name}/{i}"), 10);
            sandbox.symlink(format!("{name}/link{i}"), file);
        }
        // Kinds change, too.
        sandbox.symlink(format!("source/swapped{}", round % 3), "stays");
        fs::remove_dir_all(sandbox.path(name)).expect("remove");
        fs::remove_file(sandbox.path(format!("source/swapped{}", round % 3))).expect("remove");
        sandbox.dir(format!("source/swapped{}", round % 3));
        fs::remove_dir(sandbox.path(format!("source/swapped{}", round % 3))).expect("remove");
    });
}

#[test]
fn a_source_that_does_not_stop_changing_is_told_and_the_others_are_copied() {
    needs!(Strace);
    let append: fn(&File, u64) -> io::Result<()> =
        |file, round| file.write_all_at(b"more", MIB as u64 + 4 * round);
    let rewrite = |file: &File, round: u64| file.write_all_at(&round.to_le_bytes(), 5000);
    let cut = |file: &File, round: u64| file.set_len(70_000 + (99 - round % 100) * 1000);
    for change in [append, rewrite, cut] {
        let sandbox = Sandbox::new();
        let source = sandbox.file("source", MIB);
        sandbox.file("other", 100);
        sandbox.dir("target");
        // Time for a change while the data is copied, and not shared.
        let delay = "copy_file_range:delay_exit=300000";
        let delay = ["--inject", NO_SHARING, "--inject", delay];
        let copy = sandbox.poolcp(["-p", "source", "other", "target"]);
        let done = AtomicBool::new(false);
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                let file = OpenOptions::new().write(true).open(&source);
                let file = file.expect("open");
                for round in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    change(&file, round).expect("change");
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let run = copy.traced(&delay).run_in_time();
            done.store(true, Ordering::Relaxed);
            run.expect("an end")
        });
        let told = vec!["'source': file changed as we read it"];
        assert_eq!((run.code, run.messages()), (1, told), "{run:?}");
        assert!(sandbox.path("target/source").exists());
        assert!(sandbox.path("target/other").exists());
    }
}

#[test]
fn a_source_that_changes_once_is_copied_again() {
    needs!(Strace);
    // The data is taken, and then the copy is held up for long enough to change the source.
    let delay = "copy_file_range:delay_exit=500000:when=1";
    for (before, after) in [
        (100_000, 5),
        (100_000, 0),
        (100_000, 200_000),
        (70_000, 70_000),
    ] {
        let sandbox = Sandbox::new();
        let source = sandbox.file("source/file", before);
        let copy = sandbox.path("copy/file");
        let call = sandbox.poolcp(["-a", "-j1", "source", "copy"]);
        let delay = ["--inject", NO_SHARING, "--inject", delay];
        let call = call.traced(&delay).patience(PATIENCE);
        thread::scope(|scope| {
            scope.spawn(|| {
                wait_for(&copy);
                thread::sleep(Duration::from_millis(100));
                fs::write(&source, vec![b'x'; after]).expect("write");
            });
            call.ok();
        });
        let what = format!("{before} bytes, then {after}");
        assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), &what);
    }
}

#[test]
fn a_small_source_that_changes_before_it_is_read_is_copied_as_it_is_then() {
    needs!(Strace);
    for (before, after) in [(9, 14), (9, 3), (9, 0), (3000, 5000), (3000, 300_000)] {
        let sandbox = Sandbox::new();
        let source = sandbox.file("source/file", before);
        let copy = sandbox.path("copy/file");
        let call = sandbox.poolcp(["-a", "-j1", "source", "copy"]);
        let path = source.to_str().expect("UTF-8");
        let delay = "read:delay_enter=500000:when=1";
        let call = call.traced(&["-P", path, "--trace=read", "--inject", delay]);
        thread::scope(|scope| {
            scope.spawn(|| {
                // It has been opened and looked at when its copy is made.
                wait_for(&copy);
                thread::sleep(Duration::from_millis(100));
                fs::write(&source, vec![b'x'; after]).expect("write");
            });
            call.patience(PATIENCE).ok();
        });
        let what = format!("{before} bytes, then {after}");
        assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), &what);
    }
}

#[test]
fn a_part_of_a_file_that_cannot_be_removed_is_told() {
    needs!(Strace);
    let sandbox = Sandbox::new();
    let source = sandbox.file("source/file", 100);
    sandbox.dir("copy");
    let faults = [
        "-P",
        source.to_str().expect("UTF-8"),
        "-P",
        "copy/file",
        "-P",
        "copy",
        "--inject",
        "read:error=EIO",
        "--inject",
        "unlinkat:error=EPERM",
    ];
    let args = ["source/file", "copy"];
    sandbox.poolcp(args).traced(&faults).fails(&[
        "cannot remove 'copy/file': Operation not permitted",
        "error reading 'source/file': Input/output error",
    ]);
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < PATIENCE,
            "{} does not come",
            path.display()
        );
        thread::yield_now();
    }
}

#[test]
fn a_device_gets_the_holes_of_its_source_as_zeros() {
    needs!(LoopDevice);
    let sandbox = Sandbox::new();
    let disk = sandbox.file("disk", 4 * MIB);
    let source = sandbox.sparse("source", 3 * MIB as u64, &[(MIB as u64, 5000)]);
    let device = LoopDevice::attach(&disk).expect("a loop device");
    for options in ["--sparse=auto", "--sparse=always"] {
        sandbox
            .poolcp([
                options.as_ref(),
                source.as_os_str(),
                device.path().as_os_str(),
            ])
            .ok();
        let written = fs::read(device.path()).expect("read");
        assert!(
            fs::read(&source).expect("read") == written[..3 * MIB],
            "{options}"
        );
    }
}

#[test]
fn a_large_source_may_lose_its_name_while_it_is_copied() {
    let sandbox = Sandbox::in_memory();
    let source = sandbox.file("source", 80 * MIB);
    sandbox.dir("target");
    let args = ["-j4", "--bwlimit=100M", "source", "target"];
    let copy = sandbox.poolcp(args);
    thread::scope(|scope| {
        scope.spawn(|| {
            let target = sandbox.path("target");
            while fs::read_dir(&target).expect("list").next().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            fs::rename(&source, sandbox.path("elsewhere")).expect("rename");
        });
        copy.ok();
    });
    let copied = sandbox.path("target/source");
    assert_eq!(fs::metadata(copied).expect("a copy").len(), 80 * MIB as u64);
}

#[test]
fn a_sparse_source_that_is_cut_while_its_holes_are_looked_for_is_copied() {
    needs!(Strace);
    let sandbox = Sandbox::in_memory();
    let source = sandbox.sparse("source", 3 << 20, &[(2 << 20, 5000)]);
    let path = source.to_str().expect("UTF-8");
    let delay = [
        "-P",
        path,
        "--trace=lseek",
        "--inject",
        "lseek:delay_enter=300000",
    ];
    let copy = sandbox.poolcp(["source", "copy"]).traced(&delay);
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(&sandbox.path("copy"));
            thread::sleep(Duration::from_millis(450));
            let file = OpenOptions::new().write(true).open(&source);
            file.expect("open").set_len(1 << 20).expect("cut");
        });
        copy.ok();
    });
    let copied = fs::metadata(sandbox.path("copy")).expect("a copy");
    assert_eq!(copied.len(), 1 << 20);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_of_those_that_are_larger() {
    let sandbox = Sandbox::new();
    sandbox.file("source/large", MIB);
    sandbox.file("source/small", 100);
    let copy = sandbox.poolcp(["-r", "source", "copy"]);
    let run = copy.before("ulimit -f 500; ").run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.messages()[0].ends_with("File too large"), "{run:?}");
    assert!(sandbox.path("copy/small").exists());
    assert!(!sandbox.path("copy/large").exists());
}

#[test]
fn a_umask_that_forbids_the_owner_to_write_forbids_no_copy() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::in_memory();
    sandbox.file("large", 65 * MIB);
    sandbox.give_to_ordinary_user();
    let copy = sandbox.poolcp(["-j4", "large", "copy"]).umask(0o277);
    copy.by_ordinary_user().ok();
    assert_eq!(mode(&sandbox.path("copy")), 0o400);
}

#[test]
fn names_are_quoted_as_cp_quotes_them_in_either_locale() {
    needs!(Root, GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/it's", 10);
        let there = sandbox.file("target/it's", 10);
        chmod(&there, 0o777);
        sandbox.give_to_ordinary_user();
        chown(&there, 1, 1);
    };
    for locale in ["C", "C.UTF-8"] {
        same_as_cp_when(setup, &["-r --preserve=mode source/it's target"], |call| {
            call.env("LC_ALL", locale).by_ordinary_user()
        });
    }
}
