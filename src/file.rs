//! One entry that is not a directory: decide, clear, make, fill, dress, commit.
//!
//! 1. **Decide** (`decide.rs`): from the options and the facts about both ends to a [`FilePlan`]. Nothing has been touched by
//!    then.
//! 2. **Clear** the name (`clear.rs`), as planned: what has it is removed, or becomes a backup. (What a regular file is to
//!    replace goes when that takes its name.)
//! 3. **Make** the name, with no more permission than it will have at the end.
//! 4. **Fill** it (`data.rs`; links and special files have nothing to fill).
//! 5. **Dress** it (`dress.rs`).
//! 6. **Commit**: only now is the file kept. Until then it is a [`Staged`](crate::staged::Staged) file, which is
//!    removed if anything before fails; a backup then gets its name back.
//!
//! Names of one inode go through the registry in `links.rs` between 2 and 3.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::backup::Saved;
use crate::clear::{clear, question, restore};
use crate::context::Context;
use crate::counters::Count;
use crate::decide::{Decision, FilePlan, Reason, has_data};
use crate::difference::Why;
use crate::dir::Dir;
use crate::entry::Entry;
use crate::error::{Error, Operation};
use crate::further::{is_another, link, or_copy, settle};
use crate::ladder::How;
use crate::links::{Claim, Left, MadeFile, Name};
use crate::observer::{Event, Interest, What};
use crate::options::Make;
use crate::place::{Names, Place};
use crate::sweep::sweep_once;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags};

/// Copies one entry of the kind that its directory (or a look at it) says it has. `follow` says whether the name was
/// followed, if it is a symbolic link, to find that kind.
///
/// Returns the directories that had this entry's further names pending, one for each name that is done now.
pub(crate) fn copy(cx: &Context, place: Place<'_>, kind: Kind, follow: bool) -> Vec<Arc<Dir>> {
    let mut ended = Vec::new();
    let done = place.unless_panic(|| try_copy(cx, place, (kind, follow), None, LOOKS, &mut ended));
    if let Err(error) = done {
        cx.error(error);
    }
    ended
}

/// How often a destination is looked at that leads somewhere else each time.
const LOOKS: u32 = 4;

/// Chooses what to do, and does it. The caller may hold a claim on the file that it is going to write. The last of so many `looks`
/// is taken as it is.
fn try_copy(
    cx: &Context,
    place: Place<'_>,
    (kind, follow): (Kind, bool),
    held: Option<FileId>,
    looks: u32,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<(), Error> {
    let (entry, plan) = choose(cx, place, kind, follow)?;
    let written = match plan {
        FilePlan::Overwrite | FilePlan::Supersede => entry.dest_file().map(|stat| stat.id),
        _ => None,
    };
    let Some(id) = written.filter(|id| held != Some(*id)) else {
        return entry.carry_out(cx, place, plan, ended);
    };
    // Another name may lead to the same file, and has to wait then.
    let left = || Left {
        name: place.to_name(),
        kind,
        follow,
        backup: None,
        removes: false,
    };
    if !cx.writers.claim(id, left) {
        return Ok(());
    }
    // Another worker may have given the file's name to another one meanwhile: then a link leads there.
    let is_moved = looks > 1
        && entry.dest_flags().follow
        && sys::stat_at(place.pair.dest(), place.names.dest, true).map(|it| it.id) != Ok(id);
    let done = if is_moved {
        Ok(())
    } else {
        place.unless_panic(|| entry.carry_out(cx, place, plan, ended))
    };
    while let Some(left) = cx.writers.next(id) {
        if let Err(error) = copy_waiting(cx, &left, id, ended) {
            cx.error(error);
        }
        ended.push(left.name.dir);
    }
    if is_moved {
        return try_copy(cx, place, (kind, follow), held, looks - 1, ended);
    }
    done
}

/// Copies a name that had to wait, as if it had come only now.
fn copy_waiting(
    cx: &Context,
    left: &Left,
    held: FileId,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<(), Error> {
    at(cx, &left.name, |place| {
        try_copy(
            cx,
            place,
            (left.kind, left.follow),
            Some(held),
            LOOKS,
            ended,
        )
    })
}

/// Does something about a name that was left by another worker.
pub(crate) fn at<T>(
    cx: &Context,
    name: &Name,
    work: impl FnOnce(Place<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let pair = cx.handles.open(&name.dir)?;
    let place = Place {
        dir: &name.dir,
        pair: &pair,
        names: Names {
            source: &name.source,
            dest: &name.dest,
        },
    };
    place.unless_panic(|| work(place))
}

/// Looks at the entry, and settles what is going to be done about it.
fn choose(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
) -> Result<(Entry, FilePlan), Error> {
    let left_out = FilePlan::Skip(Reason::LeftOut);
    if place.dir.is_fresh() {
        // The usual case in the fewest calls: nothing can be in the way, so a file is opened first and then looked at. One
        // more name of a file that is copied already need not be opened.
        let opened_first =
            has_data(&cx.options, kind) && kind == Kind::File && !place.dir.expects_further_name();
        let entry = if opened_first && cx.interest() == Interest::Nothing {
            match Entry::open(cx, place, kind, follow) {
                // It may be another name of a file that is copied already.
                Err(error)
                    if cx.options.preserve.links && error.kind() == ErrorKind::PermissionDenied =>
                {
                    Entry::look(place, follow)?
                }
                opened => opened?,
            }
        } else {
            Entry::look(place, follow)?
        };
        let drops = cx.options.filter.drops(&entry.stat);
        let plan = if drops { left_out } else { FilePlan::Create };
        return Ok((entry, plan));
    }
    let mut entry = Entry::look(place, follow)?;
    if cx.options.filter.drops(&entry.stat) {
        return Ok((entry, left_out));
    }
    let Decision { ask, plan } = entry.decide(cx, place)?;
    let may = !ask || cx.may_overwrite(&question(cx, place, entry.stat.kind));
    let plan = if may {
        plan
    } else {
        FilePlan::Skip(Reason::Exists)
    };
    Ok((entry, plan))
}

/// What is said about an entry that is made: at the beginning or, if it is to say how, at the end.
struct Announcement<'a> {
    place: Place<'a>,
    why: Why,
    saved: Option<&'a Saved<'a>>,
    is_late: bool,
}

impl Announcement<'_> {
    fn make(&self, cx: &Context, how: Option<How>) {
        let place = self.place;
        cx.tell(|| {
            let backup = self.saved.map(|saved| place.dir.dest_path(saved.backup()));
            let (source, dest) = (place.source_path(), place.dest_path());
            let why = self.why;
            match how {
                Some(how) => Event::Copied {
                    source,
                    dest,
                    backup,
                    why,
                    how,
                },
                None => Event::Copying {
                    source,
                    dest,
                    backup,
                    why,
                },
            }
        });
    }
}

pub(crate) fn skip(cx: &Context, place: Place<'_>) {
    cx.done(What::Skipped, place);
    cx.tell(|| Event::Skipped {
        dest: place.dest_path(),
    });
}

/// What it is to make a regular file like this.
pub(crate) fn file_with(cx: &Context, plan: FilePlan) -> What {
    if cx.options.attributes_only && plan == FilePlan::Overwrite {
        What::Dressed
    } else {
        What::File
    }
}

impl Entry {
    /// Does what has been chosen.
    fn carry_out(
        mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
        ended: &mut Vec<Arc<Dir>>,
    ) -> Result<(), Error> {
        if plan == FilePlan::Skip(Reason::UpToDate) {
            self.sync_left(cx, place);
        }
        match plan {
            FilePlan::Refuse(operation) => return Err(place.refused(operation)),
            FilePlan::Unreachable(errno) => return Err(place.unreachable(errno)),
            // Further names of the source are still linked to a destination that is up to date.
            FilePlan::Skip(Reason::UpToDate) if self.is_tracked(cx) => {}
            FilePlan::Skip(Reason::LeftOut) => {
                cx.leave_out(|| place.source_path());
                return Ok(());
            }
            FilePlan::Skip(_) => {
                skip(cx, place);
                return Ok(());
            }
            FilePlan::Dress
            | FilePlan::Create
            | FilePlan::Overwrite
            | FilePlan::Supersede
            | FilePlan::Replace
            | FilePlan::Backup => {}
        }
        sweep_once(cx, place.dir, place.pair.source(), place.pair.dest());
        if plan == FilePlan::Replace {
            self.try_before_clearing(cx, place)?;
        }
        let is_kept = || self.is_replaced_at_once || self.is_linked(cx);
        let saved = if plan == FilePlan::Replace && is_kept() {
            None
        } else {
            clear(cx, place, plan, self.dest.as_deref())?
        };
        let done =
            place.unless_panic(|| self.make_and_tell(cx, place, plan, saved.as_ref(), ended));
        if let (Err(_), Some(saved)) = (&done, &saved) {
            restore(cx, place, saved);
        }
        done
    }

    /// Of a file that is up to date an earlier run may have left in memory what is to be on the device when this one ends, where
    /// no filesystem is synced as a whole.
    fn sync_left(&self, cx: &Context, place: Place<'_>) {
        let is_synced_whole = place.dir.facts().is_some_and(|facts| facts.closes_silently);
        let is_file = self.dest_file().is_some_and(|dest| dest.kind == Kind::File);
        if !is_file || !cx.options.durable || cx.options.dry_run || is_synced_whole {
            return;
        }
        let flags = SourceFlags {
            follow: true,
            ..SourceFlags::PLAIN
        };
        let opened = sys::open_source(place.pair.dest(), place.names.dest, flags);
        match opened.and_then(|dest| cx.complete(dest)) {
            // It is somebody else's, who has not left it to this user to copy to.
            Ok(()) | Err(Errno::ACCESS | Errno::PERM) => {}
            Err(errno) => cx.error(place.dest_error(Operation::Sync, errno)),
        }
    }

    fn make_and_tell(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
        saved: Option<&Saved<'_>>,
        ended: &mut Vec<Arc<Dir>>,
    ) -> Result<(), Error> {
        let announcement = Announcement {
            place,
            why: self.why,
            saved,
            // As cp does: what is removed is said first, and how the data came with the rest.
            is_late: self.is_replaced_at_once
                || (cx.interest() == Interest::Ways
                    && plan != FilePlan::Dress
                    && has_data(&cx.options, self.stat.kind)),
        };
        let is_made = !matches!(plan, FilePlan::Skip(_));
        if is_made && !announcement.is_late {
            announcement.make(cx, None);
        }
        let done = if self.is_tracked(cx) {
            self.make_once(cx, place, plan, saved, ended)
        } else {
            if self.stat.kind == Kind::File {
                place.dir.count_name(false);
            }
            self.make(cx, place, plan)
        };
        if is_made && announcement.is_late {
            let tells_ways = cx.interest() == Interest::Ways;
            let how = done.as_ref().ok().copied().flatten();
            announcement.make(cx, how.filter(|_| tells_ways));
        }
        done.map(drop)
    }

    /// Makes the copy, or links it to the one that another name of the same file has.
    fn make_once(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
        saved: Option<&Saved<'_>>,
        ended: &mut Vec<Arc<Dir>>,
    ) -> Result<Option<How>, Error> {
        let left = || Left {
            name: place.to_name(),
            kind: self.stat.kind,
            follow: self.followed,
            backup: saved.map(|saved| saved.backup().to_owned()),
            removes: plan == FilePlan::Replace,
        };
        let claim = loop {
            match cx
                .links
                .claim(self.stat.id, self.most_names(cx, place), left)
            {
                Claim::LinkTo(first) if is_another(cx, &first, &self.stat) => {
                    cx.links.forget(self.stat.id, &first);
                }
                claim => break claim,
            }
        };
        place.dir.count_name(!matches!(claim, Claim::Copy));
        match claim {
            Claim::Copy => {
                let made = place.unless_panic(|| self.make(cx, place, plan));
                settle(cx, self, place, made, ended)
            }
            Claim::LinkTo(first) => {
                let removes = plan == FilePlan::Replace;
                let linked = link(cx, &first, place, self.stat.id, removes);
                or_copy(cx, linked, || self.make(cx, place, plan))
            }
            Claim::Left => Ok(None),
        }
    }

    /// Counts what making it would have counted.
    fn rehearse(&mut self, cx: &Context, place: Place<'_>, plan: FilePlan) {
        if plan == FilePlan::Dress {
            self.made = self.dest_itself().map(|there| MadeFile::of(&there));
        }
        let what = match (plan, cx.options.make, self.stat.kind) {
            (FilePlan::Dress, ..) => What::Dressed,
            (_, Make::HardLinks, _) => What::HardLink,
            (_, Make::Symlinks, _) | (_, _, Kind::Symlink) => What::Symlink,
            (_, _, kind) if has_data(&cx.options, kind) => file_with(cx, plan),
            _ => What::Special,
        };
        cx.done(what, place);
        if what == What::File && !cx.options.attributes_only {
            cx.counters.add(Count::Bytes, self.stat.size);
        }
    }

    /// Makes the copy, as planned, and says how its data came.
    pub(crate) fn make(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
    ) -> Result<Option<How>, Error> {
        if matches!(plan, FilePlan::Skip(_)) {
            self.made = self.dest_itself().map(|there| MadeFile::of(&there));
            skip(cx, place);
            return Ok(None);
        }
        if cx.options.dry_run {
            self.rehearse(cx, place, plan);
            return Ok(None);
        }
        if plan == FilePlan::Dress {
            return self.dress_dest(cx, place).map(|()| None);
        }
        if has_data(&cx.options, self.stat.kind) {
            return self.make_file(cx, place, plan);
        }
        let made = match (cx.options.make, self.stat.kind) {
            // Its kind has changed since it was listed.
            (_, Kind::Dir) => Err(Error::new(Operation::Replaced, place.source_path())),
            (Make::HardLinks, _) => self.make_hard_link(cx, place),
            (Make::Symlinks, _) => self.make_link_to_source(cx, place),
            (Make::Copies, Kind::Symlink) => self.make_symlink(cx, place),
            (Make::Copies, _) => self.make_special(cx, place),
        };
        made.map(|()| None)
    }
}
