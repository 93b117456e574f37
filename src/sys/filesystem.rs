//! Filesystems and what they are on: their types, mounts, devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::AtFlags;

use super::{Errno, Result};

/// What kind of filesystem something is on: the numbers of statfs(2).
pub(crate) fn filesystem_type(fd: impl AsFd) -> Result<u64> {
    // A type of 32 bits, which some architectures extend by its sign.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    rustix::fs::fstatfs(fd).map(|stat| stat.f_type as u64 & 0xffff_ffff)
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

/// The major and minor number of a device.
pub(crate) fn device_numbers(dev: u64) -> (u32, u32) {
    // Its type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let dev = dev as rustix::fs::Dev;
    (rustix::fs::major(dev), rustix::fs::minor(dev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{cwd, open_dest_dir};

    #[test]
    fn a_mount_has_one_number_whoever_is_asked() {
        let here = open_dest_dir(cwd(), ".".as_ref(), false).unwrap();
        assert_eq!(mount_id(&here).ok(), mount_id_in_proc(here.as_fd()));
    }
}
