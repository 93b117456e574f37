//! In what a destination is no copy of its source, by the measure that the options ask for (`decide.rs`): its age, kind, size and
//! time, what it holds, its attributes.

use crate::decide::{DestFacts, SourceFacts};
use crate::options::{Options, Overwrite};
use crate::sys::{Kind, Result, Stat};

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

/// Whether the destination was modified before the source.
pub(crate) fn is_older(options: &Options, dest: &Stat, source: &Stat) -> bool {
    dest.times.modified < modified(options, dest, source)
}

/// In what the destination is no copy of the source, by the measure that the options ask for. The times of what has no data
/// are an attribute as any other.
pub(crate) fn difference(
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
    if !options.preserve.timestamps {
        return (seconds, nanoseconds);
    }
    if has_fat_times(dest) {
        return (seconds & !1, 0);
    }
    let unit = resolution(dest);
    (seconds, nanoseconds / unit * unit)
}

/// Whether a file's times are as FAT keeps them: even seconds, none of its own for a change of attributes, and of the last access
/// the date, which begins somewhere on a quarter of an hour.
fn has_fat_times(stat: &Stat) -> bool {
    let is_even = |(seconds, ns): (i64, u32)| ns == 0 && seconds % 2 == 0;
    let times = stat.times;
    let is_date = is_even(times.accessed) && times.accessed.0 % 900 == 0;
    is_date && is_even(times.modified) && times.changed == times.modified
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
