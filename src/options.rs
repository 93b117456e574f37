//! What a copy is asked to do, as plain values.
//!
//! These are decisions, already made: the command line (or a library's caller) fills them in once, and from then on nobody
//! changes them. There is no parsing here and no rule about files; those live in the binary's `cli.rs` and in
//! [`crate::plan`] and `decide.rs`.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;

use crate::filter::Filter;

/// Which symbolic links in the source are followed, as `cp`'s `-P`, `-H` and `-L`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// None: a link is copied as a link (`-P`; what `-r` does by default).
    #[default]
    Never,
    /// Those that are operands themselves (`-H`).
    Operands,
    /// All (`-L`; what `cp` does by default without `-r`).
    Always,
}

/// How hard to try to keep something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Not kept.
    #[default]
    No,
    /// Kept where that is possible; silent where it is not (`-a`).
    IfPossible,
    /// Kept, and what cannot be is an error (`--preserve=xattr`).
    Required,
}

/// Which attributes of a file its copy keeps, as `cp`'s `--preserve`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preserve {
    /// Permission bits, special bits and POSIX ACLs.
    pub mode: bool,
    /// `--no-preserve=mode` was given: new files get the default mode (0666 or 0777 less the umask), not the source's.
    pub default_mode: bool,
    /// Owner and group.
    pub ownership: bool,
    /// Access and modification times, to the nanosecond.
    pub timestamps: bool,
    /// Names that are one inode in the source are one inode in the copy.
    pub links: bool,
    /// Extended attributes other than ACLs and the security context.
    pub xattrs: Effort,
    /// The SELinux security context.
    pub context: Effort,
}

impl Preserve {
    /// Everything, as `-a` does: extended attributes where that is possible.
    #[must_use]
    pub fn all() -> Self {
        Self {
            mode: true,
            default_mode: false,
            ownership: true,
            timestamps: true,
            links: true,
            xattrs: Effort::IfPossible,
            context: Effort::IfPossible,
        }
    }

    /// Whether a copy gets anything from its source but data and the permission bits that it was made with.
    pub(crate) fn any(&self) -> bool {
        self.mode || self.default_mode || self.ownership || self.timestamps || self.any_xattrs()
    }

    pub(crate) fn any_xattrs(&self) -> bool {
        self.xattrs != Effort::No || self.context != Effort::No
    }
}

/// What happens when a destination file is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overwrite {
    /// It is overwritten.
    #[default]
    Always,
    /// It is overwritten if it was modified before the source, and else left alone and counted as skipped (`-u`).
    IfOlder,
    /// It is overwritten if its size or its modification time differs from the source's, and else given the attributes that are
    /// to be kept, if it has others, or left alone and counted as skipped (`--update=changed`). As the modification time is the
    /// last thing that a copy gets, one that keeps times and was stopped is finished by doing it again like this.
    IfChanged,
    /// It is overwritten if its size differs from the source's (`--size-only`).
    IfSizeDiffers,
    /// It is overwritten if its content differs from the source's, for which both are read (`--checksum`).
    IfContentDiffers,
    /// It is left alone and counted as skipped (`-n`, `--update=none`).
    Never,
    /// It is left alone, and that is an error (`--update=none-fail`).
    Refuse,
}

impl Overwrite {
    /// Whether nothing that is there is replaced.
    pub(crate) fn keeps_all(self) -> bool {
        matches!(self, Self::Never | Self::Refuse)
    }

    /// Whether a file that is there is left alone though it may be only a part of its source: one that was made just now is newer.
    pub(crate) fn passes_over_parts(self) -> bool {
        self.keeps_all() || self == Self::IfOlder
    }

    /// Whether a destination is left alone if it seems to be the copy already: then its attributes are seen to as well.
    pub(crate) fn compares(self) -> bool {
        matches!(
            self,
            Self::IfChanged | Self::IfSizeDiffers | Self::IfContentDiffers
        )
    }
}

/// What an entry's copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Make {
    /// A copy.
    #[default]
    Copies,
    /// Another name of the same file (`-l`).
    HardLinks,
    /// A symbolic link that says the source's name (`-s`).
    Symlinks,
}

/// Whether a destination that is going to be replaced is kept under another name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backup {
    /// It is not.
    #[default]
    No,
    /// Its name gets a suffix ([`Options::suffix`]); what had that name is lost.
    Simple,
    /// Its name gets a number that is free: `name.~1~`.
    Numbered,
    /// Numbered if there are numbered backups of it already, else simple.
    Existing,
}

/// What is removed from the destination's directories because the source's do not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delete {
    /// Nothing.
    #[default]
    Nothing,
    /// What the source does not have, but for what [`Options::filter`] leaves out (`--delete`).
    Extraneous,
    /// What the source does not have or the filter leaves out by its name (`--delete-excluded`).
    ExtraneousAndExcluded,
}

/// Whether a file is written beside its name first, and takes the name only when it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Atomic {
    /// Existing files where nobody could tell afterwards but by the inode number, and new ones that take long to write, or that
    /// would be left alone the next time ([`Overwrite::IfOlder`], [`Overwrite::Never`]).
    #[default]
    Auto,
    /// Every file; what cannot be, is an error.
    Always,
    /// None: existing files are emptied and written.
    Never,
}

/// Whether data may be shared with the source instead of being moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reflink {
    /// Shared where the filesystem can, copied elsewhere.
    #[default]
    Auto,
    /// Shared, and an error where the filesystem cannot.
    Always,
    /// Always copied.
    Never,
}

/// How holes, ranges that read as zeros and have no blocks, are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sparse {
    /// The source's holes stay holes.
    #[default]
    Auto,
    /// Blocks of zeros become holes too.
    Always,
    /// The copy has no holes.
    Never,
}

/// Everything a copy is asked to do, except which files: those are in a [`crate::Plan`].
///
/// The default is `cp`'s without any option: directories are refused, symbolic links are followed, nothing but the
/// permission bits less the umask is kept.
///
/// ```
/// use poolcp::{Options, Reflink};
///
/// let mut options = Options::archive(); // cp -a
/// options.reflink = Reflink::Never;
/// options.preserve.ownership = false;
/// assert!(options.recursive && options.preserve.links);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Copy directories and what is below them (`-r`).
    pub recursive: bool,
    /// Devices, FIFOs and the like are read as if they were regular files (`--copy-contents`; what `cp` does without `-r`).
    pub copy_contents: bool,
    /// Which symbolic links are followed.
    pub follow: Follow,
    /// Which attributes are kept.
    pub preserve: Preserve,
    /// Whether the copy is a copy, or a link.
    pub make: Make,
    /// Attributes are copied, data is not: new files are empty, old ones keep what they have (`--attributes-only`).
    pub attributes_only: bool,
    /// What happens to destination files that exist.
    pub overwrite: Overwrite,
    /// [`crate::Observer::may_overwrite`] is asked before a destination that exists is touched (`-i`).
    pub ask: bool,
    /// Whether destinations that are replaced are kept.
    pub backup: Backup,
    /// What a simple backup's name ends in; not empty, and without a slash.
    pub suffix: OsString,
    /// A destination file that cannot be opened for writing is removed and made anew (`-f`).
    pub force: bool,
    /// A destination that is no directory is removed before its copy is made (`--remove-destination`).
    pub remove_destination: bool,
    /// A source's leading directories are made in the target as well (`--parents`).
    pub parents: bool,
    /// Slashes at the end of a source that goes into a directory are ignored (`--strip-trailing-slashes`).
    pub strip_trailing_slashes: bool,
    /// A directory may go into an existing destination that is a symbolic link to one (`--keep-directory-symlink`).
    pub keep_directory_symlink: bool,
    /// A new file may be made through a destination that is a symbolic link to nothing (`POSIXLY_CORRECT`).
    pub write_through_dangling: bool,
    /// Directories on other filesystems than their operand's are made but not entered (`-x`).
    pub one_file_system: bool,
    /// Whether a file takes its name only when it is complete (`--atomic`).
    pub atomic: Atomic,
    /// Each file is read back from its device and compared with what was written (`--verify`).
    pub verify: bool,
    /// The copy ends only when it is on the device (`--fsync`).
    pub durable: bool,
    /// Whether data may be shared with the source.
    pub reflink: Reflink,
    /// How holes are treated.
    pub sparse: Sparse,
    /// Which entries are left out.
    pub filter: Filter,
    /// What else becomes of directories that exist. Whoever sets it must be sure that no two sources have the same
    /// destination; [`crate::Plan::resolve`] refuses those that have, and copies that ask or make backups: what is removed is not
    /// asked for, nor kept.
    pub delete: Delete,
    /// Nothing is changed: what would be done is only told to the [`crate::Observer`] and counted (`--dry-run`).
    pub dry_run: bool,
    /// The most bytes per second that all workers together move and, with [`Options::verify`], read back; `None` is as many as
    /// they can (`--bwlimit`). No window of time has more than that and a tenth of a second's worth, or a block of 4 KiB for
    /// each worker if that is more. What is shared with the source does not move.
    pub bandwidth: Option<NonZeroU64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            recursive: false,
            copy_contents: true,
            follow: Follow::Always,
            preserve: Preserve::default(),
            make: Make::default(),
            attributes_only: false,
            overwrite: Overwrite::default(),
            ask: false,
            backup: Backup::default(),
            suffix: "~".into(),
            force: false,
            remove_destination: false,
            parents: false,
            strip_trailing_slashes: false,
            keep_directory_symlink: false,
            write_through_dangling: false,
            one_file_system: false,
            atomic: Atomic::default(),
            durable: false,
            verify: false,
            reflink: Reflink::default(),
            sparse: Sparse::default(),
            filter: Filter::default(),
            delete: Delete::default(),
            dry_run: false,
            bandwidth: None,
        }
    }
}

impl Options {
    /// `cp -r`'s: directories too, symbolic links as links.
    #[must_use]
    pub fn recursive() -> Self {
        Self {
            recursive: true,
            copy_contents: false,
            follow: Follow::Never,
            ..Self::default()
        }
    }

    /// `cp -a`'s: directories too, and all that can be kept is kept.
    #[must_use]
    pub fn archive() -> Self {
        Self {
            preserve: Preserve::all(),
            ..Self::recursive()
        }
    }

    /// Whether a backup of another file may get this name.
    pub(crate) fn may_be_backup(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        self.backup != Backup::No
            && (name.ends_with(self.suffix.as_bytes()) || name.ends_with(b"~"))
    }
}
