//! The world of a [`Case`]: as a shell script, for somebody who wants to see it, and on the disk. Both are the same, to the byte.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{Mode, OFlags};

use crate::harness::{
    ACCESS_ACL, DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, set_mtime, set_xattr,
};
use crate::programs::is_root;

use super::case::{Attributes, Case, Kind, TIMES, Thing};

/// The working directory, deep enough that names with `..` in them stay in the sandbox.
pub(super) const HERE: &str = "1/2/3";

/// The size of files with holes, and of those that could have some.
const LARGE: usize = 40_000;

// ---- A case as a shell script ----

impl fmt::Debug for Case {
    /// As something that can be typed in an empty directory, and be kept in [`super::SCRIPTS`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for thing in &self.things {
            thing.write_making(f)?;
        }
        if self.ordinary {
            writeln!(f, "chown -hR {NOBODY}:{NOBODY} .")?;
        }
        for thing in self.things.iter().rev() {
            thing.write_attributes(f)?;
        }
        if let Some(umask) = self.umask {
            write!(f, "umask {umask:03o}; ")?;
        }
        if !self.answers.is_empty() {
            write!(f, "printf '{}' | ", self.answers.replace('\n', "\\n"))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        if self.ordinary {
            write!(
                f,
                "setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
            )?;
        }
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        write!(f, "cp {}", words.join(" "))
    }
}

impl Thing {
    fn write_making(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = quoted(&self.path);
        match &self.kind {
            Kind::Dir => writeln!(f, "mkdir {path}"),
            Kind::File(0) => writeln!(f, ": >{path}"),
            Kind::File(size) => writeln!(f, "yes {path} | head -c {size} >{path}"),
            Kind::Zeros => writeln!(f, "head -c {LARGE} /dev/zero >{path}"),
            Kind::Hole => writeln!(
                f,
                "yes {path} | head -c 100 >{path}; truncate -s {LARGE} {path}"
            ),
            Kind::Symlink(target) => writeln!(f, "ln -s {} {path}", quoted(target)),
            Kind::HardLink(to) => writeln!(f, "ln -P {} {path}", quoted(to)),
            Kind::Fifo => writeln!(f, "mkfifo {path}"),
        }
    }

    fn write_attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, attributes) = (quoted(&self.path), self.effective());
        if let Some(owner) = attributes.owner {
            writeln!(f, "chown -h {owner}:{owner} {path}")?;
        }
        if attributes.xattr {
            writeln!(f, "setfattr -n user.poolcp -v x {path}")?;
        }
        if attributes.acl {
            writeln!(f, "setfacl -m u::rwx,u:1234:rx,g::rx,m::rwx,o::- {path}")?;
        }
        if let Some(mode) = attributes.mode {
            writeln!(f, "chmod {mode:04o} {path}")?;
        }
        if attributes.default_acl {
            writeln!(f, "setfacl -d -m u::rwx,u:4321:rx,g::rx,m::rwx,o::- {path}")?;
        }
        match self.kind {
            Kind::HardLink(_) => Ok(()),
            _ => writeln!(f, "touch -hd @{} {path}", attributes.mtime),
        }
    }

    /// Its attributes as far as such a thing can have them, and this machine can set them.
    fn effective(&self) -> Attributes {
        let mut attributes = self.attributes;
        let (is_dir, has_data) = match self.kind {
            Kind::HardLink(_) => return Attributes::PLAIN,
            Kind::Dir => (true, true),
            Kind::File(_) | Kind::Zeros | Kind::Hole => (false, true),
            Kind::Symlink(_) | Kind::Fifo => (false, false),
        };
        attributes.owner = attributes.owner.filter(|_| is_root());
        attributes.xattr &= has_data && ABLE.xattrs;
        attributes.acl &= has_data && ABLE.acls;
        attributes.default_acl &= is_dir && ABLE.acls;
        if !has_data {
            attributes.mode = attributes.mode.map(|mode| mode & 0o777);
        }
        if matches!(self.kind, Kind::Symlink(_)) {
            attributes.mode = None;
        }
        attributes
    }
}

/// As a word of a shell script.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./=,:+-".contains(c);
    if !word.is_empty() && word.chars().all(|c| plain(c) || c == '~') && !word.starts_with('~') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

// ---- A case on the disk ----

/// What the file system of the sandboxes can keep.
struct Able {
    xattrs: bool,
    acls: bool,
}

static ABLE: LazyLock<Able> = LazyLock::new(|| {
    let probe = Sandbox::small_in_memory();
    Able {
        xattrs: probe.can_set("user.poolcp", b"x"),
        acls: probe.can_set(ACCESS_ACL, &acl_for(1)),
    }
});

impl Case {
    /// Makes the world in one of the orders in which that can be done: 0 is as written, 1 the reverse. What is in a
    /// directory is copied by `cp` in the order in which it was made.
    pub(super) fn make(&self, order: u64) -> Sandbox {
        let sandbox = Sandbox::small_in_memory();
        let here = sandbox.dir(HERE);
        let mut todo: Vec<&Thing> = self.things.iter().collect();
        if order == 1 {
            todo.reverse();
        } else if order > 1 {
            let mut state = order;
            todo.sort_by_cached_key(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695);
                state >> 33
            });
        }
        let mut made = BTreeSet::new();
        for thing in todo {
            self.make_thing(thing, &here, &mut made);
        }
        if self.ordinary {
            sandbox.give_to_ordinary_user();
        }
        for thing in self.things.iter().rev() {
            thing.give_attributes(&here.join(&thing.path));
        }
        set_mtime(&here, TIMES[0], 0);
        sandbox
    }

    /// Makes what has to be there before, then the thing.
    fn make_thing<'a>(&'a self, thing: &'a Thing, here: &Path, made: &mut BTreeSet<&'a str>) {
        if !made.insert(&thing.path) {
            return;
        }
        let mut needed: Vec<&str> = thing
            .path
            .rsplit_once('/')
            .map(|split| split.0)
            .into_iter()
            .collect();
        if let Kind::HardLink(to) = &thing.kind {
            needed.push(to);
        }
        for path in needed {
            let other = self.things.iter().find(|other| other.path == path);
            self.make_thing(other.expect("what is needed"), here, made);
        }
        let path = here.join(&thing.path);
        match &thing.kind {
            Kind::Dir => fs::create_dir(path).expect("make a directory"),
            Kind::File(size) => fs::write(path, thing.content(*size)).expect("write a file"),
            Kind::Zeros => fs::write(path, vec![0; LARGE]).expect("write a file"),
            Kind::Hole => {
                fs::write(&path, thing.content(100)).expect("write a file");
                let file = fs::File::options().write(true).open(path).expect("open");
                file.set_len(LARGE as u64).expect("set a size");
            }
            Kind::Symlink(to) => std::os::unix::fs::symlink(to, path).expect("make a symlink"),
            Kind::HardLink(to) => crate::harness::hard_link(&here.join(to), &path),
            Kind::Fifo => crate::harness::fifo(&path),
        }
    }

    /// Keeps the fifos open for reading, so that nobody who writes to one has to wait.
    pub(super) fn read_fifos(&self, sandbox: &Sandbox) -> Vec<OwnedFd> {
        let here = sandbox.path(HERE);
        let fifos = self.things.iter().filter(|thing| thing.kind == Kind::Fifo);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        fifos
            .filter_map(|fifo| rustix::fs::open(here.join(&fifo.path), flags, Mode::empty()).ok())
            .collect()
    }
}

impl Thing {
    /// What `yes` prints for its path.
    fn content(&self, size: usize) -> Vec<u8> {
        let line = self.path.bytes().chain([b'\n']);
        line.cycle().take(size).collect()
    }

    fn give_attributes(&self, path: &Path) {
        let attributes = self.effective();
        if matches!(self.kind, Kind::HardLink(_)) {
            return;
        }
        if let Some(owner) = attributes.owner {
            chown(path, owner, owner);
        }
        if attributes.xattr {
            set_xattr(path, "user.poolcp", b"x");
        }
        if attributes.acl {
            set_xattr(path, ACCESS_ACL, &acl_for(1234));
        }
        if let Some(mode) = attributes.mode {
            chmod(path, mode);
        }
        if attributes.default_acl {
            set_xattr(path, DEFAULT_ACL, &acl_for(4321));
        }
        set_mtime(path, attributes.mtime, 0);
    }
}
