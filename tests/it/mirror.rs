//! Keeping two trees the same: what is replaced, what gets attributes only, what is removed and what is not, and that a dry
//! run says what the run after it does. rsync is the referee.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use poolcp::{Canceller, Delete, Event, Interest, Observer, Options, Plan, Target};
use proptest::prelude::*;
use proptest::sample::select;
use rustix::fs::FileType;

use crate::disks::Mount;
use crate::harness::{NOBODY, Sandbox, chmod, chown, mode, set_mtime};
use crate::programs::{Run, TRACE, is_root, poolcp};
use crate::random_tree::{Item, What, check, make, tree, workers};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree};

/// What rsync would still change; ACLs and extended attributes are not looked at.
fn rsync_would_change(source: &Path, copy: &Path, options: &[&str]) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let out = Command::new("rsync")
        .args(["-aHni", "--delete"])
        .args(options)
        .args([slash(source), slash(copy)])
        .output()
        .expect("run rsync");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What was printed, without the reasons that a dry run adds.
fn lines(run: &Run) -> BTreeSet<String> {
    let without_reason = |line: &str| match line.rsplit_once(" (") {
        Some((line, _)) if line.ends_with(['\'', '"']) => line.to_owned(),
        _ => line.to_owned(),
    };
    run.stdout.lines().map(without_reason).collect()
}

/// The ways to tell what is up to date, and what rsync calls them.
const WAYS: [(&str, &[&str]); 3] = [
    ("--update=changed", &[]),
    ("--checksum", &["--checksum"]),
    ("--size-only", &["--size-only"]),
];

fn without_links(items: Vec<Item>) -> Vec<Item> {
    let is_link = |item: &Item| matches!(item.what, What::HardLink(_));
    items.into_iter().filter(|item| !is_link(item)).collect()
}

#[test]
fn a_mirror_leaves_rsync_nothing_to_do() {
    needs!(Rsync, Root);
    let case = (tree(), tree(), workers(), select(&WAYS[..]));
    check(&case, |(source, target, workers, (way, rsyncs))| {
        let sandbox = Sandbox::new();
        make(&sandbox, "source", &source);
        make(&sandbox, "target", &target);
        let before = Snapshot::of(&sandbox.path("source"));
        let mirror = ["-aT", way, "--delete", &workers, "source", "target"];
        let run = sandbox.poolcp(mirror).run();
        prop_assert!(run.code == 0 && run.stderr.is_empty(), "{:?}", run);
        let (from, to) = (sandbox.path("source"), sandbox.path("target"));
        prop_assert_eq!(rsync_would_change(&from, &to, rsyncs), "");
        prop_assert!(before.difference(&Snapshot::of(&from)).is_none());
        let again = [&mirror[..], &["--report=json"]].concat();
        let report = sandbox.poolcp(again).ok().json();
        prop_assert_eq!(&report["files"], 0);
        prop_assert_eq!(&report["deleted"], 0);
        prop_assert_eq!(&report["attributes_only"], 0);
        Ok(())
    });
}

#[test]
fn a_dry_run_takes_no_directory_for_the_one_that_it_would_make() {
    needs!(NoProc);
    let sandbox = Sandbox::new();
    sandbox.dir("source/proc");
    let script = "mount --bind /proc source/proc && exec \"$@\"";
    let program = poolcp().to_str().expect("UTF-8");
    let words = ["--mount", "--", "sh", "-c", script, "sh", program];
    let args = ["-rx", "--dry-run", "source", "copy"];
    let run = sandbox.call("unshare", words.into_iter().chain(args)).run();
    let told = "'source' -> 'copy' (new)\n'source/proc' -> 'copy/proc' (new)\n";
    assert_eq!((run.code, run.stdout.as_str()), (0, told), "{run:?}");
}

#[test]
fn a_dry_run_says_what_the_run_does_and_does_nothing() {
    needs!(Root);
    let case = (tree(), tree(), workers(), select(&WAYS[..]));
    check(&case, |(source, target, workers, (way, _))| {
        let sandbox = Sandbox::new();
        // Which of a file's names is copied, and which are linked to that, the workers find out.
        make(&sandbox, "source", &without_links(source));
        make(&sandbox, "target", &without_links(target));
        let before = sandbox.snapshot();
        let options = ["-aT", way, "--delete", &workers];
        let operands = ["source", "target"];
        let dry = [&options[..], &["--dry-run"], &operands].concat();
        let dry = sandbox.poolcp(dry).run();
        prop_assert!(dry.code == 0 && dry.stderr.is_empty(), "{:?}", dry);
        let changed = before.difference(&sandbox.snapshot());
        prop_assert!(changed.is_none(), "{}", changed.unwrap_or_default());
        let real = [&options[..], &["-v"], &operands].concat();
        let real = sandbox.poolcp(real).run();
        prop_assert_eq!(lines(&dry), lines(&real));
        Ok(())
    });
}

#[test]
fn reasons_are_given() {
    needs!(Root);
    let sandbox = Sandbox::new();
    for (name, size) in [
        ("same", 1),
        ("size", 2),
        ("time", 3),
        ("mode", 4),
        ("new", 5),
    ] {
        set_mtime(
            &sandbox.file(format!("source/{name}"), size),
            1_000_000_000,
            0,
        );
    }
    sandbox.symlink("source/link", "one");
    sandbox.dir("source/kind");
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    sandbox.poolcp(["-a", "source", "before"]).ok();
    for name in ["copy/new", "copy/link"] {
        fs::remove_file(sandbox.path(name)).expect("remove");
    }
    sandbox.symlink("copy/link", "two");
    fs::remove_dir(sandbox.path("copy/kind")).expect("remove");
    sandbox.file("copy/kind", 1);
    sandbox.file("copy/gone/file", 1);
    set_mtime(&sandbox.file("copy/size", 3), 1_000_000_000, 0);
    set_mtime(&sandbox.path("copy/time"), 1_000_000_001, 0);
    chmod(&sandbox.path("copy/mode"), 0o600);
    let options = ["-aT", "--update=changed", "--delete", "--dry-run"];
    let run = sandbox
        .poolcp([&options[..], &["source", "copy"]].concat())
        .ok();
    let mut lines: Vec<&str> = run.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "'source/kind' -> 'copy/kind' (new)",
            "'source/link' -> 'copy/link' (content differs)",
            "'source/mode' -> 'copy/mode' (attributes differ)",
            "'source/new' -> 'copy/new' (new)",
            "'source/size' -> 'copy/size' (size differs)",
            "'source/time' -> 'copy/time' (time differs)",
            "removed 'copy/gone/file' (not in the source)",
            "removed 'copy/kind' (in the way)",
            "removed 'copy/link'",
            "removed directory 'copy/gone' (not in the source)",
        ]
    );
}

#[test]
fn attributes_of_what_is_up_to_date_are_given_and_its_data_is_not_touched() {
    needs!(Root, Rsync);
    let sandbox = Sandbox::new();
    let source = sandbox.file("source/file", 1000);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let copy = sandbox.path("copy/file");
    let inode =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("metadata"));
    let before = inode(&copy);
    chmod(&source, 0o640);
    chown(&source, 12, 34);
    let run = sandbox.poolcp(["-aT", "--update=changed", "--report=json", "source", "copy"]);
    let report = run.ok().json();
    assert_eq!(report["attributes_only"], 1);
    assert_eq!(report["files"], 0);
    assert_eq!((mode(&copy), inode(&copy)), (0o640, before));
    assert_eq!(
        rsync_would_change(&sandbox.path("source"), &sandbox.path("copy"), &[]),
        ""
    );
}

#[test]
fn directories_that_are_up_to_date_are_left_alone_and_others_get_what_they_lack() {
    needs!(Rsync, Root, Acls, UserXattrs);
    let sandbox = Sandbox::new();
    let (source, copy) = (sandbox.dir("source/dir"), sandbox.path("copy/dir"));
    sandbox.file("source/dir/file", 10);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let changed = || {
        let meta = fs::metadata(&copy).expect("metadata");
        (meta.ctime(), meta.ctime_nsec())
    };
    let again = || {
        let before = changed();
        let run = ["-aT", "--update=changed", "source", "copy"];
        sandbox.poolcp(run).ok();
        assert_eq!(
            rsync_would_change(&sandbox.path("source"), &sandbox.path("copy"), &["-AX"]),
            ""
        );
        changed() != before
    };
    assert!(!again());
    for (what, dir, permissions, owner, time) in [
        ("source", &source, "2750", "12:34", "2001-02-03"),
        ("copy", &copy, "0755", "56:78", "2004-05-06"),
    ] {
        let dir = dir.as_os_str();
        for change in [
            &["setfacl", "-m", "u:daemon:rx"][..],
            &["setfacl", "-b"],
            &["setfacl", "-d", "-m", "u:daemon:rx"],
            &["setfacl", "-k"],
            &["setfattr", "-n", "user.of", "-v", what],
            &["chmod", permissions],
            &["chown", owner],
            &["touch", "-d", time],
        ] {
            if what == "copy" && ["-b", "-k"].contains(&change[1]) {
                // It has lost that again.
                continue;
            }
            let arguments = change[1..].iter().map(OsStr::new).chain([dir]);
            sandbox.call(change[0], arguments).ok();
            assert!(again(), "{what}: {change:?}");
            assert!(!again(), "{what}: {change:?}");
        }
    }
}

#[test]
fn content_decides_where_it_is_asked_for() {
    let sandbox = Sandbox::new();
    let (source, copy) = (sandbox.path("source"), sandbox.path("copy"));
    for (ours, theirs, len) in [(1, 2, 10), (1, 2, 300_000), (1, 1, 300_000), (1, 1, 0)] {
        for (path, seed) in [(&source, ours), (&copy, theirs)] {
            fs::write(path, crate::harness::content(len, seed)).expect("write");
            set_mtime(path, 1_000_000_000, 0);
        }
        let copies = |option| {
            let run = sandbox.poolcp(["-p", option, "--report=json", "source", "copy"]);
            run.ok().json()["files"] == 1
        };
        assert!(!copies("--size-only") && !copies("--update=changed"));
        assert_eq!(copies("--checksum"), ours != theirs, "{len}");
        assert!(!copies("--checksum"), "now it is the same");
    }
}

#[test]
fn nothing_is_deleted_after_an_error() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::in_memory();
    sandbox.file("source/a", 1);
    sandbox.file("source/dir/b", 1);
    sandbox.file("copy/dir/extra", 1);
    sandbox.file("copy/extra", 1);
    chmod(&sandbox.path("source/dir"), 0);
    chmod(&sandbox.path(""), 0o777);
    sandbox.give_to_ordinary_user();
    let run = sandbox.poolcp(["-rT", "-j1", "--delete", "source", "copy"]);
    let run = run.by_ordinary_user().run();
    chmod(&sandbox.path("source/dir"), 0o755);
    chmod(&sandbox.path("copy/dir"), 0o755);
    assert_eq!(run.code, 1, "{run:?}");
    let warning =
        "warning: nothing more is deleted, from 'copy' on, as not everything could be copied";
    assert!(run.stderr.contains(warning), "{run:?}");
    assert!(sandbox.path("copy/extra").exists() && sandbox.path("copy/dir/extra").exists());
}

#[test]
fn what_is_left_out_is_not_deleted_unless_that_is_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 1);
    for name in ["a", "b.o", "old", "old-dir/c.o", "old-dir/c", "new-dir/d"] {
        sandbox.file(format!("copy/{name}"), 1);
    }
    let mirror = ["-rT", "--delete", "--exclude=*.o", "source", "copy"];
    sandbox.poolcp(mirror).ok();
    let left = |name: &str| sandbox.path("copy").join(name).exists();
    assert!(left("a") && left("b.o") && left("old-dir/c.o"));
    assert!(!left("old") && !left("old-dir/c") && !left("new-dir"));
    sandbox
        .poolcp([&mirror[..], &["--delete-excluded"]].concat())
        .ok();
    assert!(left("a") && !left("b.o") && !left("old-dir"));
}

#[test]
fn what_a_copy_needs_is_not_deleted() {
    let sandbox = Sandbox::new();
    sandbox.file("copy/source/a", 1);
    sandbox.file("other/b", 1);
    sandbox
        .poolcp(["-rT", "--delete", "copy/source", "copy"])
        .fails(&["cannot delete in 'copy': the source 'copy/source' is in it"]);
    sandbox
        .poolcp(["-r", "--delete", "copy/source/.", "other/.", "copy"])
        .fails(&["cannot delete in 'copy/.': the source 'copy/source/.' is in it"]);
    sandbox.dir("target");
    sandbox
        .poolcp(["-r", "--delete", "copy/.", "other/.", "target"])
        .fails(&["cannot delete in 'target/.', which more than one source is copied to"]);
    assert!(sandbox.path("copy/source/a").exists() && sandbox.path("other/b").exists());
}

#[test]
fn options_that_make_no_sense_with_delete_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 1);
    sandbox.file("copy/b", 1);
    for options in [
        &["--delete"][..],
        &["-r", "--delete", "-i"],
        &["-r", "--delete", "-b"],
    ] {
        let run = sandbox
            .poolcp([options, &["source/.", "copy"]].concat())
            .run();
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains("--delete"), "{run:?}");
    }
    assert!(sandbox.path("copy/b").exists());
}

#[test]
fn a_destination_that_is_named_is_not_removed() {
    let sandbox = Sandbox::new();
    sandbox.file("file", 1);
    sandbox.file("source/a", 1);
    sandbox.file("dir/b", 1);
    sandbox.symlink("link", "dir");
    sandbox
        .poolcp(["-rT", "--delete", "file", "dir"])
        .fails(&["cannot overwrite directory 'dir' with non-directory"]);
    sandbox
        .poolcp(["-rT", "--delete", "source", "file"])
        .fails(&["cannot overwrite non-directory 'file' with directory 'source'"]);
    sandbox
        .poolcp(["-rT", "--delete", "source", "link"])
        .fails(&["cannot overwrite non-directory 'link' with directory 'source'"]);
    // What it leads to is meant if that is said.
    sandbox.poolcp(["-r", "--delete", "source/.", "link"]).ok();
    assert!(sandbox.path("dir/a").exists() && !sandbox.path("dir/b").exists());
}

#[test]
fn a_link_is_removed_and_not_what_it_leads_to() {
    let sandbox = Sandbox::new();
    sandbox.dir("source");
    sandbox.file("outside/a", 1);
    sandbox.symlink("copy/link", "../outside");
    sandbox.poolcp(["-rT", "--delete", "source", "copy"]).ok();
    assert!(sandbox.path("outside/a").exists());
    assert!(fs::symlink_metadata(sandbox.path("copy/link")).is_err());
}

#[test]
fn another_filesystem_is_not_emptied() {
    needs!(Root, Mount);
    let sandbox = Sandbox::new();
    sandbox.dir("source");
    let at = sandbox.dir("copy/mounted");
    let Some(_mount) = crate::disks::Mount::tmpfs(&at, "1m") else {
        return;
    };
    sandbox.file("copy/mounted/a", 1);
    let run = sandbox.poolcp(["-rT", "--delete", "source", "copy"]);
    run.fails(&["cannot remove 'copy/mounted': Invalid cross-device link"]);
    assert!(sandbox.path("copy/mounted/a").exists());
}

#[test]
fn a_tree_deeper_than_any_path_is_deleted_with_few_descriptors() {
    let sandbox = Sandbox::in_memory();
    sandbox.dir("source");
    sandbox.dir("copy");
    let name = "d".repeat(250);
    let script = format!(
        "cd copy; i=0; while [ $i -lt 40 ]; do mkdir {name} && cd -P {name} || exit 1; i=$((i+1)); done"
    );
    sandbox.call("sh", ["-c", &script]).ok();
    let run = sandbox.poolcp(["-rT", "--delete", "--report=json", "source", "copy"]);
    let report = run.max_open_files(16).ok().json();
    assert_eq!(report["deleted"], 40);
    assert!(!sandbox.path("copy").join(name).exists());
}

#[test]
fn a_second_run_looks_at_each_file_twice_and_no_more() {
    needs!(Strace);
    let sandbox = Sandbox::in_memory();
    const FILES: usize = 400;
    for i in 0..FILES {
        sandbox.file(format!("source/{}/file-{i}", i % 4), i);
    }
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let again = ["-aT", "-j2", "--update=changed", "source", "copy"];
    sandbox.poolcp(again).traced(&["--trace=all"]).ok();
    let trace = fs::read_to_string(sandbox.path(TRACE)).expect("a trace");
    let calls = trace.lines().filter(|line| !line.contains("resumed>"));
    let about_files = calls.clone().filter(|line| line.contains("\"file-"));
    let about_files = about_files.filter(|line| !line.contains("getdents"));
    assert_eq!(about_files.count(), 2 * FILES);
    // The rest is the program's start, four directories and two workers; how often these wait is a matter of luck.
    let waits = ["sched_yield(", "futex(", "clock_nanosleep("];
    let is_work = |line: &&str| !waits.iter().any(|call| line.contains(call));
    let count = calls.filter(is_work).count();
    assert!(count < 2 * FILES + 500, "{count}");
    if is_root() {
        let source = Snapshot::of(&sandbox.path("source"));
        assert!(
            source
                .difference(&Snapshot::of(&sandbox.path("copy")))
                .is_none()
        );
    }
}

#[test]
fn what_cannot_be_read_takes_nobodys_place() {
    needs!(Root, OrdinaryUser);
    let sandbox = Sandbox::new();
    chmod(&sandbox.file("source/file", 10), 0);
    chmod(&sandbox.dir("source/dir"), 0);
    sandbox.file("copy/file/in/the/way", 10);
    sandbox.file("copy/dir", 10);
    sandbox.give_to_ordinary_user();
    let before = Snapshot::of(&sandbox.path("copy"));
    let mirror = ["-rT", "--delete", "source", "copy"];
    sandbox.poolcp(mirror).by_ordinary_user().fails(&[
        "cannot open 'source/file' for reading: Permission denied",
        "cannot access 'source/dir': Permission denied",
    ]);
    assert!(
        before
            .difference(&Snapshot::of(&sandbox.path("copy")))
            .is_none()
    );
}

#[test]
fn nothing_more_is_removed_once_the_copy_is_stopped() {
    struct Stop(OnceLock<Canceller>);
    impl Observer for Stop {
        fn interest(&self) -> Interest {
            Interest::Entries
        }
        fn entry(&self, event: &Event) {
            if matches!(event, Event::Deleted { .. }) {
                self.0.get().expect("set before the start").cancel();
            }
        }
    }
    for extraneous in ["copy/dir/", "copy/"] {
        let sandbox = Sandbox::new();
        sandbox.file("source/file", 1);
        for i in 0..500 {
            sandbox.file(format!("{extraneous}{i}"), 1);
        }
        let mut options = Options::archive();
        options.delete = Delete::Extraneous;
        let stop = Arc::new(Stop(OnceLock::new()));
        let target = Target::Exactly(sandbox.path("copy"));
        let plan = Plan::resolve([sandbox.path("source")], target, options).expect("plan");
        stop.0.set(plan.canceller()).expect("once");
        let plan = plan.observer(stop);
        let (pool, job) = plan.start(4).expect("start");
        let report = job.join().expect("join");
        pool.join();
        assert!(report.cancelled);
        assert!(
            (1..=4).contains(&report.stats.deleted),
            "{:?}",
            report.stats
        );
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_no_reason_not_to_mend_it() {
    needs!(Strace);
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 5000);
    let copy = sandbox.file("copy/file", 5000);
    fs::write(&copy, vec![0; 5000]).expect("write");
    let fault = ["-P", copy.to_str().expect("UTF-8"), "--trace=read"];
    let fault = [&fault[..], &["--inject", "read:error=EIO"]].concat();
    let args = ["-aT", "--checksum", "source", "copy"];
    sandbox.poolcp(args).traced(&fault).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "copy");
}

#[test]
fn nothing_is_deleted_in_the_source_whatever_leads_there() {
    let told = |dest: &str, source: &str| {
        format!("cannot delete in '{dest}': the source '{source}' is in it")
    };
    // A link that is taken for the directory that it leads to.
    let sandbox = Sandbox::new();
    sandbox.dir("source/x");
    sandbox.file("source/y/file", 10);
    sandbox.dir("copy");
    sandbox.symlink("copy/x", "../source/y");
    // What is copied through the link are these, too.
    for dir in ["source/x", "source/y"] {
        set_mtime(&sandbox.path(dir), 1_000_000_000, 0);
    }
    let before = Snapshot::of(&sandbox.path("source"));
    let args = [
        "-aT",
        "--delete",
        "--keep-directory-symlink",
        "source",
        "copy",
    ];
    sandbox.poolcp(args).fails(&[&told("copy/x", "source/x")]);
    let after = Snapshot::of(&sandbox.path("source"));
    assert_same(&before, &after, "source");

    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("source/deep/d/file", 10);
    sandbox.file("source/merged/file", 10);
    let (extra, merged) = (sandbox.dir("copy/extra"), sandbox.dir("copy/merged"));
    let elsewhere = sandbox.dir("elsewhere");
    sandbox.file("elsewhere/file", 10);
    let bind = |dir: &str, at: &Path| Mount::bind(&sandbox.path(dir), at).expect("a mount");
    let _mounts = (bind("source/deep", &extra), bind("elsewhere", &merged));
    let before = Snapshot::of(&sandbox.path("source"));
    let run = sandbox.poolcp(["-aT", "--delete", "source", "copy"]).run();
    assert_eq!(run.code, 1, "{run:?}");
    let after = Snapshot::of(&sandbox.path("source"));
    assert_same(&before, &after, "source");
    assert!(elsewhere.join("file").exists());
}

#[test]
fn a_rehearsed_directory_is_empty_whatever_it_is_called() {
    let sandbox = Sandbox::new();
    // As in /proc, which stands for it.
    for dir in ["net", "fs/x", "sys/kernel", "1"] {
        sandbox.dir(Path::new("source").join(dir));
    }
    sandbox.file("source/version", 10);
    let args = ["-a", "--delete", "--dry-run", "source", "copy"];
    let lines = sandbox.poolcp(args).ok().stdout;
    assert!(lines.lines().all(|line| line.ends_with("(new)")), "{lines}");
    assert_eq!(lines.lines().count(), 8);
}

#[test]
fn a_file_that_is_to_stay_is_not_in_the_way() {
    let sandbox = Sandbox::new();
    sandbox.dir("source/x");
    let file = sandbox.file("copy/x", 10);
    for option in ["-n", "--update=none-fail"] {
        let args = ["-aT", option, "--delete", "source", "copy"];
        let told = "cannot overwrite non-directory 'copy/x' with directory 'source/x'";
        sandbox.poolcp(args).fails(&[told]);
        assert!(file.is_file());
    }
}

#[test]
fn a_private_copy_is_not_as_public_as_another_name_of_its_inode() {
    let sandbox = Sandbox::new();
    chmod(&sandbox.file("source/a", 10), 0o600);
    chmod(&sandbox.file("source/b", 10), 0o644);
    for name in ["a", "b"] {
        set_mtime(&sandbox.path("source").join(name), 1_000_000_000, 0);
    }
    sandbox.dir("copy");
    sandbox.poolcp(["-p", "source/a", "copy/a"]).ok();
    sandbox.hard_link("copy/b", "copy/a");
    let args = ["-aT", "--update=changed", "source", "copy"];
    sandbox.poolcp(args).ok();
    let modes = ["copy/a", "copy/b"].map(|name| mode(&sandbox.path(name)));
    assert_eq!(modes, [0o600, 0o644]);
    let again = sandbox.poolcp(args.into_iter().chain(["--dry-run"]));
    assert_eq!(again.ok().stdout, "");
}

#[test]
fn a_link_to_another_operands_copy_does_not_share_its_destination() {
    let sandbox = Sandbox::new();
    sandbox.file("a/file", 10);
    sandbox.symlink("x", "a");
    sandbox.dir("copy");
    let args = ["-a", "--update=changed", "--delete", "a", "x", "copy"];
    sandbox.poolcp(args).ok();
    sandbox.poolcp(args).ok();
}

#[test]
fn a_rehearsal_says_of_further_names_what_the_run_does() {
    let sandbox = Sandbox::new();
    let a = sandbox.file("source/a", 10);
    sandbox.hard_link("source/b", &a);
    sandbox.poolcp(["-aT", "source", "copy"]).ok();
    let count = |extra: &[&str]| {
        let args = [
            "-aT",
            "-j1",
            "--update=changed",
            "--report=json",
            "source",
            "copy",
        ];
        let json = sandbox.poolcp(args.iter().chain(extra)).run().stdout;
        let json = json.lines().filter(|line| !line.starts_with(['\'', 'r']));
        let json: String = json.collect();
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        (json["hard_links"].clone(), json["skipped"].clone())
    };
    assert_eq!(count(&["--dry-run"]), (0.into(), 2.into()));
    // What looks the same and is not the same file.
    let b = sandbox.path("copy/b");
    fs::remove_file(&b).expect("remove");
    sandbox.poolcp(["-p", "copy/a", "copy/b"]).ok();
    let rehearsed = count(&["--dry-run"]);
    assert_eq!(count(&[]), rehearsed);
    assert_eq!(rehearsed.0, 1);
}

#[test]
fn an_ordinary_user_mirrors_what_may_be_read_only() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    chmod(&sandbox.file("source/file", 10), 0o444);
    chmod(&sandbox.file("copy/file", 20), 0o444);
    sandbox.dir("copy/empty");
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("copy/empty"), 0);
    let args = ["-aT", "--update=changed", "--delete", "source", "copy"];
    sandbox.poolcp(args).by_ordinary_user().ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "copy");
    // One that has something in it.
    sandbox.file("copy/closed/file", 10);
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("copy/closed"), 0);
    let run = sandbox.poolcp(args).by_ordinary_user();
    run.fails(&["cannot remove 'copy/closed': Permission denied"]);
}

#[test]
fn what_is_left_out_protects_what_would_be_left_out_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.file("source/x/file", 10);
    let x = sandbox.file("copy/x", 10);
    let kept = sandbox.file("copy/d/x/file", 10);
    sandbox.dir("source/d");
    let args = ["-aT", "--delete", "--exclude=x/", "source", "copy"];
    sandbox.poolcp(args).ok();
    assert!(!x.exists() && kept.exists());
}

#[test]
fn a_rehearsal_makes_a_leading_directory_once() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 10);
    sandbox.file("source/b", 10);
    sandbox.dir("copy");
    let args = [
        "-a",
        "--parents",
        "--dry-run",
        "source/a",
        "source/b",
        "copy",
    ];
    let lines = sandbox.poolcp(args).ok().stdout;
    assert_eq!(lines.matches("source -> copy/source").count(), 1, "{lines}");
}

#[test]
fn a_directory_stays_where_nothing_can_come_in_its_place() {
    needs!(Mknod, OrdinaryUser);
    let sandbox = Sandbox::new();
    sandbox.device("source/x", FileType::CharacterDevice, 1, 3);
    let precious = sandbox.file("copy/x/deep/f", 10);
    sandbox.give_to_ordinary_user();
    let args = ["-aT", "--update=changed", "--delete", "source", "copy"];
    let run = sandbox.poolcp(args).by_ordinary_user().run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(precious.exists());

    let sandbox = Sandbox::new();
    sandbox.file("source/x", 10);
    let precious = sandbox.file("copy/x/f", 10);
    let args = ["-rT", "--attributes-only", "--delete", "source", "copy"];
    let told = "cannot overwrite directory 'copy/x' with non-directory";
    sandbox.poolcp(args).fails(&[told]);
    let told = "copy/x: can make relative symbolic links only in current directory";
    let args = ["-rsT", "--delete", "source", "copy"];
    sandbox.poolcp(args).fails(&[told]);
    assert!(precious.exists());
}

#[test]
fn what_is_left_out_stays_where_a_listing_does_not_tell_kinds() {
    needs!(Ext4);
    let sandbox = Sandbox::in_memory();
    let _mount = Mount::ext4(&sandbox, "old", &["-O", "^filetype"]).expect("an ext4");
    sandbox.file("source/a", 10);
    sandbox.file("old/copy/build/precious", 10);
    sandbox.file("old/copy/extraneous/b", 10);
    sandbox
        .poolcp(["-rT", "--delete", "--exclude=build/", "source", "old/copy"])
        .ok();
    assert!(sandbox.path("old/copy/build/precious").exists());
    assert!(!sandbox.path("old/copy/extraneous").exists());
}

#[test]
fn directories_that_links_make_one_do_not_delete_from_each_other() {
    for (link, to) in [
        ("copy/x", "."),
        ("copy/x", "y"),
        ("copy/y", "x"),
        ("copy/x", "zz"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.dir("copy/zz");
        sandbox.file("source/x/f", 10);
        sandbox.file("source/y/g", 10);
        sandbox.file("copy/x/f", 10);
        sandbox.file("copy/y/g", 10);
        fs::remove_dir_all(sandbox.path(link)).expect("remove");
        sandbox.symlink(link, to);
        let args = [
            "-aT",
            "-j1",
            "--delete",
            "--keep-directory-symlink",
            "source",
            "copy",
        ];
        let run = sandbox.poolcp(args).run();
        assert_eq!(run.code, 1, "{run:?}");
        if to == "zz" {
            assert!(sandbox.path("copy/zz/f").exists(), "{run:?}");
        } else {
            let told = "which more than one source is copied to";
            assert!(run.stderr.contains(told), "{run:?}");
        }
    }
    // Where the link leads out, its end is a copy like any other.
    let sandbox = Sandbox::new();
    sandbox.file("source/x/f", 10);
    sandbox.file("elsewhere/old", 10);
    sandbox.symlink("copy/x", "../elsewhere");
    let args = [
        "-aT",
        "--delete",
        "--keep-directory-symlink",
        "source",
        "copy",
    ];
    sandbox.poolcp(args).ok();
    assert!(sandbox.path("elsewhere/f").exists() && !sandbox.path("elsewhere/old").exists());
}

#[test]
fn a_destination_in_its_source_is_refused_before_anything_is_deleted() {
    let sandbox = Sandbox::new();
    sandbox.file("s/a/b/x/precious", 10);
    sandbox.dir("s/x");
    let told = "cannot copy a directory, 's', into itself, 's/a/b'";
    sandbox
        .poolcp(["-rT", "--delete", "s", "s/a/b"])
        .fails(&[told]);
    assert!(sandbox.path("s/a/b/x/precious").exists());
    // What is left out is not copied, nor met.
    sandbox
        .poolcp(["-rT", "--delete", "--exclude=/a/b", "s", "s/a/b"])
        .ok();
    assert!(!sandbox.path("s/a/b/x/precious").exists());
}

#[test]
fn what_is_compared_does_not_write_to_other_names() {
    for options in ["-r --checksum", "-rp --update=changed", "-r --size-only"] {
        let sandbox = Sandbox::new();
        let write = |path: &str, text: &str, mode| {
            let file = sandbox.file(path, 0);
            fs::write(&file, text).expect("write");
            set_mtime(&file, 1_000_000_000, 0);
            chmod(&file, mode);
        };
        write("s/a", "one", 0o600);
        write("s/b", "other", 0o644);
        write("copy/s/b", "other", 0o644);
        sandbox.hard_link("copy/s/a", "copy/s/b");
        let line = options.split(' ').chain(["-j1", "s", "copy"]);
        sandbox.poolcp(line).ok();
        let read = |path: &str| fs::read_to_string(sandbox.path(path)).ok();
        assert_eq!(read("copy/s/a").as_deref(), Some("one"), "{options}");
        assert_eq!(read("copy/s/b").as_deref(), Some("other"), "{options}");
    }
}

#[test]
fn a_destination_in_its_source_that_is_not_met_is_none() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("s/a", 10);
    let disk = sandbox.dir("s/disk");
    let _disk = Mount::tmpfs(&disk, "1M").expect("a filesystem");
    sandbox.file("s/disk/backup/old", 10);
    sandbox
        .poolcp(["-axT", "--delete", "s", "s/disk/backup"])
        .ok();
    let copied = |name: &str| sandbox.path("s/disk/backup").join(name).exists();
    assert!(copied("a") && copied("disk") && !copied("old"));
    // The link is copied, and not what it leads to.
    sandbox.dir("releases/1");
    sandbox.symlink("current", "releases/1");
    sandbox
        .poolcp(["-a", "--delete", "current", "releases/1"])
        .ok();
    assert!(sandbox.path("releases/1/current").is_symlink());
}

#[test]
fn a_directory_that_two_links_lead_to_is_refused_as_it_was() {
    needs!(Root);
    let sandbox = Sandbox::in_memory();
    let other = sandbox.dir("other");
    for (name, owner, mode) in [("a", NOBODY, 0o755), ("b", 0, 0o700)] {
        let dir = sandbox.dir(format!("source/{name}"));
        chown(&dir, owner, owner);
        chmod(&dir, mode);
        sandbox.symlink(format!("copy/{name}"), "../other");
    }
    let options = ["-aT", "-j1", "--delete", "--keep-directory-symlink"];
    let run = sandbox
        .poolcp(options.into_iter().chain(["source", "copy"]))
        .run();
    assert_eq!(run.code, 1, "{run:?}");
    // Which one is met first is the filesystem's.
    let first = if run.stderr.contains("'copy/b'") {
        (NOBODY, 0o755)
    } else {
        (0, 0o700)
    };
    let there = fs::metadata(&other).expect("look");
    assert_eq!((there.uid(), there.mode() & 0o777), first, "{run:?}");
}
