//! The facts that a decision needs (`decide.rs`): looked up with as few questions to the kernel as the options allow.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::backup::simple_name;
use crate::buffer::{fill, go_on, with_buffer};
use crate::cancel::Canceller;
use crate::context::Context;
use crate::decide::{DestFacts, Seen, SourceFacts, looks_through};
use crate::difference::compares_content;
use crate::error::{Error, Failure, Operation};
use crate::options::{Backup, Delete, Follow};
use crate::path::split;
use crate::place::{Names, Place};
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};

/// What is known about a name's two ends.
pub(crate) struct Facts {
    pub source: SourceFacts,
    /// `None` if the name is free, an error if nobody can say.
    pub dest: sys::Result<Option<DestFacts>>,
}

/// Looks at both ends. `stat` is the source as it was found; `followed` says whether links were followed to find it.
pub(crate) fn gather(
    cx: &Context,
    place: Place<'_>,
    stat: Stat,
    followed: bool,
) -> Result<Facts, Error> {
    let mut source = SourceFacts {
        seen: Seen {
            itself: stat,
            target: None,
        },
        stat,
        follow: match cx.options.follow {
            Follow::Operands if place.dir.facts().is_some() => Follow::Never,
            follow => follow,
        },
    };
    let found = if place.dir.is_rehearsed() {
        Err(Errno::NOENT)
    } else {
        see(place.pair.dest(), place.names.dest)
    };
    let seen = match found {
        Ok(seen) => seen,
        Err(errno) => {
            let dest = match errno {
                Errno::NOENT => Ok(None),
                errno => Err(errno),
            };
            return Ok(Facts { source, dest });
        }
    };
    // The name itself counts only where something may be lost.
    if followed || stat.kind == Kind::Symlink {
        source.seen = see(place.pair.source(), place.names.source)
            .map_err(|errno| place.source_error(Operation::Stat, errno))?;
    }
    let mut dest = look_at_dest(cx, place, &source, seen);
    if compares_content(&cx.options, &stat, &seen.itself) {
        dest.has_other_content = !has_same_content(cx, place, &stat, &seen.itself, followed)?;
    }
    Ok(Facts {
        source,
        dest: Ok(Some(dest)),
    })
}

/// What has a name: itself, and what it leads to if it is a symbolic link.
fn see(dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<Seen> {
    let itself = sys::stat_at(dir, name, false)?;
    let is_link = itself.kind == Kind::Symlink;
    Ok(Seen {
        itself,
        target: is_link.then(|| sys::stat_at(dir, name, true)),
    })
}

/// The facts about a destination's name that is taken.
fn look_at_dest(cx: &Context, place: Place<'_>, source: &SourceFacts, seen: Seen) -> DestFacts {
    let id = seen.itself.id;
    let (_, base) = split(place.names.dest);
    let is_looked_through = match source.stat.kind {
        Kind::Dir => cx.options.keep_directory_symlink,
        kind => looks_through(&cx.options, kind),
    };
    let simple = matches!(cx.options.backup, Backup::Simple | Backup::Existing);
    DestFacts {
        seen,
        made_here: place.dir.facts().is_none() && cx.operands.has_made_operand(place, id),
        new_link: seen.itself.kind == Kind::Symlink
            && is_looked_through
            && cx
                .operands
                .leads_by_made_link(place.pair.dest(), place.names.dest),
        is_source_name: source.seen.itself.id == id && is_same_name(place),
        backup_is_source: simple && backup_is_source(cx, place, source.stat.id),
        is_dot: base == "." || base == "..",
        has_other_content: false,
        is_extraneous: cx.options.delete != Delete::Nothing
            && !cx.options.attributes_only
            && place.dir.facts().is_some(),
    }
}

/// Whether two files hold the same, or two symbolic links say the same. One that cannot be read is not the same: what will be
/// done about that has its own errors.
fn has_same_content(
    cx: &Context,
    place: Place<'_>,
    source: &Stat,
    dest: &Stat,
    followed: bool,
) -> Result<bool, Error> {
    let Place { pair, names, .. } = place;
    if source.kind == Kind::Symlink {
        let said = sys::read_link(pair.source(), names.source);
        let said = said.map_err(|errno| place.source_error(Operation::ReadLink, errno))?;
        return Ok(sys::read_link(pair.dest(), names.dest).is_ok_and(|other| other == said));
    }
    let flags = |follow| SourceFlags {
        follow,
        wait: false,
        no_atime: cx.process.superuser,
    };
    let one = sys::open_source(pair.source(), names.source, flags(followed))
        .map_err(|errno| place.source_error(Operation::Open, errno))?;
    let Ok(other) = sys::open_source(pair.dest(), names.dest, flags(false)) else {
        return Ok(false);
    };
    let is_it = |file: &OwnedFd, stat: &Stat| sys::fstat(file).is_ok_and(|it| it.id == stat.id);
    if !is_it(&one, source) || !is_it(&other, dest) {
        return Ok(false);
    }
    let same = is_same_data(one.as_fd(), other.as_fd(), source.size, cx.canceller());
    same.map_err(|failure| place.explain(failure))
}

/// Whether two files of this size hold the same data; if the other one cannot be read, that is not known to be so. The worker's
/// buffer is used in halves.
fn is_same_data(
    one: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    size: u64,
    canceller: &Canceller,
) -> Result<bool, Failure> {
    with_buffer(|buffer| {
        let (here, there) = buffer.split_at_mut(buffer.len() / 2);
        let mut compared = 0;
        loop {
            go_on(canceller)?;
            let (count, _) = fill(one, &mut *here)?;
            let Ok((also, _)) = fill(other, &mut *there) else {
                return Ok(false);
            };
            if here[..count] != there[..also] {
                return Ok(false);
            }
            compared += count as u64;
            if count < here.len() {
                return Ok(compared == size);
            }
        }
    })
}

/// Whether the two names are one directory entry.
fn is_same_name(place: Place<'_>) -> bool {
    let Names { source, dest } = place.names;
    // Looked at only where the names agree.
    split(source).1 == split(dest).1 && place.source_entry() == place.dest_entry()
}

/// Whether the source is what a simple backup of the destination would replace.
fn backup_is_source(cx: &Context, place: Place<'_>, source: FileId) -> bool {
    let backup = simple_name(place.names.dest, &cx.options.suffix);
    split(place.names.source).1 == split(&backup).1
        && sys::stat_at(place.pair.dest(), &backup, true).is_ok_and(|stat| stat.id == source)
}
