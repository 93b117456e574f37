//! Which entries are copied, as typed: globs, sizes and moments, for the library's [`Filter`].

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};
use poolcp::{Filter, Rule, quote};

use crate::cli::{Stop, impossible, usage};
use crate::units;
use crate::wording::without_number;

/// The parts of a filter, in the order in which they were typed.
#[derive(Default)]
pub struct Selection {
    rules: Vec<Rule>,
    min_size: Option<u64>,
    max_size: Option<u64>,
    newer_than: Option<SystemTime>,
    gitignore: bool,
}

impl Selection {
    /// Takes an option, if it is one of these. The last size and moment counts, and all globs do.
    pub fn choose(&mut self, id: &str, value: &OsStr) -> Result<(), Stop> {
        match id {
            "exclude" => self.rules.push(Rule::Exclude(glob(value)?)),
            "include" => self.rules.push(Rule::Include(glob(value)?)),
            "exclude_from" => self.rules.extend(rules_from(value)?),
            "gitignore" => self.gitignore = true,
            "min_size" => self.min_size = Some(size(value)?),
            "max_size" => self.max_size = Some(size(value)?),
            "newer" => self.newer_than = Some(moment(value)?),
            _ => {}
        }
        Ok(())
    }

    pub fn into_filter(self) -> Result<Filter, Stop> {
        let mut filter = Filter::new(self.rules).map_err(|error| usage(error.to_string()))?;
        filter.gitignore = self.gitignore;
        filter.sizes = sizes(self.min_size, self.max_size);
        filter.newer_than = self.newer_than;
        Ok(filter)
    }
}

fn sizes(min: Option<u64>, max: Option<u64>) -> RangeInclusive<u64> {
    min.unwrap_or(0)..=max.unwrap_or(u64::MAX)
}

fn glob(text: &OsStr) -> Result<String, Stop> {
    let glob = text.to_str().filter(|text| !text.is_empty());
    let glob = glob.map(str::to_owned);
    glob.ok_or_else(|| usage(format!("invalid glob: {}", quote(text))))
}

/// The globs in a file, one a line.
fn rules_from(path: &OsStr) -> Result<Vec<Rule>, Stop> {
    let mut bytes = Vec::new();
    let read = if path == "-" {
        io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|read| bytes = read)
    };
    if let Err(error) = read {
        let reason = without_number(&error);
        return Err(impossible(format!(
            "cannot open {} for reading: {reason}",
            quote(path)
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| impossible(format!("{} is not UTF-8", quote(path))))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().filter_map(Rule::from_line).collect())
}

fn size(text: &OsStr) -> Result<u64, Stop> {
    let bytes = text.to_str().and_then(units::bytes);
    bytes.ok_or_else(|| usage(format!("invalid size: {}", quote(text))))
}

/// When a file was modified, if it is one; else a date (`2026-01-31`, `2026-01-31 12:00`, with a zone if not the user's
/// own) or a time ago (`2h`, `3 days`).
fn moment(text: &OsStr) -> Result<SystemTime, Stop> {
    if let Ok(metadata) = fs::metadata(text) {
        return metadata
            .modified()
            .map_err(|error| impossible(format!("{}: {error}", quote(text))));
    }
    let moment = text.to_str().and_then(parse_moment);
    moment.ok_or_else(|| {
        let text = quote(text);
        usage(format!(
            "neither a file, nor a date, nor a time ago: {text}"
        ))
    })
}

fn parse_moment(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(parse_timestamp(text)?).ok()
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    if let Ok(moment) = text.parse::<ZonedDateTime>() {
        return Some(moment.timestamp());
    }
    if let Ok(moment) = text.parse::<DateTime>() {
        // A zone that nobody knows is not the user's.
        let has_zone = text.contains('[');
        return TimeZone::system()
            .to_timestamp(moment)
            .ok()
            .filter(|_| !has_zone);
    }
    let ago = text.trim_end().strip_suffix("ago").unwrap_or(text);
    // As for find(1), -2h is the same time ago as 2h: nothing is newer than what is to come.
    let ago = ago.trim().parse::<Span>().ok()?.abs();
    Some(ZonedDateTime::now().checked_sub(ago).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_or_times_ago() {
        let at = |text| parse_timestamp(text).map(Timestamp::as_second);
        assert_eq!(at("2026-01-31T12:00:00Z"), Some(1_769_860_800));
        assert_eq!(at("2026-01-31T12:00:00+01:00"), Some(1_769_857_200));
        assert!(at("2026-01-31").is_some() && at("2026-01-31 12:00").is_some());
        let now = Timestamp::now().as_second();
        for (text, seconds) in [
            ("2h", 7200),
            ("2 hours ago", 7200),
            ("2 hours\tago", 7200),
            ("-2h", 7200),
            ("-2h ago", 7200),
            ("PT2H", 7200),
            ("90s", 90),
            ("1d", 86_400),
        ] {
            let ago = now - at(text).expect(text);
            // A day may be an hour shorter or longer.
            assert!((ago - seconds).abs() <= 3605, "{text}: {ago}");
        }
        assert_eq!(at("yesterday or so"), None);
        assert_eq!(at("2026-01-31T12:00[UTC]"), Some(1_769_860_800));
        assert_eq!(at("2026-01-31T12:00[Nowhere/Nothing]"), None);
        assert_eq!(at("2026-01-31T12:00+01"), Some(1_769_857_200));
        assert_eq!(at("2026-01-31T12:00+0100"), Some(1_769_857_200));
        assert_eq!(at("2026-01-31T12:00 +01:00"), None);
        assert_eq!(at("2026-01-31T12:00+99:00"), None);
        assert_eq!(at(""), None);
    }

    #[test]
    fn nothing_that_is_typed_panics() {
        for text in [
            "9999999999999 years",
            "-9999-01-01",
            "99999-01-01",
            "P1Y",
            "1e9",
            "∞",
            "0.000000000000000000000001K",
        ] {
            let _ = (
                parse_moment(text),
                glob(OsStr::new(text)).is_ok(),
                size(OsStr::new(text)).is_ok(),
            );
        }
    }
}
