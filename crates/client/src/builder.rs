//! Making a job with limits.

use std::sync::Arc;
use std::time::Duration;

use jobobject_abi::{EndOfJobAction, JobTime, LimitKind, Limits, OnLimit, Ticks};
use jobobject_engine::Engine;

use crate::error::{Error, Result};
use crate::job::Job;

/// Whether members may start processes outside the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Breakaway {
    /// Nothing leaves.
    #[default]
    Denied,
    /// A spawn that asks for it leaves.
    #[doc(alias = "JOB_OBJECT_LIMIT_BREAKAWAY_OK")]
    Allowed,
    /// Every spawn leaves.
    #[doc(alias = "JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK")]
    Silent,
}

/// A job to be made: its limits.
///
/// ```no_run
/// # use std::time::Duration;
/// let job = jobobject::Job::builder()
///     .time(Duration::from_secs(60))
///     .cpu_time(Duration::from_secs(10))
///     .processes(64)
///     .create()?;
/// # Ok::<(), jobobject::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `create`"]
pub struct Builder {
    limits: Limits,
    best_effort: bool,
    engine: Option<Arc<Engine>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A job that ends its members when its last handle closes, and has no other limit.
    pub fn new() -> Self {
        let limits = Limits { kill_on_close: true, ..Limits::default() };
        Self { limits, best_effort: false, engine: None }
    }

    /// Whether closing the last handle, or the death of this process in whatever way, ends the
    /// members. On by default here; a job that Windows makes starts without.
    #[doc(alias = "JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE")]
    pub fn kill_on_close(mut self, kill: bool) -> Self {
        self.limits.kill_on_close = kill;
        self
    }

    /// At most so many processes (not threads) at a time, those of nested jobs included.
    #[doc(alias = "JOB_OBJECT_LIMIT_ACTIVE_PROCESS")]
    pub fn processes(mut self, limit: u32) -> Self {
        self.limits.active_processes = Some(limit);
        self
    }

    /// At most so much user-mode CPU time, all members together, the dead included.
    #[doc(alias = "JOB_OBJECT_LIMIT_JOB_TIME")]
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.limits.job_time = JobTime::Limit(Ticks::from_duration(limit));
        self
    }

    /// What happens when the CPU time is used up.
    #[doc(alias = "JOBOBJECT_END_OF_JOB_TIME_INFORMATION")]
    pub fn end_of_job(mut self, action: EndOfJobAction) -> Self {
        self.limits.end_of_job = action;
        self
    }

    /// At most so much wall-clock time from the first member's entry. Windows has no such limit.
    pub fn time(mut self, limit: Duration) -> Self {
        self.limits.wall_time = Some(limit);
        self
    }

    /// Time limits ask the members to leave with `signal`, and kill what has not left after `grace`.
    /// Without this they kill at once, as Windows does.
    pub fn grace(mut self, signal: i32, grace: Duration) -> Self {
        self.limits.on_limit = OnLimit::Stop { signal, grace };
        self
    }

    /// Whether members may start processes outside.
    pub fn breakaway(mut self, breakaway: Breakaway) -> Self {
        self.limits.breakaway_ok = breakaway == Breakaway::Allowed;
        self.limits.silent_breakaway_ok = breakaway == Breakaway::Silent;
        self
    }

    /// Go on without limits that cannot be kept here. [`Job::enforcement`] tells which those are.
    pub fn best_effort(mut self, best_effort: bool) -> Self {
        self.best_effort = best_effort;
        self
    }

    /// All limits at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// An engine other than the one this process shares: for hosts that drive deadlines themselves.
    #[doc(hidden)]
    pub fn engine(mut self, engine: Arc<Engine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Makes the job. Nothing is asked of the kernel before its first member comes, but for what a
    /// limit needs to be told whether it can be kept.
    ///
    /// # Errors
    /// A value that no limit can have; a limit that cannot be kept here, unless best effort will do.
    #[doc(alias = "CreateJobObject")]
    pub fn create(self) -> Result<Job> {
        let engine = match self.engine {
            Some(engine) => engine,
            None => Engine::of_this_process()?,
        };
        let mut limits = self.limits;
        for (limit, why) in engine.unavailable(&limits) {
            if !self.best_effort {
                return Err(Error::unenforceable(limit, why));
            }
            clear(&mut limits, limit);
        }
        Job::create(engine, limits, None)
    }
}

/// Takes a limit off.
fn clear(limits: &mut Limits, limit: LimitKind) {
    match limit {
        LimitKind::JobTime => limits.job_time = JobTime::Unlimited,
        LimitKind::WallTime => limits.wall_time = None,
        LimitKind::ActiveProcesses => limits.active_processes = None,
        LimitKind::KillOnClose => limits.kill_on_close = false,
        LimitKind::Breakaway => {
            limits.breakaway_ok = false;
            limits.silent_breakaway_ok = false;
        }
    }
}
