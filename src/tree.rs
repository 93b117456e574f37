//! The recursion: directories, and who finishes what.
//!
//! A directory is one rayon task: open, make, list, spawn a task for each subdirectory, copy the files through `par_iter`.
//! It does not wait for its subdirectories. Instead each directory counts what is pending in it, and whoever ends the last
//! of it, on whatever worker, finishes the directory and goes on to its parent:
//!
//! ```text
//! enter ─ list ─┬─ spawn enter(subdirectory) …      each adds one pending
//!               └─ par_iter: file::copy(file) …
//! end ── was it the last? ── finish (owner, ACL, mode, times; close) ── end(parent) …
//! ```
//!
//! So the stack does not grow with the depth of the tree, and the only waits are rayon's own, inside `par_iter`, with a
//! bound on how deep they nest (`nest.rs`). A directory is made just before its files are, which keeps a filesystem's
//! journal and allocation local (but for btrfs, see `ahead.rs`); tasks are taken newest first by the worker that spawned them
//! and oldest first by thieves, so a worker goes depth first and thieves take whole branches. That keeps memory bounded by
//! depth and width.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use rayon::Scope;
use rayon::prelude::*;

use crate::ahead;
use crate::closing;
use crate::context::Context;
use crate::counters::Count;
use crate::dir::{Dir, DirFacts, Names, Place};
use crate::error::{Error, Failure, Operation, unless_panic};
use crate::file;
use crate::gate;
use crate::gitignore::Ignored;
use crate::handles::Pair;
use crate::list::{Listed, Order, list};
use crate::local::{is_btrfs, is_local};
use crate::make_dir::{MadeDir, Merging, make_dest, merging};
use crate::meta::{self, Attributes, Has, Subject};
use crate::nest::{in_parallel, in_pieces};
use crate::observer::What;
use crate::operands::OperandDir;
use crate::options::{Atomic, Backup, Delete, Follow};
use crate::prune::prune;
use crate::sweep::sweep_once;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};

/// Hardly any tree has so many levels; one that is copied into itself soon has.
const DEEP: usize = 1000;

/// A directory to be copied.
pub(crate) struct DirTask {
    parent: Arc<Dir>,
    source: OsString,
    /// `None`: the same.
    dest: Option<OsString>,
    /// Whether the name may be a symbolic link to a directory.
    follow: bool,
    /// The destination, if it was made ahead and nobody has entered it yet.
    made: Cell<Option<FileId>>,
}

impl DirTask {
    /// The task for an operand in `top`, which has one thing more pending.
    pub(crate) fn of_root(top: &Arc<Dir>, names: Names<'_>, follow: bool) -> Self {
        top.add_pending();
        Self {
            parent: Arc::clone(top),
            source: names.source.to_owned(),
            dest: Some(names.dest.to_owned()),
            follow,
            made: Cell::new(None),
        }
    }

    /// The task for a subdirectory of `dir`, which has one thing more pending.
    fn of(listed: Listed, dir: &Arc<Dir>) -> Self {
        dir.add_pending();
        Self {
            parent: Arc::clone(dir),
            source: listed.name,
            dest: None,
            follow: listed.follow,
            made: Cell::new(None),
        }
    }

    /// Makes the destination ahead, if it can be.
    fn make_ahead(&self, cx: &Context, parent: &Pair) {
        self.made.set(ahead::make(cx, parent, &self.source));
    }

    /// Leaves a task to whichever worker takes it: after those that were made ahead before, if this one was.
    fn leave<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        let waiting = match self.made.get() {
            Some(_) => cx.ahead.push(self),
            None => Err(self),
        };
        match waiting {
            Ok(()) => scope.spawn(move |scope| {
                // There is one for each that was pushed.
                if let Some(task) = cx.ahead.pop() {
                    task.run(cx, scope);
                }
            }),
            Err(task) => task.spawn(cx, scope),
        }
    }

    /// Starts an operand's copy.
    pub(crate) fn start<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        if cx.options.ask {
            gate::work(|| walk(cx, scope, self));
        } else {
            self.spawn(cx, scope);
        }
    }

    fn spawn<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        scope.spawn(move |scope| self.run(cx, scope));
    }

    fn run<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        gate::work(|| match self.enter_unless_panic(cx) {
            Ok(Some(entered)) => entered.copy(cx, scope),
            Ok(None) => end(cx, self.parent),
            Err(error) => {
                cx.error(error);
                end(cx, self.parent);
            }
        });
    }

    /// Whether a directory has been copied already, as an operand, so that nothing is left to do but to say so. It may also
    /// be a copy, and forbidden.
    fn is_done(&self, cx: &Context, place: Place<'_>, id: FileId) -> Result<bool, Error> {
        let is_operand = place.dir.facts().is_none();
        let (of, source, dest) = operand(place, id);
        let known = cx.operands.dir(id);
        let is_its_copy =
            |known: &OperandDir| known.entry.is_some() && place.source_entry() == known.entry;
        if cx.operands.is_copy(id, of) || known.as_ref().is_some_and(is_its_copy) {
            return Err(Error::new(Operation::IntoItself, dest).with_other(source));
        }
        let Some(known) = known else {
            return Ok(false);
        };
        if place.dest_entry() == known.entry {
            cx.warning(&Error::new(Operation::RepeatedDir, source));
            return Ok(true);
        }
        match cx.options.follow {
            Follow::Always => Ok(false),
            Follow::Operands if is_operand => Ok(false),
            _ => {
                let error = Error::new(Operation::LinkDir, place.dest_path());
                Err(error.with_other(known.dest))
            }
        }
    }

    /// Makes the destination; `None` if there is nothing to do.
    fn make(&self, cx: &Context, place: Place<'_>, stat: &Stat) -> Result<Option<MadeDir>, Error> {
        if cx.operands.is_known(stat.id) {
            // What is wrong with the destination is said first.
            let merging = merging(cx, place, stat, self.follow)?;
            if merging == Merging::No || self.is_done(cx, place, stat.id)? {
                return Ok(None);
            }
        }
        if cx.options.follow != Follow::Never && self.parent.is_below(stat.id) {
            return Err(Error::new(Operation::Cycle, place.source_path()));
        }
        // What is made below a directory that was there can be below what is copied, by a link or a mount that leads there.
        let merged = self.parent.facts().is_some_and(|facts| facts.merged);
        let is_own = merged && self.parent.is_made_in(stat.id);
        // Through an overlay or a server it has another number: then it is known by its depth, and its age.
        let is_made_now = || {
            let (dir, name) = (place.pair.source(), place.names.source);
            sys::birth_at(dir, name).is_some_and(|birth| cx.is_younger(birth))
        };
        if is_own || (self.parent.is_deeper_than(DEEP) && is_made_now()) {
            let (_, source, dest) = operand(place, stat.id);
            return Err(Error::new(Operation::IntoItself, dest).with_other(source));
        }
        let made = make_dest(cx, place, stat, self.follow, self.made.take())?;
        if let Some(made) = &made
            && place.dir.facts().is_none()
        {
            cx.operands
                .add_dir(stat.id, made.stat.id, made.fresh, place);
        }
        Ok(made)
    }

    /// Makes the copy of a directory that may not be read: what can be known of it is copied, as `cp` does.
    fn make_unlisted(&self, cx: &Context, place: Place<'_>) -> Result<Option<Entered>, Error> {
        let (dir, name) = (place.pair.source(), place.names.source);
        let stat = sys::stat_at(dir, name, self.follow)
            .map_err(|errno| place.source_error(Operation::Stat, errno))?;
        if merging(cx, place, &stat, self.follow)? == Merging::Instead {
            // What is in the way stays, where nothing comes in its place.
            return Err(place.source_error(Operation::List, Errno::ACCESS));
        }
        let Some(made) = self.make(cx, place, &stat)? else {
            return Ok(None);
        };
        cx.done(What::Directory, place);
        if cx.options.dry_run {
            return Err(place.source_error(Operation::List, Errno::ACCESS));
        }
        let found = (!made.fresh).then(|| Has::found(&made.stat));
        let has = Has {
            acl: true,
            private_until: made.private_until,
            ..found.unwrap_or_default()
        };
        let dest = Subject::Open(made.fd.as_fd());
        let mut failed =
            |failure: Failure| cx.error(place.dest_error(failure.operation, failure.errno));
        let preserve = &cx.options.preserve;
        let attributes = if self.follow {
            Attributes::without_xattrs(&stat)
        } else {
            Attributes::read(Subject::Named(dir, name), &stat, preserve, &mut failed)
        };
        attributes.give(dest, preserve, &cx.process, has, &mut failed);
        Err(place.source_error(Operation::List, Errno::ACCESS))
    }

    fn enter_unless_panic(&self, cx: &Context) -> Result<Option<Entered>, Error> {
        let entered = unless_panic(|| self.parent.source_path(&self.source), || self.enter(cx));
        cx.counters.add(Count::Done, 1);
        if let Some(made) = self.made.take()
            && let Ok(parent) = cx.handles.open(&self.parent)
        {
            ahead::unmake(&parent, &self.source, made);
        }
        if !matches!(&entered, Ok(Some(entered)) if entered.listed) {
            cx.counters.underway.end_unlisted();
        }
        entered
    }

    /// Opens the source, makes or opens the destination. `None` if that has been done already, for another operand, or is not
    /// to be done any more.
    fn enter(&self, cx: &Context) -> Result<Option<Entered>, Error> {
        if cx.is_cancelled() {
            return Ok(None);
        }
        let parent_pair = cx.handles.open(&self.parent)?;
        let source_name = self.source.as_os_str();
        let names = Names {
            source: source_name,
            dest: self.dest.as_deref().unwrap_or(source_name),
        };
        let place = Place {
            dir: &self.parent,
            pair: &parent_pair,
            names,
        };
        let above = self.parent.facts();
        let flags = SourceFlags {
            follow: self.follow,
            wait: false,
            no_atime: above.map_or(cx.process.superuser, |facts| facts.no_atime),
        };
        let source = match sys::open_source_dir(parent_pair.source(), names.source, flags) {
            Ok(source) => source,
            Err(Errno::ACCESS) => return self.make_unlisted(cx, place),
            Err(errno) => return Err(place.source_error(Operation::List, errno)),
        };
        let stat =
            sys::fstat(&source).map_err(|errno| place.source_error(Operation::Stat, errno))?;
        let Some(made) = self.make(cx, place, &stat)? else {
            return Ok(None);
        };
        if !made.fresh && is_reached_again(cx, made.stat.id) {
            return Err(Error::new(Operation::SharedDest, place.dest_path()));
        }
        cx.done(What::Directory, place);
        let preserve = &cx.options.preserve;
        let mut failed = |failure: Failure| {
            cx.error(place.dest_error(failure.operation, failure.errno));
        };
        let attributes = preserve
            .any()
            .then(|| Attributes::read(Subject::Open(source.as_fd()), &stat, preserve, &mut failed));
        let closes_silently = match above {
            Some(above) if above.dest_id.dev == made.stat.id.dev => above.closes_silently,
            _ => is_local(&made.fd),
        };
        let facts = DirFacts {
            source_id: stat.id,
            dest_id: made.stat.id,
            fresh: made.fresh,
            merged: !made.fresh || above.is_some_and(|above| above.merged),
            linked: above
                .is_some_and(|above| above.linked || is_reached_by_link(cx, place, made.fresh)),
            rehearsed: made.fresh && cx.options.dry_run,
            default_acl: match above {
                Some(above) if made.fresh && made.stat.uid == cx.process.uid => above.default_acl,
                _ => meta::has_default_acl(made.fd.as_fd()),
            },
            // Of other filesystems it is not known that the mode is what decides.
            closed: made.fresh
                && closes_silently
                && made.stat.uid == cx.process.uid
                && made.stat.mode & 0o077 == 0,
            plain_owner: made.fresh
                && made.stat.uid == cx.process.uid
                && made.stat.gid == cx.process.gid
                && made.stat.mode & 0o2000 == 0,
            // One that was there may have rules of its own (NFSv4's ACLs are inherited).
            modes: match above {
                Some(above) if made.fresh && above.dest_id.dev == made.stat.id.dev => {
                    Arc::clone(&above.modes)
                }
                _ => Arc::default(),
            },
            no_atime: cx.process.superuser || stat.uid == cx.process.uid,
            attributes,
            private_until: made.private_until,
            seeks: match above {
                Some(above) if above.source_id.dev == stat.id.dev => above.seeks,
                _ => cx.meet_source(stat.id.dev, &source),
            },
            ladder: match above {
                Some(above) if above.is_on(stat.id.dev, made.stat.id.dev) => {
                    Arc::clone(&above.ladder)
                }
                _ => cx.ladder((stat.id.dev, &source), (made.stat.id.dev, &made.fd)),
            },
            closes_silently,
            fills_late: match above {
                Some(above) if above.dest_id.dev == made.stat.id.dev => above.fills_late,
                _ => is_btrfs(&made.fd),
            },
            ignored: Ignored::enter(cx, place, source.as_fd()),
        };
        cx.meet_filesystem(made.stat.id.dev, || place.dest_path());
        let crosses = above.is_some_and(|above| above.source_id.dev != stat.id.dev);
        let unswept = !made.fresh && cx.options.atomic != Atomic::Never && !cx.options.dry_run;
        let dir = Dir::new(cx.handles.next_key(), &self.parent, names, facts, unswept);
        if made.fresh {
            // Nothing in it is a dead run's.
            cx.operands.begin_sweep(made.stat.id);
        }
        // A directory as old as its source is as a run that was not killed left it. It is swept if it is written.
        if !made.fresh && made.stat.times.modified != stat.times.modified {
            sweep_once(cx, &dir, source.as_fd(), made.fd.as_fd());
        }
        let pair = Pair::Open {
            source,
            dest: made.fd,
        };
        Ok(Some(Entered {
            pair: cx.handles.keep(dir.key(), pair),
            dir,
            listed: !(crosses && cx.options.one_file_system),
        }))
    }
}

/// The operand that is being copied, by its source's identity and its two paths. `id` is that of the directory at `place`.
fn operand(place: Place<'_>, id: FileId) -> (FileId, PathBuf, PathBuf) {
    let mut of = (id, place.source_path(), place.dest_path());
    let mut dir = Some(place.dir);
    while let Some(above) = dir {
        if let Some(facts) = above.facts()
            && above.parent().is_some_and(|top| top.facts().is_none())
        {
            let here = OsStr::new("");
            of = (
                facts.source_id,
                above.source_path(here),
                above.dest_path(here),
            );
        }
        dir = above.parent();
    }
    of
}

/// A directory whose two ends are open.
struct Entered {
    dir: Arc<Dir>,
    pair: Arc<Pair>,
    /// Whether what is in it is copied.
    listed: bool,
}

impl Entered {
    /// Leaves the directory to whichever worker takes it, which opens it for itself.
    fn spawn<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        let Self { dir, listed, .. } = self;
        scope.spawn(move |scope| {
            gate::work(|| match cx.handles.open(&dir) {
                Ok(pair) => Self { dir, pair, listed }.copy(cx, scope),
                Err(error) => {
                    cx.error(error);
                    if listed {
                        cx.counters.underway.end_unlisted();
                    }
                    end(cx, dir);
                }
            });
        });
    }

    fn copy<'s>(self, cx: &'s Context, scope: &Scope<'s>) {
        if self.listed {
            let copied = about(&self.dir, || {
                copy_entries(cx, scope, &self.dir, &self.pair);
                Ok(())
            });
            if let Err(error) = copied {
                cx.error(error);
            }
        }
        end(cx, self.dir);
    }
}

/// Copies a directory in `cp`'s order, one entry after the other, so that questions are asked as `cp` asks them. A directory
/// whose destination is new has nothing that a question could be about: it is left to all workers.
fn walk<'s>(cx: &'s Context, scope: &Scope<'s>, task: DirTask) {
    let mut open: Vec<(Arc<Dir>, vec::IntoIter<Listed>)> = Vec::new();
    let mut next = Some(task);
    loop {
        if let Some(task) = next.take() {
            match task.enter_unless_panic(cx) {
                Ok(None) => end(cx, task.parent),
                Ok(Some(entered)) if entered.dir.is_fresh() => entered.spawn(cx, scope),
                Ok(Some(Entered { dir, pair, listed })) => {
                    let entries = if listed {
                        let listed = about(&dir, || Ok(list(cx, &dir, &pair, Order::Inodes)));
                        listed.unwrap_or_else(|error| {
                            cx.error(error);
                            Vec::new()
                        })
                    } else {
                        Vec::new()
                    };
                    open.push((dir, entries.into_iter()));
                }
                Err(error) => {
                    cx.error(error);
                    end(cx, task.parent);
                }
            }
        }
        let Some((dir, entries)) = open.last_mut() else {
            return;
        };
        match entries.next() {
            Some(listed) if listed.kind == Kind::Dir => next = Some(DirTask::of(listed, dir)),
            Some(listed) => match cx.handles.open(dir) {
                Ok(pair) => copy_file(cx, dir, &pair, &listed),
                Err(error) => cx.error(error),
            },
            None => {
                if let Some((dir, _)) = open.pop() {
                    end(cx, dir);
                }
            }
        }
    }
}

/// Copies what is in a directory: spawns its subdirectories, then works on its files.
fn copy_entries<'s>(cx: &'s Context, scope: &Scope<'s>, dir: &Arc<Dir>, pair: &Arc<Pair>) {
    let makes_backups = cx.options.backup != Backup::No && !dir.is_fresh();
    let order = if makes_backups || dir.facts().is_some_and(|facts| facts.seeks) {
        Order::Inodes
    } else {
        Order::Listing
    };
    let (mut dirs, files): (Vec<Listed>, Vec<Listed>) = list(cx, dir, pair, order)
        .into_iter()
        .partition(|listed| listed.kind == Kind::Dir);
    let is_ahead = ahead::weigh(cx, dir, dirs.len(), files.len());
    if order == Order::Inodes && !is_ahead {
        // The last one that is left is the first that is taken, but of those that are made ahead.
        dirs.reverse();
    }
    let mut dirs = dirs.into_iter().map(|listed| DirTask::of(listed, dir));
    loop {
        let batch: Vec<_> = dirs.by_ref().take(ahead::BATCH).collect();
        if batch.is_empty() {
            break;
        }
        if is_ahead {
            batch.iter().for_each(|task| task.make_ahead(cx, pair));
        }
        batch.into_iter().for_each(|task| task.leave(cx, scope));
    }
    if !dir.is_fresh() && backups_may_collide(cx, &files) {
        files
            .iter()
            .for_each(|listed| copy_file(cx, dir, pair, listed));
        return;
    }
    let _scope = closing::together(cx.max_waiting);
    in_parallel(
        cx.max_nested,
        || {
            in_pieces(&files)
                // A worker that takes some of the files opens the directory for itself.
                .for_each_init(
                    || {
                        let scopes = (closing::together(cx.max_waiting), gate::start_work());
                        (scopes, cx.handles.open(dir))
                    },
                    |(_, opened), listed| match opened {
                        Ok(pair) => copy_file(cx, dir, pair, listed),
                        Err(error) => cx.error(error.clone()),
                    },
                );
        },
        || {
            files
                .iter()
                .for_each(|listed| copy_file(cx, dir, pair, listed));
        },
    );
}

fn copy_file(cx: &Context, dir: &Arc<Dir>, pair: &Pair, listed: &Listed) {
    if cx.is_cancelled() {
        return;
    }
    gate::step();
    let place = Place {
        dir,
        pair,
        names: Names::same(&listed.name),
    };
    end_all(cx, file::copy(cx, place, listed.kind, listed.follow));
    cx.counters.add(Count::Done, 1);
}

/// Whether one file's backup may get the name that another file's copy has: then it matters which is copied first.
fn backups_may_collide(cx: &Context, files: &[Listed]) -> bool {
    files
        .iter()
        .any(|listed| cx.options.may_be_backup(&listed.name))
}

/// One thing less is pending in a directory. Whoever ends the last one finishes it, and so on upwards.
fn end(cx: &Context, mut dir: Arc<Dir>) {
    while dir.end_pending() {
        if let Err(error) = about(&dir, || finish(cx, &dir)) {
            cx.error(error);
        }
        let Some(parent) = dir.parent().cloned() else {
            return;
        };
        dir = parent;
    }
}

pub(crate) fn end_all(cx: &Context, dirs: Vec<Arc<Dir>>) {
    for dir in dirs {
        end(cx, dir);
    }
}

/// Does something about a directory; a panic is an error then.
fn about<T>(dir: &Dir, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    unless_panic(|| dir.source_path("".as_ref()), work)
}

/// All of a directory's children are done: gives it what only then can be given, and closes it.
fn finish(cx: &Context, dir: &Arc<Dir>) -> Result<(), Error> {
    let Some(facts) = dir.facts() else {
        return Ok(());
    };
    let done = cx.handles.open(dir).map(|pair| {
        let pruned = about(dir, || {
            prune(cx, dir, pair.dest());
            Ok(())
        });
        if let Err(error) = pruned {
            cx.error(error);
        }
        if cx.options.dry_run {
            return;
        }
        let error = |operation, errno| {
            let path = dir.dest_path("".as_ref());
            cx.error(Error::new(operation, path).with_errno(errno));
        };
        let are_there = |attributes: &Attributes| {
            let are_on = || attributes.are_on(pair.dest(), &cx.options, &cx.process);
            cx.options.overwrite.compares() && !facts.fresh && are_on().unwrap_or(false)
        };
        // A directory that was there has no mode to wait for, either.
        let missing = facts
            .attributes
            .as_ref()
            .filter(|attributes| !are_there(attributes));
        if let Some(attributes) = missing {
            let found = sys::fstat(pair.dest()).ok().filter(|_| !facts.fresh);
            let has = Has {
                private_until: facts.private_until,
                acl: facts.default_acl || !facts.fresh,
                ..found.as_ref().map(Has::found).unwrap_or_default()
            };
            attributes.give(
                Subject::Open(pair.dest()),
                &cx.options.preserve,
                &cx.process,
                has,
                &mut |failure| error(failure.operation, failure.errno),
            );
        } else if let Some(mode) = facts.private_until
            && let Err(errno) = sys::set_mode(pair.dest(), mode)
        {
            error(Operation::Permissions, errno);
        }
        if let Err(errno) = cx.complete(pair.dest()) {
            error(Operation::Sync, errno);
        }
        if let Some(parent) = dir.parent() {
            cx.handles.open_above(parent, &pair);
        }
    });
    cx.handles.close(dir);
    done
}

/// Whether links may lead to directories that are pruned.
fn prunes_behind_links(cx: &Context) -> bool {
    cx.options.keep_directory_symlink && cx.options.delete != Delete::Nothing
}

/// Whether a directory that will be pruned is copied to from another source, too.
fn is_reached_again(cx: &Context, dest: FileId) -> bool {
    prunes_behind_links(cx) && !cx.operands.begin_merge(dest)
}

/// Whether a directory that will be pruned has been reached through a symbolic link.
fn is_reached_by_link(cx: &Context, place: Place<'_>, is_fresh: bool) -> bool {
    prunes_behind_links(cx)
        && !is_fresh
        && sys::stat_at(place.pair.dest(), place.names.dest, false)
            .is_ok_and(|there| there.kind == Kind::Symlink)
}
