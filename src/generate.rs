//! What a package has beside the program: completions for shells and the manual page, made from the definition of the command
//! line (`args.rs`), so that they know every option (`--generate`).
//!
//! - zsh and fish: clap_complete's, mended where it does not know that some values can only follow a `=`.
//! - bash: `complete.bash`, with clap's options filled in. clap_complete's own offers options where a file is to be named, and
//!   nothing after a `=`.
//! - the manual page: `manual.roff`, with clap_mangen's list of options filled in.
//!
//! The definition has no list of an option's words, since words may be abbreviated as `cp` has it; [`words`] has them here, and
//! a test sees to it that they are those that the command line takes.

use std::io;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueHint};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// What can be made, as `--generate` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bash,
    Zsh,
    Fish,
    Man,
}

/// All of it.
pub const KINDS: [(&str, Kind); 4] = [
    ("complete-bash", Kind::Bash),
    ("complete-zsh", Kind::Zsh),
    ("complete-fish", Kind::Fish),
    ("man", Kind::Man),
];

/// What bash is told; the list of options goes in.
const BASH: &str = include_str!("complete.bash");

/// The page around the list of options.
const MANUAL: &str = include_str!("manual.roff");

/// Words that an option's value can be: of those that name the same, all.
pub fn words(id: &str) -> &'static [&'static str] {
    const WHEN: &[&str] = &["auto", "always", "never"];
    match id {
        "atomic" | "progress" | "reflink" | "sparse" => WHEN,
        "backup" => &[
            "none", "off", "simple", "never", "existing", "nil", "numbered", "t",
        ],
        "generate" => &["complete-bash", "complete-zsh", "complete-fish", "man"],
        "preserve" | "no_preserve" => &[
            "mode",
            "timestamps",
            "ownership",
            "links",
            "context",
            "xattr",
            "all",
        ],
        "report" => &["text", "json", "none"],
        "threads" => &["auto"],
        "update" => &["all", "none", "none-fail", "older", "changed"],
        _ => &[],
    }
}

/// Whether an option's value may be several words with commas between them.
fn is_list(id: &str) -> bool {
    matches!(id, "preserve" | "no_preserve")
}

/// Makes one of them.
pub fn make(kind: Kind, definition: &Command) -> String {
    let mut command = definition.clone().mut_args(with_hints);
    command.build();
    match kind {
        Kind::Bash => bash(&command),
        Kind::Zsh => zsh(&mut command),
        Kind::Fish => fish(&mut command),
        Kind::Man => manual(&command),
    }
}

/// Tells clap what an argument's value can be: words, or a file where the help says so.
fn with_hints(arg: Arg) -> Arg {
    let words = words(arg.get_id().as_str());
    if !words.is_empty() {
        return arg
            .value_parser(PossibleValuesParser::new(words))
            .hide_possible_values(true);
    }
    let hint = match value_name(&arg) {
        _ if arg.is_positional() => ValueHint::AnyPath,
        "DIRECTORY" => ValueHint::DirPath,
        "FILE" => ValueHint::FilePath,
        _ => ValueHint::Other,
    };
    if arg.get_action().takes_values() {
        arg.value_hint(hint)
    } else {
        arg
    }
}

fn value_name(arg: &Arg) -> &str {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or("", |name| name.as_str())
}

/// The long names of options whose value can only follow a `=`.
fn with_optional_value(command: &Command) -> impl Iterator<Item = &str> {
    let options = command.get_opts();
    options
        .filter(|arg| arg.is_require_equals_set())
        .filter_map(Arg::get_long)
}

fn from_clap(shell: Shell, command: &mut Command) -> String {
    let mut text = Vec::new();
    generate(shell, command, "poolcp", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// `--name=-[help]` instead of `--name=[help]` says that the value is in the same word; `_values -s ,` takes several words;
/// `*:` instead of `*::` lets options follow operands.
fn zsh(command: &mut Command) -> String {
    let mut text = from_clap(Shell::Zsh, command).replace("'*::operands", "'*:operands");
    for name in with_optional_value(command) {
        text = text.replace(&format!("--{name}=["), &format!("--{name}=-["));
    }
    for arg in command
        .get_opts()
        .filter(|arg| is_list(arg.get_id().as_str()))
    {
        let (name, words) = (value_name(arg), words(arg.get_id().as_str()).join(" "));
        text = text.replace(
            &format!(":{name}:({words})"),
            &format!(":{name}: _values -s , attribute {words}"),
        );
    }
    text
}

/// Without `-r` a value is optional, and follows a `=`; a function of fish's own takes several words.
fn fish(command: &mut Command) -> String {
    let mut text = from_clap(Shell::Fish, command);
    let lists = command
        .get_opts()
        .filter(|arg| is_list(arg.get_id().as_str()));
    for arg in lists {
        let words = words(arg.get_id().as_str());
        let one_each = words.iter().map(|word| format!("{word}\\t''"));
        let one_each: Vec<_> = one_each.collect();
        text = text.replace(
            &format!("-a \"{}\"", one_each.join("\n")),
            &format!("-a \"(__fish_append , {})\"", words.join(" ")),
        );
    }
    let with_optional_value: Vec<_> = with_optional_value(command).collect();
    let mend = |line: &str| {
        let is_about = |name: &&str| line.contains(&format!(" -l {name} "));
        let line = if with_optional_value.iter().any(is_about) {
            line.replace(" -r", "")
        } else {
            line.to_owned()
        };
        line + "\n"
    };
    text.lines().map(mend).collect()
}

/// Fills in the options: those that take no value or a word after `=`, and for each value what it can be.
fn bash(command: &Command) -> String {
    let mut options = Vec::new();
    let mut values = String::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        let takes_value = arg.get_action().takes_values();
        let long = arg.get_long().map(|name| {
            let equals = if takes_value { "=" } else { "" };
            format!("--{name}{equals}")
        });
        options.extend(arg.get_short().map(|letter| format!("-{letter}")));
        options.extend(long.clone());
        if !takes_value {
            continue;
        }
        let is_optional = arg.is_require_equals_set();
        let mut patterns: Vec<String> = long.into_iter().collect();
        if !is_optional {
            patterns.extend(arg.get_long().map(|name| format!("--{name}")));
            if let Some(short) = arg.get_short() {
                patterns.push(format!("-{short}"));
                // The last letter of several.
                patterns.push(format!("-[!-]*{short}"));
            }
        }
        let id = arg.get_id().as_str();
        let action = match arg.get_value_hint() {
            _ if is_list(id) => format!("_poolcp_list {}", words(id).join(" ")),
            _ if !words(id).is_empty() => format!("_poolcp_words {}", words(id).join(" ")),
            ValueHint::DirPath => "_poolcp_directories".to_owned(),
            ValueHint::FilePath => "_poolcp_files".to_owned(),
            _ => "_poolcp_nothing".to_owned(),
        };
        let patterns = patterns.join(" | ");
        values += &format!("        {patterns}) {action}; return ;;\n");
    }
    BASH.replace("@OPTIONS@", &options.join(" "))
        .replace("        @VALUES@\n", &values)
}

/// Fills in the version and the options, each group under a heading of its own inside of the section.
fn manual(command: &Command) -> String {
    let mut options = Vec::new();
    let written: io::Result<()> = Man::new(command.clone()).render_options_section(&mut options);
    // Nothing else can fail than the writer, and a vector takes everything.
    debug_assert!(written.is_ok());
    let mut options = String::from_utf8_lossy(&options).into_owned();
    for arg in command.get_arguments() {
        if let Some(heading) = arg.get_help_heading() {
            let section = format!(".SH \"{}\"", heading.to_uppercase());
            options = options.replace(&section, &format!(".SS \"{heading}\""));
        }
    }
    // clap_mangen's own preamble is needed once for the page.
    MANUAL
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@OPTIONS@\n", &options)
}
