//! The process that copies, its threads, and the kernel that runs them.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::{Result, last_error, read};
use crate::lock::lock;
use crate::own_status::own_status;

thread_local! {
    /// Where the process was when this thread got a working directory of its own.
    static HOME: Cell<Option<BorrowedFd<'static>>> = const { Cell::new(None) };
}

/// The process's working directory, as an open directory: names relative to it are ordinary paths.
pub(crate) fn cwd() -> BorrowedFd<'static> {
    HOME.get().unwrap_or(rustix::fs::CWD)
}

/// Whether the process is the superuser, who may give files away.
pub(crate) fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user and the group that the process's new files belong to.
pub(crate) fn effective_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Opens the calling thread's working directory, as a place.
pub(crate) fn open_working_dir() -> Result<OwnedFd> {
    let oflags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, ".", oflags, Mode::empty())
}

/// Gives the calling thread a descriptor table and a working directory of its own (unshare(2), `CLONE_FILES` and `CLONE_FS`;
/// neither needs a privilege): copies of those that it has shared, unless it is another directory that it is to work in.
///
/// From then on a descriptor opened by another thread means nothing here, or another file. So this is only for threads that
/// run nothing but copies, whose descriptors never leave the thread that opened them: see `handles.rs` and
/// [`crate::Plan::start`].
pub(crate) fn unshare_thread(working_dir: Option<BorrowedFd<'_>>) -> Result<()> {
    let flags = rustix::thread::UnshareFlags::FILES | rustix::thread::UnshareFlags::FS;
    // SAFETY: the condition above; descriptors that the thread inherits stay open in its table until it ends.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    if let Some(dir) = working_dir {
        rustix::process::fchdir(dir)?;
        // SAFETY: the thread's table has a copy of it, and its owner closes the one in another table.
        #[allow(unsafe_code)]
        HOME.set(Some(unsafe { BorrowedFd::borrow_raw(dir.as_raw_fd()) }));
        return Ok(());
    }
    let home = open_working_dir()?;
    // Closed with the thread's table, at its end.
    let home: &'static OwnedFd = Box::leak(Box::new(home));
    HOME.set(Some(home.as_fd()));
    Ok(())
}

/// Whether [`unshare_thread`] is allowed, as far as can be known beforehand: a sandbox (a container's seccomp profile, say) may
/// refuse the call whatever it is to do, and here it is to do nothing.
pub(crate) fn may_unshare() -> bool {
    // SAFETY: without flags nothing is changed.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::empty()).is_ok()
    }
}

/// Makes an open directory the thread's working directory, if the thread has one of its own. [`cwd`] stays what it was.
pub(crate) fn enter(dir: impl AsFd) -> bool {
    HOME.get().is_some() && rustix::process::fchdir(dir).is_ok()
}

/// The calling thread's number, as in /proc/self/task: not gettid(2)'s where that is the /proc of another PID namespace.
pub(crate) fn thread_id() -> i32 {
    let link = std::fs::read_link("/proc/thread-self");
    let number = link
        .ok()
        .and_then(|link| link.file_name()?.to_str()?.parse().ok());
    number.unwrap_or_else(|| rustix::thread::gettid().as_raw_nonzero().get())
}

/// Gives the calling thread, and those that it starts, the lowest priority for the processor. (On Linux setpriority(2) knows
/// threads, not processes.)
pub(crate) fn set_lowest_priority() -> Result<()> {
    rustix::process::setpriority_process(None, 19)
}

/// Lets the calling thread, and those that it starts, use disks only when nobody else does (ioprio_set(2)).
pub(crate) fn set_idle_io() -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CALLER: libc::c_int = 0;
    const CLASS_IDLE: libc::c_int = 3;
    const CLASS_SHIFT: libc::c_int = 13;
    // SAFETY: the call takes three numbers and touches no memory.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            CALLER,
            CLASS_IDLE << CLASS_SHIFT,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(last_error())
}

/// What the scheduler knows of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduling {
    /// The time that it ran on a processor.
    pub ran: Duration,
    /// The time that it could have run and waited for a processor.
    pub queued: Duration,
}

/// How a thread of this process has spent its time; `None` where /proc does not say.
pub(crate) fn scheduling(thread: i32) -> Option<Scheduling> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 80];
    let len = read(file, &mut text).ok()?;
    let mut numbers = std::str::from_utf8(&text[..len]).ok()?.split_whitespace();
    let mut next = || numbers.next()?.parse().ok().map(Duration::from_nanos);
    Some(Scheduling {
        ran: next()?,
        queued: next()?,
    })
}

/// The process's umask, without setting it for a moment as umask(2) must; `None` where /proc does not say.
pub(crate) fn umask() -> Option<u32> {
    u32::from_str_radix(&own_status("Umask:")?, 8).ok()
}

/// The same where there is no /proc. For a moment what other threads make is theirs alone (umask(2)).
pub(crate) fn umask_by_setting() -> u32 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE_AT_A_TIME);
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(umask);
    umask.as_raw_mode()
}

/// What the limit of open files is taken for where it cannot be asked for. Less is hardly ever seen.
const FEW_OPEN_FILES: usize = 256;

/// Raises the limit of open files as far as the administrator allows, and returns it.
pub(crate) fn raise_open_files_limit() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // Not rustix's, which takes it that there is an answer: a sandbox may refuse one.
    // SAFETY: the call writes one such structure.
    #[allow(unsafe_code)]
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if !is_known {
        return FEW_OPEN_FILES;
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: the call reads one such structure.
        #[allow(unsafe_code)]
        let is_raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0;
        // Refused, the old limit still holds.
        if is_raised {
            limit = raised;
        }
    }
    // RLIM_INFINITY is the greatest number.
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Whether the kernel is this one or a later one; not if it does not say.
pub(crate) fn is_linux_since(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(x), Some(y)) if (x, y) >= (major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(is_linux_since(2, 6) && is_linux_since(4, 0));
        assert!(!is_linux_since(1000, 0));
    }
}
