//! poolcp beside everybody else, and beside what the kernel allows.
//!
//! Other tools copy the same trees on the same filesystems, in turn, each with the options that suit it best. The tables show
//! who was how fast, who copied wrongly, and how far each is from the [limit], a copier that knows its work beforehand.
//!
//! # What is measured
//!
//! Whole processes, from start to exit, as a user waits for them. A cell of the table is one of each:
//!
//! | workloads | what is copied | what it strains |
//! |---|---|---|
//! | `tree` | a source tree: 79,000 files, 5,000 directories, 1.2 GiB | everything, as people have it |
//! | `flat` | 50,000 files of 4 KiB in one directory | the lock on one directory |
//! | `tiny` | 100,000 files of up to 1 KiB in 1,000 directories | making files |
//! | `dirs` | 20,000 directories, 8 deep, few files | making directories, and finding work |
//! | `big` | 8 files of 256 MiB | moving bytes |
//! | `huge` | one file of 4 GiB | moving bytes of one file, by several |
//! | `sparse` | one file of 100 GiB with 100 MiB of data | finding holes |
//! | `links` | 20,000 files with 3 names each; only with `-a` | hard links |
//!
//! | others | |
//! |---|---|
//! | filesystems | `tmpfs`, `ext4`, `xfs` with reflinks, `btrfs`; fresh ones for each workload ([filesystem]) |
//! | caches | `warm`: the source is in memory; `cold`: it is on the disk, and nothing is in memory |
//! | modes | `r`: as `cp -r`; `a`: as `cp -a`, by those who have such a thing; `again`, for `tree`: onto a copy that is up to date |
//!
//! Contestants ([contestant]) are poolcp with as many workers as there are cores, poolcp as it comes, the limit, and of cp,
//! cpz, xcp, fcp, rcp, rsync, uutils' cp and tar those that are there. How a cell is measured is told in [measure]; what
//! makes a copy wrong, in [verify]. The best peer, which ratios refer to, is the fastest that is not wrong.
//!
//! # What is not measured
//!
//! - Writing back to the disk: copies end in the page cache. (If the kernel begins with it before a copy ends, which it does
//!   when a tenth of the memory waits to be written, times differ by half: the bench says so, and what to set.) On cold caches
//!   the disk is busy with reading.
//! - Filling up copies that are not complete.
//!
//! # How to run it
//!
//! ```text
//! cargo bench --bench peers                              # everything: hours
//! cargo bench --bench peers -- tree tmpfs warm r         # one cell: a few minutes
//! cargo bench --bench peers -- tree big warm             # all warm cells of two workloads
//! cargo bench --bench peers -- --continue                # all that is not in peers.json yet
//! cargo bench --bench peers -- --hurry                   # who is far behind runs once (see [measure])
//! cargo bench --bench peers -- --quick tmpfs             # smaller, for a look
//! cargo bench --bench peers -- auto tree warm            # is -j auto as fast as the best -j?
//! cargo bench --bench peers -- threads                   # the plot of time over threads, benches/threads.svg
//! cargo bench --bench peers -- --test                    # does it all work? in seconds
//! cargo bench --bench peers -- --help                    # all options
//! ```
//!
//! Without the superuser's rights there is only `tmpfs`. What is left out is said, with the reason. The tables go to standard
//! output and to `peers.md` in the target directory, everything that was measured to `peers.json` beside it, after each cell.
//!
//! | variable | |
//! |---|---|
//! | `POOLCP` | another poolcp than the one built with this bench |
//! | `POOLCP_PEERS` | directories with peers, separated as in `PATH` and looked at before it |
//! | `POOLCP_BENCH_DIR` | where images for cold cells go, on a real disk; else the directory for temporary files |
//! | `POOLCP_TREE` | a directory to use as `tree`; else Linux's sources from Debian's package linux-source-6.1, if it is there; else a tree like them is generated |
//!
//! Memory must hold sources, copies and, for warm cells of filesystems with images, both again: 18 GiB for `huge`. A cell
//! that does not fit is left out. Let the machine be idle otherwise; who shares it measures the others. On a virtual machine
//! that gives free memory back to its host, all is fetched once at the beginning, and kept ([memory]).

mod arguments;
mod contestant;
mod copier;
mod filesystem;
mod limit;
mod list;
mod machine;
mod measure;
mod memory;
#[path = "../tools/places.rs"]
mod places;
mod plot;
mod random;
mod results;
mod runner;
mod table;
mod tamper;
mod verify;
mod watch;
mod workload;

use std::env;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tempfile::TempDir;

use arguments::Arguments;
use contestant::{Contestant, Mode};
use filesystem::{Abilities, Cache, Kind};
use list::List;
use machine::Machine;
use measure::Stage;
use plot::{Chart, Panel, Spread};
use results::{Cell, Curve, Program, Results, median};
use workload::Workload;

/// Where everything that was measured goes.
const JSON: &str = "peers.json";

/// Numbers of workers in the plot, and against which poolcp's own choice is measured: up to where more can only do harm.
const PLOTTED: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [runner::ROLE, task] => return runner::main(task),
        [limit::ROLE, task] => return copier::main(task),
        _ if words.iter().any(|word| word == "--help") => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let arguments = match Arguments::parse(words.into_iter()) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("peers: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let unknown = arguments.unknown_words();
    if !unknown.is_empty() {
        eprintln!("peers: nothing is called {}", unknown.join(" or "));
        return ExitCode::SUCCESS;
    }
    if arguments.is_list {
        for cell in cells(&arguments) {
            println!("{}: benchmark", cell.name());
        }
        return ExitCode::SUCCESS;
    }
    match Bench::new(arguments).and_then(Bench::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The cells of one source on one filesystem.
struct Group {
    workload: Workload,
    kind: Kind,
    cache: Cache,
    modes: Vec<Mode>,
}

impl Group {
    fn name(&self) -> String {
        let (workload, kind) = (self.workload.name(), self.kind.name());
        let modes: Vec<_> = self.modes.iter().map(|mode| mode.name()).collect();
        format!(
            "{workload} {kind} {} {}",
            self.cache.name(),
            modes.join("+")
        )
    }
}

/// Those that are wanted. There is no cold tmpfs, and no use in `links` without `-a`.
fn cells(arguments: &Arguments) -> Vec<Group> {
    let mut groups = Vec::new();
    for workload in Workload::ALL {
        for kind in Kind::ALL {
            for cache in Cache::ALL {
                let modes = Mode::ALL.into_iter().filter(|&mode| {
                    arguments.wants_mode(mode)
                        && (mode.is_archive() || workload != Workload::Links)
                        && (mode != Mode::Again
                            || (workload == Workload::Tree && cache == Cache::Warm))
                });
                let group = Group {
                    workload,
                    kind,
                    cache,
                    modes: modes.collect(),
                };
                // A test tries everything once, but not with everything.
                let is_essential = workload == Workload::Tree
                    && (cache == Cache::Warm || kind == Kind::Ext4)
                    || kind == Kind::Tmpfs;
                if arguments.wants_cells()
                    && arguments.wants_workload(workload)
                    && arguments.wants_filesystem(kind)
                    && arguments.wants_cache(cache)
                    && (kind, cache) != (Kind::Tmpfs, Cache::Cold)
                    && !group.modes.is_empty()
                    && (is_essential || !arguments.is_test)
                {
                    groups.push(group);
                }
            }
        }
    }
    groups
}

struct Bench {
    arguments: Arguments,
    abilities: Abilities,
    contestants: Vec<Contestant>,
    results: Results,
    /// For lists.
    scratch: TempDir,
}

impl Bench {
    fn new(arguments: Arguments) -> io::Result<Self> {
        let abilities = Abilities::find(arguments::disk());
        let (mut contestants, mut missing) = contestant::find(arguments.cores);
        if arguments.wants_auto() {
            contestants = PLOTTED.map(Some).map(contestant::poolcp).into();
            contestants.push(contestant::poolcp(None));
            missing.clear();
        }
        contestants.retain(|contestant| arguments.includes(contestant.name()));
        let mut results = Results {
            date: machine::date(),
            machine: Machine::here(),
            scale: arguments.scale.name.to_owned(),
            rounds: arguments.rounds,
            hurried: arguments.hurries,
            contestants: contestants.iter().map(Program::of).collect(),
            missing,
            left_out: Vec::new(),
            cells: Vec::new(),
            threads: Vec::new(),
        };
        if arguments.continues {
            results.go_on(&arguments.out.join(JSON))?;
        }
        Ok(Self {
            arguments,
            abilities,
            contestants,
            results,
            scratch: tempfile::Builder::new().prefix("poolcp-bench-").tempdir()?,
        })
    }

    fn run(mut self) -> io::Result<()> {
        if self.arguments.is_test {
            tamper::check_verification(self.scratch.path())?;
        }
        println!("{}", table::header(&self.results));
        let _kept = if !self.arguments.is_test && memory::is_given_back() {
            eprintln!(
                "peers: keeping memory from being given back to the host; that takes a minute"
            );
            Some(memory::Kept::new()?)
        } else {
            None
        };
        for group in cells(&self.arguments) {
            self.measure_group(&group)?;
        }
        if self.arguments.wants_plot() {
            self.plot()?;
        }
        if !self.results.cells.is_empty() {
            println!("{}", self.summary());
        }
        let out = self.arguments.out.display();
        eprintln!("peers: the results are in {out}/peers.md and {out}/peers.json");
        self.judge()
    }

    fn summary(&self) -> String {
        if self.arguments.wants_auto() {
            table::auto(&self.results)
        } else {
            table::summary(&self.results)
        }
    }

    /// Peers may fail. poolcp, cp and the limit may not: then either poolcp is broken or this bench is.
    fn judge(&self) -> io::Result<()> {
        for cell in &self.results.cells {
            for entry in &cell.entries {
                let is_ours = entry.is_poolcp() || entry.is_limit() || entry.contestant == "cp";
                if is_ours && !entry.is_right() {
                    let what = entry.failure.clone().unwrap_or(entry.faults.join("; "));
                    let (cell, who) = (cell.name(), &entry.contestant);
                    return Err(io::Error::other(format!("{cell}: {who}: {what}")));
                }
            }
        }
        Ok(())
    }

    fn measure_group(&mut self, group: &Group) -> io::Result<()> {
        let cell = |mode| measure::words(group.workload, group.kind, group.cache, mode);
        let mut modes = group.modes.clone();
        modes.retain(|&mode| !self.results.has(cell(mode)));
        if modes.is_empty() {
            return Ok(());
        }
        eprintln!("peers: {}", group.name());
        let mut stage = match self.prepare(group.workload, group.kind, group.cache) {
            Ok(stage) => stage,
            Err(reason) => {
                self.leave_out(group.name(), reason);
                return self.save();
            }
        };
        for mode in modes {
            match measure::measure(&mut stage, mode, &self.contestants, &self.arguments) {
                Ok(cell) => {
                    println!("{}", table::cell(&cell));
                    self.results.cells.push(cell);
                }
                Err(error) => self.leave_out(group.name(), error.to_string()),
            }
            self.save()?;
        }
        Ok(())
    }

    fn leave_out(&mut self, what: String, reason: String) {
        eprintln!("peers: left out: {what}: {reason}");
        self.results.left_out.push((what, reason));
    }

    /// Makes a filesystem with a source, or says why that cannot be.
    fn prepare(&self, workload: Workload, kind: Kind, cache: Cache) -> Result<Stage, String> {
        if let Some(obstacle) = self.abilities.obstacle(kind, cache) {
            return Err(obstacle);
        }
        let make = || -> io::Result<Stage> {
            let demand = workload.demand(&self.arguments.scale);
            let filesystem = self.abilities.make(kind, cache, demand)?;
            let source = filesystem.source();
            let description = workload.make(&source, &self.arguments.scale)?;
            // Allocation is settled then, so that holes can be told from what is not written yet.
            filesystem.settle()?;
            if (kind, cache) != (Kind::Tmpfs, Cache::Warm) {
                warn_of_writing_back(filesystem::needed(demand));
            }
            let list = self.scratch.path().join("list.json");
            List::of(&source)?.save(&list)?;
            Ok(Stage {
                filesystem,
                workload,
                kind,
                cache,
                description,
                list,
            })
        };
        make().map_err(|error| error.to_string())
    }

    /// Measures poolcp with different numbers of workers, and draws the times.
    fn plot(&mut self) -> io::Result<()> {
        let kind = if self.arguments.is_test {
            // Anybody has it.
            Kind::Tmpfs
        } else {
            self.arguments.plot_filesystem()
        };
        let (found, _) = contestant::find(self.arguments.cores);
        let mut contestants: Vec<_> = found.into_iter().filter(|one| one.name() == "cp").collect();
        contestants.extend(PLOTTED.map(Some).map(contestant::poolcp));
        contestants.push(contestant::poolcp(None));
        let caches = Cache::ALL.into_iter().filter(|&cache| {
            self.arguments.wants_cache(cache) && (kind, cache) != (Kind::Tmpfs, Cache::Cold)
        });
        self.results.threads.clear();
        for cache in caches.collect::<Vec<_>>() {
            let name = format!("threads {} {}", kind.name(), cache.name());
            eprintln!("peers: {name}");
            let cell = self
                .prepare(Workload::Tree, kind, cache)
                .and_then(|mut stage| {
                    measure::measure(&mut stage, Mode::Recursive, &contestants, &self.arguments)
                        .map_err(|error| error.to_string())
                });
            match cell {
                Ok(cell) => {
                    println!("{}", table::cell(&cell));
                    self.results.threads.push(curve(cache, &cell));
                }
                Err(reason) => self.leave_out(name, reason),
            }
        }
        if !self.results.threads.is_empty() {
            let machine = &self.results.machine;
            let title = format!("Time to copy a source tree on {}", kind.name());
            let subtitle = format!(
                "{} cores, {}, Linux {}, {}",
                machine.cores, machine.processor, machine.kernel, self.results.date
            );
            let chart = Chart {
                title,
                subtitle,
                unit: "seconds",
                ideal: false,
                panels: vec![Panel {
                    name: String::new(),
                    curves: self.results.threads.iter().map(line).collect(),
                }],
            };
            let svg = chart.draw();
            let path = self.plot_path();
            fs::write(&path, svg)?;
            eprintln!("peers: the plot is {}", path.display());
        }
        self.save()
    }

    /// At full scale it belongs to the sources.
    fn plot_path(&self) -> PathBuf {
        if self.arguments.scale.name == workload::FULL.name {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/threads.svg")
        } else {
            self.arguments.out.join("threads.svg")
        }
    }

    /// Writes what there is so far: a run of hours may be interrupted.
    fn save(&self) -> io::Result<()> {
        let out = &self.arguments.out;
        fs::create_dir_all(out)?;
        let json = BufWriter::new(File::create(out.join(JSON))?);
        serde_json::to_writer_pretty(json, &self.results)?;
        let tables = self.results.cells.iter().map(table::cell);
        let tables: Vec<_> = tables.collect();
        let (header, summary) = (table::header(&self.results), self.summary());
        let text = [header, summary, tables.join("\n")].join("\n");
        fs::write(out.join("peers.md"), text)
    }
}

/// Where the kernel begins to write in the midst of some copies, it is chance who shares the processors with it.
fn warn_of_writing_back(copied: u64) {
    if let Some(least) = memory::writing_back_from()
        && copied > least
    {
        let (copied, least) = (copied >> 20, least >> 20);
        eprintln!(
            "peers: of the {copied} MiB of a copy the kernel begins to write when {least} MiB wait, which is noise; \
             sysctl vm.dirty_background_ratio=40 vm.dirty_ratio=60 has it wait"
        );
    }
}

/// The rounds of each number of workers.
fn curve(cache: Cache, cell: &Cell) -> Curve {
    let times = |name: &str| -> Vec<f64> {
        let entry = cell.entries.iter().find(|entry| entry.contestant == name);
        let rounds = entry.into_iter().flat_map(|entry| &entry.rounds);
        rounds.map(|usage| usage.wall).collect()
    };
    let points = PLOTTED.map(|threads| (threads, times(&format!("poolcp -j{threads}"))));
    Curve {
        name: cache.name().to_owned(),
        points: points
            .into_iter()
            .filter(|(_, times)| !times.is_empty())
            .collect(),
        auto: times(contestant::POOLCP),
        cp: times("cp"),
    }
}

/// Medians, with bars from the fastest to the slowest round, and what poolcp takes by its own choice, and `cp`.
fn line(curve: &Curve) -> plot::Curve {
    let spread = |times: &[f64]| Spread {
        low: times.iter().copied().fold(f64::MAX, f64::min),
        middle: median(times),
        high: times.iter().copied().fold(0.0, f64::max),
    };
    let points = curve.points.iter();
    let levels = [("-j auto", &curve.auto), ("cp", &curve.cp)];
    let levels = levels.into_iter().filter(|(_, times)| !times.is_empty());
    plot::Curve {
        name: format!("poolcp, {}", curve.name),
        points: points
            .map(|(threads, times)| (*threads, spread(times)))
            .collect(),
        levels: levels
            .map(|(name, times)| (format!("{name}, {}", curve.name), median(times)))
            .collect(),
    }
}
