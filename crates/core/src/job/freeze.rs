//! Suspending a job: a count, and a kernel that follows it.
//!
//! A birth that is under way when the job freezes would keep its caller until the thaw (the parent
//! of a vfork-like clone waits for its child), so the freeze waits for such births, which are short,
//! and births that come later are made in a way that waits for nothing.
//!
//! Source: the freeze information class as public headers and tools describe it.

use jobobject_abi::{Access, Handle, Reply};

use crate::effect::{Effect, Fault, Outcome};
use crate::job::JobId;
use crate::manager::{ObjectManager, Pending, Serial, SessionId, Step};
use crate::refusal::Refusal;

impl ObjectManager {
    pub(crate) fn freeze(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::SET_ATTRIBUTES)?;
        let freezer = &mut self.job_mut(id).freezer;
        freezer.count += 1;
        freezer.waiting.push(serial);
        self.follow_freeze(step, id);
        Ok(None)
    }

    pub(crate) fn thaw(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::SET_ATTRIBUTES)?;
        let freezer = &mut self.job_mut(id).freezer;
        if freezer.count == 0 {
            return Err(Refusal::NotFrozen { job: id });
        }
        freezer.count -= 1;
        freezer.waiting.push(serial);
        self.follow_freeze(step, id);
        Ok(None)
    }

    /// Makes the kernel follow the count, as soon as it can; answers who waits for it.
    pub(crate) fn follow_freeze(&mut self, step: &mut Step<'_>, id: JobId) {
        let group = self.ready_group(id);
        let job = self.job_mut(id);
        let wanted = job.freezer.count > 0;
        match group {
            Some(group) if job.freezer.frozen != wanted => {
                if job.freezer.busy || (wanted && job.acting > 0) {
                    return;
                }
                job.freezer.busy = true;
                let freeze = Effect::Freeze { group, frozen: wanted };
                self.effect(step, None, freeze, Pending::Freeze { job: id, frozen: wanted });
            }
            // Nobody is there yet: the group is frozen when it is made.
            _ if !job.freezer.busy => {
                for serial in std::mem::take(&mut job.freezer.waiting) {
                    step.reply(serial, Ok(Reply::Done));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn froze(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        frozen: bool,
        outcome: Result<Outcome, Fault>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.freezer.busy = false;
        match outcome {
            Ok(_) => job.freezer.frozen = frozen,
            Err(fault) => {
                job.freezer.count = u32::from(job.freezer.frozen);
                for serial in std::mem::take(&mut job.freezer.waiting) {
                    step.reply(serial, Err(fault.clone().into()));
                }
            }
        }
        self.follow_freeze(step, id);
    }
}
