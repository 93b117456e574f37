//! The operands: what is to be copied, by the names that the user gave.
//!
//! A file is copied here; a directory becomes the first task of the recursion (`tree.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;

use crate::context::Context;
use crate::counters::Count;
use crate::dir::Dir;
use crate::error::{Error, Operation, unless_panic};
use crate::file;
use crate::gate;
use crate::live::Unlisted;
use crate::nest::in_parallel;
use crate::options::{Backup, Follow};
use crate::parents::Parents;
use crate::path::split;
use crate::place::{DirEntry, Names, Place, dir_entry};
use crate::plan::{Root, TargetDir};
use crate::sys::{self, FileId, Kind};
use crate::tree::{DirTask, end_all};

/// Copies the operands; one after the other if they may meet, or if questions are to come in their order.
pub(crate) fn copy_roots(cx: &Context, roots: &[Root], target: Option<TargetDir>, in_order: bool) {
    let top = Dir::operands(target);
    cx.counters.found(roots.len() as u64, roots.len() as u64);
    cx.counters.underway.end_unlisted();
    if in_order {
        let mut met = HashSet::new();
        for root in roots {
            copy_one(cx, &top, root, || is_repeated(cx, root, &mut met));
        }
        return;
    }
    let one = |root: &Root| copy_one(cx, &top, root, || false);
    in_parallel(
        cx.max_nested,
        || roots.par_iter().for_each(one),
        || roots.iter().for_each(one),
    );
}

/// Copies one operand, with its leading directories if those are wanted.
fn copy_one(cx: &Context, top: &Arc<Dir>, root: &Root, is_repeated: impl FnOnce() -> bool) {
    let mut is_dir = false;
    let unlisted = cx.counters.underway.unlisted();
    let copied = unless_panic(
        || root.source.clone(),
        || {
            if cx.is_cancelled() {
                return Ok(());
            }
            let parents = gate::work(|| Parents::make(cx, root))?;
            if !cx.is_cancelled()
                && !is_repeated()
                && let Some(task) = gate::work(|| copy_root(cx, top, root, unlisted))
            {
                is_dir = true;
                rayon::scope(|scope| task.start(cx, scope));
            }
            gate::work(|| parents.dress(cx));
            Ok(())
        },
    );
    if let Err(error) = copied {
        cx.error(error);
    }
    if !is_dir {
        cx.counters.add(Count::Done, 1);
    }
}

/// Whether a file is an operand for the second time, by the same name, which is worth a warning and no more. (A directory is
/// found out when it is entered.)
fn is_repeated(cx: &Context, root: &Root, met: &mut HashSet<(FileId, DirEntry)>) -> bool {
    let follow = cx.options.follow != Follow::Never;
    // The second copy overwrites the first, and that is kept.
    if cx.options.backup != Backup::No {
        return false;
    }
    let Ok(stat) = sys::stat_at(sys::cwd(), root.source.as_os_str(), follow) else {
        return false;
    };
    // As cp tells names apart.
    let entry = dir_entry(sys::cwd(), root.source.as_os_str(), false);
    let is_repeated =
        stat.kind != Kind::Dir && entry.is_some_and(|entry| !met.insert((stat.id, entry)));
    if is_repeated {
        cx.warning(&Error::new(Operation::RepeatedFile, &root.source));
    }
    is_repeated
}

/// Copies one operand, unless it is a directory: that is returned as a task, which is to be listed.
fn copy_root(cx: &Context, top: &Arc<Dir>, root: &Root, unlisted: Unlisted<'_>) -> Option<DirTask> {
    let follow = cx.options.follow != Follow::Never;
    let name = split(root.source.as_os_str()).1;
    let own;
    let (top, dest) = if top.target().is_some() && !name.is_empty() {
        (top, split(root.dest.as_os_str()).1)
    } else {
        // The root's copy has no name of its own.
        own = Dir::operands(None);
        (&own, root.dest.as_os_str())
    };
    let pair = match cx.handles.open(top) {
        Ok(pair) => pair,
        Err(error) => {
            cx.error(error);
            return None;
        }
    };
    let names = Names {
        source: root.source.as_os_str(),
        dest,
    };
    let place = Place {
        dir: top,
        pair: &pair,
        names,
    };
    match sys::stat_at(sys::cwd(), names.source, follow) {
        Err(errno) => cx.error(place.source_error(Operation::Stat, errno)),
        Ok(stat) if stat.kind != Kind::Dir && cx.options.filter.drops_operand(name) => {
            cx.leave_out(|| place.source_path());
        }
        Ok(stat) if stat.kind != Kind::Dir => {
            // There is nothing in it to be found.
            drop(unlisted);
            end_all(cx, file::copy(cx, place, stat.kind, follow));
        }
        Ok(_) if !cx.options.recursive => {
            cx.error(Error::new(Operation::OmitDirectory, place.source_path()));
        }
        Ok(_) => {
            unlisted.keep();
            return Some(DirTask::of_root(top, names, follow));
        }
    }
    None
}
