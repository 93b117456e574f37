//! All facts about a tree, as text, so that two trees can be compared and a difference can be read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirEntry, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A block more or less is the filesystem's own affair: attributes or the map of a file's extents may take one.
const SPARE_BLOCKS: u64 = 16 << 10;

/// How old a time may be to count as "set while the test ran".
const RECENT_SECONDS: i64 = 3600;

/// The facts about one entry.
#[derive(Clone, Debug, Default)]
struct Entry {
    facts: BTreeMap<&'static str, String>,
    /// Regular files only.
    allocated: u64,
}

/// A tree: relative path to facts. The path of the tree's own root is empty.
#[derive(Clone, Debug)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

impl Snapshot {
    /// Looks at everything below `root`, and at `root` itself. What may not be looked at is a fact, too.
    pub fn of(root: &Path) -> Self {
        let mut snapshot = Self(BTreeMap::new());
        let mut names_of = BTreeMap::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(relative) = todo.pop() {
            let path = below(root, &relative);
            let entry = match fs::symlink_metadata(&path) {
                Ok(meta) => {
                    if let Ok(listing) = fs::read_dir(&path)
                        && meta.is_dir()
                    {
                        let name = |entry: io::Result<DirEntry>| entry.expect("entry").file_name();
                        todo.extend(listing.map(|entry| relative.join(name(entry))));
                    } else if meta.nlink() > 1 {
                        let names = names_of.entry((meta.dev(), meta.ino()));
                        names.or_insert_with(Vec::new).push(relative.clone());
                    }
                    Entry::of(&path, &meta)
                }
                Err(error) if cannot_be_seen(&error) => Entry::default(),
                Err(error) => panic!("cannot look at {}: {error}", path.display()),
            };
            snapshot.0.insert(relative, entry);
        }
        for mut names in names_of.into_values() {
            names.sort_unstable();
            for name in &names[1..] {
                let entry = snapshot.0.get_mut(name).expect("an entry");
                entry.facts.insert("same file as", quoted(&names[0]));
            }
        }
        snapshot
    }

    /// Without the facts of these names.
    pub fn without(mut self, names: &[&str]) -> Self {
        for entry in self.0.values_mut() {
            entry.facts.retain(|name, _| !names.contains(name));
        }
        self
    }

    /// Without the times of directories.
    pub fn without_times_of_directories(mut self) -> Self {
        for entry in self.0.values_mut() {
            if entry
                .facts
                .get("kind")
                .is_some_and(|kind| kind == "directory")
            {
                entry.facts.remove("mtime");
            }
        }
        self
    }

    /// Only what has such a path.
    pub fn only(mut self, is_wanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|path, _| is_wanted(&path.to_string_lossy()));
        self
    }

    /// Times that were set while the test ran all become the same, so that twins made one after the other are equal.
    pub fn blurred(mut self) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.expect("a clock").as_secs()).expect("a year below 292 billion");
        for entry in self.0.values_mut() {
            if let Some(time) = entry.facts.get_mut("mtime") {
                let seconds = time.split('.').next().and_then(|text| text.parse().ok());
                if seconds.is_some_and(|s: i64| (s - now).abs() < RECENT_SECONDS) {
                    *time = "now".to_owned();
                }
            }
        }
        self
    }

    /// The paths of all entries.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// One fact about an entry, if that is there and has it.
    pub fn fact(&self, path: &Path, name: &str) -> Option<&str> {
        self.0.get(path)?.facts.get(name).map(String::as_str)
    }

    /// The names of the facts in which two entries of one path differ.
    pub fn differing(&self, other: &Self, path: &Path) -> Vec<&'static str> {
        let facts = |snapshot: &Self| snapshot.0.get(path).map(|entry| entry.facts.clone());
        let (left, right) = (
            facts(self).unwrap_or_default(),
            facts(other).unwrap_or_default(),
        );
        let mut names: Vec<_> = left.keys().chain(right.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| left.get(name) != right.get(name));
        names
    }

    /// How many directories are in each other at most.
    pub fn depth(&self) -> usize {
        let depths = self.0.keys().map(|path| path.components().count());
        depths.max().unwrap_or(0)
    }

    /// How many entries there are, the root included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The differences, one a line; `None` if there are none.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut text = String::new();
        let mut paths: Vec<_> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let name = quoted(path);
            match (self.0.get(path), other.0.get(path)) {
                (Some(left), Some(right)) => left.differ(right, &name, &mut text),
                (Some(_), None) => _ = writeln!(text, "{name}: is missing"),
                (None, Some(_)) => _ = writeln!(text, "{name}: should not be there"),
                (None, None) => {}
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Entry {
    fn of(path: &Path, meta: &Metadata) -> Self {
        let kind = meta.file_type();
        let mut entry = Self::default();
        let mut fact = |name, value: String| entry.facts.insert(name, value);
        fact("mode", format!("{:04o}", meta.mode() & 0o7777));
        fact("owner", format!("{}:{}", meta.uid(), meta.gid()));
        fact(
            "mtime",
            format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
        );
        if let Some(list) = xattrs(path) {
            fact("xattrs", list);
        }
        let name = if meta.is_dir() {
            "directory"
        } else if meta.is_symlink() {
            fact(
                "target",
                quoted(&fs::read_link(path).expect("read a symlink")),
            );
            "symlink"
        } else if kind.is_fifo() {
            "fifo"
        } else if kind.is_socket() {
            "socket"
        } else if kind.is_char_device() || kind.is_block_device() {
            fact("device", format!("{:#x}", meta.rdev()));
            if kind.is_char_device() {
                "character device"
            } else {
                "block device"
            }
        } else {
            fact("size", meta.len().to_string());
            fact("content", hash(path));
            "file"
        };
        fact("kind", name.to_owned());
        if meta.is_file() {
            entry.allocated = meta.blocks() * 512;
        }
        entry
    }

    fn differ(&self, other: &Self, path: &str, text: &mut String) {
        let mut names: Vec<_> = self.facts.keys().chain(other.facts.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (left, right) = (self.facts.get(name), other.facts.get(name));
            if left != right {
                let shown =
                    |fact: Option<&String>| fact.map_or("nothing", String::as_str).to_owned();
                _ = writeln!(
                    text,
                    "{path}: {name} {} became {}",
                    shown(left),
                    shown(right)
                );
            }
        }
        if !near(self.allocated, other.allocated) {
            let (left, right) = (self.allocated, other.allocated);
            _ = writeln!(text, "{path}: {left} allocated bytes became {right}");
        }
    }
}

/// Because it is not allowed, or because the whole path is too long for the kernel.
fn cannot_be_seen(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, PermissionDenied};
    matches!(error.kind(), PermissionDenied | InvalidFilename)
}

/// Whether holes were kept: at most 5 % more or less is allocated.
pub fn near(left: u64, right: u64) -> bool {
    left.abs_diff(right) <= left / 20 + SPARE_BLOCKS
}

/// `root` itself for an empty path: joining that would add a slash, which follows a symbolic link.
fn below(root: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(relative)
    }
}

/// The extended attributes with their values, in order; `None` if there are none.
fn xattrs(path: &Path) -> Option<String> {
    // Asked with no room, the kernel says how much there is: most files have none.
    if rustix::fs::llistxattr(path, &mut [0_u8; 0]).ok()? == 0 {
        return None;
    }
    let mut list = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut list).ok()?;
    let mut names: Vec<&[u8]> = list[..len].split(|&byte| byte == 0).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    let shown: Vec<String> = names
        .into_iter()
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value).expect("read an attribute");
            format!(
                "{}={}",
                OsStr::from_bytes(name).display(),
                value[..len]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            )
        })
        .collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

fn hash(path: &Path) -> String {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return error.to_string(),
    };
    let mut hasher = DefaultHasher::new();
    let zeros = vec![0; 64 << 10];
    let mut buffer = zeros.clone();
    loop {
        match file.read(&mut buffer).expect("read a file") {
            0 => return format!("{:016x}", hasher.finish()),
            // A comparison is fast even without optimisation, a hash is not; and most of a large sparse file is zeros.
            count if buffer[..count] == zeros[..count] => hasher.write_usize(count),
            count => hasher.write(&buffer[..count]),
        }
    }
}

fn quoted(path: &Path) -> String {
    format!("{path:?}")
}

/// Fails, naming each difference, unless `copy` is the same as `source` in everything.
#[track_caller]
pub fn assert_same_tree(source: &Path, copy: &Path, what: &str) {
    assert_same(&Snapshot::of(source), &Snapshot::of(copy), what);
}

/// The same for two snapshots, from which something may have been taken out.
#[track_caller]
pub fn assert_same(source: &Snapshot, copy: &Snapshot, what: &str) {
    if let Some(difference) = source.difference(copy) {
        panic!("{what}:\n{difference}");
    }
}
