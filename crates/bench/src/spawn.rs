//! A process in a job that exists, from parents of any size, against `std`'s in no job.

use jobobject::{Command, Job};

use crate::sample::{Effort, compare, report};
use crate::{CHILD, Result};

/// From a parent with `mib` MiB resident.
pub(crate) fn spawn(effort: Effort, mib: usize) -> Result {
    // Written to, so that it is there; small pages and large ones as the machine sees fit.
    let ballast = vec![1_u8; mib << 20];
    let job = Job::new()?;
    let ours = || {
        let status = Command::new(CHILD).spawn_in(&job).and_then(|mut child| child.wait());
        assert!(status.is_ok_and(|status| status.success()));
    };
    let theirs = || {
        let status = std::process::Command::new(CHILD).spawn().and_then(|mut child| child.wait());
        assert!(status.is_ok_and(|status| status.success()));
    };
    let (ours, theirs) = compare(effort.rounds(100), ours, theirs);
    report(&format!("spawn {mib}"), ours, Some(theirs));
    std::hint::black_box(ballast);
    Ok(())
}
