//! Runs one command, or two with a pipe between them, and says what it cost.
//!
//! The bench does not start contestants itself but through a fresh process of its own program, the runner, for two reasons:
//! the kernel adds up what a process's children have used, so that a process with exactly one thing to run gets exactly its
//! cost; and it counts as a child's peak memory also that of the process which started it, before it became another
//! program. The runner is small; the bench, which has compared trees, may not be.
//!
//! The time is that from starting the first process until the last has ended.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

/// The first argument of a process that is a runner; the second is the [`Pipeline`].
pub const ROLE: &str = "--run";

/// More of an error message than that says nothing new.
const LONGEST_MESSAGE: usize = 200;

/// Commands, the output of each the input of the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipeline(pub Vec<Vec<String>>);

/// What a run has cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds on the clock on the wall.
    pub wall: f64,
    /// Seconds of processors, outside the kernel.
    pub user: f64,
    /// Seconds of processors, inside the kernel.
    pub system: f64,
    /// KiB; of the process that had most.
    pub peak_memory: i64,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done(Usage),
    /// With this message.
    Failed(String),
    /// It was ended after this time.
    Hung(Duration),
}

/// What the runner tells the bench.
#[derive(Serialize, Deserialize)]
enum Answer {
    Done(Usage),
    Failed(String),
}

/// Runs it in a runner, for so long at most.
pub fn run(pipeline: &Pipeline, patience: Duration) -> io::Result<Outcome> {
    let argument = serde_json::to_string(pipeline)?;
    let mut runner = own_program()?;
    runner.arg(ROLE).arg(argument).stdin(Stdio::null());
    let mut runner = Watched::start(&mut runner)?;
    let Some(answer) = runner.answer(patience)? else {
        return Ok(Outcome::Hung(patience));
    };
    match serde_json::from_str(&answer)? {
        Answer::Done(usage) => Ok(Outcome::Done(usage)),
        Answer::Failed(message) => Ok(Outcome::Failed(message)),
    }
}

/// This very program.
pub fn own_program() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// A process that answers with one line at a time and is ended, with all that it has started, if it does not.
pub struct Watched {
    pub child: Child,
    lines: mpsc::Receiver<io::Result<String>>,
}

impl Watched {
    /// Starts it as the leader of a process group.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let output = child.stdout.take().map(io::BufReader::new);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.into_iter().flat_map(io::BufRead::lines) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line; nothing if it took longer than this.
    pub fn answer(&mut self, patience: Duration) -> io::Result<Option<String>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => line.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                Err(io::Error::other(format!("gave no answer: {status}")))
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A leader that has been waited for has no group any more, or its number is somebody else's.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // What cannot be ended has ended.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The runner's main function.
pub fn main(argument: &str) -> ExitCode {
    let answer = serde_json::from_str(argument)
        .map_err(io::Error::from)
        .and_then(|pipeline| measure(&pipeline))
        .unwrap_or_else(|error| Answer::Failed(error.to_string()));
    println!("{}", serde_json::json!(answer));
    ExitCode::SUCCESS
}

fn measure(Pipeline(commands): &Pipeline) -> io::Result<Answer> {
    let mut messages = tempfile::tempfile()?;
    let start = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    for (number, words) in commands.iter().enumerate() {
        let input = children.last_mut().and_then(|child| child.stdout.take());
        let is_last = number + 1 == commands.len();
        children.push(spawn(words, input, is_last, &messages)?);
    }
    let ends: io::Result<Vec<ExitStatus>> = children.iter_mut().map(Child::wait).collect();
    let wall = start.elapsed().as_secs_f64();
    if let Some(bad) = ends?.iter().find(|status| !status.success()) {
        let message = read_message(&mut messages)?;
        return Ok(Answer::Failed(format!("{bad}: {message}")));
    }
    Ok(Answer::Done(usage(UsageWho::RUSAGE_CHILDREN, wall)?))
}

fn spawn(
    words: &[String],
    input: Option<std::process::ChildStdout>,
    is_last: bool,
    messages: &File,
) -> io::Result<Child> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let name = Path::new(program);
    Command::new(program)
        .args(arguments)
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(if is_last {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stderr(messages.try_clone()?)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.display())))
}

/// The beginning of what was complained about, in one line and without colours.
fn read_message(messages: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    messages.rewind()?;
    messages
        .take(LONGEST_MESSAGE as u64)
        .read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut plain = String::new();
    for (number, part) in text.split('\x1b').enumerate() {
        // What begins with the escape character ends with an m.
        let visible = if number == 0 {
            Some(part)
        } else {
            part.split_once('m').map(|(_, rest)| rest)
        };
        plain.push_str(visible.unwrap_or_default());
    }
    let words: Vec<_> = plain.split_whitespace().collect();
    Ok(if words.is_empty() {
        "no message".to_owned()
    } else {
        words.join(" ")
    })
}

/// What the process, or its children, have used so far.
pub fn usage(who: UsageWho, wall: f64) -> io::Result<Usage> {
    let usage = getrusage(who)?;
    Ok(Usage {
        wall,
        user: usage.user_time().num_microseconds() as f64 / 1e6,
        system: usage.system_time().num_microseconds() as f64 / 1e6,
        peak_memory: usage.max_rss(),
    })
}
