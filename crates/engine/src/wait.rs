//! Waiting until nobody is left in a job.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobobject_abi::Handle;
use jobobject_core::GroupKey;
use jobobject_linux::EmptyWatch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::engine::{Drive, Engine};
use crate::error::Error;

/// How soon to look again while somebody is on the way into the job: a birth takes tens of
/// microseconds, an assignment at most some milliseconds.
const NEWCOMER: Duration = Duration::from_millis(1);

/// A wait for the end of a job's last member, for callers with and without an event loop.
///
/// Holds descriptors while it exists: the end of a member is seen by its pidfd.
#[derive(Debug)]
pub struct Wait {
    engine: Arc<Engine>,
    job: Handle,
    watch: Option<(GroupKey, EmptyWatch)>,
    newcomers: bool,
}

impl Wait {
    /// A wait for `job`, a handle of `engine` with the right to query.
    #[must_use]
    pub fn new(engine: Arc<Engine>, job: Handle) -> Self {
        Self { engine, job, watch: None, newcomers: false }
    }

    /// Looks whether nobody is left, or ever was. To be called at first, whenever
    /// [`Wait::fd`] is readable, and after [`Wait::recheck_after`].
    ///
    /// # Errors
    /// A bad handle, or a fault of the kernel.
    pub fn check(&mut self) -> Result<bool, Error> {
        loop {
            let (job, group, commits) = self.engine.job_and_group(self.job)?;
            self.newcomers = commits.is_none();
            let Some(commits) = commits else { return Ok(false) };
            let Some(group) = group else { return Ok(true) };
            if !self.look(group)? {
                return Ok(false);
            }
            if self.engine.found_empty(job, group, commits) {
                return Ok(true);
            }
        }
    }

    /// Whether nobody is in the group. What it takes to hear of that later is set up only if
    /// somebody is.
    fn look(&mut self, group: GroupKey) -> Result<bool, Error> {
        let platform = self.engine.platform();
        loop {
            let mut watch = match self.watch.take() {
                Some((watched, watch)) if watched == group => watch,
                _ if platform.is_empty(group)? => return Ok(true),
                _ => platform.watch(group)?,
            };
            let empty = watch.check()?;
            if watch.guardian_fell() && !empty {
                // A wait may be long, and the owner may die meanwhile.
                platform.renew_guardian(group);
                continue;
            }
            self.watch = Some((group, watch));
            return Ok(empty);
        }
    }

    /// Readable when [`Wait::check`] may have something new to say. `None` before the first check,
    /// and while the job has no group.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|(_, watch)| watch.as_fd())
    }

    /// How soon to check again even if nothing was readable. `None`: no need.
    #[must_use]
    pub fn recheck_after(&self) -> Option<Duration> {
        if self.newcomers {
            return Some(NEWCOMER);
        }
        self.watch.as_ref().and_then(|(_, watch)| watch.recheck_after())
    }

    /// Waits until nobody is left, or until `deadline`. False when the time was over first.
    ///
    /// # Errors
    /// As [`Wait::check`].
    pub fn block(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        loop {
            if self.check()? {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            self.sleep(deadline);
        }
    }

    /// Sleeps until a check is worth it, or until `deadline`.
    pub fn sleep(&self, deadline: Option<Instant>) {
        let timeout = self.timeout(deadline);
        match self.fd() {
            Some(fd) => wait_readable(fd, timeout),
            None => self.engine.pause(timeout.unwrap_or(NEWCOMER)),
        }
        self.run_due();
    }

    /// How long a sleep of the caller's own may take that is to end by `deadline`.
    #[must_use]
    pub fn timeout(&self, deadline: Option<Instant>) -> Option<Duration> {
        let by_caller = self.engine.drive() == Drive::Caller;
        let due = if by_caller { self.engine.next_deadline() } else { None };
        let until = [deadline, due].into_iter().flatten().min();
        let until = until.map(|until| until.saturating_duration_since(Instant::now()));
        [until, self.recheck_after()].into_iter().flatten().min()
    }

    /// Does what is due, when that is the caller's to do.
    pub fn run_due(&self) {
        if self.engine.drive() == Drive::Caller {
            self.engine.run_due();
        }
    }
}

/// Waits until `fd` is readable, at most `timeout`; an interruption is as good as news.
fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref());
}
