//! Who says whether a copy is right: `cp` on a twin of the same files, and rsync.

use std::path::Path;
use std::process::Command;

use crate::harness::Sandbox;
use crate::programs::{Call, Run};

/// Runs each command line (words between spaces) with `cp` and with poolcp, each time on twins of what `setup` makes:
/// exit code, messages, output and everything that is there afterwards must agree.
#[track_caller]
pub fn same_as_cp(setup: impl Fn(&Sandbox), lines: &[&str]) {
    same_as_cp_when(setup, lines, |call| call);
}

/// The same, with limits or as another user.
#[track_caller]
pub fn same_as_cp_when(setup: impl Fn(&Sandbox), lines: &[&str], when: impl Fn(Call) -> Call) {
    let disagree = |line: &&str| disagreement(&setup, line, &when);
    let disagreements: Vec<String> = lines.iter().filter_map(disagree).collect();
    assert!(disagreements.is_empty(), "\n{}", disagreements.join("\n"));
}

fn disagreement(
    setup: impl Fn(&Sandbox),
    line: &str,
    when: impl Fn(Call) -> Call,
) -> Option<String> {
    let twins = [Sandbox::new(), Sandbox::new()];
    let [ours, theirs] = &twins;
    twins.iter().for_each(setup);
    let args = line.split(' ');
    let expected = when(theirs.cp(args.clone())).run();
    let run = when(ours.poolcp(args)).run();
    let mut text = String::new();
    let told = |run: &Run| (run.code, sorted(&run.stderr), sorted(&run.stdout));
    if told(&run) != told(&expected) {
        text = format!(
            "  cp:     {:?}\n  poolcp: {:?}\n",
            told(&expected),
            told(&run)
        );
    }
    if let Some(difference) = theirs.snapshot().difference(&ours.snapshot()) {
        let difference: String = difference
            .lines()
            .map(|line| format!("  {line}\n"))
            .collect();
        text += &difference;
    }
    (!text.is_empty()).then(|| format!("cp {line}\n{text}"))
}

/// Lines as a set; the workers' order is not `cp`'s.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.replace("poolcp", "cp"))
        .collect();
    lines.sort_unstable();
    lines
}

/// Asks rsync whether it would change anything to make `copy` the same as `source`, by content.
#[track_caller]
pub fn assert_rsync_agrees(source: &Path, copy: &Path) {
    let text = changes_by_rsync(source, copy);
    assert!(text.is_empty(), "rsync would change:\n{text}");
}

/// What rsync would change to make `copy` the same as `source`, by content.
#[track_caller]
pub fn changes_by_rsync(source: &Path, copy: &Path) -> String {
    let with_slash = |path: &Path| {
        let mut text = path.as_os_str().to_owned();
        text.push("/");
        text
    };
    let out = Command::new("rsync")
        .args(["-aHAXni", "--delete", "--checksum"])
        .args([with_slash(source), with_slash(copy)])
        .output()
        .expect("run rsync");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{out:?}");
    text.into_owned()
}
