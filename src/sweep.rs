//! What runs that were killed have left of staged files (`staged.rs`), found and removed.
//!
//! Nobody removes the staged files of a run that was killed but a later one, in the directories that it writes to
//! ([`sweep_once`]) and where it wants the same name for itself. To know them from those of a run that is alive, whatever
//! container it is in, a file is locked (flock(2)) for as long as it is staged; the kernel unlocks it with the end of its
//! writer. A lock says nothing to other machines (a server's own processes do not see those of NFS clients, and with FUSE
//! nobody else does), so on what may be shared with them a file has to be an hour old, too. Other things than files are staged
//! for a moment only: they are left over if they are that old.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::context::Context;
use crate::dir::Dir;
use crate::local::{is_local, is_overlay, locks_are_mandatory};
use crate::staged::{PREFIX, is_staged_name};
use crate::sys::{self, Errno, Kind, Stat};

/// Far more than between the making of a link and its renaming.
const OLD: Duration = Duration::from_secs(3600);

/// Removes what runs that were killed have left in a directory's copy, unless that has been looked for.
pub(crate) fn sweep_once(cx: &Context, dir: &Dir, source: BorrowedFd<'_>, dest: BorrowedFd<'_>) {
    let is_first = |id| cx.operands.begin_sweep(id);
    if dir.begin_sweep() && dir.facts().is_none_or(|facts| is_first(facts.dest_id)) {
        sweep(source, dest);
    }
}

fn sweep(source: BorrowedFd<'_>, dest: BorrowedFd<'_>) {
    // A directory that cannot be listed is not swept, and that is all.
    for name in sys::names_with_prefix(dest, PREFIX.as_bytes()).unwrap_or_default() {
        // What has such a name in the source has it here because it was copied.
        let is_copied = || sys::stat_at(source, &name, false).is_ok();
        if is_staged_name(&name) && !is_copied() {
            sweep_one(dest, &name);
        }
    }
}

/// Removes something that is staged, if whoever staged it is gone. Whether it did.
pub(crate) fn sweep_one(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    let Ok(stat) = sys::stat_at(dir, name, false) else {
        return false;
    };
    let is_left = match stat.kind {
        Kind::Dir => false,
        // A file with another name is a link that was about to be made.
        Kind::File if stat.nlink <= 1 => return sweep_file(dir, name, &stat),
        _ => is_old(&stat),
    };
    is_left && sys::unlink(dir, name).is_ok()
}

/// Locks a staged file, where that keeps nobody from writing it: where it is local, that need not be asked.
pub(crate) fn lock_staged(file: &OwnedFd, is_local: bool) -> sys::Result<()> {
    if !is_local && locks_are_mandatory(file) {
        return Err(Errno::OPNOTSUPP);
    }
    sys::lock_file(file)
}

/// Removes a staged file that nobody has locked.
fn sweep_file(dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> bool {
    let Ok(file) = sys::open_for_lock(dir, name) else {
        return false;
    };
    if !(is_local(&file) || is_overlay(&file) || is_old(stat)) {
        return false;
    }
    // Until it is locked, somebody else may remove it and make another of that name.
    let is_it = || sys::fstat(&file).is_ok_and(|now| now.id == stat.id);
    is_it()
        && lock_staged(&file, false).is_ok()
        && sys::leads_to(dir, name, stat.id)
        && sys::unlink(dir, name).is_ok()
}

fn is_old(stat: &Stat) -> bool {
    let (seconds, _) = stat.times.changed;
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let age = SystemTime::now().duration_since(changed);
    age.is_ok_and(|age| age > OLD)
}
