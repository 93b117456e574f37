//! What the workers tell and ask, and how it gets on a terminal, into a pipe and into the log.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use poolcp::{Done, Error, Event, Interest, Observer, Question};

use crate::cli::{Command, Verbosity};
use crate::journal::Journal;
use crate::lock::lock;
use crate::progress::Display;
use crate::prompt::{Answer, prompt};
use crate::status::Setting;
use crate::verbose::lines;
use crate::wording::without_number;

/// Says that standard output could not be written, in `cp`'s words.
pub fn write_error(error: &io::Error) -> String {
    format!("write error: {}", without_number(error))
}

/// Writes one message to standard error, whole: in one call, whichever thread it comes from.
pub fn say(program: &str, message: &dyn std::fmt::Display) {
    let line = format!("{program}: {message}\n");
    // Standard error is where a failure would be told; the exit code tells it still.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Shows what the workers report.
pub struct Terminal {
    program: String,
    verbosity: Verbosity,
    /// With each entry it is said why.
    says_why: bool,
    pub display: Display,
    /// Standard output is on a terminal: probably the one that the display is on.
    shares_stdout: bool,
    journal: Option<Journal>,
    /// The first failure to write to standard output. It does not stop the copy, but is told at its end.
    failed_write: Mutex<Option<io::Error>>,
    /// Somebody said no to a question. What was asked for is then not done, which the exit code says (POSIX, cp).
    declined: AtomicBool,
    /// What was written last is a question, and its answer is not on the screen with the end of a line.
    pub is_mid_line: AtomicBool,
}

impl Terminal {
    pub fn new(program: &str, command: &Command, journal: Option<Journal>) -> Self {
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

    pub fn flush_log(&self) {
        if let Some(journal) = &self.journal {
            journal.flush();
        }
    }

    /// Whether the log is complete, if there is one.
    pub fn end_log(&self) -> Option<io::Result<()>> {
        self.journal.as_ref().map(Journal::end)
    }

    /// Whether everything that was shown on standard output was also written.
    pub fn written(&self) -> io::Result<()> {
        let failed = self.failed_write().take();
        failed.map_or_else(|| io::stdout().flush(), Err)
    }

    pub fn has_declined(&self) -> bool {
        self.declined.load(Ordering::Relaxed)
    }

    /// Says something on standard error, above what is drawn there.
    fn complain(&self, message: &dyn std::fmt::Display) {
        self.is_mid_line.store(false, Ordering::Relaxed);
        self.display.aside(|| say(&self.program, message));
    }

    /// Asks what a worker wants to know, on standard error, and hands it the answer. Only the main thread does this.
    pub fn answer(&self, asked: &Asked, answer: impl FnOnce() -> Answer) {
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
pub struct Asked {
    pub question: Question,
    answer: Sender<bool>,
}

/// What the copy sees of the terminal. It goes with the copy, which tells the main thread that no more questions come.
pub struct Asking {
    pub terminal: Arc<Terminal>,
    pub questions: Sender<Asked>,
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
