//! The operating system: every system call that poolcp makes on what it copies, and the only room that may depend on the target.
//!
//! Each function is one call (or the one call and its documented substitute), takes an open directory and a name where the
//! kernel does, and returns the kernel's own [`Errno`]. No policy lives here: which error means "try the next way" is
//! decided by the callers. The wrappers exist so that flags and masks are chosen in one place and so that a reader can
//! see, in one file, everything that poolcp can do to a filesystem.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags,
};

use crate::lock::lock;
pub(crate) use rustix::io::Errno;
pub(crate) use rustix::io::Result;

thread_local! {
    /// Where the process was when this thread got a working directory of its own.
    static HOME: Cell<Option<BorrowedFd<'static>>> = const { Cell::new(None) };
}

/// The process's working directory, as an open directory: names relative to it are ordinary paths.
pub(crate) fn cwd() -> BorrowedFd<'static> {
    HOME.get().unwrap_or(rustix::fs::CWD)
}

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
            allocated: stat.st_blocks as u64 * 512,
            times: Times {
                accessed: (stat.st_atime as i64, stat.st_atime_nsec as u32),
                modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
                changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            },
        }
    }
}

// ---- Looking ----

/// The facts about an open file.
pub(crate) fn fstat(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::fstat(fd).map(Stat::from)
}

/// The facts about a name; of a symbolic link itself unless `follow`.
pub(crate) fn stat_at(dir: impl AsFd, name: &OsStr, follow: bool) -> Result<Stat> {
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    rustix::fs::statat(dir, name, flags).map(Stat::from)
}

/// Whether a name, itself and no link's end, is this very file's.
pub(crate) fn leads_to(dir: impl AsFd, name: &OsStr, id: FileId) -> bool {
    stat_at(dir, name, false).is_ok_and(|stat| stat.id == id)
}

/// Whether the process may write what has the name.
pub(crate) fn may_write(dir: impl AsFd, name: &OsStr) -> bool {
    let access = rustix::fs::Access::WRITE_OK;
    rustix::fs::accessat(dir, name, access, AtFlags::EACCESS).is_ok()
}

/// What a symbolic link says.
pub(crate) fn read_link(dir: impl AsFd, name: &OsStr) -> Result<CString> {
    rustix::fs::readlinkat(dir, name, Vec::new())
}

/// Tells `each` of everything in an open directory but `.` and `..`, from where its descriptor's position is, as long as it
/// wants to hear of more. One that has been removed meanwhile has nothing in it (`ENOENT` of getdents(2)).
fn for_each_entry(
    dir: impl AsFd,
    mut each: impl FnMut(&OsStr, &rustix::fs::RawDirEntry<'_>) -> bool,
) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !each(OsStr::from_bytes(name), &entry) {
            break;
        }
    }
    Ok(())
}

/// Everything in an open directory but `.` and `..`, from where its descriptor's position is. The kind is as the filesystem
/// says, which may be [`Kind::Unknown`].
pub(crate) fn read_dir(dir: impl AsFd) -> Result<Vec<(OsString, Kind)>> {
    let mut entries = Vec::new();
    for_each_entry(dir, |name, entry| {
        entries.push((name.to_owned(), entry.file_type().into()));
        true
    })?;
    Ok(entries)
}

/// The numbers of the inodes of `names`, which were just listed from the same directory; `None` if they are listed differently
/// now. It reads from the beginning, and leaves the position where it ends.
pub(crate) fn inodes<'a>(
    dir: impl AsFd,
    mut names: impl Iterator<Item = &'a OsStr>,
) -> Result<Option<Vec<u64>>> {
    let dir = dir.as_fd();
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut inodes = Vec::new();
    let mut are_same = true;
    for_each_entry(dir, |name, entry| {
        inodes.push(entry.ino());
        are_same = names.next() == Some(name);
        are_same
    })?;
    Ok((are_same && names.next().is_none()).then_some(inodes))
}

/// The names in an open directory that begin like this. Its position is at the end afterwards.
pub(crate) fn names_with_prefix(dir: impl AsFd, prefix: &[u8]) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for_each_entry(dir, |name, _| {
        if name.as_bytes().starts_with(prefix) {
            names.push(name.to_owned());
        }
        true
    })?;
    Ok(names)
}

// ---- Opening ----

/// How a source is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceFlags {
    /// A symbolic link as the last component is followed.
    pub follow: bool,
    /// A FIFO's writer is waited for. Not for a name that was thought to be a regular file: it may have changed its kind
    /// since it was listed.
    pub wait: bool,
    /// Reading does not change the access time. Only the owner and the superuser may ask for it; anyone else is
    /// served without (open(2), `O_NOATIME`).
    pub no_atime: bool,
}

impl SourceFlags {
    /// No link is followed, nobody is waited for, and reading is reading.
    pub(crate) const PLAIN: Self = Self {
        follow: false,
        wait: false,
        no_atime: false,
    };
}

/// How long a lease may keep us from a file: the kernel ends it after `/proc/sys/fs/lease-break-time`, 45 seconds by default.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// Opens what may be waited for (`wait`), or what was thought to be a regular file, and therefore without waiting. If another
/// process has a lease on that (a file server, say), it is told to give it back, and open(2) fails with `EWOULDBLOCK` until it
/// has: for this much it is waited.
fn open_file(wait: bool, open: impl Fn(OFlags) -> Result<OwnedFd>) -> Result<OwnedFd> {
    if wait {
        return open(OFlags::empty());
    }
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(1);
    loop {
        match open(OFlags::NONBLOCK) {
            Err(Errno::WOULDBLOCK) if waited < LONGEST_LEASE => {
                thread::sleep(pause);
                waited += pause;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            opened => return opened,
        }
    }
}

/// Opens a source file for reading. A terminal does not become the process's own.
pub(crate) fn open_source(dir: impl AsFd, name: &OsStr, flags: SourceFlags) -> Result<OwnedFd> {
    open_file(flags.wait, |more| {
        open_for_reading(&dir, name, flags, OFlags::NOCTTY | more)
    })
}

/// Opens a source directory, for reading and as the place that its entries are reached from.
pub(crate) fn open_source_dir(dir: impl AsFd, name: &OsStr, flags: SourceFlags) -> Result<OwnedFd> {
    open_for_reading(dir, name, flags, OFlags::DIRECTORY)
}

fn open_for_reading(
    dir: impl AsFd,
    name: &OsStr,
    flags: SourceFlags,
    more: OFlags,
) -> Result<OwnedFd> {
    let mut oflags = OFlags::RDONLY | OFlags::CLOEXEC | more;
    if !flags.follow {
        oflags |= OFlags::NOFOLLOW;
    }
    if flags.no_atime {
        match rustix::fs::openat(&dir, name, oflags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => {}
            opened => return opened,
        }
    }
    rustix::fs::openat(dir, name, oflags, Mode::empty())
}

/// Opens a destination directory; never through a symbolic link as the last component unless `follow`. One that may not be
/// read is opened as a mere place (`O_PATH`): names in it can be reached if it may be searched.
pub(crate) fn open_dest_dir(dir: impl AsFd, name: &OsStr, follow: bool) -> Result<OwnedFd> {
    let mut oflags = OFlags::CLOEXEC | OFlags::DIRECTORY;
    if !follow {
        oflags |= OFlags::NOFOLLOW;
    }
    match rustix::fs::openat(&dir, name, oflags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::openat(dir, name, oflags | OFlags::PATH, Mode::empty()),
        opened => opened,
    }
}

/// Opens the directory that an open directory is in.
pub(crate) fn open_parent(dir: impl AsFd) -> Result<OwnedFd> {
    open_dest_dir(dir, OsStr::new(".."), false)
}

/// Makes a file that was not there and opens it for writing; the kernel takes the umask (or the directory's default ACL)
/// off `mode`.
pub(crate) fn create_file(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::from_raw_mode(mode),
    )
}

/// Opens a file that may be locked, and not through a link.
pub(crate) fn open_for_lock(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let open = |access| {
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        rustix::fs::openat(&dir, name, access | flags, Mode::empty())
    };
    // NFS gives exclusive locks to those only who can write; but a file may be its owner's to read only.
    match open(OFlags::WRONLY) {
        Err(Errno::ACCESS) => open(OFlags::RDONLY),
        opened => opened,
    }
}

/// Opens once more what a thread of this process has open, whatever its name is by now, and whatever descriptors the calling thread
/// has.
pub(crate) fn open_again(thread: i32, fd: RawFd, is_written: bool) -> Result<OwnedFd> {
    let access = if is_written {
        OFlags::WRONLY
    } else {
        OFlags::RDONLY
    };
    let path = format!("/proc/self/task/{thread}/fd/{fd}");
    rustix::fs::open(
        path,
        access | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

/// Locks an open file against others who do the same, or answers `EWOULDBLOCK` (flock(2)). The lock goes with the file's last
/// descriptor.
pub(crate) fn lock_file(fd: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive))
}

/// Another descriptor of the same open file.
pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// Makes a file where a symbolic link to nothing leads, or opens what has got there meanwhile.
pub(crate) fn create_through_link(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::from_raw_mode(mode),
    )
}

/// How a destination that is there is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DestFlags {
    /// A symbolic link as the last component is followed.
    pub follow: bool,
    /// A FIFO's reader is waited for. Not for a name that was thought to be a regular file, see [`SourceFlags::wait`].
    pub wait: bool,
}

/// Opens a file that is there for writing, without touching its data.
pub(crate) fn open_dest(dir: impl AsFd, name: &OsStr, flags: DestFlags) -> Result<OwnedFd> {
    let mut oflags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    if !flags.follow {
        oflags |= OFlags::NOFOLLOW;
    }
    open_file(flags.wait, |more| {
        rustix::fs::openat(&dir, name, oflags | more, Mode::empty())
    })
}

/// A descriptor that stands for what has a name now, a symbolic link itself included, and does nothing to it.
pub(crate) fn pin(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let oflags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, oflags, Mode::empty())
}

/// Closes a file that was written, and hears what the filesystem still has to say: NFS and quotas report a failed write
/// here. The descriptor is gone in any case (close(2), "Dealing with error returns").
pub(crate) fn close(file: OwnedFd) -> Result<()> {
    // SAFETY: into_raw_fd gives up the only owner of the descriptor, so nobody uses or closes it after this call.
    #[allow(unsafe_code)]
    unsafe {
        rustix::io::try_close(file.into_raw_fd())
    }
}

/// Closes files that nobody else uses; those whose numbers follow each other in one call.
pub(crate) fn close_all(files: &mut Vec<OwnedFd>) {
    files.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let numbers: Vec<RawFd> = files.drain(..).map(IntoRawFd::into_raw_fd).collect();
    for run in numbers.chunk_by(|one, next| one + 1 == *next) {
        if let [first, .., last] = run
            && close_range(*first, *last).is_ok()
        {
            continue;
        }
        for number in run {
            // SAFETY: into_raw_fd gave up the only owner of the descriptor, so nobody uses or closes it after this call.
            // What it says is of no interest: nothing was written, or all is known to be written.
            #[allow(unsafe_code)]
            let _ = unsafe { rustix::io::try_close(*number) };
        }
    }
}

/// close_range(2), which Linux has since 5.9 and a sandbox may forbid.
fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    // SAFETY: every number in the range is a file that the caller owned and nobody owns now, and the call reads and writes no
    // memory. If it fails, none is closed.
    #[allow(unsafe_code)]
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        return Ok(());
    }
    Err(last_error())
}

// ---- Making and removing names ----

/// Makes a directory; the kernel takes the umask (or the parent's default ACL) off `mode`.
pub(crate) fn make_dir(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))
}

/// Makes a symbolic link that says `text`.
pub(crate) fn make_symlink(text: &CStr, dir: impl AsFd, name: &OsStr) -> Result<()> {
    rustix::fs::symlinkat(text, dir, name)
}

/// Makes a FIFO, a socket or a device file; `rdev` counts for devices only.
pub(crate) fn make_special(
    dir: impl AsFd,
    name: &OsStr,
    kind: Kind,
    mode: u32,
    rdev: u64,
) -> Result<()> {
    let (file_type, rdev) = match kind {
        Kind::Fifo => (FileType::Fifo, 0),
        Kind::Socket => (FileType::Socket, 0),
        Kind::CharDevice => (FileType::CharacterDevice, rdev),
        Kind::BlockDevice => (FileType::BlockDevice, rdev),
        Kind::File | Kind::Dir | Kind::Symlink | Kind::Unknown => return Err(Errno::INVAL),
    };
    rustix::fs::mknodat(dir, name, file_type, Mode::from_raw_mode(mode), rdev)
}

/// Gives the file at `old` another name; a symbolic link is linked itself unless `follow`.
pub(crate) fn make_link(
    old_dir: impl AsFd,
    old: &OsStr,
    new_dir: impl AsFd,
    new: &OsStr,
    follow: bool,
) -> Result<()> {
    let flags = if follow {
        AtFlags::SYMLINK_FOLLOW
    } else {
        AtFlags::empty()
    };
    rustix::fs::linkat(old_dir, old, new_dir, new, flags)
}

/// Gives a name in an open directory another one there. If that is taken, what has it goes, or (not to `replace`) the answer
/// is `EEXIST`.
pub(crate) fn rename(dir: impl AsFd, from: &OsStr, to: &OsStr, replace: bool) -> Result<()> {
    use rustix::fs::{RenameFlags, renameat, renameat_with};
    if replace {
        return renameat(&dir, from, &dir, to);
    }
    match renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE) {
        // A filesystem that does not know the flag (rename(2), "ERRORS"): a second name is as good, and the first one goes.
        Err(Errno::INVAL) => match make_link(&dir, from, &dir, to, false) {
            Ok(()) => unlink(&dir, from),
            // A directory, or a filesystem without links: look, then rename.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                match stat_at(&dir, to, false) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(Errno::NOENT) => renameat(&dir, from, &dir, to),
                    Err(errno) => Err(errno),
                }
            }
            linked => linked,
        },
        renamed => renamed,
    }
}

/// Removes a name that is not a directory's.
pub(crate) fn unlink(dir: impl AsFd, name: &OsStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

/// Removes an empty directory.
pub(crate) fn remove_dir(dir: impl AsFd, name: &OsStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Opens a directory in which nobody can make anything, to stand for one that has not been made: the top of procfs, which is
/// always the same inode.
pub(crate) fn open_nowhere() -> Result<OwnedFd> {
    open_dest_dir(cwd(), OsStr::new("/proc"), false)
}

// ---- Bytes ----

/// Reads into `buffer` from the file's own position.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    retry(|| rustix::io::read(&fd, &mut *buffer))
}

/// Reads into `buffer` from `offset`.
pub(crate) fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    retry(|| rustix::io::pread(&fd, &mut *buffer, offset))
}

/// Whether any page of a file is in memory (cachestat(2), Linux 6.5). Unlike a read that is not to wait (`RWF_NOWAIT`), that does not
/// begin to read it. Where the kernel cannot say it is taken for that.
pub(crate) fn is_in_memory(fd: impl AsFd) -> bool {
    // libc has it for some targets only. The number is the same on all architectures but MIPS, where this one is no call's.
    const CACHESTAT: libc::c_long = 451;
    // `struct cachestat_range`: from where, how much (0: to the end); `struct cachestat`: pages in the cache come first.
    let range = [0_u64; 2];
    let mut pages = [0_u64; 5];
    // SAFETY: the kernel reads `range` and writes `pages`, which have the size and the alignment of its structures and outlive
    // the call.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::syscall(
            CACHESTAT,
            fd.as_fd().as_raw_fd(),
            range.as_ptr(),
            pages.as_mut_ptr(),
            0,
        )
    };
    done != 0 || pages[0] > 0
}

/// Writes at the file's own position.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    retry(|| rustix::io::write(&fd, bytes))
}

/// Writes at `offset`.
pub(crate) fn write_at(fd: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    retry(|| rustix::io::pwrite(&fd, bytes, offset))
}

/// Copies up to `len` bytes at `offset` of both files inside the kernel (copy_file_range(2)). 0 is the end of the source.
pub(crate) fn copy_range(
    source: impl AsFd,
    dest: impl AsFd,
    offset: u64,
    len: usize,
) -> Result<usize> {
    retry(|| {
        let (mut from, mut to) = (offset, offset);
        rustix::fs::copy_file_range(&source, Some(&mut from), &dest, Some(&mut to), len)
    })
}

/// Gives a part of a file its blocks without a change of its size (fallocate(2), `FALLOC_FL_KEEP_SIZE`).
pub(crate) fn allocate(fd: impl AsFd, offset: u64, len: u64) -> Result<()> {
    rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::KEEP_SIZE, offset, len)
}

/// Makes `dest` share all of `source`'s data (ioctl_ficlone(2)).
pub(crate) fn clone_file(source: impl AsFd, dest: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::ioctl_ficlone(&dest, &source))
}

/// Where the next data at or after `offset` begins; `None` if there is only a hole up to the end.
pub(crate) fn next_data(fd: impl AsFd, offset: u64) -> Result<Option<u64>> {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Where the next hole at or after `offset` begins; the end of a file counts as one.
pub(crate) fn next_hole(fd: impl AsFd, offset: u64) -> Result<u64> {
    rustix::fs::seek(fd, rustix::fs::SeekFrom::Hole(offset))
}

/// Goes back to the beginning.
pub(crate) fn rewind(fd: impl AsFd) -> Result<()> {
    rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0)).map(drop)
}

/// Writes everything that a filesystem has in memory to its device, given an open directory in it (syncfs(2)).
pub(crate) fn sync_filesystem(dir: impl AsFd) -> Result<()> {
    match retry(|| rustix::fs::syncfs(&dir)) {
        Err(Errno::BADF) => {
            let dir = open_place(dir)?;
            retry(|| rustix::fs::syncfs(&dir))
        }
        done => done,
    }
}

/// Writes a file or a directory to its device, with all that is known about it (fsync(2)).
pub(crate) fn sync(fd: impl AsFd) -> Result<()> {
    match retry(|| rustix::fs::fsync(&fd)) {
        Err(Errno::BADF) => {
            let dir = open_place(fd)?;
            retry(|| rustix::fs::fsync(&dir))
        }
        done => done,
    }
}

/// Opens a directory that is only open as a place (`O_PATH`), because it may be searched only.
fn open_place(dir: impl AsFd) -> Result<OwnedFd> {
    let oflags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path_of_fd(dir), oflags, Mode::empty())
}

/// The major and minor number of a device.
pub(crate) fn device_numbers(dev: u64) -> (u32, u32) {
    // Its type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let dev = dev as rustix::fs::Dev;
    (rustix::fs::major(dev), rustix::fs::minor(dev))
}

/// The number of the mount that something is on, as in /proc/self/mountinfo.
pub(crate) fn mount_id(fd: impl AsFd) -> Result<u64> {
    use rustix::fs::StatxFlags;
    let looked = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if looked.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        return Ok(looked.stx_mnt_id);
    }
    // Before Linux 5.8 statx(2) does not say, but /proc does (proc_pid_fdinfo(5)).
    mount_id_in_proc(fd.as_fd()).ok_or(Errno::NOSYS)
}

fn mount_id_in_proc(fd: BorrowedFd<'_>) -> Option<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
    let info = std::fs::read_to_string(path).ok()?;
    let mut lines = info.lines();
    let number = lines.find_map(|line| line.strip_prefix("mnt_id:"))?;
    number.trim().parse().ok()
}

/// Whether the kernel is this one or a later one; not if it does not say.
pub(crate) fn is_linux_since(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(x), Some(y)) if (x, y) >= (major, minor))
}

/// When something was made; `None` where the filesystem does not keep that.
pub(crate) fn birth_at(dir: impl AsFd, name: &OsStr) -> Option<SystemTime> {
    use rustix::fs::StatxFlags;
    let looked = rustix::fs::statx(dir, name, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    let has_it = looked.stx_mask & StatxFlags::BTIME.bits() != 0;
    // What was made before 1970 was not made today.
    let seconds = u64::try_from(looked.stx_btime.tv_sec)
        .ok()
        .filter(|_| has_it)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, looked.stx_btime.tv_nsec))
}

/// What kind of filesystem something is on: the numbers of statfs(2).
pub(crate) fn filesystem_type(fd: impl AsFd) -> Result<u64> {
    // A type of 32 bits, which some architectures extend by its sign.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    rustix::fs::fstatfs(fd).map(|stat| stat.f_type as u64 & 0xffff_ffff)
}

/// Writes a file's data to its device (fdatasync(2)).
pub(crate) fn sync_data(fd: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::fdatasync(&fd))
}

/// Drops a file's data from memory, so that it is read from the device next (posix_fadvise(2)). What is not written yet stays.
pub(crate) fn drop_cache(fd: impl AsFd) -> Result<()> {
    rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed)
}

/// Sets a file's size; what it grows by is a hole.
pub(crate) fn set_size(fd: impl AsFd, size: u64) -> Result<()> {
    retry(|| rustix::fs::ftruncate(&fd, size))
}

// ---- Attributes ----

/// The path by which the kernel offers an open file, for what cannot be done through an `O_PATH` descriptor (it answers
/// `EBADF`). It needs /proc.
fn path_of_fd(fd: impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Sets the owner and the group of an open file; `None` leaves one as it is.
pub(crate) fn set_owner(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
}

/// Sets the owner and the group of a name, of a symbolic link itself.
pub(crate) fn set_owner_at(
    dir: impl AsFd,
    name: &OsStr,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the permission and special bits of an open file.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::fchmod(&fd, mode) {
        Err(Errno::BADF) => rustix::fs::chmod(path_of_fd(fd), mode),
        done => done,
    }
}

/// Sets the permission and special bits of what a name is now, and never of what a symbolic link points to.
///
/// fchmodat(2) has no such flag before Linux 6.6. A descriptor that only names the file (`O_PATH`) pins it, and the
/// kernel's own link to it in /proc is followed to exactly that file.
pub(crate) fn set_mode_at(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<()> {
    let pin = pin(&dir, name)?;
    if fstat(&pin)?.kind == Kind::Symlink {
        return Err(Errno::LOOP);
    }
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::chmod(path_of_fd(&pin), mode) {
        // Without /proc (in a chroot) the name must do; a moment ago it was no symbolic link.
        Err(Errno::NOENT) => rustix::fs::chmodat(dir, name, mode, AtFlags::empty()),
        done => done,
    }
}

fn timestamps(times: Times) -> Timestamps {
    let timespec = |(seconds, nanoseconds): (i64, u32)| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: timespec(times.accessed),
        last_modification: timespec(times.modified),
    }
}

/// Sets the access and modification time of an open file.
pub(crate) fn set_times(fd: impl AsFd, times: Times) -> Result<()> {
    match rustix::fs::futimens(&fd, &timestamps(times)) {
        Err(Errno::BADF) => {
            let path = path_of_fd(fd);
            rustix::fs::utimensat(rustix::fs::CWD, path, &timestamps(times), AtFlags::empty())
        }
        done => done,
    }
}

/// Sets the modification time of an open file to now. Who may write the file but does not own it must set the access time
/// with it (utimensat(2), "Permissions requirements").
pub(crate) fn touch(fd: impl AsFd) -> Result<()> {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let set = |last_access| {
        let times = Timestamps {
            last_access,
            last_modification: special(rustix::fs::UTIME_NOW),
        };
        rustix::fs::futimens(&fd, &times)
    };
    match set(special(rustix::fs::UTIME_OMIT)) {
        Err(Errno::PERM) => set(special(rustix::fs::UTIME_NOW)),
        done => done,
    }
}

/// Sets the access and modification time of a name, of a symbolic link itself.
pub(crate) fn set_times_at(dir: impl AsFd, name: &OsStr, times: Times) -> Result<()> {
    rustix::fs::utimensat(dir, name, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW)
}

/// A path of a name in an open directory, for the calls that know paths only. It holds until this thread enters another
/// directory; where the thread has no working directory of its own it needs /proc.
fn path_of(dir: impl AsFd, name: &OsStr) -> OsString {
    let fd = dir.as_fd().as_raw_fd();
    if fd == rustix::fs::CWD.as_raw_fd() || name.as_bytes().starts_with(b"/") || enter(&dir) {
        return name.to_owned();
    }
    let mut path = format!("/proc/thread-self/fd/{fd}/").into_bytes();
    path.extend_from_slice(name.as_bytes());
    OsString::from_vec(path)
}

/// The names of an open file's extended attributes.
pub(crate) fn list_xattrs(fd: impl AsFd) -> Result<Vec<CString>> {
    let list = grown(|buffer| rustix::fs::flistxattr(&fd, buffer))?;
    Ok(split_names(&list))
}

/// The names of a name's extended attributes, of a symbolic link itself.
pub(crate) fn list_xattrs_at(dir: impl AsFd, name: &OsStr) -> Result<Vec<CString>> {
    let path = path_of(dir, name);
    let list = grown(|buffer| rustix::fs::llistxattr(&path, buffer))?;
    Ok(split_names(&list))
}

/// The value of an open file's extended attribute.
pub(crate) fn get_xattr(fd: impl AsFd, attribute: &CStr) -> Result<Vec<u8>> {
    grown(|buffer| rustix::fs::fgetxattr(&fd, attribute, buffer))
}

/// The value of a name's extended attribute, of a symbolic link itself.
pub(crate) fn get_xattr_at(dir: impl AsFd, name: &OsStr, attribute: &CStr) -> Result<Vec<u8>> {
    let path = path_of(dir, name);
    grown(|buffer| rustix::fs::lgetxattr(&path, attribute, buffer))
}

/// Sets an extended attribute of an open file.
pub(crate) fn set_xattr(fd: impl AsFd, attribute: &CStr, value: &[u8]) -> Result<()> {
    match rustix::fs::fsetxattr(&fd, attribute, value, XattrFlags::empty()) {
        Err(Errno::BADF) => {
            rustix::fs::setxattr(path_of_fd(fd), attribute, value, XattrFlags::empty())
        }
        done => done,
    }
}

/// Sets an extended attribute of a name, of a symbolic link itself.
pub(crate) fn set_xattr_at(
    dir: impl AsFd,
    name: &OsStr,
    attribute: &CStr,
    value: &[u8],
) -> Result<()> {
    rustix::fs::lsetxattr(path_of(dir, name), attribute, value, XattrFlags::empty())
}

/// Removes an extended attribute of an open file.
pub(crate) fn remove_xattr(fd: impl AsFd, attribute: &CStr) -> Result<()> {
    match rustix::fs::fremovexattr(&fd, attribute) {
        Err(Errno::BADF) => rustix::fs::removexattr(path_of_fd(fd), attribute),
        done => done,
    }
}

/// Removes an extended attribute of a name, of a symbolic link itself.
pub(crate) fn remove_xattr_at(dir: impl AsFd, name: &OsStr, attribute: &CStr) -> Result<()> {
    rustix::fs::lremovexattr(path_of(dir, name), attribute)
}

/// A file's inode flags, as chattr(1) sets them (ioctl_iflags(2)); `None` where the filesystem has none.
pub(crate) fn inode_flags(fd: impl AsFd) -> Option<u32> {
    rustix::fs::ioctl_getflags(fd)
        .ok()
        .map(|flags| flags.bits())
}

/// Whether names can be added to a directory, and neither removed nor changed (`chattr +a`).
pub(crate) fn is_append_only(dir: impl AsFd, name: &OsStr) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags};
    let looked = rustix::fs::statx(dir, name, AtFlags::empty(), StatxFlags::empty());
    looked.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::APPEND))
}

/// Whether an open file has an extended attribute.
pub(crate) fn has_xattr(fd: impl AsFd, attribute: &CStr) -> Result<bool> {
    let mut got = rustix::fs::fgetxattr(&fd, attribute, &mut [0_u8; 0]);
    if got == Err(Errno::BADF) {
        got = rustix::fs::getxattr(path_of_fd(fd), attribute, &mut [0_u8; 0]);
    }
    match got {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Calls with a buffer that grows until the answer fits: the size may change between asking for it and using it.
fn grown(call: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    // Nearly every file has no attributes, or small ones: that takes one call and no memory.
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut buffer = vec![0; 1 << 12];
    loop {
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for a value (XATTR_SIZE_MAX) and for a list; 1 MiB leaves it room to grow.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

fn split_names(list: &[u8]) -> Vec<CString> {
    list.split_inclusive(|&byte| byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect()
}

// ---- The process ----

/// Whether the process is the superuser, who may give files away.
pub(crate) fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user and the group that the process's new files belong to.
pub(crate) fn effective_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Opens the calling thread's working directory, as a place.
pub(crate) fn open_working_dir() -> Result<OwnedFd> {
    let oflags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, ".", oflags, Mode::empty())
}

/// Gives the calling thread a descriptor table and a working directory of its own (unshare(2), `CLONE_FILES` and `CLONE_FS`;
/// neither needs a privilege): copies of those that it has shared, unless it is another directory that it is to work in.
///
/// From then on a descriptor opened by another thread means nothing here, or another file. So this is only for threads that
/// run nothing but copies, whose descriptors never leave the thread that opened them: see `handles.rs` and
/// [`crate::Plan::start`].
pub(crate) fn unshare_thread(working_dir: Option<BorrowedFd<'_>>) -> Result<()> {
    let flags = rustix::thread::UnshareFlags::FILES | rustix::thread::UnshareFlags::FS;
    // SAFETY: the condition above; descriptors that the thread inherits stay open in its table until it ends.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    if let Some(dir) = working_dir {
        rustix::process::fchdir(dir)?;
    }
    let home = open_working_dir()?;
    // Closed with the thread's table, at its end.
    let home: &'static OwnedFd = Box::leak(Box::new(home));
    HOME.set(Some(home.as_fd()));
    Ok(())
}

/// Whether [`unshare_thread`] is allowed, as far as can be known beforehand: a sandbox (a container's seccomp profile, say) may
/// refuse the call whatever it is to do, and here it is to do nothing.
pub(crate) fn may_unshare() -> bool {
    // SAFETY: without flags nothing is changed.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::empty()).is_ok()
    }
}

/// Makes an open directory the thread's working directory, if the thread has one of its own. [`cwd`] stays what it was.
pub(crate) fn enter(dir: impl AsFd) -> bool {
    HOME.get().is_some() && rustix::process::fchdir(dir).is_ok()
}

/// The calling thread's number, as in /proc/self/task.
pub(crate) fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Gives the calling thread, and those that it starts, the lowest priority for the processor. (On Linux setpriority(2) knows
/// threads, not processes.)
pub(crate) fn set_lowest_priority() -> Result<()> {
    rustix::process::setpriority_process(None, 19)
}

/// Lets the calling thread, and those that it starts, use disks only when nobody else does (ioprio_set(2)).
pub(crate) fn set_idle_io() -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CALLER: libc::c_int = 0;
    const CLASS_IDLE: libc::c_int = 3;
    const CLASS_SHIFT: libc::c_int = 13;
    // SAFETY: the call takes three numbers and touches no memory.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            CALLER,
            CLASS_IDLE << CLASS_SHIFT,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(last_error())
}

/// What has made a call of libc fail.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// What the scheduler knows of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduling {
    /// The time that it ran on a processor.
    pub ran: Duration,
    /// The time that it could have run and waited for a processor.
    pub queued: Duration,
}

/// How a thread of this process has spent its time; `None` where /proc does not say.
pub(crate) fn scheduling(thread: i32) -> Option<Scheduling> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 80];
    let len = read(file, &mut text).ok()?;
    let mut numbers = std::str::from_utf8(&text[..len]).ok()?.split_whitespace();
    let mut next = || numbers.next()?.parse().ok().map(Duration::from_nanos);
    Some(Scheduling {
        ran: next()?,
        queued: next()?,
    })
}

/// The process's umask, without setting it for a moment as umask(2) must; `None` where /proc does not say.
pub(crate) fn umask() -> Option<u32> {
    // The second line of a few dozen; one call reads them all, and each takes its time.
    let mut buffer = [0; 4096];
    let file = std::fs::File::open("/proc/self/status").ok()?;
    let len = read(&file, &mut buffer).ok()?;
    // The process's name may be anything.
    let mut lines = buffer[..len].split(|byte| *byte == b'\n');
    let umask = lines.find_map(|line| line.strip_prefix(b"Umask:"))?;
    u32::from_str_radix(str::from_utf8(umask).ok()?.trim(), 8).ok()
}

/// The same where there is no /proc. For a moment what other threads make is theirs alone (umask(2)).
pub(crate) fn umask_by_setting() -> u32 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE_AT_A_TIME);
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(umask);
    umask.as_raw_mode()
}

/// Raises the limit of open files as far as the administrator allows, and returns it.
pub(crate) fn raise_open_files_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let mut raised = limit;
        raised.current = limit.maximum;
        // Refused (a sandbox may do so), the old limit still holds.
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let unlimited = usize::MAX;
    limit
        .current
        .map_or(unlimited, |n| usize::try_from(n).unwrap_or(unlimited))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_one_number_whoever_is_asked() {
        let here = open_dest_dir(cwd(), ".".as_ref(), false).unwrap();
        assert_eq!(mount_id(&here).ok(), mount_id_in_proc(here.as_fd()));
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(is_linux_since(2, 6) && is_linux_since(4, 0));
        assert!(!is_linux_since(1000, 0));
    }

    #[test]
    fn a_directory_that_is_gone_has_nothing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        std::fs::create_dir(&path).unwrap();
        let open = open_dest_dir(cwd(), path.as_os_str(), false).unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(read_dir(&open), Ok(Vec::new()));
    }
}
