//! A filesystem in user space (FUSE) that shows a directory: as it is, late, or in an unusual way.
//!
//! Disks, network filesystems and FUSE servers differ in two ways that no local filesystem shows on demand: they take their
//! time, and within the rules they answer as they like. [`Manners`] says how this one does. Both the tests and the latency
//! bench use it.
//!
//! # Time
//!
//! Each operation waits on the thread that answers it, and there are as many threads as operations may be under way at
//! once ([`Manners::depth`]); more wait for their turn in the kernel. So N operations take one delay if there are N threads
//! or more, and with fewer this is a device with a latency and a queue depth.
//!
//! Nothing else may serialise them, or save them:
//! - names and attributes are valid for no time, so that each lookup and each stat is asked;
//! - lookups and listings in one directory may run at once (`PARALLEL_DIROPS`), reads of one file, too (`ASYNC_READ`, which
//!   fuser always asks for);
//! - the kernel's limit on background requests (reading ahead, and releasing: close(2) does not wait for that) is out of
//!   reach. Its default of 12 would make closed files hold up open ones.
//!
//! What the kernel serialises by itself stays: making and removing names in one directory, as on any filesystem.
//!
//! # The mount
//!
//! goes away with the [`Passthrough`]; and when the process ends in any other way, a process that waits for nothing else
//! unmounts it.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session,
    TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
    XattrFlags,
};

/// What the kernel asks for. Forgetting is not among them: it has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Lookup,
    GetAttr,
    SetAttr,
    ReadLink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Create,
    Read,
    Write,
    Flush,
    Sync,
    Release,
    OpenDir,
    ReadDir,
    ReleaseDir,
    StatFs,
    GetXattr,
    ListXattr,
    SetXattr,
    RemoveXattr,
    Seek,
    CopyFileRange,
}

impl Operation {
    /// Whether the program that caused it waits for it.
    fn is_waited_for(self) -> bool {
        !matches!(self, Self::Release | Self::ReleaseDir)
    }
}

/// One operation that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub operation: Operation,
    /// From the root of the filesystem; for operations on a name in a directory, with that name.
    pub path: &'a Path,
    /// Where in the file, or how many entries into the listing; 0 where that means nothing.
    pub offset: u64,
    /// As for open(2); empty where that means nothing.
    pub flags: OFlags,
}

impl Call<'_> {
    /// Whether this operation is asked for, on a file with this name in whatever directory.
    pub fn is(&self, operation: Operation, name: &str) -> bool {
        self.operation == operation && self.path.file_name() == Some(name.as_ref())
    }
}

/// Says which operations fail, and how.
type Refuse = dyn Fn(&Call<'_>) -> Option<rustix::io::Errno> + Send + Sync;

/// How a filesystem answers. The default is as what it shows does, and at once.
pub struct Manners {
    /// How long each operation takes, at least.
    pub delay: Duration,
    /// How many operations are under way at once, at most.
    pub depth: usize,
    pub refuse: Box<Refuse>,
    /// The most bytes that a read brings.
    pub longest_read: usize,
    /// The most bytes that a write takes.
    pub longest_write: usize,
    /// What becomes of the bytes on their way to the device.
    pub spoil: fn(&mut [u8]),
    /// The most bytes that a copy_file_range(2) copies.
    pub longest_copy: usize,
    /// How the attributes are told.
    pub attributes: fn(&mut FileAttr),
    /// How the inode numbers are told, by stat(2) and in listings.
    pub inode: fn(u64) -> u64,
    /// Permission bits that new files and directories do not get.
    pub umask: u32,
    /// How the kernel treats open files.
    pub open: FopenFlags,
    /// What is `user.nfs4_acl` below is shown as an ACL of NFSv4.
    pub shows_nfs4_acls: bool,
    /// Names are in small letters, however they are given.
    pub folds_case: bool,
    /// With that: a file has a number for each way in which its name is written.
    pub numbers_spellings: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            depth: 8,
            refuse: Box::new(|_| None),
            longest_read: usize::MAX,
            longest_write: usize::MAX,
            spoil: |_| {},
            longest_copy: usize::MAX,
            attributes: |_| {},
            inode: |inode| inode,
            umask: 0,
            open: FopenFlags::empty(),
            shows_nfs4_acls: false,
            folds_case: false,
            numbers_spellings: false,
        }
    }
}

/// How much was asked of a filesystem.
#[derive(Default, Debug)]
pub struct Asked {
    operations: AtomicU64,
    under_way: AtomicUsize,
    waited_for: AtomicUsize,
    most_waited_for: AtomicUsize,
}

impl Asked {
    /// All operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// The most operations that programs waited for at once, since this was asked for last.
    pub fn take_most_waited_for(&self) -> usize {
        self.most_waited_for.swap(0, Ordering::Relaxed)
    }

    /// Whether none is under way. Those that nobody waits for may outlast the program that caused them.
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }
}

/// A mounted filesystem, until it is dropped.
pub struct Passthrough {
    asked: Arc<Asked>,
    /// Ends before the session does: the session's own way fails while the filesystem is in use.
    unmounter: Unmounter,
    session: Option<BackgroundSession>,
}

impl Passthrough {
    /// Shows the directory `below` at the directory `at`.
    pub fn mount(below: &Path, at: &Path, manners: Manners) -> io::Result<Self> {
        let asked = Arc::new(Asked::default());
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("poolcp-test".into()),
            MountOption::Dev,
            MountOption::Suid,
        ];
        config.n_threads = Some(manners.depth);
        let server = Server::new(below, manners, Arc::clone(&asked));
        let unmounter = Unmounter::start(at)?;
        let session = Session::new(server, at, &config)?.spawn()?;
        Ok(Self {
            asked,
            unmounter,
            session: Some(session),
        })
    }

    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

impl Drop for Passthrough {
    fn drop(&mut self) {
        self.unmounter.unmount();
        if let Some(session) = self.session.take() {
            // An error says that somebody still has the filesystem open; it ends with them.
            let _ = session.umount_and_join();
        }
    }
}

/// A process that unmounts when told to, or when the process that started it is no more.
struct Unmounter(Child);

impl Unmounter {
    fn start(at: &Path) -> io::Result<Self> {
        let unmounter = Command::new("sh")
            // Reads until the other end of the pipe is closed, by whoever closes it.
            .args(["-c", "cat >/dev/null; exec umount -l -- \"$1\"", "sh"])
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is typed at a terminal to end the others does not end this one.
            .process_group(0)
            .spawn()?;
        Ok(Self(unmounter))
    }

    fn unmount(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Unmounter {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// An open directory: what was in it, and what it was.
type Listing = Arc<Vec<(u64, FileType, OsString)>>;

/// Answers the kernel. Files are known by their inode numbers below, and found by the path by which they were met last.
struct Server {
    root: PathBuf,
    root_inode: u64,
    manners: Manners,
    asked: Arc<Asked>,
    paths: Mutex<HashMap<u64, PathBuf>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    listings: Mutex<HashMap<u64, Listing>>,
    next_handle: AtomicU64,
}

/// An attribute that no local filesystem takes, and one that it has below.
const NFS4_ACL: &str = "system.nfs4_acl";
const NFS4_ACL_BELOW: &str = "user.nfs4_acl";

/// Nothing that is told is remembered.
const NO_TIME: Duration = Duration::ZERO;

/// More background requests than there ever are.
const MAX_BACKGROUND: u16 = u16::MAX;

type Result<T> = std::result::Result<T, Errno>;

fn failed(errno: impl Into<io::Error>) -> Errno {
    Errno::from(errno.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operation that is under way, until it has been answered.
struct UnderWay<'a> {
    asked: &'a Asked,
    operation: Operation,
}

impl<'a> UnderWay<'a> {
    fn begin(asked: &'a Asked, operation: Operation) -> Self {
        asked.operations.fetch_add(1, Ordering::Relaxed);
        asked.under_way.fetch_add(1, Ordering::Relaxed);
        if operation.is_waited_for() {
            let now = asked.waited_for.fetch_add(1, Ordering::Relaxed) + 1;
            asked.most_waited_for.fetch_max(now, Ordering::Relaxed);
        }
        Self { asked, operation }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.asked.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.operation.is_waited_for() {
            self.asked.waited_for.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Server {
    fn new(below: &Path, manners: Manners, asked: Arc<Asked>) -> Self {
        Self {
            root: below.to_owned(),
            root_inode: fs::metadata(below).map_or(0, |meta| meta.ino()),
            manners,
            asked,
            paths: Mutex::new(HashMap::from([(INodeNo::ROOT.0, PathBuf::new())])),
            files: Mutex::default(),
            listings: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// From the root; the root's is empty.
    fn path(&self, inode: INodeNo) -> Result<PathBuf> {
        lock(&self.paths)
            .get(&inode.0)
            .cloned()
            .ok_or(Errno::ESTALE)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf> {
        let parent = self.path(parent)?;
        let is_folded = self.manners.folds_case && !self.manners.numbers_spellings;
        Ok(if is_folded {
            parent.join(name.to_ascii_lowercase())
        } else {
            parent.join(name)
        })
    }

    /// Where it is in the filesystem below.
    fn below(&self, path: &Path) -> PathBuf {
        // Joining the empty path would add a slash.
        if path.as_os_str().is_empty() {
            self.root.clone()
        } else if self.manners.folds_case {
            self.root.join(path.as_os_str().to_ascii_lowercase())
        } else {
            self.root.join(path)
        }
    }

    /// Takes the time that an operation takes, then refuses it or not.
    fn begin(&self, operation: Operation, path: &Path) -> Result<UnderWay<'_>> {
        self.begin_at(operation, path, 0, OFlags::empty())
    }

    fn begin_at(
        &self,
        operation: Operation,
        path: &Path,
        offset: u64,
        flags: OFlags,
    ) -> Result<UnderWay<'_>> {
        let under_way = UnderWay::begin(&self.asked, operation);
        if !self.manners.delay.is_zero() {
            thread::sleep(self.manners.delay);
        }
        let call = Call {
            operation,
            path,
            offset,
            flags,
        };
        match (self.manners.refuse)(&call) {
            Some(errno) => Err(failed(errno)),
            None => Ok(under_way),
        }
    }

    fn attributes(&self, path: &Path, meta: &Metadata) -> FileAttr {
        let time = |seconds: i64, nanoseconds: i64| {
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let time = if seconds < 0 {
                UNIX_EPOCH - whole
            } else {
                UNIX_EPOCH + whole
            };
            time + Duration::from_nanos(nanoseconds.unsigned_abs())
        };
        let capitals = path.as_os_str().as_bytes().iter();
        let capitals = capitals.filter(|byte| byte.is_ascii_uppercase()).count() as u64;
        let inode = if meta.ino() == self.root_inode {
            INodeNo::ROOT.0
        } else if self.manners.numbers_spellings {
            meta.ino() + (capitals << 40)
        } else {
            meta.ino()
        };
        // The kernel's own numbers are wider than FUSE's; none that matters here is.
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        let mut attr = FileAttr {
            ino: INodeNo(inode),
            size: meta.len(),
            blocks: meta.blocks(),
            atime: time(meta.atime(), meta.atime_nsec()),
            mtime: time(meta.mtime(), meta.mtime_nsec()),
            ctime: time(meta.ctime(), meta.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind: kind(meta.file_type()),
            perm: (meta.mode() & 0o7777) as u16,
            nlink: narrow(meta.nlink()),
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: narrow(meta.rdev()),
            blksize: 4096,
            flags: 0,
        };
        (self.manners.attributes)(&mut attr);
        attr
    }

    /// Gets to know a file, by the name that it has been met by.
    fn meet(&self, path: PathBuf) -> Result<FileAttr> {
        let meta = fs::symlink_metadata(self.below(&path)).map_err(failed)?;
        let attr = self.attributes(&path, &meta);
        lock(&self.paths).insert(attr.ino.0, path);
        Ok(attr)
    }

    /// Finishes something new: it belongs to who asked for it, and the mode is what was asked for. The kernel has taken the
    /// umask off already; that of this process would come on top.
    fn adopt(&self, request: &Request, path: PathBuf, mode: u32) -> Result<FileAttr> {
        let new = self.below(&path);
        let owner = (
            Some(Uid::from_raw(request.uid())),
            Some(Gid::from_raw(request.gid())),
        );
        if rustix::process::geteuid().is_root() && request.uid() != 0 {
            rustix::fs::chownat(CWD, &new, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed)?;
        }
        let meta = fs::symlink_metadata(&new).map_err(failed)?;
        if !meta.is_symlink() {
            // A directory's setgid bit is inherited, not asked for.
            let inherited = meta.mode() & 0o2000;
            let mode = (mode & 0o7777 & !self.manners.umask) | inherited;
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
        self.meet(path)
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        lock(&self.files)
            .get(&handle.0)
            .cloned()
            .ok_or(Errno::EBADF)
    }

    fn open_below(&self, path: &Path, flags: OFlags, mode: u32) -> Result<File> {
        let kept = OFlags::ACCMODE | OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC;
        let flags = (flags & (kept | OFlags::NOATIME)) | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::openat(CWD, self.below(path), flags, mode)
            .map(File::from)
            .map_err(failed)
    }

    // ---- Operations, as functions that may fail ----

    fn do_lookup(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let path = self.child(parent, name)?;
        let _under_way = self.begin(Operation::Lookup, &path)?;
        self.meet(path)
    }

    fn do_getattr(&self, inode: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::GetAttr, &path)?;
        let meta = match handle {
            Some(handle) => self.file(handle)?.metadata(),
            None => fs::symlink_metadata(self.below(&path)),
        };
        let mut attr = self.attributes(&path, &meta.map_err(failed)?);
        attr.ino = INodeNo((self.manners.inode)(attr.ino.0));
        Ok(attr)
    }

    fn do_setattr(
        &self,
        inode: INodeNo,
        change: &Change,
        handle: Option<FileHandle>,
    ) -> Result<FileAttr> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::SetAttr, &path)?;
        let file = self.below(&path);
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            rustix::fs::chownat(CWD, &file, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        if let Some(size) = change.size {
            match handle {
                Some(handle) => self.file(handle)?.set_len(size).map_err(failed)?,
                None => self
                    .open_below(&path, OFlags::WRONLY, 0)?
                    .set_len(size)
                    .map_err(failed)?,
            }
        }
        if let Some(mode) = change.mode {
            let mode = fs::Permissions::from_mode(mode & 0o7777);
            fs::set_permissions(&file, mode).map_err(failed)?;
        }
        if change.accessed.is_some() || change.modified.is_some() {
            let times = Timestamps {
                last_access: timespec(change.accessed),
                last_modification: timespec(change.modified),
            };
            rustix::fs::utimensat(CWD, &file, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let meta = fs::symlink_metadata(&file).map_err(failed)?;
        let mut attr = self.attributes(&path, &meta);
        attr.ino = INodeNo((self.manners.inode)(attr.ino.0));
        Ok(attr)
    }

    fn do_readlink(&self, inode: INodeNo) -> Result<OsString> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::ReadLink, &path)?;
        let text = fs::read_link(self.below(&path)).map_err(failed)?;
        Ok(text.into_os_string())
    }

    /// Makes something in a directory.
    fn do_make(
        &self,
        operation: Operation,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        make: impl FnOnce(&Path) -> rustix::io::Result<()>,
    ) -> Result<FileAttr> {
        let path = self.child(parent, name)?;
        let _under_way = self.begin(operation, &path)?;
        make(&self.below(&path)).map_err(failed)?;
        self.adopt(request, path, mode)
    }

    fn do_remove(
        &self,
        operation: Operation,
        parent: INodeNo,
        name: &OsStr,
        flags: AtFlags,
    ) -> Result<()> {
        let path = self.child(parent, name)?;
        let _under_way = self.begin(operation, &path)?;
        rustix::fs::unlinkat(CWD, self.below(&path), flags).map_err(failed)
    }

    fn do_rename(&self, from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
        let _under_way = self.begin(Operation::Rename, from)?;
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let (old, new) = (self.below(from), self.below(to));
        rustix::fs::renameat_with(CWD, old, CWD, new, flags).map_err(failed)?;
        for path in lock(&self.paths).values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                // Joining the empty path would add a slash.
                *path = if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                };
            }
        }
        Ok(())
    }

    fn do_link(&self, inode: INodeNo, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let (old, new) = (self.path(inode)?, self.child(parent, name)?);
        let _under_way = self.begin(Operation::Link, &new)?;
        let (from, to) = (self.below(&old), self.below(&new));
        rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()).map_err(failed)?;
        self.meet(new)
    }

    fn do_open(&self, inode: INodeNo, flags: OFlags) -> Result<FileHandle> {
        let path = self.path(inode)?;
        let _under_way = self.begin_at(Operation::Open, &path, 0, flags)?;
        Ok(self.keep(self.open_below(&path, flags, 0)?))
    }

    fn do_create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> Result<(FileAttr, FileHandle)> {
        let path = self.child(parent, name)?;
        let _under_way = self.begin_at(Operation::Create, &path, 0, flags)?;
        let file = self.open_below(&path, flags | OFlags::CREATE, mode)?;
        let attr = self.adopt(request, path, mode)?;
        Ok((attr, self.keep(file)))
    }

    fn do_read(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>> {
        let path = self.path(inode)?;
        let _under_way = self.begin_at(Operation::Read, &path, offset, OFlags::empty())?;
        let mut buffer = vec![0; (size as usize).min(self.manners.longest_read)];
        let file = self.file(handle)?;
        let mut filled = 0;
        // The kernel takes an answer that is too short for the end of the file.
        while filled < buffer.len() {
            match file
                .read_at(&mut buffer[filled..], offset + filled as u64)
                .map_err(failed)?
            {
                0 => break,
                count => filled += count,
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    fn do_write(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u32> {
        let path = self.path(inode)?;
        let _under_way = self.begin_at(Operation::Write, &path, offset, OFlags::empty())?;
        let mut taken = bytes[..bytes.len().min(self.manners.longest_write)].to_vec();
        (self.manners.spoil)(&mut taken);
        self.file(handle)?
            .write_all_at(&taken, offset)
            .map_err(failed)?;
        // Cannot fail to convert: the kernel sends less.
        Ok(u32::try_from(taken.len()).unwrap_or(u32::MAX))
    }

    /// An operation that has nothing to do here but to take its time.
    fn do_wait(&self, operation: Operation, inode: INodeNo) -> Result<()> {
        let path = self.path(inode)?;
        self.begin(operation, &path).map(drop)
    }

    fn do_opendir(&self, inode: INodeNo) -> Result<FileHandle> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::OpenDir, &path)?;
        let mut listing = Vec::new();
        for entry in fs::read_dir(self.below(&path)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = kind(entry.file_type().map_err(failed)?);
            let inode = (self.manners.inode)(std::os::unix::fs::DirEntryExt::ino(&entry));
            listing.push((inode, kind, entry.file_name()));
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.listings).insert(handle, Arc::new(listing));
        Ok(FileHandle(handle))
    }

    /// Without `.` and `..`: POSIX does not ask for them.
    fn do_readdir(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<()> {
        let path = self.path(inode)?;
        let _under_way = self.begin_at(Operation::ReadDir, &path, offset, OFlags::empty())?;
        let listing = lock(&self.listings).get(&handle.0).cloned();
        let listing = listing.ok_or(Errno::EBADF)?;
        for (next, (inode, kind, name)) in (1..).zip(listing.iter()).skip(offset as usize) {
            if reply.add(INodeNo(*inode), next, *kind, name) {
                break;
            }
        }
        Ok(())
    }

    fn do_getxattr(&self, inode: INodeNo, name: &OsStr) -> Result<Vec<u8>> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::GetXattr, &path)?;
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(self.below(&path), self.attribute(name)?, &mut value);
        value.truncate(len.map_err(failed)?);
        Ok(value)
    }

    /// What an attribute is called below.
    fn attribute(&self, name: &OsStr) -> Result<CString> {
        let below = if self.manners.shows_nfs4_acls && name == NFS4_ACL {
            NFS4_ACL_BELOW.as_bytes()
        } else {
            name.as_bytes()
        };
        CString::new(below).map_err(|_| Errno::EINVAL)
    }

    fn do_listxattr(&self, inode: INodeNo) -> Result<Vec<u8>> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::ListXattr, &path)?;
        let mut list = vec![0; 1 << 16];
        let len = rustix::fs::llistxattr(self.below(&path), &mut list).map_err(failed)?;
        list.truncate(len);
        if !self.manners.shows_nfs4_acls {
            return Ok(list);
        }
        let names = list.split_inclusive(|&byte| byte == 0);
        let shown = names.flat_map(|name| match name.strip_suffix(b"\0") {
            Some(name) if name == NFS4_ACL_BELOW.as_bytes() => {
                [NFS4_ACL.as_bytes(), b"\0"].concat()
            }
            _ => name.to_vec(),
        });
        Ok(shown.collect())
    }

    fn do_setxattr(&self, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::SetXattr, &path)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        rustix::fs::lsetxattr(self.below(&path), self.attribute(name)?, value, flags)
            .map_err(failed)
    }

    fn do_removexattr(&self, inode: INodeNo, name: &OsStr) -> Result<()> {
        let path = self.path(inode)?;
        let _under_way = self.begin(Operation::RemoveXattr, &path)?;
        rustix::fs::lremovexattr(self.below(&path), self.attribute(name)?).map_err(failed)
    }

    fn do_lseek(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        whence: i32,
    ) -> Result<u64> {
        let path = self.path(inode)?;
        let _under_way = self.begin_at(Operation::Seek, &path, offset, OFlags::empty())?;
        // The kernel asks for nothing else.
        let to = if whence == SEEK_DATA {
            SeekFrom::Data(offset)
        } else {
            SeekFrom::Hole(offset)
        };
        rustix::fs::seek(self.file(handle)?, to).map_err(failed)
    }

    fn do_copy(
        &self,
        from: (INodeNo, FileHandle, u64),
        to: (FileHandle, u64),
        len: u64,
    ) -> Result<u32> {
        let path = self.path(from.0)?;
        let _under_way = self.begin_at(Operation::CopyFileRange, &path, from.2, OFlags::empty())?;
        let (source, dest) = (self.file(from.1)?, self.file(to.0)?);
        let (mut here, mut there) = (from.2, to.1);
        let most = self.manners.longest_copy.min(i32::MAX as usize);
        let len = usize::try_from(len).map_or(most, |len| len.min(most));
        let count =
            rustix::fs::copy_file_range(source, Some(&mut here), dest, Some(&mut there), len);
        Ok(u32::try_from(count.map_err(failed)?).unwrap_or(u32::MAX))
    }
}

/// lseek(2)'s number for it.
const SEEK_DATA: i32 = 3;

/// What setattr sets.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let time = match time {
        None => return special(UTIME_OMIT),
        Some(TimeOrNow::Now) => return special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => time,
    };
    let (seconds, nanoseconds) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs().cast_signed(), after.subsec_nanos()),
        Err(before) => {
            // Nanoseconds count forwards from the second before.
            let before = before.duration();
            let part = before.subsec_nanos();
            let whole = -before.as_secs().cast_signed();
            if part == 0 {
                (whole, 0)
            } else {
                (whole - 1, 1_000_000_000 - part)
            }
        }
    };
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    }
}

fn kind(file_type: fs::FileType) -> FileType {
    if file_type.is_dir() {
        FileType::Directory
    } else if file_type.is_symlink() {
        FileType::Symlink
    } else if file_type.is_fifo() {
        FileType::NamedPipe
    } else if file_type.is_socket() {
        FileType::Socket
    } else if file_type.is_char_device() {
        FileType::CharDevice
    } else if file_type.is_block_device() {
        FileType::BlockDevice
    } else {
        FileType::RegularFile
    }
}

fn flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

// ---- Operations, as the kernel asks for them ----

fn answer_entry(reply: ReplyEntry, attr: Result<FileAttr>) {
    match attr {
        Ok(attr) => reply.entry(&NO_TIME, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn answer_attr(reply: ReplyAttr, attr: Result<FileAttr>) {
    match attr {
        Ok(attr) => reply.attr(&NO_TIME, &attr),
        Err(errno) => reply.error(errno),
    }
}

fn answer_data(reply: ReplyData, bytes: Result<impl AsRef<[u8]>>) {
    match bytes {
        Ok(bytes) => reply.data(bytes.as_ref()),
        Err(errno) => reply.error(errno),
    }
}

fn answer_empty(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn answer_written(reply: ReplyWrite, count: Result<u32>) {
    match count {
        Ok(count) => reply.written(count),
        Err(errno) => reply.error(errno),
    }
}

fn answer_opened(reply: ReplyOpen, handle: Result<FileHandle>, flags: FopenFlags) {
    match handle {
        Ok(handle) => reply.opened(handle, flags),
        Err(errno) => reply.error(errno),
    }
}

/// The size is asked for first, by a buffer of no size.
fn answer_xattr(reply: ReplyXattr, room: u32, bytes: Result<Vec<u8>>) {
    match bytes {
        Ok(bytes) if room == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_ASYNC_DIO] {
            config
                .add_capabilities(wanted)
                .map_err(|lacking| io::Error::other(format!("the kernel has no {lacking:?}")))?;
        }
        // Refused is only 0.
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.do_lookup(parent, name));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(reply, self.do_getattr(ino, fh));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            uid,
            gid,
            size,
            accessed: atime,
            modified: mtime,
        };
        answer_attr(reply, self.do_setattr(ino, &change, fh));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let text = self.do_readlink(ino);
        answer_data(reply, text.as_deref().map(OsStr::as_bytes).map_err(|e| *e));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let make = |path: &Path| {
            let kind = rustix::fs::FileType::from_raw_mode(mode);
            rustix::fs::mknodat(
                CWD,
                path,
                kind,
                Mode::from_raw_mode(mode & 0o7777),
                rdev.into(),
            )
        };
        let made = self.do_make(Operation::Mknod, request, parent, name, mode, make);
        answer_entry(reply, made);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let make = |path: &Path| rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode & 0o7777));
        let made = self.do_make(Operation::Mkdir, request, parent, name, mode, make);
        answer_entry(reply, made);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let make = |path: &Path| rustix::fs::symlinkat(target, CWD, path);
        let made = self.do_make(Operation::Symlink, request, parent, name, 0, make);
        answer_entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.do_remove(Operation::Unlink, parent, name, AtFlags::empty());
        answer_empty(reply, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.do_remove(Operation::Rmdir, parent, name, AtFlags::REMOVEDIR);
        answer_empty(reply, done);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let paths = self
            .child(parent, name)
            .and_then(|from| Ok((from, self.child(newparent, newname)?)));
        let done = paths.and_then(|(from, to)| self.do_rename(&from, &to, flags));
        answer_empty(reply, done);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        answer_entry(reply, self.do_link(ino, newparent, newname));
    }

    fn open(&self, _: &Request, ino: INodeNo, how: OpenFlags, reply: ReplyOpen) {
        answer_opened(reply, self.do_open(ino, flags(how.0)), self.manners.open);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        how: i32,
        reply: ReplyCreate,
    ) {
        match self.do_create(request, parent, name, mode, flags(how)) {
            Ok((attr, handle)) => {
                let open = self.manners.open;
                reply.created(&NO_TIME, &attr, Generation(0), handle, open);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer_data(reply, self.do_read(ino, fh, offset, size));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer_written(reply, self.do_write(ino, fh, offset, data));
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer_empty(reply, self.do_wait(Operation::Flush, ino));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(reply, self.do_wait(Operation::Sync, ino));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(reply, self.do_wait(Operation::Sync, ino));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&fh.0);
        answer_empty(reply, self.do_wait(Operation::Release, ino));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer_opened(reply, self.do_opendir(ino), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.do_readdir(ino, fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.listings).remove(&fh.0);
        answer_empty(reply, self.do_wait(Operation::ReleaseDir, ino));
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let stat = self.do_wait(Operation::StatFs, ino).and_then(|()| {
            let path = self.below(&self.path(ino)?);
            rustix::fs::statvfs(path).map_err(failed)
        });
        match stat {
            Ok(stat) => {
                let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
                reply.statfs(
                    stat.f_blocks,
                    stat.f_bfree,
                    stat.f_bavail,
                    stat.f_files,
                    stat.f_ffree,
                    narrow(stat.f_bsize),
                    narrow(stat.f_namemax),
                    narrow(stat.f_frsize),
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.do_getxattr(ino, name));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.do_listxattr(ino));
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, self.do_setxattr(ino, name, value, flags));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, self.do_removexattr(ino, name));
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.do_lseek(ino, fh, offset.cast_unsigned(), whence) {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((ino_in, fh_in, offset_in), (fh_out, offset_out));
        answer_written(reply, self.do_copy(from, to, len));
    }
}
