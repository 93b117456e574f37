//! The live view: what has been copied so far, how fast, and what is still to come.
//!
//! It is drawn by the main thread, on standard error, only if that is a terminal (or if it is asked for), and only once a copy
//! has lasted long enough that somebody may wonder. Messages from the workers are printed above it: while there is something
//! on the screen, everybody who prints goes through [`Display::aside`].
//!
//! | file | what lives there |
//! |---|---|
//! | `pace.rs` | what can be said about a copy, as numbers |
//! | `status.rs` | the same in words, as many as there is room for |
//! | `screen.rs` | how lines get on a terminal and away from it |
//!
//! Only the main thread does anything ten times a second; the workers count as they do without a terminal.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use poolcp::Progress;

use crate::job_control::is_in_front;
use crate::lock::lock;
use crate::pace::{Pace, View};
use crate::screen::{Screen, can_draw, has_colours, is_piped, size};
use crate::status::{Lines, Setting, line, lines};

/// A copy that is over sooner needs no view: it would only flicker.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// If more messages than this came since the last look, they show well enough that something is going on, and the view would
/// only flicker between them.
const FEW_MESSAGES: u32 = 3;

/// Where no cursor can be moved a line comes after [`QUIET_FOR`], then after twice as long each time, then each so often:
/// nobody wants to read thousands.
const RAREST_LINE: Duration = Duration::from_secs(10);

/// The bar's steps, in units that nobody sees.
const STEPS: u64 = 10_000;

/// When there is a live view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// If standard error is a terminal that can do it, and this process is in front there. Not if lines that are printed go
    /// through a pipe.
    #[default]
    Auto,
    /// Also elsewhere: as lines, now and then.
    Always,
    /// Never.
    Never,
}

impl When {
    /// The same where lines are printed, too, if it `has_lines`. Through a pipe, a pager or tee, they may come to the same screen, and
    /// nobody knows when.
    pub fn beside_lines(self, has_lines: bool) -> Self {
        if self == Self::Auto && has_lines && is_piped() {
            Self::Never
        } else {
            self
        }
    }
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Hidden,
    /// On a terminal, at the bottom.
    Drawn {
        even_behind: bool,
        colours: bool,
    },
    /// One below the other.
    Lines,
}

/// The view on one copy.
pub struct Display {
    program: String,
    way: Way,
    setting: Setting,
    /// How often each byte is moved: once more if it is read back.
    passes: u64,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    bar: ProgressBar,
    screen: Screen,
    pace: Pace,
    /// There is something on the screen to be taken away.
    is_drawn: bool,
    /// No more is to be drawn.
    is_over: bool,
    /// How many messages came since the last look.
    messages: u32,
    next_line: Duration,
}

impl Display {
    /// A view that begins now. `is_verified` says whether all is read back.
    pub fn new(program: &str, when: When, setting: Setting, is_verified: bool) -> Self {
        let way = match (when, can_draw()) {
            (When::Never, _) | (When::Auto, false) => Way::Hidden,
            (When::Always, false) => Way::Lines,
            (_, true) => Way::Drawn {
                even_behind: when == When::Always,
                colours: has_colours(|name| std::env::var(name).ok()),
            },
        };
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        Self {
            program: program.to_owned(),
            way,
            setting,
            passes: if is_verified { 2 } else { 1 },
            started: Instant::now(),
            state: Mutex::new(State {
                bar: ProgressBar::with_draw_target(Some(STEPS), target),
                screen,
                pace: Pace::default(),
                is_drawn: false,
                is_over: false,
                messages: 0,
                next_line: QUIET_FOR,
            }),
        }
    }

    /// Whether anything will ever be shown by itself.
    pub fn is_wanted(&self) -> bool {
        self.way != Way::Hidden
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A message that could not be printed leaves nothing half done here.
        lock(&self.state)
    }

    fn view(&self, state: &mut State, progress: &Progress) -> View {
        let elapsed = self.started.elapsed();
        state.pace.view(elapsed, progress.snapshot(), self.passes)
    }

    /// Shows how far the copy is. Called some ten times a second, whether it is shown or not: the rate is that of the last
    /// seconds.
    pub fn update(&self, progress: &Progress) {
        let mut state = self.state();
        let view = self.view(&mut state, progress);
        let messages = std::mem::take(&mut state.messages);
        if view.elapsed < QUIET_FOR || state.is_over {
            return;
        }
        match self.way {
            Way::Drawn {
                even_behind,
                colours,
            } if messages <= FEW_MESSAGES && (even_behind || is_in_front()) => {
                state.draw(&view, lines(&view, self.setting, size()), colours);
            }
            Way::Lines if view.elapsed >= state.next_line => {
                state.next_line = view.elapsed + view.elapsed.min(RAREST_LINE);
                self.print(&view);
            }
            _ => {}
        }
    }

    /// Prints one line about the copy, whether there is a view or not (SIGUSR1).
    pub fn tell(&self, progress: &Progress) {
        let mut state = self.state();
        let view = self.view(&mut state, progress);
        state.erase();
        self.print(&view);
    }

    fn print(&self, view: &View) {
        let line = format!("{}: {}\n", self.program, line(view, self.setting));
        // Standard error is where a failure would be told.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Prints something else on the same terminal, where the view was. That comes back with the next update.
    pub fn aside(&self, print: impl FnOnce()) {
        if self.way == Way::Hidden {
            return print();
        }
        let mut state = self.state();
        state.messages += 1;
        state.erase();
        print();
    }

    /// Takes the view away until the next update.
    pub fn erase(&self) {
        self.state().erase();
    }

    /// Takes the view away for good.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.erase();
    }
}

impl State {
    fn draw(&mut self, view: &View, lines: Lines, colours: bool) {
        let (green, plain) = if colours {
            ("\x1b[32m", "\x1b[0m")
        } else {
            ("", "")
        };
        let template = match lines.bar {
            Some(columns) => format!("{green}[{{bar:{columns}}}]{plain}  {{msg}}"),
            None => "{spinner} {msg}".to_owned(),
        };
        // The template is ours, so it cannot be refused; without it the view would only look plainer.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let style = style.progress_chars("=> ").tick_chars("|/-\\ ");
            self.bar.set_style(style);
        }
        let mut text = lines.overall;
        for file in lines.files {
            text.push('\n');
            text += &file;
        }
        self.bar.set_position(steps(view));
        self.bar.set_message(text);
        self.bar.tick();
        self.screen.show();
        self.is_drawn = true;
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            Screen::erase();
        }
    }
}

// From 0 to STEPS.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn steps(view: &View) -> u64 {
    (view.fraction.unwrap_or(0.0) * STEPS as f64) as u64
}
