//! Removing what the destination has and the source does not (`--delete`), and what is in the way of another kind of entry.
//!
//! A directory is pruned when all of its entries are copied, and all of theirs: a file that was moved in the source has its
//! new name before it loses its old one, unless that is met first. Nothing is removed
//! - where the source's listing was not complete,
//! - once anything could not be copied, or the copy was told to stop; but what is in the way is removed as long as there is
//!   something to take its place,
//! - that the filter protects, or that is on another filesystem or under another mount, or that is the source of this copy, or in
//!   it, whatever link or mount leads there.
//!
//! What is removed is reached from open directories and never through a symbolic link, however it is moved meanwhile. A tree
//! is removed deepest entries first, with one descriptor whatever its depth.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use rayon::prelude::*;

use crate::context::Context;
use crate::dir::Dir;
use crate::error::{Error, Operation};
use crate::filter::{self, NameFilter};
use crate::gate;
use crate::nest::{in_parallel, in_pieces};
use crate::observer::Event;
use crate::options::Delete;
use crate::path::join;
use crate::place::Place;
use crate::staged::is_staged_name;
use crate::sys::{self, Errno, FileId, Kind};

/// Removes what is in a directory's copy and not in the directory.
pub(crate) fn prune(cx: &Context, dir: &Arc<Dir>, dest: BorrowedFd<'_>) {
    let Some(names) = dir.names_to_keep() else {
        return;
    };
    if cx.is_cancelled() {
        return;
    }
    let path = || dir.dest_path(OsStr::new(""));
    let (extraneous, are_known) = match extraneous(cx, dir, dest, names) {
        Ok(found) => found,
        Err(errno) => {
            cx.error(Error::new(Operation::List, path()).with_errno(errno));
            return;
        }
    };
    if extraneous.is_empty() || !cx.may_delete(path) {
        return;
    }
    if !are_known {
        cx.fail_to_delete(Error::new(Operation::OtherForms, path()));
        return;
    }
    if let Err(error) = is_apart(cx, dir, dest) {
        cx.fail_to_delete(error);
        return;
    }
    let one = |dest: BorrowedFd<'_>, (name, kind): &(OsString, Kind)| {
        let removal = Removal {
            cx,
            keeps: Some(dir),
            in_the_way: false,
            path: dir.dest_path(name),
            inner: dir.inner_path().join(name),
        };
        // An error has been told.
        let _ = removal.remove(dest, name, *kind);
    };
    in_parallel(
        cx.max_nested,
        || {
            // A worker that takes some of them opens the directory for itself.
            let open = || (gate::start_work(), cx.handles.open(dir));
            in_pieces(&extraneous).for_each_init(open, |(_, opened), entry| match opened {
                Ok(pair) => one(pair.dest(), entry),
                Err(error) => cx.fail_to_delete(error.clone()),
            });
        },
        || extraneous.iter().for_each(|entry| one(dest, entry)),
    );
}

/// Makes sure that a destination is not the source, nor in it, by a link that was there or by a mount.
fn is_apart(cx: &Context, dir: &Dir, dest: BorrowedFd<'_>) -> Result<(), Error> {
    let here = OsStr::new("");
    let shown = shown(cx, dir, dest);
    let shown =
        shown.map_err(|errno| Error::new(Operation::List, dir.dest_path(here)).with_errno(errno));
    match shown? {
        None => Ok(()),
        Some(operation) => {
            Err(Error::new(operation, dir.dest_path(here)).with_other(dir.source_path(here)))
        }
    }
}

/// What is wrong with a destination that shows the source, or may.
fn shown(cx: &Context, dir: &Dir, dest: BorrowedFd<'_>) -> sys::Result<Option<Operation>> {
    let mut here = sys::open_dest_dir(dest, OsStr::new("."), false)?;
    let mut is_mounted = false;
    loop {
        let id = sys::fstat(&here)?.id;
        if cx.operands.dir(id).is_some() {
            return Ok(Some(Operation::SourceInDest));
        }
        if cx.operands.is_known(id) {
            // This is the operand's copy. A mount on the way here shows some directory of its filesystem, which may be any, and
            // a link has led to one that is another source's copy, too.
            let is_linked = dir.facts().is_some_and(|facts| facts.linked);
            return Ok(if is_linked {
                Some(Operation::SharedDest)
            } else {
                is_mounted.then_some(Operation::MountInDest)
            });
        }
        let above = sys::open_parent(&here)?;
        let above_id = sys::fstat(&above)?.id;
        if above_id == id {
            return Ok(None);
        }
        let is_source_dev = dir
            .facts()
            .is_some_and(|facts| facts.source_id.dev == id.dev);
        let is_same_mount = match (sys::mount_id(&here), sys::mount_id(&above)) {
            (Ok(here), Ok(above)) => here == above,
            // What is not known is not the same.
            _ => false,
        };
        is_mounted |= is_source_dev && !is_same_mount;
        here = above;
    }
}

/// Removes what has a destination's name, whatever it is, to make room for something else.
pub(crate) fn remove_instead(cx: &Context, place: Place<'_>, kind: Kind) -> Result<(), Error> {
    if kind == Kind::Dir && place.dir.facts().is_some() && !place.dir.is_fresh() {
        is_apart(cx, place.dir, place.pair.dest())?;
    }
    let removal = Removal {
        cx,
        keeps: place.dir.facts().is_some().then_some(&**place.dir),
        in_the_way: true,
        path: place.dest_path(),
        inner: place.dir.inner_path().join(place.names.source),
    };
    match removal.remove(place.pair.dest(), place.names.dest, kind) {
        Removed::All => Ok(()),
        Removed::NotAll if cx.is_cancelled() => Err(place.refused(Operation::Interrupted)),
        Removed::NotAll => Err(place.dest_error(Operation::Remove, Errno::NOTEMPTY)),
    }
}

/// What may be removed from a directory, and whether it is known not to be what is kept.
fn extraneous(
    cx: &Context,
    dir: &Dir,
    dest: BorrowedFd<'_>,
    names: &[OsString],
) -> sys::Result<(Vec<(OsString, Kind)>, bool)> {
    // Its own position may be anywhere.
    let there = sys::open_dest_dir(dest, OsStr::new("."), false)?;
    let there = sys::read_dir(there)?;
    let kept: HashSet<&OsStr> = names.iter().map(OsString::as_os_str).collect();
    let filter = NameFilter::of(&cx.options.filter, dir);
    let protects = |name: &OsStr, kind| {
        let is_filtered = cx.options.delete == Delete::Extraneous
            && filter
                .as_ref()
                .is_some_and(|filter| filter.leaves_out(name, is_dir(dest, name, kind)));
        is_filtered || is_staged_name(name)
    };
    let mut listed: Vec<_> = there.iter().map(|(name, _)| name.as_os_str()).collect();
    if listed.iter().all(|name| kept.contains(name)) {
        return Ok((Vec::new(), true));
    }
    // A name that is not listed and is there all the same is listed in another form: where case does not count, say.
    listed.sort_unstable();
    let id = |name: &OsStr| sys::stat_at(dest, name, false).ok().map(|stat| stat.id);
    let in_another_form: HashSet<FileId> = kept
        .iter()
        .filter(|name| listed.binary_search(name).is_err())
        .filter_map(|name| id(name))
        .collect();
    let numbers: HashMap<&OsStr, FileId> = if in_another_form.is_empty() {
        HashMap::new()
    } else {
        let numbered = |&name| Some((name, id(name)?));
        listed.iter().filter_map(numbered).collect()
    };
    let is_other_form = |name: &OsStr| {
        numbers
            .get(name)
            .is_some_and(|id| in_another_form.contains(id))
    };
    // Where each form has a number of its own, nobody knows which is which.
    let are_known = in_another_form.is_subset(&numbers.values().copied().collect());
    let is_extraneous = |(name, kind): &&(OsString, Kind)| {
        !kept.contains(name.as_os_str()) && !protects(name, *kind) && !is_other_form(name)
    };
    let extraneous = there.iter().filter(is_extraneous).cloned().collect();
    Ok((extraneous, are_known))
}

/// What is left of something that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    All,
    /// Something in it is protected, or could not be removed.
    NotAll,
}

/// The removal of one entry, with all that is in it.
struct Removal<'a> {
    cx: &'a Context,
    /// The directory whose filter protects what is in it.
    keeps: Option<&'a Dir>,
    /// Something else takes its place.
    in_the_way: bool,
    /// The path for messages.
    path: PathBuf,
    /// The path for the filter.
    inner: PathBuf,
}

/// A directory on the way down.
struct Level {
    name: OsString,
    id: FileId,
    entries: vec::IntoIter<(OsString, Kind)>,
    left: Removed,
}

impl Level {
    /// One of its entries is gone, or not.
    fn add(&mut self, removed: Removed) {
        if removed == Removed::NotAll {
            self.left = Removed::NotAll;
        }
    }
}

/// What has been done about an entry.
enum Step {
    /// It is a directory, which is open now: what is in it comes first.
    Down(OwnedFd, Level),
    Done(Removed),
}

impl Removal<'_> {
    fn remove(mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Removed {
        if self.is_over() {
            return Removed::NotAll;
        }
        match self.remove_tree(dir, name, kind) {
            Ok(removed) => removed,
            Err(errno) => self.fail(errno),
        }
    }

    fn remove_tree(
        &mut self,
        top: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
    ) -> sys::Result<Removed> {
        if !is_dir(top, name, kind) {
            return Ok(self.unlink(top, name));
        }
        let mount = (sys::fstat(top)?.id.dev, sys::mount_id(top).ok());
        let (mut here, mut level) = match self.enter(top, name, mount) {
            Err(Errno::ACCESS) => return Ok(self.remove_unread(top, name)),
            entered => entered?,
        };
        let mut above: Vec<Level> = Vec::new();
        while !self.is_over() {
            if let Some((name, kind)) = level.entries.next() {
                self.push(&name);
                match self.remove_or_enter(here.as_fd(), &name, kind, mount) {
                    Step::Down(opened, below) => {
                        here = opened;
                        above.push(mem::replace(&mut level, below));
                    }
                    Step::Done(removed) => {
                        level.add(removed);
                        self.pop();
                    }
                }
            } else if let Some(parent) = above.pop() {
                here = open_same_parent(&here, parent.id)?;
                let done = mem::replace(&mut level, parent);
                level.add(self.leave(here.as_fd(), &done));
                self.pop();
            } else {
                return Ok(self.leave(top, &level));
            }
        }
        Ok(Removed::NotAll)
    }

    /// Removes what is at the path, or enters it if something may be in it.
    fn remove_or_enter(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        mount: (u64, Option<u64>),
    ) -> Step {
        let is_dir = is_dir(dir, name, kind);
        if self.protects(is_dir) {
            return Step::Done(Removed::NotAll);
        }
        if !is_dir {
            return Step::Done(self.unlink(dir, name));
        }
        match self.enter(dir, name, mount) {
            Ok((opened, below)) => Step::Down(opened, below),
            Err(Errno::ACCESS) => Step::Done(self.remove_unread(dir, name)),
            Err(errno) => Step::Done(self.fail(errno)),
        }
    }

    /// Whether nothing more may be removed.
    fn is_over(&self) -> bool {
        let spares = || !self.in_the_way && !self.cx.may_delete(|| self.path.clone());
        self.cx.is_cancelled() || spares()
    }

    /// Opens and lists a directory, if it is on this device and under this mount (where that is known).
    fn enter(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        mount: (u64, Option<u64>),
    ) -> sys::Result<(OwnedFd, Level)> {
        let opened = sys::open_dest_dir(dir, name, false)?;
        let id = sys::fstat(&opened)?.id;
        if (id.dev, sys::mount_id(&opened).ok()) != mount {
            return Err(Errno::XDEV);
        }
        if self.cx.operands.is_known(id) || self.cx.operands.is_merged(id) {
            return Err(Errno::BUSY);
        }
        let level = Level {
            name: name.to_owned(),
            id,
            entries: match sys::read_dir(&opened) {
                // It may not be read, and is open as a place.
                Err(Errno::BADF) => return Err(Errno::ACCESS),
                entries => entries?.into_iter(),
            },
            left: Removed::All,
        };
        Ok((opened, level))
    }

    /// Removes a directory that may not be read, if nothing is in it.
    fn remove_unread(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Removed {
        if self.cx.options.dry_run || sys::remove_dir(dir, name).is_err() {
            return self.fail(Errno::ACCESS);
        }
        self.told(Ok(()), true)
    }

    /// Removes a directory in which nothing is left.
    fn leave(&self, dir: BorrowedFd<'_>, level: &Level) -> Removed {
        if level.left == Removed::NotAll {
            return Removed::NotAll;
        }
        let removed = self.unless_rehearsed(|| sys::remove_dir(dir, &level.name));
        self.told(removed, true)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Removed {
        let removed = self.unless_rehearsed(|| sys::unlink(dir, name));
        self.told(removed, false)
    }

    fn unless_rehearsed(&self, remove: impl FnOnce() -> sys::Result<()>) -> sys::Result<()> {
        if self.cx.options.dry_run {
            return Ok(());
        }
        remove()
    }

    fn told(&self, removed: sys::Result<()>, is_dir: bool) -> Removed {
        match removed {
            Ok(()) => {
                self.cx.deleted(&self.path);
                self.cx.tell(|| Event::Deleted {
                    dest: self.path.clone(),
                    is_dir,
                    in_the_way: self.in_the_way,
                });
                Removed::All
            }
            // Somebody else was faster.
            Err(Errno::NOENT) => Removed::All,
            Err(errno) => self.fail(errno),
        }
    }

    fn fail(&self, errno: Errno) -> Removed {
        let error = Error::new(Operation::Remove, &self.path).with_errno(errno);
        self.cx.fail_to_delete(error);
        Removed::NotAll
    }

    /// Whether the filter keeps what is at the path.
    fn protects(&self, is_dir: bool) -> bool {
        let options = &self.cx.options;
        options.delete == Delete::Extraneous
            && self.keeps.is_some_and(|dir| {
                let ignored = dir.facts().and_then(|facts| facts.ignored.as_deref());
                filter::drops(&options.filter, ignored, &self.inner, is_dir)
            })
    }

    fn push(&mut self, name: &OsStr) {
        self.path = join(&self.path, name);
        self.inner.push(name);
    }

    fn pop(&mut self) {
        self.path.pop();
        self.inner.pop();
    }
}

/// Opens the directory that another one is in, if that is still the one by which it was reached.
fn open_same_parent(dir: &OwnedFd, id: FileId) -> sys::Result<OwnedFd> {
    let parent = sys::open_parent(dir)?;
    if sys::fstat(&parent)?.id != id {
        return Err(Errno::STALE);
    }
    Ok(parent)
}

/// Whether a name is a directory, asking where the listing did not say.
fn is_dir(dir: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> bool {
    match kind {
        Kind::Unknown => sys::stat_at(dir, name, false).is_ok_and(|stat| stat.kind == Kind::Dir),
        kind => kind == Kind::Dir,
    }
}
