//! Every kind of entry, name and size.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::FileType;

use crate::disks::{Disk, Format, Mount};
use crate::harness::{Sandbox, allocated, chmod, content, set_mtime, staged};
use crate::programs::start;
use crate::referees::{assert_rsync_agrees, same_as_cp};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree, near};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// ---- Sizes and holes ----

#[test]
fn files_of_every_boundary_size_are_copied_whole() {
    let sandbox = Sandbox::new();
    let around = |size: usize| [size - 1, size, size + 1];
    let sizes = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB];
    for len in sizes.into_iter().flat_map(around).chain([0, 1]) {
        sandbox.file(format!("source/{len}"), len);
    }
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
}

#[test]
fn files_around_the_size_that_is_copied_in_parallel_are_copied_whole() {
    let sandbox = Sandbox::new();
    for len in [64 * MIB - 1, 64 * MIB, 64 * MIB + 1] {
        sandbox.file(format!("source/{len}"), len);
    }
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    // Without sharing and without copies inside the kernel, too.
    let largest = format!("source/{}", 64 * MIB + 1);
    let args = [
        "-a",
        "-j4",
        "--reflink=never",
        "--sparse=never",
        &largest,
        "written",
    ];
    sandbox.poolcp(args).ok();
    assert_same_tree(
        &sandbox.path(largest),
        &sandbox.path("written"),
        "--sparse=never",
    );
}

#[test]
fn blocks_are_shared_where_that_is_faster_or_asked_for() {
    needs!(Formats);
    const SMALL: usize = 4 * KIB - 1;
    const LARGER: usize = 4 * KIB;
    // ext4 cannot share.
    for (format, shared) in [
        (Format::Ext4, 0),
        (Format::Xfs, LARGER),
        (Format::Btrfs, SMALL + LARGER),
    ] {
        let sandbox = Sandbox::in_memory();
        let at = sandbox.dir("disk");
        let disk = Disk::make(sandbox.path("image"), format, &at).expect("a disk");
        let mount = disk.mount("").expect("mount");
        sandbox.file("disk/source/empty", 0);
        sandbox.file("disk/source/small", SMALL);
        sandbox.file("disk/source/larger", LARGER);
        let copy = |reflink: &str, operands: [&str; 2]| {
            let args = [&["-a", "--report=json", reflink], &operands[..]].concat();
            let report = sandbox.poolcp(args).ok().json();
            report["bytes_by_method"]["reflink"].as_u64().unwrap() as usize
        };
        let tree = ["disk/source", "disk/copy"];
        assert_eq!(copy("--reflink=auto", tree), shared, "{format:?}");
        assert_same_tree(&sandbox.path(tree[0]), &sandbox.path(tree[1]), "-a");
        let file = ["disk/source/small", "disk/file"];
        let by_itself = copy("--reflink=auto", file);
        assert_eq!(by_itself, shared.saturating_sub(LARGER), "{format:?}");
        if format != Format::Ext4 {
            let asked_for = copy("--reflink=always", ["disk/source", "disk/shared"]);
            assert_eq!(asked_for, SMALL + LARGER, "{format:?}");
        }
        mount.unmount();
        if format == Format::Xfs && knows_its_cache() {
            // Nobody has read the files since: they would have to be read from the disk.
            let mount = disk.mount("").expect("mount");
            let cold = copy("--reflink=auto", ["disk/source", "disk/cold"]);
            assert_eq!(cold, SMALL + LARGER, "cold");
            mount.unmount();
        }
    }
}

/// Whether the kernel tells what of a file is in memory: cachestat(2), from Linux 6.5 on.
fn knows_its_cache() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

fn make_sparse_files(sandbox: &Sandbox) {
    let mib = MIB as u64;
    let make = |name: &str, size: u64, data: &[(u64, usize)]| {
        sandbox.sparse(format!("source/{name}"), size, data);
    };
    make("all", mib, &[]);
    make("start", mib, &[(mib - 8192, 8192)]);
    make("middle", mib, &[(0, 4096), (mib - 4096, 4096)]);
    make("end", mib, &[(0, 65_536)]);
    make("ragged", mib + 1, &[(4097, 100), (500_001, 70_000)]);
    make("tiny", 4097, &[]);
    make(
        "large",
        512 * mib,
        &[(100 * mib, 300_000), (511 * mib, 4096)],
    );
}

#[test]
fn holes_stay_holes_wherever_they_are() {
    let sandbox = Sandbox::new();
    make_sparse_files(&sandbox);
    let source = Snapshot::of(&sandbox.path("source"));
    sandbox.poolcp(["-a", "-j4", "source", "archive"]).ok();
    assert_same(&source, &Snapshot::of(&sandbox.path("archive")), "-a");
    sandbox.poolcp(["-r", "-j4", "source", "plain"]).ok();
    let plain = Snapshot::of(&sandbox.path("plain")).without(&["mtime"]);
    assert_same(&source.without(&["mtime"]), &plain, "-r");
}

#[test]
fn holes_stay_holes_in_a_file_that_is_copied_in_parallel() {
    let sandbox = Sandbox::in_memory();
    let mib = MIB as u64;
    let data = [(mib, 65 * MIB), (90 * mib, MIB)];
    sandbox.sparse("source/dense", 100 * mib, &data);
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
}

#[test]
#[ignore = "takes 600 MB of memory"]
fn a_file_with_more_holes_than_are_looked_for_at_once_is_copied_whole() {
    const RANGES: u64 = 70_000;
    let sandbox = Sandbox::in_memory();
    let data: Vec<_> = (0..RANGES).map(|n| (n * 8192 + 4100, 50)).collect();
    let source = sandbox.sparse("source", RANGES * 8192 + 5000, &data);
    sandbox.poolcp(["-j2", "source", "copy"]).ok();
    let copy = sandbox.path("copy");
    assert_eq!(allocated(&copy), allocated(&source));
    let compared = Command::new("cmp").args([&source, &copy]).status();
    assert!(compared.expect("start cmp").success());
}

#[test]
fn holes_of_a_source_are_zeros_in_a_file_that_had_data() {
    let sandbox = Sandbox::new();
    let source = sandbox.sparse("sparse", MIB as u64, &[(300_000, 5000)]);
    let dest = sandbox.file("existing", 2 * MIB);
    sandbox.poolcp(["sparse", "existing"]).ok();
    assert_eq!(
        fs::read(source).expect("read"),
        fs::read(dest).expect("read")
    );
}

#[test]
fn sparse_always_makes_holes_of_zeros() {
    needs!(GnuCp9);
    let sandbox = Sandbox::new();
    let mut bytes = vec![0; 3 * MIB + 1000];
    bytes[MIB..MIB + 10_000].copy_from_slice(&content(10_000, 1));
    fs::write(sandbox.path("some"), &bytes).expect("write");
    fs::write(sandbox.path("none"), vec![0; MIB + 1]).expect("write");
    for name in ["some", "none"] {
        let copy = format!("{name}-copy");
        sandbox.poolcp(["--sparse=always", name, &copy]).ok();
        let (source, copy) = (sandbox.path(name), sandbox.path(copy));
        assert!(
            fs::read(&source).expect("read") == fs::read(&copy).expect("read"),
            "{name}"
        );
        assert!(
            near(12 << 10, allocated(&copy)),
            "{name}: {} bytes",
            allocated(&copy)
        );
    }
    same_as_cp(
        |sandbox| {
            fs::write(sandbox.path("zeros"), vec![0; MIB]).expect("write");
            sandbox.sparse("sparse", MIB as u64, &[(5000, 10)]);
            sandbox.dir("target");
        },
        &["--sparse=always zeros sparse target"],
    );
    same_as_cp(
        |sandbox| _ = fs::write(sandbox.path("zeros"), vec![0; MIB]),
        &["--sparse=always zeros copy"],
    );
}

#[test]
fn sparse_never_fills_holes() {
    let sandbox = Sandbox::new();
    let size = 2 * MIB as u64;
    let source = sandbox.sparse("sparse", size, &[(300_000, 5000)]);
    sandbox.poolcp(["--sparse=never", "sparse", "full"]).ok();
    let copy = sandbox.path("full");
    assert!(allocated(&copy) >= size, "{} bytes", allocated(&copy));
    assert_eq!(
        fs::read(source).expect("read"),
        fs::read(copy).expect("read")
    );
}

#[test]
fn files_without_a_true_size_are_read_to_their_end() {
    let sandbox = Sandbox::new();
    // /proc says 0, sysfs says 4096, whatever there is.
    let names = [
        "/proc/version",
        "/proc/filesystems",
        "/proc/kallsyms",
        "/sys/kernel/fscaps",
    ];
    for name in names {
        let Ok(expected) = fs::read(name) else {
            continue;
        };
        for options in ["-r", "-a", "--sparse=always", "--sparse=never"] {
            let copy = format!("copy{options}");
            sandbox.poolcp([options, name, &copy]).ok();
            let copy = sandbox.path(copy);
            assert!(
                fs::read(&copy).expect("read") == expected,
                "{options} {name}"
            );
            fs::remove_file(copy).expect("remove");
        }
    }
}

// ---- Names ----

#[test]
fn any_name_that_the_kernel_takes_is_copied() {
    let sandbox = Sandbox::new();
    let longest = "n".repeat(255);
    let longest_wide = "\u{e4}".repeat(127);
    let names: [&[u8]; 14] = [
        b"two words",
        b"new\nline",
        b"\n",
        b"-rf",
        b"--",
        b"...",
        b".hidden",
        b"quo'te\"s`$(x)",
        b"back\\slash",
        b"\xff\xfe not utf-8",
        b"tab\tbell\x07\x1b[31m",
        "\u{1f4be}\u{202e}".as_bytes(),
        longest.as_bytes(),
        longest_wide.as_bytes(),
    ];
    for name in names.map(OsStr::from_bytes) {
        sandbox.file(Path::new("source/files").join(name), 100);
        sandbox.symlink(Path::new("source/links").join(name), name);
        sandbox.file(Path::new("source/dirs").join(name).join(name), 10);
    }
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
}

// ---- Symbolic links ----

fn make_links(sandbox: &Sandbox) {
    sandbox.file("source/dir/file", 100);
    sandbox.symlink("source/to-file", "dir/file");
    sandbox.symlink("source/to-dir", "dir");
    sandbox.symlink("source/absolute", "/");
    sandbox.symlink("source/dangling", "nowhere");
    sandbox.symlink("source/to-itself", "to-itself");
    sandbox.symlink("source/long", "x/".repeat(2047));
    sandbox.symlink("link-to-source", "source");
    set_mtime(&sandbox.path("source/dangling"), 1_234_567_890, 987_654_321);
}

#[test]
fn symbolic_links_are_copied_as_links() {
    needs!(GnuCp9);
    let sandbox = Sandbox::new();
    make_links(&sandbox);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    same_as_cp(
        make_links,
        &[
            "-r source copy",
            "-d source/to-file copy",
            "-P source/to-dir copy",
            "-r link-to-source copy",
        ],
    );
}

#[test]
fn symbolic_links_are_followed_as_asked() {
    needs!(GnuCp9);
    let few = |sandbox: &Sandbox| {
        sandbox.file("source/dir/file", 100);
        sandbox.symlink("source/to-file", "dir/file");
        sandbox.symlink("source/to-dir", "dir");
        sandbox.symlink("source/dangling", "nowhere");
        sandbox.symlink("link-to-source", "source");
        sandbox.symlink("link-to-file", "source/dir/file");
        sandbox.dir("existing");
    };
    same_as_cp(
        few,
        &[
            "-rL source copy",
            "-rH source copy",
            "-rH link-to-source copy",
            "-rH link-to-source link-to-file existing",
            "-rL link-to-source copy",
            "-rLP link-to-source copy",
            "-aL source/to-dir copy",
            "link-to-file copy",
            "link-to-source copy",
            "source/dangling copy",
            "-r link-to-source/ copy",
            "-r link-to-source/. copy",
        ],
    );
}

#[test]
fn a_link_to_an_ancestor_is_refused_when_links_are_followed() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/dir/file", 100);
        sandbox.symlink("source/dir/up", "..");
    };
    same_as_cp(setup, &["-rL source copy"]);
}

// ---- Hard links ----

#[test]
fn names_of_one_file_are_one_file_in_the_copy() {
    let sandbox = Sandbox::new();
    sandbox.file("source/a/1", 5000);
    sandbox.hard_link("source/a/2", "source/a/1");
    sandbox.hard_link("source/b/deep/down/3", "source/a/1");
    sandbox.file("source/outside", 10);
    sandbox.hard_link("elsewhere", "source/outside");
    sandbox.symlink("source/link", "target");
    sandbox.hard_link("source/same-link", "source/link");
    sandbox.fifo("source/fifo");
    sandbox.hard_link("source/b/same-fifo", "source/fifo");
    let report = sandbox
        .poolcp(["-a", "-j4", "--report=json", "source", "copy"])
        .ok()
        .json();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    assert_eq!(
        (&report["files"], &report["hard_links"]),
        (&2.into(), &4.into())
    );
    assert_eq!(report["bytes_moved"], 5010, "{report}");
}

#[test]
fn many_workers_copy_each_linked_file_once() {
    const FILES: usize = 20;
    const NAMES: usize = 50;
    const SIZE: usize = 30_000;
    let sandbox = Sandbox::new();
    for file in 0..FILES {
        sandbox.file(format!("source/0/{file}"), SIZE);
        for name in 1..NAMES {
            sandbox.hard_link(format!("source/{name}/{file}"), format!("source/0/{file}"));
        }
    }
    let source = Snapshot::of(&sandbox.path("source"));
    for round in 0..8 {
        let copy = format!("copy{round}");
        let args = ["-a", "-j16", "--report=json", "source", &copy];
        let report = sandbox.poolcp(args).ok().json();
        assert_same(&source, &Snapshot::of(&sandbox.path(copy)), "-a -j16");
        assert_eq!(report["files"], FILES);
        assert_eq!(report["hard_links"], FILES * (NAMES - 1));
        assert_eq!(report["bytes"], FILES * SIZE);
        let moved = &report["bytes_by_method"];
        let moved = ["reflink", "kernel", "read_write"].map(|how| moved[how].as_u64());
        assert_eq!(
            moved.into_iter().flatten().sum::<u64>(),
            (FILES * SIZE) as u64
        );
    }
}

#[test]
fn names_that_a_mount_shows_once_more_are_links_too() {
    needs!(Mount, GnuCp9);
    let sandbox = Sandbox::new();
    sandbox.file("source/a/file", 100);
    sandbox.hard_link("source/b/file", "source/a/file");
    let _mounts = ["c", "d"].map(|dir| {
        let at = sandbox.dir(format!("source/{dir}"));
        Mount::bind(&sandbox.path("source/a"), &at).expect("a mount")
    });
    sandbox.cp(["-a", "source", "expected"]).ok();
    let expected = Snapshot::of(&sandbox.path("expected"));
    for workers in ["-j1", "-j4"] {
        let copy = format!("copy{workers}");
        sandbox.poolcp(["-a", workers, "source", &copy]).ok();
        assert_same(&expected, &Snapshot::of(&sandbox.path(copy)), workers);
    }
}

#[test]
fn a_file_that_gets_the_number_of_one_that_is_gone_is_no_further_name_of_it() {
    needs!(Ext4, GnuEnv);
    let sandbox = Sandbox::in_memory();
    let _mount = Mount::ext4(&sandbox, "at", &[]).expect("an ext4");
    let first = sandbox.file("at/a", 10);
    let second = sandbox.hard_link("at/also-a", "at/a");
    sandbox.file("at/b", 500_000);
    let third = sandbox.file("at/c", 1);
    let number = fs::metadata(&first).expect("stat").ino();
    let args = ["-aq", "-j1", "--bwlimit=500K", "at/a", "at/b", "at/c", "."];
    let mut copy = start(&sandbox, &args);
    while !sandbox.path("a").exists() || staged(&sandbox.path("")).is_empty() {
        assert!(copy.try_wait().expect("a child").is_none());
        thread::sleep(Duration::from_millis(1));
    }
    fs::remove_file(&first).expect("remove");
    fs::remove_file(&second).expect("remove");
    let new = sandbox.file("at/new", 20);
    sandbox.hard_link("at/also-new", "at/new");
    fs::rename(&new, &third).expect("rename");
    assert_eq!(
        fs::metadata(&third).expect("stat").ino(),
        number,
        "as ext4 does"
    );
    assert!(copy.wait().expect("wait").success());
    assert_eq!(fs::metadata(sandbox.path("c")).expect("stat").len(), 20);
    assert_eq!(fs::metadata(sandbox.path("a")).expect("stat").len(), 10);
}

#[test]
fn links_are_kept_between_operands_and_only_when_asked() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("a", 100);
        sandbox.hard_link("b", "a");
        sandbox.hard_link("dir/c", "a");
        sandbox.dir("target");
    };
    same_as_cp(
        setup,
        &[
            "-a a b target",
            "-r a b target",
            "-d a b target",
            "-dr a b target",
            "-p a b target",
            "-rp a b target",
            "--preserve=links a b target",
            "-rd a b target",
            "-rL a b target",
            "-a a dir target",
            "-a --no-preserve=links a dir target",
            "-r --preserve=links a b dir target",
        ],
    );
}

#[test]
fn linked_files_merge_into_a_target_that_has_links_of_its_own() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("source/a", 100);
        sandbox.hard_link("source/b", "source/a");
        sandbox.file("source/c", 5);
        sandbox.file("target/a", 7);
        sandbox.hard_link("target/other", "target/a");
        sandbox.file("target/b", 9);
    };
    same_as_cp(
        setup,
        &[
            "-a -T source target",
            "-r -T source target",
            "-af -T source target",
            "-dr -T source target",
        ],
    );
}

// ---- Special files ----

#[test]
fn fifos_and_sockets_are_made_again_and_never_opened() {
    needs!(GnuCp9);
    let sandbox = Sandbox::new();
    sandbox.fifo("source/fifo");
    sandbox.socket("source/socket");
    chmod(&sandbox.path("source/fifo"), 0o751);
    set_mtime(&sandbox.path("source/fifo"), 1_000_000_000, 1);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    let setup = |sandbox: &Sandbox| {
        sandbox.fifo("source/fifo");
        sandbox.socket("source/socket");
        chmod(&sandbox.path("source/fifo"), 0o777);
    };
    same_as_cp(
        setup,
        &["-r source copy", "-r source/fifo source/socket source/.."],
    );
}

#[test]
fn devices_are_made_again_as_the_same_devices() {
    needs!(GnuCp9);
    needs!(Root, Mknod);
    let sandbox = Sandbox::new();
    sandbox.device("source/null", FileType::CharacterDevice, 1, 3);
    sandbox.device("source/odd", FileType::CharacterDevice, 300, 70_000);
    sandbox.device("source/block", FileType::BlockDevice, 7, 200);
    chmod(&sandbox.path("source/null"), 0o666);
    sandbox.poolcp(["-a", "source", "copy"]).ok();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "-a");
    let setup = |sandbox: &Sandbox| {
        sandbox.device("source/null", FileType::CharacterDevice, 1, 3);
    };
    same_as_cp(setup, &["-r source copy"]);
}

#[test]
fn without_r_a_device_is_read_like_a_file() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| _ = sandbox.file("existing", 100);
    same_as_cp(setup, &["/dev/null copy", "/dev/null existing"]);
}

#[test]
fn without_r_a_fifo_is_read_like_a_file() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.fifo("fifo");
    // The writer waits for a reader, or gets one from the end of the test.
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, "through the fifo")
    });
    let run = sandbox.poolcp(["fifo", "copy"]).run();
    let copy = sandbox.path("copy");
    let is_file = fs::symlink_metadata(&copy).is_ok_and(|meta| meta.is_file());
    if !is_file {
        // Ends the writer.
        fs::read(fifo).expect("read");
    }
    writer.join().expect("the writer").expect("write");
    assert!(is_file, "{run:?}");
    assert_eq!(fs::read_to_string(copy).expect("read"), "through the fifo");
}

#[test]
fn one_tree_of_all_kinds_satisfies_rsync() {
    needs!(Rsync);
    let sandbox = Sandbox::new();
    make_links(&sandbox);
    make_sparse_files(&sandbox);
    sandbox.fifo("source/dir/fifo");
    sandbox.hard_link("source/hard", "source/ragged");
    sandbox.poolcp(["-a", "-j4", "source", "copy"]).ok();
    assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("copy"));
}

#[test]
fn a_symbolic_link_to_a_relative_source_is_made_in_the_working_directory_only() {
    needs!(GnuCp9);
    let make = |sandbox: &Sandbox| {
        sandbox.file("a/f", 10);
        sandbox.file("a/g", 10);
        sandbox.fifo("fifo");
        sandbox.sparse("large", 1 << 30, &[]);
        sandbox.file("d/x", 10);
    };
    same_as_cp(
        make,
        &[
            "-sf large d/x",
            "-sf fifo d/x",
            "-s large fifo d",
            "-s --parents a/f a/g d",
            "-rs large d/new",
            "-s large here",
            "-s large ./here",
            "-s a/f a/g .",
        ],
    );
}

#[test]
fn an_operand_that_is_a_link_with_a_slash_behind_it_is_what_it_leads_to() {
    needs!(GnuCp9);
    let setup = |sandbox: &Sandbox| {
        sandbox.file("real/sub/x", 10);
        sandbox.hard_link("real/sub/y", "real/sub/x");
        sandbox.symlink("link", "real");
        sandbox.dir("t");
    };
    same_as_cp(setup, &["-a link/ real/sub t", "-r link/ real t"]);
}

#[test]
fn a_tebibyte_of_nothing_is_copied_in_no_time() {
    let sandbox = Sandbox::new();
    sandbox.sparse("huge", 1 << 40, &[(1 << 39, 4096)]);
    sandbox.poolcp(["huge", "copy"]).ok();
    let copy = sandbox.path("copy");
    assert_eq!(fs::metadata(&copy).expect("a copy").len(), 1 << 40);
    assert!(allocated(&copy) < 1 << 20);
}
