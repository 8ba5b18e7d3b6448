//! The hierarchy: which job is whose child.
//!
//! A child holds a subset of its parent's processes. So a process is in its immediate job and in
//! every job of the parent job chain above it, and in no other. Invariants:
//! - a process has at most one immediate job: it is in one group;
//! - a job has at most one parent, given once, by the first process that nests it;
//! - the hierarchy has no cycle;
//! - a child keeps its parent alive.
//!
//! Source: *Nested Jobs*, "Creating a Nested Job Hierarchy". Deviations: none.

use crate::job::JobId;
use crate::manager::{ObjectManager, Step};

/// How a process comes into a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// It was in no job.
    Fresh,
    /// It is in that very job.
    Already,
    /// It moves down, into a job below its own.
    Descend,
    /// The job becomes a child of the one the process is in.
    Nest,
}

impl ObjectManager {
    /// The job and its ancestors, innermost first.
    pub(crate) fn chain(&self, job: JobId) -> Chain<'_> {
        Chain { manager: self, next: Some(job) }
    }

    /// The job and everything below it, deepest last.
    pub(crate) fn subtree(&self, job: JobId) -> Vec<JobId> {
        let mut jobs = vec![job];
        let mut next = 0;
        while next < jobs.len() {
            jobs.extend_from_slice(&self.job(jobs[next]).children);
            next += 1;
        }
        jobs
    }

    pub(crate) fn is_ancestor_or_self(&self, ancestor: JobId, job: JobId) -> bool {
        self.chain(job).any(|level| level == ancestor)
    }

    pub(crate) fn link(&mut self, child: JobId, parent: JobId) {
        self.job_mut(child).parent = Some(parent);
        self.job_mut(parent).children.push(child);
    }

    /// Takes the parent link back. What kept the parent alive may have been that.
    pub(crate) fn unlink(&mut self, step: &mut Step<'_>, child: JobId) {
        if let Some(parent) = self.job_mut(child).parent.take() {
            self.job_mut(parent).children.retain(|job| *job != child);
            self.settle(step, parent);
        }
    }

    /// How a process that is now in `current` would come into `job`. `None`: it may not, because
    /// the job is neither on the process's chain nor able to nest below it.
    pub(crate) fn join(&self, current: Option<JobId>, job: JobId) -> Option<Join> {
        match current {
            None => Some(Join::Fresh),
            Some(current) if current == job => Some(Join::Already),
            Some(current) if self.is_ancestor_or_self(current, job) => Some(Join::Descend),
            Some(_) if self.job(job).can_nest() => Some(Join::Nest),
            Some(_) => None,
        }
    }
}

/// See [`ObjectManager::chain`].
pub(crate) struct Chain<'a> {
    manager: &'a ObjectManager,
    next: Option<JobId>,
}

impl Iterator for Chain<'_> {
    type Item = JobId;

    fn next(&mut self) -> Option<JobId> {
        let job = self.next?;
        self.next = self.manager.job(job).parent;
        Some(job)
    }
}
