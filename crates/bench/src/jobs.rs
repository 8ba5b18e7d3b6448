//! A job per command, and jobs that nobody uses.

use std::time::{Duration, Instant};

use jobobject::{Command, Job};

use crate::sample::{Effort, each, median, report};
use crate::{CHILD, Result};

/// How many cycles a worker makes before it is the other side's turn.
const TURN: u32 = 100;
/// How many jobs exist at once for the cold figure: so many more than any pool has groups.
const COLD: u32 = 128;

/// Create, spawn, wait, close, in so many threads, against `std`'s spawn and wait.
pub(crate) fn jobs(effort: Effort, workers: u32) -> Result {
    let (mut child, mut whole, mut cold, mut plain) = (vec![], vec![], vec![], vec![]);
    started(&Job::new()?); // The guardian, the root, the pool.
    for _ in 0..effort.rounds(40) {
        plain.push(together(workers, || (0..TURN).for_each(|_| std_cycle())));
        child.push(together(workers, || (0..TURN).for_each(|_| cycle())));
        plain.push(together(workers, || (0..TURN).for_each(|_| std_cycle())));
        whole.push(together(workers, || (0..TURN).for_each(|_| cycle_with_end())));
        plain.push(together(workers, || (0..TURN).for_each(|_| std_cycle())));
        cold.push(together(workers, cold_cycles) * TURN / COLD);
    }
    let plain = median(plain) / TURN;
    report(&format!("jobs {workers}"), median(child) / TURN, Some(plain));
    report(&format!("jobs {workers} end"), median(whole) / TURN, Some(plain));
    report(&format!("jobs {workers} cold"), median(cold) / TURN, Some(plain));
    Ok(())
}

fn std_cycle() {
    let status = std::process::Command::new(CHILD).spawn().and_then(|mut child| child.wait());
    assert!(status.is_ok_and(|status| status.success()));
}

fn cycle() {
    let job = Job::new().expect("a job can be made");
    started(&job);
}

fn cycle_with_end() {
    let job = Job::new().expect("a job can be made");
    started(&job);
    let end = job.wait().expect("a job can be waited for");
    assert!(end.leader.is_some());
}

/// Starts the child and waits for it.
fn started(job: &Job) {
    let status = Command::new(CHILD).spawn_in(job).and_then(|mut child| child.wait());
    assert!(status.is_ok_and(|status| status.success()));
}

/// Cycles that overlap, so that most groups have to be made and removed.
fn cold_cycles() {
    let jobs: Vec<Job> = (0..COLD).map(|_| Job::new().expect("a job can be made")).collect();
    for job in &jobs {
        started(job);
    }
}

/// Until all of so many threads have acted.
fn together(workers: u32, act: impl Fn() + Sync) -> Duration {
    std::thread::scope(|scope| {
        let start = Instant::now();
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(&act)).collect();
        act();
        for other in others {
            other.join().expect("a worker does not panic");
        }
        start.elapsed()
    })
}

/// Create and close, and nothing between.
pub(crate) fn unused(effort: Effort) -> Result {
    let took = each(effort.rounds(200_000), || drop(Job::new()));
    report("unused", took, None);
    Ok(())
}

/// Does one thing over and over: to be looked at by `strace` and `perf`.
pub(crate) fn repeat(what: &str, times: u32) -> Result {
    let job = Job::new()?;
    started(&job);
    let act: &dyn Fn() = match what {
        "spawn" => &|| started(&job),
        "std" => &std_cycle,
        "cycle" => &cycle,
        "end" => &cycle_with_end,
        "unused" => &|| drop(Job::new()),
        _ => return Err(format!("nothing called `{what}` can be repeated").into()),
    };
    (0..times).for_each(|_| act());
    Ok(())
}
