//! Making a directory's copy, or finding the one that is there.

use std::os::fd::{AsFd, OwnedFd};

use crate::context::Context;
use crate::decide::{FilePlan, decide_dir};
use crate::difference::Why;
use crate::error::{Error, Operation};
use crate::facts::{Facts, gather};
use crate::meta::remove_acls;
use crate::observer::Event;
use crate::options::Delete;
use crate::place::Place;
use crate::prune::remove_instead;
use crate::sys::{self, Errno, FileId, Kind, Stat};

/// A destination directory, made or found.
pub(crate) struct MadeDir {
    pub fd: OwnedFd,
    pub stat: Stat,
    pub fresh: bool,
    /// The mode that it can have only when its entries are there.
    pub private_until: Option<u32>,
}

impl MadeDir {
    /// Whether it would be made, and something else is open in its place.
    pub(crate) fn is_rehearsed(&self, cx: &Context) -> bool {
        cx.options.dry_run && self.fresh
    }
}

/// Makes the destination, or opens the one that is there. While it is worked in, a new one is its owner's to read, write
/// and search, whatever the source's mode; and if ownership or an ACL is to come, nobody else's to enter. `None` if the
/// destination is the source itself, and that is all right. `ahead` is what was made ahead.
pub(crate) fn make_dest(
    cx: &Context,
    place: Place<'_>,
    source: &Stat,
    follow: bool,
    ahead: Option<FileId>,
) -> Result<Option<MadeDir>, Error> {
    let modes = Modes::new(cx, source);
    let fresh = match ahead {
        Some(_) => true,
        None => match take_name(cx, place, source, follow, modes.at_first)? {
            Some(fresh) => fresh,
            None => return Ok(None),
        },
    };
    if fresh && cx.options.dry_run {
        return rehearsed(cx, place).map(Some);
    }
    if fresh {
        announce(cx, place);
    }
    let error = |errno| place.dest_error(Operation::CreateDir, errno);
    let fd = match open(cx, place, fresh) {
        // Somebody has removed what was empty for a while.
        Err(Errno::NOENT) if ahead.is_some() => return make_dest(cx, place, source, follow, None),
        opened => opened.map_err(error)?,
    };
    let mut stat = sys::fstat(&fd).map_err(error)?;
    if let Some(made) = ahead {
        if made != stat.id {
            return Err(Error::new(Operation::Moved, place.dest_path()));
        }
        // The source has become more private since, or is another directory.
        let excess = stat.mode & 0o777 & !modes.at_first;
        if excess != 0 {
            stat.mode &= !excess;
            sys::set_mode(&fd, stat.mode).map_err(error)?;
        }
    }
    if fresh && stat.mode & 0o700 != 0o700 {
        stat.mode |= 0o700;
        sys::set_mode(&fd, stat.mode).map_err(error)?;
    }
    if fresh && cx.process.superuser && stat.uid != cx.process.uid {
        // Who may write the parent has put a directory of their own in its place, and would see what is coming. A
        // filesystem that knows no owners refuses.
        if sys::set_owner(&fd, Some(cx.process.uid), Some(cx.process.gid)).is_ok() {
            remove_acls(fd.as_fd()).map_err(error)?;
            sys::set_mode(&fd, modes.at_first & !modes.umask | 0o700).map_err(error)?;
            stat = sys::fstat(&fd).map_err(error)?;
        }
    }
    if !fresh {
        if is_reached_again(cx, stat.id) {
            return Err(Error::new(Operation::SharedDest, place.dest_path()));
        }
        narrow(cx, &fd, &mut stat, source);
    } else if modes.private && stat.mode & 0o777 & !modes.at_first != 0 {
        // It is another one, or its filesystem has modes of its own, and refuses.
        let mode = stat.mode & !0o777 | (stat.mode & modes.at_first);
        if sys::set_mode(&fd, mode).is_ok() {
            stat.mode = mode;
        }
    }
    Ok(Some(MadeDir {
        private_until: if fresh { modes.at_last(&stat) } else { None },
        fd,
        stat,
        fresh,
    }))
}

/// Whether links may lead to directories that are pruned.
pub(crate) fn prunes_behind_links(cx: &Context) -> bool {
    cx.options.keep_directory_symlink && cx.options.delete != Delete::Nothing
}

/// Whether a directory that will be pruned is copied to from another source, too.
fn is_reached_again(cx: &Context, dest: FileId) -> bool {
    prunes_behind_links(cx) && !cx.operands.begin_merge(dest)
}

/// Keeps those out of a directory that was there who may not enter it when it has its source's owner and mode. What is refused of
/// that it gets only at the end, with the rest.
fn narrow(cx: &Context, fd: &OwnedFd, stat: &mut Stat, source: &Stat) {
    let preserve = &cx.options.preserve;
    if cx.options.dry_run {
        return;
    }
    let owner = (stat.uid, stat.gid);
    let moves = preserve.ownership && cx.process.superuser && owner != (source.uid, source.gid);
    if moves
        && ![cx.process.uid, source.uid].contains(&stat.uid)
        // Where that is refused, as it would be at the end, it stays with whom it has.
        && (source.uid == cx.process.uid || sys::set_owner(fd, Some(source.uid), None).is_ok())
        && sys::set_owner(fd, Some(cx.process.uid), None).is_ok()
    {
        // Its owner could undo what follows, and change what is made in it.
        stat.uid = cx.process.uid;
    }
    if !preserve.mode {
        return;
    }
    if moves && source.mode & 0o005 == 0o005 && stat.mode & 0o022 == 0 {
        // All may enter it in the end, and nobody else may write to it now.
        return;
    }
    // The group's bits are another group's, or the limit of an ACL.
    let kept = if moves { 0o700 } else { 0o777 };
    let mode = stat.mode & (0o7000 | ((source.mode | 0o700) & kept));
    if mode != stat.mode && sys::set_mode(fd, mode).is_ok() {
        stat.mode = mode;
    }
}

/// The mode that the copy of `source` is made with.
pub(crate) fn first_mode(cx: &Context, source: &Stat) -> u32 {
    Modes::new(cx, source).at_first
}

/// The modes that a new directory gets.
struct Modes {
    umask: u32,
    /// The source's, as far as a new directory may have it.
    wanted: u32,
    /// What it is made with.
    at_first: u32,
    /// Nobody else may enter it at first.
    private: bool,
    /// As if it had no source.
    default: bool,
}

impl Modes {
    fn new(cx: &Context, source: &Stat) -> Self {
        let preserve = &cx.options.preserve;
        let umask = cx.process.umask;
        let mut wanted = source.mode & 0o1777;
        if preserve.default_mode {
            wanted |= 0o777;
        }
        // The umask forbids others to write in a new directory even where a default ACL takes its place.
        wanted &= !(umask & 0o022);
        let private = preserve.ownership || preserve.mode;
        Self {
            umask,
            wanted,
            at_first: if private { 0o700 } else { wanted | 0o700 },
            private,
            default: preserve.default_mode,
        }
    }

    /// The mode that it can have only when its entries are there; `None` if it has that already.
    fn at_last(&self, made: &Stat) -> Option<u32> {
        let missing = 0o700 & (!self.wanted | self.umask);
        if self.default {
            Some((0o777 & !self.umask) | (made.mode & 0o7000) | (self.wanted & 0o1000))
        } else if self.private {
            // A directory inherits this one bit.
            Some((self.wanted & !self.umask) | (made.mode & 0o2000))
        } else if missing != 0 {
            // Group's and others' bits are as the kernel made them, from the umask or a default ACL.
            Some(made.mode & !missing)
        } else {
            None
        }
    }
}

/// Makes a directory with the destination's name, and says whether that is new; `None` if nothing is to be done.
fn take_name(
    cx: &Context,
    place: Place<'_>,
    source: &Stat,
    follow: bool,
    mode: u32,
) -> Result<Option<bool>, Error> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let make = || {
        if !cx.options.dry_run {
            return sys::make_dir(dir, name, mode);
        }
        if place.dir.is_rehearsed() {
            return Ok(());
        }
        match sys::stat_at(dir, name, false) {
            Err(Errno::NOENT) => Ok(()),
            _ => Err(Errno::EXIST),
        }
    };
    // In a directory that was there its subdirectories mostly were, too.
    let mut made = if place.dir.facts().is_none_or(|facts| facts.fresh) {
        make()
    } else {
        Err(Errno::EXIST)
    };
    if made == Err(Errno::EXIST) && place.dir.is_fresh() {
        // Another source's copy, then, whose name is the same here: where case does not count, say.
        return Err(place.dest_error(Operation::CreateDir, Errno::EXIST));
    }
    if made == Err(Errno::EXIST) {
        match merging(cx, place, source, follow)? {
            Merging::No => return Ok(None),
            Merging::Yes => {}
            Merging::Free => {
                make().map_err(|errno| place.dest_error(Operation::CreateDir, errno))?;
                made = Ok(());
            }
            Merging::Instead => {
                remove_instead(cx, place, Kind::File)?;
                made = if cx.options.dry_run { Ok(()) } else { make() };
            }
        }
    }
    match made {
        Ok(()) => Ok(Some(true)),
        Err(Errno::EXIST) => Ok(Some(false)),
        Err(errno) => {
            // cp looks first.
            let looked = sys::stat_at(dir, name, false);
            Err(match looked.err().unwrap_or(Errno::NOENT) {
                Errno::NOENT => place.dest_error(Operation::CreateDir, errno),
                Errno::LOOP if cx.options.force => place.dest_error(Operation::CreateDir, errno),
                errno => Error::new(Operation::Stat, place.dest_path()).with_errno(errno),
            })
        }
    }
}

/// Opens the destination, which this run has made if it is `fresh`.
fn open(cx: &Context, place: Place<'_>, fresh: bool) -> sys::Result<OwnedFd> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let through = cx.options.keep_directory_symlink && !fresh;
    match sys::open_dest_dir(dir, name, through) {
        // A umask may forbid the owner, too.
        Err(Errno::ACCESS) if fresh => {
            sys::set_mode_at(dir, name, 0o700)?;
            sys::open_dest_dir(dir, name, false)
        }
        // What has the name is a link to nothing, or to itself, with a slash behind.
        Err(Errno::NOENT | Errno::LOOP) if !fresh => Err(Errno::EXIST),
        opened => opened,
    }
}

/// What is done about a directory whose destination's name may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    /// Nothing: it is its own destination.
    No,
    /// What is there is taken for the copy.
    Yes,
    /// Nothing is there.
    Free,
    /// What is there is no directory, and is removed.
    Instead,
}

/// How a directory goes together with what has its destination's name.
pub(crate) fn merging(
    cx: &Context,
    place: Place<'_>,
    stat: &Stat,
    follow: bool,
) -> Result<Merging, Error> {
    let Facts { source, dest } = gather(cx, place, *stat, follow)?;
    match decide_dir(&cx.options, &source, &dest) {
        FilePlan::Refuse(operation) => Err(place.refused(operation)),
        FilePlan::Unreachable(errno) => Err(place.unreachable(errno)),
        FilePlan::Skip(_) => Ok(Merging::No),
        FilePlan::Replace => Ok(Merging::Instead),
        FilePlan::Create => Ok(Merging::Free),
        _ => Ok(Merging::Yes),
    }
}

/// Stands for a directory that would be made.
fn rehearsed(cx: &Context, place: Place<'_>) -> Result<MadeDir, Error> {
    announce(cx, place);
    let nowhere = sys::open_nowhere().and_then(|fd| sys::fstat(&fd).map(|stat| (fd, stat)));
    let (fd, stat) = nowhere.map_err(|errno| place.dest_error(Operation::CreateDir, errno))?;
    Ok(MadeDir {
        fd,
        stat,
        fresh: true,
        private_until: None,
    })
}

fn announce(cx: &Context, place: Place<'_>) {
    cx.tell(|| Event::Copying {
        source: place.source_path(),
        dest: place.dest_path(),
        backup: None,
        why: Why::New,
    });
}
