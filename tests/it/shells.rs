//! What `--generate` makes, in the programs that it is for: each shell loads its completions and completes what is typed, on a
//! terminal of its own; the manual page renders without a complaint.
//!
//! What should be offered comes from the program itself: `--help` has the options, and a value that is refused is answered with
//! those that are not.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Sandbox;
use crate::programs::poolcp;

/// A busy machine may need long to start a shell.
const PATIENCE: Duration = Duration::from_secs(60);

fn generated(sandbox: &Sandbox, what: &str) -> String {
    let option = format!("--generate={what}");
    sandbox.call(poolcp(), [option]).ok().stdout
}

/// All options as the help has them: `-x` and `--name`.
fn options(sandbox: &Sandbox) -> BTreeSet<String> {
    let help = sandbox.call(poolcp(), ["--help"]).ok().stdout;
    let lines = help.lines().map(str::trim_start);
    let words = lines
        .filter(|line| line.starts_with('-'))
        // What comes after two spaces is the explanation.
        .flat_map(|line| {
            line.split("  ")
                .next()
                .unwrap_or_default()
                .split([',', ' '])
        })
        .filter(|word| word.starts_with('-'));
    let options: BTreeSet<String> = words
        .map(|word| word.split(['[', '=']).next().unwrap_or_default().to_owned())
        .collect();
    assert!(options.contains("--archive") && options.contains("-a") && options.len() > 40);
    options
}

/// The options whose values are words, with those.
fn values(sandbox: &Sandbox) -> Vec<(String, BTreeSet<String>)> {
    let long = options(sandbox)
        .into_iter()
        .filter(|option| option.starts_with("--"));
    let words = |option: String| {
        let run = sandbox
            .call(poolcp(), [&format!("{option}=?"), "a", "b"])
            .run();
        let (_, valid) = run.stderr.split_once("Valid arguments are:")?;
        // Quoted; what follows is a hint with the program's name.
        let valid = valid.split("\nTry ").next()?;
        let words = valid.split('\'').skip(1).step_by(2);
        Some((option, words.map(str::to_owned).collect()))
    };
    let found: Vec<_> = long.filter_map(words).collect();
    assert!(found.iter().any(|(option, _)| option == "--sparse"));
    found
}

/// A shell on a terminal, in a directory with a file `apple` and a directory `annex`, in which poolcp is a function that prints
/// its words.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What has been read, and how far it has been looked at.
    seen: String,
    from: usize,
}

impl Terminal {
    fn start(sandbox: &Sandbox, shell: &str) -> Self {
        sandbox.file("apple", 1);
        sandbox.dir("annex");
        let mut child = Command::new("script")
            .args(["-q", "-c", shell, "/dev/null"])
            .current_dir(sandbox.path(""))
            .env("LC_ALL", "C")
            .env("TERM", "vt100")
            .env("HOME", sandbox.path(""))
            .env("INPUTRC", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a shell");
        let keys = child.stdin.take().expect("a keyboard");
        let mut output = child.stdout.take().expect("a screen");
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self {
            child,
            keys,
            screen,
            seen: String::new(),
            from: 0,
        };
        // Each marker is written so that what is typed does not contain it.
        terminal.type_keys(
            "stty rows 400 cols 200; PS1='$ '; PROMPT=$PS1; bind 'set bell-style none' 2>&-\n",
        );
        terminal.type_keys(
            "poolcp() { printf 'g''ot<%s>' \"$@\"; echo '=o=''v=e=r='; }; echo 're''ady'\n",
        );
        terminal.wait_for("ready");
        terminal
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("type");
        self.keys.flush().expect("type");
    }

    /// Waits until the screen shows something new that contains a text, and returns all that is new.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.seen[self.from..].find(text) {
                let new = self.seen[self.from..self.from + at].to_owned();
                self.from += at + text.len();
                return new;
            }
            let left = PATIENCE.saturating_sub(begin.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no {text:?} in {:?}", &self.seen[self.from..]),
            }
        }
    }

    /// The words that poolcp gets after a line has been typed, with the keys that complete it.
    #[track_caller]
    fn words(&mut self, keys: &str) -> Vec<String> {
        self.type_keys(keys);
        self.type_keys("\n");
        let all = self.wait_for("=o=v=e=r=");
        let words = all.split("got<").skip(1);
        words
            .map(|word| word.split('>').next().unwrap_or_default().to_owned())
            .collect()
    }
}

/// What is on the screen without what moves and colours it: escape, bracket, and so on to a letter.
fn without_controls(screen: &str) -> String {
    let mut parts = screen.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |mut text, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        text.push(' ');
        text += end.map_or("", |end| &part[end + 1..]);
        text
    });
    // Old terminals need NULs to catch up.
    text.replace(char::is_control, " ")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is the same in all shells whose line editor takes TAB: a line, and the words that it becomes.
const COMPLETED: [(&str, &[&str]); 12] = [
    ("poolcp --arch\t", &["--archive"]),
    ("poolcp --no-cl\t", &["--no-clobber"]),
    ("poolcp --sparse=al\t", &["--sparse=always"]),
    ("poolcp --sparse al\t", &["--sparse", "always"]),
    ("poolcp --reflink=ne\t", &["--reflink=never"]),
    ("poolcp --preserve=li\t", &["--preserve=links"]),
    (
        "poolcp --preserve=mode,ow\t",
        &["--preserve=mode,ownership"],
    ),
    (
        "poolcp --no-preserve tim\t",
        &["--no-preserve", "timestamps"],
    ),
    ("poolcp --update=none-\t", &["--update=none-fail"]),
    // The value of this one only follows a "=": here a file is meant.
    ("poolcp --reflink a\t", &["--reflink", "a"]),
    ("poolcp -a ap\t", &["-a", "apple"]),
    ("poolcp apple -t \t", &["apple", "-t", "annex/"]),
];

#[track_caller]
fn completes(terminal: &mut Terminal) {
    for (keys, expected) in COMPLETED {
        assert_eq!(terminal.words(keys), expected, "{keys:?}");
    }
}

#[test]
fn bash_completes_options_words_and_files() {
    needs!(Bash);
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.path("poolcp.bash"),
        generated(&sandbox, "complete-bash"),
    )
    .expect("write");
    let mut bash = Terminal::start(&sandbox, "bash --norc --noprofile -i");
    bash.type_keys(". ./poolcp.bash; echo 'lo''aded'\n");
    let new = bash.wait_for("loaded");
    assert!(!new.contains("bash:"), "{new}");
    completes(&mut bash);
    assert_eq!(bash.words("poolcp -at ann\t"), ["-at", "annex/"]);
    assert_eq!(bash.words("poolcp -- --arch\t"), ["--", "--arch"]);

    // This key (insert-completions) types all that is offered.
    let all: BTreeSet<String> = bash.words("poolcp -\x1b*").into_iter().collect();
    let plain = |word: &String| word.trim_end_matches('=').to_owned();
    assert_eq!(
        all.iter().map(plain).collect::<BTreeSet<_>>(),
        options(&sandbox)
    );
    for (option, expected) in values(&sandbox) {
        let typed = bash.words(&format!("poolcp {option}=\x1b*"));
        let mut typed: BTreeSet<String> = typed.into_iter().collect();
        // The first one follows the "=".
        let first = typed
            .iter()
            .find_map(|word| word.strip_prefix(&format!("{option}=")));
        let first = first.map(str::to_owned);
        typed.retain(|word| !word.starts_with("--"));
        typed.extend(first);
        assert_eq!(typed, expected, "{option}");
    }
}

#[test]
fn zsh_completes_options_words_and_files() {
    needs!(Zsh);
    let sandbox = Sandbox::new();
    // Where zsh looks for it, by the name that it has there.
    fs::write(
        sandbox.dir(".functions").join("_poolcp"),
        generated(&sandbox, "complete-zsh"),
    )
    .expect("write");
    let mut zsh = Terminal::start(&sandbox, "zsh -f -i");
    zsh.type_keys("fpath=($PWD/.functions $fpath); autoload -U compinit; compinit -u -D; LISTMAX=9999; setopt no_beep no_auto_remove_slash no_auto_menu no_list_ambiguous\n");
    zsh.type_keys("echo 'lo''aded'\n");
    let new = zsh.wait_for("loaded");
    assert!(!new.contains("zsh:"), "{new}");
    completes(&mut zsh);

    let mut list = |keys: &str| {
        zsh.type_keys(keys);
        // A second one lists what the first one could not decide.
        zsh.type_keys("\t\t");
        zsh.type_keys("\n");
        without_controls(&zsh.wait_for("=o=v=e=r="))
    };
    let all = list("poolcp -");
    for option in options(&sandbox) {
        assert!(
            all.split(char::is_whitespace).any(|word| word == option),
            "{option} in {all}"
        );
    }
    for (option, expected) in values(&sandbox) {
        let listed = list(&format!("poolcp {option}="));
        for word in expected {
            assert!(
                listed
                    .split(char::is_whitespace)
                    .any(|listed| listed == word),
                "{option}={word} in {listed:?}"
            );
        }
    }
}

#[test]
fn fish_completes_options_words_and_files() {
    needs!(Fish);
    let sandbox = Sandbox::new();
    sandbox.file("apple", 1);
    sandbox.dir("annex");
    let script = sandbox.path("poolcp.fish");
    fs::write(&script, generated(&sandbox, "complete-fish")).expect("write");
    let offered = |line: &str| -> BTreeSet<String> {
        let ask = "source $argv[1]; complete -C $argv[2]";
        let call = sandbox.call("fish", ["--no-config", "-c", ask, "poolcp.fish", line]);
        let run = call.env("HOME", sandbox.path("")).ok();
        let lines = run.stdout.lines();
        lines
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect()
    };
    let plain = |word: &String| word.trim_end_matches('=').to_owned();
    let long: BTreeSet<_> = offered("poolcp --").iter().map(plain).collect();
    let all: BTreeSet<_> = long.into_iter().chain(offered("poolcp -")).collect();
    let expected = options(&sandbox);
    assert!(
        all.is_superset(&expected),
        "{:?}",
        expected.difference(&all)
    );
    for (option, expected) in values(&sandbox) {
        let prefix = format!("{option}=");
        let offered = offered(&format!("poolcp {prefix}"));
        let words: BTreeSet<_> = offered
            .iter()
            .map(|word| word.replace(&prefix, ""))
            .collect();
        assert_eq!(words, expected, "{option}");
    }
    assert!(offered("poolcp --preserve=mode,ow").contains("--preserve=mode,ownership"));
    assert!(offered("poolcp --sparse al").contains("always"));
    let files = offered("poolcp --reflink a");
    assert!(
        files.contains("apple") && !files.contains("auto"),
        "{files:?}"
    );
    let directories = offered("poolcp -t a");
    assert!(
        directories.contains("annex/") && !directories.contains("apple"),
        "{directories:?}"
    );
}

#[test]
fn the_manual_page_renders_without_a_complaint_and_has_all_options() {
    needs!(Man);
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("poolcp.1"), generated(&sandbox, "man")).expect("write");
    let man = sandbox.call("man", ["--warnings", "--local-file", "./poolcp.1"]);
    let page = man
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .ok()
        .stdout;
    // As man calls it, but with all warnings there are.
    sandbox
        .call("groff", ["-ww", "-mandoc", "-Tutf8", "poolcp.1"])
        .ok();
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "EXAMPLES",
        "DIFFERENCES FROM CP",
        "SEE ALSO",
    ] {
        assert!(page.lines().any(|line| line == section), "{section}");
    }
    let is_described = |option: &String| {
        let mut lines = page
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-'));
        lines.any(|line| line.split([',', ' ', '[']).any(|word| word == option))
    };
    let missing: Vec<_> = options(&sandbox)
        .into_iter()
        .filter(|option| !is_described(option))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(!page.contains('@'), "something was not filled in");
}

#[test]
fn mandoc_finds_nothing_to_warn_of() {
    needs!(Mandoc);
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("poolcp.1"), generated(&sandbox, "man")).expect("write");
    let run = sandbox
        .call("mandoc", ["-T", "lint", "-W", "warning", "poolcp.1"])
        .run();
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{run:#?}");
}
