//! What devices do to a copy: they lose their power, break, fill up, or may not be written any more.
//!
//! There are real filesystems on them (loop devices over files): ext4, xfs and btrfs, each of which has its own order in which
//! things reach the device.
//!
//! - **Power**: what is on the device at one moment is kept as another image (by sharing blocks, so that no write comes
//!   between), mounted, as after a crash of the machine, checked, and compared with the source.
//! - **Breaking**: the image is in a filesystem (FUSE) that refuses to read or write some of it.
//! - **Seeking**: the image is in a filesystem that takes its time to read what does not come next.
//! - **Filling up**: the image is in a filesystem that has less room than the device says (thin provisioning), the filesystem
//!   itself is small, or there is a quota.
//!
//! The long version of the crashes, some minutes:
//!
//!     cargo test --release --test it -- --ignored --nocapture crashes_of_the_machine

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::arm::Arm;
use crate::disks::{ALL_FORMATS, Disk, Format, Mount};
use crate::harness::{Sandbox, content, mixed, set_mtime, staged};
use crate::needs::say;
use crate::passthrough::{Manners, Operation, Passthrough};
use crate::programs::{Run, TRACE, poolcp, signal, start};
use crate::referees::{assert_rsync_agrees, changes_by_rsync};

const MIB: usize = 1 << 20;

// ---- Power ----

/// A disk whose image can be kept as it is at any moment.
struct Machine {
    /// Mounted below the sandbox, so it has to go first.
    _store: Mount,
    disk: Disk,
    sandbox: Sandbox,
}

impl Machine {
    fn new(format: Format) -> Self {
        let sandbox = Sandbox::in_memory();
        let at = sandbox.dir("store");
        let store = Disk::sized(sandbox.path("store.image"), Format::Xfs, &at, 2 << 30);
        let store = store.and_then(|store| store.mount("")).expect("a store");
        let at = sandbox.dir("disk");
        let disk = Disk::make(sandbox.path("store/image"), format, &at).expect("a disk");
        Self {
            _store: store,
            disk,
            sandbox,
        }
    }

    /// Writes nothing by itself for as long as a test takes: what is on the device then is what somebody has asked for.
    fn mount(&self) -> Mount {
        let lazily = match self.disk.format() {
            Format::Ext4 | Format::Btrfs => "commit=300",
            Format::Xfs => "",
        };
        self.disk.mount(lazily).expect("mount")
    }

    /// The disk after a crash at this moment.
    fn crash(&self, mount: Mount) -> Disk {
        let after = self.disk.stopped_now(self.sandbox.path("store/after"));
        mount.unmount();
        after
    }
}

#[test]
fn a_durable_copy_survives_a_crash_of_the_machine() {
    needs!(Rsync, Formats);
    for format in ALL_FORMATS {
        let machine = Machine::new(format);
        let sandbox = &machine.sandbox;
        mixed(sandbox);
        let copy = |options: &[&str]| {
            let args = [options, &["-a", "-T", "source", "disk/copy"]].concat();
            sandbox.poolcp(args).ok();
        };
        let compare = |mount: Mount| {
            let after = machine.crash(mount);
            let mount = after.mount("").expect("mount");
            let changes = changes_by_rsync(&sandbox.path("source"), &sandbox.path("disk/copy"));
            mount.unmount();
            after.check();
            changes
        };

        let mount = machine.mount();
        copy(&[]);
        assert_ne!(compare(mount), "", "{format:?}: nothing to lose");

        for options in [
            &["--fsync"][..],
            // What is there in part is replaced.
            &["--fsync", "--update=changed"],
            &["--fsync", "--atomic=never"],
        ] {
            let mount = machine.mount();
            copy(options);
            assert_eq!(compare(mount), "", "{format:?} {options:?}");
        }
    }
}

/// Copies that end with a crash of the machine at some moment, each finished by a second run.
fn crash_and_go_on(format: Format, times: u32) {
    let machine = Machine::new(format);
    let sandbox = &machine.sandbox;
    mixed(sandbox);
    // Their sizes are known to the filesystem before their data are on the device.
    for i in 0..40 {
        let size = 3 * MIB as u64;
        let path = sandbox.sparse(
            format!("source/sparse/{i}"),
            size,
            &[(0, 9000), (MIB as u64, 90_000)],
        );
        set_mtime(&path, 1_000_000_000 + i, 0);
    }
    let args = ["-aTq", "--fsync", "source", "disk/copy"];
    let mount = machine.mount();
    let begin = Instant::now();
    assert!(start(sandbox, &args).wait().expect("wait").success());
    let whole = begin.elapsed();
    mount.unmount();
    let (mut there, mut left) = (0, 0);
    for i in 0..times {
        let mount = machine.mount();
        // It may not have come so far.
        let _ = fs::remove_dir_all(sandbox.path("disk/copy"));
        rustix::fs::syncfs(fs::File::open(sandbox.path("disk")).expect("open")).expect("sync");
        let busy = AtomicBool::new(true);
        let after = thread::scope(|scope| {
            // Somebody else who has names and sizes written, but not the data of others.
            scope.spawn(|| {
                let other = sandbox.path("disk/other");
                for i in 0_u64.. {
                    if !busy.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = fs::remove_file(&other);
                    let file = fs::File::create(&other).expect("make");
                    file.write_all_at(&i.to_le_bytes(), 0).expect("write");
                    file.sync_all().expect("sync");
                }
            });
            let mut child = start(sandbox, &args);
            thread::sleep(whole * i / times);
            let after = machine.disk.stopped_now(sandbox.path("store/after"));
            signal(&child, Signal::KILL);
            child.wait().expect("wait");
            busy.store(false, Ordering::Relaxed);
            after
        });
        mount.unmount();
        let mount = after.mount("").expect("mount");
        let goes_on = [
            "-aT",
            "--update=changed",
            "--report=json",
            "source",
            "disk/copy",
        ];
        let report = sandbox.poolcp(goes_on).ok().json();
        if report["skipped"].as_u64() > Some(0) {
            there += 1;
        }
        if report["files"].as_u64() > Some(0) {
            left += 1;
        }
        assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("disk/copy"));
        assert_eq!(staged(&sandbox.path("disk/copy")), [""; 0]);
        mount.unmount();
        after.check();
    }
    say(&format!(
        "{format:?}: of {times} crashes {there} left something, and {left} left something to do"
    ));
    assert!(left > 0);
}

#[test]
fn a_copy_is_finished_after_a_crash_of_the_machine() {
    needs!(Rsync, Formats, GnuEnv);
    for format in ALL_FORMATS {
        crash_and_go_on(format, 2);
    }
}

#[test]
#[ignore = "takes minutes"]
fn copies_are_finished_after_many_crashes_of_the_machine() {
    needs!(Rsync, Formats, GnuEnv);
    for format in ALL_FORMATS {
        crash_and_go_on(format, 70);
    }
}

// ---- Breaking ----

/// Every file of the source is at the destination as it is, or is missing there and named in a message.
fn assert_whole_or_named(source: &Path, copy: &Path, run: &Run, why: &[&str]) -> usize {
    let mut missing = 0;
    for line in run.messages() {
        assert!(why.iter().any(|why| line.ends_with(why)), "{line}");
    }
    for entry in fs::read_dir(copy).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        assert!(source.join(&name).exists(), "{name:?} is there");
    }
    for entry in fs::read_dir(source).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        match fs::read(copy.join(&name)) {
            Ok(copied) => {
                let whole = fs::read(source.join(&name)).expect("read");
                assert!(copied == whole, "{name:?} is there in part");
            }
            Err(_) => {
                missing += 1;
                let named = format!("/{}'", name.to_string_lossy());
                assert!(run.stderr.contains(&named), "{name:?}: {run:?}");
            }
        }
    }
    missing
}

/// A disk of which half, in stripes of 8 MiB, cannot be read or written while it is broken.
struct Broken {
    is_broken: Arc<AtomicBool>,
    disk: Disk,
    // In this order: each is in the next one.
    _filesystem: Passthrough,
    sandbox: Sandbox,
}

impl Broken {
    fn new(format: Format, operation: Operation) -> Self {
        let sandbox = Sandbox::in_memory();
        let is_broken = Arc::new(AtomicBool::new(false));
        let refuses = Arc::clone(&is_broken);
        let manners = Manners {
            refuse: Box::new(move |call| {
                let is_refused = call.operation == operation
                    && (call.offset >> 23) % 2 == 1
                    && refuses.load(Ordering::Relaxed);
                is_refused.then_some(Errno::IO)
            }),
            ..Manners::default()
        };
        let (below, at) = (sandbox.dir("below"), sandbox.dir("broken"));
        let filesystem = Passthrough::mount(&below, &at, manners).expect("mount");
        let at = sandbox.dir("disk");
        let disk = Disk::make(sandbox.path("broken/image"), format, &at).expect("a disk");
        Self {
            is_broken,
            disk,
            _filesystem: filesystem,
            sandbox,
        }
    }
}

/// Files of all in all 1.2 MiB for each of `count`.
fn fill(dir: &Path, count: u64) {
    fs::create_dir_all(dir).expect("make a directory");
    for i in 0..count {
        let len = if i % 9 == 0 { 9 * MIB } else { 300_000 };
        fs::write(dir.join(i.to_string()), content(len, i)).expect("write");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_named_and_not_there_in_part() {
    needs!(Fuse, Formats);
    for format in [Format::Ext4, Format::Xfs] {
        let Broken {
            is_broken,
            disk,
            sandbox,
            _filesystem,
        } = &Broken::new(format, Operation::Read);
        let mount = disk.mount("").expect("mount");
        let source = sandbox.path("disk/source");
        fill(&source, 40);
        rustix::fs::syncfs(fs::File::open(&source).expect("open")).expect("sync");
        let drop_caches = |dir: &Path| {
            for entry in fs::read_dir(dir).expect("a directory") {
                let file = fs::File::open(entry.expect("an entry").path()).expect("open");
                rustix::fs::fadvise(file, 0, None, Advice::DontNeed).expect("fadvise");
            }
        };
        drop_caches(&source);
        drop_caches(&sandbox.path("broken"));
        drop(fs::File::open(disk.image()).map(|file| file.sync_all()));
        is_broken.store(true, Ordering::Relaxed);
        let run = sandbox.poolcp(["-r", "disk/source", "copy"]).run();
        is_broken.store(false, Ordering::Relaxed);
        assert_eq!(run.code, 1, "{format:?}: {run:?}");
        let missing = assert_whole_or_named(
            &source,
            &sandbox.path("copy"),
            &run,
            &[": Input/output error"],
        );
        assert!((1..40).contains(&missing), "{format:?}: {missing}");
        mount.unmount();
    }
}

#[test]
fn a_device_that_cannot_be_written_is_told_by_a_durable_copy() {
    needs!(Fuse, Formats);
    for format in ALL_FORMATS {
        for option in ["--fsync", "--verify"] {
            let Broken {
                is_broken,
                disk,
                sandbox,
                _filesystem,
            } = &Broken::new(format, Operation::Write);
            let mount = disk.mount("").expect("mount");
            fill(&sandbox.path("source"), 40);
            is_broken.store(true, Ordering::Relaxed);
            let run = sandbox.poolcp(["-r", option, "source", "disk/copy"]).run();
            is_broken.store(false, Ordering::Relaxed);
            let what = format!("{format:?} {option}: {run:?}");
            assert_eq!(run.code, 1, "{what}");
            let reason = [": Input/output error", ": Read-only file system"];
            assert!(
                run.messages()
                    .iter()
                    .all(|line| reason.iter().any(|why| line.ends_with(why))),
                "{what}"
            );
            if option == "--fsync" {
                assert!(run.stderr.contains("'disk"), "{what}");
            } else {
                assert!(run.stderr.contains("'disk/copy/"), "{what}");
            }
            mount.unmount();
        }
    }
}

#[test]
fn a_device_with_less_room_than_it_says_is_told_by_a_durable_copy() {
    needs!(Mount, Formats);
    for format in ALL_FORMATS {
        let sandbox = Sandbox::in_memory();
        let _thin = Mount::tmpfs(&sandbox.dir("thin"), "100m").expect("a tmpfs");
        let at = sandbox.dir("disk");
        let Some(disk) = Disk::make(sandbox.path("thin/image"), format, &at) else {
            say(&format!("skipped: no room for {format:?}"));
            continue;
        };
        let mount = disk.mount("").expect("mount");
        fill(&sandbox.path("source"), 90);
        let run = sandbox
            .poolcp(["-r", "--fsync", "source", "disk/copy"])
            .run();
        assert_eq!(run.code, 1, "{format:?}: {run:?}");
        assert!(run.stderr.contains("'disk"), "{format:?}: {run:?}");
        mount.unmount();
    }
}

// ---- Seeking ----

/// Mounts a disk with nothing of it in memory. The kernel takes it for one that seeks, or not.
fn mount_as(disk: &Disk, sandbox: &Sandbox, is_rotational: bool) -> Mount {
    let mount = disk.mount("").expect("mount");
    let found = Command::new("findmnt")
        .args(["-n", "-o", "SOURCE", "--target"])
        .arg(sandbox.path("disk"))
        .output();
    let device = String::from_utf8(found.expect("findmnt").stdout).expect("a path");
    let name = device.trim().trim_start_matches("/dev/");
    let flag = format!("/sys/block/{name}/queue/rotational");
    fs::write(flag, if is_rotational { "1" } else { "0" }).expect("tell the kernel");
    mount
}

/// ext4 lists names in no order at all; xfs and btrfs list these as they were made. What is made in turn lies side by side.
#[test]
fn a_disk_that_seeks_is_read_by_one_worker_in_the_order_of_its_inodes() {
    needs!(Rsync);
    const FILES: u64 = 1000;
    needs!(Fuse, Formats);
    for format in ALL_FORMATS {
        let sandbox = Sandbox::in_memory();
        let arm = Arm::new(Duration::from_millis(2));
        let (below, at) = (sandbox.dir("below"), sandbox.dir("slow"));
        let _filesystem = Passthrough::mount(&below, &at, arm.manners()).expect("mount");
        let at = sandbox.dir("disk");
        let disk = Disk::make(sandbox.path("slow/image"), format, &at).expect("a disk");
        let mount = mount_as(&disk, &sandbox, true);
        for dir in 0..10 {
            let dir = sandbox.dir(format!("disk/source/{dir}"));
            for file in 0..FILES / 10 {
                fs::write(dir.join(format!("{file}")), content(4096, file)).expect("write");
            }
        }
        mount.unmount();
        let moves = |is_rotational, jobs| {
            let mount = mount_as(&disk, &sandbox, is_rotational);
            arm.take_moves();
            let jobs = format!("-j{jobs}");
            sandbox
                .poolcp(["-a", &jobs, "-T", "disk/source", "copy"])
                .ok();
            let moves = arm.take_moves();
            assert_rsync_agrees(&sandbox.path("disk/source"), &sandbox.path("copy"));
            fs::remove_dir_all(sandbox.path("copy")).expect("remove");
            mount.unmount();
            moves
        };
        let (one, careless) = (moves(true, "1"), moves(false, "2"));
        // Where others take the processors much is measured wrong, now and then.
        let mut tries = (0..3).map(|_| moves(true, "auto"));
        let is_good = |auto: &u64| *auto < FILES / 2 && careless > 3 * auto;
        let auto = tries.find(is_good).unwrap_or_else(|| moves(true, "auto"));
        let told = format!("{format:?}: {one} by one, {auto} by auto, {careless} by two");
        assert!(one < FILES / 4 && auto < FILES / 2, "{told}");
        assert!(careless > 3 * auto, "{told}: nothing to avoid");
    }
}

// ---- Filling up ----

/// A copy that does not fit, and is finished once there is room.
fn overflow(sandbox: &Sandbox, what: &str, reason: &str, make_room: impl FnOnce()) {
    for i in 0..40 {
        let len = if i % 10 == 0 { 5 * MIB } else { 100_000 + i };
        set_mtime(&sandbox.file(format!("source/{i}"), len), 1_000_000_000, 0);
    }
    // These are replaced, and must not be lost if that fails.
    let is_old = |i: usize| i.is_multiple_of(4);
    for i in (0..40).filter(|&i| is_old(i)) {
        sandbox.file(format!("full/copy/{i}"), 10);
    }
    let args = ["-a", "-T", "source", "full/copy"];
    let run = sandbox.poolcp(args).run();
    assert_eq!(run.code, 1, "{what}: {run:?}");
    for line in run.messages() {
        assert!(line.ends_with(reason), "{what}: {line}");
    }
    for i in 0..40 {
        let copy = sandbox.path(format!("full/copy/{i}"));
        let Ok(copied) = fs::read(&copy) else {
            assert!(!is_old(i), "{what}: {i} is lost");
            continue;
        };
        let whole = fs::read(sandbox.path(format!("source/{i}"))).expect("read");
        let is_kept = is_old(i) && copied.len() == 10;
        assert!(copied == whole || is_kept, "{what}: {i} is there in part");
    }
    assert_eq!(staged(&sandbox.path("full/copy")), [""; 0], "{what}");
    make_room();
    let goes_on = ["--update=changed"].into_iter().chain(args);
    sandbox.poolcp(goes_on).ok();
    assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("full/copy"));
}

const NO_SPACE: &str = ": No space left on device";

#[test]
fn a_copy_that_does_not_fit_is_finished_once_there_is_room() {
    needs!(Rsync, Mount, Formats);
    let sandbox = Sandbox::in_memory();
    let full = sandbox.dir("full");
    let mount = Mount::tmpfs(&full, "12m").expect("a tmpfs");
    overflow(&sandbox, "tmpfs", NO_SPACE, || {
        Mount::remount(&full, "size=40m")
    });
    mount.unmount();
    for format in ALL_FORMATS {
        let sandbox = Sandbox::in_memory();
        let full = sandbox.dir("full");
        let disk = Disk::make(sandbox.path("image"), format, &full).expect("a disk");
        let mount = disk.mount("").expect("mount");
        // All but some 12 MiB of what is there.
        let ballast = full.join("ballast");
        let fallocate = |mib: u64| {
            let file = fs::File::create(&ballast).expect("make");
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, mib << 20)
        };
        let mut mib = 512;
        while fallocate(mib).is_err() {
            mib -= 1;
        }
        fallocate(mib - 12).expect("it was there before");
        overflow(&sandbox, &format!("{format:?}"), NO_SPACE, || {
            fs::remove_file(&ballast).expect("remove");
            rustix::fs::syncfs(fs::File::open(&full).expect("open")).expect("sync");
        });
        mount.unmount();
        disk.check();
    }
}

#[test]
fn a_copy_beyond_a_quota_is_finished_once_there_is_room() {
    needs!(Rsync, Formats);
    let sandbox = Sandbox::in_memory();
    let full = sandbox.dir("full");
    let disk = Disk::make(sandbox.path("image"), Format::Btrfs, &full).expect("a disk");
    let mount = disk.mount("").expect("mount");
    let btrfs = |args: &[&str]| {
        let out = Command::new("btrfs").args(args).arg(&full).output();
        let out = out.expect("btrfs");
        assert!(out.status.success(), "{out:?}");
    };
    btrfs(&["quota", "enable"]);
    btrfs(&["qgroup", "limit", "12M"]);
    overflow(&sandbox, "quota", ": Disk quota exceeded", || {
        btrfs(&["qgroup", "limit", "none"]);
    });
    mount.unmount();
}

// ---- May not be written any more ----

#[test]
fn a_filesystem_that_gives_up_is_told_and_the_copy_finished_later() {
    needs!(Rsync, Formats, GnuEnv);
    let give_up: [(Format, &[&str]); 3] = [
        // What the kernel does by itself when it finds a fault.
        (Format::Ext4, &["mount", "-o", "remount,abort"]),
        (Format::Ext4, &["xfs_io", "-x", "-c", "shutdown"]),
        (Format::Xfs, &["xfs_io", "-x", "-c", "shutdown"]),
    ];
    for (format, command) in give_up {
        let sandbox = Sandbox::in_memory();
        mixed(&sandbox);
        let at = sandbox.dir("disk");
        let disk = Disk::make(sandbox.path("image"), format, &at).expect("a disk");
        let args = ["-aTq", "--fsync", "source", "disk/copy"];
        let mut failed = 0;
        for wait in [3, 10, 20, 40, 60, 90] {
            let mount = disk.mount("").expect("mount");
            let _ = fs::remove_dir_all(sandbox.path("disk/copy"));
            let child = start(&sandbox, &args);
            thread::sleep(Duration::from_millis(wait));
            let given_up = Command::new(command[0])
                .args(&command[1..])
                .arg(&at)
                .output()
                .expect("run");
            assert!(given_up.status.success(), "{given_up:?}");
            let output = child.wait_with_output().expect("wait");
            mount.unmount();
            // Ext4 notes that it gave up.
            let _ = Command::new("e2fsck").arg("-fy").arg(disk.image()).output();
            let mount = disk.mount("").expect("mount");
            let stderr = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                // It had come to its end, and keeps its promise.
                Some(0) => {}
                Some(1) => {
                    failed += 1;
                    let reasons = [": Input/output error", ": Read-only file system"];
                    for line in stderr.lines() {
                        assert!(reasons.iter().any(|why| line.ends_with(why)), "{line}");
                    }
                    let goes_on = ["-aT", "--update=changed", "source", "disk/copy"];
                    sandbox.poolcp(goes_on).ok();
                }
                _ => panic!("{output:?}"),
            }
            assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("disk/copy"));
            mount.unmount();
            disk.check();
        }
        assert!(failed > 0, "{format:?}: all ended before");
    }
}

#[test]
fn a_mount_that_becomes_read_only_is_told_and_the_copy_finished_later() {
    needs!(Rsync, Mount);
    let sandbox = Sandbox::in_memory();
    for i in 0..3000 {
        set_mtime(
            &sandbox.file(format!("source/{}/{i}", i % 30), 10),
            1_000_000_000,
            0,
        );
    }
    let mounted = sandbox.dir("target");
    let mut failed = 0;
    for _ in 0..5 {
        let _mount = Mount::tmpfs(&mounted, "64m").expect("a tmpfs");
        let child = Command::new(poolcp())
            .args(["-aTq", "-j1", "source", "target/copy"])
            .current_dir(sandbox.path(""))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("start");
        thread::sleep(Duration::from_millis(15));
        // Refused while a file is open for writing.
        let remount = |how: &str| {
            let out = Command::new("mount")
                .args(["-o", how])
                .arg(&mounted)
                .output();
            out.expect("mount").status.success()
        };
        let begin = Instant::now();
        while !remount("remount,ro") {
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        let output = child.wait_with_output().expect("wait");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(remount("remount,rw"));
        if output.status.code() == Some(1) {
            failed += 1;
            for line in stderr.lines() {
                assert!(line.ends_with(": Read-only file system"), "{line}");
            }
            sandbox
                .poolcp(["-aT", "--update=changed", "source", "target/copy"])
                .ok();
        } else {
            assert!(output.status.success(), "{output:?}");
        }
        assert_rsync_agrees(&sandbox.path("source"), &sandbox.path("target/copy"));
    }
    assert!(failed > 0, "all ended before");
}

#[test]
fn what_is_written_is_synced_whatever_filesystem_it_is_on() {
    needs!(Mount, Strace);
    let sandbox = Sandbox::new();
    let (disk, other) = (sandbox.dir("disk"), sandbox.dir("other"));
    let mount = |at| Mount::tmpfs(at, "10M").expect("a filesystem");
    let _mounts = (mount(&disk), mount(&other));
    sandbox.file("a/b/file", 100);
    sandbox.file("other/old", 10);
    sandbox.symlink("disk/link", other.join("old"));
    let synced = |args: &[&str]| {
        let trace = ["-y", "--trace=syncfs,fsync"];
        sandbox.poolcp(args).traced(&trace).ok();
        fs::read_to_string(sandbox.path(TRACE)).expect("a trace")
    };
    let at = |path: &Path| format!("<{}", path.display());
    // The leading directories are not there when it begins.
    let calls = synced(&["--fsync", "--parents", "a/b/file", "disk"]);
    assert!(calls.contains(&at(&disk)), "{calls}");
    // Through a link it goes to a filesystem that no directory of the copy is on.
    let calls = synced(&["--fsync", "a/b/file", "disk/link"]);
    assert!(calls.contains(&at(&other)), "{calls}");
}
