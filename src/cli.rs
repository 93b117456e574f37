//! The command line: what may be typed, and what it means as [`Options`] and operands.
//!
//! The shape is `cp`'s, with poolcp's own options in a group of their own. Two steps:
//! 1. clap parses into [`Args`], whose doc comments are the help.
//! 2. [`Command::from_env`] decides. Where options contradict each other the last one wins, as in `cp`, so those are
//!    gone through in the order in which they were typed.
//!
//! Only the binary has a command line; the library never sees clap.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use poolcp::{Follow, Options, Overwrite, Preserve, Reflink, Sparse, Target, Xattrs, quote};

/// The most workers that may be asked for: more than any device has use for, few enough for the system to start.
const MAX_THREADS: usize = 1024;

/// Copy files and directories with a pool of workers.
#[derive(Debug, Parser)]
#[command(
    name = "poolcp",
    version,
    override_usage = "poolcp [OPTION]... [-T] SOURCE DEST\n       \
                      poolcp [OPTION]... SOURCE... DIRECTORY\n       \
                      poolcp [OPTION]... -t DIRECTORY SOURCE...",
    args_override_self = true,
    infer_long_args = true,
    after_help = "SOURCE is copied to DEST or, if that is a directory or there are several, into it.",
    max_term_width = 100
)]
struct Args {
    /// What to copy, and where to
    #[arg(value_name = "SOURCE... DEST", hide = true)]
    operands: Vec<OsString>,

    /// Copy directories and what is below them
    #[arg(short, short_alias = 'R', long, help_heading = "What is copied")]
    recursive: bool,

    /// Same as -d -R --preserve=all
    #[arg(short, long, help_heading = "What is copied")]
    archive: bool,

    /// Follow all symbolic links in SOURCE
    #[arg(short = 'L', long, help_heading = "What is copied")]
    dereference: bool,

    /// Copy symbolic links as links [default with -r]
    #[arg(short = 'P', long, help_heading = "What is copied")]
    no_dereference: bool,

    /// Follow the symbolic links that are SOURCEs themselves
    #[arg(short = 'H', help_heading = "What is copied")]
    follow_operands: bool,

    /// Stay on the file system of each SOURCE
    #[arg(short = 'x', long, help_heading = "What is copied")]
    one_file_system: bool,

    /// Same as -P --preserve=links
    #[arg(short = 'd', help_heading = "What is kept")]
    links: bool,

    /// Same as --preserve=mode,ownership,timestamps
    #[arg(short = 'p', help_heading = "What is kept")]
    attributes: bool,

    /// Keep attributes: mode, ownership, timestamps (these three if no LIST is given), links, xattr, context, all
    #[arg(
        long,
        value_name = "LIST",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "mode,ownership,timestamps",
        action = ArgAction::Append,
        help_heading = "What is kept"
    )]
    preserve: Vec<String>,

    /// Do not keep these attributes
    #[arg(long, value_name = "LIST", action = ArgAction::Append, help_heading = "What is kept")]
    no_preserve: Vec<String>,

    /// Remove a destination file that cannot be opened, and try again
    #[arg(short, long, help_heading = "Where it goes")]
    force: bool,

    /// Do not overwrite existing files
    #[arg(short, long, help_heading = "Where it goes")]
    no_clobber: bool,

    /// Copy all SOURCEs into DIRECTORY
    #[arg(short, long, value_name = "DIRECTORY", help_heading = "Where it goes")]
    target_directory: Option<OsString>,

    /// Treat DEST as a name of its own, even if it is a directory
    #[arg(short = 'T', long, help_heading = "Where it goes")]
    no_target_directory: bool,

    /// Share data with the source: auto (where possible), always (or fail), never
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        help_heading = "How it is copied"
    )]
    reflink: Option<String>,

    /// Make holes: auto (where the source has them), always (for zeros too), never
    #[arg(long, value_name = "WHEN", help_heading = "How it is copied")]
    sparse: Option<String>,

    /// Number of workers, 1 to 1024, or auto
    #[arg(
        short = 'j',
        long,
        value_name = "N",
        default_value = "auto",
        help_heading = "How it is copied"
    )]
    threads: String,

    /// Say what is being done
    #[arg(short, long, help_heading = "What is shown")]
    verbose: bool,

    /// Show errors only
    #[arg(short, long, help_heading = "What is shown")]
    quiet: bool,

    /// The summary at the end: text (on standard error), json (on standard output), none
    #[arg(long, value_name = "FORMAT", help_heading = "What is shown")]
    report: Option<String>,
}

/// How the summary is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// For people, on standard error.
    Text,
    /// For programs, on standard output.
    Json,
    /// Not at all.
    None,
}

/// A command line, understood.
#[derive(Debug)]
pub struct Command {
    /// What is copied.
    pub sources: Vec<PathBuf>,
    /// Where to.
    pub target: Target,
    /// How.
    pub options: Options,
    /// Workers; 0 lets the program choose.
    pub threads: usize,
    /// Each entry is shown.
    pub verbose: bool,
    /// Nothing but errors is shown.
    pub quiet: bool,
    /// How the summary is shown.
    pub report: ReportFormat,
}

/// Why there is nothing to copy.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version was asked for: this text is the answer.
    Answer(String),
    /// The command line is wrong. The message is in `cp`'s words, without the program's name.
    Usage(String),
    /// It is understood, but asks for what cannot be.
    Impossible(String),
}

fn usage(message: impl Into<String>) -> Stop {
    Stop::Usage(message.into())
}

/// The name that the program was called by: `cp` if a link of that name was used.
pub fn program_name() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&first)
        .file_name()
        .unwrap_or(OsStr::new("poolcp"));
    name.to_string_lossy().into_owned()
}

impl Command {
    /// Understands the process's own command line.
    pub fn from_env(program: &str) -> Result<Self, Stop> {
        Self::parse(std::env::args_os(), program)
    }

    fn parse(line: impl IntoIterator<Item = OsString>, program: &str) -> Result<Self, Stop> {
        let matches = Args::command()
            .try_get_matches_from(line)
            .map_err(|error| explain(&error))?;
        let args = Args::from_arg_matches(&matches).map_err(|error| explain(&error))?;
        let options = options(&args, &matches)?;
        let threads = threads(&args.threads)?;
        let report = match &args.report {
            Some(format) => choose(
                "--report",
                format,
                &[
                    ("text", ReportFormat::Text),
                    ("json", ReportFormat::Json),
                    ("none", ReportFormat::None),
                ],
            )?,
            // A cp says nothing when all is well.
            None if args.quiet || program == "cp" => ReportFormat::None,
            None => ReportFormat::Text,
        };
        let (sources, target) = operands(
            args.operands,
            args.target_directory,
            args.no_target_directory,
        )?;
        Ok(Self {
            sources,
            target,
            options,
            threads,
            verbose: args.verbose,
            quiet: args.quiet || program == "cp",
            report,
        })
    }
}

/// Which operands are sources, and which is the target.
fn operands(
    operands: Vec<OsString>,
    directory: Option<OsString>,
    exactly: bool,
) -> Result<(Vec<PathBuf>, Target), Stop> {
    let mut operands: Vec<PathBuf> = operands.into_iter().map(PathBuf::from).collect();
    if operands.is_empty() {
        return Err(usage("missing file operand"));
    }
    if let Some(directory) = directory {
        if exactly {
            let message = "cannot combine --target-directory (-t) and --no-target-directory (-T)";
            return Err(Stop::Impossible(message.to_owned()));
        }
        return Ok((operands, Target::Directory(directory.into())));
    }
    if exactly && operands.len() > 2 {
        return Err(usage(format!("extra operand {}", quote(&operands[2]))));
    }
    match operands.pop() {
        Some(last) if operands.is_empty() => Err(usage(format!(
            "missing destination file operand after {}",
            quote(last)
        ))),
        Some(last) if exactly => Ok((operands, Target::Exactly(last))),
        Some(last) => Ok((operands, Target::Path(last))),
        None => Err(usage("missing file operand")),
    }
}

fn threads(text: &str) -> Result<usize, Stop> {
    if text == "auto" {
        return Ok(0);
    }
    match text.parse() {
        Ok(n) if n <= MAX_THREADS => Ok(n),
        _ => Err(usage(format!(
            "invalid number of threads: {} (0 to {MAX_THREADS}, or auto)",
            quote(text)
        ))),
    }
}

/// The options, the contradicting ones in the order in which they were typed.
fn options(args: &Args, matches: &ArgMatches) -> Result<Options, Stop> {
    let mut preserve = Preserve::default();
    let mut follow = None;
    for (id, value) in in_order(matches) {
        match id {
            "archive" => {
                preserve = Preserve::all();
                follow = Some(Follow::Never);
            }
            "links" => {
                preserve.links = true;
                follow = Some(Follow::Never);
            }
            "attributes" => set_attributes(&mut preserve, DEFAULT_ATTRIBUTES, true)?,
            "preserve" => set_attributes(&mut preserve, value, true)?,
            "no_preserve" => set_attributes(&mut preserve, value, false)?,
            "dereference" => follow = Some(Follow::Always),
            "no_dereference" => follow = Some(Follow::Never),
            "follow_operands" => follow = Some(Follow::Operands),
            _ => {}
        }
    }
    let mut options = Options::default();
    options.recursive = args.recursive || args.archive;
    options.copy_contents = !options.recursive;
    // Without -r a link is followed, so that `cp link file` copies what people see.
    options.follow = follow.unwrap_or(if options.recursive {
        Follow::Never
    } else {
        Follow::Always
    });
    options.preserve = preserve;
    options.one_file_system = args.one_file_system;
    options.force = args.force;
    if args.no_clobber {
        options.overwrite = Overwrite::Never;
    }
    if let Some(when) = &args.reflink {
        options.reflink = choose(
            "--reflink",
            when,
            &[
                ("auto", Reflink::Auto),
                ("always", Reflink::Always),
                ("never", Reflink::Never),
            ],
        )?;
    }
    if let Some(when) = &args.sparse {
        options.sparse = choose(
            "--sparse",
            when,
            &[
                ("never", Sparse::Never),
                ("auto", Sparse::Auto),
                ("always", Sparse::Always),
            ],
        )?;
    }
    if options.reflink == Reflink::Always && options.sparse != Sparse::Auto {
        return Err(usage("--reflink can be used only with --sparse=auto"));
    }
    Ok(options)
}

/// The options that may contradict each other, with their values, in the order in which they were typed.
fn in_order(matches: &ArgMatches) -> Vec<(&'static str, &str)> {
    const FLAGS: [&str; 6] = [
        "archive",
        "links",
        "attributes",
        "dereference",
        "no_dereference",
        "follow_operands",
    ];
    let mut typed = Vec::new();
    for id in FLAGS {
        if matches.get_flag(id)
            && let Some(index) = matches.index_of(id)
        {
            typed.push((index, id, ""));
        }
    }
    for id in ["preserve", "no_preserve"] {
        let values = matches.get_many::<String>(id).unwrap_or_default();
        let indices = matches.indices_of(id).unwrap_or_default();
        for (index, value) in indices.zip(values) {
            typed.push((index, id, value.as_str()));
        }
    }
    typed.sort_unstable_by_key(|&(index, ..)| index);
    typed
        .into_iter()
        .map(|(_, id, value)| (id, value))
        .collect()
}

const DEFAULT_ATTRIBUTES: &str = "mode,ownership,timestamps";

#[derive(Clone, Copy)]
enum Attribute {
    Mode,
    Timestamps,
    Ownership,
    Links,
    Context,
    Xattr,
    All,
}

/// Sets (or, if not `keep`, clears) the attributes in a comma-separated list.
fn set_attributes(preserve: &mut Preserve, list: &str, keep: bool) -> Result<(), Stop> {
    let option = if keep { "--preserve" } else { "--no-preserve" };
    for word in list.split(',') {
        let attribute = choose(
            option,
            word,
            &[
                ("mode", Attribute::Mode),
                ("timestamps", Attribute::Timestamps),
                ("ownership", Attribute::Ownership),
                ("links", Attribute::Links),
                ("context", Attribute::Context),
                ("xattr", Attribute::Xattr),
                ("all", Attribute::All),
            ],
        )?;
        match attribute {
            Attribute::Mode => {
                preserve.mode = keep;
                preserve.default_mode = !keep;
            }
            Attribute::Timestamps => preserve.timestamps = keep,
            Attribute::Ownership => preserve.ownership = keep,
            Attribute::Links => preserve.links = keep,
            // A security context is the extended attribute security.selinux, which xattr keeps.
            Attribute::Context => {}
            Attribute::Xattr => {
                preserve.xattrs = if keep { Xattrs::Required } else { Xattrs::No };
            }
            Attribute::All if keep => *preserve = Preserve::all(),
            Attribute::All => {
                *preserve = Preserve {
                    default_mode: true,
                    ..Preserve::default()
                };
            }
        }
    }
    Ok(())
}

/// The choice that `word` names, in full or by the beginning of one only; refused in `cp`'s words.
fn choose<T: Copy>(option: &str, word: &str, choices: &[(&str, T)]) -> Result<T, Stop> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*choice);
    }
    let mut found = choices.iter().filter(|(name, _)| name.starts_with(word));
    let problem = match (found.next(), found.next()) {
        (Some((_, choice)), None) => return Ok(*choice),
        (Some(_), Some(_)) => "ambiguous",
        (None, _) => "invalid",
    };
    let names: String = choices
        .iter()
        .map(|(name, _)| format!("\n  - \u{2018}{name}\u{2019}"))
        .collect();
    Err(usage(format!(
        "{problem} argument \u{2018}{word}\u{2019} for \u{2018}{option}\u{2019}\nValid arguments are:{names}"
    )))
}

/// clap's complaint in `cp`'s words, where `cp` has words.
fn explain(error: &clap::Error) -> Stop {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let option = context(ContextKind::InvalidArg);
    let message = match (error.kind(), option) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => {
            return Stop::Answer(error.render().to_string());
        }
        (ErrorKind::UnknownArgument, Some(option)) => match option.strip_prefix("--") {
            Some(_) => format!("unrecognized option {}", quote(option)),
            None => format!(
                "invalid option -- {}",
                quote(option.trim_start_matches('-'))
            ),
        },
        (ErrorKind::InvalidValue, Some(option))
            if context(ContextKind::InvalidValue).is_some_and(str::is_empty) =>
        {
            let option = option.split([' ', '=']).next().unwrap_or_default();
            format!("option {} requires an argument", quote(option))
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    };
    usage(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Stop> {
        let words = std::iter::once("poolcp").chain(line.split_whitespace());
        Command::parse(words.map(OsString::from), "poolcp")
    }

    fn parsed(line: &str) -> Command {
        parse(line).expect("a good command line")
    }

    fn complaint(line: &str) -> String {
        match parse(line) {
            Err(Stop::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn archive_keeps_everything_and_later_options_take_back() {
        let options = parsed("-a a b").options;
        assert!(options.recursive);
        assert_eq!(options.preserve, Preserve::all());
        assert_eq!(options.follow, Follow::Never);
        let options = parsed("-a --no-preserve=ownership,xattr -L a b").options;
        assert!(!options.preserve.ownership);
        assert_eq!(options.preserve.xattrs, Xattrs::No);
        assert_eq!(options.follow, Follow::Always);
        let options = parsed("--no-preserve=ownership -a a b").options;
        assert!(options.preserve.ownership, "the last one wins");
    }

    #[test]
    fn links_are_followed_unless_recursive() {
        assert_eq!(parsed("a b").options.follow, Follow::Always);
        assert_eq!(parsed("-r a b").options.follow, Follow::Never);
        assert_eq!(parsed("-R -H a b").options.follow, Follow::Operands);
        assert_eq!(parsed("-LP a b").options.follow, Follow::Never);
        assert_eq!(parsed("-PL a b").options.follow, Follow::Always);
    }

    #[test]
    fn values_may_be_abbreviated_and_preserve_may_have_none() {
        assert_eq!(parsed("--sparse=al a b").options.sparse, Sparse::Always);
        assert_eq!(parsed("--reflink a b").options.reflink, Reflink::Always);
        let preserve = parsed("--preserve a b").options.preserve;
        assert!(preserve.mode && preserve.ownership && preserve.timestamps && !preserve.links);
        assert!(parsed("--preserve=link a b").options.preserve.links);
        assert!(complaint("--sparse=a a b").starts_with("ambiguous argument \u{2018}a\u{2019}"));
    }

    #[test]
    fn the_target_is_the_last_operand_or_named() {
        assert_eq!(parsed("a b c").target, Target::Path("c".into()));
        assert_eq!(parsed("-t c a b").target, Target::Directory("c".into()));
        assert_eq!(parsed("-T a b").target, Target::Exactly("b".into()));
        assert_eq!(parsed("a -r b").sources, [PathBuf::from("a")]);
        assert_eq!(parsed("-- -a b").sources, [PathBuf::from("-a")]);
    }

    #[test]
    fn complaints_are_in_cps_words() {
        for (line, expected) in [
            ("", "missing file operand"),
            ("a", "missing destination file operand after 'a'"),
            ("-T a b c", "extra operand 'c'"),
            ("--bogus a b", "unrecognized option '--bogus'"),
            ("-Q a b", "invalid option -- 'Q'"),
            (
                "-j 1025 a b",
                "invalid number of threads: '1025' (0 to 1024, or auto)",
            ),
            (
                "--reflink=always --sparse=never a b",
                "--reflink can be used only with --sparse=auto",
            ),
        ] {
            assert_eq!(complaint(line), expected);
        }
    }

    #[test]
    fn threads_are_a_number_or_auto() {
        assert_eq!(parsed("a b").threads, 0);
        assert_eq!(parsed("-j auto a b").threads, 0);
        assert_eq!(parsed("-j10 a b").threads, 10);
        assert_eq!(parsed("--threads=1024 a b").threads, 1024);
    }
}
