//! Accounting: the times alone, and with the active count.

use jobobject::Job;

use crate::Result;
use crate::sample::{Effort, each, report};
use crate::terminate::sleepers;

/// Of a job with so many members.
pub(crate) fn account(effort: Effort, members: usize) -> Result {
    let job = Job::new()?;
    let mut children = sleepers(&job, members)?;
    let times = each(effort.rounds(40_000), || assert!(job.times().is_ok()));
    report(&format!("times {members}"), times, None);
    let counted = each(effort.rounds(8_000), || assert!(job.accounting().is_ok()));
    report(&format!("accounting {members}"), counted, None);
    job.terminate(1)?;
    for child in &mut children {
        child.wait()?;
    }
    Ok(())
}
