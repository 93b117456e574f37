//! Which entries are copied and which are left out: by name, by size and by age.
//!
//! 1. **Globs** ([`Filter::new`]) in the order in which they are given: the first one that matches decides. Their syntax is
//!    gitignore(5)'s: `*.o` and `build/` (directories only) match at any depth, `/build` and `doc/*.pdf` from the source
//!    directory that was named, `**` any number of directories.
//! 2. **`.gitignore`** files ([`Filter::gitignore`]), where no glob decides: those in the source, those above it in its
//!    repository, the repository's and the user's own excludes.
//! 3. **Size and age** of what is no directory. This is asked last, as it needs a look at the file.
//!
//! A directory that is left out is not read, so nothing in it can be brought back. What is named on the command line is
//! copied if it is a directory, whatever the globs say.
//!
//! The rules are those of the crate `ignore`, which ripgrep uses, with git's globs (`glob.rs`). What git tracks is left out as well
//! where a rule ignores it: its index is not read.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path};

use crate::context::Context;
use crate::dir::{Dir, Place};
use crate::error::{Error, Operation};
use crate::glob::{is_escaping, translated, trimmed};
use crate::quote::quote;
use crate::sys::{self, Errno, Kind, SourceFlags, Stat};

/// A glob, and what becomes of what matches it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// It is left out.
    Exclude(String),
    /// It is copied.
    Include(String),
}

impl Rule {
    /// A line of a file of globs, as in a `.gitignore` file: `!` includes, blanks at its end are none of it unless there is a
    /// backslash before them, and `None` is an empty line, or one that begins with `#`.
    ///
    /// ```
    /// use poolcp::Rule;
    ///
    /// assert_eq!(Rule::from_line("*.o  "), Some(Rule::Exclude("*.o".into())));
    /// assert_eq!(Rule::from_line("!main.o"), Some(Rule::Include("main.o".into())));
    /// assert_eq!(Rule::from_line("# objects"), None);
    /// ```
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let line = trimmed(line);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some(match line.strip_prefix('!') {
            Some(glob) => Self::Include(glob.to_owned()),
            None => Self::Exclude(line.to_owned()),
        })
    }
}

/// A glob that is none, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidGlob(String);

impl fmt::Display for InvalidGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for InvalidGlob {}

/// Which entries are left out; none by default.
///
/// ```
/// use poolcp::{Filter, Options, Rule};
///
/// let mut options = Options::archive();
/// options.filter = Filter::new([Rule::Exclude("*.o".into()), Rule::Exclude("/build/".into())])?;
/// options.filter.sizes = 0..=1 << 20;
/// # Ok::<(), poolcp::InvalidGlob>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Filter {
    rules: Vec<Rule>,
    globs: Gitignore,
    /// What git ignores is left out.
    pub gitignore: bool,
    /// Regular files of other sizes, in bytes, are left out.
    pub sizes: RangeInclusive<u64>,
    /// What is no directory and was modified then or before is left out.
    pub newer_than: Option<SystemTime>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            globs: Gitignore::empty(),
            gitignore: false,
            sizes: 0..=u64::MAX,
            newer_than: None,
        }
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let parts = |filter: &Self| (filter.gitignore, filter.sizes.clone(), filter.newer_than);
        self.rules == other.rules && parts(self) == parts(other)
    }
}

impl Eq for Filter {}

impl Filter {
    /// A filter with these globs, the first one that matches deciding.
    ///
    /// # Errors
    ///
    /// One of them is empty, or no glob.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Result<Self, InvalidGlob> {
        let rules: Vec<Rule> = rules.into_iter().collect();
        let mut globs = GitignoreBuilder::new("");
        // In a .gitignore file the last one decides.
        for rule in rules.iter().rev() {
            let (sign, glob) = match rule {
                Rule::Exclude(glob) => ("", glob),
                Rule::Include(glob) => ("!", glob),
            };
            if glob.is_empty() {
                return Err(InvalidGlob("a glob must not be empty".to_owned()));
            }
            let invalid = |why: &str| InvalidGlob(format!("invalid glob: {}: {why}", quote(glob)));
            let line = translated(&escaped(glob));
            let line = line.ok_or_else(|| invalid("it would match nothing"))?;
            let added = globs.add_line(None, &format!("{sign}{line}"));
            added.map_err(|error| match error {
                ignore::Error::Glob { err, .. } => invalid(&err),
                error => invalid(&error.to_string()),
            })?;
        }
        let globs = globs.build();
        Ok(Self {
            rules,
            globs: globs.map_err(|error| InvalidGlob(error.to_string()))?,
            ..Self::default()
        })
    }

    /// The globs, in the order in which they decide.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether names are left out.
    pub(crate) fn has_names(&self) -> bool {
        self.gitignore || !self.globs.is_empty()
    }

    /// Whether a directory at this path from its operand may be left out, or one that it is in.
    pub(crate) fn may_drop_dir(&self, inner: &Path) -> bool {
        self.gitignore
            || inner
                .ancestors()
                .any(|dir| self.globs.matched(dir, true).is_ignore())
    }

    /// Whether something is left out that could only be seen by looking at it.
    pub(crate) fn drops(&self, stat: &Stat) -> bool {
        if stat.kind == Kind::Dir {
            return false;
        }
        let is_old = |than: SystemTime| modified(stat).is_some_and(|modified| modified <= than);
        (stat.kind == Kind::File && !self.sizes.contains(&stat.size))
            || self.newer_than.is_some_and(is_old)
    }

    /// Whether an operand that is no directory is left out by its name.
    pub(crate) fn drops_operand(&self, name: &OsStr) -> bool {
        self.globs.matched(Path::new(name), false).is_ignore()
    }
}

/// When a file was modified; `None` for a time that the clock cannot say.
fn modified(stat: &Stat) -> Option<SystemTime> {
    let (seconds, nanoseconds) = stat.times.modified;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    second?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// A glob as a line of a .gitignore file, where the first and the last character may mean something else.
fn escaped(glob: &str) -> String {
    let first = if glob.starts_with(['!', '#']) {
        "\\"
    } else {
        ""
    };
    match glob.strip_suffix(' ') {
        Some(rest) if !is_escaping(rest) => format!("{first}{rest}\\ "),
        _ => format!("{first}{glob}"),
    }
}

/// What git ignores in a directory and below it: the rules of all the directories above, the nearest last.
#[derive(Clone, Debug)]
pub(crate) struct Ignored {
    /// The operand's own path, without links.
    operand: Arc<Path>,
    rules: Vec<Arc<Gitignore>>,
    /// How long they are, in bytes: not more than [`LONGEST_RULES`].
    length: u64,
}

impl Ignored {
    /// The rules that hold for an operand from outside: the user's, the repository's, those of the directories between its
    /// top and the operand.
    fn around(cx: &Context, path: PathBuf) -> Self {
        let top = top_of_repository(&path).and_then(|top| {
            let is_trusted = is_trusted(top, &path, cx.process.uid);
            if !is_trusted {
                cx.warning(&Error::new(Operation::OthersRules, top));
            }
            is_trusted.then_some(top)
        });
        let excludes = top.and_then(excludes_of);
        let root = top.unwrap_or(&path);
        let mut ignored = Self::of_repository(cx, root, excludes, path.clone().into());
        if let Some(top) = top {
            let above = path.ancestors().skip(1);
            let above: Vec<&Path> = above.take_while(|above| above.starts_with(top)).collect();
            for dir in above.iter().rev() {
                let file = dir.join(".gitignore");
                let opened = sys::open_source(sys::cwd(), file.as_os_str(), SourceFlags::PLAIN);
                ignored.add(cx, dir, &file, opened);
            }
        }
        ignored
    }

    /// The rules that hold in all of a repository: the user's, and its own. Both are anchored at its `top`, and may be links of the
    /// user's.
    fn of_repository(cx: &Context, top: &Path, own: Option<PathBuf>, operand: Arc<Path>) -> Self {
        let files = [gitconfig_excludes_path(), own];
        let mut found = Self {
            operand,
            rules: Vec::new(),
            length: 0,
        };
        for file in files.into_iter().flatten() {
            let looked = sys::stat_at(sys::cwd(), file.as_os_str(), false);
            let flags = SourceFlags {
                follow: looked.is_ok_and(|there| there.uid == cx.process.uid),
                ..SourceFlags::PLAIN
            };
            let opened = sys::open_source(sys::cwd(), file.as_os_str(), flags);
            found.add(cx, top, &file, opened);
        }
        found
    }

    /// Adds the rules in a file, if there is one. One that cannot be read is told: more would be copied than was asked for.
    fn add(&mut self, cx: &Context, root: &Path, path: &Path, opened: sys::Result<OwnedFd>) {
        if let Some((rules, length)) =
            read_rules(cx, root, path, opened, LONGEST_RULES - self.length)
        {
            self.rules.push(rules);
            self.length += length;
        }
    }

    /// The rules for a directory whose source is open: those of the one above, if any, and its own. `None` if nobody asked.
    pub(crate) fn enter(
        cx: &Context,
        place: Place<'_>,
        source: BorrowedFd<'_>,
    ) -> Option<Arc<Self>> {
        if !cx.options.filter.gitignore {
            return None;
        }
        let path = place.source_path();
        let above = place.dir.facts().and_then(|facts| facts.ignored.as_ref());
        let (above, inner) = match above {
            Some(above) => {
                let inner = place.dir.inner_path().join(place.names.source);
                (Arc::clone(above), inner)
            }
            None => {
                // What the standard library looks for is in the thread's working directory.
                sys::enter(sys::cwd());
                let operand = path.canonicalize().unwrap_or_else(|_| path.clone());
                (Arc::new(Self::around(cx, operand)), PathBuf::new())
            }
        };
        let opened = sys::open_source(source, OsStr::new(".gitignore"), SourceFlags::PLAIN);
        let root = above.operand.join(&inner);
        // A repository in another one is a matter of its own.
        let is_inner = !inner.as_os_str().is_empty()
            && sys::stat_at(source, OsStr::new(".git"), false).is_ok()
            && is_repository(&root);
        let above = if is_inner {
            let operand = Arc::clone(&above.operand);
            Arc::new(Self::of_repository(cx, &root, excludes_of(&root), operand))
        } else {
            above
        };
        if matches!(opened, Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) {
            return Some(above);
        }
        let mut below = Self::clone(&above);
        below.add(cx, &root, &path.join(".gitignore"), opened);
        Some(Arc::new(below))
    }

    /// The same as git does: the rules that are nearest decide.
    fn drops(&self, inner: &Path, is_dir: bool) -> bool {
        let path = self.operand.join(inner);
        for rules in self.rules.iter().rev() {
            match rules.matched(&path, is_dir) {
                Match::None => {}
                found => return found.is_ignore(),
            }
        }
        false
    }
}

/// The top of the repository that a directory is in, as git finds it: on the same filesystem.
fn top_of_repository(path: &Path) -> Option<&Path> {
    let dev = look(path)?.id.dev;
    let is_near = |above: &&Path| look(above).is_some_and(|stat| stat.id.dev == dev);
    let mut above = path.ancestors().take_while(is_near);
    above.find(|above| is_repository(above))
}

/// Whether a repository is somebody's who may say what is done with a directory in it. Whoever may only write above that could
/// leave it out otherwise (git-config(1), `safe.directory`).
fn is_trusted(top: &Path, path: &Path, uid: u32) -> bool {
    let owner = |path: &Path| look(path).map(|stat| stat.uid);
    let git = owner(&top.join(".git"));
    git == Some(uid) || git == owner(path)
}

fn look(path: &Path) -> Option<Stat> {
    sys::stat_at(sys::cwd(), path.as_os_str(), true).ok()
}

/// Whether a directory has a repository in it, or leads to one.
fn is_repository(dir: &Path) -> bool {
    let git = dir.join(".git");
    git.join("HEAD").symlink_metadata().is_ok() || led_to(&git).is_some()
}

/// The file of a repository that says what is not to be tracked in it.
fn excludes_of(top: &Path) -> Option<PathBuf> {
    let git = top.join(".git");
    let own = led_to(&git).unwrap_or(git);
    // A worktree has it in the repository that it is of.
    let common = read_line(&own.join("commondir"));
    let common = common.map_or(own.clone(), |common| own.join(common));
    let file = common.join("info/exclude");
    file.exists().then_some(file)
}

/// Where a file called `.git` leads to (gitrepository-layout(5)).
fn led_to(git: &Path) -> Option<PathBuf> {
    let line = read_line(git)?;
    let to = line.strip_prefix("gitdir: ")?;
    Some(git.parent()?.join(to))
}

/// The line that a small regular file is.
fn read_line(file: &Path) -> Option<String> {
    let opened = sys::open_source(sys::cwd(), file.as_os_str(), SourceFlags::PLAIN).ok()?;
    let is_small = |stat: Stat| stat.kind == Kind::File && stat.size < 4096;
    sys::fstat(&opened).ok().filter(|stat| is_small(*stat))?;
    let mut text = String::new();
    File::from(opened)
        .take(4096)
        .read_to_string(&mut text)
        .ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// The most that the rules for one directory may be, in bytes: read, they take some forty times as much memory.
const LONGEST_RULES: u64 = 1 << 20;

/// The rules in a file, if there is one, which may be so `long`, and how long they are.
fn read_rules(
    cx: &Context,
    root: &Path,
    path: &Path,
    opened: sys::Result<OwnedFd>,
    long: u64,
) -> Option<(Arc<Gitignore>, u64)> {
    let tell = |operation, errno| {
        cx.error(Error::new(operation, path).with_errno(errno));
        None
    };
    let file = match opened {
        Ok(file) => file,
        // None there, or a link, which git does not follow either.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return None,
        Err(errno) => return tell(Operation::Open, errno),
    };
    if !sys::fstat(&file).is_ok_and(|stat| stat.kind == Kind::File) {
        return None;
    }
    let mut bytes = Vec::new();
    let mut file = File::from(file).take(long + 1);
    if let Err(error) = file.read_to_end(&mut bytes) {
        return tell(
            Operation::Read,
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
        );
    }
    let length = bytes.len() as u64;
    if length > long {
        return tell(Operation::Read, Errno::FBIG);
    }
    let mut rules = GitignoreBuilder::new(root);
    // As git does with a byte order mark.
    let text = String::from_utf8_lossy(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes));
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(line) = translated(line) {
            // As git does with what is no glob.
            let _ = rules.add_line(None, &line);
        }
    }
    match rules.build() {
        Ok(rules) => Some((Arc::new(rules), length)),
        // They are too many, or too long.
        Err(_) => tell(Operation::Read, Errno::FBIG),
    }
}

/// The names of one directory that are copied.
pub(crate) struct Names<'a> {
    filter: &'a Filter,
    ignored: Option<&'a Ignored>,
    /// The directory's path from its operand.
    inner: PathBuf,
}

impl<'a> Names<'a> {
    /// `None` if all are.
    pub(crate) fn of(filter: &'a Filter, dir: &'a Dir) -> Option<Self> {
        filter.has_names().then(|| Self {
            filter,
            ignored: dir.facts().and_then(|facts| facts.ignored.as_deref()),
            inner: dir.inner_path(),
        })
    }

    /// Whether a name is left out.
    pub(crate) fn drop(&self, name: &OsStr, is_dir: bool) -> bool {
        drops(self.filter, self.ignored, &self.inner.join(name), is_dir)
    }
}

/// Whether what is at a path from its operand is left out.
pub(crate) fn drops(
    filter: &Filter,
    ignored: Option<&Ignored>,
    inner: &Path,
    is_dir: bool,
) -> bool {
    match filter.globs.matched(inner, is_dir) {
        Match::None => ignored.is_some_and(|ignored| ignored.drops(inner, is_dir)),
        found => found.is_ignore(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(rules: &str) -> Result<Filter, InvalidGlob> {
        Filter::new(
            rules
                .split_terminator(' ')
                .map(|rule| match rule.strip_prefix('+') {
                    Some(glob) => Rule::Include(glob.to_owned()),
                    None => Rule::Exclude(rule.to_owned()),
                }),
        )
    }

    #[test]
    fn the_first_glob_that_matches_decides() {
        for (rules, path, is_dropped) in [
            ("", "a.o", false),
            ("*.o", "a.o", true),
            ("*.o", "x/y/a.o", true),
            ("+keep.o *.o", "keep.o", false),
            ("*.o +keep.o", "keep.o", true),
            ("+*.c +*/ *", "a.c", false),
            ("+*.c +*/ *", "x/a.h", true),
            ("+*.c +*/ *", "x/", false),
            ("build/", "x/build", false),
            ("build/", "x/build/", true),
            ("/build", "build", true),
            ("/build", "x/build", false),
            ("doc/*.pdf", "doc/a.pdf", true),
            ("doc/*.pdf", "doc/x/a.pdf", false),
            ("doc/**/*.pdf", "doc/x/a.pdf", true),
            ("!x", "!x", true),
            ("#x", "#x", true),
            ("[ab]", "a", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
        ] {
            let filter = filter(rules).expect(rules);
            let inner = Path::new(path.trim_end_matches('/'));
            let dropped = drops(&filter, None, inner, path.ends_with('/'));
            assert_eq!(dropped, is_dropped, "{rules}: {path}");
        }
    }

    #[test]
    fn a_space_at_the_end_belongs_to_the_name() {
        let filter = Filter::new([Rule::Exclude("a ".to_owned())]).expect("a glob");
        assert!(drops(&filter, None, Path::new("a "), false));
        assert!(!drops(&filter, None, Path::new("a"), false));
    }

    #[test]
    fn what_is_no_glob_is_told() {
        assert!(filter("a{b").is_ok(), "it is no glob to git, either");
        assert!(Filter::new([Rule::Include(String::new())]).is_err());
    }
}
