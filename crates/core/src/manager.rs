//! The only way in: one input at a time, taken to its end.
//!
//! Rules that everything here keeps:
//! - every input carries the time; a deadline is armed by an output and comes back as an input;
//! - decide, then act: a refusal comes before the first change;
//! - whatever the kernel must do is an effect; while it is on its way other inputs may come, and
//!   what continues afterwards looks at the state anew;
//! - membership is never remembered, only history.

use std::collections::HashMap;
use std::time::Duration;

use jobobject_abi::{Access, Call, EndReason, Handle, Reply, Tick};

use crate::effect::{Effect, EffectId, Fault, GroupKey, Outcome};
use crate::event::Event;
use crate::job::close::Stop;
use crate::job::entry::{Behind, Entry, EntryId};
use crate::job::{Group, Job, JobId, Nesting};
use crate::object::handle::HandleTable;
use crate::process::{Place, ProcessFacts, ProcessKey};
use crate::refusal::Refusal;

/// Up to so many jobs, a debug build checks all invariants after every step.
#[cfg(debug_assertions)]
const CHECKED_JOBS: usize = 256;

/// How soon a deadline comes again that found the job's group being removed.
pub(crate) const AFTER_RETIRING: Duration = Duration::from_millis(1);

/// What the object manager is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether jobs can nest, as since Windows 8.
    pub nesting: Nesting,
    /// How many CPUs could burn a job's time at once.
    pub cpus: u32,
    /// How often a job with an active-process limit is looked at.
    pub scan: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { nesting: Nesting::Hierarchy, cpus: 1, scan: Duration::from_millis(10) }
    }
}

/// Names a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// Names a call until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// What the kernel said, a moment ago, of the processes that a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the caller is.
    pub caller: Place,
    /// The process the call names, when it names one.
    pub process: Option<ProcessFacts>,
}

impl Facts {
    /// Of a call that concerns nobody's membership.
    pub const NONE: Self = Self { caller: Place::Outside, process: None };
}

/// Everything that can happen to the object manager, one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A client asked.
    Call {
        /// Who.
        session: SessionId,
        /// How the reply will name the call. The host never uses one twice.
        serial: Serial,
        /// What.
        call: Call,
        /// What the call's decision rests on.
        facts: Facts,
    },
    /// A client is gone: its handles close one by one, in table order.
    Hangup {
        /// Who.
        session: SessionId,
    },
    /// The kernel did, or could not do, what an earlier effect asked; with what was learnt.
    Done {
        /// Which effect.
        effect: EffectId,
        /// How it went.
        outcome: Result<Outcome, Fault>,
    },
    /// The kernel reports a fact.
    Event(Event),
    /// A deadline that an earlier output armed is due.
    Deadline {
        /// Which.
        timer: TimerId,
    },
}

/// What comes out of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A call is answered.
    Reply {
        /// Which call.
        serial: Serial,
        /// How.
        result: Result<Reply, Refusal>,
    },
    /// The platform is asked to do something.
    Effect {
        /// How [`Input::Done`] will name it.
        id: EffectId,
        /// The call it is done for, if it is one call's: of a birth, the one that has the token.
        serial: Option<Serial>,
        /// What.
        effect: Effect,
    },
    /// [`Input::Deadline`] is wanted at `at`; replaces an earlier deadline of the same timer.
    Arm {
        /// Which timer.
        timer: TimerId,
        /// When.
        at: Tick,
    },
    /// The deadline is not wanted any more.
    Disarm {
        /// Which timer.
        timer: TimerId,
    },
}

/// A timer of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    /// Whose.
    pub job: JobId,
    /// Which.
    pub timer: Timer,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Look whether a killed job is empty, and kill again if not.
    Rekill,
    /// The grace of a stop is over.
    Grace,
    /// The wall-clock time is used up.
    Wall,
    /// The job time could be used up.
    JobTime,
    /// Look for processes over the active-process limit.
    Scan,
}

/// An effect on its way, and what continues when it is done.
#[derive(Debug)]
pub(crate) enum Pending {
    MakeGroup {
        job: JobId,
    },
    FreshLeaf {
        job: JobId,
    },
    Count {
        entry: EntryId,
        job: JobId,
    },
    Enter {
        entry: EntryId,
    },
    Kill {
        job: JobId,
        serial: Option<Serial>,
    },
    Signal {
        serial: Serial,
    },
    StopSignal {
        job: JobId,
        serial: Option<Serial>,
    },
    Freeze {
        job: JobId,
        frozen: bool,
    },
    Guard {
        change: Box<LimitChange>,
    },
    GuardFirst {
        job: JobId,
        guarded: bool,
    },
    Period {
        change: Box<LimitChange>,
    },
    Regard {
        job: JobId,
    },
    JobTime {
        job: JobId,
    },
    Trim {
        job: JobId,
    },
    Accounting {
        job: JobId,
        serial: Serial,
        active: bool,
    },
    End {
        job: JobId,
        serial: Serial,
    },
    List {
        job: JobId,
        /// `None`: nobody asked, the record is brought up to date.
        serial: Option<Serial>,
        since: u64,
    },
    Retire {
        job: JobId,
    },
    /// Nothing continues.
    Forgotten,
}

/// A set of limits that the kernel must first agree to.
#[derive(Debug)]
pub(crate) struct LimitChange {
    pub(crate) serial: Serial,
    pub(crate) job: JobId,
    pub(crate) limits: jobobject_abi::Limits,
}

/// One step: its time, and where its outputs go.
pub(crate) struct Step<'a> {
    pub(crate) at: Tick,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Step<'_> {
    pub(crate) fn reply(&mut self, serial: Serial, result: Result<Reply, Refusal>) {
        self.out.push(Output::Reply { serial, result });
    }
}

/// The jobs, their handles and their history.
#[derive(Debug)]
pub struct ObjectManager {
    pub(crate) config: Config,
    pub(crate) sessions: HashMap<SessionId, HandleTable>,
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) groups: HashMap<GroupKey, JobId>,
    pub(crate) entries: HashMap<EntryId, Entry>,
    /// Assignments that wait for an earlier one of the same process.
    pub(crate) behind: Vec<Behind>,
    pub(crate) effects: HashMap<EffectId, Pending>,
    /// Of processes that somebody can still ask about: their immediate job.
    pub(crate) processes: HashMap<ProcessKey, JobId>,
    /// Jobs without handles whose members live on.
    pub(crate) orphans: Vec<JobId>,
    next_job: u64,
    next_handle: u64,
    next_effect: u64,
    next_entry: u64,
    /// Counts arrivals, so that the id lists keep their order.
    pub(crate) arrivals: u64,
}

impl ObjectManager {
    /// An object manager without jobs.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            sessions: HashMap::new(),
            jobs: HashMap::new(),
            groups: HashMap::new(),
            entries: HashMap::new(),
            behind: Vec::new(),
            effects: HashMap::new(),
            processes: HashMap::new(),
            orphans: Vec::new(),
            next_job: 1,
            next_handle: 1,
            next_effect: 1,
            next_entry: 1,
            arrivals: 0,
        }
    }

    /// Takes one input, which happened at `at`, to its end. Never blocks, never fails: what went
    /// wrong is in `out`.
    pub fn step(&mut self, at: Tick, input: Input, out: &mut Vec<Output>) {
        let mut step = Step { at, out };
        let step = &mut step;
        match input {
            Input::Call { session, serial, call, facts } => {
                self.call(step, session, serial, call, facts)
            }
            Input::Hangup { session } => self.hangup(step, session),
            Input::Done { effect, outcome } => self.done(step, effect, outcome),
            Input::Event(Event::Emptied { group, commits }) => self.emptied(step, group, commits),
            Input::Event(Event::Released { process }) => self.released(process),
            Input::Deadline { timer } => self.deadline(step, timer),
        }
        // With thousands of jobs the check would take longer than all that is checked.
        #[cfg(debug_assertions)]
        if self.jobs.len() <= CHECKED_JOBS
            && let Some(broken) = self.broken_invariant()
        {
            panic!("object manager: {broken}");
        }
    }

    /// How many job objects exist, those without handles included.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// The job behind a handle, when the handle carries `right`.
    ///
    /// # Errors
    /// [`Refusal::InvalidHandle`], [`Refusal::MissingRight`].
    pub fn job_of(
        &self,
        session: SessionId,
        handle: Handle,
        right: Access,
    ) -> Result<JobId, Refusal> {
        let table = self.sessions.get(&session);
        let entry = table.and_then(|table| table.get(handle));
        let entry = entry.ok_or(Refusal::InvalidHandle { handle })?;
        let missing = right.difference(entry.access);
        if missing.is_empty() {
            Ok(entry.job)
        } else {
            Err(Refusal::MissingRight { handle, missing })
        }
    }

    /// The group of a job, when it has one that newcomers could be in.
    #[must_use]
    pub fn group_of(&self, job: JobId) -> Option<GroupKey> {
        let group = self.jobs.get(&job).and_then(|job| job.group.key());
        group.filter(|group| self.groups.get(group) == Some(&job))
    }

    /// What a look at the kernel must start from to say that a job is empty: see
    /// [`Event::Emptied`]. `None` while somebody is on the way into the job or a job below it, or a
    /// kill is.
    #[must_use]
    pub fn commits(&self, job: JobId) -> Option<u64> {
        let is_quiet = |found: &&Job| found.entering == 0 && self.shots_have_landed(job);
        self.jobs.get(&job).filter(is_quiet).map(|job| job.commits)
    }

    fn call(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        call: Call,
        facts: Facts,
    ) {
        let result = match call {
            Call::Create { limits } => self.create(session, limits).map(Some),
            Call::Duplicate { job, access } => self.duplicate(session, job, access).map(Some),
            Call::Close { job } => self.close(step, session, job).map(Some),
            Call::SetLimits { job, limits } => self.set_limits(step, session, serial, job, limits),
            Call::QueryLimits { job } => self.query_limits(session, job, &facts).map(Some),
            Call::Spawn { jobs, breakaway } => {
                self.spawn(step, session, serial, &jobs, breakaway, &facts)
            }
            Call::Assign { job, from_foreign } => {
                self.assign(step, session, serial, job, from_foreign, facts)
            }
            Call::IsInJob { job } => self.is_in_job(session, job, &facts).map(Some),
            Call::Members { job } => self.members(step, session, serial, job),
            Call::Terminate { job, code, by } => {
                self.terminate(step, session, serial, job, code, by)
            }
            Call::Stop { job, signal, grace, code, by } => {
                let reason = EndReason::Terminated { code, by };
                self.stop(step, session, serial, job, Stop { signal, grace, reason })
            }
            Call::Signal { job, signal } => self.signal(step, session, serial, job, signal),
            Call::Freeze { job } => self.freeze(step, session, serial, job),
            Call::Thaw { job } => self.thaw(step, session, serial, job),
            Call::Accounting { job, active } => self.accounting(step, session, serial, job, active),
            Call::End { job } => self.end(step, session, serial, job),
            Call::State { job } => self.state(session, job).map(Some),
        };
        match result {
            Ok(Some(reply)) => step.reply(serial, Ok(reply)),
            Ok(None) => {}
            Err(refusal) => step.reply(serial, Err(refusal)),
        }
    }

    fn done(&mut self, step: &mut Step<'_>, effect: EffectId, outcome: Result<Outcome, Fault>) {
        let Some(pending) = self.effects.remove(&effect) else { return };
        match pending {
            Pending::MakeGroup { job } => self.group_made(step, job, outcome),
            Pending::FreshLeaf { job } => self.leaf_made(step, job, outcome),
            Pending::Count { entry, job } => self.counted(step, entry, job, outcome),
            Pending::Enter { entry } => self.entered(step, entry, outcome),
            Pending::Kill { job, serial } => self.killed(step, job, serial, outcome),
            Pending::Signal { serial } => {
                let members = outcome.map(signaled_members).map_err(Refusal::from);
                step.reply(serial, members.map(Reply::Signaled));
            }
            Pending::StopSignal { job, serial } => self.stop_signaled(step, job, serial, outcome),
            Pending::Freeze { job, frozen } => self.froze(step, job, frozen, outcome),
            Pending::Guard { change } => self.guarded(step, *change, outcome),
            Pending::GuardFirst { job, guarded } => self.guard_made(step, job, guarded, outcome),
            Pending::Period { change } => self.period_begun(step, *change, outcome),
            Pending::Regard { job } => self.regarded(job, outcome),
            Pending::JobTime { job } => self.job_time_read(step, job, outcome),
            Pending::Trim { job } => self.trimmed(step, job, outcome),
            Pending::Accounting { job, serial, active } => {
                self.accounting_read(step, job, serial, active, outcome)
            }
            Pending::End { job, serial } => self.end_read(step, job, serial, outcome),
            Pending::List { job, serial, since } => self.listed(step, job, serial, since, outcome),
            Pending::Retire { job } => self.retired(step, job, outcome),
            Pending::Forgotten => {}
        }
    }

    fn deadline(&mut self, step: &mut Step<'_>, timer: TimerId) {
        let Some(job) = self.jobs.get_mut(&timer.job) else { return };
        if !job.timers.take(timer.timer) {
            return; // Disarmed while it was on its way.
        }
        if let Group::Retiring(_) = job.group {
            // Whether anybody is there is known when that is done.
            return self.arm(step, timer.job, timer.timer, step.at.after(AFTER_RETIRING));
        }
        match timer.timer {
            Timer::Rekill => self.kill_again(step, timer.job),
            Timer::Grace => self.grace_over(step, timer.job),
            Timer::Wall => self.wall_time_over(step, timer.job),
            Timer::JobTime => self.job_time_due(step, timer.job),
            Timer::Scan => self.scan(step, timer.job),
        }
    }

    /// The process is dead and nobody holds a handle to it.
    fn released(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
        // Refusals are rare and no index is worth their upkeep, so every job is looked at; an
        // ordinary process costs a walk only while some candidate is on record.
        for job in self.jobs.values_mut().filter(|job| !job.history.refused.is_empty()) {
            job.history.refused.retain(|refused| *refused != process);
        }
    }

    pub(crate) fn effect(
        &mut self,
        step: &mut Step<'_>,
        serial: Option<Serial>,
        effect: Effect,
        pending: Pending,
    ) {
        let id = EffectId(self.next_effect);
        self.next_effect += 1;
        self.effects.insert(id, pending);
        step.out.push(Output::Effect { id, serial, effect });
    }

    pub(crate) fn arm(&mut self, step: &mut Step<'_>, job: JobId, timer: Timer, at: Tick) {
        self.job_mut(job).timers.arm(timer);
        step.out.push(Output::Arm { timer: TimerId { job, timer }, at });
    }

    pub(crate) fn disarm(&mut self, step: &mut Step<'_>, job: JobId, timer: Timer) {
        if self.job_mut(job).timers.take(timer) {
            step.out.push(Output::Disarm { timer: TimerId { job, timer } });
        }
    }

    pub(crate) fn new_job_id(&mut self) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        id
    }

    pub(crate) fn new_entry_id(&mut self) -> EntryId {
        let id = EntryId(self.next_entry);
        self.next_entry += 1;
        id
    }

    pub(crate) fn open_handle(&mut self, session: SessionId, job: JobId, access: Access) -> Handle {
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.sessions.entry(session).or_default().insert(handle, job, access);
        self.job_mut(job).handles += 1;
        handle
    }

    /// A job that is known to exist: its id came from a handle, a group or a list of this manager.
    pub(crate) fn job(&self, id: JobId) -> &Job {
        &self.jobs[&id]
    }

    /// As [`Self::job`].
    pub(crate) fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a job that the manager names exists")
    }

    /// The job that a place is in, `None` outside of all.
    pub(crate) fn job_at(&self, place: &Place) -> Option<JobId> {
        match place {
            Place::Group(group) => self.groups.get(group).copied(),
            _ => None,
        }
    }

    /// The group that effects on a job's members go to; `None` while it cannot have any.
    pub(crate) fn ready_group(&self, job: JobId) -> Option<GroupKey> {
        match self.job(job).group {
            Group::Ready(group) | Group::Renewing(group) => Some(group),
            _ => None,
        }
    }
}

pub(crate) fn signaled_members(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Signaled { members } => members,
        _ => 0,
    }
}
