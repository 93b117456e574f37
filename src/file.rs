//! One entry that is not a directory: decide, clear, make, fill, dress, commit.
//!
//! 1. **Decide** (`decide.rs`): from the options and the facts about both ends to a [`FilePlan`]. Nothing has been touched by
//!    then.
//! 2. **Clear** the name, as planned: what has it is removed, or becomes a backup. (What a regular file is to replace goes when
//!    that takes its name.)
//! 3. **Make** the name, with no more permission than it will have at the end.
//! 4. **Fill** it (`data.rs`; links and special files have nothing to fill).
//! 5. **Dress** it (`dress.rs`).
//! 6. **Commit**: only now is the file kept. Until then it is a [`Staged`](crate::staged::Staged) file, which is
//!    removed if anything before fails; a backup then gets its name back.
//!
//! Names of one inode go through the registry in `links.rs` between 2 and 3.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::backup::Saved;
use crate::context::Context;
use crate::counters::Count;
use crate::decide::{
    Decision, FilePlan, Reason, Seen, Why, decide, has_data, has_other_attributes, looks_through,
    why,
};
use crate::dir::{Dir, Names, Place};
use crate::error::{Error, Failure, Operation, failed};
use crate::facts::{Facts, gather};
use crate::further::{is_another, link, settle};
use crate::ladder::How;
use crate::links::{Claim, Left, MadeFile, Name};
use crate::make_name::{create_special, path_to_source, read_link};
use crate::mounts;
use crate::observer::{Event, Interest, Question, What};
use crate::operands::Made;
use crate::options::{Atomic, Follow, Make};
use crate::prune::remove_instead;
use crate::staged::{sweep_once, try_to_make};
use crate::sys::{self, DestFlags, Errno, FileId, Kind, SourceFlags, Stat};

/// Copies one entry of the kind that its directory (or a look at it) says it has. `follow` says whether the name was
/// followed, if it is a symbolic link, to find that kind.
///
/// Returns the directories that had this entry's further names pending, one for each name that is done now.
pub(crate) fn copy(cx: &Context, place: Place<'_>, kind: Kind, follow: bool) -> Vec<Arc<Dir>> {
    let mut ended = Vec::new();
    let done = place.unless_panic(|| try_copy(cx, place, kind, follow, None, &mut ended));
    if let Err(error) = done {
        cx.error(error);
    }
    ended
}

/// Chooses what to do, and does it. The caller may hold a claim on the file that it is going to write.
fn try_copy(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
    held: Option<FileId>,
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
    let done = place.unless_panic(|| entry.carry_out(cx, place, plan, ended));
    while let Some(left) = cx.writers.next(id) {
        if let Err(error) = copy_waiting(cx, &left, id, ended) {
            cx.error(error);
        }
        ended.push(left.name.dir);
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
        try_copy(cx, place, left.kind, left.follow, Some(held), ended)
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

/// What is asked before a destination is replaced by something of this kind.
fn question(cx: &Context, place: Place<'_>, kind: Kind) -> Question {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let seen = sys::stat_at(dir, name, looks_through(&cx.options, kind));
    let unwritable = match seen {
        Ok(stat) if stat.kind != Kind::Symlink && !sys::may_write(dir, name) => Some(stat.mode),
        _ => None,
    };
    Question {
        dest: place.dest_path(),
        unwritable,
        removes: cx.options.force || cx.options.remove_destination,
    }
}

/// Takes what has the name out of the way, as planned.
fn clear<'a>(
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

/// What it is to make a regular file like this.
pub(crate) fn file_with(cx: &Context, plan: FilePlan) -> What {
    if cx.options.attributes_only && plan == FilePlan::Overwrite {
        What::Dressed
    } else {
        What::File
    }
}

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

/// Opens a source that has data, and looks at it: at the descriptor, so that nothing can come in between.
fn open(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
) -> Result<(OwnedFd, Stat), Error> {
    let no_atime = place
        .dir
        .facts()
        .map_or(cx.process.superuser, |facts| facts.no_atime);
    let flags = SourceFlags {
        follow,
        wait: kind != Kind::File,
        no_atime,
    };
    let (dir, name) = (place.pair.source(), place.names.source);
    let file = sys::open_source(dir, name, flags).map_err(|errno| {
        // In a directory that may not be searched, looking would have failed already.
        let is_hidden = errno == Errno::ACCESS && sys::stat_at(dir, name, follow).is_err();
        let operation = if is_hidden {
            Operation::Stat
        } else {
            Operation::Open
        };
        place.source_error(operation, errno)
    })?;
    let stat = sys::fstat(&file).map_err(|errno| place.source_error(Operation::Stat, errno))?;
    if stat.kind != kind {
        return Err(Error::new(Operation::Replaced, place.source_path()));
    }
    Ok((file, stat))
}

/// A source that has been looked at and may be open.
pub(crate) struct Entry {
    pub stat: Stat,
    /// Regular files only.
    pub file: Option<OwnedFd>,
    pub followed: bool,
    /// What had the destination's name when it was decided what to do. Most often nothing, which takes no room.
    dest: Option<Box<Seen>>,
    /// Why it is copied, if anybody wants to know.
    why: Why,
    /// What has been made, if its other names may be linked to it.
    pub made: Option<MadeFile>,
    /// A file that is to be removed first stays until the copy takes its name.
    pub is_replaced_at_once: bool,
    /// Files cannot change their names there, as has been found out: a new one is made under its own.
    pub stays_under_its_name: bool,
}

impl Entry {
    /// Opens a file whose data is to be copied, and takes its facts from the descriptor.
    fn open(cx: &Context, place: Place<'_>, kind: Kind, follow: bool) -> Result<Self, Error> {
        let (file, stat) = open(cx, place, kind, follow)?;
        Ok(Self {
            stat,
            file: Some(file),
            followed: follow,
            dest: None,
            why: Why::New,
            made: None,
            is_replaced_at_once: false,
            stays_under_its_name: false,
        })
    }

    /// Takes the facts from the name.
    pub(crate) fn look(place: Place<'_>, follow: bool) -> Result<Self, Error> {
        let stat = sys::stat_at(place.pair.source(), place.names.source, follow)
            .map_err(|errno| place.source_error(Operation::Stat, errno))?;
        Ok(Self {
            stat,
            file: None,
            followed: follow,
            dest: None,
            why: Why::New,
            made: None,
            is_replaced_at_once: false,
            stays_under_its_name: false,
        })
    }

    /// What is going to be done, given what has the destination's name now.
    pub(crate) fn decide(&mut self, cx: &Context, place: Place<'_>) -> Result<Decision, Error> {
        let Facts { source, dest } = gather(cx, place, self.stat, self.followed)?;
        let mut decision = decide(&cx.options, &source, &dest);
        if cx.interest() > Interest::Nothing {
            self.why = why(&cx.options, &source, &dest);
        }
        self.dest = dest.ok().flatten().map(|dest| Box::new(dest.seen));
        let is_undressed = |dest: Stat| {
            let superuser = cx.process.superuser;
            has_other_attributes(&cx.options, superuser, &self.stat, &dest)
        };
        if decision.plan == FilePlan::Skip(Reason::UpToDate)
            && self.dest_itself().is_some_and(is_undressed)
        {
            // The attributes of one of several names would be those of the others, too.
            let is_shared = |dest: Stat| {
                let is_file = dest.kind == Kind::File;
                is_file && dest.nlink > 1 && self.stat.nlink == 1 && cx.options.preserve.links
            };
            decision.plan = if self.dest_itself().is_some_and(is_shared) {
                FilePlan::Replace
            } else {
                FilePlan::Dress
            };
        }
        let is_no_tree = self.dest_itself().is_some_and(|it| it.kind != Kind::Dir);
        self.is_replaced_at_once = decision.plan == FilePlan::Replace
            && self.is_copied_file(cx)
            && is_no_tree
            && cx.options.atomic != Atomic::Never
            && !cx.options.dry_run;
        Ok(decision)
    }

    /// The file that the destination's name leads to.
    pub(crate) fn dest_file(&self) -> Option<Stat> {
        self.dest.as_ref().and_then(|seen| seen.end().ok())
    }

    /// What had the destination's name, be it a symbolic link.
    pub(crate) fn dest_itself(&self) -> Option<Stat> {
        self.dest.as_ref().map(|seen| seen.itself)
    }

    /// How a destination that is there is opened: as what it was when that was decided.
    pub(crate) fn dest_flags(&self) -> DestFlags {
        DestFlags {
            follow: self.dest.as_ref().is_some_and(|seen| seen.target.is_some()),
            wait: self.dest_file().is_some_and(|stat| stat.kind != Kind::File),
        }
    }

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
            self.open_first(cx, place)?;
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

    /// Whether a regular file is copied, and not linked.
    fn is_copied_file(&self, cx: &Context) -> bool {
        self.stat.kind == Kind::File && cx.options.make == Make::Copies
    }

    /// A directory that is in the way is more than a file could bring back: it stays if the file cannot be read, or what is no
    /// file cannot be made there.
    fn open_first(&mut self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
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

    /// The source, open: the very file that was looked at, with the facts that it has now.
    pub(crate) fn take_file(&mut self, cx: &Context, place: Place<'_>) -> Result<OwnedFd, Error> {
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        let (file, stat) = open(cx, place, self.stat.kind, self.followed)?;
        if stat.id != self.stat.id {
            return Err(Error::new(Operation::Replaced, place.source_path()));
        }
        self.stat = stat;
        Ok(file)
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

    /// Whether further names of this file are to become links to its copy: it has others, or links to it are followed.
    pub(crate) fn is_tracked(&self, cx: &Context) -> bool {
        let by_links = match cx.options.follow {
            Follow::Never => false,
            Follow::Operands => self.followed,
            Follow::Always => true,
        };
        let options = &cx.options;
        let copies = options.preserve.links && options.make != Make::HardLinks;
        copies && (self.stat.nlink > 1 || by_links)
    }

    /// Whether the destination is a copy of this very file already, that another operand had made. Its name may be the one
    /// that further names would be linked to.
    fn is_linked(&self, cx: &Context) -> bool {
        let Some(dest) = self.dest_itself().filter(|_| self.is_tracked(cx)) else {
            return false;
        };
        let copy = cx.links.copy_of(self.stat.id).and_then(|copied| {
            let first = copied.name;
            let pair = cx.handles.open(&first.dir).ok()?;
            sys::stat_at(pair.dest(), &first.dest, false).ok()
        });
        copy.is_some_and(|copy| copy.id == dest.id)
    }

    /// How many names of the file there are to be met; the most that there can be where nobody knows.
    fn names(&self, cx: &Context, place: Place<'_>) -> u64 {
        // A link that is followed is a name of the file that no count has, and a name may be met twice.
        let is_met_again = || match place.dir.facts() {
            Some(facts) => *facts
                .ladder
                .shows_twice
                .get_or_init(|| mounts::may_show_twice(place.pair.source())),
            None => true,
        };
        if cx.options.follow == Follow::Never && !cx.operands.names_repeat && !is_met_again() {
            self.stat.nlink
        } else {
            u64::MAX
        }
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
            match cx.links.claim(self.stat.id, self.names(cx, place), left) {
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
                link(cx, &first, place, self.stat.id, removes).map(|()| None)
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
        match (cx.options.make, self.stat.kind) {
            (Make::Copies, kind) if has_data(&cx.options, kind) => {
                return self.make_file(cx, place, plan);
            }
            // Its kind has changed since it was listed.
            (_, Kind::Dir) => Err(Error::new(Operation::Replaced, place.source_path())),
            (Make::HardLinks, _) => self.make_hard_link(cx, place),
            (Make::Symlinks, _) => self.make_link_to_source(cx, place),
            (Make::Copies, Kind::Symlink) => self.make_symlink(cx, place),
            (Make::Copies, _) => self.make_special(cx, place),
        }
        .map(|()| None)
    }

    /// Another operand must not replace what this one made, and nothing is written through a link that was made.
    pub(crate) fn remember_name(&mut self, cx: &Context, place: Place<'_>) {
        let look = || sys::stat_at(place.pair.dest(), place.names.dest, false).ok();
        if self.made.is_none() && self.is_tracked(cx) {
            self.made = look().map(|made| MadeFile::of(&made));
        }
        let was_made = || {
            let there = self.dest_file();
            there.is_some_and(|there| cx.operands.has_made_operand(place, there.id))
        };
        let may_meet = cx.operands.may_meet();
        // What cannot be looked at any more is not there to be overwritten.
        // What takes the place of an operand's copy is one still.
        if may_meet
            && (place.dir.facts().is_none() || was_made())
            && let Some(made) = look().and_then(|made| Made::operand(place, made.id))
        {
            cx.operands.remember(made);
        }
        let is_link = self.stat.kind == Kind::Symlink || cx.options.make == Make::Symlinks;
        // Into what this run made, and not in a directory that was there, another way leads only by a link.
        let is_merged = place.dir.facts().is_none_or(|facts| facts.merged);
        let is_met = may_meet || cx.options.keep_directory_symlink || is_merged;
        if is_link
            && is_met
            && let Some(made) = look().filter(|made| made.kind == Kind::Symlink)
        {
            cx.operands.remember(Made::Link(made.id));
        }
    }
}

/// Makes sure that a name still leads to the file that it led to.
pub(crate) fn same(
    opened: sys::Result<OwnedFd>,
    id: Option<FileId>,
    operation: Operation,
) -> Result<OwnedFd, Failure> {
    let file = opened.map_err(failed(operation))?;
    let now = sys::fstat(&file).map_err(failed(operation))?;
    if Some(now.id) == id {
        Ok(file)
    } else {
        Err(failed(operation)(Errno::STALE))
    }
}
