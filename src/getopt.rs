//! A command line read by the rules of GNU's getopt_long(3), which scripts rely on, before clap gets it.
//!
//! clap's own rules differ in what may be abbreviated, in the order of things and in the words of its complaints. So each
//! option is found here, and passed on in one canonical form that leaves nothing to be guessed: `--name`, `--name=value` or
//! `-x`, then `--`, then the operands.
//!
//! 1. Options and operands may be mixed, unless `POSIXLY_CORRECT` is set: then the first operand ends the options. So does
//!    `--`.
//! 2. A long name of `cp`'s may be abbreviated as far as it stays unambiguous among those; poolcp's own options must be
//!    spelled out, so that they take no abbreviation away.
//! 3. A long option's value follows after `=` or, if it must have one, as the next word. A short option's value is the rest
//!    of its word or, if it must have one, the next word.
//! 4. What is wrong, `--help` and `--version` end the line where they are met: the options before them still count, and may
//!    have something to complain of first.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command};
use poolcp::quote;

/// A command line in its canonical form.
pub struct Line {
    /// The options up to the end, then `--`, then the operands.
    pub words: Vec<OsString>,
    pub end: End,
}

/// What ended a command line.
pub enum End {
    /// There were no more words.
    Operands,
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// An option that is none, in getopt's words.
    Complaint(String),
}

/// Brings a command line, without the program's name, into its canonical form. `abbreviable` has the long names that may be
/// abbreviated, in the order in which a complaint lists them.
pub fn canonical(
    words: impl IntoIterator<Item = OsString>,
    command: &Command,
    abbreviable: &[&str],
    posixly_correct: bool,
) -> Line {
    let mut words: VecDeque<OsString> = words.into_iter().collect();
    let mut options = Vec::new();
    let mut operands = Vec::new();
    let mut end = End::Operands;
    while let (Some(word), End::Operands) = (words.pop_front(), &end) {
        match word.as_bytes() {
            b"--" => break,
            [b'-', b'-', long @ ..] => match long_option(long, command, abbreviable, &mut words) {
                Ok(option) if option == "--help" => end = End::Help,
                Ok(option) if option == "--version" => end = End::Version,
                Ok(option) => options.push(option),
                Err(complaint) => end = End::Complaint(complaint),
            },
            [b'-', cluster @ ..] if !cluster.is_empty() => {
                if let Err(complaint) = short_options(cluster, command, &mut words, &mut options) {
                    end = End::Complaint(complaint);
                }
            }
            _ => {
                operands.push(word);
                if posixly_correct {
                    break;
                }
            }
        }
    }
    operands.extend(words);
    options.push("--".into());
    options.extend(operands);
    Line {
        words: options,
        end,
    }
}

/// Whether an option has a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// After `=`, or in the same word, only.
    Optional,
    Required,
}

fn takes(arg: &Arg) -> Takes {
    if !arg.get_action().takes_values() {
        return Takes::Nothing;
    }
    match arg.get_num_args() {
        Some(range) if range.min_values() == 0 => Takes::Optional,
        _ => Takes::Required,
    }
}

/// `--name=value`, as one word.
fn with_value(name: &str, value: &[u8]) -> OsString {
    let mut word = format!("--{name}=").into_bytes();
    word.extend_from_slice(value);
    OsString::from_vec(word)
}

fn long_option(
    long: &[u8],
    command: &Command,
    abbreviable: &[&str],
    words: &mut VecDeque<OsString>,
) -> Result<OsString, String> {
    let mut parts = long.splitn(2, |&byte| byte == b'=');
    let typed = parts.next().unwrap_or_default();
    let value = parts.next();
    let (name, takes) = find_long(typed, long, command, abbreviable)?;
    match (takes, value) {
        (Takes::Nothing, None) | (Takes::Optional, None) => Ok(format!("--{name}").into()),
        (Takes::Nothing, Some(_)) => Err(format!("option '--{name}' doesn't allow an argument")),
        (Takes::Optional | Takes::Required, Some(value)) => Ok(with_value(name, value)),
        (Takes::Required, None) => match words.pop_front() {
            Some(value) => Ok(with_value(name, value.as_bytes())),
            None => Err(format!("option '--{name}' requires an argument")),
        },
    }
}

/// The long name that was typed, in full or abbreviated.
fn find_long<'c>(
    typed: &[u8],
    word: &[u8],
    command: &'c Command,
    abbreviable: &[&str],
) -> Result<(&'c str, Takes), String> {
    let find = |name: &[u8]| {
        let is_it = |arg: &&Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            let mut names = arg.get_long().into_iter().chain(aliases);
            names.any(|long| long.as_bytes() == name)
        };
        let arg = command.get_arguments().find(is_it)?;
        Some((arg.get_long()?, takes(arg)))
    };
    if let Some(exact) = find(typed) {
        return Ok(exact);
    }
    let meant = |name: &&&str| name.as_bytes().starts_with(typed);
    let names = abbreviable.iter().filter(meant);
    let mut found: Vec<_> = names.filter_map(|name| find(name.as_bytes())).collect();
    // Two names of one option leave no doubt.
    found.dedup_by_key(|(name, _)| *name);
    let shown = || quote(OsString::from_vec([b"--", word].concat()));
    match found[..] {
        [] => Err(format!("unrecognized option {}", shown())),
        [one] => Ok(one),
        _ => {
            let names = found.iter().map(|(name, _)| format!(" '--{name}'"));
            let names: String = names.collect();
            Err(format!(
                "option {} is ambiguous; possibilities:{names}",
                shown()
            ))
        }
    }
}

fn short_options(
    mut cluster: &[u8],
    command: &Command,
    words: &mut VecDeque<OsString>,
    options: &mut Vec<OsString>,
) -> Result<(), String> {
    while let [byte, rest @ ..] = cluster {
        let letter = char::from(*byte);
        let is_it = |arg: &&Arg| {
            let mut letters = arg.get_short_and_visible_aliases().unwrap_or_default();
            letters.extend(arg.get_all_short_aliases().unwrap_or_default());
            byte.is_ascii() && letters.contains(&letter)
        };
        let Some(arg) = command.get_arguments().find(is_it) else {
            let shown = quote(OsStr::from_bytes(&[*byte]));
            return Err(format!("invalid option -- {shown}"));
        };
        // An optional value belongs to the long form only.
        if takes(arg) != Takes::Required {
            options.push(format!("-{letter}").into());
            cluster = rest;
            continue;
        }
        let value = match (rest, words.pop_front()) {
            (b"", Some(next)) => next.into_vec(),
            (b"", None) => return Err(format!("option requires an argument -- '{letter}'")),
            (rest, next) => {
                next.into_iter().for_each(|next| words.push_front(next));
                rest.to_vec()
            }
        };
        // An option with a value has a long name: the definition's test sees to it.
        let name = arg.get_long().unwrap_or_default();
        options.push(with_value(name, &value));
        return Ok(());
    }
    Ok(())
}
