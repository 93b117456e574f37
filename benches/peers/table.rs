//! Results as Markdown, for people and for pasting.

use std::fmt::Write;

use crate::contestant;
use crate::results::{Cell, Entry, Results, Summary, geometric_mean};

/// Where and what was measured.
pub fn header(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# poolcp and its peers\n\n{}, {} cores, {} GiB, Linux {}; {}; {} scale, {} rounds{}.\n\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        results.date,
        results.scale,
        results.rounds,
        if results.hurried {
            ", one for those far behind"
        } else {
            ""
        }
    );
    let versions = results
        .contestants
        .iter()
        .map(|program| program.to_string());
    let versions: Vec<_> = versions.collect();
    line(
        &mut text,
        format_args!("Contestants: {}.", versions.join("; ")),
    );
    for missing in &results.missing {
        line(
            &mut text,
            format_args!("Missing: {} (`{}`).", missing.name, missing.install),
        );
    }
    text
}

/// One cell, the fastest first.
pub fn cell(cell: &Cell) -> String {
    let [workload, filesystem, cache, mode] = &cell.words;
    let others = cell.others.map_or_else(String::new, |others| {
        let others = others * 100.0;
        format!(" Others, and threads of the kernel, had {others:.0} % of the processors.")
    });
    let mut text = format!(
        "## {workload}, {filesystem}, {cache}, -{mode}\n\n{}.{others}\n\n",
        cell.description
    );
    text.push_str(
        "| contestant | median s | min s | user s | system s | peak MiB | to best peer | to limit | remarks |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let rounds = cell.entries.iter().map(|entry| entry.rounds.len());
    let rounds = rounds.max().unwrap_or(0);
    let mut has_limit = false;
    for entry in &cell.entries {
        // The second variant of the limit is in the JSON.
        if !entry.is_limit() || !std::mem::replace(&mut has_limit, true) {
            text.push_str(&row(entry, rounds));
        }
    }
    text
}

/// A contestant's line; `rounds` is how many others took part in.
fn row(entry: &Entry, rounds: usize) -> String {
    let Some(summary) = entry.summary else {
        let failure = entry.failure.as_deref().unwrap_or("not run");
        return format!(
            "| {} | | | | | | | | **failed**: {} |\n",
            cell_text(&entry.contestant),
            cell_text(failure)
        );
    };
    let Summary {
        median,
        min,
        user,
        system,
        peak_memory,
        to_peer,
        to_limit,
    } = summary;
    let mut remarks = Vec::new();
    if !entry.faults.is_empty() {
        remarks.push(format!("**wrong**: {}", entry.faults.join("; ")));
    }
    if !entry.omissions.is_empty() {
        remarks.push(format!("does not keep {}", entry.omissions.join(", ")));
    }
    if entry.rounds.len() < rounds {
        remarks.push(format!("{} of {rounds} rounds", entry.rounds.len()));
    }
    remarks.push(entry.variant.clone());
    // The limit's memory is that of its list.
    let peak_memory = if entry.is_limit() {
        String::new()
    } else {
        format!("{:.1}", peak_memory as f64 / 1024.0)
    };
    format!(
        "| {} | {median:.3} | {min:.3} | {user:.3} | {system:.3} | {peak_memory} | {} | {} | {} |\n",
        cell_text(&entry.contestant),
        ratio(to_peer),
        ratio(to_limit),
        cell_text(&remarks.join("; ")),
    )
}

/// All cells in a line each, and the mean ratios.
pub fn summary(results: &Results) -> String {
    let mut text = String::from(
        "## Summary\n\n\
         Seconds are medians; poolcp's is the better of its two. Ratios below 1 are faster.\n\n\
         | cell | poolcp s | best peer | its s | limit s | to best peer | to limit |\n\
         |---|--:|---|--:|--:|--:|--:|\n",
    );
    let (mut to_peers, mut to_limits) = (Vec::new(), Vec::new());
    for cell in &results.cells {
        let poolcp = cell.poolcp().and_then(|entry| entry.summary);
        let (peer, time) = match &cell.best_peer {
            Some((name, time)) => (name.as_str(), Some(*time)),
            None => ("none", None),
        };
        line(
            &mut text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                cell.name(),
                seconds(poolcp.map(|summary| summary.median)),
                cell_text(peer),
                seconds(time),
                seconds(cell.limit),
                ratio(poolcp.and_then(|summary| summary.to_peer)),
                ratio(poolcp.and_then(|summary| summary.to_limit)),
            ),
        );
        to_peers.extend(poolcp.and_then(|summary| summary.to_peer));
        to_limits.extend(poolcp.and_then(|summary| summary.to_limit));
    }
    line(
        &mut text,
        format_args!(
            "| **geometric mean** | | | | | {} | {} |",
            ratio(geometric_mean(&to_peers)),
            ratio(geometric_mean(&to_limits))
        ),
    );
    for (name, reason) in &results.left_out {
        line(&mut text, format_args!("\nLeft out: {name}: {reason}"));
    }
    text
}

/// What poolcp's own choice of workers costs against the best fixed number, in each cell.
pub fn auto(results: &Results) -> String {
    let mut text = String::from(
        "## As many workers as it likes\n\n\
         Seconds are medians, with the least and the most; a ratio below 1 is faster than the best fixed number.\n\n\
         | cell | best | s | auto s | ratio |\n\
         |---|---|--:|--:|--:|\n",
    );
    for cell in &results.cells {
        let measured = cell.entries.iter().filter(|entry| entry.summary.is_some());
        let (auto, mut fixed): (Vec<_>, Vec<_>) =
            measured.partition(|entry| entry.contestant == contestant::POOLCP);
        // One round may have been luck.
        fixed.retain(|entry| entry.rounds.len() == results.rounds);
        // The fastest comes first.
        if let (Some(auto), Some(best)) = (auto.first(), fixed.first()) {
            let number = best.contestant.split(' ').next_back().unwrap_or_default();
            line(
                &mut text,
                format_args!(
                    "| {} | {number} | {} | {} | {:.2} |",
                    cell.name(),
                    spread(best),
                    spread(auto),
                    auto.median() / best.median(),
                ),
            );
        }
    }
    text
}

/// A median and where the rounds lie.
fn spread(entry: &Entry) -> String {
    let walls = || entry.rounds.iter().map(|usage| usage.wall);
    let (least, most) = (
        walls().fold(f64::MAX, f64::min),
        walls().fold(0.0, f64::max),
    );
    format!("{:.3} ({least:.3}-{most:.3})", entry.median())
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

/// A pipe would end a cell.
fn cell_text(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(text: &mut String, arguments: std::fmt::Arguments) {
    // A string takes everything.
    let _ = writeln!(text, "{arguments}");
}
