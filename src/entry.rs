//! A source that is no directory, looked at and perhaps open, and what had its destination's name.

use std::os::fd::OwnedFd;

use crate::context::Context;
use crate::decide::{Decision, FilePlan, Reason, Seen, decide};
use crate::difference::{Why, has_other_attributes, why};
use crate::error::{Error, Failure, Operation, failed};
use crate::facts::{Facts, gather};
use crate::links::MadeFile;
use crate::mounts;
use crate::observer::Interest;
use crate::operands::Made;
use crate::options::{Atomic, Follow, Make};
use crate::place::Place;
use crate::sys::{self, DestFlags, Errno, FileId, Kind, SourceFlags, Stat};

/// A source that has been looked at and may be open.
pub(crate) struct Entry {
    pub stat: Stat,
    /// Regular files only.
    pub file: Option<OwnedFd>,
    pub followed: bool,
    /// What had the destination's name when it was decided what to do. Most often nothing, which takes no room.
    pub dest: Option<Box<Seen>>,
    /// Why it is copied, if anybody wants to know.
    pub why: Why,
    /// What has been made, if its other names may be linked to it.
    pub made: Option<MadeFile>,
    /// A file that is to be removed first stays until the copy takes its name.
    pub is_replaced_at_once: bool,
    /// Files cannot change their names there, as has been found out: a new one is made under its own.
    pub stays_under_its_name: bool,
}

impl Entry {
    fn of(stat: Stat, file: Option<OwnedFd>, followed: bool) -> Self {
        Self {
            stat,
            file,
            followed,
            dest: None,
            why: Why::New,
            made: None,
            is_replaced_at_once: false,
            stays_under_its_name: false,
        }
    }

    /// Opens a file whose data is to be copied, and takes its facts from the descriptor.
    pub(crate) fn open(
        cx: &Context,
        place: Place<'_>,
        kind: Kind,
        follow: bool,
    ) -> Result<Self, Error> {
        let (file, stat) = open(cx, place, kind, follow)?;
        Ok(Self::of(stat, Some(file), follow))
    }

    /// Takes the facts from the name.
    pub(crate) fn look(place: Place<'_>, follow: bool) -> Result<Self, Error> {
        let stat = sys::stat_at(place.pair.source(), place.names.source, follow)
            .map_err(|errno| place.source_error(Operation::Stat, errno))?;
        Ok(Self::of(stat, None, follow))
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
                let is_link = cx.options.preserve.links && self.stat.nlink > 1;
                dest.kind == Kind::File && dest.nlink > 1 && !is_link
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

    /// Whether a regular file is copied, and not linked.
    pub(crate) fn is_copied_file(&self, cx: &Context) -> bool {
        self.stat.kind == Kind::File && cx.options.make == Make::Copies
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
    pub(crate) fn is_linked(&self, cx: &Context) -> bool {
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
    pub(crate) fn most_names(&self, cx: &Context, place: Place<'_>) -> u64 {
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

/// Opens a source that has data, and looks at it: at the descriptor, so that nothing can come in between.
fn open(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
) -> Result<(OwnedFd, Stat), Error> {
    let flags = SourceFlags {
        follow,
        wait: kind != Kind::File,
        no_atime: place.dir.no_atime(&cx.process),
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
