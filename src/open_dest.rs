//! Opening what a regular file's data goes to: a new file under its own name or beside it, one that is there, or one that takes
//! the place of that.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::clear::remove_dest;
use crate::context::Context;
use crate::decide::FilePlan;
use crate::entry::Entry;
use crate::error::{Error, Failure, Operation};
use crate::local::is_overlay;
use crate::meta::{ACCESS_ACL, Attributes, Has, Subject};
use crate::options::{Atomic, Effort, Preserve};
use crate::place::Place;
use crate::staged::{Staged, Taken};
use crate::sys::{self, Errno, Kind, SourceFlags, Stat};

/// New files from this size on take their name when they are complete. That costs some ten microseconds, a hundredth of what
/// it takes to write them; smaller ones are complete in less than a millisecond, and are removed if they fail. (Not where
/// something holds the data up: a limit, or whoever writes to a FIFO; nor where what is there in part would be left alone.)
const BESIDE_FROM: u64 = 4 << 20;

/// A destination that is ready to be filled.
pub(crate) struct Opened<'a> {
    pub dest: Staged<'a>,
    /// What it has already.
    pub has: Has,
    /// What has its name goes when it takes that.
    pub removes: bool,
}

/// What was there.
enum Existing<'a> {
    /// It is open, or another one that is to take its place, with what it has.
    Open(Staged<'a>, Has),
    /// Nothing any more.
    Gone,
    /// What cannot be opened, and may be removed (`-f`).
    Refused,
}

impl Entry {
    /// Makes or opens the destination, and says what it has already.
    pub(crate) fn open_dest<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
        plan: FilePlan,
    ) -> Result<Opened<'a>, Error> {
        // No file can take a name with a slash behind it.
        let is_takeable = !place.names.dest.as_bytes().ends_with(b"/");
        let mut replaces = self.is_replaced_at_once;
        if matches!(plan, FilePlan::Overwrite | FilePlan::Supersede) {
            match self.open_existing(cx, place, plan)? {
                Existing::Open(dest, has) => {
                    return Ok(Opened {
                        dest,
                        has,
                        removes: false,
                    });
                }
                Existing::Gone => {}
                Existing::Refused if cx.options.atomic == Atomic::Never || !is_takeable => {
                    remove_dest(cx, place)?;
                }
                Existing::Refused => replaces = true,
            }
        }
        let (mode, mut has) = self.new_mode(cx, place.dir);
        let (dir, name) = (place.pair.dest(), place.names.dest);
        let beside = match cx.options.atomic {
            Atomic::Auto => {
                !self.stays_under_its_name
                    && (self.stat.size >= BESIDE_FROM
                        || cx.limit.is_some()
                        || cx.options.overwrite.passes_over_parts()
                        || self.stat.kind != Kind::File)
            }
            Atomic::Always => true,
            Atomic::Never => false,
        };
        // Under its name that is told at once.
        let beside = beside && is_takeable;
        // By a rule of cp's, which says so.
        let mut removes = replaces && (cx.options.force || self.is_replaced_at_once);
        // What is in the way is better known before the data is copied than after.
        let made = if replaces {
            match Staged::beside(place, Taken::Yes, mode) {
                Err(Errno::PERM | Errno::ACCESS) if cx.options.atomic == Atomic::Auto => {
                    remove_dest(cx, place)?;
                    removes = false;
                    Staged::create(dir, name, mode)
                }
                made => made,
            }
        } else if !beside {
            Staged::create(dir, name, mode)
        } else if !place.dir.is_fresh() && sys::stat_at(dir, name, false).is_ok() {
            Err(Errno::EXIST)
        } else {
            Staged::beside(place, Taken::No, mode)
        };
        let made = match made {
            // Where nothing can take another name, it is made under its own.
            Err(Errno::PERM | Errno::NAMETOOLONG)
                if beside && cx.options.atomic == Atomic::Auto =>
            {
                Staged::create(dir, name, mode)
            }
            made => made,
        };
        match made {
            Ok(dest) => {
                let created = |errno| create_error(place, errno);
                self.make_writable(cx, &dest, &mut has).map_err(created)?;
                let facts = place.dir.facts().filter(|_| cx.options.preserve.mode);
                has.mode = has.mode.filter(|&mode| {
                    facts.is_some_and(|facts| facts.modes.include(mode, || sys::fstat(&dest.file)))
                });
                Ok(Opened { dest, has, removes })
            }
            Err(Errno::EXIST) => {
                let dest = self.open_taken(cx, place, mode)?;
                Ok(Opened {
                    dest,
                    has,
                    removes: false,
                })
            }
            Err(Errno::ROFS) if removes => Err(place.dest_error(Operation::Remove, Errno::ROFS)),
            Err(errno) => Err(create_error(place, errno)),
        }
    }

    /// Makes sure that a new file can be opened again, and given attributes: the umask, or a default ACL, may not let its owner
    /// write.
    fn make_writable(&self, cx: &Context, dest: &Staged<'_>, has: &mut Has) -> sys::Result<()> {
        let may_forbid = has.acl || cx.process.umask & 0o200 != 0;
        if !may_forbid || !self.must_be_writable(cx) {
            return Ok(());
        }
        let made = sys::fstat(&dest.file)?;
        if made.mode & 0o200 == 0 {
            sys::set_mode(&dest.file, 0o600)?;
            has.mode = None;
            has.private_until = has.private_until.or(Some(made.mode));
        }
        Ok(())
    }

    /// The name of a new file is taken, although it was free a moment ago.
    pub(crate) fn taken(&self, place: Place<'_>) -> Error {
        // In a directory that this run made that can only be what this run made, too: case does not count there.
        if place.dir.is_fresh() {
            place.refused(Operation::JustCreated)
        } else {
            place.dest_error(Operation::CreateFile, Errno::EXIST)
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
        let is_link = sys::stat_at(dir, name, false).is_ok_and(|stat| stat.kind == Kind::Symlink);
        if !is_link || place.dir.is_fresh() {
            return Err(self.taken(place));
        }
        if !cx.options.write_through_dangling {
            return Err(place.refused(Operation::DanglingSymlink));
        }
        if cx.options.atomic == Atomic::Always {
            return Err(place.refused(Operation::NotAtomic));
        }
        let file = sys::create_through_link(dir, name, mode);
        let file = file.map_err(|errno| create_error(place, errno))?;
        Ok(Staged::existing(file, false))
    }

    /// Opens and empties a file that is there, or makes another one that is to take its place.
    fn open_existing<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
        plan: FilePlan,
    ) -> Result<Existing<'a>, Error> {
        let (dir, name) = (place.pair.dest(), place.names.dest);
        let may_look = plan == FilePlan::Supersede
            && is_copied_to_be_opened(place)
            && sys::may_write(dir, name);
        let looked = may_look.then(|| sys::open_source(dir, name, SourceFlags::PLAIN).ok());
        let looked = looked.flatten();
        let is_looked_at = looked.is_some();
        let opened = match looked {
            Some(file) => Ok(file),
            None => sys::open_dest(dir, name, self.dest_flags()),
        };
        let file = match opened {
            Ok(file) => file,
            // Gone since the decision.
            Err(Errno::NOENT) => return Ok(Existing::Gone),
            // It may not be opened, and another one can take its place. What may pass is no reason to remove it.
            Err(errno) if cx.options.force && is_refusal(errno) => return Ok(Existing::Refused),
            Err(Errno::ROFS) if cx.options.force => {
                return Err(place.dest_error(Operation::Remove, Errno::ROFS));
            }
            // Who keeps two trees the same wants it replaced, not written to.
            Err(Errno::ACCESS)
                if plan == FilePlan::Supersede && cx.options.overwrite.compares() =>
            {
                return Ok(Existing::Refused);
            }
            Err(errno) => return Err(create_error(place, errno)),
        };
        let stat = sys::fstat(&file).map_err(|errno| create_error(place, errno))?;
        // Emptying the source would lose it; the name may have changed since the decision.
        if stat.id == self.stat.id {
            return Err(place.refused(Operation::SameFile));
        }
        // Nor is anything emptied but what the decision was about.
        if self.dest_file().is_some_and(|seen| {
            seen.id != stat.id && !self.is_copied_up(place, &file, &stat, &seen)
        }) {
            return Err(create_error(place, Errno::STALE));
        }
        if plan == FilePlan::Supersede {
            match self.supersede(cx, place, &file, &stat) {
                Ok((dest, has)) => return Ok(Existing::Open(dest, has)),
                // To empty the file that is there would be to lose it: it would hardly be filled again.
                Err(errno) if cx.options.atomic == Atomic::Auto && is_shortage(errno) => {
                    return Err(create_error(place, errno));
                }
                Err(_) if cx.options.atomic != Atomic::Auto => {
                    return Err(place.refused(Operation::NotAtomic));
                }
                Err(_) if is_looked_at => {
                    return self.open_existing(cx, place, FilePlan::Overwrite);
                }
                Err(_) => {}
            }
        }
        let mut has = Has::found(&stat);
        if stat.kind == Kind::File && cx.options.preserve.mode && !cx.options.attributes_only {
            // Nobody may read what is coming who may not read the source. Who is not the owner cannot see to that, nor keep its mode.
            let moves = cx.options.preserve.ownership
                && (stat.uid, stat.gid) != (self.stat.uid, self.stat.gid);
            // Whom an ACL names may do what the group's bits say.
            let has_acl = || sys::has_xattr(&file, ACCESS_ACL).unwrap_or(true);
            let kept = if moves || (stat.mode & 0o070 != 0 && has_acl()) {
                0o700
            } else {
                0o777
            };
            let narrow = stat.mode & (self.stat.mode | 0o600) & kept;
            if narrow != stat.mode && sys::set_mode(&file, narrow).is_ok() {
                has.old_mode = None;
            }
        }
        if stat.kind == Kind::File && !cx.options.attributes_only {
            // The kernel takes special bits away from what others than the superuser empty, be it empty already.
            let emptied = if stat.size > 0 || stat.mode & 0o6000 != 0 {
                sys::set_size(&file, 0)
            } else {
                // It is written now even if there is nothing to write.
                sys::touch(&file).or_else(|_| sys::set_size(&file, 0))
            };
            emptied.map_err(|errno| create_error(place, errno))?;
        }
        let dest = Staged::existing(file, stat.kind != Kind::File);
        Ok(Existing::Open(dest, has))
    }

    /// Whether the file that was `seen` is the one that is open now, which the filesystem has made of it in order to open it.
    fn is_copied_up(&self, place: Place<'_>, file: &OwnedFd, now: &Stat, seen: &Stat) -> bool {
        let facts = |stat: &Stat| {
            (
                stat.kind,
                stat.mode,
                stat.uid,
                stat.gid,
                stat.size,
                stat.times.modified,
            )
        };
        let flags = self.dest_flags();
        let named = sys::stat_at(place.pair.dest(), place.names.dest, flags.follow);
        is_overlay(file) && facts(now) == facts(seen) && named.is_ok_and(|named| named.id == now.id)
    }

    /// Makes a file that is to take the place of one that is there, and has all that is known about that one but its data.
    ///
    /// # Errors
    ///
    /// Whatever makes it impossible: the directory may not be written, or the owner cannot be given.
    fn supersede<'a>(
        &self,
        cx: &Context,
        place: Place<'a>,
        file: &OwnedFd,
        stat: &Stat,
    ) -> sys::Result<(Staged<'a>, Has)> {
        // Not the file that was decided about.
        if stat.kind != Kind::File || stat.nlink != 1 {
            return Err(Errno::STALE);
        }
        let preserve = Preserve {
            timestamps: false,
            links: false,
            xattrs: Effort::Required,
            context: Effort::Required,
            ..Preserve::all()
        };
        let mut first = Ok(());
        let mut failed = |failure: Failure| first = Err(failure.errno);
        let there = Subject::Open(file.as_fd());
        let attributes = Attributes::read(there, stat, &preserve, &mut failed);
        if attributes.change_with_data() {
            return Err(Errno::OPNOTSUPP);
        }
        let dest = Staged::beside(place, Taken::Yes, 0o600)?;
        let made = sys::fstat(&dest.file)?;
        let has = Has {
            owner: Some((made.uid, made.gid)),
            mode: Some(made.mode),
            acl: place.dir.facts().is_none_or(|facts| facts.default_acl),
            ..Has::default()
        };
        let subject = Subject::Open(dest.file.as_fd());
        attributes.give(subject, &preserve, &cx.process, has, &mut failed);
        first?;
        let given = sys::fstat(&dest.file)?;
        let is_twin = (given.uid, given.gid, given.mode) == (stat.uid, stat.gid, stat.mode)
            && sys::inode_flags(&dest.file) == sys::inode_flags(file)
            && attributes.agree_in_own(there, subject);
        if !is_twin {
            return Err(Errno::PERM);
        }
        // It could have that file's attributes. It gets the source's at the end, and nobody who may not read that must be able
        // to read it before.
        let mut has = Has {
            old_mode: None,
            ..Has::found(&given)
        };
        if cx.options.preserve.mode {
            sys::set_mode(&dest.file, 0o600)?;
            if cx.options.preserve.ownership && given.uid != made.uid {
                sys::set_owner(&dest.file, Some(made.uid), Some(made.gid))?;
                has.owner = Some((made.uid, made.gid));
            }
        }
        Ok((dest, has))
    }
}

/// Whether a file is not to be opened for writing, now or later, by this user.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ACCESS
            | Errno::PERM
            | Errno::TXTBSY
            | Errno::LOOP
            | Errno::NXIO
            | Errno::ISDIR
            | Errno::NODEV
    )
}

/// Whether a file that is there may be copied as a whole when it is opened for writing, which is in vain for one that is going to be
/// replaced.
fn is_copied_to_be_opened(place: Place<'_>) -> bool {
    match place.dir.facts() {
        Some(facts) => facts.ladder.copies_up,
        None => sys::pin(place.pair.dest(), place.names.dest).is_ok_and(is_overlay),
    }
}

/// Whether a filesystem has no room for another file, or nothing works any more.
fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM
    )
}

/// A regular file could not be made. `open("new/", O_CREAT)` says "is a directory" of something that is not there.
pub(crate) fn create_error(place: Place<'_>, errno: Errno) -> Error {
    let slash = place.names.dest.as_bytes().ends_with(b"/");
    let errno = if errno == Errno::ISDIR && slash {
        Errno::NOTDIR
    } else {
        errno
    };
    place.dest_error(Operation::CreateFile, errno)
}
