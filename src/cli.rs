//! What a command line means, as [`Options`] and operands.
//!
//! 1. `getopt.rs` reads the words by GNU's rules.
//! 2. clap parses into [`Args`] (`args.rs`).
//! 3. [`Command::from_env`] decides, and `words.rs` what a word behind an option means. Options are gone through in the order in which they were typed: where some contradict
//!    each other the last one wins, and the first one that is wrong is complained of, as in `cp`.
//!
//! Only the binary has a command line; the library never sees clap.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches};
use poolcp::{
    Atomic, Delete, Effort, Follow, Make, Options, Overwrite, Preserve, Reflink, Sparse, Target,
    quote,
};

use crate::args::{Args, CP_NAMES, Typed, in_order};
use crate::generate;
use crate::getopt::{self, End};
use crate::progress::When;
use crate::selection::Selection;
use crate::words::{self, choose};

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
    /// Everything else goes first.
    pub background: bool,
    /// How much is said about each entry.
    pub verbosity: Verbosity,
    /// How the summary is shown.
    pub report: ReportFormat,
    /// Where it goes instead.
    pub report_file: Option<PathBuf>,
    /// Where a line for each entry goes.
    pub log: Option<PathBuf>,
    /// When there is a live view.
    pub progress: When,
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

pub fn usage(message: impl Into<String>) -> Stop {
    Stop::Usage(message.into())
}

pub fn impossible(message: impl Into<String>) -> Stop {
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
        warn: impl FnMut(&str),
    ) -> Result<Self, Stop> {
        // Leaked, as is what was found: to take them apart would be a twentieth of the time that a small file takes.
        let definition = Box::leak(Box::new(Args::command()));
        let posix = environment.posixly_correct;
        let line = getopt::canonical(words, definition, &CP_NAMES, posix);
        let words = std::iter::once(OsString::from("poolcp")).chain(line.words);
        let matches = definition
            .try_get_matches_from_mut(words)
            .map_err(explain)?;
        let matches = Box::leak(Box::new(matches));
        let choices = Choices::new(&in_order(definition, matches), warn)?;
        let args = Args::from_arg_matches_mut(matches).map_err(explain)?;
        match line.end {
            End::Operands => {}
            End::Help => return Err(Stop::Answer(definition.render_long_help().to_string())),
            End::Version => return Err(Stop::Answer(definition.render_version())),
            End::Complaint(complaint) => return Err(usage(complaint)),
        }
        if let Some(what) = &args.generate {
            let kind = choose("--generate", what, &generate::KINDS)?;
            return Err(Stop::Answer(generate::make(kind, definition)));
        }
        let mut options = options(&args, choices, environment)?;
        options.bandwidth = words::bandwidth(args.bwlimit.as_deref())?;
        check_context(&args, &options.preserve)?;
        let threads = words::threads(&args.threads)?;
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
            // Where it is shown has been said, and so that it is.
            None if args.report_file.is_some() => ReportFormat::Text,
            // A cp says nothing when all is well.
            None if args.quiet || program == "cp" => ReportFormat::None,
            None => ReportFormat::Text,
        };
        let verbosity = match (args.verbose || args.dry_run, args.debug) {
            (_, true) => Verbosity::Ways,
            (true, false) => Verbosity::Entries,
            (false, false) => Verbosity::None,
        };
        if report == ReportFormat::None && args.report_file.is_some() {
            return Err(usage(
                "--report-file wants a report, and --report=none has none",
            ));
        }
        let report_file = args.report_file.as_ref().map(PathBuf::from);
        let log = args.log.as_ref().map(PathBuf::from);
        let progress = progress(&args, program)?;
        let background = args.background;
        let (sources, target) = operands(args)?;
        Ok(Self {
            sources,
            target,
            options,
            threads,
            background,
            verbosity,
            report,
            report_file,
            log,
            progress,
        })
    }
}

/// What the environment says about a copy.
#[derive(Debug, Default)]
struct Environment {
    posixly_correct: bool,
    /// `VERSION_CONTROL`: the kind of backup.
    version_control: Option<OsString>,
    /// `SIMPLE_BACKUP_SUFFIX`.
    suffix: Option<OsString>,
}

impl Environment {
    fn of_the_process() -> Self {
        Self {
            posixly_correct: env::var_os("POSIXLY_CORRECT").is_some(),
            version_control: env::var_os("VERSION_CONTROL"),
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

/// When there is a live view: as the last one of its options says; without one, -q and the name `cp` want none.
fn progress(args: &Args, program: &str) -> Result<When, Stop> {
    let by_itself = if args.quiet || program == "cp" {
        When::Never
    } else {
        When::Auto
    };
    let choices = [
        ("auto", When::Auto),
        ("always", When::Always),
        ("never", When::Never),
    ];
    let mut typed = args.progress.iter();
    typed.try_fold(by_itself, |_, when| choose("--progress", when, &choices))
}

/// The choices for which the order counts in which they were typed.
#[derive(Default)]
struct Choices {
    preserve: Preserve,
    follow: Option<Follow>,
    update: Overwrite,
    /// -i and -n take each other back, and nothing else.
    asks: Option<bool>,
    atomic: Atomic,
    reflink: Reflink,
    sparse: Sparse,
    selection: Selection,
}

impl Choices {
    fn new(typed: &[Typed], mut warn: impl FnMut(&str)) -> Result<Self, Stop> {
        let mut chosen = Self::default();
        let mut has_target = false;
        for &(id, value) in typed {
            match id {
                "target_directory" if has_target => {
                    return Err(impossible("multiple target directories specified"));
                }
                "target_directory" => has_target = true,
                "context" if !value.is_empty() && !has_selinux() => {
                    warn("ignoring --context; it requires an SELinux-enabled kernel");
                }
                _ => chosen.choose(id, value)?,
            }
        }
        Ok(chosen)
    }

    fn choose(&mut self, id: &str, value: &OsStr) -> Result<(), Stop> {
        let preserve = &mut self.preserve;
        match id {
            "archive" => {
                words::keep_all(preserve);
                self.follow = Some(Follow::Never);
            }
            "links" => {
                preserve.links = true;
                self.follow = Some(Follow::Never);
            }
            "attributes" => {
                words::set_attributes(preserve, OsStr::new(words::DEFAULT_ATTRIBUTES), true)?
            }
            "preserve" => words::set_attributes(preserve, value, true)?,
            "no_preserve" => words::set_attributes(preserve, value, false)?,
            "dereference" => self.follow = Some(Follow::Always),
            "no_dereference" => self.follow = Some(Follow::Never),
            "follow_operands" => self.follow = Some(Follow::Operands),
            "interactive" => self.asks = Some(true),
            "no_clobber" => self.asks = Some(false),
            "update_older" => self.update = Overwrite::IfOlder,
            "update" => self.update = words::update(value)?,
            "atomic" => self.atomic = words::atomic(value)?,
            "reflink" => self.reflink = words::reflink(value)?,
            "sparse" => self.sparse = words::sparse(value)?,
            "checksum" => self.update = Overwrite::IfContentDiffers,
            "size_only" => self.update = Overwrite::IfSizeDiffers,
            _ => self.selection.choose(id, value)?,
        }
        Ok(())
    }
}

fn options(args: &Args, choices: Choices, environment: &Environment) -> Result<Options, Stop> {
    let mut options = Options::default();
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
    options.follow = choices
        .follow
        .unwrap_or(if options.recursive && !args.link {
            Follow::Never
        } else {
            Follow::Always
        });
    options.preserve = choices.preserve;
    options.atomic = choices.atomic;
    options.reflink = choices.reflink;
    options.sparse = choices.sparse;
    options.one_file_system = args.one_file_system;
    options.attributes_only = args.attributes_only;
    options.durable = args.fsync;
    options.verify = args.verify;
    options.force = args.force;
    options.remove_destination = args.remove_destination;
    options.parents = args.parents;
    options.strip_trailing_slashes = args.strip_trailing_slashes;
    options.keep_directory_symlink = args.keep_directory_symlink;
    options.write_through_dangling = environment.posixly_correct;
    options.overwrite = if choices.asks == Some(false) {
        Overwrite::Never
    } else {
        choices.update
    };
    let keeps_all = matches!(options.overwrite, Overwrite::Never | Overwrite::Refuse);
    options.ask = choices.asks == Some(true) && !keeps_all;
    let makes_backups = args.make_backups || !args.backup.is_empty() || args.suffix.is_some();
    if makes_backups && keeps_all {
        return Err(usage(
            "--backup is mutually exclusive with -n or --update=none-fail",
        ));
    }
    options.delete = match (args.delete, args.delete_excluded) {
        (_, true) => Delete::ExtraneousAndExcluded,
        (true, false) => Delete::Extraneous,
        (false, false) => Delete::Nothing,
    };
    options.dry_run = args.dry_run;
    options.filter = choices.selection.into_filter()?;
    if options.delete != Delete::Nothing {
        if !options.recursive {
            return Err(usage("--delete needs -r: it is about directories"));
        }
        if options.ask || makes_backups {
            return Err(usage(
                "--delete asks nobody and keeps nothing: it cannot be combined with -i or --backup",
            ));
        }
    }
    if options.reflink == Reflink::Always && options.sparse != Sparse::Auto {
        return Err(usage("--reflink can be used only with --sparse=auto"));
    }
    if options.verify && options.reflink == Reflink::Always {
        return Err(usage(
            "--verify reads what was written, and --reflink=always writes nothing",
        ));
    }
    if makes_backups {
        options.backup = words::backup(&args.backup, environment.version_control.as_ref())?;
        options.suffix = words::suffix(args.suffix.as_ref(), environment.suffix.as_ref());
    }
    Ok(options)
}

/// Whether the kernel has SELinux in use.
fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// What can be said about security contexts without SELinux, and with it.
fn check_context(args: &Args, preserve: &Preserve) -> Result<(), Stop> {
    let is_enabled = has_selinux();
    if is_enabled && (args.default_context || !args.context.is_empty()) {
        return Err(impossible(
            "setting a security context (-Z, --context) is not supported",
        ));
    }
    if preserve.context == Effort::Required && !is_enabled {
        return Err(impossible(
            "cannot preserve security context without an SELinux-enabled kernel",
        ));
    }
    Ok(())
}

/// clap's complaint about what `getopt.rs` let through.
fn explain(error: clap::Error) -> Stop {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    usage(line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

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

    /// Whatever is typed.
    mod random {
        use super::*;
        use proptest::prelude::*;
        use proptest::sample::select;

        fn config() -> ProptestConfig {
            ProptestConfig {
                failure_persistence: None,
                ..ProptestConfig::with_cases(300)
            }
        }

        const VALUES: [&str; 34] = [
            "",
            "a",
            "al",
            "all",
            "always",
            "auto",
            "changed",
            "older",
            "none",
            "none-fail",
            "n",
            "never",
            "mode",
            "mode,links",
            "xattr,,",
            ",",
            "timestamps,all,ownership",
            "context",
            "simple",
            "t",
            "off",
            "nil",
            "existing",
            "numbered",
            "0",
            "1",
            "1025",
            "-1",
            "18446744073709551616",
            "1e9",
            "\u{e4}",
            "\n",
            "json",
            "/",
        ];

        /// Any bytes that a word can have; options of ours with values that somebody else's may have.
        fn word() -> impl Strategy<Value = OsString> {
            let bytes = prop::collection::vec(1..=255_u8, 0..9);
            let definition = Args::command();
            let longs = definition.get_arguments().filter_map(clap::Arg::get_long);
            let longs: Vec<String> = longs.map(str::to_owned).collect();
            let shorts = definition.get_arguments().filter_map(clap::Arg::get_short);
            let shorts: Vec<char> = shorts.collect();
            let value = select(&VALUES[..]);
            prop_oneof![
                1 => bytes.clone().prop_map(OsString::from_vec),
                1 => bytes.prop_map(|bytes| OsString::from_vec([b"--", &bytes[..]].concat())),
                3 => (select(longs.clone()), value.clone())
                    .prop_map(|(long, value)| format!("--{long}={value}").into()),
                2 => (select(longs), 1..30_usize)
                    .prop_map(|(long, len)| format!("--{}", &long[..len.min(long.len())]).into()),
                2 => prop::collection::vec(select(shorts), 1..4)
                    .prop_map(|letters| format!("-{}", String::from_iter(letters)).into()),
                2 => value.prop_map(OsString::from),
                1 => Just(OsString::from("--")),
            ]
        }

        fn words() -> impl Strategy<Value = Vec<OsString>> {
            prop::collection::vec(word(), 0..7)
        }

        proptest! {
            #![proptest_config(config())]

            #[test]
            fn a_line_is_understood_or_complained_about(
                words in words(),
                posixly_correct: bool,
                control in prop::option::of(word()),
                suffix in prop::option::of(word()),
            ) {
                let environment = Environment {
                    posixly_correct,
                    version_control: control,
                    suffix,
                };
                let parse = || Command::parse(words.clone(), "poolcp", &environment, |_| ());
                let parsed = parse();
                prop_assert_eq!(format!("{parsed:?}"), format!("{:?}", parse()));
                match parsed {
                    Ok(command) => {
                        prop_assert!(!command.sources.is_empty());
                        prop_assert!(command.threads <= words::MAX_THREADS);
                        let suffix = command.options.suffix;
                        prop_assert!(!suffix.is_empty() && !suffix.as_bytes().contains(&b'/'));
                    }
                    Err(Stop::Usage(text) | Stop::Impossible(text) | Stop::Answer(text)) => {
                        prop_assert!(!text.is_empty());
                    }
                }
            }

            #[test]
            fn the_canonical_form_of_a_line_is_its_own(words in words(), posix: bool) {
                let definition = Args::command();
                let canonical = |words: Vec<OsString>| getopt::canonical(words, &definition, &CP_NAMES, posix);
                let once = canonical(words);
                let again = canonical(once.words.clone());
                prop_assert!(matches!(again.end, End::Operands));
                prop_assert_eq!(again.words, once.words);
            }
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
                "invalid number of threads: '1025' (1 to 1024, or auto)",
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
    fn the_first_thing_that_is_wrong_is_complained_of() {
        for (line, expected) in [
            ("--sparse=x --help", "invalid argument 'x' for '--sparse'"),
            ("--sparse=x --bogus", "invalid argument 'x' for '--sparse'"),
            ("--bogus --sparse=x", "unrecognized option '--bogus'"),
            ("--bogus --help", "unrecognized option '--bogus'"),
            ("-ls --bogus", "unrecognized option '--bogus'"),
        ] {
            let complaint = complaint(line).replace(['\u{2018}', '\u{2019}'], "'");
            assert_eq!(complaint.lines().next(), Some(expected));
        }
        assert!(matches!(parse("--help --sparse=x"), Err(Stop::Answer(_))));
        assert!(matches!(parse("--version -Q"), Err(Stop::Answer(_))));
    }

    #[test]
    fn a_rate_is_bytes_a_second_and_0_is_no_limit() {
        let rate = |line| parsed(line).options.bandwidth.map(NonZeroU64::get);
        assert_eq!(rate("a b"), None);
        assert_eq!(rate("--bwlimit 50M a b"), Some(50 << 20));
        assert_eq!(rate("--bwlimit=50M --bwlimit=1kB a b"), Some(1000));
        assert_eq!(rate("--bwlimit=50M --bwlimit=0 a b"), None);
        assert!(complaint("--bwlimit=0.5 a b").starts_with("invalid rate: '0.5' "));
        assert!(complaint("--bwlimit=fast a b").starts_with("invalid rate: 'fast' "));
    }

    #[test]
    fn completions_offer_the_words_that_are_taken() {
        let definition = Args::command();
        let options = definition
            .get_arguments()
            .filter(|arg| arg.get_action().takes_values());
        for arg in options {
            let Some(name) = arg.get_long() else {
                continue;
            };
            let offered = generate::words(arg.get_id().as_str());
            // What is refused says what is not.
            let refusal = match parse(&format!("--{name}=? a b")) {
                Err(Stop::Usage(message)) => message.replace(['\u{2018}', '\u{2019}'], "'"),
                _ => String::new(),
            };
            if let Some((_, valid)) = refusal.split_once("Valid arguments are:") {
                let valid: Vec<_> = valid.split('\'').skip(1).step_by(2).collect();
                let sorted = |words: &[&str]| {
                    let mut words: Vec<_> = words.iter().map(ToString::to_string).collect();
                    words.sort_unstable();
                    words
                };
                assert_eq!(sorted(offered), sorted(&valid), "--{name}");
            }
            for word in offered {
                let taken = parse(&format!("--{name}={word} a b"));
                assert!(!matches!(taken, Err(Stop::Usage(_))), "--{name}={word}");
            }
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
