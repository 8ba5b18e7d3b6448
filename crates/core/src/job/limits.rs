//! Limits: set, query, and what strikes when they are used up.
//!
//! A set is all or nothing: what the kernel must agree to is asked first, and nothing is changed
//! before it has. Limits apply to present members at once, except the active-process limit, which
//! only gates newcomers.
//!
//! Source: *SetInformationJobObject*; *JOBOBJECT_BASIC_LIMIT_INFORMATION*;
//! *JOBOBJECT_END_OF_JOB_TIME_INFORMATION*.

use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::units::is_signal;
use jobobject_abi::{Access, EndReason, Handle, JobTime, LimitKind, Limits, OnLimit, Reply, Ticks};

use crate::effect::{Effect, Fault, Outcome, soonest};
use crate::job::close::Stop;
use crate::job::{Ending, Group, JobId};
use crate::manager::{
    AFTER_RETIRING, Facts, LimitChange, ObjectManager, Pending, Serial, SessionId, Step, Timer,
};
use crate::refusal::Refusal;

/// A look at the CPU time sooner than this would only find the same figure: it moves in ticks.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// Refuses values that no limit can have.
pub(crate) fn validate(limits: &Limits) -> Result<(), Refusal> {
    let bad = |limit, problem| Err(Refusal::BadLimit { limit, problem });
    match limits.job_time {
        JobTime::Limit(ticks) if ticks > Ticks::MAX => {
            return bad(LimitKind::JobTime, "longer than a signed 64-bit count of 100 ns");
        }
        _ => {}
    }
    match limits.on_limit {
        OnLimit::Stop { signal, .. } if !is_signal(signal) => Err(Refusal::BadSignal { signal }),
        _ => Ok(()),
    }
}

impl ObjectManager {
    pub(crate) fn query_limits(
        &self,
        session: SessionId,
        handle: Option<Handle>,
        facts: &Facts,
    ) -> Result<Reply, Refusal> {
        let job = match handle {
            Some(handle) => self.job_of(session, handle, Access::QUERY)?,
            // No handle, no access check: a member may always see the limits of its own job.
            None => self.job_at(&facts.caller).ok_or(Refusal::NotInAnyJob)?,
        };
        Ok(Reply::Limits(self.job(job).limits.clone()))
    }

    pub(crate) fn set_limits(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        limits: Limits,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::SET_ATTRIBUTES)?;
        validate(&limits)?;
        let change = LimitChange { serial, job: id, limits };
        if let Some(change) = self.guard(step, change) {
            self.begin_period(step, change);
        }
        Ok(None)
    }

    /// Asks the platform to guard the members, or to guard them no more, if the change needs that;
    /// else gives the change back.
    fn guard(&mut self, step: &mut Step<'_>, change: LimitChange) -> Option<LimitChange> {
        let guarded = change.limits.kill_on_close;
        match self.ready_group(change.job) {
            Some(group) if self.job(change.job).guarded != guarded => {
                let pending = Pending::Guard { change: Box::new(change) };
                self.effect(step, None, Effect::Guard { group, guarded }, pending);
                None
            }
            _ => Some(change),
        }
    }

    pub(crate) fn guarded(
        &mut self,
        step: &mut Step<'_>,
        change: LimitChange,
        outcome: Result<Outcome, Fault>,
    ) {
        if let Err(fault) = outcome {
            return step.reply(change.serial, Err(fault.into()));
        }
        match self.jobs.get_mut(&change.job) {
            Some(job) => {
                job.guarded = change.limits.kill_on_close;
                self.begin_period(step, change);
            }
            None => step.reply(change.serial, Ok(Reply::Done)), // Closed and over meanwhile.
        }
    }

    /// A new job-time limit counts from now: what has been used by now must be known.
    fn begin_period(&mut self, step: &mut Step<'_>, change: LimitChange) {
        let group = self.ready_group(change.job);
        match (change.limits.job_time, group) {
            (JobTime::Limit(_), Some(group)) => {
                let usage = Effect::Usage { group, active: false };
                self.effect(step, None, usage, Pending::Period { change: Box::new(change) });
            }
            _ => self.apply(step, change, CpuTimes::default()),
        }
    }

    pub(crate) fn period_begun(
        &mut self,
        step: &mut Step<'_>,
        change: LimitChange,
        outcome: Result<Outcome, Fault>,
    ) {
        if !self.jobs.contains_key(&change.job) {
            return step.reply(change.serial, Ok(Reply::Done)); // Closed and over meanwhile.
        }
        match outcome {
            Ok(Outcome::Usage { cpu, .. }) => self.apply(step, change, cpu),
            Ok(_) => step.reply(change.serial, Err(Fault::unexpected("cpu.stat").into())),
            Err(fault) => step.reply(change.serial, Err(fault.into())),
        }
    }

    fn apply(&mut self, step: &mut Step<'_>, change: LimitChange, cpu: CpuTimes) {
        // Another set, or the making of the group, may have come in between.
        let Some(change) = self.guard(step, change) else { return };
        let id = change.job;
        let job = self.job_mut(id);
        let old = std::mem::replace(&mut job.limits, change.limits);
        let asked = job.limits.job_time;
        job.limits.job_time = asked.over(old.job_time);
        self.apply_job_time(step, id, asked, cpu);
        if self.job(id).limits.wall_time != old.wall_time {
            self.apply_wall_time(step, id);
        }
        if self.job(id).limits.active_processes != old.active_processes {
            self.apply_active_processes(step, id);
        }
        step.reply(change.serial, Ok(Reply::Done));
        // A raised limit may let an entry through that waits for a place.
        self.resume_waiting(step, id, None);
    }

    fn apply_job_time(&mut self, step: &mut Step<'_>, id: JobId, asked: JobTime, cpu: CpuTimes) {
        let used = cpu.plus(self.job(id).history.before);
        let job = self.job_mut(id);
        if asked != JobTime::Keep {
            job.job_time_up = false;
        }
        match asked {
            JobTime::Keep => {}
            JobTime::Unlimited => self.disarm(step, id, Timer::JobTime),
            JobTime::Limit(limit) => {
                job.history.period_start = used;
                if job.used {
                    let at = step.at.after(soonest(limit, self.config.cpus));
                    self.arm(step, id, Timer::JobTime, at);
                }
            }
        }
    }

    fn apply_wall_time(&mut self, step: &mut Step<'_>, id: JobId) {
        let at = step.at;
        let job = self.job_mut(id);
        job.wall_time_up = false;
        job.wall_start = job.used.then_some(at);
        match (job.limits.wall_time, job.used) {
            (Some(wall), true) => self.arm(step, id, Timer::Wall, at.after(wall)),
            _ => self.disarm(step, id, Timer::Wall),
        }
    }

    fn apply_active_processes(&mut self, step: &mut Step<'_>, id: JobId) {
        let job = self.job_mut(id);
        let processes = job.limits.active_processes;
        let used = job.used;
        job.tolerated = 0;
        let Some(group) = self.ready_group(id) else { return };
        self.effect(step, None, Effect::Fuse { group, processes }, Pending::Forgotten);
        if processes.is_some() && used {
            // Who is there now may stay, even above the limit; until they are counted, nobody goes.
            self.job_mut(id).tolerated = u32::MAX;
            let usage = Effect::Usage { group, active: true };
            self.effect(step, None, usage, Pending::Regard { job: id });
            let at = step.at.after(self.config.scan);
            self.arm(step, id, Timer::Scan, at);
        } else {
            self.disarm(step, id, Timer::Scan);
        }
    }

    pub(crate) fn regarded(&mut self, id: JobId, outcome: Result<Outcome, Fault>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Ok(Outcome::Usage { active: Some(active), .. }) = outcome {
            job.tolerated = active;
        }
    }

    /// The job time could be used up: asks how much it really is.
    pub(crate) fn job_time_due(&mut self, step: &mut Step<'_>, id: JobId) {
        if let Some(group) = self.ready_group(id) {
            let usage = Effect::Usage { group, active: true };
            self.effect(step, None, usage, Pending::JobTime { job: id });
        }
    }

    pub(crate) fn job_time_read(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let Some(job) = self.jobs.get(&id) else { return };
        let JobTime::Limit(limit) = job.limits.job_time else { return };
        if job.job_time_up {
            return; // An earlier look has found it out.
        }
        let (used, active) = match outcome {
            Ok(Outcome::Usage { cpu, active }) => {
                let used = cpu.plus(job.history.before).minus(job.history.period_start);
                (used.user, active.unwrap_or(1))
            }
            // The figure could not be had this time; the limit still stands.
            _ => (Ticks(0), 1),
        };
        if used >= limit {
            self.strike(step, id, LimitKind::JobTime);
        } else if active > 0 || job.entering > 0 {
            let delay = soonest(limit.minus(used), self.config.cpus).max(SHORTEST_LOOK);
            let at = step.at.after(delay);
            self.arm(step, id, Timer::JobTime, at);
        }
    }

    pub(crate) fn wall_time_over(&mut self, step: &mut Step<'_>, id: JobId) {
        self.strike(step, id, LimitKind::WallTime);
    }

    /// A time limit is used up. [`jobobject_abi::EndOfJobAction::Post`] has no port to post to, so
    /// both actions end the members.
    fn strike(&mut self, step: &mut Step<'_>, id: JobId, limit: LimitKind) {
        let job = self.job_mut(id);
        let (is_up, timer) = match limit {
            LimitKind::JobTime => (&mut job.job_time_up, Timer::JobTime),
            _ => (&mut job.wall_time_up, Timer::Wall),
        };
        if let Group::Retiring(_) = job.group {
            // Whether anybody is there is known when that is done.
            return self.arm(step, id, timer, step.at.after(AFTER_RETIRING));
        }
        *is_up = true;
        let reason = EndReason::Limit(limit);
        match job.limits.on_limit {
            OnLimit::Kill => self.begin_kill(step, id, reason, None),
            OnLimit::Stop { signal, grace } => {
                self.begin_stop(step, id, Stop { signal, grace, reason }, None);
            }
        }
    }

    /// Looks for processes that members forked over the limit.
    pub(crate) fn scan(&mut self, step: &mut Step<'_>, id: JobId) {
        let job = self.job(id);
        let Some(limit) = job.limits.active_processes else { return };
        let (Some(group), Ending::No | Ending::Stopping { .. }) =
            (self.ready_group(id), job.ending)
        else {
            return;
        };
        let keep = limit.max(job.tolerated);
        self.effect(step, None, Effect::Trim { group, keep }, Pending::Trim { job: id });
    }

    pub(crate) fn trimmed(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let at = step.at.after(self.config.scan);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(limit) = job.limits.active_processes else { return };
        let mut active = 1;
        if let Ok(Outcome::Trimmed { ended, active: left }) = outcome {
            job.history.over_limit += ended;
            job.tolerated = job.tolerated.min(left).max(limit);
            active = left;
        }
        if active > 0 || job.entering > 0 {
            self.arm(step, id, Timer::Scan, at);
        }
    }
}
