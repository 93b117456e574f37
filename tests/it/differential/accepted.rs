//! What poolcp and `cp` may do differently, with the reasons.

use std::sync::LazyLock;

use crate::harness::Sandbox;
use crate::needs::Need;

use super::case::{Case, Kind, Thing};
use super::world::HERE;
use super::{Difference, EXIT_CODE, Outcome};

/// Why a difference is none of poolcp's faults. Each reason is one that people who use it are told, too.
pub(super) fn accepted(
    case: &Case,
    theirs: &Outcome,
    ours: &Outcome,
    difference: &Difference,
) -> Option<&'static str> {
    let is_code = difference.about == EXIT_CODE;
    let asked = theirs.messages.iter().any(|line| line.ends_with('?'));
    if is_code && asked && (theirs.code, ours.code) == (0, 1) {
        return Some("cp 9.1 calls a refusal to overwrite a success, later ones do not");
    }
    let told = difference.about.starts_with("cp: not replacing ");
    if (told || is_code) && case.options.contains(&"n") && !*SKIPS_IN_SILENCE {
        return Some("cp 9.2 to 9.4 call what -n skips a failure");
    }
    let says = |text: &str| theirs.messages.iter().any(|line| line.contains(text));
    if says("preserving permissions for") && says("/.': ") {
        return Some("cp cannot reach `dir/.` again once its own copy is in the way");
    }
    let fails_silently = theirs.messages.is_empty() && ours.messages.is_empty();
    if is_code && fails_silently && (theirs.code, ours.code) == (1, 0) && case.ordinary {
        return Some("cp fails without a word where it cannot reach `dir/.` again");
    }
    let links_fail = |outcome: &Outcome| {
        let fails = |line: &String| line.contains("cannot create hard link");
        outcome.messages.iter().any(fails)
    };
    if links_fail(theirs) && !links_fail(ours) {
        return Some("cp removes a copy that it is going to link further names to");
    }
    let is_from_a_new_link = [": mtime now became", "removed '"];
    let is_from_a_new_link = is_from_a_new_link
        .iter()
        .any(|words| difference.text.contains(words));
    if is_from_a_new_link && case.links_further_names() {
        return Some("cp replaces a name of a copy by a new link to the same copy");
    }
    let we_say_same = ours
        .messages
        .iter()
        .any(|line| line.contains("are the same file"));
    let moves_away = case.makes_backups() || case.options.contains(&"remove-destination");
    if we_say_same && moves_away {
        return Some(
            "cp does not know a name behind a symbolic link again, and moves the source away",
        );
    }
    let through_new = |line: &String| line.contains("through just-created symlink");
    if ours.messages.iter().any(through_new) {
        return Some("cp writes through symbolic links that it has made below operands");
    }
    let stumbles = says("cannot create directory")
        || says("cannot create regular file")
        || says("cannot create symbolic link")
        || says("can make relative symbolic links")
        || says("into itself")
        || (says("cannot open")
            && !ours
                .messages
                .iter()
                .any(|line| line.contains("cannot open")))
        || says("File exists")
        || says("not writing through dangling");
    if stumbles && case.options.contains(&"parents") {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    let is_told = |text: &str| difference.about.starts_with(text);
    let is_more = difference.text.ends_with("should not be there");
    if is_more && case.options.contains(&"parents") && case.makes_backups() {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    if says("cannot read symbolic link") && ours.code == 0 {
        return Some("cp replaces a link that its own way leads through, and loses it");
    }
    if is_told("cp: preserving permissions for") && theirs.code == 1 && case.ordinary {
        return Some("cp fails without a word where a directory belongs to somebody else");
    }
    if says("failed to clone") {
        return Some(
            "cp 9.1 leaves an empty file where --reflink=always failed, later ones do not",
        );
    }
    if says("getting attribute 'user.") {
        return Some("cp gives up on a directory whose attributes it may not read");
    }
    if says("setting attribute 'user.") && case.options.contains(&"s") {
        return Some("cp -s --preserve=xattr would give the link what only its target can have");
    }
    if difference.about.starts_with("cp: setting attribute") {
        return Some("cp 9.1 names the attribute that could not be set, but not the file");
    }
    if difference.about.contains("mutually exclusive") {
        return Some("cp 9.1 words it differently");
    }
    if *MISPLACES_BACKUPS && case.makes_simple_backups() {
        return Some("cp 9.1 makes simple backups in the working directory");
    }
    let in_a_file = [
        "content ",
        "size ",
        "mtime ",
        "mode ",
        "xattrs ",
        "allocated ",
    ];
    let is_in_a_file = in_a_file.iter().any(|fact| difference.text.contains(fact));
    if is_in_a_file && case.has_two_ways_to_a_file() {
        return Some(
            "which of the sources that end up in one file is the last depends on the order",
        );
    }
    let is_about_a_link = ["Too many levels", "dangling symlink"];
    let is_about_a_link = is_about_a_link
        .iter()
        .any(|words| difference.text.contains(words));
    if is_about_a_link && case.has_two_ways_to_a_file() && (theirs.code, ours.code) == (1, 1) {
        return Some("what a link leads to may have been copied already, or not");
    }
    let links = [
        "content ",
        "same file as",
        "mtime ",
        "removed ",
        "kind file became symlink",
        "target ",
    ];
    let is_linked = links.iter().any(|fact| difference.text.contains(fact))
        || says("cannot create hard link")
        || (says("are the same file") && !we_say_same);
    if case.options.contains(&"u") && is_linked {
        return Some("cp -u links names of one source file that are up to date, kept links or not");
    }
    let says_new = |line: &String| {
        line.contains("will not overwrite just-created") || line.contains("overwrite ")
    };
    if case.options.contains(&"parents") && ours.messages.iter().any(says_new) {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    if case.is_new_mtime_of_a_dir(&difference.text) {
        return Some("a directory changes when a file in it is replaced by a new one");
    }
    if drops_special_bits(&difference.text) {
        return Some("cp leaves special bits of an existing file where the source has none");
    }
    let endless =
        |line: &String| line.contains("into itself") || line.contains("will not create hard link");
    let mut messages = theirs.messages.iter().chain(&ours.messages);
    if theirs.code == 1 && ours.code == 1 && messages.any(endless) {
        return Some("how far a copy into itself goes depends on the order of names");
    }
    let leaves_alone = case.options.contains(&"n") || case.options.contains(&"u");
    if says("into itself") && ours.code == 0 && leaves_alone {
        return Some("a directory that is its own copy, and left alone, is no error");
    }
    None
}

impl Case {
    fn makes_backups(&self) -> bool {
        let backups = ["b", "backup", "S"];
        backups.iter().any(|name| self.options.contains(name))
    }

    /// Whether simple backups are asked for by that name, or `never`.
    fn makes_simple_backups(&self) -> bool {
        let options = self
            .words
            .iter()
            .filter_map(|word| word.strip_prefix("--b"));
        let values = options.filter_map(|option| Some(option.split_once('=')?.1));
        let from_environment = self.environment.iter().map(|(_, value)| *value);
        let mut controls = values.chain(from_environment);
        controls.any(|control| control.starts_with('s') || control.starts_with("ne"))
    }

    /// `"d": mtime … became now`, of a directory that was there.
    fn is_new_mtime_of_a_dir(&self, text: &str) -> bool {
        let is_about = |path: &str| text.starts_with(&format!("\"{path}\": mtime "));
        let is_it =
            |thing: &Thing| thing.kind == Kind::Dir && is_about(&format!("{HERE}/{}", thing.path));
        let is_there = is_about(HERE) || self.things.iter().any(is_it);
        // With these a directory may be there because another operand has been copied.
        text.ends_with(" became now") && (is_there || self.options.contains(&"parents"))
    }

    /// Whether names of one source file may be met twice, by several operands, and are linked.
    fn links_further_names(&self) -> bool {
        let keeps_links = |word: &String| match word.strip_prefix("--") {
            Some(long) => long.starts_with("ar") || long.starts_with("preserve"),
            None => word.starts_with('-') && word.contains(['a', 'd']),
        };
        let is_link = |thing: &Thing| matches!(thing.kind, Kind::HardLink(_));
        self.words.iter().any(keeps_links)
            && (self.options.contains(&"L") || self.things.iter().any(is_link))
    }

    /// Whether several names in the destination may be one file, or a source is one of them.
    pub(super) fn has_two_ways_to_a_file(&self) -> bool {
        self.things.iter().any(|thing| match &thing.kind {
            Kind::Symlink(_) | Kind::HardLink(_) if thing.path.starts_with("d/") => true,
            Kind::Symlink(to) => to.contains("d/"),
            _ => false,
        })
    }
}

/// Whether `cp` puts simple backups of a directory's files elsewhere.
static MISPLACES_BACKUPS: LazyLock<bool> = LazyLock::new(|| {
    let sandbox = Sandbox::new();
    sandbox.file("a", 1);
    sandbox.file("d/a", 1);
    sandbox.cp(["--backup=simple", "a", "d"]).run();
    !sandbox.path("d/a~").exists()
});

/// Whether a difference is that special bits are gone: `… mode 2755 became 0755`.
fn drops_special_bits(text: &str) -> bool {
    let Some((_, modes)) = text.trim_end().rsplit_once(": mode ") else {
        return false;
    };
    let mode = |text: &str| u32::from_str_radix(text, 8).ok();
    let modes = modes.split_once(" became ");
    matches!(
        modes.map(|(theirs, ours)| (mode(theirs), mode(ours))),
        Some((Some(theirs), Some(ours))) if theirs & 0o777 == ours & 0o777 && ours & !theirs == 0
    )
}

static SKIPS_IN_SILENCE: LazyLock<bool> = LazyLock::new(|| Need::SilentNoClobber.is_met());
