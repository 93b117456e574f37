//! `poolcp`: parse, start the copy as a job on a pool, wait for it, print the report, say by the exit code how it went.
//!
//! The main thread only waits and draws; the copy runs on the pool's workers. Exit codes are `cp`'s: 0 if everything was
//! copied, 1 if anything was not. A signal that stops it ends the process, which a shell shows as 128 and its number.

#![forbid(unsafe_code)]

mod args;
mod cli;
mod generate;
mod getopt;
mod job_control;
mod journal;
mod lock;
mod outcome;
mod own_status;
mod pace;
mod progress;
mod prompt;
mod screen;
mod selection;
mod signals;
mod status;
mod streams;
mod units;
mod wording;
mod words;

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use cli::{Command, Stop, Verbosity};
use journal::Journal;
use lock::lock;
use outcome::Again;
use poolcp::{
    Canceller, Done, Error, Event, Holes, How, Interest, Observer, Operation, Plan, Progress,
    Question, Task, Tried, quote,
};
use progress::Display;
use prompt::{Answer, Answers, prompt};
use signals::{GRACE, Signals};
use status::Setting;
use wording::without_number;

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
    let cannot_write = |path: &Path, error: &io::Error| {
        let reason = without_number(error);
        fail(&format!("cannot write {}: {reason}", quote(path)))
    };
    let place = outcome::Place::new(command.report_file.clone()).map_err(|error| {
        let file = command.report_file.as_deref().unwrap_or(Path::new(""));
        cannot_write(file, &error)
    })?;
    // Nothing is done in a dry run.
    let log = command.log.as_deref().filter(|_| !command.options.dry_run);
    let journal = log.map(|path| {
        let opened = Journal::open(path);
        opened.map_err(|error| cannot_write(path, &error))
    });
    if command.background
        && let Err(error) = poolcp::background()
    {
        // Worse for others, but no reason not to copy.
        say(
            program,
            &format!(
                "warning: cannot lower the priority: {}",
                without_number(&error)
            ),
        );
    }
    let terminal = Arc::new(Terminal::new(program, &command, journal.transpose()?));
    let (questions, asked) = mpsc::channel();
    let observer = Asking {
        terminal: Arc::clone(&terminal),
        questions,
    };
    let plan = Plan::resolve(command.sources, command.target.clone(), command.options)
        .map_err(|error| refuse(program, &error))?
        .observer(Arc::new(observer));
    let again = Again::new(std::env::args_os().collect(), command.target, &plan);
    let canceller = plan.canceller();
    let is_drawn = terminal.display.is_wanted();
    let signals = Signals::handle(&canceller, is_drawn).map_err(|error| fail(&error))?;
    let watch = Watch {
        program,
        terminal: &terminal,
        canceller: &canceller,
        progress: &plan.progress(),
        signals: &signals,
    };
    let report = if plan.needs_pool() {
        let mut answers = Answers::new().map_err(|error| fail(&error))?;
        let (pool, job) = plan.start(command.threads).map_err(|error| fail(&error))?;
        signals.enforce();
        watch.until_end(asked, |question| watch.answer(question, &mut answers));
        let report = job.join().map_err(|error| fail(&error))?;
        pool.join();
        report
    } else if is_drawn || plan.may_take_long() {
        signals.enforce();
        // Nothing is asked: a plan that asks needs a pool.
        thread::scope(|scope| {
            let watch = &watch;
            let thread = thread::Builder::new();
            // Refused, nobody watches.
            let _ = thread.spawn_scoped(scope, move || watch.until_end(asked, |_| ()));
            plan.run()
        })
    } else {
        signals.end_at_second();
        plan.run()
    };
    let mut written = Ok(());
    if let (Some(path), Some(Err(error))) = (&command.log, terminal.end_log()) {
        written = Err(cannot_write(path, &error));
    }
    let shown = terminal.written();
    // What could not be written once is not tried again.
    if shown.is_ok() || !place.is_stdout(command.report) {
        let mut text = outcome::text(&report, command.report, &again);
        if place.is_stderr(command.report) && terminal.is_mid_line.load(Ordering::Relaxed) {
            text.insert(0, '\n');
        }
        if let Err(error) = place.write(&text, command.report) {
            let file = command.report_file.as_deref();
            written = Err(file.map_or_else(
                || fail(&write_error(&error)),
                |file| cannot_write(file, &error),
            ));
        }
    }
    if let Err(error) = shown {
        written = Err(fail(&write_error(&error)));
    }
    signals.end_process();
    if report.is_success() && !terminal.has_declined() {
        written
    } else {
        Err(ExitCode::FAILURE)
    }
}

/// The thread that waits for the copy: it shows how far that is, and answers.
struct Watch<'a> {
    program: &'a str,
    terminal: &'a Terminal,
    canceller: &'a Canceller,
    progress: &'a Progress,
    signals: &'a Signals,
}

impl Watch<'_> {
    /// Waits for the copy to end. The observer goes with it, and the questions with the observer.
    fn until_end(&self, asked: Receiver<Asked>, mut answer: impl FnMut(&Asked)) {
        let mut stopping: Option<Instant> = None;
        let mut looked = Instant::now();
        loop {
            match asked.recv_timeout(TICK) {
                Ok(question) => answer(&question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.canceller.is_cancelled() {
                let since = stopping.get_or_insert_with(Instant::now);
                // A second signal ends the process at once, and nobody cleans up then.
                self.terminal.display.end();
                if since.elapsed() > GRACE {
                    self.give_up();
                }
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look();
            }
        }
        self.terminal.display.end();
    }

    fn look(&self) {
        let display = &self.terminal.display;
        self.signals.pause(|| display.erase());
        if self.signals.asks() {
            display.tell(self.progress);
        }
        display.update(self.progress);
        self.terminal.flush_log();
    }

    fn answer(&self, question: &Asked, answers: &mut Answers) {
        let wait = || self.signals.pause(|| ());
        self.terminal
            .answer(question, || answers.next(self.canceller, wait));
    }

    /// What the copy still holds cannot be waited for.
    fn give_up(&self) -> ! {
        say(self.program, &"stopped while waiting for what did not come");
        if let Some(Err(error)) = self.terminal.end_log() {
            say(self.program, &write_error(&error));
        }
        self.signals.end_process();
        process::exit(1);
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
    format!("write error: {}", without_number(error))
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
    /// With each entry it is said why.
    says_why: bool,
    display: Display,
    /// Standard output is on a terminal: probably the one that the display is on.
    shares_stdout: bool,
    journal: Option<Journal>,
    /// The first failure to write to standard output. It does not stop the copy, but is told at its end.
    failed_write: Mutex<Option<io::Error>>,
    /// Somebody said no to a question. What was asked for is then not done, which the exit code says (POSIX, cp).
    declined: AtomicBool,
    /// What was written last is a question, and its answer is not on the screen with the end of a line.
    is_mid_line: AtomicBool,
}

impl Terminal {
    fn new(program: &str, command: &Command, journal: Option<Journal>) -> Self {
        let setting = Setting {
            workers: command.threads,
            durable: command.options.durable,
        };
        let is_verified = command.options.verify;
        let has_lines = command.verbosity != Verbosity::None || command.options.dry_run;
        let progress = command.progress.beside_lines(has_lines);
        Self {
            program: program.to_owned(),
            verbosity: command.verbosity,
            says_why: command.options.dry_run,
            display: Display::new(program, progress, setting, is_verified),
            shares_stdout: io::stdout().is_terminal(),
            journal,
            failed_write: Mutex::default(),
            declined: AtomicBool::new(false),
            is_mid_line: AtomicBool::new(false),
        }
    }

    fn failed_write(&self) -> MutexGuard<'_, Option<io::Error>> {
        lock(&self.failed_write)
    }

    /// Writes a line to standard output, whole.
    fn tell(&self, line: &[u8]) {
        let print = || {
            if let Err(error) = io::stdout().write_all(line) {
                self.failed_write().get_or_insert(error);
            }
        };
        if self.shares_stdout {
            self.is_mid_line.store(false, Ordering::Relaxed);
            self.display.aside(print);
        } else {
            print();
        }
    }

    fn flush_log(&self) {
        if let Some(journal) = &self.journal {
            journal.flush();
        }
    }

    /// Whether the log is complete, if there is one.
    fn end_log(&self) -> Option<io::Result<()>> {
        self.journal.as_ref().map(Journal::end)
    }

    /// Whether everything that was shown on standard output was also written.
    fn written(&self) -> io::Result<()> {
        let failed = self.failed_write().take();
        failed.map_or_else(|| io::stdout().flush(), Err)
    }

    fn has_declined(&self) -> bool {
        self.declined.load(Ordering::Relaxed)
    }

    /// Says something on standard error, above what is drawn there.
    fn complain(&self, message: &dyn std::fmt::Display) {
        self.is_mid_line.store(false, Ordering::Relaxed);
        self.display.aside(|| say(&self.program, message));
    }

    /// Asks what a worker wants to know, on standard error, and hands it the answer. Only the main thread does this.
    fn answer(&self, asked: &Asked, answer: impl FnOnce() -> Answer) {
        self.display.aside(|| {
            let text = prompt(&asked.question);
            // Standard error is where a failure would be told; without an answer nothing is overwritten.
            let _ = write!(io::stderr(), "{}: {text}", self.program);
            let Answer { is_yes, is_line } = answer();
            if !is_yes {
                self.declined.store(true, Ordering::Relaxed);
            }
            let is_shown = is_line && io::stdin().is_terminal();
            self.is_mid_line.store(!is_shown, Ordering::Relaxed);
            // A worker that does not wait any more has no use for it.
            let _ = asked.answer.send(is_yes);
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
        terminal.complain(error);
        if let Some(journal) = &terminal.journal {
            journal.complain("error", error);
        }
    }

    fn warning(&self, warning: &Error) {
        let terminal = &self.terminal;
        terminal.complain(&format!("warning: {warning}"));
        if let Some(journal) = &terminal.journal {
            journal.complain("warning", warning);
        }
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
            self.terminal.tell(&lines(event, self.terminal.says_why));
        }
    }

    fn keeps_log(&self) -> bool {
        self.terminal.journal.is_some()
    }

    fn done(&self, done: &Done) {
        if let Some(journal) = &self.terminal.journal {
            journal.done(done);
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

/// What `cp -v` and `cp --debug` print for an event, and the reason if that is wanted.
fn lines(event: &Event, says_why: bool) -> Vec<u8> {
    let reason = |words: &str| {
        if says_why {
            format!(" ({words})")
        } else {
            String::new()
        }
    };
    let lines = match event {
        Event::Copying {
            source,
            dest,
            backup,
            why,
            ..
        } => arrow(source, dest, backup.as_deref()) + &reason(why.describe()) + "\n",
        Event::Copied {
            source,
            dest,
            backup,
            why,
            how,
            ..
        } => {
            let reason = reason(why.describe());
            arrow(source, dest, backup.as_deref()) + &reason + "\n" + &ways(how)
        }
        Event::Deleted {
            dest,
            is_dir,
            in_the_way,
            ..
        } => {
            let what = if *is_dir { "directory " } else { "" };
            let reason = reason(if *in_the_way {
                "in the way"
            } else {
                "not in the source"
            });
            format!("removed {what}{}{reason}\n", quote(dest))
        }
        Event::LeftOut { source, .. } => format!("left out {}\n", quote(source)),
        // Here cp does not quote: these are the names' own bytes.
        Event::MadeParent { source, dest } => {
            let [source, dest] = [source, dest].map(|path| path.as_os_str().as_bytes());
            return [source, b" -> ", dest, b"\n"].concat();
        }
        Event::Removed { dest } => format!("removed {}\n", quote(dest)),
        Event::Restored { dest, backup } => {
            format!("{} -> {} (unbackup)\n", quote(backup), quote(dest))
        }
        Event::Skipped { dest } => format!("skipped {}\n", quote(dest)),
        // Whatever the library may tell one day that this program does not know.
        _ => String::new(),
    };
    lines.into_bytes()
}

fn arrow(source: &Path, dest: &Path, backup: Option<&Path>) -> String {
    let backup = backup.map(|backup| format!(" (backup: {})", quote(backup)));
    let backup = backup.unwrap_or_default();
    format!("{} -> {}{backup}", quote(source), quote(dest))
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
