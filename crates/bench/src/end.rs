//! From a job's last exit to the return of `Job::wait`, against a thread that polls the pidfd.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jobobject::{Command, Job};
use rustix::event::{PollFd, PollFlags, poll};

use crate::sample::{Effort, median, report};
use crate::{CHILD, Result};

/// The kernel tells of an empty group at most once in 10 ms: for a younger job that would be late.
const FRESH: Duration = Duration::from_millis(2);
const OLD: Duration = Duration::from_millis(25);

pub(crate) fn end(effort: Effort) -> Result {
    for (name, age) in [("end fresh", FRESH), ("end old", OLD)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..effort.rounds(240) {
            for side in [round % 2, (round + 1) % 2] {
                let times = if side == 0 { &mut ours } else { &mut theirs };
                times.push(told(age, side == 0)?);
            }
        }
        report(name, median(ours), Some(median(theirs)));
    }
    Ok(())
}

/// From the kill of the only member until a thread that waits for it has heard.
fn told(age: Duration, by_job: bool) -> Result<Duration> {
    let job = Job::new()?;
    let mut child = Command::new(CHILD).arg("sleep").spawn_in(&job)?;
    let pidfd = child.as_fd().try_clone_to_owned()?;
    let (heard, hear) = mpsc::channel();
    let waited_for = job.clone();
    let waiter = std::thread::spawn(move || {
        if by_job {
            waited_for.wait().expect("a job can be waited for");
        } else {
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("a pidfd can be polled");
        }
        let _ = heard.send(Instant::now());
    });
    std::thread::sleep(age);
    let start = Instant::now();
    child.kill()?;
    let took = hear.recv()?.duration_since(start);
    waiter.join().map_err(|_| "the waiter panicked")?;
    child.wait()?;
    Ok(took)
}
