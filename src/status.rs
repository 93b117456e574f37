//! What is said about a copy while it runs, in words: the lines of the live view, as wide as there is room, and the one line
//! that SIGUSR1 asks for. Pure functions; drawing is `progress.rs`'s.
//!
//! A narrow terminal gets shorter words first, then less. What is left out last is what people look for first: errors, how
//! far it is, the bytes, the time left, the rate, the entries, the workers.

use std::time::Duration;

use humansize::{BINARY, format_size};
use poolcp::{LargeFile, quote};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::pace::View;
use crate::wording::thousands;

/// A bar that is shorter says no more than the percentage beside it.
const SHORTEST_BAR: usize = 10;

/// A longer one says no more than this.
const LONGEST_BAR: usize = 40;

/// The brackets around a bar, and the blanks behind it.
const AROUND_BAR: usize = 4;

/// A spinner and a blank.
const SPINNER: usize = 2;

/// At most so many files are shown.
const MOST_FILES: usize = 4;

/// Less of a file's name says too little: rather no bytes.
const SHORTEST_NAME: usize = 16;

/// Between two facts on a line.
const GAP: &str = "  ";

/// What is drawn.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines {
    /// How many columns the bar has; without one there is a spinner.
    pub bar: Option<usize>,
    /// What stands behind it.
    pub overall: String,
    /// Below it, a line for each of the largest files.
    pub files: Vec<String>,
}

/// One fact, in words and in fewer words. The lowest rank goes first if there is no room.
struct Fact {
    rank: u8,
    long: String,
    short: String,
}

impl Fact {
    fn new(rank: u8, long: impl Into<String>, short: impl Into<String>) -> Self {
        let (long, short) = (long.into(), short.into());
        Self { rank, long, short }
    }
}

/// What is known besides the view.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How many workers there are, unless their number is found.
    pub workers: usize,
    /// At the end everything is written to its device (`--fsync`).
    pub durable: bool,
}

/// The lines for a terminal of this size. None is as wide as the terminal, so that none is wrapped.
pub fn lines(view: &View, setting: Setting, (columns, rows): (usize, usize)) -> Lines {
    let room = columns.saturating_sub(1);
    let facts = facts(view, setting);
    let (bar, overall) = overall(&facts, view.fraction.is_some(), room);
    // A quarter of the terminal, so that what was there before stays to be seen.
    let most = MOST_FILES.min(rows / 4);
    // A sole file is all that the first line is about.
    let shown = if view.found > 1 { most } else { 0 };
    let files = view.large.iter().take(shown);
    Lines {
        bar,
        overall,
        files: files.map(|file| file_line(file, room)).collect(),
    }
}

/// All facts on one line, for whatever is not a terminal.
pub fn line(view: &View, setting: Setting) -> String {
    let facts = facts(view, setting);
    let words: Vec<&str> = facts.iter().map(|fact| fact.long.as_str()).collect();
    words.join(", ")
}

fn facts(view: &View, setting: Setting) -> Vec<Fact> {
    let mut facts = Vec::new();
    if view.errors > 0 {
        let errors = format!(
            "{} {}",
            thousands(view.errors),
            plural(view.errors, "error")
        );
        facts.push(Fact::new(9, errors.clone(), errors));
    }
    let is_over = view.is_found && view.done == view.found;
    if is_over && setting.durable {
        let what = "writing to the device";
        facts.push(Fact::new(8, what, what));
    } else if let Some(fraction) = view.fraction {
        let percent = format!("{:.0} %", (fraction * 100.0).floor());
        facts.push(Fact::new(8, percent.clone(), percent));
    }
    let (done, found) = (thousands(view.done), thousands(view.found));
    facts.push(if view.is_found {
        let noun = plural(view.found, "entry");
        Fact::new(
            4,
            format!("{done} of {found} {noun}"),
            format!("{done} of {found}"),
        )
    } else {
        Fact::new(
            4,
            format!("{done} of {found} entries found so far"),
            format!("{done} of {found} so far"),
        )
    });
    let bytes = bytes_of(view.bytes, view.total);
    facts.push(Fact::new(7, bytes.clone(), bytes));
    let rate = format!("{}/s", format_size(view.rate, BINARY));
    facts.push(Fact::new(5, rate.clone(), rate));
    facts.push(match view.left {
        Some(left) if !is_over => {
            let left = time(left);
            Fact::new(6, format!("about {left} left"), format!("{left} left"))
        }
        _ => {
            let passed = time(view.elapsed);
            Fact::new(2, format!("after {passed}"), passed)
        }
    });
    facts.push(match view.busy {
        Some(busy) => {
            let workers = plural(busy as u64, "worker");
            Fact::new(3, format!("{busy} {workers} busy"), format!("{busy} busy"))
        }
        None => {
            // A single file that is copied without a pool has one, whatever was asked for.
            let number = setting.workers.max(1);
            let workers = plural(number as u64, "worker");
            let workers = format!("{number} {workers}");
            Fact::new(1, workers.clone(), workers)
        }
    });
    facts
}

/// As much as there is room for: in long words with a bar, in short words with a bar, in short words alone, less and less.
fn overall(facts: &[Fact], has_bar: bool, room: usize) -> (Option<usize>, String) {
    let long: Vec<&str> = facts.iter().map(|fact| fact.long.as_str()).collect();
    let mut short: Vec<(u8, &str)> = facts
        .iter()
        .map(|fact| (fact.rank, fact.short.as_str()))
        .collect();
    let least = if has_bar {
        SHORTEST_BAR + AROUND_BAR
    } else {
        SPINNER
    };
    let mut text = long.join(GAP);
    if text.width() + least > room {
        text = joined(&short);
    }
    while text.width() + SPINNER > room && short.len() > 1 {
        let lowest = short.iter().map(|(rank, _)| *rank).min();
        short.retain(|(rank, _)| Some(*rank) != lowest);
        text = joined(&short);
    }
    let text = cut_end(text, room.saturating_sub(SPINNER));
    let left = room.saturating_sub(text.width() + AROUND_BAR);
    let bar = (has_bar && left >= SHORTEST_BAR).then(|| left.min(LONGEST_BAR));
    (bar, text)
}

fn joined(facts: &[(u8, &str)]) -> String {
    let words: Vec<&str> = facts.iter().map(|(_, words)| *words).collect();
    words.join(GAP)
}

/// What happens to a large file: its name, as much of it as there is room for, and how far it is.
fn file_line(file: &LargeFile, room: usize) -> String {
    let (passed, verb) = match file.verified {
        Some(verified) => (verified, "read back "),
        None => (file.moved, ""),
    };
    let percent = u128::from(passed) * 100 / u128::from(file.size.max(1));
    let name = quote(&file.source);
    let long = format!(
        "{percent} %{GAP}{verb}{}",
        bytes_of(passed, Some(file.size))
    );
    let short = format!("{percent} %{GAP}{verb}");
    // Two blanks before the name, and the gap.
    let left = |fact: &str| room.saturating_sub(fact.width() + 2 * GAP.len());
    let fact = if left(&long) >= name.width().min(SHORTEST_NAME) {
        &long
    } else {
        short.trim_end()
    };
    let name = cut_beginning(name, left(fact));
    cut_end(format!("{GAP}{name}{GAP}{fact}"), room)
}

/// A text's end, if there is no room for all of it: of a path that is what says most.
fn cut_beginning(text: String, room: usize) -> String {
    if text.width() <= room {
        return text;
    }
    let mut width = 3;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width <= room
    };
    let end: Vec<char> = text.chars().rev().take_while(fits).collect();
    let end: String = end.into_iter().rev().collect();
    cut_end(format!("...{end}"), room)
}

fn cut_end(text: String, room: usize) -> String {
    if text.width() <= room {
        return text;
    }
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width <= room
    };
    text.chars().take_while(fits).collect()
}

/// `1.20 of 3.40 GiB`; the first unit only if it is another one.
fn bytes_of(bytes: u64, total: Option<u64>) -> String {
    let bytes = format_size(bytes, BINARY);
    let Some(total) = total.map(|total| format_size(total, BINARY)) else {
        return bytes;
    };
    let unit = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
    match bytes.split_once(' ') {
        Some((number, own)) if unit(&total).as_deref() == Some(own) => {
            format!("{number} of {total}")
        }
        _ => format!("{bytes} of {total}"),
    }
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn plural(n: u64, word: &str) -> String {
    match word.strip_suffix('y') {
        _ if n == 1 => word.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{word}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const SETTING: Setting = Setting {
        workers: 2,
        durable: false,
    };

    fn view() -> View {
        View {
            elapsed: Duration::from_secs(35),
            found: 20_001,
            done: 12_345,
            is_found: true,
            bytes: 1_288_490_189,
            rate: 325_058_560,
            fraction: Some(0.628),
            left: Some(Duration::from_secs(72)),
            busy: Some(64),
            ..View::default()
        }
    }

    #[test]
    fn the_wider_the_more() {
        let line = |columns| {
            let lines = lines(&view(), SETTING, (columns, 24));
            (lines.bar, lines.overall)
        };
        let all = "62 %  12,345 of 20,001 entries  1.20 GiB  310 MiB/s  about 1 min 12 s left  64 workers busy";
        assert_eq!(line(200), (Some(40), all.to_owned()));
        assert_eq!(
            line(80),
            (
                None,
                "62 %  12,345 of 20,001  1.20 GiB  310 MiB/s  1 min 12 s left  64 busy".to_owned()
            )
        );
        let narrow = "62 %  1.20 GiB  1 min 12 s left";
        assert_eq!(line(40), (None, narrow.to_owned()));
        assert_eq!(line(8), (None, "62 %".to_owned()));
        assert_eq!(line(1).1, "");
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal() {
        for columns in 1..250 {
            let mut view = view();
            view.large = vec![
                large("photos/2024/a very long name of a film that nobody will ever see.mkv"),
                large("\u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57}"),
            ];
            for is_found in [true, false] {
                view.is_found = is_found;
                view.fraction = view.fraction.filter(|_| is_found);
                let lines = lines(&view, SETTING, (columns, 24));
                let bar = lines.bar.map_or(SPINNER, |bar| bar + AROUND_BAR);
                assert!(
                    bar + lines.overall.width() < columns.max(3),
                    "{columns}: {lines:?}"
                );
                assert!(lines.files.iter().all(|line| line.width() < columns));
            }
        }
    }

    fn large(source: impl Into<PathBuf>) -> LargeFile {
        let mut file = LargeFile::default();
        file.source = source.into();
        (file.size, file.moved) = (3 << 30, 1 << 30);
        file
    }

    #[test]
    fn files_are_below_where_there_is_room() {
        let mut view = view();
        view.large = (0..9).map(|i| large(format!("film-{i}"))).collect();
        let count = |rows| lines(&view, SETTING, (80, rows)).files.len();
        assert_eq!([24, 12, 4, 3, 0].map(count), [4, 3, 1, 0, 0]);
        let first = &lines(&view, SETTING, (80, 24)).files[0];
        assert_eq!(first, "  'film-0'  33 %  1 of 3 GiB");
        view.large[0] = large("a/long/way/to/film");
        let narrow = &lines(&view, SETTING, (28, 24)).files[0];
        assert_eq!(narrow, "  ...ong/way/to/film'  33 %");
        view.large[0].verified = Some(3 << 20);
        let narrow = &lines(&view, SETTING, (40, 24)).files[0];
        assert_eq!(narrow, "  'a/long/way/to/film'  0 %  read back");
    }

    #[test]
    fn while_entries_are_found_no_end_is_told() {
        let mut view = view();
        (view.is_found, view.fraction, view.left) = (false, None, None);
        let told = line(&view, SETTING);
        assert_eq!(
            told,
            "12,345 of 20,001 entries found so far, 1.20 GiB, 310 MiB/s, after 35 s, 64 workers busy"
        );
        (view.found, view.done, view.is_found, view.errors) = (1, 1, true, 1_000_000);
        view.busy = None;
        let setting = Setting {
            // As with -j auto, for one file without a pool.
            workers: 0,
            durable: true,
        };
        let told = line(&view, setting);
        assert_eq!(
            told,
            "1,000,000 errors, writing to the device, 1 of 1 entry, 1.20 GiB, 310 MiB/s, after 35 s, 1 worker"
        );
    }
}
