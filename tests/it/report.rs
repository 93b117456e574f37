//! What is shown: the report as text and as JSON, `-v`, and the silence of a `cp`.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Sandbox, poolcp, same_as_cp};

/// The keys of the JSON report, schema 1.
const KEYS: [&str; 19] = [
    "schema",
    "version",
    "elapsed_seconds",
    "workers",
    "busy_workers",
    "files",
    "directories",
    "symlinks",
    "hard_links",
    "specials",
    "bytes",
    "bytes_moved",
    "bytes_by_method",
    "files_per_second",
    "bytes_per_second",
    "skipped",
    "warnings",
    "errors",
    "error_list",
];

fn some_of_all(sandbox: &Sandbox) {
    sandbox.file("source/a", 1000);
    sandbox.file("source/dir/b", 300_000);
    sandbox.file("source/dir/empty", 0);
    sandbox.symlink("source/link", "a");
    sandbox.symlink("source/dangling", "nowhere");
    sandbox.fifo("source/fifo");
    sandbox.hard_link("source/dir/a", "source/a");
    sandbox.hard_link("source/dir/a2", "source/a");
    sandbox.dir("source/dir/sub");
}

#[test]
fn the_json_report_counts_what_was_copied() {
    let sandbox = Sandbox::new();
    some_of_all(&sandbox);
    let call = sandbox.call(poolcp(), ["-a", "-j3", "--report=json", "source", "copy"]);
    let run = call.ok();
    let report = run.json();
    assert_eq!(
        run.stdout.lines().count(),
        1,
        "one object, one line: {run:?}"
    );
    let keys: BTreeSet<&str> = report
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert!(KEYS.iter().all(|key| keys.contains(key)), "{keys:?}");
    let expected = [
        ("schema", 1),
        ("workers", 3),
        ("files", 3),
        ("directories", 3),
        ("symlinks", 2),
        ("hard_links", 2),
        ("specials", 1),
        ("bytes", 301_000),
        ("skipped", 0),
        ("warnings", 0),
        ("errors", 0),
    ];
    for (key, count) in expected {
        assert_eq!(report[key], count, "{key}");
    }
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["error_list"], Value::Array(Vec::new()));
    let methods = &report["bytes_by_method"];
    let [reflink, kernel, read_write] =
        ["reflink", "kernel", "read_write"].map(|how| methods[how].as_u64().expect("a count"));
    assert_eq!(reflink + kernel + read_write, 301_000);
    assert_eq!(report["bytes_moved"], kernel + read_write);
    assert!(
        report["elapsed_seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
}

#[test]
fn how_many_workers_were_busy_is_reported_if_nobody_said_how_many() {
    let sandbox = Sandbox::new();
    for i in 0..500 {
        sandbox.file(format!("source/{}/{i}", i % 10), 100);
    }
    for (option, target) in [("-j0", "a"), ("-jauto", "b"), ("--threads=auto", "c")] {
        let call = sandbox.call(poolcp(), ["-r", option, "--report=json", "source", target]);
        let report = call.ok().json();
        let busy = &report["busy_workers"];
        let [least, median, most] =
            ["least", "median", "most"].map(|key| busy[key].as_u64().expect("a count"));
        assert!(1 <= least && least <= median && median <= most, "{busy}");
        assert_eq!(report["workers"], most);
        let series = busy["series"].as_array().expect("a series");
        let times: Vec<_> = series.iter().map(|point| point[0].as_f64()).collect();
        assert!(!times.is_empty() && times.is_sorted(), "{busy}");
        assert!(*times.last().unwrap() <= Some(report["elapsed_seconds"].as_f64().unwrap() + 1.0));
    }
    let call = sandbox.call(poolcp(), ["-r", "-j3", "--report=json", "source", "d"]);
    let report = call.ok().json();
    assert_eq!(report["busy_workers"], Value::Null);
    assert_eq!(report["workers"], 3);
    let run = sandbox.call(poolcp(), ["-r", "source", "e"]).run();
    let line = run.stderr.lines().find(|line| line.starts_with("workers "));
    assert!(line.is_some_and(|line| line.ends_with(", auto")), "{run:?}");
}

#[test]
fn the_json_report_lists_errors_and_skipped_files() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 10);
    sandbox.file("source/b", 20);
    sandbox.file("target/a", 5);
    let args = ["-rn", "--report=json", "source/.", "missing", "target"];
    let run = sandbox.poolcp(args).run();
    assert_eq!(run.code, 1);
    let report = run.json();
    for (key, count) in [("skipped", 1), ("files", 1), ("bytes", 20), ("errors", 1)] {
        assert_eq!(report[key], count, "{key}");
    }
    let error = &report["error_list"][0];
    assert_eq!(error["path"], "missing");
    assert_eq!(error["other_path"], Value::Null);
    assert_eq!(error["errno"], 2);
    assert_eq!(
        error["message"],
        "cannot stat 'missing': No such file or directory"
    );
    assert_eq!(
        run.stderr,
        "poolcp: cannot stat 'missing': No such file or directory\n"
    );
}

#[test]
fn the_text_report_is_on_standard_error_and_can_be_left_out() {
    let sandbox = Sandbox::new();
    some_of_all(&sandbox);
    let run = sandbox.call(poolcp(), ["-a", "source", "copy"]).run();
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    let made = "3 files, 3 directories, 2 symlinks, 2 hard links, 1 special file";
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[0], format!("copied    {made}"), "{run:?}");
    assert_eq!(lines.last(), Some(&"errors    none"));
    assert!(lines.iter().all(|line| line.len() <= 80), "{run:?}");
    for option in ["-q", "--quiet", "--report=none"] {
        let run = sandbox
            .call(poolcp(), ["-r", option, "source", "other"])
            .ok();
        assert_eq!(run.stdout, "", "{option}");
    }
    let run = sandbox
        .call(poolcp(), ["-q", "--report=text", "source/a", "c"])
        .run();
    assert!(run.stderr.starts_with("copied    1 file\n"), "{run:?}");
}

#[test]
fn called_cp_it_is_as_silent_as_cp_and_speaks_as_cp() {
    let sandbox = Sandbox::new();
    some_of_all(&sandbox);
    let cp = sandbox.path("cp");
    symlink(poolcp(), &cp).expect("make a symlink");
    assert_eq!(sandbox.call(&cp, ["-a", "source", "copy"]).ok().stdout, "");
    let run = sandbox.call(&cp, ["missing", "x"]).run();
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stderr,
        "cp: cannot stat 'missing': No such file or directory\n"
    );
    let run = sandbox.call(&cp, ["-Q", "missing", "x"]).run();
    let hint = "Try 'cp --help' for more information.";
    assert_eq!(run.stderr, format!("cp: invalid option -- 'Q'\n{hint}\n"));
    let run = sandbox.call(&cp, ["--report=json", "source/a", "b"]).ok();
    assert_eq!(run.json()["files"], 1);
}

#[test]
fn v_says_what_cp_says() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        some_of_all(sandbox);
        sandbox.file("source/two words\nand lines", 1);
        sandbox.file("other/a", 10);
        sandbox.file("other/dir/b", 10);
        sandbox.symlink("other/link", "a");
        sandbox.file("existing/a", 5);
        sandbox.file("existing/link", 5);
        sandbox.dir("existing/dir");
        sandbox.dir("empty");
    };
    same_as_cp(
        setup,
        &[
            "-rv source copy",
            "-av source copy",
            "-av other/. existing",
            "-rv other/. existing",
            "-v source/a copy",
            "-v source/a source/dir/b empty",
            "-v source/a existing/a",
            "-fv source/a existing/a",
            "-rv source/ empty/",
            "-rv source/dir/../dir ./empty//",
            "-v source/a missing existing",
        ],
    );
}

#[test]
fn names_in_messages_are_quoted_as_by_cp() {
    needs!(GnuCp9);
    let lines = [
        "it's x",
        "a\nb x",
        "\u{e4} x",
        "\t x",
        "--  x",
        "\"$ x",
        "'\" x",
        "it's$ x",
        "'\n x",
        "it's\u{e4} x",
        "a\n' x",
    ];
    same_as_cp(|_| (), &lines);
}
