//! The operands of one copy, watched while it runs: they may get into each other's way. How, is found out before it begins
//! (`meeting.rs`).
//!
//! `cp a b dir` is two copies, and usually they have nothing to do with each other. But one may be inside another, or have the
//! same name at the destination, or be what another one's copy is written to. `cp` copies one after the other and refuses
//! what would destroy what it has just made; so does this, where paths say that they may meet.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::lock::lock;
use crate::meeting::Meeting;
use crate::options::Options;
use crate::place::{DirEntry, Place};
use crate::sys::{self, FileId, Kind};

/// What the workers know of the operands that are copied together.
pub(crate) struct Operands {
    /// The same name may be met more than once: an operand is, or is inside, another one.
    pub names_repeat: bool,
    /// A sieve for the two maps below, which every directory is looked up in and hardly any is found.
    known: Sieve,
    /// The operands that are directories.
    dirs: Mutex<HashMap<FileId, OperandDir>>,
    /// Their copies.
    copied: Mutex<HashMap<FileId, CopiedDir>>,
    /// A directory may be copied to more than once.
    repeats_dirs: bool,
    /// An operand might meet another one's copy.
    may_meet: bool,
    /// The operands' copies, if one might, and the symbolic links that this run made and may come to again.
    made: Mutex<HashSet<Made>>,
    /// There are such links.
    has_links: AtomicBool,
    /// The directories that were there and are copied to, where links might lead to one of them again and it is pruned.
    merged: Mutex<HashSet<FileId>>,
    /// The directories that were swept or made, if others may be copied to them, too.
    swept: Mutex<HashSet<FileId>>,
}

/// A directory that is an operand: met again, it would be copied twice.
#[derive(Clone)]
pub(crate) struct OperandDir {
    /// Its copy's place.
    pub entry: Option<DirEntry>,
    /// Its copy's path.
    pub dest: PathBuf,
}

/// The copy of the operand `of`; this run made it, if it is `fresh`.
struct CopiedDir {
    of: FileId,
    fresh: bool,
}

/// Something that was made, and must not be overwritten or written through.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Made {
    /// The copy of an operand, under its own name.
    Operand(FileId, DirEntry),
    /// A symbolic link, anywhere.
    Link(FileId),
}

impl Made {
    /// How an operand's copy is remembered.
    pub(crate) fn operand(place: Place<'_>, id: FileId) -> Option<Self> {
        place.dest_entry().map(|entry| Self::Operand(id, entry))
    }
}

impl Operands {
    pub(crate) fn new(meeting: Meeting, options: &Options) -> Self {
        Self {
            names_repeat: meeting == Meeting::Twice,
            known: Sieve::default(),
            dirs: Mutex::default(),
            copied: Mutex::default(),
            may_meet: meeting != Meeting::Never,
            repeats_dirs: meeting != Meeting::Never || options.keep_directory_symlink,
            made: Mutex::default(),
            has_links: AtomicBool::new(false),
            merged: Mutex::default(),
            swept: Mutex::default(),
        }
    }

    /// Whether an operand might meet what another one's copy made.
    pub(crate) fn may_meet(&self) -> bool {
        self.may_meet
    }

    /// Remembers something that was made.
    pub(crate) fn remember(&self, made: Made) {
        if matches!(made, Made::Link(_)) {
            self.has_links.store(true, Ordering::SeqCst);
        }
        lock(&self.made).insert(made);
    }

    /// Whether this run has made the copy of an operand at this place.
    pub(crate) fn has_made_operand(&self, place: Place<'_>, id: FileId) -> bool {
        let made = || Made::operand(place, id);
        self.may_meet && made().is_some_and(|made| lock(&self.made).contains(&made))
    }

    /// Whether this run has made a symbolic link by which a way from an open directory leads.
    pub(crate) fn leads_by_made_link(&self, dir: BorrowedFd<'_>, way: &OsStr) -> bool {
        if !self.has_links.load(Ordering::SeqCst) {
            return false;
        }
        let mut reached = PathBuf::new();
        let mut left = vec![PathBuf::from(way)];
        let mut links = 0;
        while let Some(path) = left.pop() {
            let mut components = path.components();
            let Some(next) = components.next() else {
                continue;
            };
            left.push(components.as_path().to_owned());
            // In what has been reached there are no links.
            reached.push(next);
            let Ok(there) = sys::stat_at(dir, reached.as_os_str(), false) else {
                return false;
            };
            if there.kind != Kind::Symlink {
                continue;
            }
            if lock(&self.made).contains(&Made::Link(there.id)) {
                return true;
            }
            links += 1;
            match sys::read_link(dir, reached.as_os_str()) {
                // The kernel follows no more (path_resolution(7)).
                Ok(text) if links <= 40 => {
                    reached.pop();
                    left.push(PathBuf::from(OsStr::from_bytes(text.as_bytes())));
                }
                _ => return false,
            }
        }
        false
    }

    /// Remembers a directory that was there and is copied to. False if it is copied to already.
    pub(crate) fn begin_merge(&self, dest: FileId) -> bool {
        lock(&self.merged).insert(dest)
    }

    /// Whether it was remembered.
    pub(crate) fn is_merged(&self, dest: FileId) -> bool {
        lock(&self.merged).contains(&dest)
    }

    /// Whether a directory is to be swept: what this run has left in it before is no dead run's.
    pub(crate) fn begin_sweep(&self, dest: FileId) -> bool {
        !self.repeats_dirs || lock(&self.swept).insert(dest)
    }

    /// Remembers a directory that is an operand, and the one that is its copy, if it is there; `fresh` if this run made that.
    pub(crate) fn add_dir(
        &self,
        source: FileId,
        dest: Option<FileId>,
        fresh: bool,
        place: Place<'_>,
    ) {
        let operand = OperandDir {
            entry: place.dest_entry(),
            dest: place.dest_path(),
        };
        self.known.add(source);
        // The first one counts: a second one is already known.
        lock(&self.dirs).entry(source).or_insert(operand);
        let Some(dest) = dest else {
            return;
        };
        self.known.add(dest);
        let mut copied = lock(&self.copied);
        let fresh = fresh || copied.get(&dest).is_some_and(|copied| copied.fresh);
        copied.insert(dest, CopiedDir { of: source, fresh });
    }

    /// Whether a directory is an operand or the copy of one, and so cannot simply be copied.
    pub(crate) fn is_known(&self, id: FileId) -> bool {
        self.known.may_have(id)
            && (lock(&self.dirs).contains_key(&id) || lock(&self.copied).contains_key(&id))
    }

    /// The operand that a directory is.
    pub(crate) fn dir(&self, id: FileId) -> Option<OperandDir> {
        lock(&self.dirs).get(&id).cloned()
    }

    /// Whether a directory, met while the operand `of` is copied, would be copied into itself. One that was there before
    /// another operand was copied to it is a directory like any other.
    pub(crate) fn is_copy(&self, id: FileId, of: FileId) -> bool {
        let copied = lock(&self.copied);
        copied
            .get(&id)
            .is_some_and(|copied| copied.fresh || copied.of == of)
    }
}

/// A set of files that says of most others that they are not in it, without a lock: two that all workers take for each
/// directory would be a queue on a machine with many processors, where a directory has few files.
#[derive(Default)]
struct Sieve([AtomicU64; 16]);

impl Sieve {
    fn bit(id: FileId) -> (usize, u64) {
        // Inode numbers of one filesystem are close together, and so they are in here.
        let bit = id.ino ^ (id.dev << 3);
        // Cannot be cut: it is less than 16.
        let word = usize::try_from(bit / 64 % 16).unwrap_or(0);
        (word, 1 << (bit % 64))
    }

    /// Adds a file, before whatever else is kept about it.
    fn add(&self, id: FileId) {
        let (word, bit) = Self::bit(id);
        // Whoever must find the file has learnt of it from whoever added it, or later from the maps' locks.
        self.0[word].fetch_or(bit, Ordering::SeqCst);
    }

    /// False if the file was never added.
    fn may_have(&self, id: FileId) -> bool {
        let (word, bit) = Self::bit(id);
        self.0[word].load(Ordering::SeqCst) & bit != 0
    }
}
