//! A sandbox: a directory of its own for each test, with builders of what is to be in it.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use tempfile::TempDir;

use crate::programs::is_root;
use crate::snapshot::Snapshot;

/// The user that stands for anybody but the superuser.
pub const NOBODY: u32 = 65534;

/// Where a file system in memory is.
const IN_MEMORY: &str = "/dev/shm";

/// A directory of its own for each test, with helpers that make things in it. All names are relative to it; parents are
/// made where they are missing.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir()).expect("a temporary directory")
    }

    /// On a file system in memory, if there is one with room for the largest tests, two at a time (a container may have one of
    /// 64 MiB): for tens of thousands of entries, whose journal would cost more time than all other tests.
    pub fn in_memory() -> Self {
        const ENOUGH: u64 = 2 << 30;
        let disk = rustix::fs::statvfs(IN_MEMORY);
        if disk.is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ENOUGH) {
            Self::small_in_memory()
        } else {
            Self::new()
        }
    }

    /// The same for a few small files, whatever room there is: listings and numbers of inodes have an order there, and nothing
    /// shares blocks.
    pub fn small_in_memory() -> Self {
        Self::below(Path::new(IN_MEMORY)).unwrap_or_else(|_| Self::new())
    }

    fn below(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("poolcp-")
            .tempdir_in(parent)?;
        // Its own mode is 0700, and some tests act as another user.
        chmod(dir.path(), 0o755);
        Ok(Self(dir))
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    fn with_parent(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make parents");
        path
    }

    pub fn dir(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("make a directory");
        path
    }

    /// A file of `len` bytes, none of its blocks zero, different for each name and the same in each sandbox.
    pub fn file(&self, name: impl AsRef<OsStr>, len: usize) -> PathBuf {
        let path = self.with_parent(name);
        let inside = path.strip_prefix(self.0.path()).expect("a path inside");
        let mut hasher = DefaultHasher::new();
        hasher.write(inside.as_os_str().as_bytes());
        fs::write(&path, content(len, hasher.finish())).expect("write a file");
        path
    }

    /// A file of `size` bytes with data at `ranges` (offset, length) and holes everywhere else.
    pub fn sparse(&self, name: impl AsRef<OsStr>, size: u64, ranges: &[(u64, usize)]) -> PathBuf {
        let path = self.with_parent(name);
        let file = File::create(&path).expect("make a file");
        file.set_len(size).expect("set a size");
        for &(offset, len) in ranges {
            file.write_all_at(&content(len, offset), offset)
                .expect("write");
        }
        path
    }

    pub fn symlink(&self, name: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        symlink(target.as_ref(), &path).expect("make a symlink");
        path
    }

    pub fn hard_link(&self, name: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        hard_link(&self.path(to), &path);
        path
    }

    pub fn fifo(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        fifo(&path);
        path
    }

    pub fn socket(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.with_parent(name);
        drop(UnixListener::bind(&path).expect("make a socket"));
        path
    }

    pub fn device(
        &self,
        name: impl AsRef<OsStr>,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> PathBuf {
        self.try_device(name, kind, major, minor)
            .expect("make a device file")
    }

    pub fn try_device(
        &self,
        name: impl AsRef<OsStr>,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> rustix::io::Result<PathBuf> {
        let path = self.with_parent(name);
        mknod(&path, kind, makedev(major, minor)).map(|()| path)
    }

    pub fn can_set(&self, attribute: &str, value: &[u8]) -> bool {
        let file = self.file("probe", 1);
        rustix::fs::lsetxattr(file, attribute, value, XattrFlags::empty()).is_ok()
    }

    /// Gives everything to the ordinary user, so that tests mean the same whoever runs them.
    pub fn give_to_ordinary_user(&self) {
        if is_root() {
            let everything = Command::new("chown")
                .arg("-hR")
                .arg(format!("{NOBODY}:{NOBODY}"))
                .arg(self.0.path())
                .status();
            assert!(everything.expect("chown").success());
        }
    }

    /// Everything in it, for a comparison with a twin.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0.path()).blurred()
    }
}

impl Drop for Sandbox {
    /// Lets the directory be removed by a user who has made some of it unreadable.
    fn drop(&mut self) {
        if !is_root() {
            let _ = Command::new("chmod")
                .arg("-R")
                .arg("u+rwx")
                .arg(self.0.path())
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// `len` bytes that look random, made from `seed`.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The standard library's may follow a symbolic link.
pub fn hard_link(to: &Path, path: &Path) {
    rustix::fs::linkat(CWD, to, CWD, path, AtFlags::empty()).expect("make a link");
}

pub fn fifo(path: &Path) {
    mknod(path, FileType::Fifo, 0).expect("make a fifo");
}

fn mknod(path: &Path, kind: FileType, device: u64) -> rustix::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device)
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("metadata").mode() & 0o7777
}

pub fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("metadata").blocks() * 512
}

/// Of a symbolic link itself.
pub fn chown(path: &Path, uid: u32, gid: u32) {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).expect("chown");
}

/// Sets the modification time (and another access time), of a symbolic link itself.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = |tv_sec| Timespec {
        tv_sec,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(seconds / 2),
        last_modification: time(seconds),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set times");
}

pub fn set_atime(path: &Path, time: SystemTime) {
    let file = File::open(path).expect("open");
    file.set_times(FileTimes::new().set_accessed(time))
        .expect("set times");
}

pub fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("cannot set {name} of {}: {error}", path.display()));
}

pub fn has_xattr(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0; 4096]).is_ok()
}

pub const ACCESS_ACL: &str = "system.posix_acl_access";
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

/// An ACL `user::rwx,user:UID:r-x,group::r-x,mask::rwx,other::---` as the kernel keeps it (version 2 of acl(5)'s format).
pub fn acl_for(uid: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 7, NO_ID),
        (0x02, 5, uid),
        (0x04, 5, NO_ID),
        (0x10, 7, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Gives a file a capability that it can have without being dangerous.
pub fn set_capability(file: &Path) -> bool {
    let status = Command::new("setcap")
        .arg("cap_net_raw=p")
        .arg(file)
        .status();
    status.is_ok_and(|status| status.success())
}

/// Something of everything: small files, a large one that is cut into chunks, holes, links, directories of all modes.
pub fn mixed(sandbox: &Sandbox) {
    for i in 0..600 {
        let path = sandbox.file(format!("source/{}/{}/{i}", i % 7, i % 13), i * 37 % 9000);
        set_mtime(&path, 1_000_000_000 + i64::try_from(i).unwrap_or(0), 0);
    }
    set_mtime(&sandbox.file("source/large", 70 << 20), 1_000_000_000, 5);
    sandbox.sparse("source/holes", 9 << 20, &[(4 << 20, 5000)]);
    sandbox.hard_link("source/other-name", "source/large");
    sandbox.symlink("source/link", "large");
    sandbox.fifo("source/fifo");
    if sandbox.can_set("user.poolcp", b"x") {
        set_xattr(&sandbox.path("source/large"), "user.poolcp", b"x");
    }
}

/// All names below a directory that begin as those of staged files do.
pub fn staged(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".poolcp-") {
            found.push(name);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(staged(&entry.path()));
        }
    }
    found
}
