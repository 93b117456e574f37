//! Filesystems of this machine: what is written to a file goes to this machine's memory, and from there to a device.

use std::os::fd::AsFd;

use crate::sys;

// Types (statfs(2)).
pub(crate) const EXT: u64 = 0xef53; // ext2, ext3, ext4
pub(crate) const XFS: u64 = 0x5846_5342;
pub(crate) const BTRFS: u64 = 0x9123_683e;
pub(crate) const BCACHEFS: u64 = 0xca45_1a4e;
pub(crate) const F2FS: u64 = 0xf2f5_2010;
pub(crate) const TMPFS: u64 = 0x0102_1994;
pub(crate) const RAMFS: u64 = 0x8584_58f6;
pub(crate) const OVERLAY: u64 = 0x794c_7630;
const FUSE: u64 = 0x6573_5546;
const CIFS: u64 = 0xff53_4d42;
const SMB2: u64 = 0xfe53_4d42;

/// The types of all.
const LOCAL: [u64; 7] = [EXT, XFS, BTRFS, BCACHEFS, F2FS, TMPFS, RAMFS];

/// Whether `fd` is on one of them. Then two things are known. Closing a descriptor does nothing to its file (in the kernel's
/// `file_operations` they have no `flush`, or one that answers 0), so it cannot fail. And `copy_file_range` between files that
/// cannot share blocks reads and writes, as its caller could, where others hand the work to a server. Of a filesystem that is not
/// known neither is.
pub(crate) fn is_local(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd).is_ok_and(|kind| LOCAL.contains(&kind))
}

/// Whether `fd` is on ext4, or on an ext2 or ext3, which have the same type.
pub(crate) fn is_ext4(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd) == Ok(EXT)
}

/// Whether `fd` is on xfs.
pub(crate) fn is_xfs(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd) == Ok(XFS)
}

/// Whether `fd` is on btrfs.
pub(crate) fn is_btrfs(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd) == Ok(BTRFS)
}

/// Whether `fd` is on a filesystem that lies over others, as a container's does. There a file becomes another one, with the same
/// content, when it is opened for writing for the first time, if it has several names
/// (Documentation/filesystems/overlayfs.rst, "Non-standard behavior").
pub(crate) fn is_overlay(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd) == Ok(OVERLAY)
}

/// Whether `fd` is on a filesystem that a program of its own serves.
pub(crate) fn is_fuse(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd) == Ok(FUSE)
}

/// Whether a lock on a file keeps all other descriptors of it from reading and writing, those of this process, too: on an SMB
/// server's (flock(2), "CIFS details").
pub(crate) fn locks_are_mandatory(fd: impl AsFd) -> bool {
    sys::filesystem_type(fd).is_ok_and(|kind| [CIFS, SMB2].contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_filesystem_in_memory_is_local_and_one_of_which_nothing_is_known_is_not() {
        assert!(!is_local(File::open("/proc/self").unwrap()));
        if let Ok(memory) = File::open("/dev/shm")
            && sys::filesystem_type(&memory) == Ok(0x0102_1994)
        {
            assert!(is_local(memory));
        }
    }
}
