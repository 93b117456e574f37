//! What is in files: reading, writing, sharing; holes; and bringing it to its device.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Errno, Result, path_of_fd, retry};

/// Reads into `buffer` from the file's own position.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    patiently(&fd, || rustix::io::read(&fd, &mut *buffer))
}

/// Reads into `buffer` from `offset`.
pub(crate) fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    patiently(&fd, || rustix::io::pread(&fd, &mut *buffer, offset))
}

/// Repeats a call that reads until there is something. Sources are opened so that opening them does not wait (`O_NONBLOCK`); some
/// files that call themselves regular, such as /sys/kernel/tracing/trace_pipe, do not wait in read(2) then, either.
fn patiently<T>(fd: impl AsFd, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    match retry(&mut call) {
        Err(Errno::AGAIN) => {
            let flags = rustix::fs::fcntl_getfl(&fd)?;
            rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?;
            retry(call)
        }
        done => done,
    }
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

/// Sets a file's size; what it grows by is a hole.
pub(crate) fn set_size(fd: impl AsFd, size: u64) -> Result<()> {
    retry(|| rustix::fs::ftruncate(&fd, size))
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

/// Writes a file's data to its device (fdatasync(2)).
pub(crate) fn sync_data(fd: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::fdatasync(&fd))
}

/// Opens a directory that is only open as a place (`O_PATH`), because it may be searched only.
fn open_place(dir: impl AsFd) -> Result<OwnedFd> {
    let oflags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path_of_fd(dir), oflags, Mode::empty())
}

/// Drops a file's data from memory, so that it is read from the device next (posix_fadvise(2)). What is not written yet stays.
pub(crate) fn drop_cache(fd: impl AsFd) -> Result<()> {
    rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed)
}
