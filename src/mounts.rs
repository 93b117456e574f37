//! What is mounted where, as the kernel tells it in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::sys;

/// The path of what is mounted where `fd` is, if it is one: that of a block device, mostly.
pub(crate) fn source(fd: impl AsFd) -> Option<PathBuf> {
    let mount = sys::mount_id(fd).ok()?;
    source_of(mount, &read()?)
}

/// Whether the filesystem that `fd` is on may show a name at another place, too: it is mounted more than once (mount(8),
/// `--bind`), or that is not known.
pub(crate) fn may_show_twice(fd: impl AsFd) -> bool {
    let is_alone = || {
        let mount = sys::mount_id(fd).ok()?;
        is_mounted_once(mount, &read()?)
    };
    is_alone() != Some(true)
}

fn read() -> Option<String> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    // What no name in it says is in the fields that are asked for.
    Some(String::from_utf8_lossy(&mounts).into_owned())
}

fn line_of(mount: u64, mounts: &str) -> Option<&str> {
    let number = mount.to_string();
    let mut lines = mounts.lines();
    lines.find(|line| line.split(' ').next() == Some(&number))
}

fn source_of(mount: u64, mounts: &str) -> Option<PathBuf> {
    // Optional fields end with a dash; the filesystem's type and its source follow.
    let fields = line_of(mount, mounts)?.split(' ');
    let source = fields.skip_while(|field| *field != "-").nth(2)?;
    source.starts_with('/').then(|| PathBuf::from(source))
}

fn is_mounted_once(mount: u64, mounts: &str) -> Option<bool> {
    let device = |line| str::split(line, ' ').nth(2);
    let of = device(line_of(mount, mounts)?)?;
    let times = mounts.lines().filter(|line| device(line) == Some(of));
    Some(times.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MOUNTS: &str = "22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
        28 1 0:25 /home /home rw,noatime shared:1 master:2 - btrfs /dev/sdb2 rw,space_cache\n\
        2 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        31 2 0:25 /root /srv rw - btrfs /dev/sdb2 rw\n";

    #[test]
    fn a_mount_is_of_a_device_or_of_something_else() {
        assert_eq!(source_of(22, MOUNTS), None);
        assert_eq!(
            source_of(28, MOUNTS).as_deref(),
            Some(Path::new("/dev/sdb2"))
        );
        assert_eq!(
            source_of(2, MOUNTS).as_deref(),
            Some(Path::new("/dev/sda1"))
        );
        assert_eq!(source_of(8, MOUNTS), None);
        assert_eq!(source_of(2, "2 1\n2"), None);
    }

    #[test]
    fn a_filesystem_is_mounted_once_or_more_often() {
        assert_eq!(is_mounted_once(2, MOUNTS), Some(true));
        assert_eq!(is_mounted_once(28, MOUNTS), Some(false));
        assert_eq!(is_mounted_once(8, MOUNTS), None);
        assert_eq!(is_mounted_once(2, "2 1\n2"), None);
    }
}
