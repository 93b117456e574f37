//! One cell: everybody copies the same source on the same filesystem, in turn.
//!
//! 1. A copy that does not count warms the cache and tells how long a hanging contestant is to be waited for.
//! 2. The quick pass: every variant of every contestant once, to choose the one that takes part.
//! 3. The rounds: everybody once in each, in an order drawn for each (the same in every run of the bench). What changes with
//!    time, such as a disk's or a processor's mood, meets everybody alike; and nobody is always the one who runs behind a
//!    certain other.
//!
//! A test has neither 1 nor 2, and one round. With `--hurry`
//!
//! - who was far behind in 2 takes part in the first round only: it is compared with the source there, and its one time counts
//!   as a median does (but as no best number of workers);
//! - a tool whose first variant is far behind is not asked for others, on warm caches and small files;
//! - the limit is looked for with directories made ahead, then just in time with the best method, then with other numbers of
//!   threads nearby.
//!
//! In the first round each copy is compared with the source. After every run the copy is removed and the
//! filesystem settles, outside the clock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rayon::prelude::*;

use crate::arguments::Arguments;
use crate::contestant::{Contestant, Mode, POOLCP, Variant};
use crate::filesystem::{Cache, Filesystem, Kind};
use crate::limit::{self, Task};
use crate::random::SplitMix64;
use crate::results::{Cell, Entry};
use crate::runner::{self, Outcome, Usage};
use crate::verify::{Differences, Verdict};
use crate::watch::Watch;
use crate::workload::Workload;

/// For the first copy, of which nothing is known.
const LONGEST_COPY: Duration = Duration::from_secs(900);

/// Who takes so many times as long as the first copy, and the seconds below, hangs, or might as well.
const HANGING: f64 = 20.0;
const GRACE: Duration = Duration::from_secs(30);

/// Who takes so many times as long as the fastest tool is far behind, by more than chance.
const FAR_BEHIND: f64 = 2.0;

/// The same for poolcp with a number of workers, beside others of its kind.
const BEHIND_ITSELF: f64 = 1.3;

/// Draws the order of the rounds.
const SEED: u64 = 0x706f_6f6c;

/// So many variants of the limit take part in the rounds: the quick pass is one run each, and may err.
const LIMITS: usize = 2;

/// A source on a filesystem, with what is needed to have it copied.
pub struct Stage {
    pub filesystem: Filesystem,
    pub workload: Workload,
    pub kind: Kind,
    pub cache: Cache,
    /// In words, what is copied.
    pub description: String,
    /// The limit's list of it.
    pub list: PathBuf,
}

/// A contestant with the command line that it takes part with.
struct Candidate<'a> {
    contestant: &'a Contestant,
    way: Way,
    /// Seconds in the quick pass, if there was one and it succeeded.
    quick: Option<f64>,
    entry: Entry,
}

/// How a contestant copies.
#[derive(Clone)]
enum Way {
    Line(Variant),
    Limit(limit::Variant),
}

impl Way {
    fn name(&self) -> String {
        match self {
            Self::Line(variant) => variant.to_string(),
            Self::Limit(variant) => variant.to_string(),
        }
    }
}

/// What a cell is called.
pub fn words(workload: Workload, kind: Kind, cache: Cache, mode: Mode) -> [&'static str; 4] {
    [workload.name(), kind.name(), cache.name(), mode.name()]
}

/// Measures a cell.
pub fn measure(
    stage: &mut Stage,
    mode: Mode,
    contestants: &[Contestant],
    arguments: &Arguments,
) -> io::Result<Cell> {
    let mut run = Run {
        stage,
        mode,
        arguments,
        patience: LONGEST_COPY,
        fastest: f64::MAX,
    };
    run.remove_copy()?;
    run.stage.filesystem.settle()?;
    if mode == Mode::Again {
        run.make_copy()?;
    }
    if !arguments.is_test {
        run.warm_up(contestants)?;
    }
    let mut candidates = Vec::new();
    for contestant in contestants {
        candidates.extend(run.choose(contestant)?);
    }
    let fastest = run.fastest;
    let is_behind = |one: &Candidate<'_>| {
        let (is_judged, far) = if arguments.wants_auto() {
            (one.contestant.name() == POOLCP, BEHIND_ITSELF)
        } else {
            (one.entry.is_poolcp(), FAR_BEHIND)
        };
        !is_judged && one.quick.is_some_and(|time| time > far * fastest)
    };
    let watch = Watch::start();
    let mut random = SplitMix64::new(SEED);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    for round in 0..arguments.rounds {
        order.sort_by_cached_key(|_| random.below(u64::MAX));
        for &place in &order {
            let candidate = &mut candidates[place];
            if round == 0 || !arguments.hurries || !is_behind(candidate) {
                run.take_turn(candidate, round == 0)?;
            }
        }
    }
    let others = watch.and_then(|watch| watch.others());
    run.remove_copy()?;
    let entries = candidates.into_iter().map(|candidate| candidate.entry);
    Ok(Cell::new(
        &run.stage.description,
        words(run.stage.workload, run.stage.kind, run.stage.cache, mode),
        entries.collect(),
        others,
    ))
}

struct Run<'a> {
    stage: &'a mut Stage,
    mode: Mode,
    arguments: &'a Arguments,
    patience: Duration,
    /// Seconds of the fastest tool's quick pass so far.
    fastest: f64,
}

impl Run<'_> {
    fn warm_up(&mut self, contestants: &[Contestant]) -> io::Result<()> {
        for contestant in contestants {
            let Some(way) = self.lines(contestant).into_iter().next() else {
                continue;
            };
            if let Outcome::Done(usage) = self.copy(contestant, &way)? {
                self.patience = GRACE + Duration::from_secs_f64(HANGING * usage.wall);
                self.clear()?;
                break;
            }
            self.clear()?;
        }
        Ok(())
    }

    /// The command lines that a contestant has for this cell; none if it does not do this at all.
    fn lines(&self, contestant: &Contestant) -> Vec<Way> {
        if contestant.claims(self.mode).is_none() {
            return Vec::new();
        }
        let variants = contestant.variants(self.mode, self.stage.workload, self.arguments.cores);
        variants.into_iter().map(Way::Line).collect()
    }

    /// Runs a contestant's variants and chooses; the limit may take part with several.
    fn choose<'c>(&mut self, contestant: &'c Contestant) -> io::Result<Vec<Candidate<'c>>> {
        if self.arguments.is_test {
            return Ok(self.choose_untried(contestant));
        }
        let mut tried = Vec::new();
        let places = if matches!(contestant, Contestant::Limit) {
            tried = self.search_limit(contestant)?;
            LIMITS
        } else {
            for way in self.lines(contestant) {
                self.try_ways(contestant, vec![way], &mut tried)?;
                // The fastest comes first, if one succeeded.
                let Some((_, Ok(best))) = tried.first() else {
                    continue;
                };
                self.fastest = self.fastest.min(*best);
                if self.spares_variants() && *best > FAR_BEHIND * self.fastest {
                    break;
                }
            }
            1
        };
        let name = contestant.name();
        let quick = tried.iter().map(|(way, time)| (way.name(), time.clone()));
        let quick: Vec<_> = quick.collect();
        // Failures come last, and are told if there is nothing else.
        let successes = tried.iter().filter(|(_, time)| time.is_ok()).count();
        tried.truncate(places.min(successes.max(1)));
        let candidates = tried.into_iter().map(|(way, time)| Candidate {
            quick: time.as_ref().ok().copied(),
            entry: Entry::new(name, &way.name(), time.err(), quick.clone()),
            contestant,
            way,
        });
        Ok(candidates.collect())
    }

    /// What a test takes: a contestant's first command line, and of the limit one way with each method.
    fn choose_untried<'c>(&self, contestant: &'c Contestant) -> Vec<Candidate<'c>> {
        let mut ways = self.lines(contestant);
        ways.truncate(1);
        if matches!(contestant, Contestant::Limit) {
            let mut variants = self.limit_ways();
            variants.dedup_by_key(|variant| std::mem::discriminant(&variant.method));
            ways = variants.into_iter().map(Way::Limit).collect();
        }
        let candidates = ways.into_iter().map(|way| Candidate {
            quick: None,
            entry: Entry::new(contestant.name(), &way.name(), None, Vec::new()),
            contestant,
            way,
        });
        candidates.collect()
    }

    /// Whether a tool is far behind with any variant if it is with one: not where the variants are for just such cells.
    fn spares_variants(&self) -> bool {
        let is_special = matches!(
            self.stage.workload,
            Workload::Big | Workload::Huge | Workload::Sparse
        );
        self.arguments.hurries && self.stage.cache == Cache::Warm && !is_special
    }

    fn limit_ways(&self) -> Vec<limit::Variant> {
        // It makes copies, and compares nothing.
        if self.mode == Mode::Again {
            return Vec::new();
        }
        let is_cold = self.stage.cache == Cache::Cold;
        limit::ways(self.stage.kind.can_clone(), is_cold, self.arguments.cores)
    }

    /// Runs each once, and adds them with their times, or what went wrong; the fastest comes first.
    fn try_ways(
        &mut self,
        contestant: &Contestant,
        ways: Vec<Way>,
        tried: &mut Vec<(Way, Result<f64, String>)>,
    ) -> io::Result<()> {
        for way in ways {
            let outcome = self.copy(contestant, &way)?;
            self.clear()?;
            tried.push((way, result(outcome).map(|usage| usage.wall)));
        }
        let time = |(_, time): &(Way, Result<f64, String>)| *time.as_ref().unwrap_or(&f64::MAX);
        tried.sort_by(|a, b| time(a).total_cmp(&time(b)));
        Ok(())
    }

    fn search_limit(
        &mut self,
        contestant: &Contestant,
    ) -> io::Result<Vec<(Way, Result<f64, String>)>> {
        let mut tried = Vec::new();
        let wrap = |ways: Vec<limit::Variant>| ways.into_iter().map(Way::Limit).collect();
        let mut ways = self.limit_ways();
        if self.arguments.hurries {
            ways.retain(|way| way.ahead);
        }
        self.try_ways(contestant, wrap(ways), &mut tried)?;
        if self.arguments.hurries {
            let best = best_limits(&tried, 1);
            let just_in_time = best.into_iter().map(|way| limit::Variant {
                ahead: false,
                ..way
            });
            self.try_ways(contestant, wrap(just_in_time.collect()), &mut tried)?;
        }
        let searched = if self.arguments.hurries { 1 } else { LIMITS };
        for way in best_limits(&tried, searched) {
            let mut others = limit::other_threads(way);
            if self.arguments.hurries {
                others.retain(|other| (way.threads / 4..=way.threads * 4).contains(&other.threads));
            }
            self.try_ways(contestant, wrap(others), &mut tried)?;
        }
        Ok(tried)
    }

    /// One run that counts; a contestant that has failed once is not asked again.
    fn take_turn(&mut self, candidate: &mut Candidate, is_judged: bool) -> io::Result<()> {
        if candidate.entry.failure.is_some() {
            return Ok(());
        }
        match result(self.copy(candidate.contestant, &candidate.way)?) {
            Ok(usage) => candidate.entry.rounds.push(usage),
            Err(message) => candidate.entry.failure = Some(message),
        }
        if is_judged && candidate.entry.failure.is_none() {
            let claims = candidate.contestant.claims(self.mode).unwrap_or_default();
            let (source, copy) = (self.stage.filesystem.source(), self.stage.filesystem.copy());
            let Verdict { faults, omissions } =
                Differences::between(&source, &copy, self.mode)?.verdict(claims);
            candidate.entry.faults = faults;
            candidate.entry.omissions = omissions;
        }
        self.clear()
    }

    /// Makes one copy, of which the contestant alone is on the clock.
    fn copy(&mut self, contestant: &Contestant, way: &Way) -> io::Result<Outcome> {
        let filesystem = &mut self.stage.filesystem;
        let (source, copy) = (filesystem.source(), filesystem.copy());
        // A test is no reason to slow down everything on the machine.
        let drop_caches = !self.arguments.is_test;
        match way {
            Way::Line(variant) => {
                filesystem.chill(drop_caches)?;
                contestant.warm_program();
                runner::run(&variant.pipeline(&source, &copy), self.patience)
            }
            Way::Limit(variant) => {
                let task = Task {
                    list: limit::path(&self.stage.list),
                    source: limit::path(&source),
                    copy: limit::path(&copy),
                    mode: self.mode,
                    variant: *variant,
                    allocates: self.stage.kind == Kind::Ext4,
                };
                let ready = limit::prepare(&task, LONGEST_COPY)?;
                filesystem.chill(drop_caches)?;
                ready.go(self.patience)
            }
        }
    }

    /// Makes the copy that is up to date.
    fn make_copy(&mut self) -> io::Result<()> {
        let (source, copy) = (self.stage.filesystem.source(), self.stage.filesystem.copy());
        let status = Command::new("cp").arg("-a").args([source, copy]).status()?;
        if !status.success() {
            return Err(io::Error::other("cp -a failed"));
        }
        self.stage.filesystem.settle()
    }

    /// Makes way for the next copy, unless it is to find this one.
    fn clear(&mut self) -> io::Result<()> {
        if self.mode == Mode::Again {
            return Ok(());
        }
        self.remove_copy()
    }

    /// Removes the copy, whole or not, and waits until that is done with.
    fn remove_copy(&mut self) -> io::Result<()> {
        let copy = self.stage.filesystem.copy();
        // What a peer has made may also be a link, to a directory that is not ours.
        let removed = fs::symlink_metadata(&copy).and_then(|copied| {
            if copied.is_dir() {
                remove(&copy)
            } else {
                fs::remove_file(&copy)
            }
        });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if self.arguments.is_test {
            return Ok(());
        }
        self.stage.filesystem.settle()
    }
}

/// The limit's fastest ways, so many.
fn best_limits(tried: &[(Way, Result<f64, String>)], many: usize) -> Vec<limit::Variant> {
    let ways = tried.iter().filter_map(|(way, _)| match way {
        Way::Limit(variant) => Some(*variant),
        Way::Line(_) => None,
    });
    ways.take(many).collect()
}

/// Removes a directory with all that is in it, several things at once: a cell has a hundred copies to remove.
fn remove(directory: &Path) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.par_iter().try_for_each(|entry| {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())
        } else {
            fs::remove_file(entry.path())
        }
    })?;
    fs::remove_dir(directory)
}

fn result(outcome: Outcome) -> Result<Usage, String> {
    match outcome {
        Outcome::Done(usage) => Ok(usage),
        Outcome::Failed(message) => Err(message),
        Outcome::Hung(time) => Err(format!("not ready after {:.0} s", time.as_secs_f64())),
    }
}
