//! A directory that is being copied: its place in the tree, what is known of it, and what is still to come before it is
//! finished. Its descriptors are not here: each worker has its own, see `handles.rs`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::context::Process;
use crate::gitignore::Ignored;
use crate::ladder::Ladder;
use crate::meta::{Attributes, GivenModes};
use crate::path::join;
use crate::place::Names;
use crate::plan::TargetDir;
use crate::sys::FileId;

/// What is known of a directory and does not change while it is copied.
pub(crate) struct DirFacts {
    pub source_id: FileId,
    pub dest_id: FileId,
    /// This run made the destination: nothing was in it, and nothing is in it that this run did not make.
    pub fresh: bool,
    /// It was there, or a directory that it is in was.
    pub merged: bool,
    /// The destination, or a directory that it is in below the operand's copy, was reached through a symbolic link, where that
    /// matters.
    pub linked: bool,
    /// Nobody made it: in a dry run, something else is open in its place.
    pub rehearsed: bool,
    /// The destination has a default ACL, which new files inherit.
    pub default_acl: bool,
    /// Nobody else may enter the destination until it is finished.
    pub closed: bool,
    /// New files in the destination belong to the process's user and group, as the directory itself did when it was made.
    pub plain_owner: bool,
    /// The modes that new files in the destination get as they are asked for.
    pub modes: Arc<GivenModes>,
    /// Whether to ask for sources without a change of their access time.
    pub no_atime: bool,
    /// What the destination gets when all its children are done: the source's attributes, if any are kept.
    pub attributes: Option<Attributes>,
    /// And the mode that it could not have while it was written.
    pub private_until: Option<u32>,
    /// The source is on a disk that may have to seek.
    pub seeks: bool,
    /// The rungs between the two filesystems.
    pub ladder: Arc<Ladder>,
    /// Closing a file in the destination cannot fail.
    pub closes_silently: bool,
    /// The destination's subdirectories are better made long before they are filled.
    pub fills_late: bool,
    /// What git ignores in it, if that is left out.
    pub ignored: Option<Arc<Ignored>>,
}

/// The key of the operands' place in a target directory. Others are counted from 0.
const TARGET_KEY: u64 = u64::MAX;

/// One directory of the tree.
pub(crate) struct Dir {
    /// What it is called among a worker's open directories; unique in a copy.
    key: u64,
    parent: Option<Arc<Dir>>,
    source_name: OsString,
    /// `None`: the same as the source's.
    dest_name: Option<OsString>,
    /// `None` for the operands' place, which is not copied itself.
    facts: Option<DirFacts>,
    /// Where operands' copies are made, unless their names are paths from the working directory.
    target: Option<TargetDir>,
    /// The names that the copy keeps if what is extraneous is removed. Set once the source has been listed whole.
    kept: OnceLock<Vec<OsString>>,
    /// Whether what dead runs have left in the destination is still to be looked for.
    unswept: AtomicBool,
    /// Of the last files here, how many more were further names of files that had been met than were not, up to
    /// [`Dir::SURE`].
    further_names: AtomicI8,
    /// What must end before this directory can be finished: its own listing and files, its subdirectories, the names in it
    /// that other workers will link.
    pending: AtomicUsize,
}

impl Dir {
    /// The place that operands are named from, and their copies: the target directory, or the working directory as well.
    pub(crate) fn operands(target: Option<TargetDir>) -> Arc<Self> {
        Arc::new(Self {
            key: if target.is_some() { TARGET_KEY } else { 0 },
            parent: None,
            source_name: OsString::new(),
            dest_name: None,
            facts: None,
            target,
            kept: OnceLock::new(),
            unswept: AtomicBool::new(false),
            further_names: AtomicI8::new(0),
            pending: AtomicUsize::new(1),
        })
    }

    /// A directory with its own work pending.
    pub(crate) fn new(
        key: u64,
        parent: &Arc<Self>,
        names: Names<'_>,
        facts: DirFacts,
        unswept: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            parent: Some(Arc::clone(parent)),
            source_name: names.source.to_owned(),
            dest_name: (names.dest != names.source).then(|| names.dest.to_owned()),
            facts: Some(facts),
            target: None,
            kept: OnceLock::new(),
            unswept: AtomicBool::new(unswept),
            further_names: AtomicI8::new(0),
            pending: AtomicUsize::new(1),
        })
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The facts; `None` for the operands' place.
    pub(crate) fn facts(&self) -> Option<&DirFacts> {
        self.facts.as_ref()
    }

    /// The target directory; only the operands' place has one.
    pub(crate) fn target(&self) -> Option<&TargetDir> {
        self.target.as_ref()
    }

    /// Whether nothing can be in the destination but what this run made.
    pub(crate) fn is_fresh(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.fresh)
    }

    /// Whether the destination would be made, and something else is open in its place.
    pub(crate) fn is_rehearsed(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.rehearsed)
    }

    /// Whether what is read in the source is to keep its access times: of operands, if that is always allowed.
    pub(crate) fn no_atime(&self, process: &Process) -> bool {
        self.facts()
            .map_or(process.superuser, |facts| facts.no_atime)
    }

    pub(crate) fn source_name(&self) -> &OsStr {
        &self.source_name
    }

    pub(crate) fn dest_name(&self) -> &OsStr {
        self.dest_name.as_deref().unwrap_or(&self.source_name)
    }

    /// What is extraneous in the copy is going to be removed, and this is not.
    pub(crate) fn keep_names(&self, names: Vec<OsString>) {
        // A directory is listed once.
        let _ = self.kept.set(names);
    }

    /// The names that the copy keeps; `None` if it keeps all.
    pub(crate) fn names_to_keep(&self) -> Option<&[OsString]> {
        self.kept.get().map(Vec::as_slice)
    }

    /// Whether what dead runs have left in the destination is to be looked for now: the first one that asks is to do it.
    pub(crate) fn begin_sweep(&self) -> bool {
        self.unswept.load(Ordering::Relaxed) && self.unswept.swap(false, Ordering::Relaxed)
    }

    /// How far the count goes: a few files are enough to change it.
    const SURE: i8 = 2;

    /// Whether the next file here is likely to be a further name of a file that has been met: most of the last ones were.
    pub(crate) fn expects_further_name(&self) -> bool {
        self.further_names.load(Ordering::Relaxed) > 0
    }

    /// Counts a file here: was it a further name of a file that had been met?
    pub(crate) fn count_name(&self, further_name: bool) {
        let old = self.further_names.load(Ordering::Relaxed);
        let step = if further_name { 1 } else { -1 };
        let new = (old + step).clamp(-Self::SURE, Self::SURE);
        // Where all files are alike nothing changes, and what is only read stays in all processors' caches. Of two workers here at
        // the same time one may not be counted.
        if new != old {
            self.further_names.store(new, Ordering::Relaxed);
        }
    }

    /// One more thing to wait for. Called only by someone whose own work here is still pending.
    pub(crate) fn add_pending(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing less; true if it was the last. Acquire and release: the one who finishes sees what all others did.
    pub(crate) fn end_pending(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The path of a name in the source, for messages.
    pub(crate) fn source_path(&self, name: &OsStr) -> PathBuf {
        self.path(name, Self::source_name, |_| None)
    }

    /// The path of a name in the destination, for messages.
    pub(crate) fn dest_path(&self, name: &OsStr) -> PathBuf {
        let target = |top: &Self| top.target().map(|target| target.path.clone());
        self.path(name, Self::dest_name, target)
    }

    /// The path from the operand that it is in, which has an empty one.
    pub(crate) fn inner_path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut dir = self;
        while let Some(parent) = dir.parent.as_ref().filter(|parent| parent.facts.is_some()) {
            names.push(dir.source_name());
            dir = parent;
        }
        names.iter().rev().collect()
    }

    /// The path of a name; of the directory itself if the name is empty.
    fn path<'a>(
        &'a self,
        name: &'a OsStr,
        name_of: impl Fn(&'a Self) -> &'a OsStr,
        beginning_of: impl Fn(&'a Self) -> Option<PathBuf>,
    ) -> PathBuf {
        let mut names = Vec::new();
        if !name.is_empty() {
            names.push(name);
        }
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(name_of(dir));
            dir = parent;
        }
        let first = beginning_of(dir)
            .or_else(|| names.pop().map(PathBuf::from))
            .unwrap_or_default();
        names
            .iter()
            .rev()
            .fold(first, |path, name| join(&path, name))
    }

    /// Whether it is in so many directories and more.
    pub(crate) fn is_deeper_than(&self, depth: usize) -> bool {
        let above = std::iter::successors(Some(self), |dir| dir.parent.as_deref());
        above.skip(1).nth(depth).is_some()
    }

    /// Whether nobody else can have reached the destination so far: this run has made it, in one that is closed to others until
    /// it is finished. (Who has a directory above open would have to have had it open before it was made.)
    pub(crate) fn is_out_of_reach(&self) -> bool {
        let mut dir = Some(self);
        while let Some(this) = dir {
            let Some(facts) = this.facts.as_ref().filter(|facts| facts.fresh) else {
                return false;
            };
            if facts.closed && this.pending.load(Ordering::Acquire) > 0 {
                return true;
            }
            dir = this.parent.as_deref();
        }
        false
    }

    /// Whether `id` is the destination of this directory or of one that it is in.
    pub(crate) fn is_made_in(&self, id: FileId) -> bool {
        let above = std::iter::successors(Some(self), |dir| dir.parent.as_deref());
        let mut facts = above.filter_map(|dir| dir.facts.as_ref());
        facts.any(|facts| facts.dest_id == id && !facts.rehearsed)
    }

    /// Whether this directory or one that it is in has `id` as its source.
    pub(crate) fn is_below(&self, id: FileId) -> bool {
        let mut dir = Some(self);
        while let Some(this) = dir {
            if this.facts.as_ref().is_some_and(|f| f.source_id == id) {
                return true;
            }
            dir = this.parent.as_deref();
        }
        false
    }
}

impl Drop for Dir {
    /// Lets go of the ancestors one by one: dropping a chain of 10,000 from its end would otherwise call itself 10,000
    /// levels deep.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(dir) = parent {
            parent = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_name_is_expected_where_most_of_the_last_files_were_one() {
        let dir = Dir::operands(None);
        let expected_after = |met: &[bool]| {
            met.iter()
                .for_each(|further_name| dir.count_name(*further_name));
            dir.expects_further_name()
        };
        assert!(!expected_after(&[]));
        assert!(expected_after(&[true, true, false, true, true]));
        assert!(expected_after(&[false, true, true, false]), "one in three");
        assert!(!expected_after(&[false, false]));
        assert!(!expected_after(&[false; 100]));
        assert!(expected_after(&[true; 3]), "however long it was not");
    }
}
