//! `poolcp`: parse, start the copy as a job on a pool, wait for it, print the report, say by the exit code how it went.
//!
//! The main thread only waits and draws; the copy runs on the pool's workers. Exit codes are `cp`'s: 0 if everything was
//! copied, 1 if anything was not; and 128 and the signal's number if one stopped it.

mod args;
mod cli;
mod generate;
mod getopt;
mod progress;
mod prompt;
mod signals;
mod units;

use std::io::{self, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cli::{Command, ReportFormat, Stop, Verbosity};
use poolcp::{
    Error, Event, Holes, How, Interest, Observer, Operation, Plan, Question, Report, Task, Tried,
    quote,
};
use progress::Display;
use prompt::{Answers, prompt};
use signals::{GRACE, Signals};

/// How often the main thread looks up from waiting.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let program = cli::program_name();
    let warn = |warning: &str| say(&program, &format!("warning: {warning}"));
    let done = Command::from_env(&program, warn)
        .map_err(|stop| answer(&program, stop))
        .and_then(|command| run(&program, command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Copies, and shows the report. An error has been shown when this returns.
fn run(program: &str, command: Command) -> Result<(), ExitCode> {
    let fail = |message: &dyn std::fmt::Display| {
        say(program, message);
        ExitCode::FAILURE
    };
    if command.background
        && let Err(error) = poolcp::background()
    {
        // Worse for others, but no reason not to copy.
        say(
            program,
            &format!("warning: cannot lower the priority: {}", reason(&error)),
        );
    }
    let terminal = Arc::new(Terminal::new(program, &command));
    let (questions, asked) = mpsc::channel();
    let observer = Asking {
        terminal: Arc::clone(&terminal),
        questions,
    };
    let plan = Plan::resolve(command.sources, command.target, command.options)
        .map_err(|error| refuse(program, &error))?
        .observer(Arc::new(observer));
    let canceller = plan.canceller();
    let signals = Signals::stop(&canceller).map_err(|error| fail(&error))?;
    let report = if plan.needs_pool() {
        let mut answers = Answers::new().map_err(|error| fail(&error))?;
        let progress = plan.progress();
        let (pool, job) = plan.start(command.threads).map_err(|error| fail(&error))?;
        let mut stopping: Option<Instant> = None;
        // The observer goes with the job, and the questions with the observer.
        loop {
            if canceller.is_cancelled()
                && stopping.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                terminal.display.clear();
                say(program, &"stopped while waiting for what did not come");
                // What the copy still holds cannot be waited for.
                process::exit(signals.exit_code().map_or(1, i32::from));
            }
            match asked.recv_timeout(TICK) {
                Ok(question) => terminal.answer(&question, || answers.is_yes(&canceller)),
                Err(RecvTimeoutError::Timeout) => terminal.display.update(&progress.stats()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        terminal.display.clear();
        let report = job.join().map_err(|error| fail(&error))?;
        pool.join();
        report
    } else {
        plan.run()
    };
    let shown = terminal
        .written()
        .and_then(|()| show(&report, command.report));
    shown.map_err(|error| fail(&write_error(&error)))?;
    match signals.exit_code() {
        Some(code) => Err(ExitCode::from(code)),
        None if report.is_success() && !terminal.has_declined() => Ok(()),
        None => Err(ExitCode::FAILURE),
    }
}

/// Says why the operands make no copy.
fn refuse(program: &str, error: &Error) -> ExitCode {
    answer(
        program,
        match error.operation() {
            Operation::ParentsTarget => Stop::Usage(error.to_string()),
            _ => Stop::Impossible(error.to_string()),
        },
    )
}

fn show(report: &Report, format: ReportFormat) -> io::Result<()> {
    match format {
        ReportFormat::Text => io::stderr().write_all(report.to_string().as_bytes()),
        ReportFormat::Json => {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{}", report.to_json())?;
            stdout.flush()
        }
        ReportFormat::None => Ok(()),
    }
}

/// Says why there is nothing to copy.
fn answer(program: &str, stop: Stop) -> ExitCode {
    match stop {
        Stop::Answer(text) => {
            let mut stdout = io::stdout().lock();
            let written = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
            match written {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say(program, &write_error(&error));
                    ExitCode::FAILURE
                }
            }
        }
        Stop::Impossible(message) => {
            say(program, &message);
            ExitCode::FAILURE
        }
        Stop::Usage(message) => {
            say(
                program,
                &format!("{message}\nTry '{program} --help' for more information."),
            );
            ExitCode::FAILURE
        }
    }
}

/// Says that standard output could not be written, in `cp`'s words.
fn write_error(error: &io::Error) -> String {
    format!("write error: {}", reason(error))
}

/// What went wrong, without the "(os error N)" that the standard library adds and cp does not say.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Writes one message to standard error, whole: in one call, whichever thread it comes from.
fn say(program: &str, message: &dyn std::fmt::Display) {
    let line = format!("{program}: {message}\n");
    // Standard error is where a failure would be told; the exit code tells it still.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Shows what the workers report.
struct Terminal {
    program: String,
    verbosity: Verbosity,
    display: Display,
    /// The first failure to write to standard output. It does not stop the copy, but is told at its end.
    failed_write: Mutex<Option<io::Error>>,
    /// Somebody said no to a question. What was asked for is then not done, which the exit code says (POSIX, cp).
    declined: AtomicBool,
}

impl Terminal {
    fn new(program: &str, command: &Command) -> Self {
        Self {
            program: program.to_owned(),
            verbosity: command.verbosity,
            display: Display::new(!command.quiet),
            failed_write: Mutex::default(),
            declined: AtomicBool::new(false),
        }
    }

    fn failed_write(&self) -> MutexGuard<'_, Option<io::Error>> {
        self.failed_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line to standard output, whole.
    fn tell(&self, line: &str) {
        self.display.aside(|| {
            if let Err(error) = io::stdout().write_all(line.as_bytes()) {
                self.failed_write().get_or_insert(error);
            }
        });
    }

    /// Whether everything that was shown on standard output was also written.
    fn written(&self) -> io::Result<()> {
        let failed = self.failed_write().take();
        failed.map_or_else(|| io::stdout().flush(), Err)
    }

    fn has_declined(&self) -> bool {
        self.declined.load(Ordering::Relaxed)
    }

    /// Asks what a worker wants to know, on standard error, and hands it the answer. Only the main thread does this.
    fn answer(&self, asked: &Asked, is_yes: impl FnOnce() -> bool) {
        self.display.aside(|| {
            let text = prompt(&asked.question);
            // Standard error is where a failure would be told; without an answer nothing is overwritten.
            let _ = write!(io::stderr(), "{}: {text}", self.program);
            let yes = is_yes();
            if !yes {
                self.declined.store(true, Ordering::Relaxed);
            }
            // A worker that does not wait any more has no use for it.
            let _ = asked.answer.send(yes);
        });
    }
}

/// A question, and where its answer goes.
struct Asked {
    question: Question,
    answer: Sender<bool>,
}

/// What the copy sees of the terminal. It goes with the copy, which tells the main thread that no more questions come.
struct Asking {
    terminal: Arc<Terminal>,
    questions: Sender<Asked>,
}

impl Observer for Asking {
    fn error(&self, error: &Error) {
        let terminal = &self.terminal;
        terminal.display.aside(|| say(&terminal.program, error));
    }

    fn warning(&self, warning: &Error) {
        let terminal = &self.terminal;
        let message = format!("warning: {warning}");
        terminal.display.aside(|| say(&terminal.program, &message));
    }

    fn interest(&self) -> Interest {
        match self.terminal.verbosity {
            Verbosity::None => Interest::Nothing,
            Verbosity::Entries => Interest::Entries,
            Verbosity::Ways => Interest::Ways,
        }
    }

    fn entry(&self, event: &Event) {
        let is_skipped = matches!(event, Event::Skipped { .. });
        if !is_skipped || self.terminal.verbosity == Verbosity::Ways {
            self.terminal.tell(&lines(event));
        }
    }

    fn may_overwrite(&self, question: &Question) -> bool {
        let (answer, answered) = mpsc::channel();
        let question = question.clone();
        let asked = self.questions.send(Asked { question, answer });
        // A main thread that is gone has not said yes.
        asked.is_ok() && answered.recv().unwrap_or(false)
    }
}

/// What `cp -v` and `cp --debug` print for an event.
fn lines(event: &Event) -> String {
    match event {
        Event::Copying {
            source,
            dest,
            backup,
        } => arrow(source, dest, backup.as_deref()),
        Event::Copied {
            source,
            dest,
            backup,
            how,
        } => arrow(source, dest, backup.as_deref()) + &ways(how),
        // Here cp does not quote.
        Event::MadeParent { source, dest } => {
            format!("{} -> {}\n", source.display(), dest.display())
        }
        Event::Removed { dest } => format!("removed {}\n", quote(dest)),
        Event::Restored { dest, backup } => {
            format!("{} -> {} (unbackup)\n", quote(backup), quote(dest))
        }
        Event::Skipped { dest } => format!("skipped {}\n", quote(dest)),
        // Whatever the library may tell one day that this program does not know.
        _ => String::new(),
    }
}

fn arrow(source: &Path, dest: &Path, backup: Option<&Path>) -> String {
    let backup = backup.map(|backup| format!(" (backup: {})", quote(backup)));
    let backup = backup.unwrap_or_default();
    format!("{} -> {}{backup}\n", quote(source), quote(dest))
}

fn ways(how: &How) -> String {
    let tried = |tried| match tried {
        Tried::Unknown => "unknown",
        Tried::No => "no",
        Tried::Avoided => "avoided",
        Tried::Unsupported => "unsupported",
        Tried::Yes => "yes",
    };
    let holes = match how.holes {
        Holes::No => "no",
        Holes::Seek => "SEEK_HOLE",
        Holes::Zeros => "zeros",
    };
    format!(
        "copy offload: {}, reflink: {}, sparse detection: {holes}\n",
        tried(how.offload),
        tried(how.reflink)
    )
}
