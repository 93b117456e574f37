//! Questions about files that would be replaced (`-i`), and where the answers come from.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::AsFd;

use poolcp::{Canceller, Question, quote};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::TICK;

/// What was answered.
pub struct Answer {
    pub is_yes: bool,
    /// It had a line's end, which a terminal shows.
    pub is_line: bool,
}

/// Standard input, line by line.
pub struct Answers(BufReader<File>);

impl Answers {
    /// # Errors
    ///
    /// No more files can be opened.
    pub fn new() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(BufReader::new(input.into())))
    }

    /// What the next line says. The end of the input, an error, or the end of the copy says no. `wait` is called now and then
    /// until there is one.
    pub fn next(&mut self, canceller: &Canceller, wait: impl Fn()) -> Answer {
        let no = Answer {
            is_yes: false,
            is_line: false,
        };
        let mut line = Vec::new();
        let is_line = loop {
            if !self.0.buffer().is_empty() && self.take(&mut line) {
                break true;
            }
            let mut ready = [PollFd::new(self.0.get_ref(), PollFlags::IN)];
            let tick = Timespec::try_from(TICK).ok();
            let polled = poll(&mut ready, tick.as_ref());
            if canceller.is_cancelled() {
                return no;
            }
            wait();
            // An error is better told by reading.
            if polled != Ok(0) && polled != Err(rustix::io::Errno::INTR) {
                match self.0.fill_buf() {
                    Ok([]) => break false,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return no,
                }
            }
        };
        Answer {
            is_yes: matches!(line.first(), Some(b'y' | b'Y')),
            is_line,
        }
    }

    /// Takes what has been read of the line; true if that was its end.
    fn take(&mut self, line: &mut Vec<u8>) -> bool {
        let buffer = self.0.buffer();
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(buffer.len(), |end| end + 1);
        line.extend(&buffer[..len]);
        self.0.consume(len);
        end.is_some()
    }
}

impl Drop for Answers {
    /// Gives back what was read and not used, where that is possible: it is for the next command of a script.
    fn drop(&mut self) {
        let unused = i64::try_from(self.0.buffer().len()).unwrap_or(0);
        if unused > 0 {
            // Not from a pipe or a terminal.
            let _ = self.0.get_ref().seek(SeekFrom::Current(-unused));
        }
    }
}

/// A question in `cp`'s words, to be answered on the same line.
pub fn prompt(question: &Question) -> String {
    let dest = quote(&question.dest);
    let Some(mode) = question.unwritable else {
        return format!("overwrite {dest}? ");
    };
    let letters = permissions(mode);
    if question.removes {
        format!("replace {dest}, overriding mode {mode:04o} ({letters})? ")
    } else {
        format!("unwritable {dest} (mode {mode:04o}, {letters}); try anyway? ")
    }
}

/// A mode as `ls` shows it: `rwsr-xr-t`.
fn permissions(mode: u32) -> String {
    let class = |shift: u32, special: u32, letter: char| {
        let bit = |bit: u32, letter| {
            if mode >> shift & bit != 0 {
                letter
            } else {
                '-'
            }
        };
        let execute = match (mode >> shift & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
        [bit(4, 'r'), bit(2, 'w'), execute]
    };
    [
        class(6, 0o4000, 's'),
        class(3, 0o2000, 's'),
        class(0, 0o1000, 't'),
    ]
    .concat()
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn modes_are_shown_as_by_ls() {
        for (mode, shown) in [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1000, "--------T"),
        ] {
            assert_eq!(permissions(mode), shown);
        }
    }
}
