//! Hard links: which files with several names have been met, and where their first copy is.
//!
//! The first worker that claims an inode copies it. One that comes with another name of it meanwhile does not wait: it
//! leaves the name with the first, who links it as soon as the copy is complete. One that comes later links by itself.
//! So nobody waits for anybody, no file is copied twice, and if the first name fails the next one inherits the claim.
//!
//! Only files with several names come here, and each takes a lock twice for some 100 ns.
//!
//! An inode is forgotten once all its names have been seen, so the memory needed is bounded by the files that have names
//! outside of the trees that are copied, or not met yet.
//!
//! The same holds for names that lead to one file at the destination, through links that were there before ([`Writers`]):
//! who comes while the file is written leaves the name with the one who writes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use crate::context::lock;
use crate::dir::Dir;
use crate::sys::{FileId, Kind};

/// A name that outlives the task that met it.
#[derive(Clone)]
pub(crate) struct Name {
    pub dir: Arc<Dir>,
    pub source: OsString,
    pub dest: OsString,
}

/// What the worker that claims a name has to do.
pub(crate) enum Claim {
    /// Copy it, then call [`Links::finish`] or [`Links::fail`].
    Copy,
    /// Link it to this finished copy.
    LinkTo(Name),
    /// Nothing: the name was left with the worker that is copying the inode.
    Left,
}

enum State {
    /// Being copied; these names wait for it.
    Copying(Vec<Name>),
    /// Copied, under this name.
    Copied(Name),
}

struct Inode {
    unseen: u64,
    state: State,
}

/// Locks are spread over the inodes, so that workers on different files rarely meet: of 64 workers of whom each holds
/// one for a hundredth of its time, one in a hundred finds its lock taken.
const SHARDS: usize = 64;

/// Some of the inodes, on cache lines of their own: locks next to each other would be one to the processors.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<FileId, Inode>>);

/// The registry.
pub(crate) struct Links([Shard; SHARDS]);

impl Default for Links {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Shard::default()))
    }
}

impl Links {
    fn shard(&self, id: FileId) -> &Mutex<HashMap<FileId, Inode>> {
        // Inode numbers are dense, so their low bits spread well. The conversion may cut high bits, which do not matter.
        #[allow(clippy::cast_possible_truncation)]
        &self.0[id.ino as usize % SHARDS].0
    }

    /// Claims a name of an inode that has `nlink` names in all.
    ///
    /// If the name is left with another worker, its directory has one more thing pending; the other worker ends it.
    pub(crate) fn claim(&self, id: FileId, nlink: u64, name: impl FnOnce() -> Name) -> Claim {
        let mut shard = lock(self.shard(id));
        let Some(inode) = shard.get_mut(&id) else {
            let inode = Inode {
                unseen: nlink.saturating_sub(1),
                state: State::Copying(Vec::new()),
            };
            shard.insert(id, inode);
            return Claim::Copy;
        };
        inode.unseen = inode.unseen.saturating_sub(1);
        match &mut inode.state {
            State::Copying(waiting) => {
                let name = name();
                name.dir.add_pending();
                waiting.push(name);
                Claim::Left
            }
            State::Copied(first) => {
                let first = first.clone();
                if inode.unseen == 0 {
                    shard.remove(&id);
                }
                Claim::LinkTo(first)
            }
        }
    }

    /// Where the copy of an inode is, if it is complete and further names of it may come.
    pub(crate) fn copy_of(&self, id: FileId) -> Option<Name> {
        match &lock(self.shard(id)).get(&id)?.state {
            State::Copying(_) => None,
            State::Copied(first) => Some(first.clone()),
        }
    }

    /// The copy is complete under `name`. Returns the names that were left meanwhile, for the caller to link.
    pub(crate) fn finish(&self, id: FileId, name: Name) -> Vec<Name> {
        let mut shard = lock(self.shard(id));
        let Some(inode) = shard.get_mut(&id) else {
            return Vec::new();
        };
        let previous = std::mem::replace(&mut inode.state, State::Copied(name));
        if inode.unseen == 0 {
            shard.remove(&id);
        }
        match previous {
            State::Copying(waiting) => waiting,
            State::Copied(_) => Vec::new(),
        }
    }

    /// The copy failed. Returns a name that was left meanwhile: the caller goes on with that one, still as the owner of the
    /// claim. If there is none, the next name that is met will be the first.
    pub(crate) fn fail(&self, id: FileId) -> Option<Name> {
        let mut shard = lock(self.shard(id));
        if let Some(Inode {
            state: State::Copying(waiting),
            ..
        }) = shard.get_mut(&id)
            && let Some(name) = waiting.pop()
        {
            return Some(name);
        }
        shard.remove(&id);
        None
    }
}

/// The existing files that are being written, each with the names that wait for its end.
#[derive(Default)]
pub(crate) struct Writers(Mutex<HashMap<FileId, Vec<Left>>>);

/// A name that was left with the writer of what it leads to.
pub(crate) struct Left {
    pub name: Name,
    /// What the name is in the source, and whether a link was followed to find that.
    pub kind: Kind,
    pub follow: bool,
}

impl Writers {
    /// Whether the caller may write the file, and must then call [`Writers::next`] until nothing is left. If another worker
    /// is writing it, the name is left with that one, and its directory has one more thing pending.
    pub(crate) fn claim(&self, id: FileId, left: impl FnOnce() -> Left) -> bool {
        match lock(&self.0).entry(id) {
            Entry::Vacant(free) => {
                free.insert(Vec::new());
                true
            }
            Entry::Occupied(mut taken) => {
                let left = left();
                left.name.dir.add_pending();
                taken.get_mut().push(left);
                false
            }
        }
    }

    /// The file has been written. Returns a name that waited for that, for the caller to copy; with the last one the claim
    /// ends.
    pub(crate) fn next(&self, id: FileId) -> Option<Left> {
        let mut writers = lock(&self.0);
        let left = writers.get_mut(&id).and_then(Vec::pop);
        if left.is_none() {
            writers.remove(&id);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FileId = FileId { dev: 1, ino: 2 };

    fn name(text: &str) -> Name {
        Name {
            dir: Dir::operands(None),
            source: text.into(),
            dest: text.into(),
        }
    }

    #[test]
    fn names_met_during_the_copy_are_linked_by_its_owner_and_later_ones_link_themselves() {
        let links = Links::default();
        assert!(matches!(links.claim(ID, 3, || name("a")), Claim::Copy));
        assert!(matches!(links.claim(ID, 3, || name("b")), Claim::Left));
        let left = links.finish(ID, name("a"));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].dest, "b");
        match links.claim(ID, 3, || name("c")) {
            Claim::LinkTo(first) => assert_eq!(first.dest, "a"),
            _ => panic!("the copy is there"),
        }
        assert!(lock(links.shard(ID)).is_empty(), "all names were seen");
    }

    #[test]
    fn a_failed_first_name_hands_its_claim_on() {
        let links = Links::default();
        links.claim(ID, 3, || name("a"));
        links.claim(ID, 3, || name("b"));
        assert_eq!(links.fail(ID).map(|name| name.dest), Some("b".into()));
        assert!(links.fail(ID).is_none());
        assert!(matches!(links.claim(ID, 3, || name("c")), Claim::Copy));
    }

    #[test]
    fn a_waiting_name_keeps_its_directory_pending() {
        let links = Links::default();
        let b = name("b");
        links.claim(ID, 2, || name("a"));
        links.claim(ID, 2, || b.clone());
        assert!(!b.dir.end_pending());
        assert!(b.dir.end_pending());
    }
    #[test]
    fn one_file_has_one_writer_who_gets_the_names_that_come_meanwhile() {
        let writers = Writers::default();
        let left = |text: &str| Left {
            name: name(text),
            kind: Kind::File,
            follow: false,
        };
        let claim = |text: &str| writers.claim(ID, || left(text));
        assert!(claim("a") && !claim("b") && !claim("c"));
        assert_eq!(
            writers.next(ID).map(|left| left.name.dest),
            Some("c".into())
        );
        assert!(!claim("d"), "c is being copied");
        assert!(writers.next(ID).is_some() && writers.next(ID).is_some());
        assert!(writers.next(ID).is_none());
        assert!(claim("e"), "nobody writes it any more");
    }
}
