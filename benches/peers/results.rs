//! What was measured, as JSON has it; and the numbers that are made of it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::contestant::{Contestant, Missing};
use crate::machine::Machine;
use crate::runner::Usage;

/// Everything that the bench has measured, in one call or in several that went on from there.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub date: String,
    pub machine: Machine,
    pub scale: String,
    pub rounds: usize,
    /// Who was far behind was not asked so often.
    pub hurried: bool,
    pub contestants: Vec<Program>,
    pub missing: Vec<Missing>,
    /// Cells that could not be measured, and why.
    pub left_out: Vec<(String, String)>,
    pub cells: Vec<Cell>,
    pub threads: Vec<Curve>,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    name: String,
    version: String,
}

impl Program {
    pub fn of(contestant: &Contestant) -> Self {
        Self {
            name: contestant.name().to_owned(),
            version: contestant.version().to_owned(),
        }
    }
}

impl fmt::Display for Program {
    /// The version, which mostly begins with the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version } = self;
        if version.starts_with(name) {
            f.write_str(version)
        } else {
            write!(f, "{name}: {version}")
        }
    }
}

/// Times over numbers of threads.
#[derive(Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    /// Numbers of threads, with the seconds of each round.
    pub points: Vec<(usize, Vec<f64>)>,
    /// Seconds that poolcp took in each round with as many as it liked.
    pub auto: Vec<f64>,
    /// Seconds that `cp` took in each round, which has one thread always.
    pub cp: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
pub struct Cell {
    /// Workload, filesystem, cache and mode.
    pub words: [String; 4],
    pub description: String,
    pub entries: Vec<Entry>,
    /// The fastest tool that is neither poolcp nor wrong, and its median in seconds.
    pub best_peer: Option<(String, f64)>,
    /// Seconds.
    pub limit: Option<f64>,
    /// The part of all processors that went to others during the rounds.
    pub others: Option<f64>,
}

/// One contestant in one cell.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub contestant: String,
    pub variant: String,
    /// What went wrong, if it could not copy at all.
    pub failure: Option<String>,
    /// What it has copied differently, and should not have.
    pub faults: Vec<String>,
    /// What it does not keep, and does not claim to keep.
    pub omissions: Vec<String>,
    /// The seconds of each variant in the quick pass, or what went wrong.
    quick_pass: Vec<(String, Result<f64, String>)>,
    pub rounds: Vec<Usage>,
    pub summary: Option<Summary>,
}

/// What is made of an entry's rounds. Seconds; medians, if not said otherwise.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub user: f64,
    pub system: f64,
    /// KiB, the most of all rounds.
    pub peak_memory: i64,
    /// The median over that of the best peer.
    pub to_peer: Option<f64>,
    /// The median over that of the limit.
    pub to_limit: Option<f64>,
}

impl Results {
    /// Whether both were measured in the same way: then their cells belong in one table.
    fn goes_with(&self, other: &Self) -> bool {
        self.machine == other.machine
            && (&self.scale, self.rounds) == (&other.scale, other.rounds)
            && self.hurried == other.hurried
            && self.contestants == other.contestants
    }

    /// Takes the cells and the curves over that a file of results has, if there is one.
    pub fn go_on(&mut self, path: &Path) -> io::Result<()> {
        let before: Self = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => serde_json::from_reader(BufReader::new(file?))?,
        };
        if !self.goes_with(&before) {
            let what =
                "another machine, other contestants, another scale, other rounds or another hurry";
            let path = path.display();
            return Err(io::Error::other(format!(
                "cannot go on from {path}: {what}"
            )));
        }
        let (began, _) = before.date.split_once(' ').unwrap_or((&before.date, ""));
        self.date = format!("{began} to {}", self.date);
        self.cells = before.cells;
        self.threads = before.threads;
        Ok(())
    }

    pub fn has(&self, words: [&str; 4]) -> bool {
        self.cells.iter().any(|cell| cell.words == words)
    }
}

impl Entry {
    pub fn new(
        contestant: &str,
        variant: &str,
        failure: Option<String>,
        quick_pass: Vec<(String, Result<f64, String>)>,
    ) -> Self {
        Self {
            contestant: contestant.to_owned(),
            variant: variant.to_owned(),
            failure,
            faults: Vec::new(),
            omissions: Vec::new(),
            quick_pass,
            rounds: Vec::new(),
            summary: None,
        }
    }

    pub fn is_poolcp(&self) -> bool {
        self.contestant.starts_with("poolcp")
    }

    pub fn is_limit(&self) -> bool {
        self.contestant == "limit"
    }

    /// Whether its copy was one, and all that it claims to be.
    pub fn is_right(&self) -> bool {
        self.failure.is_none() && self.faults.is_empty()
    }

    /// Seconds.
    pub fn median(&self) -> f64 {
        self.summary.map_or(f64::MAX, |summary| summary.median)
    }

    fn summarize(&mut self) {
        if self.failure.is_some() || self.rounds.is_empty() {
            return;
        }
        let all = |of: fn(&Usage) -> f64| self.rounds.iter().map(of).collect::<Vec<_>>();
        let walls = all(|usage| usage.wall);
        self.summary = Some(Summary {
            median: median(&walls),
            min: walls.iter().copied().fold(f64::MAX, f64::min),
            user: median(&all(|usage| usage.user)),
            system: median(&all(|usage| usage.system)),
            peak_memory: self
                .rounds
                .iter()
                .map(|usage| usage.peak_memory)
                .max()
                .unwrap_or(0),
            to_peer: None,
            to_limit: None,
        });
    }
}

impl Cell {
    /// Makes the numbers; the fastest comes first.
    pub fn new(
        description: &str,
        words: [&str; 4],
        mut entries: Vec<Entry>,
        others: Option<f64>,
    ) -> Self {
        entries.iter_mut().for_each(Entry::summarize);
        entries.sort_by(|a, b| a.median().total_cmp(&b.median()));
        let right = |entry: &&Entry| entry.is_right() && entry.summary.is_some();
        let best_peer = entries
            .iter()
            .filter(right)
            .find(|entry| !entry.is_poolcp() && !entry.is_limit())
            .map(|entry| (entry.contestant.clone(), entry.median()));
        let limit = entries.iter().filter(right).find(|entry| entry.is_limit());
        let limit = limit.map(Entry::median);
        for entry in &mut entries {
            if let Some(summary) = &mut entry.summary {
                summary.to_peer = best_peer.as_ref().map(|(_, best)| summary.median / best);
                summary.to_limit = limit.map(|limit| summary.median / limit);
            }
        }
        Self {
            words: words.map(str::to_owned),
            description: description.to_owned(),
            entries,
            best_peer,
            limit,
            others,
        }
    }

    /// As one selects it on the command line.
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    /// The better of poolcp's entries.
    pub fn poolcp(&self) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.is_poolcp() && entry.summary.is_some())
    }
}

/// The middle one, or the mean of the middle two; of nothing it is not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The right mean for ratios; nothing of nothing.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let logarithms = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>();
    (!ratios.is_empty()).then(|| (logarithms / ratios.len() as f64).exp())
}
