//! What a random case is, and how it comes about: a small world, and a command line with options out of [`OPTIONS`]. Names are
//! given at the end, so that they mean something in that world. How it is made and run is not here.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::harness::NOBODY;

/// A world and a command line.
#[derive(Clone)]
pub(super) struct Case {
    /// Parents come before what is in them, files before their further names.
    pub(super) things: Vec<Thing>,
    /// Without the program's name.
    pub(super) words: Vec<String>,
    /// The options among them, by their names in [`OPTIONS`].
    pub(super) options: Vec<&'static str>,
    pub(super) umask: Option<u32>,
    pub(super) environment: Vec<(&'static str, &'static str)>,
    pub(super) answers: &'static str,
    pub(super) workers: &'static str,
    pub(super) ordinary: bool,
}

#[derive(Clone)]
pub(super) struct Thing {
    /// Relative to the working directory.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
}

#[derive(Clone, PartialEq)]
pub(super) enum Kind {
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
pub(super) struct Attributes {
    /// Otherwise what is usual.
    pub(super) mode: Option<u32>,
    /// Otherwise whoever runs the case.
    pub(super) owner: Option<u32>,
    pub(super) mtime: i64,
    pub(super) xattr: bool,
    pub(super) acl: bool,
    pub(super) default_acl: bool,
}

impl Attributes {
    pub(super) const PLAIN: Self = Self {
        mode: None,
        owner: None,
        mtime: TIMES[0],
        xattr: false,
        acl: false,
        default_acl: false,
    };
}

const SIZES: [usize; 4] = [100, 0, 1, 5000];
pub(super) const TIMES: [i64; 3] = [1_000_000_000, 1_100_000_000, 1_200_000_000];
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

pub(super) fn case(ordinary: bool) -> impl Strategy<Value = Case> {
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
