//! What is shown: the report as text and as JSON, `-v`, and the silence of a `cp`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Sandbox, chmod, mode, set_mtime, set_xattr};
use crate::programs::{PID_NAMESPACE, poolcp, poolcp_as_cp};
use crate::referees::same_as_cp;

/// The keys of the JSON report, schema 1.
const KEYS: [&str; 22] = [
    "schema",
    "version",
    "options",
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
    "errors_by_kind",
    "warning_list",
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

#[test]
fn the_json_report_has_the_options_and_all_that_went_wrong() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 10);
    let args = [
        "-rp",
        "--update=changed",
        "-j2",
        "--report=json",
        "source/a",
        "source/a",
        "missing",
        "nowhere",
        "-t",
        "source",
    ];
    let run = sandbox.poolcp(args).run();
    let report = run.json();
    assert_eq!(report["schema"], 1);
    let options = &report["options"];
    assert_eq!(options["recursive"], true);
    assert_eq!(options["overwrite"], "if_changed");
    assert_eq!(options["preserve"]["timestamps"], true);
    assert_eq!(options["preserve"]["xattrs"], "no");
    assert_eq!(options["follow"], "never");
    assert_eq!(options["suffix"], "~");
    let kinds = report["errors_by_kind"].as_array().expect("a list");
    let missing = kinds.iter().find(|kind| kind["errno"] == 2);
    let missing = missing.expect("two that are not there");
    assert_eq!(missing["count"], 2);
    assert_eq!(missing["operation"], "Stat");
    assert_eq!(
        missing["message"],
        "cannot stat FILE: No such file or directory"
    );
    let counted: u64 = kinds.iter().filter_map(|kind| kind["count"].as_u64()).sum();
    assert_eq!(report["errors"], counted);
    assert_eq!(report["warnings"], 1);
    let warning = &report["warning_list"][0];
    assert_eq!(warning["path"], "source/a");
    assert_eq!(
        warning["message"],
        "source file 'source/a' specified more than once"
    );
}

#[test]
fn the_text_report_shows_the_first_errors_and_how_many_more_of_each_kind() {
    let sandbox = Sandbox::new();
    sandbox.dir("copy");
    let missing = (0..25).map(|i| format!("missing-{i}"));
    let args = ["-j1", "-p"].map(str::to_owned).into_iter().chain(missing);
    let run = sandbox
        .call(poolcp(), args.chain(["copy".to_owned()]))
        .run();
    let report = run.stderr.split("copied ").nth(1).expect("a report");
    let lines: Vec<&str> = report.lines().collect();
    let first = lines.iter().position(|line| *line == "errors    25");
    let errors = &lines[first.expect("a count") + 1..];
    assert_eq!(
        errors[0],
        "  cannot stat 'missing-0': No such file or directory"
    );
    assert_eq!(errors[10], "  and 15 more:");
    assert_eq!(
        errors[11],
        "       15 times cannot stat FILE: No such file or directory"
    );
    let next = "next      when that is mended: the same with --update=changed as the last options";
    assert_eq!(errors[12..], [next]);
}

#[test]
fn what_to_do_next_can_be_typed_and_copies_what_is_missing() {
    let sandbox = Sandbox::new();
    sandbox.file("two words/a", 10);
    sandbox.file("two words/b/c", 10);
    sandbox.file("copy/b", 10);
    let run = sandbox
        .call(poolcp(), ["-a", "two words", "-T", "copy"])
        .run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        !run.stderr.contains("\nnext"),
        "the message says all: {run:?}"
    );
    // Nobody has the place of a directory's copy in a target that does not exist.
    sandbox.file("plain", 1);
    let run = sandbox
        .call(poolcp(), ["-a", "missing", "plain", "copy"])
        .run();
    let next = run.stderr.lines().last().expect("a line");
    let command = "--update=changed -a missing plain copy";
    let program = poolcp().display();
    assert_eq!(
        next,
        format!("next      when that is mended: {program} {command}")
    );
    sandbox.file("missing", 1);
    let run = sandbox.call(poolcp(), command.split(' ')).run();
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("copied    1 file\n"), "{run:?}");
    assert!(run.stderr.contains("skipped   1\n"), "{run:?}");
}

#[test]
fn a_report_file_gets_the_report_in_one_step_and_nothing_else_does() {
    let sandbox = Sandbox::new();
    some_of_all(&sandbox);
    sandbox.file("report", 10);
    sandbox.symlink("link", "report");
    let mut before = File::open(sandbox.path("report")).expect("open");
    let file = "--report-file=link";
    let call = sandbox.call(poolcp(), ["-a", file, "source", "copy"]);
    assert_eq!(call.ok().stdout, "");
    let text = fs::read_to_string(sandbox.path("report")).expect("read");
    assert!(
        text.starts_with("copied    3 files, 3 directories"),
        "{text}"
    );
    assert!(text.ends_with("errors    none\n"), "{text}");
    assert!(sandbox.path("link").is_symlink());
    let mut old = Vec::new();
    before.read_to_end(&mut old).expect("read");
    assert_eq!(old.len(), 10, "who reads the old one reads it to its end");
    for program in [poolcp(), poolcp_as_cp()] {
        let args = ["-rq", "--report=json", file, "source/a", "missing", "copy"];
        let run = sandbox.call(program, args).run();
        assert_eq!((run.code, run.stdout.as_str()), (1, ""));
        assert_eq!(
            run.messages(),
            ["cannot stat 'missing': No such file or directory"]
        );
        let text = fs::read_to_string(sandbox.path("report")).expect("read");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&report["files"], &report["errors"]),
            (&1.into(), &1.into())
        );
    }
    let call = sandbox.call(poolcp_as_cp(), ["--report-file=new", "source/a", "copy"]);
    call.ok();
    let text = fs::read_to_string(sandbox.path("new")).expect("read");
    assert!(text.starts_with("copied    1 file\n"), "{text}");
    let names: BTreeSet<_> = fs::read_dir(sandbox.path(""))
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let expected = ["copy", "link", "new", "report", "source"];
    assert_eq!(
        names,
        expected.map(Into::into).into(),
        "nothing is left over"
    );
    let run = sandbox
        .call(poolcp(), ["--report-file=/dev/stdout", "source/a", "copy"])
        .ok();
    assert!(run.stdout.starts_with("copied    1 file\n"), "{run:?}");
}

#[test]
fn standard_output_is_written_to_whoever_has_made_it() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    chmod(&sandbox.path("a"), 0o644);
    chmod(&sandbox.path(""), 0o755);
    chmod(&sandbox.dir("open"), 0o777);
    let words = ["--report-file=/dev/stdout", "a", "open/copy"];
    let run = sandbox.call(poolcp(), words).by_ordinary_user().ok();
    assert!(run.stdout.starts_with("copied    1 file\n"), "{run:?}");
}

#[test]
fn a_report_is_written_beside_what_another_process_of_the_same_number_has_left() {
    needs!(PidNamespace);
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.file(".report-1-0.tmp", 3);
    let program = poolcp().to_str().expect("UTF-8");
    let [unshare, words @ ..] = PID_NAMESPACE;
    let words = [&words[..], &[program, "--report-file=report", "a", "copy"]].concat();
    sandbox.call(unshare, words).ok();
    let report = fs::read_to_string(sandbox.path("report")).expect("a report");
    assert!(report.starts_with("copied    1 file\n"), "{report}");
}

#[test]
fn a_report_file_that_cannot_be_written_is_told_before_anything_is_copied() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.dir("dir");
    for (file, reason) in [
        ("nowhere/report", "No such file or directory"),
        ("dir", "Is a directory"),
        ("a/report", "Not a directory"),
    ] {
        let option = format!("--report-file={file}");
        let run = sandbox.call(poolcp(), [option.as_str(), "a", "copy"]).run();
        assert_eq!(run.code, 1);
        assert_eq!(
            run.stderr,
            format!("poolcp: cannot write '{file}': {reason}\n")
        );
        assert!(!sandbox.path("copy").exists());
    }
    let args = ["--report=none", "--report-file=x", "a", "copy"];
    sandbox.call(poolcp(), args).fails(&[
        "--report-file wants a report, and --report=none has none",
        "Try 'poolcp --help' for more information.",
    ]);
    let run = sandbox
        .call(poolcp(), ["--report-file=/dev/full", "a", "copy"])
        .run();
    let told = "poolcp: cannot write '/dev/full': No space left on device\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, told));
    assert!(
        sandbox.path("copy").exists(),
        "the copy is made all the same"
    );
}

fn log_lines(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(sandbox.path("log")).expect("read the log");
    assert!(text.ends_with('\n'));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_log_has_a_line_for_each_entry() {
    let sandbox = Sandbox::new();
    some_of_all(&sandbox);
    sandbox.file("source/two\nlines", 1);
    let run = sandbox.poolcp(["-a", "--log=log", "source", "missing", "-t", "."]);
    assert_eq!(run.run().code, 1, "the source is where its copy would be");
    fs::remove_file(sandbox.path("log")).expect("remove");
    sandbox.dir("target");
    let args = ["-a", "--log", "log", "source", "missing", "target"];
    assert_eq!(sandbox.poolcp(args).run().code, 1);
    let logged = log_lines(&sandbox);
    let mut expected = [
        "directory 'source' -> 'target/source'",
        "directory 'source/dir' -> 'target/source/dir'",
        "directory 'source/dir/sub' -> 'target/source/dir/sub'",
        "copied 'source/dir/b' -> 'target/source/dir/b'",
        "copied 'source/dir/empty' -> 'target/source/dir/empty'",
        "copied 'source/two'$'\\n''lines' -> 'target/source/two'$'\\n''lines'",
        "error: cannot stat 'missing': No such file or directory",
        "special file 'source/fifo' -> 'target/source/fifo'",
        "symlink 'source/dangling' -> 'target/source/dangling'",
        "symlink 'source/link' -> 'target/source/link'",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.sort_unstable();
    // Which name of three is the first one is nobody's choice.
    let (names, others): (Vec<_>, Vec<_>) = logged
        .into_iter()
        .partition(|line| ["/a'", "/a2'"].iter().any(|name| line.ends_with(name)));
    assert_eq!(others, expected);
    let kinds: Vec<&str> = names
        .iter()
        .filter_map(|line| line.split(" '").next())
        .collect();
    assert_eq!(kinds, ["copied", "hard link", "hard link"]);
    // A second run is added, and what it leaves alone has its line, too.
    let args = ["-rn", "--log=log", "source/dir/.", "target/source/dir"];
    sandbox.poolcp(args).ok();
    let added = log_lines(&sandbox);
    let skipped = "skipped 'source/dir/./b' -> 'target/source/dir/./b'";
    assert!(added.iter().any(|line| line == skipped), "{added:#?}");
    assert_eq!(added.len(), 13 + 6);
}

#[test]
fn a_log_of_a_large_tree_has_as_many_lines_of_each_kind_as_the_report_counts() {
    let sandbox = Sandbox::new();
    for i in 0..3000 {
        sandbox.file(format!("source/{}/{}/{i}", i % 7, i % 50), i % 300);
        if i % 10 == 0 {
            sandbox.symlink(format!("source/{}/link-{i}", i % 7), "x");
        }
    }
    let args = ["-a", "-j8", "--report=json", "--log=log", "source", "copy"];
    let report = sandbox.poolcp(args).ok().json();
    let logged = log_lines(&sandbox);
    let count = |kind: &str| logged.iter().filter(|line| line.starts_with(kind)).count();
    assert_eq!(report["files"], count("copied '"));
    assert_eq!(report["directories"], count("directory '"));
    assert_eq!(report["symlinks"], count("symlink '"));
    assert_eq!(
        logged.len(),
        count("copied '") + count("directory '") + count("symlink '")
    );
    let names: BTreeSet<&String> = logged.iter().collect();
    assert_eq!(names.len(), logged.len(), "each once");
}

#[test]
fn a_log_that_cannot_be_written_is_told_once_and_is_a_failure() {
    let sandbox = Sandbox::new();
    for i in 0..5000 {
        sandbox.file(format!("source/{i}"), 1);
    }
    let run = sandbox
        .poolcp(["-r", "--log=/dev/full", "source", "copy"])
        .run();
    let told = "poolcp: cannot write '/dev/full': No space left on device\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, told));
    assert_eq!(
        fs::read_dir(sandbox.path("copy")).expect("list").count(),
        5000
    );
    let run = sandbox.poolcp(["--log=no/log", "source/1", "other"]).run();
    let told = "poolcp: cannot write 'no/log': No such file or directory\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, told));
    assert!(!sandbox.path("other").exists());
}

#[test]
fn a_report_is_written_to_its_file_even_if_standard_output_fails() {
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 10);
    let full = OpenOptions::new().write(true).open("/dev/full");
    let args = [
        "-rv",
        "--report=json",
        "--report-file=report",
        "source",
        "copy",
    ];
    let run = sandbox
        .call(poolcp(), args)
        .stdout_to(full.expect("/dev/full"))
        .run();
    let told = "poolcp: write error: No space left on device\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, told));
    let report = fs::read_to_string(sandbox.path("report")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["files"], 1);
}

#[test]
fn a_report_that_replaces_another_is_no_more_public() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    let report = sandbox.file("report", 10);
    chmod(&report, 0o600);
    sandbox
        .call(poolcp(), ["--report-file=report", "a", "copy"])
        .ok();
    assert_eq!(mode(&report), 0o600);
}

#[test]
fn a_report_goes_to_an_open_file_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    let log = sandbox.path("log");
    for descriptor in ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
        fs::write(&log, "earlier\n").expect("write");
        let args = [&format!("--report-file={descriptor}"), "a", "copy"];
        let copy = sandbox.call(poolcp(), args).before("exec 2>>log; ");
        assert_eq!(copy.run().code, 0);
        let text = fs::read_to_string(&log).expect("read");
        assert!(text.starts_with("earlier\ncopied "), "{text}");
    }
    // A link to nothing is one to the report afterwards.
    sandbox.symlink("link", "report");
    sandbox
        .call(poolcp(), ["--report-file=link", "a", "copy"])
        .ok();
    assert!(sandbox.path("link").is_symlink() && sandbox.path("report").exists());
}

#[test]
fn the_next_command_is_not_contradicted_by_what_was_typed() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.dir("target");
    for (typed, next) in [
        (
            "-a missing a target",
            "poolcp --update=changed -a missing a target",
        ),
        (
            "-a -u --update=all missing a target",
            "the same with --update=changed as the last options",
        ),
        (
            "-a --no-preserve=timestamps -- missing a target",
            "poolcp --checksum -a --no-preserve=timestamps -- missing a target",
        ),
        (
            "-a --exclude-from - missing a target",
            "the same with --update=changed as the last options",
        ),
        ("-au missing a target", "poolcp -au missing a target"),
        (
            "-a --checksum missing a target",
            "poolcp -a --checksum missing a target",
        ),
        (
            "-a --update=none-fail missing a target",
            "the same with --update=none as the last options",
        ),
        (
            "-r --update=changed missing a target",
            "the same with --checksum as the last options",
        ),
    ] {
        let run = sandbox.call(poolcp(), typed.split(' ')).run();
        let next = next.replace("poolcp ", &format!("{} ", poolcp().display()));
        assert!(
            run.stderr.ends_with(&format!(": {next}\n")),
            "{}",
            run.stderr
        );
    }
    let long = format!("--exclude={}", "x".repeat(170));
    let args = ["-a", "--update=changed", &long, "missing", "a", "target"];
    let run = sandbox.call(poolcp(), args).run();
    assert!(run.stderr.ends_with(": the same again\n"), "{}", run.stderr);
    let args = ["-a", "--dry-run", "missing", "a", "target"];
    let run = sandbox.call(poolcp(), args).run();
    assert!(!run.stderr.contains("\nnext"), "{}", run.stderr);
}

#[test]
fn what_to_do_next_destroys_nothing_that_was_spared() {
    let ways = [
        ("-au", "mine", None),
        ("-a --update=none", "mine", None),
        ("-a --update=none-fail", "mine", None),
        ("-rb", "new", Some("mine")),
        ("-rb --update=changed", "new", Some("mine")),
        ("-ab", "new", Some("mine")),
    ];
    for (options, content, backup) in ways {
        let sandbox = Sandbox::new();
        let write = |path: &str, text: &str| {
            let file = sandbox.file(path, 0);
            fs::write(&file, text).expect("write");
            file
        };
        let source = write("source/f", "new");
        set_mtime(&source, 1_000_000_000, 0);
        write("copy/source/f", "mine");
        let operands = ["source", "missing", "copy"];
        let line = options.split(' ').chain(operands);
        let run = sandbox.call(poolcp(), line).run();
        let next = run.stderr.lines().last().expect("a line");
        let (_, next) = next.split_once(": ").expect("what to do next");
        let again: Vec<&str> = match next.strip_prefix("the same with ") {
            Some(added) => {
                let added = added.strip_suffix(" as the last options").expect("options");
                options
                    .split(' ')
                    .chain(added.split(' '))
                    .chain(operands)
                    .collect()
            }
            None => next.split(' ').skip(1).collect(),
        };
        write("missing", "missing");
        sandbox.poolcp(again).ok();
        let read = |path: &str| fs::read_to_string(sandbox.path(path)).ok();
        assert_eq!(read("copy/source/f").as_deref(), Some(content), "{next}");
        assert_eq!(read("copy/source/f~").as_deref(), backup, "{next}");
        assert_eq!(read("copy/missing").as_deref(), Some("missing"), "{next}");
    }
}

#[test]
fn what_gets_attributes_alone_and_leading_directories_are_counted_as_what_they_are() {
    let sandbox = Sandbox::new();
    sandbox.file("new", 10);
    sandbox.file("old", 20);
    let counts = |args: &[&str]| {
        let args = args.iter().chain(&["--report=json", "--log=log"]);
        let report = sandbox.poolcp(args).ok().json();
        ["files", "attributes_only", "directories"].map(|key| report[key].as_u64().unwrap())
    };
    assert_eq!(
        counts(&["-p", "--attributes-only", "new", "old"]),
        [0, 1, 0]
    );
    assert_eq!(counts(&["--attributes-only", "new", "newer"]), [1, 0, 0]);
    sandbox.file("a/b/c", 10);
    sandbox.dir("target");
    assert_eq!(counts(&["--parents", "a/b/c", "target"]), [1, 0, 2]);
    let log = fs::read_to_string(sandbox.path("log")).expect("read");
    let lines: Vec<&str> = log.lines().collect();
    let expected = [
        "attributes 'new' -> 'old'",
        "copied 'new' -> 'newer'",
        "directory 'a' -> 'target/a'",
        "directory 'a/b' -> 'target/a/b'",
        "copied 'a/b/c' -> 'target/a/b/c'",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_report_begins_on_a_line_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.file("b", 10);
    let run = sandbox.call(poolcp(), ["-i", "a", "b"]).stdin("y\n").run();
    let begin = "poolcp: overwrite 'b'? \ncopied    1 file\n";
    assert!(run.stderr.starts_with(begin), "{run:?}");
}

#[test]
fn what_to_do_next_leaves_alone_what_is_no_file() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.dir("d");
    sandbox.fifo("pipe");
    let program = poolcp().display();
    let next_of = |args: &[&str]| {
        let run = sandbox.call(poolcp(), args).run();
        let last = run.stderr.lines().last().unwrap_or_default().to_owned();
        last.split_once(": ")
            .map(|(_, next)| next.replace(&format!("{program} "), ""))
            .filter(|_| last.starts_with("next"))
    };
    // Nobody reads it for long.
    let reader = std::thread::spawn({
        let pipe = sandbox.path("pipe");
        move || drop(File::open(pipe))
    });
    sandbox.file("large", 1 << 20);
    assert_eq!(next_of(&["large", "pipe"]).as_deref(), Some("large pipe"));
    reader.join().expect("read");
    assert!(fs::symlink_metadata(sandbox.path("pipe")).is_ok_and(|pipe| !pipe.is_file()));
    // Links: what has the name is not theirs to replace.
    let a = sandbox.path("a");
    let a = a.to_str().expect("text");
    sandbox.file("d/a", 10);
    assert_eq!(
        next_of(&["-s", a, "d"]),
        Some(format!("--update=none -s {a} d"))
    );
    assert_eq!(
        next_of(&["-l", "a", "missing", "d"]).as_deref(),
        Some("--update=none -l a missing d")
    );
    assert_eq!(
        next_of(&["-lf", "a", "missing", "d"]).as_deref(),
        Some("-lf a missing d")
    );
    // Not with -T: it is the directory itself that is copied to.
    sandbox.dir("source");
    sandbox.dir("real");
    sandbox.symlink("current", "real");
    sandbox.symlink("source/loop", "loop");
    assert_eq!(
        next_of(&["-rL", "source/.", "current"]).as_deref(),
        Some("--checksum -rL source/. current")
    );
}

#[test]
fn nothing_is_said_of_what_no_command_would_mend() {
    needs!(UserXattrs, Strace);
    let sandbox = Sandbox::in_memory();
    set_xattr(&sandbox.file("a", 10), "user.x", b"x");
    // There is no room for the attribute.
    for (options, helps) in [
        ("-a --preserve=xattr", true),
        ("-a --preserve=xattr --update=changed", false),
        ("-au --preserve=xattr", false),
        ("-an --preserve=xattr", false),
    ] {
        let fault = "inject=fsetxattr:error=ENOSPC";
        let copy = sandbox.path("copy");
        let _ = fs::remove_file(&copy);
        let line = options.split(' ').chain(["a", "copy"]);
        let call = sandbox.call(poolcp(), line).traced(&["-e", fault]);
        let run = call.run();
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(run.stderr.contains("\nnext "), helps, "{run:?}");
        if helps {
            assert!(
                run.stderr.ends_with(&format!(" {options} a copy\n")),
                "{run:?}"
            );
        }
    }
}

#[test]
fn what_is_said_after_the_report_stands_behind_it() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    for (option, descriptor) in [
        ("report-file", "stdout"),
        ("report-file", "stderr"),
        ("log", "stdout"),
    ] {
        let script = format!(
            "{{ {} -v --{option}=/dev/{descriptor} a copy; echo end >&2; echo end; }} >out 2>err",
            poolcp().display()
        );
        let args = ["-c", &script];
        sandbox.call("sh", args).ok();
        let file = if descriptor == "stdout" { "out" } else { "err" };
        let text = fs::read_to_string(sandbox.path(file)).expect("read");
        assert!(
            text.contains("copied ") && text.ends_with("\nend\n"),
            "{text}"
        );
    }
}
