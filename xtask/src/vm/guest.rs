//! What runs in the guest, and what it tells us: a shell script as process 1, which says on the
//! second serial line what it is about to do and how it ended, between the output of the tests.
//!
//! The first serial line is the kernel's alone: a message of the kernel in the middle of a test's
//! line would make both unreadable.

use std::time::{Duration, Instant};

use crate::tally::Tally;

/// Begins a line that is ours, not a test's.
const MARK: &str = "@guest@ ";

/// One program to run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// What we call it; no spaces.
    pub label: String,
    pub dir: String,
    pub words: Vec<String>,
}

/// The guest's process 1. Everything that it uses is a builtin of the shell, or rare: a process
/// takes tens of milliseconds to start there.
pub(crate) fn init(runs: &[Run], environment: &[(String, String)]) -> String {
    let exports =
        environment.iter().map(|(name, value)| format!("export {name}={}\n", quote(value)));
    let runs = runs.iter().map(|run| {
        let words = run.words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        format!("run {} {} {words}\n", quote(&run.label), quote(&run.dir))
    });
    let calls = exports.chain(runs).collect::<String>();
    INIT.replace("@MARK@", MARK.trim_end()).replace("@CALLS@\n", &calls)
}

const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root USER=root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/shm /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin; ln -s /proc/self/fd/1 /dev/stdout; ln -s /proc/self/fd/2 /dev/stderr
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
mount -t securityfs security /sys/kernel/security
mount -t tracefs trace /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 -o nsdelegate cgroup /sys/fs/cgroup
read -r controllers </sys/fs/cgroup/cgroup.controllers
for controller in $controllers; do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
chmod 755 /
ip link set lo up
hostname guest
stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1

# A line of ours begins on a line of its own, wherever a test's output stopped.
say() { printf '\n@MARK@ %s\n' "$*"; }

# Processes of programs that are neither process 1 nor the kernel's, which have no command line.
others() {
  found=
  for process in /proc/[0-9]*; do
    [ "$process" != /proc/1 ] || continue
    line=; read -r line <"$process/cmdline"; [ -n "$line" ] || continue
    name=; read -r name <"$process/comm" && found="$found $name(${process#/proc/})"
  done 2>/dev/null
}
groups() { found=; for group in /sys/fs/cgroup/*/; do [ ! -d "$group" ] || found="$found $group"; done; }

# No test begins with what an earlier one left. An end that is merely late is waited for.
sweep() {
  others; left=$found; groups; left=$left$found
  [ -n "$left" ] || return 0
  sleep 1
  others; [ -z "$found" ] || say "left$found"
  kill -KILL -1
  groups; [ -z "$found" ] || say "left$found"
  try=0
  while groups; [ -n "$found" ] && [ $try -lt 50 ]; do
    find /sys/fs/cgroup -mindepth 1 -depth -type d -exec rmdir {} \; 2>/dev/null; try=$((try + 1))
  done
}

# In a session of its own, so that what a test does to its session or group stays there.
run() {
  label=$1; dir=$2; shift 2
  say "begin $label"
  (cd "$dir" && CARGO_MANIFEST_DIR=$dir exec setsid "$@")
  say "end $? $label"
  sweep
}

read -r _ _ release _ </proc/version
say "up $release"
@CALLS@
say "done"
# Closing the line waits until all of it is sent.
exec >/dev/console 2>&1
poweroff -f
"#;

/// A word that the shell reads as itself.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How one program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub label: String,
    /// As a shell tells it: 128 and the signal's number for one that was killed.
    pub status: i32,
    pub tally: Tally,
    pub took: Duration,
}

/// What a guest has said so far.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// The kernel's release, once the guest was up.
    pub release: Option<String>,
    pub ended: Vec<Ended>,
    /// Whether everything was run to its end.
    pub done: bool,
    running: Option<Running>,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Running {
    label: String,
    since: Instant,
    tally: Tally,
}

impl Transcript {
    /// Takes what arrived; gives back the lines for people.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut shown = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.take(line, &mut shown);
            } else {
                self.line.push(byte);
            }
        }
        shown
    }

    /// Empty lines are not shown: most of them are there only to begin a mark on a line of its own.
    fn take(&mut self, line: String, shown: &mut Vec<String>) {
        if let Some(mark) = line.strip_prefix(MARK) {
            shown.extend(self.mark(mark));
        } else if !line.is_empty() {
            if let (Some(running), Some(tally)) = (&mut self.running, Tally::of_line(&line)) {
                // The last one is its own; before that, a test may have started it as a helper.
                running.tally = tally;
            }
            shown.push(line);
        }
    }

    fn mark(&mut self, mark: &str) -> Option<String> {
        let (word, rest) = mark.split_once(' ').unwrap_or((mark, ""));
        match word {
            "up" => {
                self.release = Some(rest.to_owned());
                Some(format!("up: Linux {rest}"))
            }
            "begin" => {
                self.running = Some(Running {
                    label: rest.to_owned(),
                    since: Instant::now(),
                    tally: Tally::default(),
                });
                Some(format!("--- {rest}"))
            }
            "end" => self.end(rest),
            "left" => Some(format!("note: it left behind: {}", beginning(rest))),
            "done" => {
                self.done = true;
                None
            }
            _ => Some(format!("(unknown mark: {mark})")),
        }
    }

    fn end(&mut self, rest: &str) -> Option<String> {
        let running = self.running.take()?;
        let status = rest.split_once(' ')?.0.parse().ok()?;
        let tally = if status == 0 { running.tally } else { running.tally.of_failed_run() };
        let took = running.since.elapsed();
        self.ended.push(Ended { label: running.label, status, tally, took });
        (status != 0).then(|| format!("*** ended with status {status}{}", signal(status)))
    }

    /// Whether any program was started.
    pub(crate) fn has_begun(&self) -> bool {
        self.running.is_some() || !self.ended.is_empty()
    }

    /// What is running now, and the line that it has not finished: libtest, on one thread, writes
    /// a test's name before it runs it.
    pub(crate) fn at(&self) -> String {
        let unfinished = String::from_utf8_lossy(&self.line);
        let unfinished = unfinished.trim().trim_end_matches("...").trim_end();
        match &self.running {
            Some(running) if unfinished.is_empty() => format!("in {}", running.label),
            Some(running) => format!("in {}, at `{unfinished}`", running.label),
            None if self.release.is_none() => "while it booted".to_owned(),
            None => "between two programs".to_owned(),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.ended.iter().for_each(|ended| sum += ended.tally);
        self.running.iter().for_each(|running| sum += running.tally.of_failed_run());
        sum
    }
}

/// Enough of a list that can have thousands of members.
fn beginning(list: &str) -> String {
    const MEMBERS: usize = 8;
    let members = list.split(' ').collect::<Vec<_>>();
    match members.len().checked_sub(MEMBERS) {
        None | Some(0) => list.to_owned(),
        Some(more) => format!("{} and {more} more", members[..MEMBERS].join(" ")),
    }
}

/// What a shell's status says of a signal.
fn signal(status: i32) -> String {
    match status {
        101 => " (a test failed, or it panicked)".to_owned(),
        126 | 127 => " (it could not be executed)".to_owned(),
        129..=192 => format!(" (killed by signal {})", status - 128),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(transcript: &mut Transcript, text: &str) -> Vec<String> {
        transcript.feed(text.as_bytes())
    }

    #[test]
    fn marks_become_results_and_the_rest_passes_through() {
        let mut transcript = Transcript::default();
        told(&mut transcript, "\n@guest@ up 6.1.0\n\n@guest@ begin a/lib\n\nrunning 1 test\n");
        let shown = told(
            &mut transcript,
            "test x ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n\n",
        );
        assert_eq!(shown.len(), 2, "{shown:?}");
        told(&mut transcript, "\n@guest@ end 0 a/lib\n\n@guest@ done\n");
        assert_eq!(transcript.release.as_deref(), Some("6.1.0"));
        assert_eq!(transcript.tally(), Tally { passed: 1, failed: 0, skipped: 0 });
        assert!(transcript.done && transcript.ended[0].status == 0);
    }

    #[test]
    fn a_mark_is_seen_after_an_unfinished_line() {
        let mut transcript = Transcript::default();
        told(&mut transcript, "\n@guest@ begin a\ntest x ... \n@guest@ end 137 a\n");
        assert_eq!((transcript.ended[0].status, transcript.tally().failed), (137, 1));
    }

    #[test]
    fn a_guest_that_hangs_is_known_by_the_test_that_it_hangs_in() {
        let mut transcript = Transcript::default();
        assert_eq!(transcript.at(), "while it booted");
        told(&mut transcript, "\n@guest@ begin a/lib\ntest x::hangs ... ");
        assert_eq!(transcript.at(), "in a/lib, at `test x::hangs`");
        assert_eq!(transcript.tally().failed, 1);
    }

    #[test]
    fn words_reach_the_program_as_they_were() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
