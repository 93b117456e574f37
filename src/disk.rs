//! Disks that seek: to read what is somewhere else they have to move, which takes them some milliseconds.
//!
//! What lies side by side they read in the time of one move, so for such a disk it is the order that counts, and two who read at
//! two places are slower than one.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::{mounts, sys};

/// Whether `fd` is on a disk that may have to seek. That is what the kernel takes a disk for that does not say otherwise, so this
/// may be a virtual one, with any device behind it. Where neither the file nor its mount names a device it is not known: false.
pub(crate) fn may_seek(fd: impl AsFd) -> bool {
    let Ok(stat) = sys::fstat(&fd) else {
        return false;
    };
    let (major, minor) = sys::device_numbers(stat.id.dev);
    if major != 0 {
        return is_rotational(major, minor);
    }
    // A number of the filesystem's own, as btrfs gives each of its subvolumes.
    let device = mounts::source(&fd).and_then(|path| device_at(&path));
    device.is_some_and(|(major, minor)| is_rotational(major, minor))
}

/// The block device that has this path.
fn device_at(path: &Path) -> Option<(u32, u32)> {
    let stat = sys::stat_at(sys::cwd(), path.as_os_str(), true).ok()?;
    (stat.kind == sys::Kind::BlockDevice).then(|| sys::device_numbers(stat.rdev))
}

/// What the kernel says of a block device (Documentation/ABI/stable/sysfs-block, "queue/rotational"). A partition has no queue of
/// its own.
fn is_rotational(major: u32, minor: u32) -> bool {
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let queues = ["queue", "../queue"].map(|queue| device.join(queue).join("rotational"));
    let said = queues.iter().find_map(|queue| fs::read(queue).ok());
    said.is_some_and(|said| said.starts_with(b"1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_is_on_no_disk_does_not_seek() {
        assert!(!may_seek(File::open("/proc/self").unwrap()));
    }
}
