//! Random command lines on random files: poolcp, called by the name `cp`, and `cp` itself must do and say the same.
//!
//! A [`Case`] is a small world (a source area `s`, a destination area `d`, and what lies beside them), a command line with
//! options out of the whole list of GNU `cp` 9.1 in all their spellings, a umask, an environment and answers to questions. Names
//! come from a small pool, so that things collide. Each case is run on twins: exit code, messages, output and everything
//! that is in the sandbox afterwards are compared. A failure shrinks, and is printed as the shell script that shows it.
//!
//! `case` makes cases up, `world` makes their files, `accepted` has what the two may do differently; here they are run.
//!
//! | variable | meaning |
//! |---|---|
//! | `POOLCP_CASES` | how many cases each test tries |
//! | `POOLCP_SEED` | which ones; the default is fixed, so that a plain test run is always the same |
//! | `POOLCP_OPTIONS` | only these options, by their names in [`case::OPTIONS`], with spaces between them |
//! | `POOLCP_IGNORE` | while something known is still wrong: no case in whose differences one of these texts (with `;` between them) occurs |
//! | `POOLCP_STATISTICS` | if set: what the cases were like, on standard error |
//! | `POOLCP_REFEREE` | another program instead of `cp` |
//! | `POOLCP_SUBJECT` | another program instead of poolcp: with `cp` the generator itself is tested |
//! | `POOLCP_REVERSED` | if set: the subject's files are made in the opposite order, which `cp` alone can notice |
//!
//! Failing seeds are not kept: they mean something else as soon as a strategy changes. The scripts do not, so what was once
//! wrong is kept in [`SCRIPTS`].

mod accepted;
mod case;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use crate::harness::Sandbox;
use crate::programs::{Call, Run, poolcp_as_cp};
use crate::snapshot::Snapshot;

use accepted::accepted;
use case::{Case, Kind, case};
use world::HERE;

/// Cases of each test, unless `POOLCP_CASES` says how many.
const CASES: u32 = 500;

/// In how many orders `cp` is asked to do the same before it is believed.
const ORDERS: u64 = 6;

/// How deep no tree should become: `cp` has gone on and on, into what it was making.
const DEPTH: usize = 40;

/// No case takes longer than a few milliseconds, unless it hangs. cp may: some it copies into themselves without end.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_WITH_CP: Duration = Duration::from_millis(1500);

// ---- Programs and what they do ----

/// `cp`, poolcp by that name, or what is to be compared instead.
struct Program {
    path: std::path::PathBuf,
    /// Whether it is poolcp, which can be told the number of workers.
    is_ours: bool,
    /// Whether poolcp is told to write into the file that is there, as `cp` does.
    writes_in_place: bool,
}

impl Program {
    fn referee() -> Self {
        let path = std::env::var_os("POOLCP_REFEREE").unwrap_or_else(|| "cp".into());
        Self {
            path: path.into(),
            is_ours: false,
            writes_in_place: false,
        }
    }

    fn subject() -> Self {
        let other = std::env::var_os("POOLCP_SUBJECT");
        Self {
            is_ours: other.is_none(),
            writes_in_place: false,
            path: other.map_or_else(|| poolcp_as_cp().to_owned(), Into::into),
        }
    }

    fn in_place(&self) -> Self {
        Self {
            path: self.path.clone(),
            is_ours: self.is_ours,
            writes_in_place: self.is_ours,
        }
    }
}

/// What a program did and said.
struct Outcome {
    code: i32,
    /// Lines of standard error and of standard output.
    messages: Vec<String>,
    output: Vec<String>,
    tree: Snapshot,
}

/// One thing that two programs did or said differently.
#[derive(Debug)]
struct Difference {
    /// A path, a line that was said, or the exit code.
    about: String,
    text: String,
}

impl Outcome {
    fn new(run: &Run, program: &Path, tree: Snapshot) -> Self {
        let name = program.display().to_string();
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        // There is no new line after a question; and a program's name is shown as it was typed.
        let messages = run.stderr.replace("? ", "?\n").replace(&name, "cp");
        Self {
            code: run.code,
            messages: lines(&messages),
            output: lines(&run.stdout),
            tree,
        }
    }

    /// In what `ours` is not the same.
    fn differences(&self, ours: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut add = |about: &str, text: String| {
            differences.push(Difference {
                about: about.to_owned(),
                text,
            });
        };
        if self.code != ours.code {
            add(
                EXIT_CODE,
                format!("exit code {} became {}", self.code, ours.code),
            );
        }
        for (left, right, verb) in [
            (&self.messages, &ours.messages, "says"),
            (&self.output, &ours.output, "prints"),
        ] {
            let lines: BTreeSet<&String> = left.iter().chain(right).collect();
            for line in lines {
                let count = |lines: &[String]| lines.iter().filter(|other| *other == line).count();
                let (theirs, ours) = (count(left), count(right));
                if theirs != ours {
                    add(
                        line,
                        format!("cp {verb} {theirs} times, poolcp {ours} times: {line}"),
                    );
                }
            }
        }
        let tree = self.tree.difference(&ours.tree).unwrap_or_default();
        for line in tree.lines() {
            let path = line.split("\": ").next().unwrap_or_default();
            add(path, line.to_owned());
        }
        differences
    }
}

const EXIT_CODE: &str = "the exit code";

impl Case {
    /// What a program makes of it; `None` if that is without end.
    fn run(&self, program: &Program, order: u64, statistics: &Statistics) -> Option<Outcome> {
        let sandbox = self.make(order);
        let before = statistics.wanted.then(|| sandbox.snapshot());
        let fifos = self.read_fifos(&sandbox);
        let mut words = self.words.clone();
        if program.is_ours {
            words.insert(0, self.workers.to_owned());
        }
        if program.writes_in_place {
            words.insert(0, "--atomic=never".to_owned());
        }
        let mut call = sandbox.call(&program.path, words);
        let patience = if program.is_ours {
            PATIENCE
        } else {
            PATIENCE_WITH_CP
        };
        call = call.inside(HERE).stdin(self.answers).patience(patience);
        for (name, value) in &self.environment {
            call = call.env(name, value);
        }
        if let Some(umask) = self.umask {
            call = call.umask(umask);
        }
        if self.ordinary {
            call = call.by_ordinary_user();
        }
        let run = call.run_in_time().ok()?;
        drop(fifos);
        let outcome = Outcome::new(&run, &program.path, sandbox.snapshot());
        if let Some(before) = before {
            statistics.count_run(&outcome, before.difference(&outcome.tree).is_some());
        }
        Some(outcome)
    }
}

/// Runs a case on twins; what is not accepted is the answer.
fn disagreement(case: &Case, statistics: &Statistics) -> Option<String> {
    let reversed = std::env::var_os("POOLCP_REVERSED").is_some();
    let (referee, subject) = (Program::referee(), Program::subject());
    let quiet = Statistics::default();
    let is_finite = |outcome: &Outcome| outcome.tree.depth() <= DEPTH;
    let Some(theirs) = case.run(&referee, 0, statistics).filter(is_finite) else {
        statistics.count("cp went on and on");
        return None;
    };
    let Some(ours) = case.run(&subject, u64::from(reversed), &quiet) else {
        // Whether a FIFO is there by then, and waited for, depends on the order.
        let says = |text: &str| theirs.messages.iter().any(|line| line.contains(text));
        if says("into itself") && case.things.iter().any(|thing| thing.kind == Kind::Fifo) {
            statistics.count("a FIFO in a copy into itself");
            return None;
        }
        return Some("  poolcp does not end".to_owned());
    };
    let mut differences = theirs.differences(&ours);
    let mut reasons = BTreeSet::new();
    differences.retain(
        |difference| match accepted(case, &theirs, &ours, difference) {
            Some(reason) => {
                reasons.insert(reason);
                false
            }
            None => true,
        },
    );
    let is_in_the_way = |word: &String| word.starts_with("d/");
    if !differences.is_empty()
        && (case.has_two_ways_to_a_file() || case.words.iter().any(is_in_the_way))
    {
        let Some(in_place) = case.run(&subject.in_place(), u64::from(reversed), &quiet) else {
            return Some("  poolcp --atomic=never does not end".to_owned());
        };
        let stay = theirs.differences(&in_place);
        let count = differences.len();
        differences.retain(|difference| stay.iter().any(|it| it.about == difference.about));
        if differences.len() < count {
            reasons.insert(
                "what replaced a file is another one, and its further names do not lead to it",
            );
        }
    }
    if !differences.is_empty() {
        // The workers' order is not cp's: what cp does depends on the order, too, wherever it is not always the same.
        let mut unstable = BTreeSet::new();
        for order in 1..ORDERS {
            // It goes on and on in this order.
            let Some(other) = case.run(&referee, order, &quiet) else {
                continue;
            };
            unstable.extend(theirs.differences(&other).into_iter().map(|it| it.about));
        }
        let count = differences.len();
        differences.retain(|difference| !unstable.contains(&difference.about));
        if differences.len() < count {
            reasons.insert("what cp does depends on the order of names");
        }
    }
    for reason in reasons {
        statistics.count(reason);
    }
    let lines = differences.iter().map(|it| format!("  {}", it.text));
    let text = lines.collect::<Vec<_>>().join("\n");
    let ignored = std::env::var("POOLCP_IGNORE").unwrap_or_default();
    let mut ignored = ignored.split(';').filter(|part| !part.is_empty());
    (!text.is_empty() && !ignored.any(|part| text.contains(part))).then_some(text)
}

// ---- Statistics ----

/// What the cases were like, to see that they are not mostly trivial.
#[derive(Default)]
struct Statistics {
    wanted: bool,
    counts: RefCell<BTreeMap<String, u32>>,
}

impl Statistics {
    fn new() -> Self {
        Self {
            wanted: std::env::var_os("POOLCP_STATISTICS").is_some(),
            ..Self::default()
        }
    }

    fn count(&self, what: &str) {
        if self.wanted {
            *self.counts.borrow_mut().entry(what.to_owned()).or_default() += 1;
        }
    }

    fn count_case(&self, case: &Case) {
        self.count("cases");
        let options: BTreeSet<_> = case.options.iter().collect();
        options
            .iter()
            .for_each(|name| self.count(&format!("option {name}")));
    }

    fn count_run(&self, outcome: &Outcome, changed: bool) {
        self.count(&format!("exit code {}", outcome.code));
        if changed {
            self.count("something was copied");
        }
        if outcome.messages.iter().any(|line| line.ends_with('?')) {
            self.count("something was asked");
        }
        // One message of each kind, without the names in it.
        let kinds = outcome
            .messages
            .iter()
            .map(|line| line.split('\'').step_by(2).collect());
        for kind in kinds.collect::<BTreeSet<String>>() {
            self.count(&kind);
        }
    }

    fn print(&self) {
        let counts = self.counts.borrow();
        let all = counts.get("cases").copied().unwrap_or(1);
        for (what, count) in counts.iter() {
            let share = f64::from(*count) * 100.0 / f64::from(all);
            crate::needs::say(&format!("{count:8} {share:5.1} %  {what}"));
        }
    }
}

// ---- Tests ----

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect(variable))
}

fn check(ordinary: bool) {
    let config = Config {
        cases: u32::try_from(number("POOLCP_CASES", u64::from(CASES))).expect("a number of cases"),
        rng_seed: RngSeed::Fixed(number("POOLCP_SEED", 1)),
        max_shrink_iters: 1500,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let statistics = Statistics::new();
    let result = TestRunner::new(config).run(&case(ordinary), |case| {
        statistics.count_case(&case);
        match disagreement(&case, &statistics) {
            None => Ok(()),
            Some(differences) => Err(TestCaseError::fail(differences)),
        }
    });
    statistics.print();
    match result {
        Ok(()) => {}
        Err(TestError::Fail(differences, case)) => panic!("\n{case:?}\n{differences}\n"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn random_cases_agree_with_cp() {
    needs!(GnuCp9);
    check(false);
}

#[test]
fn random_cases_agree_with_cp_for_an_ordinary_user() {
    needs!(GnuCp9, Root, OrdinaryUser);
    check(true);
}

/// What was wrong once. The last line of each is the command, the others make what it needs.
const SCRIPTS: &[&str] = &[
    "mkdir s d
     yes s/a | head -c 100 >s/a
     yes d/a | head -c 5000 >d/a
     ln -s a d/b
     cp -a s/. d",
    "mkdir s d
     yes s/a | head -c 100 >s/a
     chmod 4755 s/a
     chown -R 65534:65534 .
     umask 077; setpriv --reuid=65534 --regid=65534 --clear-groups cp -r s d",
    "mkdir s d; echo a >a
     cp a .//a d",
    "mkdir s d; echo a >a; ln -s ../s s/b; ln -s ../d d/b
     cp -rs s/b d/b",
    "mkdir -p s/dir d; echo a >s/a; ln s/a s/dir/a
     cp -a s/. s/a d",
    "mkdir -p d/s s; chown -R 65534:65534 .; chown 0:0 d/s
     setpriv --reuid=65534 --regid=65534 --clear-groups cp -rp s d",
    "mkdir -p d/s s; chmod 0 d/s; chown -R 65534:65534 .
     setpriv --reuid=65534 --regid=65534 --clear-groups cp -r s d",
    "mkdir -p s/dir d
     cp -r s/dir s d",
    "mkdir -p s/dir d; echo a >s/a
     cp -r s/dir s/. d",
    "mkdir s d; echo a >s/a; ln -P s/a s/sub
     cp -rd s s/sub d",
    "mkdir s d; ln -s nowhere s/a; ln -P s/a s/b
     cp -a s s/a d",
    "mkdir s d; echo a >a; ln -P a s/a
     cp -rd a s/. d",
    "mkdir s d; ln -s ../s s/a; echo b >s/b
     cp -r s/. s/a d",
    "mkdir s d; echo a >a; echo b >d/a
     cp -vlf a d",
    "mkdir s d; ln -s nowhere d/a
     cp -r s d/a/",
    "mkdir s; ln -s ../s s/a
     cp -Rl s .",
    "mkdir -p s d/s
     cp -r -t d s d/s/. s",
    "mkdir s d; echo a >a; echo b >d/a; ln -s ../s s/a
     cp -rH s/. d",
    "mkdir s d; echo a >\"it's\"; echo b >\"d/it's\"
     cp -vb \"it's\" d",
    "mkdir s d; echo a >a~
     cp -s a~ d",
    "mkdir s; echo a >s/a; chmod 644 s; chown -R 65534:65534 .
     setpriv --reuid=65534 --regid=65534 --clear-groups cp -r s d",
    "mkdir d; echo a >a; echo b >d/a; ln -s nowhere d/b
     POSIXLY_CORRECT=1 cp -t d a",
    "mkdir s d; setfacl -d -m u:4321:rx d
     cp -r --no-preserve=all s d",
    "mkdir s d; ln -s ../d s/a; ln -s s l
     printf 'y\\ny\\n' | cp -rdi l l s",
    "echo a >n; echo b >n~
     cp -bf n n",
    "echo a >a
     cp --sparse=wrong --context=x a d",
    "echo a >a
     cp --context=x a d --unknown",
    "mkdir s d; ln -s a d/a
     cp -rf s d/a/",
    "mkdir s d; ln -s a d/a
     cp -rf s d/a/.",
    "mkdir d; echo a >s; ln -s a d/a
     cp -f s d/a/",
    "mkdir s d; echo a >s/b; echo b >d/b; ln -P s/b d/a; chmod 0 s/b; touch -d @1000000000 s/b d/b; chown -hR 65534:65534 .
     setpriv --reuid=65534 --regid=65534 --clear-groups cp -dRu ./s/b s/ d",
    "mkdir s d; echo a >a; echo b >s/a
     cp -r a s/. s/a d",
    "mkdir d; : >a; : >d/a; chmod 4755 d/a; chown -hR 65534:65534 .; chmod 4755 d/a
     setpriv --reuid=65534 --regid=65534 --clear-groups cp a d",
    "mkdir s d; ln -s b b; echo b >s/b
     cp -r -f b s/b d",
    "mkdir s s/dir
     cp -r -n s/dir s/. s",
    "mkdir -p s/sub d; chmod 2775 d; chgrp 4321 d
     cp -r --preserve=ownership s d",
    "echo a >a; echo b >b; echo c >c; echo d >d; printf 'y\ny\n' >answers
     { cp -i a b; cp -i c d; cat; } <answers",
    "mkdir d; echo a >d/a
     cp -bf d//a d/a",
    "chmod 777 .; truncate -s 2M a
     ulimit -u 1; setpriv --reuid=65534 --regid=65534 --clear-groups cp a b",
    "echo a >a; mkdir s; echo b >s/b; chmod 640 a s/b; chmod 755 s; chown -R 12:1234 a s
     setpriv --bounding-set=-chown cp -p a b; setpriv --bounding-set=-chown cp -a s d",
    "mkdir d e; echo old >d/old; echo a >a; truncate -s 5M e/big; chattr +a d
     cp e/big d; cp a d/old; cp -r e d; chattr -a d",
    "mkdir L m; echo a >a
     unshare -m sh -c 'mount -t tmpfs t L; mkdir L/l L/u L/w; echo old >L/l/g; ln L/l/g L/l/h; \
     mount -t overlay -o lowerdir=L/l,upperdir=L/u,workdir=L/w o m; cp a m/g; cat m/g m/h >seen'",
    "mkdir b d; seq 100000 >b/a; ln -s d/b l; mkdir d/b; echo b >d/b/c
     cp -rH b l d",
];

#[test]
fn what_was_wrong_once_agrees_with_cp() {
    needs!(GnuCp9, Root, OrdinaryUser);
    let disagreements: Vec<String> = SCRIPTS
        .iter()
        .filter_map(|script| {
            let [theirs, ours] = [Program::referee(), Program::subject()]
                .map(|program| run_script(script, &program));
            let differences = theirs.differences(&ours);
            let lines: Vec<String> = differences.into_iter().map(|it| it.text).collect();
            (!lines.is_empty()).then(|| format!("{script}\n  {}", lines.join("\n  ")))
        })
        .collect();
    assert!(disagreements.is_empty(), "\n{}", disagreements.join("\n\n"));
}

fn run_script(script: &str, program: &Program) -> Outcome {
    let sandbox = Sandbox::small_in_memory();
    sandbox.dir(HERE);
    let (world, command) = script.rsplit_once('\n').expect("a world and a command");
    let shell = |words: &[&str]| sandbox.call("sh", words).inside(HERE);
    shell(&["-ec", world]).ok();
    let mut call: Call = shell(&["-c", command]);
    if let Some(dir) = program.path.parent().filter(|dir| dir.is_absolute()) {
        let path = std::env::var("PATH").unwrap_or_default();
        call = call.env("PATH", format!("{}:{path}", dir.display()));
    }
    let run = call.run();
    Outcome::new(&run, &program.path, sandbox.snapshot())
}
