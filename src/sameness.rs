//! Whether the source and the destination of one entry are one file, and whether that matters (`decide.rs`): two names may be one
//! file's, or one name, or a link may lead from one to the other.

use crate::decide::{DestFacts, SourceFacts};
use crate::options::{Backup, Follow, Make, Options};
use crate::sys::{Kind, Stat};

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
    use Sameness::{Different, Done, Refused};
    // Nothing is touched, so that nothing need be told apart.
    if options.overwrite.keeps_all() {
        return Different;
    }
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
