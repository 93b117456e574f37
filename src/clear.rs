//! What has a destination's name already: asking about it, taking it out of the way, giving it its name back.

use crate::backup::Saved;
use crate::context::Context;
use crate::decide::{FilePlan, Seen, looks_through};
use crate::entry::Entry;
use crate::error::{Error, Operation};
use crate::make_name::{create_special, path_to_source, read_link};
use crate::observer::{Event, Question};
use crate::options::Make;
use crate::place::Place;
use crate::prune::remove_instead;
use crate::staged::try_to_make;
use crate::sys::{self, Errno, Kind, Stat};

/// What is asked before a destination is replaced by something of this kind.
pub(crate) fn question(cx: &Context, place: Place<'_>, kind: Kind) -> Question {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let seen = sys::stat_at(dir, name, looks_through(&cx.options, kind));
    let unwritable = match seen {
        Ok(stat)
            if stat.kind != Kind::Symlink
                && !cx.process.superuser
                && !sys::may_write(dir, name) =>
        {
            Some(stat.mode)
        }
        _ => None,
    };
    Question {
        dest: place.dest_path(),
        unwritable,
        removes: cx.options.force || cx.options.remove_destination,
    }
}

/// Takes what has the name out of the way, as planned.
pub(crate) fn clear<'a>(
    cx: &Context,
    place: Place<'a>,
    plan: FilePlan,
    seen: Option<&Seen>,
) -> Result<Option<Saved<'a>>, Error> {
    match plan {
        FilePlan::Replace if seen.is_some_and(|seen| seen.itself.kind == Kind::Dir) => {
            remove_instead(cx, place, Kind::Dir).map(|()| None)
        }
        FilePlan::Replace => remove_dest(cx, place).map(|()| None),
        FilePlan::Backup => {
            let (dir, name) = (place.pair.dest(), place.names.dest);
            let save = if cx.options.dry_run {
                Saved::rehearse
            } else {
                Saved::save
            };
            save(dir, name, cx.options.backup, &cx.options.suffix)
                .map_err(|errno| Error::new(Operation::Backup, place.dest_path()).with_errno(errno))
        }
        _ => Ok(None),
    }
}

/// The copy has failed: what was there gets its name back.
pub(crate) fn restore(cx: &Context, place: Place<'_>, saved: &Saved<'_>) {
    match saved.restore() {
        Ok(()) => cx.tell(|| Event::Restored {
            dest: place.dest_path(),
            backup: place.dir.dest_path(saved.backup()),
        }),
        Err(errno) => {
            let error = Error::new(Operation::Unbackup, place.dest_path());
            cx.error(error.with_errno(errno));
        }
    }
}

/// Removes what has the name, if it is still there.
pub(crate) fn remove_dest(cx: &Context, place: Place<'_>) -> Result<(), Error> {
    let removed = if cx.options.dry_run {
        Ok(())
    } else {
        sys::unlink(place.pair.dest(), place.names.dest)
    };
    match removed {
        Ok(()) => {
            cx.tell_removed(place);
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(place.dest_error(Operation::Remove, errno)),
    }
}

impl Entry {
    /// A directory that is in the way is more than a file could bring back: it stays if the file cannot be read, or what is no
    /// file cannot be made there.
    pub(crate) fn try_before_clearing(
        &mut self,
        cx: &Context,
        place: Place<'_>,
    ) -> Result<(), Error> {
        let is_tree = self.dest_itself().is_some_and(|it| it.kind == Kind::Dir);
        if !is_tree || cx.options.dry_run {
            return Ok(());
        }
        if self.is_copied_file(cx) {
            self.file = Some(self.take_file(cx, place)?);
            return Ok(());
        }
        let (from, to) = (place.pair.source(), place.pair.dest());
        let Stat { kind, rdev, .. } = self.stat;
        let (operation, tried) = match (cx.options.make, kind) {
            (Make::HardLinks, _) => {
                let link =
                    |name: &_| sys::make_link(from, place.names.source, to, name, self.followed);
                (Operation::CreateLink, try_to_make(place, link))
            }
            (Make::Symlinks, _) => {
                let text = path_to_source(place)?;
                let link = |name: &_| sys::make_symlink(&text, to, name);
                (Operation::CreateSymlinkTo, try_to_make(place, link))
            }
            (_, Kind::Symlink) => {
                let text = read_link(place)?;
                let link = |name: &_| sys::make_symlink(&text, to, name);
                (Operation::CreateSymlink, try_to_make(place, link))
            }
            _ => {
                let special = |name: &_| sys::make_special(to, name, kind, 0o600, rdev);
                (create_special(kind), try_to_make(place, special))
            }
        };
        tried.map_err(|errno| place.dest_error(operation, errno))
    }
}
