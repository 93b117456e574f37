//! File systems of a test's own: mounts, disks in files with what formats and checks them, loop devices.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Sandbox;
use crate::programs::PATIENCE;

/// A mounted file system, until it goes out of scope.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "poolcp-test"])
            .arg(at)
            .output();
        mount
            .is_ok_and(|out| out.status.success())
            .then(|| Self(at.to_owned()))
    }

    /// Two directories as one; what is written goes to the upper one.
    pub fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Option<Self> {
        let [lower, upper, work] = [lower, upper, work].map(Path::display);
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "overlay", "-o", &options, "overlay"]);
        let is_mounted = mount.arg(at).output().is_ok_and(|out| out.status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    /// Shows a directory at another place, too.
    pub fn bind(dir: &Path, at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mounted = mount.arg("--bind").args([dir, at]).output();
        let is_mounted = mounted.is_ok_and(|out| out.status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    /// A new file system of 64 MiB, in a file of the sandbox next to the directory.
    pub fn ext4(sandbox: &Sandbox, at: &str, options: &[&str]) -> Option<Self> {
        let image = sandbox.sparse(format!("{at}.ext4"), 64 << 20, &[]);
        let at = sandbox.dir(at);
        let run = |program: &str, args: &[&OsStr]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let quietly = ["-q", "-F"].iter().chain(options).map(OsStr::new);
        let make: Vec<&OsStr> = quietly.chain([image.as_os_str()]).collect();
        let mount = ["-t", "ext4", "-o", "loop"].map(OsStr::new);
        let mount = [&mount[..], &[image.as_os_str(), at.as_os_str()]].concat();
        (run("mkfs.ext4", &make) && run("mount", &mount)).then(|| Self(at))
    }
}

/// What a disk is formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ext4,
    Xfs,
    Btrfs,
}

pub const ALL_FORMATS: [Format; 3] = [Format::Ext4, Format::Xfs, Format::Btrfs];

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// A program that finds fault with an image, and repairs nothing.
    fn check(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["e2fsck", "-fn"],
            Self::Xfs => &["xfs_repair", "-n"],
            Self::Btrfs => &["btrfs", "check"],
        }
    }
}

/// A file with a file system in it, and where that is mounted.
pub struct Disk {
    image: PathBuf,
    format: Format,
    at: PathBuf,
}

impl Disk {
    /// A new one of 512 MiB, the least that all formats take.
    pub fn make(image: PathBuf, format: Format, at: &Path) -> Option<Self> {
        Self::sized(image, format, at, 512 << 20)
    }

    pub fn sized(image: PathBuf, format: Format, at: &Path, size: u64) -> Option<Self> {
        File::create(&image)
            .and_then(|file| file.set_len(size))
            .ok()?;
        // What ext4 would write in its own time is written now.
        let options: &[&str] = match format {
            Format::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Format::Xfs | Format::Btrfs => &["-q", "-f"],
        };
        let made = Command::new(format!("mkfs.{}", format.name()))
            .args(options)
            .arg(&image)
            .output();
        made.is_ok_and(|out| out.status.success()).then(|| Self {
            image,
            format,
            at: at.to_owned(),
        })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    pub fn mount(&self, options: &str) -> Option<Mount> {
        let options = format!("loop,{options}");
        let mount = Command::new("mount")
            .args(["-t", self.format.name(), "-o"])
            .arg(options.trim_end_matches(','))
            .args([&self.image, &self.at])
            .output();
        mount
            .is_ok_and(|out| out.status.success())
            .then(|| Mount(self.at.clone()))
    }

    /// What is on the device at this moment, as another disk: as if the machine had stopped. The image must be on a file system
    /// that can share blocks, so that no write comes between.
    pub fn stopped_now(&self, image: PathBuf) -> Self {
        let _ = fs::remove_file(&image);
        let shared = Command::new("cp")
            .arg("--reflink=always")
            .args([&self.image, &image])
            .status();
        assert!(shared.expect("cp").success());
        Self {
            image,
            format: self.format,
            at: self.at.clone(),
        }
    }

    /// Finds fault with the file system, which must not be mounted.
    #[track_caller]
    pub fn check(&self) {
        let check = self.format.check();
        let found = Command::new(check[0])
            .args(&check[1..])
            .arg(&self.image)
            .output();
        let found = found.expect("run a checker");
        let told = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{:?}: {told}", self.format);
    }
}

impl Mount {
    /// Unmounts it, and ends only then: a loop device is gone, too.
    pub fn unmount(self) {
        let begin = Instant::now();
        loop {
            let out = Command::new("umount").arg("-d").arg(&self.0).output();
            let out = out.expect("umount");
            if out.status.success() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{out:?}");
            thread::sleep(Duration::from_millis(50));
        }
        std::mem::forget(self);
    }

    pub fn remount(at: &Path, options: &str) {
        let options = format!("remount,{options}");
        let mount = Command::new("mount")
            .args(["-o", &options])
            .arg(at)
            .status();
        assert!(mount.expect("mount").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file as a disk, until it goes out of scope.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    pub fn attach(file: &Path) -> Option<Self> {
        let out = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let out = out.ok().filter(|out| out.status.success())?;
        let device = String::from_utf8_lossy(&out.stdout);
        Some(Self(device.trim().into()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}
