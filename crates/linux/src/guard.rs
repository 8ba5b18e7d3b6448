//! The guardian of this process and the table that it shares with us.
//!
//! One for all jobs, started with the first guarded group and again when somebody has killed it. Invariants:
//! - what the guardian must know stands in the table before it exists in the kernel, and as long as it does;
//! - a guarded group is given out, and takes a newcomer in, only while a guardian lived a moment ago.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jobobject_core::Fault;
use jobobject_sys::guardian::{self, Guardian, How, Started};
use jobobject_sys::table::Table;

use crate::fault::{io_fault, trouble};

/// How a guardian was started, for those who ask how well a limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardianFacts {
    /// Its pid.
    pub pid: u32,
    /// It is a copy of this process, because a memory file cannot be executed here.
    pub forked: bool,
    /// It has become a child of this process, which is init or a subreaper: waiting for any child sees it.
    pub child: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Guard {
    table: OnceLock<Table>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    guardian: Option<Guardian>,
    facts: Option<GuardianFacts>,
    dismissed: bool,
}

impl Guard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, made with the first group.
    pub(crate) fn table(&self) -> Result<&Table, Fault> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table =
            Table::create().map_err(|error| io_fault("memfd_create", "job table", &error))?;
        // Another thread may have been faster: then ours goes unused.
        Ok(self.table.get_or_init(|| table))
    }

    /// Sees to it that a guardian lives; a new one is born in the group `into`.
    pub(crate) fn ensure<'a>(
        &self,
        mount: BorrowedFd<'_>,
        into: impl FnOnce() -> Result<Option<OwnedFd>, Fault> + 'a,
    ) -> Result<(), Fault> {
        let table = self.table()?;
        // Held while the guardian is born, so that there is one: nothing but its own few instructions is
        // waited for.
        let mut state = self.state();
        if state.guardian.as_ref().is_some_and(Guardian::is_alive) {
            return Ok(());
        }
        if state.dismissed {
            return Err(trouble("guardian", "job-guardian", "the engine has been shut down"));
        }
        if let Some(dead) = state.guardian.take() {
            // Where it was our child, somebody must reap it.
            let _ = dead.wait_gone(Some(Duration::ZERO));
        }
        let into = into()?;
        let into = into.as_ref().map(std::os::fd::AsFd::as_fd);
        let Started { guardian, how, reparented_to_us } = guardian::start(table, mount, into)
            .map_err(|error| io_fault("start", "job-guardian", &error))?;
        let forked = matches!(how, How::Forked(_));
        state.facts = Some(GuardianFacts { pid: guardian.pid(), forked, child: reparented_to_us });
        state.guardian = Some(guardian);
        Ok(())
    }

    /// Whether a guardian cleans up after us.
    pub(crate) fn stands(&self) -> bool {
        self.state().guardian.is_some()
    }

    /// Whether the guardian has ended although nobody dismissed it.
    pub(crate) fn has_fallen(&self) -> bool {
        self.state().guardian.as_ref().is_some_and(|guardian| !guardian.is_alive())
    }

    /// The guardian's pidfd, for those who wait long and would miss its end otherwise.
    pub(crate) fn watched(&self) -> Option<OwnedFd> {
        let state = self.state();
        state.guardian.as_ref()?.pidfd().try_clone_to_owned().ok()
    }

    pub(crate) fn facts(&self) -> Option<GuardianFacts> {
        self.state().facts
    }

    /// Sends the guardian away, for good: everything it knows of has been removed.
    pub(crate) fn dismiss(&self) -> Option<Guardian> {
        let mut state = self.state();
        state.dismissed = true;
        let mut guardian = state.guardian.take()?;
        if let Some(table) = self.table.get() {
            guardian.dismiss(table);
        }
        Some(guardian)
    }
}
