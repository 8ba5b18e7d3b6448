//! Why an operation was refused: a rule of job objects, and the facts that broke it.

use jobobject_abi::{Access, Handle, LimitKind, Status};

use crate::effect::Fault;
use crate::job::JobId;
use crate::process::ProcessState;

/// A rule said no, or the kernel could not do what the rules allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The value is no open handle of this session.
    #[error("{handle} is not an open handle to a job")]
    InvalidHandle {
        /// The value.
        handle: Handle,
    },
    /// The handle does not carry the right that the operation needs.
    #[error("handle {handle} lacks the right {missing:?}")]
    MissingRight {
        /// The handle.
        handle: Handle,
        /// What it lacks.
        missing: Access,
    },
    /// A value that no limit can have.
    #[error("{limit} limit: {problem}")]
    BadLimit {
        /// Which limit.
        limit: LimitKind,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A signal number that no signal has.
    #[error("{signal} is not a signal")]
    BadSignal {
        /// The number.
        signal: i32,
    },
    /// The call came without the facts it needs: a mistake of the host.
    #[error("the call names no process")]
    NoProcess,
    /// The process has ended or is about to.
    #[error("process {pid} has ended")]
    ProcessEnded {
        /// Its id.
        pid: u32,
    },
    /// The process can be in no job: it is init or a kernel thread.
    #[error("process {pid} is {}, which cannot be in a job", match state { ProcessState::Init => "the init process", _ => "a kernel thread" })]
    Unassignable {
        /// Its id.
        pid: u32,
        /// What it is.
        state: ProcessState,
    },
    /// The process is in a job that is not in the parent chain of the target.
    #[error("process {pid} is in {current}, which is not in the parent chain of {job}")]
    NotInJobChain {
        /// The process's id.
        pid: u32,
        /// The job it is in.
        current: JobId,
        /// The job it was to be put into.
        job: JobId,
    },
    /// The listed job cannot be nested below the ones before it.
    #[error("{job} cannot be nested below {current}")]
    CannotNest {
        /// The job above.
        current: JobId,
        /// The job that was to be its child.
        job: JobId,
    },
    /// The process is in a job of another engine.
    #[error("process {pid} is in a job of another owner ({name})")]
    InForeignJob {
        /// The process's id.
        pid: u32,
        /// The group's path.
        name: String,
    },
    /// The process is in a group that another manager looks after.
    #[error("process {pid} is in {name}, which belongs to another manager")]
    InForeignGroup {
        /// The process's id.
        pid: u32,
        /// The group's path.
        name: String,
    },
    /// The caller asked for its own job and is in none.
    #[error("the calling process is in no job")]
    NotInAnyJob,
    /// Breakaway was asked for and the immediate job does not allow it.
    #[error("{job} does not allow its members to break away")]
    BreakawayDenied {
        /// The immediate job.
        job: JobId,
    },
    /// The job or one above it is being terminated or closed.
    #[error("{job} is terminating")]
    Terminating {
        /// Which.
        job: JobId,
    },
    /// The job's time is used up. The candidate was ended.
    #[error("the {limit} limit of {job} is used up")]
    TimeUsedUp {
        /// Which job.
        job: JobId,
        /// Which time.
        limit: LimitKind,
    },
    /// One process more than the limit. The candidate was ended.
    #[error("{job} may have {limit} processes and has {active}")]
    TooManyProcesses {
        /// Which job.
        job: JobId,
        /// Its limit.
        limit: u32,
        /// How many there were.
        active: u32,
    },
    /// More thaws than freezes.
    #[error("{job} is not frozen")]
    NotFrozen {
        /// Which job.
        job: JobId,
    },
    /// The kernel could not carry it out.
    #[error("the kernel could not carry it out")]
    Fault(#[from] Fault),
}

impl Refusal {
    /// The Win32 code a caller sees: the only place where rules become numbers.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::InvalidHandle { .. } => Status::INVALID_HANDLE,
            Self::MissingRight { .. }
            | Self::ProcessEnded { .. }
            | Self::Unassignable { .. }
            | Self::NotInJobChain { .. }
            | Self::CannotNest { .. }
            | Self::InForeignJob { .. }
            | Self::InForeignGroup { .. }
            | Self::NotInAnyJob
            | Self::BreakawayDenied { .. } => Status::ACCESS_DENIED,
            Self::BadLimit { .. }
            | Self::BadSignal { .. }
            | Self::NoProcess
            | Self::Terminating { .. }
            | Self::NotFrozen { .. } => Status::INVALID_PARAMETER,
            Self::TimeUsedUp { .. } | Self::TooManyProcesses { .. } => Status::NOT_ENOUGH_QUOTA,
            Self::Fault(fault) => fault.status(),
        }
    }

    /// The finer code that exists where Win32 gives the generic one: 759 or 760.
    #[must_use]
    pub fn detail(&self) -> Option<Status> {
        match self {
            Self::NotInJobChain { .. } | Self::InForeignJob { .. } | Self::CannotNest { .. } => {
                Some(Status::PROCESS_IN_JOB)
            }
            Self::NotInAnyJob => Some(Status::PROCESS_NOT_IN_JOB),
            _ => None,
        }
    }

    /// The candidate is ended when it is refused for this.
    #[must_use]
    pub fn ends_candidate(&self) -> bool {
        matches!(self, Self::TimeUsedUp { .. } | Self::TooManyProcesses { .. })
    }
}

/// Linux error numbers that have a code of their own; all others are a lack of resources.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EROFS: i32 = 30;
    pub(super) const ENOSYS: i32 = 38;
    pub(super) const EOPNOTSUPP: i32 = 95;
}

impl Fault {
    /// The Win32 code for the errno.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.errno {
            _ if self.gone => Status::ACCESS_DENIED,
            errno::EPERM | errno::EACCES | errno::EROFS | errno::ESRCH => Status::ACCESS_DENIED,
            errno::ENOENT => Status::FILE_NOT_FOUND,
            errno::ENOMEM => Status::NOT_ENOUGH_MEMORY,
            errno::EINVAL => Status::INVALID_PARAMETER,
            errno::ENOSYS | errno::EOPNOTSUPP => Status::NOT_SUPPORTED,
            _ => Status::NO_SYSTEM_RESOURCES,
        }
    }
}
