//! Who may enter a job: spawns and assignments, inheritance, breakaway.
//!
//! An entry goes through stages, and at each the state may have changed meanwhile:
//!
//! 1. *admitted*: the rules of membership hold; the parent links it makes are in place;
//! 2. *counted*: every limited job of the chain has room, by the kernel's count;
//! 3. *placed*: every job of the chain has a group, the innermost a leaf fit for births;
//! 4. *acting*: the kernel is at it, on the caller's thread, without anybody's lock;
//! 5. *committed* or undone.
//!
//! A kill that passes while an entry is admitted refuses it; one that passes while the kernel is at
//! it does not end before the entry does, so that nobody slips through.
//!
//! Source: *AssignProcessToJobObject*, remarks; *Nested Jobs*; *Process Creation Flags*.

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{Access, Handle, JobTime, Reply, Ticks};

use crate::effect::{Effect, Fault, Outcome, Target};
use crate::job::tree::Join;
use crate::job::{Ending, Group, JobId, Nesting};
use crate::manager::{Facts, ObjectManager, Pending, Serial, SessionId, Step, Timer};
use crate::process::{Place, ProcessFacts, ProcessKey, ProcessState};
use crate::refusal::Refusal;

/// Names an entry until it is committed or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(crate) u64);

/// What enters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// A process that is to be born.
    Birth,
    /// A running process.
    Assigned { process: ProcessKey, pid: u32 },
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The limited jobs are being counted; so many counts are outstanding.
    Counting { outstanding: u32 },
    /// It waits for an entry in flight that may or may not take the last place.
    Parked,
    /// The groups are being made.
    Placing,
    /// The kernel is at it.
    Acting,
}

/// A newcomer on the way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) serial: Serial,
    pub(crate) newcomer: Newcomer,
    /// The immediate job to be; `None`: in no job.
    pub(crate) target: Option<JobId>,
    /// The target and its ancestors, innermost first.
    pub(crate) chain: Vec<JobId>,
    /// How many of the chain, from the innermost, the newcomer is new to.
    pub(crate) joined: usize,
    /// Nothing but inheritance decides where it goes.
    pub(crate) inherits: bool,
    pub(crate) stage: Stage,
    /// The last arrival before its admission.
    since: u64,
    /// The count of kills of each job of the chain, at admission.
    kills: Vec<u64>,
    /// What the limited jobs counted, and after which commit.
    counts: Vec<Count>,
}

#[derive(Debug)]
struct Count {
    job: JobId,
    commits: u64,
    active: u32,
}

/// An assignment of a process that is being assigned: where the process is then is not known yet.
#[derive(Debug)]
pub(crate) struct Behind {
    session: SessionId,
    serial: Serial,
    handle: Handle,
    from_foreign: bool,
    facts: Facts,
    process: ProcessKey,
}

/// What became of a process that was assigned.
#[derive(Debug, Clone, Copy)]
enum Came {
    In,
    Not,
    /// A limit refused it, and it is being ended.
    Dying,
}

/// Where a newcomer is to go, before it is admitted.
struct Plan {
    newcomer: Newcomer,
    target: Option<JobId>,
    joined: usize,
    inherits: bool,
}

impl ObjectManager {
    pub(crate) fn spawn(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handles: &[Handle],
        breakaway: bool,
        facts: &Facts,
    ) -> Result<Option<Reply>, Refusal> {
        let mut jobs = Vec::with_capacity(handles.len());
        for handle in handles {
            jobs.push(self.job_of(session, *handle, Access::ASSIGN_PROCESS)?);
        }
        let creator = self.job_at(&facts.caller);
        let inherited = self.inherited(creator, breakaway)?;
        let target = self.nest_in_order(inherited, &jobs)?;
        // The caller's group is below the base group even if the caller is in no job.
        let inherits = target == creator;
        let joined = target.map_or(0, |job| self.chain(job).count());
        self.admit(step, serial, Plan { newcomer: Newcomer::Birth, target, joined, inherits })?;
        Ok(None)
    }

    /// What a child of a process in `creator` inherits. Breaking away leaves one job after the
    /// other, up to the first that does not allow it.
    fn inherited(&self, creator: Option<JobId>, asked: bool) -> Result<Option<JobId>, Refusal> {
        let mut current = creator;
        while let Some(job) = current {
            let limits = &self.job(job).limits;
            if !(limits.silent_breakaway_ok || asked && limits.breakaway_ok) {
                if asked && current == creator {
                    return Err(Refusal::BreakawayDenied { job });
                }
                break;
            }
            current = self.job(job).parent;
        }
        Ok(current)
    }

    /// Nests each listed job below the one before it. A failure half way leaves its traces: the
    /// jobs already joined count the attempt and keep the parent they got.
    fn nest_in_order(
        &mut self,
        inherited: Option<JobId>,
        jobs: &[JobId],
    ) -> Result<Option<JobId>, Refusal> {
        let mut current = inherited;
        for (index, &job) in jobs.iter().enumerate() {
            let refused = match current {
                Some(_) if self.config.nesting == Nesting::Single => true,
                _ => match self.join(current, job) {
                    Some(Join::Nest) => {
                        self.link(job, current.expect("nesting needs a job to nest in"));
                        false
                    }
                    Some(Join::Fresh | Join::Already | Join::Descend) => false,
                    None => true,
                },
            };
            if refused {
                let current = current.expect("whoever is in no job may enter any");
                if index > 0 {
                    self.count_attempt(current);
                }
                return Err(Refusal::CannotNest { current, job });
            }
            current = Some(job);
        }
        Ok(current)
    }

    /// The job and its ancestors had a process for a moment.
    fn count_attempt(&mut self, job: JobId) {
        let chain: Vec<JobId> = self.chain(job).collect();
        for level in chain {
            let job = self.job_mut(level);
            job.used = true;
            job.history.total += 1;
        }
    }

    pub(crate) fn assign(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        serial: Serial,
        handle: Handle,
        from_foreign: bool,
        facts: Facts,
    ) -> Result<Option<Reply>, Refusal> {
        let job = self.job_of(session, handle, Access::ASSIGN_PROCESS)?;
        let Some(process) = &facts.process else { return Err(Refusal::NoProcess) };
        let key = process.process;
        if self.is_being_assigned(key) {
            let behind = Behind { session, serial, handle, from_foreign, facts, process: key };
            self.behind.push(behind);
            return Ok(None);
        }
        let join = self.may_assign(process, job, from_foreign)?;
        let current = self.job_at(&process.place);
        let joined = match join {
            Join::Already => return Ok(Some(Reply::Done)),
            Join::Fresh => self.chain(job).count(),
            Join::Nest => 1,
            Join::Descend => self.chain(job).take_while(|level| Some(*level) != current).count(),
        };
        if join == Join::Nest {
            self.link(job, current.expect("nesting needs a job to nest in"));
        }
        let newcomer = Newcomer::Assigned { process: process.process, pid: process.pid };
        let plan = Plan { newcomer, target: Some(job), joined, inherits: false };
        self.admit(step, serial, plan)?;
        Ok(None)
    }

    fn is_being_assigned(&self, process: ProcessKey) -> bool {
        let is_it = |entry: &Entry| matches!(entry.newcomer, Newcomer::Assigned { process: p, .. } if p == process);
        self.entries.values().any(is_it)
    }

    /// An assignment is over: the next one of the same process is decided by where that is now.
    fn assign_next(&mut self, step: &mut Step<'_>, entry: &Entry, came: Came) {
        let Newcomer::Assigned { process, .. } = entry.newcomer else { return };
        let group = entry.target.and_then(|job| self.group_of(job));
        let behind = self.behind.iter_mut().filter(|next| next.process == process);
        for known in behind.filter_map(|next| next.facts.process.as_mut()) {
            match (came, group) {
                (Came::In, Some(group)) => known.place = Place::Group(group),
                (Came::In | Came::Dying, _) => known.state = ProcessState::Ended,
                (Came::Not, _) => {}
            }
        }
        while !self.is_being_assigned(process)
            && let Some(next) = self.behind.iter().position(|next| next.process == process)
        {
            let Behind { session, serial, handle, from_foreign, facts, .. } =
                self.behind.remove(next);
            match self.assign(step, session, serial, handle, from_foreign, facts) {
                Ok(Some(reply)) => step.reply(serial, Ok(reply)),
                Ok(None) => {}
                Err(refusal) => step.reply(serial, Err(refusal)),
            }
        }
    }

    /// Decides whether `process` may join `job`, as far as no limit is concerned. Reads everything,
    /// changes nothing.
    fn may_assign(
        &self,
        process: &ProcessFacts,
        job: JobId,
        from_foreign: bool,
    ) -> Result<Join, Refusal> {
        let pid = process.pid;
        match process.state {
            ProcessState::Ended => return Err(Refusal::ProcessEnded { pid }),
            state @ (ProcessState::Init | ProcessState::Kernel) => {
                return Err(Refusal::Unassignable { pid, state });
            }
            ProcessState::Alive => {}
        }
        match &process.place {
            Place::ForeignJob(name) => {
                return Err(Refusal::InForeignJob { pid, name: name.clone() });
            }
            Place::ForeignGroup(name) if !from_foreign => {
                return Err(Refusal::InForeignGroup { pid, name: name.clone() });
            }
            _ => {}
        }
        let current = self.job_at(&process.place);
        match (current, self.config.nesting) {
            (Some(current), Nesting::Single) => Err(Refusal::NotInJobChain { pid, current, job }),
            (None, _) => Ok(Join::Fresh),
            (Some(current), Nesting::Hierarchy) => {
                self.join(Some(current), job).ok_or(Refusal::NotInJobChain { pid, current, job })
            }
        }
    }

    /// Takes an entry up, if no job of its chain is ending or has used up its time.
    fn admit(&mut self, step: &mut Step<'_>, serial: Serial, plan: Plan) -> Result<(), Refusal> {
        let chain: Vec<JobId> =
            plan.target.map(|job| self.chain(job).collect()).unwrap_or_default();
        let entry = Entry {
            serial,
            newcomer: plan.newcomer,
            target: plan.target,
            kills: chain.iter().map(|job| self.job(*job).kills).collect(),
            chain,
            joined: plan.joined,
            inherits: plan.inherits,
            stage: Stage::Placing,
            since: self.arrivals,
            counts: Vec::new(),
        };
        if let Err(refusal) = self.may_enter(&entry) {
            self.refuse(step, &entry, &refusal);
            return Err(refusal);
        }
        for &job in &entry.chain {
            self.job_mut(job).entering += 1;
        }
        let id = self.new_entry_id();
        self.entries.insert(id, entry);
        self.count(step, id);
        Ok(())
    }

    /// The rules that may come to bind while an entry is on its way.
    fn may_enter(&self, entry: &Entry) -> Result<(), Refusal> {
        for (&level, &kills) in entry.chain.iter().zip(&entry.kills) {
            let job = self.job(level);
            if job.doomed || job.ending != Ending::No || job.kills != kills {
                return Err(Refusal::Terminating { job: level });
            }
        }
        for &level in &entry.chain[..entry.joined] {
            if let Some(limit) = self.job(level).time_up() {
                return Err(Refusal::TimeUsedUp { job: level, limit });
            }
        }
        Ok(())
    }

    /// What a refusal leaves behind: an attempt on record, and the end of a candidate that broke a
    /// limit.
    fn refuse(&mut self, step: &mut Step<'_>, entry: &Entry, refusal: &Refusal) {
        if refusal.ends_candidate() {
            for &level in &entry.chain[..entry.joined] {
                let job = self.job_mut(level);
                job.used = true;
                job.history.total += 1;
                if let Newcomer::Assigned { process, .. } = entry.newcomer {
                    job.history.refused.push(process);
                }
            }
            if let Newcomer::Assigned { process, .. } = entry.newcomer {
                self.effect(step, None, Effect::KillProcess { process }, Pending::Forgotten);
            }
        }
        for &level in &entry.chain {
            self.forget_unused(step, level);
        }
    }

    /// Asks the kernel how many members each limited job has that the newcomer is new to.
    fn count(&mut self, step: &mut Step<'_>, id: EntryId) {
        let entry = &self.entries[&id];
        let limited: Vec<JobId> = entry.chain[..entry.joined]
            .iter()
            .copied()
            .filter(|job| self.job(*job).limits.active_processes.is_some())
            .collect();
        let retiring = |job: &&JobId| matches!(self.job(**job).group, Group::Retiring(_));
        if let Some(&job) = limited.iter().find(retiring) {
            // Members or not: that is known when the removal is done.
            self.entry_mut(id).stage = Stage::Parked;
            self.job_mut(job).waiting.push(id);
            return;
        }
        let mut outstanding = 0;
        let mut counts = Vec::with_capacity(limited.len());
        for job in limited {
            let commits = self.job(job).commits;
            counts.push(Count { job, commits, active: 0 });
            if let Some(group) = self.ready_group(job) {
                let count = Effect::Usage { group, active: true };
                self.effect(step, None, count, Pending::Count { entry: id, job });
                outstanding += 1;
            }
        }
        let entry = self.entry_mut(id);
        entry.counts = counts;
        entry.stage = Stage::Counting { outstanding };
        if outstanding == 0 {
            self.charge(step, id);
        }
    }

    pub(crate) fn counted(
        &mut self,
        step: &mut Step<'_>,
        id: EntryId,
        job: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let active = match outcome {
            Ok(Outcome::Usage { active: Some(active), .. }) => active,
            Ok(_) => 0,
            Err(fault) => return self.undo(step, id, fault.into()),
        };
        if let Some(count) = entry.counts.iter_mut().find(|count| count.job == job) {
            count.active = active;
        }
        if let Stage::Counting { outstanding } = &mut entry.stage {
            *outstanding -= 1;
            if *outstanding == 0 {
                self.charge(step, id);
            }
        }
    }

    /// Lets the entry through if every limited job has room, and parks it if that depends on others
    /// that are still on their way.
    fn charge(&mut self, step: &mut Step<'_>, id: EntryId) {
        let entry = &self.entries[&id];
        let mut recount = false;
        let mut park = None;
        let mut refusal = None;
        for count in &entry.counts {
            let job = self.job(count.job);
            let Some(limit) = job.limits.active_processes else { continue };
            let standing = count.active + job.history.refused.len() as u32;
            if job.commits != count.commits {
                recount = true;
            } else if standing >= limit {
                refusal =
                    Some(Refusal::TooManyProcesses { job: count.job, limit, active: standing });
                break;
            } else if standing + job.admitted >= limit {
                park = Some(count.job);
            }
        }
        if let Some(refusal) = refusal {
            self.undo(step, id, refusal);
        } else if recount {
            self.count(step, id);
        } else if let Some(job) = park {
            self.entry_mut(id).stage = Stage::Parked;
            self.job_mut(job).waiting.push(id);
        } else {
            let joined: Vec<JobId> = self.joined(id);
            for job in joined {
                self.job_mut(job).admitted += 1;
            }
            self.entry_mut(id).stage = Stage::Placing;
            self.place(step, id);
        }
    }

    /// The jobs that the newcomer is new to, innermost first.
    pub(crate) fn joined(&self, id: EntryId) -> Vec<JobId> {
        let entry = &self.entries[&id];
        entry.chain[..entry.joined].to_vec()
    }

    /// Makes sure that every job of the chain has a group, outermost first, then lets the kernel at
    /// it. Called again whenever one of them is done.
    fn place(&mut self, step: &mut Step<'_>, id: EntryId) {
        let entry = &self.entries[&id];
        let refused = self.may_enter(entry).err();
        if let Some(refusal) = refused {
            return self.undo(step, id, refusal);
        }
        if !entry.inherits {
            for job in entry.chain.clone().into_iter().rev() {
                if !self.prepare(step, job, Some(job) == self.entries[&id].target) {
                    self.job_mut(job).waiting.push(id);
                    return;
                }
            }
        }
        self.act(step, id);
    }

    /// Gives a job a group, or a fresh leaf where births need one. True when it has what it needs.
    fn prepare(&mut self, step: &mut Step<'_>, id: JobId, needs_leaf: bool) -> bool {
        let job = self.job(id);
        match job.group {
            Group::None => {
                let parent = job.parent.and_then(|parent| self.job(parent).group.key());
                let guarded = job.limits.kill_on_close;
                self.retry_orphans(step);
                let job = self.job_mut(id);
                job.group = Group::Making;
                job.group_parent = job.parent;
                job.leaf_kills = job.kills;
                job.guarded = guarded;
                let make = Effect::MakeGroup { parent, guarded };
                self.effect(step, None, make, Pending::MakeGroup { job: id });
                false
            }
            // `froze` lets the entry go on: the effect on its way must find the group.
            Group::Ready(_) if job.is_misplaced() && job.freezer.busy => false,
            Group::Ready(group) if job.is_misplaced() => {
                self.job_mut(id).group = Group::Retiring(group);
                self.effect(step, None, Effect::Retire { group }, Pending::Retire { job: id });
                false
            }
            Group::Ready(group) if job.guarded != job.limits.kill_on_close => {
                let guarded = job.limits.kill_on_close;
                self.job_mut(id).group = Group::Renewing(group);
                let pending = Pending::GuardFirst { job: id, guarded };
                self.effect(step, None, Effect::Guard { group, guarded }, pending);
                false
            }
            // Who comes into a frozen job finds it frozen; `froze` lets the entry go on.
            Group::Ready(_) if job.freezer.busy && !job.freezer.frozen => false,
            Group::Ready(group) if needs_leaf && job.stale_leaf => {
                let job = self.job_mut(id);
                job.group = Group::Renewing(group);
                job.leaf_kills = job.kills;
                let fresh = Effect::FreshLeaf { group };
                self.effect(step, None, fresh, Pending::FreshLeaf { job: id });
                false
            }
            Group::Ready(_) => true,
            Group::Making | Group::Renewing(_) | Group::Retiring(_) => false,
        }
    }

    pub(crate) fn group_made(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let result = match outcome {
            Ok(Outcome::Group(group)) => {
                self.groups.insert(group, id);
                let job = self.job_mut(id);
                job.group = Group::Ready(group);
                job.stale_leaf = job.kills != job.leaf_kills;
                self.group_ready(step, id);
                Ok(())
            }
            Ok(_) => Err(Fault::unexpected("mkdir")),
            Err(fault) => Err(fault),
        };
        if result.is_err() {
            self.job_mut(id).group = Group::None;
        }
        self.resume_waiting(step, id, result.err());
        self.settle(step, id);
    }

    /// What was asked of the job while it had no group, or one that was to go, is now asked of it.
    pub(crate) fn group_ready(&mut self, step: &mut Step<'_>, id: JobId) {
        let job = self.job(id);
        let Some(group) = job.group.key() else { return };
        if let processes @ Some(_) = job.limits.active_processes {
            self.effect(step, None, Effect::Fuse { group, processes }, Pending::Forgotten);
        }
        self.follow_freeze(step, id);
    }

    /// The guard of a group that was made while the limits changed.
    pub(crate) fn guard_made(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        guarded: bool,
        outcome: Result<Outcome, Fault>,
    ) {
        let job = self.job_mut(id);
        if let Group::Renewing(group) = job.group {
            job.group = Group::Ready(group);
        }
        if outcome.is_ok() {
            job.guarded = guarded;
        }
        self.resume_waiting(step, id, outcome.err());
        self.settle(step, id);
    }

    pub(crate) fn leaf_made(
        &mut self,
        step: &mut Step<'_>,
        id: JobId,
        outcome: Result<Outcome, Fault>,
    ) {
        let job = self.job_mut(id);
        if let Group::Renewing(group) = job.group {
            job.group = Group::Ready(group);
        }
        job.stale_leaf = outcome.is_err() || job.kills != job.leaf_kills;
        self.resume_waiting(step, id, outcome.err());
        self.settle(step, id);
    }

    /// Lets the entries that wait for this job go on, or fails them all.
    pub(crate) fn resume_waiting(&mut self, step: &mut Step<'_>, id: JobId, fault: Option<Fault>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let waiting = std::mem::take(&mut job.waiting);
        for entry in waiting {
            match (self.entries.get(&entry).map(|entry| entry.stage), &fault) {
                (Some(Stage::Placing), None) => self.place(step, entry),
                (Some(Stage::Placing), Some(fault)) => self.undo(step, entry, fault.clone().into()),
                (Some(Stage::Parked), _) => self.count(step, entry),
                _ => {}
            }
        }
    }

    /// Hands the entry to the kernel.
    fn act(&mut self, step: &mut Step<'_>, id: EntryId) {
        let entry = self.entry_mut(id);
        entry.stage = Stage::Acting;
        let serial = entry.serial;
        let newcomer = entry.newcomer.clone();
        let (target, inherits) = (entry.target, entry.inherits);
        let group = target.and_then(|job| self.job(job).group.key());
        let effect = match (newcomer, group) {
            (Newcomer::Birth, _) if inherits => Effect::Birth { target: Target::Inherit },
            (Newcomer::Birth, None) => Effect::Birth { target: Target::Outside },
            (Newcomer::Birth, Some(group)) => {
                let chain = &self.entries[&id].chain;
                let frozen = chain.iter().any(|job| self.job(*job).freezer.may_suspend());
                Effect::Birth { target: Target::Group { group, frozen } }
            }
            (Newcomer::Assigned { process, .. }, Some(group)) => Effect::Move { process, group },
            (Newcomer::Assigned { pid, .. }, None) => {
                return self.undo(step, id, Refusal::ProcessEnded { pid });
            }
        };
        self.each_level(id, |job| job.acting += 1);
        self.effect(step, Some(serial), effect, Pending::Enter { entry: id });
    }

    fn each_level(&mut self, id: EntryId, mut change: impl FnMut(&mut crate::job::Job)) {
        for job in self.entries[&id].chain.clone() {
            change(self.job_mut(job));
        }
    }

    pub(crate) fn entered(
        &mut self,
        step: &mut Step<'_>,
        id: EntryId,
        outcome: Result<Outcome, Fault>,
    ) {
        if !self.entries.contains_key(&id) {
            return;
        }
        let reply = match outcome {
            Ok(Outcome::Born { process, pid }) => {
                self.commit(step, id, process, pid, CpuTimes::default());
                Reply::Spawned { pid }
            }
            // It may be elsewhere again by now; membership is what the kernel says when asked.
            Ok(Outcome::Moved { place: _, used }) => {
                let Newcomer::Assigned { process, pid } = self.entries[&id].newcomer else {
                    return self.undo(step, id, Fault::unexpected("clone3").into());
                };
                self.commit(step, id, process, pid, used);
                Reply::Done
            }
            Ok(_) => return self.undo(step, id, Fault::unexpected("clone3").into()),
            Err(fault) => {
                let refusal = match self.entries[&id].newcomer {
                    Newcomer::Assigned { pid, .. } if fault.gone => Refusal::ProcessEnded { pid },
                    _ => fault.into(),
                };
                return self.undo(step, id, refusal);
            }
        };
        let entry = self.finish(id);
        step.reply(entry.serial, Ok(reply));
        self.assign_next(step, &entry, Came::In);
        self.after(step, &entry);
    }

    /// `used`: what a process that was assigned had used before.
    fn commit(
        &mut self,
        step: &mut Step<'_>,
        id: EntryId,
        process: ProcessKey,
        pid: u32,
        used: CpuTimes,
    ) {
        self.add_time_before(id, used);
        let arrival = self.next_arrival();
        let (target, joined) = (self.entries[&id].target, self.entries[&id].joined);
        let (chain, since) = (self.entries[&id].chain.clone(), self.entries[&id].since);
        for &level in &chain[..joined] {
            let job = self.job_mut(level);
            let look = job.used && (used.user > Ticks(0) || !job.timers.is_armed(Timer::JobTime));
            job.arrived(pid, arrival, since);
            self.watch_limits(step, level, look);
        }
        for &level in &chain[joined..] {
            // It was a member before, but perhaps nobody had seen it: a member had forked it.
            self.job_mut(level).history.see(pid, arrival);
        }
        if let Some(job) = target {
            self.processes.insert(process, job);
        }
    }

    pub(crate) fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Takes an entry off the books.
    fn finish(&mut self, id: EntryId) -> Entry {
        let entry = self.entries.remove(&id).expect("an entry is finished once");
        let acted = entry.stage == Stage::Acting;
        let admitted = matches!(entry.stage, Stage::Placing | Stage::Acting);
        for (index, &level) in entry.chain.iter().enumerate() {
            let job = self.job_mut(level);
            job.entering -= 1;
            if admitted && index < entry.joined {
                job.admitted -= 1;
            }
            if acted {
                job.acting -= 1;
            }
        }
        entry
    }

    /// Refuses an entry that was admitted.
    fn undo(&mut self, step: &mut Step<'_>, id: EntryId, refusal: Refusal) {
        let entry = self.finish(id);
        self.refuse(step, &entry, &refusal);
        let came = if refusal.ends_candidate() { Came::Dying } else { Came::Not };
        step.reply(entry.serial, Err(refusal));
        self.assign_next(step, &entry, came);
        self.after(step, &entry);
    }

    /// An entry is over, one way or the other: whoever waited for that goes on.
    fn after(&mut self, step: &mut Step<'_>, entry: &Entry) {
        for &level in &entry.chain {
            if self.jobs.contains_key(&level) {
                self.forget_the_dead(step, level);
                self.follow_freeze(step, level);
                self.resume_waiting(step, level, None);
                self.settle(step, level);
            }
        }
    }

    /// A job that a failed entry gave a group or a parent, and that nobody was ever in, is as it was.
    pub(crate) fn forget_unused(&mut self, step: &mut Step<'_>, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if !job.never_used() || !job.children.is_empty() {
            return;
        }
        match job.group {
            Group::None => self.unlink(step, id),
            Group::Ready(group) if !job.freezer.busy && job.shots == 0 => {
                self.job_mut(id).group = Group::Retiring(group);
                self.effect(step, None, Effect::Retire { group }, Pending::Retire { job: id });
            }
            _ => {}
        }
    }

    fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        self.entries.get_mut(&id).expect("an entry on its way exists")
    }

    pub(crate) fn is_in_job(
        &self,
        session: SessionId,
        handle: Option<Handle>,
        facts: &Facts,
    ) -> Result<Reply, Refusal> {
        let job = handle.map(|handle| self.job_of(session, handle, Access::QUERY)).transpose()?;
        let process = facts.process.as_ref().ok_or(Refusal::NoProcess)?;
        // Of the dead the kernel may know nothing any more; the record says where they were, even
        // when that job is no more.
        let recorded = match process.state {
            ProcessState::Ended => self.processes.get(&process.process).copied(),
            _ => None,
        };
        let current = recorded.or_else(|| self.job_at(&process.place));
        let inside = match (current, job) {
            (None, None) => matches!(process.place, Place::ForeignJob(_)),
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(current), Some(job)) => {
                self.jobs.contains_key(&current) && self.is_ancestor_or_self(job, current)
            }
        };
        Ok(Reply::InJob(inside))
    }

    /// Starts whatever looks after the limits of a job that has got a member.
    /// `look`: how much of its time is used is not known from the clock alone.
    fn watch_limits(&mut self, step: &mut Step<'_>, id: JobId, look: bool) {
        let (at, cpus, scan) = (step.at, self.config.cpus, self.config.scan);
        let job = self.job_mut(id);
        if job.wall_start.is_none() {
            job.wall_start = Some(at);
        }
        let timers = job.timers;
        let wall = job.limits.wall_time.filter(|_| !timers.is_armed(Timer::Wall));
        let wall = wall.filter(|_| !job.wall_time_up);
        let wall_at = wall.map(|wall| job.wall_start.unwrap_or(at).after(wall));
        let job_time = match job.limits.job_time {
            JobTime::Limit(limit) if !look && !timers.is_armed(Timer::JobTime) => {
                // The first member: what it uses from now on is read when the shortest possible
                // time is over.
                let past = job.history.before.user.minus(job.history.period_start.user);
                Some(crate::effect::soonest(limit.minus(past), cpus))
            }
            _ => None,
        };
        let look = look && matches!(job.limits.job_time, JobTime::Limit(_));
        let scans = job.limits.active_processes.is_some() && !timers.is_armed(Timer::Scan);
        if let Some(wall_at) = wall_at {
            self.arm(step, id, Timer::Wall, wall_at);
        }
        if let Some(delay) = job_time {
            self.arm(step, id, Timer::JobTime, at.after(delay));
        }
        if look {
            self.job_time_due(step, id);
        }
        if scans {
            self.arm(step, id, Timer::Scan, at.after(scan));
        }
    }
}

impl crate::job::Job {
    /// Somebody has come.
    fn arrived(&mut self, pid: u32, arrival: u64, since: u64) {
        self.used = true;
        self.commits = arrival;
        // A list may have shown it before we were told of its birth.
        let listed = self.history.seen.insert(pid, arrival).is_some_and(|seen| seen > since);
        self.history.total += u64::from(!listed);
        self.settled = false;
        if self.ending == Ending::No {
            // A new round: how the last one ended is past.
            self.reason = jobobject_abi::EndReason::Exited;
            self.tally = jobobject_abi::StopTally::default();
        }
    }
}

impl Fault {
    /// An outcome that does not belong to its effect: a mistake of the host.
    pub(crate) fn unexpected(call: &'static str) -> Self {
        Self {
            call,
            target: String::new(),
            errno: 0,
            message: "an outcome that does not belong to the effect".into(),
            hint: None,
            gone: false,
        }
    }
}
