//! What a job has used: its own members, those of the jobs below it, the dead included.
//!
//! CPU times are the kernel's, hierarchical and complete; to them come the times that processes had
//! used before they joined. Counts of processes are what we saw: until every birth is told,
//! `total_processes` is a lower bound and says so.
//!
//! Source: *JOBOBJECT_BASIC_ACCOUNTING_INFORMATION*.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{Access, Accounting, Handle, Reply, Total};

use crate::effect::{Effect, Fault, Outcome};
use crate::job::entry::EntryId;
use crate::job::{Ending, History, Job, JobId};
use crate::manager::{ObjectManager, Pending, Serial, SessionId, Step};
use crate::process::Member;
use crate::refusal::Refusal;

/// How many members a job may have on record, the dead included, without looking who is alive.
const REMEMBERED: usize = 1024;

impl ObjectManager {
    pub(crate) fn accounting(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        active: bool,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::QUERY)?;
        let Some(group) = self.ready_group(id) else {
            let accounting = self.job(id).accounting(CpuTimes::default(), active.then_some(0));
            return Ok(Some(Reply::Accounting(accounting)));
        };
        let pending = Pending::Accounting { job: id, serial, active };
        self.effect(step, Some(serial), Effect::Usage { group, active }, pending);
        Ok(None)
    }

    pub(crate) fn accounting_read(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        serial: Serial,
        wanted: bool,
        outcome: Result<Outcome, Fault>,
    ) {
        let result = self.read_usage(id, wanted, outcome).map(Reply::Accounting);
        step.reply(serial, result);
    }

    fn read_usage(
        &self,
        id: JobId,
        wanted: bool,
        outcome: Result<Outcome, Fault>,
    ) -> Result<Accounting, Refusal> {
        let Some(job) = self.jobs.get(&id) else { return Ok(Accounting::default()) };
        match outcome {
            Ok(Outcome::Usage { cpu, active }) => {
                Ok(job.accounting(cpu, wanted.then_some(active.unwrap_or(0))))
            }
            Ok(_) => Err(Fault::unexpected("cpu.stat").into()),
            Err(fault) => Err(fault.into()),
        }
    }

    pub(crate) fn end(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::QUERY)?;
        let Some(group) = self.ready_group(id) else {
            return Ok(Some(self.job(id).end(self.job(id).accounting(CpuTimes::default(), None))));
        };
        let pending = Pending::End { job: id, serial };
        self.effect(step, Some(serial), Effect::Usage { group, active: false }, pending);
        Ok(None)
    }

    pub(crate) fn end_read(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        serial: Serial,
        outcome: Result<Outcome, Fault>,
    ) {
        let accounting = self.read_usage(id, false, outcome);
        let result = accounting.map(|accounting| match self.jobs.get(&id) {
            Some(job) => job.end(accounting),
            None => Reply::Done,
        });
        step.reply(serial, result);
    }

    pub(crate) fn members(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
    ) -> Result<Option<Reply>, Refusal> {
        let id = self.job_of(session, handle, Access::QUERY)?;
        let Some(group) = self.ready_group(id) else {
            return Ok(Some(Reply::Members(Vec::new())));
        };
        let pending = Pending::List { job: id, serial: Some(serial), since: self.arrivals };
        self.effect(step, Some(serial), Effect::List { group }, pending);
        Ok(None)
    }

    pub(crate) fn listed(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        serial: Option<Serial>,
        since: u64,
        outcome: Result<Outcome, Fault>,
    ) {
        let result = match outcome {
            Ok(Outcome::Members(members)) => {
                Ok(Reply::Members(self.take_list(id, since, &members)))
            }
            Ok(_) => Err(Fault::unexpected("cgroup.procs").into()),
            Err(fault) => Err(fault.into()),
        };
        if let Some(serial) = serial {
            step.reply(serial, result);
        }
    }

    /// Brings the record up to date with what the kernel listed; the list, in the order of arrival.
    fn take_list(&mut self, id: JobId, since: u64, members: &[Member]) -> Vec<u32> {
        if !self.jobs.contains_key(&id) {
            return Vec::new();
        }
        for member in members {
            self.notice(*member);
        }
        // Whoever is gone is forgotten, but not while another list is on its way that may still show
        // it, or a birth is that a list has shown already: it would be counted twice.
        let is_quiet = self.job(id).entering == 0 && !self.is_listing();
        let history = &mut self.job_mut(id).history;
        let listed: HashSet<u32> = members.iter().map(|member| member.pid).collect();
        history.seen.retain(|pid, arrival| !is_quiet || *arrival > since || listed.contains(pid));
        history.forget_at = history.seen.len() * 2;
        let mut pids: Vec<u32> = members.iter().map(|member| member.pid).collect();
        pids.sort_by_key(|pid| history.seen.get(pid).copied().unwrap_or(u64::MAX));
        pids.dedup();
        pids
    }

    fn is_listing(&self) -> bool {
        self.effects.values().any(|pending| matches!(pending, Pending::List { .. }))
    }

    /// Forgets the dead of a job that nobody lists, before there are too many of them.
    pub(crate) fn forget_the_dead(&mut self, step: &mut Step<'_>, id: JobId) {
        let history = &self.job(id).history;
        if history.seen.len() < history.forget_at.max(REMEMBERED) || self.is_listing() {
            return;
        }
        if let Some(group) = self.ready_group(id) {
            let pending = Pending::List { job: id, serial: None, since: self.arrivals };
            self.effect(step, None, Effect::List { group }, pending);
        }
    }

    /// Puts a member on record that nobody told us of: it was forked by another.
    fn notice(&mut self, member: Member) {
        let Some(&job) = self.groups.get(&member.group) else { return };
        if self.job(job).history.seen.contains_key(&member.pid) {
            return;
        }
        let arrival = self.next_arrival();
        let chain: Vec<JobId> = self.chain(job).collect();
        for level in chain {
            self.job_mut(level).history.see(member.pid, arrival);
        }
    }

    /// A process brings along what it had used before it joined.
    pub(crate) fn add_time_before(&mut self, entry: EntryId, used: CpuTimes) {
        for level in self.joined(entry) {
            let history = &mut self.job_mut(level).history;
            history.before = history.before.plus(used);
        }
    }
}

impl History {
    /// Puts a member on record, unless it is.
    pub(crate) fn see(&mut self, pid: u32, arrival: u64) {
        if let Entry::Vacant(unseen) = self.seen.entry(pid) {
            unseen.insert(arrival);
            self.total += 1;
        }
    }
}

impl Job {
    fn accounting(&self, cpu: CpuTimes, active: Option<u32>) -> Accounting {
        let all = cpu.plus(self.history.before);
        let period = all.minus(self.history.period_start);
        let refused = self.history.refused.len() as u32;
        // Whoever is being killed is off the count at once, as on Windows.
        let gone = matches!(self.ending, Ending::Killing { .. });
        Accounting {
            user_time: all.user,
            kernel_time: all.kernel,
            period_user_time: period.user,
            period_kernel_time: period.kernel,
            total_processes: if self.used {
                Total::AtLeast(self.history.total)
            } else {
                Total::Exact(0)
            },
            active_processes: active.map(|active| if gone { refused } else { active + refused }),
            terminated_processes: self.history.terminated,
        }
    }

    fn end(&self, accounting: Accounting) -> Reply {
        Reply::End {
            reason: self.reason,
            stop: self.tally,
            over_limit: self.history.over_limit,
            accounting,
        }
    }
}
