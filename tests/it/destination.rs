//! Where the copy goes, what it may replace, and who is refused: `cp`'s rules, with `cp` as the referee.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::disks::Mount;
use crate::harness::{Sandbox, chmod};
use crate::programs::{Call, poolcp};
use crate::referees::{same_as_cp, same_as_cp_when};

/// Files and directories to be combined.
fn shop(sandbox: &Sandbox) {
    sandbox.file("a", 100);
    sandbox.file("b", 200);
    sandbox.file("dir/file", 300);
    sandbox.file("dir/sub/deep", 400);
    sandbox.file("other/file", 5);
    sandbox.file("other/kept", 6);
    sandbox.dir("empty");
    sandbox.symlink("to-a", "a");
    sandbox.symlink("to-dir", "dir");
    sandbox.symlink("to-empty", "empty");
    sandbox.symlink("dangling", "nowhere");
    sandbox.hard_link("same-as-a", "a");
}

#[test]
fn a_source_goes_into_a_directory_or_becomes_the_target() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "a new",
            "a b",
            "a empty",
            "a empty/",
            "a empty/new",
            "a ./empty/../new",
            "a to-empty",
            "a to-empty/",
            "a b empty",
            "a b dir/file empty",
            "-r dir new",
            "-r dir empty",
            "-r dir other",
            "-r dir to-empty",
            "-r dir/ new",
            "-r dir/ empty/",
            "-r dir// empty",
            "-r dir new/",
            "-r dir/. new",
            "-r dir/. empty",
            "-r dir/./ other",
            "-r dir/sub/.. empty",
            "-r a dir empty",
            "-r dir other empty",
            "-a dir/sub dir/file empty",
        ],
    );
}

#[test]
fn the_target_may_be_named_by_an_option() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "-t empty a b",
            "-t empty/ a",
            "-r -t empty dir a",
            "--target-directory=to-empty a",
            "-t new a",
            "-t a b",
            "-t dangling a",
            "-T a new",
            "-T a b",
            "-T a empty",
            "-rT dir other",
            "-rT dir new",
            "-rT dir/ other/",
            "-rT dir a",
            "-rT dir to-empty",
            "-T a b other",
            "-T -t empty a",
            "-t empty",
        ],
    );
}

#[test]
fn missing_and_misplaced_operands_are_refused() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "a",
            "missing new",
            "missing empty",
            "missing a empty",
            "a b new",
            "a b missing/",
            "a b dangling",
            "a dir b",
            "a new/",
            "a missing/new",
            "a a/new",
            "a b/",
            "a/ new",
            "-r dir missing/new",
            "-r dir a/new",
            "-r a/ new",
            "-r dangling/ new",
            "dir new",
            "dir a empty",
            "dir empty",
            "to-dir new",
            "-r dangling new",
            "dangling new",
        ],
    );
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        sandbox.file("target/dir", 10);
        sandbox.file("target/a/file", 10);
        sandbox.file("mixed/dir/sub", 10);
        sandbox.file("mixed/dir/file/x", 10);
        sandbox.symlink("links/dir", "../empty");
    };
    same_as_cp(
        setup,
        &[
            "-r dir a",
            "-r dir target",
            "-r a target",
            "a target",
            "-rf dir target",
            "-r dir mixed",
            "-a dir a mixed",
            "-r dir dangling",
            "-r dir links",
            "-r dir to-a",
        ],
    );
}

#[test]
fn one_file_is_not_copied_onto_itself() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "a a",
            "a .",
            "a ./a",
            "a same-as-a",
            "a to-a",
            "to-a a",
            "-P to-a a",
            "-d to-a to-a",
            "-P to-a to-a",
            "-a a same-as-a",
            "-d a same-as-a",
            "-f a a",
            "-f a same-as-a",
            "-r dir .",
            "-rT dir dir",
            "-rT dir to-dir",
            "-r dir/file dir",
            "-a to-dir .",
            "-f a to-a",
            "-df a to-a",
            "-a a to-a",
            "-b a a",
            "-b a same-as-a",
            "-b a to-a",
            "-b to-a a",
            "-Pb to-a a",
            "-Pb to-a to-a",
            "-bf a a",
            "--backup=t -f a a",
            "--remove-destination a a",
            "--remove-destination a same-as-a",
            "--remove-destination a to-a",
            "--remove-destination to-a a",
            "-P --remove-destination to-a a",
            "-l a a",
            "-l a same-as-a",
            "-l a to-a",
            "-lf a to-a",
            "-lP to-a a",
            "-s a a",
            "-s a same-as-a",
            "-s a to-a",
            "-sf a to-a",
            "-n a a",
            "-u a a",
            "-rl dir .",
            "-rn dir .",
        ],
    );
}

#[test]
fn a_directory_is_not_copied_into_itself() {
    needs!(GnuCp9);
    // How much is copied before it is noticed depends on the order of names; that it ends and is told does not.
    for line in [
        "-r dir dir",
        "-r dir to-dir",
        "-r dir dir/sub",
        "-r dir dir/new",
        "-r dir/.. empty/new",
        "-r . empty",
        "-r dir/sub dir/sub",
        "-rT dir/sub dir/sub/new",
        "-r dir/sub dir/sub/new",
        "-a dir/sub to-dir/sub",
        "-r to-dir/sub dir/sub/",
    ] {
        let [ours, theirs] = [(); 2].map(|()| {
            let sandbox = Sandbox::new();
            shop(&sandbox);
            sandbox
        });
        let expected = theirs.cp(line.split(' ')).run();
        let run = ours.poolcp(line.split(' ')).run();
        assert_eq!(
            (run.code, run.messages()),
            (1, expected.messages()),
            "cp {line}"
        );
        let depth = walk_depth(&ours.path("."));
        assert!(depth < 6, "cp {line}: {depth} levels");
    }
}

fn walk_depth(dir: &std::path::Path) -> usize {
    let below = fs::read_dir(dir).expect("list").map(|entry| {
        let entry = entry.expect("entry");
        let is_dir = entry.file_type().expect("type").is_dir();
        if is_dir { walk_depth(&entry.path()) } else { 0 }
    });
    1 + below.max().unwrap_or(0)
}

#[test]
fn links_at_the_destination_are_written_through_or_replaced_as_with_cp() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "b to-a",
            "b dangling",
            "-f b dangling",
            "-a b to-a",
            "-a b dangling",
            "-d to-dir to-a",
            "-P to-dir to-a",
            "-P dangling a",
            "-P dangling b empty",
            "-rT other to-dir",
            "-p b to-a",
            "-T b to-dir",
            "-T b to-empty",
        ],
    );
    let merge = |sandbox: &Sandbox| {
        for name in ["file", "through", "dangling"] {
            sandbox.file(format!("source/{name}"), 100);
        }
        sandbox.symlink("source/link", "file");
        sandbox.file("outside", 5);
        sandbox.symlink("target/through", "../outside");
        sandbox.symlink("target/dangling", "../nowhere");
        sandbox.file("target/link", 5);
    };
    same_as_cp(
        merge,
        &[
            "-r -T source target",
            "-a -T source target",
            "-rf -T source target",
        ],
    );
}

#[test]
fn a_link_that_this_run_made_is_not_written_through() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.symlink("1/name", "../victim");
        sandbox.file("2/name", 100);
        sandbox.file("victim", 5);
        sandbox.dir("target");
    };
    same_as_cp(
        setup,
        &["-P 1/name 2/name target", "-r 1/name 2/name target"],
    );
    // Below an operand cp does write through it.
    let sandbox = Sandbox::new();
    setup(&sandbox);
    let run = sandbox.poolcp(["-a", "1/.", "2/.", "target"]).run();
    let victim = fs::read(sandbox.path("victim")).expect("read");
    assert_eq!((run.code, victim.len()), (1, 5), "{run:?}");
}

#[test]
fn two_sources_of_one_name_are_told_as_with_cp() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("1/name", 100);
        sandbox.file("2/name", 200);
        sandbox.file("1/dir/file", 10);
        sandbox.file("2/dir/other", 10);
        sandbox.file("2/dir/file", 20);
        sandbox.dir("target");
    };
    same_as_cp(
        setup,
        &[
            "1/name 2/name target",
            "1/name 1/name target",
            "-r 1/dir 2/dir target",
            "-r 1/dir 1/dir target",
            "-r 1/dir 1/dir/ target",
            "-a 1/. 2/. target",
        ],
    );
}

#[test]
fn no_clobber_leaves_what_is_there() {
    needs!(GnuCp9);
    needs!(SilentNoClobber);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        sandbox.file("target/dir", 10);
        sandbox.file("target/a/file", 10);
    };
    same_as_cp(
        setup,
        &[
            "-n a b",
            "-nf a b",
            "-n a b other empty",
            "-rn dir/. other",
            "-an dir/. other",
            "-n a a",
            "-n a same-as-a",
            "-n b to-a",
            "-n b dangling",
            "-rn dir target",
            "-rn a target",
            "-n dir/file other/file empty",
        ],
    );
    let sandbox = Sandbox::new();
    shop(&sandbox);
    let run = sandbox.poolcp(["-rn", "--report=json", "dir/.", "other"]);
    let report = run.ok().json();
    assert_eq!(report["skipped"], 1);
    assert_eq!(report["files"], 1);
}

#[test]
fn a_file_that_cannot_be_opened_is_replaced_only_by_force() {
    needs!(GnuCp9);
    needs!(OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        chmod(&sandbox.path("b"), 0o444);
        chmod(&sandbox.path("other/file"), 0o000);
        sandbox.give_to_ordinary_user();
    };
    same_as_cp_when(
        setup,
        &[
            "a b",
            "-f a b",
            "-r dir/. other",
            "-rf dir/. other",
            "-af dir/. other",
        ],
        Call::by_ordinary_user,
    );
}

#[test]
fn special_files_at_the_destination_are_treated_as_with_cp() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/name", 100);
        sandbox.fifo("source/fifo");
        sandbox.symlink("source/link", "name");
        sandbox.file("target/fifo", 10);
        sandbox.file("target/link", 10);
        sandbox.socket("target/name2");
        sandbox.fifo("fifos/fifo");
        sandbox.fifo("fifos/link");
    };
    same_as_cp(
        setup,
        &[
            "-a -T source target",
            "-r -T source target",
            "-a -T source fifos",
            "source/name /dev/null",
            "source/name /dev/full",
        ],
    );
}

#[test]
fn a_copy_ends_though_links_and_mounts_lead_from_its_source_to_itself() {
    let told = |source: &str, copy: &str| {
        format!("cannot copy a directory, '{source}', into itself, '{copy}'")
    };
    // The source shows an older copy, which is merged into.
    let sandbox = Sandbox::new();
    sandbox.file("source/x/file", 10);
    let older = sandbox.dir("copy/source/x");
    sandbox.symlink("source/x/older", &older);
    let run = sandbox.poolcp(["-rL", "source", "copy"]).run();
    assert_eq!(run.messages(), [told("source", "copy/source").as_str()]);
    assert!(sandbox.path("copy/source/x/file").exists());

    // The copy's directory is one in the source.
    let sandbox = Sandbox::new();
    let inner = sandbox.dir("source/x/y");
    sandbox.dir("copy");
    sandbox.symlink("copy/x", &inner);
    let args = ["-rT", "--keep-directory-symlink", "source", "copy"];
    let run = sandbox.poolcp(args).run();
    assert_eq!(run.messages(), [told("source", "copy").as_str()]);

    needs!(Mount);
    let sandbox = Sandbox::new();
    let inner = sandbox.dir("source/x/y");
    let _mount = Mount::bind(&inner, &sandbox.dir("copy/x")).expect("a mount");
    let run = sandbox.poolcp(["-aT", "source", "copy"]).run();
    assert_eq!(run.messages(), [told("source", "copy").as_str()]);
}

#[test]
fn a_copy_into_itself_through_another_filesystem_ends() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    let disk = sandbox.dir("disk");
    let _disk = Mount::tmpfs(&disk, "1G").expect("a filesystem");
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| sandbox.dir(Path::new("disk").join(name)));
    let Some(_overlay) = Mount::overlay(&lower, &upper, &work, &merged) else {
        return;
    };
    sandbox.file("disk/merged/file", 10);
    let run = sandbox
        .poolcp(["-a", "disk/upper", "disk/merged/copy"])
        .run();
    let told = "cannot copy a directory, 'disk/upper', into itself, 'disk/merged/copy'";
    assert_eq!((run.code, run.messages()), (1, vec![told]));
}

#[test]
fn nothing_is_written_through_a_directory_link_that_this_run_has_made() {
    let sandbox = Sandbox::new();
    let outside = sandbox.dir("outside");
    sandbox.dir("a/t");
    sandbox.symlink("a/t/x", &outside);
    sandbox.file("b/t/x/f", 10);
    sandbox.dir("copy");
    let args = ["-r", "--keep-directory-symlink", "a/t", "b/t", "copy"];
    let told = "will not copy 'b/t/x' through just-created symlink 'copy/t/x'";
    sandbox.poolcp(args).fails(&[told]);
    assert!(!outside.join("f").exists());

    // One operand, whose directories are one at the destination.
    for is_there in [true, false] {
        let sandbox = Sandbox::new();
        let precious = sandbox.file("precious", 10);
        sandbox.dir("source/a");
        sandbox.symlink("source/a/x", &precious);
        sandbox.file("source/b/x", 20);
        sandbox.symlink("copy/b", "a");
        if is_there {
            sandbox.dir("copy/a");
        }
        let args = ["-rT", "-j1", "--keep-directory-symlink", "source", "copy"];
        // Whichever comes first: the link may be there to be written through, or to be made.
        let _ = sandbox.poolcp(args).run();
        assert_eq!(fs::metadata(&precious).expect("stat").len(), 10);
    }
}

#[test]
fn a_file_may_be_written_where_its_directory_may_not() {
    needs!(Mount);
    let sandbox = Sandbox::new();
    sandbox.file("source", 10);
    let dir = sandbox.dir("read-only");
    let _mount = Mount::tmpfs(&dir, "1M").expect("a mount");
    let file = sandbox.file("read-only/file", 20);
    let writable = sandbox.file("writable", 20);
    let _file = Mount::bind(&writable, &file).expect("a mount");
    let mut remount = Command::new("mount");
    let remounted = remount.args(["-o", "remount,ro,bind"]).arg(&dir).status();
    assert!(remounted.expect("mount").success());
    sandbox.poolcp(["source", "read-only/file"]).ok();
    assert_eq!(fs::metadata(&writable).expect("stat").len(), 10);
}

#[test]
fn operands_that_are_each_others_backups_are_all_there() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.dir("target");
        for number in 0..20 {
            sandbox.file(format!("target/f{number}"), 1);
            sandbox.file(format!("f{number}"), 2);
            sandbox.file(format!("f{number}~"), 3);
            sandbox.file(format!("f{number}.x"), 4);
        }
    };
    let operands: Vec<String> = ["", "~", ".x"]
        .iter()
        .flat_map(|end| (0..20).map(move |number| format!("f{number}{end}")))
        .collect();
    let operands = operands.join(" ");
    for options in ["-b", "-b -S .x"] {
        same_as_cp(setup, &[&format!("{options} {operands} target")]);
    }
}

#[test]
fn a_stream_may_be_the_destination() {
    let sandbox = Sandbox::new();
    sandbox.file("large", 300_000);
    let fifo = sandbox.fifo("fifo");
    let reader = std::thread::spawn(move || fs::read(fifo).map(|bytes| bytes.len()));
    sandbox.poolcp(["large", "fifo"]).ok();
    assert_eq!(reader.join().expect("a reader").expect("read"), 300_000);
    sandbox.poolcp(["large", "/dev/null"]).ok();
}

#[test]
fn a_destination_that_may_be_written_but_not_read_is_written() {
    needs!(GnuCp9, OrdinaryUser);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("s/file", 10);
        sandbox.file("s/sub/file", 10);
        sandbox.dir("d/s/sub");
        sandbox.dir("locked/s");
        sandbox.dir("empty");
        sandbox.give_to_ordinary_user();
        chmod(&sandbox.path("d/s"), 0o300);
        chmod(&sandbox.path("locked/s"), 0);
    };
    same_as_cp_when(
        setup,
        &["-r s d", "-a s d", "-r s locked", "-r empty/. locked/s"],
        Call::by_ordinary_user,
    );
}

#[test]
fn nothing_is_read_for_a_name_that_no_file_can_take() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        sandbox.file("large", 5 << 20);
    };
    same_as_cp(
        setup,
        &[
            "large nowhere/",
            "large dir/nowhere/",
            "large dangling/",
            "large a/",
            "/dev/null nowhere/",
            "-T large empty/",
            "-u large nowhere/",
        ],
    );
    let sandbox = Sandbox::new();
    shop(&sandbox);
    // Copied first, it would fill the disk.
    for option in ["--atomic=auto", "--atomic=always"] {
        let call = sandbox.call(poolcp(), ["-q", option, "/dev/zero", "nowhere/"]);
        let run = call.patience(std::time::Duration::from_secs(10)).run();
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(
            run.messages()[0],
            "cannot create regular file 'nowhere/': Not a directory"
        );
    }
}

#[test]
fn one_file_by_two_ways_is_not_one_named_twice() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        sandbox.symlink("here", ".");
    };
    same_as_cp(
        setup,
        &[
            "a here/a empty",
            "a here//a empty",
            "a ./a empty",
            "dir/file to-dir/file empty",
            "-n a here/a empty",
            "-l a here/a empty",
            "a here/./a empty",
        ],
    );
}
