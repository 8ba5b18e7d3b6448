//! The end: termination, stop, the last handle.
//!
//! The reason goes on record before the deed. A kill covers the job and everything below it, and is
//! repeated until the kernel says that nobody is left; until then newcomers are refused. It does not
//! end while the kernel is still at a newcomer that was admitted before it.
//!
//! Source: *TerminateJobObject*; *Job Objects*, "Managing Job Objects"; *Nested Jobs*.

use std::time::Duration;

use jobobject_abi::units::is_signal;
use jobobject_abi::{Access, Actor, EndReason, Handle, LimitKind, Reply, Tick};

use crate::effect::{Effect, Fault, GroupKey, Outcome};
use crate::job::{Ending, Group, JobId};
use crate::manager::{ObjectManager, Pending, Serial, SessionId, Step, Timer, signaled_members};
use crate::refusal::Refusal;

/// How soon after a kill it is looked whether it was enough: 1 ms, doubled each time up to this.
const LONGEST_REKILL_WAIT: Duration = Duration::from_millis(64);

/// How many orphaned groups are looked at when a new group is made.
const ORPHANS_AT_A_TIME: usize = 4;

/// A request to leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) signal: i32,
    pub(crate) grace: Duration,
    pub(crate) reason: EndReason,
}

impl ObjectManager {
    pub(crate) fn terminate(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        code: u32,
        by: Actor,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::TERMINATE)?;
        for job in self.subtree(id) {
            self.job_mut(job).terminated = true;
        }
        self.begin_kill(step, id, EndReason::Terminated { code, by }, Some(serial));
        Ok(None)
    }

    /// Kills the job and everything below it. Answers `serial` when the kill has been sent.
    pub(crate) fn begin_kill(
        &mut self,
        step: &mut Step<'_>,
        root: JobId,
        reason: EndReason,
        serial: Option<Serial>,
    ) {
        let commits = self.job(root).commits;
        for id in self.subtree(root) {
            self.disarm(step, id, Timer::Grace);
            let job = self.job_mut(id);
            let (round, after_stop) = match job.ending {
                // It goes on: what was counted is not counted again.
                Ending::Killing { root: by, round, after_stop, .. } if by == root => {
                    (round, after_stop)
                }
                Ending::Stopping { .. } => (0, true),
                _ => (0, false),
            };
            job.record(reason);
            job.ending = Ending::Killing { root, round, commits, after_stop };
            job.kills += 1;
            job.stale_leaf = true;
        }
        match self.ready_group(root) {
            Some(group) => self.send_kill(step, root, group, serial),
            None => {
                if let Some(serial) = serial {
                    step.reply(serial, Ok(Reply::Done));
                }
                self.finish_ending(step, root);
            }
        }
    }

    fn send_kill(
        &mut self,
        step: &mut Step<'_>,
        root: JobId,
        group: GroupKey,
        serial: Option<Serial>,
    ) {
        let job = self.job_mut(root);
        job.shots += 1;
        let now = job.commits;
        let mut count = false;
        if let Ending::Killing { commits, after_stop, round, .. } = &mut job.ending {
            *commits = now;
            count = *round == 0 && (*after_stop || matches!(job.reason, EndReason::Limit(_)));
        }
        let kill = Effect::Kill { group, count };
        self.effect(step, None, kill, Pending::Kill { job: root, serial });
    }

    pub(crate) fn killed(
        &mut self,
        step: &mut Step<'_>,
        root: JobId,
        serial: Option<Serial>,
        outcome: Result<Outcome, Fault>,
    ) {
        if let Some(serial) = serial {
            let result = outcome.as_ref().map(|_| Reply::Done);
            step.reply(serial, result.map_err(|fault| fault.clone().into()));
        }
        if !self.jobs.contains_key(&root) {
            return;
        }
        self.job_mut(root).shots -= 1;
        if !matches!(outcome, Ok(Outcome::Killed { found: false, .. })) {
            self.met_somebody(root);
        }
        let is_quiet = self.shots_have_landed(root);
        let job = self.job_mut(root);
        let Ending::Killing { root: by, round, commits, after_stop } = job.ending else {
            return self.settle(step, root);
        };
        if by != root {
            return; // A kill from further out has taken over.
        }
        let mut is_over = false;
        if let Ok(Outcome::Killed { members, empty, .. }) = outcome {
            if round == 0 {
                job.tally_kill(members.unwrap_or(0), after_stop);
            }
            is_over = empty && is_quiet && job.acting == 0 && job.commits == commits;
        }
        job.ending = Ending::Killing { root, round: round.saturating_add(1), commits, after_stop };
        if is_over {
            self.finish_ending(step, root);
        } else {
            let wait = Duration::from_millis(1 << round.min(6)).min(LONGEST_REKILL_WAIT);
            let at = step.at.after(wait);
            self.arm(step, root, Timer::Rekill, at);
        }
    }

    /// Looks again whether a kill was enough, or whether a group can now be removed.
    pub(crate) fn kill_again(&mut self, step: &mut Step<'_>, id: JobId) {
        match (self.job(id).ending, self.ready_group(id)) {
            (Ending::Killing { root, .. }, Some(group)) if root == id => {
                self.send_kill(step, id, group, None);
            }
            (Ending::Killing { root, .. }, None) if root == id => self.finish_ending(step, id),
            _ => {
                self.follow_freeze(step, id);
                self.forget_unused(step, id);
                self.settle(step, id);
            }
        }
    }

    /// The ending has met members: its reason stands.
    fn met_somebody(&mut self, root: JobId) {
        for id in self.subtree(root) {
            self.job_mut(id).reason_before = None;
        }
    }

    /// No kill and no stop signal is on its way to the job or a job below it: it would hit who comes
    /// next.
    pub(crate) fn shots_have_landed(&self, root: JobId) -> bool {
        self.subtree(root).iter().all(|id| self.job(*id).shots == 0)
    }

    /// Nobody is left of those whom a stop or a kill of `root` was for.
    fn finish_ending(&mut self, step: &mut Step<'_>, root: JobId) {
        self.disarm(step, root, Timer::Rekill);
        // That timer may have been for a thaw that failed.
        self.follow_freeze(step, root);
        let mut subtree = self.subtree(root);
        for &id in &subtree {
            let ended_by = match self.job(id).ending {
                Ending::No => None,
                Ending::Stopping { root } | Ending::Killing { root, .. } => Some(root),
            };
            if ended_by == Some(root) {
                self.disarm(step, id, Timer::Grace);
                let job = self.job_mut(id);
                job.ending = Ending::No;
                job.settled = true;
                // It met nobody: whatever ended the members came before it.
                if let Some(before) = job.reason_before.take() {
                    job.reason = before;
                }
            }
        }
        subtree.reverse();
        for id in subtree {
            self.settle(step, id);
        }
    }

    pub(crate) fn stop(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        stop: Stop,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::TERMINATE)?;
        if !is_signal(stop.signal) {
            return Err(Refusal::BadSignal { signal: stop.signal });
        }
        for job in self.subtree(id) {
            self.job_mut(job).terminated = true;
        }
        self.begin_stop(step, id, stop, Some(serial));
        Ok(None)
    }

    /// Asks every member to leave. Answers `serial` when they have been asked.
    pub(crate) fn begin_stop(
        &mut self,
        step: &mut Step<'_>,
        root: JobId,
        stop: Stop,
        serial: Option<Serial>,
    ) {
        let grace_over = step.at.after(stop.grace);
        let job = self.job(root);
        let somebody = !job.settled || job.entering > 0;
        let group = self.ready_group(root).filter(|_| somebody);
        let (Some(group), Ending::No) = (group, job.ending) else {
            // Nobody is there, or they have been told already, and get no more time than asked now.
            let is_sooner = job.grace_over.is_none_or(|over| grace_over < over);
            if matches!(job.ending, Ending::Stopping { root: by } if by != root || is_sooner) {
                self.arm_grace(step, root, grace_over);
            }
            if let Some(serial) = serial {
                step.reply(serial, Ok(Reply::Done));
            }
            return;
        };
        for id in self.subtree(root) {
            let job = self.job_mut(id);
            if job.ending != Ending::No {
                continue; // Its own ending goes on.
            }
            job.record(stop.reason);
            job.ending = Ending::Stopping { root };
            job.kills += 1;
            // Whoever is suspended cannot leave.
            job.freezer.reset();
            self.follow_freeze(step, id);
        }
        let ask = Effect::Signal { group, signal: stop.signal, resume: true };
        self.job_mut(root).shots += 1;
        self.effect(step, None, ask, Pending::StopSignal { job: root, serial });
        self.arm_grace(step, root, grace_over);
    }

    fn arm_grace(&mut self, step: &mut Step<'_>, id: JobId, at: Tick) {
        self.job_mut(id).grace_over = Some(at);
        self.arm(step, id, Timer::Grace, at);
    }

    pub(crate) fn stop_signaled(
        &mut self,
        step: &mut Step<'_>,
        root: JobId,
        serial: Option<Serial>,
        outcome: Result<Outcome, Fault>,
    ) {
        if let Some(serial) = serial {
            let result = outcome.as_ref().map(|_| Reply::Done);
            step.reply(serial, result.map_err(|fault| fault.clone().into()));
        }
        let Some(job) = self.jobs.get_mut(&root) else { return };
        job.shots -= 1;
        // When the signal could not be sent, the kill at the end of the grace still can.
        let members = outcome.map_or(0, signaled_members);
        job.tally.signaled = members;
        if matches!(job.reason, EndReason::Limit(LimitKind::JobTime | LimitKind::WallTime)) {
            job.history.terminated += members;
        }
        if members > 0 {
            self.met_somebody(root);
        }
        // That they have left may be known before that they were asked.
        if self.job(root).settled {
            self.stop_answered(step, root);
        }
        self.settle(step, root);
    }

    /// Nobody is left of those whom a stop was for.
    fn stop_answered(&mut self, step: &mut Step<'_>, root: JobId) {
        let is_quiet = self.shots_have_landed(root);
        let job = self.job_mut(root);
        if is_quiet && matches!(job.ending, Ending::Stopping { root: by } if by == root) {
            job.tally.left = job.tally.signaled;
            self.finish_ending(step, root);
        }
    }

    pub(crate) fn grace_over(&mut self, step: &mut Step<'_>, root: JobId) {
        let reason = self.job(root).reason;
        if matches!(self.job(root).ending, Ending::Stopping { .. }) {
            self.begin_kill(step, root, reason, None);
        }
    }

    pub(crate) fn signal(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        signal: i32,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::TERMINATE)?;
        if !is_signal(signal) {
            return Err(Refusal::BadSignal { signal });
        }
        let Some(group) = self.ready_group(id) else { return Ok(Some(Reply::Signaled(0))) };
        let send = Effect::Signal { group, signal, resume: false };
        self.effect(step, None, send, Pending::Signal { serial });
        Ok(None)
    }

    pub(crate) fn state(&self, session: SessionId, handle: Handle) -> Result<Reply, Refusal> {
        let job = self.job(self.job_of(session, handle, Access::SYNCHRONIZE)?);
        let terminating = job.doomed || job.ending != Ending::No;
        Ok(Reply::State { signaled: job.is_signaled(), terminating })
    }

    /// The kernel says that nobody is in the group or below it.
    pub(crate) fn emptied(&mut self, step: &mut Step<'_>, group: GroupKey, commits: u64) {
        let Some(&id) = self.groups.get(&group) else { return };
        let job = self.job(id);
        if job.entering > 0 || job.commits != commits {
            return; // Old news.
        }
        for below in self.subtree(id) {
            self.disarm(step, below, Timer::Scan);
            if self.job(below).timers.is_armed(Timer::JobTime) {
                self.disarm(step, below, Timer::JobTime);
                // They may have used the time up before they left.
                self.job_time_due(step, below);
            }
            let job = self.job_mut(below);
            job.settled = true;
            job.tolerated = 0;
        }
        match self.job(id).ending {
            Ending::Stopping { root } if root == id => self.stop_answered(step, id),
            Ending::Killing { root, .. } if root == id => {
                if self.shots_have_landed(id) {
                    self.finish_ending(step, id);
                }
            }
            _ => self.settle(step, id),
        }
    }

    pub(crate) fn last_handle_closed(&mut self, step: &mut Step<'_>, id: JobId) {
        let job = self.job_mut(id);
        if job.limits.kill_on_close {
            job.doomed = true;
        } else {
            // Nobody could thaw it any more.
            job.freezer.reset();
            self.follow_freeze(step, id);
        }
        self.settle(step, id);
    }

    /// Takes a job without handles as far towards its end as it can go now.
    pub(crate) fn settle(&mut self, step: &mut Step<'_>, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        // Of a job without a group nobody is killed, whatever befalls its parent.
        let kills = matches!(job.ending, Ending::Killing { .. }) && job.group != Group::None;
        if job.handles > 0 || kills {
            return;
        }
        let occupied = job.entering > 0 || !job.children.is_empty();
        match job.group {
            Group::None if !occupied => self.destroy(step, id),
            Group::Ready(_) if occupied && job.doomed && !job.swept => {
                self.job_mut(id).swept = true;
                self.begin_kill(step, id, EndReason::OwnerClosed, None);
            }
            // An effect that is on its way must find the group.
            Group::Ready(_) if job.freezer.busy || job.shots > 0 => {}
            Group::Ready(group) if !occupied => {
                self.job_mut(id).group = Group::Retiring(group);
                self.effect(step, None, Effect::Retire { group }, Pending::Retire { job: id });
            }
            _ => {}
        }
    }

    pub(crate) fn retired(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Group::Retiring(group) = job.group else { return };
        let fault = match outcome {
            Ok(Outcome::Retired) => {
                job.group = Group::None;
                job.freezer.frozen = false;
                // The slot may have been given to another job by now.
                if self.groups.get(&group) == Some(&id) {
                    self.groups.remove(&group);
                }
                if self.job(id).never_used() && self.job(id).children.is_empty() {
                    self.unlink(step, id);
                }
                None
            }
            outcome => {
                job.group = Group::Ready(group);
                self.group_ready(step, id);
                self.keep_retiring(step, id, outcome.is_err());
                outcome.err()
            }
        };
        // A group in the wrong place is of no use to those who wait for it.
        let unusable = fault.filter(|_| self.job(id).is_misplaced());
        self.resume_waiting(step, id, unusable);
        if self.jobs.get(&id).is_some_and(|job| job.group == Group::None) {
            self.settle(step, id);
        }
    }

    /// A group that should go has members, or could not be removed.
    fn keep_retiring(&mut self, step: &mut Step<'_>, id: JobId, failed: bool) {
        let job = self.job(id);
        if job.handles > 0 && !(failed && job.never_used()) {
            return;
        }
        if failed {
            let at = step.at.after(LONGEST_REKILL_WAIT);
            self.arm(step, id, Timer::Rekill, at);
        } else if job.doomed {
            self.begin_kill(step, id, EndReason::OwnerClosed, None);
        }
        let job = self.job(id);
        if job.handles == 0 && !job.doomed && !self.orphans.contains(&id) {
            self.orphans.push(id);
        }
    }

    /// Looks whether jobs that nobody has a handle to have become empty. Done when a group is made,
    /// so that a host that leaves processes behind on purpose pays for it then and needs no thread.
    pub(crate) fn retry_orphans(&mut self, step: &mut Step<'_>) {
        for _ in 0..self.orphans.len().min(ORPHANS_AT_A_TIME) {
            let id = self.orphans.remove(0);
            self.settle(step, id);
        }
    }

    fn destroy(&mut self, step: &mut Step<'_>, id: JobId) {
        for timer in [Timer::Rekill, Timer::Grace, Timer::Wall, Timer::JobTime, Timer::Scan] {
            self.disarm(step, id, timer);
        }
        let job = self.jobs.remove(&id);
        // Nothing is on its way to a group that is gone.
        debug_assert!(job.as_ref().is_none_or(|job| !job.freezer.busy && job.shots == 0));
        self.orphans.retain(|orphan| *orphan != id);
        if let Some(parent) = job.and_then(|job| job.parent) {
            // The dead that can be asked about were in the parent too.
            for record in self.processes.values_mut().filter(|record| **record == id) {
                *record = parent;
            }
            self.job_mut(parent).children.retain(|child| *child != id);
            self.settle(step, parent);
        }
    }
}

impl crate::job::Job {
    /// Puts the reason of an ending on record, unless one is there: the first cause counts, and of
    /// a job that is known to be empty nothing is ended.
    fn record(&mut self, reason: EndReason) {
        if self.ending != Ending::No {
            return;
        }
        self.reason_before = None;
        if !self.settled || self.entering > 0 {
            self.reason_before = Some(std::mem::replace(&mut self.reason, reason));
        }
    }

    fn tally_kill(&mut self, members: u32, after_stop: bool) {
        if after_stop {
            self.tally.killed = members;
            self.tally.left = self.tally.signaled.saturating_sub(members);
        } else if matches!(self.reason, EndReason::Limit(_)) {
            self.history.terminated += members;
        }
    }
}
