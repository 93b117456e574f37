//! Random trees: what may be in one, and how it is made in a sandbox.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use crate::harness::{
    ACCESS_ACL, DEFAULT_ACL, NOBODY, Sandbox, acl_for, chmod, chown, set_mtime, set_xattr,
};
use crate::needs::Need;
use crate::programs::is_root;

/// Trees of each kind that are tried, unless `PROPTEST_CASES` says how many.
const CASES: u32 = 40;

/// Few enough that two trees have names in common.
pub const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"two words",
    b"-rf",
    b"new\nline",
    b"it's",
    b"\"quoted\" $(x)`",
    b"\xff\xfe",
    b".hidden",
    "\u{e4}\u{1f4be}".as_bytes(),
];

const SIZES: [usize; 14] = [
    0, 1, 10, 511, 4095, 4096, 4097, 65_535, 65_536, 262_143, 262_144, 262_145, 1_048_575,
    1_048_577,
];

const MODES: [u32; 12] = [
    0o644, 0o755, 0o600, 0o777, 0o444, 0o555, 0o000, 0o4755, 0o2750, 0o6711, 0o1777, 0o7777,
];

/// One entry. Which directory it is in is an index among those made before, so any part of a list is a tree, too.
#[derive(Clone)]
pub struct Item {
    pub parent: usize,
    pub name: &'static [u8],
    pub what: What,
    pub attributes: Attributes,
}

impl fmt::Debug for Item {
    /// On one line, so that a failure can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_ascii();
        let (what, attributes) = (&self.what, &self.attributes);
        write!(f, "in {} \"{name}\" {what:?} {attributes:?}", self.parent)
    }
}

#[derive(Clone, Debug)]
pub enum What {
    Dir,
    File(usize),
    /// A size, and where its data is (offset, length).
    Sparse(usize, Vec<(usize, usize)>),
    Symlink(&'static str),
    /// To an earlier entry that is no directory, if there is one.
    HardLink(usize),
    Fifo,
    Socket,
}

#[derive(Clone)]
pub struct Attributes {
    pub mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    pub xattr: Option<usize>,
    pub acl: bool,
    pub default_acl: bool,
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            owner,
            mtime,
            xattr,
            acl,
            default_acl,
        } = self;
        write!(
            f,
            "{mode:04o} {owner:?} {mtime:?} xattr {xattr:?} ACLs {acl} {default_acl}"
        )
    }
}

pub fn what() -> impl Strategy<Value = What> {
    let range = (0..2_000_000_usize, select(&SIZES[..11]));
    prop_oneof![
        4 => Just(What::Dir),
        6 => select(&SIZES[..]).prop_map(What::File),
        2 => (1..3_000_000_usize, prop::collection::vec(range, 0..4))
            .prop_map(|(size, data)| What::Sparse(size, data)),
        2 => select(&["a", "b/c", "..", "/", "nowhere", "two words"][..]).prop_map(What::Symlink),
        3 => (0..16_usize).prop_map(What::HardLink),
        1 => Just(What::Fifo),
        1 => Just(What::Socket),
    ]
}

pub fn attributes() -> impl Strategy<Value = Attributes> {
    let owner = select(&[(0, 0), (0, 0), (1, 1), (NOBODY, 12), (1234, 0)][..]);
    let seconds = select(&[0, 1, -1, 1_000_000_000, 1_700_000_000, 4_294_967_296][..]);
    let nanoseconds = select(&[0, 1, 123_456_789, 999_999_999][..]);
    let xattr = prop::option::weighted(0.2, select(&[0, 1, 200, 1000][..]));
    let acl = prop::bool::weighted(0.1);
    (
        select(&MODES[..]),
        owner,
        (seconds, nanoseconds),
        xattr,
        acl,
        acl,
    )
        .prop_map(|(mode, owner, mtime, xattr, acl, default_acl)| Attributes {
            mode,
            owner,
            mtime,
            xattr,
            acl,
            default_acl,
        })
}

pub fn tree() -> impl Strategy<Value = Vec<Item>> {
    let item = (0..8_usize, select(&NAMES[..]), what(), attributes());
    let item = item.prop_map(|(parent, name, what, attributes)| Item {
        parent,
        name,
        what,
        attributes,
    });
    prop::collection::vec(item, 0..30)
}

pub fn workers() -> impl Strategy<Value = String> {
    select(&["-j1", "-j2", "-j8", "-j32"][..]).prop_map(str::to_owned)
}

/// What this machine can make; what it cannot is left out of the trees, and said.
struct Able {
    xattrs: bool,
    acls: bool,
}

static ABLE: LazyLock<Able> = LazyLock::new(|| {
    let able = |need: Need, part: &str| {
        let met = need.is_met();
        if !met {
            crate::needs::say_skipped(&format!("it::trees, {part}"), need);
        }
        met
    };
    able(Need::Root, "owners and unreadable files");
    Able {
        xattrs: able(Need::UserXattrs, "extended attributes"),
        acls: able(Need::Acls, "ACLs"),
    }
});

/// Makes the tree below `root`; names that are taken are left out.
pub fn make(sandbox: &Sandbox, root: &str, items: &[Item]) {
    let root = sandbox.dir(root);
    let mut dirs = vec![root.clone()];
    let mut others: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Attributes)> = Vec::new();
    for item in items {
        let path = dirs[item.parent % dirs.len()].join(OsStr::from_bytes(item.name));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match &item.what {
            What::Dir => dirs.push(sandbox.dir(&path)),
            What::File(size) => _ = sandbox.file(&path, *size),
            What::Sparse(size, data) => {
                let inside = data.iter().filter(|(offset, _)| offset < size);
                let data: Vec<_> = inside
                    .map(|&(offset, len)| (offset as u64, len.min(size - offset)))
                    .collect();
                sandbox.sparse(&path, *size as u64, &data);
            }
            What::Symlink(target) => _ = sandbox.symlink(&path, target),
            What::Fifo => _ = sandbox.fifo(&path),
            // A socket's own path may not be longer than 108 bytes.
            What::Socket if path.as_os_str().len() < 100 => _ = sandbox.socket(&path),
            What::HardLink(to) if !others.is_empty() => {
                _ = sandbox.hard_link(&path, &others[to % others.len()]);
            }
            What::Socket | What::HardLink(_) => continue,
        }
        if !matches!(item.what, What::Dir) {
            others.push(path.clone());
        }
        made.push((path, &item.attributes));
    }
    // A directory after all that is in it.
    for (path, attributes) in made.iter().rev() {
        give(path, attributes);
    }
    set_mtime(&root, 1_111_111_111, 111_111_111);
}

fn give(path: &Path, attributes: &Attributes) {
    let meta = fs::symlink_metadata(path).expect("metadata");
    if is_root() {
        chown(path, attributes.owner.0, attributes.owner.1);
    }
    let has_data = meta.is_file() || meta.is_dir();
    if let Some(len) = attributes.xattr
        && has_data
        && ABLE.xattrs
    {
        set_xattr(path, "user.poolcp", &vec![b'x'; len]);
    }
    if !meta.is_symlink() {
        // Only root may copy what its owner may not read.
        let at_least = if is_root() { 0 } else { 0o700 };
        // Special bits mean nothing where there is nothing to run.
        let bits = if has_data { 0o7777 } else { 0o777 };
        chmod(path, attributes.mode & bits | at_least);
        if attributes.acl && ABLE.acls {
            set_xattr(path, ACCESS_ACL, &acl_for(1234));
        }
    }
    if attributes.default_acl && meta.is_dir() && ABLE.acls {
        set_xattr(path, DEFAULT_ACL, &acl_for(4321));
    }
    set_mtime(path, attributes.mtime.0, attributes.mtime.1);
}

pub fn check<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.max_shrink_iters = 400;
    config.failure_persistence = None;
    if let Err(error) = TestRunner::new(config).run(strategy, test) {
        panic!("{error}");
    }
}
