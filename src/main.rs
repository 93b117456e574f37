//! `poolcp`: parse, start the copy as a job on a pool, wait for it, print the report, say by the exit code how it went.
//!
//! The main thread only waits and draws; the copy runs on the pool's workers. Exit codes are `cp`'s: 0 if everything was
//! copied, 1 if anything was not.

mod cli;
mod progress;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cli::{Command, ReportFormat, Stop};
use poolcp::{Error, Observer, Plan, Pool, Report, quote};
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
    let terminal = Terminal {
        program: program.to_owned(),
        verbose: command.verbose,
        display: display.clone(),
    };
    let plan = Plan::resolve(command.sources, command.target, command.options)
        .map_err(|error| fail(&error))?
        .observer(Arc::new(terminal));
    let progress = plan.progress();
    let pool = Pool::builder()
        .threads(command.threads)
        .build()
        .map_err(|error| fail(&error))?;
    let job = pool.apply_async(plan).map_err(|error| fail(&error))?;
    while !job.join_timeout(TICK) {
        display.update(&progress.stats());
    }
    display.clear();
    let report = job.join().map_err(|error| fail(&error))?;
    pool.join();
    show(&report, command.report).map_err(|error| fail(&format!("write error: {error}")))?;
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
                    say(program, &format!("write error: {error}"));
                    ExitCode::FAILURE
                }
            }
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
        let line = format!("{} -> {}\n", quote(source), quote(dest));
        // A closed standard output must not stop the copy.
        self.display
            .aside(|| drop(io::stdout().write_all(line.as_bytes())));
    }
}
