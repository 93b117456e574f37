//! Making a copy durable (`--fsync`): once it has ended, nothing of it is only in memory.
//!
//! One syncfs(2) for each filesystem that was written, at the end, promises the same as an fsync(2) of every file and then of
//! every directory, and takes a fraction of the time: the filesystem writes in its own order, and commits once. Errors of
//! writing back are told to whoever had a file of the filesystem open when they occurred; so one is opened before the copy
//! begins. Of filesystems that it comes to on the way (a mount in the destination) a directory is opened at the end.
//!
//! A crash of the machine in the middle is another thing: the next run must see what is not complete, by its size or its time. So
//! where a filesystem does not see to that by itself, a file's data is written out before it gets its time
//! ([`Filesystems::filled`]).
//!
//! Not every filesystem has a syncfs(2) that goes down to the device: the kernel's of FUSE does not tell the server, that of
//! some network filesystems not the other machine. On all but those of which it is known ([`SYNCED_WHOLE`]), each file is
//! synced by itself before it takes its name, then each directory once everything in it is done.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Operation};
use crate::local::{BCACHEFS, BTRFS, EXT, F2FS, OVERLAY, RAMFS, TMPFS, XFS};
use crate::lock::lock;
use crate::path::split;
use crate::plan::Root;
use crate::sys::{self, Errno};

/// The types (statfs(2)) of filesystems that one syncfs(2) writes to the device, with all that is in them.
const SYNCED_WHOLE: [u64; 14] = [
    EXT,
    XFS,
    BTRFS,
    BCACHEFS,
    F2FS,
    0x2fc1_2fc1, // zfs
    0x3153_464a, // jfs
    0x4d44,      // vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
    OVERLAY,     // that of the upper filesystem
    0x6969,      // nfs: everything is committed by the server
    TMPFS,       // which has no device
    RAMFS,
];

/// The types of filesystems that give a file its size on the device only with its data, if that is written back in one piece. On
/// others a crash may leave one that has its size and its time, and zeros: ext4 gives it the size when writing begins
/// (`dioread_nolock`), which any commit of its journal may make durable before the data comes.
const DATA_BEFORE_SIZE: [u64; 2] = [XFS, BTRFS];

/// Files below this size, in bytes, are. Of a larger one these may write a later piece first, or give it its size with the first
/// one (btrfs with `NO_HOLES`).
pub(crate) const ONE_PIECE: u64 = 64 << 10;

/// The filesystems that a copy writes to, each with a directory that is in it.
pub(crate) struct Filesystems {
    /// Opened by the thread that will sync them: descriptors are of no use to others.
    open: Vec<(PathBuf, OwnedFd)>,
    /// Others that were met on the way, by device.
    met: Mutex<HashMap<u64, PathBuf>>,
    /// What kind of filesystem is on a device.
    kinds: Mutex<HashMap<u64, u64>>,
    /// Where the operands' copies have their names.
    parents: BTreeSet<PathBuf>,
    /// A filesystem that is synced as a whole says whether all could be written: syncfs(2) does since Linux 5.8.
    tells_errors: bool,
}

impl Filesystems {
    /// Those that the operands go to.
    pub(crate) fn of(roots: &[Root]) -> Self {
        let mut open = HashMap::new();
        let mut parents = BTreeSet::new();
        for root in roots {
            let dest = root.dest.as_os_str();
            let (parent, _) = split(dest);
            parents.insert(PathBuf::from(parent));
            // What is not there yet will be in the filesystem that its directory is in; so will the leading directories.
            let within = root.within.as_deref();
            let is_leading = |above: &&Path| within.is_some_and(|within| above.starts_with(within));
            let above = Path::new(parent).ancestors().skip(1);
            parents.extend(above.filter(is_leading).map(Path::to_owned));
            for path in [
                dest,
                parent,
                within.map_or(OsStr::new("."), Path::as_os_str),
            ] {
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
            kinds: Mutex::default(),
            parents,
            tells_errors: sys::is_linux_since(5, 8),
        }
    }

    /// A file or a directory, open, has got all that it gets. It is synced now unless its whole filesystem will be.
    ///
    /// # Errors
    ///
    /// Those of fsync(2).
    pub(crate) fn complete(&self, fd: impl AsFd) -> sys::Result<()> {
        let (dev, kind) = self.kind_of(&fd)?;
        // What was reached through a link may be where nothing else of this copy is.
        if self.tells_errors && SYNCED_WHOLE.contains(&kind) && self.will_sync(dev, kind) {
            Ok(())
        } else {
            sys::sync(fd)
        }
    }

    /// Whether a device is going to be synced as a whole. An overlay's files and directories may be on different ones.
    fn will_sync(&self, dev: u64, kind: u64) -> bool {
        let met = lock(&self.met);
        let kinds = lock(&self.kinds);
        let is_overlay = |dev| kinds.get(dev) == Some(&OVERLAY);
        met.contains_key(&dev) || (kind == OVERLAY && met.keys().any(is_overlay))
    }

    /// A file has got its data, so that it is written back in one piece if `in_one_piece`, and its time is next: after a crash of
    /// the machine nobody may take it for complete if it is not.
    ///
    /// # Errors
    ///
    /// Those of fdatasync(2).
    pub(crate) fn filled(&self, file: impl AsFd, in_one_piece: bool) -> sys::Result<()> {
        if in_one_piece && DATA_BEFORE_SIZE.contains(&self.kind_of(&file)?.1) {
            Ok(())
        } else {
            sys::sync_data(file)
        }
    }

    /// The device that something is on, and what kind of filesystem that is; 0, which is none, if it is not to be known.
    fn kind_of(&self, fd: impl AsFd) -> sys::Result<(u64, u64)> {
        let dev = sys::fstat(&fd)?.id.dev;
        let known = lock(&self.kinds).get(&dev).copied();
        let kind = known.unwrap_or_else(|| {
            let kind = sys::filesystem_type(&fd).unwrap_or_default();
            lock(&self.kinds).insert(dev, kind);
            kind
        });
        Ok((dev, kind))
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
        for path in &self.parents {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            match sys::open_dest_dir(sys::cwd(), path.as_os_str(), true) {
                // It is no operand's, and that was told.
                Err(Errno::NOENT) => {}
                dir => check(path, dir.and_then(|dir| self.complete(&dir))),
            }
        }
        for (path, dir) in &self.open {
            check(path, sync_with_device(dir));
        }
        let opened: Vec<&PathBuf> = self.open.iter().map(|(path, _)| path).collect();
        let met = self.met.into_inner();
        for (dev, path) in &met.unwrap_or_else(PoisonError::into_inner) {
            if !opened.contains(&path) {
                let dir = sys::open_dest_dir(sys::cwd(), path.as_os_str(), true);
                let is_on = |dir: OwnedFd| match sys::fstat(&dir)?.id.dev == *dev {
                    true => Ok(dir),
                    false => Err(Errno::STALE),
                };
                check(path, dir.and_then(is_on).and_then(sync_with_device));
            }
        }
        errors
    }
}

/// Syncs a whole filesystem, down to the device: not every one tells that to empty its cache, as fsync(2) does.
fn sync_with_device(dir: impl AsFd) -> sys::Result<()> {
    sys::sync_filesystem(&dir)?;
    sys::sync(dir)
}
