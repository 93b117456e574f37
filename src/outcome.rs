//! What is said at the end: the report, where it goes (`--report-file`), and what to do now if not all is well.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;

use poolcp::{ErrorCount, Operation, Overwrite, Plan, Report, Target, quote};
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::cli::ReportFormat;

/// A command that is longer is not shown again: nobody would read it, and whoever has typed it has it.
const LONGEST_COMMAND: usize = 160;

/// Where the report goes.
#[derive(Debug)]
pub enum Place {
    /// Text to standard error, JSON to standard output.
    Streams,
    /// A file, which gets all of it in one step at the end; in place if it is no regular file, as a FIFO or a device.
    File(PathBuf),
    /// Standard output or another open file, by its path.
    Descriptor(PathBuf),
}

impl Place {
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
        if is_descriptor(&file) {
            access(&file, Access::WRITE_OK)?;
            return Ok(Self::Descriptor(file));
        }
        // A link stays what it is, even one to nothing.
        let file = fs::canonicalize(&file).unwrap_or_else(|_| end_of_links(file));
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
            (Self::Descriptor(file), _) => {
                let mut file = OpenOptions::new().append(true).open(file)?;
                file.write_all(text.as_bytes())
            }
            (Self::File(file), _) => {
                let mut file = OpenOptions::new().write(true).open(file)?;
                file.write_all(text.as_bytes())
            }
        }
    }
}

/// Whether a path means a file that is open in this process.
fn is_descriptor(file: &Path) -> bool {
    let is_number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
    let is_in = |dir| file.parent() == Some(Path::new(dir));
    ["/dev/stdout", "/dev/stderr"]
        .iter()
        .any(|name| file == Path::new(name))
        || (["/dev/fd", "/proc/self/fd"].into_iter().any(is_in)
            && file.file_name().is_some_and(is_number))
}

/// Whether a file gets its contents by another one that takes its name.
fn is_replaced(file: &Path) -> bool {
    fs::metadata(file).map_or(true, |there| there.is_file())
}

/// What a chain of links leads to, whether that is there or not.
fn end_of_links(mut file: PathBuf) -> PathBuf {
    // The kernel follows no more (path_resolution(7)); who writes to a loop is told.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        file = directory(&file).join(target);
    }
    file
}

fn directory(file: &Path) -> &Path {
    let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    // Not with the file's name in it, which may be as long as a name can be.
    let beside = directory(file).join(format!(".report-{}.tmp", process::id()));
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&beside)?;
    // Who may read it is as it was.
    let permissions = fs::metadata(file).map(|there| there.permissions());
    let written = permissions
        .map_or(Ok(()), |permissions| new.set_permissions(permissions))
        .and_then(|()| new.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // The first failure is what is told.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The report as it is asked for. `again` is the command that would go on.
pub fn text(report: &Report, format: ReportFormat, again: &Again) -> String {
    match format {
        ReportFormat::Text => {
            let next = advice(report, again);
            let next = next.map(|next| format!("{:<9} {next}\n", "next"));
            format!("{report}{}", next.unwrap_or_default())
        }
        ReportFormat::Json => format!("{}\n", report.to_json()),
        ReportFormat::None => String::new(),
    }
}

/// What was typed, so that it can be told what to type next.
#[derive(Debug)]
pub struct Again {
    /// The program as it was called, and the rest.
    words: Vec<OsString>,
    /// The copy has a name that nothing had before: typed again the same would copy into it.
    new_name: Option<PathBuf>,
}

impl Again {
    pub fn new(words: Vec<OsString>, target: Target, plan: &Plan) -> Self {
        let new_name = match (target, plan.roots()) {
            (Target::Path(name), [root]) if root.dest == name => Some(name),
            _ => None,
        };
        Self { words, new_name }
    }

    /// The command that copies what is missing, and nothing else: what was to be left alone still is, and no backup is made of a
    /// copy.
    fn command(&self, report: &Report) -> String {
        let overwrite = report.options.overwrite;
        let has_times = report.options.preserve.timestamps;
        // How it is known what is copied already.
        let known_by = match overwrite {
            Overwrite::Always if has_times => Some("--update=changed"),
            Overwrite::Always => Some("--checksum"),
            Overwrite::IfChanged if !has_times => Some("--checksum"),
            Overwrite::Refuse => Some("--update=none"),
            _ => None,
        };
        let is_dir = self.new_name.as_ref().is_some_and(|name| name.is_dir());
        let added: Vec<&str> = known_by.into_iter().chain(is_dir.then_some("-T")).collect();
        let added = added.join(" ");
        // Of options that contradict each other the last one counts.
        let chooses = overwrite != Overwrite::Always || self.words.iter().any(chooses);
        let is_contradicted = known_by.is_some() && chooses;
        match self.with(&added) {
            Some(command) if !is_contradicted => command,
            _ if added.is_empty() => "the same again".to_owned(),
            _ => format!("the same with {added} as the last options"),
        }
    }

    /// The words with some more options; `None` if that is no help to anybody.
    fn with(&self, added: &str) -> Option<String> {
        let is_input = |word: &OsString| word == "-" || word.as_bytes().ends_with(b"=-");
        let (program, words) = self.words.split_first()?;
        let mut command = typed(program);
        if !added.is_empty() {
            command = format!("{command} {added}");
        }
        for word in words {
            command = format!("{command} {}", typed(word));
        }
        (command.len() <= LONGEST_COMMAND && !words.iter().any(is_input)).then_some(command)
    }
}

/// Whether a word says what is done about files that are there.
fn chooses(word: &OsString) -> bool {
    let begins = [&b"--u"[..], b"--checksum", b"--size-only"];
    begins
        .iter()
        .any(|option| word.as_bytes().starts_with(option))
}

/// A word as somebody would type it in a shell.
fn typed(word: &OsStr) -> String {
    let is_plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-_=,.:/+@%".contains(&byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(is_plain) => text.to_owned(),
        _ => quote(word),
    }
}

/// What somebody who sees this report should do; `None` if there is nothing to do, or nothing but what the messages say.
fn advice(report: &Report, again: &Again) -> Option<String> {
    let command = || again.command(report);
    let has = |is: &dyn Fn(&ErrorCount) -> bool| report.error_counts.iter().any(is);
    let is_errno = |errnos: &[Errno]| {
        let numbers: Vec<i32> = errnos.iter().map(|errno| errno.raw_os_error()).collect();
        has(&|kind| kind.errno.is_some_and(|errno| numbers.contains(&errno)))
    };
    let is_root = rustix::process::geteuid().is_root();
    if report.options.dry_run {
        None
    } else if report.cancelled {
        Some(format!("to go on: {}", command()))
    } else if is_errno(&[Errno::NOSPC, Errno::DQUOT]) {
        Some(format!("make room, then go on: {}", command()))
    } else if is_errno(&[Errno::ROFS]) {
        None
    } else if is_errno(&[Errno::ACCESS, Errno::PERM]) && !is_root {
        Some(format!("as a user who may: {}", command()))
    } else if has(&|kind| kind.operation == Operation::Changed) {
        Some(format!("when nobody writes to the sources: {}", command()))
    } else if has(&|kind| kind.errno.is_some()) {
        Some(format!("when that is mended: {}", command()))
    } else {
        None
    }
}
