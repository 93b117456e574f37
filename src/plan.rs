//! `cp`'s destination rules: from operands, as they were given, to pairs of one source and one destination each.
//!
//! 1. `-t DIR`: every source goes into DIR, which must be a directory.
//! 2. `-T`: the one source becomes exactly the target.
//! 3. Else, if the target is a directory (or a symbolic link to one), every source goes into it; if it is not, there may
//!    be only one source, and that becomes the target.
//!
//! Into a directory a source goes by its last component, without slashes at its end; one that ends in `.` or `..` (or is
//! `/`) is the directory's own contents and merges with the target. After this, nobody asks again where something goes.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::backup_name;
use crate::cancel::Canceller;
use crate::counters::Counters;
use crate::error::{Error, Operation};
use crate::live::Progress;
use crate::meeting::refuse_pruning;
use crate::observer::{Observer, Silent};
use crate::options::{Backup, Delete, Options};
use crate::path::{join, split, strip_slashes};
use crate::sys::{self, Errno, FileId, Kind};

/// Where the sources go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `cp`'s last operand: a directory to copy into, or the copy's own name.
    Path(PathBuf),
    /// A directory to copy into (`-t`).
    Directory(PathBuf),
    /// The copy's own name, even if a directory has it (`-T`).
    Exactly(PathBuf),
}

/// One source and its one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Root {
    /// What is copied.
    pub source: PathBuf,
    /// What its copy is called.
    pub dest: PathBuf,
    /// The target directory in which the source's leading directories are made, with [`Options::parents`].
    pub within: Option<PathBuf>,
}

/// A copy, ready to be started: what goes where, and how. It is a [`crate::Task`] for a [`crate::Pool`].
///
/// ```
/// use poolcp::{Options, Plan, Pool, Target};
///
/// # let dir = tempfile::tempdir()?;
/// # let source = dir.path().join("photos");
/// # std::fs::create_dir(&source)?;
/// # std::fs::write(source.join("cat.jpg"), "meow")?;
/// # let target = dir.path().join("backup");
/// let plan = Plan::resolve([source], Target::Path(target.clone()), Options::archive())?;
/// let pool = Pool::builder().threads(10).build()?;
/// let report = pool.apply_async(plan)?.join()?;
/// assert!(report.is_success());
/// assert_eq!(std::fs::read(target.join("cat.jpg"))?, b"meow");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Plan {
    pub(crate) roots: Vec<Root>,
    /// The directory that the copies are made in, if there is one.
    pub(crate) target: Option<TargetDir>,
    pub(crate) options: Options,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) canceller: Canceller,
}

/// A target directory: found by its path once, and from then on the same.
#[derive(Clone, Debug)]
pub(crate) struct TargetDir {
    pub path: PathBuf,
    pub id: FileId,
}

impl TargetDir {
    fn find(path: &Path) -> sys::Result<Self> {
        let stat = sys::stat_at(sys::cwd(), path.as_os_str(), true)?;
        if stat.kind != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        Ok(Self {
            path: path.to_owned(),
            id: stat.id,
        })
    }
}

// Not derived: an observer can be anything.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("roots", &self.roots)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Decides where each source goes, by the module's rules.
    ///
    /// # Errors
    ///
    /// [`Operation::TargetDirectory`], [`Operation::Target`] or [`Operation::ParentsTarget`] if a target must be a
    /// directory and is not. A source that does not exist is no error yet: it becomes one, among the others, when it is
    /// copied.
    pub fn resolve(
        sources: impl IntoIterator<Item = impl Into<PathBuf>>,
        target: Target,
        mut options: Options,
    ) -> Result<Self, Error> {
        let sources: Vec<PathBuf> = sources.into_iter().map(Into::into).collect();
        let found = match &target {
            Target::Directory(dir) | Target::Path(dir) => TargetDir::find(dir),
            Target::Exactly(_) => Err(Errno::NOTDIR),
        };
        let (roots, target) = match (target, found) {
            (Target::Directory(dir) | Target::Path(dir), Ok(found)) => {
                (into_dir(sources, &dir, &options), Some(found))
            }
            (Target::Directory(dir), Err(errno)) => {
                return Err(Error::new(Operation::TargetDirectory, dir).with_errno(errno));
            }
            (Target::Path(dest), Err(errno)) if sources.len() > 1 => {
                return Err(Error::new(Operation::Target, dest).with_errno(errno));
            }
            (Target::Path(dest) | Target::Exactly(dest), _) => {
                (exactly(sources, dest, &mut options)?, None)
            }
        };
        if options.delete != Delete::Nothing {
            if options.ask || options.backup != Backup::No {
                let dest = roots.first().map(|root| root.dest.as_path());
                let dest = dest.unwrap_or(Path::new(""));
                return Err(Error::new(Operation::DeleteKeeps, dest));
            }
            refuse_pruning(&roots, &options)?;
        }
        Ok(Self {
            roots,
            // Leading directories are made by their paths.
            target: target.filter(|_| !options.parents),
            options,
            observer: Arc::new(Silent),
            counters: Arc::default(),
            canceller: Canceller::default(),
        })
    }

    /// Lets `observer` watch the copy.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// A view on what the copy will have done at any moment; also [`crate::Job::progress`].
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::of(&self.counters)
    }

    /// What stops the copy, before its start or while it runs; also [`crate::Job::cancel`].
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The pairs of source and destination.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }
}

/// Each becomes the target itself, which makes sense for one only.
fn exactly(
    sources: Vec<PathBuf>,
    dest: PathBuf,
    options: &mut Options,
) -> Result<Vec<Root>, Error> {
    if sources.len() > 1 {
        return Err(Error::new(Operation::Target, dest).with_errno(Errno::NOTDIR));
    }
    if options.parents {
        return Err(Error::new(Operation::ParentsTarget, dest));
    }
    let mut dest = dest;
    // Letter by letter, as cp does.
    if sources
        .iter()
        .any(|source| source.as_os_str() == dest.as_os_str())
        && let Some(backup) = onto_itself(&dest, options)?
    {
        dest = backup;
        options.backup = Backup::No;
    }
    let root = |source| Root {
        source,
        dest: dest.clone(),
        within: None,
    };
    Ok(sources.into_iter().map(root).collect())
}

/// Where the copy of a file onto itself goes: forced, and with a backup wanted, that backup is all that is made.
fn onto_itself(dest: &Path, options: &Options) -> Result<Option<PathBuf>, Error> {
    let name = dest.as_os_str();
    let is_file = || sys::stat_at(sys::cwd(), name, true).is_ok_and(|stat| stat.kind == Kind::File);
    if !options.force || options.backup == Backup::No || !is_file() {
        return Ok(None);
    }
    backup_name(sys::cwd(), name, options.backup, &options.suffix)
        .map(|backup| Some(PathBuf::from(backup)))
        .map_err(|errno| Error::new(Operation::Backup, dest).with_errno(errno))
}

fn into_dir(sources: Vec<PathBuf>, dir: &Path, options: &Options) -> Vec<Root> {
    let root = |mut source: PathBuf| {
        if options.strip_trailing_slashes {
            source = strip_slashes(&source).to_owned();
        }
        let dest = if options.parents {
            join(dir, strip_slashes(&source).as_os_str())
        } else {
            match split(source.as_os_str()).1 {
                // Not out of the directory again.
                name if name == ".." => join(dir, OsStr::new(".")),
                name => join(dir, name),
            }
        };
        Root {
            source,
            dest,
            within: options.parents.then(|| dir.to_owned()),
        }
    };
    sources.into_iter().map(root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dests(sources: &[&str], dir: &str) -> Vec<String> {
        let sources = sources.iter().map(PathBuf::from).collect();
        let roots = into_dir(sources, Path::new(dir), &Options::default());
        let shown = |root: &Root| root.dest.display().to_string();
        roots.iter().map(shown).collect()
    }

    #[test]
    fn a_source_goes_into_a_directory_by_its_last_component() {
        assert_eq!(
            dests(&["a", "x/b", "x/c/", "/d//", "x/.", "."], "t"),
            ["t/a", "t/b", "t/c", "t/d", "t/.", "t/."]
        );
        assert_eq!(dests(&["a"], "./t//"), ["./t/a"]);
        assert_eq!(dests(&["a"], "/"), ["/a"]);
    }

    #[test]
    fn root_and_dot_dot_merge_with_the_target() {
        assert_eq!(dests(&["/", "..", "x/.."], "t"), ["t/", "t/.", "t/."]);
    }

    #[test]
    fn several_sources_need_a_directory() {
        let two = ["a", "b"];
        let error = Plan::resolve(two, Target::Exactly("/dev/null".into()), Options::default());
        let text = error.err().map(|error| error.to_string());
        assert_eq!(text.as_deref(), Some("target '/dev/null': Not a directory"));
        let plan = Plan::resolve(two, Target::Path("/nonexistent".into()), Options::default());
        let text = plan.err().map(|error| error.to_string());
        assert_eq!(
            text.as_deref(),
            Some("target '/nonexistent': No such file or directory")
        );
    }
}
