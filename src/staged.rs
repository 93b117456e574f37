//! Names that appear only when what they name is there.

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dir::Place;
use crate::path::split;
use crate::sys::{self, Errno};

/// A file that is being written. Dropped before it is committed, a new one is removed; nothing else happens in a drop.
pub(crate) struct Staged<'a> {
    pub file: OwnedFd,
    /// A FIFO, a terminal or the like, which is written in one direction only.
    pub is_stream: bool,
    /// Removes the name of a new file; `None` if the file was there before.
    guard: Option<RemoveOnDrop<'a>>,
}

impl<'a> Staged<'a> {
    pub(crate) fn create(dir: BorrowedFd<'a>, name: &'a OsStr, mode: u32) -> sys::Result<Self> {
        let file = sys::create_file(dir, name, mode)?;
        Ok(Self {
            file,
            is_stream: false,
            guard: Some(RemoveOnDrop { dir, name }),
        })
    }

    pub(crate) fn existing(file: OwnedFd, is_stream: bool) -> Self {
        Self {
            file,
            is_stream,
            guard: None,
        }
    }

    /// Closes the file, hears what its filesystem has to say at the end, and keeps it if that is nothing.
    pub(crate) fn commit(self) -> sys::Result<()> {
        sys::close(self.file)?;
        if let Some(guard) = self.guard {
            std::mem::forget(guard);
        }
        Ok(())
    }
}

/// The name of a new file that is not complete.
struct RemoveOnDrop<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // The error that led here is reported already; that a part of the file stays behind adds nothing to it.
        let _ = sys::unlink(self.dir, self.name);
    }
}

/// Puts something that `make` makes in the place of what has the name, with no moment in which the name is free.
pub(crate) fn replace(
    place: Place<'_>,
    make: impl Fn(&OsStr) -> sys::Result<()>,
) -> sys::Result<()> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let temporary = make_temporary(name, make)?;
    let renamed = sys::rename(dir, &temporary, name, true);
    // Two names of one file are left as they are by rename(2), and so is anything after an error.
    match sys::unlink(dir, &temporary) {
        Ok(()) | Err(Errno::NOENT) => renamed,
        Err(errno) => Err(errno),
    }
}

/// Makes something under a name that is free, next to `name`, and returns that name.
fn make_temporary(name: &OsStr, make: impl Fn(&OsStr) -> sys::Result<()>) -> sys::Result<OsString> {
    let (parent, _) = split(name);
    // The process's number keeps two runs apart; the count keeps workers apart, and what is left of a run that was killed.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = format!(".poolcp-{}-{count}", std::process::id());
        let temporary = Path::new(parent).join(base).into_os_string();
        match make(&temporary) {
            Ok(()) => return Ok(temporary),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}
