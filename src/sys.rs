//! The operating system: the system calls that poolcp makes on what it copies (but for those of jwalk, and of the standard library
//! where paths are resolved before a copy begins), and the only room that may depend on the target.
//!
//! Each function is one call (or the one call and its documented substitute), takes an open directory and a name where the
//! kernel does, and returns the kernel's own [`Errno`]. No policy lives here: which error means "try the next way" is
//! decided by the callers. The wrappers exist so that flags and masks are chosen in one place and so that a reader can
//! see, in few rooms, everything that poolcp can do to a filesystem.

mod attributes;
mod bytes;
mod filesystem;
mod names;
mod process;

pub(crate) use attributes::*;
pub(crate) use bytes::*;
pub(crate) use filesystem::*;
pub(crate) use names::*;
pub(crate) use process::*;

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{FileType, RawMode};
pub(crate) use rustix::io::{Errno, Result};

/// What makes two names the same file: the device and the inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub dev: u64,
    pub ino: u64,
}

/// What kind of thing a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
    /// A directory listing did not say (`DT_UNKNOWN`), or a type that Linux does not have yet.
    Unknown,
}

impl From<FileType> for Kind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

/// `stat(2)`'s answer, in one set of types for every architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub id: FileId,
    pub kind: Kind,
    /// Permission and special bits (07777).
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    /// The device that a device file stands for.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Allocated bytes.
    pub allocated: u64,
    pub times: Times,
}

/// Access, modification and change time, in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub accessed: (i64, u32),
    pub modified: (i64, u32),
    /// Of the inode; it cannot be set.
    pub changed: (i64, u32),
}

impl From<rustix::fs::Stat> for Stat {
    // The fields' types differ between architectures; on this one some of the conversions do nothing.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            id: FileId {
                dev: stat.st_dev as u64,
                ino: stat.st_ino as u64,
            },
            kind: FileType::from_raw_mode(stat.st_mode as RawMode).into(),
            mode: stat.st_mode as u32 & 0o7777,
            nlink: stat.st_nlink as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev as u64,
            size: stat.st_size as u64,
            allocated: (stat.st_blocks as u64).saturating_mul(512),
            times: Times {
                accessed: (stat.st_atime as i64, stat.st_atime_nsec as u32),
                modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
                changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            },
        }
    }
}

/// The path by which the kernel offers an open file, for what cannot be done through an `O_PATH` descriptor (it answers
/// `EBADF`). It needs /proc.
fn path_of_fd(fd: impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Repeats a call for as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What has made a call of libc fail.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
