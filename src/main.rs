//! `poolcp`: parse, start the copy as a job on a pool, wait for it, print the report, say by the exit code how it went.
//!
//! The main thread only waits and draws; the copy runs on the pool's workers. Exit codes are `cp`'s: 0 if everything was
//! copied, 1 if anything was not. A signal that stops it ends the process, which a shell shows as 128 and its number.

#![forbid(unsafe_code)]

mod advice;
mod args;
mod cli;
mod generate;
mod getopt;
mod job_control;
mod journal;
mod lock;
mod own_status;
mod pace;
mod progress;
mod prompt;
mod report_place;
mod screen;
mod selection;
mod signals;
mod status;
mod streams;
mod terminal;
mod units;
mod verbose;
mod wording;
mod words;

use std::error;
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use advice::Again;
use cli::{Command, ReportFormat, Stop};
use journal::Journal;
use poolcp::{Canceller, Error, Operation, Plan, Progress, Report, Task, quote};
use prompt::Answers;
use report_place::ReportPlace;
use signals::{GRACE, Signals};
use terminal::{Asked, Asking, Terminal, say, write_error};
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
    let place = ReportPlace::new(command.report_file.clone()).map_err(|error| {
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
        is_silent: command.report == ReportFormat::None,
    };
    let report = copy(plan, command.threads, &watch, asked).map_err(|error| fail(&error))?;
    let mut written = Ok(());
    if let (Some(path), Some(Err(error))) = (&command.log, terminal.end_log()) {
        written = Err(cannot_write(path, &error));
    }
    let shown = terminal.written();
    // What could not be written once is not tried again.
    if shown.is_ok() || !place.is_stdout(command.report) {
        let mut text = advice::text(&report, command.report, &again);
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

/// Copies, and watches it unless it is over at once.
fn copy(
    plan: Plan,
    threads: usize,
    watch: &Watch<'_>,
    asked: Receiver<Asked>,
) -> Result<Report, Box<dyn error::Error>> {
    if plan.needs_pool() {
        let mut answers = Answers::new()?;
        let (pool, job) = plan.start(threads)?;
        watch.signals.enforce();
        watch.until_end(asked, |question| watch.answer(question, &mut answers));
        let report = job.join()?;
        pool.join();
        return Ok(report);
    }
    if !watch.terminal.display.is_wanted() && !plan.may_take_long() {
        watch.signals.end_at_second();
        return Ok(plan.run());
    }
    watch.signals.enforce();
    // Nothing is asked: a plan that asks needs a pool.
    Ok(thread::scope(|scope| {
        let thread = thread::Builder::new();
        // Refused, nobody watches.
        let _ = thread.spawn_scoped(scope, move || watch.until_end(asked, |_| ()));
        plan.run()
    }))
}

/// The thread that waits for the copy: it shows how far that is, and answers.
struct Watch<'a> {
    program: &'a str,
    terminal: &'a Terminal,
    canceller: &'a Canceller,
    progress: &'a Progress,
    signals: &'a Signals,
    /// There is no report, as by the name `cp`: what a signal does is not told either.
    is_silent: bool,
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
        if !self.is_silent {
            say(self.program, &"stopped while waiting for what did not come");
        }
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
