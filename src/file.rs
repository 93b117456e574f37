//! One entry that is not a directory: decide, clear, make, fill, dress, commit.
//!
//! 1. **Decide** (`decide.rs`): from the options and the facts about both ends to a [`FilePlan`]. Nothing has been touched by
//!    then.
//! 2. **Clear** the name, as planned: what has it is removed, or becomes a backup.
//! 3. **Make** the name, with no more permission than it will have at the end.
//! 4. **Fill** it (`data.rs`; links and special files have nothing to fill).
//! 5. **Dress** it (`meta.rs`).
//! 6. **Commit**: only now is the file kept. Until then it is a [`Staged`] file, which is removed if anything before fails;
//!    a backup then gets its name back.
//!
//! Names of one inode go through the registry in `links.rs` between 2 and 3.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backup::{Saved, simple_name};
use crate::context::{Context, Event, Interest, Made, Question};
use crate::data::{self, End, Ends, Failure, How, Ladder, Transfer};
use crate::decide::{
    Decision, DestFacts, FilePlan, Reason, Seen, SourceFacts, decide, decide_dir, has_data,
    looks_through,
};
use crate::dir::{Dir, Names, Place};
use crate::error::{Error, Operation};
use crate::handles::{Pair, Tables};
use crate::links::{Claim, Name};
use crate::meta::{Attributes, Has, Subject};
use crate::options::{Backup, Effort, Follow, Make, Overwrite};
use crate::path::split;
use crate::report::Count;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};

/// Copies one entry of the kind that its directory (or a look at it) says it has. `follow` says whether the name was
/// followed, if it is a symbolic link, to find that kind.
///
/// Returns the directories that had this entry's further names pending, one for each name that is done now.
pub(crate) fn copy(cx: &Context, place: Place<'_>, kind: Kind, follow: bool) -> Vec<Arc<Dir>> {
    let mut ended = Vec::new();
    if let Err(error) = try_copy(cx, place, kind, follow, &mut ended) {
        cx.error(error);
    }
    ended
}

fn try_copy(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<(), Error> {
    let (mut entry, plan) = choose(cx, place, kind, follow)?;
    let is_tracked = entry.is_tracked(cx);
    match plan {
        FilePlan::Refuse(operation) => return Err(place.refused(operation)),
        FilePlan::Unreachable(errno) => return Err(unreachable(place, errno)),
        // Further names of the source are still linked to a destination that is up to date.
        FilePlan::Skip(Reason::UpToDate) if is_tracked => {}
        FilePlan::Skip(_) => {
            skip(cx, place);
            return Ok(());
        }
        FilePlan::Create | FilePlan::Overwrite | FilePlan::Replace | FilePlan::Backup => {}
    }
    let saved = clear(cx, place, plan)?;
    let announcement = Announcement {
        place,
        saved: saved.as_ref(),
        is_late: cx.interest() == Interest::Ways && has_data(&cx.options, entry.stat.kind),
    };
    let is_made = !matches!(plan, FilePlan::Skip(_));
    if is_made && !announcement.is_late {
        announcement.make(cx, None);
    }
    let done = if is_tracked {
        entry.make_once(cx, place, plan, ended)
    } else {
        entry.make(cx, place, plan)
    };
    if is_made && announcement.is_late {
        announcement.make(cx, done.as_ref().ok().copied().flatten());
    }
    match (done, saved) {
        (Err(error), Some(saved)) => {
            restore(cx, place, &saved);
            Err(error)
        }
        (done, _) => done.map(drop),
    }
}

/// Looks at the entry, and settles what is going to be done about it.
fn choose(
    cx: &Context,
    place: Place<'_>,
    kind: Kind,
    follow: bool,
) -> Result<(Entry, FilePlan), Error> {
    if place.dir.is_fresh() {
        // The usual case in the fewest calls: nothing can be in the way, so a file is opened first and then looked at.
        let opened_first = has_data(&cx.options, kind) && kind == Kind::File;
        let entry = if opened_first && cx.interest() == Interest::Nothing {
            Entry::open(cx, place, kind, follow)?
        } else {
            Entry::look(place, follow)?
        };
        return Ok((entry, FilePlan::Create));
    }
    let entry = Entry::look(place, follow)?;
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
    saved: Option<&'a Saved<'a>>,
    is_late: bool,
}

impl Announcement<'_> {
    fn make(&self, cx: &Context, how: Option<How>) {
        let place = self.place;
        cx.tell(|| {
            let backup = self.saved.map(|saved| place.dir.dest_path(saved.backup()));
            let (source, dest) = (place.source_path(), place.dest_path());
            match how {
                Some(how) => Event::Copied {
                    source,
                    dest,
                    backup,
                    how,
                },
                None => Event::Copying {
                    source,
                    dest,
                    backup,
                },
            }
        });
    }
}

fn skip(cx: &Context, place: Place<'_>) {
    cx.counters.add(Count::Skipped, 1);
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
fn clear<'a>(cx: &Context, place: Place<'a>, plan: FilePlan) -> Result<Option<Saved<'a>>, Error> {
    match plan {
        FilePlan::Replace => remove_dest(cx, place).map(|()| None),
        FilePlan::Backup => {
            let (dir, name) = (place.pair.dest(), place.names.dest);
            Saved::save(dir, name, cx.options.backup, &cx.options.suffix)
                .map_err(|errno| Error::new(Operation::Backup, place.dest_path()).with_errno(errno))
        }
        _ => Ok(None),
    }
}

/// The copy has failed: what was there gets its name back.
fn restore(cx: &Context, place: Place<'_>, saved: &Saved<'_>) {
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

/// Ends a claim: links the names that were left meanwhile or, if the copy failed, goes on with one of them as the first.
fn settle(
    cx: &Context,
    entry: &Entry,
    place: Place<'_>,
    made: Result<Option<How>, Error>,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<Option<How>, Error> {
    let id = entry.stat.id;
    let mut first = Name {
        dir: Arc::clone(place.dir),
        source: place.names.source.to_owned(),
        dest: place.names.dest.to_owned(),
    };
    let mut copied = made.is_ok();
    while !copied {
        let Some(next) = cx.links.fail(id) else {
            return made;
        };
        copied = match copy_left(cx, &next, entry.followed) {
            Ok(()) => true,
            Err(error) => {
                cx.error(error);
                false
            }
        };
        ended.push(Arc::clone(&next.dir));
        first = next;
    }
    for name in cx.links.finish(id, first.clone()) {
        let linked = cx
            .handles
            .open(&name.dir)
            .and_then(|pair| link(cx, &first, name.place(&pair), id));
        if let Err(error) = linked {
            cx.error(error);
        }
        ended.push(name.dir);
    }
    made
}

/// Copies a name that was left with this worker, after the first one failed.
fn copy_left(cx: &Context, name: &Name, follow: bool) -> Result<(), Error> {
    let pair = cx.handles.open(&name.dir)?;
    let place = name.place(&pair);
    let mut entry = Entry::look(place, follow)?;
    // Whoever left it has asked, and cleared the name.
    match entry.decide(cx, place)?.plan {
        FilePlan::Refuse(operation) => Err(place.refused(operation)),
        plan => entry.make(cx, place, plan).map(drop),
    }
}

impl Name {
    fn place<'a>(&'a self, pair: &'a Pair) -> Place<'a> {
        Place {
            dir: &self.dir,
            pair,
            names: Names {
                source: &self.source,
                dest: &self.dest,
            },
        }
    }
}

/// Gives the copy of `id` that is at `first` the name at `place`.
fn link(cx: &Context, first: &Name, place: Place<'_>, id: FileId) -> Result<(), Error> {
    let from = cx.handles.open(&first.dir)?;
    let error = |errno| {
        Error::new(Operation::CreateLink, place.dest_path())
            .with_other(first.dir.dest_path(&first.dest))
            .with_errno(errno)
    };
    let (dir, name) = (place.pair.dest(), place.names.dest);
    match sys::make_link(from.dest(), &first.dest, dir, name, false) {
        Err(Errno::EXIST) => {
            let there = sys::stat_at(dir, name, false).map_err(error)?;
            if there.id == id {
                return Err(place.refused(Operation::SameFile));
            }
            let make =
                |temporary: &OsStr| sys::make_link(from.dest(), &first.dest, dir, temporary, false);
            replace(place, make).map_err(error)?;
            cx.tell(|| Event::Removed {
                dest: place.dest_path(),
            });
        }
        made => made.map_err(error)?,
    }
    cx.counters.add(Count::HardLinks, 1);
    Ok(())
}

/// Puts something that `make` makes in the place of what has the name, with no moment in which the name is free.
fn replace(place: Place<'_>, make: impl Fn(&OsStr) -> sys::Result<()>) -> sys::Result<()> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let temporary = make_temporary(name, make)?;
    let renamed = sys::rename(dir, &temporary, name, true);
    // Two names of one file are left as they are by rename(2), and so is anything after an error.
    match sys::unlink(dir, &temporary) {
        Ok(()) | Err(Errno::NOENT) => renamed,
        Err(errno) => Err(errno),
    }
}

/// Makes something under a name that is free, next to `name`, and returns that name.
fn make_temporary(name: &OsStr, make: impl Fn(&OsStr) -> sys::Result<()>) -> sys::Result<OsString> {
    let (parent, _) = split(name);
    // The process's number keeps two runs apart; the count keeps workers apart, and what is left of a run that was killed.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = format!(".poolcp-{}-{count}", std::process::id());
        let temporary = Path::new(parent).join(base).into_os_string();
        match make(&temporary) {
            Ok(()) => return Ok(temporary),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn remove_dest(cx: &Context, place: Place<'_>) -> Result<(), Error> {
    match sys::unlink(place.pair.dest(), place.names.dest) {
        Ok(()) => {
            cx.tell(|| Event::Removed {
                dest: place.dest_path(),
            });
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(place.dest_error(Operation::Remove, errno)),
    }
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

/// The facts about the destination's name, if it is taken.
fn look_at_dest(
    cx: &Context,
    place: Place<'_>,
    source: &SourceFacts,
) -> sys::Result<Option<DestFacts>> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let seen = match see(dir, name) {
        Err(Errno::NOENT) => return Ok(None),
        seen => seen?,
    };
    let id = seen.itself.id;
    let (_, base) = split(name);
    let simple = matches!(cx.options.backup, Backup::Simple | Backup::Existing);
    Ok(Some(DestFacts {
        seen,
        made_here: place.dir.facts().is_none() && cx.has_made(|| as_operand(place, id)),
        new_link: seen.itself.kind == Kind::Symlink && cx.has_made(|| Some(Made::Link(id))),
        is_source_name: is_same_name(place),
        backup_is_source: simple && backup_is_source(cx, place, source.stat.id),
        is_dot: base == "." || base == "..",
    }))
}

/// How an operand's copy is remembered.
fn as_operand(place: Place<'_>, id: FileId) -> Option<Made> {
    place.dest_entry().map(|entry| Made::Operand(id, entry))
}

/// Whether a directory is to be merged with what has its destination's name.
pub(crate) fn merges(
    cx: &Context,
    place: Place<'_>,
    stat: &Stat,
    follow: bool,
) -> Result<bool, Error> {
    let entry = Entry {
        stat: *stat,
        file: None,
        followed: follow,
    };
    let (source, dest) = entry.facts(cx, place)?;
    match decide_dir(&cx.options, &source, &dest) {
        FilePlan::Refuse(operation) => Err(place.refused(operation)),
        FilePlan::Unreachable(errno) => Err(unreachable(place, errno)),
        FilePlan::Skip(_) => Ok(false),
        _ => Ok(true),
    }
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

/// A source that has been looked at and may be open.
struct Entry {
    stat: Stat,
    /// Regular files only.
    file: Option<OwnedFd>,
    followed: bool,
}

impl Entry {
    /// Opens a file whose data is to be copied, and takes its facts from the descriptor.
    fn open(cx: &Context, place: Place<'_>, kind: Kind, follow: bool) -> Result<Self, Error> {
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
        Ok(Self {
            stat,
            file: Some(file),
            followed: follow,
        })
    }

    /// Takes the facts from the name.
    fn look(place: Place<'_>, follow: bool) -> Result<Self, Error> {
        let stat = sys::stat_at(place.pair.source(), place.names.source, follow)
            .map_err(|errno| place.source_error(Operation::Stat, errno))?;
        Ok(Self {
            stat,
            file: None,
            followed: follow,
        })
    }

    /// What is going to be done, given what has the destination's name now.
    fn decide(&self, cx: &Context, place: Place<'_>) -> Result<Decision, Error> {
        let (source, dest) = self.facts(cx, place)?;
        Ok(decide(&cx.options, &source, &dest))
    }

    /// The facts about both ends.
    fn facts(
        &self,
        cx: &Context,
        place: Place<'_>,
    ) -> Result<(SourceFacts, sys::Result<Option<DestFacts>>), Error> {
        let mut source = SourceFacts {
            seen: Seen {
                itself: self.stat,
                target: None,
            },
            stat: self.stat,
            follow: match cx.options.follow {
                Follow::Operands if place.dir.facts().is_some() => Follow::Never,
                follow => follow,
            },
        };
        let dest = look_at_dest(cx, place, &source);
        // Both are needed only where something may be lost.
        if matches!(dest, Ok(Some(_))) && (self.followed || self.stat.kind == Kind::Symlink) {
            source.seen = see(place.pair.source(), place.names.source)
                .map_err(|errno| place.source_error(Operation::Stat, errno))?;
        }
        Ok((source, dest))
    }

    /// Whether further names of this file are to become links to its copy: it has others, or links to it are followed.
    fn is_tracked(&self, cx: &Context) -> bool {
        let by_links = match cx.options.follow {
            Follow::Never => false,
            Follow::Operands => self.followed,
            Follow::Always => true,
        };
        let options = &cx.options;
        let copies = options.preserve.links && options.make != Make::HardLinks;
        copies && (self.stat.nlink > 1 || by_links)
    }

    /// Makes the copy, or links it to the one that another name of the same file has.
    fn make_once(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
        ended: &mut Vec<Arc<Dir>>,
    ) -> Result<Option<How>, Error> {
        // A link that is followed is a name of the file that no count has, and a name may be met twice.
        let names = if cx.options.follow == Follow::Never && !cx.names_repeat {
            self.stat.nlink
        } else {
            u64::MAX
        };
        let claim = cx.links.claim(self.stat.id, names, || {
            let Names { source, dest } = place.names;
            Name {
                dir: Arc::clone(place.dir),
                source: source.to_owned(),
                dest: dest.to_owned(),
            }
        });
        match claim {
            Claim::Copy => {
                let made = self.make(cx, place, plan);
                settle(cx, self, place, made, ended)
            }
            Claim::LinkTo(first) => link(cx, &first, place, self.stat.id).map(|()| None),
            Claim::Left => Ok(None),
        }
    }

    /// Makes the copy, as planned, and says how its data came.
    fn make(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
    ) -> Result<Option<How>, Error> {
        if matches!(plan, FilePlan::Skip(_)) {
            skip(cx, place);
            return Ok(None);
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

    // ---- Regular files ----

    fn make_file(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
    ) -> Result<Option<How>, Error> {
        let source = match self.file.take() {
            Some(file) => file,
            None => {
                let opened = Self::open(cx, place, self.stat.kind, self.followed)?;
                if opened.stat.id != self.stat.id {
                    return Err(Error::new(Operation::Replaced, place.source_path()));
                }
                self.stat = opened.stat;
                opened.file.ok_or_else(|| {
                    // Not reachable: a successful open has a file.
                    place.source_error(Operation::Open, Errno::BADF)
                })?
            }
        };
        let (dest, has) = self.open_dest(cx, place, plan)?;
        // Borrowed where it can be: all workers would count references to one ladder otherwise, at every file.
        let own;
        let ladder = match place.dir.facts() {
            Some(facts) => &*facts.ladder,
            None => {
                own = self.ladder(cx, dest.file.as_fd());
                &*own
            }
        };
        self.remember_name(cx, place);
        let (end, how) = if cx.options.attributes_only {
            (End::AsExpected, None)
        } else {
            let reopen = self.reopener(cx, place, &dest)?;
            let transfer = Transfer {
                source: source.as_fd(),
                dest: dest.file.as_fd(),
                stat: &self.stat,
                in_sequence: dest.is_stream,
                reflink: cx.options.reflink,
                sparse: cx.options.sparse,
                ladder,
                counters: &cx.counters,
                max_nested: cx.max_nested,
                reopen: &reopen,
            };
            let (end, how) = transfer.run().map_err(|failure| explain(place, failure))?;
            (end, Some(how))
        };
        self.dress(
            cx,
            place,
            Subject::Open(source.as_fd()),
            Subject::Open(dest.file.as_fd()),
            has,
        );
        dest.commit()
            .map_err(|errno| place.dest_error(Operation::Close, errno))?;
        cx.counters.add(Count::Files, 1);
        if !cx.options.attributes_only {
            cx.counters.add(Count::Bytes, self.stat.size);
        }
        if end == End::Early {
            return Err(Error::new(Operation::Changed, place.source_path()));
        }
        Ok(how)
    }

    /// How another worker comes to descriptors of its own for a part of this file. `None` is the answer where the opener's
    /// can be used: on its own thread, or where all share one table.
    fn reopener<'a>(
        &'a self,
        cx: &'a Context,
        place: Place<'a>,
        dest: &Staged<'_>,
    ) -> Result<impl Fn() -> Result<Option<Ends>, Failure> + Sync + 'a, Error> {
        let opener = rayon::current_thread_index();
        let shared = cx.handles.tables() == Tables::Shared;
        // Only a file that is cut into chunks needs it.
        let dest_id = if shared || !data::is_large(&self.stat) {
            None
        } else {
            let stat = sys::fstat(&dest.file);
            Some(stat.map_err(|errno| create_error(place, errno))?.id)
        };
        Ok(move || {
            if shared || rayon::current_thread_index() == opener {
                return Ok(None);
            }
            let pair = cx.handles.open(place.dir).map_err(|error| Failure {
                operation: error.operation(),
                errno: Errno::STALE,
            })?;
            let flags = SourceFlags {
                follow: self.followed,
                wait: false,
                no_atime: place.dir.facts().is_some_and(|facts| facts.no_atime),
            };
            let source = sys::open_source(pair.source(), place.names.source, flags);
            let source = same(source, Some(self.stat.id), Operation::Open)?;
            let dest = sys::open_dest(pair.dest(), place.names.dest);
            let dest = same(dest, dest_id, Operation::CreateFile)?;
            Ok(Some(Ends { source, dest }))
        })
    }

    /// The rungs for an operand.
    fn ladder(&self, cx: &Context, dest: BorrowedFd<'_>) -> Arc<Ladder> {
        match sys::fstat(dest) {
            Ok(dest) => cx.ladder(self.stat.id.dev, dest.id.dev),
            // Unknown: try every rung.
            Err(_) => Arc::default(),
        }
    }

    /// Makes or opens the destination, and says what it has already.
    fn open_dest<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
        plan: FilePlan,
    ) -> Result<(Staged<'a>, Has), Error> {
        if plan == FilePlan::Overwrite
            && let Some(dest) = self.open_existing(cx, place)?
        {
            let mode = Has {
                acl: true,
                ..Has::default()
            };
            return Ok((dest, mode));
        }
        let (mode, has) = self.new_mode(cx, place.dir);
        let (dir, name) = (place.pair.dest(), place.names.dest);
        match Staged::create(dir, name, mode) {
            Ok(dest) => Ok((dest, has)),
            Err(Errno::EXIST) => self.open_taken(cx, place, mode).map(|dest| (dest, has)),
            Err(errno) => Err(create_error(place, errno)),
        }
    }

    /// The name of a new file is taken after all.
    fn open_taken<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
        mode: u32,
    ) -> Result<Staged<'a>, Error> {
        let (dir, name) = (place.pair.dest(), place.names.dest);
        // In a directory that this run made that can only be what this run made, too: case does not count there.
        if place.dir.is_fresh() {
            return Err(place.refused(Operation::JustCreated));
        }
        let is_link = sys::stat_at(dir, name, false).is_ok_and(|stat| stat.kind == Kind::Symlink);
        if !is_link {
            return Err(place.dest_error(Operation::CreateFile, Errno::EXIST));
        }
        if !cx.options.write_through_dangling {
            return Err(place.refused(Operation::DanglingSymlink));
        }
        let file = sys::create_through_link(dir, name, mode);
        let file = file.map_err(|errno| create_error(place, errno))?;
        Ok(Staged::existing(file, false))
    }

    /// Opens and empties a file that is there; `None` if it is gone or had to be removed (`-f`).
    fn open_existing<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
    ) -> Result<Option<Staged<'a>>, Error> {
        let file = match sys::open_dest(place.pair.dest(), place.names.dest) {
            Ok(file) => file,
            // Gone since the decision.
            Err(Errno::NOENT) => return Ok(None),
            Err(_) if cx.options.force => {
                remove_dest(cx, place)?;
                return Ok(None);
            }
            Err(errno) => return Err(create_error(place, errno)),
        };
        let stat = sys::fstat(&file).map_err(|errno| create_error(place, errno))?;
        // Emptying the source would lose it; the name may have changed since the decision.
        if stat.id == self.stat.id {
            return Err(place.refused(Operation::SameFile));
        }
        if stat.kind == Kind::File && !cx.options.attributes_only {
            let emptied = if stat.size > 0 {
                sys::set_size(&file, 0)
            } else {
                // It is written now even if there is nothing to write.
                sys::touch(&file)
            };
            emptied.map_err(|errno| create_error(place, errno))?;
        }
        let is_stream = !matches!(stat.kind, Kind::File | Kind::BlockDevice);
        Ok(Some(Staged::existing(file, is_stream)))
    }

    /// The mode that a new file is made with, and what it has then.
    fn new_mode(&self, cx: &Context, dir: &Dir) -> (u32, Has) {
        let preserve = &cx.options.preserve;
        let wanted = if preserve.default_mode {
            0o666
        } else {
            self.stat.mode & 0o777
        };
        let facts = dir.facts();
        let mut has = Has {
            acl: facts.is_none_or(|facts| facts.default_acl),
            ..Has::default()
        };
        if facts.is_some_and(|facts| facts.plain_owner) {
            has.owner = Some((cx.process.uid, cx.process.gid));
        }
        let right_owner = has.owner == Some((self.stat.uid, self.stat.gid));
        // A large file is opened again by the workers that take a part of it, and who sets attributes must be allowed to
        // write: neither asks the superuser.
        let written_later = data::is_large(&self.stat) || preserve.xattrs != Effort::No;
        let read_only = wanted & 0o200 == 0 && written_later && !cx.process.superuser;
        if read_only || (preserve.ownership && !right_owner) {
            // Its group and others must not read it before it is theirs.
            has.private_until = Some(wanted & !cx.process.umask.unwrap_or(0o077));
            let private = wanted & 0o700;
            return (if read_only { private | 0o600 } else { private }, has);
        }
        if !has.acl {
            has.mode = cx.process.umask.map(|umask| wanted & !umask);
        } else if preserve.default_mode {
            has.private_until = Some(wanted & !cx.process.umask.unwrap_or(0o022));
        }
        (wanted, has)
    }

    // ---- Others ----

    fn make_symlink(&self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let text = sys::read_link(place.pair.source(), place.names.source)
            .map_err(|errno| place.source_error(Operation::ReadLink, errno))?;
        let (dir, name) = (place.pair.dest(), place.names.dest);
        // As with cp, a link that is there already and older only has to say the same.
        let is_there = || {
            cx.options.overwrite == Overwrite::IfOlder
                && sys::read_link(dir, name).is_ok_and(|there| there == text)
        };
        let make = |name: &OsStr| sys::make_symlink(&text, dir, name);
        match make(name) {
            Err(Errno::EXIST) if cx.options.force => replace(place, make),
            Err(Errno::EXIST) if is_there() => Ok(()),
            made => made,
        }
        .map_err(|errno| {
            Error::new(Operation::CreateSymlink, place.dest_path()).with_errno(errno)
        })?;
        self.dress_name(cx, place, Has::default());
        self.remember_name(cx, place);
        cx.counters.add(Count::Symlinks, 1);
        Ok(())
    }

    /// Makes a symbolic link to the source itself (`-s`).
    fn make_link_to_source(&self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let source = place.source_path();
        let dest = place.dest_path();
        if source.is_relative() && !is_in_working_dir(&dest) {
            return Err(Error::new(Operation::RelativeSymlink, dest));
        }
        let error = |errno| place.dest_error(Operation::CreateSymlinkTo, errno);
        let text = CString::new(source.into_os_string().into_vec())
            // Not reachable: a path that was looked at has no NUL.
            .map_err(|_| error(Errno::INVAL))?;
        let make = |name: &OsStr| sys::make_symlink(&text, place.pair.dest(), name);
        match make(place.names.dest) {
            Err(Errno::EXIST) if cx.options.force => replace(place, make),
            made => made,
        }
        .map_err(error)?;
        let preserve = &cx.options.preserve;
        if preserve.timestamps
            && let Err(errno) =
                sys::set_times_at(place.pair.dest(), place.names.dest, self.stat.times)
        {
            cx.error(place.dest_error(Operation::Times, errno));
        }
        self.remember_name(cx, place);
        cx.counters.add(Count::Symlinks, 1);
        Ok(())
    }

    /// Makes another name of the source (`-l`).
    fn make_hard_link(&self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let Names { source, dest } = place.names;
        let make = |name: &OsStr| {
            let (from, to) = (place.pair.source(), place.pair.dest());
            sys::make_link(from, source, to, name, self.followed)
        };
        match make(dest) {
            Err(Errno::EXIST) if cx.options.force || cx.options.ask => replace(place, make),
            made => made,
        }
        .map_err(|errno| place.dest_error(Operation::CreateLink, errno))?;
        self.remember_name(cx, place);
        cx.counters.add(Count::HardLinks, 1);
        Ok(())
    }

    fn make_special(&self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let operation = if self.stat.kind == Kind::Fifo {
            Operation::CreateFifo
        } else {
            Operation::CreateSpecial
        };
        let (mode, has) = self.new_mode(cx, place.dir);
        let (dir, name) = (place.pair.dest(), place.names.dest);
        sys::make_special(dir, name, self.stat.kind, mode, self.stat.rdev)
            .map_err(|errno| place.dest_error(operation, errno))?;
        self.dress_name(cx, place, has);
        self.remember_name(cx, place);
        cx.counters.add(Count::Specials, 1);
        Ok(())
    }

    /// Another operand must not replace what this one made, nor write through it.
    fn remember_name(&self, cx: &Context, place: Place<'_>) {
        let look = || sys::stat_at(place.pair.dest(), place.names.dest, false).ok();
        if place.dir.facts().is_none() {
            cx.remember(|| as_operand(place, look()?.id));
        }
        cx.remember(|| {
            let made = look().filter(|made| made.kind == Kind::Symlink)?;
            Some(Made::Link(made.id))
        });
    }

    fn dress_name(&self, cx: &Context, place: Place<'_>, has: Has) {
        let source = Subject::Named(place.pair.source(), place.names.source);
        let dest = Subject::Named(place.pair.dest(), place.names.dest);
        self.dress(cx, place, source, dest, has);
    }

    fn dress(
        &self,
        cx: &Context,
        place: Place<'_>,
        source: Subject<'_>,
        dest: Subject<'_>,
        has: Has,
    ) {
        let preserve = &cx.options.preserve;
        if !preserve.any() && has.private_until.is_none() {
            return;
        }
        let mut failed = |failure| cx.error(explain(place, failure));
        Attributes::read(source, &self.stat, preserve, &mut failed).give(
            dest,
            preserve,
            &cx.process,
            has,
            &mut failed,
        );
    }
}

/// Whether a path names something in the working directory, or nothing that could be made.
fn is_in_working_dir(path: &Path) -> bool {
    let (parent, _) = split(path.as_os_str());
    let there = |name: &OsStr| sys::stat_at(sys::cwd(), name, true).map(|stat| stat.id);
    parent == "." || there(parent).is_err() || there(parent) == there(OsStr::new("."))
}

/// Makes sure that a name still leads to the file that it led to.
fn same(
    opened: sys::Result<OwnedFd>,
    id: Option<FileId>,
    operation: Operation,
) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure { operation, errno };
    let file = opened.map_err(failed)?;
    let now = sys::fstat(&file).map_err(failed)?;
    if Some(now.id) == id {
        Ok(file)
    } else {
        Err(failed(Errno::STALE))
    }
}

/// What has the destination's name cannot be known.
fn unreachable(place: Place<'_>, errno: Errno) -> Error {
    Error::new(Operation::Stat, place.dest_path()).with_errno(errno)
}

/// Puts the paths into a failure.
fn explain(place: Place<'_>, failure: Failure) -> Error {
    let Failure { operation, errno } = failure;
    match operation {
        Operation::Read => place.source_error(operation, errno),
        _ => place.dest_error(operation, errno),
    }
}

/// A regular file could not be made. `open("new/", O_CREAT)` says "is a directory" of something that is not there.
fn create_error(place: Place<'_>, errno: Errno) -> Error {
    let slash = place.names.dest.as_bytes().ends_with(b"/");
    let errno = if errno == Errno::ISDIR && slash {
        Errno::NOTDIR
    } else {
        errno
    };
    place.dest_error(Operation::CreateFile, errno)
}

/// A file that is being written. Dropped before it is committed, a new one is removed; nothing else happens in a drop.
struct Staged<'a> {
    file: OwnedFd,
    /// A FIFO, a terminal or the like, which is written in one direction only.
    is_stream: bool,
    /// Removes the name of a new file; `None` if the file was there before.
    guard: Option<RemoveOnDrop<'a>>,
}

impl<'a> Staged<'a> {
    fn create(dir: BorrowedFd<'a>, name: &'a OsStr, mode: u32) -> sys::Result<Self> {
        let file = sys::create_file(dir, name, mode)?;
        Ok(Self {
            file,
            is_stream: false,
            guard: Some(RemoveOnDrop { dir, name }),
        })
    }

    fn existing(file: OwnedFd, is_stream: bool) -> Self {
        Self {
            file,
            is_stream,
            guard: None,
        }
    }

    /// Closes the file, hears what its filesystem has to say at the end, and keeps it if that is nothing.
    fn commit(self) -> sys::Result<()> {
        sys::close(self.file)?;
        if let Some(guard) = self.guard {
            std::mem::forget(guard);
        }
        Ok(())
    }
}

/// The name of a new file that is not complete.
struct RemoveOnDrop<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // The error that led here is reported already; that a part of the file stays behind adds nothing to it.
        let _ = sys::unlink(self.dir, self.name);
    }
}
