//! What is said at the end: the report, and what to do now if not all is well.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use poolcp::{
    Backup, ErrorCount, Make, Operation, Options, Overwrite, Plan, Report, Target, quote,
};
use rustix::io::Errno;

use crate::cli::ReportFormat;

/// A command that is longer is not shown again: nobody would read it, and whoever has typed it has it.
const LONGEST_COMMAND: usize = 160;

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
    /// What the operands' copies are called.
    dests: Vec<PathBuf>,
}

impl Again {
    pub fn new(words: Vec<OsString>, target: Target, plan: &Plan) -> Self {
        let new_name = match (target, plan.roots()) {
            // To the letter: `new/.` is in `new`.
            (Target::Path(name), [root]) if root.dest.as_os_str() == name.as_os_str() => Some(name),
            _ => None,
        };
        let dests = plan.roots().iter().map(|root| root.dest.clone());
        Self {
            words,
            new_name,
            dests: dests.collect(),
        }
    }

    /// How it is known what is copied already, as an option that is not among those that were typed.
    fn known_by(&self, report: &Report) -> Option<&'static str> {
        let options = &report.options;
        let has_times = options.preserve.timestamps;
        let replaces = options.force || options.remove_destination;
        match options.overwrite {
            Overwrite::Refuse => Some("--update=none"),
            // A link is there or not.
            Overwrite::Always if options.make != Make::Copies => {
                (!replaces || options.backup != Backup::No).then_some("--update=none")
            }
            // A device or a FIFO would be replaced, and an attribute would not be missed.
            _ if self.is_special() || has(report, |kind| kind.operation == Operation::Xattr) => {
                None
            }
            Overwrite::Always if has_times => Some("--update=changed"),
            Overwrite::Always => Some("--checksum"),
            Overwrite::IfChanged if !has_times => Some("--checksum"),
            _ => None,
        }
    }

    /// Whether an operand was copied to what is neither a file nor a directory.
    fn is_special(&self) -> bool {
        let is_special = |there: fs::Metadata| !there.is_file() && !there.is_dir();
        let mut looked = self.dests.iter().map(fs::metadata);
        looked.any(|there| there.is_ok_and(is_special))
    }

    /// The command that copies what is missing, and nothing else: what was to be left alone still is, and no backup is made of a
    /// copy.
    fn command(&self, report: &Report) -> String {
        let overwrite = report.options.overwrite;
        let known_by = self.known_by(report);
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
    let is_errno = |errnos: &[Errno]| {
        let numbers: Vec<i32> = errnos.iter().map(|errno| errno.raw_os_error()).collect();
        has(report, |kind| {
            kind.errno.is_some_and(|errno| numbers.contains(&errno))
        })
    };
    let is_root = rustix::process::geteuid().is_root();
    if report.options.dry_run {
        None
    } else if report.cancelled {
        Some(format!("to go on: {}", command()))
    } else if has(report, |kind| is_passed_over(kind, &report.options)) {
        None
    } else if is_errno(&[Errno::NOSPC, Errno::DQUOT]) {
        Some(format!("make room, then go on: {}", command()))
    } else if is_errno(&[Errno::ROFS]) {
        None
    } else if is_errno(&[Errno::ACCESS, Errno::PERM]) && !is_root {
        Some(format!("as a user who may: {}", command()))
    } else if has(report, |kind| kind.operation == Operation::Changed) {
        Some(format!("when nobody writes to the sources: {}", command()))
    } else if has(report, |kind| kind.errno.is_some()) {
        Some(format!("when that is mended: {}", command()))
    } else {
        None
    }
}

fn has(report: &Report, is: impl Fn(&ErrorCount) -> bool) -> bool {
    report.error_counts.iter().any(is)
}

/// Whether this error has left a copy that no copy with the same options would touch again: it would seem to be complete.
fn is_passed_over(kind: &ErrorCount, options: &Options) -> bool {
    let is_changed = kind.operation == Operation::Changed;
    let is_xattr = kind.operation == Operation::Xattr;
    let is_attribute = is_xattr
        || matches!(
            kind.operation,
            Operation::Ownership | Operation::Permissions | Operation::Times
        );
    match options.overwrite {
        Overwrite::Never | Overwrite::Refuse => is_attribute || is_changed,
        Overwrite::IfOlder => is_attribute || (is_changed && !options.preserve.timestamps),
        Overwrite::IfSizeDiffers => is_xattr || is_changed,
        Overwrite::IfChanged | Overwrite::IfContentDiffers => is_xattr,
        _ => false,
    }
}
