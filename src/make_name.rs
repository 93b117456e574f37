//! Making what is only a name and attributes: symbolic links, further names, FIFOs, sockets and devices.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStringExt;

use crate::context::Context;
use crate::entry::Entry;
use crate::error::{Error, Operation};
use crate::meta::Has;
use crate::observer::What;
use crate::options::Overwrite;
use crate::path::split;
use crate::place::{Names, Place};
use crate::staged::replace;
use crate::sys::{self, Errno, Kind};

impl Entry {
    pub(crate) fn make_symlink(&mut self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let text = read_link(place)?;
        let (dir, name) = (place.pair.dest(), place.names.dest);
        // As with cp, a link that is there already and older only has to say the same.
        let is_there = || {
            cx.options.overwrite == Overwrite::IfOlder
                && sys::read_link(dir, name).is_ok_and(|there| there == text)
        };
        let make = |name: &OsStr| sys::make_symlink(&text, dir, name);
        match make(name) {
            Err(Errno::EXIST) if place.dir.is_fresh() => {
                // Names that differ in the source and not here.
                return Err(place.refused(Operation::JustCreated));
            }
            Err(Errno::EXIST) if cx.options.force => replace(place, make),
            Err(Errno::EXIST) if is_there() => Ok(()),
            made => made,
        }
        .map_err(|errno| {
            Error::new(Operation::CreateSymlink, place.dest_path()).with_errno(errno)
        })?;
        self.dress_name(cx, place, Has::default());
        self.remember_name(cx, place);
        cx.done(What::Symlink, place);
        Ok(())
    }

    /// Makes a symbolic link to the source itself (`-s`).
    pub(crate) fn make_link_to_source(
        &mut self,
        cx: &Context,
        place: Place<'_>,
    ) -> Result<(), Error> {
        let text = path_to_source(place)?;
        let error = |errno| place.dest_error(Operation::CreateSymlinkTo, errno);
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
        cx.done(What::Symlink, place);
        Ok(())
    }

    /// Makes another name of the source (`-l`).
    pub(crate) fn make_hard_link(&mut self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
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
        cx.done(What::HardLink, place);
        Ok(())
    }

    pub(crate) fn make_special(&mut self, cx: &Context, place: Place<'_>) -> Result<(), Error> {
        let operation = create_special(self.stat.kind);
        let (mode, mut has) = self.new_mode(cx, place.dir);
        // So few that it is not worth looking whether they have it.
        has.mode = None;
        let (dir, name) = (place.pair.dest(), place.names.dest);
        sys::make_special(dir, name, self.stat.kind, mode, self.stat.rdev)
            .map_err(|errno| place.dest_error(operation, errno))?;
        self.dress_name(cx, place, has);
        self.remember_name(cx, place);
        cx.done(What::Special, place);
        Ok(())
    }
}

/// What a symbolic link says that is copied.
pub(crate) fn read_link(place: Place<'_>) -> Result<CString, Error> {
    sys::read_link(place.pair.source(), place.names.source)
        .map_err(|errno| place.source_error(Operation::ReadLink, errno))
}

/// What a symbolic link to the source says.
pub(crate) fn path_to_source(place: Place<'_>) -> Result<CString, Error> {
    let source = place.source_path();
    if source.is_relative() && !is_in_working_dir(place) {
        let dest = place.dest_path();
        return Err(Error::new(Operation::RelativeSymlink, dest));
    }
    CString::new(source.into_os_string().into_vec())
        // Not reachable: a path that was looked at has no NUL.
        .map_err(|_| place.dest_error(Operation::CreateSymlinkTo, Errno::INVAL))
}

/// What it is called to make one.
pub(crate) fn create_special(kind: Kind) -> Operation {
    if kind == Kind::Fifo {
        Operation::CreateFifo
    } else {
        Operation::CreateSpecial
    }
}

/// Whether a destination is in the working directory, or could not be made.
fn is_in_working_dir(place: Place<'_>) -> bool {
    // The name may be a path from the directory that is open.
    let (parent, _) = split(place.names.dest);
    let parent = sys::stat_at(place.pair.dest(), parent, true);
    let here = sys::stat_at(sys::cwd(), OsStr::new("."), true);
    match (parent, here) {
        (Ok(parent), Ok(here)) => parent.id == here.id,
        _ => true,
    }
}
