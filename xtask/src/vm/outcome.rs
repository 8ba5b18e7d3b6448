//! What came of a kernel, told to people.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::guest::Run;
use super::parts::Kernel;
use super::qemu::{Boot, Ending};
use crate::tally::Tally;

/// What came of one kernel.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub tally: Tally,
    pub took: Duration,
    /// The exit status that tells it: that of the first program that failed, 124 for a machine that
    /// had to be stopped, 125 for one that died.
    pub status: u8,
    /// What went wrong, or what ran, in a line.
    pub summary: String,
}

impl Outcome {
    pub(crate) fn of(boot: &Boot) -> Self {
        let transcript = &boot.transcript;
        let failed = transcript.ended.iter().filter(|ended| ended.status != 0).collect::<Vec<_>>();
        let labels = failed.iter().map(|ended| ended.label.as_str()).collect::<Vec<_>>().join(", ");
        let (status, what) = match (boot.ending, failed.first()) {
            (Ending::PoweredOff, None) => (0, format!("{} programs", transcript.ended.len())),
            (Ending::PoweredOff, Some(first)) => {
                (u8::try_from(first.status).unwrap_or(1), format!("failed: {labels}"))
            }
            (Ending::TimedOut | Ending::Stuck, _) => (124, boot.describe()),
            (Ending::Died(_), _) => (125, boot.describe()),
        };
        let (tally, took) = (transcript.tally(), boot.took);
        let mut summary = format!("{what}; {tally} in {:.1} s", took.as_secs_f64());
        if let Some(release) = &transcript.release {
            summary += &format!(" on {release}");
        }
        Self { tally, took, status, summary }
    }
}

/// How each program ended.
pub(crate) fn print_programs(kernel: &Kernel, boot: &Boot, runs: &[Run]) {
    let row = |label: &str, status: &str, seconds: &str, tests: &str| {
        println!("[{}] {label:40} {status:>6} {seconds:>8}  {tests}", kernel.series);
    };
    row("program", "status", "seconds", "tests");
    for ended in &boot.transcript.ended {
        let (status, seconds) = (ended.status.to_string(), ended.took.as_secs_f64());
        row(&ended.label, &status, &format!("{seconds:.1}"), &ended.tally.to_string());
    }
    for run in &runs[boot.transcript.ended.len().min(runs.len())..] {
        row(&run.label, "-", "-", "did not run to its end");
    }
}

/// What there is to know of a machine that did not switch itself off.
pub(crate) fn print_accident(kernel: &Kernel, boot: &Boot, log: &Path) {
    const LINES: usize = 40;
    let series = &kernel.series;
    println!("[{series}] *** It {}.", boot.describe());
    println!("[{series}] *** The end of the kernel's log, {}:", log.display());
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines = said.lines().collect::<Vec<_>>();
    let end = &lines[lines.len().saturating_sub(LINES)..];
    end.iter().for_each(|line| println!("[{series}] | {}", line.trim_end()));
}
