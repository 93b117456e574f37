//! The recursion: directories, and who finishes what.
//!
//! A directory is one rayon task: open and make (`enter.rs`), list, spawn a task for each subdirectory, copy the files through
//! `par_iter`. It does not wait for its subdirectories. Instead each directory counts what is pending in it, and whoever ends the last
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
use std::ffi::OsString;
use std::sync::Arc;
use std::vec;

use rayon::Scope;
use rayon::prelude::*;

use crate::ahead;
use crate::closing;
use crate::context::Context;
use crate::counters::Count;
use crate::dir::Dir;
use crate::enter::Entered;
use crate::error::{Error, Operation, unless_panic};
use crate::file;
use crate::gate;
use crate::handles::Pair;
use crate::list::{Listed, Order, list};
use crate::meta::{Attributes, Has, Subject};
use crate::nest::{in_parallel, in_pieces};
use crate::options::Backup;
use crate::place::{Names, Place};
use crate::prune::prune;
use crate::sys::{self, FileId, Kind};

/// A directory to be copied.
pub(crate) struct DirTask {
    pub parent: Arc<Dir>,
    pub source: OsString,
    /// `None`: the same.
    pub dest: Option<OsString>,
    /// Whether the name may be a symbolic link to a directory.
    pub follow: bool,
    /// The destination, if it was made ahead and nobody has entered it yet.
    pub made: Cell<Option<FileId>>,
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
            let acl = facts.default_acl || !facts.fresh;
            let has = Has::of_dir(found.as_ref(), acl, facts.private_until);
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
