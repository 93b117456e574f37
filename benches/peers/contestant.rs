//! Who takes part, how to find them, and how each is called so that it does its best.
//!
//! A contestant has one or more variants, command lines that a user who wants speed might choose between. The quick pass
//! before the rounds runs them all (with `--hurry`, those that may help), and the best one takes part; so nobody loses by a
//! default that does not suit a cell.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::places::places;
use crate::runner::Pipeline;
use crate::workload::Workload;

/// Stand in command lines for the two paths.
const SOURCE: &str = "{source}";
const COPY: &str = "{copy}";

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Data, names, types, permissions less the umask: `cp -r`.
    Recursive,
    /// And owners, times, hard links, extended attributes: `cp -a`.
    Archive,
    /// The same once more, onto a copy that is up to date already: `rsync -a`.
    Again,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Recursive, Self::Archive, Self::Again];

    /// As in `cp`'s option, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recursive => "r",
            Self::Archive => "a",
            Self::Again => "again",
        }
    }

    /// What `cp` is told.
    fn as_for_cp(self) -> &'static str {
        match self {
            Self::Recursive => "-r",
            Self::Archive => "-a",
            Self::Again => "-auT",
        }
    }

    /// Whether attributes are kept.
    pub fn is_archive(self) -> bool {
        self != Self::Recursive
    }
}

/// What a contestant says that it keeps, besides data, names and types. It is marked as wrong if that is not so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims {
    pub modes: bool,
    pub owners: bool,
    pub times: bool,
    pub directory_times: bool,
    pub symlink_times: bool,
    pub links: bool,
    pub xattrs: bool,
    pub holes: bool,
}

const NOTHING: Claims = Claims {
    modes: false,
    owners: false,
    times: false,
    directory_times: false,
    symlink_times: false,
    links: false,
    xattrs: false,
    holes: false,
};

const PERMISSIONS: Claims = Claims {
    modes: true,
    ..NOTHING
};

const PERMISSIONS_AND_HOLES: Claims = Claims {
    modes: true,
    holes: true,
    ..NOTHING
};

const EVERYTHING: Claims = Claims {
    modes: true,
    owners: true,
    times: true,
    directory_times: true,
    symlink_times: true,
    links: true,
    xattrs: true,
    holes: true,
};

/// A tool that copies trees, as the world has it.
struct Tool {
    name: &'static str,
    /// Names that its program may have, the likeliest first.
    programs: &'static [&'static str],
    /// What its `--version` has somewhere: other programs may have the same name.
    signature: &'static str,
    /// How to get it.
    install: &'static str,
    /// Its claims with `-r`; and with `-a`, if it has anything like that.
    recursive: Claims,
    archive: Option<Claims>,
    /// Whether it can tell what is up to date.
    compares: bool,
    variants: fn(&Call) -> Vec<Vec<String>>,
}

/// For what a command line is wanted.
struct Call<'a> {
    program: &'a str,
    mode: Mode,
    workload: Workload,
    cores: usize,
}

impl Call<'_> {
    /// One command line: the program, what is given, source and copy.
    fn with(&self, options: &str) -> Vec<String> {
        let words = [self.program].into_iter().chain(options.split_whitespace());
        words.chain([SOURCE, COPY]).map(str::to_owned).collect()
    }

    fn by_mode<'o>(&self, recursive: &'o str, archive: &'o str) -> &'o str {
        match self.mode {
            Mode::Recursive => recursive,
            Mode::Archive | Mode::Again => archive,
        }
    }
}

/// A word that is the pipe between two commands.
const PIPE: &str = "|";

/// GNU cp comes first: it is there everywhere, warms the cache, and shows how long a cell takes.
const TOOLS: [Tool; 8] = [
    Tool {
        name: "cp",
        programs: &["cp"],
        signature: "GNU coreutils",
        install: "any GNU system has it",
        recursive: PERMISSIONS_AND_HOLES,
        archive: Some(EVERYTHING),
        compares: true,
        variants: |call| vec![call.with(call.mode.as_for_cp())],
    },
    Tool {
        name: "cpz",
        programs: &["cpz"],
        signature: "cpz",
        install: "cargo install cpz",
        recursive: PERMISSIONS,
        // It has no such option.
        archive: None,
        compares: false,
        variants: |call| vec![call.with("")],
    },
    Tool {
        name: "xcp",
        programs: &["xcp"],
        signature: "xcp",
        install: "cargo install xcp",
        recursive: PERMISSIONS_AND_HOLES,
        archive: Some(Claims {
            // It sets a directory's times before it fills it.
            directory_times: false,
            // It gives times to what it opens.
            symlink_times: false,
            links: false,
            ..EVERYTHING
        }),
        compares: false,
        variants: |call| {
            // Times are not asked for with -r; permissions are, because cp -r keeps who may execute. A bar is no use here.
            // Its default is 4 workers. On cold caches more help; "parblock" is for large files.
            let options = call.by_mode("-r --no-progress --no-timestamps", "-r --no-progress -o");
            let workers = [call.cores, 4, 16].map(|n| format!("{options} --workers {n}"));
            let mut variants: Vec<_> = workers.iter().map(|options| call.with(options)).collect();
            if matches!(
                call.workload,
                Workload::Big | Workload::Huge | Workload::Sparse
            ) {
                variants.push(call.with(&format!("{options} --driver parblock --block-size 16MB")));
            }
            variants
        },
    },
    Tool {
        name: "fcp",
        programs: &["fcp"],
        // It says the number alone.
        signature: "",
        install: "cargo install fcp",
        recursive: PERMISSIONS,
        // It has no options at all.
        archive: None,
        compares: false,
        variants: |call| vec![call.with("")],
    },
    Tool {
        name: "rcp",
        programs: &["rcp"],
        // The rsh suite has an rcp, too.
        signature: "rcp",
        install: "RUSTFLAGS=\"--cfg tokio_unstable\" cargo install rcp-tools-rcp",
        recursive: PERMISSIONS_AND_HOLES,
        archive: Some(Claims {
            links: false,
            xattrs: false,
            ..EVERYTHING
        }),
        compares: false,
        variants: |call| {
            // By default it works on 4 files at once, or as many as cores; more helps on cold caches.
            let options = call.by_mode("", "--preserve-settings=all");
            let mut more = vec![
                "",
                " --local-copy-handoff=fresh",
                " --max-files-in-flight=16",
            ];
            if call.workload == Workload::Sparse {
                // Otherwise copy_file_range fills the holes.
                more = vec![" --reflink=never"];
            }
            let line = |more| call.with(&format!("{options}{more}"));
            more.into_iter().map(line).collect()
        },
    },
    Tool {
        name: "rsync",
        programs: &["rsync"],
        signature: "rsync",
        install: "Debian: apt install rsync",
        recursive: PERMISSIONS,
        archive: Some(EVERYTHING),
        compares: true,
        variants: |call| {
            // Into a new directory nothing is compared, and no temporary names are needed. -S only where there are holes:
            // it looks for zeros in all data.
            let options =
                call.by_mode("-rl --whole-file --inplace", "-aHAX --whole-file --inplace");
            let holes = if call.workload == Workload::Sparse {
                " -S"
            } else {
                ""
            };
            let mut lines = if call.mode == Mode::Again {
                // Links, ACLs and attributes are a matter of another list, to be looked at or not.
                vec![call.with("-a"), call.with("-aHAX")]
            } else {
                vec![call.with(&format!("{options}{holes}"))]
            };
            // With the slash it is the directory's content that is copied.
            for word in lines.iter_mut().flatten().filter(|word| *word == SOURCE) {
                word.push('/');
            }
            lines
        },
    },
    Tool {
        name: "uutils cp",
        programs: &["coreutils", "uu-coreutils", "uutils"],
        signature: "coreutils",
        install: "cargo install coreutils --no-default-features --features cp",
        recursive: PERMISSIONS_AND_HOLES,
        archive: Some(EVERYTHING),
        compares: true,
        variants: |call| vec![call.with(&format!("cp {}", call.mode.as_for_cp()))],
    },
    Tool {
        name: "tar | tar",
        programs: &["tar"],
        signature: "GNU tar",
        install: "Debian: apt install tar",
        recursive: PERMISSIONS,
        archive: Some(EVERYTHING),
        compares: false,
        variants: |call| {
            // The format that knows nanoseconds and attributes. A hole is one only to -S.
            let pack = call.by_mode("", "--format=posix --xattrs --acls --numeric-owner");
            let unpack = call.by_mode(
                "--no-same-owner",
                "--xattrs --xattrs-include=* --acls --numeric-owner -p",
            );
            let holes = if call.workload == Workload::Sparse {
                "-S"
            } else {
                ""
            };
            let tar = call.program;
            let pack = format!("{tar} {pack} {holes} -C {SOURCE} -cf - . {PIPE}");
            // Not --one-top-level, which hard links do not heed.
            let unpack = format!("mkdir {COPY} && exec {tar} {unpack} -C {COPY} -xf -");
            let words = pack.split_whitespace().chain(["sh", "-c", &unpack]);
            vec![words.map(str::to_owned).collect()]
        },
    },
];

/// One that takes part.
#[derive(Clone, Debug)]
pub enum Contestant {
    /// A program.
    Tool {
        name: String,
        program: PathBuf,
        version: String,
        kind: ToolKind,
    },
    /// The copier that knows its work beforehand.
    Limit,
}

/// Which tool a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// poolcp, with this number of workers or its own choice.
    Poolcp(Option<usize>),
    /// One of [`TOOLS`].
    Peer(usize),
}

/// A tool that was not found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Missing {
    pub name: String,
    pub install: String,
}

/// Finds everybody: poolcp with as many workers as cores and with its default, the limit, and the tools that are there.
pub fn find(cores: usize) -> (Vec<Contestant>, Vec<Missing>) {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (index, tool) in TOOLS.iter().enumerate() {
        match tool.find() {
            Some((program, version)) => found.push(Contestant::Tool {
                name: tool.name.to_owned(),
                program,
                version,
                kind: ToolKind::Peer(index),
            }),
            None => missing.push(Missing {
                name: tool.name.to_owned(),
                install: tool.install.to_owned(),
            }),
        }
    }
    found.extend([Some(cores), None].map(poolcp));
    found.push(Contestant::Limit);
    (found, missing)
}

/// What poolcp is called that has as many workers as it likes.
pub const POOLCP: &str = "poolcp";

/// poolcp with so many workers, or as many as it likes.
pub fn poolcp(workers: Option<usize>) -> Contestant {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_poolcp"));
    let program = env::var_os("POOLCP").map_or_else(built, PathBuf::from);
    Contestant::Tool {
        name: workers.map_or_else(|| POOLCP.to_owned(), |n| format!("{POOLCP} -j{n}")),
        version: version(&program).unwrap_or_else(|| "unknown".to_owned()),
        program,
        kind: ToolKind::Poolcp(workers),
    }
}

impl Tool {
    /// The program and its version.
    fn find(&self) -> Option<(PathBuf, String)> {
        let places = places();
        let candidates = self
            .programs
            .iter()
            .flat_map(|program| places.iter().map(move |place| place.join(program)));
        candidates.filter(|path| path.is_file()).find_map(|path| {
            let version = version(&path)?;
            version.contains(self.signature).then_some((path, version))
        })
    }
}

/// The first line of what it says about its version. (fcp says that on standard error.)
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().map(|line| line.trim().to_owned())
}

impl Contestant {
    pub fn name(&self) -> &str {
        match self {
            Self::Tool { name, .. } => name,
            Self::Limit => "limit",
        }
    }

    pub fn version(&self) -> &str {
        match self {
            Self::Tool { version, .. } => version,
            Self::Limit => "part of this bench",
        }
    }

    /// What it keeps in this mode, by its own words; nothing if it has no such mode.
    pub fn claims(&self, mode: Mode) -> Option<Claims> {
        let (recursive, archive) = match self {
            Self::Tool {
                kind: ToolKind::Peer(index),
                ..
            } => (TOOLS[*index].recursive, TOOLS[*index].archive),
            _ => (PERMISSIONS_AND_HOLES, Some(EVERYTHING)),
        };
        match mode {
            Mode::Recursive => Some(recursive),
            Mode::Archive => archive,
            Mode::Again => archive.filter(|_| self.compares()),
        }
    }

    fn compares(&self) -> bool {
        match self {
            Self::Tool {
                kind: ToolKind::Peer(index),
                ..
            } => TOOLS[*index].compares,
            Self::Tool { .. } => true,
            Self::Limit => false,
        }
    }

    /// Its command lines for this; [`SOURCE`] and [`COPY`] are still to be put in. The limit has none.
    pub fn variants(&self, mode: Mode, workload: Workload, cores: usize) -> Vec<Variant> {
        let Self::Tool { program, kind, .. } = self else {
            return Vec::new();
        };
        let program = program.to_string_lossy();
        let call = Call {
            program: &program,
            mode,
            workload,
            cores,
        };
        let lines = match kind {
            ToolKind::Peer(index) => (TOOLS[*index].variants)(&call),
            ToolKind::Poolcp(workers) => {
                let workers = workers.map_or_else(String::new, |n| format!(" -j {n}"));
                let options = match mode {
                    Mode::Recursive => "-r",
                    Mode::Archive => "-a",
                    Mode::Again => "-aT --update=changed",
                };
                vec![call.with(&format!("-q {options}{workers}"))]
            }
        };
        lines.into_iter().map(Variant).collect()
    }

    /// Has its program, and what it is linked to, in memory: starting it is no part of a cold cell.
    pub fn warm_program(&self) {
        if let Self::Tool { program, .. } = self {
            // Whether it succeeds does not matter, and find() has seen it succeed.
            let _ = version(program);
        }
    }
}

/// A command line, with places for the two paths.
#[derive(Clone, Debug)]
pub struct Variant(Vec<String>);

impl Variant {
    /// The commands to run.
    pub fn pipeline(&self, source: &Path, copy: &Path) -> Pipeline {
        let (source, copy) = (source.to_string_lossy(), copy.to_string_lossy());
        let put = |word: &String| word.replace(SOURCE, &source).replace(COPY, &copy);
        let commands = self.0.split(|word| word == PIPE);
        Pipeline(
            commands
                .map(|words| words.iter().map(put).collect())
                .collect(),
        )
    }
}

impl std::fmt::Display for Variant {
    /// As one would type it, without the program's directory.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
        let mut is_program = true;
        let mut words = Vec::new();
        for word in &self.0 {
            words.push(if is_program { base(word) } else { word.clone() });
            is_program = word == PIPE;
        }
        f.write_str(
            &words
                .join(" ")
                .replace(SOURCE, "source")
                .replace(COPY, "copy"),
        )
    }
}
