//! What happens to files that are there already: `-i`, `-n`, `-u`, backups, `--remove-destination`, `-f`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::disks::Mount;
use crate::harness::{
    ACCESS_ACL, NOBODY, Sandbox, acl_for, chmod, chown, mode, set_capability, set_mtime, set_xattr,
    staged,
};
use crate::needs::say;
use crate::programs::{Call, TRACE, is_root};
use crate::referees::{same_as_cp, same_as_cp_when};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree};

const OLD: i64 = 1_000_000_000;
const NEW: i64 = 1_100_000_000;

/// Sources in `s`, and in `d` one that is older, one that is newer, and none of the third.
fn shelf(sandbox: &Sandbox) {
    for name in ["s/a", "s/b", "s/c", "s/sub/a", "d/a", "d/b", "d/sub/a"] {
        let path = sandbox.file(name, 100);
        set_mtime(&path, OLD, 0);
    }
    for newer in ["s/a", "s/sub/a", "d/b"] {
        set_mtime(&sandbox.path(newer), NEW, 0);
    }
    sandbox.hard_link("d/other-name-of-a", "d/a");
    sandbox.symlink("d/link-to-b", "b");
    sandbox.symlink("d/dangling", "nowhere");
    sandbox.file("s/link-to-b", 5);
    sandbox.file("s/dangling", 6);
}

fn answering(lines: &'static str) -> impl Fn(Call) -> Call {
    move |call| call.stdin(lines)
}

#[test]
fn only_older_files_are_updated() {
    needs!(GnuCp9);
    same_as_cp(
        shelf,
        &[
            "-u s/a s/b s/c d",
            "-ru s/. d",
            "-au s/. d",
            "-ruv s/. d",
            "-up s/a s/b d",
            "-u -n s/a d",
            "-n -u s/a d",
            "-b -u s/a s/b d",
            "-T -u s/a d/new",
        ],
    );
}

#[test]
fn update_takes_the_words_of_newer_cps() {
    let sandbox = Sandbox::new();
    shelf(&sandbox);
    let is_copied = |name: &str| {
        let read = |area: &str| fs::read(sandbox.path(format!("{area}/{name}"))).ok();
        read("s") == read("d")
    };
    sandbox.poolcp(["--update=none", "s/a", "s/b", "d"]).ok();
    assert!(!is_copied("a") && !is_copied("b"));
    // What may be done is done.
    sandbox
        .poolcp(["--update=none-fail", "s/a", "s/c", "d"])
        .fails(&["not replacing 'd/a'"]);
    assert!(!is_copied("a") && is_copied("c"));
    sandbox.poolcp(["--update=older", "s/a", "s/b", "d"]).ok();
    assert!(is_copied("a") && !is_copied("b"));
    // The last one counts.
    sandbox.poolcp(["-u", "--update=all", "s/b", "d"]).ok();
    assert!(is_copied("b"));
    let run = sandbox.poolcp(["--update=non", "s/a", "d"]).run();
    let first = run.stderr.lines().next();
    assert_eq!(
        first,
        Some("poolcp: ambiguous argument 'non' for '--update'")
    );
    assert_eq!(run.code, 1);
}

#[test]
fn questions_are_asked_in_cps_order_and_answered_from_standard_input() {
    needs!(GnuCp9);
    // cp's order is that of the inode numbers, and those are given in order there.
    let shelf = || {
        let sandbox = Sandbox::small_in_memory();
        shelf(&sandbox);
        sandbox
    };
    for answers in [
        "y\nn\ny\ny\nn\n",
        "n\nY\n",
        "",
        "yes\nno\nyellow\n\nwhat\ny\n",
    ] {
        for line in ["-ri s/. d", "-i s/a s/b s/c d", "-rif s/. d"] {
            let words = || line.split(' ');
            let theirs = shelf();
            let expected = theirs.cp(words()).stdin(answers).run();
            for workers in ["-j1", "-j16"] {
                let ours = shelf();
                let call = ours.poolcp(std::iter::once(workers).chain(words()));
                let run = call.stdin(answers).run();
                let what = format!("{workers} {line} {answers:?}");
                assert_eq!(
                    run.stderr.replace("poolcp: ", "cp: "),
                    expected.stderr,
                    "{what}"
                );
                // cp 9.1 calls a declined copy a success; POSIX and later ones do not.
                let asked = run.stderr.matches("? ").count();
                let answered = answers.lines().take(asked);
                let agreed = answered.filter(|line| line.starts_with(['y', 'Y'])).count();
                assert_eq!(run.code, i32::from(agreed < asked), "{what}");
                let copy = |sandbox: &Sandbox| Snapshot::of(&sandbox.path("d")).blurred();
                assert_same(&copy(&theirs), &copy(&ours), &what);
            }
        }
    }
}

#[test]
fn nobody_is_asked_about_what_is_new() {
    let sandbox = Sandbox::new();
    for i in 0..200 {
        sandbox.file(format!("s/{}/{i}", i % 7), 10);
    }
    // Without an answer nothing would be copied.
    sandbox.poolcp(["-j16", "-ri", "s", "new"]).ok();
    let tree = |name: &str| Snapshot::of(&sandbox.path(name)).without(&["mtime"]);
    assert_same(&tree("s"), &tree("new"), "-ri");
}

#[test]
fn an_unwritable_file_is_asked_about_with_its_mode() {
    needs!(GnuCp9, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("a", 10);
        for (name, mode) in [("plain", 0o444), ("special", 0o4511), ("sticky", 0o1000)] {
            chmod(&sandbox.file(name, 5), mode);
        }
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("special"), 0o4511);
    };
    same_as_cp_when(
        setup,
        &[
            "-i a plain",
            "-i a special",
            "-i a sticky",
            "-if a plain",
            "-i --rem a special",
        ],
        |call| call.by_ordinary_user().stdin("y\n"),
    );
}

#[test]
fn the_last_of_asking_and_refusing_counts() {
    needs!(GnuCp9);
    same_as_cp_when(
        shelf,
        &[
            "-i -n s/a d",
            "-n -i s/a d",
            "-in -i s/a s/b d",
            "-nf s/a d",
            "-fn s/a d",
        ],
        answering("y\ny\n"),
    );
}

#[test]
fn backups_are_simple_numbered_or_as_they_were() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shelf(sandbox);
        sandbox.file("d/b.~1~", 3);
        sandbox.file("d/b.~9~", 4);
        sandbox.file("d/b.~010~", 4);
        sandbox.file("n", 1);
        sandbox.file("n~", 2);
    };
    same_as_cp(
        setup,
        &[
            "-b s/a s/b d",
            "-bv s/a s/b s/c d",
            "--backup s/a s/b d",
            "--backup=t s/a s/b d",
            "--backup=numbered s/a s/b d",
            "--backup=existing s/a s/b d",
            "--backup=nil s/b d",
            "--backup=none s/a d",
            "--backup=off s/a d",
            "--backup=num s/a d",
            "-S .old s/b d",
            "-b --suffix=.old s/a d",
            "-b -S a/b s/a d",
            "-b -S= s/a d",
            "-rb s/. d",
            "-ab s/. d",
            "-b s/link-to-b s/dangling d",
            "-b s/a d/a",
            "--backup=simple n~ n",
            "--backup=simple -T s/a n",
            "--backup=never s/a n",
            "-b n n",
            "-bf n n",
            "-f --backup=t n n",
            "-b d/a d/other-name-of-a",
            "--backup=t s/a s/sub/a d",
            "-b s/a s/sub/a d",
            "--backup=x s/a d",
            "--backup=n s/a d",
            "-b --remove-destination s/a s/b d",
        ],
    );
}

#[test]
fn the_environment_says_what_backups_are_like() {
    needs!(GnuCp9);
    for (name, value) in [
        ("VERSION_CONTROL", "numbered"),
        ("VERSION_CONTROL", "existing"),
        ("VERSION_CONTROL", "off"),
        ("VERSION_CONTROL", ""),
        ("VERSION_CONTROL", "bogus"),
        ("SIMPLE_BACKUP_SUFFIX", ".before"),
        ("SIMPLE_BACKUP_SUFFIX", ""),
        ("SIMPLE_BACKUP_SUFFIX", "no/suffix"),
    ] {
        same_as_cp_when(
            shelf,
            &["-b s/a d", "--backup=t s/a d", "-b -S .mine s/a d", "s/a d"],
            |call| call.env(name, value),
        );
    }
}

#[test]
fn a_backup_gets_its_name_back_if_the_copy_fails() {
    needs!(GnuCp9, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        let secret = sandbox.file("secret", 10);
        sandbox.file("target", 5);
        sandbox.give_to_ordinary_user();
        chmod(&secret, 0);
    };
    same_as_cp_when(
        setup,
        &[
            "-b secret target",
            "-bv secret target",
            "--backup=t -v secret target",
        ],
        Call::by_ordinary_user,
    );
}

#[test]
fn a_destination_is_removed_first_or_when_it_cannot_be_opened() {
    needs!(GnuCp9, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        shelf(sandbox);
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("d/b"), 0o444);
        chmod(&sandbox.path("d/a"), 0o400);
    };
    same_as_cp_when(
        setup,
        &[
            "s/a s/b d",
            "-f s/a s/b d",
            "-fv s/a s/b d",
            "--remove-destination s/a s/b d",
            "-v --remove-destination s/a s/link-to-b s/dangling d",
            "-rv --remove-destination s/. d",
            "-f s/dangling d",
        ],
        Call::by_ordinary_user,
    );
}

// ---- A new inode, or the old one ----

fn inode(sandbox: &Sandbox, name: &str) -> u64 {
    let metadata = fs::metadata(sandbox.path(name));
    metadata.expect("there").ino()
}

/// A file with everything that a file can have, in the place of which another one goes.
fn decorated(sandbox: &Sandbox) {
    sandbox.file("s/a", 5000);
    let there = sandbox.file("d/a", 100);
    chmod(&there, 0o640);
    set_mtime(&there, OLD, 0);
    if sandbox.can_set("user.poolcp", b"x") {
        set_xattr(&there, "user.poolcp", b"there");
    }
    if sandbox.can_set(ACCESS_ACL, &acl_for(4321)) {
        set_xattr(&there, ACCESS_ACL, &acl_for(4321));
    }
    if is_root() {
        chown(&there, NOBODY, NOBODY);
    }
}

#[test]
fn a_file_that_takes_anothers_place_has_its_attributes() {
    needs!(GnuCp9);
    same_as_cp(decorated, &["s/a d", "-p s/a d", "-a s/a d", "-T s/a d/a"]);
    let sandbox = Sandbox::new();
    decorated(&sandbox);
    let before = inode(&sandbox, "d/a");
    sandbox.poolcp(["s/a", "d"]).ok();
    assert_ne!(inode(&sandbox, "d/a"), before);
    let names = fs::read_dir(sandbox.path("d")).expect("list").count();
    assert_eq!(names, 1, "nothing else is left");
}

#[test]
fn a_file_that_would_be_missed_is_written_in_place() {
    type Making = fn(&Sandbox);
    let place = |make: Making| {
        let sandbox = Sandbox::new();
        sandbox.file("s/a", 5000);
        make(&sandbox);
        sandbox
    };
    let cases: [(&str, Making); 4] = [
        ("two names", |sandbox| {
            sandbox.file("d/a", 100);
            sandbox.hard_link("d/b", "d/a");
        }),
        ("behind a link", |sandbox| {
            sandbox.file("d/b", 100);
            sandbox.symlink("d/a", "b");
        }),
        ("special bits", |sandbox| {
            chmod(&sandbox.file("d/a", 100), 0o4755);
        }),
        ("capabilities", |sandbox| {
            // Without a tool or the right to set them, a second name does.
            if !set_capability(&sandbox.file("d/a", 100)) {
                sandbox.hard_link("d/b", "d/a");
            }
        }),
    ];
    for (what, make) in cases {
        let sandbox = place(make);
        let before = inode(&sandbox, "d/a");
        sandbox.poolcp(["s/a", "d"]).ok();
        assert_eq!(inode(&sandbox, "d/a"), before, "{what}");
        assert_eq!(
            fs::read(sandbox.path("d/a")).expect("read"),
            fs::read(sandbox.path("s/a")).expect("read"),
            "{what}"
        );
        let sandbox = place(make);
        let there = fs::read(sandbox.path("d/a")).expect("read");
        sandbox
            .poolcp(["--atomic=always", "s/a", "d"])
            .fails(&["cannot replace 'd/a' in one step (--atomic=always)"]);
        assert_eq!(
            fs::read(sandbox.path("d/a")).expect("read"),
            there,
            "{what}"
        );
    }
    let sandbox = place(|sandbox| {
        sandbox.file("d/a", 100);
    });
    let before = inode(&sandbox, "d/a");
    sandbox.poolcp(["--atomic=never", "s/a", "d"]).ok();
    assert_eq!(inode(&sandbox, "d/a"), before);
}

#[test]
fn where_no_file_can_be_made_the_one_that_is_there_is_written() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    sandbox.file("s/a", 5000);
    sandbox.file("d/a", 100);
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("d"), 0o555);
    let before = inode(&sandbox, "d/a");
    sandbox.poolcp(["s/a", "d"]).by_ordinary_user().ok();
    assert_eq!(inode(&sandbox, "d/a"), before);
    sandbox
        .poolcp(["--atomic=always", "s/a", "d"])
        .by_ordinary_user()
        .fails(&["cannot replace 'd/a' in one step (--atomic=always)"]);
}

#[test]
fn only_what_has_changed_is_copied() {
    let sandbox = Sandbox::new();
    shelf(&sandbox);
    let copy = ["-aT", "--report=json", "--update=changed", "s", "e"];
    assert_eq!(sandbox.poolcp(copy).ok().json()["files"], 6);
    assert_eq!(sandbox.poolcp(copy).ok().json()["files"], 0);
    set_mtime(&sandbox.path("e/a"), OLD + 1, 0);
    sandbox.file("e/b", 101);
    set_mtime(&sandbox.path("e/b"), OLD, 0);
    fs::remove_file(sandbox.path("e/c")).expect("remove");
    let report = sandbox.poolcp(copy).ok().json();
    assert_eq!(
        (&report["files"], &report["skipped"]),
        (&3.into(), &3.into())
    );
    assert_same(
        &Snapshot::of(&sandbox.path("s")),
        &Snapshot::of(&sandbox.path("e")),
        "an update",
    );
}

#[test]
fn names_that_lead_to_one_file_are_written_one_after_the_other() {
    needs!(Strace);
    let by_hard_link = |sandbox: &Sandbox, name: &str| drop(sandbox.hard_link(name, "one"));
    let by_symlink = |sandbox: &Sandbox, name: &str| drop(sandbox.symlink(name, "../../one"));
    for link in [by_hard_link as fn(&Sandbox, &str), by_symlink] {
        let sandbox = Sandbox::in_memory();
        sandbox.file("one", 10);
        for i in 0..40 {
            let name = format!("{}/{i}", i % 3);
            sandbox.file(format!("source/{name}"), 5000 * (i + 1));
            sandbox.dir(format!("target/{}", i % 3));
            link(&sandbox, &format!("target/{name}"));
        }
        // Time for another worker to empty the file, too, before it is filled.
        let delay = ["--inject", "ftruncate:delay_exit=10000"];
        let copy = sandbox.poolcp(["-r", "-j4", "--report=json", "source/.", "target"]);
        assert_eq!(copy.traced(&delay).ok().json()["files"], 40);
        let read = |name: &str| fs::read(sandbox.path(name)).expect("read");
        let is_one = |i: usize| read(&format!("source/{}/{i}", i % 3)) == read("one");
        assert!((0..40).any(is_one), "a mixture of several sources");
    }
}

#[test]
fn names_are_taken_and_kept_where_rename_knows_no_flags() {
    needs!(Strace);
    let fault = ["--inject", "renameat2:error=EINVAL"];
    let sandbox = Sandbox::new();
    sandbox.file("source/large", 5 << 20);
    sandbox.file("source/file", 10);
    sandbox.poolcp(["-a", "source", "copy"]).traced(&fault).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "new");
    let args = ["-aT", "--backup=numbered", "source", "copy"];
    sandbox.poolcp(args).traced(&fault).ok();
    let names = ["file", "file.~1~", "large", "large.~1~"];
    let mut found: Vec<_> = fs::read_dir(sandbox.path("copy"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn names_of_one_destination_are_copied_one_after_the_other() {
    needs!(Strace);
    let sandbox = Sandbox::new();
    sandbox.file("source/f", 10);
    sandbox.file("source/g", 20);
    sandbox.file("copy/g", 30);
    sandbox.symlink("copy/f", "g");
    // One has been decided on, and is opened when the other one has been replaced.
    let dir = sandbox.path("copy");
    let delay = "openat:delay_enter=200000:when=1";
    let delay = ["-P", dir.to_str().expect("UTF-8"), "--inject", delay];
    let args = ["-rT", "-j4", "source", "copy"];
    sandbox.poolcp(args).traced(&delay).ok();
    assert!(sandbox.path("copy/f").is_symlink());
    let len = fs::metadata(sandbox.path("copy/g")).expect("stat").len();
    assert!(len == 10 || len == 20, "{len}");
}

#[test]
fn a_file_that_is_to_be_removed_first_stays_if_there_is_no_copy_of_its_source() {
    needs!(Strace);
    let full = ["--inject", "write,pwrite64,copy_file_range:error=ENOSPC"];
    for atomic in ["--atomic=auto", "--atomic=always"] {
        let sandbox = Sandbox::in_memory();
        sandbox.file("source/a", 5000);
        let old = sandbox.file("copy/a", 10);
        let before = fs::read(&old).expect("read");
        let args = ["-rT", "--remove-destination", atomic, "source", "copy"];
        let run = sandbox.poolcp(args).traced(&full).run();
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(fs::read(&old).expect("it is there"), before);
        // Two names are to be kept apart.
        sandbox.hard_link("copy/b", &old);
        let args = ["-aT", atomic, "source", "copy"];
        let run = sandbox.poolcp(args).traced(&full).run();
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(fs::read(&old).expect("it is there"), before);
    }
    let sandbox = Sandbox::in_memory();
    sandbox.file("source/a", 5000);
    let old = sandbox.file("copy/a", 10);
    // Nothing that a removal would mend. The first that is opened in the directory is the file.
    let dir = sandbox.path("copy");
    let fault = "openat:error=EMFILE:when=1";
    let open = [
        "-P",
        dir.to_str().expect("UTF-8"),
        "--trace=openat",
        "--inject",
        fault,
    ];
    let run = sandbox
        .poolcp(["-rfT", "source", "copy"])
        .traced(&open)
        .run();
    let told = "cannot create regular file 'copy/a': Too many open files";
    assert_eq!(run.messages(), [told]);
    assert_eq!(fs::metadata(&old).expect("it is there").len(), 10);
}

#[test]
fn a_backup_does_not_come_back_over_what_others_made_meanwhile() {
    needs!(Strace);
    let sandbox = Sandbox::new();
    let source = sandbox.file("source", 5 << 20);
    let copy = sandbox.file("copy/source", 10);
    let path = source.to_str().expect("UTF-8");
    let delay = "read,pread64:delay_enter=1000000:when=1";
    let delay = ["-P", path, "--inject", delay];
    let call = sandbox.poolcp(["-b", "--reflink=never", "source", "copy"]);
    let call = call.traced(&delay);
    let run = thread::scope(|scope| {
        scope.spawn(|| {
            while copy.exists() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(200));
            fs::write(&copy, "another").expect("write");
        });
        call.run()
    });
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(fs::read(&copy).expect("read"), b"another");
    assert_eq!(
        fs::metadata(sandbox.path("copy/source~"))
            .expect("a backup")
            .len(),
        10
    );
}

#[test]
fn names_of_one_file_stay_until_there_is_room_for_their_copies() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    let names = ["a", "b", "c"];
    let first = sandbox.file("source/a", 30_000);
    for name in &names[1..] {
        sandbox.hard_link(Path::new("source").join(name), &first);
    }
    let disk = sandbox.dir("disk");
    let _mount = Mount::tmpfs(&disk, "64k").expect("a filesystem");
    let old = sandbox.file("disk/a", 40_000);
    for name in &names[1..] {
        sandbox.hard_link(Path::new("disk").join(name), &old);
    }
    for option in ["--atomic=auto", "--atomic=always", "--remove-destination"] {
        let run = sandbox.poolcp(["-aT", option, "source", "disk"]).run();
        assert_eq!(run.code, 1, "{run:?}");
        let are_there = names.iter().all(|name| disk.join(name).exists());
        assert!(are_there, "{option}: {run:?}");
    }
}

#[test]
fn where_no_file_can_be_renamed_it_is_written_under_its_name() {
    needs!(Strace);
    let refuse = ["--trace=rename,renameat,renameat2", "--inject"];
    for error in ["ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM"] {
        let fault = format!("rename,renameat,renameat2:error={error}");
        let options = [refuse[0], refuse[1], &fault];
        let sandbox = Sandbox::new();
        sandbox.file("large", 5 << 20);
        sandbox.file("small", 10);
        sandbox.file("old", 20);
        sandbox.poolcp(["large", "new"]).traced(&options).ok();
        sandbox.poolcp(["small", "old"]).traced(&options).ok();
        let read = |name: &str| fs::read(sandbox.path(name)).expect("read");
        assert!(read("large") == read("new") && read("small") == read("old"));
        assert!(staged(&sandbox.path("")).is_empty());
    }
}

#[test]
fn on_a_server_whose_locks_shut_others_out_nothing_is_locked() {
    needs!(Strace);
    // The magic number of SMB2, where fstatfs(2) puts it.
    let smb = "fstatfs:poke_exit=@arg2=424d53fe00000000";
    let options = ["--trace=fstatfs,flock", "--inject", smb];
    let sandbox = Sandbox::new();
    sandbox.file("large", 5 << 20);
    let run = sandbox.poolcp(["large", "new"]).traced(&options).run();
    if run.stderr.contains("invalid --inject") {
        say("this strace pokes nothing");
        return;
    }
    assert_eq!(run.code, 0, "{run:?}");
    let trace = fs::read_to_string(sandbox.path(TRACE)).expect("read");
    assert!(
        trace.contains("fstatfs(") && !trace.contains("flock("),
        "{trace}"
    );
}

#[test]
fn what_is_replaced_in_an_upper_layer_is_not_copied_there_first() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    let [disk, small] = ["disk", "small"].map(|name| sandbox.dir(name));
    let _disk = Mount::tmpfs(&disk, "1G").expect("a filesystem");
    let _small = Mount::tmpfs(&small, "16M").expect("a filesystem");
    let [lower, upper, work, merged] =
        ["disk/lower", "small/upper", "small/work", "merged"].map(|name| sandbox.dir(name));
    sandbox.file("disk/lower/dir/large", 64 << 20);
    sandbox.file("disk/lower/large", 64 << 20);
    let Some(_overlay) = Mount::overlay(&lower, &upper, &work, &merged) else {
        return;
    };
    sandbox.file("source/large", 10);
    sandbox.poolcp(["source/large", "merged/large"]).ok();
    sandbox.poolcp(["-rT", "source", "merged/dir"]).ok();
    for name in ["merged/large", "merged/dir/large"] {
        assert_eq!(fs::read(sandbox.path(name)).expect("read").len(), 10);
    }
}

#[test]
fn a_program_of_its_owners_is_none_while_it_gets_other_data() {
    needs!(Root, Strace);
    let sandbox = Sandbox::in_memory();
    chmod(&sandbox.file("tool", 100), 0o755);
    let copy = sandbox.file("copy", 10);
    chmod(&copy, 0o4755);
    let args = ["-a", "--no-preserve=ownership", "tool", "copy"];
    let fault = [
        "-e",
        "inject=read,pread64,copy_file_range:error=EIO",
        "-P",
        "tool",
    ];
    let run = sandbox.poolcp(args).traced(&fault).run();
    assert_eq!((run.code, mode(&copy)), (1, 0o755), "{run:?}");
}

#[test]
fn links_that_lead_to_files_which_are_replaced_are_followed_to_what_replaces_them() {
    let sandbox = Sandbox::in_memory();
    for round in 0..20 {
        for file in 0..20 {
            sandbox.file(format!("source/x{file}"), 100);
            sandbox.file(format!("copy/x{file}"), 50);
        }
        for link in 0..300 {
            sandbox.file(format!("source/y{link}"), 200);
            sandbox.symlink(format!("copy/y{link}"), format!("x{}", link % 20));
        }
        let run = sandbox.poolcp(["-rT", "-j8", "source", "copy"]).run();
        assert_eq!(run.code, 0, "round {round}: {run:?}");
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        fs::remove_dir_all(sandbox.path("source")).expect("remove");
    }
}
