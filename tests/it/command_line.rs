//! How options are spelled and complained about, and the ones that make something other than a plain copy: links, attributes
//! only, leading directories, contents of special files, `-v` and `--debug`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Sandbox, chmod, mode, set_mtime};
use crate::programs::poolcp;
use crate::referees::{same_as_cp, same_as_cp_when};

fn shop(sandbox: &Sandbox) {
    sandbox.file("a", 100);
    sandbox.file("b", 200);
    sandbox.file("dir/a", 300);
    sandbox.file("dir/sub/deep", 400);
    sandbox.symlink("dir/link", "sub");
    sandbox.hard_link("dir/same", "dir/a");
    sandbox.symlink("to-a", "a");
    sandbox.symlink("to-dir", "dir");
    sandbox.dir("d");
    sandbox.file("old/a", 5);
    sandbox.file("old/b", 6);
    sandbox.symlink("old/to-a", "../b");
}

#[test]
fn options_are_read_by_getopts_rules() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "--rec dir new",
            "--r dir new",
            "--re dir new",
            "--no a d",
            "--s a d",
            "--t=d a",
            "--t d a",
            "--targ d a",
            "--preserve a d",
            "--preserve=mode,time a d",
            "--preserve=mode,bogus a d",
            "--preserve= a d",
            "--preserve=x a d",
            "--no-preserve a d",
            "--no-preserve mode a d",
            "--recursive=x dir new",
            "--bogus a d",
            "--bogus=1 a d",
            "-rQ dir new",
            "-h",
            "-V",
            "--suffix",
            "-S",
            "-t",
            "-rt d dir a",
            "-rtd dir a",
            "a -r dir d",
            "a d -t",
            "-- -r d",
            "-r -- dir new",
            "a d --",
            "-t d -t old a",
            "-T -t d a",
            "-l -s a new",
            "--sparse a d",
            "--sparse=x a d",
            "--reflink=x a d",
            "--reflink=n a d",
            "--backup=x a d",
            "--path dir/a d",
            "--pa dir/a d",
            "--pat dir/a d",
            "--p dir/a d",
            "-Z a d",
            "--context a d",
            "--context=x a d",
            "--context=x",
            "--preserve=context a d",
            "-a --no-preserve=context a d",
            "",
        ],
    );
}

#[test]
fn with_posixly_correct_the_first_operand_ends_the_options() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        sandbox.symlink("dangling", "made-through-it");
    };
    same_as_cp_when(
        setup,
        &[
            "a -r",
            "dir d -r",
            "-r dir d",
            "a dangling",
            "-v b -v d",
            "-S .x -b a b",
        ],
        |call| call.env("POSIXLY_CORRECT", "1"),
    );
}

#[test]
fn options_of_its_own_take_no_abbreviation_from_cps() {
    let sandbox = Sandbox::new();
    shop(&sandbox);
    sandbox.poolcp(["--rep=none", "a", "d"]).fails(&[
        "Try 'poolcp --help' for more information.",
        "unrecognized option '--rep=none'",
    ]);
    sandbox.poolcp(["--threads", "3", "--quiet", "a", "d"]).ok();
}

#[test]
fn help_and_version_are_answered_where_they_are_met() {
    let sandbox = Sandbox::new();
    let run = sandbox.poolcp(["--vers", "--bogus"]).ok();
    assert!(run.stdout.starts_with("poolcp "), "{run:?}");
    let run = sandbox.poolcp(["--help"]).ok();
    for option in ["--backup", "--keep-directory-symlink", "--threads", "-Z"] {
        assert!(run.stdout.contains(option), "{option}");
    }
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn links_are_made_instead_of_copies() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "-l a new",
            "-l a d",
            "-l a b d",
            "-l a old",
            "-lf a old",
            "-lv a d",
            "-l --remove-destination a old",
            "-lb a old",
            "-l b old",
            "-l a a",
            "-l to-a new",
            "-lP to-a new",
            "-rl dir d",
            "-al dir d",
            "-rl dir old",
            "-rlv dir new",
            "-l dir new",
            "-s a new",
            "-s a d",
            "-s a ./new",
            "-sf a b",
            "-s a b",
            "-sb a b",
            "-s a a",
            "-sP to-a new",
            "-sp a new",
            "-rs dir new",
        ],
    );
}

#[test]
fn symbolic_links_to_absolute_sources_make_a_tree() {
    let sandbox = Sandbox::new();
    shop(&sandbox);
    let source = sandbox.path("dir");
    let words = ["-rs".as_ref(), source.as_os_str(), "d".as_ref()];
    sandbox.poolcp(words).ok();
    let link = fs::read_link(sandbox.path("d/dir/sub/deep")).expect("a symbolic link");
    assert_eq!(link, source.join("sub/deep"));
    assert!(sandbox.path("d/dir/sub").is_dir());
}

#[test]
fn attributes_are_copied_without_data() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        chmod(&sandbox.path("a"), 0o640);
        set_mtime(&sandbox.path("a"), 1_000_000_000, 5);
    };
    same_as_cp(
        setup,
        &[
            "--attributes-only a new",
            "--attributes-only a b",
            "--attributes-only -p a b",
            "--attributes-only -p a new",
            "-a --attributes-only dir d",
            "-a --attributes-only dir/. old",
            "--attributes-only -d to-a old",
            "--attributes-only -df to-a old",
            "--attributes-only --remove-destination a old",
        ],
    );
}

#[test]
fn leading_directories_are_made_with_parents() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        shop(sandbox);
        chmod(&sandbox.path("dir/sub"), 0o750);
        chmod(&sandbox.path("dir"), 0o1711);
        set_mtime(&sandbox.path("dir/sub"), 1_000_000_000, 5);
        set_mtime(&sandbox.path("dir"), 1_100_000_000, 5);
        sandbox.file("full/dir", 1);
        sandbox.dir("half/dir");
    };
    let lines = [
        "--parents dir/sub/deep d",
        "--parents -v dir/sub/deep d",
        "--parents -p dir/sub/deep d",
        "--parents -a dir/sub/deep half",
        "--parents -p dir/a dir/sub/deep d",
        "--parents -r dir/sub d",
        "--parents -r dir/sub/ d",
        "--parents ./dir//sub/deep d",
        "--parents -t d dir/a a",
        "--parents a new",
        "--parents -T a new",
        "--parents dir/a full",
        "--parents missing/a d",
        "--parents dir/missing d",
        "--parents a/b d",
        "--parents --no-preserve=mode dir/sub/deep d",
        "--parents to-dir/a d",
        "--strip-trailing-slashes -r dir/ d",
        "--strip-trailing-slashes -d to-dir/ d",
        "-r --strip-trailing-slashes dir/ new",
    ];
    same_as_cp(setup, &lines);
    same_as_cp_when(setup, &lines, |call| call.umask(0o077));
}

#[test]
fn leading_directories_are_told_by_their_bytes() {
    needs!(GnuCp9);
    let sandbox = Sandbox::new();
    let name = OsStr::from_bytes(b"not \xffUTF-8/file");
    sandbox.file(name, 10);
    let told = |program: &Path| {
        let target = sandbox.dir("target");
        let call = Command::new(program)
            .current_dir(sandbox.path(""))
            .args(["-v", "--parents"])
            .args([name, OsStr::new("target")])
            .output();
        fs::remove_dir_all(target).expect("remove");
        call.expect("start").stdout
    };
    let ours = told(poolcp());
    assert_eq!(
        ours.escape_ascii().to_string(),
        told(Path::new("cp")).escape_ascii().to_string()
    );
}

#[test]
fn contents_of_a_fifo_are_copied_with_no_more_permission_than_it_has() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.fifo("s/fifo");
    chmod(&fifo, 0o600);
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, "through the pipe")
    });
    sandbox
        .poolcp(["-r", "--copy-contents", "s", "new"])
        .umask(0)
        .ok();
    writer.join().expect("a writer").expect("written");
    let copy = sandbox.path("new/fifo");
    assert_eq!(fs::read(&copy).expect("a file"), b"through the pipe");
    assert_eq!(mode(&copy), 0o600);
}

#[test]
fn a_symbolic_link_to_a_directory_may_be_kept() {
    let sandbox = Sandbox::new();
    sandbox.file("s/dir/file", 10);
    sandbox.dir("d/real");
    sandbox.symlink("d/dir", "real");
    sandbox.symlink("dangling/dir", "nowhere");
    sandbox
        .poolcp(["-r", "s/.", "d"])
        .fails(&["cannot overwrite non-directory 'd/./dir' with directory 's/./dir'"]);
    sandbox
        .poolcp(["-r", "--keep-directory-symlink", "s/.", "d"])
        .ok();
    assert!(sandbox.path("d/real/file").exists());
    assert!(sandbox.path("d/dir").is_symlink());
    sandbox
        .poolcp(["-r", "--keep-directory-symlink", "s/.", "dangling"])
        .fails(&["cannot overwrite non-directory 'dangling/./dir' with directory 's/./dir'"]);
}

#[test]
fn each_thing_done_is_a_line() {
    needs!(GnuCp9);
    same_as_cp(
        shop,
        &[
            "-v a new",
            "-v a b old",
            "-rv dir new",
            "-rv dir/ new",
            "-rv dir// d",
            "-av dir d",
            // Which of the names of one file comes first is anybody's guess.
            "-av dir/sub/. old",
            "-vb a b old",
            "-nv a b old",
            "-uv a old",
            "-dv to-a old",
            "-v --remove-destination a old",
            "-v missing d",
        ],
    );
}

#[test]
fn debug_says_how_a_file_was_copied() {
    let sandbox = Sandbox::in_memory();
    sandbox.file("small", 100);
    sandbox.file("large", 1 << 20);
    sandbox.sparse("sparse", 1 << 20, &[(0, 5000)]);
    sandbox.file("d/small", 5);
    let lines = |words: &[&str]| {
        let run = sandbox.poolcp(["--debug"].iter().chain(words)).run();
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let shown = lines(&["--reflink=never", "small", "new"]);
    let way = "copy offload: avoided, reflink: no, sparse detection: no";
    assert_eq!(shown, ["'small' -> 'new'", way]);
    let shown = lines(&["sparse", "new-sparse"]);
    assert_eq!(shown.len(), 2);
    assert!(
        shown[1].ends_with("sparse detection: SEEK_HOLE"),
        "{shown:?}"
    );
    let shown = lines(&["--sparse=always", "large", "zeros"]);
    assert!(
        shown[1].ends_with("reflink: no, sparse detection: zeros"),
        "{shown:?}"
    );
    assert_eq!(lines(&["-n", "small", "d"]), ["skipped 'd/small'"]);
    assert_eq!(lines(&["-l", "small", "linked"]), ["'small' -> 'linked'"]);
    // However many workers there are, the two lines of a file stay together.
    for i in 0..300 {
        sandbox.file(format!("many/{i}"), 10);
    }
    let shown = lines(&["-j8", "-r", "many", "all"]);
    assert_eq!(shown.len(), 1 + 2 * 300);
    for pair in shown[1..].chunks(2) {
        assert!(pair[0].starts_with("'many/") && pair[1].starts_with("copy offload"));
    }
}

#[test]
fn what_is_no_option_or_glob_does_not_speak_to_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.file("a", 10);
    for (option, shown) in [
        (
            "--\x1b]0;x\x07",
            "unrecognized option '--'$'\\033'']0;x'$'\\a'",
        ),
        ("--no\x1b", "unrecognized option '--no'$'\\033'"),
        ("--exclude=[\x1b", "invalid glob: '['$'\\033'"),
    ] {
        let run = sandbox.poolcp([option, "a", "copy"]).run();
        assert!(
            !run.stderr.contains('\x1b') && run.stderr.contains(shown),
            "{run:?}"
        );
    }
}
