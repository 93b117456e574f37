//! Whether a copy is one.
//!
//! Compares two trees, every name and every byte, and counts differences by what differs. Which of them are faults depends on
//! what the contestant claims: the others are only told.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::contestant::{Claims, Mode};
use crate::list::{next_data, xattrs};

/// Bytes that are compared at once.
const BLOCK: u64 = 1 << 20;

/// A sparse copy may have so much more allocated than its source, in bytes: filesystems allot ahead.
const HOLE_SLACK: u64 = 2 << 20;

/// What differs, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    Missing,
    Extra,
    Type,
    Data,
    Permissions,
    Owners,
    Times,
    DirectoryTimes,
    SymlinkTimes,
    HardLinks,
    Xattrs,
    Holes,
}

impl Aspect {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing names",
            Self::Extra => "extra names",
            Self::Type => "types",
            Self::Data => "data",
            Self::Permissions => "permissions",
            Self::Owners => "owners",
            Self::Times => "times",
            Self::DirectoryTimes => "directories' times",
            Self::SymlinkTimes => "symbolic links' times",
            Self::HardLinks => "hard links",
            Self::Xattrs => "extended attributes",
            Self::Holes => "holes",
        }
    }

    /// Whether a contestant with these claims has to get it right.
    fn is_claimed(self, claims: Claims) -> bool {
        match self {
            Self::Missing | Self::Extra | Self::Type | Self::Data => true,
            Self::Permissions => claims.modes,
            Self::Owners => claims.owners,
            Self::Times => claims.times,
            Self::DirectoryTimes => claims.directory_times,
            Self::SymlinkTimes => claims.symlink_times,
            Self::HardLinks => claims.links,
            Self::Xattrs => claims.xattrs,
            Self::Holes => claims.holes,
        }
    }

    /// Whether it is looked at in this mode.
    fn is_judged(self, mode: Mode) -> bool {
        match self {
            Self::Missing
            | Self::Extra
            | Self::Type
            | Self::Data
            | Self::Permissions
            | Self::Holes => true,
            _ => mode.is_archive(),
        }
    }
}

/// How often an aspect differs, and where for the first time.
#[derive(Clone, Debug, Default)]
struct Count {
    number: u64,
    example: String,
}

/// All differences of two trees.
#[derive(Debug, Default)]
pub struct Differences(BTreeMap<Aspect, Count>);

/// What a comparison says about a contestant.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Where it broke a claim; the copy is wrong.
    pub faults: Vec<String>,
    /// What it does not keep and does not claim to.
    pub omissions: Vec<String>,
}

impl Differences {
    /// Compares a copy to its source.
    pub fn between(source: &Path, copy: &Path, mode: Mode) -> io::Result<Self> {
        let comparison = Comparison {
            mode,
            // The process's own, which everybody it starts inherits.
            umask: umask(),
        };
        let mut found = comparison.compare(source, copy)?;
        found.differ.judge_links(&found.names);
        found.differ.0.retain(|aspect, _| aspect.is_judged(mode));
        for count in found.differ.0.values_mut() {
            // The roots' own names say nothing.
            let root = |root: &Path| format!("{}/", root.display());
            count.example = count
                .example
                .replace(&root(source), "")
                .replace(&root(copy), "");
        }
        Ok(found.differ)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this differs anywhere.
    pub fn has(&self, aspect: Aspect) -> bool {
        self.0.contains_key(&aspect)
    }

    pub fn verdict(&self, claims: Claims) -> Verdict {
        let mut verdict = Verdict::default();
        for (aspect, count) in &self.0 {
            let name = aspect.name();
            if aspect.is_claimed(claims) {
                let Count { number, example } = count;
                verdict
                    .faults
                    .push(format!("{name}: {number}, the first at {example}"));
            } else {
                verdict.omissions.push(name.to_owned());
            }
        }
        verdict
    }

    fn add(&mut self, aspect: Aspect, path: &Path) {
        let count = self.0.entry(aspect).or_insert_with(|| Count {
            number: 0,
            example: path.to_string_lossy().into_owned(),
        });
        count.number += 1;
    }

    fn merge(&mut self, other: Self) {
        for (aspect, count) in other.0 {
            let sum = self.0.entry(aspect).or_default();
            if sum.number == 0 {
                sum.example = count.example;
            }
            sum.number += count.number;
        }
    }

    /// Names of one file must be names of one file, and the other way round.
    fn judge_links(&mut self, names: &[(PathBuf, FileId, FileId)]) {
        let (mut there, mut back) = (HashMap::new(), HashMap::new());
        for &(ref path, source, copy) in names {
            let same = *there.entry(source).or_insert(copy) == copy
                && *back.entry(copy).or_insert(source) == source;
            if !same {
                self.add(Aspect::HardLinks, path);
            }
        }
    }
}

type FileId = (u64, u64);

#[derive(Default)]
struct Found {
    differ: Differences,
    /// Of files with several names, on one side or the other, which they are on each.
    names: Vec<(PathBuf, FileId, FileId)>,
}

struct Comparison {
    mode: Mode,
    umask: u32,
}

impl Comparison {
    /// Compares what has these names, and everything below. There is something at the first.
    fn compare(&self, source: &Path, copy: &Path) -> io::Result<Found> {
        let mut found = Found::default();
        let original = fs::symlink_metadata(source)?;
        let twin = match fs::symlink_metadata(copy) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.differ.add(Aspect::Missing, source);
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        if original.file_type() != twin.file_type() {
            found.differ.add(Aspect::Type, source);
            return Ok(found);
        }
        self.compare_attributes(source, copy, &original, &twin, &mut found.differ)?;
        if original.is_dir() {
            self.compare_entries(source, copy, &mut found)?;
        } else if original.is_symlink() {
            if fs::read_link(source)? != fs::read_link(copy)? {
                found.differ.add(Aspect::Data, source);
            }
        } else if original.is_file() {
            if original.len() != twin.len() || !same_data(source, copy)? {
                found.differ.add(Aspect::Data, source);
            }
            let allocated = |metadata: &Metadata| metadata.blocks() * 512;
            // Half a hole at least, or it is a matter of blocks.
            if allocated(&original) < original.len() / 2
                && allocated(&twin) > allocated(&original) + HOLE_SLACK
            {
                found.differ.add(Aspect::Holes, source);
            }
            if original.nlink() > 1 || twin.nlink() > 1 {
                let id = |metadata: &Metadata| (metadata.dev(), metadata.ino());
                let path = source.to_owned();
                found.names.push((path, id(&original), id(&twin)));
            }
        }
        Ok(found)
    }

    fn compare_attributes(
        &self,
        source: &Path,
        copy: &Path,
        original: &Metadata,
        twin: &Metadata,
        differ: &mut Differences,
    ) -> io::Result<()> {
        let mode = |metadata: &Metadata| metadata.permissions().mode() & 0o7777;
        let (wanted, given) = (mode(original), mode(twin));
        // Without -a the umask may be taken off, or not: tools differ, and both are copies.
        let less = self.mode == Mode::Recursive && given == wanted & !self.umask;
        if !original.is_symlink() && given != wanted && !less {
            differ.add(Aspect::Permissions, source);
        }
        if self.mode == Mode::Recursive {
            return Ok(());
        }
        if (original.uid(), original.gid()) != (twin.uid(), twin.gid()) {
            differ.add(Aspect::Owners, source);
        }
        let time = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
        if time(original) != time(twin) {
            differ.add(
                if original.is_dir() {
                    Aspect::DirectoryTimes
                } else if original.is_symlink() {
                    Aspect::SymlinkTimes
                } else {
                    Aspect::Times
                },
                source,
            );
        }
        if xattrs(source)? != xattrs(copy)? {
            differ.add(Aspect::Xattrs, source);
        }
        Ok(())
    }

    fn compare_entries(&self, source: &Path, copy: &Path, found: &mut Found) -> io::Result<()> {
        let names = |dir: &Path| -> io::Result<Vec<_>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                names.push(entry?.file_name());
            }
            names.sort();
            Ok(names)
        };
        let (wanted, given) = (names(source)?, names(copy)?);
        for name in given
            .iter()
            .filter(|name| wanted.binary_search(name).is_err())
        {
            found.differ.add(Aspect::Extra, &copy.join(name));
        }
        let below: io::Result<Vec<Found>> = wanted
            .par_iter()
            .map(|name| self.compare(&source.join(name), &copy.join(name)))
            .collect();
        for part in below? {
            found.differ.merge(part.differ);
            found.names.extend(part.names);
        }
        Ok(())
    }
}

/// Compares two files of one length. Where both have holes nothing is read.
fn same_data(source: &Path, copy: &Path) -> io::Result<bool> {
    let (source, copy) = (File::open(source)?, File::open(copy)?);
    let mut blocks = (Vec::new(), Vec::new());
    let mut position = 0;
    loop {
        let starts = [next_data(&source, position)?, next_data(&copy, position)?];
        let Some(start) = starts.into_iter().flatten().min() else {
            return Ok(true);
        };
        let left = read_block(&source, start, &mut blocks.0)?;
        let right = read_block(&copy, start, &mut blocks.1)?;
        if left != right {
            return Ok(false);
        }
        position = start + left.len() as u64;
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// A block from an offset on, less only at the end of the file.
fn read_block<'b>(file: &File, offset: u64, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let left = file.metadata()?.len().saturating_sub(offset).min(BLOCK);
    buffer.resize(left as usize, 0);
    file.read_exact_at(buffer, offset)?;
    Ok(buffer)
}

/// It can only be read by setting it, which is not for a program with threads; Linux tells it in /proc, too.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}
