//! Random command lines on random files: poolcp, called by the name `cp`, and `cp` itself must do and say the same.
//!
//! A [`Case`] is a small world (a source area `s`, a destination area `d`, and what lies beside them), a command line with
//! options out of the whole list of GNU `cp` 9.1 in all their spellings, a umask, an environment and answers to questions. Names
//! come from a small pool, so that things collide. Each case is run on twins: exit code, messages, output and everything
//! that is in the sandbox afterwards are compared. A failure shrinks, and is printed as the shell script that shows it.
//!
//! | variable | meaning |
//! |---|---|
//! | `POOLCP_CASES` | how many cases each test tries |
//! | `POOLCP_SEED` | which ones; the default is fixed, so that a plain test run is always the same |
//! | `POOLCP_OPTIONS` | only these options, by their names in [`OPTIONS`], with spaces between them |
//! | `POOLCP_IGNORE` | while something known is still wrong: no case in whose differences one of these texts (with `;` between them) occurs |
//! | `POOLCP_STATISTICS` | if set: what the cases were like, on standard error |
//! | `POOLCP_REFEREE` | another program instead of `cp` |
//! | `POOLCP_SUBJECT` | another program instead of poolcp: with `cp` the generator itself is tested |
//! | `POOLCP_REVERSED` | if set: the subject's files are made in the opposite order, which `cp` alone can notice |
//!
//! Failing seeds are not kept: they mean something else as soon as a strategy changes. The scripts do not, so what was once
//! wrong is kept in [`SCRIPTS`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use rustix::fs::{Mode, OFlags};

use crate::harness::{
    ACCESS_ACL, Call, DEFAULT_ACL, NOBODY, Need, Run, Sandbox, acl_for, chmod, chown, is_root,
    poolcp_as_cp, set_mtime, set_xattr,
};
use crate::snapshot::Snapshot;

/// Cases of each test, unless `POOLCP_CASES` says how many.
const CASES: u32 = 500;

/// In how many orders `cp` is asked to do the same before it is believed.
const ORDERS: u64 = 6;

/// How deep no tree should become: `cp` has gone on and on, into what it was making.
const DEPTH: usize = 40;

/// The working directory, deep enough that names with `..` in them stay in the sandbox.
const HERE: &str = "1/2/3";

/// No case takes longer than a few milliseconds, unless it hangs. cp may: some it copies into themselves without end.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_WITH_CP: Duration = Duration::from_millis(1500);

// ---- Cases ----

/// A world and a command line.
#[derive(Clone)]
struct Case {
    /// Parents come before what is in them, files before their further names.
    things: Vec<Thing>,
    /// Without the program's name.
    words: Vec<String>,
    /// The options among them, by their names in [`OPTIONS`].
    options: Vec<&'static str>,
    umask: Option<u32>,
    environment: Vec<(&'static str, &'static str)>,
    answers: &'static str,
    workers: &'static str,
    ordinary: bool,
}

#[derive(Clone)]
struct Thing {
    /// Relative to the working directory.
    path: String,
    kind: Kind,
    attributes: Attributes,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Dir,
    File(usize),
    /// Zeros, but no hole.
    Zeros,
    /// Some bytes, then a hole.
    Hole,
    Symlink(String),
    HardLink(String),
    Fifo,
}

#[derive(Clone, Copy, Debug)]
struct Attributes {
    /// Otherwise what is usual.
    mode: Option<u32>,
    /// Otherwise whoever runs the case.
    owner: Option<u32>,
    mtime: i64,
    xattr: bool,
    acl: bool,
    default_acl: bool,
}

impl Attributes {
    const PLAIN: Self = Self {
        mode: None,
        owner: None,
        mtime: TIMES[0],
        xattr: false,
        acl: false,
        default_acl: false,
    };
}

const LARGE: usize = 40_000;
const SIZES: [usize; 4] = [100, 0, 1, 5000];
const TIMES: [i64; 3] = [1_000_000_000, 1_100_000_000, 1_200_000_000];
const OWNERS: [u32; 3] = [0, NOBODY, 1234];
const MODES: [u32; 13] = [
    0o644, 0o600, 0o444, 0o000, 0o755, 0o777, 0o700, 0o555, 0o666, 0o4755, 0o2755, 0o1777, 0o6711,
];
/// A directory that nobody may enter hides all that would be tried in it, so there are few.
const DIR_MODES: [u32; 12] = [
    0o755, 0o700, 0o777, 0o750, 0o1777, 0o2755, 0o6755, 0o3777, 0o555, 0o711, 0o644, 0o000,
];
const DIR_NAMES: [&str; 8] = ["dir", "dir", "dir", "sub", "sub", "a", "x y", "b"];
const NAMES: [&str; 16] = [
    "a", "a", "a", "a", "b", "b", "b", "c", "c", "d", "a~", "a.~1~", "x y", "it's", "dir", "sub",
];

/// An entry before it has a path.
#[derive(Clone, Debug)]
struct Seed {
    /// The working directory, the source area or the destination area.
    area: usize,
    parent: Index,
    name: Index,
    /// In the destination area: in the way of this source.
    opposite: Option<Index>,
    kind: SeedKind,
    attributes: Attributes,
}

#[derive(Clone, Debug)]
enum SeedKind {
    Dir,
    File(usize),
    Zeros,
    Hole,
    SymlinkTo(Index),
    Dangling,
    ToItself,
    HardLink(Index),
    Fifo,
}

/// A word of the command line that names a file.
#[derive(Clone, Debug)]
enum Operand {
    /// Anything, or nothing, by its name.
    Fixed(&'static str),
    /// Something that is to be copied.
    Source(Index, Dress),
    /// Something in the destination area.
    Target(Index, Dress),
    /// A directory there.
    Directory(Index),
}

/// What is put around a name.
#[derive(Clone, Copy, Debug)]
struct Dress {
    before: &'static str,
    /// What only a directory can have behind its name.
    behind: &'static str,
    /// Not only a directory gets it.
    insists: bool,
}

/// How a target is named.
#[derive(Clone, Copy, Debug)]
enum Form {
    Last,
    /// One word in front of the target.
    Word(&'static str),
    /// Two words, the target being the second.
    Words(&'static str),
}

/// What is typed before it has names.
#[derive(Clone, Debug)]
struct Typed {
    options: Vec<(&'static str, Index)>,
    recursive: Option<Index>,
    clustered: bool,
    /// So many options come after the operands.
    late: usize,
    /// A `--` in front of the operands.
    dashes: bool,
    sources: Vec<Operand>,
    twice: bool,
    target: Operand,
    form: Form,
}

/// All options of GNU `cp` 9.1 but the help (later ones have tests of their own): how often, a name, and how they may be spelled. A space separates two words.
const OPTIONS: &[(usize, &str, &str)] = &[
    (5, "b", "-b"),
    (
        5,
        "backup",
        "--backup | --backup=numbered | --backup=t | --backup=simple | \
         --backup=never | --backup=existing | --backup=nil | --backup=none | \
         --backup=off | --backup=num | --back",
    ),
    (
        3,
        "S",
        "-S .bak | -S.old | --suffix=.bak | --suffix x | -S ~ | --suff= | -S a/b | \
         -bS .bak",
    ),
    (3, "attributes-only", "--attributes-only | --attr"),
    (1, "copy-contents", "--copy-contents | --copy"),
    (3, "d", "-d"),
    (6, "f", "-f | --force | --fo"),
    (9, "i", "-i | --interactive | --int"),
    (2, "H", "-H"),
    (5, "l", "-l | --link | --li"),
    (4, "L", "-L | --dereference | --deref"),
    (5, "n", "-n | --no-clobber | --no-c"),
    (3, "P", "-P | --no-dereference | --no-d"),
    (5, "p", "-p"),
    (
        6,
        "preserve",
        "--preserve | --preserve=mode | --preserve=ownership | \
         --preserve=timestamps | --preserve=links | --preserve=xattr | \
         --preserve=all | --preserve=mode,timestamps | --preserve=links,mode | \
         --pres=own,time | --preserve=context | --preserve=xattr,ownership",
    ),
    (
        4,
        "no-preserve",
        "--no-preserve=mode | --no-preserve=ownership | --no-preserve=timestamps | \
         --no-preserve=links | --no-preserve=xattr | --no-preserve=all | \
         --no-pres=mode,links | --no-preserve mode",
    ),
    (5, "parents", "--parents | --pa"),
    (
        2,
        "reflink",
        "--reflink=auto | --reflink=never | --reflink=always | --reflink",
    ),
    (5, "remove-destination", "--remove-destination | --rem"),
    (
        3,
        "sparse",
        "--sparse=always | --sparse=never | --sparse=auto | --sparse always",
    ),
    (
        3,
        "strip-trailing-slashes",
        "--strip-trailing-slashes | --strip",
    ),
    (3, "s", "-s | --symbolic-link | --sym"),
    (4, "T", "-T | --no-target-directory | --no-t"),
    (6, "u", "-u | --update | --up"),
    (5, "v", "-v | --verbose | --verb"),
    (1, "x", "-x | --one-file-system | --one"),
    (1, "Z", "-Z | --context | --context=x"),
    (
        1,
        "wrong",
        "--unknown | -y | --re | --no | --backup=wrong | --backup=n | \
         --sparse=wrong | --reflink=wrong | --preserve=wrong | \
         --preserve=mode,wrong | --no-preserve=wrong | --no-preserve | --sparse | \
         --force=x | -t missing | -t d -T | -t d -t d | -t",
    ),
];

/// What makes a copy recursive; these are common.
const RECURSIVE: &[&str] = &[
    "-r",
    "-a",
    "-R",
    "--recursive",
    "--archive",
    "-dR",
    "-rp",
    "--arch",
];

/// Whether `POOLCP_OPTIONS` lets an option be tried.
fn is_wanted(name: &str) -> bool {
    let wanted = std::env::var("POOLCP_OPTIONS");
    wanted.is_ok_and(|list| list.split(' ').any(|word| word == name))
        || std::env::var_os("POOLCP_OPTIONS").is_none()
}

fn attributes(is_dir: bool) -> impl Strategy<Value = Attributes> {
    let modes = if is_dir { &DIR_MODES[..] } else { &MODES[..] };
    let sometimes = prop::bool::weighted(0.06);
    (
        prop::option::weighted(if is_dir { 0.3 } else { 0.4 }, select(modes)),
        prop::option::weighted(0.12, select(&OWNERS[..])),
        select(&TIMES[..]),
        prop::bool::weighted(0.1),
        sometimes,
        sometimes,
    )
        .prop_map(|(mode, owner, mtime, xattr, acl, default_acl)| Attributes {
            mode,
            owner,
            mtime,
            xattr,
            acl,
            default_acl,
        })
}

fn seed() -> impl Strategy<Value = Seed> {
    let kind = prop_oneof![
        9 => select(&SIZES[..]).prop_map(SeedKind::File),
        7 => Just(SeedKind::Dir),
        1 => Just(SeedKind::Zeros),
        1 => Just(SeedKind::Hole),
        4 => any::<Index>().prop_map(SeedKind::SymlinkTo),
        1 => Just(SeedKind::Dangling),
        1 => Just(SeedKind::ToItself),
        3 => any::<Index>().prop_map(SeedKind::HardLink),
        1 => Just(SeedKind::Fifo),
    ];
    let area = prop_oneof![3 => Just(0_usize), 5 => Just(1), 5 => Just(2)];
    let place = (area, any::<Index>(), any::<Index>());
    let opposite = prop::option::weighted(0.6, any::<Index>());
    let both = (attributes(true), attributes(false));
    (place, opposite, kind, both).prop_map(|((area, parent, name), opposite, kind, both)| Seed {
        area,
        parent,
        name,
        opposite,
        attributes: if matches!(kind, SeedKind::Dir) {
            both.0
        } else {
            both.1
        },
        kind,
    })
}

fn dress() -> impl Strategy<Value = Dress> {
    let around = prop_oneof![
        40 => Just(("", "")),
        3 => Just(("./", "")),
        6 => Just(("", "/")),
        2 => Just(("", "//")),
        5 => Just(("", "/.")),
        1 => Just(("", "/..")),
        1 => Just((".//", "/./")),
    ];
    (around, prop::bool::weighted(0.2)).prop_map(|((before, behind), insists)| Dress {
        before,
        behind,
        insists,
    })
}

fn source() -> impl Strategy<Value = Operand> {
    prop_oneof![
        26 => (any::<Index>(), dress()).prop_map(|(index, dress)| Operand::Source(index, dress)),
        2 => (any::<Index>(), dress()).prop_map(|(index, dress)| Operand::Target(index, dress)),
        3 => select(&["s/.", "s", "s/"][..]).prop_map(Operand::Fixed),
        1 => select(&["missing", ".", "s/missing", ""][..]).prop_map(Operand::Fixed),
    ]
}

/// The target; mostly an existing directory if there `is_need` of one.
fn target(is_need: bool) -> impl Strategy<Value = Operand> {
    let other = if is_need { 1 } else { 12 };
    prop_oneof![
        30 => select(&["d", "d", "d", "d/", "d/.", "./d"][..]).prop_map(Operand::Fixed),
        12 => any::<Index>().prop_map(Operand::Directory),
        other => select(&["new", "new", "d/new", "new/", "."][..]).prop_map(Operand::Fixed),
        other => (any::<Index>(), dress()).prop_map(|(index, dress)| Operand::Target(index, dress)),
        2 => (any::<Index>(), dress()).prop_map(|(index, dress)| Operand::Source(index, dress)),
        1 => select(&["s", "missing/new", "", "new/."][..]).prop_map(Operand::Fixed),
    ]
}

fn typed() -> impl Strategy<Value = Typed> {
    let mut choices = Vec::new();
    for (weight, name, _) in OPTIONS.iter().filter(|(_, name, _)| is_wanted(name)) {
        choices.extend(vec![*name; *weight]);
    }
    let option = (select(choices), any::<Index>());
    let form = prop_oneof![
        9 => Just(Form::Last),
        1 => select(&["-t", "--target-directory", "--targ"][..]).prop_map(Form::Words),
        1 => select(&["-t", "--target-directory=", "--t="][..]).prop_map(Form::Word),
    ];
    let options = (
        prop::collection::vec(option, 0..5),
        prop::option::weighted(0.7, any::<Index>()),
        any::<bool>(),
        prop_oneof![8 => Just(0_usize), 1 => Just(1), 1 => Just(2)],
        prop::bool::weighted(0.1),
    );
    let count = prop_oneof![6 => Just(1_usize), 3 => Just(2), 1 => Just(3)];
    let operands =
        (count, form, prop::bool::weighted(0.06)).prop_flat_map(|(count, form, twice)| {
            let is_need = count > 1 || twice || !matches!(form, Form::Last);
            let sources = prop::collection::vec(source(), count);
            (sources, Just(twice), target(is_need), Just(form))
        });
    (options, operands).prop_map(
        |((options, recursive, clustered, late, dashes), (sources, twice, target, form))| Typed {
            options,
            recursive,
            clustered,
            late,
            dashes,
            sources,
            twice,
            target,
            form,
        },
    )
}

fn environment() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let suffix = select(&[".old", "", "~", "a/b"][..]);
    let control = select(&["numbered", "t", "existing", "simple", "none", "wrong"][..]);
    (
        prop::option::weighted(0.05, Just(("POSIXLY_CORRECT", "1"))),
        prop::option::weighted(
            0.07,
            suffix.prop_map(|value| ("SIMPLE_BACKUP_SUFFIX", value)),
        ),
        prop::option::weighted(0.07, control.prop_map(|value| ("VERSION_CONTROL", value))),
    )
        .prop_map(|(posix, suffix, control)| {
            [posix, suffix, control].into_iter().flatten().collect()
        })
}

fn case(ordinary: bool) -> impl Strategy<Value = Case> {
    // What hides everything is not tried often.
    let root = prop_oneof![9 => Just(Attributes::PLAIN), 1 => attributes(true)];
    let roots = [root.clone(), root];
    let world = prop::collection::vec(seed(), 0..16);
    let umask = prop::option::weighted(0.2, select(&[0o077, 0o000, 0o027][..]));
    let answers = select(&["", "y\n", "n\n", "y\ny\ny\ny\n", "n\ny\n\nyes\n", "Y\nno\n"][..]);
    let workers = select(&["-j1", "-j2", "-j16"][..]);
    let around = (umask, environment(), answers, workers);
    (roots, world, typed(), around).prop_map(move |(roots, world, typed, around)| {
        let mut things = settle(roots, world);
        let (words, options) = spell(&typed, &things);
        let (umask, environment, answers, workers) = around;
        if typed.recursive.is_none() || options.contains(&"copy-contents") {
            // What reads a fifo waits for ever.
            things.iter_mut().for_each(make_harmless);
        }
        let asks = options.contains(&"i");
        Case {
            things,
            words,
            options,
            umask,
            environment,
            answers: if asks { answers } else { "" },
            workers,
            ordinary,
        }
    })
}

fn make_harmless(thing: &mut Thing) {
    if thing.kind == Kind::Fifo {
        thing.kind = Kind::File(SIZES[0]);
    }
}

/// Gives each entry its path; those whose path is taken are left out.
fn settle(roots: [Attributes; 2], mut seeds: Vec<Seed>) -> Vec<Thing> {
    let mut things = Vec::new();
    for (path, attributes) in ["s", "d"].into_iter().zip(roots) {
        things.push(Thing {
            path: path.to_owned(),
            kind: Kind::Dir,
            attributes,
        });
    }
    let mut dirs = ["", "s/", "d/"].map(|root| vec![root.to_owned()]);
    let mut links = Vec::new();
    seeds.sort_by_key(|seed| seed.area);
    for mut seed in seeds {
        let path = seed.place(&things, &dirs);
        if things.iter().any(|thing| thing.path == path) {
            continue;
        }
        let files: Vec<&Thing> = things
            .iter()
            .filter(|thing| !matches!(thing.kind, Kind::Dir | Kind::HardLink(_)))
            .collect();
        let kind = match &seed.kind {
            SeedKind::Dir => {
                if path.matches('/').count() < 3 {
                    dirs[seed.area].push(format!("{path}/"));
                }
                Kind::Dir
            }
            SeedKind::File(size) => Kind::File(*size),
            SeedKind::HardLink(_) if files.is_empty() => Kind::File(SIZES[0]),
            SeedKind::HardLink(to) => Kind::HardLink(to.get(&files).path.clone()),
            SeedKind::Zeros => Kind::Zeros,
            SeedKind::Hole => Kind::Hole,
            SeedKind::Fifo => Kind::Fifo,
            SeedKind::Dangling => Kind::Symlink("nowhere".to_owned()),
            SeedKind::ToItself => Kind::Symlink(last_name(&path).to_owned()),
            SeedKind::SymlinkTo(to) => {
                links.push((things.len(), *to));
                Kind::Symlink(String::new())
            }
        };
        things.push(Thing {
            path,
            kind,
            attributes: seed.attributes,
        });
    }
    // Links may lead to what comes later.
    for (index, to) in links {
        let target = relative(&things[index].path, &to.get(&things).path);
        things[index].kind = Kind::Symlink(target);
    }
    things
}

impl Seed {
    /// Its path; in the way of a source it mostly becomes of the same kind as that.
    fn place(&mut self, things: &[Thing], dirs: &[Vec<String>; 3]) -> String {
        let sources: Vec<&Thing> = things.iter().filter(|thing| !thing.is_target()).collect();
        if let (2, Some(index)) = (self.area, self.opposite) {
            let source = index.get(&sources);
            let below = source.path.strip_prefix("s/").unwrap_or(&source.path);
            let path = format!("d/{below}");
            let parent = path.strip_suffix(last_name(&path)).unwrap_or_default();
            match (&source.kind, &self.kind) {
                (Kind::Dir, SeedKind::File(_)) => self.kind = SeedKind::Dir,
                (Kind::Dir, _) => {}
                (_, SeedKind::Dir) => self.kind = SeedKind::File(SIZES[0]),
                _ => {}
            }
            if dirs[2].iter().any(|dir| dir == parent) {
                return path;
            }
            return format!("d/{}", last_name(&path));
        }
        let is_dir = matches!(self.kind, SeedKind::Dir);
        let name = if is_dir {
            self.name.get(&DIR_NAMES)
        } else {
            self.name.get(&NAMES)
        };
        self.parent.get(&dirs[self.area]).clone() + name
    }
}

impl Thing {
    fn is_target(&self) -> bool {
        self.path == "d" || self.path.starts_with("d/")
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a link at `from` says to lead to `to`.
fn relative(from: &str, to: &str) -> String {
    let mut from: Vec<&str> = from.split('/').collect();
    let mut to: Vec<&str> = to.split('/').collect();
    from.pop();
    while from
        .first()
        .is_some_and(|first| to.len() > 1 && *first == to[0])
    {
        from.remove(0);
        to.remove(0);
    }
    "../".repeat(from.len()) + &to.join("/")
}

/// The words of the command line, and the names of the options in it.
fn spell(typed: &Typed, things: &[Thing]) -> (Vec<String>, Vec<&'static str>) {
    let mut options = Vec::new();
    let mut spelled: Vec<&'static str> = Vec::new();
    if let Some(index) = typed.recursive {
        spelled.push(*index.get(RECURSIVE));
    }
    for (name, index) in &typed.options {
        let row = OPTIONS.iter().find(|row| row.1 == *name);
        let spellings: Vec<_> = row.expect("an option").2.split(" | ").collect();
        spelled.push(*index.get(&spellings));
        options.push(*name);
    }
    let split = spelled.len() - typed.late.min(typed.options.len());
    let late = spelled.split_off(split);
    let mut words = separate(&spelled, typed.clustered);
    let recursive = typed.recursive.is_some();
    let target = name(&typed.target, things, recursive);
    let mut operands: Vec<String> = typed
        .sources
        .iter()
        .map(|source| name(source, things, recursive))
        .collect();
    if typed.twice {
        operands.push(operands[0].clone());
    }
    match typed.form {
        Form::Last => operands.push(target),
        Form::Word(option) => words.push(option.to_owned() + &target),
        Form::Words(option) => words.extend([option.to_owned(), target]),
    }
    if typed.dashes {
        words.push("--".to_owned());
    }
    words.extend(operands);
    words.extend(separate(&late, typed.clustered));
    (words, options)
}

/// Options as words, single letters in one if they are clustered.
fn separate(spelled: &[&str], clustered: bool) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let is_short = |word: &str| {
        let letters = word.strip_prefix('-').unwrap_or_default();
        !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphabetic())
    };
    for option in spelled {
        let mut parts = option.split(' ');
        let first = parts.next().unwrap_or_default();
        match words.last_mut() {
            Some(last) if clustered && is_short(last) && is_short(first) => *last += &first[1..],
            _ => words.push(first.to_owned()),
        }
        words.extend(parts.map(str::to_owned));
    }
    words
}

/// An operand as it is typed. What is not copied without `-r` is not often a source without it.
fn name(operand: &Operand, things: &[Thing], recursive: bool) -> String {
    let pick = |index: &Index, wanted: &dyn Fn(&Thing) -> bool| {
        let found: Vec<&Thing> = things.iter().filter(|thing| wanted(thing)).collect();
        *index.get(&found)
    };
    let is_copied = |thing: &Thing| !thing.is_target() && (recursive || thing.kind != Kind::Dir);
    let (thing, dress) = match operand {
        Operand::Fixed(name) => return (*name).to_owned(),
        Operand::Source(index, dress) if things.iter().any(is_copied) => {
            (pick(index, &is_copied), dress)
        }
        Operand::Source(index, dress) => (pick(index, &|thing| !thing.is_target()), dress),
        Operand::Target(index, dress) => (pick(index, &Thing::is_target), dress),
        Operand::Directory(index) => {
            let is_wanted = |thing: &Thing| thing.kind == Kind::Dir && thing.is_target();
            return pick(index, &is_wanted).path.clone();
        }
    };
    let may_end_so = matches!(thing.kind, Kind::Dir | Kind::Symlink(_)) || dress.insists;
    let behind = if may_end_so { dress.behind } else { "" };
    format!("{}{}{behind}", dress.before, thing.path)
}

// ---- A case as a shell script ----

impl fmt::Debug for Case {
    /// As something that can be typed in an empty directory, and be kept in [`SCRIPTS`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for thing in &self.things {
            thing.write_making(f)?;
        }
        if self.ordinary {
            writeln!(f, "chown -hR {NOBODY}:{NOBODY} .")?;
        }
        for thing in self.things.iter().rev() {
            thing.write_attributes(f)?;
        }
        if let Some(umask) = self.umask {
            write!(f, "umask {umask:03o}; ")?;
        }
        if !self.answers.is_empty() {
            write!(f, "printf '{}' | ", self.answers.replace('\n', "\\n"))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        if self.ordinary {
            write!(
                f,
                "setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
            )?;
        }
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        write!(f, "cp {}", words.join(" "))
    }
}

impl Thing {
    fn write_making(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = quoted(&self.path);
        match &self.kind {
            Kind::Dir => writeln!(f, "mkdir {path}"),
            Kind::File(0) => writeln!(f, ": >{path}"),
            Kind::File(size) => writeln!(f, "yes {path} | head -c {size} >{path}"),
            Kind::Zeros => writeln!(f, "head -c {LARGE} /dev/zero >{path}"),
            Kind::Hole => writeln!(
                f,
                "yes {path} | head -c 100 >{path}; truncate -s {LARGE} {path}"
            ),
            Kind::Symlink(target) => writeln!(f, "ln -s {} {path}", quoted(target)),
            Kind::HardLink(to) => writeln!(f, "ln -P {} {path}", quoted(to)),
            Kind::Fifo => writeln!(f, "mkfifo {path}"),
        }
    }

    fn write_attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, attributes) = (quoted(&self.path), self.effective());
        if let Some(owner) = attributes.owner {
            writeln!(f, "chown -h {owner}:{owner} {path}")?;
        }
        if attributes.xattr {
            writeln!(f, "setfattr -n user.poolcp -v x {path}")?;
        }
        if attributes.acl {
            writeln!(f, "setfacl -m u::rwx,u:1234:rx,g::rx,m::rwx,o::- {path}")?;
        }
        if let Some(mode) = attributes.mode {
            writeln!(f, "chmod {mode:04o} {path}")?;
        }
        if attributes.default_acl {
            writeln!(f, "setfacl -d -m u::rwx,u:4321:rx,g::rx,m::rwx,o::- {path}")?;
        }
        match self.kind {
            Kind::HardLink(_) => Ok(()),
            _ => writeln!(f, "touch -hd @{} {path}", attributes.mtime),
        }
    }

    /// Its attributes as far as such a thing can have them, and this machine can set them.
    fn effective(&self) -> Attributes {
        let mut attributes = self.attributes;
        let (is_dir, has_data) = match self.kind {
            Kind::HardLink(_) => return Attributes::PLAIN,
            Kind::Dir => (true, true),
            Kind::File(_) | Kind::Zeros | Kind::Hole => (false, true),
            Kind::Symlink(_) | Kind::Fifo => (false, false),
        };
        attributes.owner = attributes.owner.filter(|_| is_root());
        attributes.xattr &= has_data && ABLE.xattrs;
        attributes.acl &= has_data && ABLE.acls;
        attributes.default_acl &= is_dir && ABLE.acls;
        if !has_data {
            attributes.mode = attributes.mode.map(|mode| mode & 0o777);
        }
        if matches!(self.kind, Kind::Symlink(_)) {
            attributes.mode = None;
        }
        attributes
    }
}

/// As a word of a shell script.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./=,:+-".contains(c);
    if !word.is_empty() && word.chars().all(|c| plain(c) || c == '~') && !word.starts_with('~') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

// ---- A case on the disk ----

/// What the file system of the sandboxes can keep.
struct Able {
    xattrs: bool,
    acls: bool,
}

static ABLE: LazyLock<Able> = LazyLock::new(|| {
    let probe = Sandbox::small_in_memory();
    Able {
        xattrs: probe.can_set("user.poolcp", b"x"),
        acls: probe.can_set(ACCESS_ACL, &acl_for(1)),
    }
});

impl Case {
    /// Makes the world in one of the orders in which that can be done: 0 is as written, 1 the reverse. What is in a
    /// directory is copied by `cp` in the order in which it was made.
    fn make(&self, order: u64) -> Sandbox {
        let sandbox = Sandbox::small_in_memory();
        let here = sandbox.dir(HERE);
        let mut todo: Vec<&Thing> = self.things.iter().collect();
        if order == 1 {
            todo.reverse();
        } else if order > 1 {
            let mut state = order;
            todo.sort_by_cached_key(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695);
                state >> 33
            });
        }
        let mut made = BTreeSet::new();
        for thing in todo {
            self.make_thing(thing, &here, &mut made);
        }
        if self.ordinary {
            sandbox.give_to_ordinary_user();
        }
        for thing in self.things.iter().rev() {
            thing.give_attributes(&here.join(&thing.path));
        }
        set_mtime(&here, TIMES[0], 0);
        sandbox
    }

    /// Makes what has to be there before, then the thing.
    fn make_thing<'a>(&'a self, thing: &'a Thing, here: &Path, made: &mut BTreeSet<&'a str>) {
        if !made.insert(&thing.path) {
            return;
        }
        let mut needed: Vec<&str> = thing
            .path
            .rsplit_once('/')
            .map(|split| split.0)
            .into_iter()
            .collect();
        if let Kind::HardLink(to) = &thing.kind {
            needed.push(to);
        }
        for path in needed {
            let other = self.things.iter().find(|other| other.path == path);
            self.make_thing(other.expect("what is needed"), here, made);
        }
        let path = here.join(&thing.path);
        match &thing.kind {
            Kind::Dir => fs::create_dir(path).expect("make a directory"),
            Kind::File(size) => fs::write(path, thing.content(*size)).expect("write a file"),
            Kind::Zeros => fs::write(path, vec![0; LARGE]).expect("write a file"),
            Kind::Hole => {
                fs::write(&path, thing.content(100)).expect("write a file");
                let file = fs::File::options().write(true).open(path).expect("open");
                file.set_len(LARGE as u64).expect("set a size");
            }
            Kind::Symlink(to) => std::os::unix::fs::symlink(to, path).expect("make a symlink"),
            Kind::HardLink(to) => crate::harness::hard_link(&here.join(to), &path),
            Kind::Fifo => crate::harness::fifo(&path),
        }
    }

    /// Keeps the fifos open for reading, so that nobody who writes to one has to wait.
    fn read_fifos(&self, sandbox: &Sandbox) -> Vec<OwnedFd> {
        let here = sandbox.path(HERE);
        let fifos = self.things.iter().filter(|thing| thing.kind == Kind::Fifo);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        fifos
            .filter_map(|fifo| rustix::fs::open(here.join(&fifo.path), flags, Mode::empty()).ok())
            .collect()
    }

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

impl Thing {
    /// What `yes` prints for its path.
    fn content(&self, size: usize) -> Vec<u8> {
        let line = self.path.bytes().chain([b'\n']);
        line.cycle().take(size).collect()
    }

    fn give_attributes(&self, path: &Path) {
        let attributes = self.effective();
        if matches!(self.kind, Kind::HardLink(_)) {
            return;
        }
        if let Some(owner) = attributes.owner {
            chown(path, owner, owner);
        }
        if attributes.xattr {
            set_xattr(path, "user.poolcp", b"x");
        }
        if attributes.acl {
            set_xattr(path, ACCESS_ACL, &acl_for(1234));
        }
        if let Some(mode) = attributes.mode {
            chmod(path, mode);
        }
        if attributes.default_acl {
            set_xattr(path, DEFAULT_ACL, &acl_for(4321));
        }
        set_mtime(path, attributes.mtime, 0);
    }
}

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

/// Why a difference is none of poolcp's faults. Each reason is one that people who use it are told, too.
fn accepted(
    case: &Case,
    theirs: &Outcome,
    ours: &Outcome,
    difference: &Difference,
) -> Option<&'static str> {
    let is_code = difference.about == EXIT_CODE;
    let asked = theirs.messages.iter().any(|line| line.ends_with('?'));
    if is_code && asked && (theirs.code, ours.code) == (0, 1) {
        return Some("cp 9.1 calls a refusal to overwrite a success, later ones do not");
    }
    let told = difference.about.starts_with("cp: not replacing ");
    if (told || is_code) && case.options.contains(&"n") && !*SKIPS_IN_SILENCE {
        return Some("cp 9.2 to 9.4 call what -n skips a failure");
    }
    let says = |text: &str| theirs.messages.iter().any(|line| line.contains(text));
    if says("preserving permissions for") && says("/.': ") {
        return Some("cp cannot reach `dir/.` again once its own copy is in the way");
    }
    let fails_silently = theirs.messages.is_empty() && ours.messages.is_empty();
    if is_code && fails_silently && (theirs.code, ours.code) == (1, 0) && case.ordinary {
        return Some("cp fails without a word where it cannot reach `dir/.` again");
    }
    let links_fail = |outcome: &Outcome| {
        let fails = |line: &String| line.contains("cannot create hard link");
        outcome.messages.iter().any(fails)
    };
    if links_fail(theirs) && !links_fail(ours) {
        return Some("cp removes a copy that it is going to link further names to");
    }
    let is_from_a_new_link = [": mtime now became", "removed '"];
    let is_from_a_new_link = is_from_a_new_link
        .iter()
        .any(|words| difference.text.contains(words));
    if is_from_a_new_link && case.links_further_names() {
        return Some("cp replaces a name of a copy by a new link to the same copy");
    }
    let we_say_same = ours
        .messages
        .iter()
        .any(|line| line.contains("are the same file"));
    let moves_away = case.makes_backups() || case.options.contains(&"remove-destination");
    if we_say_same && moves_away {
        return Some(
            "cp does not know a name behind a symbolic link again, and moves the source away",
        );
    }
    let through_new = |line: &String| line.contains("through just-created symlink");
    if ours.messages.iter().any(through_new) {
        return Some("cp writes through symbolic links that it has made below operands");
    }
    let stumbles = says("cannot create directory")
        || says("cannot create regular file")
        || says("cannot create symbolic link")
        || says("can make relative symbolic links")
        || says("into itself")
        || (says("cannot open")
            && !ours
                .messages
                .iter()
                .any(|line| line.contains("cannot open")))
        || says("File exists")
        || says("not writing through dangling");
    if stumbles && case.options.contains(&"parents") {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    let is_told = |text: &str| difference.about.starts_with(text);
    let is_more = difference.text.ends_with("should not be there");
    if is_more && case.options.contains(&"parents") && case.makes_backups() {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    if says("cannot read symbolic link") && ours.code == 0 {
        return Some("cp replaces a link that its own way leads through, and loses it");
    }
    if is_told("cp: preserving permissions for") && theirs.code == 1 && case.ordinary {
        return Some("cp fails without a word where a directory belongs to somebody else");
    }
    if says("failed to clone") {
        return Some(
            "cp 9.1 leaves an empty file where --reflink=always failed, later ones do not",
        );
    }
    if says("getting attribute 'user.") {
        return Some("cp gives up on a directory whose attributes it may not read");
    }
    if says("setting attribute 'user.") && case.options.contains(&"s") {
        return Some("cp -s --preserve=xattr would give the link what only its target can have");
    }
    if difference.about.starts_with("cp: setting attribute") {
        return Some("cp 9.1 names the attribute that could not be set, but not the file");
    }
    if difference.about.contains("mutually exclusive") {
        return Some("cp 9.1 words it differently");
    }
    if *MISPLACES_BACKUPS && case.makes_simple_backups() {
        return Some("cp 9.1 makes simple backups in the working directory");
    }
    let in_a_file = [
        "content ",
        "size ",
        "mtime ",
        "mode ",
        "xattrs ",
        "allocated ",
    ];
    let is_in_a_file = in_a_file.iter().any(|fact| difference.text.contains(fact));
    if is_in_a_file && case.has_two_ways_to_a_file() {
        return Some(
            "which of the sources that end up in one file is the last depends on the order",
        );
    }
    let is_about_a_link = ["Too many levels", "dangling symlink"];
    let is_about_a_link = is_about_a_link
        .iter()
        .any(|words| difference.text.contains(words));
    if is_about_a_link && case.has_two_ways_to_a_file() && (theirs.code, ours.code) == (1, 1) {
        return Some("what a link leads to may have been copied already, or not");
    }
    let links = [
        "content ",
        "same file as",
        "mtime ",
        "removed ",
        "kind file became symlink",
        "target ",
    ];
    let is_linked = links.iter().any(|fact| difference.text.contains(fact))
        || says("cannot create hard link")
        || (says("are the same file") && !we_say_same);
    if case.options.contains(&"u") && is_linked {
        return Some("cp -u links names of one source file that are up to date, kept links or not");
    }
    let says_new = |line: &String| {
        line.contains("will not overwrite just-created") || line.contains("overwrite ")
    };
    if case.options.contains(&"parents") && ours.messages.iter().any(says_new) {
        return Some("cp --parents takes what is there for new once it has made a directory");
    }
    if case.is_new_mtime_of_a_dir(&difference.text) {
        return Some("a directory changes when a file in it is replaced by a new one");
    }
    if drops_special_bits(&difference.text) {
        return Some("cp leaves special bits of an existing file where the source has none");
    }
    let endless =
        |line: &String| line.contains("into itself") || line.contains("will not create hard link");
    let mut messages = theirs.messages.iter().chain(&ours.messages);
    if theirs.code == 1 && ours.code == 1 && messages.any(endless) {
        return Some("how far a copy into itself goes depends on the order of names");
    }
    let leaves_alone = case.options.contains(&"n") || case.options.contains(&"u");
    if says("into itself") && ours.code == 0 && leaves_alone {
        return Some("a directory that is its own copy, and left alone, is no error");
    }
    None
}

impl Case {
    fn makes_backups(&self) -> bool {
        let backups = ["b", "backup", "S"];
        backups.iter().any(|name| self.options.contains(name))
    }

    /// Whether simple backups are asked for by that name, or `never`.
    fn makes_simple_backups(&self) -> bool {
        let options = self
            .words
            .iter()
            .filter_map(|word| word.strip_prefix("--b"));
        let values = options.filter_map(|option| Some(option.split_once('=')?.1));
        let from_environment = self.environment.iter().map(|(_, value)| *value);
        let mut controls = values.chain(from_environment);
        controls.any(|control| control.starts_with('s') || control.starts_with("ne"))
    }
}

impl Case {
    /// `"d": mtime … became now`, of a directory that was there.
    fn is_new_mtime_of_a_dir(&self, text: &str) -> bool {
        let is_about = |path: &str| text.starts_with(&format!("\"{path}\": mtime "));
        let is_it =
            |thing: &Thing| thing.kind == Kind::Dir && is_about(&format!("{HERE}/{}", thing.path));
        let is_there = is_about(HERE) || self.things.iter().any(is_it);
        // With these a directory may be there because another operand has been copied.
        text.ends_with(" became now") && (is_there || self.options.contains(&"parents"))
    }

    /// Whether names of one source file may be met twice, by several operands, and are linked.
    fn links_further_names(&self) -> bool {
        let keeps_links = |word: &String| match word.strip_prefix("--") {
            Some(long) => long.starts_with("ar") || long.starts_with("preserve"),
            None => word.starts_with('-') && word.contains(['a', 'd']),
        };
        let is_link = |thing: &Thing| matches!(thing.kind, Kind::HardLink(_));
        self.words.iter().any(keeps_links)
            && (self.options.contains(&"L") || self.things.iter().any(is_link))
    }

    /// Whether several names in the destination may be one file, or a source is one of them.
    fn has_two_ways_to_a_file(&self) -> bool {
        self.things.iter().any(|thing| match &thing.kind {
            Kind::Symlink(_) | Kind::HardLink(_) if thing.path.starts_with("d/") => true,
            Kind::Symlink(to) => to.contains("d/"),
            _ => false,
        })
    }
}

/// Whether `cp` puts simple backups of a directory's files elsewhere.
static MISPLACES_BACKUPS: LazyLock<bool> = LazyLock::new(|| {
    let sandbox = Sandbox::new();
    sandbox.file("a", 1);
    sandbox.file("d/a", 1);
    sandbox.cp(["--backup=simple", "a", "d"]).run();
    !sandbox.path("d/a~").exists()
});

/// Whether a difference is that special bits are gone: `… mode 2755 became 0755`.
fn drops_special_bits(text: &str) -> bool {
    let Some((_, modes)) = text.trim_end().rsplit_once(": mode ") else {
        return false;
    };
    let mode = |text: &str| u32::from_str_radix(text, 8).ok();
    let modes = modes.split_once(" became ");
    matches!(
        modes.map(|(theirs, ours)| (mode(theirs), mode(ours))),
        Some((Some(theirs), Some(ours))) if theirs & 0o777 == ours & 0o777 && ours & !theirs == 0
    )
}

static SKIPS_IN_SILENCE: LazyLock<bool> = LazyLock::new(|| Need::SilentNoClobber.is_met());

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
            crate::harness::say(&format!("{count:8} {share:5.1} %  {what}"));
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
