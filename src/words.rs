//! What the words behind options mean, and in `cp`'s words what is wrong with those that mean nothing.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;

use poolcp::{Atomic, Backup, Effort, Overwrite, Preserve, Reflink, Sparse, quote, quote_argument};

use crate::cli::{Stop, usage};
use crate::units;

/// The most workers that may be asked for: more than any device has use for, few enough for the system to start.
pub const MAX_THREADS: usize = 1024;

/// How many workers; 0 lets the program choose.
pub fn threads(text: &OsStr) -> Result<usize, Stop> {
    if text == "auto" {
        return Ok(0);
    }
    match text.to_str().map(str::parse) {
        Some(Ok(n)) if n <= MAX_THREADS => Ok(n),
        _ => Err(usage(format!(
            "invalid number of threads: {} (1 to {MAX_THREADS}, or auto)",
            quote(text)
        ))),
    }
}

/// Bytes per second; none, where there is no limit.
pub fn bandwidth(rate: Option<&OsStr>) -> Result<Option<NonZeroU64>, Stop> {
    let Some(text) = rate else {
        return Ok(None);
    };
    // Less than a byte is not none.
    let is_none = text
        .as_bytes()
        .iter()
        .all(|byte| !(b'1'..=b'9').contains(byte));
    let rate = text.to_str().and_then(units::bytes);
    match rate.filter(|&rate| rate > 0 || is_none) {
        Some(rate) => Ok(NonZeroU64::new(rate)),
        None => Err(usage(format!(
            "invalid rate: {} (bytes a second, such as 500K or 1.5MB)",
            quote(text)
        ))),
    }
}

/// When a destination that is there is replaced.
pub fn update(which: &OsStr) -> Result<Overwrite, Stop> {
    choose(
        "--update",
        which,
        &[
            ("all", Overwrite::Always),
            ("none", Overwrite::Never),
            ("none-fail", Overwrite::Refuse),
            ("older", Overwrite::IfOlder),
            ("changed", Overwrite::IfChanged),
        ],
    )
}

/// Whether files are staged.
pub fn atomic(when: &OsStr) -> Result<Atomic, Stop> {
    choose(
        "--atomic",
        when,
        &[
            ("auto", Atomic::Auto),
            ("always", Atomic::Always),
            ("never", Atomic::Never),
        ],
    )
}

/// Whether blocks are shared.
pub fn reflink(when: &OsStr) -> Result<Reflink, Stop> {
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

/// Whether holes are made.
pub fn sparse(when: &OsStr) -> Result<Sparse, Stop> {
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
pub fn backup(typed: &[OsString], environment: Option<&OsString>) -> Result<Backup, Stop> {
    let given = |text: &&OsString| !text.is_empty();
    let typed = typed.iter().rfind(given);
    let (context, control) = match (typed, environment.filter(given)) {
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
pub fn suffix(typed: Option<&OsString>, environment: Option<&OsString>) -> OsString {
    let is_sane =
        |suffix: &&OsString| !suffix.is_empty() && !suffix.as_encoded_bytes().contains(&b'/');
    let suffix = typed.or(environment);
    suffix
        .filter(is_sane)
        .cloned()
        .unwrap_or_else(|| "~".into())
}

/// What `-p` keeps.
pub const DEFAULT_ATTRIBUTES: &str = "mode,ownership,timestamps";

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

/// The words of a comma-separated list.
fn in_list(list: &OsStr) -> impl Iterator<Item = &OsStr> {
    let words = list.as_bytes().split(|&byte| byte == b',');
    words.map(OsStr::from_bytes)
}

/// Keeps everything: what has been insisted on, still.
pub fn keep_all(preserve: &mut Preserve) {
    let before = *preserve;
    *preserve = Preserve::all();
    preserve.default_mode = before.default_mode;
    if before.xattrs == Effort::Required {
        preserve.xattrs = Effort::Required;
    }
    if before.context == Effort::Required {
        preserve.context = Effort::Required;
    }
}

/// Sets (or, if not `keep`, clears) the attributes in a comma-separated list.
pub fn set_attributes(preserve: &mut Preserve, list: &OsStr, keep: bool) -> Result<(), Stop> {
    let (option, effort) = if keep {
        ("--preserve", Effort::Required)
    } else {
        ("--no-preserve", Effort::No)
    };
    for word in in_list(list) {
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
            Attribute::All if keep => keep_all(preserve),
            Attribute::All => {
                *preserve = Preserve::default();
                preserve.default_mode = true;
            }
        }
    }
    Ok(())
}

/// The choice that `word` names, in full or by a beginning that only its names have; refused in `cp`'s words.
pub fn choose<T: Copy + PartialEq>(
    option: &str,
    word: &OsStr,
    choices: &[(&str, T)],
) -> Result<T, Stop> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*choice);
    }
    let starts_so = |(name, _): &&(&str, T)| name.as_bytes().starts_with(word.as_bytes());
    let mut found = choices.iter().filter(starts_so);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn what_is_kept_and_not_kept_is_as_if_never_said(
            before in select(&["", "all", "mode,links", "xattr,,", ",", "timestamps,all,ownership", "m", "bogus"][..]),
            list in prop::collection::vec(select(&["timestamps", "ownership", "links", "xattr"][..]), 1..6),
        ) {
            let mut preserve = Preserve::default();
            // Whatever comes of it.
            let _ = set_attributes(&mut preserve, OsStr::new(before), true);
            let list = list.join(",");
            let list = OsStr::new(&list);
            set_attributes(&mut preserve, list, false).expect("good words");
            let without = preserve;
            set_attributes(&mut preserve, list, true).expect("good words");
            prop_assert_eq!(&preserve.mode, &without.mode);
            set_attributes(&mut preserve, list, false).expect("good words");
            prop_assert_eq!(preserve, without);
        }
    }
}
