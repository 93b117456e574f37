//! What somebody sees at a terminal: the live view during a copy, what is left of it, messages and questions above it, and
//! the signals that a terminal sends.
//!
//! The program runs on a pseudo-terminal of its own, and what it writes there goes through a terminal in memory (vt100), whose
//! screen is looked at. FIFOs as sources, which the tests fill when they want to, make a copy last exactly as long as it is
//! looked at.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{Sandbox, set_mtime};
use crate::passthrough::{Manners, Passthrough};
use crate::programs::{PID_NAMESPACE, poolcp, poolcp_as_cp};

/// Longer than the view waits before it appears, and than it takes on a busy machine to be drawn after that.
const LONG: Duration = Duration::from_secs(40);

/// Twice what the view waits before it appears: then it would be there.
const A_WHILE: Duration = Duration::from_millis(1200);

/// A program at a terminal of its own.
struct Session {
    child: Child,
    master: File,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    terminal: vt100::Parser,
    /// All that was written.
    bytes: Vec<u8>,
}

impl Session {
    /// poolcp with these words in the sandbox.
    fn start(sandbox: &Sandbox, size: (u16, u16), line: &str) -> Self {
        Self::start_with(sandbox, size, line, &[])
    }

    fn start_with(
        sandbox: &Sandbox,
        size: (u16, u16),
        line: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        Self::start_program(sandbox, size, poolcp(), &words, environment)
    }

    fn start_program(
        sandbox: &Sandbox,
        (columns, rows): (u16, u16),
        program: &Path,
        words: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("a terminal of one's own");
        unlockpt(&master).expect("an open terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let master = File::from(master);
        resize(&master, (columns, rows));
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("ASCII"))
            .expect("open the terminal");
        let stream = || Stdio::from(terminal.try_clone().expect("another descriptor"));
        // It makes the terminal the one whose keys send signals; and who starts the tests may ignore them.
        let child = Command::new("setsid")
            .args(["--ctty", "env", "--default-signal"])
            .arg(program)
            .args(words)
            .current_dir(sandbox.path(""))
            .env("LC_ALL", "C")
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied())
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("start setsid");
        let seen = Arc::new(Mutex::new(Seen {
            terminal: vt100::Parser::new(rows, columns, 0),
            bytes: Vec::new(),
        }));
        let mut reader = master.try_clone().expect("another descriptor");
        let screen = Arc::clone(&seen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Once nobody has the other end open any more the answer is EIO.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let mut seen = screen.lock().expect("no test has failed");
                seen.terminal.process(&buffer[..count]);
                seen.bytes.extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child,
            master,
            seen,
        }
    }

    /// The lines on the screen, without the empty ones at its end.
    fn screen(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("the reader lives");
        let text = seen.terminal.screen().contents();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn cursor(&self) -> (u16, u16) {
        let seen = self.seen.lock().expect("the reader lives");
        seen.terminal.screen().cursor_position()
    }

    fn raw(&self) -> String {
        let seen = self.seen.lock().expect("the reader lives");
        String::from_utf8_lossy(&seen.bytes).into_owned()
    }

    /// Waits until the screen is as wanted, and returns it.
    #[track_caller]
    fn wait(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(begin.elapsed() < LONG, "never as wanted: {screen:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> Vec<String> {
        self.wait(|screen| screen.iter().any(|line| line.contains(text)))
    }

    /// Presses keys.
    fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).expect("type");
    }

    fn resize(&self, size: (u16, u16)) {
        let mut seen = self.seen.lock().expect("the reader lives");
        seen.terminal.screen_mut().set_size(size.1, size.0);
        resize(&self.master, size);
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.expect("a pid")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("send a signal");
    }

    /// Waits for its end, and returns the exit code, as a shell has it, and the screen.
    #[track_caller]
    fn end(&mut self) -> (Option<i32>, Vec<String>) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(begin.elapsed() < LONG, "it hangs: {:#?}", self.screen());
            thread::sleep(Duration::from_millis(5));
        };
        // What was written last may still be on its way.
        thread::sleep(Duration::from_millis(100));
        let by_signal = || status.signal().map(|signal| 128 + signal);
        (status.code().or_else(by_signal), self.screen())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A test that has failed leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &File, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("resize");
}

/// Opens the other end of a FIFO: what reads it waits until this goes.
fn hold(path: &Path) -> File {
    OpenOptions::new()
        .write(true)
        .open(path)
        .expect("open a FIFO")
}

/// Whether a line belongs to the live view.
fn is_live(line: &str) -> bool {
    let signs = [" entries", "so far", " %", "[="];
    signs.iter().any(|sign| line.contains(sign))
}

/// The last screen has nothing of the view, and ends with the report; the cursor is where the shell's prompt goes.
#[track_caller]
fn assert_clean(session: &Session, screen: &[String]) {
    assert!(!screen.iter().any(|line| is_live(line)), "{screen:#?}");
    let last = screen.last().expect("a report");
    assert!(
        ["errors    ", "next      ", "  cannot"]
            .iter()
            .any(|label| last.starts_with(label)),
        "{screen:#?}"
    );
    let rows = u16::try_from(screen.len()).expect("few");
    assert_eq!(session.cursor(), (rows, 0), "{screen:#?}");
}

/// Two files, and a FIFO that takes as long as the test wants: in a directory of its own, so that another worker takes it.
fn with_pipe(sandbox: &Sandbox) {
    sandbox.file("source/a", 3000);
    sandbox.file("source/b", 3000);
    sandbox.fifo("source/sub/pipe");
}

const COPY: &str = "-r --copy-contents -j2 source copy";

#[test]
fn a_view_is_drawn_while_a_copy_lasts_and_gone_when_it_is_over() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    for columns in [40, 80, 200] {
        let mut session = Session::start(&sandbox, (columns, 24), COPY);
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        let during = session.wait(|screen| screen.iter().any(|line| is_live(line)));
        let wide = session.wait_for("5.86 KiB");
        assert_eq!(during.len(), 1, "{during:#?}");
        assert!(during[0].len() < usize::from(columns), "{during:#?}");
        if columns == 200 {
            assert!(wide[0].contains("4 of 5 entries  5.86 KiB"), "{wide:#?}");
            assert!(wide[0].ends_with("2 workers"), "{wide:#?}");
        }
        assert_eq!(session.cursor(), (0, 0));
        drop(pipe);
        let (code, screen) = session.end();
        assert_eq!(code, Some(0));
        assert_eq!(screen[0], "copied    3 files, 2 directories", "{screen:#?}");
        assert_clean(&session, &screen);
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    }
}

#[test]
fn large_files_are_shown_where_there_is_room_while_they_are_copied() {
    needs!(Fuse, Terminal);
    let sandbox = Sandbox::new();
    sandbox.file("source/small", 10);
    sandbox.file("source/film", 20 << 20);
    sandbox.file("source/sub/music", 18 << 20);
    let manners = Manners {
        delay: Duration::from_millis(15),
        ..Manners::default()
    };
    let at = sandbox.dir("slow");
    let _slow = Passthrough::mount(&sandbox.path("source"), &at, manners).expect("mount");
    for (size, shown) in [((40, 24), 2), ((80, 24), 2), ((200, 24), 2), ((80, 5), 1)] {
        let line = "-r -j2 --reflink=never slow copy";
        let mut session = Session::start(&sandbox, size, line);
        let during = session.wait(|screen| screen.len() == 1 + shown);
        assert!(during[1].starts_with("  'slow/film'  "), "{during:#?}");
        assert!(during[1].contains(" %"), "{during:#?}");
        if size.0 > 40 {
            assert!(during[1].contains(" of 20 MiB"), "{during:#?}");
        }
        if shown > 1 {
            assert!(during[2].starts_with("  'slow/sub/music'  "), "{during:#?}");
        }
        assert_eq!(session.cursor(), (0, 0));
        // Percentages never go down.
        let percent = |screen: &[String]| -> Option<u32> {
            let words = screen.first()?.split(" %").next()?.split_whitespace();
            words.last()?.parse().ok()
        };
        let mut before = 0;
        while session.child.try_wait().expect("wait").is_none() {
            if let Some(now) = percent(&session.screen()).filter(|_| session.cursor() == (0, 0)) {
                assert!(before <= now && now <= 100, "{before} then {now}");
                before = now;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert!(before > 0);
        let (code, screen) = session.end();
        assert_eq!(code, Some(0), "{screen:#?}");
        if size.1 > 5 {
            assert_clean(&session, &screen);
        }
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    }
}

#[test]
fn a_short_copy_shows_nothing_but_its_report() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    sandbox.file("source/a", 3000);
    let mut session = Session::start(&sandbox, (80, 24), "-r source copy");
    let (code, screen) = session.end();
    assert_eq!(code, Some(0));
    assert_clean(&session, &screen);
    assert!(!session.raw().contains('\x1b'), "{:?}", session.raw());
}

#[test]
fn after_ctrl_c_the_screen_is_clean_and_tells_how_to_go_on() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    for columns in [40, 80, 200] {
        with_pipe(&sandbox);
        let mut session = Session::start(&sandbox, (columns, 24), COPY);
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        session.wait(|screen| screen.iter().any(|line| is_live(line)));
        session.press("\x03");
        // At once, not only at the end.
        session.wait(|screen| !screen.iter().any(|line| is_live(line)));
        drop(pipe);
        let (code, screen) = session.end();
        assert_eq!(code, Some(130), "{screen:#?}");
        let text = screen.join("\n");
        assert!(text.contains("\nstopped   before the end\n"), "{text}");
        if columns > 80 {
            let program = poolcp().display();
            let next = format!(
                "next      to go on: {program} --checksum -T -r --copy-contents -j2 source copy"
            );
            assert_eq!(screen.last(), Some(&next));
            assert_clean(&session, &screen);
        }
        let live = ["so far", " %", "entries"];
        assert!(!live.iter().any(|live| text.contains(live)), "{text}");
        assert_eq!(session.cursor().1, 0);
        // What it said can be typed, and does it.
        sandbox
            .poolcp(["-p", "--update=changed", "-T", "-r", "source/a", "copy/a"])
            .ok();
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        fs::remove_dir_all(sandbox.path("source")).expect("remove");
    }
}

#[test]
fn a_second_ctrl_c_leaves_a_clean_screen_too() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let mut session = Session::start(&sandbox, (80, 24), COPY);
    let _pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    session.press("\x03");
    session.wait(|screen| !screen.iter().any(|line| is_live(line)));
    // What comes at once may be of the same act.
    thread::sleep(Duration::from_secs(1));
    session.press("\x03");
    let (code, screen) = session.end();
    assert_eq!(code, Some(130));
    let rest = screen.concat().replace("^C", "");
    assert_eq!(rest, "", "{screen:#?}");
}

#[test]
fn ctrl_z_takes_the_view_away_and_it_comes_back() {
    needs!(Bash, Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let script = format!(
        "set -m; {} {COPY}; echo stopped; read; fg",
        poolcp().display()
    );
    let bash = Path::new("bash");
    let mut session = Session::start_program(&sandbox, (80, 24), bash, &["-c", &script], &[]);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    session.press("\x1a");
    let screen = session.wait(|screen| screen.iter().any(|line| line == "stopped"));
    assert!(!screen.iter().any(|line| is_live(line)), "{screen:#?}");
    session.press("\n");
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(code, Some(0));
    assert!(!screen.iter().any(|line| is_live(line)), "{screen:#?}");
}

/// Presses Ctrl-Z while a copy lasts that nobody could let go on.
#[track_caller]
fn assert_goes_on(program: &Path, words: &[&str]) {
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let mut session = Session::start_program(&sandbox, (80, 24), program, words, &[]);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    session.press("\x1a");
    // As long as it would take to look, and to stop.
    thread::sleep(Duration::from_millis(500));
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(code, Some(0), "{screen:#?}");
}

#[test]
fn ctrl_z_stops_nothing_that_nobody_could_let_go_on() {
    needs!(Terminal);
    // Its parent is in another session.
    let words: Vec<&str> = COPY.split_whitespace().collect();
    assert_goes_on(poolcp(), &words);
}

#[test]
fn ctrl_z_stops_nothing_whose_session_is_outside_of_its_pid_namespace() {
    needs!(PidNamespace, Terminal);
    let script = format!("{} {COPY}; exit $?", poolcp().display());
    let [unshare, words @ ..] = PID_NAMESPACE;
    let words = [&words[..], &["sh", "-c", &script]].concat();
    assert_goes_on(Path::new(unshare), &words);
}

#[test]
fn the_first_process_of_a_pid_namespace_ends_by_signals_as_any_other() {
    needs!(PidNamespace, Terminal);
    let sandbox = Sandbox::new();
    let program = poolcp().to_str().expect("UTF-8");
    let copy: Vec<&str> = COPY.split_whitespace().collect();
    let [unshare, words @ ..] = PID_NAMESPACE;
    let words = [&words[..], &[program], &copy].concat();
    for presses in [1, 2] {
        with_pipe(&sandbox);
        let unshare = Path::new(unshare);
        let mut session = Session::start_program(&sandbox, (80, 24), unshare, &words, &[]);
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        session.wait(|screen| screen.iter().any(|line| is_live(line)));
        session.press("\x03");
        session.wait(|screen| !screen.iter().any(|line| is_live(line)));
        // Let go, the copy ends by itself.
        let _held = if presses == 1 {
            drop(pipe);
            None
        } else {
            thread::sleep(Duration::from_secs(1));
            session.press("\x03");
            Some(pipe)
        };
        let (code, screen) = session.end();
        assert_eq!(code, Some(130), "{screen:#?}");
        let is_reported = screen.join("\n").contains("\nstopped   before the end\n");
        assert_eq!(is_reported, presses == 1, "{screen:#?}");
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        fs::remove_dir_all(sandbox.path("source")).expect("remove");
    }
}

#[test]
fn a_view_is_drawn_where_proc_numbers_processes_otherwise() {
    needs!(PidNamespace, Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let script = format!(
        "--pid --fork --kill-child -- setsid --ctty --wait {}",
        poolcp().display()
    );
    let words: Vec<&str> = script
        .split_whitespace()
        .chain(COPY.split_whitespace())
        .collect();
    let unshare = Path::new("unshare");
    let mut session = Session::start_program(&sandbox, (80, 24), unshare, &words, &[]);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    drop(pipe);
    assert_eq!(session.end().0, Some(0));
}

#[test]
fn errors_are_whole_lines_above_the_view() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    sandbox.fifo("first");
    sandbox.fifo("second");
    sandbox.dir("copy");
    let line = "-j1 --copy-contents first missing second nowhere copy";
    for columns in [40, 80, 200] {
        let mut session = Session::start(&sandbox, (columns, 24), line);
        let pipe = hold(&sandbox.path("first"));
        session.wait(|screen| screen.iter().any(|line| is_live(line)));
        drop(pipe);
        let pipe = hold(&sandbox.path("second"));
        let screen = session.wait_for("1 error");
        let whole = "poolcp: cannot stat 'missing': No such file or directory";
        assert_eq!(unwrapped(&screen, columns)[0], whole, "{screen:#?}");
        assert!(is_live(screen.last().expect("the view")), "{screen:#?}");
        drop(pipe);
        let (code, screen) = session.end();
        assert_eq!(code, Some(1));
        let lines = unwrapped(&screen, columns);
        assert_eq!(lines[0], whole);
        assert_eq!(
            lines[1],
            "poolcp: cannot stat 'nowhere': No such file or directory"
        );
        assert_eq!(lines[2], "copied    2 files", "{screen:#?}");
        let live = ["entries", "so far", "[="];
        assert!(!live.iter().any(|live| lines.concat().contains(live)));
    }
}

/// Lines as they were written: a screen shows long ones in several rows.
fn unwrapped(screen: &[String], columns: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for row in screen {
        match lines.last_mut() {
            Some(line) if goes_on => line.push_str(row),
            _ => lines.push(row.clone()),
        }
        goes_on = row.len() == usize::from(columns);
    }
    lines
}

#[test]
fn what_is_said_about_entries_is_above_the_view() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    sandbox.fifo("first");
    sandbox.file("a", 10);
    sandbox.fifo("second");
    sandbox.dir("copy");
    let line = "-v -j1 --copy-contents first a second copy";
    let mut session = Session::start(&sandbox, (80, 24), line);
    let pipe = hold(&sandbox.path("first"));
    session.wait_for("so far");
    drop(pipe);
    let pipe = hold(&sandbox.path("second"));
    let screen = session.wait(|screen| screen.len() == 4 && is_live(&screen[3]));
    let told = ["first", "a", "second"].map(|name| format!("'{name}' -> 'copy/{name}'"));
    assert_eq!(screen[..3], told);
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(code, Some(0));
    assert_eq!(screen[..3], told);
    assert_clean(&session, &screen);
}

#[test]
fn a_question_is_asked_where_the_view_was() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    sandbox.fifo("first");
    sandbox.file("a", 10);
    sandbox.fifo("second");
    sandbox.file("copy/a", 20);
    let line = "-i --copy-contents first a second copy";
    let mut session = Session::start(&sandbox, (80, 24), line);
    let pipe = hold(&sandbox.path("first"));
    session.wait_for("so far");
    drop(pipe);
    session.wait(|screen| screen == ["poolcp: overwrite 'copy/a'?"]);
    // The view does not come back before there is an answer.
    thread::sleep(A_WHILE);
    assert_eq!(session.screen(), ["poolcp: overwrite 'copy/a'?"]);
    session.press("y\n");
    let pipe = hold(&sandbox.path("second"));
    let screen = session.wait(|screen| screen.len() == 2 && is_live(&screen[1]));
    assert_eq!(screen[0], "poolcp: overwrite 'copy/a'? y");
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(code, Some(0), "{screen:#?}");
    assert_eq!(screen[1], "copied    3 files");
    assert_clean(&session, &screen);
}

#[test]
fn a_resized_terminal_is_as_clean_as_another() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let mut session = Session::start(&sandbox, (200, 24), COPY);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait(|screen| screen.iter().any(|line| is_live(line)));
    for columns in [100, 40, 20, 60, 7, 120] {
        session.resize((columns, 24));
        let drawn = session.raw().len();
        // Two more frames, the second of which has begun after the change.
        session.wait(|_| session.raw().len() > drawn + 2 * usize::from(columns.min(30)));
        let screen = session.screen();
        assert_eq!(screen.len(), 1, "{columns}: {screen:#?}");
        assert!(screen[0].len() < usize::from(columns), "{screen:#?}");
    }
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(code, Some(0));
    assert_clean(&session, &screen);
}

#[test]
fn usr1_asks_for_one_line_above_the_view() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let mut session = Session::start(&sandbox, (200, 24), COPY);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    session.wait_for("4 of 5 entries");
    session.signal(Signal::USR1);
    let screen = session.wait(|screen| screen.len() == 2 && is_live(&screen[1]));
    assert!(
        screen[0].starts_with("poolcp: 80 %, 4 of 5 entries, 5.86 KiB, "),
        "{screen:#?}"
    );
    drop(pipe);
    let (code, screen) = session.end();
    assert_eq!(
        (code, screen[1].as_str()),
        (Some(0), "copied    3 files, 2 directories")
    );
}

#[test]
fn usr1_is_answered_without_a_terminal_and_by_the_name_cp() {
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    for (program, name) in [(poolcp(), "poolcp"), (poolcp_as_cp(), "cp")] {
        let child = Command::new(program)
            .args(COPY.replace("-j2 ", "-q ").split_whitespace())
            .current_dir(sandbox.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        // The other files, and whatever it takes to start.
        thread::sleep(A_WHILE);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), Signal::USR1).expect("send a signal");
        thread::sleep(A_WHILE);
        drop(pipe);
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let told = format!("{name}: 80 %, 4 of 5 entries, 5.86 KiB, ");
        assert!(stderr.starts_with(&told), "{stderr}");
        assert_eq!(output.stdout, b"");
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
    }
}

#[test]
fn a_view_is_drawn_when_it_is_wanted_and_where_it_can_be() {
    needs!(Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let is_drawn = |options: &str, environment: &[(&str, &str)]| {
        let line = format!("{options} {COPY}");
        let mut session = Session::start_with(&sandbox, (80, 24), &line, environment);
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        thread::sleep(A_WHILE);
        drop(pipe);
        let (code, screen) = session.end();
        assert_eq!(code, Some(0), "{screen:#?}");
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        session.raw()
    };
    assert!(is_drawn("", &[]).contains("\x1b[J"));
    assert!(is_drawn("--progress=always -q", &[]).contains("\x1b[J"));
    assert!(is_drawn("-q --progress=auto", &[]).contains("\x1b[J"));
    assert!(is_drawn("", &[]).contains("\x1b[32m"), "a green bar");
    assert!(!is_drawn("", &[("NO_COLOR", "1")]).contains("\x1b[3"));
    assert!(!is_drawn("", &[("CLICOLOR", "0")]).contains("\x1b[3"));
    for (options, environment) in [
        ("-q", &[][..]),
        ("--progress=never", &[]),
        ("", &[("TERM", "dumb")]),
        ("", &[("TERM", "")]),
    ] {
        let raw = is_drawn(options, environment);
        assert!(!raw.contains('\x1b'), "{options} {environment:?}: {raw:?}");
        assert!(!raw.contains("so far"), "{raw:?}");
    }
    let lines = is_drawn("--progress=always", &[("TERM", "dumb")]);
    assert!(
        !lines.contains('\x1b') && lines.contains("4 of 5 entries"),
        "{lines:?}"
    );
}

#[test]
fn by_the_name_cp_and_without_a_terminal_nothing_is_drawn_unless_it_is_asked_for() {
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    let run = |program: &Path, options: &[&str]| {
        let child = Command::new(program)
            .args(options)
            .args(COPY.split_whitespace())
            .current_dir(sandbox.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let pipe = hold(&sandbox.path("source/sub/pipe"));
        thread::sleep(A_WHILE);
        drop(pipe);
        let output = child.wait_with_output().expect("wait");
        fs::remove_dir_all(sandbox.path("copy")).expect("remove");
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(run(poolcp_as_cp(), &[]), "");
    assert_eq!(run(poolcp_as_cp(), &["--progress=auto"]), "");
    assert_eq!(run(poolcp(), &["-q"]), "");
    let report = run(poolcp(), &[]);
    assert!(report.starts_with("copied    3 files"), "{report}");
    for program in [poolcp(), poolcp_as_cp()] {
        let lines = run(program, &["--progress", "--report=none"]);
        assert!(
            lines.contains(": ") && lines.contains("4 of 5 entries"),
            "{lines}"
        );
        assert!(
            lines.lines().all(|line| !line.contains(['\r', '\x1b'])),
            "{lines:?}"
        );
    }
}

#[test]
fn what_is_in_the_background_does_not_draw() {
    needs!(Bash, Terminal);
    let sandbox = Sandbox::new();
    with_pipe(&sandbox);
    // With job control, so that the copy is in a group of its own. The shell stays in front.
    let script = format!(
        "set -m; {} --progress=auto {COPY} & wait $!; echo ended $?",
        poolcp().display()
    );
    let words = ["-c", &script];
    let mut session = Session::start_program(&sandbox, (80, 24), Path::new("bash"), &words, &[]);
    let pipe = hold(&sandbox.path("source/sub/pipe"));
    thread::sleep(A_WHILE);
    drop(pipe);
    let (_, screen) = session.end();
    assert!(screen.iter().any(|line| line == "ended 0"), "{screen:#?}");
    assert!(!session.raw().contains("\x1b[J"), "{:?}", session.raw());
}

#[test]
fn a_copy_of_one_file_without_a_pool_is_watched_too() {
    needs!(Fuse, Terminal);
    let sandbox = Sandbox::new();
    let path = sandbox.file("source/film", 20 << 20);
    set_mtime(&path, 1_000_000_000, 0);
    let manners = Manners {
        delay: Duration::from_millis(15),
        ..Manners::default()
    };
    let at = sandbox.dir("slow");
    let _slow = Passthrough::mount(&sandbox.path("source"), &at, manners).expect("mount");
    let mut session = Session::start(&sandbox, (200, 24), "slow/film film");
    let during = session.wait(|screen| screen.iter().any(|line| line.contains(" of 20 MiB")));
    assert_eq!(during.len(), 1, "{during:#?}");
    session.press("\x03");
    let (code, screen) = session.end();
    assert_eq!(code, Some(130), "{screen:#?}");
    assert!(!sandbox.path("film").exists());
    let next = format!(
        "next      to go on: {} --checksum slow/film film",
        poolcp().display()
    );
    assert_eq!(screen.last(), Some(&next));
}
