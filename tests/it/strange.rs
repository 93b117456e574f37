//! Filesystems that are slow, or answer in unusual ways that the rules allow. Whatever they say, the copy is right; or the
//! exit code is 1, a message says what went wrong, and no part of a file is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuser::FopenFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::disks::Mount;
use crate::harness::{
    ACCESS_ACL, NOBODY, Sandbox, acl_for, chmod, has_xattr, mode, set_mtime, set_xattr,
};
use crate::passthrough::{Call, Manners, Operation, Passthrough};
use crate::programs::{Run, TRACE};
use crate::snapshot::Snapshot;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Around a page, the buffer of a worker (256 KiB) and the most that the kernel asks FUSE for at once (1 MiB).
const SIZES: [usize; 9] = [
    0,
    1,
    4 * KIB - 1,
    4 * KIB,
    4 * KIB + 1,
    256 * KIB,
    256 * KIB + 1,
    MIB + 7,
    3 * MIB,
];

/// A sandbox with a strange filesystem at `strange`, which shows the directory `below`.
struct Strange {
    /// Unmounted before the sandbox is removed.
    filesystem: Passthrough,
    sandbox: Sandbox,
}

impl Strange {
    /// `setup` makes what is there from the beginning, below the filesystem.
    fn new(manners: Manners, setup: impl FnOnce(&Sandbox)) -> Self {
        let sandbox = Sandbox::in_memory();
        sandbox.dir("below");
        setup(&sandbox);
        let at = sandbox.dir("strange");
        let filesystem = Passthrough::mount(&sandbox.path("below"), &at, manners);
        Self {
            filesystem: filesystem.expect("mount"),
            sandbox,
        }
    }

    /// With files of [`SIZES`] in `source`.
    fn with_sizes(manners: Manners) -> Self {
        Self::new(manners, |sandbox| make_sizes(sandbox, "below/source"))
    }

    /// What is at a path below the filesystem.
    fn below(&self, path: &str) -> std::path::PathBuf {
        self.sandbox.path("below").join(path)
    }

    fn run(&self, line: &str) -> Run {
        self.sandbox.poolcp(line.split(' ')).run()
    }

    #[track_caller]
    fn ok(&self, line: &str) {
        self.sandbox.poolcp(line.split(' ')).ok();
    }
}

fn make_sizes(sandbox: &Sandbox, dir: &str) {
    for size in SIZES {
        sandbox.file(format!("{dir}/{size}"), size);
    }
}

/// The same names with the same bytes.
#[track_caller]
fn assert_same_bytes(source: &Path, copy: &Path) {
    let names = |dir: &Path| {
        let listing = fs::read_dir(dir).expect("list");
        let mut names: Vec<_> = listing
            .map(|entry| entry.expect("list").file_name())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(source), names(copy));
    for name in names(source) {
        let [one, other] = [source, copy].map(|dir| dir.join(&name));
        if one.is_dir() {
            assert_same_bytes(&one, &other);
        } else {
            let [one, other] = [one, other].map(|path| fs::read(path).expect("read"));
            assert!(one == other, "{name:?}: {} and {}", one.len(), other.len());
        }
    }
}

fn refuse(what: impl Fn(&Call<'_>) -> Option<Errno> + Send + Sync + 'static) -> Manners {
    Manners {
        refuse: Box::new(what),
        ..Manners::default()
    }
}

// ---- Nothing strange ----

#[test]
fn a_tree_is_copied_from_to_and_on_a_fuse_filesystem() {
    needs!(Fuse);
    let strange = Strange::new(Manners::default(), |sandbox| {
        make_sizes(sandbox, "below/source/dir");
        sandbox.symlink("below/source/dir/link", "nowhere");
        sandbox.fifo("below/source/fifo");
        sandbox.file("below/source/file", 5000);
        sandbox.hard_link("below/source/dir/hard", "below/source/file");
        sandbox.sparse("below/source/sparse", 5 * MIB as u64, &[(MIB as u64, 10)]);
        chmod(&sandbox.file("below/source/program", 10), 0o4751);
        set_mtime(&sandbox.dir("below/source/old"), 5, 999);
    });
    strange.ok("-a strange/source from");
    strange.ok("-a from strange/to");
    strange.ok("-a strange/source strange/on");
    let source = Snapshot::of(&strange.below("source"));
    let copies = [
        strange.sandbox.path("from"),
        strange.below("to"),
        strange.below("on"),
    ];
    for copy in copies {
        let difference = source.difference(&Snapshot::of(&copy));
        assert_eq!(difference, None, "{}", copy.display());
    }
}

/// Each operation takes so many milliseconds, of so many at a time.
fn late(milliseconds: u64, depth: usize) -> Manners {
    Manners {
        delay: Duration::from_millis(milliseconds),
        depth,
        ..Manners::default()
    }
}

#[test]
fn workers_wait_at_the_same_time() {
    needs!(Fuse);
    let strange = Strange::new(late(5, 64), |sandbox| {
        for i in 0..64 {
            sandbox.file(format!("below/source/{}/{i}", i % 16), 100);
        }
    });
    let copy = |workers: &str, name: &str| {
        strange.filesystem.asked().take_most_waited_for();
        strange.ok(&format!("-r {workers} strange/source {name}"));
        let most = strange.filesystem.asked().take_most_waited_for();
        assert_same_bytes(&strange.below("source"), &strange.sandbox.path(name));
        most
    };
    let (one, many) = (copy("-j1", "one"), copy("-j32", "many"));
    assert!(
        one <= 2 && many >= 16,
        "{one} and {many} operations at once"
    );
}

#[test]
fn one_directory_is_enough_for_as_many_workers_as_can_be_of_use() {
    needs!(Fuse);
    let strange = Strange::new(late(20, 64), |sandbox| {
        for i in 0..120 {
            sandbox.file(format!("below/source/{i}"), 100);
        }
    });
    // One begins, then as many as there are processors: the directory is divided before anybody knows that many more will be
    // wanted.
    strange.ok("-r strange/source copy");
    let most = strange.filesystem.asked().take_most_waited_for();
    assert!(most >= 32, "{most} operations at once");
    assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
}

#[test]
fn a_device_takes_no_more_than_its_depth() {
    needs!(Fuse);
    let strange = Strange::new(late(1, 3), |sandbox| {
        for i in 0..64 {
            sandbox.file(format!("below/source/{}/{i}", i % 8), 100);
        }
    });
    strange.ok("-r -j32 strange/source copy");
    assert_eq!(strange.filesystem.asked().take_most_waited_for(), 3);
    assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
}

// ---- Reading ----

#[test]
fn short_reads_are_continued() {
    needs!(Fuse);
    for longest_read in [1000, 4 * KIB, 100 * KIB] {
        let strange = Strange::with_sizes(Manners {
            longest_read,
            open: FopenFlags::FOPEN_DIRECT_IO,
            ..Manners::default()
        });
        for (options, copy) in [
            ("-r", "plain"),
            ("-r --sparse=always", "sparse"),
            ("-r --reflink=never", "moved"),
        ] {
            strange.ok(&format!("{options} strange/source {copy}"));
            assert_same_bytes(&strange.below("source"), &strange.sandbox.path(copy));
        }
    }
}

#[test]
fn a_read_that_fails_in_the_middle_leaves_no_copy() {
    needs!(Fuse);
    for open in [FopenFlags::empty(), FopenFlags::FOPEN_DIRECT_IO] {
        let manners = Manners {
            longest_read: if open.is_empty() {
                usize::MAX
            } else {
                64 * KIB
            },
            open,
            ..refuse(|call| {
                let is_bad = call.is(Operation::Read, "bad") && call.offset >= MIB as u64;
                is_bad.then_some(Errno::IO)
            })
        };
        let strange = Strange::new(manners, |sandbox| {
            sandbox.file("below/source/bad", 3 * MIB);
            sandbox.file("below/source/good", 3 * MIB);
        });
        for (options, copy) in [
            ("-r", "plain"),
            ("-a -j1", "archive"),
            ("-r --sparse=always", "sparse"),
            ("-r --reflink=never", "moved"),
        ] {
            let run = strange.run(&format!("{options} strange/source {copy}"));
            assert_eq!(run.code, 1, "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
            assert!(run.stderr.contains("strange/source/bad'"), "{run:?}");
            assert!(run.stderr.ends_with(": Input/output error\n"), "{run:?}");
            let copy = strange.sandbox.path(copy);
            assert!(!copy.join("bad").exists());
            assert!(copy.join("good").exists());
        }
    }
}

#[test]
fn a_part_of_a_large_file_that_cannot_be_read_leaves_no_copy() {
    needs!(Fuse);
    let strange = Strange::new(
        refuse(|call| {
            let is_bad = call.is(Operation::Read, "large") && call.offset >= 70 * MIB as u64;
            is_bad.then_some(Errno::IO)
        }),
        |sandbox| drop(sandbox.sparse("below/large", 80 * MIB as u64, &[(0, 80 * MIB)])),
    );
    let run = strange.run("-j8 strange/large copy");
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.ends_with(": Input/output error\n"), "{run:?}");
    assert!(!strange.sandbox.path("copy").exists());
}

#[test]
fn files_without_positions_are_copied() {
    needs!(Fuse);
    for open in [
        FopenFlags::FOPEN_NONSEEKABLE,
        FopenFlags::FOPEN_NONSEEKABLE | FopenFlags::FOPEN_DIRECT_IO,
    ] {
        let strange = Strange::with_sizes(Manners {
            open,
            ..Manners::default()
        });
        for (options, copy) in [
            ("-r", "plain"),
            ("-r --sparse=always", "sparse"),
            ("-r --reflink=never", "moved"),
        ] {
            strange.ok(&format!("{options} strange/source {copy}"));
            assert_same_bytes(&strange.below("source"), &strange.sandbox.path(copy));
        }
        strange.ok("-r plain strange/copy");
        assert_same_bytes(&strange.sandbox.path("plain"), &strange.below("copy"));
    }
}

#[test]
fn a_file_that_hides_its_blocks_is_copied_whole() {
    needs!(Fuse);
    // Whether holes can be asked for or not.
    for answer in [
        None,
        Some(Errno::NOSYS),
        Some(Errno::OPNOTSUPP),
        Some(Errno::INVAL),
    ] {
        let strange = Strange::with_sizes(Manners {
            attributes: |attr| attr.blocks = 0,
            ..refuse(move |call| answer.filter(|_| call.operation == Operation::Seek))
        });
        strange.ok("-a strange/source copy");
        assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
    }
}

#[test]
fn a_file_that_is_longer_or_shorter_than_it_says_is_copied_as_it_reads() {
    needs!(Fuse);
    for attributes in [
        |attr: &mut fuser::FileAttr| attr.size = 0,
        |attr: &mut fuser::FileAttr| attr.size = attr.size / 2 + 1,
        |attr: &mut fuser::FileAttr| {
            attr.size = attr.size / 2 + 1;
            // Nothing but holes.
            attr.blocks = 0;
        },
        |attr: &mut fuser::FileAttr| {
            attr.size *= 2;
            // No holes.
            attr.blocks *= 2;
        },
    ] {
        let strange = Strange::with_sizes(Manners {
            attributes,
            open: FopenFlags::FOPEN_DIRECT_IO,
            longest_read: 1000,
            ..Manners::default()
        });
        strange.ok("-r strange/source copy");
        assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
    }
}

#[test]
fn a_large_file_that_is_shorter_than_it_says_is_copied_to_its_end() {
    needs!(Fuse);
    let attributes = |attr: &mut fuser::FileAttr| {
        attr.size *= 2;
        // No holes.
        attr.blocks *= 2;
    };
    let strange = Strange::new(
        Manners {
            attributes,
            open: FopenFlags::FOPEN_DIRECT_IO,
            ..Manners::default()
        },
        |sandbox| {
            sandbox.file("below/large", 100 * MIB + 5);
        },
    );
    for _ in 0..10 {
        strange.ok("-j8 strange/large copy");
        let copy = strange.sandbox.path("copy");
        assert!(fs::read(strange.below("large")).expect("read") == fs::read(copy).expect("read"));
    }
}

#[test]
fn an_access_time_that_may_not_be_spared_is_no_reason_to_fail() {
    needs!(Fuse);
    let strange = Strange::with_sizes(refuse(|call| {
        call.flags.contains(OFlags::NOATIME).then_some(Errno::PERM)
    }));
    strange.ok("-a strange/source copy");
    assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
}

// ---- Writing ----

#[test]
fn short_writes_are_continued() {
    needs!(Fuse);
    for longest_write in [1000, 4 * KIB, 100 * KIB] {
        for open in [FopenFlags::empty(), FopenFlags::FOPEN_DIRECT_IO] {
            let strange = Strange::new(
                Manners {
                    longest_write,
                    open,
                    ..Manners::default()
                },
                |sandbox| make_sizes(sandbox, "source"),
            );
            for (options, copy) in [
                ("-r", "plain"),
                ("-r --sparse=always", "sparse"),
                ("-r --reflink=never", "moved"),
            ] {
                strange.ok(&format!("{options} source strange/{copy}"));
                assert_same_bytes(&strange.sandbox.path("source"), &strange.below(copy));
            }
        }
    }
}

#[test]
fn what_is_not_on_the_device_as_it_was_written_is_found() {
    needs!(Fuse);
    let write = |spoil: fn(&mut [u8])| {
        Strange::new(
            Manners {
                spoil,
                ..Manners::default()
            },
            |sandbox| {
                make_sizes(sandbox, "source");
                sandbox.sparse(
                    "holes",
                    80 * MIB as u64,
                    &[(0, 10), (70 * MIB as u64, 2 * MIB)],
                );
            },
        )
    };
    let strange = write(|_| {});
    let run = strange.run("-r --verify --report=json source holes strange/");
    let written: usize = SIZES.iter().sum::<usize>() + 10 + 2 * MIB;
    assert_eq!((run.code, &run.json()["errors"]), (0, &0.into()), "{run:?}");
    let verified = run.json()["bytes_verified"].as_u64().expect("a number");
    assert!(verified >= written as u64 && verified < 4 * written as u64);

    // One bit of each large write.
    let strange = write(|bytes| {
        if bytes.len() > 100_000 {
            bytes[99_999] ^= 4;
        }
    });
    for options in ["-r", "-r --sparse=always", "-r --atomic=always -j1"] {
        let run = strange.run(&format!("{options} --verify source strange/copy"));
        assert_eq!(run.code, 1, "{run:?}");
        for size in SIZES {
            let name = format!("copy/{size}");
            let told = format!("'strange/{name}' is not on the device as it was written");
            let is_spoiled = size > 100_000;
            assert_eq!(
                run.messages().contains(&told.as_str()),
                is_spoiled,
                "{run:?}"
            );
            assert_eq!(strange.below(&name).exists(), !is_spoiled, "{name}");
        }
        fs::remove_dir_all(strange.below("copy")).expect("remove");
    }
}

#[test]
fn a_write_that_takes_nothing_is_a_failure_and_no_endless_loop() {
    needs!(Fuse);
    for open in [FopenFlags::empty(), FopenFlags::FOPEN_DIRECT_IO] {
        let strange = Strange::new(
            Manners {
                longest_write: 0,
                open,
                ..Manners::default()
            },
            |sandbox| {
                sandbox.file("small", 10);
                sandbox.file("medium", MIB);
            },
        );
        for name in ["small", "medium"] {
            for options in ["", "--sparse=always ", "--reflink=never "] {
                let line = format!("{options}{name} strange/copy");
                let call = strange.sandbox.poolcp(line.split(' '));
                let run = call.patience(Duration::from_secs(10)).run();
                assert_eq!(run.code, 1, "{run:?}");
                assert!(run.stderr.contains("'strange/copy'"), "{run:?}");
                assert!(!strange.below("copy").exists());
            }
        }
    }
}

#[test]
fn what_is_said_when_a_file_is_closed_is_heard() {
    needs!(Fuse);
    for errno in [Errno::IO, Errno::DQUOT, Errno::NOSPC] {
        let strange = Strange::new(
            refuse(move |call| call.is(Operation::Flush, "bad").then_some(errno)),
            |sandbox| {
                sandbox.file("source/bad", 10);
                sandbox.file("source/good", 10);
            },
        );
        for options in ["-r", "-a"] {
            let run = strange.run(&format!("{options} source strange/copy"));
            assert_eq!(run.code, 1, "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
            assert!(run.stderr.contains("'strange/copy/bad'"), "{run:?}");
            let copied = fs::read_dir(strange.below("copy")).expect("list").count();
            assert_eq!(copied, 1, "only the good one is left");
            fs::remove_dir_all(strange.below("copy")).expect("remove");
        }
    }
}

#[test]
fn what_is_said_when_a_worker_closes_its_part_of_a_file_is_heard() {
    needs!(Strace);
    let sandbox = Sandbox::in_memory();
    sandbox.file("large", 200 * MIB);
    let copy = sandbox.path("copy");
    let args = ["-j4", "--atomic=never", "--reflink=never", "large", "copy"];
    // Who has opened it first closes it once, and last.
    let options = [
        "-P",
        copy.to_str().expect("text"),
        "-e",
        "inject=close:error=EIO:when=1",
    ];
    let run = sandbox.poolcp(args).traced(&options).run();
    let trace = fs::read_to_string(sandbox.path(TRACE)).expect("read");
    assert!(trace.contains("INJECTED"), "{trace}");
    assert_eq!(
        run.messages(),
        ["failed to close 'copy': Input/output error"]
    );
    assert!(!copy.exists());
}

#[test]
fn copying_inside_the_filesystem_may_be_short_or_refused() {
    needs!(Fuse);
    for longest_copy in [1000, 100 * KIB] {
        let strange = Strange::with_sizes(Manners {
            longest_copy,
            ..Manners::default()
        });
        strange.ok("-r strange/source strange/copy");
        assert_same_bytes(&strange.below("source"), &strange.below("copy"));
    }
    for errno in [
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::XDEV,
        Errno::INVAL,
        Errno::PERM,
        Errno::TXTBSY,
        Errno::BADF,
    ] {
        // At once, or in the middle of a file.
        for from in [0, MIB as u64] {
            let refused = refuse(move |call| {
                let is_refused = call.operation == Operation::CopyFileRange && call.offset >= from;
                is_refused.then_some(errno)
            });
            let strange = Strange::with_sizes(Manners {
                longest_copy: MIB,
                ..refused
            });
            strange.ok("-r strange/source strange/copy");
            assert_same_bytes(&strange.below("source"), &strange.below("copy"));
        }
    }
}

#[test]
fn copying_nothing_inside_the_filesystem_is_not_the_end() {
    needs!(Fuse);
    let strange = Strange::with_sizes(Manners {
        longest_copy: 0,
        ..Manners::default()
    });
    strange.ok("-r strange/source strange/copy");
    assert_same_bytes(&strange.below("source"), &strange.below("copy"));
}

#[test]
fn a_copy_inside_the_filesystem_that_fails_in_the_middle_is_removed() {
    needs!(Fuse);
    for errno in [Errno::IO, Errno::NOSPC] {
        let refused = refuse(move |call| {
            let is_bad = call.operation == Operation::CopyFileRange && call.offset > 0;
            is_bad.then_some(errno)
        });
        let strange = Strange::with_sizes(Manners {
            longest_copy: MIB,
            ..refused
        });
        // By one worker: two that are the first to ask race in the kernel (COPY_FILE_RANGE_64 is not known to the server, and
        // the second to hear that takes it for an answer about COPY_FILE_RANGE), which then copies by itself.
        let run = strange.run("-j1 -r strange/source strange/copy");
        assert_eq!(run.code, 1, "{run:?}");
        for size in SIZES {
            let name = format!("copy/{size}");
            let is_told = run.stderr.contains(&format!("strange/{name}'"));
            assert_eq!(is_told, size > MIB, "{run:?}");
            assert_eq!(strange.below(&name).exists(), size <= MIB, "{name}");
        }
    }
}

// ---- Names ----

#[test]
fn a_listing_that_fails_is_told_and_the_rest_is_copied() {
    needs!(Fuse);
    // At once, and after a part of it.
    for from in [0, 1] {
        let strange = Strange::new(
            refuse(move |call| {
                let is_bad = call.is(Operation::ReadDir, "bad") && call.offset >= from;
                is_bad.then_some(Errno::IO)
            }),
            |sandbox| {
                for i in 0..2000 {
                    sandbox.file(format!("below/source/bad/{i}"), 1);
                }
                sandbox.file("below/source/good/file", 1);
            },
        );
        let run = strange.run("-r strange/source copy");
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(run.stderr.contains("'strange/source/bad'"), "{run:?}");
        assert!(run.stderr.ends_with(": Input/output error\n"), "{run:?}");
        assert!(strange.sandbox.path("copy/good/file").exists());
    }
}

#[test]
fn a_name_that_is_listed_and_not_there_is_told() {
    needs!(Fuse);
    let strange = Strange::new(
        refuse(|call| call.is(Operation::Lookup, "ghost").then_some(Errno::NOENT)),
        |sandbox| {
            sandbox.file("below/source/ghost", 1);
            sandbox.file("below/source/file", 1);
        },
    );
    let run = strange.run("-r strange/source copy");
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(run.stderr.contains("'strange/source/ghost'"), "{run:?}");
    assert!(!strange.sandbox.path("copy/ghost").exists());
    assert!(strange.sandbox.path("copy/file").exists());
}

#[test]
fn a_listing_that_does_not_tell_kinds_is_looked_at() {
    needs!(Ext4);
    let sandbox = Sandbox::in_memory();
    let _mount = Mount::ext4(&sandbox, "old", &["-O", "^filetype"]).expect("an ext4");
    make_sizes(&sandbox, "old/source/dir/deep");
    sandbox.symlink("old/source/link", "dir");
    sandbox.symlink("old/source/broken", "nowhere");
    sandbox.fifo("old/source/fifo");
    sandbox.poolcp(["-a", "old/source", "copy"]).ok();
    let source = Snapshot::of(&sandbox.path("old/source"));
    assert_eq!(
        source.difference(&Snapshot::of(&sandbox.path("copy"))),
        None
    );
    sandbox.poolcp(["-a", "copy", "old/again"]).ok();
    assert_eq!(
        source.difference(&Snapshot::of(&sandbox.path("old/again"))),
        None
    );
}

#[test]
fn inode_numbers_that_mean_nothing_lose_nothing() {
    needs!(Fuse);
    // None at all is left out of the listing by the C library itself. A directory whose number is ever new is known only to the
    // worker that opened it, so there is one.
    for (inode, workers) in [
        ((|_| u64::MAX) as fn(u64) -> u64, "-j4"),
        (|_| 7, "-j4"),
        (|inode| inode % 2 + 5, "-j4"),
        (ever_new, "-j1"),
    ] {
        let strange = Strange::new(
            Manners {
                inode,
                ..Manners::default()
            },
            |sandbox| make_sizes(sandbox, "below/source"),
        );
        strange.ok(&format!("-r {workers} strange/source copy"));
        assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
        strange.ok(&format!("-r {workers} copy strange/copy"));
        assert_same_bytes(&strange.below("source"), &strange.below("copy"));
    }
}

#[test]
fn directories_that_cannot_be_told_apart_or_recognised_are_copied_right_or_refused() {
    needs!(Fuse);
    for inode in [|_| 7, ever_new] {
        let strange = Strange::new(
            Manners {
                inode,
                ..Manners::default()
            },
            |sandbox| {
                for i in 0..4 {
                    make_sizes(sandbox, &format!("below/source/{i}/deep"));
                }
            },
        );
        for options in ["-r", "-a", "-rL"] {
            let run = strange.run(&format!("{options} -j8 strange/source copy{options}"));
            let copy = strange.sandbox.path(format!("copy{options}"));
            // A worker that has a directory open need not recognise it.
            if run.code == 0 {
                assert_same_bytes(&strange.below("source"), &copy);
                continue;
            }
            assert_eq!(run.code, 1, "{run:?}");
            assert!(!run.stderr.is_empty());
            for dir in fs::read_dir(&copy).expect("list") {
                let dir = dir.expect("list").path();
                assert!(fs::read_dir(&dir).expect("list").count() <= 1);
                for file in fs::read_dir(dir.join("deep")).into_iter().flatten() {
                    let file = file.expect("list");
                    let size = file.file_name().into_string().expect("a size");
                    assert_eq!(file.metadata().expect("look").len().to_string(), size);
                }
            }
        }
    }
}

/// A number of its own for each answer.
fn ever_new(_: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

// ---- Attributes ----

#[test]
fn modes_are_given_where_new_files_do_not_get_what_they_are_made_with() {
    needs!(Fuse);
    let strange = Strange::new(
        Manners {
            umask: 0o077,
            ..Manners::default()
        },
        |sandbox| {
            chmod(&sandbox.file("source/dir/open", 10), 0o666);
            chmod(&sandbox.file("source/dir/program", 10), 0o755);
            chmod(&sandbox.path("source/dir"), 0o777);
        },
    );
    for options in ["-rp", "-a"] {
        strange.ok(&format!("{options} source strange/copy{options}"));
        let copy = Snapshot::of(&strange.below(&format!("copy{options}")));
        let source = Snapshot::of(&strange.sandbox.path("source"));
        assert_eq!(source.difference(&copy), None, "{options}");
    }
}

#[test]
fn attributes_that_cannot_be_given_are_told_and_the_data_stays() {
    needs!(Fuse);
    for errno in [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP] {
        let strange = Strange::new(
            refuse(move |call| (call.operation == Operation::SetAttr).then_some(errno)),
            |sandbox| make_sizes(sandbox, "source"),
        );
        let run = strange.run("-rp source strange/copy");
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("preserving times for"), "{run:?}");
        assert_same_bytes(&strange.sandbox.path("source"), &strange.below("copy"));
        // Without attributes nothing is missed.
        strange.ok("-r source strange/plain");
        assert_same_bytes(&strange.sandbox.path("source"), &strange.below("plain"));
    }
}

#[test]
fn what_a_filesystem_does_not_have_is_done_without_or_told() {
    needs!(Fuse);
    let strange = Strange::new(
        refuse(|call| {
            use Operation::{
                Flush, GetXattr, Link, ListXattr, Mknod, RemoveXattr, Rename, Seek, SetXattr,
                Symlink,
            };
            match call.operation {
                Flush | GetXattr | ListXattr | SetXattr | RemoveXattr | Seek => Some(Errno::NOSYS),
                Link | Symlink | Mknod => Some(Errno::PERM),
                Rename => Some(Errno::INVAL),
                _ => None,
            }
        }),
        |sandbox| {
            make_sizes(sandbox, "source");
            sandbox.file("source/file", 5000);
            sandbox.hard_link("source/second", "source/file");
            sandbox.symlink("source/link", "file");
            sandbox.fifo("source/fifo");
        },
    );
    let run = strange.run("-a -j1 source strange/copy");
    assert_eq!(run.code, 1, "{run:?}");
    let messages = run.messages();
    assert_eq!(messages.len(), 3, "{run:?}");
    assert!(
        messages
            .iter()
            .all(|line| line.ends_with(": Operation not permitted"))
    );
    for name in SIZES.map(|size| size.to_string()) {
        let [one, other] = [strange.sandbox.path("source"), strange.below("copy")]
            .map(|dir| fs::read(dir.join(&name)).expect("read"));
        assert!(one == other, "{name}");
    }
}

#[test]
fn everything_is_synced_by_itself_where_the_whole_filesystem_cannot_be() {
    needs!(Fuse);
    let synced = Arc::new(Mutex::new(BTreeSet::new()));
    let (noted, refused) = (Arc::clone(&synced), Arc::new(AtomicBool::new(false)));
    let refuses = Arc::clone(&refused);
    let manners = refuse(move |call| {
        if call.operation != Operation::Sync {
            return None;
        }
        noted.lock().expect("a lock").insert(call.path.to_owned());
        let is_refused = refuses.load(Ordering::Relaxed) && call.path.ends_with("dir/1");
        is_refused.then_some(Errno::IO)
    });
    let strange = Strange::new(manners, |sandbox| {
        make_sizes(sandbox, "source/dir");
        sandbox.file("source/file", 10);
        sandbox.hard_link("source/linked", "source/file");
        sandbox.symlink("source/link", "file");
        sandbox.dir("source/empty");
        sandbox.file("alone", 10);
        sandbox.dir("below/there");
    });
    let synced = || std::mem::take(&mut *synced.lock().expect("a lock"));
    strange.ok("-a source alone strange/");
    assert_eq!(synced(), BTreeSet::new(), "not without --fsync");
    fs::remove_dir_all(strange.below("source")).expect("remove");
    strange.ok("-a --fsync source alone strange/there");
    let mut expected: BTreeSet<PathBuf> = SIZES
        .iter()
        .map(|size| format!("there/source/dir/{size}").into())
        .collect();
    let others = [
        "",
        "/source",
        "/source/dir",
        "/source/file",
        "/source/empty",
        "/alone",
    ];
    expected.extend(others.map(|name| format!("there{name}").into()));
    let seen = || {
        let mut seen = synced();
        // The one or the other of two names of one file.
        if seen.remove(Path::new("there/source/linked")) {
            seen.insert("there/source/file".into());
        }
        seen
    };
    assert_eq!(seen(), expected);
    // What an earlier run has left in memory, too.
    strange.ok("-a --fsync --update=changed source alone strange/there");
    assert_eq!(seen(), expected);

    refused.store(true, Ordering::Relaxed);
    let run = strange.run("-a --fsync source strange/failed");
    let told = "cannot write 'strange/failed/dir/1' to its device: Input/output error";
    assert_eq!((run.code, run.messages()), (1, vec![told]));
    assert!(!strange.below("failed/dir/1").exists());
    assert!(strange.below("failed/dir/0").exists());
}

#[test]
fn a_file_with_very_many_holes_is_read_back_while_it_is_copied() {
    let sandbox = Sandbox::in_memory();
    let ranges: Vec<(u64, usize)> = (0..70_000).map(|n| (n << 13, 4096)).collect();
    sandbox.sparse("source", 70_000 << 13, &ranges);
    let args = ["--verify", "--report=json", "source", "copy"];
    let report = sandbox.poolcp(args).ok().json();
    assert_eq!(report["bytes_verified"], 70_000 * 4096);
    let compared = sandbox.call("cmp", ["source", "copy"]).run();
    assert_eq!(compared.code, 0, "{compared:?}");
}

// ---- Servers ----

#[test]
fn a_filesystem_that_takes_a_file_from_front_to_back_gets_it_so() {
    needs!(Fuse);
    let last = AtomicU64::new(0);
    // A write is no longer than FUSE takes it at once.
    let out_of_order = move |call: &Call<'_>| {
        let is_next = call.operation != Operation::Write || {
            let last = last.swap(call.offset, Ordering::SeqCst);
            (last..=last + MIB as u64).contains(&call.offset)
        };
        (!is_next).then_some(Errno::INVAL)
    };
    let strange = Strange::new(refuse(out_of_order), |_| {});
    strange.sandbox.file("large", 66 * MIB);
    strange.ok("-j8 large strange/copy");
    assert_eq!(
        fs::read(strange.below("copy")).ok(),
        fs::read(strange.sandbox.path("large")).ok()
    );
}

#[test]
fn what_cannot_be_removed_again_is_told_and_made_once() {
    needs!(Fuse);
    let refused = [Operation::Rename, Operation::Link, Operation::Unlink];
    let refuse = refuse(move |call| refused.contains(&call.operation).then_some(Errno::ACCESS));
    let strange = Strange::new(refuse, |_| {});
    strange.sandbox.file("source/a", 5 * MIB);
    strange.sandbox.file("source/b", 5 * MIB);
    let run = strange.run("-r -j1 source strange/copy");
    assert_eq!((run.code, run.stderr.lines().count()), (1, 1), "{run:?}");
    assert!(
        run.stderr.contains("cannot remove 'strange/copy/.poolcp-"),
        "{run:?}"
    );
    let copied = fs::read_dir(strange.below("copy")).expect("list").count();
    assert_eq!(copied, 3, "two files, and what could not be removed");
    for name in ["a", "b"] {
        let [one, other] = [strange.sandbox.path("source"), strange.below("copy")]
            .map(|dir| fs::read(dir.join(name)).ok());
        assert_eq!(one, other);
    }
}

#[test]
fn a_filesystem_that_does_not_count_names_takes_large_files() {
    needs!(Fuse);
    let manners = Manners {
        attributes: |attributes| attributes.nlink = 0,
        ..Manners::default()
    };
    let strange = Strange::new(manners, |_| {});
    strange.sandbox.file("large", 5 * MIB);
    strange.ok("large strange/copy");
    assert_eq!(fs::read_dir(strange.below("")).expect("list").count(), 1);
}

#[test]
fn a_file_that_would_rather_not_wait_is_waited_for() {
    needs!(Fuse);
    let refuse = refuse(|call| {
        let is_impatient =
            call.operation == Operation::Read && call.flags.contains(OFlags::NONBLOCK);
        is_impatient.then_some(Errno::AGAIN)
    });
    let strange = Strange::with_sizes(Manners {
        open: FopenFlags::FOPEN_DIRECT_IO,
        ..refuse
    });
    strange.ok("-r strange/source copy");
    assert_same_bytes(&strange.below("source"), &strange.sandbox.path("copy"));
}

#[test]
fn only_what_is_old_is_swept_where_other_machines_may_write() {
    needs!(Fuse);
    let name = ".poolcp-0123456789abcdef-0";
    for is_old in [false, true] {
        let manners = Manners {
            attributes: if is_old {
                |attributes| attributes.ctime = std::time::UNIX_EPOCH
            } else {
                |_| {}
            },
            ..Manners::default()
        };
        let strange = Strange::new(manners, |sandbox| {
            sandbox.file(format!("below/copy/{name}"), 10);
        });
        strange.sandbox.file("source/a", 10);
        strange.ok("-rT source strange/copy");
        assert_eq!(strange.below("copy").join(name).exists(), !is_old);
    }
}

#[test]
fn an_acl_of_another_kind_is_kept_with_the_mode() {
    needs!(Fuse, UserXattrs);
    let manners = || Manners {
        shows_nfs4_acls: true,
        ..Manners::default()
    };
    let acl = "user.nfs4_acl";
    for (options, is_kept) in [("-a", true), ("-a --no-preserve=mode", false)] {
        let strange = Strange::new(manners(), |sandbox| {
            set_xattr(&sandbox.file("below/a", 10), acl, b"who may what");
        });
        strange.ok(&format!("{options} strange/a strange/copy"));
        assert_eq!(has_xattr(&strange.below("copy"), acl), is_kept);
        // Elsewhere nobody knows it.
        strange.ok(&format!("{options} strange/a copy"));
    }
}

#[test]
fn two_directories_that_are_one_at_the_destination_are_told() {
    needs!(Fuse);
    // Whatever is in capitals is made in small letters, as where case does not count.
    let sandbox = Sandbox::in_memory();
    sandbox.dir("below");
    sandbox.file("source/D/a", 10);
    sandbox.file("source/d/a", 20);
    let at = sandbox.dir("strange");
    let manners = Manners {
        folds_case: true,
        ..Manners::default()
    };
    let _mount = Passthrough::mount(&sandbox.path("below"), &at, manners).expect("mount");
    let run = sandbox
        .poolcp(["-r", "-j1", "source", "strange/copy"])
        .run();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("cannot create directory 'strange/copy/"),
        "{run:?}"
    );
    assert!(run.stderr.contains(": File exists"), "{run:?}");
}

#[test]
fn nothing_is_deleted_where_a_name_has_forms_and_each_of_them_a_number() {
    needs!(Fuse);
    let folding = |numbers_spellings| Manners {
        folds_case: true,
        numbers_spellings,
        ..Manners::default()
    };
    for (numbers_spellings, code) in [(false, 0), (true, 1)] {
        let strange = Strange::new(folding(numbers_spellings), |sandbox| {
            sandbox.file("below/copy/holiday/1", 10);
            sandbox.file("below/copy/photo", 20);
            sandbox.file("below/copy/extraneous", 30);
        });
        let sandbox = &strange.sandbox;
        for file in ["Holiday/1", "Holiday/2", "PHOTO"] {
            sandbox.file(format!("source/{file}"), 40);
        }
        let run = strange.run("-rT --delete source strange/copy");
        assert_eq!(run.code, code, "{run:?}");
        let told = "cannot delete in 'strange/copy': what is kept has other names there";
        assert_eq!(run.stderr.contains(told), numbers_spellings, "{run:?}");
        for file in ["Holiday/1", "Holiday/2", "PHOTO"] {
            let copy = strange.below("copy").join(file.to_ascii_lowercase());
            let source = sandbox.path("source").join(file);
            assert_eq!(
                fs::read(source).expect("read"),
                fs::read(copy).expect("read")
            );
        }
        assert_eq!(strange.below("copy/extraneous").exists(), numbers_spellings);
    }
}

#[test]
fn a_further_name_takes_no_other_ones_place_in_a_new_directory() {
    needs!(Fuse);
    // A directory in memory is listed from its end.
    for names in [["file", "FILE"], ["FILE", "file"]] {
        let manners = Manners {
            folds_case: true,
            ..Manners::default()
        };
        let strange = Strange::new(manners, |_| {});
        let sandbox = &strange.sandbox;
        let other = sandbox.file("source/other", 20);
        for name in names {
            if name == "FILE" {
                sandbox.dir("source/h");
                sandbox.hard_link("source/h/FILE", "source/other");
            } else {
                sandbox.file("source/h/file", 10);
            }
        }
        let run = strange.run("-a -j1 source strange/copy");
        assert_eq!(run.code, 1, "{run:?}");
        assert!(
            run.stderr.contains("will not overwrite just-created"),
            "{run:?}"
        );
        let copied = fs::read(strange.below("copy/other")).expect("read");
        assert_eq!(copied, fs::read(other).expect("read"));
    }
}

#[test]
fn a_source_whose_holes_were_sought_is_read_from_its_front() {
    needs!(Fuse);
    let strange = Strange::with_sizes(Manners {
        attributes: |attr| attr.blocks = 0,
        ..refuse(|call| (call.operation == Operation::CopyFileRange).then_some(Errno::SPIPE))
    });
    strange.ok("-r strange/source strange/copy");
    assert_same_bytes(&strange.below("source"), &strange.below("copy"));
}

#[test]
fn a_size_that_is_far_from_true_is_no_more_work() {
    needs!(Fuse);
    let strange = Strange::new(
        Manners {
            attributes: |attr| {
                if attr.kind == fuser::FileType::RegularFile {
                    attr.size = 1 << 60;
                    attr.blocks = 1 << 51;
                }
            },
            open: FopenFlags::FOPEN_DIRECT_IO,
            ..Manners::default()
        },
        |sandbox| {
            sandbox.file("below/large", 20 * MIB + 5);
        },
    );
    let call = strange.sandbox.poolcp(["-j2", "strange/large", "copy"]);
    call.patience(Duration::from_secs(30)).ok();
    let copy = strange.sandbox.path("copy");
    assert!(fs::read(strange.below("large")).expect("read") == fs::read(copy).expect("read"));
}

#[test]
fn files_that_can_have_one_name_only_are_copied_for_each_name() {
    needs!(Fuse);
    // At once, and left with whoever copies the first.
    for jobs in ["-j1", "-j4"] {
        let strange = Strange::new(
            refuse(|call| (call.operation == Operation::Link).then_some(Errno::PERM)),
            |_| {},
        );
        let sandbox = &strange.sandbox;
        let one = fs::read(sandbox.file("source/1", 1 << 20)).expect("read");
        for name in ["2", "3", "d/4"] {
            sandbox.dir("source/d");
            sandbox.hard_link(format!("source/{name}"), "source/1");
        }
        let run = strange.run(&format!("-aq {jobs} source strange/copy"));
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(run.messages().len(), 3, "{run:?}");
        for name in ["1", "2", "3", "d/4"] {
            let copy = fs::read(strange.below("copy").join(name)).expect("read");
            assert!(copy == one, "{name}");
        }
    }
}

#[test]
fn times_that_are_kept_to_two_seconds_are_not_older() {
    needs!(Fuse);
    let attributes = |attr: &mut fuser::FileAttr| {
        let seconds = attr.mtime.duration_since(std::time::UNIX_EPOCH);
        let seconds = seconds.expect("later").as_secs() & !1;
        attr.mtime = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        attr.ctime = attr.mtime;
        attr.atime = std::time::UNIX_EPOCH + Duration::from_secs(seconds / 86_400 * 86_400);
    };
    let manners = Manners {
        attributes,
        ..Manners::default()
    };
    let strange = Strange::new(manners, |_| {});
    for (file, seconds, ns) in [("1", 1, 0), ("2", 2, 5), ("3", 3, 999_999_999)] {
        let path = strange.sandbox.file(format!("source/{file}"), 10);
        set_mtime(&path, 1_600_000_000 + seconds, ns);
    }
    strange.ok("-a source strange/copy");
    for option in ["-u", "--update=changed"] {
        let line = format!("-a {option} --report=json -T source strange/copy");
        let report = strange.run(&line).json();
        assert_eq!(report["files"], 0, "{option}");
    }
    set_mtime(&strange.sandbox.path("source/3"), 1_600_000_004, 0);
    let report = strange
        .run("-au --report=json -T source strange/copy")
        .json();
    assert_eq!(report["files"], 1);
}

#[test]
fn without_acls_a_group_has_what_its_own_entry_gave_it() {
    needs!(Fuse, Acls);
    let manners =
        refuse(|call| (call.operation == Operation::SetXattr).then_some(Errno::OPNOTSUPP));
    let strange = Strange::new(manners, |_| {});
    let sandbox = &strange.sandbox;
    for path in [sandbox.file("source/file", 10), sandbox.dir("source/dir")] {
        // The group may read, and search; together with the user of the ACL, all.
        set_xattr(&path, ACCESS_ACL, &acl_for(NOBODY));
        assert_eq!(mode(&path), 0o770);
    }
    let run = strange.run("-aq source strange/copy");
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(run.messages().len(), 2, "{run:?}");
    for name in ["file", "dir"] {
        assert_eq!(mode(&strange.below("copy").join(name)), 0o750);
    }
}
