//! What can go wrong with a file: the operation, the path or paths, and the kernel's reason, in `cp`'s words.
//!
//! An error is data here. It is made where the operation failed, counted and handed to the [`crate::Observer`], and its
//! siblings go on; nothing in this library prints or exits.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::quote::{quote, quote_argument, quote_if_needed};
use crate::sys::Errno;
use crate::wording::without_number;

/// What was being done, or what forbade it. Its text is `cp`'s, with the paths put in by [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Asking for the facts about a source, or about what has a destination's name.
    Stat,
    /// Opening a source file.
    Open,
    /// Opening or listing a source directory, or its copy.
    List,
    /// Reading a source's data.
    Read,
    /// Reading what a symbolic link says.
    ReadLink,
    /// Writing a copy's data.
    Write,
    /// Copying data inside the kernel, where reading and writing cannot be told apart.
    Transfer,
    /// Sharing data with the source, with `--reflink=always`.
    Clone,
    /// Reading back what was written (`--verify`).
    Verify,
    /// What was read back is not what was written.
    Differs,
    /// Writing a file, a directory or a whole filesystem to its device (`--fsync`).
    Sync,
    /// The copy was told to stop.
    Interrupted,
    /// Setting a copy's size.
    Extend,
    /// Closing a copy.
    Close,
    /// Giving a complete copy its name.
    Commit,
    /// Making or opening a file.
    CreateFile,
    /// Making or opening a directory.
    CreateDir,
    /// Making a symbolic link.
    CreateSymlink,
    /// Making a symbolic link to a source.
    CreateSymlinkTo,
    /// Giving a copy, or a source, another name.
    CreateLink,
    /// Making a FIFO.
    CreateFifo,
    /// Making a socket or a device file.
    CreateSpecial,
    /// Removing a destination that is in the way, or what the source does not have (`--delete`).
    Remove,
    /// Something could not be copied, and so nothing more is removed (`--delete`).
    Spare,
    /// A source is in the directory that would be pruned (`--delete`).
    SourceInDest,
    /// Removing what the source does not have in a copy that asks, or makes backups.
    DeleteKeeps,
    /// Removing what the source does not have where something is mounted that may be the source.
    MountInDest,
    /// Following the rules of a repository that belongs to somebody else (`--gitignore`).
    OthersRules,
    /// Two sources have the same destination, and each would remove what the other brings (`--delete`).
    SharedDest,
    /// Removing what the source does not have where names that are kept are listed in another form (`--delete`).
    OtherForms,
    /// Giving a destination its backup's name.
    Backup,
    /// Giving a backup its destination's name back.
    Unbackup,
    /// Asking for the facts about a source's leading directory (`--parents`).
    ParentFacts,
    /// Making a leading directory.
    CreateParent,
    /// Setting a leading directory's mode.
    ParentPermissions,
    /// Setting a leading directory's times.
    ParentTimes,
    /// Making a leading directory its owner's to write.
    SetPermissions,
    /// A leading directory is something else.
    NotADirectory,
    /// Setting owner and group.
    Ownership,
    /// Setting permission bits, special bits or an ACL that the source has.
    Permissions,
    /// Setting an extended attribute.
    Xattr,
    /// Setting times.
    Times,
    /// A target that must be a directory (the last operand after several sources).
    Target,
    /// A target that must be a directory (`-t`).
    TargetDirectory,
    /// A target that must be a directory (`--parents`).
    ParentsTarget,
    /// A directory without `-r`.
    OmitDirectory,
    /// Source and destination are one file.
    SameFile,
    /// A directory's copy would be inside itself.
    IntoItself,
    /// A directory is an operand, and inside another one, too.
    LinkDir,
    /// A directory would replace something else.
    DirOverOther,
    /// Something else would replace a directory.
    OtherOverDir,
    /// A destination cannot be replaced in one step (`--atomic=always`).
    NotAtomic,
    /// A destination is there already (`--update=none-fail`).
    NotReplacing,
    /// A destination's backup would replace the source.
    BackupIsSource,
    /// A relative symbolic link would be made outside of the working directory (`-s`).
    RelativeSymlink,
    /// A destination is a symbolic link to nothing.
    DanglingSymlink,
    /// A destination was made a moment ago, from another source.
    JustCreated,
    /// A destination is a symbolic link that was made a moment ago.
    JustCreatedLink,
    /// A source file is an operand for the second time.
    RepeatedFile,
    /// A source directory is an operand for the second time.
    RepeatedDir,
    /// A directory is reached again through a symbolic link inside it.
    Cycle,
    /// A source is no longer the file that it was when it was looked at.
    Replaced,
    /// A source changed while it was read.
    Changed,
    /// A directory is not at its place any more.
    Moved,
    /// A panic: a mistake in this library, or in an [`crate::Observer`].
    Panic,
}

impl Operation {
    /// A message without the program's name.
    pub(crate) fn explain(self, errno: Option<i32>, path: &str, other: &str) -> String {
        let message = self.describe(path, other);
        let Some(errno) = errno else {
            return message;
        };
        let reason = without_number(&io::Error::from_raw_os_error(errno));
        format!("{message}: {reason}")
    }

    /// The words before the kernel's reason, around the path and, where there are two, the other path.
    fn describe(self, path: &str, other: &str) -> String {
        match self {
            Self::Stat => format!("cannot stat {path}"),
            Self::Open => format!("cannot open {path} for reading"),
            Self::List => format!("cannot access {path}"),
            Self::Read => format!("error reading {path}"),
            Self::ReadLink => format!("cannot read symbolic link {path}"),
            Self::Write => format!("error writing {path}"),
            Self::Transfer => format!("error copying {other} to {path}"),
            Self::Clone => format!("failed to clone {path} from {other}"),
            Self::Verify => format!("cannot verify {path}"),
            Self::Differs => format!("{path} is not on the device as it was written"),
            Self::Sync => format!("cannot write {path} to its device"),
            Self::Interrupted => format!("stopped while copying {other} to {path}"),
            Self::Extend => format!("failed to extend {path}"),
            Self::Close => format!("failed to close {path}"),
            Self::Commit => format!("cannot put a copy of {other} in place of {path}"),
            Self::NotAtomic => format!("cannot replace {path} in one step (--atomic=always)"),
            Self::CreateFile => format!("cannot create regular file {path}"),
            Self::CreateDir => format!("cannot create directory {path}"),
            Self::CreateSymlink => format!("cannot create symbolic link {path}"),
            Self::CreateSymlinkTo => format!("cannot create symbolic link {path} to {other}"),
            Self::CreateLink => format!("cannot create hard link {path} to {other}"),
            Self::CreateFifo => format!("cannot create fifo {path}"),
            Self::CreateSpecial => format!("cannot create special file {path}"),
            Self::Remove => format!("cannot remove {path}"),
            Self::Spare => {
                format!(
                    "nothing more is deleted, from {path} on, as not everything could be copied"
                )
            }
            Self::SourceInDest => format!("cannot delete in {path}: the source {other} is in it"),
            Self::DeleteKeeps => {
                format!("cannot delete in {path}: that asks nobody, and keeps no backups")
            }
            Self::MountInDest => {
                format!("cannot delete in {path}: what is mounted there may be the source {other}")
            }
            Self::OthersRules => {
                format!("what git ignores in {path} is copied: the repository is another user's")
            }
            Self::SharedDest => {
                format!("cannot delete in {path}, which more than one source is copied to")
            }
            Self::OtherForms => {
                format!("cannot delete in {path}: what is kept has other names there")
            }
            Self::Backup => format!("cannot backup {path}"),
            Self::Unbackup => format!("cannot un-backup {path}"),
            Self::ParentFacts => format!("failed to get attributes of {path}"),
            Self::CreateParent => format!("cannot make directory {path}"),
            Self::ParentPermissions => format!("failed to preserve permissions for {path}"),
            Self::ParentTimes => format!("failed to preserve times for {path}"),
            Self::SetPermissions => format!("setting permissions for {path}"),
            Self::NotADirectory => format!("{path} exists but is not a directory"),
            Self::NotReplacing => format!("not replacing {path}"),
            Self::BackupIsSource => {
                format!("backing up {path} might destroy source;  {other} not copied")
            }
            Self::RelativeSymlink => {
                format!("{path}: can make relative symbolic links only in current directory")
            }
            Self::Ownership => format!("failed to preserve ownership for {path}"),
            Self::Permissions => format!("preserving permissions for {path}"),
            Self::Xattr => format!("setting attributes for {path}"),
            Self::Times => format!("preserving times for {path}"),
            Self::Target => format!("target {path}"),
            Self::TargetDirectory => format!("target directory {path}"),
            Self::ParentsTarget => "with --parents, the destination must be a directory".to_owned(),
            Self::OmitDirectory => format!("-r not specified; omitting directory {path}"),
            Self::SameFile => format!("{other} and {path} are the same file"),
            Self::IntoItself => format!("cannot copy a directory, {other}, into itself, {path}"),
            Self::LinkDir => format!("will not create hard link {path} to directory {other}"),
            Self::DirOverOther => {
                format!("cannot overwrite non-directory {path} with directory {other}")
            }
            Self::OtherOverDir => format!("cannot overwrite directory {path} with non-directory"),
            Self::DanglingSymlink => format!("not writing through dangling symlink {path}"),
            Self::JustCreated => format!("will not overwrite just-created {path} with {other}"),
            Self::JustCreatedLink => {
                format!("will not copy {other} through just-created symlink {path}")
            }
            Self::RepeatedFile => format!("source file {path} specified more than once"),
            Self::RepeatedDir => format!("source directory {path} specified more than once"),
            Self::Cycle => format!("cannot copy cyclic symbolic link {path}"),
            Self::Replaced => {
                format!("skipping file {path}, as it was replaced while being copied")
            }
            Self::Changed => format!("{path}: file changed as we read it"),
            Self::Moved => format!("{path}: directory was moved while being copied"),
            Self::Panic => format!("cannot copy {path}: internal error"),
        }
    }
}

/// An operation that failed, and why, where the paths are not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub operation: Operation,
    pub errno: Errno,
}

/// What makes a failure of an error number.
pub(crate) fn failed(operation: Operation) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { operation, errno }
}

/// One failed operation on one file.
///
/// Its `Display` is a line in `cp`'s words, without the program's name:
/// `cannot open 'x' for reading: Permission denied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    operation: Operation,
    path: PathBuf,
    other: Option<PathBuf>,
    errno: Option<i32>,
}

impl Error {
    /// How much memory it takes, about, in bytes.
    pub(crate) fn size(&self) -> usize {
        let paths = [Some(&self.path), self.other.as_ref()]
            .into_iter()
            .flatten();
        size_of::<Self>() + paths.map(|path| path.as_os_str().len()).sum::<usize>()
    }

    pub(crate) fn new(operation: Operation, path: impl Into<PathBuf>) -> Self {
        Self {
            operation,
            path: path.into(),
            other: None,
            errno: None,
        }
    }

    /// Adds the second path: the source, where the first is the destination.
    pub(crate) fn with_other(mut self, other: impl Into<PathBuf>) -> Self {
        self.other = Some(other.into());
        self
    }

    pub(crate) fn with_errno(mut self, errno: crate::sys::Errno) -> Self {
        self.errno = Some(errno.raw_os_error());
        self
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The file that it was done to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The other file, where two were involved (the source, where [`Error::path`] is the destination).
    #[must_use]
    pub fn other_path(&self) -> Option<&Path> {
        self.other.as_deref()
    }

    /// The kernel's error number (errno(3)); `None` where a rule, and not the kernel, said no.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The kind of the kernel's error; [`io::ErrorKind::Other`] where there is none.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.errno.map_or(io::ErrorKind::Other, |errno| {
            io::Error::from_raw_os_error(errno).kind()
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.other.as_ref().map(quote).unwrap_or_default();
        let path = match self.operation {
            Operation::RelativeSymlink => quote_if_needed(&self.path),
            // What cp uses there quotes names as it quotes words of a command line.
            Operation::Permissions | Operation::SetPermissions => quote_argument(&self.path),
            _ => quote(&self.path),
        };
        f.write_str(&self.operation.explain(self.errno, &path, &other))
    }
}

impl std::error::Error for Error {}

/// Does something about the source at `path`; a panic is an error then, as any other, and its siblings go on. What it was is
/// told by the process's panic hook.
pub(crate) fn unless_panic<T>(
    path: impl FnOnce() -> PathBuf,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    // What a copy's workers share is valid between any two statements, see `lock.rs`.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        // Dropping it may panic again.
        mem::forget(payload);
        Err(Error::new(Operation::Panic, path()))
    })
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn reads_as_cp_writes_it() {
        let error = Error::new(Operation::Open, "x").with_errno(Errno::ACCESS);
        assert_eq!(
            error.to_string(),
            "cannot open 'x' for reading: Permission denied"
        );
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let error = Error::new(Operation::SameFile, "b").with_other("a");
        assert_eq!(error.to_string(), "'a' and 'b' are the same file");
    }
}
