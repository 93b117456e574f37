//! The decision about one entry that is not a directory: from the options and the facts about both ends to a [`FilePlan`],
//! with nothing touched and nothing asked on the way.
//!
//! The rules are `cp`'s, in the order in which `cp` applies them to a destination name that is taken:
//! 1. Source and destination are **one file**: refused, unless what is going to be done cannot lose it ([`sameness`]).
//! 2. It is **up to date** (`-u`, `--update=changed`, `--size-only`, `--checksum`): left alone, but for attributes.
//! 3. It **may not be replaced** (`-n`, `--update=none`): left alone; or somebody has to be **asked** (`-i`).
//! 4. It is a **directory**: refused or, with `--delete`, removed first.
//! 5. **This run made it** from another operand: refused, or its data would be lost.
//! 6. It gets a **backup**, unless that would overwrite the source.
//! 7. It is **removed** first: `--remove-destination`, a file with several names that are to be kept apart, a link or a
//!    special file; where both ends are compared, anything of another kind.
//! 8. Else a file is **superseded** by a new one or, where that could be noticed, **overwritten**; and anything else is made in
//!    the hope that the name is free.
//!
//! Whether `cp` looks at a symbolic link as the destination or through it depends on what will happen to it: see
//! [`looks_through`].

use crate::difference::{difference, is_older};
use crate::error::Operation;
use crate::options::{Atomic, Backup, Follow, Make, Options, Overwrite};
use crate::sameness::{Sameness, sameness};
use crate::sys::{Errno, Kind, Result, Stat};

/// What has a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The thing itself, be it a symbolic link.
    pub itself: Stat,
    /// What a symbolic link leads to, or why it leads nowhere; `None` for anything else.
    pub target: Option<Result<Stat>>,
}

impl Seen {
    /// What is at the end of the link, if it is one.
    pub(crate) fn end(&self) -> Result<Stat> {
        self.target.unwrap_or(Ok(self.itself))
    }
}

/// The facts about a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceFacts {
    pub seen: Seen,
    /// What is copied: the thing itself or, if links are followed, what it leads to.
    pub stat: Stat,
    /// Which links are followed here: below an operand, `-H` follows none.
    pub follow: Follow,
}

/// The facts about a destination name that is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DestFacts {
    pub seen: Seen,
    /// This very run made it, from another operand.
    pub made_here: bool,
    /// It is a symbolic link that this very run made.
    pub new_link: bool,
    /// The name is the very name of the source, and not just another one of the same file.
    pub is_source_name: bool,
    /// The source is what a simple backup of this name would replace.
    pub backup_is_source: bool,
    /// The name ends in `.` or `..`, which cannot be renamed.
    pub is_dot: bool,
    /// Both ends were read, as far as the options ask for it, and are not the same.
    pub has_other_content: bool,
    /// If it is of another kind than the source, it is one of those that are removed (`--delete`): below an operand's own
    /// destination, which never is.
    pub is_extraneous: bool,
}

/// What is going to be done about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilePlan {
    /// Make it; the name is free, or nothing is done to what has it.
    Create,
    /// Write the new data into the file that is there.
    Overwrite,
    /// Write the new data beside the file that is there, and let it take the name, the owner and the mode.
    Supersede,
    /// Remove what is there, then make it.
    Replace,
    /// Give what is there another name, then make it.
    Backup,
    /// Leave its data alone, and give it the attributes that are kept.
    Dress,
    /// Leave it alone.
    Skip(Reason),
    /// Leave it alone and say so.
    Refuse(Operation),
    /// The destination is a symbolic link that cannot be followed, for this reason.
    Unreachable(Errno),
}

/// Why an entry is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing that exists is replaced.
    Exists,
    /// The destination is not older.
    UpToDate,
    /// The destination is what it would become.
    Same,
    /// The filter leaves the source out.
    LeftOut,
}

/// A plan, and whether somebody has to agree to it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub ask: bool,
    pub plan: FilePlan,
}

impl From<FilePlan> for Decision {
    fn from(plan: FilePlan) -> Self {
        Self { ask: false, plan }
    }
}

/// Whether an entry's data is copied, and not just what it is.
pub(crate) fn has_data(options: &Options, kind: Kind) -> bool {
    options.make == Make::Copies
        && match kind {
            Kind::File => true,
            Kind::Dir | Kind::Symlink => false,
            _ => options.copy_contents,
        }
}

/// Whether a destination that is a symbolic link stands for what it leads to: where data will be written through it.
pub(crate) fn looks_through(options: &Options, kind: Kind) -> bool {
    has_data(options, kind)
        && options.backup == Backup::No
        && !options.remove_destination
        // What is there is compared with the source: then it is the name itself that is to become the same.
        && !options.overwrite.compares()
}

/// The decision for an entry that is not a directory. `dest` is `None` if the name is free, and an error if nobody can say.
pub(crate) fn decide(
    options: &Options,
    source: &SourceFacts,
    dest: &Result<Option<DestFacts>>,
) -> Decision {
    let data = has_data(options, source.stat.kind);
    let dest = match dest {
        Ok(Some(dest)) => dest,
        Ok(None) => return FilePlan::Create.into(),
        // As below.
        Err(Errno::LOOP) if options.force && data => return FilePlan::Overwrite.into(),
        Err(Errno::LOOP) if options.force => return FilePlan::Create.into(),
        Err(errno) => return FilePlan::Unreachable(*errno).into(),
    };
    let through_new_link = dest.new_link && looks_through(options, source.stat.kind);
    let seen = if looks_through(options, source.stat.kind) {
        match dest.seen.end() {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::LOOP) if through_new_link => {
                return FilePlan::Refuse(Operation::JustCreatedLink).into();
            }
            // Nothing is there yet as far as rules go; making it will find the link.
            Err(Errno::NOENT) => return FilePlan::Create.into(),
            // A loop cannot be opened; forced, it is removed then.
            Err(Errno::LOOP) if options.force => return FilePlan::Overwrite.into(),
            Err(errno) => return FilePlan::Unreachable(errno).into(),
        }
    } else {
        dest.seen.itself
    };
    let sameness = sameness(options, source, dest, &seen);
    if sameness == Sameness::Refused {
        return FilePlan::Refuse(Operation::SameFile).into();
    }
    match options.overwrite {
        Overwrite::Always => {}
        Overwrite::IfOlder if is_older(options, &seen, &source.stat) => {}
        Overwrite::IfOlder => return FilePlan::Skip(Reason::UpToDate).into(),
        Overwrite::IfChanged | Overwrite::IfSizeDiffers | Overwrite::IfContentDiffers => {
            if difference(options, &seen, source, dest).is_none() {
                return FilePlan::Skip(Reason::UpToDate).into();
            }
        }
        Overwrite::Never => return FilePlan::Skip(Reason::Exists).into(),
        Overwrite::Refuse => return FilePlan::Refuse(Operation::NotReplacing).into(),
    }
    let plan = if sameness == Sameness::Done {
        FilePlan::Skip(Reason::Same)
    } else if seen.kind == Kind::Dir && dest.is_extraneous {
        FilePlan::Replace
    } else if seen.kind == Kind::Dir {
        FilePlan::Refuse(Operation::OtherOverDir)
    } else if dest.made_here && options.backup != Backup::Numbered && !through_new_link {
        FilePlan::Refuse(Operation::JustCreated)
    } else if options.backup != Backup::No && !dest.is_dot {
        if dest.backup_is_source && options.backup != Backup::Numbered {
            FilePlan::Refuse(Operation::BackupIsSource)
        } else {
            FilePlan::Backup
        }
    } else if is_removed(options, source, &seen) {
        FilePlan::Replace
    } else if through_new_link {
        FilePlan::Refuse(Operation::JustCreatedLink)
    } else if data {
        write_to(options, source, dest)
    } else {
        FilePlan::Create
    };
    let name_goes = matches!(plan, FilePlan::Replace | FilePlan::Backup);
    if name_goes && dest.is_source_name && options.make == Make::Copies {
        // A link that is copied by what it leads to: the way there would go first.
        return FilePlan::Refuse(Operation::SameFile).into();
    }
    Decision {
        ask: options.ask,
        plan,
    }
}

/// How an existing file gets new data. Its name can go to another inode where nobody would miss the one that had it.
fn write_to(options: &Options, source: &SourceFacts, dest: &DestFacts) -> FilePlan {
    let there = dest.seen.itself;
    let is_replaceable = there.kind == Kind::File
        && there.nlink == 1
        // Writing takes these bits away, or not: the kernel knows when.
        && there.mode & 0o7000 == 0
        && !options.attributes_only;
    match options.atomic {
        Atomic::Auto if is_replaceable && source.stat.kind == Kind::File => FilePlan::Supersede,
        Atomic::Always if is_replaceable => FilePlan::Supersede,
        Atomic::Always if !options.attributes_only => FilePlan::Refuse(Operation::NotAtomic),
        _ => FilePlan::Overwrite,
    }
}

/// The decision for a directory: [`FilePlan::Overwrite`] stands for merging it with what has its destination's name,
/// [`FilePlan::Replace`] for removing that first.
pub(crate) fn decide_dir(
    options: &Options,
    source: &SourceFacts,
    dest: &Result<Option<DestFacts>>,
) -> FilePlan {
    let dest = match dest {
        Ok(Some(dest)) => dest,
        Ok(None) => return FilePlan::Create,
        Err(Errno::LOOP) if options.force => return FilePlan::Create,
        Err(errno) => return FilePlan::Unreachable(*errno),
    };
    let seen = match dest.seen.end() {
        Ok(stat) if options.keep_directory_symlink => stat,
        _ => dest.seen.itself,
    };
    match (sameness(options, source, dest, &seen), seen.kind) {
        (Sameness::Refused, _) => FilePlan::Refuse(Operation::SameFile),
        (Sameness::Done, _) => FilePlan::Skip(Reason::Same),
        (_, Kind::Dir) if dest.new_link => FilePlan::Refuse(Operation::JustCreatedLink),
        (_, Kind::Dir) => FilePlan::Overwrite,
        _ if dest.is_extraneous && !options.overwrite.keeps_all() => FilePlan::Replace,
        _ => FilePlan::Refuse(Operation::DirOverOther),
    }
}

/// Whether what has the name is removed before the copy is made.
fn is_removed(options: &Options, source: &SourceFacts, seen: &Stat) -> bool {
    // What is compared is to be like its own source, and not like another name's.
    let compares = options.overwrite.compares() && options.make == Make::Copies;
    let keeps_names_apart = (options.preserve.links || compares) && seen.nlink > 1;
    let is_no_file = source.follow == Follow::Never && source.stat.kind != Kind::File;
    let is_other_kind = options.overwrite.compares() && source.stat.kind != seen.kind;
    options.remove_destination
        || is_other_kind
        || (!options.attributes_only && (keeps_names_apart || is_no_file))
}

#[cfg(test)]
mod tests;
