//! Disks that seek: to read what is somewhere else they have to move, which takes them some milliseconds.
//!
//! What lies side by side they read in the time of one move, so for such a disk it is the order that counts, and two who read at
//! two places are slower than one.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::sys;

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
    let device = sys::mount_id(&fd).ok().and_then(mounted_device);
    device.is_some_and(|(major, minor)| is_rotational(major, minor))
}

/// The block device that a mount is of, if it is one of a device.
fn mounted_device(mount: u64) -> Option<(u32, u32)> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let source = source_of(mount, &mounts)?;
    let stat = sys::stat_at(sys::cwd(), source.as_os_str(), true).ok()?;
    (stat.kind == sys::Kind::BlockDevice).then(|| sys::device_numbers(stat.rdev))
}

/// What is mounted, from the lines of mountinfo (proc_pid_mountinfo(5)), if it is a path.
fn source_of(mount: u64, mounts: &[u8]) -> Option<PathBuf> {
    let mounts = str::from_utf8(mounts).ok()?;
    let is_it = |line: &&str| line.split(' ').next() == Some(&mount.to_string());
    let line = mounts.lines().find(is_it)?;
    // Optional fields end with a dash; the filesystem's type and its source follow.
    let mut fields = line.split(' ').skip_while(|field| *field != "-");
    let source = fields.nth(2)?;
    source.starts_with('/').then(|| PathBuf::from(source))
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
    use std::path::Path;

    #[test]
    fn a_mount_is_of_a_device_or_of_something_else() {
        let mounts = b"22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
            28 1 0:25 /home /home rw,noatime shared:1 master:2 - btrfs /dev/sdb2 rw,space_cache\n\
            2 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(source_of(22, mounts), None);
        assert_eq!(
            source_of(28, mounts).as_deref(),
            Some(Path::new("/dev/sdb2"))
        );
        assert_eq!(
            source_of(2, mounts).as_deref(),
            Some(Path::new("/dev/sda1"))
        );
        assert_eq!(source_of(8, mounts), None);
        assert_eq!(source_of(2, b"2 1\n2"), None);
    }

    #[test]
    fn what_is_on_no_disk_does_not_seek() {
        assert!(!may_seek(File::open("/proc/self").unwrap()));
    }
}
