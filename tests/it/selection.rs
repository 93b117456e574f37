//! What is left out: by globs, by .gitignore files as git itself sees them, by size and by age.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::harness::{NOBODY, Sandbox, chmod, chown, set_mtime};

/// The files below a directory, without it.
fn files(dir: &Path) -> BTreeSet<String> {
    fn collect(top: &Path, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(top, &path, found);
            } else {
                let path = path.strip_prefix(top).expect("below the top");
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(dir, dir, &mut found);
    found
}

const TREE: [&str; 9] = [
    "main.c",
    "main.o",
    "build/out",
    "doc/a.pdf",
    "doc/b.txt",
    "lib/build/x.o",
    "lib/doc/c.pdf",
    "lib/util.c",
    "lib/util.h",
];

/// Copies the tree with some options; what was left out is returned, in order, with spaces between.
fn left_out(options: &[&str]) -> String {
    let sandbox = Sandbox::new();
    for name in TREE {
        sandbox.file(format!("source/{name}"), 1);
    }
    sandbox
        .poolcp([options, &["-rT", "source", "copy"]].concat())
        .ok();
    let copied = files(&sandbox.path("copy"));
    let missing = files(&sandbox.path("source"))
        .difference(&copied)
        .cloned()
        .collect::<Vec<_>>();
    missing.join(" ")
}

#[test]
fn globs_leave_out_and_bring_back() {
    assert_eq!(left_out(&["--exclude=*.o"]), "lib/build/x.o main.o");
    assert_eq!(left_out(&["--exclude=build/"]), "build/out lib/build/x.o");
    assert_eq!(left_out(&["--exclude=/build"]), "build/out");
    assert_eq!(left_out(&["--exclude", "doc/*.pdf"]), "doc/a.pdf");
    assert_eq!(
        left_out(&["--exclude", "**/doc/*.pdf"]),
        "doc/a.pdf lib/doc/c.pdf"
    );
    // The first that matches decides.
    assert_eq!(
        left_out(&["--include=main.o", "--exclude=*.o"]),
        "lib/build/x.o"
    );
    assert_eq!(
        left_out(&["--exclude=*.o", "--include=main.o"]),
        "lib/build/x.o main.o"
    );
    let sources = ["--include=*.c", "--include=*/", "--exclude=*"];
    let rest = "build/out doc/a.pdf doc/b.txt lib/build/x.o lib/doc/c.pdf lib/util.h main.o";
    assert_eq!(left_out(&sources), rest);
    // A directory that is left out is not read.
    assert_eq!(
        left_out(&["--exclude=lib/", "--include=util.c"])
            .matches("lib/")
            .count(),
        4
    );
}

#[test]
fn a_file_of_globs_stands_where_it_is_named() {
    let sandbox = Sandbox::new();
    let globs = sandbox.path("globs");
    fs::write(&globs, "# objects\n\n!main.o\n*.o\r\n").expect("write");
    let from = format!("--exclude-from={}", globs.display());
    assert_eq!(left_out(&[&from]), "lib/build/x.o");
    assert_eq!(
        left_out(&["--exclude=main.o", &from]),
        "lib/build/x.o main.o"
    );
    sandbox.file("source/a", 1);
    sandbox.file("source/b", 1);
    let from_input = ["-rT", "--exclude-from=-", "source", "copy"];
    sandbox.poolcp(from_input).stdin("a\n").ok();
    assert_eq!(
        files(&sandbox.path("copy")).into_iter().collect::<String>(),
        "b"
    );
}

#[test]
fn what_is_wrong_is_told_before_anything_is_copied() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 1);
    for (option, message) in [
        ("--exclude=", "invalid glob: ''"),
        ("--exclude=[a", "invalid glob: '[a'"),
        (
            "--exclude-from=nowhere",
            "cannot open 'nowhere' for reading: No such file or directory",
        ),
        ("--min-size=1x", "invalid size: '1x'"),
        ("--max-size=-1", "invalid size: '-1'"),
        (
            "--newer=sometime",
            "neither a file, nor a date, nor a time ago: 'sometime'",
        ),
    ] {
        let run = sandbox.poolcp(["-r", option, "source", "copy"]).run();
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains(message), "{run:?}");
        assert!(!sandbox.path("copy").exists());
    }
}

#[test]
fn operands_are_left_out_if_they_are_files() {
    let sandbox = Sandbox::new();
    for name in ["a.o", "a.c", "dir.o/b.o", "dir.o/b.c"] {
        sandbox.file(name, 1);
    }
    sandbox.dir("copy");
    let run = sandbox.poolcp([
        "-r",
        "--exclude=*.o",
        "--report=json",
        "a.o",
        "a.c",
        "dir.o",
        "copy",
    ]);
    let report = run.ok().json();
    assert_eq!(report["excluded"], 2);
    let copied: Vec<_> = files(&sandbox.path("copy")).into_iter().collect();
    assert_eq!(copied, ["a.c", "dir.o/b.c"]);
}

#[test]
fn sizes_are_of_files_and_ages_of_all_but_directories() {
    let sandbox = Sandbox::new();
    for (i, size) in [0, 999, 1000, 1024, 1025, 5000].into_iter().enumerate() {
        let path = sandbox.file(format!("source/{size}"), size);
        set_mtime(&path, 1_000_000_000 + i64::try_from(i).expect("few"), 0);
    }
    set_mtime(&sandbox.symlink("source/link", "0"), 1_000_000_000, 0);
    let copied = |options: &[&str]| {
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        sandbox
            .poolcp([options, &["-aT", "source", "copy"]].concat())
            .ok();
        files(&sandbox.path("copy"))
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        copied(&["--min-size=1000", "--max-size=1K"]),
        "1000 1024 link"
    );
    assert_eq!(copied(&["--max-size=999"]), "0 999 link");
    assert_eq!(copied(&["--newer=source/1024"]), "1025 5000");
    assert_eq!(copied(&["--newer=2001-09-09T01:46:43Z"]), "1025 5000");
    assert_eq!(copied(&["--newer=1 hour ago"]), "");
    assert_eq!(
        copied(&["--newer=100 years"]),
        "0 1000 1024 1025 5000 999 link"
    );
}

/// Git's own opinion: what it would add.
fn git_would_add(repository: &Path) -> BTreeSet<String> {
    let git = |args: &[&str]| {
        let out = Command::new("git")
            .args(args)
            .current_dir(repository)
            .env("HOME", repository)
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .expect("run git");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let listed = git(&["ls-files", "--others", "--exclude-standard", "-z"]);
    listed.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn what_git_ignores_is_left_out() {
    needs!(Git);
    let sandbox = Sandbox::new();
    let top = sandbox.dir("repository");
    let init = Command::new("git").args(["init", "-q"]).arg(&top).status();
    assert!(init.expect("run git").success());
    for (file, lines) in [
        (
            ".gitignore",
            "*.o\n!keep.o\n/build/\ndoc/*.pdf\n**/tmp\n# comment\n\\#hash\nspace\\ \nlib/deep/a\n",
        ),
        ("lib/.gitignore", "!*.o\n*.c\n/only-here\n"),
        ("lib/deep/.gitignore", "!important.c\n"),
        (".git/info/exclude", "excluded\n"),
        (".gitconfig", "[core]\nexcludesFile = ~/.mine\n"),
        // Anchored at the top of the repository.
        (".mine", "*.swp\n/secret\nlib/mine\n"),
    ] {
        let path = sandbox.path("repository").join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make");
        fs::write(path, lines).expect("write");
    }
    for name in [
        "a.o",
        "keep.o",
        "build/x",
        "x/build/y",
        "doc/a.pdf",
        "doc/deep/b.pdf",
        "x/tmp/y",
        "#hash",
        "space ",
        "excluded",
        "lib/a.o",
        "lib/a.c",
        "lib/only-here",
        "lib/x/only-here",
        "lib/deep/a",
        "lib/deep/important.c",
        "lib/deep/b.c",
        "a.swp",
        "secret",
        "lib/secret",
        "lib/mine",
        "mine",
    ] {
        sandbox.file(format!("repository/{name}"), 1);
    }
    let copied = |source: &str| {
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        let copy = ["-rT", "--gitignore", "--exclude=/.git", source, "copy"];
        sandbox
            .poolcp(copy)
            .env("HOME", sandbox.path("repository"))
            .ok();
        files(&sandbox.path("copy"))
    };
    let expected = git_would_add(&top);
    assert_eq!(copied("repository"), expected);
    // From inside the repository the rules above hold as well.
    let of_lib: BTreeSet<_> = expected
        .iter()
        .filter_map(|name| name.strip_prefix("lib/").map(str::to_owned))
        .collect();
    assert_eq!(copied("repository/lib"), of_lib);
}

#[test]
fn the_repository_is_found_from_each_operand() {
    let sandbox = Sandbox::new();
    sandbox.file("top/.git/HEAD", 1);
    fs::write(sandbox.path("top/.gitignore"), "*.o\n").expect("write");
    let dirs = ["a", "b", "c"];
    for dir in dirs {
        sandbox.file(format!("top/{dir}/sub/x.o"), 1);
        sandbox.file(format!("top/{dir}/sub/x.c"), 1);
    }
    sandbox.dir("top/copy");
    for (dir, workers) in dirs.iter().zip(["-j1", "-j2", "-j8"]) {
        sandbox.dir(format!("top/{dir}/copy"));
        let to = format!("{dir}/copy");
        let copy = [
            "-r",
            "--gitignore",
            workers,
            "a/sub",
            "b/sub/.",
            "c/sub/.",
            &to,
        ];
        sandbox.poolcp(copy).inside("top").ok();
        let copied = files(&sandbox.path(format!("top/{to}")));
        assert_eq!(copied, ["sub/x.c", "x.c"].map(str::to_owned).into());
    }
}

#[test]
fn what_git_would_ignore_is_not_copied_in_silence() {
    let sandbox = Sandbox::new();
    sandbox.dir("source/.git");
    sandbox.file("source/a.o", 10);
    let rules = sandbox.path("source/.gitignore");
    // git passes over a byte order mark.
    fs::write(&rules, "\u{feff}*.o\n").expect("write");
    sandbox.poolcp(["-r", "--gitignore", "source", "copy"]).ok();
    assert!(!sandbox.path("copy/a.o").exists());
    // More than a matcher is made for.
    let wild = "[a-zA-Z0-9_]*".repeat(40);
    let many: String = (0..2000).map(|n| format!("*{wild}x{n}\n")).collect();
    fs::write(&rules, format!("*.o\n{many}")).expect("write");
    let copy = sandbox.poolcp(["-r", "--gitignore", "source", "again"]);
    copy.fails(&["error reading 'source/.gitignore': File too large"]);
    // More than memory is there for.
    let large = File::create(&rules).expect("create");
    large.set_len(1 << 36).expect("grow");
    let copy = sandbox.poolcp(["-r", "--gitignore", "source", "large"]);
    copy.fails(&["error reading 'source/.gitignore': File too large"]);
}

#[test]
fn white_space_at_the_end_of_a_line_is_what_it_is_to_git() {
    needs!(Git);
    let sandbox = Sandbox::new();
    let top = sandbox.dir("repository");
    let init = Command::new("git").args(["init", "-q"]).arg(&top).status();
    assert!(init.expect("run git").success());
    let rules = "Icon\r\r\nnarrow\u{a0}\nfeed\x0c\ntab\t\nblank  \nkept\\  \nlast\r";
    for name in [
        "Icon\r",
        "narrow\u{a0}",
        "feed\x0c",
        "tab\t",
        "blank",
        "kept ",
        "last",
    ] {
        sandbox.file(format!("repository/{name}"), 1);
        sandbox.file(format!("repository/{}", name.trim_end()), 1);
        sandbox.file(format!("repository/sub/{}", name.trim_end()), 1);
    }
    fs::write(top.join(".gitignore"), rules).expect("write");
    let copy = [
        "-rT",
        "--gitignore",
        "--exclude=/.git",
        "repository",
        "copy",
    ];
    let expected = git_would_add(&top);
    assert!(expected.contains("sub/Icon") && !expected.contains("blank"));
    sandbox.poolcp(copy).ok();
    assert_eq!(files(&sandbox.path("copy")), expected);
}

#[test]
fn whoever_may_write_above_a_directory_does_not_say_what_is_left_out() {
    needs!(Root);
    let sandbox = Sandbox::new();
    sandbox.file("shared/mine/a", 10);
    let git = sandbox.file("shared/.git/HEAD", 1);
    fs::write(sandbox.path("shared/.gitignore"), "*\n").expect("write");
    chown(&sandbox.path("shared/.git"), NOBODY, NOBODY);
    let copied = |copy: &str| {
        let args = ["-r", "--gitignore", "shared/mine", copy];
        let run = sandbox.poolcp(args).run();
        assert_eq!(run.code, 0, "{run:?}");
        (
            !run.stderr.is_empty(),
            sandbox.path(copy).join("a").exists(),
        )
    };
    assert_eq!(copied("others"), (true, true), "it is told");
    // Its owner does.
    chown(&sandbox.path("shared/mine"), NOBODY, NOBODY);
    assert_eq!(copied("owners"), (false, false));
    // What only has the name is no repository.
    fs::remove_file(git).expect("remove");
    assert_eq!(copied("none"), (false, true));
}

#[test]
fn a_repository_in_another_one_and_a_worktree_have_their_own_rules() {
    needs!(Git);
    let sandbox = Sandbox::new();
    let git = |dir: &str, line: &str| {
        let mut git = Command::new("git");
        git.arg("-C").arg(sandbox.path(dir)).args(line.split(' '));
        git.env("HOME", sandbox.path("home"));
        let out = git.output().expect("run git");
        assert!(out.status.success(), "{out:?}");
    };
    sandbox.dir("home");
    let dir = sandbox.dir("top/inner");
    git("top", "init -q");
    git("top/inner", "init -q");
    fs::write(sandbox.path("top/.gitignore"), "*.o\n!\n").expect("write");
    fs::write(dir.join(".git/info/exclude"), "*.tmp\n").expect("write");
    for name in ["a.o", "a.tmp", "a.c"] {
        sandbox.file(format!("top/{name}"), 1);
        sandbox.file(format!("top/inner/{name}"), 1);
    }
    // As git-worktree(1) makes one.
    sandbox.file("top/.git/worktrees/tree/HEAD", 1);
    let common = sandbox.path("top/.git/worktrees/tree/commondir");
    fs::write(common, "../..\n").expect("write");
    fs::write(sandbox.path("top/.git/info/exclude"), "*.tmp\n").expect("write");
    sandbox.file("tree/a.tmp", 1);
    sandbox.file("tree/a.c", 1);
    let leads = format!(
        "gitdir: {}\n",
        sandbox.path("top/.git/worktrees/tree").display()
    );
    fs::write(sandbox.path("tree/.git"), leads).expect("write");
    let copied = |source: &str, copy: &str| {
        let args = ["-rT", "--gitignore", "--exclude=.git*", source, copy];
        let home = sandbox.path("home");
        sandbox
            .poolcp(args)
            .env("HOME", home.to_str().unwrap())
            .ok();
        files(&sandbox.path(copy))
    };
    let expected = ["a.c", "inner/a.c", "inner/a.o"].map(str::to_owned).into();
    assert_eq!(copied("top", "copy"), expected);
    assert_eq!(copied("tree", "copy2"), ["a.c".to_owned()].into());
}

#[test]
fn a_link_that_is_followed_is_left_out_as_what_it_leads_to() {
    let sandbox = Sandbox::new();
    sandbox.file("real/x.c", 1);
    sandbox.file("source/m.c", 1);
    sandbox.file("source/m.o", 1);
    sandbox.symlink("source/lib", "../real");
    sandbox.file("copy/lib/x.c", 9);
    let globs = ["--include=*/", "--include=*.c", "--exclude=*"];
    let args = ["-rLT", "--update=changed", "--delete", "source", "copy"];
    sandbox.poolcp(globs.into_iter().chain(args)).ok();
    let expected: BTreeSet<String> = ["lib/x.c", "m.c"].map(str::to_owned).into();
    assert_eq!(files(&sandbox.path("copy")), expected);

    // What cannot be looked at is no file that is left out.
    needs!(OrdinaryUser);
    sandbox.file("away/dir/x.c", 1);
    fs::remove_file(sandbox.path("source/lib")).expect("remove");
    sandbox.symlink("source/lib", "../away/dir");
    sandbox.give_to_ordinary_user();
    chmod(&sandbox.path("away"), 0);
    let call = sandbox.poolcp(globs.into_iter().chain(args));
    let run = call.by_ordinary_user().run();
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(files(&sandbox.path("copy")), expected);
}

#[test]
fn globs_mean_what_they_mean_to_git() {
    needs!(Git);
    let sandbox = Sandbox::new();
    let names = [
        "a",
        "b",
        "z",
        "-",
        "5",
        "{a,b}",
        "a{b",
        "ab}",
        "x.o",
        "x.a",
        "x.{o,a}",
        "[a",
        "a]",
        "]",
        "^",
        "!",
        "\\",
        "a\t",
        "xaa",
        "xba",
        "x/a",
        "dir/sub/xba",
        "A",
        "a b",
        "é",
    ];
    for name in names {
        sandbox.file(Path::new("repository").join(name), 1);
    }
    let repository = sandbox.path("repository");
    let mut init = Command::new("git");
    let init = init.args(["init", "-q"]).arg(&repository).status();
    assert!(init.expect("run git").success());
    for rules in [
        "{a,b}",
        "*.{o,a}",
        "x.{o,a}",
        "a{b",
        "ab}",
        "a\t",
        "a\t ",
        "[a",
        "[[:alpha:]]",
        "[[:alpha:]]]",
        "[[:digit:]]",
        "[[:x:]]",
        "[a\\-z]",
        "x[/]a",
        "x[!a]a",
        "[!a]",
        "[\\]a]",
        "[]a]",
        "[b-a]",
        "[+--]",
        "[^-^]",
        "[\\!^]",
        "\\[a",
        "a\\",
        "dir/*/x[!a]a",
        "[é]",
        "[à-ü]",
        "*[!o]",
        "# [!x]",
        "[/x]a",
        "\\/",
        "x\\/",
        "!a\n",
        "*\n!a",
    ] {
        fs::write(repository.join(".gitignore"), format!("{rules}\n")).expect("write");
        let copy = sandbox.path("copy");
        sandbox
            .poolcp(["-rT", "--gitignore", "--exclude=.git", "repository", "copy"])
            .ok();
        assert_eq!(files(&copy), git_would_add(&repository), "{rules:?}");
        fs::remove_dir_all(&copy).expect("remove");
    }
}

#[test]
fn rules_take_no_more_than_they_may_whoever_wrote_them() {
    let sandbox = Sandbox::new();
    sandbox.dir("source/.git");
    sandbox.file("source/a", 10);
    // Each could be the name of a class.
    let rules = format!("[{}\n", "[:".repeat(300_000));
    fs::write(sandbox.path("source/.gitignore"), rules).expect("write");
    sandbox.poolcp(["-r", "--gitignore", "source", "copy"]).ok();
    // What holds for a directory counts together.
    let rules = "x\n".repeat(200_000);
    fs::write(sandbox.path("source/.gitignore"), &rules).expect("write");
    let dir = sandbox.dir("source/a-directory/and-another");
    for dir in [dir.parent().expect("one"), &dir] {
        fs::write(dir.join(".gitignore"), &rules).expect("write");
    }
    let told = "error reading 'source/a-directory/and-another/.gitignore': File too large";
    sandbox
        .poolcp(["-r", "--gitignore", "source", "again"])
        .fails(&[told]);
}
