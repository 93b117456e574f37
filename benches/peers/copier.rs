//! The process behind [`crate::limit`]: copies a list with the fewest system calls.
//!
//! Phases, each begun when all threads have ended the one before:
//!
//! 1. Directories, one level after the other, if they are made ahead.
//! 2. Units: runs of the list in its depth-first order, about equal in weight, taken by whoever is free. If directories
//!    are made just in time, a unit makes its own, and those above it that it happens to need first.
//! 3. Further names of files, and what can be given to a file only after its last piece.
//! 4. What can be given to directories only after their last entry.
//!
//! The first error ends the process, wherever it is: other threads would wait for that one at the next phase.

use std::io::{self, BufRead};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::UsageWho;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode as Permissions, OFlags, RawMode, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::limit::{Method, READY, Task};
use crate::list::{Attributes, Content, Directory, Leaf, List};
use crate::runner::{self, Usage};

/// For reading and writing. Large enough to make calls rare, small enough to stay in a core's cache.
const BUFFER: usize = 256 << 10;

/// Bytes. Files that are cut are cut into pieces of this size.
const PIECE: u64 = 32 << 20;

/// Making a file costs about as much as moving so many bytes.
const ENTRY_WEIGHT: u64 = 32 << 10;

/// Units for each thread: enough for all to end at about the same time.
const UNITS_PER_THREAD: u64 = 16;

/// Bytes. Less is as fast when each page finds its block.
const WORTH_ALLOCATING: u64 = 256 << 10;

/// So many files are closed by one call.
const CLOSED_TOGETHER: usize = 32;

/// With fewer leaves to make, a directory is not worth opening.
const WORTH_OPENING: usize = 3;

/// The process's main function.
pub fn main(argument: &str) -> ExitCode {
    let answer = perform(argument).map_err(|error| error.to_string());
    println!("{}", serde_json::json!(answer));
    ExitCode::SUCCESS
}

fn perform(argument: &str) -> io::Result<Usage> {
    let task: Task = serde_json::from_str(argument)?;
    let list = List::load(Path::new(&task.list))?;
    let copier = Copier::new(&list, &task);
    if task.mode.is_archive() {
        // Modes are then as in the list from the beginning.
        rustix::process::umask(Permissions::empty());
    }
    let copier = &copier;
    thread::scope(|scope| {
        for number in 0..task.variant.threads {
            scope.spawn(move || copier.work(number).unwrap_or_else(|error| give_up(error)));
        }
        println!("{READY}");
        io::stdin().lock().read_line(&mut String::new())?;

        let before = runner::usage(UsageWho::RUSAGE_SELF, 0.0)?;
        let clock = Instant::now();
        let root = &list.directories[0].attributes;
        rustix::fs::mkdir(&task.copy, Permissions::from_raw_mode(root.mode | 0o700))
            .unwrap_or_else(|error| give_up(error.into()));
        copier.start.wait();
        copier.end.wait();
        let wall = clock.elapsed().as_secs_f64();
        let after = runner::usage(UsageWho::RUSAGE_SELF, wall)?;
        Ok(Usage {
            user: after.user - before.user,
            system: after.system - before.system,
            ..after
        })
    })
}

/// Answers with the error and ends the process.
fn give_up(error: io::Error) -> ! {
    let answer: Result<Usage, String> = Err(error.to_string());
    println!("{}", serde_json::json!(answer));
    std::process::exit(0);
}

/// A part of the work that one thread does without looking up.
enum Step {
    MakeDirectory(usize),
    /// Of a directory, these leaves.
    Leaves(usize, Range<usize>),
    /// Of a directory, this leaf's data from an offset on, so many bytes.
    Piece(usize, usize, u64, u64),
}

/// What is known and decided before the clock starts.
struct Copier<'a> {
    list: &'a List,
    task: &'a Task,
    /// Directories by depth, without the root.
    levels: Vec<Vec<usize>>,
    units: Vec<Vec<Step>>,
    /// Directory and leaf of names to link, and of files that are copied in pieces.
    links: Vec<(usize, usize)>,
    cut: Vec<(usize, usize)>,
    next_unit: AtomicUsize,
    /// For the threads and the one that holds the clock.
    start: Barrier,
    end: Barrier,
    /// For the threads.
    phase: Barrier,
    owner: u32,
    group: u32,
}

impl<'a> Copier<'a> {
    fn new(list: &'a List, task: &'a Task) -> Self {
        let threads = task.variant.threads;
        let mut copier = Self {
            list,
            task,
            levels: Vec::new(),
            units: vec![Vec::new()],
            links: Vec::new(),
            cut: Vec::new(),
            next_unit: AtomicUsize::new(0),
            start: Barrier::new(threads + 1),
            end: Barrier::new(threads + 1),
            phase: Barrier::new(threads),
            owner: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        };
        copier.plan();
        copier
    }

    fn plan(&mut self) {
        let list = self.list;
        let leaves = list.directories.iter().flat_map(|dir| &dir.leaves);
        let total =
            leaves.map(Leaf::weight).sum::<u64>() + list.directories.len() as u64 * ENTRY_WEIGHT;
        let share = total / (self.task.variant.threads as u64 * UNITS_PER_THREAD);
        let mut plan = Units {
            units: Vec::new(),
            weight: 0,
            share,
        };
        for (index, directory) in list.directories.iter().enumerate() {
            if index > 0 {
                while self.levels.len() < directory.depth {
                    self.levels.push(Vec::new());
                }
                self.levels[directory.depth - 1].push(index);
                if !self.task.variant.ahead {
                    plan.add(ENTRY_WEIGHT, Step::MakeDirectory(index));
                }
            }
            for (number, leaf) in directory.leaves.iter().enumerate() {
                if self.task.mode.is_archive() && leaf.is_further_name() {
                    self.links.push((index, number));
                } else if let Some(pieces) = self.pieces(leaf, total) {
                    self.cut.push((index, number));
                    for (offset, len) in pieces {
                        plan.add(len, Step::Piece(index, number, offset, len));
                    }
                } else {
                    plan.add(leaf.weight(), Step::Leaves(index, number..number + 1));
                }
            }
        }
        self.units = plan.units;
    }

    /// The pieces of a file that is worth cutting: one thread would be busy with it when all others have ended. Others are
    /// faster as a whole, since those who write into one file wait for its lock.
    fn pieces(&self, leaf: &Leaf, total: u64) -> Option<Vec<(u64, u64)>> {
        let Content::File { size, .. } = &leaf.content else {
            return None;
        };
        let clones = matches!(self.task.variant.method, Method::Clone(from) if *size >= from);
        let data = leaf.data();
        let sum: u64 = data.iter().map(|(_, len)| len).sum();
        let fair = (total / self.task.variant.threads as u64).max(PIECE);
        if clones || sum <= fair || self.task.variant.threads == 1 {
            return None;
        }
        let cut = |(start, len): (u64, u64)| {
            let offsets = (start..start + len).step_by(PIECE as usize);
            offsets.map(move |offset| (offset, PIECE.min(start + len - offset)))
        };
        Some(data.into_iter().flat_map(cut).collect())
    }

    /// What one thread does.
    fn work(&self, number: usize) -> io::Result<()> {
        // Where a container refuses it the threads share one table, and are a little slower.
        let _ = unshare(CloneFlags::CLONE_FILES);
        let mut buffer = vec![0; BUFFER];
        let mut made = vec![false; self.list.directories.len()];
        made[0] = true;
        self.start.wait();

        let mut worker = Worker {
            copier: self,
            roots: Roots::open(self.task)?,
            buffer: &mut buffer,
            made: &mut made,
            done: Vec::new(),
        };
        if self.task.variant.ahead {
            for level in &self.levels {
                for &index in self.share(level, number) {
                    worker.make_directory(index)?;
                }
                self.phase.wait();
            }
        }
        worker.take_units()?;
        if !self.links.is_empty() || !self.cut.is_empty() {
            self.phase.wait();
            for &(index, leaf) in self.share(&self.links, number) {
                worker.link(index, leaf)?;
            }
            for &(index, leaf) in self.share(&self.cut, number) {
                worker.finish(index, leaf)?;
            }
        }
        self.phase.wait();
        for directory in self.share(&self.list.directories, number) {
            worker.finish_directory(directory)?;
        }
        self.end.wait();
        Ok(())
    }

    /// A thread's part of something of which each has as much.
    fn share<'s, T>(&self, all: &'s [T], number: usize) -> &'s [T] {
        let bound = |number| all.len() * number / self.task.variant.threads;
        &all[bound(number)..bound(number + 1)]
    }
}

/// Units while they are put together.
struct Units {
    units: Vec<Vec<Step>>,
    /// Of the last unit.
    weight: u64,
    /// The weight at which a unit is full.
    share: u64,
}

impl Units {
    fn add(&mut self, weight: u64, step: Step) {
        if self.units.is_empty() || self.weight >= self.share {
            self.units.push(Vec::new());
            self.weight = 0;
        }
        self.weight += weight;
        // One was just pushed if there was none.
        let unit = self.units.last_mut().expect("there is a unit");
        // Neighbours are one step.
        if let (Some(Step::Leaves(dir, range)), Step::Leaves(new_dir, new)) =
            (unit.last_mut(), &step)
            && dir == new_dir
            && range.end == new.start
        {
            range.end = new.end;
        } else {
            unit.push(step);
        }
    }
}

impl Leaf {
    fn weight(&self) -> u64 {
        ENTRY_WEIGHT + self.data().iter().map(|(_, len)| len).sum::<u64>()
    }

    fn is_further_name(&self) -> bool {
        matches!(self.content, Content::File { same_as, .. } if same_as.is_some())
    }

    /// Where there is data.
    fn data(&self) -> Vec<(u64, u64)> {
        match &self.content {
            Content::File {
                data: Some(data), ..
            } => data.clone(),
            Content::File { size, .. } if *size > 0 => vec![(0, *size)],
            _ => Vec::new(),
        }
    }
}

/// Source and copy, opened by the thread that uses them.
struct Roots {
    source: OwnedFd,
    copy: OwnedFd,
}

impl Roots {
    fn open(task: &Task) -> rustix::io::Result<Self> {
        Ok(Self {
            source: open_directory(CWD, &task.source)?,
            copy: open_directory(CWD, &task.copy)?,
        })
    }
}

/// Closes files; by one call where their numbers follow each other, as they do in a table that is this thread's own.
fn close_all(files: &mut Vec<OwnedFd>) {
    let numbers = || files.iter().map(AsRawFd::as_raw_fd);
    let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else {
        return;
    };
    if usize::try_from(last - first).is_ok_and(|more| more + 1 == files.len()) {
        // SAFETY: all numbers of the range are those of `files`, which are forgotten if they are closed.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0;
        if closed {
            files.drain(..).map(IntoRawFd::into_raw_fd).for_each(drop);
        }
    }
    files.clear();
}

fn open_directory(at: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Permissions::empty())
}

/// One thread and what it has.
struct Worker<'a> {
    copier: &'a Copier<'a>,
    roots: Roots,
    buffer: &'a mut [u8],
    /// Directories that this thread has made or seen made.
    made: &'a mut [bool],
    /// Files that are still to be closed.
    done: Vec<OwnedFd>,
}

impl Worker<'_> {
    fn take_units(&mut self) -> rustix::io::Result<()> {
        let copier = self.copier;
        // The counter is all that threads share, and orders nothing else.
        let take = || {
            copier
                .units
                .get(copier.next_unit.fetch_add(1, Ordering::Relaxed))
        };
        while let Some(unit) = take() {
            for step in unit {
                match step {
                    Step::MakeDirectory(index) => self.need_directory(*index)?,
                    Step::Leaves(index, range) => {
                        self.need_directory(*index)?;
                        self.copy_leaves(&copier.list.directories[*index], range.clone())?;
                    }
                    Step::Piece(index, leaf, offset, len) => {
                        self.need_directory(*index)?;
                        let directory = &copier.list.directories[*index];
                        self.copy_piece(directory, &directory.leaves[*leaf], *offset, *len)?;
                    }
                }
            }
        }
        close_all(&mut self.done);
        Ok(())
    }

    /// Has a directory made, and those that it is in, unless it is there.
    fn need_directory(&mut self, index: usize) -> rustix::io::Result<()> {
        if self.copier.task.variant.ahead || self.made[index] {
            return Ok(());
        }
        self.need_directory(self.copier.list.directories[index].parent)?;
        self.made[index] = true;
        match self.make_directory(index) {
            // By another thread.
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    fn make_directory(&self, index: usize) -> rustix::io::Result<()> {
        let directory = &self.copier.list.directories[index];
        let mode = Permissions::from_raw_mode(directory.attributes.mode | 0o700);
        rustix::fs::mkdirat(&self.roots.copy, &directory.path, mode)
    }

    fn copy_leaves(
        &mut self,
        directory: &Directory,
        range: Range<usize>,
    ) -> rustix::io::Result<()> {
        let leaves = &directory.leaves[range];
        if leaves.len() < WORTH_OPENING {
            return leaves
                .iter()
                .try_for_each(|leaf| self.copy_leaf(None, &directory.path_of(leaf), leaf));
        }
        let places = Roots {
            source: open_directory(self.roots.source.as_fd(), &directory.path)?,
            copy: open_directory(self.roots.copy.as_fd(), &directory.path)?,
        };
        leaves
            .iter()
            .try_for_each(|leaf| self.copy_leaf(Some(&places), &leaf.name, leaf))
    }

    /// Copies what has this path in those places, or from the roots.
    fn copy_leaf(
        &mut self,
        places: Option<&Roots>,
        path: &str,
        leaf: &Leaf,
    ) -> rustix::io::Result<()> {
        let places = places.unwrap_or(&self.roots);
        let archive = self.copier.task.mode.is_archive();
        let size = match &leaf.content {
            Content::Symlink(target) => {
                rustix::fs::symlinkat(target, &places.copy, path)?;
                return if archive {
                    self.copier
                        .dress_link(places.copy.as_fd(), path, &leaf.attributes)
                } else {
                    Ok(())
                };
            }
            Content::File { size, .. } => *size,
        };
        let copy = self.copier.create(&places.copy, path, leaf, OFlags::EXCL)?;
        let mut source = None;
        if size > 0 {
            let source = source.insert(self.copier.open(&places.source, path, leaf)?);
            let data = leaf.data();
            match self.copier.task.variant.method {
                Method::Clone(from) if size >= from => rustix::fs::ioctl_ficlone(&copy, &*source)?,
                _ => {
                    for &(offset, len) in &data {
                        self.copier
                            .move_data(source, &copy, offset, len, size, self.buffer)?;
                    }
                    if data.last().is_none_or(|(offset, len)| offset + len < size) {
                        rustix::fs::ftruncate(&copy, size)?;
                    }
                }
            }
        }
        if archive {
            self.copier.dress(&copy, &leaf.attributes)?;
        }
        self.done.extend(source.into_iter().chain([copy]));
        if self.done.len() >= CLOSED_TOGETHER {
            close_all(&mut self.done);
        }
        Ok(())
    }

    fn copy_piece(
        &mut self,
        directory: &Directory,
        leaf: &Leaf,
        offset: u64,
        len: u64,
    ) -> rustix::io::Result<()> {
        let Content::File { size, .. } = leaf.content else {
            return Ok(());
        };
        let path = directory.path_of(leaf);
        let source = self.copier.open(&self.roots.source, &path, leaf)?;
        let copy = self
            .copier
            .create(&self.roots.copy, &path, leaf, OFlags::empty())?;
        self.copier
            .move_data(&source, &copy, offset, len, size, self.buffer)
    }

    /// Gives a file a further name.
    fn link(&self, index: usize, leaf: usize) -> rustix::io::Result<()> {
        let directories = &self.copier.list.directories;
        let name = &directories[index].leaves[leaf];
        let Content::File {
            same_as: Some((first_index, first_leaf)),
            ..
        } = name.content
        else {
            return Ok(());
        };
        let first = &directories[first_index];
        let first = first.path_of(&first.leaves[first_leaf]);
        let copy = &self.roots.copy;
        let path = directories[index].path_of(name);
        rustix::fs::linkat(copy, first, copy, path, AtFlags::empty())
    }

    /// Ends a file that was copied in pieces.
    fn finish(&self, index: usize, leaf: usize) -> rustix::io::Result<()> {
        let directory = &self.copier.list.directories[index];
        let leaf = &directory.leaves[leaf];
        let Content::File { size, .. } = leaf.content else {
            return Ok(());
        };
        let ends_with_hole = leaf
            .data()
            .last()
            .is_none_or(|(start, len)| start + len < size);
        let archive = self.copier.task.mode.is_archive();
        if !archive && !ends_with_hole {
            return Ok(());
        }
        let path = directory.path_of(leaf);
        let copy = self
            .copier
            .create(&self.roots.copy, &path, leaf, OFlags::empty())?;
        if ends_with_hole {
            rustix::fs::ftruncate(&copy, size)?;
        }
        if archive {
            self.copier.dress(&copy, &leaf.attributes)?;
        }
        Ok(())
    }

    /// Gives a directory what it is to have at the end.
    fn finish_directory(&self, directory: &Directory) -> rustix::io::Result<()> {
        let attributes = &directory.attributes;
        let copy = self.roots.copy.as_fd();
        let path = directory.path.as_str();
        if self.copier.task.mode.is_archive() {
            if self.copier.is_foreign(attributes) {
                let (owner, group) = attributes.owner();
                rustix::fs::chownat(copy, path, Some(owner), Some(group), AtFlags::empty())?;
            }
            if !attributes.xattrs.is_empty() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(copy, path, flags, Permissions::empty())?;
                set_xattrs(&directory, attributes)?;
            }
        }
        let mode = attributes.mode;
        if mode & 0o700 != 0o700 || mode & 0o7000 != 0 {
            rustix::fs::chmodat(
                copy,
                path,
                Permissions::from_raw_mode(mode),
                AtFlags::empty(),
            )?;
        }
        if self.copier.task.mode.is_archive() {
            rustix::fs::utimensat(copy, path, &attributes.times(), AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Copier<'_> {
    /// Opens a source file, without leaving a trace if that is allowed.
    fn open(&self, at: &OwnedFd, path: &str, leaf: &Leaf) -> rustix::io::Result<OwnedFd> {
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if self.owner == 0 || leaf.attributes.owner == self.owner {
            flags |= OFlags::NOATIME;
        }
        rustix::fs::openat(at, path, flags, Permissions::empty())
    }

    fn create(
        &self,
        at: &OwnedFd,
        path: &str,
        leaf: &Leaf,
        more: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | more;
        let mode = Permissions::from_raw_mode((leaf.attributes.mode & 0o777) as RawMode);
        rustix::fs::openat(at, path, flags, mode)
    }

    /// Copies so many bytes from an offset on, of a file of this size.
    fn move_data(
        &self,
        source: &OwnedFd,
        copy: &OwnedFd,
        offset: u64,
        len: u64,
        size: u64,
        buffer: &mut [u8],
    ) -> rustix::io::Result<()> {
        let in_kernel = matches!(self.task.variant.method, Method::InKernel(from) if size >= from);
        if self.task.allocates && len >= WORTH_ALLOCATING {
            rustix::fs::fallocate(copy, FallocateFlags::KEEP_SIZE, offset, len)?;
        }
        let (mut from, mut to) = (offset, offset);
        let end = offset + len;
        while to < end {
            let left = (end - to) as usize;
            let count = if in_kernel {
                rustix::fs::copy_file_range(source, Some(&mut from), copy, Some(&mut to), left)?
            } else {
                let len = left.min(buffer.len());
                let count = rustix::io::pread(source, &mut buffer[..len], to)?;
                let count = rustix::io::pwrite(copy, &buffer[..count], to)?;
                to += count as u64;
                count
            };
            if count == 0 {
                // The list says that there is more.
                return Err(Errno::IO);
            }
        }
        Ok(())
    }

    /// Gives a file what a new one does not have by itself.
    fn dress(&self, copy: &OwnedFd, attributes: &Attributes) -> rustix::io::Result<()> {
        let special = attributes.mode & 0o7000 != 0;
        if self.is_foreign(attributes) {
            let (owner, group) = attributes.owner();
            rustix::fs::fchown(copy, Some(owner), Some(group))?;
        }
        set_xattrs(copy, attributes)?;
        if special {
            rustix::fs::fchmod(copy, Permissions::from_raw_mode(attributes.mode as RawMode))?;
        }
        rustix::fs::futimens(copy, &attributes.times())
    }

    fn dress_link(
        &self,
        at: BorrowedFd,
        path: &str,
        attributes: &Attributes,
    ) -> rustix::io::Result<()> {
        if self.is_foreign(attributes) {
            let (owner, group) = attributes.owner();
            rustix::fs::chownat(
                at,
                path,
                Some(owner),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        rustix::fs::utimensat(at, path, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether a new file has another owner than it should.
    fn is_foreign(&self, attributes: &Attributes) -> bool {
        (attributes.owner, attributes.group) != (self.owner, self.group)
    }
}

fn set_xattrs(copy: &OwnedFd, attributes: &Attributes) -> rustix::io::Result<()> {
    attributes.xattrs.iter().try_for_each(|(name, value)| {
        rustix::fs::fsetxattr(copy, name.as_str(), value, XattrFlags::empty())
    })
}

impl Attributes {
    fn owner(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.owner), Gid::from_raw(self.group))
    }

    fn times(&self) -> Timestamps {
        let [last_access, last_modification] = self
            .times
            .map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        Timestamps {
            last_access,
            last_modification,
        }
    }
}

impl Directory {
    /// From the root.
    fn path_of(&self, leaf: &Leaf) -> String {
        format!("{}/{}", self.path, leaf.name)
    }
}
