//! What git ignores in the directories that are copied (`--gitignore`): where the rules are, which of them hold, and whose are
//! followed. Filtering by them is a matter of `filter.rs`.
//!
//! The rules for a directory are those of the one above and its own `.gitignore` file. For an operand they come from outside: the
//! user's excludes, the repository's, and the `.gitignore` files between its top and the operand. A repository
//! in another one begins anew.
//!
//! What git tracks is left out as well where a rule ignores it: its index is not read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path};

use crate::context::Context;
use crate::error::{Error, Operation};
use crate::glob::translated;
use crate::place::Place;
use crate::sys::{self, Errno, Kind, SourceFlags, Stat};

/// The most that the rules for one directory may be, in bytes: read, they take some forty times as much memory.
const LONGEST_RULES: u64 = 1 << 20;

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
    pub(crate) fn drops(&self, inner: &Path, is_dir: bool) -> bool {
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
