//! Random trees: the copy is the same as its source, whatever is in it, and merging gives what `cp` gives. A failure
//! shrinks to the smallest tree that shows it.
//!
//! One of 100,000 entries with everything in it, in a few minutes: `cargo test --release --test it -- --ignored
//! hundred_thousand`

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseResult, TestRunner};

use crate::disks::{Disk, Format};
use crate::harness::{Sandbox, chmod, mode};
use crate::needs::Need;
use crate::programs::Run;
use crate::random_tree::{Item, NAMES, What, attributes, check, make, tree, what, workers};
use crate::referees::assert_rsync_agrees;
use crate::snapshot::{Snapshot, assert_same};

/// Fails the case, and lets it shrink, if there is a difference.
fn same(expected: &Snapshot, found: &Snapshot, what: &str) -> TestCaseResult {
    match expected.difference(found) {
        None => Ok(()),
        Some(difference) => Err(TestCaseError::fail(format!("{what}:\n{difference}"))),
    }
}

#[test]
fn an_archive_is_the_same_as_its_source() {
    needs!(GnuCp9);
    let rsync = Need::Rsync.is_met();
    if !rsync {
        crate::needs::say_skipped("it::trees, rsync's opinion", Need::Rsync);
    }
    check(&(tree(), workers()), |(items, workers)| {
        let sandbox = Sandbox::new();
        make(&sandbox, "source", &items);
        let run = sandbox.poolcp(["-a", &workers, "source", "copy"]).run();
        prop_assert!(run.code == 0 && run.stderr.is_empty(), "{:?}", run);
        let source = Snapshot::of(&sandbox.path("source"));
        let copy = Snapshot::of(&sandbox.path("copy"));
        same(&source, &copy, "source and copy")?;
        let expected = sandbox.cp(["-a", "source", "cp"]).run();
        prop_assert_eq!(expected.code, 0);
        same(
            &Snapshot::of(&sandbox.path("cp")),
            &copy,
            "cp's copy and ours",
        )?;
        if rsync {
            assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
        }
        Ok(())
    });
}

/// What in a target gives the same whatever the order in which names are copied: the workers' is not `cp`'s.
fn is_stable(item: &Item, source_has_links: bool) -> bool {
    match item.what {
        // Two names could be written through, one after the other.
        What::HardLink(_) => false,
        What::Symlink(".." | "/") => true,
        // A file's first name is refused, its other names replace what is there.
        What::Symlink(target) => target == "nowhere" && !source_has_links,
        What::Socket => !source_has_links,
        // cp would wait for a reader.
        What::Fifo => false,
        What::Dir | What::File(_) | What::Sparse(..) => true,
    }
}

/// Merges a random tree into another with `cp` and with poolcp, on twins.
fn check_merge(options: &'static str) {
    check(
        &(tree(), tree(), workers()),
        |(source, mut target, workers)| {
            let has_links = source
                .iter()
                .any(|item| matches!(item.what, What::HardLink(_)));
            target.retain(|item| is_stable(item, has_links));
            for item in &mut target {
                // cp leaves those of a directory that is there.
                item.attributes.mode &= 0o777;
            }
            let twins = [Sandbox::new(), Sandbox::new()];
            for twin in &twins {
                make(twin, "source", &source);
                make(twin, "target", &target);
            }
            let [ours, theirs] = &twins;
            let expected = theirs.cp([options, "source/.", "target"]).run();
            let run = ours.poolcp([options, &workers, "source/.", "target"]).run();
            // How names with quotes are quoted is another test's business.
            let told = |run: &Run| (run.code, run.messages().join("\n").replace('\'', ""));
            prop_assert_eq!(told(&run), told(&expected));
            let seen = |twin: &Sandbox| {
                let seen = Snapshot::of(&twin.path("target")).blurred();
                match options {
                    // A directory changes when a file in it is replaced by a new one.
                    "-r" => seen.without_times_of_directories(),
                    _ => seen,
                }
            };
            let (theirs, ours) = (seen(theirs), seen(ours));
            same(&theirs, &ours, "cp's merged tree and ours")
        },
    );
}

#[test]
fn an_archive_merges_into_a_tree_as_with_cp() {
    needs!(GnuCp9);
    check_merge("-a");
}

#[test]
fn a_plain_copy_merges_into_a_tree_as_with_cp() {
    needs!(GnuCp9);
    check_merge("-r");
}

#[test]
fn every_byte_is_copied_in_a_name_is_copied() {
    let sandbox = Sandbox::new();
    let bytes = (1..=255_u8).filter(|&byte| byte != b'/');
    for byte in bytes {
        let names: [OsString; 2] = [
            OsStr::from_bytes(&[byte]).to_owned(),
            OsStr::from_bytes(&[byte, b'.']).to_owned(),
        ];
        for name in names.iter().filter(|name| *name != "." && *name != "..") {
            sandbox.file(Path::new("source").join(name), 1);
        }
    }
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    let source = Snapshot::of(&sandbox.path("source"));
    assert_eq!(source.len(), 1 + 254 * 2 - 2);
    crate::snapshot::assert_same(&source, &Snapshot::of(&sandbox.path("copy")), "-a");
}

/// A random tree of so many items (some of which find their names taken), with all that [`make`] can make, and hard links across
/// all of it.
fn check_large(items: usize) {
    let sandbox = Sandbox::in_memory();
    let mut runner = TestRunner::deterministic();
    let item = (0..usize::MAX, select(&NAMES[..]), what(), attributes());
    let mut sample = || {
        let tree = item.new_tree(&mut runner).expect("a sample");
        let (parent, name, what, attributes) = tree.current();
        let what = match what {
            // All of them as they are would be gigabytes.
            What::File(size) if parent % 64 != 0 => What::File(size % 7000),
            What::Sparse(size, data) if parent % 64 != 0 => {
                let short = |(offset, len)| (offset, len % 7000);
                What::Sparse(size, data.into_iter().map(short).collect())
            }
            What::HardLink(_) => What::HardLink(parent),
            what => what,
        };
        Item {
            parent,
            name,
            what,
            attributes,
        }
    };
    let items: Vec<Item> = (0..items).map(|_| sample()).collect();
    make(&sandbox, "source", &items);
    let entries = Snapshot::of(&sandbox.path("source")).len();
    let compare = |copy: &str| {
        let [source, copy] = ["source", copy].map(|name| sandbox.path(name));
        assert_rsync_agrees(&source, &copy);
        crate::snapshot::assert_same_tree(&source, &copy, "-a");
    };
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    compare("copy");
    sandbox.poolcp(["-aT", "source", "copy"]).ok();
    compare("copy");
    fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    let always = ["-a", "-j16", "--atomic=always", "source", "always"];
    sandbox.poolcp(always).ok();
    compare("always");
    crate::needs::say(&format!("a tree of {entries} entries was copied"));
}

#[test]
fn a_large_tree_with_everything_in_it_is_copied() {
    needs!(Rsync, Root);
    check_large(3000);
}

#[test]
#[ignore = "takes minutes"]
fn a_tree_of_a_hundred_thousand_entries_is_copied() {
    needs!(Rsync, Root);
    check_large(180_000);
}

/// The modes of all directories, by path.
fn dir_modes(top: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = vec![(PathBuf::new(), mode(top))];
    let mut at = 0;
    while let Some((dir, _)) = modes.get(at).cloned() {
        for entry in fs::read_dir(top.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                modes.push((dir.join(entry.file_name()), mode(&entry.path())));
            }
        }
        at += 1;
    }
    modes.sort();
    modes
}

#[test]
fn directories_that_are_made_ahead_are_as_if_they_were_not() {
    needs!(Formats, GnuCp9);
    let sandbox = Sandbox::in_memory();
    let at = sandbox.dir("disk");
    let disk = Disk::make(sandbox.path("image"), Format::Btrfs, &at).expect("a disk");
    let mount = disk.mount("").expect("mount");
    // More than wait at a time, so that some are filled in another order.
    for number in 0..5000 {
        sandbox.file(format!("disk/source/{number}/in/file"), number % 50);
    }
    for (number, mode) in [(7, 0o555), (8, 0o700), (9, 0o1777), (10, 0o2755), (11, 0)] {
        chmod(&sandbox.path(format!("disk/source/{number}")), mode);
        chmod(&sandbox.path(format!("disk/source/{number}/in")), mode);
    }
    let source = sandbox.path("disk/source");
    sandbox.poolcp(["-a", "-j4", "disk/source", "disk/a"]).ok();
    assert_same(
        &Snapshot::of(&source),
        &Snapshot::of(&sandbox.path("disk/a")),
        "-a",
    );
    sandbox.poolcp(["-r", "-j4", "disk/source", "disk/r"]).ok();
    sandbox.cp(["-r", "disk/source", "disk/cp"]).ok();
    let modes = ["disk/r", "disk/cp"].map(|copy| dir_modes(&sandbox.path(copy)));
    assert!(modes[0] == modes[1]);

    // What may not be copied is not made, either.
    let args = ["-r", "disk/source/1", "disk/source/1/copy"];
    let message = "cannot copy a directory, 'disk/source/1', into itself, 'disk/source/1/copy'";
    sandbox.poolcp(args).fails(&[message]);
    assert!(sandbox.path("disk/source/1/copy/in/file").exists());
    assert!(!sandbox.path("disk/source/1/copy/copy").exists());
    mount.unmount();
}
