//! A source's leading directories, made in the target as well (`--parents`).
//!
//! `cp --parents a/b/file target` makes `target/a` and `target/a/b` like `a` and `a/b`, then copies the file, and then gives
//! those directories what is kept of their attributes: later, because the copy changes their times and may need more
//! permission than they will have.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::entry::same;
use crate::error::{Error, Failure, Operation, failed};
use crate::meta::{Attributes, Has, Subject};
use crate::options::{Effort, Preserve};
use crate::path::{join, strip_slashes};
use crate::plan::Root;
use crate::sys::{self, Errno, FileId, Kind, SourceFlags, Stat};

/// A leading directory that gets its attributes at the end.
struct Parent {
    source: PathBuf,
    source_stat: Stat,
    dest: PathBuf,
    /// What `dest` led to when it was made or found: nothing else gets the attributes.
    dest_id: FileId,
    /// The mode that it could not be made with.
    private_until: Option<u32>,
    /// It was there.
    is_found: bool,
}

/// The leading directories of one operand, outermost first.
#[derive(Default)]
pub(crate) struct Parents(Vec<Parent>);

impl Parents {
    /// Makes those that are missing. What fails is told, and the operand cannot be copied then.
    pub(crate) fn make(cx: &Context, root: &Root) -> Result<Self, Error> {
        let Some(target) = &root.within else {
            return Ok(Self::default());
        };
        let mut made = Self::default();
        let (above, _) = crate::path::split(root.dest.as_os_str());
        match sys::stat_at(sys::cwd(), above, true) {
            // Nothing to make: then nothing is changed, either.
            Ok(stat) if stat.kind == Kind::Dir => return Ok(made),
            Ok(_) => {
                let above = strip_slashes(Path::new(above));
                return Err(Error::new(Operation::NotADirectory, above));
            }
            Err(_) => {}
        }
        for source in leading_directories(strip_slashes(&root.source)) {
            let dest = join(target, source.as_os_str());
            made.0.extend(make_one(cx, source, dest)?);
        }
        Ok(made)
    }

    /// Gives them what is kept, the innermost first.
    pub(crate) fn dress(&self, cx: &Context) {
        if cx.options.dry_run {
            return;
        }
        // As cp does: extended attributes of these are not kept, nor do they lose an ACL for the default mode.
        let preserve = Preserve {
            xattrs: Effort::No,
            context: Effort::No,
            default_mode: false,
            ..cx.options.preserve
        };
        for parent in self.0.iter().rev() {
            let mut failed = |failure: Failure| {
                let operation = match failure.operation {
                    Operation::Times => Operation::ParentTimes,
                    Operation::Permissions => Operation::ParentPermissions,
                    other => other,
                };
                cx.error(Error::new(operation, &parent.dest).with_errno(failure.errno));
            };
            let opened = sys::open_dest_dir(sys::cwd(), parent.dest.as_os_str(), true);
            let dest = match same(opened, Some(parent.dest_id), Operation::ParentTimes) {
                Ok(dest) => dest,
                Err(failure) => {
                    failed(failure);
                    continue;
                }
            };
            let flags = SourceFlags {
                follow: true,
                wait: false,
                no_atime: cx.process.superuser,
            };
            let source = sys::open_source_dir(sys::cwd(), parent.source.as_os_str(), flags);
            let attributes = match &source {
                Ok(source) => {
                    let source = Subject::Open(source.as_fd());
                    Attributes::read(source, &parent.source_stat, &preserve, &mut failed)
                }
                // What may not be read has no ACL that could be known.
                Err(_) => Attributes::without_xattrs(&parent.source_stat),
            };
            let found = sys::fstat(&dest).ok().filter(|_| parent.is_found);
            let has = Has::of_dir(found.as_ref(), true, parent.private_until);
            let dest = Subject::Open(dest.as_fd());
            attributes.give(dest, &preserve, &cx.process, has, &mut failed);
        }
    }
}

/// `a`, `a/b` of `a/b/c`; `/a` of `/a/b`.
fn leading_directories(path: &Path) -> impl Iterator<Item = &Path> {
    let bytes = path.as_os_str().as_bytes();
    let ends = (1..bytes.len()).filter(|&at| bytes[at] == b'/' && bytes[at - 1] != b'/');
    ends.map(|end| Path::new(OsStr::from_bytes(&bytes[..end])))
}

/// Makes one leading directory, if it is missing; `None` if nothing is left to do about it.
fn make_one(cx: &Context, source: &Path, dest: PathBuf) -> Result<Option<Parent>, Error> {
    let preserve = &cx.options.preserve;
    let there = sys::stat_at(sys::cwd(), dest.as_os_str(), true);
    if let Ok(stat) = &there
        && stat.kind != Kind::Dir
    {
        return Err(Error::new(Operation::NotADirectory, dest));
    }
    let found = there.ok();
    let is_missing = found.is_none();
    let keeps = preserve.ownership || preserve.mode || preserve.timestamps;
    if !is_missing && !keeps {
        return Ok(None);
    }
    let source_stat = match sys::stat_at(sys::cwd(), source.as_os_str(), true) {
        Ok(stat) if stat.kind == Kind::Dir => stat,
        looked => {
            let errno = looked.err().unwrap_or(Errno::NOTDIR);
            return Err(Error::new(Operation::ParentFacts, source).with_errno(errno));
        }
    };
    let is_found = found.is_some();
    let (dest_id, private_until) = match found {
        Some(found) => (found.id, None),
        None if cx.options.dry_run => {
            if cx.rehearse_parent(&dest) {
                cx.made_parent(source, &dest);
            }
            return Ok(None);
        }
        None => make_missing(cx, source, &source_stat, &dest)?,
    };
    Ok(Some(Parent {
        source: source.to_owned(),
        source_stat,
        dest,
        dest_id,
        private_until,
        is_found,
    }))
}

/// Makes a directory that its owner can write and, if ownership is to come, nobody else can enter. Returns what it is, and the
/// mode that it gets at the end, if that is another.
fn make_missing(
    cx: &Context,
    source: &Path,
    source_stat: &Stat,
    dest: &Path,
) -> Result<(FileId, Option<u32>), Error> {
    let preserve = &cx.options.preserve;
    let wanted = if preserve.default_mode {
        0o777
    } else {
        source_stat.mode
    };
    let omitted = if preserve.ownership {
        source_stat.mode & 0o077
    } else if preserve.mode {
        source_stat.mode & 0o022
    } else {
        0
    };
    let error = |operation, errno| Error::new(operation, dest).with_errno(errno);
    sys::make_dir(sys::cwd(), dest.as_os_str(), wanted & 0o1777 & !omitted)
        .map_err(|errno| error(Operation::CreateParent, errno))?;
    cx.made_parent(source, dest);
    let stat = sys::stat_at(sys::cwd(), dest.as_os_str(), false)
        .map_err(|errno| error(Operation::ParentFacts, errno))?;
    if stat.kind != Kind::Dir {
        // Who may write the target has put something in its place.
        return Err(error(Operation::ParentFacts, Errno::STALE));
    }
    let mode_at_end = stat.mode | (omitted & !cx.process.umask);
    if stat.mode & 0o700 != 0o700 {
        let pinned = same(
            sys::pin(sys::cwd(), dest.as_os_str()),
            Some(stat.id),
            Operation::SetPermissions,
        );
        pinned
            .and_then(|dir| {
                let mode = stat.mode | 0o700;
                let set = if cx.process.has_proc {
                    sys::set_mode(&dir, mode)
                } else {
                    sys::set_mode_at(sys::cwd(), dest.as_os_str(), mode)
                };
                set.map_err(failed(Operation::SetPermissions))
            })
            .map_err(|failure| error(failure.operation, failure.errno))?;
    }
    let differs = mode_at_end != stat.mode || stat.mode & 0o700 != 0o700;
    Ok((stat.id, differs.then_some(mode_at_end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_directories_are_whole_components() {
        let of = |path: &'static str| -> Vec<_> {
            let paths = leading_directories(Path::new(path));
            paths
                .map(|path| path.to_str().unwrap_or_default())
                .collect()
        };
        assert_eq!(of("a/b/c"), ["a", "a/b"]);
        assert_eq!(of("/a//b/c"), ["/a", "/a//b"]);
        assert_eq!(of("a"), [""; 0]);
        assert_eq!(of("./a"), ["."]);
    }
}
