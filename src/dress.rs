//! The attributes of an entry that is not a directory: those that it is made with, and those that it gets at the end.

use std::os::fd::AsFd;

use crate::chunks::is_large;
use crate::context::Context;
use crate::dir::Dir;
use crate::entry::{Entry, same};
use crate::error::{Error, Operation};
use crate::links::MadeFile;
use crate::meta::{Attributes, Has, Subject};
use crate::observer::What;
use crate::options::Effort;
use crate::place::Place;
use crate::sys::{self, Errno, Kind, SourceFlags, Stat};

impl Entry {
    /// Whether a file that its owner may not write would be in the way before it is complete: a large one is opened again by the
    /// workers that take a part of it, which a superuser without that capability (or on a server) may not, either; and who sets
    /// attributes must be allowed to write.
    pub(crate) fn must_be_writable(&self, cx: &Context) -> bool {
        let gets_attributes = cx.options.preserve.xattrs != Effort::No;
        is_large(&self.stat) || (gets_attributes && !cx.process.superuser)
    }

    /// The mode that a new file is made with, and what it has then.
    pub(crate) fn new_mode(&self, cx: &Context, dir: &Dir) -> (u32, Has) {
        let preserve = &cx.options.preserve;
        let wanted = match (preserve.default_mode, self.stat.kind) {
            (true, Kind::Socket) => 0o777,
            (true, _) => 0o666,
            (false, _) => self.stat.mode & 0o777,
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
        let read_only = wanted & 0o200 == 0 && self.must_be_writable(cx);
        let is_public = !dir.is_fresh();
        if read_only || (preserve.ownership && !right_owner) || (preserve.mode && is_public) {
            // Its group and others must not read it before it is theirs, nor before its ACL says who is who. (In a directory
            // that this run made, and that gets its mode at the end, nobody else can be.)
            has.private_until = Some(wanted & !cx.process.umask);
            let private = wanted & 0o700;
            return (if read_only { private | 0o600 } else { private }, has);
        }
        if !has.acl {
            has.mode = Some(wanted & !cx.process.umask);
        } else if preserve.default_mode {
            has.private_until = Some(wanted & !cx.process.umask);
        }
        (wanted, has)
    }

    /// Gives a destination whose data is up to date the attributes that are kept. It is held fast meanwhile.
    pub(crate) fn dress_dest(&mut self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let failed = |errno| place.dest_error(Operation::Permissions, errno);
        let (dir, name) = (place.pair.dest(), place.names.dest);
        let id = self.dest_itself().map(|stat| stat.id);
        // The name itself was found to be up to date.
        let flags = SourceFlags::PLAIN;
        let is_file = self.stat.kind == Kind::File;
        // It may be that it cannot be read, which is found out before anything is changed.
        let source = if is_file {
            Some(self.take_file(cx, place)?)
        } else {
            None
        };
        let opened = if is_file {
            // One that may not be read can still be its owner's to change.
            sys::open_source(dir, name, flags).or_else(|_| sys::pin(dir, name))
        } else {
            sys::pin(dir, name)
        };
        let dest = same(opened, id, Operation::Permissions);
        let dest = dest.map_err(|failure| failed(failure.errno))?;
        let there = sys::fstat(&dest).map_err(failed)?;
        let mut has = Has::found(&there);
        if is_file && !cx.process.superuser && there.mode & 0o200 == 0 && self.must_be_writable(cx)
        {
            // Its owner must be allowed to write what is set.
            if sys::set_mode(&dest, there.mode | 0o200).is_ok() {
                has.private_until = Some(there.mode);
            }
        }
        let from = match &source {
            Some(source) => Subject::Open(source.as_fd()),
            None => Subject::Named(place.pair.source(), place.names.source),
        };
        let to = if is_file || cx.process.has_proc {
            Subject::Open(dest.as_fd())
        } else {
            Subject::Named(dir, name)
        };
        self.dress(cx, place, from, to, has);
        if is_file
            && let Err(errno) = cx.complete(&dest)
            // What is only pinned cannot be synced by itself.
            && errno != Errno::BADF
        {
            cx.error(place.dest_error(Operation::Sync, errno));
        }
        if self.is_tracked(cx) {
            self.made = sys::fstat(&dest).ok().map(|made| MadeFile::of(&made));
        }
        cx.done(What::Dressed, place);
        Ok(())
    }

    /// Dresses what cannot be opened. Who may write the directory can have given its name to another file meanwhile, which
    /// must get nothing: so what has the name is held fast, and looked at: a new one has no other name, as a link to somebody
    /// else's would have.
    pub(crate) fn dress_name(&self, cx: &Context, place: Place<'_>, has: Has) {
        if !self.is_dressed(cx, has) {
            return;
        }
        let (dir, name) = (place.pair.dest(), place.names.dest);
        let source = Subject::Named(place.pair.source(), place.names.source);
        let pinned = sys::pin(dir, name).and_then(|pin| match sys::fstat(&pin)? {
            Stat { kind, nlink, .. } if kind == self.stat.kind && nlink <= 1 => Ok(pin),
            _ => Err(Errno::STALE),
        });
        match pinned {
            Ok(pin) if cx.process.has_proc => {
                self.dress(cx, place, source, Subject::Open(pin.as_fd()), has);
            }
            Ok(_) => self.dress(cx, place, source, Subject::Named(dir, name), has),
            Err(errno) => cx.error(place.dest_error(Operation::Permissions, errno)),
        }
    }

    /// Whether the copy gets any attributes.
    fn is_dressed(&self, cx: &Context, has: Has) -> bool {
        cx.options.preserve.any() || has.private_until.is_some()
    }

    pub(crate) fn dress(
        &self,
        cx: &Context,
        place: Place<'_>,
        source: Subject<'_>,
        dest: Subject<'_>,
        has: Has,
    ) {
        if !self.is_dressed(cx, has) {
            return;
        }
        let preserve = &cx.options.preserve;
        let mut failed = |failure| cx.error(place.explain(failure));
        Attributes::read(source, &self.stat, preserve, &mut failed).give(
            dest,
            preserve,
            &cx.process,
            has,
            &mut failed,
        );
    }
}
