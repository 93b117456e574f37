//! Where the report goes (`--report-file`).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{Access, Mode, OFlags, access};
use rustix::io::Errno;

use crate::cli::ReportFormat;
use crate::streams;

/// Where the report goes.
#[derive(Debug)]
pub enum ReportPlace {
    /// Text to standard error, JSON to standard output.
    Streams,
    /// A file, which gets all of it in one step at the end; in place if it is no regular file, as a FIFO or a device.
    File(PathBuf),
    /// Standard output or another open file, by its path.
    Descriptor(PathBuf),
}

impl ReportPlace {
    /// Finds out at the beginning what would be in the way at the end.
    ///
    /// # Errors
    ///
    /// The file could not be written.
    pub fn new(file: Option<PathBuf>) -> io::Result<Self> {
        let Some(file) = file else {
            return Ok(Self::Streams);
        };
        // What is a descriptor of this process is written to as it is, whatever is behind it.
        if streams::descriptor(&file).is_some() {
            if streams::standard(&file).is_none() {
                access(&file, Access::WRITE_OK)?;
            }
            return Ok(Self::Descriptor(file));
        }
        // A link stays what it is, even one to nothing.
        let file = match where_it_leads(&file) {
            Err(Errno::NOENT) => end_of_links(file)?,
            led => led?,
        };
        if file.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        let writable = if is_replaced(&file) {
            // The dot makes sure that it is one.
            directory(&file).join(".")
        } else {
            file.clone()
        };
        access(writable, Access::WRITE_OK)?;
        Ok(Self::File(file))
    }

    /// Whether a report in this format goes to standard output.
    pub fn is_stdout(&self, format: ReportFormat) -> bool {
        matches!((self, format), (Self::Streams, ReportFormat::Json))
    }

    /// Whether a report in this format goes to standard error.
    pub fn is_stderr(&self, format: ReportFormat) -> bool {
        matches!((self, format), (Self::Streams, ReportFormat::Text))
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// It could not be written. A file that was there is as it was.
    pub fn write(&self, text: &str, format: ReportFormat) -> io::Result<()> {
        match (self, format) {
            (_, ReportFormat::None) => Ok(()),
            (Self::Streams, ReportFormat::Text) => io::stderr().write_all(text.as_bytes()),
            (Self::Streams, ReportFormat::Json) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            (Self::File(file), _) if is_replaced(file) => replace(file, text),
            (Self::Descriptor(path), _) => {
                let mut stream = match streams::standard(path) {
                    Some(stream) => stream,
                    None => Box::new(OpenOptions::new().append(true).open(path)?),
                };
                stream.write_all(text.as_bytes())?;
                stream.flush()
            }
            (Self::File(file), _) => {
                let mut file = OpenOptions::new().write(true).open(file)?;
                file.write_all(text.as_bytes())
            }
        }
    }
}

/// Whether a file gets its contents by another one that takes its name.
fn is_replaced(file: &Path) -> bool {
    fs::metadata(file).map_or(true, |there| there.is_file())
}

/// The path without links of something that is there. The kernel follows them, and may not follow other users' in a directory that
/// all may write to (proc_sys_fs(5), "protected_symlinks").
fn where_it_leads(file: &Path) -> rustix::io::Result<PathBuf> {
    let opened = rustix::fs::open(file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let led = fs::read_link(link).or_else(|_| fs::canonicalize(file));
    Ok(led.unwrap_or_else(|_| file.to_owned()))
}

/// What a chain of links leads to that leads to nothing. Nobody's links are followed but the user's own and those of the directory's
/// owner.
fn end_of_links(mut file: PathBuf) -> rustix::io::Result<PathBuf> {
    // The kernel follows no more (path_resolution(7)); who writes to a loop is told.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        let owner = |looked: io::Result<fs::Metadata>| looked.map(|there| there.uid()).ok();
        let of_link = owner(fs::symlink_metadata(&file));
        let is_trusted = of_link == Some(rustix::process::geteuid().as_raw())
            || of_link == owner(fs::metadata(directory(&file)));
        if !is_trusted {
            return Err(Errno::ACCESS);
        }
        file = directory(&file).join(target);
    }
    Ok(file)
}

fn directory(file: &Path) -> &Path {
    let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Makes a file that is going to take another one's name.
fn make_beside(file: &Path) -> io::Result<(File, PathBuf)> {
    let mut attempt = 0;
    loop {
        // Not with the file's name in it, which may be as long as a name can be. In containers many processes have one number.
        let name = format!(".report-{}-{attempt}.tmp", process::id());
        let beside = directory(file).join(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)
        {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 1000 => {
                attempt += 1
            }
            made => return Ok((made?, beside)),
        }
    }
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let (mut new, beside) = make_beside(file)?;
    // Who may read it is as it was, unless somebody else has said so.
    let user = rustix::process::geteuid().as_raw();
    let mode = fs::symlink_metadata(file).ok().map(|there| {
        let is_own = there.uid() == user;
        if is_own { there.mode() & 0o666 } else { 0o600 }
    });
    let written = mode
        .map_or(Ok(()), |mode| {
            new.set_permissions(Permissions::from_mode(mode))
        })
        .and_then(|()| new.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // The first failure is what is told.
        let _ = fs::remove_file(&beside);
    }
    written
}
