//! How a job ended.

use std::process::ExitStatus;

use jobobject_abi::{Accounting, EndReason, StopTally};

/// How a job ended: why its members are gone, and what they used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Why: recorded before the deed.
    pub reason: EndReason,
    /// How the first process that was spawned into the job ended. `None` when none was.
    pub leader: Option<LeaderEnd>,
    /// What all members used, the dead included.
    pub accounting: Accounting,
    /// Members that were still there when the leader had ended, as far as this wait saw them.
    pub leftover: Vec<Leftover>,
    /// What a stop took; all zero when there was none.
    pub stop: StopTally,
    /// How many processes were ended because they exceeded the active-process limit.
    pub over_limit: u32,
}

/// How the first process of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderEnd {
    /// Its exit status, as the kernel gives it.
    Status(ExitStatus),
    /// It ended, and another part of this process took its status.
    Taken,
}

impl LeaderEnd {
    /// The status, when it is known.
    #[must_use]
    pub fn status(self) -> Option<ExitStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::Taken => None,
        }
    }
}

/// A process that outlived the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its id, which may be another's by the time it is read.
    pub pid: u32,
    /// Its command name, empty when it was gone before that could be read.
    pub command: String,
}
