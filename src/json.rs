//! The report as JSON: what [`Report::to_json`] makes.
//!
//! # The schema (`"schema": 1`)
//!
//! One object. Sizes are bytes, times are seconds.
//!
//! | key | what |
//! |---|---|
//! | `schema` | 1; a change that breaks a reader makes it 2, a new key does not |
//! | `version` | poolcp's version |
//! | `options` | an object: what was asked for, with the names of [`Options`]' fields; choices are the names of their variants (`"if_changed"`); `filter` has `rules`, `gitignore`, `min_size`, `max_size` and `newer_than` (seconds since the epoch, or null) |
//! | `elapsed_seconds` | from the start of the copy to its end |
//! | `workers` | how many workers the pool had, 1 where a copy needed none (one file that is not large); if the number was found while the copy ran (`-j auto`), the most that were busy |
//! | `busy_workers` | with `-j auto` and a pool an object, else null: `least`, `median` and `most` busy workers, and `series`, pairs of seconds since the start and the mean number of busy workers since the pair before, 1,024 at most |
//! | `dry_run` | nothing was changed: the counts are what would have been done |
//! | `cancelled` | it was told to stop, and may not have copied everything |
//! | `files`, `directories`, `symlinks`, `hard_links`, `specials` | entries made (`directories`: made or merged into; `hard_links`: further names of a file already copied) |
//! | `bytes` | the sizes of the regular files copied, holes included |
//! | `bytes_moved` | the bytes that were really moved |
//! | `bytes_by_method` | an object: `reflink` (shared, not moved), `kernel` (copy_file_range), `read_write` |
//! | `files_per_second`, `bytes_per_second` | regular files and `bytes` over the elapsed time |
//! | `bytes_verified`, `verify_seconds` | bytes read back and found to be as they were written; what that took, over all workers |
//! | `skipped` | destinations left alone on purpose |
//! | `excluded` | sources left out by the filter; a directory counts as one, whatever is in it |
//! | `attributes_only` | entries whose data was up to date or not to be copied (`--attributes-only`), and that got attributes only |
//! | `deleted` | entries of the destination removed because the source does not have them |
//! | `warnings`, `errors` | counts |
//! | `error_list`, `warning_list` | the first [`Report::KEPT_ERRORS`] of each: objects with `operation`, `path`, `other_path`, `errno` (null where no system call failed) and `message`; a path that is not UTF-8 is shown with replacement characters |
//! | `errors_by_kind` | all errors, counted: objects with `operation`, `errno`, `message` (without paths) and `count`, the most frequent first |

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::busy::Busy;
use crate::error::Error;
use crate::filter::Rule;
use crate::options::{Options, Preserve};
use crate::report::{ErrorCount, Report};

impl Report {
    /// The report as one JSON object, by the schema in the documentation of [`crate::json`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        let stats = &self.stats;
        json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "options": options(&self.options),
            "elapsed_seconds": self.elapsed.as_secs_f64(),
            "workers": self.workers,
            "cancelled": self.cancelled,
            "dry_run": self.dry_run,
            "busy_workers": self.busy.as_ref().map(busy),
            "files": stats.files,
            "directories": stats.directories,
            "symlinks": stats.symlinks,
            "hard_links": stats.hard_links,
            "specials": stats.specials,
            "bytes": stats.bytes,
            "bytes_moved": stats.bytes_moved(),
            "bytes_by_method": {
                "reflink": stats.reflinked_bytes,
                "kernel": stats.kernel_bytes,
                "read_write": stats.read_write_bytes,
            },
            "files_per_second": self.per_second(stats.files),
            "bytes_per_second": self.per_second(stats.bytes),
            "bytes_verified": stats.verified_bytes,
            "verify_seconds": Duration::from_nanos(stats.verify_nanoseconds).as_secs_f64(),
            "skipped": stats.skipped,
            "excluded": stats.excluded,
            "attributes_only": stats.dressed,
            "deleted": stats.deleted,
            "warnings": stats.warnings,
            "errors": stats.errors,
            "error_list": self.errors.iter().map(error).collect::<Vec<_>>(),
            "warning_list": self.warnings.iter().map(error).collect::<Vec<_>>(),
            "errors_by_kind": self.error_counts.iter().map(kind).collect::<Vec<_>>(),
        })
    }
}

fn busy(busy: &Busy) -> Value {
    let thousandths = |x: f64| (x * 1e3).round() / 1e3;
    let series = busy.series().iter();
    let series: Vec<_> = series
        .map(|(at, busy)| (thousandths(at.as_secs_f64()), thousandths(*busy)))
        .collect();
    json!({
        "least": busy.least(),
        "median": busy.median(),
        "most": busy.most(),
        "series": series,
    })
}

fn error(error: &Error) -> Value {
    json!({
        "operation": format!("{:?}", error.operation()),
        "path": text(error.path()),
        "other_path": error.other_path().map(text),
        "errno": error.errno(),
        "message": error.to_string(),
    })
}

fn kind(kind: &ErrorCount) -> Value {
    json!({
        "operation": format!("{:?}", kind.operation),
        "errno": kind.errno,
        "message": kind.to_string(),
        "count": kind.count,
    })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Taken apart without "and the rest", so that no option is forgotten here.
fn options(options: &Options) -> Value {
    let Options {
        recursive,
        copy_contents,
        follow,
        preserve,
        make,
        attributes_only,
        overwrite,
        ask,
        backup,
        suffix,
        force,
        remove_destination,
        parents,
        strip_trailing_slashes,
        keep_directory_symlink,
        write_through_dangling,
        one_file_system,
        atomic,
        verify,
        durable,
        reflink,
        sparse,
        filter,
        delete,
        dry_run,
        bandwidth,
    } = options;
    let Preserve {
        mode,
        default_mode,
        ownership,
        timestamps,
        links,
        xattrs,
        context,
    } = preserve;
    json!({
        "recursive": recursive,
        "copy_contents": copy_contents,
        "follow": name(follow),
        "preserve": {
            "mode": mode,
            "default_mode": default_mode,
            "ownership": ownership,
            "timestamps": timestamps,
            "links": links,
            "xattrs": name(xattrs),
            "context": name(context),
        },
        "make": name(make),
        "attributes_only": attributes_only,
        "overwrite": name(overwrite),
        "ask": ask,
        "backup": name(backup),
        "suffix": suffix.to_string_lossy(),
        "force": force,
        "remove_destination": remove_destination,
        "parents": parents,
        "strip_trailing_slashes": strip_trailing_slashes,
        "keep_directory_symlink": keep_directory_symlink,
        "write_through_dangling": write_through_dangling,
        "one_file_system": one_file_system,
        "atomic": name(atomic),
        "verify": verify,
        "durable": durable,
        "reflink": name(reflink),
        "sparse": name(sparse),
        "filter": {
            "rules": filter.rules().iter().map(rule).collect::<Vec<_>>(),
            "gitignore": filter.gitignore,
            "min_size": filter.sizes.start(),
            "max_size": filter.sizes.end(),
            "newer_than": filter.newer_than.map(since_epoch),
        },
        "delete": name(delete),
        "dry_run": dry_run,
        "bandwidth": bandwidth,
    })
}

/// Seconds, with their fractions; negative before 1970.
fn since_epoch(moment: SystemTime) -> f64 {
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

fn rule(rule: &Rule) -> Value {
    match rule {
        Rule::Exclude(glob) => json!({ "exclude": glob }),
        Rule::Include(glob) => json!({ "include": glob }),
    }
}

/// A choice's name as JSON has names: `IfChanged` is `if_changed`.
fn name(choice: &impl Debug) -> String {
    let mut name = String::new();
    for c in format!("{choice:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;
    use crate::options::Overwrite;
    use crate::report::tests::report;

    #[test]
    fn json_has_bytes_and_seconds() {
        let mut report = report();
        let error = Error::new(Operation::Open, "x").with_errno(crate::sys::Errno::ACCESS);
        report.errors.push(error);
        report.stats.errors = 1;
        let json = report.to_json();
        assert_eq!(json["bytes"], 3_u64 << 30);
        assert_eq!(json["elapsed_seconds"], 2.0);
        assert_eq!(json["error_list"][0]["errno"], 13);
        assert_eq!(json["error_list"][0]["operation"], "Open");
    }

    #[test]
    fn choices_have_names_as_keys_have() {
        assert_eq!(name(&Overwrite::IfChanged), "if_changed");
        assert_eq!(name(&Overwrite::Never), "never");
        let json = options(&Options::archive());
        assert_eq!(json["preserve"]["xattrs"], "if_possible");
        assert_eq!(json["recursive"], true);
    }

    #[test]
    fn a_moment_is_in_seconds_since_the_epoch() {
        let mut some = Options::archive();
        assert_eq!(options(&some)["filter"]["newer_than"], Value::Null);
        let half_a_second = Duration::from_millis(500);
        some.filter.newer_than = Some(SystemTime::UNIX_EPOCH + half_a_second);
        assert_eq!(options(&some)["filter"]["newer_than"], 0.5);
        some.filter.newer_than = Some(SystemTime::UNIX_EPOCH - half_a_second);
        assert_eq!(options(&some)["filter"]["newer_than"], -0.5);
    }
}
