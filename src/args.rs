//! What may be typed: the definition of the command line, whose doc comments are the help. What it means is decided in
//! `cli.rs`.
//!
//! The shape is `cp`'s, with poolcp's own options in groups of their own.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, Parser};

/// `cp`'s long options, which may be abbreviated, in the order in which `cp` lists them when it is in doubt.
pub const CP_NAMES: [&str; 31] = [
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
    "path",
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
                  The options are those of GNU cp, and more: what is left out, two trees kept the same, how it is done and shown.",
    max_term_width = 100
)]
pub struct Args {
    /// What to copy, and where to
    #[arg(value_name = "SOURCE... DEST", hide = true)]
    pub operands: Vec<OsString>,

    /// Copy directories and what is below them; -R is the same
    #[arg(short, short_alias = 'R', long, help_heading = "What is copied")]
    pub recursive: bool,

    /// Leave out what matches GLOB (as in .gitignore: 'build/', '/doc/*.pdf')
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub exclude: Vec<OsString>,

    /// Copy what matches GLOB, whatever later globs say
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub include: Vec<OsString>,

    /// Read such globs from FILE, one a line; those after ! are to be included
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub exclude_from: Vec<OsString>,

    /// Leave out what git ignores, even if it tracks it
    #[arg(long, help_heading = "Which entries are copied")]
    pub gitignore: bool,

    /// Leave out smaller files (1000, 10K, 1.5G)
    #[arg(long, value_name = "SIZE", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub min_size: Vec<OsString>,

    /// Leave out larger files
    #[arg(long, value_name = "SIZE", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub max_size: Vec<OsString>,

    /// Leave out files that were not modified after FILE, a date ('2026-01-31 12:00') or a time ago (2h)
    #[arg(long, value_name = "WHEN", action = ArgAction::Append, help_heading = "Which entries are copied")]
    pub newer: Vec<OsString>,

    /// Replace files whose size or content differs; both are read
    #[arg(long, help_heading = "Keeping two trees the same")]
    pub checksum: bool,

    /// Replace files whose size differs
    #[arg(long, help_heading = "Keeping two trees the same")]
    pub size_only: bool,

    /// Remove from the destination's directories what the source's do not have
    #[arg(long, help_heading = "Keeping two trees the same")]
    pub delete: bool,

    /// And what is left out by --exclude or --gitignore
    #[arg(long, help_heading = "Keeping two trees the same")]
    pub delete_excluded: bool,

    /// Say what would be done and why, and change nothing
    #[arg(long, help_heading = "Keeping two trees the same")]
    pub dry_run: bool,

    /// Same as -d -R --preserve=all
    #[arg(short, long, help_heading = "What is copied")]
    pub archive: bool,

    /// Follow all symbolic links in SOURCE
    #[arg(short = 'L', long, help_heading = "What is copied")]
    pub dereference: bool,

    /// Copy symbolic links as links [default with -r]
    #[arg(short = 'P', long, help_heading = "What is copied")]
    pub no_dereference: bool,

    /// Follow the symbolic links that are SOURCEs themselves
    #[arg(short = 'H', help_heading = "What is copied")]
    pub follow_operands: bool,

    /// Stay on the file system of each SOURCE
    #[arg(short = 'x', long, help_heading = "What is copied")]
    pub one_file_system: bool,

    /// Copy attributes and no data
    #[arg(long, help_heading = "What is copied")]
    pub attributes_only: bool,

    /// With -r, read FIFOs and devices as if they were files
    #[arg(long, help_heading = "What is copied")]
    pub copy_contents: bool,

    /// Remove slashes at the end of each SOURCE
    #[arg(long, help_heading = "What is copied")]
    pub strip_trailing_slashes: bool,

    /// Make hard links instead of copies
    #[arg(short, long, help_heading = "What is copied")]
    pub link: bool,

    /// Make symbolic links instead of copies
    #[arg(short, long, help_heading = "What is copied")]
    pub symbolic_link: bool,

    /// Same as -P --preserve=links
    #[arg(short = 'd', help_heading = "What is kept")]
    pub links: bool,

    /// Same as --preserve=mode,ownership,timestamps
    #[arg(short = 'p', help_heading = "What is kept")]
    pub attributes: bool,

    /// Keep attributes: mode, ownership, timestamps (these three if no LIST is given), links, xattr, context, all
    #[arg(
        long,
        value_name = "LIST",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = crate::words::DEFAULT_ATTRIBUTES,
        action = ArgAction::Append,
        help_heading = "What is kept"
    )]
    pub preserve: Vec<OsString>,

    /// Do not keep these attributes
    #[arg(long, value_name = "LIST", action = ArgAction::Append, help_heading = "What is kept")]
    pub no_preserve: Vec<OsString>,

    /// For cp's command lines: does nothing without SELinux, and is refused with it
    #[arg(short = 'Z', help_heading = "What is kept")]
    pub default_context: bool,

    /// Like -Z
    #[arg(
        long,
        value_name = "CONTEXT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        action = ArgAction::Append,
        help_heading = "What is kept"
    )]
    pub context: Vec<OsString>,

    /// Copy all SOURCEs into DIRECTORY
    #[arg(
        short,
        long,
        value_name = "DIRECTORY",
        action = ArgAction::Append,
        help_heading = "Where it goes"
    )]
    pub target_directory: Vec<OsString>,

    /// Treat DEST as a name of its own, even if it is a directory
    #[arg(short = 'T', long, help_heading = "Where it goes")]
    pub no_target_directory: bool,

    /// Make the leading directories of each SOURCE in the target directory
    #[arg(long, alias = "path", help_heading = "Where it goes")]
    pub parents: bool,

    /// Go into existing symbolic links to directories
    #[arg(long, help_heading = "Where it goes")]
    pub keep_directory_symlink: bool,

    /// Remove a destination file that cannot be opened, and try again
    #[arg(short, long, help_heading = "What is there already")]
    pub force: bool,

    /// Ask before each file that would be replaced
    #[arg(short, long, help_heading = "What is there already")]
    pub interactive: bool,

    /// Leave existing files alone
    #[arg(short, long, help_heading = "What is there already")]
    pub no_clobber: bool,

    /// Remove each existing destination file first
    #[arg(long, help_heading = "What is there already")]
    pub remove_destination: bool,

    /// Same as --update=older
    #[arg(short = 'u', help_heading = "What is there already")]
    pub update_older: bool,

    /// Replace: all, older (also if no WHICH is given), changed (by size or time), none, none-fail (which is an error)
    #[arg(
        long,
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "older",
        action = ArgAction::Append,
        help_heading = "What is there already"
    )]
    pub update: Vec<OsString>,

    /// Same as --backup
    #[arg(short = 'b', help_heading = "What is there already")]
    pub make_backups: bool,

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
    pub backup: Vec<OsString>,

    /// What a simple backup's name ends in [default: ~]
    #[arg(
        short = 'S',
        long,
        value_name = "SUFFIX",
        help_heading = "What is there already"
    )]
    pub suffix: Option<OsString>,

    /// Let a file take its name when it is complete: auto (where nobody could tell), always (or fail), never
    #[arg(long, value_name = "WHEN", action = ArgAction::Append, help_heading = "How it is copied")]
    pub atomic: Vec<OsString>,

    /// Read each file back from the device, and compare
    #[arg(long, help_heading = "How it is copied")]
    pub verify: bool,

    /// End only when everything is on the device
    #[arg(long, help_heading = "How it is copied")]
    pub fsync: bool,

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
    pub reflink: Vec<OsString>,

    /// Make holes: auto (where the source has them), always (for zeros too), never
    #[arg(long, value_name = "WHEN", action = ArgAction::Append, help_heading = "How it is copied")]
    pub sparse: Vec<OsString>,

    /// Number of workers, 1 to 1024, or auto
    #[arg(
        short = 'j',
        long,
        value_name = "N",
        default_value = "auto",
        help_heading = "How it is copied"
    )]
    pub threads: OsString,

    /// Move at most RATE bytes a second: K, M, G are powers of 1024, kB, MB, GB of 1000; 0 is no limit
    #[arg(long, value_name = "RATE", help_heading = "How fast")]
    pub bwlimit: Option<OsString>,

    /// Let everything else go first: nice 19, and disks when they are idle
    #[arg(long, help_heading = "How fast")]
    pub background: bool,

    /// Say what is being done
    #[arg(short, long, help_heading = "What is shown")]
    pub verbose: bool,

    /// Say how each file is copied; implies -v
    #[arg(long, help_heading = "What is shown")]
    pub debug: bool,

    /// Show errors only
    #[arg(short, long, help_heading = "What is shown")]
    pub quiet: bool,

    /// The summary at the end: text (on standard error), json (on standard output, behind the lines of -v), none
    #[arg(long, value_name = "FORMAT", help_heading = "What is shown")]
    pub report: Option<OsString>,

    /// Write the summary to FILE instead, as --report says (text unless it says json)
    #[arg(long, value_name = "FILE", help_heading = "What is shown")]
    pub report_file: Option<OsString>,

    /// Add a line to FILE for each entry: what was done, source, destination
    #[arg(long, value_name = "FILE", help_heading = "What is shown")]
    pub log: Option<OsString>,

    /// Show what is going on: auto (on a terminal), always (also if no WHEN is given), never; SIGUSR1 asks for one line
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        action = ArgAction::Append,
        help_heading = "What is shown"
    )]
    pub progress: Vec<OsString>,

    /// Print what a package needs: complete-bash, complete-zsh, complete-fish, man
    #[arg(long, value_name = "WHAT", help_heading = "What is shown")]
    pub generate: Option<OsString>,

    /// Show this help
    #[arg(long, help_heading = "What is shown")]
    pub help: bool,

    /// Show the version
    #[arg(long, help_heading = "What is shown")]
    pub version: bool,
}

/// An option's name in [`Args`], and its value.
pub type Typed<'a> = (&'a str, &'a OsStr);

/// The options in the order in which they were typed, with their values. Of a flag only the last time counts.
pub fn in_order<'a>(definition: &'a Command, matches: &'a ArgMatches) -> Vec<Typed<'a>> {
    let mut typed = Vec::new();
    for arg in definition.get_arguments() {
        let id = arg.get_id().as_str();
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            let values = matches.get_raw(id).unwrap_or_default();
            let indices = matches.indices_of(id).unwrap_or_default();
            typed.extend(indices.zip(values).map(|(index, value)| (index, id, value)));
        }
    }
    typed.sort_unstable_by_key(|&(index, ..)| index);
    typed
        .into_iter()
        .map(|(_, id, value)| (id, value))
        .collect()
}
