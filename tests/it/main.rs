//! The binary, against a real filesystem and the tools it replaces.
//!
//! Nearly every test runs `poolcp` as a process, on files of its own in a temporary directory. What is expected comes from two
//! places: the source itself (a copy with `-a` is the same as its source in everything a [`snapshot`] has), and the
//! system's own `cp`, run with the same words on a twin of the same files. What this machine cannot show is skipped by
//! name on standard error: see `needs!`.
//!
//! | module | what it is about |
//! |---|---|
//! | `harness` | a sandbox with builders |
//! | `programs` | running programs in it |
//! | `needs` | what a test may need and the machine may lack |
//! | `disks` | mounts, disks in files, loop devices |
//! | `referees` | twins for `cp`, rsync's opinion |
//! | `random_tree` | what may be in a tree, made up |
//! | `snapshot` | all facts about a tree, and readable differences between two |
//! | `kinds` | every kind of entry, name and size |
//! | `metadata` | modes, owners, times, extended attributes, ACLs |
//! | `destination` | where the copy goes, what it may replace, and who is refused |
//! | `replacing` | what is there already: questions, updates, backups, removal |
//! | `command_line` | spellings, complaints, and the options that make something other than a plain copy |
//! | `errors` | what goes wrong: how it is told, and what is left behind |
//! | `library` | observers and plans, without the program |
//! | `interrupted` | copies that are killed or stopped, and what the next one makes of it |
//! | `strange` | filesystems that are slow, or answer in unusual ways that the rules allow |
//! | `passthrough` | such filesystems (FUSE) |
//! | `devices` | crashes of the machine, devices that break or fill up, disks that seek |
//! | `arm` | such disks |
//! | `attacker` | somebody swaps names while they are copied |
//! | `faults` | every system call fails, one at a time |
//! | `scale` | depth, width, many workers, few descriptors, no /proc |
//! | `shells` | completions, in the shells that they are for, and the manual page |
//! | `mirror` | `--delete`, `--update=changed` and `--dry-run`, beside rsync |
//! | `selection` | which entries are left out, beside git |
//! | `limits` | how fast data moves, and with what priority |
//! | `surroundings` | limits, closed streams, no permission, what vanishes |
//! | `report` | what is shown: the report as text and as JSON, `-v`, quiet as `cp` |
//! | `terminal` | what is seen at a terminal: the live view, and what is left of it |
//! | `trees` | random trees, copied, merged, compared; a failure shrinks to the smallest tree |
//! | `differential` | random command lines on random files: poolcp and `cp` do and say the same |

#[macro_use]
mod needs;
mod disks;
mod harness;
mod programs;
mod random_tree;
mod referees;
mod snapshot;

mod arm;
mod attacker;
mod command_line;
mod destination;
mod devices;
mod differential;
mod errors;
mod faults;
mod interrupted;
mod kinds;
mod library;
mod limits;
mod metadata;
mod mirror;
// What only the benches use of it.
#[allow(dead_code)]
mod passthrough;
mod replacing;
mod report;
mod scale;
mod selection;
mod shells;
mod strange;
mod surroundings;
mod terminal;
mod trees;
