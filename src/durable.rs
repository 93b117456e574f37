//! Making a copy durable (`--fsync`): once it has ended, nothing of it is only in memory.
//!
//! One syncfs(2) for each filesystem that was written, at the end, promises the same as an fsync(2) of every file and then of
//! every directory, and takes a fraction of the time: the filesystem writes in its own order, and commits once. Errors of
//! writing back are told to whoever had a file of the filesystem open when they occurred; so one is opened before the copy
//! begins, or as soon as it comes to the filesystem.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::context::lock;
use crate::error::{Error, Operation};
use crate::path::split;
use crate::plan::Root;
use crate::sys;

/// The filesystems that a copy writes to, each with a directory that is in it.
pub(crate) struct Filesystems {
    /// Opened by the thread that will sync them: descriptors are of no use to others.
    open: Vec<(PathBuf, OwnedFd)>,
    /// Others that were met on the way, by device.
    met: Mutex<HashMap<u64, PathBuf>>,
}

impl Filesystems {
    /// Those that the operands go to.
    pub(crate) fn of(roots: &[Root]) -> Self {
        let mut open = HashMap::new();
        for root in roots {
            let dest = root.dest.as_os_str();
            let (parent, _) = split(dest);
            // What is not there yet will be in the filesystem that its directory is in.
            for path in [dest, parent, OsStr::new(".")] {
                if let Ok(dir) = sys::open_dest_dir(sys::cwd(), path, true)
                    && let Ok(stat) = sys::fstat(&dir)
                {
                    open.entry(stat.id.dev)
                        .or_insert((PathBuf::from(path), dir));
                    break;
                }
            }
        }
        let met = open.iter().map(|(dev, (path, _))| (*dev, path.clone()));
        Self {
            met: Mutex::new(met.collect()),
            open: open.into_values().collect(),
        }
    }

    /// A directory is written to.
    pub(crate) fn meet(&self, dev: u64, path: impl FnOnce() -> PathBuf) {
        lock(&self.met).entry(dev).or_insert_with(path);
    }

    /// Waits until all is written. Only on the thread that began.
    ///
    /// # Errors
    ///
    /// One for each filesystem that could not write everything.
    pub(crate) fn sync(self) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut check = |path: &Path, synced: sys::Result<()>| {
            if let Err(errno) = synced {
                errors.push(Error::new(Operation::Sync, path).with_errno(errno));
            }
        };
        for (path, dir) in &self.open {
            check(path, sys::sync_filesystem(dir));
        }
        let opened: Vec<&PathBuf> = self.open.iter().map(|(path, _)| path).collect();
        let met = self.met.into_inner();
        for path in met.unwrap_or_default().values() {
            if !opened.contains(&path) {
                let dir = sys::open_dest_dir(sys::cwd(), path.as_os_str(), true);
                check(path, dir.and_then(|dir| sys::sync_filesystem(&dir)));
            }
        }
        errors
    }
}
