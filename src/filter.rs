//! Which entries are copied and which are left out: by name, by size and by age.
//!
//! 1. **Globs** ([`Filter::new`]) in the order in which they are given: the first one that matches decides. Their syntax is
//!    gitignore(5)'s: `*.o` and `build/` (directories only) match at any depth, `/build` and `doc/*.pdf` from the source
//!    directory that was named, `**` any number of directories.
//! 2. **`.gitignore`** files ([`Filter::gitignore`]), where no glob decides: those in the source, those above it in its
//!    repository, the repository's and the user's own excludes (`gitignore.rs`).
//! 3. **Size and age** of what is no directory. This is asked last, as it needs a look at the file.
//!
//! A directory that is left out is not read, so nothing in it can be brought back. What is named on the command line is
//! copied if it is a directory, whatever the globs say.
//!
//! The rules are those of the crate `ignore`, which ripgrep uses, with git's globs (`glob.rs`).

use std::ffi::OsStr;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::dir::Dir;
use crate::gitignore::Ignored;
use crate::glob::{is_escaping, translated, trimmed};
use crate::quote::quote;
use crate::sys::{Kind, Stat};

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

/// The names of one directory that are copied.
pub(crate) struct NameFilter<'a> {
    filter: &'a Filter,
    ignored: Option<&'a Ignored>,
    /// The directory's path from its operand.
    inner: PathBuf,
}

impl<'a> NameFilter<'a> {
    /// `None` if all are.
    pub(crate) fn of(filter: &'a Filter, dir: &'a Dir) -> Option<Self> {
        filter.has_names().then(|| Self {
            filter,
            ignored: dir.facts().and_then(|facts| facts.ignored.as_deref()),
            inner: dir.inner_path(),
        })
    }

    /// Whether a name is left out.
    pub(crate) fn leaves_out(&self, name: &OsStr, is_dir: bool) -> bool {
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
