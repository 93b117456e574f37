//! Entering a directory: its source is opened, its destination made or opened, and what has to be known of both is looked up. What is
//! then done in it is a matter of `tree.rs`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::ahead;
use crate::context::Context;
use crate::counters::Count;
use crate::dir::{Dir, DirFacts};
use crate::error::{Error, Failure, Operation, unless_panic};
use crate::gitignore::Ignored;
use crate::handles::Pair;
use crate::local::{is_btrfs, is_local};
use crate::make_dir::{MadeDir, Merging, make_dest, merging, prunes_behind_links};
use crate::meta::{self, Attributes, Has, Subject};
use crate::observer::What;
use crate::operands::OperandDir;
use crate::options::{Atomic, Follow};
use crate::place::{Names, Place};
use crate::sweep::sweep_once;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};
use crate::tree::DirTask;

/// Hardly any tree has so many levels; one that is copied into itself soon has.
const DEEP: usize = 1000;

/// A directory whose two ends are open.
pub(crate) struct Entered {
    pub dir: Arc<Dir>,
    pub pair: Arc<Pair>,
    /// Whether what is in it is copied.
    pub listed: bool,
}

impl DirTask {
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
            let dest = (!made.is_rehearsed(cx)).then_some(made.stat.id);
            cx.operands.add_dir(stat.id, dest, made.fresh, place);
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
        let found = Some(&made.stat).filter(|_| !made.fresh);
        let has = Has::of_dir(found, true, made.private_until);
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

    /// The same as [`DirTask::enter`]; a panic is an error.
    pub(crate) fn enter_unless_panic(&self, cx: &Context) -> Result<Option<Entered>, Error> {
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
            no_atime: self.parent.no_atime(&cx.process),
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
        cx.done(What::Directory, place);
        let preserve = &cx.options.preserve;
        let mut failed = |failure: Failure| {
            cx.error(place.dest_error(failure.operation, failure.errno));
        };
        let attributes = preserve
            .any()
            .then(|| Attributes::read(Subject::Open(source.as_fd()), &stat, preserve, &mut failed));
        let facts = facts_of(cx, place, &source, &stat, &made, attributes);
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

/// What is known of a directory once both of its ends are open: much of it as of the one above, on the same filesystems.
fn facts_of(
    cx: &Context,
    place: Place<'_>,
    source: &OwnedFd,
    stat: &Stat,
    made: &MadeDir,
    attributes: Option<Attributes>,
) -> DirFacts {
    let above = place.dir.facts();
    let same_source = above.filter(|above| above.source_id.dev == stat.id.dev);
    let same_dest = above.filter(|above| above.dest_id.dev == made.stat.id.dev);
    let closes_silently = match same_dest {
        Some(above) => above.closes_silently,
        None => is_local(&made.fd),
    };
    DirFacts {
        source_id: stat.id,
        dest_id: made.stat.id,
        fresh: made.fresh,
        merged: !made.fresh || above.is_some_and(|above| above.merged),
        linked: above
            .is_some_and(|above| above.linked || is_reached_by_link(cx, place, made.fresh)),
        rehearsed: made.is_rehearsed(cx),
        default_acl: match above {
            // Another owner may give it one at any time.
            _ if made.stat.uid != cx.process.uid => true,
            Some(above) if made.fresh && !above.default_acl => false,
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
        modes: match same_dest {
            Some(above) if made.fresh => Arc::clone(&above.modes),
            _ => Arc::default(),
        },
        no_atime: cx.process.superuser || stat.uid == cx.process.uid,
        attributes,
        private_until: made.private_until,
        seeks: match same_source {
            Some(above) => above.seeks,
            None => cx.meet_source(stat.id.dev, source),
        },
        ladder: match same_source.and(same_dest) {
            Some(above) => Arc::clone(&above.ladder),
            None => cx.ladder((stat.id.dev, source), (made.stat.id.dev, &made.fd)),
        },
        closes_silently,
        fills_late: match same_dest {
            Some(above) => above.fills_late,
            None => is_btrfs(&made.fd),
        },
        ignored: Ignored::enter(cx, place, source.as_fd()),
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

/// Whether a directory that will be pruned has been reached through a symbolic link.
fn is_reached_by_link(cx: &Context, place: Place<'_>, is_fresh: bool) -> bool {
    prunes_behind_links(cx)
        && !is_fresh
        && sys::stat_at(place.pair.dest(), place.names.dest, false)
            .is_ok_and(|there| there.kind == Kind::Symlink)
}
