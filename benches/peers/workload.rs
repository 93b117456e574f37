//! What is copied.
//!
//! Each workload strains one thing, so that a table of all of them tells where a copier loses its time. They are the same in
//! every run; only `tree` depends on the machine, because nothing generated is quite like a real source tree.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use humansize::{BINARY, format_size};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use crate::random::SplitMix64;

/// Any number will do, as long as it stays: a new one makes other trees, which old results cannot be compared with.
const SEED: u64 = 1;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What large files are written in: a small part of any such file, and cheap to hold.
const PIECE: usize = 1 << 20;

/// With the spread below this makes a mean of 17 KiB, about that of the Linux sources (79,000 files in 1.2 GiB).
const MEDIAN_SIZE: f64 = 4900.0;

/// The standard deviation of the sizes' logarithms, as in source trees (1.4 in /usr/include, 1.8 in Python's library). It makes
/// the mean size 3.6 times the median: most files are small, most bytes are in large ones.
const SIZE_SPREAD: f64 = 1.6;

/// The largest file of the Linux sources is about twice that, and the next ones are smaller.
const LARGEST_TREE_FILE: u64 = 8 * MIB;

/// How many symbolic links the generated tree has: as many as the Linux sources.
const TREE_SYMLINKS: u64 = 56;

/// Depth of the deepest directories of `dirs`.
const DEPTH: usize = 8;

/// Of `dirs`, one directory in so many has a file: few enough not to count.
const DIRS_PER_FILE: u64 = 10;

/// Names of each file in `links`.
const NAMES: u64 = 3;

/// Of `links`, one file in so many has an owner, a mode and an extended attribute of its own: something for verification to
/// see, too rare to change the times.
const SPECIAL: u64 = 100;

/// Somebody, other than the superuser and nobody.
const SOMEBODY: u32 = 1000;

/// Where a real source tree is looked for, unless `POOLCP_TREE` names one: Debian's package linux-source-6.1, unpacked or not.
const LINUX_SOURCE: &str = "/usr/src/linux-source-6.1";

/// How much there is to copy.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub name: &'static str,
    /// A real source tree is used if there is one.
    real_tree: bool,
    tree_files: u64,
    tree_dirs: u64,
    flat_files: u64,
    tiny_files: u64,
    tiny_dirs: u64,
    dirs: u64,
    big_size: u64,
    huge_size: u64,
    sparse_size: u64,
    /// Data in the sparse file.
    sparse_data: u64,
    links: u64,
}

/// For results to show.
pub const FULL: Scale = Scale {
    name: "full",
    real_tree: true,
    tree_files: 79_000,
    tree_dirs: 5_000,
    flat_files: 50_000,
    tiny_files: 100_000,
    tiny_dirs: 1_000,
    dirs: 20_000,
    big_size: 256 * MIB,
    huge_size: 4 * GIB,
    sparse_size: 100 * GIB,
    sparse_data: 100 * MIB,
    links: 20_000,
};

/// For a look while working on something: an eighth, so that copies still take longer than processes take to start.
pub const QUICK: Scale = Scale {
    name: "quick",
    real_tree: false,
    tree_files: 10_000,
    tree_dirs: 640,
    flat_files: 6_000,
    tiny_files: 12_000,
    tiny_dirs: 120,
    dirs: 2_500,
    big_size: 32 * MIB,
    huge_size: 512 * MIB,
    sparse_size: 12 * GIB,
    sparse_data: 12 * MIB,
    links: 2_500,
};

/// For the question whether it all works.
pub const TEST: Scale = Scale {
    name: "test",
    real_tree: false,
    tree_files: 120,
    tree_dirs: 16,
    flat_files: 100,
    tiny_files: 200,
    tiny_dirs: 10,
    dirs: 60,
    big_size: MIB,
    // The smallest that poolcp cuts into chunks.
    huge_size: 64 * MIB,
    // Little enough to be written by those who know no holes.
    sparse_size: 128 * MIB,
    sparse_data: MIB,
    // So that one of them is special.
    links: 100,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Tree,
    Flat,
    Tiny,
    Dirs,
    Big,
    Huge,
    Sparse,
    Links,
}

/// What a workload needs of a filesystem, once; the copies need as much again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Names of all kinds.
    pub entries: u64,
    /// Data, each name's counted, because not every copier keeps names one file.
    pub bytes: u64,
}

impl Workload {
    pub const ALL: [Self; 8] = [
        Self::Tree,
        Self::Flat,
        Self::Tiny,
        Self::Dirs,
        Self::Big,
        Self::Huge,
        Self::Sparse,
        Self::Links,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Flat => "flat",
            Self::Tiny => "tiny",
            Self::Dirs => "dirs",
            Self::Big => "big",
            Self::Huge => "huge",
            Self::Sparse => "sparse",
            Self::Links => "links",
        }
    }

    /// How much of a filesystem it takes. For a real tree this is looked up, or assumed to be as at the full scale.
    pub fn demand(self, scale: &Scale) -> Demand {
        let demand = |entries, bytes| Demand { entries, bytes };
        match self {
            Self::Tree => match real_tree(scale) {
                Some(RealTree::Directory(path)) => demand_of(&path),
                _ => demand(
                    scale.tree_files + scale.tree_dirs,
                    scale.tree_files * 18 * KIB,
                ),
            },
            Self::Flat => demand(scale.flat_files, scale.flat_files * 4 * KIB),
            Self::Tiny => demand(scale.tiny_files + scale.tiny_dirs, scale.tiny_files * KIB),
            Self::Dirs => demand(scale.dirs + scale.dirs / DIRS_PER_FILE, scale.dirs * KIB),
            Self::Big => demand(8, 8 * scale.big_size),
            Self::Huge => demand(1, scale.huge_size),
            Self::Sparse => demand(1, scale.sparse_data),
            Self::Links => demand(NAMES * scale.links, NAMES * scale.links * 4 * KIB),
        }
    }

    /// Makes it in a new directory, and says in words what it is.
    pub fn make(self, root: &Path, scale: &Scale) -> io::Result<String> {
        if self == Self::Tree
            && let Some(tree) = real_tree(scale)
        {
            return tree.put(root);
        }
        let mut maker = Maker::new(root)?;
        match self {
            Self::Tree => maker.tree(scale),
            Self::Flat => maker.flat(scale),
            Self::Tiny => maker.tiny(scale),
            Self::Dirs => maker.dirs(scale),
            Self::Big => (0..8).try_for_each(|n| maker.file(format!("big-{n}"), scale.big_size)),
            Self::Huge => maker.file("huge", scale.huge_size),
            Self::Sparse => maker.sparse(scale),
            Self::Links => maker.links(scale),
        }?;
        age(root, &mut 0)?;
        Ok(self.describe(scale))
    }

    fn describe(self, scale: &Scale) -> String {
        match self {
            Self::Tree => format!(
                "a generated source tree: {} files, {} directories",
                scale.tree_files, scale.tree_dirs
            ),
            Self::Flat => format!("{} files of 4 KiB in one directory", scale.flat_files),
            Self::Tiny => format!(
                "{} files of up to 1 KiB in {} directories",
                scale.tiny_files, scale.tiny_dirs
            ),
            Self::Dirs => format!("{} directories, {DEPTH} deep, few files", scale.dirs),
            Self::Big => format!("8 files of {}", format_size(scale.big_size, BINARY)),
            Self::Huge => format!("one file of {}", format_size(scale.huge_size, BINARY)),
            Self::Sparse => format!(
                "one file of {} with {} of data",
                format_size(scale.sparse_size, BINARY),
                format_size(scale.sparse_data, BINARY)
            ),
            Self::Links => format!("{} files with {NAMES} names each", scale.links),
        }
    }
}

/// A source tree that people have made.
enum RealTree {
    Directory(PathBuf),
    Archive(PathBuf),
}

fn real_tree(scale: &Scale) -> Option<RealTree> {
    if !scale.real_tree {
        return None;
    }
    let chosen = env::var_os("POOLCP_TREE");
    let directory = chosen.map_or_else(|| PathBuf::from(LINUX_SOURCE), PathBuf::from);
    let archive = PathBuf::from(format!("{LINUX_SOURCE}.tar.xz"));
    if directory.is_dir() {
        Some(RealTree::Directory(directory))
    } else if archive.is_file() {
        Some(RealTree::Archive(archive))
    } else {
        None
    }
}

impl RealTree {
    /// Puts a copy of it at the root, and says what it is.
    fn put(&self, root: &Path) -> io::Result<String> {
        let (path, mut command) = match self {
            Self::Directory(path) => {
                let mut cp = Command::new("cp");
                // -H: what is named may be a link to it.
                cp.args(["-aH", "--"]).arg(path).arg(root);
                (path, cp)
            }
            Self::Archive(path) => {
                fs::create_dir(root)?;
                let mut tar = Command::new("tar");
                tar.arg("-C").arg(root).arg("--strip-components=1");
                tar.arg("--no-same-owner").arg("-xf").arg(path);
                (path, tar)
            }
        };
        if !command.status()?.success() {
            return Err(io::Error::other(format!("{command:?} failed")));
        }
        Ok(format!("the files of {}", path.display()))
    }
}

/// What a directory holds; what cannot be looked at is left out.
fn demand_of(path: &Path) -> Demand {
    let mut sum = Demand::default();
    let Ok(entries) = fs::read_dir(path) else {
        return sum;
    };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        sum.entries += 1;
        if metadata.is_dir() {
            let below = demand_of(&entry.path());
            sum.entries += below.entries;
            sum.bytes += below.bytes;
        } else {
            sum.bytes += metadata.len();
        }
    }
    sum
}

/// A workload while it is made.
struct Maker {
    root: PathBuf,
    random: SplitMix64,
    piece: Vec<u8>,
}

impl Maker {
    fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir(root)?;
        Ok(Self {
            root: root.to_owned(),
            random: SplitMix64::new(SEED),
            piece: vec![0; PIECE],
        })
    }

    /// Each directory is in a random one made before it, which gives branches of all depths; each file is in any of them.
    fn tree(&mut self, scale: &Scale) -> io::Result<()> {
        let dirs = self.random_dirs(scale.tree_dirs, usize::MAX)?;
        for number in 0..scale.tree_files {
            let size = MEDIAN_SIZE * (SIZE_SPREAD * self.random.normal()).exp();
            let path = self.random.pick(&dirs).join(format!("file-{number}"));
            self.file(&path, (size as u64).min(LARGEST_TREE_FILE))?;
            // Scripts.
            if number % 20 == 0 {
                fs::set_permissions(self.root.join(path), Permissions::from_mode(0o755))?;
            }
        }
        for number in 0..TREE_SYMLINKS.min(scale.tree_files) {
            let path = self.random.pick(&dirs).join(format!("link-{number}"));
            symlink(format!("../file-{number}"), self.root.join(path))?;
        }
        Ok(())
    }

    fn flat(&mut self, scale: &Scale) -> io::Result<()> {
        (0..scale.flat_files).try_for_each(|n| self.file(format!("file-{n}"), 4 * KIB))
    }

    fn tiny(&mut self, scale: &Scale) -> io::Result<()> {
        let dirs = self.numbered_dirs(scale.tiny_dirs)?;
        for number in 0..scale.tiny_files {
            let dir = &dirs[(number % scale.tiny_dirs) as usize];
            let size = self.random.below(KIB + 1);
            self.file(dir.join(format!("file-{number}")), size)?;
        }
        Ok(())
    }

    fn dirs(&mut self, scale: &Scale) -> io::Result<()> {
        let dirs = self.random_dirs(scale.dirs, DEPTH)?;
        for (number, dir) in dirs.iter().step_by(DIRS_PER_FILE as usize).enumerate() {
            self.file(dir.join(format!("file-{number}")), 100)?;
        }
        Ok(())
    }

    /// Pieces of data, evenly spaced; the file begins with one and ends with a hole.
    fn sparse(&mut self, scale: &Scale) -> io::Result<()> {
        let file = File::create_new(self.root.join("sparse"))?;
        file.set_len(scale.sparse_size)?;
        let piece = (PIECE as u64).min(scale.sparse_data / 16);
        let pieces = scale.sparse_data / piece;
        for number in 0..pieces {
            let data = &mut self.piece[..piece as usize];
            self.random.fill(data);
            file.write_all_at(data, number * (scale.sparse_size / pieces))?;
        }
        Ok(())
    }

    /// The names of one file are in different directories.
    fn links(&mut self, scale: &Scale) -> io::Result<()> {
        let count = (scale.links / 100).max(NAMES);
        let dirs = self.numbered_dirs(count)?;
        let name = |inode: u64, number: u64| {
            dirs[((inode + number) % count) as usize].join(format!("inode-{inode}-name-{number}"))
        };
        for inode in 0..scale.links {
            let size = self.random.below(4 * KIB + 1);
            let first = self.root.join(name(inode, 0));
            self.file(name(inode, 0), size)?;
            for number in 1..NAMES {
                fs::hard_link(&first, self.root.join(name(inode, number)))?;
            }
            if inode % SPECIAL == 0 {
                make_special(&first)?;
            }
        }
        Ok(())
    }

    fn numbered_dirs(&mut self, count: u64) -> io::Result<Vec<PathBuf>> {
        let dirs: Vec<_> = (0..count)
            .map(|n| PathBuf::from(format!("dir-{n}")))
            .collect();
        for dir in &dirs {
            fs::create_dir(self.root.join(dir))?;
        }
        Ok(dirs)
    }

    /// Makes so many directories, each in a random one; the first ones are a chain down to the greatest depth, if there is one.
    fn random_dirs(&mut self, count: u64, depth: usize) -> io::Result<Vec<PathBuf>> {
        let mut dirs = vec![PathBuf::new()];
        // Those that may have more below them.
        let mut parents = dirs.clone();
        while (dirs.len() as u64) < count {
            let number = dirs.len();
            let parent = if number <= depth && depth != usize::MAX {
                &dirs[number - 1]
            } else {
                self.random.pick(&parents)
            };
            let dir = parent.join(format!("dir-{number}"));
            fs::create_dir(self.root.join(&dir))?;
            if dir.components().count() < depth {
                parents.push(dir.clone());
            }
            dirs.push(dir);
        }
        Ok(dirs)
    }

    fn file(&mut self, path: impl AsRef<Path>, size: u64) -> io::Result<()> {
        let mut file = File::create_new(self.root.join(path))?;
        let mut left = size;
        while left > 0 {
            let len = left.min(PIECE as u64);
            let data = &mut self.piece[..len as usize];
            self.random.fill(data);
            file.write_all(data)?;
            left -= len;
        }
        Ok(())
    }
}

/// Gives everything a time of its own in the past, with nanoseconds. What is as old as its copy proves nothing; and rsync
/// leaves alone what differs by less than a second.
fn age(path: &Path, number: &mut u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            age(&entry?.path(), number)?;
        }
    }
    *number += 1;
    let time = Timespec {
        tv_sec: 1_000_000_000 + i64::from(*number),
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Gives a file a mode, an extended attribute and, if the process may do that, an owner that others do not have.
fn make_special(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o640))?;
    match rustix::fs::setxattr(path, "user.origin", b"bench", XattrFlags::empty()) {
        // Not every filesystem has them: tmpfs since Linux 6.6 only.
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
        Err(error) => return Err(error.into()),
    }
    if rustix::process::geteuid().is_root() {
        chown(path, Some(SOMEBODY), Some(SOMEBODY))?;
    }
    Ok(())
}
