//! The log (`--log FILE`): one line for each entry, in the order in which they were done.
//!
//! ```text
//! copied 'photos/cat.jpg' -> 'backup/cat.jpg'
//! error: cannot open 'photos/dog.jpg' for reading: Permission denied
//! ```
//!
//! Names are quoted as `-v` quotes them, so that a line is a line whatever a name contains. Lines are added to what the file
//! has already: a copy that goes on after an interruption keeps what the first one has told.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use poolcp::{Done, What, quote};

use crate::lock::lock;
use crate::streams;

/// So much is written at once: some thousand lines.
const BUFFER: usize = 128 << 10;

/// The log of one copy. All workers write to it.
pub struct Journal(Mutex<Pages>);

struct Pages {
    file: Box<dyn Write + Send>,
    lines: Vec<u8>,
    /// The first failure. Nothing is written after it: what has a hole is no log.
    failed: Option<io::Error>,
}

impl Journal {
    /// # Errors
    ///
    /// The file cannot be made, or opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = || OpenOptions::new().append(true).create(true).open(path);
        let file = match streams::standard(path) {
            Some(stream) => stream,
            None => Box::new(open()?),
        };
        Ok(Self(Mutex::new(Pages {
            file,
            lines: Vec::with_capacity(BUFFER),
            failed: None,
        })))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        lock(&self.0)
    }

    /// An entry was done.
    pub fn done(&self, done: &Done) {
        let what = match done.what {
            What::File => "copied",
            What::Directory => "directory",
            What::Symlink => "symlink",
            What::HardLink => "hard link",
            What::Special => "special file",
            What::Dressed => "attributes",
            What::Skipped => "skipped",
            What::Deleted => return self.add(&format!("deleted {}\n", quote(&done.dest))),
            // Whatever the library may do one day that this program does not know.
            _ => "done",
        };
        self.add(&format!(
            "{what} {} -> {}\n",
            quote(&done.source),
            quote(&done.dest)
        ));
    }

    /// An entry could not be copied, or not completely, or something is worth a warning.
    pub fn complain(&self, kind: &str, message: &dyn Display) {
        self.add(&format!("{kind}: {message}\n"));
    }

    fn add(&self, line: &str) {
        let mut pages = self.pages();
        if pages.lines.len() + line.len() > BUFFER {
            pages.write();
        }
        pages.lines.extend_from_slice(line.as_bytes());
    }

    /// Writes what there is, for those who follow the file.
    pub fn flush(&self) {
        self.pages().write();
    }

    /// Writes the rest, and says whether everything could be written.
    ///
    /// # Errors
    ///
    /// The first one of all.
    pub fn end(&self) -> io::Result<()> {
        let mut pages = self.pages();
        pages.write();
        pages.failed.take().map_or(Ok(()), Err)
    }
}

impl Pages {
    fn write(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self
                .file
                .write_all(&self.lines)
                .and_then(|()| self.file.flush())
        {
            self.failed = Some(error);
        }
        self.lines.clear();
    }
}
