//! Names in open directories: what has one, opening it, making it, taking it away.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{Errno, FileId, Kind, Result, Stat, cwd, last_error, retry};

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
    let ask = |flags| {
        let access = rustix::fs::Access::WRITE_OK;
        rustix::fs::accessat(&dir, name, access, flags)
    };
    match ask(AtFlags::EACCESS) {
        // A sandbox that is older than faccessat2(2) refuses it so. Without the flag it is faccessat(2), about the real user.
        Err(Errno::PERM) => ask(AtFlags::empty()).is_ok(),
        answer => answer.is_ok(),
    }
}

/// What a symbolic link says.
pub(crate) fn read_link(dir: impl AsFd, name: &OsStr) -> Result<CString> {
    rustix::fs::readlinkat(dir, name, Vec::new())
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

/// Opens a directory to stand for one that has not been made: the top of procfs, in which nobody can make anything, or that of
/// all where there is none.
pub(crate) fn open_nowhere() -> Result<OwnedFd> {
    open_dest_dir(cwd(), OsStr::new("/proc"), false)
        .or_else(|_| open_dest_dir(cwd(), OsStr::new("/"), false))
}

#[cfg(test)]
mod tests {
    use super::*;

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
