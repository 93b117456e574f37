//! How long a copy takes from a disk that has to seek, with nothing in memory.
//!
//! A disk with an arm reads what lies side by side a hundred times faster than what does not. So it matters in which order a copy
//! asks, and that it does not ask at two places at once. Such a disk is simulated here (`tests/it/arm.rs`): an image on a
//! filesystem in user space, which waits 5 ms before it reads what lies behind, or more than a turn ahead, and reads 150 MB/s
//! otherwise. It knows no queue: what is asked first is read first.
//!
//! On it are an ext4, an xfs and a btrfs filesystem in turn, each with two sources, which are copied to memory:
//!
//! | source | |
//! |---|---|
//! | `flat` | 3,000 files of 4 KiB in one directory |
//! | `tree` | 3,000 files of 0 to 60 KB in 300 directories |
//!
//! by `poolcp -r` with 1 and 2 workers and with as many as it finds right by itself (`-j auto`), by `cp -r`, and by rsync, cpz
//! and xcp if they are on `PATH` or in `POOLCP_PEERS` (directories, separated as in `PATH` and looked at before it). The table
//! has the time of each, the arm's moves, and the time relative to `cp`.
//!
//! ```text
//! cargo bench --bench seeking                        # everything, some ten minutes
//! cargo bench --bench seeking -- ext4 flat           # some of it
//! cargo bench --bench seeking -- --rounds 5          # medians of 5, interleaved
//! cargo bench --bench seeking -- --test              # tiny, in seconds
//! ```
//!
//! It needs the superuser, /dev/fuse, loop devices and the filesystems' mkfs; without them it says so, and succeeds. The data
//! (some 300 MB) lies in /dev/shm, in a new directory that is removed at the end, but not if the bench is killed.

#[path = "../tests/it/arm.rs"]
mod arm;
// What only the tests use of it.
#[allow(dead_code)]
#[path = "../tests/it/passthrough.rs"]
mod passthrough;
mod tools;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arm::Arm;
use clap::Parser;
use passthrough::Passthrough;
use tools::Tool;

/// What the arm takes to get anywhere: a short move and half a turn of a disk that turns 120 times in a second.
const MOVE: Duration = Duration::from_millis(5);

const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const SOURCES: [&str; 2] = ["flat", "tree"];

/// Bytes: the least that all three take.
const IMAGE: u64 = 512 << 20;

/// Measures copies from a disk that has to seek
#[derive(Parser)]
struct Args {
    /// Which filesystems (ext4, xfs, btrfs) and sources (flat, tree); all without this
    words: Vec<String>,
    /// How often each copy is made
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Everything once and tiny, in seconds
    #[arg(long)]
    test: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// `cargo test` runs benches as well, without `--bench`, and with whatever options its tests are to get.
    fn get() -> Self {
        if env::args_os().any(|arg| arg == "--bench") {
            Self::parse()
        } else {
            Self::parse_from(["seeking", "--test"])
        }
    }

    /// Those of `all` that are wanted: all if none is named.
    fn wanted<'a>(&self, all: &[&'a str]) -> Vec<&'a str> {
        let is_named = |name: &&str| self.words.iter().any(|word| word == name);
        let named: Vec<&str> = all.iter().copied().filter(is_named).collect();
        if named.is_empty() {
            all.to_vec()
        } else {
            named
        }
    }
}

fn main() -> ExitCode {
    let args = Args::get();
    if !rustix::process::geteuid().is_root() {
        println!("seeking: left out, for only the superuser can mount");
        return ExitCode::SUCCESS;
    }
    let (files, rounds) = if args.test {
        (60, 1)
    } else {
        (3000, args.rounds)
    };
    println!("| source | copier | time, s | least-most | moves | to cp |");
    println!("|---|---|--:|--:|--:|--:|");
    for filesystem in args.wanted(&FILESYSTEMS) {
        for source in args.wanted(&SOURCES) {
            if let Err(error) = measure(filesystem, source, files, rounds) {
                println!("| {source} {filesystem} | left out: {error} | | | | |");
            }
        }
    }
    ExitCode::SUCCESS
}

/// Makes all copies of a source, in turns, and prints their rows.
fn measure(filesystem: &str, source: &str, files: usize, rounds: usize) -> io::Result<()> {
    let disk = Disk::make(filesystem)?;
    let original = disk.dir.path().join("original");
    make_source(source, files, &original)?;
    disk.mount()?;
    // One after the other, as something that has come to be there.
    run(Command::new("cp")
        .arg("-r")
        .args([&original, &disk.path("source")]))?;
    disk.unmount()?;
    let copiers = Copier::all();
    let mut rows: Vec<Vec<(Duration, u64)>> = vec![Vec::new(); copiers.len()];
    for _ in 0..rounds {
        for (row, copier) in rows.iter_mut().zip(&copiers) {
            row.push(disk.copy(copier, &original)?);
        }
    }
    rows.iter_mut().for_each(|row| row.sort_unstable());
    let median = |row: &[(Duration, u64)]| row[row.len() / 2];
    let cp = copiers.iter().position(Copier::is_cp);
    for (row, copier) in rows.iter().zip(&copiers) {
        let (time, moves) = median(row);
        let to_cp = cp.map_or(String::new(), |cp| {
            let ratio = time.as_secs_f64() / median(&rows[cp]).0.as_secs_f64();
            format!("{ratio:.2}")
        });
        let (least, most) = (row[0].0, row[row.len() - 1].0);
        println!(
            "| {source} {filesystem} | {} | {:.2} | {:.2}-{:.2} | {moves} | {to_cp} |",
            copier.name(),
            time.as_secs_f64(),
            least.as_secs_f64(),
            most.as_secs_f64(),
        );
    }
    Ok(())
}

fn make_source(source: &str, files: usize, root: &Path) -> io::Result<()> {
    for file in 0..files {
        let (dir, len) = match source {
            "flat" => (root.to_owned(), 4096),
            // The sizes are all over the place.
            _ => (
                root.join(format!("{}/{}", file % 12, file % 150)),
                file * 7919 % 60_000,
            ),
        };
        fs::create_dir_all(&dir)?;
        let content: Vec<u8> = (0..len).map(|at| (at + file) as u8).collect();
        fs::write(dir.join(format!("file-{file}")), content)?;
    }
    Ok(())
}

/// A filesystem on a disk with an arm.
struct Disk {
    arm: Arc<Arm>,
    device: PathBuf,
    // In this order: each is in the next one.
    _shown: Passthrough,
    dir: tempfile::TempDir,
}

impl Disk {
    fn make(filesystem: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("poolcp-bench-")
            .tempdir_in("/dev/shm")?;
        for name in ["below", "shown", "disk"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let arm = Arm::new(MOVE);
        let [below, shown] = ["below", "shown"].map(|name| dir.path().join(name));
        let image = shown.join("image");
        let shown = Passthrough::mount(&below, &shown, arm.manners())?;
        fs::File::create(&image)?.set_len(IMAGE)?;
        // What ext4 would write in its own time is written now.
        let options: &[&str] = match filesystem {
            "ext4" => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            _ => &["-q", "-f"],
        };
        run(Command::new(format!("mkfs.{filesystem}"))
            .args(options)
            .arg(&image))?;
        let attach = ["--find", "--show", "--direct-io=on"];
        let device = run(Command::new("losetup").args(attach).arg(&image))?;
        let disk = Self {
            arm,
            device: PathBuf::from(device.trim()),
            _shown: shown,
            dir,
        };
        // What the kernel says of a disk that turns.
        let name = disk
            .device
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        fs::write(format!("/sys/block/{name}/queue/rotational"), "1")?;
        Ok(disk)
    }

    /// A path on it.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("disk").join(name)
    }

    fn mount(&self) -> io::Result<()> {
        run(Command::new("mount").args([&self.device, &self.path("")])).map(drop)
    }

    fn unmount(&self) -> io::Result<()> {
        run(Command::new("umount").arg(self.path(""))).map(drop)
    }

    /// Copies with nothing in memory, and compares. The time, and the moves of the arm.
    fn copy(&self, copier: &Copier, original: &Path) -> io::Result<(Duration, u64)> {
        let copy = self.dir.path().join("copy");
        // What the device has in memory outlasts a filesystem.
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        self.mount()?;
        self.arm.take_moves();
        let begin = Instant::now();
        run(&mut copier.command(&self.path("source"), &copy))?;
        let time = begin.elapsed();
        let moves = self.arm.take_moves();
        self.unmount()?;
        run(Command::new("diff").arg("-rq").args([original, &copy]))?;
        fs::remove_dir_all(&copy)?;
        Ok((time, moves))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-lq")
            .arg(self.path(""))
            .status();
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// Runs something that must succeed. Its output.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("no message");
    Err(io::Error::other(format!("{program}: {line}")))
}

/// A program that copies, and how.
enum Copier {
    /// `poolcp -j N`
    Ours(&'static str),
    Other(Tool),
}

impl Copier {
    fn all() -> Vec<Self> {
        let ours = ["auto", "1", "2"].map(Self::Ours);
        ours.into_iter()
            .chain(Tool::all().map(Self::Other))
            .collect()
    }

    fn is_cp(&self) -> bool {
        matches!(self, Self::Other(tool) if tool.name() == "cp -r")
    }

    fn name(&self) -> String {
        match self {
            Self::Ours(workers) => format!("poolcp -j {workers}"),
            Self::Other(tool) => tool.name(),
        }
    }

    fn command(&self, source: &Path, copy: &Path) -> Command {
        match self {
            Self::Ours(workers) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_poolcp"));
                command.args(["-qr", "-j", workers]).args([source, copy]);
                command
            }
            Self::Other(tool) => tool.command(source, copy),
        }
    }
}
