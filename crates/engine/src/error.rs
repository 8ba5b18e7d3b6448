//! What can go wrong between a caller and its engine.

use jobobject_core::{Fault, Refusal};

/// A call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object manager refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This process is a fork of the one that has the jobs.
    #[error("this process is a fork of the one that owns the job")]
    Forked,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault.into())
    }
}
