//! What went wrong, what Windows would call it, and what to do about it.

use std::fmt;
use std::io;

use jobobject_abi::Status;
use jobobject_engine::{Fault, Refusal};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of thing went wrong: what a caller may want to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value makes no sense, or a call comes at the wrong time.
    InvalidInput,
    /// The system does not permit it: no group can be made here, or a process is not ours to move.
    PermissionDenied,
    /// A program, directory or process does not exist.
    NotFound,
    /// The process has ended.
    ProcessEnded,
    /// The process is in a job that the target cannot be nested in.
    InAnotherJob,
    /// The job is being terminated or closed.
    Terminating,
    /// A limit of the job is reached.
    LimitReached,
    /// Descriptors, groups, processes or memory have run out.
    OutOfResources,
    /// The kernel or the place lacks what it takes.
    Unsupported,
    /// This process is a fork of the one that owns the job.
    Forked,
    /// The process ended and somebody else took its exit status.
    StatusTaken,
    /// Anything else.
    Other,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    repr: Repr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Repr {
    Engine(jobobject_engine::Error),
    StatusTaken { pid: u32 },
    ParentClosed,
    InvalidInput(String),
    Unenforceable { limit: jobobject_abi::LimitKind, why: String },
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { repr: Repr::InvalidInput(message.into()) }
    }

    pub(crate) fn status_taken(pid: u32) -> Self {
        Self { repr: Repr::StatusTaken { pid } }
    }

    /// The job that a job was made to be nested in was closed before that.
    pub(crate) fn parent_closed() -> Self {
        Self { repr: Repr::ParentClosed }
    }

    pub(crate) fn is_invalid_handle(&self, handle: jobobject_abi::Handle) -> bool {
        matches!(self.refusal(), Some(Refusal::InvalidHandle { handle: bad }) if *bad == handle)
    }

    pub(crate) fn unenforceable(limit: jobobject_abi::LimitKind, why: String) -> Self {
        Self { repr: Repr::Unenforceable { limit, why } }
    }

    pub(crate) fn io(call: &'static str, target: impl Into<String>, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let message = error.to_string();
        let fault = Fault { call, target: target.into(), errno, message, hint: None, gone: false };
        fault.into()
    }

    fn refusal(&self) -> Option<&Refusal> {
        match &self.repr {
            Repr::Engine(jobobject_engine::Error::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    fn fault(&self) -> Option<&Fault> {
        match self.refusal() {
            Some(Refusal::Fault(fault)) => Some(fault),
            _ => None,
        }
    }

    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.repr {
            Repr::StatusTaken { .. } => ErrorKind::StatusTaken,
            Repr::ParentClosed => ErrorKind::Terminating,
            Repr::InvalidInput(_) => ErrorKind::InvalidInput,
            Repr::Unenforceable { .. } => ErrorKind::Unsupported,
            Repr::Engine(jobobject_engine::Error::Forked) => ErrorKind::Forked,
            Repr::Engine(jobobject_engine::Error::Refused(refusal)) => kind_of(refusal),
        }
    }

    /// The code that Windows gives for it (`GetLastError`).
    #[must_use]
    pub fn win32_code(&self) -> u32 {
        let status = match &self.repr {
            Repr::Engine(jobobject_engine::Error::Refused(refusal)) => refusal.status(),
            Repr::Engine(jobobject_engine::Error::Forked) => Status::INVALID_HANDLE,
            Repr::StatusTaken { .. } => Status::ACCESS_DENIED,
            Repr::ParentClosed => Status::INVALID_HANDLE,
            Repr::InvalidInput(_) => Status::INVALID_PARAMETER,
            Repr::Unenforceable { .. } => Status::NOT_SUPPORTED,
        };
        status.0
    }

    /// The finer code, 759 or 760, where [`Error::win32_code`] is a generic one.
    #[must_use]
    pub fn win32_detail(&self) -> Option<u32> {
        self.refusal().and_then(Refusal::detail).map(|status| status.0)
    }

    /// The Linux error number, where a system call failed.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.fault().map(|fault| fault.errno).filter(|errno| *errno != 0)
    }

    /// The step that failed, where the kernel refused one: a system call, or a part of starting a
    /// process such as `exec` or `chdir`.
    #[must_use]
    pub fn failed_call(&self) -> Option<&'static str> {
        self.fault().map(|fault| fault.call)
    }

    /// What can be done about it, where something can.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match &self.repr {
            Repr::Unenforceable { .. } => {
                Some("allow best effort to go on without, or run where the kernel offers more")
            }
            Repr::StatusTaken { .. } => Some(
                "this process reaps all of its children somewhere; Linux 6.15 and later tell the \
                 status all the same",
            ),
            _ => match self.refusal() {
                Some(Refusal::Fault(fault)) => fault.hint.as_deref(),
                Some(Refusal::InForeignGroup { .. }) => {
                    Some("say that it may be taken from there (AssignOptions::from_foreign)")
                }
                _ => None,
            },
        }
    }
}

fn kind_of(refusal: &Refusal) -> ErrorKind {
    match refusal {
        Refusal::InvalidHandle { .. }
        | Refusal::BadLimit { .. }
        | Refusal::BadSignal { .. }
        | Refusal::NoProcess
        | Refusal::NotFrozen { .. } => ErrorKind::InvalidInput,
        Refusal::MissingRight { .. }
        | Refusal::Unassignable { .. }
        | Refusal::InForeignGroup { .. }
        | Refusal::BreakawayDenied { .. } => ErrorKind::PermissionDenied,
        Refusal::ProcessEnded { .. } => ErrorKind::ProcessEnded,
        Refusal::NotInJobChain { .. }
        | Refusal::CannotNest { .. }
        | Refusal::InForeignJob { .. } => ErrorKind::InAnotherJob,
        Refusal::NotInAnyJob => ErrorKind::NotFound,
        Refusal::Terminating { .. } => ErrorKind::Terminating,
        Refusal::TimeUsedUp { .. } | Refusal::TooManyProcesses { .. } => ErrorKind::LimitReached,
        Refusal::Fault(fault) => kind_of_fault(fault),
    }
}

fn kind_of_fault(fault: &Fault) -> ErrorKind {
    if fault.gone {
        return ErrorKind::ProcessEnded;
    }
    match io::Error::from_raw_os_error(fault.errno).kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        io::ErrorKind::OutOfMemory
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded => ErrorKind::OutOfResources,
        // EMFILE and ENFILE have no kind of their own.
        _ if matches!(fault.errno, 23 | 24) => ErrorKind::OutOfResources,
        _ => ErrorKind::Other,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repr {
            // The kernel's word is the message; that it is a refusal goes without saying.
            Repr::Engine(jobobject_engine::Error::Refused(Refusal::Fault(fault))) => fault.fmt(f),
            Repr::Engine(error) => error.fmt(f),
            Repr::StatusTaken { pid } => {
                write!(f, "process {pid} has ended, status taken by somebody else")
            }
            Repr::ParentClosed => {
                f.write_str("the job that this one was to be nested in is closed")
            }
            Repr::InvalidInput(message) => f.write_str(message),
            Repr::Unenforceable { limit, why } => {
                write!(f, "the {limit} limit cannot be kept here: {why}")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<jobobject_engine::Error> for Error {
    fn from(error: jobobject_engine::Error) -> Self {
        Self { repr: Repr::Engine(error) }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self { repr: Repr::Engine(fault.into()) }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), error.raw_os_error()) {
            (_, Some(errno)) => io::Error::from_raw_os_error(errno).kind(),
            (ErrorKind::InvalidInput, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::PermissionDenied | ErrorKind::InAnotherJob, _) => {
                io::ErrorKind::PermissionDenied
            }
            (ErrorKind::NotFound, _) => io::ErrorKind::NotFound,
            (ErrorKind::Unsupported, _) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
