//! The live line on a terminal: what has been copied so far, at what rate.
//!
//! It is drawn by the main thread, on standard error, only if that is a terminal, and only once a copy has lasted long
//! enough that somebody may wonder. Messages from the workers are printed above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use humansize::{BINARY, format_size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use poolcp::Stats;

/// A copy that is over sooner needs no line: it would only flicker.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// The line. Clones draw the same one.
#[derive(Clone)]
pub struct Display {
    bar: ProgressBar,
    started: Instant,
    /// There is something on the screen to be taken away.
    is_drawn: Arc<AtomicBool>,
}

impl Display {
    /// A line that is drawn if it is `wanted` and standard error is a terminal.
    pub fn new(wanted: bool) -> Self {
        let target = if wanted {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant, so it cannot be refused; without it the line would only look plainer.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            is_drawn: Arc::default(),
        }
    }

    /// Shows the counts.
    pub fn update(&self, stats: &Stats) {
        let elapsed = self.started.elapsed();
        if elapsed < QUIET_FOR || self.bar.is_hidden() {
            return;
        }
        let moved = stats.bytes_moved() + stats.reflinked_bytes;
        // A rate for people: what is lost in the conversions is far below what is shown.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let rate = (moved as f64 / elapsed.as_secs_f64()) as u64;
        self.bar.set_message(format!(
            "{} files, {}, {}/s, {} s",
            stats.files,
            format_size(moved, BINARY),
            format_size(rate, BINARY),
            elapsed.as_secs()
        ));
        self.is_drawn.store(true, Ordering::Relaxed);
        self.bar.tick();
    }

    /// Prints something else, above the line.
    pub fn aside(&self, print: impl FnOnce()) {
        if self.is_drawn.load(Ordering::Relaxed) {
            self.bar.suspend(print);
        } else {
            print();
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
