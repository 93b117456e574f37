//! One entry that is not a directory: decide, make, fill, dress, commit.
//!
//! 1. **Decide**: [`decide`], a pure function from the options and the facts about both ends to a [`FilePlan`]. Nothing has
//!    been touched by then.
//! 2. **Make** the name, with no more permission than it will have at the end.
//! 3. **Fill** it (`data.rs`; symbolic links and special files have nothing to fill).
//! 4. **Dress** it (`meta.rs`).
//! 5. **Commit**: only now is the file kept. Until then it is a [`Staged`] file, which is removed if anything before fails.
//!
//! Names of one inode go through the registry in `links.rs` between 1 and 2.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::context::Context;
use crate::data::{self, End, Ends, Failure, Ladder, Transfer};
use crate::dir::{Dir, Names, Place};
use crate::error::{Error, Operation};
use crate::handles::{Pair, Tables};
use crate::links::{Claim, Name};
use crate::meta::{Attributes, Has, Subject};
use crate::options::{Options, Overwrite, Xattrs};
use crate::report::Count;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};

/// The facts about a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceFacts {
    pub stat: Stat,
    /// What a symbolic link that is copied as a link leads to, where that is known and something.
    pub target: Option<FileId>,
}

/// The facts about a destination name that is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DestFacts {
    /// What the name itself is.
    pub itself: Stat,
    /// What it leads to, if it is a symbolic link: `None` if that is nothing.
    pub target: Option<Stat>,
    /// This very run made it.
    pub made_here: bool,
}

/// What is going to be done about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilePlan {
    /// The name is free: make it.
    Create,
    /// Write the new data into the file that is there.
    Overwrite,
    /// Remove what is there, then make it.
    Replace,
    /// Leave it alone.
    Skip,
    /// Leave it alone and say so.
    Refuse(Operation),
}

/// Whether an entry's data is copied, and not just what it is.
fn has_data(options: &Options, kind: Kind) -> bool {
    match kind {
        Kind::File => true,
        Kind::Dir | Kind::Symlink => false,
        _ => options.copy_contents,
    }
}

/// The decision for an entry that is not a directory. `dest` is `None` if the name is free.
pub(crate) fn decide(
    options: &Options,
    source: &SourceFacts,
    dest: Option<&DestFacts>,
) -> FilePlan {
    let Some(dest) = dest else {
        return FilePlan::Create;
    };
    let is_link = dest.itself.kind == Kind::Symlink;
    // cp looks through a destination link only to write data.
    let data = has_data(options, source.stat.kind);
    if data && is_link && dest.target.is_none() {
        return FilePlan::Refuse(Operation::DanglingSymlink);
    }
    if options.overwrite == Overwrite::Never {
        return FilePlan::Skip;
    }
    let seen = if data { dest.target } else { None }.unwrap_or(dest.itself);
    if seen.kind == Kind::Dir {
        return FilePlan::Refuse(Operation::OtherOverDir);
    }
    // A link must not replace the file that it leads to, either: that would be the end of the data.
    if seen.id == source.stat.id || (!is_link && source.target == Some(seen.id)) {
        return FilePlan::Refuse(Operation::SameFile);
    }
    if dest.made_here {
        return FilePlan::Refuse(if data && is_link {
            Operation::JustCreatedLink
        } else {
            Operation::JustCreated
        });
    }
    if !data || (options.preserve.links && seen.nlink > 1) {
        return FilePlan::Replace;
    }
    FilePlan::Overwrite
}

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
    let (mut entry, plan) = if place.dir.is_fresh() {
        // The usual case in the fewest calls: nothing can be in the way, so a file is opened first and then looked at.
        let entry = if kind == Kind::File {
            Entry::open(cx, place, kind, follow)?
        } else {
            Entry::look(place, follow)?
        };
        (entry, FilePlan::Create)
    } else {
        let mut entry = Entry::look(place, follow)?;
        let plan = entry.plan(cx, place)?;
        (entry, plan)
    };
    match plan {
        FilePlan::Skip => {
            cx.counters.add(Count::Skipped, 1);
            return Ok(());
        }
        FilePlan::Refuse(operation) => return Err(place.refused(operation)),
        FilePlan::Create | FilePlan::Overwrite | FilePlan::Replace => {}
    }
    if entry.stat.nlink < 2 || !cx.options.preserve.links {
        return entry.make(cx, place, plan);
    }
    let claim = cx.links.claim(entry.stat.id, entry.stat.nlink, || {
        let Names { source, dest } = place.names;
        Name {
            dir: Arc::clone(place.dir),
            source: source.to_owned(),
            dest: dest.to_owned(),
        }
    });
    match claim {
        Claim::Copy => {
            let made = entry.make(cx, place, plan);
            settle(cx, &entry, place, made, ended)
        }
        Claim::LinkTo(first) => link(cx, &first, place, entry.stat.id),
        Claim::Left => Ok(()),
    }
}

/// Ends a claim: links the names that were left meanwhile or, if the copy failed, goes on with one of them as the first.
fn settle(
    cx: &Context,
    entry: &Entry,
    place: Place<'_>,
    made: Result<(), Error>,
    ended: &mut Vec<Arc<Dir>>,
) -> Result<(), Error> {
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
    match entry.plan(cx, place)? {
        FilePlan::Refuse(operation) => Err(place.refused(operation)),
        plan => entry.make(cx, place, plan),
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
    cx.copying(|| (place.source_path(), place.dest_path()));
    let make = || {
        sys::make_link(
            from.dest(),
            &first.dest,
            place.pair.dest(),
            place.names.dest,
        )
    };
    let mut made = make();
    if made == Err(Errno::EXIST) {
        let copy = sys::stat_at(from.dest(), &first.dest, false).map_err(error)?;
        let there = sys::stat_at(place.pair.dest(), place.names.dest, false).map_err(error)?;
        if there.id == copy.id {
            made = Ok(());
        } else if there.id == id {
            return Err(place.refused(Operation::SameFile));
        } else {
            remove_dest(cx, place)?;
            made = make();
        }
    }
    made.map_err(error)?;
    cx.counters.add(Count::HardLinks, 1);
    Ok(())
}

fn remove_dest(cx: &Context, place: Place<'_>) -> Result<(), Error> {
    match sys::unlink(place.pair.dest(), place.names.dest) {
        Ok(()) => {
            cx.removed(|| place.dest_path());
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(place.dest_error(Operation::Remove, errno)),
    }
}

/// What has the destination's name, if anything.
fn look_at_dest(cx: &Context, place: Place<'_>) -> Result<Option<DestFacts>, Error> {
    let (dir, name) = (place.pair.dest(), place.names.dest);
    let itself = match sys::stat_at(dir, name, false) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => {
            return Err(Error::new(Operation::Stat, place.dest_path()).with_errno(errno));
        }
    };
    let target = if itself.kind == Kind::Symlink {
        sys::stat_at(dir, name, true).ok()
    } else {
        None
    };
    Ok(Some(DestFacts {
        itself,
        target,
        made_here: cx.made(itself.id),
    }))
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
        let file = sys::open_source(place.pair.source(), place.names.source, flags)
            .map_err(|errno| place.source_error(Operation::Open, errno))?;
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
    fn plan(&mut self, cx: &Context, place: Place<'_>) -> Result<FilePlan, Error> {
        let dest = look_at_dest(cx, place)?;
        let target = if self.stat.kind == Kind::Symlink && dest.is_some() {
            sys::stat_at(place.pair.source(), place.names.source, true).ok()
        } else {
            None
        };
        let source = SourceFacts {
            stat: self.stat,
            target: target.map(|target| target.id),
        };
        Ok(decide(&cx.options, &source, dest.as_ref()))
    }

    /// Makes the copy, as planned.
    fn make(&mut self, cx: &Context, place: Place<'_>, plan: FilePlan) -> Result<(), Error> {
        match self.stat.kind {
            Kind::Symlink => self.make_symlink(cx, place, plan),
            // Its kind has changed since it was listed.
            Kind::Dir => Err(Error::new(Operation::Replaced, place.source_path())),
            kind if has_data(&cx.options, kind) => self.make_file(cx, place, plan),
            _ => self.make_special(cx, place, plan),
        }
    }

    // ---- Regular files ----

    fn make_file(&mut self, cx: &Context, place: Place<'_>, plan: FilePlan) -> Result<(), Error> {
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
        cx.copying(|| (place.source_path(), place.dest_path()));
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
        let reopen = self.reopener(cx, place, &dest)?;
        let transfer = Transfer {
            source: source.as_fd(),
            dest: dest.file.as_fd(),
            stat: &self.stat,
            reflink: cx.options.reflink,
            sparse: cx.options.sparse,
            ladder,
            counters: &cx.counters,
            max_nested: cx.max_nested,
            reopen: &reopen,
        };
        if place.dir.facts().is_none() {
            cx.remember(|| sys::fstat(&dest.file));
        }
        let end = transfer.run().map_err(|failure| explain(place, failure))?;
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
        cx.counters.add(Count::Bytes, self.stat.size);
        if end == End::Early {
            return Err(Error::new(Operation::Changed, place.source_path()));
        }
        Ok(())
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
        if plan == FilePlan::Replace {
            remove_dest(cx, place)?;
        }
        let (mode, has) = self.new_mode(cx, place.dir);
        let (dir, name) = (place.pair.dest(), place.names.dest);
        match Staged::create(dir, name, mode) {
            Ok(dest) => Ok((dest, has)),
            Err(Errno::EXIST) => {
                // Something has got the name since the decision. In a directory that this run made that can only be what
                // this run made, too: case does not count there.
                Err(if place.dir.is_fresh() {
                    place.refused(Operation::JustCreated)
                } else {
                    place.dest_error(Operation::CreateFile, Errno::EXIST)
                })
            }
            Err(errno) => Err(create_error(place, errno)),
        }
    }

    /// Opens and empties a file that is there; `None` if it had to be removed (`-f`).
    fn open_existing<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
    ) -> Result<Option<Staged<'a>>, Error> {
        let file = match sys::open_dest(place.pair.dest(), place.names.dest) {
            Ok(file) => file,
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
        if stat.kind == Kind::File {
            let emptied = if stat.size > 0 {
                sys::set_size(&file, 0)
            } else {
                // It is written now even if there is nothing to write.
                sys::touch(&file)
            };
            emptied.map_err(|errno| create_error(place, errno))?;
        }
        Ok(Some(Staged::existing(file)))
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
        let written_later = data::is_large(&self.stat) || preserve.xattrs != Xattrs::No;
        let read_only = wanted & 0o200 == 0 && written_later && !cx.process.superuser;
        if read_only || (preserve.ownership && !right_owner) {
            // Its group and others must not read it before it is theirs.
            has.private_until = Some(wanted & !cx.process.umask.unwrap_or(0o077));
            let private = wanted & 0o700;
            return (if read_only { private | 0o600 } else { private }, has);
        }
        if !has.acl {
            has.mode = cx.process.umask.map(|umask| wanted & !umask);
        }
        (wanted, has)
    }

    // ---- Others ----

    fn make_symlink(&self, cx: &Context, place: Place<'_>, plan: FilePlan) -> Result<(), Error> {
        let text = sys::read_link(place.pair.source(), place.names.source)
            .map_err(|errno| place.source_error(Operation::ReadLink, errno))?;
        cx.copying(|| (place.source_path(), place.dest_path()));
        if plan == FilePlan::Replace {
            remove_dest(cx, place)?;
        }
        sys::make_symlink(&text, place.pair.dest(), place.names.dest)
            .map_err(|errno| place.dest_error(Operation::CreateSymlink, errno))?;
        self.dress_name(cx, place, Has::default());
        cx.remember(|| sys::stat_at(place.pair.dest(), place.names.dest, false));
        cx.counters.add(Count::Symlinks, 1);
        Ok(())
    }

    fn make_special(&self, cx: &Context, place: Place<'_>, plan: FilePlan) -> Result<(), Error> {
        cx.copying(|| (place.source_path(), place.dest_path()));
        if plan == FilePlan::Replace {
            remove_dest(cx, place)?;
        }
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
        if place.dir.facts().is_none() {
            cx.remember(|| sys::stat_at(place.pair.dest(), place.names.dest, false));
        }
        cx.counters.add(Count::Specials, 1);
        Ok(())
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
    /// Removes the name of a new file; `None` if the file was there before.
    guard: Option<RemoveOnDrop<'a>>,
}

impl<'a> Staged<'a> {
    fn create(dir: BorrowedFd<'a>, name: &'a OsStr, mode: u32) -> sys::Result<Self> {
        let file = sys::create_file(dir, name, mode)?;
        let guard = Some(RemoveOnDrop { dir, name });
        Ok(Self { file, guard })
    }

    fn existing(file: OwnedFd) -> Self {
        Self { file, guard: None }
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
