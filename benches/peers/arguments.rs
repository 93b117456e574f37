//! The command line: which cells, how large, how often.

use std::env;
use std::path::{Path, PathBuf};
use std::thread;

use crate::contestant::Mode;
use crate::filesystem::{Cache, Kind};
use crate::workload::{FULL, QUICK, Scale, TEST, Workload};

/// Fewer would be no median.
const ROUNDS: usize = 5;

/// The word that chooses the plot.
pub const THREADS: &str = "threads";

/// The word that has poolcp compared with itself.
pub const AUTO: &str = "auto";

pub const USAGE: &str = "\
usage: cargo bench --bench peers -- [OPTION]... [WORD]...

Words choose cells; of several words of one kind any will do. Without words everything is measured, which takes hours.
  workloads    tree flat tiny dirs big huge sparse links
  filesystems  tmpfs ext4 xfs btrfs
  caches       warm cold
  modes        r a again
  auto         poolcp with 1 to 64 workers and with as many as it likes, instead of the others; with -r, if not said otherwise
  threads      the plot of time over threads instead, of tree on ext4 or the filesystem named

  --quick        an eighth of everything
  --test         next to nothing, once, in seconds
  --rounds N     instead of 5
  --only A,B     only these contestants
  --hurry        who is far behind when variants are chosen runs in the first round only, and fewer variants are tried
  --continue     go on from what peers.json has: a cell that is in it is not measured again
  --out DIR      where peers.md, peers.json and, but at full scale, threads.svg go, instead of the target directory
  --list         the names of the cells";

pub struct Arguments {
    pub scale: Scale,
    pub is_test: bool,
    pub is_list: bool,
    pub continues: bool,
    pub rounds: usize,
    /// Those who are far behind run once.
    pub hurries: bool,
    pub cores: usize,
    /// Names of contestants; nothing for all of them.
    only: Option<Vec<String>>,
    pub out: PathBuf,
    words: Vec<String>,
}

impl Arguments {
    /// Understands what `cargo bench` passes on; an error is what to say about it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            scale: FULL,
            is_test: true,
            is_list: false,
            continues: false,
            rounds: ROUNDS,
            hurries: false,
            cores: thread::available_parallelism().map_or(1, usize::from),
            only: None,
            out: default_out(),
            words: Vec::new(),
        };
        let (mut is_bench, mut is_test) = (false, false);
        let mut rounds = None;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => is_bench = true,
                "--test" => is_test = true,
                "--quick" => parsed.scale = QUICK,
                "--list" => parsed.is_list = true,
                "--hurry" => parsed.hurries = true,
                "--continue" => parsed.continues = true,
                "--rounds" => {
                    let number = value()?.parse().ok().filter(|&number| number > 0);
                    rounds = Some(number.ok_or("--rounds takes a number above 0")?);
                }
                "--only" => parsed.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--out" => parsed.out = value()?.into(),
                option if option.starts_with('-') => return Err(format!("unknown: {option}")),
                word => parsed.words.push(word.to_owned()),
            }
        }
        // By criterion's rule: `cargo test` runs benches as well, without `--bench`, and then nothing is measured either.
        parsed.is_test = is_test || !is_bench;
        if parsed.is_test {
            parsed.scale = TEST;
        }
        parsed.rounds = rounds.unwrap_or(if parsed.is_test { 1 } else { ROUNDS });
        Ok(parsed)
    }

    /// Whether somebody of this name is to take part.
    pub fn includes(&self, contestant: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|names| names.iter().any(|name| name == contestant))
    }

    pub fn wants_workload(&self, workload: Workload) -> bool {
        self.wants(workload.name(), &Workload::ALL.map(Workload::name))
    }

    pub fn wants_filesystem(&self, kind: Kind) -> bool {
        self.wants(kind.name(), &Kind::ALL.map(Kind::name))
    }

    pub fn wants_cache(&self, cache: Cache) -> bool {
        self.wants(cache.name(), &Cache::ALL.map(Cache::name))
    }

    pub fn wants_mode(&self, mode: Mode) -> bool {
        let names = Mode::ALL.map(Mode::name);
        let any = |name: &&str| self.words.iter().any(|word| word == name);
        if self.wants_auto() && !names.iter().any(any) {
            return mode == Mode::Recursive;
        }
        self.wants(mode.name(), &names)
    }

    /// Whether it is poolcp's own choice of workers that is measured.
    pub fn wants_auto(&self) -> bool {
        self.words.iter().any(|word| word == AUTO)
    }

    /// Cells are wanted unless only the plot is.
    pub fn wants_cells(&self) -> bool {
        !self.words.iter().any(|word| word == THREADS)
    }

    pub fn wants_plot(&self) -> bool {
        self.words.is_empty() || !self.wants_cells()
    }

    /// Where the plot of this filesystem goes.
    pub fn plot_filesystem(&self) -> Kind {
        let named = |kind: &Kind| self.words.iter().any(|word| word == kind.name());
        Kind::ALL.into_iter().find(named).unwrap_or(Kind::Ext4)
    }

    /// Words that choose nothing. They are no errors: `cargo bench` gives one filter to all benches.
    pub fn unknown_words(&self) -> Vec<&str> {
        let known = [
            &Workload::ALL.map(Workload::name)[..],
            &Kind::ALL.map(Kind::name),
            &Cache::ALL.map(Cache::name),
            &Mode::ALL.map(Mode::name),
            &[THREADS, AUTO],
        ]
        .concat();
        let words = self.words.iter().map(String::as_str);
        words.filter(|word| !known.contains(word)).collect()
    }

    /// Whether this word was given, or none of those that it could have been.
    fn wants(&self, name: &str, all: &[&str]) -> bool {
        let given = |name: &str| self.words.iter().any(|word| word == name);
        given(name) || !all.iter().any(|name| given(name))
    }
}

/// The target directory, wherever that is.
fn default_out() -> PathBuf {
    let inside = Path::new(env!("CARGO_TARGET_TMPDIR"));
    inside.parent().unwrap_or(inside).to_owned()
}

/// The directory for images on disk.
pub fn disk() -> PathBuf {
    env::var_os("POOLCP_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from)
}
