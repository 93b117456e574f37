//! What a source directory holds: its names, what each of them is, and which are copied. The only user of jwalk.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::dir::Dir;
use crate::error::{Error, Operation};
use crate::filter::NameFilter;
use crate::handles::Pair;
use crate::lock::lock;
use crate::options::{Delete, Follow};
use crate::sys::{self, Errno, Kind};

/// A name that is to be copied, and what it is.
pub(crate) struct Listed {
    pub name: OsString,
    pub kind: Kind,
    /// A symbolic link that was followed to find its kind.
    pub follow: bool,
}

/// The order that what is in a directory is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Whichever is the filesystem's.
    Listing,
    /// That of the inodes, which is also `cp`'s. It costs a second listing.
    Inodes,
}

/// What of a directory is to be copied. Errors are told.
pub(crate) fn list(cx: &Context, dir: &Dir, pair: &Pair, order: Order) -> Vec<Listed> {
    let Listing { names, failed } = read(pair);
    if let Some(errno) = failed {
        let path = dir.source_path("".as_ref());
        cx.error(Error::new(Operation::List, path).with_errno(errno));
    }
    let deletes = cx.options.delete;
    let prunes = deletes != Delete::Nothing && !dir.is_fresh() && failed.is_none();
    let names = match order {
        Order::Listing => names,
        Order::Inodes => sort_by_inode(pair, names),
    };
    let listed = select(cx, dir, pair, names);
    if prunes {
        // What the filter leaves out is not among them: whether it protects what has the name there, that thing's kind says.
        dir.keep_names(listed.iter().map(|listed| listed.name.clone()).collect());
    }
    let dirs = listed.iter().filter(|listed| listed.kind == Kind::Dir);
    cx.counters.found(listed.len() as u64, dirs.count() as u64);
    cx.counters.underway.end_unlisted();
    listed
}

/// Sorts names, as they were just listed, by the numbers of their inodes: the order in which filesystems give inodes and data a
/// place on the disk. If they are listed differently by now, each is looked at; what cannot be is an error in any order.
fn sort_by_inode(pair: &Pair, mut names: Vec<(OsString, Kind)>) -> Vec<(OsString, Kind)> {
    let listed = sys::inodes(pair.source(), names.iter().map(|(name, _)| &**name));
    let Ok(Some(inodes)) = listed else {
        names.sort_by_cached_key(|(name, _)| {
            let looked = sys::stat_at(pair.source(), name, false);
            looked.map_or(0, |stat| stat.id.ino)
        });
        return names;
    };
    let mut numbered: Vec<_> = inodes.into_iter().zip(names).collect();
    numbered.sort_by_key(|(inode, _)| *inode);
    numbered.into_iter().map(|(_, name)| name).collect()
}

/// Leaves out what the filter does, and finds out what the others are.
fn select(cx: &Context, dir: &Dir, pair: &Pair, names: Vec<(OsString, Kind)>) -> Vec<Listed> {
    let filter = NameFilter::of(&cx.options.filter, dir);
    let is_left_out = |name: &OsStr, kind| {
        let filter = filter.as_ref();
        let drops = filter.is_some_and(|filter| filter.leaves_out(name, kind == Kind::Dir));
        if drops {
            cx.leave_out(|| dir.source_path(name));
        }
        drops
    };
    let mut selected = Vec::with_capacity(names.len());
    // Of a link that is followed, where it does not matter what it leads to: nothing, maybe. (What was there before is not to be
    // deleted for that.)
    let deletes = cx.options.delete != Delete::Nothing;
    let is_left_out_anyway = |name: &OsStr| {
        let drops = |is_dir| {
            filter
                .as_ref()
                .is_some_and(|it| it.leaves_out(name, is_dir))
        };
        let is_nowhere = || {
            let looked = sys::stat_at(pair.source(), name, true);
            matches!(looked, Err(Errno::NOENT)) && !deletes
        };
        drops(false) && (drops(true) || is_nowhere())
    };
    for (name, kind) in names {
        let is_decided = match kind {
            Kind::Symlink if cx.options.follow == Follow::Always => is_left_out_anyway(&name),
            kind => kind != Kind::Unknown,
        };
        if is_decided && is_left_out(&name, kind) {
            continue;
        }
        let looked = look(cx, dir, pair, name, kind);
        selected.extend(looked.filter(|it| is_decided || !is_left_out(&it.name, it.kind)));
    }
    selected
}

/// Finds out what a listed name is, where the listing does not say or says that it is a link to be followed.
fn look(cx: &Context, dir: &Dir, pair: &Pair, name: OsString, kind: Kind) -> Option<Listed> {
    let follow = cx.options.follow == Follow::Always;
    let known = match kind {
        Kind::Unknown => false,
        Kind::Symlink => !follow,
        _ => true,
    };
    if known {
        return Some(Listed {
            name,
            kind,
            follow: false,
        });
    }
    match sys::stat_at(pair.source(), &name, follow) {
        Ok(stat) => Some(Listed {
            name,
            kind: stat.kind,
            follow,
        }),
        Err(errno) => {
            let path = dir.source_path(&name);
            cx.error(Error::new(Operation::Stat, path).with_errno(errno));
            None
        }
    }
}

/// What a directory holds, or why that could not be read.
struct Listing {
    names: Vec<(OsString, Kind)>,
    failed: Option<Errno>,
}

/// Reads an open source directory.
///
/// jwalk takes a path, and two lead to exactly the directory that is open, however long or changed its own path is:
/// 1. `.`, once the directory is the working directory of this thread, if it has one of its own;
/// 2. the descriptor's link in /proc; the dot at its end makes the last component a directory instead of a link.
///
/// Where neither works (no /proc in a chroot, a directory that may be read but not searched) the descriptor itself is read,
/// which is also where an error comes from: jwalk keeps a failed `read_dir` to itself, in its root entry.
fn read(pair: &Pair) -> Listing {
    let source = pair.source();
    let listed = if sys::enter(source) {
        read_path(Path::new("."))
    } else {
        let path = format!("/proc/thread-self/fd/{}/.", source.as_raw_fd());
        read_path(Path::new(&path))
    };
    listed.unwrap_or_else(|| match sys::read_dir(source) {
        Ok(names) => Listing {
            names,
            failed: None,
        },
        Err(errno) => Listing {
            names: Vec::new(),
            failed: Some(errno),
        },
    })
}

/// Reads by jwalk; `None` if it could not, or not all.
///
/// The depth and the parallelism are set in that order: jwalk's parallel mode keeps a core busy waiting, and the
/// parallelism is ours already. The names are taken where jwalk has just read them, before it makes more of them.
fn read_path(path: &Path) -> Option<Listing> {
    let read = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&read);
    let walk = jwalk::WalkDir::new(path)
        .skip_hidden(false)
        .max_depth(1)
        .parallelism(jwalk::Parallelism::Serial)
        .process_read_dir(move |depth, _, _, entries| {
            // The first call is about the directory itself.
            if depth.is_some() {
                *lock(&sink) = take_names(entries);
            }
        });
    walk.into_iter().for_each(drop);
    let names = lock(&read).take()?;
    Some(Listing {
        names,
        failed: None,
    })
}

/// The names and kinds; `None` if one could not be read.
fn take_names(
    entries: &mut Vec<jwalk::Result<jwalk::DirEntry<((), ())>>>,
) -> Option<Vec<(OsString, Kind)>> {
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries.drain(..) {
        let entry = entry.ok()?;
        names.push((entry.file_name, kind(entry.file_type)));
    }
    Some(names)
}

fn kind(file_type: std::fs::FileType) -> Kind {
    use std::os::unix::fs::FileTypeExt;
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Dir
    } else if file_type.is_symlink() {
        Kind::Symlink
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_char_device() {
        Kind::CharDevice
    } else if file_type.is_block_device() {
        Kind::BlockDevice
    } else {
        Kind::Unknown
    }
}
