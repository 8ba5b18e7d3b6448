//! Suspending a job: a count, and a kernel that follows it.
//!
//! A birth that is under way when the job freezes would keep its caller until the thaw (the parent
//! of a vfork-like clone waits for its child), so the freeze waits for such births, which are short,
//! and births that come later are made in a way that waits for nothing.
//!
//! Source: the freeze information class as public headers and tools describe it.

use std::time::Duration;

use jobobject_abi::{Access, Handle, Reply};

use crate::effect::{Effect, Fault, Outcome};
use crate::job::{JobId, Turn};
use crate::manager::{ObjectManager, Pending, Serial, SessionId, Step, Timer};
use crate::refusal::Refusal;

/// How soon a thaw that nobody waits for is tried again when it failed.
const THAW_AGAIN: Duration = Duration::from_millis(64);

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
        freezer.waiting.push(Turn { serial, by: 1 });
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
        freezer.waiting.push(Turn { serial, by: -1 });
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
                job.freezer.served = std::mem::take(&mut job.freezer.waiting);
                let freeze = Effect::Freeze { group, frozen: wanted };
                self.effect(step, None, freeze, Pending::Freeze { job: id, frozen: wanted });
            }
            // Nobody is there yet: the group is frozen when it is made.
            _ if !job.freezer.busy => {
                for turn in std::mem::take(&mut job.freezer.waiting) {
                    step.reply(turn.serial, Ok(Reply::Done));
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
        let served = std::mem::take(&mut job.freezer.served);
        match outcome {
            Ok(_) => {
                job.freezer.frozen = frozen;
                for turn in served {
                    step.reply(turn.serial, Ok(Reply::Done));
                }
            }
            Err(fault) => {
                for turn in served {
                    job.freezer.count = job.freezer.count.saturating_add_signed(-turn.by);
                    step.reply(turn.serial, Err(fault.clone().into()));
                }
                let follows = job.freezer.frozen == (job.freezer.count > 0);
                if !follows && job.freezer.waiting.is_empty() {
                    // Nobody asked for it who could ask again: a stop, or the last close.
                    let at = step.at.after(THAW_AGAIN);
                    self.arm(step, id, Timer::Rekill, at);
                    return self.resume_waiting(step, id, None);
                }
            }
        }
        self.follow_freeze(step, id);
        self.resume_waiting(step, id, None);
        self.settle(step, id);
    }
}
