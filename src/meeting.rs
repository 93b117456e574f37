//! How the operands of one copy may get into each other's way, as far as paths tell before it begins. What comes of it is
//! watched while it runs (`operands.rs`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Operation};
use crate::options::{Follow, Options};
use crate::path::split;
use crate::plan::Root;
use crate::sys::{self, Kind};

/// How operands may get into each other's way. Unless they never do, they are copied one after the other, as `cp` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Never,
    /// One may meet what another one's copy made or changes: two have the same destination, one merges with the directory that
    /// the others go into, one's source is another's destination, one has the name of another's backup, or their leading
    /// directories are made.
    Possible,
    /// The same file may be copied twice: an operand is, or is inside, another one.
    Twice,
}

impl Meeting {
    /// How these may.
    pub(crate) fn of(roots: &[Root], options: &Options) -> Self {
        if roots.len() < 2 {
            return Self::Never;
        }
        let mut resolver = Resolver::default();
        let mut sources = Vec::new();
        // Both ends of all, links followed as the copy follows them.
        let mut ends = Vec::new();
        for root in roots {
            // What cannot be found will not be copied.
            sources.extend(resolver.resolve(&root.source, false));
            ends.extend(resolver.resolve(&root.source, options.follow != Follow::Never));
            ends.extend(resolver.resolve(&root.dest, false));
        }
        if any_overlap(sources) {
            return Self::Twice;
        }
        let may_be_backup = |dest: &Path| options.may_be_backup(dest.as_os_str());
        let may_meet = |root: &Root| {
            root.within.is_some() || has_other_names(&root.dest) || may_be_backup(&root.dest)
        };
        if any_overlap(ends) || roots.iter().any(may_meet) {
            Self::Possible
        } else {
            Self::Never
        }
    }
}

/// Refuses destinations in which deleting would take away what belongs to this copy.
pub(crate) fn refuse_pruning(roots: &[Root], options: &Options) -> Result<(), Error> {
    let mut resolver = Resolver::default();
    let mut dests = Vec::new();
    for root in roots {
        let Some(dest) = resolver.resolve(&root.dest, options.keep_directory_symlink) else {
            continue;
        };
        for other in roots {
            let Some(source) = resolver.resolve(&other.source, true) else {
                continue;
            };
            if source == dest {
                continue;
            }
            let refused = if source.starts_with(&dest) {
                Some(Operation::SourceInDest)
            } else {
                // Some of it could be gone before it is met.
                let copied = resolver.resolve(&other.source, options.follow != Follow::Never);
                let meets = copied.is_some_and(|copied| meets(&copied, &dest, options));
                meets.then_some(Operation::IntoItself)
            };
            if let Some(operation) = refused {
                let error = Error::new(operation, &root.dest);
                return Err(error.with_other(&other.source));
            }
        }
        dests.push((dest, &root.dest));
    }
    dests.sort_unstable();
    match dests.windows(2).find(|two| two[1].0.starts_with(&two[0].0)) {
        Some(two) => Err(Error::new(Operation::SharedDest, two[0].1)),
        None => Ok(()),
    }
}

/// Whether a destination that is inside of a source is met while that is copied.
fn meets(source: &Path, dest: &Path, options: &Options) -> bool {
    let Ok(inner) = dest.strip_prefix(source) else {
        return false;
    };
    if inner.as_os_str().is_empty() || options.filter.may_drop_dir(inner) {
        return false;
    }
    let dev = |path: &Path| {
        let stat = sys::stat_at(sys::cwd(), path.as_os_str(), false);
        stat.map(|stat| stat.id.dev).ok()
    };
    // A directory on another filesystem is made, and not read.
    let mut between = dest.ancestors().skip(1).take_while(|path| *path != source);
    !(options.one_file_system && between.any(|path| dev(path) != dev(source)))
}

/// Whether one path is another, or is inside it.
fn any_overlap(mut paths: Vec<PathBuf>) -> bool {
    // What is inside a directory comes right behind it.
    paths.sort_unstable();
    paths.windows(2).any(|two| two[1].starts_with(&two[0]))
}

/// Whether a destination is a link, or has other names: then it may be another operand's source or destination.
fn has_other_names(dest: &Path) -> bool {
    let stat = sys::stat_at(sys::cwd(), dest.as_os_str(), false);
    stat.is_ok_and(|stat| stat.kind != Kind::Dir && (stat.nlink > 1 || stat.kind == Kind::Symlink))
}

/// Finds where paths lead. Operands usually share their directory, which is looked for once.
#[derive(Default)]
struct Resolver {
    dirs: HashMap<OsString, Option<PathBuf>>,
}

impl Resolver {
    /// The path without links, but for one at its end if that is not followed; `None` if it leads nowhere.
    fn resolve(&mut self, path: &Path, follow: bool) -> Option<PathBuf> {
        let (dir, name) = split(path.as_os_str());
        let leads_on = match name.as_bytes() {
            b"" | b"." | b".." => true,
            // A slash behind a link follows it.
            _ if path.as_os_str().as_bytes().ends_with(b"/") => {
                Path::new(dir).join(name).is_symlink()
            }
            _ => follow && path.is_symlink(),
        };
        if leads_on {
            return path.canonicalize().ok();
        }
        if !self.dirs.contains_key(dir) {
            let resolved = Path::new(dir).canonicalize().ok();
            self.dirs.insert(dir.to_owned(), resolved);
        }
        Some(self.dirs.get(dir)?.as_ref()?.join(name))
    }
}
