//! `std::process::Command` inside a job: the slow road.

use std::process::{Child, Command};
use std::sync::Arc;

use crate::child::Handle;
use crate::command::Pipes;
use crate::error::Result;
use crate::job::Job;

/// Starts `std::process::Command`s inside a job.
///
/// For code that has a `Command` of `std` at hand, or is handed one. It forks, which takes time in
/// proportion to the memory of this process (tens of milliseconds at a gibibyte), where
/// [`jobobject::Command`](crate::Command) does not. The process joins the job before it executes
/// anything. Into a frozen job it blocks until the thaw.
pub trait CommandExt {
    /// Starts the command inside `job`.
    ///
    /// # Errors
    /// What `spawn` says; every refusal of a newcomer.
    fn spawn_in(&mut self, job: &Job) -> Result<Child>;
}

impl CommandExt for Command {
    fn spawn_in(&mut self, job: &Job) -> Result<Child> {
        let (child, process) = job.start_std(self)?;
        // The job remembers its leader; the status is `std`'s to take.
        let handle = Handle::new(Arc::clone(job.engine()), process);
        job.entered(crate::child::Child::new(handle, Pipes::default()).shared());
        Ok(child)
    }
}
