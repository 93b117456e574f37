//! The few lines at the bottom of a terminal that change: how they get there, and how they are taken away.
//!
//! They are drawn below what is on the screen already, and the cursor then goes back to where they begin. So whatever
//! happens to a terminal meanwhile, cleaning up is the same: everything from the cursor on is erased.
//! - A terminal that gets narrower wraps the lines, or cuts them off. The place where they begin stays where the cursor is.
//!   (tmux moves lines of an almost empty screen into its history then, and a piece of ours may go with them.)
//! - What somebody types, a `^C` for example, is echoed over the first line, which is drawn anew.
//!
//! indicatif would leave the cursor at the end, and fill each line up to the margin: from a narrower terminal it takes less
//! away than it has drawn. So it draws through [`Screen`], which is a terminal to it.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::TermLike;
use rustix::fs::FileType;
use rustix::termios::tcgetwinsize;

use crate::lock::lock;

/// To the left margin, and away with everything from there on.
const ERASE: &str = "\r\x1b[J";

/// Whether standard error is a terminal on which a cursor can be moved.
pub fn can_draw() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stderr().is_terminal() && !is_dumb
}

/// Whether standard output is a pipe.
pub fn is_piped() -> bool {
    let looked = rustix::fs::fstat(io::stdout());
    looked.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Whether colours are wanted on a terminal, by the usual variables of the environment: `NO_COLOR` (any value) forbids them,
/// `CLICOLOR_FORCE` (but 0) wants them anyway, and `CLICOLOR=0` does not.
pub fn has_colours(variable: impl Fn(&str) -> Option<String>) -> bool {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    if given("NO_COLOR").is_some() {
        return false;
    }
    let forced = given("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    forced || given("CLICOLOR").is_none_or(|value| value != "0")
}

/// The terminal's columns and rows, as they are now.
pub fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stderr()).ok();
    // Serial lines say 0.
    let known = |n: u16, usual: usize| if n == 0 { usual } else { usize::from(n) };
    size.map_or((80, 24), |size| {
        (known(size.ws_col, 80), known(size.ws_row, 24))
    })
}

/// What indicatif draws on. Clones are the same screen.
#[derive(Clone, Debug, Default)]
pub struct Screen(Arc<Mutex<Frames>>);

#[derive(Debug, Default)]
struct Frames {
    /// What has been written since the last flush.
    next: Vec<String>,
    /// What is to be shown.
    complete: Vec<String>,
}

impl Screen {
    /// Shows what was drawn last. indicatif draws at every change of a bar, and a look has several.
    pub fn show(&self) {
        let text = drawing(&self.frames().complete);
        // Standard error is where a failure would be told.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Takes away what is drawn.
    pub fn erase() {
        // Standard error is where a failure would be told.
        let _ = io::stderr().write_all(ERASE.as_bytes());
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        lock(&self.0)
    }
}

/// indicatif moves up, clears line by line, and writes each line and then blanks up to the margin. All that counts here is
/// what the lines are, and that a flush ends them.
impl TermLike for Screen {
    fn width(&self) -> u16 {
        u16::try_from(size().0).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from(size().1).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.frames().next.push(line.to_owned());
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if !text.trim().is_empty() {
            self.frames().next.push(text.trim_end().to_owned());
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut frames = self.frames();
        frames.complete = std::mem::take(&mut frames.next);
        Ok(())
    }
}

/// What makes a terminal show these lines from the cursor's row on, and nothing below them. Old lines are written over, not
/// erased first: that would flicker.
fn drawing(lines: &[String]) -> String {
    if lines.is_empty() {
        return ERASE.to_owned();
    }
    let mut text = "\r".to_owned();
    text += &lines.join("\x1b[K\r\n");
    text += "\x1b[J\r";
    if lines.len() > 1 {
        text += &format!("\x1b[{}A", lines.len() - 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_goes_back_to_where_the_lines_begin() {
        let lines = ["one", "two", "three"].map(str::to_owned);
        let drawn = "\rone\x1b[K\r\ntwo\x1b[K\r\nthree\x1b[J\r\x1b[2A";
        assert_eq!(drawing(&lines), drawn);
        assert_eq!(drawing(&lines[..1]), "\rone\x1b[J\r");
        assert_eq!(drawing(&[]), ERASE);
    }

    #[test]
    fn colours_are_as_the_environment_wants_them() {
        for (environment, expected) in [
            (&[][..], true),
            (&[("NO_COLOR", "1")], false),
            (&[("NO_COLOR", "")], true),
            (&[("CLICOLOR", "0")], false),
            (&[("CLICOLOR", "1")], true),
            (&[("CLICOLOR", "0"), ("CLICOLOR_FORCE", "1")], true),
            (&[("CLICOLOR", "0"), ("CLICOLOR_FORCE", "0")], false),
            (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false),
        ] {
            let find = |name: &str| {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(has_colours(find), expected, "{environment:?}");
        }
    }
}
