//! What `-v` and `--debug` say of an entry.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use poolcp::{Event, Holes, How, Tried, quote};

/// What `cp -v` and `cp --debug` print for an event, and the reason if that is wanted.
pub fn lines(event: &Event, says_why: bool) -> Vec<u8> {
    let reason = |words: &str| {
        if says_why {
            format!(" ({words})")
        } else {
            String::new()
        }
    };
    let lines = match event {
        Event::Copying {
            source,
            dest,
            backup,
            why,
            ..
        } => arrow(source, dest, backup.as_deref()) + &reason(why.describe()) + "\n",
        Event::Copied {
            source,
            dest,
            backup,
            why,
            how,
            ..
        } => {
            let reason = reason(why.describe());
            arrow(source, dest, backup.as_deref()) + &reason + "\n" + &ways(how)
        }
        Event::Deleted {
            dest,
            is_dir,
            in_the_way,
            ..
        } => {
            let what = if *is_dir { "directory " } else { "" };
            let reason = reason(if *in_the_way {
                "in the way"
            } else {
                "not in the source"
            });
            format!("removed {what}{}{reason}\n", quote(dest))
        }
        Event::LeftOut { source, .. } => format!("left out {}\n", quote(source)),
        // Here cp does not quote: these are the names' own bytes.
        Event::MadeParent { source, dest } => {
            let [source, dest] = [source, dest].map(|path| path.as_os_str().as_bytes());
            return [source, b" -> ", dest, b"\n"].concat();
        }
        Event::Removed { dest } => format!("removed {}\n", quote(dest)),
        Event::Restored { dest, backup } => {
            format!("{} -> {} (unbackup)\n", quote(backup), quote(dest))
        }
        Event::Skipped { dest } => format!("skipped {}\n", quote(dest)),
        // Whatever the library may tell one day that this program does not know.
        _ => String::new(),
    };
    lines.into_bytes()
}

fn arrow(source: &Path, dest: &Path, backup: Option<&Path>) -> String {
    let backup = backup.map(|backup| format!(" (backup: {})", quote(backup)));
    let backup = backup.unwrap_or_default();
    format!("{} -> {}{backup}", quote(source), quote(dest))
}

fn ways(how: &How) -> String {
    let tried = |tried| match tried {
        Tried::Unknown => "unknown",
        Tried::No => "no",
        Tried::Avoided => "avoided",
        Tried::Unsupported => "unsupported",
        Tried::Yes => "yes",
    };
    let holes = match how.holes {
        Holes::No => "no",
        Holes::Seek => "SEEK_HOLE",
        Holes::Zeros => "zeros",
    };
    format!(
        "copy offload: {}, reflink: {}, sparse detection: {holes}\n",
        tried(how.offload),
        tried(how.reflink)
    )
}
