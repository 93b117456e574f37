//! `--bwlimit` and `--background`: how fast data moves, and with what priority.
//!
//! Times are bounded closely from below, since nothing may be faster than the limit; from above loosely, because a machine that
//! is busy with other things is no failure.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::Sandbox;
use crate::programs::{signal, start};
use crate::referees::assert_rsync_agrees;

const MIB: u64 = 1 << 20;

/// Bytes in all files below a directory.
fn size(sandbox: &Sandbox, dir: &str) -> u64 {
    let entries = fs::read_dir(sandbox.path(dir))
        .into_iter()
        .flatten()
        .flatten();
    // A staged file may be renamed meanwhile.
    let sizes = entries.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
    sizes.sum()
}

#[test]
fn bytes_take_their_time_whoever_moves_them() {
    needs!(Rsync);
    let sandbox = Sandbox::in_memory();
    for n in 0..3 {
        sandbox.file(format!("source/large-{n}"), 2 << 20);
    }
    for n in 0..500 {
        sandbox.file(format!("source/small/{n}"), 4200);
    }
    let bytes = 3 * 2 * MIB + 500 * 4200;
    let fair = bytes as f64 / (8 * MIB) as f64;
    for options in [
        &["-j1"][..],
        &["-j16"],
        &[],
        &["--sparse=never"],
        &["--sparse=always"],
    ] {
        let line = [options, &["-a", "--reflink=auto", "--report=json"]].concat();
        let copy = |limit: &[&str]| {
            let line = [limit, &line, &["source", "copy"]].concat();
            let report = sandbox.poolcp(line).ok().json();
            assert_eq!(report["bytes_moved"], bytes, "{options:?}");
            assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
            fs::remove_dir_all(sandbox.path("copy")).expect("remove");
            report["elapsed_seconds"].as_f64().expect("a number")
        };
        // What this machine takes for it anyhow, at its best, is allowed on top.
        let least = copy(&[]);
        let is_fair = || {
            let seconds = copy(&["--bwlimit=8M"]);
            let what = format!("{options:?}: {seconds} s, not {fair}, and {least} without a limit");
            assert!(seconds > fair * 0.99, "{what}");
            (seconds < fair * 2.0 + least).then_some(()).ok_or(what)
        };
        // A machine that is busy with other things is not so every time.
        is_fair()
            .or_else(|_| is_fair())
            .or_else(|_| is_fair())
            .unwrap();
    }
}

#[test]
fn what_is_read_back_counts() {
    let sandbox = Sandbox::in_memory();
    sandbox.file("source", 2 << 20);
    let line = [
        "--verify",
        "--bwlimit=4M",
        "--report=json",
        "source",
        "copy",
    ];
    let report = sandbox.poolcp(line).ok().json();
    assert_eq!(report["bytes_verified"], 2 * MIB);
    let seconds = report["elapsed_seconds"].as_f64().expect("a number");
    assert!(seconds > 0.99, "{seconds} s");
}

#[test]
fn data_moves_evenly() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    for n in 0..4 {
        sandbox.file(format!("source/{n}"), 4 << 20);
    }
    let rate = 8 * MIB;
    let mut child = start(
        &sandbox,
        &["-a", "-j8", "-q", "--bwlimit=8M", "source", "copy"],
    );
    let start = Instant::now();
    let mut seen = vec![(start, start, 0)];
    while child.try_wait().expect("wait").is_none() {
        thread::sleep(Duration::from_millis(10));
        // Between the two moments it has been as much as this.
        let before = Instant::now();
        let moved = size(&sandbox, "copy");
        seen.push((before, Instant::now(), moved));
    }
    assert!(child.wait().expect("wait").success());
    for (i, &(begin, _, from)) in seen.iter().enumerate() {
        for &(_, end, to) in &seen[i..] {
            // A tenth of a second's burst; and what is paid for is written a little later.
            let slack = 0.1 + 0.1;
            let fair = ((end - begin).as_secs_f64() + slack) * rate as f64;
            let moved = to.saturating_sub(from) as f64;
            assert!(moved <= fair, "{moved} bytes in {:?}", end - begin);
        }
    }
}

#[test]
fn a_signal_ends_what_waits_for_its_turn() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    for n in 0..40 {
        sandbox.file(format!("source/{n}"), 1 << 20);
    }
    // So slow that no file would be ready in an hour.
    let mut child = start(&sandbox, &["-a", "-j20", "--bwlimit=100", "source", "copy"]);
    thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    signal(&child, Signal::INT);
    let signal = child.wait().expect("wait").signal();
    // Far below the time after which the program gives up waiting for its own workers.
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(signal, Some(2));
    let left = fs::read_dir(sandbox.path("copy")).map(Iterator::count);
    assert!(matches!(left, Err(_) | Ok(0)), "{left:?}");
}

/// The nice value of each thread (proc_pid_stat(5)).
fn nice_values(child: &Child) -> Vec<String> {
    let tasks = format!("/proc/{}/task", child.id());
    let tasks = fs::read_dir(tasks).expect("threads");
    let stats = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats
        .map(|stat| {
            // What follows the name, which may contain anything, begins with field 3.
            let (_, fields) = stat.rsplit_once(") ").expect("a name");
            fields
                .split(' ')
                .nth(19 - 3)
                .expect("a nice value")
                .to_owned()
        })
        .collect()
}

#[test]
fn in_the_background_every_thread_comes_last() {
    needs!(Ionice, GnuEnv);
    let sandbox = Sandbox::in_memory();
    for n in 0..20 {
        sandbox.file(format!("source/{n}"), 1 << 20);
    }
    for (options, expected) in [(&["-j6"][..], 7), (&[], 2)] {
        let line = [
            options,
            &["-a", "--background", "--bwlimit=1K", "source", "copy"],
        ]
        .concat();
        let mut child = start(&sandbox, &line);
        let begin = Instant::now();
        let mut nice = nice_values(&child);
        // They come last, and so they may come late.
        while nice.len() < expected || nice.iter().any(|nice| nice != "19") {
            assert!(begin.elapsed() < Duration::from_secs(60), "{nice:?}");
            thread::sleep(Duration::from_millis(10));
            nice = nice_values(&child);
        }
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("threads");
        let classes: Vec<String> = tasks
            .flatten()
            .map(|task| {
                let ionice = Command::new("ionice")
                    .arg("-p")
                    .arg(task.file_name())
                    .output();
                let class = ionice.expect("ionice").stdout;
                String::from_utf8_lossy(&class).trim().to_owned()
            })
            .collect();
        signal(&child, Signal::INT);
        child.wait().expect("wait");
        assert!(classes.iter().all(|class| class == "idle"), "{classes:?}");
        let _ = fs::remove_dir_all(sandbox.path("copy"));
    }
}
