//! Paths as the bytes that they are: nothing is normalised, so what was typed is what messages show.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path as the directory that it is in (`.` if it does not say) and its last component, without the slashes after it. The
/// last component of `/` is empty. [`Path::file_name`] would skip a `.` at the end.
pub(crate) fn split(path: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = without_slashes(path.as_bytes());
    let base_at = bytes
        .iter()
        .rposition(|&b| b == b'/')
        .map_or(0, |at| at + 1);
    let (parent, base) = bytes.split_at(base_at);
    let parent = match (parent, base) {
        (b"", b"") => path.as_bytes(),
        (b"", _) => b".",
        _ => parent,
    };
    (OsStr::from_bytes(parent), OsStr::from_bytes(base))
}

/// `dir/name`, with one slash; unlike [`Path::join`] it keeps a name of `.`.
pub(crate) fn join(dir: &Path, name: &OsStr) -> PathBuf {
    let mut path = without_slashes(dir.as_os_str().as_bytes()).to_vec();
    if !name.as_bytes().starts_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    PathBuf::from(OsStr::from_bytes(&path))
}

/// A path without the slashes at its end, which would follow a symbolic link; `/` itself stays.
pub(crate) fn strip_slashes(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    match without_slashes(bytes) {
        b"" if !bytes.is_empty() => Path::new("/"),
        stripped => Path::new(OsStr::from_bytes(stripped)),
    }
}

fn without_slashes(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b != b'/');
    &bytes[..end.map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_has_no_slashes() {
        for (path, parent, base) in [
            ("a", ".", "a"),
            ("a/", ".", "a"),
            ("x/a//", "x/", "a"),
            ("x//a", "x//", "a"),
            ("/a", "/", "a"),
            ("x/.", "x/", "."),
            ("x/..", "x/", ".."),
            ("/", "/", ""),
            ("//", "//", ""),
        ] {
            assert_eq!(
                split(path.as_ref()),
                (parent.as_ref(), base.as_ref()),
                "{path}"
            );
        }
    }

    #[test]
    fn joining_makes_one_slash() {
        for (dir, name, joined) in [
            ("d", "a", "d/a"),
            ("d//", "a", "d/a"),
            ("/", "a", "/a"),
            ("d", "/a/b", "d/a/b"),
            ("d", ".", "d/."),
        ] {
            assert_eq!(join(Path::new(dir), name.as_ref()), Path::new(joined));
        }
    }

    #[test]
    fn slashes_at_the_end_go_but_not_the_root() {
        for (path, stripped) in [("a//", "a"), ("a", "a"), ("/", "/"), ("//", "/"), ("", "")] {
            assert_eq!(strip_slashes(Path::new(path)).as_os_str(), stripped);
        }
    }
}
