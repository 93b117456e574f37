//! Filesystems to copy on, fresh for each workload.
//!
//! As the superuser the bench makes its own: a tmpfs, and images of the others behind loop devices. Images for warm cells are
//! sparse files in `/dev/shm`, so that no disk disturbs what is about processors; those for cold cells lie on a real disk.
//! Anybody else gets a directory in `/dev/shm`, and that is all.
//!
//! # Nothing stays behind
//!
//! The bench has a mount namespace of its own, removes an image's name as soon as it is attached, and has loop devices
//! detach themselves when they are closed. So mounts, devices and images vanish with the process, however it ends.
//!
//! # Between runs
//!
//! [`Filesystem::settle`] leaves nothing of one copy for the next one to pay. Sync alone does not do that:
//!
//! - Removed files are torn down in the background (xfs, btrfs) and the journal still holds what has to be written to its
//!   place. Becoming read-only for a moment ends both, and keeps everything cached.
//! - ext4 does not reuse an inode that was removed minutes ago, and looks for others one by one among those of the copies
//!   before, which takes several times as long as copying a small file. It knows from inodes on disk, and only as long as
//!   they are in the device's cache; therefore that is flushed. The source's directories go with it, and are read again: what is
//!   warm is to be warm for those who list it, too.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::workload::Demand;

/// Where images for warm cells are.
const MEMORY: &str = "/dev/shm";

const MIB: u64 = 1 << 20;

/// A source and its copy, and a tenth to spare.
const COPIES: f64 = 2.2;

/// An image has room for so many further copies. On a filesystem that has not, copiers wait for what only a full one does:
/// ext4 writes back what is being written once less than twice that is free (`ext4_nonda_switch` in the kernel's sources).
const SPARE_COPIES: f64 = 2.0;

/// Every name takes a block for its data's end, and an inode.
const ENTRY_SIZE: u64 = 5 << 10;

/// For what a filesystem has of its own.
const OWN_SIZE: u64 = 160 * MIB;

/// Bytes. What needs at least this is a measurement and not a test.
const LARGE: u64 = 64 * MIB;

/// MiB. With a small journal, copying waits for it to be written to its place: it would be the limit for everybody. mkfs
/// wants more than twice that for the whole.
const JOURNAL: u64 = 1024;

/// MiB. xfs puts its log into one of four parts of the image.
const XFS_LOG: u64 = 512;

/// No image of xfs is smaller than that ("Filesystem must be larger than 300MB").
const SMALLEST_XFS: u64 = 320 * MIB;

/// Far more than tearing down removed files takes.
const LONGEST_REMOVAL: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tmpfs, Self::Ext4, Self::Xfs, Self::Btrfs];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether files can share blocks.
    pub fn can_clone(self) -> bool {
        matches!(self, Self::Xfs | Self::Btrfs)
    }
}

/// What of the source is in memory when a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// All of it.
    Warm,
    /// Nothing.
    Cold,
}

impl Cache {
    pub const ALL: [Self; 2] = [Self::Warm, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// What this process can do.
pub struct Abilities {
    /// It has a mount namespace of its own.
    mounts: bool,
    /// Where images for cold cells go.
    disk: PathBuf,
}

/// Why a filesystem is left out.
pub type Reason = String;

impl Abilities {
    /// Finds out, and enters the namespace. Call it while there is only one thread.
    pub fn find(disk: PathBuf) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let mounts = is_root
            && unshare(CloneFlags::CLONE_NEWNS).is_ok()
            // Or what is mounted here would be seen elsewhere.
            && command("mount", &["--make-rprivate", "/"]).is_ok();
        Self { mounts, disk }
    }

    /// Why there can be no such cells here; nothing if there can.
    pub fn obstacle(&self, kind: Kind, cache: Cache) -> Option<Reason> {
        match (kind, cache) {
            (Kind::Tmpfs, Cache::Cold) => Some("tmpfs is never cold".to_owned()),
            (Kind::Tmpfs, Cache::Warm) if self.mounts || is_tmpfs(Path::new(MEMORY)) => None,
            (Kind::Tmpfs, Cache::Warm) => Some(format!("{MEMORY} is no tmpfs")),
            _ if !self.mounts => Some("only the superuser can mount".to_owned()),
            (_, Cache::Cold) if is_tmpfs(&self.disk) => Some(format!(
                "{} is in memory; POOLCP_BENCH_DIR names another directory",
                self.disk.display()
            )),
            _ if !has_program(&format!("mkfs.{}", kind.name())) => {
                Some(format!("there is no mkfs.{}", kind.name()))
            }
            _ => None,
        }
    }

    /// Makes one that has room for the demand and a copy.
    pub fn make(&self, kind: Kind, cache: Cache, demand: Demand) -> io::Result<Filesystem> {
        let size = size(kind, demand);
        let place = match cache {
            Cache::Warm => Path::new(MEMORY),
            Cache::Cold => &self.disk,
        };
        check_room(kind, cache, place, demand)?;
        if kind == Kind::Tmpfs && !self.mounts {
            let directory = directory_in(place)?;
            return Ok(Filesystem {
                kind,
                cache,
                device: None,
                is_mounted: false,
                root: directory.path().to_owned(),
                _directory: directory,
            });
        }
        let directory = directory_in(&std::env::temp_dir())?;
        let mut filesystem = Filesystem {
            kind,
            cache,
            device: None,
            is_mounted: false,
            root: directory.path().to_owned(),
            _directory: directory,
        };
        if kind == Kind::Tmpfs {
            let inodes = (demand.entries as f64 * COPIES) as u64 + 1000;
            let options = format!("size={size},nr_inodes={inodes}");
            let root = filesystem.root.to_string_lossy();
            command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &root])?;
            filesystem.is_mounted = true;
            return Ok(filesystem);
        }
        filesystem.device = Some(Device::make(kind, place, size, demand)?);
        filesystem.mount()?;
        Ok(filesystem)
    }
}

/// A filesystem of the bench's own; gone when dropped.
pub struct Filesystem {
    kind: Kind,
    cache: Cache,
    is_mounted: bool,
    device: Option<Device>,
    root: PathBuf,
    /// Where it is mounted; or itself, in somebody else's tmpfs.
    _directory: TempDir,
}

impl Filesystem {
    pub fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    pub fn copy(&self) -> PathBuf {
        self.root.join("copy")
    }

    /// Waits until nothing of what was done so far is left to do. See the module's documentation.
    pub fn settle(&self) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?)?;
        if let Some(device) = &self.device {
            let root = self.root.to_string_lossy();
            become_read_only(&root)?;
            command("mount", &["-o", "remount,rw", &root])?;
            if self.cache == Cache::Warm && has_program("fstrim") {
                // An image in memory shrinks by what was removed. (Mounted with `discard` it would do so file by file, which
                // takes minutes.)
                command("fstrim", &[&root])?;
            }
            if self.kind == Kind::Ext4 {
                command("blockdev", &["--flushbufs", &device.path])?;
                if self.cache == Cache::Warm {
                    read_directories(&self.source())?;
                }
            }
        }
        Ok(())
    }

    /// Before a run in a cold cell, empties caches: those of this filesystem by unmounting it, which leaves less than
    /// anything else, and those of the disk that its image is on.
    pub fn chill(&mut self, drop_caches: bool) -> io::Result<()> {
        if self.cache == Cache::Cold {
            self.unmount()?;
            if drop_caches {
                fs::write("/proc/sys/vm/drop_caches", "3")?;
            }
            self.mount()?;
        }
        Ok(())
    }

    fn mount(&mut self) -> io::Result<()> {
        if let Some(device) = &self.device {
            let root = self.root.to_string_lossy();
            command("mount", &["-t", self.kind.name(), &device.path, &root])?;
            self.is_mounted = true;
        }
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        if self.is_mounted {
            command("umount", &[&self.root.to_string_lossy()])?;
            self.is_mounted = false;
        }
        Ok(())
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            // It goes when the last user does.
            eprintln!("peers: {error}");
            let _ = command("umount", &["--lazy", &self.root.to_string_lossy()]);
        }
    }
}

/// Reads a directory and those below it.
fn read_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read_directories(&entry.path())?;
        }
    }
    Ok(())
}

/// btrfs is busy ("mount point is busy") until the last removed file is torn down, which takes seconds for one of gigabytes.
fn become_read_only(root: &str) -> io::Result<()> {
    let deadline = Instant::now() + LONGEST_REMOVAL;
    loop {
        match command("mount", &["-o", "remount,ro", root]) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            outcome => return outcome.map(drop),
        }
    }
}

/// A loop device over an image without a name.
struct Device {
    path: String,
    /// Keeps the device while its filesystem is not mounted.
    _open: File,
}

impl Device {
    fn make(kind: Kind, place: &Path, size: u64, demand: Demand) -> io::Result<Self> {
        let image = tempfile::Builder::new()
            .prefix("poolcp-bench-")
            .tempfile_in(place)?;
        image.as_file().set_len(size)?;
        let image_path = image.path().to_string_lossy();
        make_filesystem(kind, &image_path, size, demand)?;
        // Direct: the disk's filesystem is to have no second copy of what is read.
        let direct = if is_tmpfs(place) { "off" } else { "on" };
        let direct = format!("--direct-io={direct}");
        let path = command("losetup", &["--find", "--show", &direct, &image_path])?;
        let open = File::open(&path);
        // As the device is open, this takes effect when it is not any more. If it could not be opened, at once.
        command("losetup", &["--detach", &path])?;
        Ok(Self { path, _open: open? })
    }
}

fn make_filesystem(kind: Kind, image: &str, size: u64, demand: Demand) -> io::Result<()> {
    let is_large = needed(demand) >= LARGE;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &str| arguments.extend(words.split_whitespace().map(str::to_owned));
    match kind {
        Kind::Tmpfs => {}
        Kind::Ext4 => {
            let inodes = (demand.entries as f64 * COPIES) as u64 + 1000;
            add(&format!("-q -F -m 0 -N {inodes}"));
            if is_large {
                add(&format!("-J size={JOURNAL}"));
            }
        }
        Kind::Xfs => {
            add("-q -f -m reflink=1");
            if is_large {
                add(&format!("-l size={XFS_LOG}m"));
            }
        }
        // One device needs no second copy of anything.
        Kind::Btrfs => add(&format!("-q -f -m single -d single -b {size}")),
    }
    arguments.push(image.to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    command(&format!("mkfs.{}", kind.name()), &arguments).map(drop)
}

/// Bytes that a filesystem for the demand and its copy is to have.
fn size(kind: Kind, demand: Demand) -> u64 {
    let copies = match kind {
        Kind::Tmpfs => COPIES,
        _ => COPIES + SPARE_COPIES,
    };
    let data = (needed(demand) as f64 * copies) as u64 + OWN_SIZE;
    let log = if needed(demand) >= LARGE {
        JOURNAL * MIB
    } else {
        0
    };
    let size = match kind {
        Kind::Tmpfs => data,
        Kind::Ext4 => (data + log).max(3 * log),
        Kind::Xfs => (data + log).max(SMALLEST_XFS).max(4 * log),
        // It allots space in large chunks, for data or for metadata; and keeps some for removing.
        Kind::Btrfs => data + data / 4 + log,
    };
    size.next_multiple_of(MIB)
}

pub fn needed(demand: Demand) -> u64 {
    demand.bytes + demand.entries * ENTRY_SIZE
}

/// Refuses what would fill the memory, or the disk: everything else on the machine suffers then.
fn check_room(kind: Kind, cache: Cache, place: &Path, demand: Demand) -> io::Result<()> {
    let data = (needed(demand) as f64 * COPIES) as u64 + OWN_SIZE;
    let available = memory_available()?;
    // Images in memory are there once more, in the cache of the filesystem that they hold.
    let memory = match (kind, cache) {
        (Kind::Tmpfs, _) => data,
        (_, Cache::Warm) => 2 * data,
        (_, Cache::Cold) => data / 2,
    };
    if memory > available {
        return Err(too_little("memory", memory, available));
    }
    if cache == Cache::Cold {
        let disk = rustix::fs::statvfs(place)?;
        let free = disk.f_bavail * disk.f_frsize;
        if size(kind, demand) > free {
            return Err(too_little(
                &place.to_string_lossy(),
                size(kind, demand),
                free,
            ));
        }
    }
    Ok(())
}

fn too_little(what: &str, needed: u64, available: u64) -> io::Error {
    let (needed, available) = (needed / MIB, available / MIB);
    io::Error::other(format!(
        "{needed} MiB of {what} needed, {available} available"
    ))
}

fn memory_available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let number = number.ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
    Ok(number << 10)
}

pub fn is_tmpfs(path: &Path) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;
    #[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
    let is_tmpfs = |stat: rustix::fs::StatFs| stat.f_type as i64 == TMPFS;
    rustix::fs::statfs(path).is_ok_and(is_tmpfs)
}

fn directory_in(place: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("poolcp-bench-")
        .tempdir_in(place)
}

/// In `PATH` or where the system's own programs are, which is not in everybody's.
fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|place| place.join(name).is_file())
}

/// Runs a program of the system and returns what it printed, or an error with what it complained about.
fn command(program: &str, arguments: &[&str]) -> io::Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = format!("{program} {}", arguments.join(" "));
    Err(io::Error::other(format!("{line}: {}", complaint.trim())))
}
