//! The limits one can set on a job.
//!
//! [`Limits`] is what a job is asked to keep; what binds a process is the combination along its job
//! chain. A set replaces all of them, as on Windows; [`JobTime::Keep`] is the exception that
//! Windows makes too.

use std::time::Duration;

use crate::units::Ticks;

/// All limits of one job. The default is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Closing the last handle ends every member of the job and of the jobs below it.
    #[doc(alias = "JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE")]
    pub kill_on_close: bool,
    /// A member may start a process outside the job when it asks for that.
    #[doc(alias = "JOB_OBJECT_LIMIT_BREAKAWAY_OK")]
    pub breakaway_ok: bool,
    /// Whatever a member starts is outside the job, without asking.
    #[doc(alias = "JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK")]
    pub silent_breakaway_ok: bool,
    /// How many processes (not threads) the job and the jobs below it may have at a time. Gates
    /// newcomers; nobody is ended when it is set below the present count.
    #[doc(alias = "JOB_OBJECT_LIMIT_ACTIVE_PROCESS")]
    pub active_processes: Option<u32>,
    /// User-mode CPU time of all members together, the dead included.
    #[doc(alias = "JOB_OBJECT_LIMIT_JOB_TIME")]
    pub job_time: JobTime,
    /// What happens when `job_time` is used up.
    #[doc(alias = "JOBOBJECT_END_OF_JOB_TIME_INFORMATION")]
    pub end_of_job: EndOfJobAction,
    /// Wall-clock time, counted from the first member's entry, or from the set when there already
    /// is one. Windows has no such limit.
    pub wall_time: Option<Duration>,
    /// How a time limit ends the members. Windows kills.
    pub on_limit: OnLimit,
}

/// What a set says of the job-time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobTime {
    /// There is none (any longer).
    #[default]
    Unlimited,
    /// So much from now on: the period begins anew, and a used-up time is forgiven.
    Limit(Ticks),
    /// As it was, its period too.
    #[doc(alias = "JOB_OBJECT_LIMIT_PRESERVE_JOB_TIME")]
    Keep,
}

impl JobTime {
    /// The limit of a job that had none before: there is nothing to keep.
    #[must_use]
    pub fn or_unlimited(self) -> Self {
        self.over(Self::Unlimited)
    }

    /// What is in force when this is set over `old`.
    #[must_use]
    pub fn over(self, old: Self) -> Self {
        match self {
            Self::Keep => old,
            set => set,
        }
    }
}

/// What happens at the end of the job time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndOfJobAction {
    /// Every member is ended, and newcomers are refused until the limit is set again.
    #[doc(alias = "JOB_OBJECT_TERMINATE_AT_END_OF_JOB")]
    #[default]
    Terminate,
    /// A completion port is told, the limit is cleared, the members go on. A job without a port is
    /// terminated.
    #[doc(alias = "JOB_OBJECT_POST_AT_END_OF_JOB")]
    Post,
}

/// How a time limit that ends the job does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLimit {
    /// At once, as Windows does.
    #[default]
    Kill,
    /// The signal to every member first, and the kill after `grace`.
    Stop {
        /// The signal's number.
        signal: i32,
        /// How long members may take to leave.
        grace: Duration,
    },
}
