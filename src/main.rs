//! `poolcp`: parse, start the copy as a job on a pool, wait for it, print the report, say by the exit code how it went.
//!
//! The main thread only waits and draws; the copy runs on the pool's workers. Exit codes are `cp`'s: 0 if everything was
//! copied, 1 if anything was not.

mod cli;
mod progress;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cli::{Command, ReportFormat, Stop};
use poolcp::{Error, Observer, Plan, Report, quote};
use progress::Display;

/// How often the main thread looks up from waiting.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let program = cli::program_name();
    let done = Command::from_env(&program)
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
    let display = Display::new(!command.quiet);
    let terminal = Arc::new(Terminal {
        program: program.to_owned(),
        verbose: command.verbose,
        display: display.clone(),
        failed_write: Mutex::default(),
    });
    let plan = Plan::resolve(command.sources, command.target, command.options)
        .map_err(|error| fail(&error))?
        .observer(Arc::clone(&terminal) as Arc<dyn Observer>);
    let progress = plan.progress();
    let (pool, job) = plan.start(command.threads).map_err(|error| fail(&error))?;
    while !job.join_timeout(TICK) {
        display.update(&progress.stats());
    }
    display.clear();
    let report = job.join().map_err(|error| fail(&error))?;
    pool.join();
    let shown = terminal
        .written()
        .and_then(|()| show(&report, command.report));
    shown.map_err(|error| fail(&write_error(&error)))?;
    if report.is_success() {
        Ok(())
    } else {
        Err(ExitCode::FAILURE)
    }
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
    let text = error.to_string();
    // The standard library adds "(os error N)", which cp does not say.
    format!(
        "write error: {}",
        text.split(" (os error").next().unwrap_or_default()
    )
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
    verbose: bool,
    display: Display,
    /// The first failure to write to standard output. It does not stop the copy, but is told at its end.
    failed_write: Mutex<Option<io::Error>>,
}

impl Terminal {
    fn failed_write(&self) -> std::sync::MutexGuard<'_, Option<io::Error>> {
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
}

impl Observer for Terminal {
    fn error(&self, error: &Error) {
        self.display.aside(|| say(&self.program, error));
    }

    fn warning(&self, warning: &Error) {
        let message = format!("warning: {warning}");
        self.display.aside(|| say(&self.program, &message));
    }

    fn wants_entries(&self) -> bool {
        self.verbose
    }

    fn copying(&self, source: &Path, dest: &Path) {
        self.tell(&format!("{} -> {}\n", quote(source), quote(dest)));
    }

    fn removed(&self, dest: &Path) {
        self.tell(&format!("removed {}\n", quote(dest)));
    }
}
