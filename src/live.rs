//! What a copy is doing at this moment: [`Progress`], which can be asked at any time, and its [`Snapshot`].
//!
//! How much there is to do is learnt on the way, without a call to the kernel that the copy would not make anyway:
//! 1. **Entries** are found when the directory that they are in is listed, which is just before its files are copied. How
//!    many there are in all is known when no directory is left that has not been listed ([`Snapshot::is_found`]).
//! 2. **Bytes** are known of a file that has been opened. Those of large files are told while they are copied
//!    ([`Snapshot::large`]); the others are over too soon for anybody to look at.
//!
//! So nothing here knows the bytes of files that nobody has opened yet. What can be guessed about them is for whoever draws.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::counters::{Counters, Stats};
use crate::lock::lock;

/// Files from this size on are told while they are copied. It is what one call to the kernel moves at most: a smaller file
/// has nothing between its beginning and its end. To be told costs a microsecond, and such a file takes some milliseconds.
pub(crate) const LARGE_FROM: u64 = 16 << 20;

/// A view on a copy, from before its start until after its end. Clones are views on the same copy.
///
/// ```
/// # use poolcp::{Options, Plan, Pool, Target};
/// # let dir = tempfile::tempdir()?;
/// # let (source, target) = (dir.path().join("a"), dir.path().join("b"));
/// # std::fs::write(&source, "x")?;
/// let plan = Plan::resolve([source], Target::Path(target), Options::default())?;
/// let progress = plan.progress();
/// let pool = Pool::builder().build()?;
/// let job = pool.apply_async(plan)?;
/// while !job.join_timeout(std::time::Duration::from_millis(100)) {
///     let now = progress.snapshot();
///     let so_far = if now.is_found { "" } else { " so far" };
///     println!("{} of {} entries{so_far}, {} bytes", now.done, now.found, now.stats.bytes);
/// }
/// assert_eq!(progress.stats().files, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Progress(Arc<Counters>);

impl Progress {
    pub(crate) fn of(counters: &Arc<Counters>) -> Self {
        Self(Arc::clone(counters))
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.sum()
    }

    /// How many workers have been busy of late, where their number is found while the copy runs.
    #[must_use]
    pub fn busy_workers(&self) -> Option<usize> {
        self.0.busy()
    }

    /// Everything that is known at this moment. The numbers are read one after the other while the workers go on, so they may
    /// be a few microseconds apart.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let underway = &self.0.underway;
        // First: what was found by then stays all that there is.
        let is_found = underway.is_found();
        let (found, done) = self.0.entries();
        Snapshot {
            stats: self.0.sum(),
            found,
            done: done.min(found),
            is_found,
            busy_workers: self.0.busy(),
            large: underway.large(),
        }
    }
}

/// A copy at one moment; made by [`Progress::snapshot`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// What has been done.
    pub stats: Stats,
    /// Entries that have been found so far: operands, and all that was listed below them.
    pub found: u64,
    /// How many of them nothing is left to be done about, whether they were copied, left alone, or failed. A directory is done
    /// when its copy has been made; what is in it counts for itself.
    pub done: u64,
    /// All directories have been listed: [`Snapshot::found`] is all that there is.
    pub is_found: bool,
    /// How many workers have been busy of late, where their number is found while the copy runs.
    pub busy_workers: Option<usize>,
    /// The large files (16 MiB and more) that are being copied, the largest first.
    pub large: Vec<LargeFile>,
}

/// A large file while it is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeFile {
    /// What is copied.
    pub source: PathBuf,
    /// How many bytes there are to be moved: its size, less its holes where those are kept; if it has very many, about.
    pub size: u64,
    /// How many have been moved.
    pub moved: u64,
    /// How many have been read back (`--verify`), once all have been moved.
    pub verified: Option<u64>,
}

/// What is under way: directories that are not listed yet, and large files.
#[derive(Debug)]
pub(crate) struct Underway {
    /// Directories that were found and not listed yet. All workers count here: twice a directory.
    unlisted: AtomicU64,
    large: Mutex<Vec<Arc<Large>>>,
}

impl Default for Underway {
    fn default() -> Self {
        Self {
            // The operands, which nobody has counted yet.
            unlisted: AtomicU64::new(1),
            large: Mutex::default(),
        }
    }
}

impl Underway {
    /// Directories were found. Called before the one that they are in counts as listed.
    pub(crate) fn add_unlisted(&self, dirs: u64) {
        if dirs > 0 {
            self.unlisted.fetch_add(dirs, Ordering::Relaxed);
        }
    }

    /// A directory has been listed, or will not be. Release: who sees the last one sees all that was found.
    pub(crate) fn end_unlisted(&self) {
        self.unlisted.fetch_sub(1, Ordering::AcqRel);
    }

    /// An operand that nobody has looked at: it counts as a directory until this goes.
    pub(crate) fn unlisted(&self) -> Unlisted<'_> {
        Unlisted(self)
    }

    fn is_found(&self) -> bool {
        self.unlisted.load(Ordering::Acquire) == 0
    }

    /// Shows a file, if it is large, until the answer goes.
    pub(crate) fn show(&self, size: u64, source: impl FnOnce() -> PathBuf) -> Shown<'_> {
        let large = (size >= LARGE_FROM).then(|| {
            let large = Arc::new(Large {
                source: source(),
                size: AtomicU64::new(size),
                moved: AtomicU64::new(0),
                verified: AtomicU64::new(0),
                is_verified: AtomicBool::new(false),
            });
            lock(&self.large).push(Arc::clone(&large));
            large
        });
        Shown {
            underway: self,
            large,
        }
    }

    fn large(&self) -> Vec<LargeFile> {
        let files: Vec<Arc<Large>> = lock(&self.large).clone();
        let mut files: Vec<LargeFile> = files.iter().map(|large| large.now()).collect();
        // The same order at each look, so that nothing dances.
        files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.source.cmp(&b.source)));
        files
    }
}

/// An operand that may be a directory, which is to be listed.
pub(crate) struct Unlisted<'a>(&'a Underway);

impl Unlisted<'_> {
    /// It is one: whoever enters it says when it has been listed.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unlisted<'_> {
    fn drop(&mut self) {
        self.0.end_unlisted();
    }
}

/// A large file that is being copied, by one worker or by several.
#[derive(Debug)]
struct Large {
    source: PathBuf,
    size: AtomicU64,
    moved: AtomicU64,
    verified: AtomicU64,
    is_verified: AtomicBool,
}

impl Large {
    fn now(&self) -> LargeFile {
        let size = self.size.load(Ordering::Relaxed);
        let verified = self.verified.load(Ordering::Relaxed).min(size);
        LargeFile {
            source: self.source.clone(),
            size,
            // A source that grows is copied to its end.
            moved: self.moved.load(Ordering::Relaxed).min(size),
            verified: self.is_verified.load(Ordering::Relaxed).then_some(verified),
        }
    }
}

/// A file is shown, if it is large, for as long as this lives.
pub(crate) struct Shown<'a> {
    underway: &'a Underway,
    large: Option<Arc<Large>>,
}

impl Shown<'_> {
    /// It is copied from its beginning, not for the first time; its size may be another now.
    pub(crate) fn begin_again(&self, size: u64) {
        if let Some(large) = &self.large {
            large.moved.store(0, Ordering::Relaxed);
            large.verified.store(0, Ordering::Relaxed);
            large.size.store(size, Ordering::Relaxed);
        }
    }

    /// So many bytes are going to be moved.
    pub(crate) fn set_size(&self, size: u64) {
        if let Some(large) = &self.large {
            large.size.store(size, Ordering::Relaxed);
        }
    }

    /// Bytes have been moved.
    pub(crate) fn add(&self, bytes: u64) {
        if let Some(large) = &self.large {
            large.moved.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// All is moved, and the rest is read back.
    pub(crate) fn begin_verifying(&self) {
        if let Some(large) = &self.large {
            large.is_verified.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes have been read back.
    pub(crate) fn add_verified(&self, bytes: u64) {
        if let Some(large) = &self.large {
            large.verified.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if let Some(large) = &self.large {
            lock(&self.underway.large).retain(|shown| !Arc::ptr_eq(shown, large));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_found_when_every_directory_has_been_listed() {
        let underway = Underway::default();
        assert!(!underway.is_found(), "nobody has looked at the operands");
        // One operand, a directory with two in it.
        underway.add_unlisted(1);
        underway.end_unlisted();
        assert!(!underway.is_found());
        underway.add_unlisted(2);
        underway.end_unlisted();
        underway.end_unlisted();
        assert!(!underway.is_found());
        underway.end_unlisted();
        assert!(underway.is_found());
    }

    #[test]
    fn large_files_are_shown_while_they_are_copied_and_small_ones_never() {
        let underway = Underway::default();
        let small = underway.show(LARGE_FROM - 1, || unreachable!("nobody asks for its path"));
        small.add(1);
        let large = underway.show(LARGE_FROM, || "b".into());
        let larger = underway.show(2 * LARGE_FROM, || "a".into());
        large.add(100);
        larger.set_size(50);
        larger.add(60);
        larger.begin_verifying();
        let shown = underway.large();
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0].source, PathBuf::from("b"));
        assert_eq!((shown[0].moved, shown[0].verified), (100, None));
        assert_eq!((shown[1].moved, shown[1].verified), (50, Some(0)));
        larger.begin_again(70);
        larger.add(20);
        let again = &underway.large()[1];
        assert_eq!((again.size, again.moved), (70, 20));
        drop(large);
        drop(larger);
        assert_eq!(underway.large(), []);
    }
}
