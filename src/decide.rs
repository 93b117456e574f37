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

use crate::error::Operation;
use crate::options::{Atomic, Backup, Follow, Make, Options, Overwrite};
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

/// Why an entry is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Nothing had the destination's name.
    #[default]
    New,
    /// Whatever has the name is replaced.
    Exists,
    /// What has the name was modified before.
    Older,
    /// What has the name is of another kind.
    Kind,
    /// The sizes differ.
    Size,
    /// The modification times differ.
    Time,
    /// What the files hold, what the links say, or which devices they are differs.
    Content,
    /// Attributes that are kept differ; the data is the same.
    Attributes,
}

impl Why {
    /// In a few words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Exists => "replaces what is there",
            Self::Older => "newer than what is there",
            Self::Kind => "another kind of file",
            Self::Size => "size differs",
            Self::Time => "time differs",
            Self::Content => "content differs",
            Self::Attributes => "attributes differ",
        }
    }
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

/// Whether the destination was modified before the source.
fn is_older(options: &Options, dest: &Stat, source: &Stat) -> bool {
    dest.times.modified < modified(options, dest, source)
}

/// In what the destination is no copy of the source, by the measure that the options ask for. The times of what has no data
/// are an attribute as any other.
fn difference(
    options: &Options,
    dest: &Stat,
    source: &SourceFacts,
    facts: &DestFacts,
) -> Option<Why> {
    let source = &source.stat;
    let is_file = source.kind == Kind::File;
    let by_time = is_file && options.overwrite == Overwrite::IfChanged;
    if dest.kind != source.kind {
        Some(Why::Kind)
    } else if is_file && dest.size != source.size {
        Some(Why::Size)
    } else if by_time && dest.times.modified != modified(options, dest, source) {
        Some(Why::Time)
    } else if facts.has_other_content || dest.rdev != source.rdev {
        Some(Why::Content)
    } else {
        None
    }
}

/// Whether the options make it depend on what both ends hold whether a destination of the same kind is replaced.
pub(crate) fn compares_content(options: &Options, source: &Stat, dest: &Stat) -> bool {
    if source.kind != dest.kind || !options.overwrite.compares() {
        return false;
    }
    match source.kind {
        Kind::Symlink => true,
        Kind::File => options.overwrite == Overwrite::IfContentDiffers && source.size == dest.size,
        _ => false,
    }
}

/// Why an entry is copied, once it is known that it is.
pub(crate) fn why(
    options: &Options,
    source: &SourceFacts,
    dest: &Result<Option<DestFacts>>,
) -> Why {
    let Ok(Some(dest)) = dest else {
        return Why::New;
    };
    match options.overwrite {
        Overwrite::IfOlder => Why::Older,
        // Then it is never looked through.
        _ if options.overwrite.compares() => {
            let there = dest.seen.itself;
            difference(options, &there, source, dest).unwrap_or(Why::Attributes)
        }
        _ => Why::Exists,
    }
}

/// Whether a destination that is up to date has other attributes than its source, of those that are kept and can be given:
/// only the superuser can give a file to another owner. ACLs and extended attributes are not looked at: that would take more
/// than the two looks at a file that tell everything else.
pub(crate) fn has_other_attributes(
    options: &Options,
    is_superuser: bool,
    source: &Stat,
    dest: &Stat,
) -> bool {
    let preserve = &options.preserve;
    let is_link = source.kind == Kind::Symlink;
    options.overwrite.compares()
        && ((preserve.mode && !is_link && source.mode != dest.mode)
            || (preserve.ownership
                && is_superuser
                && (source.uid, source.gid) != (dest.uid, dest.gid))
            || (preserve.timestamps && dest.times.modified != modified(options, dest, source)))
}

/// When the source was modified, as its copy can say it: one on a filesystem that keeps coarser times is not older for that.
fn modified(options: &Options, dest: &Stat, source: &Stat) -> (i64, u32) {
    let (seconds, nanoseconds) = source.times.modified;
    let unit = if options.preserve.timestamps {
        resolution(dest)
    } else {
        1
    };
    (seconds, nanoseconds / unit * unit)
}

/// The unit, in nanoseconds, that all of a file's times are multiples of: a guess at what its filesystem can keep.
fn resolution(stat: &Stat) -> u32 {
    let all = [stat.times.accessed, stat.times.modified, stat.times.changed];
    let mut unit = 1;
    while unit < 1_000_000_000 && all.iter().all(|(_, ns)| ns % (unit * 10) == 0) {
        unit *= 10;
    }
    unit
}

/// How a source and a destination that are, or may be, one file are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// They are two, or it does no harm that they are one.
    Different,
    /// They are one, and the copy would lose it.
    Refused,
    /// They are one, as they would be afterwards: nothing is left to do.
    Done,
}

/// Whether source and destination are one file in a way that matters. `seen` is what the rules take the destination for.
pub(crate) fn sameness(
    options: &Options,
    source: &SourceFacts,
    dest: &DestFacts,
    seen: &Stat,
) -> Sameness {
    // Nothing is touched, so that nothing need be told apart.
    if options.overwrite.keeps_all() {
        return Sameness::Different;
    }
    use Sameness::{Different, Done, Refused};
    let one_file = source.stat.id == seen.id;
    let hard_links = options.make == Make::HardLinks;
    let follows = source.follow != Follow::Never;
    if one_file && hard_links {
        return Done;
    }
    if follows && !one_file {
        return Different;
    }
    // From here on it is about the names themselves.
    let (from, to) = if follows {
        (source.seen.itself, dest.seen.itself)
    } else {
        (source.stat, *seen)
    };
    let one_inode = from.id == to.id;
    let is_link = |stat: &Stat| stat.kind == Kind::Symlink;
    if is_link(&from) && is_link(&to) {
        if !follows {
            return match (dest.is_source_name, one_inode) {
                (true, _) => Refused,
                // Two names of one symbolic link: there is nothing to copy.
                (false, true) if options.backup == Backup::No => Done,
                (false, _) => Different,
            };
        }
        if options.remove_destination {
            return Different;
        }
    }
    if options.backup != Backup::No {
        let loses = if one_inode {
            dest.is_source_name
        } else {
            // The backup would take the file away from under the link that is read.
            follows && is_link(&from) && !is_link(&to)
        };
        return if loses { Refused } else { Different };
    }
    if options.remove_destination
        && (is_link(&to) || (one_inode && to.nlink > 1 && !dest.is_source_name))
    {
        // The source has another name.
        return Different;
    }
    if !is_link(&from) && !is_link(&to) {
        if !one_inode {
            return Different;
        }
        if hard_links {
            return Done;
        }
    }
    let replaces_link = options.make != Make::Copies || options.remove_destination;
    if replaces_link && is_link(&to) {
        return if from.id.dev == to.id.dev {
            Different
        } else {
            Refused
        };
    }
    if !follows {
        // A link must not replace the file that it leads to, nor be written through to itself.
        let source_end = if is_link(&from) {
            source.seen.end()
        } else {
            Ok(from)
        };
        let dest_end = if is_link(&to) {
            dest.seen.end()
        } else {
            Ok(to)
        };
        match (source_end, dest_end) {
            (Ok(source), Ok(dest)) if source.id == dest.id => {}
            _ => return Different,
        }
        if hard_links {
            return if is_link(&to) { Different } else { Done };
        }
    }
    Refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{FileId, Times};

    const OLD: i64 = 1;
    const NEW: i64 = 2;

    fn stat(ino: u64, kind: Kind) -> Stat {
        let at = |seconds| (seconds, 0);
        Stat {
            id: FileId { dev: 1, ino },
            kind,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            allocated: 0,
            times: Times {
                accessed: at(OLD),
                modified: at(OLD),
                changed: at(OLD),
            },
        }
    }

    fn file(ino: u64) -> Stat {
        stat(ino, Kind::File)
    }

    fn modified(stat: Stat, seconds: i64) -> Stat {
        let times = Times {
            modified: (seconds, 0),
            ..stat.times
        };
        Stat { times, ..stat }
    }

    fn plain(itself: Stat) -> Seen {
        Seen {
            itself,
            target: None,
        }
    }

    fn link(ino: u64, target: Result<Stat>) -> Seen {
        Seen {
            itself: stat(ino, Kind::Symlink),
            target: Some(target),
        }
    }

    fn source(seen: Seen, options: &Options) -> SourceFacts {
        let end = seen.end().unwrap_or(seen.itself);
        let follow = options.follow;
        let stat = match follow {
            Follow::Never => seen.itself,
            _ => end,
        };
        SourceFacts { seen, stat, follow }
    }

    fn dest(seen: Seen) -> DestFacts {
        DestFacts {
            seen,
            made_here: false,
            new_link: false,
            is_source_name: false,
            backup_is_source: false,
            is_dot: false,
            has_other_content: false,
            is_extraneous: false,
        }
    }

    /// Options, as somebody types them.
    fn options(words: &str) -> Options {
        let mut options = Options::default();
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            match word {
                "-P" => options.follow = Follow::Never,
                "-r" => {
                    options.recursive = true;
                    options.copy_contents = false;
                    options.follow = Follow::Never;
                }
                "-d" => {
                    options.follow = Follow::Never;
                    options.preserve.links = true;
                }
                "-p" => options.preserve.timestamps = true,
                "-f" => options.force = true,
                "-i" => options.ask = true,
                "-n" => options.overwrite = Overwrite::Never,
                "-u" => options.overwrite = Overwrite::IfOlder,
                "changed" => options.overwrite = Overwrite::IfChanged,
                "always" => options.atomic = Atomic::Always,
                "never" => options.atomic = Atomic::Never,
                "none-fail" => options.overwrite = Overwrite::Refuse,
                "-l" => options.make = Make::HardLinks,
                "-s" => options.make = Make::Symlinks,
                "-b" => options.backup = Backup::Existing,
                "numbered" => options.backup = Backup::Numbered,
                "attributes" => options.attributes_only = true,
                "remove" => options.remove_destination = true,
                _ => panic!("{word}"),
            }
        }
        options
    }

    #[track_caller]
    fn check(rows: &[(&str, Seen, DestFacts, FilePlan)]) {
        for (words, from, to, plan) in rows {
            let options = options(words);
            let decision = decide(&options, &source(*from, &options), &Ok(Some(*to)));
            assert_eq!(decision.plan, *plan, "[{words}] {from:?} to {to:?}");
            assert_eq!(decision.ask, options.ask && !is_settled(*plan), "[{words}]");
        }
    }

    /// Whether there is nothing to ask about.
    fn is_settled(plan: FilePlan) -> bool {
        matches!(
            plan,
            FilePlan::Skip(Reason::UpToDate) | FilePlan::Refuse(Operation::SameFile)
        )
    }

    #[test]
    fn what_is_there_is_overwritten_replaced_or_kept() {
        use FilePlan::{Backup, Create, Overwrite, Refuse, Replace, Skip, Supersede};
        let a = plain(file(1));
        let b = dest(plain(file(2)));
        let many = dest(plain(Stat {
            nlink: 2,
            ..file(2)
        }));
        let dir = dest(plain(stat(2, Kind::Dir)));
        let fifo = plain(stat(1, Kind::Fifo));
        let symlink = link(1, Ok(file(9)));
        let of_source = DestFacts {
            backup_is_source: true,
            ..b
        };
        let dot = DestFacts { is_dot: true, ..b };
        let made = DestFacts {
            made_here: true,
            ..b
        };
        check(&[
            ("", a, b, Supersede),
            ("-i", a, b, Supersede),
            ("-f", a, b, Supersede),
            ("-n", a, b, Skip(Reason::Exists)),
            ("none-fail", a, b, Refuse(Operation::NotReplacing)),
            ("remove", a, b, Replace),
            ("-b", a, b, Backup),
            ("-b remove", a, b, Backup),
            ("-b", a, dot, Supersede),
            ("-b", a, of_source, Refuse(Operation::BackupIsSource)),
            ("numbered", a, of_source, Backup),
            ("", a, dir, Refuse(Operation::OtherOverDir)),
            ("-f remove", a, dir, Refuse(Operation::OtherOverDir)),
            ("-d", a, many, Replace),
            ("-d attributes", a, many, Overwrite),
            ("-r", a, many, Overwrite),
            ("", fifo, b, Overwrite),
            ("-r", fifo, b, Replace),
            ("-r attributes", fifo, b, Create),
            ("-P", symlink, b, Replace),
            ("-l", a, b, Create),
            ("-s", a, b, Create),
            ("-s remove", a, b, Replace),
            ("", a, made, Refuse(Operation::JustCreated)),
            ("-b", a, made, Refuse(Operation::JustCreated)),
            ("numbered", a, made, Backup),
        ]);
    }

    #[test]
    fn an_update_needs_an_older_destination() {
        use FilePlan::{Skip, Supersede};
        let old = plain(modified(file(1), OLD));
        let new = plain(modified(file(1), NEW));
        let up_to_date = Skip(Reason::UpToDate);
        let is_old = dest(plain(modified(file(2), OLD)));
        let is_new = dest(plain(modified(file(2), NEW)));
        let longer = dest(plain(Stat { size: 1, ..file(2) }));
        check(&[
            ("-u", new, is_old, Supersede),
            ("-u", old, is_old, up_to_date),
            ("-u", old, is_new, up_to_date),
            ("-u -i", old, is_new, up_to_date),
            ("-u -i", new, is_old, Supersede),
            ("changed", new, is_old, Supersede),
            ("changed", old, is_new, Supersede),
            ("changed", old, is_old, up_to_date),
            ("changed", old, longer, Supersede),
        ]);
    }

    #[test]
    fn a_file_is_superseded_where_nobody_would_miss_its_inode() {
        use FilePlan::{Overwrite, Refuse, Supersede};
        let a = plain(file(1));
        let b = dest(plain(file(2)));
        let changed = |change: fn(&mut Stat)| {
            let mut stat = file(2);
            change(&mut stat);
            dest(plain(stat))
        };
        let many = changed(|stat| stat.nlink = 2);
        let special = changed(|stat| stat.mode = 0o4755);
        let device = changed(|stat| stat.kind = Kind::CharDevice);
        let through = dest(link(3, Ok(file(2))));
        let fifo = plain(stat(1, Kind::Fifo));
        let no = Refuse(Operation::NotAtomic);
        check(&[
            ("", a, b, Supersede),
            ("", a, many, Overwrite),
            ("", a, special, Overwrite),
            ("", a, device, Overwrite),
            ("", a, through, Overwrite),
            ("", fifo, b, Overwrite),
            ("never", a, b, Overwrite),
            ("always", a, b, Supersede),
            ("always", fifo, b, Supersede),
            ("always", a, many, no),
            ("always", a, special, no),
            ("always", a, device, no),
            ("always", a, through, no),
            ("always attributes", a, b, Overwrite),
        ]);
    }

    #[test]
    fn a_copy_on_a_filesystem_with_coarse_times_is_not_older_for_that() {
        let mut fine = file(1);
        fine.times.modified = (NEW, 999_999_999);
        let coarse = dest(plain(modified(file(2), NEW)));
        check(&[
            ("-u", plain(fine), coarse, FilePlan::Supersede),
            (
                "-u -p",
                plain(fine),
                coarse,
                FilePlan::Skip(Reason::UpToDate),
            ),
        ]);
        let mut changed = modified(file(2), NEW);
        changed.times.changed = (NEW, 123_456_789);
        check(&[(
            "-u -p",
            plain(fine),
            dest(plain(changed)),
            FilePlan::Supersede,
        )]);
    }

    #[test]
    fn links_at_the_destination_are_written_through_by_data_only() {
        use FilePlan::{Backup, Create, Overwrite, Refuse, Replace, Unreachable};
        let a = plain(file(1));
        let to_file = dest(link(3, Ok(file(4))));
        let to_dir = dest(link(3, Ok(stat(4, Kind::Dir))));
        let to_nothing = dest(link(3, Err(Errno::NOENT)));
        let in_a_circle = dest(link(3, Err(Errno::LOOP)));
        let symlink = link(1, Ok(file(9)));
        let new = |dest| DestFacts {
            new_link: true,
            made_here: true,
            ..dest
        };
        check(&[
            ("", a, to_file, Overwrite),
            ("-b", a, to_file, Backup),
            ("remove", a, to_file, Replace),
            ("-P", symlink, to_file, Replace),
            ("", a, to_dir, Refuse(Operation::OtherOverDir)),
            ("remove", a, to_dir, Replace),
            ("", a, new(to_file), Refuse(Operation::JustCreatedLink)),
            ("", a, new(to_nothing), Refuse(Operation::JustCreatedLink)),
            (
                "-f",
                a,
                new(in_a_circle),
                Refuse(Operation::JustCreatedLink),
            ),
            ("remove", a, new(to_file), Refuse(Operation::JustCreated)),
            ("remove", a, to_nothing, Replace),
            ("remove", a, in_a_circle, Replace),
        ]);
        // Nothing exists there that a question could be about.
        let decision = |words: &str, dest: &DestFacts| {
            let options = options(words);
            decide(&options, &source(a, &options), &Ok(Some(*dest)))
        };
        assert_eq!(decision("-n", &to_nothing), Create.into());
        assert_eq!(decision("-i", &to_nothing), Create.into());
        assert_eq!(decision("-f", &in_a_circle), Overwrite.into());
        assert_eq!(decision("", &in_a_circle), Unreachable(Errno::LOOP).into());
    }

    #[test]
    fn one_file_is_refused_unless_nothing_is_lost() {
        use FilePlan::{Backup, Create, Refuse, Replace, Skip};
        let same = Refuse(Operation::SameFile);
        let done = Skip(Reason::Same);
        let a = plain(file(1));
        let itself = DestFacts {
            is_source_name: true,
            ..dest(a)
        };
        let twice = Stat {
            nlink: 2,
            ..file(1)
        };
        let other_name = dest(plain(twice));
        let link_to_a = dest(link(3, Ok(file(1))));
        let through = link(3, Ok(file(1)));
        let same_link = DestFacts {
            is_source_name: true,
            ..dest(through)
        };
        check(&[
            ("", a, itself, same),
            ("-f", a, itself, same),
            ("-b", a, itself, same),
            ("remove", a, itself, same),
            ("-n", a, itself, Skip(Reason::Exists)),
            ("-l", a, itself, done),
            ("-s", a, itself, same),
            ("", plain(twice), other_name, same),
            ("-d", plain(twice), other_name, same),
            ("-b", plain(twice), other_name, Backup),
            ("remove", plain(twice), other_name, Replace),
            ("-l", plain(twice), other_name, done),
            ("", a, link_to_a, same),
            ("-P", a, link_to_a, same),
            ("-b", a, link_to_a, Backup),
            ("remove", a, link_to_a, Replace),
            ("-l", a, link_to_a, Create),
            ("-s", a, link_to_a, Create),
            ("", through, dest(a), same),
            ("-P", through, dest(a), same),
            ("-b", through, dest(a), same),
            ("-P -b", through, dest(a), Backup),
            ("-b", through, same_link, same),
            ("remove", through, same_link, same),
            ("-b", through, same_link, same),
            ("remove", through, same_link, same),
            ("-P", through, same_link, same),
            ("-P -b", through, same_link, same),
            ("-P", through, dest(through), done),
            ("-P -b", through, dest(through), Backup),
        ]);
    }

    // ---- Whatever is asked for, and whatever is there ----

    mod random {
        use super::*;
        use crate::options::{Effort, Preserve};
        use proptest::prelude::*;
        use proptest::sample::select;

        /// What is at each of the inodes 1 to 4. A symbolic link leads to one of them, or nowhere.
        #[derive(Clone, Debug)]
        struct World {
            inodes: Vec<(Stat, Result<usize>)>,
            source: usize,
            dest: usize,
            /// Both names are one.
            is_source_name: bool,
            has_other_content: bool,
        }

        impl World {
            fn see(&self, inode: usize) -> Seen {
                let (itself, target) = self.inodes[inode];
                if itself.kind != Kind::Symlink {
                    return plain(itself);
                }
                // One that leads to a link leads around in a circle.
                let end = target.and_then(|target| match self.inodes[target].0 {
                    Stat {
                        kind: Kind::Symlink,
                        ..
                    } => Err(Errno::LOOP),
                    stat => Ok(stat),
                });
                Seen {
                    itself,
                    target: Some(end),
                }
            }
        }

        fn worlds() -> impl Strategy<Value = World> {
            let kind = select(
                &[
                    Kind::File,
                    Kind::File,
                    Kind::Symlink,
                    Kind::Dir,
                    Kind::Fifo,
                    Kind::CharDevice,
                ][..],
            );
            let mode = select(&[0o644, 0o4755, 0o000, 0o1777][..]);
            let target = prop_oneof![
                (0..4_usize).prop_map(Ok),
                select(&[Errno::NOENT, Errno::LOOP, Errno::ACCESS][..]).prop_map(Err),
            ];
            let inode = (kind, mode, 1..4_u64, 0..2_u64, (0..3_i64, 0..2_u32), target);
            let inode = inode.prop_map(|(kind, mode, nlink, size, modified, target)| {
                let times = Times {
                    modified,
                    ..stat(0, kind).times
                };
                let stat = Stat {
                    mode,
                    nlink,
                    size,
                    times,
                    ..stat(0, kind)
                };
                (stat, target)
            });
            let names = (0..4_usize, 0..4_usize, any::<bool>(), any::<bool>());
            (prop::collection::vec(inode, 4), names).prop_map(|(mut inodes, names)| {
                let (source, dest, is_one, has_other_content) = names;
                let is_source_name = is_one && source == dest;
                for (ino, (stat, _)) in (1..).zip(&mut inodes) {
                    stat.id.ino = ino;
                }
                if source == dest && !is_source_name {
                    let nlink = &mut inodes[source].0.nlink;
                    *nlink = 2.max(*nlink);
                }
                World {
                    inodes,
                    source,
                    dest,
                    is_source_name,
                    has_other_content,
                }
            })
        }

        fn all_options() -> impl Strategy<Value = Options> {
            use Overwrite::{
                Always, IfChanged, IfContentDiffers, IfOlder, IfSizeDiffers, Never, Refuse,
            };
            let flags = any::<[bool; 9]>();
            let follow = select(&[Follow::Never, Follow::Operands, Follow::Always][..]);
            let make = select(&[Make::Copies, Make::Copies, Make::HardLinks, Make::Symlinks][..]);
            let overwrite = select(
                &[
                    Always,
                    Always,
                    IfOlder,
                    IfChanged,
                    IfSizeDiffers,
                    IfContentDiffers,
                    Never,
                    Refuse,
                ][..],
            );
            let backup = select(
                &[
                    Backup::No,
                    Backup::No,
                    Backup::Simple,
                    Backup::Numbered,
                    Backup::Existing,
                ][..],
            );
            let atomic = select(&[Atomic::Auto, Atomic::Always, Atomic::Never][..]);
            (flags, follow, make, overwrite, backup, atomic).prop_map(
                |(flags, follow, make, overwrite, backup, atomic)| Options {
                    recursive: flags[0],
                    copy_contents: flags[1],
                    attributes_only: flags[2],
                    ask: flags[3],
                    force: flags[4],
                    remove_destination: flags[5],
                    keep_directory_symlink: flags[6],
                    preserve: Preserve {
                        links: flags[7],
                        timestamps: flags[8],
                        xattrs: Effort::No,
                        ..Preserve::default()
                    },
                    follow,
                    make,
                    overwrite,
                    backup,
                    atomic,
                    ..Options::default()
                },
            )
        }

        /// What the decision is about, if there is something to copy.
        fn facts(
            world: &World,
            options: &Options,
            flags: [bool; 4],
        ) -> Option<(SourceFacts, DestFacts)> {
            let seen = world.see(world.source);
            let stat = match options.follow {
                Follow::Never => seen.itself,
                _ => seen.end().ok()?,
            };
            let follow = options.follow;
            let [made_here, new_link, backup_is_source, is_dot] = flags;
            let seen_dest = world.see(world.dest);
            let dest = DestFacts {
                seen: seen_dest,
                made_here,
                new_link: new_link && seen_dest.target.is_some(),
                is_source_name: world.is_source_name,
                backup_is_source,
                is_dot: is_dot && seen_dest.itself.kind == Kind::Dir,
                has_other_content: world.has_other_content,
                is_extraneous: false,
            };
            Some((SourceFacts { seen, stat, follow }, dest))
        }

        fn config() -> ProptestConfig {
            ProptestConfig {
                failure_persistence: None,
                max_global_rejects: 10_000_000,
                ..ProptestConfig::with_cases(5000)
            }
        }

        proptest! {
            #![proptest_config(config())]

            #[test]
            fn no_decision_loses_the_source(
                world in worlds(),
                options in all_options(),
                flags in any::<[bool; 4]>(),
            ) {
                let facts = facts(&world, &options, flags);
                prop_assume!(facts.is_some_and(|(source, _)| source.stat.kind != Kind::Dir));
                let (source, dest) = facts.expect("there is one");
                let there = Ok(Some(dest));
                let Decision { ask, plan } = decide(&options, &source, &there);
                let from = source.stat;
                let (to, end) = (dest.seen.itself, dest.seen.end());
                match plan {
                    // Its data would be emptied.
                    FilePlan::Overwrite | FilePlan::Supersede => {
                        prop_assert!(end.is_err() || end.is_ok_and(|end| end.id != from.id));
                    }
                    // A name of it goes: it must have another one.
                    FilePlan::Replace | FilePlan::Backup => {
                        prop_assert!(!dest.is_source_name || options.make != Make::Copies);
                        prop_assert!(to.kind != Kind::Dir);
                        prop_assert!(to.id != from.id || from.nlink > 1 || plan == FilePlan::Backup);
                    }
                    FilePlan::Create
                    | FilePlan::Dress
                    | FilePlan::Skip(_)
                    | FilePlan::Refuse(_)
                    | FilePlan::Unreachable(_) => {}
                }
                if plan == FilePlan::Supersede {
                    prop_assert!(to.kind == Kind::File && to.nlink == 1);
                }
                let leaves_alone = matches!(plan, FilePlan::Skip(_) | FilePlan::Refuse(_));
                let is_there = !looks_through(&options, from.kind) || end.is_ok();
                if matches!(options.overwrite, Overwrite::Never | Overwrite::Refuse) && is_there {
                    prop_assert!(leaves_alone);
                }
                if options.atomic == Atomic::Always && !options.attributes_only && end.is_ok() {
                    prop_assert!(plan != FilePlan::Overwrite);
                }
                if end.is_ok_and(|end| end.kind == Kind::Dir) && options.backup == Backup::No
                    && !options.overwrite.compares()
                    && (to.kind == Kind::Dir || !options.remove_destination) && has_data(&options, from.kind)
                {
                    prop_assert!(leaves_alone);
                }
                if dest.made_here && options.backup == Backup::No && is_there && !leaves_alone {
                    // Not what another operand had made, but for a link, of which cp sees the target here.
                    prop_assert!(plan == FilePlan::Create || dest.new_link);
                }
                prop_assert!(!ask || options.ask);
                prop_assert_eq!(Decision { ask, plan }, decide(&options, &source, &there));
            }

            #[test]
            fn only_a_directory_takes_a_directory(
                world in worlds(),
                options in all_options(),
                flags in any::<[bool; 4]>(),
            ) {
                let facts = facts(&world, &options, flags);
                prop_assume!(facts.is_some_and(|(source, _)| source.stat.kind == Kind::Dir));
                let (source, dest) = facts.expect("there is one");
                let plan = decide_dir(&options, &source, &Ok(Some(dest)));
                match plan {
                    FilePlan::Overwrite => {
                        let follows = options.keep_directory_symlink;
                        let is_dir = |stat: Stat| stat.kind == Kind::Dir;
                        prop_assert!(is_dir(dest.seen.itself) || follows && dest.seen.end().is_ok_and(is_dir));
                    }
                    FilePlan::Skip(_) | FilePlan::Refuse(_) => {}
                    _ => prop_assert!(false, "{plan:?}"),
                }
            }
        }
    }

    #[test]
    fn directories_merge_with_directories_only() {
        let dir = |ino| plain(stat(ino, Kind::Dir));
        let to_dir = dest(link(3, Ok(stat(2, Kind::Dir))));
        let refused = FilePlan::Refuse(Operation::DirOverOther);
        for (words, to, plan) in [
            ("-r", dest(dir(2)), FilePlan::Overwrite),
            ("-r", dest(plain(file(2))), refused),
            ("-r -f remove", dest(plain(file(2))), refused),
            ("-r", to_dir, refused),
            ("-r", dest(dir(1)), FilePlan::Refuse(Operation::SameFile)),
            ("-r -n", dest(dir(1)), FilePlan::Overwrite),
            ("-r -l", dest(dir(1)), FilePlan::Skip(Reason::Same)),
        ] {
            let options = options(words);
            let from = source(dir(1), &options);
            assert_eq!(
                decide_dir(&options, &from, &Ok(Some(to))),
                plan,
                "[{words}] {to:?}"
            );
        }
        let mut options = options("-r");
        options.keep_directory_symlink = true;
        let from = source(dir(1), &options);
        assert_eq!(
            decide_dir(&options, &from, &Ok(Some(to_dir))),
            FilePlan::Overwrite
        );
    }
}
