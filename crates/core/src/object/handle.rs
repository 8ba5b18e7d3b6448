//! Handle tables: which handle of a client stands for which job, with which rights.
//!
//! Invariant: a handle value names one entry for ever; a closed value is never used again.

use std::collections::HashMap;

use jobobject_abi::{Access, Handle, Limits, Reply};

use crate::job::{Job, JobId};
use crate::manager::{ObjectManager, SessionId, Step};
use crate::refusal::Refusal;

/// What a handle stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandleEntry {
    pub(crate) job: JobId,
    pub(crate) access: Access,
}

/// The handles of one client.
#[derive(Debug, Default)]
pub(crate) struct HandleTable {
    entries: HashMap<Handle, HandleEntry>,
}

impl HandleTable {
    pub(crate) fn get(&self, handle: Handle) -> Option<HandleEntry> {
        self.entries.get(&handle).copied()
    }

    pub(crate) fn insert(&mut self, handle: Handle, job: JobId, access: Access) {
        self.entries.insert(handle, HandleEntry { job, access });
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<HandleEntry> {
        self.entries.remove(&handle)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &HandleEntry> {
        self.entries.values()
    }

    /// All handles, in the order in which they were opened.
    fn in_order(&self) -> Vec<Handle> {
        let mut handles: Vec<Handle> = self.entries.keys().copied().collect();
        handles.sort_unstable();
        handles
    }
}

impl ObjectManager {
    pub(crate) fn create(&mut self, session: SessionId, limits: Limits) -> Result<Reply, Refusal> {
        crate::job::limits::validate(&limits)?;
        let id = self.new_job_id();
        self.jobs.insert(id, Job::new(limits));
        Ok(Reply::Handle(self.open_handle(session, id, Access::ALL)))
    }

    pub(crate) fn duplicate(
        &mut self,
        session: SessionId,
        handle: Handle,
        access: Access,
    ) -> Result<Reply, Refusal> {
        let job = self.job_of(session, handle, access)?;
        Ok(Reply::Handle(self.open_handle(session, job, access)))
    }

    pub(crate) fn close(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        handle: Handle,
    ) -> Result<Reply, Refusal> {
        let table = self.sessions.get_mut(&session);
        let entry = table.and_then(|table| table.remove(handle));
        let entry = entry.ok_or(Refusal::InvalidHandle { handle })?;
        let job = self.job_mut(entry.job);
        job.handles -= 1;
        if job.handles == 0 {
            self.last_handle_closed(step, entry.job);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn hangup(&mut self, step: &mut Step<'_>, session: SessionId) {
        let handles = self.sessions.get(&session).map(HandleTable::in_order).unwrap_or_default();
        for handle in handles {
            let closed = self.close(step, session, handle);
            debug_assert!(closed.is_ok(), "a handle of the table closes");
        }
        self.sessions.remove(&session);
    }
}
