//! What one can ask of a job, and how it ended.

use std::fmt;
use std::time::Duration;

use crate::units::Ticks;

/// Basic accounting of a job: its members and those of the jobs below it, the dead included.
#[doc(alias = "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounting {
    /// User-mode CPU time of every process ever in the job.
    pub user_time: Ticks,
    /// Kernel-mode CPU time, likewise.
    pub kernel_time: Ticks,
    /// User time since a job-time limit was last set.
    pub period_user_time: Ticks,
    /// Kernel time since then.
    pub period_kernel_time: Ticks,
    /// How many processes were ever in the job, refused ones included.
    pub total_processes: Total,
    /// How many are now; a refused candidate counts until it is dead and its handles are closed.
    /// `None` when the caller did not ask for it.
    pub active_processes: Option<u32>,
    /// How many a limit has ended.
    pub terminated_processes: u32,
}

/// A count that may have missed some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// That many.
    Exact(u64),
    /// That many were seen; others may have come and gone between two looks.
    AtLeast(u64),
}

impl Total {
    /// The number, whatever it is worth.
    #[must_use]
    pub fn count(self) -> u64 {
        match self {
            Self::Exact(count) | Self::AtLeast(count) => count,
        }
    }
}

impl Default for Total {
    fn default() -> Self {
        Self::Exact(0)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(count) => write!(f, "{count}"),
            Self::AtLeast(count) => write!(f, "at least {count}"),
        }
    }
}

/// A limit that a job can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// User CPU time of the whole job.
    JobTime,
    /// Wall-clock time.
    WallTime,
    /// Number of processes.
    ActiveProcesses,
    /// What happens at the last close.
    KillOnClose,
    /// Whether processes may be started outside.
    Breakaway,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JobTime => "CPU time",
            Self::WallTime => "time",
            Self::ActiveProcesses => "processes",
            Self::KillOnClose => "kill on close",
            Self::Breakaway => "breakaway",
        })
    }
}

/// Who asked for a termination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Actor {
    /// Its process id.
    pub pid: u32,
}

/// Why a job's members are gone. Recorded before the deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EndReason {
    /// They left by themselves, or for a reason that was not ours.
    #[default]
    Exited,
    /// Somebody terminated or stopped the job.
    Terminated {
        /// The exit code given.
        code: u32,
        /// By whom.
        by: Actor,
    },
    /// A limit struck.
    Limit(LimitKind),
    /// The last handle of a kill-on-close job was closed.
    OwnerClosed,
}

/// What a stop took: how many members needed which means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StopTally {
    /// How many members were sent the stop signal.
    pub signaled: u32,
    /// How many of them were gone before the grace was over.
    pub left: u32,
    /// How many members had to be killed.
    pub killed: u32,
}

/// How well this place keeps a limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// Always.
    Exact,
    /// Nearly: the text says what can go wrong.
    Approximate(String),
    /// Not at all: the text says why.
    Unavailable(String),
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Approximate(why) => write!(f, "approximate: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

/// CPU time, user and kernel mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CpuTimes {
    /// In user mode.
    pub user: Ticks,
    /// In kernel mode.
    pub kernel: Ticks,
}

impl CpuTimes {
    /// The sum, part by part.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { user: self.user.plus(other.user), kernel: self.kernel.plus(other.kernel) }
    }

    /// The difference, part by part, never below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { user: self.user.minus(other.user), kernel: self.kernel.minus(other.kernel) }
    }

    /// From durations.
    #[must_use]
    pub fn from_durations(user: Duration, kernel: Duration) -> Self {
        Self { user: Ticks::from_duration(user), kernel: Ticks::from_duration(kernel) }
    }
}
