//! Further names of a file that is copied: linked to its copy or, if that failed, copied in its place.
//!
//! Which name is the first one, and who has left one with whom, is in `links.rs`.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::backup::Saved;
use crate::clear::restore;
use crate::context::Context;
use crate::data::is_written;
use crate::decide::FilePlan;
use crate::dir::Dir;
use crate::entry::Entry;
use crate::error::{Error, Operation};
use crate::file::{at, skip};
use crate::handles::Pair;
use crate::ladder::How;
use crate::links::{Copied, Left, MadeFile, Name};
use crate::local::is_local;
use crate::observer::What;
use crate::place::Place;
use crate::staged::replace;
use crate::sys::{self, Errno, FileId, Stat};

/// The copy of a name that was left with this worker has failed: what was there gets its name back.
fn restore_left(cx: &Context, left: &Left) {
    let Some(backup) = &left.backup else {
        return;
    };
    let restored = at(cx, &left.name, |place| {
        let (dir, dest) = (place.pair.dest(), place.names.dest);
        restore(cx, place, &Saved::of(dir, dest, backup.clone()));
        Ok(())
    });
    if let Err(error) = restored {
        cx.error(error);
    }
}

/// Ends a claim: links the names that were left meanwhile or, if the copy failed, goes on with one of them as the first.
pub(crate) fn settle(
    cx: &Context,
    entry: &Entry,
    place: Place<'_>,
    made: Result<Option<How>, Error>,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<Option<How>, Error> {
    let id = entry.stat.id;
    let mut first = made.is_ok().then(|| Copied {
        name: place.to_name(),
        source: entry.stat,
        made: entry.made,
    });
    let copied = loop {
        if let Some(copied) = first {
            break copied;
        }
        let Some(next) = cx.links.fail(id) else {
            return made;
        };
        first = match copy_left(cx, &next, id) {
            Ok(copied) => Some(copied),
            Err(error) => {
                cx.error(error);
                restore_left(cx, &next);
                None
            }
        };
        ended.push(next.name.dir);
    };
    for left in cx.links.finish(id, copied.clone()) {
        let linked = at(cx, &left.name, |place| {
            link(cx, &copied, place, id, left.removes)
        });
        let done = or_copy(cx, linked, || copy_left(cx, &left, id).map(Some));
        if let Err(error) = done {
            cx.error(error);
            restore_left(cx, &left);
        }
        ended.push(left.name.dir);
    }
    made
}

/// Takes what came of [`link`]. Where the filesystem has no further name for a file (link(2)) that is told, and the name gets a
/// copy: better that than nothing.
pub(crate) fn or_copy<T>(
    cx: &Context,
    linked: Result<(), Error>,
    copy: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    match linked {
        Err(error) if is_no_link(&error) => {
            cx.error(error);
            copy()
        }
        linked => linked.map(|()| None),
    }
}

fn is_no_link(error: &Error) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    error.operation() == Operation::CreateLink
        && matches!(
            errno,
            Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK)
        )
}

/// Copies a name of `id` that was left with this worker.
fn copy_left(cx: &Context, left: &Left, id: FileId) -> Result<Copied, Error> {
    at(cx, &left.name, |place| {
        let mut entry = Entry::look(place, left.follow)?;
        if entry.stat.id != id {
            return Err(Error::new(Operation::Replaced, place.source_path()));
        }
        // Whoever left it has asked, and cleared the name.
        match entry.decide(cx, place)?.plan {
            FilePlan::Refuse(operation) => Err(place.refused(operation)),
            plan => entry.make(cx, place, plan).map(|_| Copied {
                name: left.name.clone(),
                source: entry.stat,
                made: entry.made,
            }),
        }
    })
}

/// Whether what was copied is gone, and its number another file's, which looks like this.
pub(crate) fn is_another(cx: &Context, copied: &Copied, stat: &Stat) -> bool {
    let Name { dir, source, .. } = &copied.name;
    let is_there = |pair: &Pair| {
        let leads = |follow| sys::stat_at(pair.source(), source, follow).map(|it| it.id);
        leads(false) == Ok(stat.id) || leads(true) == Ok(stat.id)
    };
    is_written(&copied.source, stat) && !cx.handles.open(dir).is_ok_and(|pair| is_there(&pair))
}

/// The name is one of the copy already.
fn leave(cx: &Context, place: Place<'_>) {
    if cx.options.overwrite.compares() {
        skip(cx, place);
    } else {
        cx.log(What::HardLink, place);
    }
}

/// Counts and says what linking would.
fn rehearse(cx: &Context, copied: &Copied, place: Place<'_>) {
    let there = if place.dir.is_rehearsed() {
        None
    } else {
        sys::stat_at(place.pair.dest(), place.names.dest, false).ok()
    };
    match there.map(|there| MadeFile::of(&there)) {
        Some(there) if copied.made == Some(there) => {
            leave(cx, place);
            return;
        }
        Some(_) => cx.tell_removed(place),
        None => {}
    }
    cx.done(What::HardLink, place);
}

/// Gives the copy of `id` the name at `place`, whatever has that if it is to be removed.
pub(crate) fn link(
    cx: &Context,
    copied: &Copied,
    place: Place<'_>,
    id: FileId,
    removes: bool,
) -> Result<(), Error> {
    if cx.options.dry_run {
        rehearse(cx, copied, place);
        return Ok(());
    }
    let first = &copied.name;
    let from = cx.handles.open(&first.dir)?;
    let error = |errno| {
        Error::new(Operation::CreateLink, place.dest_path())
            .with_other(first.dir.dest_path(&first.dest))
            .with_errno(errno)
    };
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let has_numbers = match first.dir.facts() {
        Some(facts) => facts.closes_silently,
        None => is_local(from.dest()),
    };
    let is_copy = |made: MadeFile, it: &Stat| made.is(MadeFile::of(it), has_numbers);
    let make = |name: &OsStr| {
        sys::make_link(from.dest(), &first.dest, dir, name, false)?;
        // Who may write the directory of the first one may have put something else there, which is not to come to this one.
        let is = |made| sys::stat_at(dir, name, false).is_ok_and(|it| is_copy(made, &it));
        if copied
            .made
            .is_some_and(|made| !first.dir.is_out_of_reach() && !is(made))
        {
            sys::unlink(dir, name)?;
            return Err(Errno::STALE);
        }
        Ok(())
    };
    match make(name) {
        Err(Errno::EXIST) => {
            let there = sys::stat_at(dir, name, false).map_err(error)?;
            if there.id == id && !removes {
                return Err(place.refused(Operation::SameFile));
            }
            let is_other = |made| has_numbers && !is_copy(made, &there);
            let copy = sys::stat_at(from.dest(), &first.dest, false).map_err(error)?;
            let is_same = there.id == copy.id && !copied.made.is_some_and(is_other);
            if place.dir.is_fresh() && !is_same {
                // Names that differ in the source and not here.
                return Err(place.refused(Operation::JustCreated));
            }
            if there.id == copy.id {
                leave(cx, place);
                return Ok(());
            }
            replace(place, make).map_err(error)?;
            cx.tell_removed(place);
        }
        made => made.map_err(error)?,
    }
    cx.done(What::HardLink, place);
    Ok(())
}
