//! Job control: which of a shell's jobs this process is of (credentials(7)).

use std::fs;
use std::io;

use rustix::termios::tcgetpgrp;

use crate::own_status::own_status;

/// What a process is a part of, by numbers (proc_pid_stat(5)). 0 is what another PID namespace has, a container's host for
/// example: getsid(2) and getpgrp(2) answer so, too, and rustix's take that answer for a number.
struct Belonging {
    parent: i32,
    group: i32,
    session: i32,
}

impl Belonging {
    /// Those of a `process`: its number, or `self`. None, where there is no /proc, or no such process.
    fn of(process: &str) -> Option<Self> {
        let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
        // The process's name comes before them, and may be anything.
        let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = str::from_utf8(&stat[name_ends + 1..]).ok()?;
        // The first one is its state.
        let mut fields = fields.split_whitespace().skip(1).map(str::parse);
        Some(Self {
            parent: fields.next()?.ok()?,
            group: fields.next()?.ok()?,
            session: fields.next()?.ok()?,
        })
    }
}

/// Whether the terminal of standard error is this process's to write on: a job in the background leaves it to the one in
/// front. Where there are no jobs it is.
pub fn is_in_front() -> bool {
    let Ok(front) = tcgetpgrp(io::stderr()) else {
        return true;
    };
    // One for each PID namespace that the process is in, its own the last: /proc may be that of another.
    let groups = own_status("NSpgid:");
    let own = groups
        .as_ref()
        .and_then(|groups| groups.split_whitespace().last()?.parse().ok());
    // A kernel without such namespaces does not say it so.
    let own = own.or_else(|| Some(Belonging::of("self")?.group));
    own.is_none_or(|own: i32| own == front.as_raw_nonzero().get())
}

/// Whether the process's group has nobody who could let it go on, as a shell does that has made it: a parent of one of its
/// members in another group of the same session. Those of this process and of the group's leader are asked. There the kernel
/// ignores Ctrl-Z, and so has this process to. Where nobody can be asked it is taken for one that has nobody.
pub fn is_orphaned() -> bool {
    let Some(own) = Belonging::of("self") else {
        return true;
    };
    let leader = Belonging::of(&own.group.to_string());
    let parents = [own.parent].into_iter().chain(leader.map(|its| its.parent));
    let mut parents = parents.filter_map(|parent| Belonging::of(&parent.to_string()));
    !parents.any(|its| its.group != own.group && its.session == own.session)
}
