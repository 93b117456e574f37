//! The command line: what may be typed, and what it means as [`Options`] and operands.
//!
//! The shape is `cp`'s, with poolcp's own options in groups of their own. Three steps:
//! 1. `getopt.rs` reads the words by GNU's rules.
//! 2. clap parses into [`Args`], whose doc comments are the help.
//! 3. [`Command::from_env`] decides. Where options contradict each other the last one wins, as in `cp`, so those are
//!    gone through in the order in which they were typed.
//!
//! Only the binary has a command line; the library never sees clap.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use poolcp::{
    Backup, Effort, Follow, Make, Options, Overwrite, Preserve, Reflink, Sparse, Target, quote,
    quote_argument,
};

use crate::getopt;

/// The most workers that may be asked for: more than any device has use for, few enough for the system to start.
const MAX_THREADS: usize = 1024;

/// `cp`'s long options, which may be abbreviated, in the order in which `cp` lists them when it is in doubt.
const CP_NAMES: [&str; 30] = [
    "archive",
    "attributes-only",
    "backup",
    "copy-contents",
    "debug",
    "dereference",
    "force",
    "interactive",
    "link",
    "no-clobber",
    "no-dereference",
    "no-preserve",
    "no-target-directory",
    "one-file-system",
    "parents",
    "preserve",
    "recursive",
    "remove-destination",
    "sparse",
    "reflink",
    "strip-trailing-slashes",
    "suffix",
    "symbolic-link",
    "target-directory",
    "update",
    "verbose",
    "keep-directory-symlink",
    "context",
    "help",
    "version",
];

/// Copy files and directories with a pool of workers.
#[derive(Debug, Parser)]
#[command(
    name = "poolcp",
    version,
    override_usage = "poolcp [OPTION]... [-T] SOURCE DEST\n       \
                      poolcp [OPTION]... SOURCE... DIRECTORY\n       \
                      poolcp [OPTION]... -t DIRECTORY SOURCE...",
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = "SOURCE is copied to DEST or, if that is a directory or there are several, into it. \
                  The options are those of GNU cp, and --threads, --quiet and --report.",
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

    /// Copy attributes and no data
    #[arg(long, help_heading = "What is copied")]
    attributes_only: bool,

    /// With -r, read FIFOs and devices as if they were files
    #[arg(long, help_heading = "What is copied")]
    copy_contents: bool,

    /// Remove slashes at the end of each SOURCE
    #[arg(long, help_heading = "What is copied")]
    strip_trailing_slashes: bool,

    /// Make hard links instead of copies
    #[arg(short, long, help_heading = "What is copied")]
    link: bool,

    /// Make symbolic links instead of copies
    #[arg(short, long, help_heading = "What is copied")]
    symbolic_link: bool,

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

    /// Set the security context to the default type
    #[arg(short = 'Z', help_heading = "What is kept")]
    default_context: bool,

    /// Set the security context to CONTEXT (SELinux), or like -Z
    #[arg(
        long,
        value_name = "CONTEXT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        action = ArgAction::Append,
        help_heading = "What is kept"
    )]
    context: Vec<OsString>,

    /// Copy all SOURCEs into DIRECTORY
    #[arg(
        short,
        long,
        value_name = "DIRECTORY",
        action = ArgAction::Append,
        help_heading = "Where it goes"
    )]
    target_directory: Vec<OsString>,

    /// Treat DEST as a name of its own, even if it is a directory
    #[arg(short = 'T', long, help_heading = "Where it goes")]
    no_target_directory: bool,

    /// Make the leading directories of each SOURCE in the target directory
    #[arg(long, alias = "path", help_heading = "Where it goes")]
    parents: bool,

    /// Go into existing symbolic links to directories
    #[arg(long, help_heading = "Where it goes")]
    keep_directory_symlink: bool,

    /// Remove a destination file that cannot be opened, and try again
    #[arg(short, long, help_heading = "What is there already")]
    force: bool,

    /// Ask before each file that would be replaced
    #[arg(short, long, help_heading = "What is there already")]
    interactive: bool,

    /// Leave existing files alone
    #[arg(short, long, help_heading = "What is there already")]
    no_clobber: bool,

    /// Remove each existing destination file first
    #[arg(long, help_heading = "What is there already")]
    remove_destination: bool,

    /// Same as --update=older
    #[arg(short = 'u', help_heading = "What is there already")]
    update_older: bool,

    /// Replace: all, older (also if no WHICH is given), none, none-fail (which is an error)
    #[arg(
        long,
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "older",
        action = ArgAction::Append,
        help_heading = "What is there already"
    )]
    update: Vec<String>,

    /// Same as --backup
    #[arg(short = 'b', help_heading = "What is there already")]
    make_backups: bool,

    /// Keep what is replaced: numbered (t), simple (never), existing (nil: numbered if there are such), none (off)
    #[arg(
        long,
        value_name = "CONTROL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        action = ArgAction::Append,
        help_heading = "What is there already"
    )]
    backup: Vec<String>,

    /// What a simple backup's name ends in [default: ~]
    #[arg(
        short = 'S',
        long,
        value_name = "SUFFIX",
        help_heading = "What is there already"
    )]
    suffix: Option<OsString>,

    /// Share data with the source: auto (where possible), always (or fail), never
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        action = ArgAction::Append,
        help_heading = "How it is copied"
    )]
    reflink: Vec<String>,

    /// Make holes: auto (where the source has them), always (for zeros too), never
    #[arg(long, value_name = "WHEN", action = ArgAction::Append, help_heading = "How it is copied")]
    sparse: Vec<String>,

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

    /// Say how each file is copied; implies -v
    #[arg(long, help_heading = "What is shown")]
    debug: bool,

    /// Show errors only
    #[arg(short, long, help_heading = "What is shown")]
    quiet: bool,

    /// The summary at the end: text (on standard error), json (on standard output), none
    #[arg(long, value_name = "FORMAT", help_heading = "What is shown")]
    report: Option<String>,

    /// Show this help
    #[arg(long, action = ArgAction::Help, help_heading = "What is shown")]
    help: Option<bool>,

    /// Show the version
    #[arg(long, action = ArgAction::Version, help_heading = "What is shown")]
    version: Option<bool>,
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

/// How much is said about each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Nothing.
    None,
    /// What is made (`-v`).
    Entries,
    /// And how, and what is not (`--debug`).
    Ways,
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
    /// How much is said about each entry.
    pub verbosity: Verbosity,
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

fn impossible(message: impl Into<String>) -> Stop {
    Stop::Impossible(message.into())
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
    /// Understands the process's own command line. `warn` is told what was asked for and cannot be, but does no harm.
    pub fn from_env(program: &str, warn: impl FnMut(&str)) -> Result<Self, Stop> {
        let words = env::args_os().skip(1);
        Self::parse(words, program, &Environment::of_the_process(), warn)
    }

    fn parse(
        words: impl IntoIterator<Item = OsString>,
        program: &str,
        environment: &Environment,
        mut warn: impl FnMut(&str),
    ) -> Result<Self, Stop> {
        let definition = Args::command();
        let posix = environment.posixly_correct;
        let words = getopt::canonical(words, &definition, &CP_NAMES, posix).map_err(usage)?;
        let line = std::iter::once(OsString::from("poolcp")).chain(words);
        let matches = definition.try_get_matches_from(line).map_err(explain)?;
        let args = Args::from_arg_matches(&matches).map_err(explain)?;
        let typed = in_order(&matches);
        if args.target_directory.len() > 1 {
            return Err(impossible("multiple target directories specified"));
        }
        let ignored = args.context.iter().filter(|context| !context.is_empty());
        for _ in ignored.filter(|_| !has_selinux()) {
            warn("ignoring --context; it requires an SELinux-enabled kernel");
        }
        let options = options(&args, &typed, environment)?;
        check_context(&args, &typed)?;
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
        let verbosity = match (args.verbose, args.debug) {
            (_, true) => Verbosity::Ways,
            (true, false) => Verbosity::Entries,
            (false, false) => Verbosity::None,
        };
        let quiet = args.quiet || program == "cp";
        let (sources, target) = operands(args)?;
        Ok(Self {
            sources,
            target,
            options,
            threads,
            verbosity,
            quiet,
            report,
        })
    }
}

/// What the environment says about a copy.
#[derive(Debug, Default)]
struct Environment {
    posixly_correct: bool,
    /// `VERSION_CONTROL`: the kind of backup.
    version_control: Option<String>,
    /// `SIMPLE_BACKUP_SUFFIX`.
    suffix: Option<OsString>,
}

impl Environment {
    fn of_the_process() -> Self {
        let control = env::var_os("VERSION_CONTROL");
        Self {
            posixly_correct: env::var_os("POSIXLY_CORRECT").is_some(),
            version_control: control.map(|control| control.to_string_lossy().into_owned()),
            suffix: env::var_os("SIMPLE_BACKUP_SUFFIX"),
        }
    }
}

/// Which operands are sources, and which is the target.
fn operands(args: Args) -> Result<(Vec<PathBuf>, Target), Stop> {
    let mut operands: Vec<PathBuf> = args.operands.into_iter().map(PathBuf::from).collect();
    let directory = args.target_directory.into_iter().next();
    if operands.is_empty() {
        return Err(usage("missing file operand"));
    }
    let exactly = args.no_target_directory;
    let target = if let Some(directory) = directory {
        if exactly {
            return Err(impossible(
                "cannot combine --target-directory (-t) and --no-target-directory (-T)",
            ));
        }
        Target::Directory(directory.into())
    } else {
        if exactly && operands.len() > 2 {
            return Err(usage(format!("extra operand {}", quote(&operands[2]))));
        }
        match operands.pop() {
            Some(last) if !operands.is_empty() && exactly => Target::Exactly(last),
            Some(last) if !operands.is_empty() => Target::Path(last),
            last => {
                let only = quote(last.unwrap_or_default());
                return Err(usage(format!(
                    "missing destination file operand after {only}"
                )));
            }
        }
    };
    Ok((operands, target))
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
fn options(args: &Args, typed: &[Typed], environment: &Environment) -> Result<Options, Stop> {
    let mut preserve = Preserve::default();
    let mut follow = None;
    let mut update = Overwrite::Always;
    // -i and -n take each other back, and nothing else.
    let mut asks = None;
    let mut options = Options::default();
    for (id, value) in typed {
        match *id {
            "archive" => {
                preserve = Preserve {
                    default_mode: preserve.default_mode,
                    ..Preserve::all()
                };
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
            "interactive" => asks = Some(true),
            "no_clobber" => asks = Some(false),
            "update_older" => update = Overwrite::IfOlder,
            "update" => update = updated(value)?,
            "reflink" => options.reflink = reflinked(value)?,
            "sparse" => options.sparse = made_sparse(value)?,
            _ => {}
        }
    }
    if args.link && args.symbolic_link {
        return Err(usage("cannot make both hard and symbolic links"));
    }
    options.make = match (args.link, args.symbolic_link) {
        (true, _) => Make::HardLinks,
        (_, true) => Make::Symlinks,
        _ => Make::Copies,
    };
    options.recursive = args.recursive || args.archive;
    options.copy_contents = !options.recursive || args.copy_contents;
    // Without -r a link is followed, so that `cp link file` copies what people see.
    options.follow = follow.unwrap_or(if options.recursive && !args.link {
        Follow::Never
    } else {
        Follow::Always
    });
    options.preserve = preserve;
    options.one_file_system = args.one_file_system;
    options.attributes_only = args.attributes_only;
    options.force = args.force;
    options.remove_destination = args.remove_destination;
    options.parents = args.parents;
    options.strip_trailing_slashes = args.strip_trailing_slashes;
    options.keep_directory_symlink = args.keep_directory_symlink;
    options.write_through_dangling = environment.posixly_correct;
    options.overwrite = if asks == Some(false) {
        Overwrite::Never
    } else {
        update
    };
    let keeps_all = matches!(options.overwrite, Overwrite::Never | Overwrite::Refuse);
    options.ask = asks == Some(true) && !keeps_all;
    if args.make_backups || !args.backup.is_empty() || args.suffix.is_some() {
        if keeps_all {
            return Err(usage(
                "--backup is mutually exclusive with -n or --update=none-fail",
            ));
        }
        options.backup = backup(&args.backup, environment)?;
        options.suffix = suffix(args.suffix.as_ref(), environment);
    }
    if options.reflink == Reflink::Always && options.sparse != Sparse::Auto {
        return Err(usage("--reflink can be used only with --sparse=auto"));
    }
    Ok(options)
}

fn updated(which: &str) -> Result<Overwrite, Stop> {
    choose(
        "--update",
        which,
        &[
            ("all", Overwrite::Always),
            ("none", Overwrite::Never),
            ("none-fail", Overwrite::Refuse),
            ("older", Overwrite::IfOlder),
        ],
    )
}

fn reflinked(when: &str) -> Result<Reflink, Stop> {
    choose(
        "--reflink",
        when,
        &[
            ("auto", Reflink::Auto),
            ("always", Reflink::Always),
            ("never", Reflink::Never),
        ],
    )
}

fn made_sparse(when: &str) -> Result<Sparse, Stop> {
    choose(
        "--sparse",
        when,
        &[
            ("never", Sparse::Never),
            ("auto", Sparse::Auto),
            ("always", Sparse::Always),
        ],
    )
}

/// The kind of backup: as the last option says that says one or, if none does, the environment.
fn backup(typed: &[String], environment: &Environment) -> Result<Backup, Stop> {
    let given = |text: &&str| !text.is_empty();
    let typed = typed.iter().map(String::as_str).rfind(given);
    let (context, control) = match (typed, environment.version_control.as_deref().filter(given)) {
        (Some(control), _) => ("backup type", control),
        (None, Some(control)) => ("$VERSION_CONTROL", control),
        (None, None) => return Ok(Backup::Existing),
    };
    choose(
        context,
        control,
        &[
            ("none", Backup::No),
            ("off", Backup::No),
            ("simple", Backup::Simple),
            ("never", Backup::Simple),
            ("existing", Backup::Existing),
            ("nil", Backup::Existing),
            ("numbered", Backup::Numbered),
            ("t", Backup::Numbered),
        ],
    )
}

/// What a simple backup's name ends in. One that would lead to another directory, or to no other name, is not taken.
fn suffix(typed: Option<&OsString>, environment: &Environment) -> OsString {
    let is_sane =
        |suffix: &&OsString| !suffix.is_empty() && !suffix.as_encoded_bytes().contains(&b'/');
    let suffix = typed.or(environment.suffix.as_ref());
    suffix
        .filter(is_sane)
        .cloned()
        .unwrap_or_else(|| "~".into())
}

/// Whether the kernel has SELinux in use.
fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// What can be said about security contexts without SELinux, and with it.
fn check_context(args: &Args, typed: &[Typed]) -> Result<(), Stop> {
    let is_enabled = has_selinux();
    let names_context = |list: &str| list.split(',').any(|word| word == "context");
    if is_enabled && (args.default_context || !args.context.is_empty()) {
        return Err(impossible(
            "setting a security context (-Z, --context) is not supported",
        ));
    }
    let required = typed
        .iter()
        .any(|(id, list)| *id == "preserve" && names_context(list));
    if required && !is_enabled {
        return Err(impossible(
            "cannot preserve security context without an SELinux-enabled kernel",
        ));
    }
    Ok(())
}

/// An option's name in [`Args`], and its value.
type Typed<'a> = (&'static str, &'a str);

/// The options that may contradict each other, with their values, in the order in which they were typed.
fn in_order(matches: &ArgMatches) -> Vec<Typed<'_>> {
    const FLAGS: [&str; 9] = [
        "archive",
        "links",
        "attributes",
        "dereference",
        "no_dereference",
        "follow_operands",
        "interactive",
        "no_clobber",
        "update_older",
    ];
    let mut typed = Vec::new();
    for id in FLAGS {
        if matches.get_flag(id)
            && let Some(index) = matches.index_of(id)
        {
            typed.push((index, id, ""));
        }
    }
    for id in ["preserve", "no_preserve", "update", "reflink", "sparse"] {
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

#[derive(Clone, Copy, PartialEq)]
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
    let (option, effort) = if keep {
        ("--preserve", Effort::Required)
    } else {
        ("--no-preserve", Effort::No)
    };
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
            Attribute::Context => preserve.context = effort,
            Attribute::Xattr => preserve.xattrs = effort,
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

/// The choice that `word` names, in full or by a beginning that only its names have; refused in `cp`'s words.
fn choose<T: Copy + PartialEq>(option: &str, word: &str, choices: &[(&str, T)]) -> Result<T, Stop> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*choice);
    }
    let mut found = choices.iter().filter(|(name, _)| name.starts_with(word));
    let problem = match found.next() {
        Some((_, choice)) if found.all(|(_, other)| other == choice) => return Ok(*choice),
        Some(_) => "ambiguous",
        None => "invalid",
    };
    let mut message = format!(
        "{problem} argument {} for {}\nValid arguments are:",
        quote_argument(word),
        quote_argument(option)
    );
    let mut last = None;
    for (name, choice) in choices {
        // Names of one choice share a line.
        message += if last == Some(choice) { ", " } else { "\n  - " };
        message += &quote_argument(name);
        last = Some(choice);
    }
    Err(usage(message))
}

/// clap's answer, or its complaint about what `getopt.rs` let through.
fn explain(error: clap::Error) -> Stop {
    let text = error.render().to_string();
    if error.use_stderr() {
        let line = text.lines().next().unwrap_or_default();
        return usage(line.trim_start_matches("error: "));
    }
    Stop::Answer(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_in(environment: &Environment, line: &str) -> Result<Command, Stop> {
        let words = line.split_whitespace().map(OsString::from);
        Command::parse(words, "poolcp", environment, |_| ())
    }

    fn parse(line: &str) -> Result<Command, Stop> {
        parse_in(&Environment::default(), line)
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
        assert_eq!(options.preserve.xattrs, Effort::No);
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
        assert!(complaint("--sparse=a a b").starts_with("ambiguous argument "));
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
