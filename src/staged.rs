//! Files that are not complete, and names that change hands in one step.
//!
//! A file is written in one of three places:
//! 1. **Beside its name** ([`Staged::beside`]), under a name of its own that begins with [`PREFIX`]. It takes its name when it
//!    is complete, by rename(2): whoever looks sees the old file or the new one.
//! 2. **Under its name** ([`Staged::create`]), if that was free and the file is small, or is not to be renamed (`--atomic=never`),
//!    or cannot be.
//! 3. **Into the file that is there** ([`Staged::existing`]), where its inode has to stay.
//!
//! In the first two cases it is removed again if anything fails before [`Staged::commit`]. What a run leaves that is killed, a later
//! one removes (`sweep.rs`).

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::closing;
use crate::error::{Failure, Operation, failed};
use crate::path::split;
use crate::place::Place;
use crate::sweep::{lock_staged, sweep_one};
use crate::sys::{self, Errno, FileId};

/// What the names of staged files begin with; 16 hexadecimal digits, a dash and a number follow.
pub(crate) const PREFIX: &str = ".poolcp-";

/// A file that is being written. Dropped before it is committed, a new one is removed; nothing else happens in a drop.
pub(crate) struct Staged<'a> {
    pub file: OwnedFd,
    /// A FIFO or a device, which is written in one direction only, and has neither a size to be set nor holes: what is not
    /// written to a disk stays what it was.
    pub is_stream: bool,
    /// Removes the name of a new file; `None` if the file was there before.
    guard: Option<RemoveOnDrop<'a>>,
    /// The name that a file beside it takes, and whether that may be taken.
    takes: Option<(&'a OsStr, Taken)>,
}

/// What a staged file finds under the name that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing, or it is an error.
    No,
    /// A file, which goes.
    Yes,
}

impl<'a> Staged<'a> {
    /// Makes a file under its own name.
    pub(crate) fn create(dir: BorrowedFd<'a>, name: &'a OsStr, mode: u32) -> sys::Result<Self> {
        let file = sys::create_file(dir, name, mode)?;
        let name = Cow::Borrowed(name);
        Ok(Self {
            file,
            is_stream: false,
            guard: Some(RemoveOnDrop {
                dir,
                name,
                id: None,
            }),
            takes: None,
        })
    }

    /// Makes a file that will take the destination's name.
    pub(crate) fn beside(place: Place<'a>, taken: Taken, mode: u32) -> sys::Result<Self> {
        let (dir, name) = (place.pair.dest(), place.names.dest);
        let ((file, id), temporary) = make_temporary(place, |temporary| {
            let file = sys::create_file(dir, temporary, mode)?;
            let is_local = place.dir.facts().is_some_and(|facts| facts.closes_silently);
            let is_locked = match lock_staged(&file, is_local) {
                Ok(()) => true,
                Err(Errno::WOULDBLOCK) => return Err(Errno::EXIST),
                // A filesystem without locks has nobody who could sweep, either.
                Err(_) => false,
            };
            let stat = sys::fstat(&file).inspect_err(|_| {
                // What failed first is told.
                let _ = sys::unlink(dir, temporary);
            })?;
            // Some filesystems do not count names.
            if is_locked && stat.nlink == 0 && !sys::leads_to(dir, temporary, stat.id) {
                // Somebody took it for a dead run's, before it was locked.
                return Err(Errno::EXIST);
            }
            Ok((file, stat.id))
        })?;
        let guard = RemoveOnDrop {
            dir,
            name: Cow::Owned(temporary),
            id: Some(id),
        };
        Ok(Self {
            file,
            is_stream: false,
            guard: Some(guard),
            takes: Some((name, taken)),
        })
    }

    /// Takes a file that is there.
    pub(crate) fn existing(file: OwnedFd, is_stream: bool) -> Self {
        Self {
            file,
            is_stream,
            guard: None,
            takes: None,
        }
    }

    /// The file is not going to be complete: a new one is removed, and nothing else that has its name by now.
    ///
    /// # Errors
    ///
    /// It could not be removed, and is there in part.
    pub(crate) fn discard(self) -> sys::Result<()> {
        let Some(mut guard) = self.guard else {
            return Ok(());
        };
        if guard.id.is_none() {
            guard.id = sys::fstat(&self.file).ok().map(|stat| stat.id);
        }
        let removed = guard.remove();
        guard.forget();
        match removed {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// The name that the file has until it is committed, if this run made it.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.guard.as_ref().map(|guard| &*guard.name)
    }

    /// Closes the file, hears what its filesystem has to say at the end, and keeps it if that is nothing. Where it is known to
    /// be nothing (`is_silent`), a file that has its name may stay open for a moment.
    ///
    /// # Errors
    ///
    /// The file is not kept: a new one is removed or, if that is refused, left under the name that it had.
    pub(crate) fn commit(self, is_silent: bool) -> Result<(), Uncommitted> {
        let close = |file| sys::close(file).map_err(failed(Operation::Close));
        let Some(guard) = self.guard else {
            return Ok(close(self.file)?);
        };
        if let Some((name, taken)) = self.takes {
            // The lock goes with the last descriptor: it is held until the name is taken.
            let lock = sys::duplicate(&self.file).map_err(failed(Operation::Close))?;
            close(self.file)?;
            let renamed = if guard.has_name() {
                sys::rename(guard.dir, &guard.name, name, taken == Taken::Yes)
            } else {
                Err(Errno::STALE)
            };
            if let Err(errno) = renamed {
                let failure = failed(Operation::Commit)(errno);
                let left = match guard.remove() {
                    Ok(()) | Err(Errno::NOENT) => None,
                    Err(errno) => Some((guard.name.clone().into_owned(), errno)),
                };
                guard.forget();
                return Err(Uncommitted { failure, left });
            }
            drop(lock);
        } else if is_silent {
            closing::close(self.file);
        } else {
            close(self.file)?;
        }
        guard.forget();
        Ok(())
    }
}

/// Why a file was not kept.
pub(crate) struct Uncommitted {
    pub failure: Failure,
    /// The name under which it is still there, and why.
    pub left: Option<(OsString, Errno)>,
}

impl From<Failure> for Uncommitted {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            left: None,
        }
    }
}

/// The name of a new file that is not complete.
struct RemoveOnDrop<'a> {
    dir: BorrowedFd<'a>,
    name: Cow<'a, OsStr>,
    /// The file itself, where it has been looked at.
    id: Option<FileId>,
}

impl RemoveOnDrop<'_> {
    /// Whether the file has the name still: it may be another's, by accident or on purpose.
    fn has_name(&self) -> bool {
        self.id
            .is_none_or(|id| sys::leads_to(self.dir, &self.name, id))
    }

    fn remove(&self) -> sys::Result<()> {
        if self.has_name() {
            sys::unlink(self.dir, &self.name)
        } else {
            Ok(())
        }
    }

    /// Nothing is removed any more.
    fn forget(mut self) {
        // What is forgotten is not freed.
        self.name = Cow::Borrowed(OsStr::new(""));
        std::mem::forget(self);
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // Here after a panic, or an error of closing, which is told.
        let _ = self.remove();
    }
}

/// Puts something that `make` makes in the place of what has the name, with no moment in which the name is free.
pub(crate) fn replace(
    place: Place<'_>,
    make: impl Fn(&OsStr) -> sys::Result<()>,
) -> sys::Result<()> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let ((), temporary) = make_temporary(place, make)?;
    let renamed = sys::rename(dir, &temporary, name, true);
    // Two names of one file are left as they are by rename(2), and so is anything after an error. Otherwise the temporary name may
    // be another run's by now.
    let is_left = match renamed {
        Ok(()) => {
            sys::stat_at(dir, name, false).is_ok_and(|made| sys::leads_to(dir, &temporary, made.id))
        }
        Err(_) => true,
    };
    if !is_left {
        return renamed;
    }
    match sys::unlink(dir, &temporary) {
        Ok(()) | Err(Errno::NOENT) => renamed,
        Err(errno) => Err(errno),
    }
}

/// Finds out whether `make` can make something there, while the destination's name is taken.
pub(crate) fn try_to_make(
    place: Place<'_>,
    make: impl Fn(&OsStr) -> sys::Result<()>,
) -> sys::Result<()> {
    let ((), temporary) = make_temporary(place, make)?;
    sys::unlink(place.pair.dest(), &temporary)
}

/// Makes something under a name that is free, next to the destination's, and returns that name with it. One name always leads to
/// the same first try, so that a run that is repeated finds what it left. What has such a name in the source is going to have it
/// here, too, and is no less to be copied than anything else: it has the name for itself.
fn make_temporary<T>(
    place: Place<'_>,
    make: impl Fn(&OsStr) -> sys::Result<T>,
) -> sys::Result<(T, OsString)> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let (parent, base) = split(name);
    let (source_parent, _) = split(place.names.source);
    let is_copied = |name: &str| {
        let name = Path::new(source_parent).join(name);
        sys::stat_at(place.pair.source(), name.as_os_str(), false).is_ok()
    };
    if sys::is_append_only(dir, parent) {
        // What is made there stays there, under its name.
        return Err(Errno::PERM);
    }
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(base);
    let mut number = 0_u64;
    loop {
        let temporary = format!("{PREFIX}{hash:016x}-{number}");
        if is_copied(&temporary) {
            number += 1;
            continue;
        }
        let temporary = Path::new(parent).join(temporary);
        match make(temporary.as_os_str()) {
            Ok(made) => return Ok((made, temporary.into_os_string())),
            Err(Errno::EXIST) if sweep_one(dir, temporary.as_os_str()) => {}
            Err(Errno::EXIST) => number += 1,
            Err(errno) => return Err(errno),
        }
    }
}

pub(crate) fn is_staged_name(name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(PREFIX.as_bytes());
    rest.and_then(|rest| rest.split_at_checked(16))
        .is_some_and(|(hash, number)| {
            let is_number =
                |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            hash.iter().all(u8::is_ascii_hexdigit)
                && number.strip_prefix(b"-").is_some_and(is_number)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_this_program_makes_are_swept() {
        for (name, is_ours) in [
            (".poolcp-0123456789abcdef-0", true),
            (".poolcp-0123456789abcdef-17", true),
            (".poolcp-0123456789abcdef-", false),
            (".poolcp-0123456789abcdef", false),
            (".poolcp-0123456789abcdeg-0", false),
            (".poolcp-0123456789abcdef-x", false),
            (".poolcp-", false),
            ("poolcp-0123456789abcdef-0", false),
        ] {
            assert_eq!(is_staged_name(name.as_ref()), is_ours, "{name}");
        }
    }
}
