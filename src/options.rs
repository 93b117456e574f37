//! What a copy is asked to do, as plain values.
//!
//! These are decisions, already made: the command line (or a library's caller) fills them in once, and from then on nobody
//! changes them. There is no parsing here and no rule about files; those live in the binary's `cli.rs` and in
//! [`crate::plan`] and `file.rs`.

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

/// How hard to try to keep extended attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xattrs {
    /// Not kept.
    #[default]
    No,
    /// Kept where that is possible; silent where it is not (`-a`).
    IfPossible,
    /// Kept, and an attribute that cannot be is an error (`--preserve=xattr`).
    Required,
}

/// Which attributes of a file its copy keeps, as `cp`'s `--preserve`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Extended attributes other than ACLs.
    pub xattrs: Xattrs,
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
            xattrs: Xattrs::IfPossible,
        }
    }
}

/// What happens when a destination file is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It is overwritten.
    #[default]
    Always,
    /// It is left alone and counted as skipped (`-n`).
    Never,
}

/// Whether data may be shared with the source instead of being moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// use poolcp::Options;
///
/// let archive = Options::archive();
/// assert!(archive.recursive && archive.preserve.links);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Copy directories and what is below them (`-r`).
    pub recursive: bool,
    /// Devices, FIFOs and the like are read as if they were regular files (what `cp` does without `-r`).
    pub copy_contents: bool,
    /// Which symbolic links are followed.
    pub follow: Follow,
    /// Which attributes are kept.
    pub preserve: Preserve,
    /// What happens to destination files that exist.
    pub overwrite: Overwrite,
    /// A destination file that cannot be opened for writing is removed and made anew (`-f`).
    pub force: bool,
    /// Directories on other filesystems than their operand's are made but not entered (`-x`).
    pub one_file_system: bool,
    /// Whether data may be shared with the source.
    pub reflink: Reflink,
    /// How holes are treated.
    pub sparse: Sparse,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            recursive: false,
            copy_contents: true,
            follow: Follow::Always,
            preserve: Preserve::default(),
            overwrite: Overwrite::default(),
            force: false,
            one_file_system: false,
            reflink: Reflink::default(),
            sparse: Sparse::default(),
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
}
