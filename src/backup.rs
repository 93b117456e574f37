//! Backups: the other name that a destination gets before it is replaced, and gets back if its copy fails.
//!
//! - **Simple**: the name with a suffix. A file that has that name is lost, as with `cp`.
//! - **Numbered**: `name.~N~`, N one more than the highest that is there. It never replaces anything: a number that
//!   somebody takes meanwhile is passed over.
//! - **Existing**: numbered where there is a numbered one of that name already, else simple.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use crate::options::Backup;
use crate::path::split;
use crate::sys::{self, Errno, Result};

/// A destination that has another name now.
pub(crate) struct Saved<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    backup: OsString,
}

impl<'a> Saved<'a> {
    /// Renames what has the name; `None` if nothing has it any more.
    pub(crate) fn save(
        dir: BorrowedFd<'a>,
        name: &'a OsStr,
        how: Backup,
        suffix: &OsStr,
    ) -> Result<Option<Self>> {
        let mut number = next_number(dir, name, how)?;
        loop {
            let backup = name_with(name, number, suffix);
            match (sys::rename(dir, name, &backup, number.is_none()), number) {
                (Ok(()), _) => return Ok(Some(Self { dir, name, backup })),
                (Err(Errno::NOENT), _) => return Ok(None),
                (Err(Errno::EXIST), Some(taken)) if taken < u64::MAX => number = Some(taken + 1),
                (Err(errno), _) => return Err(errno),
            }
        }
    }

    /// What [`Saved::save`] would return, with nothing renamed.
    pub(crate) fn rehearse(
        dir: BorrowedFd<'a>,
        name: &'a OsStr,
        how: Backup,
        suffix: &OsStr,
    ) -> Result<Option<Self>> {
        let backup = backup_name(dir, name, how, suffix)?;
        Ok(Some(Self { dir, name, backup }))
    }

    /// A backup that was made before.
    pub(crate) fn of(dir: BorrowedFd<'a>, name: &'a OsStr, backup: OsString) -> Self {
        Self { dir, name, backup }
    }

    /// The backup's name, relative to the same directory as the destination's.
    pub(crate) fn backup(&self) -> &OsStr {
        &self.backup
    }

    /// Gives the destination its name back, unless somebody else has taken that meanwhile.
    pub(crate) fn restore(&self) -> Result<()> {
        sys::rename(self.dir, &self.backup, self.name, false)
    }
}

/// The name that a backup of `name` would get.
pub(crate) fn backup_name(
    dir: BorrowedFd,
    name: &OsStr,
    how: Backup,
    suffix: &OsStr,
) -> Result<OsString> {
    Ok(name_with(name, next_number(dir, name, how)?, suffix))
}

/// The name of a numbered backup or, without a number, of a simple one.
fn name_with(name: &OsStr, number: Option<u64>, suffix: &OsStr) -> OsString {
    match number {
        Some(number) => simple_name(name, OsStr::new(&format!(".~{number}~"))),
        None => simple_name(name, suffix),
    }
}

/// The number of the next backup; `None` if it is a simple one.
fn next_number(dir: BorrowedFd, name: &OsStr, how: Backup) -> Result<Option<u64>> {
    let highest = highest(dir, name, how)?;
    let numbered = how == Backup::Numbered || (how == Backup::Existing && highest > 0);
    // After the highest of all comes none: that one is taken, which is the error then.
    Ok(numbered.then(|| highest.saturating_add(1)))
}

/// The name of a simple backup.
pub(crate) fn simple_name(name: &OsStr, suffix: &OsStr) -> OsString {
    let mut backup = name.to_owned();
    backup.push(suffix);
    backup
}

/// The highest number among the numbered backups of `name`; 0 if there are none, or none that count.
fn highest(dir: BorrowedFd, name: &OsStr, how: Backup) -> Result<u64> {
    if !matches!(how, Backup::Numbered | Backup::Existing) {
        return Ok(0);
    }
    let (parent, base) = split(name);
    let listed = match sys::open_dest_dir(dir, parent, true) {
        // A directory that may not be listed has none that anybody sees. Where one could not be listed for once, an older backup
        // might be replaced.
        Err(Errno::ACCESS | Errno::NOENT) => return Ok(0),
        listed => listed?,
    };
    let names = match sys::read_dir(&listed) {
        // It may be searched, and not be read.
        Err(Errno::BADF) => return Ok(0),
        names => names?,
    };
    let numbers = names
        .into_iter()
        .filter_map(|(other, _)| number_of(other.as_bytes(), base.as_bytes()));
    Ok(numbers.max().unwrap_or(0))
}

/// The N of `base.~N~`.
fn number_of(name: &[u8], base: &[u8]) -> Option<u64> {
    let digits = name
        .strip_prefix(base)?
        .strip_prefix(b".~")?
        .strip_suffix(b"~")?;
    // `.~0~` and `.~01~` are no backups' names.
    let is_number =
        digits.first().is_some_and(|&digit| digit != b'0') && digits.iter().all(u8::is_ascii_digit);
    if is_number {
        str::from_utf8(digits).ok()?.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_count() {
        for (name, number) in [
            (&b"a.~1~"[..], Some(1)),
            (b"a.~120~", Some(120)),
            (b"a.~0~", None),
            (b"a.~01~", None),
            (b"a.~~", None),
            (b"a.~1", None),
            (b"a.~x~", None),
            (b"b.~1~", None),
            (b"aa.~1~", None),
            (b"a.~99999999999999999999~", None),
        ] {
            assert_eq!(number_of(name, b"a"), number, "{}", name.escape_ascii());
        }
    }
}
