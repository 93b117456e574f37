//! The list that the limit has of its work: everything in a tree and everything about it, looked up outside the clock.
//!
//! It is made once for a source and kept in a file, because a cold cell's source must not be looked at again by the process
//! that is measured. Names are text here; no workload has others.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct List {
    /// In depth-first order: what is below a directory follows it at once. The first one is the root.
    pub directories: Vec<Directory>,
}

#[derive(Serialize, Deserialize)]
pub struct Directory {
    /// From the root, which is "." itself.
    pub path: String,
    /// Index of the one that it is in; the root's is its own.
    pub parent: usize,
    pub depth: usize,
    pub attributes: Attributes,
    /// What it has besides directories.
    pub leaves: Vec<Leaf>,
}

#[derive(Serialize, Deserialize)]
pub struct Leaf {
    pub name: String,
    pub attributes: Attributes,
    pub content: Content,
}

#[derive(Serialize, Deserialize)]
pub enum Content {
    File {
        size: u64,
        /// Where there is data, as offsets and lengths; nothing if it is everywhere.
        data: Option<Vec<(u64, u64)>>,
        /// Directory and leaf, as indices, where the same file has been met before.
        same_as: Option<(usize, usize)>,
    },
    Symlink(String),
}

#[derive(Serialize, Deserialize)]
pub struct Attributes {
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
    /// Access and modification time, in seconds and nanoseconds.
    pub times: [(i64, i64); 2],
    /// Names and values.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl List {
    /// Looks at everything below the root.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut list = Self {
            directories: Vec::new(),
        };
        list.add(root, ".", 0, 0, &mut HashMap::new())?;
        Ok(list)
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = BufWriter::new(File::create(path)?);
        Ok(serde_json::to_writer(file, self)?)
    }

    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_reader(BufReader::new(File::open(path)?))?)
    }

    fn add(
        &mut self,
        root: &Path,
        path: &str,
        parent: usize,
        depth: usize,
        met: &mut HashMap<(u64, u64), (usize, usize)>,
    ) -> io::Result<()> {
        let index = self.directories.len();
        let whole = root.join(path);
        self.directories.push(Directory {
            path: path.to_owned(),
            parent,
            depth,
            attributes: Attributes::of(&whole)?,
            leaves: Vec::new(),
        });
        let mut below = Vec::new();
        for entry in fs::read_dir(&whole)? {
            let entry = entry?;
            let name = text(entry.file_name())?;
            if entry.file_type()?.is_dir() {
                below.push(name);
                continue;
            }
            let place = (index, self.directories[index].leaves.len());
            let leaf = Leaf::of(&entry.path(), name, |id| {
                let first = *met.entry(id).or_insert(place);
                (first != place).then_some(first)
            })?;
            self.directories[index].leaves.push(leaf);
        }
        for name in below {
            let path = if path == "." {
                name
            } else {
                format!("{path}/{name}")
            };
            self.add(root, &path, index, depth + 1, met)?;
        }
        Ok(())
    }
}

impl Leaf {
    fn of(
        path: &Path,
        name: String,
        mut met: impl FnMut((u64, u64)) -> Option<(usize, usize)>,
    ) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let content = if metadata.is_symlink() {
            Content::Symlink(text(fs::read_link(path)?.into_os_string())?)
        } else if metadata.is_file() {
            let is_sparse = metadata.blocks() * 512 < metadata.len();
            Content::File {
                size: metadata.len(),
                data: match is_sparse.then(|| data_ranges(path)).transpose()? {
                    // Small files may lie in their inode, outside of any block.
                    Some(ranges) if ranges == [(0, metadata.len())] => None,
                    other => other,
                },
                same_as: if metadata.nlink() > 1 {
                    met((metadata.dev(), metadata.ino()))
                } else {
                    None
                },
            }
        } else {
            let message = format!("{}: the limit copies no special files", path.display());
            return Err(io::Error::other(message));
        };
        Ok(Self {
            name,
            attributes: Attributes::of(path)?,
            content,
        })
    }
}

impl Attributes {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            mode: metadata.permissions().mode() & 0o7777,
            owner: metadata.uid(),
            group: metadata.gid(),
            times: [
                (metadata.atime(), metadata.atime_nsec()),
                (metadata.mtime(), metadata.mtime_nsec()),
            ],
            xattrs: xattrs(path)?,
        })
    }
}

/// The extended attributes that `cp -a` keeps, sorted. The security module's come from the system's policy, and those of the
/// namespace "btrfs" are the filesystem's own settings.
pub fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 1 << 16];
    let len = match rustix::fs::llistxattr(path, &mut names) {
        Ok(len) => len,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in names[..len].split(|&byte| byte == 0) {
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || name.starts_with("security.") || name.starts_with("btrfs.") {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, &name, &mut value)?;
        value.truncate(len);
        xattrs.push((name, value));
    }
    xattrs.sort();
    Ok(xattrs)
}

fn data_ranges(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let mut ranges = Vec::new();
    let mut position = 0;
    while let Some(start) = next_data(&file, position)? {
        position = seek(&file, SeekFrom::Hole(start))?;
        ranges.push((start, position - start));
    }
    Ok(ranges)
}

/// Where the next data at or behind the position begins; nothing if there is none.
pub fn next_data(file: &File, position: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(position)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn text(name: OsString) -> io::Result<String> {
    name.into_string()
        .map_err(|name| io::Error::other(format!("{}: not UTF-8", name.display())))
}
