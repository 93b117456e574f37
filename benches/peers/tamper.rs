//! Whether [`crate::verify`] sees what it should: a verification that finds nothing is worth nothing.
//!
//! A small tree is copied by `cp -a`, then spoilt in one way at a time.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::contestant::Mode;
use crate::verify::{Aspect, Differences};

/// Bytes of the file that is one hole.
const HOLE: u64 = 16 << 20;

/// Spoils something in a copy, whose path it is given.
type Tampering = fn(&Path) -> io::Result<()>;

/// One way to spoil each aspect. Owners are left out: only the superuser could do that.
const TAMPERINGS: [(Aspect, Tampering); 11] = [
    (Aspect::Missing, |copy| {
        fs::remove_file(copy.join("dir/one"))
    }),
    (Aspect::Extra, |copy| fs::write(copy.join("dir/new"), "")),
    (Aspect::Type, |copy| {
        fs::remove_file(copy.join("dir/one"))?;
        symlink("nowhere", copy.join("dir/one"))
    }),
    // The last byte, so that sizes do not tell.
    (Aspect::Data, |copy| {
        let file = OpenOptions::new().write(true).open(copy.join("hole"))?;
        file.write_all_at(b"!", HOLE - 1)
    }),
    (Aspect::Data, |copy| {
        fs::remove_file(copy.join("link"))?;
        symlink("elsewhere", copy.join("link"))
    }),
    (Aspect::Permissions, |copy| {
        fs::set_permissions(copy.join("dir/one"), Permissions::from_mode(0o700))
    }),
    (Aspect::Times, |copy| set_time(&copy.join("dir/one"))),
    (Aspect::DirectoryTimes, |copy| set_time(&copy.join("dir"))),
    (Aspect::SymlinkTimes, |copy| {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: zero,
            last_modification: zero,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(
            CWD,
            copy.join("link"),
            &times,
            flags,
        )?)
    }),
    (Aspect::HardLinks, |copy| {
        let other = copy.join("dir/other-name");
        fs::remove_file(&other)?;
        fs::copy(copy.join("name"), other).map(drop)
    }),
    (Aspect::Holes, |copy| {
        let file = OpenOptions::new().write(true).open(copy.join("hole"))?;
        file.write_all_at(&vec![0; HOLE as usize], 0)
    }),
];

fn set_time(path: &Path) -> io::Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::open(path)?.set_times(times)
}

/// Copies, spoils and compares, below a directory. An error says what was not seen.
pub fn check_verification(place: &Path) -> io::Result<()> {
    let (source, copy) = (place.join("whole"), place.join("spoilt"));
    fs::create_dir_all(source.join("dir"))?;
    fs::write(source.join("dir/one"), "one")?;
    fs::write(source.join("name"), "name")?;
    fs::hard_link(source.join("name"), source.join("dir/other-name"))?;
    symlink("somewhere", source.join("link"))?;
    File::create(source.join("hole"))?.set_len(HOLE)?;
    for (aspect, tamper) in TAMPERINGS {
        let cp = Command::new("cp")
            .arg("-a")
            .args([&source, &copy])
            .status()?;
        let compare = || Differences::between(&source, &copy, Mode::Archive);
        let blameless = compare()?;
        tamper(&copy)?;
        if !cp.success() || !blameless.is_empty() || !compare()?.has(aspect) {
            let message = format!("verification does not see {aspect:?}; before: {blameless:?}");
            return Err(io::Error::other(message));
        }
        fs::remove_dir_all(&copy)?;
    }
    fs::remove_dir_all(&source)
}
