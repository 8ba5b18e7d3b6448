//! Every operation a client may ask for, and what it gets back.

use std::time::Duration;

use crate::access::Access;
use crate::info::{Accounting, Actor, EndReason, StopTally};
use crate::limits::Limits;
use crate::units::Handle;

/// An operation on jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Makes a job: no members, accounting zero, nonsignaled. [`Reply::Handle`] with all rights.
    #[doc(alias = "CreateJobObject")]
    Create {
        /// Its first limits.
        limits: Limits,
    },
    /// Makes a second handle to the same job. [`Reply::Handle`].
    #[doc(alias = "DuplicateHandle")]
    Duplicate {
        /// The handle to copy.
        job: Handle,
        /// The rights of the copy: no more than the original has.
        access: Access,
    },
    /// Closes a handle; the last one ends the members of a kill-on-close job.
    #[doc(alias = "CloseHandle")]
    Close {
        /// The handle.
        job: Handle,
    },
    /// Replaces the limits.
    #[doc(alias = "SetInformationJobObject")]
    SetLimits {
        /// The job.
        job: Handle,
        /// All of its limits.
        limits: Limits,
    },
    /// The limits as they were set. [`Reply::Limits`].
    #[doc(alias = "QueryInformationJobObject")]
    QueryLimits {
        /// The job; `None` is the caller's own immediate job.
        job: Option<Handle>,
    },
    /// Starts a process: inside the caller's own jobs less those it breaks away from, and then in
    /// `jobs`, listed outer to inner. [`Reply::Spawned`].
    #[doc(alias = "CreateProcess")]
    #[doc(alias = "PROC_THREAD_ATTRIBUTE_JOB_LIST")]
    Spawn {
        /// Jobs to be in, over and above the inherited ones.
        jobs: Vec<Handle>,
        /// Leave the inherited jobs, as far as they allow.
        breakaway: bool,
    },
    /// Puts a running process into a job. Which one, the facts say.
    #[doc(alias = "AssignProcessToJobObject")]
    Assign {
        /// The job.
        job: Handle,
        /// Take it out of the group of another manager (systemd, a container runtime) if need be.
        from_foreign: bool,
    },
    /// Whether a process is in a job. Which process, the facts say. [`Reply::InJob`].
    #[doc(alias = "IsProcessInJob")]
    IsInJob {
        /// The job; `None` is any job.
        job: Option<Handle>,
    },
    /// The process ids of the members, those of the jobs below included, in the order in which they
    /// came. [`Reply::Members`].
    #[doc(alias = "JOBOBJECT_BASIC_PROCESS_ID_LIST")]
    Members {
        /// The job.
        job: Handle,
    },
    /// Ends every member of the job and of the jobs below it.
    #[doc(alias = "TerminateJobObject")]
    Terminate {
        /// The job.
        job: Handle,
        /// The exit code that goes on record for them.
        code: u32,
        /// Who asks.
        by: Actor,
    },
    /// Asks every member to leave, and kills what has not left after `grace`. The reply comes when
    /// they have been asked.
    Stop {
        /// The job.
        job: Handle,
        /// The signal to ask with.
        signal: i32,
        /// How long they may take.
        grace: Duration,
        /// The exit code that goes on record for those who must be killed.
        code: u32,
        /// Who asks.
        by: Actor,
    },
    /// Sends a signal to every member. [`Reply::Signaled`].
    Signal {
        /// The job.
        job: Handle,
        /// The signal's number.
        signal: i32,
    },
    /// Suspends every member. Counts: as many thaws are needed.
    #[doc(alias = "JOBOBJECT_FREEZE_INFORMATION")]
    Freeze {
        /// The job.
        job: Handle,
    },
    /// Takes one freeze back.
    Thaw {
        /// The job.
        job: Handle,
    },
    /// What the job has used. [`Reply::Accounting`].
    #[doc(alias = "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION")]
    Accounting {
        /// The job.
        job: Handle,
        /// Ask for the active count too.
        active: bool,
    },
    /// How the job ended, or what is on record so far. [`Reply::End`].
    End {
        /// The job.
        job: Handle,
    },
    /// Whether a wait for the job object would succeed. [`Reply::State`].
    #[doc(alias = "WaitForSingleObject")]
    State {
        /// The job.
        job: Handle,
    },
}

/// What a call gives when it was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing but success.
    Done,
    /// A new handle.
    Handle(Handle),
    /// Limits as set.
    Limits(Limits),
    /// A process was born; its id.
    Spawned {
        /// Process id.
        pid: u32,
    },
    /// The answer of [`Call::IsInJob`].
    InJob(bool),
    /// Process ids.
    Members(Vec<u32>),
    /// How many members a signal was sent to.
    Signaled(u32),
    /// What was used.
    Accounting(Accounting),
    /// How it ended.
    End {
        /// Why the members are gone.
        reason: EndReason,
        /// What a stop took, all zero when there was none.
        stop: StopTally,
        /// How many processes were ended because they exceeded the active-process limit.
        over_limit: u32,
        /// What was used.
        accounting: Accounting,
    },
    /// State of the object.
    State {
        /// A wait would succeed at once.
        signaled: bool,
        /// The members are being ended and newcomers refused.
        terminating: bool,
    },
}
