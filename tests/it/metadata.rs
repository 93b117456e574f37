//! Modes, owners, times, extended attributes, ACLs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use crate::harness::{
    ACCESS_ACL, DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, has_xattr, long_ago, mode,
    set_atime, set_capability, set_mtime, set_xattr,
};
use crate::programs::{Call, TRACE, is_root, poolcp, start};
use crate::referees::{same_as_cp, same_as_cp_when};
use crate::snapshot::assert_same_tree;

const MODES: [u32; 14] = [
    0o644, 0o600, 0o666, 0o755, 0o777, 0o444, 0o400, 0o700, 0o4755, 0o2755, 0o6755, 0o1644, 0o7777,
    0o2644,
];

/// A tree of every mode; readable by an ordinary user.
fn every_mode(sandbox: &Sandbox) {
    for mode in MODES {
        chmod(&sandbox.file(format!("source/file-{mode:04o}"), 10), mode);
        sandbox.file(format!("source/dir-{mode:04o}/file"), 10);
        chmod(
            &sandbox.path(format!("source/dir-{mode:04o}")),
            mode | 0o500,
        );
    }
    chmod(&sandbox.fifo("source/fifo"), 0o666);
}

// ---- Modes ----

#[test]
fn modes_follow_the_umask_as_with_cp() {
    needs!(GnuCp9);
    for umask in [0o000, 0o022, 0o027, 0o077, 0o177, 0o777] {
        for options in ["-r", "-a", "-rp"] {
            let line = format!("{options} source copy");
            same_as_cp_when(every_mode, &[&line], |call| call.umask(umask));
        }
        let setup = |sandbox: &Sandbox| chmod(&sandbox.file("a", 10), 0o6777);
        same_as_cp_when(setup, &["a copy"], |call| call.umask(umask));
    }
}

#[test]
fn modes_follow_the_umask_as_with_cp_for_an_ordinary_user() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        every_mode(sandbox);
        sandbox.give_to_ordinary_user();
    };
    for umask in [0o000, 0o027, 0o077] {
        let when = |call: Call| call.by_ordinary_user().umask(umask);
        same_as_cp_when(
            setup,
            &["-r source copy", "-a source copy", "-rp source copy"],
            when,
        );
    }
}

#[test]
fn attributes_are_kept_as_listed() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        every_mode(sandbox);
        for name in ["source/file-0644", "source/dir-0755", "source/fifo"] {
            set_mtime(&sandbox.path(name), 1_234_567_890, 987_654_321);
            if is_root() {
                chown(&sandbox.path(name), 1234, 4321);
            }
        }
    };
    let lines = [
        "-r --preserve source copy",
        "-r --preserve=mode source copy",
        "-r --preserve=timestamps source copy",
        "-r --preserve=ownership source copy",
        "-r --preserve=mode,timestamps source copy",
        "-r --preserve=all source copy",
        "-r --preserve=xattr source copy",
        "-r --no-preserve=mode source copy",
        "-rp --no-preserve=mode source copy",
        "-rp --no-preserve=timestamps source copy",
        "-a --no-preserve=ownership source copy",
        "-a --no-preserve=all source copy",
        "-a --no-preserve=mode,timestamps source copy",
        "-r --no-preserve=mode --preserve=mode source copy",
        "-d -r source copy",
    ];
    same_as_cp_when(setup, &lines, |call| call.umask(0o027));
}

#[test]
fn special_bits_come_only_with_their_owner() {
    needs!(GnuCp9);
    needs!(Root);
    let setup = |sandbox: &Sandbox| {
        for name in ["file", "dir/file"] {
            let file = sandbox.file(format!("source/{name}"), 10);
            chown(&file, 1234, 4321);
            chmod(&file, 0o6755);
        }
        chown(&sandbox.path("source/dir"), 1234, 4321);
        chmod(&sandbox.path("source/dir"), 0o7775);
    };
    same_as_cp(
        setup,
        &[
            "-r source copy",
            "-a source copy",
            "-rp source copy",
            "-r --preserve=mode source copy",
            "-r --preserve=ownership source copy",
        ],
    );
    let sandbox = Sandbox::new();
    setup(&sandbox);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let copy = fs::metadata(sandbox.path("copy/file")).expect("metadata");
    assert_eq!(
        (copy.mode() & 0o7777, copy.uid(), copy.gid()),
        (0o6755, 1234, 4321)
    );
    sandbox.poolcp(["-r", "source", "plain"]).ok();
    assert_eq!(mode(&sandbox.path("plain/file")), 0o755);
}

#[test]
fn special_bits_are_dropped_when_the_owner_cannot_be_given() {
    needs!(GnuCp9);
    needs!(Root, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        let file = sandbox.file("source/file", 10);
        chown(&file, 1234, 4321);
        chmod(&file, 0o6755);
        chown(&sandbox.dir("target"), NOBODY, NOBODY);
    };
    let ordinary = Call::by_ordinary_user;
    same_as_cp_when(setup, &["-a source target"], ordinary);
    same_as_cp_when(setup, &["-p source/file target"], ordinary);
}

#[test]
fn an_existing_file_and_directory_keep_their_mode_unless_modes_are_kept() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        chmod(&sandbox.file("source/file", 10), 0o755);
        chmod(&sandbox.file("target/file", 5), 0o600);
        chmod(&sandbox.path("source"), 0o750);
        chmod(&sandbox.path("target"), 0o711);
        set_mtime(&sandbox.path("source"), 1_000_000_000, 5);
    };
    same_as_cp(
        setup,
        &[
            "-r -T source target",
            "-rp -T source target",
            "-a -T source target",
            "-rf -T source target",
            "-r --no-preserve=mode -T source target",
        ],
    );
}

#[test]
fn a_set_group_id_directory_gives_its_group_but_to_archives() {
    needs!(GnuCp9);
    needs!(Root);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/dir/file", 10);
        sandbox.fifo("source/fifo");
        chown(&sandbox.dir("target"), 0, 4321);
        chmod(&sandbox.path("target"), 0o2775);
    };
    same_as_cp(
        setup,
        &["-r source target", "-r --preserve=timestamps source target"],
    );
    // cp leaves the bit on directories whose source does not have it.
    let sandbox = Sandbox::new();
    setup(&sandbox);
    sandbox.poolcp(["-a", "source", "target"]).ok();
    assert_same_tree(
        &sandbox.path("source"),
        &sandbox.path("target/source"),
        "-a",
    );
}

// ---- An ordinary user ----

#[test]
fn a_read_only_directory_is_copied_by_an_ordinary_user() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/read-only/deep/file", 10);
        chmod(&sandbox.path("source/read-only/deep"), 0o500);
        chmod(&sandbox.path("source/read-only"), 0o555);
        sandbox.give_to_ordinary_user();
    };
    for options in ["-r", "-a"] {
        same_as_cp_when(
            setup,
            &[&format!("{options} source copy")],
            Call::by_ordinary_user,
        );
    }
    let with_umask = |call: Call| call.by_ordinary_user().umask(0o077);
    same_as_cp_when(setup, &["-r source copy"], with_umask);
}

#[test]
fn what_an_ordinary_user_may_not_read_is_told_and_the_rest_copied() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        for name in [
            "source/secret",
            "source/dir/secret",
            "source/closed/file",
            "source/open",
        ] {
            sandbox.file(name, 10);
        }
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("source/secret"), 0o000);
        chmod(&sandbox.path("source/dir/secret"), 0o000);
        chmod(&sandbox.path("source/closed"), 0o000);
    };
    let ordinary = Call::by_ordinary_user;
    let sandbox = Sandbox::new();
    setup(&sandbox);
    let run = sandbox
        .poolcp(["-r", "source", "copy"])
        .by_ordinary_user()
        .run();
    assert_eq!(run.code, 1);
    assert!(sandbox.path("copy/open").exists(), "{run:?}");
    for name in ["source/secret", "source/dir/secret", "source/closed"] {
        assert!(run.stderr.contains(&format!("'{name}'")), "{name}: {run:?}");
    }
    same_as_cp_when(setup, &["-r source copy"], ordinary);
    same_as_cp_when(setup, &["source/secret source/open source/dir"], ordinary);
}

#[test]
fn what_is_in_a_directory_that_may_be_listed_but_not_searched_is_told() {
    needs!(OrdinaryUser);
    let sandbox = Sandbox::new();
    sandbox.file("source/listed-only/file", 10);
    sandbox.file("source/open/file", 10);
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("source/listed-only"), 0o400);
    let run = sandbox.poolcp(["-r", "source", "copy"]).by_ordinary_user();
    let run = run.run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("'source/listed-only/file'"), "{run:?}");
    assert!(sandbox.path("copy/open/file").exists() && sandbox.path("copy/listed-only").exists());
}

#[test]
fn a_directory_that_may_not_be_written_is_told() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/dir/file", 10);
        sandbox.file("source/file", 10);
        sandbox.dir("target");
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("target"), 0o555);
    };
    same_as_cp_when(setup, &["source/file target"], Call::by_ordinary_user);
    same_as_cp_when(setup, &["-r source target"], Call::by_ordinary_user);
}

// ---- Times ----

#[test]
fn times_are_kept_to_the_nanosecond() {
    let sandbox = Sandbox::new();
    sandbox.file("source/dir/old", 10);
    sandbox.file("source/empty", 0);
    sandbox.file("source/dir/before-1970", 300_000);
    sandbox.symlink("source/link", "dir");
    sandbox.fifo("source/fifo");
    for (name, seconds, nanoseconds) in [
        ("source/dir/old", 1_000_000_000, 123_456_789),
        ("source/empty", 4_000_000_000, 999_999_999),
        ("source/dir/before-1970", -1, 1),
        ("source/link", 1_500_000_000, 42),
        ("source/fifo", 0, 0),
        ("source/dir", 1_600_000_000, 600_000_001),
        ("source", 1_700_000_000, 1),
    ] {
        set_mtime(&sandbox.path(name), seconds, nanoseconds);
    }
    let accessed = |name: &str| {
        let meta = fs::symlink_metadata(sandbox.path(name)).expect("metadata");
        (meta.atime(), meta.atime_nsec())
    };
    let names = [
        "",
        "/dir/old",
        "/empty",
        "/dir/before-1970",
        "/fifo",
        "/dir",
    ];
    // Before: listing a directory changes its own.
    let had = names.map(|name| accessed(&format!("source{name}")));
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    let has = names.map(|name| accessed(&format!("copy{name}")));
    assert_eq!(had, has, "access times");
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
}

#[test]
fn a_file_that_is_overwritten_is_changed_now_even_if_both_are_empty() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        for name in ["empty", "full", "old-empty", "old-full"] {
            let len = if name.contains("full") { 10 } else { 0 };
            set_mtime(&sandbox.file(name, len), 1_000_000_000, 1);
        }
    };
    let lines = [
        "empty old-empty",
        "empty old-full",
        "full old-empty",
        "-p empty old-empty",
    ];
    same_as_cp(setup, &lines);
}

#[test]
fn the_superusers_copy_leaves_access_times_alone() {
    needs!(Root);
    let sandbox = Sandbox::new();
    let file = sandbox.file("source/file", 10);
    set_atime(&file, long_ago());
    sandbox.poolcp(["-r", "source", "copy"]).ok();
    let accessed = fs::metadata(file).expect("metadata").accessed();
    assert_eq!(accessed.expect("atime"), long_ago());
}

// ---- Extended attributes and ACLs ----

#[test]
fn user_attributes_are_kept() {
    needs!(GnuCp9);
    needs!(UserXattrs);
    let setup = |sandbox: &Sandbox| {
        let file = sandbox.file("source/dir/file", 10);
        set_xattr(&file, "user.empty", b"");
        set_xattr(&file, "user.bytes", &[0, 255, b'\n', 0]);
        set_xattr(&file, "user.large", &[b'x'; 1500]);
        set_xattr(&sandbox.path("source/dir"), "user.of-directory", b"yes");
        let read_only = sandbox.file("source/read-only", 10);
        set_xattr(&read_only, "user.a", b"b");
        chmod(&read_only, 0o444);
        let existing = sandbox.file("existing/dir/file", 5);
        set_xattr(&existing, "user.bytes", b"other");
        set_xattr(&existing, "user.extra", b"stays");
    };
    let sandbox = Sandbox::new();
    setup(&sandbox);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    for options in ["-r", "-rp", "-a"] {
        same_as_cp(
            setup,
            &[
                &format!("{options} source copy"),
                &format!("{options} -T source existing"),
            ],
        );
    }
    same_as_cp(
        setup,
        &[
            "-r --preserve=xattr source copy",
            "-a --no-preserve=xattr source copy",
        ],
    );
}

#[test]
fn user_attributes_of_read_only_files_are_kept_by_an_ordinary_user() {
    needs!(GnuCp9);
    needs!(UserXattrs, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        let file = sandbox.file("source/file", 10);
        set_xattr(&file, "user.a", b"b");
        chmod(&file, 0o444);
        set_xattr(&sandbox.path("source"), "user.a", b"b");
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("source"), 0o555);
    };
    same_as_cp_when(setup, &["-a source copy"], Call::by_ordinary_user);
    same_as_cp_when(
        setup,
        &["-r --preserve=xattr source copy"],
        Call::by_ordinary_user,
    );
}

#[test]
fn trusted_attributes_are_kept_on_every_kind() {
    needs!(TrustedXattrs);
    let sandbox = Sandbox::new();
    let file = sandbox.file("source/file", 10);
    let all = [
        file,
        sandbox.symlink("source/link", "nowhere"),
        sandbox.fifo("source/fifo"),
    ];
    for path in all.iter().chain([&sandbox.path("source")]) {
        set_xattr(path, "trusted.poolcp", b"trusted value");
    }
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    // Operands too, by relative and by absolute names.
    let absolute = sandbox.path("source/link");
    let line = [
        "-a",
        "source/fifo",
        absolute.to_str().expect("UTF-8"),
        "few",
    ];
    sandbox.dir("few");
    sandbox.poolcp(line).ok();
    for name in ["few/fifo", "few/link"] {
        let mut value = [0; 64];
        let len = rustix::fs::lgetxattr(sandbox.path(name), "trusted.poolcp", &mut value);
        assert_eq!(len, Ok(b"trusted value".len()), "{name}");
    }
}

#[test]
fn capabilities_are_kept_with_attributes_and_only_then() {
    needs!(GnuCp9);
    needs!(Capabilities);
    let setup = |sandbox: &Sandbox| {
        let file = sandbox.file("source/file", 10);
        chown(&file, 1234, 4321);
        assert!(set_capability(&file));
    };
    let sandbox = Sandbox::new();
    setup(&sandbox);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert!(has_xattr(&sandbox.path("copy/file"), "security.capability"));
    same_as_cp(
        setup,
        &["-r source copy", "-rp source copy", "-a source copy"],
    );
}

fn with_acls(sandbox: &Sandbox) {
    let file = sandbox.file("source/dir/file", 10);
    set_xattr(&file, ACCESS_ACL, &acl_for(1234));
    let dir = sandbox.dir("source/dir");
    set_xattr(&dir, ACCESS_ACL, &acl_for(1235));
    set_xattr(&dir, DEFAULT_ACL, &acl_for(1236));
    set_xattr(&sandbox.fifo("source/acl-fifo"), ACCESS_ACL, &acl_for(1237));
    sandbox.file("source/plain", 10);
}

#[test]
fn acls_are_kept_with_the_mode() {
    needs!(GnuCp9);
    needs!(Acls);
    let sandbox = Sandbox::new();
    with_acls(&sandbox);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    same_as_cp(
        with_acls,
        &["-r source copy", "-rp source copy", "-a source copy"],
    );
    for options in [
        "--preserve=mode",
        "--preserve=xattr",
        "--preserve=ownership",
    ] {
        same_as_cp(with_acls, &[&format!("-r {options} source copy")]);
    }
    same_as_cp(with_acls, &["-a --no-preserve=mode source copy"]);
}

#[test]
fn a_target_with_a_default_acl_gives_what_it_gives_with_cp() {
    needs!(GnuCp9);
    needs!(Acls);
    let setup = |sandbox: &Sandbox| {
        with_acls(sandbox);
        every_mode(sandbox);
        chmod(&sandbox.file("source/script", 10), 0o755);
        set_xattr(&sandbox.dir("target"), DEFAULT_ACL, &acl_for(1238));
    };
    for options in ["-r", "-rp", "-a"] {
        for umask in [0o022, 0o077] {
            let line = format!("{options} source target");
            same_as_cp_when(setup, &[&line], |call| call.umask(umask));
        }
    }
    // Not --no-preserve=mode: cp takes the inherited ACL away, and with it what the target's owner wants.
    for options in ["--preserve=mode", "--preserve=timestamps"] {
        same_as_cp(setup, &[&format!("-r {options} source target")]);
    }
    same_as_cp(
        setup,
        &[
            "source/plain source/script target",
            "-p source/plain source/script target",
        ],
    );
}

#[test]
fn an_existing_acl_is_replaced_by_the_sources_mode_when_modes_are_kept() {
    needs!(GnuCp9);
    needs!(Acls);
    let setup = |sandbox: &Sandbox| {
        chmod(&sandbox.file("source/file", 10), 0o640);
        let existing = sandbox.file("target/file", 10);
        set_xattr(&existing, ACCESS_ACL, &acl_for(1234));
        set_xattr(&sandbox.dir("target"), ACCESS_ACL, &acl_for(1234));
    };
    same_as_cp(
        setup,
        &[
            "-r -T source target",
            "-rp -T source target",
            "-a -T source target",
        ],
    );
}

#[test]
fn what_was_there_is_narrowed_before_it_gets_another_owner_or_the_data_of_others() {
    needs!(Root, Strace);
    let sandbox = Sandbox::new();
    chmod(&sandbox.file("source/file", 10), 0o640);
    let file = sandbox.file("copy/file", 10);
    chmod(&file, 0o664);
    chown(&file, NOBODY, NOBODY);
    let dir = sandbox.dir("copy/dir");
    chmod(&sandbox.dir("source/dir"), 0o755);
    chmod(&dir, 0o775);
    chown(&dir, NOBODY, NOBODY);
    let trace = [
        "-y",
        "--trace=fchmod,fchown,fchownat,ftruncate,write,pwrite64,copy_file_range",
    ];
    let args = ["-rpT", "-j1", "--atomic=never", "source", "copy"];
    sandbox.poolcp(args).traced(&trace).ok();
    let text = fs::read_to_string(sandbox.path(TRACE)).expect("a trace");
    let calls = |name: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| line.contains(&format!("/copy/{name}>")));
        let call = |line: &str| line.split_whitespace().nth(1).unwrap_or("").to_owned();
        lines
            .map(|line| call(line).split('(').next().unwrap_or("").to_owned())
            .collect()
    };
    let of_file = calls("file");
    let expected = ["fchmod", "ftruncate", "write", "fchown", "fchmod"];
    let is_as_expected = |calls: &[String], expected: &[&str]| {
        let pairs = calls.iter().zip(expected);
        calls.len() == expected.len()
            && pairs.into_iter().all(|(call, name)| call.starts_with(name))
    };
    assert!(is_as_expected(&of_file, &expected), "{text}");
    // Its owner could undo the first change of its mode.
    let expected = ["fchown", "fchmod", "fchown", "fchmod"];
    assert!(is_as_expected(&calls("dir"), &expected), "{text}");
    assert_eq!((mode(&file), mode(&dir)), (0o640, 0o755));
}

#[test]
fn an_owner_who_is_right_is_not_given_again() {
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 10);
    let file = sandbox.file("copy/file", 10);
    chmod(&file, 0o2755);
    let args = ["-rT", "--preserve=ownership", "source", "copy"];
    let run = |program: Call| {
        program.ok();
        mode(&file)
    };
    let by_cp = run(sandbox.cp(args));
    chmod(&file, 0o2755);
    assert_eq!(run(sandbox.poolcp(args)), by_cp);
}

#[test]
fn whom_the_old_acl_names_does_not_read_what_is_coming() {
    needs!(Root, Acls, OrdinaryUser, GnuEnv);
    let sandbox = Sandbox::new();
    let secret = sandbox.file("secret", 400_000);
    chmod(&secret, 0o640);
    let dest = sandbox.file("dest", 10);
    // So that it stays the same file.
    sandbox.hard_link("dest2", "dest");
    chmod(&dest, 0o640);
    set_xattr(&dest, ACCESS_ACL, &acl_for(NOBODY));
    assert!(sandbox.call("cat", ["dest"]).by_ordinary_user().run().code == 0);
    let mut copy = start(&sandbox, &["-pq", "--bwlimit=200K", "secret", "dest"]);
    let may_read = || sandbox.call("cat", ["dest"]).by_ordinary_user().run().code == 0;
    while fs::metadata(&dest).expect("stat").len() < 40_000 {
        assert!(copy.try_wait().expect("a child").is_none());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!may_read());
    assert!(copy.wait().expect("wait").success());
    assert!(!may_read());
}

#[test]
fn a_large_file_that_may_only_be_read_is_copied_by_a_superuser_who_may_not_override_that() {
    needs!(Root, OrdinaryUser);
    let sandbox = Sandbox::in_memory();
    chmod(&sandbox.file("large", 70 << 20), 0o444);
    for (options, copy) in [("-j4", "copy"), ("-pj4", "copy-p")] {
        let without = [
            "--bounding-set=-dac_override",
            "--inh-caps=-dac_override",
            "--",
        ];
        let program = poolcp().to_str().expect("text");
        let copying = [program, "-q", "--reflink=never", options, "large", copy];
        sandbox
            .call("setpriv", without.into_iter().chain(copying))
            .ok();
        assert_eq!(mode(&sandbox.path(copy)), 0o444);
    }
}

#[test]
fn a_superuser_leaves_the_access_time_of_a_large_file_as_it_is_whoever_reads_it() {
    needs!(Root);
    let sandbox = Sandbox::in_memory();
    let large = sandbox.file("large", 100 << 20);
    // So that a filesystem that spares itself most of these changes would make one (mount(8), relatime).
    set_mtime(&large, 1_000_000_000, 0);
    let accessed = || fs::metadata(&large).expect("stat").atime();
    let before = accessed();
    for _ in 0..2 {
        sandbox
            .poolcp(["-j4", "--reflink=never", "large", "copy"])
            .ok();
        assert_eq!(accessed(), before);
    }
}

#[test]
fn the_first_attribute_that_fails_is_told() {
    needs!(GnuCp9, Root, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("a", 10);
        sandbox.file("d/a", 5);
        sandbox.dir("dir");
        sandbox.dir("d/dir");
        sandbox.give_to_ordinary_user();
        for name in ["d/a", "d/dir"] {
            chown(&sandbox.path(name), 1234, 1234);
            chmod(&sandbox.path(name), 0o777);
        }
    };
    same_as_cp_when(
        setup,
        &[
            "-a a d",
            "-p a d",
            "-a dir d",
            "--preserve=mode a d",
            "--preserve=ownership a d",
        ],
        Call::by_ordinary_user,
    );
}

#[test]
fn what_gives_nobody_a_right_is_kept_without_privileges_too() {
    needs!(GnuCp9, Root, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        for (dir, mode) in [("s/open", 0o1777), ("s/plain", 0o755), ("d/s/open", 0o1777)] {
            chmod(&sandbox.dir(dir), mode);
        }
        sandbox.socket("s/socket");
        sandbox.give_to_ordinary_user();
        // Another user's, whom it cannot be given to.
        for dir in ["s/open", "s/plain"] {
            chown(&sandbox.path(dir), 1234, 1234);
        }
    };
    same_as_cp_when(
        setup,
        &[
            "-a s d",
            "-pr s d",
            "-a s new",
            "-p --parents s/open/.. d",
            "-r --no-preserve=mode s new",
        ],
        Call::by_ordinary_user,
    );
}
