//! A process that has little, and file systems and neighbours that do not help: limits of open files, stack and threads,
//! closed streams, names at the kernel's limits, no permission at any level, what vanishes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::disks::Mount;
use crate::harness::{Sandbox, chmod};
use crate::programs::Call;
use crate::referees::{same_as_cp, same_as_cp_when};
use crate::snapshot::{Snapshot, assert_same_tree};

/// Wider and deeper than the smallest limits allow to have open.
fn make_tree(sandbox: &Sandbox) {
    for wide in 0..6 {
        let mut dir = format!("source/{wide}");
        for deep in 0..10 {
            for i in 0..3 {
                sandbox.file(format!("{dir}/{i}"), 10 * deep + i);
            }
            dir += &format!("/d{deep}");
        }
        if wide > 0 {
            sandbox.hard_link(format!("source/{wide}/linked"), "source/0/1");
        }
    }
}

#[test]
fn sixteen_descriptors_are_enough() {
    needs!(OwnTables);
    let sandbox = Sandbox::in_memory();
    make_tree(&sandbox);
    for workers in ["-j1", "-j2", "-j8", "-j64"] {
        let copy = sandbox.poolcp(["-a", workers, "source", workers.trim_start_matches('-')]);
        copy.max_open_files(16).ok();
        let copy = sandbox.path(workers.trim_start_matches('-'));
        assert_same_tree(&sandbox.path("source"), &copy, workers);
    }
}

#[test]
fn too_few_descriptors_are_told() {
    let sandbox = Sandbox::in_memory();
    make_tree(&sandbox);
    // Three of them are the standard streams.
    for limit in 3..16 {
        let copy = format!("copy{limit}");
        let run = sandbox.poolcp(["-a", "-j2", "source", &copy]);
        let run = run.before(&format!("ulimit -n {limit}; ")).run();
        let is_complete = || {
            let source = Snapshot::of(&sandbox.path("source"));
            source
                .difference(&Snapshot::of(&sandbox.path(&copy)))
                .is_none()
        };
        // 127: not even the program's libraries can be opened.
        assert!(
            run.code == 127
                || (run.code == 1 && run.stderr.contains("Too many open files"))
                || (run.code == 0 && is_complete()),
            "{limit}: {run:#?}"
        );
    }
}

#[test]
fn a_small_stack_is_enough() {
    let sandbox = Sandbox::in_memory();
    make_tree(&sandbox);
    // Without optimisation the parser of the command line takes more.
    let kib = if cfg!(debug_assertions) { 1024 } else { 256 };
    let limit = format!("ulimit -s {kib}; ");
    sandbox
        .poolcp(["-a", "-j8", "source", "copy"])
        .before(&limit)
        .ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    let help = sandbox.poolcp(["--help"]).before(&limit).run();
    assert_eq!(help.code, 0, "{help:?}");
}

#[test]
fn too_few_threads_are_told() {
    needs!(OrdinaryUser, ThreadLimit);
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 10);
    chmod(&sandbox.path(""), 0o777);
    let copy = sandbox.poolcp(["-r", "-j64", "source", "copy"]);
    let run = copy.max_threads(8).run();
    let told = run.messages().concat();
    assert!(
        run.code == 1
            && told.starts_with("cannot start worker thread poolcp-")
            && told.ends_with(" of 64): Resource temporarily unavailable"),
        "{run:?}"
    );
    assert!(!sandbox.path("copy").exists());
    sandbox
        .poolcp(["-r", "-j2", "source", "copy"])
        .max_threads(8)
        .ok();
    // Who leaves the number to the program gets a copy as long as there is one thread for it: the waiting one has the other.
    for threads in 2..=4 {
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        let copy = sandbox.poolcp(["-r", "source", "copy"]);
        copy.max_threads(threads).ok();
    }
}

#[test]
fn closed_streams_are_not_taken_for_files() {
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 1000);
    for (number, closed) in ["<&- ", ">&- ", "2>&- ", "<&- >&- 2>&- "]
        .iter()
        .enumerate()
    {
        for options in ["-a", "-av"] {
            let copy = format!("copy{number}{options}");
            let args = ["--report=text", options, "source", "missing", &copy];
            fs::create_dir(sandbox.path(&copy)).expect("make a directory");
            let run = sandbox
                .poolcp(args)
                .before(&format!("exec {closed}; "))
                .run();
            assert_eq!(run.code, 1, "{closed}: {run:?}");
            // Nothing that was said is in it.
            let copy = sandbox.path(copy).join("source");
            assert_same_tree(&sandbox.path("source"), &copy, closed);
        }
    }
    sandbox
        .poolcp(["-av", "source", "fine"])
        .before("exec >&-; ")
        .ok();
}

#[test]
fn messages_that_cannot_be_written_still_make_the_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 1000);
    sandbox.dir("target");
    let copy = sandbox.poolcp(["-r", "--report=text", "source", "missing", "target"]);
    let run = copy.before("exec 2>/dev/full; ").run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(sandbox.path("target/source/file").exists());
}

fn same_at_the_limits(lines: &[&str]) {
    let longest = "n".repeat(255);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("a", 10);
        sandbox.file("dir/file", 10);
        sandbox.file(format!("dir/{longest}"), 10);
        sandbox.dir("empty");
        sandbox.symlink("round", "round");
        sandbox.symlink("loops/x", "y");
        sandbox.symlink("loops/y", "x");
        sandbox.symlink("loops/in/up", "..");
        sandbox.file("loops/file", 10);
    };
    let (path, name) = ("x/".repeat(2048), "n".repeat(256));
    let below = format!("empty/{}", "y".repeat(4090));
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let line = line.replace("PATH", &path).replace("NAME", &name);
            line.replace("LONGEST", &longest).replace("BELOW", &below)
        })
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    same_as_cp(setup, &lines);
}

#[test]
fn names_and_paths_at_the_kernels_limits_are_copied_or_told_as_by_cp() {
    needs!(GnuCp9);
    same_at_the_limits(&[
        "PATH empty",
        "a PATH",
        "a PATH empty",
        "-t PATH a",
        "-T a PATH",
        "-r PATH new",
        "-r dir PATH",
        "a BELOW",
        "-r dir BELOW",
        "a NAME",
        "NAME new",
        "a NAME empty",
        "-r dir NAME",
        "-r dir empty",
        "a empty/LONGEST",
        "-a dir new",
        "-r --backup=numbered dir/. dir2 empty",
        "--parents PATHa empty",
        "-s a NAME",
        "-l a NAME",
    ]);
}

#[test]
fn links_that_lead_in_circles_are_told_as_by_cp() {
    needs!(GnuCp9);
    same_at_the_limits(&[
        "round new",
        "-L round new",
        "-r round new",
        "-rL round new",
        "-H round new",
        "a round",
        "-f a round",
        "-r dir round",
        "-t round a",
        "-rL loops new",
        "-rH loops new",
        "-a loops new",
    ]);
}

#[test]
fn a_read_only_file_system_is_told_and_the_rest_is_copied() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    for name in ["ro/old", "ro/sub/old", "ro/new", "before", "z/after"] {
        sandbox.file(format!("source/{name}"), 10);
    }
    sandbox.dir("target/ro");
    let _mount = Mount::tmpfs(&sandbox.path("target/ro"), "1m").expect("a tmpfs");
    sandbox.file("target/ro/old", 20);
    sandbox.file("target/ro/sub/old", 20);
    Mount::remount(&sandbox.path("target/ro"), "ro");
    sandbox.poolcp(["-r", "source/.", "target"]).fails(&[
        "cannot create regular file 'target/./ro/old': Read-only file system",
        "cannot create regular file 'target/./ro/sub/old': Read-only file system",
        "cannot create regular file 'target/./ro/new': Read-only file system",
    ]);
    assert!(sandbox.path("target/before").exists() && sandbox.path("target/z/after").exists());
    assert_eq!(
        fs::read(sandbox.path("target/ro/old")).expect("read").len(),
        20
    );
}

#[test]
fn what_is_forbidden_at_any_level_is_told_as_by_cp_and_the_rest_is_copied() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let names = [
        "source",
        "source/dir",
        "source/dir/sub",
        "source/dir/file",
        "target",
        "target/source",
        "target/source/dir",
        "target/source/dir/file",
    ];
    for name in names {
        for mode in [0o000, 0o100, 0o200, 0o400, 0o500, 0o600] {
            let setup = |sandbox: &Sandbox| {
                for file in [
                    "source/file",
                    "source/dir/file",
                    "source/dir/sub/file",
                    "other",
                ] {
                    sandbox.file(file, 100);
                }
                sandbox.file("target/source/dir/file", 5);
                sandbox.give_to_ordinary_user();
                chmod(&sandbox.path(name), mode);
            };
            same_as_cp_when(
                setup,
                &[
                    "-r source other target",
                    "-a source other target",
                    "-rf source other target",
                ],
                Call::by_ordinary_user,
            );
        }
    }
}

/// Copies over and over while something is taken away and comes back, for a while.
fn while_vanishing(sandbox: &Sandbox, vanish: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                vanish();
                thread::sleep(Duration::from_millis(3));
            }
        });
        let mut failures = String::new();
        for _ in 0..15 {
            match sandbox
                .poolcp(["-a", "-j4", "source", "target"])
                .run_in_time()
            {
                Ok(run) if run.code <= 1 => {}
                run => failures += &format!("{run:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(failures.is_empty(), "{failures}");
    });
}

#[test]
fn a_destination_that_vanishes_ends_the_copy_with_messages() {
    let sandbox = Sandbox::in_memory();
    make_tree(&sandbox);
    while_vanishing(&sandbox, || {
        let _ = fs::remove_dir_all(sandbox.path("target"));
        let _ = fs::create_dir(sandbox.path("target"));
    });
    while_vanishing(&sandbox, || {
        let (name, other) = (
            sandbox.path("target/source/3/d0"),
            sandbox.path("elsewhere"),
        );
        if fs::rename(&name, &other).is_ok() {
            let _ = fs::remove_dir_all(&other);
        }
    });
}

#[test]
fn a_source_that_vanishes_ends_the_copy_with_messages() {
    let sandbox = Sandbox::in_memory();
    make_tree(&sandbox);
    while_vanishing(&sandbox, || {
        let (name, other) = (sandbox.path("source/3/d0"), sandbox.path("elsewhere"));
        let _ = fs::rename(&name, &other);
        thread::sleep(Duration::from_millis(1));
        let _ = fs::rename(&other, &name);
    });
}
