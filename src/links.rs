//! Hard links: which files with several names have been met, and where their first copy is.
//!
//! The first worker that claims an inode copies it. One that comes with another name of it meanwhile does not wait: it
//! leaves the name with the first, who links it as soon as the copy is complete. One that comes later links by itself.
//! So nobody waits for anybody, no file is copied twice, and if the first name fails the next one inherits the claim.
//!
//! Only files with several names come here, and each takes a lock twice for some 100 ns.
//!
//! An inode is forgotten once all its names have been seen, so the memory needed is bounded by the files that have names
//! outside of the trees that are copied, or not met yet. Where symbolic links are followed and links kept (`-aL`), operands may
//! repeat, or a filesystem is mounted more than once, nobody knows how many names there are, and none is forgotten.
//!
//! A number may be another file's before all names are met: what had it is gone, and what has it now is no further name of it.
//! So who is to link looks whether the file is what it was, or where it was ([`Links::forget`]).
//!
//! The same holds for names that lead to one file at the destination, through links that were there before ([`Writers`]):
//! who comes while the file is written leaves the name with the one who writes it.
//!
//! # Why this needs no model checker
//!
//! What is shared is a map behind a lock, and nothing else: no atomic orders anything here. Each method takes one lock, once,
//! takes no other and calls nothing that does (`left` only clones names and an `Arc`; [`Dir::add_pending`] is one addition, to
//! a count that cannot reach zero meanwhile, as the caller's own work is pending in the same directory). So no two locks are
//! ever held together, and whatever the threads do is some order of whole calls. The orders are few: the tests below try all of
//! them, for every way in which copies may fail. What holds in between, under the lock:
//!
//! 1. An inode that is being copied has one owner, who holds no lock and ends the claim with [`Links::finish`] or, when
//!    nobody waits, [`Links::fail`]; a panic is an error, and ends it as one.
//! 2. A name is in at most one list, put there by the worker that met it, who then forgets it, and taken out by the owner: so
//!    each is settled once, and its directory stays pending until then.
//! 3. Who takes the last name out of a list ends the claim in the same call. A name cannot come too late for its owner.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use crate::data::is_written;
use crate::dir::Dir;
use crate::lock::lock;
use crate::sys::{FileId, Kind, Stat};

/// A name that outlives the task that met it.
#[derive(Clone)]
pub(crate) struct Name {
    pub dir: Arc<Dir>,
    pub source: OsString,
    pub dest: OsString,
}

/// A name that was left with another worker.
pub(crate) struct Left {
    pub name: Name,
    /// What the name is in the source, and whether a link was followed to find that.
    pub kind: Kind,
    pub follow: bool,
    /// What had the destination's name before, under another one.
    pub backup: Option<OsString>,
    /// What has the destination's name goes, whatever it is.
    pub removes: bool,
}

/// A finished copy.
#[derive(Clone)]
pub(crate) struct Copied {
    pub name: Name,
    /// What the source was when it was copied.
    pub source: Stat,
    /// What has that name, unless somebody has changed that since; `None` if it is not known.
    pub made: Option<MadeFile>,
}

/// What a copy is, and whose: what somebody else puts in its place can get its inode number, once that is free, and not its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MadeFile {
    id: FileId,
    uid: u32,
}

impl MadeFile {
    /// Whether that is what this `is`. Where a filesystem numbers names and not inodes, or copies what is linked, only the owner
    /// tells.
    pub(crate) fn is(self, is: Self, has_numbers: bool) -> bool {
        self.uid == is.uid && (self.id == is.id || !has_numbers)
    }

    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            id: stat.id,
            uid: stat.uid,
        }
    }
}

/// What the worker that claims a name has to do.
pub(crate) enum Claim {
    /// Copy it, then call [`Links::finish`] or [`Links::fail`].
    Copy,
    /// Link it to this finished copy.
    LinkTo(Copied),
    /// Nothing: the name was left with the worker that is copying the inode.
    Left,
}

enum State {
    /// Being copied; these names wait for it.
    Copying(Vec<Left>),
    /// Copied, under this name.
    Copied(Copied),
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
    pub(crate) fn claim(&self, id: FileId, nlink: u64, left: impl FnOnce() -> Left) -> Claim {
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
                let left = left();
                left.name.dir.add_pending();
                waiting.push(left);
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

    /// An inode number is another file's by now, which is to be copied, too.
    pub(crate) fn forget(&self, id: FileId, copied: &Copied) {
        let mut shard = lock(self.shard(id));
        let is_it = |inode: &Inode| match &inode.state {
            State::Copied(there) => !is_written(&there.source, &copied.source),
            State::Copying(_) => false,
        };
        if shard.get(&id).is_some_and(is_it) {
            shard.remove(&id);
        }
    }

    /// Where the copy of an inode is, if it is complete and further names of it may come.
    pub(crate) fn copy_of(&self, id: FileId) -> Option<Copied> {
        match &lock(self.shard(id)).get(&id)?.state {
            State::Copying(_) => None,
            State::Copied(first) => Some(first.clone()),
        }
    }

    /// The copy is complete. Returns the names that were left meanwhile, for the caller to link.
    pub(crate) fn finish(&self, id: FileId, copied: Copied) -> Vec<Left> {
        let mut shard = lock(self.shard(id));
        let Some(inode) = shard.get_mut(&id) else {
            return Vec::new();
        };
        let previous = std::mem::replace(&mut inode.state, State::Copied(copied));
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
    pub(crate) fn fail(&self, id: FileId) -> Option<Left> {
        let mut shard = lock(self.shard(id));
        if let Some(Inode {
            state: State::Copying(waiting),
            ..
        }) = shard.get_mut(&id)
            && let Some(left) = waiting.pop()
        {
            return Some(left);
        }
        shard.remove(&id);
        None
    }
}

/// The existing files that are being written, each with the names that wait for its end.
#[derive(Default)]
pub(crate) struct Writers(Mutex<HashMap<FileId, Vec<Left>>>);

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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const ID: FileId = FileId { dev: 1, ino: 2 };

    fn name(text: &str) -> Name {
        Name {
            dir: Dir::operands(None),
            source: text.into(),
            dest: text.into(),
        }
    }

    fn left(name: Name) -> Left {
        Left {
            name,
            kind: Kind::File,
            follow: false,
            backup: None,
            removes: false,
        }
    }

    fn copied(name: Name) -> Copied {
        let here = crate::sys::stat_at(crate::sys::cwd(), ".".as_ref(), false);
        Copied {
            name,
            source: here.expect("the working directory"),
            made: None,
        }
    }

    #[test]
    fn names_met_during_the_copy_are_linked_by_its_owner_and_later_ones_link_themselves() {
        let links = Links::default();
        assert!(matches!(
            links.claim(ID, 3, || left(name("a"))),
            Claim::Copy
        ));
        assert!(matches!(
            links.claim(ID, 3, || left(name("b"))),
            Claim::Left
        ));
        let waiting = links.finish(ID, copied(name("a")));
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].name.dest, "b");
        match links.claim(ID, 3, || left(name("c"))) {
            Claim::LinkTo(first) => assert_eq!(first.name.dest, "a"),
            _ => panic!("the copy is there"),
        }
        assert!(lock(links.shard(ID)).is_empty(), "all names were seen");
    }

    #[test]
    fn a_failed_first_name_hands_its_claim_on() {
        let links = Links::default();
        links.claim(ID, 3, || left(name("a")));
        links.claim(ID, 3, || left(name("b")));
        assert_eq!(links.fail(ID).map(|left| left.name.dest), Some("b".into()));
        assert!(links.fail(ID).is_none());
        assert!(matches!(
            links.claim(ID, 3, || left(name("c"))),
            Claim::Copy
        ));
    }

    #[test]
    fn a_waiting_name_keeps_its_directory_pending() {
        let links = Links::default();
        let b = name("b");
        links.claim(ID, 2, || left(name("a")));
        links.claim(ID, 2, || left(b.clone()));
        assert!(!b.dir.end_pending());
        assert!(b.dir.end_pending());
    }

    #[test]
    fn one_file_has_one_writer_who_gets_the_names_that_come_meanwhile() {
        let writers = Writers::default();
        let claim = |text: &str| writers.claim(ID, || left(name(text)));
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

    // ---- All orders ----

    /// Runs something with every sequence of choices there is: it asks for a number below another one, as often as it likes.
    fn exhaustively(mut run: impl FnMut(&mut dyn FnMut(usize) -> usize)) -> usize {
        let mut choices: Vec<(usize, usize)> = Vec::new();
        for runs in 1.. {
            let mut made = 0;
            run(&mut |below| {
                if made == choices.len() {
                    choices.push((0, below));
                }
                made += 1;
                choices[made - 1].0
            });
            while let Some((choice, below)) = choices.pop() {
                if choice + 1 < below {
                    choices.push((choice + 1, below));
                    break;
                }
            }
            if choices.is_empty() {
                return runs;
            }
        }
        unreachable!("it ends")
    }

    /// What a worker is about to do, in one step.
    #[derive(Clone)]
    enum Step {
        Claim(usize),
        /// It has the claim, and is copying this name.
        Copy(Name),
        Over,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Copied,
        Linked,
        Failed,
    }

    fn index(name: &Name) -> usize {
        name.dest.to_str().expect("digits").parse().expect("digits")
    }

    #[test]
    fn each_name_is_settled_once_in_whatever_order_workers_come_and_copies_fail() {
        const NAMES: usize = 4;
        let runs = exhaustively(|choose| {
            let links = Links::default();
            let names: [Name; NAMES] = std::array::from_fn(|i| name(&i.to_string()));
            let mut steps: Vec<Step> = (0..NAMES).map(Step::Claim).collect();
            let mut fates: [Vec<Fate>; NAMES] = Default::default();
            let mut settle = |name: &Name, fate: Fate| {
                fates[index(name)].push(fate);
                name.dir.end_pending();
            };
            loop {
                let busy = |step: &Step| !matches!(step, Step::Over);
                let able: Vec<usize> = (0..NAMES).filter(|&i| busy(&steps[i])).collect();
                if able.is_empty() {
                    break;
                }
                let worker = able[choose(able.len())];
                let next = match steps[worker].clone() {
                    Step::Over => unreachable!("it is able"),
                    Step::Claim(i) => {
                        let claim = links.claim(ID, NAMES as u64, || left(names[i].clone()));
                        // What the worker itself had pending is done, whatever becomes of the name.
                        match claim {
                            Claim::Copy => Step::Copy(names[i].clone()),
                            Claim::LinkTo(_) => {
                                settle(&names[i], Fate::Linked);
                                Step::Over
                            }
                            Claim::Left => {
                                assert!(!names[i].dir.end_pending(), "it is pending still");
                                Step::Over
                            }
                        }
                    }
                    Step::Copy(name) if choose(2) == 0 => {
                        settle(&name, Fate::Copied);
                        for left in links.finish(ID, copied(name)) {
                            settle(&left.name, Fate::Linked);
                        }
                        Step::Over
                    }
                    Step::Copy(name) => {
                        settle(&name, Fate::Failed);
                        links
                            .fail(ID)
                            .map_or(Step::Over, |left| Step::Copy(left.name))
                    }
                };
                steps[worker] = next;
            }
            let all = fates.concat();
            assert!(fates.iter().all(|fates| fates.len() == 1), "{fates:?}");
            let copies = all.iter().filter(|fate| **fate == Fate::Copied).count();
            let has_failed = all.iter().all(|fate| *fate == Fate::Failed);
            assert_eq!(copies, usize::from(!has_failed), "{fates:?}");
            if !all.contains(&Fate::Failed) {
                assert!(lock(links.shard(ID)).is_empty(), "all names were seen");
            }
        });
        assert!(runs > 1000, "{runs}");
    }

    #[test]
    fn a_file_has_one_writer_at_a_time_in_whatever_order_they_come() {
        const NAMES: usize = 5;
        let runs = exhaustively(|choose| {
            let writers = Writers::default();
            let mut steps: Vec<Step> = (0..NAMES).map(Step::Claim).collect();
            let mut written = [0; NAMES];
            loop {
                let busy = |step: &Step| !matches!(step, Step::Over);
                let able: Vec<usize> = (0..NAMES).filter(|&i| busy(&steps[i])).collect();
                if able.is_empty() {
                    break;
                }
                let writing = steps.iter().filter(|step| matches!(step, Step::Copy(_)));
                assert!(writing.count() <= 1);
                let worker = able[choose(able.len())];
                let next = match steps[worker].clone() {
                    Step::Over => unreachable!("it is able"),
                    Step::Claim(i) => {
                        let mine = name(&i.to_string());
                        if writers.claim(ID, || left(mine.clone())) {
                            Step::Copy(mine)
                        } else {
                            Step::Over
                        }
                    }
                    Step::Copy(name) => {
                        written[index(&name)] += 1;
                        let next = writers.next(ID);
                        next.map_or(Step::Over, |left| Step::Copy(left.name))
                    }
                };
                steps[worker] = next;
            }
            assert_eq!(written, [1; NAMES]);
            assert!(lock(&writers.0).is_empty());
        });
        assert!(runs > 1000, "{runs}");
    }

    // ---- Many threads ----

    #[test]
    fn each_name_of_few_files_is_settled_once_by_many_threads() {
        const FILES: u64 = 3;
        const NAMES: usize = 21_000;
        const THREADS: usize = 16;
        let links = Links::default();
        let settled: Vec<AtomicUsize> = (0..NAMES).map(|_| AtomicUsize::new(0)).collect();
        let settle = |name: &Name| {
            settled[index(name)].fetch_add(1, Ordering::Relaxed);
        };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= NAMES {
                            return;
                        }
                        let ino = i as u64 % FILES;
                        let id = FileId { dev: 1, ino };
                        let mut mine = name(&i.to_string());
                        match links.claim(id, NAMES as u64 / FILES, || left(mine.clone())) {
                            Claim::Left => {}
                            Claim::LinkTo(_) => settle(&mine),
                            Claim::Copy => {
                                // Most fail, so that the claim goes from hand to hand.
                                while index(&mine) % 50 != 7 {
                                    settle(&mine);
                                    std::thread::yield_now();
                                    match links.fail(id) {
                                        Some(another) => mine = another.name,
                                        None => break,
                                    }
                                }
                                if index(&mine) % 50 == 7 {
                                    settle(&mine);
                                    let waiting = links.finish(id, copied(mine));
                                    waiting.iter().for_each(|left| settle(&left.name));
                                }
                            }
                        }
                    }
                });
            }
        });
        for (i, times) in settled.iter().enumerate() {
            assert_eq!(times.load(Ordering::Relaxed), 1, "name {i}");
        }
    }
}
