//! The command `job run`, from the outside.

use std::fs;
use std::process::{Command, Stdio};

use crate::Result;
use crate::sample::{Effort, compare, report, report_number};

/// `job run true` against `timeout 5 true`, for the binary we ship and the plain build.
pub(crate) fn run(effort: Effort, shipped: &str, plain: &str) -> Result {
    for (name, job) in [("run shipped", shipped), ("run plain", plain)] {
        let ours = || ends_well(Command::new(job).args(["run", "true"]));
        let theirs = || ends_well(Command::new("timeout").args(["5", "true"]));
        ours();
        let (ours, theirs) = compare(effort.rounds(40), ours, theirs);
        report(name, ours, Some(theirs));
    }
    Ok(())
}

fn ends_well(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}

/// The most memory that `job run` ever had, in bytes.
///
/// Looked up while it runs, again and again: what `wait4` tells of a process is never less than what the
/// process had that started it.
pub(crate) fn memory(effort: Effort, job: &str) -> Result {
    let mut peak = 0;
    for _ in 0..effort.rounds(16) {
        let mut run = Command::new(job).args(["run", "sleep", "0.05"]).spawn()?;
        let status = format!("/proc/{}/status", run.id());
        while let Some(now) = peak_kib(&fs::read_to_string(&status)?) {
            peak = peak.max(now);
        }
        if !run.wait()?.success() {
            return Err(format!("{job} run: failed").into());
        }
    }
    report_number("memory", f64::from(peak) * 1024.0, None);
    Ok(())
}

/// Absent once the memory is gone.
fn peak_kib(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
