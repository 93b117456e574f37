//! What a copy leaves that did not come to its end: nothing under a final name that is not complete, and nothing that a second
//! run does not finish.
//!
//! The long version, a few minutes: `cargo test --test it interrupted -- --ignored`

use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::disks::{Disk, Format};
use crate::harness::{
    DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, content, mixed, set_mtime, set_xattr,
    staged,
};
use crate::needs::say;
use crate::passthrough::{Call, Manners, Operation, Passthrough};
use crate::programs::{poolcp, signal, start};
use crate::referees::assert_rsync_agrees;

const MIB: usize = 1 << 20;

/// Copies that are stopped at moments spread over their time, as many as are asked for, each finished by a second run. Returns
/// how many others came to their end before.
fn stop_and_go_on(times: u32, with: Signal, options: &[&str]) -> u32 {
    let sandbox = Sandbox::in_memory();
    mixed(&sandbox);
    let copy = [options, &["-a", "-q", "source", "copy"]].concat();
    let begin = Instant::now();
    assert!(start(&sandbox, &copy).wait().expect("wait").success());
    let mut whole = begin.elapsed();
    let (mut stopped, mut ended) = (0, 0);
    while stopped < times {
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        let mut child = start(&sandbox, &copy);
        let moment = whole * stopped / times;
        thread::sleep(moment);
        signal(&child, with);
        if child.wait().expect("wait").success() {
            ended += 1;
            assert!(ended <= 4 * times, "{ended} ended before {moment:?}");
            // The first one was slower: caches were cold, or the machine was busy.
            whole = whole * 9 / 10;
        } else {
            stopped += 1;
        }
        let goes_on = ["-a", "-T", "--update=changed", "source", "copy"];
        sandbox.poolcp(goes_on).ok();
        assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
        assert_eq!(staged(&sandbox.path("copy")), [""; 0], "after {moment:?}");
        let again = [&goes_on[..], &["--report=json"]].concat();
        let report = sandbox.poolcp(again).ok().json();
        assert_eq!(report["files"], 0, "all was there already");
    }
    ended
}

#[test]
fn a_killed_copy_is_finished_by_the_next_one() {
    needs!(Rsync, GnuEnv);
    stop_and_go_on(10, Signal::KILL, &[]);
}

#[test]
fn a_copy_that_a_signal_stopped_is_finished_by_the_next_one() {
    needs!(Rsync, GnuEnv);
    stop_and_go_on(5, Signal::INT, &[]);
    stop_and_go_on(5, Signal::TERM, &["-j1"]);
}

#[test]
#[ignore = "takes minutes"]
fn two_hundred_killed_copies_are_finished_by_the_next_ones() {
    needs!(Rsync, GnuEnv);
    for (times, with, options) in [
        (200, Signal::KILL, &[][..]),
        (100, Signal::INT, &[]),
        (100, Signal::TERM, &["--atomic=always"]),
    ] {
        let ended = stop_and_go_on(times, with, options);
        say(&format!(
            "{times} were stopped by {with:?}, {ended} ended before"
        ));
    }
}

#[test]
fn a_signal_is_answered_with_a_report_and_its_exit_code() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    mixed(&sandbox);
    for wait in 5..55 {
        let child = start(&sandbox, &["-a", "--reflink=never", "source", "copy"]);
        thread::sleep(Duration::from_millis(wait));
        signal(&child, Signal::INT);
        let output = child.wait_with_output().expect("wait");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(staged(&sandbox.path("copy")), [""; 0], "{stderr}");
        // It may not have been made yet.
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        // A signal that comes before the program is ready for it ends it as any other.
        if stderr.contains("\nstopped   before the end") {
            assert_eq!(output.status.signal(), Some(2), "{stderr}");
            return;
        }
    }
    panic!("no signal came in time");
}

#[test]
fn directories_that_were_made_ahead_and_not_entered_are_removed() {
    needs!(Formats, GnuEnv);
    let sandbox = Sandbox::in_memory();
    let at = sandbox.dir("disk");
    let disk = Disk::make(sandbox.path("image"), Format::Btrfs, &at).expect("a disk");
    let mount = disk.mount("").expect("mount");
    // The one worker is at this for a while before it enters the directories.
    sandbox.file("disk/source/file", 8 << 20);
    for name in ["a", "b", "c"] {
        sandbox.file(format!("disk/source/{name}/file"), 10);
    }
    let slow = ["--reflink=never", "--bwlimit=1M"];
    let args = [&["-a", "-j1"], &slow[..], &["disk/source", "disk/copy"]].concat();
    let child = start(&sandbox, &args);
    let begin = Instant::now();
    let dirs = || ["a", "b", "c"].map(|name| sandbox.path("disk/copy").join(name));
    while !dirs().iter().all(|dir| dir.exists()) {
        assert!(begin.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.status.signal(), Some(2));
    let left = fs::read_dir(sandbox.path("disk/copy")).expect("the copy");
    assert_eq!(left.count(), 0);
    mount.unmount();
}

#[test]
fn waiting_for_what_does_not_come_can_be_stopped() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    sandbox.fifo("fifo");
    let mut child = start(&sandbox, &["-q", "fifo", "copy"]);
    let begin = Instant::now();
    while child.try_wait().expect("wait").is_none() {
        // Once the program is ready for it, one is enough; another one ends it at once.
        signal(&child, Signal::TERM);
        thread::sleep(Duration::from_millis(300));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    sandbox.fifo("other");
    let child = start(&sandbox, &["-q", "other", "copy"]);
    thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("wait");
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(output.status.signal(), Some(15), "{output:?}");
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let sandbox = Sandbox::in_memory();
    mixed(&sandbox);
    let script = "trap '' HUP; echo ready; exec \"$0\" -aq source copy";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(poolcp())
        .current_dir(sandbox.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut ready = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut ready).expect("the trap is set");
    for _ in 0..20 {
        signal(&child, Signal::HUP);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("wait").success());
}

#[test]
fn always_atomic_leaves_no_partial_file_even_when_killed() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    for i in 0..40 {
        sandbox.file(format!("source/{i}"), 700_000);
    }
    let whole = content_of(&sandbox, "source");
    let mut had_both = false;
    for i in 0..10 {
        sandbox.dir("copy");
        let copy = [
            "-rqT",
            "-j4",
            "--atomic=always",
            "--bwlimit=20M",
            "source",
            "copy",
        ];
        let mut child = start(&sandbox, &copy);
        wait_for_staged(&sandbox.path("copy"));
        thread::sleep(Duration::from_millis(20 * i));
        signal(&child, Signal::KILL);
        child.wait().expect("wait");
        let (mut complete, mut partial) = (0, 0);
        for (name, bytes) in content_of(&sandbox, "copy") {
            if name.starts_with(".poolcp-") {
                partial += 1;
            } else {
                assert!(whole.contains(&(name, bytes)));
                complete += 1;
            }
        }
        had_both |= complete > 0 && partial > 0;
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    }
    assert!(had_both, "all were too early or too late");
}

fn content_of(sandbox: &Sandbox, dir: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(sandbox.path(dir)).into_iter().flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).expect("read"))
    };
    entries.flatten().map(read).collect()
}

#[test]
fn what_a_dead_run_left_is_swept_and_what_a_living_one_has_is_not() {
    let sandbox = Sandbox::new();
    sandbox.file("source/dir/a", 10);
    let dead = sandbox.file("copy/dir/.poolcp-0123456789abcdef-0", 10);
    let living = sandbox.file("copy/dir/.poolcp-fedcba9876543210-0", 10);
    let others = sandbox.file("copy/dir/.poolcp-notes", 10);
    let elsewhere = sandbox.file("copy/other/.poolcp-0123456789abcdef-0", 10);
    let lock = fs::File::open(&living).expect("open");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    sandbox.poolcp(["-aT", "source", "copy"]).ok();
    assert!(!dead.exists());
    assert!(living.exists() && others.exists() && elsewhere.exists());
}

#[test]
fn a_directory_that_is_up_to_date_is_swept_once_something_is_written_to_it() {
    let sandbox = Sandbox::new();
    let a = sandbox.file("source/dir/a", 10);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let dead = sandbox.file("copy/dir/.poolcp-0123456789abcdef-0", 10);
    let again = || {
        set_mtime(&sandbox.path("source/dir"), 1_000_000_000, 0);
        set_mtime(&sandbox.path("copy/dir"), 1_000_000_000, 0);
        let run = ["-aT", "--update=changed", "source", "copy"];
        sandbox.poolcp(run).ok();
    };
    again();
    assert!(dead.exists(), "nothing was written");
    fs::write(&a, "more").expect("write");
    again();
    assert!(!dead.exists());
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one() {
    let sandbox = Sandbox::in_memory();
    let (old, new) = (content(300_000, 1), content(200_000, 2));
    fs::write(sandbox.path("old"), &old).expect("write");
    fs::write(sandbox.path("new"), &new).expect("write");
    let dest = sandbox.path("dest");
    fs::write(&dest, &old).expect("write");
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..30 {
                sandbox.poolcp(["-q", "new", "dest"]).ok();
                sandbox.poolcp(["-q", "old", "dest"]).ok();
            }
        });
        while !writer.is_finished() {
            let seen = fs::read(&dest).expect("there is always one");
            assert!(seen == old || seen == new, "{} bytes of a mix", seen.len());
        }
    });
}

#[test]
fn what_another_run_left_in_the_source_is_copied_like_anything_else() {
    let sandbox = Sandbox::in_memory();
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(OsStr::new("file"));
    let left = format!(".poolcp-{hash:016x}-0");
    let file = content(4 * MIB, 1);
    sandbox.dir("source");
    fs::write(sandbox.path("source/file"), &file).expect("write");
    fs::write(sandbox.path("source").join(&left), "left").expect("write");
    for round in 0..10 {
        // The name is there, or it is not.
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        sandbox.file(["copy/file", "copy/other"][round % 2], 10);
        sandbox.poolcp(["-aT", "-j2", "source", "copy"]).ok();
        assert!(fs::read(sandbox.path("copy/file")).expect("read") == file);
        let copy_of_left = sandbox.path("copy").join(&left);
        assert_eq!(fs::read(copy_of_left).expect("read"), b"left");
    }
}

#[test]
fn a_name_that_is_staged_and_goes_to_another_file_meanwhile_is_no_copy() {
    needs!(GnuEnv);
    let sandbox = Sandbox::in_memory();
    fs::write(sandbox.path("new"), content(200_000, 1)).expect("write");
    let old = content(1000, 2);
    fs::write(sandbox.path("copy"), &old).expect("write");
    let slow = ["--reflink=never", "--bwlimit=400K", "new", "copy"];
    let child = start(&sandbox, &slow);
    let staged = wait_for_staged(sandbox.path("").as_path());
    // One that loses its name at once is made again. Once it has data it is not.
    while fs::metadata(&staged).expect("look").len() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    fs::remove_file(&staged).expect("remove");
    fs::write(&staged, "another's").expect("write");
    let out = child.wait_with_output().expect("wait");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(fs::read(sandbox.path("copy")).expect("read"), old);
    assert_eq!(fs::read(&staged).expect("it is not ours"), b"another's");
}

/// The first staged file in a directory.
fn wait_for_staged(dir: &Path) -> PathBuf {
    let begun = Instant::now();
    loop {
        for entry in fs::read_dir(dir).expect("list").flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".poolcp-") {
                return entry.path();
            }
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nothing is staged"
        );
    }
}

#[test]
fn what_is_not_complete_is_nobody_elses_to_read() {
    needs!(Root, Acls, GnuEnv);
    let sandbox = Sandbox::in_memory();
    for dir in ["owned", "public"] {
        sandbox.dir(dir);
        chmod(&sandbox.path(dir), 0o755);
    }
    set_xattr(&sandbox.path("public"), DEFAULT_ACL, &acl_for(NOBODY));
    let secret = sandbox.file("secret", 0);
    fs::write(&secret, content(150_000, 1)).expect("write");
    chmod(&secret, 0o600);
    let there = sandbox.file("owned/secret", 10);
    chmod(&there, 0o644);
    chown(&there, NOBODY, NOBODY);
    let slow = ["--reflink=never", "--bwlimit=300K", "secret"];
    // It takes the place of a file that others may read; it is new where an ACL lets others in.
    let child = start(&sandbox, &[&["-p"], &slow[..], &["owned"]].concat());
    let staged = wait_for_staged(&sandbox.path("owned"));
    is_private_while(child, &staged);
    chmod(&secret, 0o640);
    let keep = ["--preserve=mode", "--atomic=always"];
    let child = start(&sandbox, &[&keep[..], &slow, &["public"]].concat());
    let staged = wait_for_staged(&sandbox.path("public"));
    is_private_while(child, &staged);
}

fn is_private_while(mut child: Child, staged: &Path) {
    let mut seen = 0;
    while let Ok(meta) = fs::metadata(staged) {
        // The mode of one that is complete is its own affair.
        if (1..150_000).contains(&meta.len()) {
            assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, 0), "{staged:?}");
            seen += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(seen > 10, "it was seen {seen} times");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_script_ends_with_the_copy_that_is_interrupted() {
    needs!(Bash, GnuEnv);
    let sandbox = Sandbox::in_memory();
    sandbox.fifo("pipe");
    // A shell goes on after a command that only says that it was interrupted.
    let script = "\"$0\" -q pipe copy; echo \"went on after $?\"";
    let child = Command::new("env")
        .args(["--default-signal", "bash", "-c", script])
        .arg(poolcp())
        .current_dir(sandbox.path(""))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("start");
    thread::sleep(Duration::from_millis(500));
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::INT).expect("kill");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(output.status.signal(), Some(2));
}

#[test]
fn what_a_limit_holds_up_is_not_there_in_part() {
    let sandbox = Sandbox::new();
    sandbox.file("source", 300_000);
    let script = "timeout --signal=KILL 0.7 \"$0\" --bwlimit=100K source copy; test $? = 137";
    let args = [OsStr::new("-c"), OsStr::new(script), poolcp().as_os_str()];
    let run = sandbox.call("sh", args).run();
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!sandbox.path("copy").exists());
}

#[test]
fn a_dead_runs_file_that_may_only_be_read_is_swept_by_its_owner() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 10);
    let dead = sandbox.file("copy/.poolcp-0123456789abcdef-0", 10);
    sandbox.give_to_ordinary_user();
    chmod(&dead, 0o400);
    let copy = sandbox.poolcp(["-rT", "source", "copy"]);
    copy.by_ordinary_user().ok();
    assert!(!dead.exists());
}

#[test]
fn what_looks_like_a_dead_runs_file_and_was_copied_stays() {
    needs!(Rsync);
    let sandbox = Sandbox::new();
    sandbox.file("source/.poolcp-0123456789abcdef-0", 10);
    let b = sandbox.file("source/b", 10);
    sandbox.poolcp(["-aT", "source", "copy"]).ok();
    fs::write(&b, "longer than it was").expect("write");
    let args = ["-aT", "--update=changed", "source", "copy"];
    sandbox.poolcp(args).ok();
    assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
}

#[test]
fn who_waits_for_a_fifo_or_an_answer_is_ended_by_one_signal() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    sandbox.file("b", 10);
    sandbox.fifo("fifo");
    sandbox.fifo("input");
    // The input has a letter, and no end.
    for (line, feed) in [("a fifo", ""), ("-i a b", "exec 0<>input; printf y >&0; ")] {
        let script = format!("{feed}timeout --kill-after=15 1 \"$0\" {line}; test $? = 124");
        let args = [OsStr::new("-c"), OsStr::new(&script), poolcp().as_os_str()];
        let start = Instant::now();
        let run = sandbox.call("sh", args).run();
        assert_eq!(run.code, 0, "{line}: {run:?}");
        let took = start.elapsed();
        assert!(
            !feed.is_empty() || took < Duration::from_secs(12),
            "{took:?}"
        );
    }
}

#[test]
fn what_is_left_in_part_is_copied_again_where_only_what_is_newer_is() {
    needs!(GnuEnv);
    let sandbox = Sandbox::new();
    sandbox.file("source", 400_000);
    sandbox.file("copy", 10);
    // So that it is written in place.
    sandbox.hard_link("also-copy", "copy");
    set_mtime(&sandbox.path("copy"), 1_000_000_000, 0);
    let mut child = start(&sandbox, &["-pu", "--bwlimit=200K", "source", "copy"]);
    while fs::metadata(sandbox.path("copy")).expect("stat").len() < 1000 {
        assert!(child.try_wait().expect("a child").is_none());
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    child.wait().expect("wait");
    assert!(fs::metadata(sandbox.path("copy")).expect("stat").len() < 400_000);
    sandbox.poolcp(["-pu", "source", "copy"]).ok();
    assert_eq!(
        fs::metadata(sandbox.path("copy")).expect("stat").len(),
        400_000
    );
}

#[test]
fn who_waits_for_a_reader_is_ended_by_one_signal() {
    let sandbox = Sandbox::new();
    // What is said of them fills a pipe.
    for number in 0..1000 {
        sandbox.file(
            format!("source/a-file-with-a-name-of-some-length-{number}"),
            0,
        );
    }
    sandbox.fifo("slow");
    for line in ["-rqv source copy >slow 2>&1", "-rq --log slow source copy2"] {
        let script =
            format!("exec 0<>slow; timeout --kill-after=15 1 \"$0\" {line}; test $? = 124");
        let args = [OsStr::new("-c"), OsStr::new(&script), poolcp().as_os_str()];
        let run = sandbox.call("sh", args).run();
        assert_eq!(run.code, 0, "{line}: {run:?}");
    }
}

#[test]
fn what_looks_like_a_dead_runs_file_and_came_from_another_operand_stays() {
    let sandbox = Sandbox::new();
    let name = ".poolcp-0123456789abcdef-0";
    for dir in ["", "was-there/", "is-new/"] {
        sandbox.file(format!("a/{dir}{name}"), 10);
        sandbox.file(format!("b/{dir}x"), 10);
    }
    sandbox.dir("copy/was-there");
    sandbox.poolcp(["-r", "a/.", "b/.", "copy"]).ok();
    for dir in ["", "was-there/", "is-new/"] {
        assert!(sandbox.path(format!("copy/{dir}{name}")).exists(), "{dir}");
    }
}

#[test]
fn two_signals_of_one_act_are_one() {
    needs!(GnuEnv);
    let sandbox = Sandbox::new();
    sandbox.file("large", 5 * MIB);
    sandbox.file("other", 5 * MIB);
    sandbox.dir("copy");
    let args = ["-j2", "--bwlimit=100K", "large", "other", "copy"];
    let mut child = start(&sandbox, &args);
    let staged = wait_for_staged(&sandbox.path("copy"));
    // As timeout(1) sends them: to the child, and to all of its group.
    signal(&child, Signal::TERM);
    thread::sleep(Duration::from_millis(20));
    signal(&child, Signal::TERM);
    let status = child.wait().expect("wait");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    assert!(!staged.exists(), "what is not complete is removed");
}

/// What was there before is left alone, and what a run that was killed has left is not taken for that.
#[test]
fn what_a_killed_copy_has_left_is_neither_newer_nor_there() {
    needs!(Rsync, GnuEnv);
    let sandbox = Sandbox::in_memory();
    mixed(&sandbox);
    for option in ["-u", "-n"] {
        let copy = ["-aq", option, "-T", "source", "copy"];
        let begin = Instant::now();
        assert!(start(&sandbox, &copy).wait().expect("wait").success());
        let whole = begin.elapsed();
        for moment in 0..10 {
            fs::remove_dir_all(sandbox.path("copy")).expect("remove");
            let mut child = start(&sandbox, &copy);
            thread::sleep(whole * moment / 10);
            signal(&child, Signal::KILL);
            child.wait().expect("wait");
            sandbox.poolcp(copy).ok();
            assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
        }
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    }
}

#[test]
fn what_a_copy_could_not_remove_is_not_newer() {
    needs!(Fuse, GnuEnv);
    let sandbox = Sandbox::in_memory();
    let at = sandbox.dir("strange");
    let refuse =
        |call: &Call<'_>| (call.operation == Operation::Unlink).then_some(rustix::io::Errno::PERM);
    let manners = Manners {
        refuse: Box::new(refuse),
        ..Manners::default()
    };
    let _mount = Passthrough::mount(&sandbox.dir("below"), &at, manners).expect("mount");
    let source = sandbox.file("large", 60 << 20);
    let copy = [
        "-uq",
        "--atomic=never",
        "--bwlimit=20M",
        "large",
        "strange/copy",
    ];
    let mut child = start(&sandbox, &copy);
    let begin = Instant::now();
    let there = sandbox.path("below/copy");
    while fs::metadata(&there).map_or(0, |there| there.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    child.wait().expect("wait");
    assert!(there.exists());
    sandbox.poolcp(["-uq", "large", "strange/copy"]).ok();
    assert!(fs::read(there).expect("read") == fs::read(source).expect("read"));
}
