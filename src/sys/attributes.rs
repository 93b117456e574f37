//! Attributes: owner, mode, times, extended attributes, inode flags.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::{Errno, Kind, Result, Times, enter, fstat, path_of_fd, pin};

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
