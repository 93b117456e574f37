//! The library as programs use it that have it inside: what observers do, and plans that are refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use poolcp::{Done, Error, Event, Interest, Observer, Options, Plan, Reflink, Target, Task, What};

use crate::harness::{Sandbox, chmod};
use crate::snapshot::{Snapshot, assert_same, assert_same_tree};

const MIB: usize = 1 << 20;

/// Panics where it is told of something called "bad", the first time. A name that is left with another worker is told of by both.
struct Panicking {
    interest: Interest,
    met: Mutex<BTreeSet<PathBuf>>,
}

impl Observer for Panicking {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn entry(&self, event: &Event) {
        let (Event::Copying { dest, .. } | Event::Copied { dest, .. } | Event::Removed { dest }) =
            event
        else {
            return;
        };
        let name = dest.file_name().expect("a name").to_string_lossy();
        let is_new = || {
            let mut met = self.met.lock().expect("nobody panics with it");
            met.insert(dest.clone())
        };
        assert!(!name.ends_with("bad") || !is_new(), "this is bad");
    }
}

#[test]
fn a_panic_is_an_error_of_its_entry_and_the_rest_is_copied() {
    for interest in [Interest::Entries, Interest::Ways] {
        let sandbox = Sandbox::new();
        for dir in ["", "x/", "x/y/"] {
            for i in 0..20 {
                sandbox.file(format!("source/{dir}{i}"), 10);
            }
        }
        sandbox.file("source/bad", 10);
        sandbox.file("source/x/bad/below", 10);
        sandbox.file("source/y/file", 10);
        // Others wait for these two.
        let linked = sandbox.file("source/x/y/z-bad", 10);
        for i in 0..20 {
            sandbox.hard_link(format!("source/x/y/linked{i}"), &linked);
        }
        chmod(&sandbox.path("source/x/y"), 0o711);
        let target = sandbox.path("copy");
        // This is removed by force, in the middle of its copy.
        let taken = sandbox.file("copy/source/x/y/z-bad", 10);
        sandbox.hard_link("copy/other-name", &taken);
        let plan = Plan::resolve(
            [sandbox.path("source")],
            Target::Path(target.clone()),
            Options::archive(),
        );
        let plan = plan.expect("a plan").observer(Arc::new(Panicking {
            interest,
            met: Mutex::default(),
        }));
        let (pool, job) = plan.start(4).expect("a pool");
        let report = job.join().expect("a report");
        pool.join();
        let mut told: Vec<String> = report.errors.iter().map(Error::to_string).collect();
        told.sort_unstable();
        let expected = ["bad", "x/bad", "x/y/z-bad"].map(|name| {
            let path = sandbox.path("source").join(name);
            format!("cannot copy '{}': internal error", path.display())
        });
        assert_eq!(told, expected, "{interest:?}");
        // All others, and directories' attributes.
        let is_other = |name: &str| !name.contains("bad");
        let source = Snapshot::of(&sandbox.path("source")).only(is_other);
        let copy = Snapshot::of(&target.join("source")).only(is_other);
        assert_same(&source, &copy, &format!("{interest:?}"));
    }
}

/// Panics whenever it is told of an error.
struct Horrified;

impl Observer for Horrified {
    fn error(&self, _: &Error) {
        panic!("an error");
    }
}

#[test]
fn an_observer_that_panics_at_errors_loses_none_of_them() {
    let sandbox = Sandbox::new();
    for n in 0..20 {
        sandbox.file(format!("source/good-{n}"), 10);
        // Another kind of thing is there.
        sandbox.file(format!("source/bad-{n}"), 10);
        sandbox.dir(format!("copy/bad-{n}"));
    }
    let target = Target::Exactly(sandbox.path("copy"));
    let plan = Plan::resolve([sandbox.path("source")], target, Options::archive());
    let plan = plan.expect("a plan").observer(Arc::new(Horrified));
    let (pool, job) = plan.start(4).expect("workers");
    let report = job.join().expect("a report");
    pool.join();
    assert_eq!((report.stats.files, report.stats.errors), (20, 40));
}

#[test]
fn what_contradicts_deleting_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.file("source/file", 10);
    sandbox.file("copy/file", 20);
    let mut asks = Options::archive();
    asks.ask = true;
    let mut keeps = Options::archive();
    keeps.backup = poolcp::Backup::Simple;
    for mut options in [asks, keeps] {
        options.delete = poolcp::Delete::Extraneous;
        let target = Target::Exactly(sandbox.path("copy"));
        let plan = Plan::resolve([sandbox.path("source")], target, options);
        let error = plan.expect_err("an error");
        assert_eq!(error.operation(), poolcp::Operation::DeleteKeeps);
    }
}

/// Copies something of its own for each directory.
struct Copying {
    source: PathBuf,
    dest: PathBuf,
    count: AtomicUsize,
}

impl Observer for Copying {
    fn keeps_log(&self) -> bool {
        true
    }

    fn done(&self, done: &Done) {
        if done.what == What::Directory {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            let target = Target::Path(self.dest.join(number.to_string()));
            let mut options = Options::default();
            options.reflink = Reflink::Never;
            let plan = Plan::resolve([&self.source], target, options).expect("plan");
            assert!(plan.run().is_success());
        }
    }
}

#[test]
fn an_observer_may_copy_what_several_workers_copy() {
    let sandbox = Sandbox::in_memory();
    for dir in 0..6 {
        for file in 0..50 {
            sandbox.file(format!("source/{dir}/{file}"), 3000);
        }
    }
    // In chunks, for as many as are there.
    let source = sandbox.file("large", 80 * MIB);
    let observer = Arc::new(Copying {
        source: source.clone(),
        dest: sandbox.dir("inner"),
        count: AtomicUsize::new(0),
    });
    let target = Target::Path(sandbox.path("copy"));
    let plan = Plan::resolve([sandbox.path("source")], target, Options::archive());
    let plan = plan.expect("plan").observer(Arc::clone(&observer) as _);
    let (pool, job) = plan.start(4).expect("start");
    assert!(job.join().expect("a report").is_success());
    pool.join();
    assert_same_tree(&sandbox.path("source"), &sandbox.path("copy"), "outer");
    let large = fs::read(&source).expect("read");
    for number in 0..observer.count.load(Ordering::Relaxed) {
        let copy = fs::read(observer.dest.join(number.to_string())).expect("read");
        assert!(copy == large, "{number}");
    }
}
