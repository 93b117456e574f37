//! Making a regular file: opened (`open_dest.rs`), filled, verified, and given its name.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::chunks::{self, Ends};
use crate::closing;
use crate::context::Context;
use crate::counters::Count;
use crate::data::{self, Transfer};
use crate::decide::FilePlan;
use crate::durable::ONE_PIECE;
use crate::entry::{Entry, same};
use crate::error::{Error, Failure, Operation};
use crate::file::file_with;
use crate::handles::Tables;
use crate::ladder::{Holes, How, Ladder};
use crate::links::MadeFile;
use crate::live::Shown;
use crate::meta::{Has, Subject};
use crate::open_dest::{Opened, create_error};
use crate::options::{Atomic, Overwrite};
use crate::place::Place;
use crate::staged::{Staged, Uncommitted};
use crate::sys::{self, Errno, Kind, SourceFlags, Stat, Times};
use crate::verify::Written;

impl Entry {
    pub(crate) fn make_file(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        plan: FilePlan,
    ) -> Result<Option<How>, Error> {
        let source = self.take_file(cx, place)?;
        let facts = place.dir.facts();
        self.stays_under_its_name |=
            facts.is_some_and(|facts| !facts.ladder.renames.load(Ordering::Relaxed));
        let plan = if plan == FilePlan::Supersede
            && self.stays_under_its_name
            && cx.options.atomic == Atomic::Auto
        {
            FilePlan::Overwrite
        } else {
            plan
        };
        let Opened { dest, has, removes } = self.open_dest(cx, place, plan)?;
        // Borrowed where it can be: all workers would count references to one ladder otherwise, at every file.
        let own;
        let ladder = match place.dir.facts() {
            Some(facts) => &*facts.ladder,
            None => {
                // Where there is no pool there is no tuner to tell.
                if rayon::current_thread_index().is_some() {
                    cx.meet_source(self.stat.id.dev, &source);
                }
                own = self.ladder(cx, &source, &dest.file);
                &*own
            }
        };
        let how = match self.complete(cx, place, source.as_fd(), (&dest, has), ladder) {
            Ok(how) => how,
            Err(error) => {
                if cx.options.overwrite == Overwrite::IfOlder && !dest.is_stream {
                    // What stays in part must not be taken for newer by whoever goes on. Refused, it is.
                    let _ = sys::set_times(&dest.file, older(self.stat.times));
                }
                if let Err(errno) = dest.discard() {
                    cx.error(place.dest_error(Operation::Remove, errno));
                }
                return Err(error);
            }
        };
        let is_silent = place.dir.facts().is_some_and(|facts| facts.closes_silently);
        let committed = dest
            .commit(is_silent)
            .map_err(|Uncommitted { failure, left }| {
                if let Some((name, errno)) = left {
                    // None after it shall stay, too.
                    ladder.renames.store(false, Ordering::Relaxed);
                    let name = Path::new(&name)
                        .strip_prefix(".")
                        .unwrap_or(Path::new(&name));
                    let error =
                        Error::new(Operation::Remove, place.dir.dest_path(name.as_os_str()));
                    cx.error(error.with_errno(errno));
                }
                failure
            });
        match committed {
            Ok(()) => {}
            // The name cannot go to another inode: something is mounted on it, or the directory is special, or the filesystem.
            Err(failure)
                if failure.operation == Operation::Commit
                    && is_renaming_refused(failure.errno)
                    && cx.options.atomic == Atomic::Auto
                    && !removes
                    && self.stat.kind == Kind::File
                    && !self.stays_under_its_name =>
            {
                if matches!(failure.errno, Errno::NOSYS | Errno::OPNOTSUPP) {
                    ladder.renames.store(false, Ordering::Relaxed);
                }
                self.stays_under_its_name = true;
                return self.make_file(cx, place, plan);
            }
            Err(Failure {
                operation: Operation::Commit,
                errno: errno @ (Errno::BUSY | Errno::PERM | Errno::ACCESS),
            }) if removes => return Err(place.dest_error(Operation::Remove, errno)),
            Err(Failure {
                operation: Operation::Commit,
                errno: Errno::EXIST,
            }) => return Err(self.taken(place)),
            Err(failure) => return Err(place.explain(failure)),
        }
        if removes {
            cx.tell_removed(place);
        }
        closing::close(source);
        self.remember_name(cx, place);
        cx.done(file_with(cx, plan), place);
        if !cx.options.attributes_only {
            cx.counters.add(Count::Bytes, self.stat.size);
        }
        Ok(how)
    }

    /// Gives a new file all that it gets but its name.
    fn complete(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        source: BorrowedFd<'_>,
        (dest, has): (&Staged<'_>, Has),
        ladder: &Ladder,
    ) -> Result<Option<How>, Error> {
        let unsynced = |errno| place.dest_error(Operation::Sync, errno);
        let how = if cx.options.attributes_only {
            None
        } else {
            let how = self.fill(cx, place, source, dest, ladder)?;
            // What is empty, or verified, has nothing that is not on the device.
            if self.stat.size > 0 && !cx.options.verify {
                cx.filled(&dest.file, self.is_in_one_piece(how))
                    .map_err(unsynced)?;
            }
            Some(how)
        };
        self.dress(
            cx,
            place,
            Subject::Open(source),
            Subject::Open(dest.file.as_fd()),
            has,
        );
        cx.complete(&dest.file).map_err(unsynced)?;
        if self.is_tracked(cx) {
            let made = sys::fstat(&dest.file);
            let made = made.map_err(|errno| create_error(place, errno))?;
            self.made = Some(MadeFile::of(&made));
        }
        Ok(how)
    }

    /// Whether the copy's data is written back in one piece: a hole at its end, or a later part, would give it its full size
    /// before.
    fn is_in_one_piece(&self, how: How) -> bool {
        how.holes == Holes::No && self.stat.size < ONE_PIECE
    }

    /// Copies the data; once more if the source changed meanwhile. One that does not stop changing is told.
    fn fill(
        &mut self,
        cx: &Context,
        place: Place<'_>,
        source: BorrowedFd<'_>,
        dest: &Staged<'_>,
        ladder: &Ladder,
    ) -> Result<How, Error> {
        let written = (cx.options.verify && !dest.is_stream).then(Written::default);
        let written = written.as_ref();
        let underway = &cx.counters.underway;
        let shown = &underway.show(self.stat.size, || place.source_path());
        let ends = (source, dest, shown);
        let (mut how, mut changed) = self.transfer(cx, place, ends, ladder, written)?;
        if let Some(now) = changed
            && !dest.is_stream
        {
            self.stat = now;
            data::empty(source, dest.file.as_fd()).map_err(|failure| place.explain(failure))?;
            written.into_iter().for_each(Written::clear);
            shown.begin_again(now.size);
            (how, changed) = self.transfer(cx, place, ends, ladder, written)?;
        }
        if let Some(written) = written {
            shown.begin_verifying();
            self.verify(cx, place, (dest, shown), written)
                .map_err(|failure| place.explain(failure))?;
        }
        if changed.is_some_and(|now| data::is_written(&self.stat, &now)) {
            cx.error(Error::new(Operation::Changed, place.source_path()));
        }
        Ok(how)
    }

    fn transfer(
        &self,
        cx: &Context,
        place: Place<'_>,
        (source, dest, shown): (BorrowedFd<'_>, &Staged<'_>, &Shown<'_>),
        ladder: &Ladder,
        written: Option<&Written>,
    ) -> Result<(How, Option<Stat>), Error> {
        let reopen = self.reopener(cx, place, source, dest)?;
        let check = || {
            written.map_or(Ok(()), |written| {
                self.verify(cx, place, (dest, shown), written)
            })
        };
        let transfer = Transfer {
            source,
            dest: dest.file.as_fd(),
            stat: &self.stat,
            in_sequence: dest.is_stream,
            reflink: cx.options.reflink,
            sparse: cx.options.sparse,
            ladder,
            counters: &cx.counters,
            shown,
            written,
            check: &check,
            canceller: cx.canceller(),
            limit: cx.limit.as_ref(),
            max_nested: cx.max_nested,
            reopen: &reopen,
        };
        transfer.run().map_err(|failure| place.explain(failure))
    }

    /// Reads back what was written.
    fn verify(
        &self,
        cx: &Context,
        place: Place<'_>,
        (dest, shown): (&Staged<'_>, &Shown<'_>),
        written: &Written,
    ) -> Result<(), Failure> {
        let flags = SourceFlags {
            follow: dest.name().is_none() && self.dest_flags().follow,
            ..SourceFlags::PLAIN
        };
        let name = dest.name().unwrap_or(place.names.dest);
        let id = sys::fstat(&dest.file).map(|stat| stat.id).ok();
        let file = sys::open_source(place.pair.dest(), name, flags);
        written.check(&same(file, id, Operation::Verify)?, cx, shown)
    }

    /// How another worker comes to descriptors of its own for a part of this file. `None` is the answer where the opener's
    /// can be used: on its own thread, or where all share one table.
    fn reopener<'a>(
        &'a self,
        cx: &'a Context,
        place: Place<'a>,
        source: BorrowedFd<'_>,
        dest: &'a Staged<'_>,
    ) -> Result<impl Fn() -> Result<Option<Ends>, Failure> + Sync + 'a, Error> {
        let opener = rayon::current_thread_index();
        let shared = cx.handles.tables() == Tables::Shared;
        let dest_name = dest.name().unwrap_or(place.names.dest);
        // Only a file that is cut into chunks needs it.
        let dest_id = if shared || !chunks::is_large(&self.stat) {
            None
        } else {
            let stat = sys::fstat(&dest.file);
            Some(stat.map_err(|errno| create_error(place, errno))?.id)
        };
        // And what is open, by whom, in case it loses its name meanwhile.
        let open = dest_id.map(|_| (sys::thread_id(), source.as_raw_fd(), dest.file.as_raw_fd()));
        Ok(move || {
            if shared || rayon::current_thread_index() == opener {
                return Ok(None);
            }
            let pair = cx.handles.open(place.dir).map_err(|error| Failure {
                operation: error.operation(),
                errno: error.errno().map_or(Errno::STALE, Errno::from_raw_os_error),
            })?;
            let flags = SourceFlags {
                follow: self.followed,
                wait: false,
                no_atime: place.dir.no_atime(&cx.process),
            };
            let again = |which: fn((i32, RawFd, RawFd)) -> (i32, RawFd), is_written| {
                let (thread, number) = open.map(which).ok_or(Errno::STALE)?;
                sys::open_again(thread, number, is_written)
            };
            let id = Some(self.stat.id);
            let source = sys::open_source(pair.source(), place.names.source, flags);
            let source = same(source, id, Operation::Open).or_else(|failure| {
                let again = again(|(thread, source, _)| (thread, source), false);
                same(again, id, Operation::Open).map_err(|_| failure)
            })?;
            let dest = sys::open_dest(pair.dest(), dest_name, self.dest_flags());
            let dest = same(dest, dest_id, Operation::CreateFile).or_else(|failure| {
                let again = again(|(thread, _, dest)| (thread, dest), true);
                same(again, dest_id, Operation::CreateFile).map_err(|_| failure)
            })?;
            Ok(Some(Ends { source, dest }))
        })
    }

    /// The rungs for an operand.
    fn ladder(&self, cx: &Context, source: &OwnedFd, dest: &OwnedFd) -> Arc<Ladder> {
        match sys::fstat(dest) {
            Ok(stat) => cx.ladder((self.stat.id.dev, source), (stat.id.dev, dest)),
            // Unknown: try every rung.
            Err(_) => Arc::new(Ladder::between(source, dest)),
        }
    }
}

/// Times at which a copy would be older than its source.
fn older(source: Times) -> Times {
    let (seconds, _) = source.modified;
    Times {
        modified: (seconds.saturating_sub(1), 0),
        ..source
    }
}

/// Whether a file cannot have another name, where that has nothing to do with what it is.
fn is_renaming_refused(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::BUSY
            | Errno::PERM
            | Errno::ACCESS
            | Errno::XDEV
            | Errno::NOSYS
            | Errno::OPNOTSUPP
            | Errno::INVAL
    )
}
