//! Job objects, naively: a job is a set of processes, and every call is taken to its end at once.
//!
//! No groups, no effects, no entries on their way; kills are complete, counts are exact. It says
//! what the specification says, as far as one call after the other is concerned, and the object
//! manager in an orderly world must say the same. Handles, jobs and processes are numbered in the
//! order in which they came.
//!
//! Source: *AssignProcessToJobObject*; *Nested Jobs*; *JOBOBJECT_BASIC_LIMIT_INFORMATION*;
//! *JOBOBJECT_BASIC_ACCOUNTING_INFORMATION*.

use std::collections::BTreeSet;

use jobobject_abi::{Access, EndReason, JobTime, LimitKind, Limits, Status, Ticks};

/// What a call gives: a value, or a Win32 code.
pub type Answer<T = ()> = Result<T, Status>;

/// How often forks over the active-process limit are looked for.
const SCAN_MS: u64 = 10;

#[derive(Debug, Clone)]
struct Process {
    alive: bool,
    job: Option<usize>,
    user: Ticks,
    held: bool,
    ignores: bool,
    asked_to_leave: bool,
}

#[derive(Debug, Clone, Default)]
struct Job {
    exists: bool,
    parent: Option<usize>,
    limits: Limits,
    used: bool,
    /// Whoever was ever in it.
    ever: BTreeSet<usize>,
    /// Whom we saw in it, in that order.
    seen: Vec<usize>,
    attempts: u64,
    refused: BTreeSet<usize>,
    freezes: u32,
    terminated: bool,
    doomed: bool,
    job_time_up: bool,
    wall_time_up: bool,
    wall_start: Option<u64>,
    period_start: Ticks,
    ended_by_time: u32,
    reason: EndReason,
    tolerated: u32,
    /// When the grace of its own stop is over.
    stop: Option<u64>,
    /// The whole subtree has been asked to leave.
    asked: bool,
}

/// Basic accounting, as far as the model keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// User time, whole lives.
    pub user: Ticks,
    /// Of it, in this period.
    pub period_user: Ticks,
    /// Processes seen, refused ones included.
    pub total: u64,
    /// Processes now, refused ones that are not released included.
    pub active: u32,
    /// Processes that a time limit ended.
    pub terminated: u32,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Model {
    jobs: Vec<Job>,
    /// The job and the rights; `None` when it is closed.
    handles: Vec<Option<(usize, Access)>>,
    processes: Vec<Process>,
    now_ms: u64,
    single: bool,
}

impl Model {
    /// Nothing yet. `single`: a process can be in one job only, as before Windows 8.
    #[must_use]
    pub fn new(single: bool) -> Self {
        Self { single, ..Self::default() }
    }

    // What processes do.

    /// A process in no job.
    pub fn start(&mut self) -> usize {
        self.born(None)
    }

    /// It can do something by itself.
    #[must_use]
    pub fn runs(&self, process: usize) -> bool {
        self.processes[process].alive && !self.is_frozen(process)
    }

    /// It is alive.
    #[must_use]
    pub fn is_alive(&self, process: usize) -> bool {
        self.processes[process].alive
    }

    /// How many processes there ever were.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.processes.len()
    }

    /// It forks; it runs.
    pub fn fork(&mut self, parent: usize) -> usize {
        let child = self.born(self.processes[parent].job);
        self.processes[child].ignores = self.processes[parent].ignores;
        child
    }

    /// It leaves; it runs.
    pub fn exit(&mut self, process: usize) {
        self.die(process);
    }

    /// It ignores signals from now on.
    pub fn ignore_signals(&mut self, process: usize) {
        self.processes[process].ignores = true;
    }

    /// Somebody holds a handle to it, or nobody any more.
    pub fn hold(&mut self, process: usize, held: bool) {
        self.processes[process].held = held;
        self.release_dead();
    }

    /// It uses so much user time, as far as it lives so long.
    pub fn burn(&mut self, process: usize, ms: u64) {
        for _ in 0..ms {
            if self.runs(process) {
                let process = &mut self.processes[process];
                process.user = process.user.plus(Ticks(10_000));
            }
            self.advance(1);
        }
    }

    /// Time passes.
    pub fn advance(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            for job in 0..self.jobs.len() {
                self.deadlines(job);
            }
            if self.now_ms.is_multiple_of(SCAN_MS) {
                (0..self.jobs.len()).for_each(|job| self.scan(job));
            }
        }
    }

    // Calls.

    /// `CreateJobObject`
    pub fn create(&mut self, limits: Limits) -> usize {
        let limits = Limits { job_time: limits.job_time.or_unlimited(), ..limits };
        self.jobs.push(Job { exists: true, limits, ..Job::default() });
        self.open(self.jobs.len() - 1, Access::ALL)
    }

    /// `DuplicateHandle`
    ///
    /// # Errors
    /// A handle that is closed or has fewer rights.
    pub fn duplicate(&mut self, handle: usize, access: Access) -> Answer<usize> {
        let job = self.job(handle, access)?;
        Ok(self.open(job, access))
    }

    /// `CloseHandle`
    ///
    /// # Errors
    /// A handle that is closed.
    pub fn close(&mut self, handle: usize) -> Answer {
        let (job, _) = self.handles[handle].take().ok_or(Status::INVALID_HANDLE)?;
        if self.handles.iter().flatten().all(|(open, _)| *open != job) {
            if self.jobs[job].limits.kill_on_close {
                self.jobs[job].doomed = true;
                self.end(job, EndReason::OwnerClosed);
            } else {
                self.thaw_all(&[job]);
            }
        }
        self.forget_jobs();
        Ok(())
    }

    /// `SetInformationJobObject`
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn set_limits(&mut self, handle: usize, limits: Limits) -> Answer {
        let id = self.job(handle, Access::SET_ATTRIBUTES)?;
        let (user, active) = (self.user(id), self.members(id).len() as u32);
        let job = &mut self.jobs[id];
        let old = std::mem::replace(&mut job.limits, limits);
        let asked = job.limits.job_time;
        job.limits.job_time = asked.over(old.job_time);
        if asked != JobTime::Keep {
            job.job_time_up = false;
        }
        if let JobTime::Limit(_) = asked {
            job.period_start = user;
        }
        if job.limits.wall_time != old.wall_time {
            job.wall_time_up = false;
            job.wall_start = job.used.then_some(self.now_ms);
        }
        if job.limits.active_processes != old.active_processes {
            job.tolerated = active;
        }
        Ok(())
    }

    /// `QueryInformationJobObject`
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn limits(&self, handle: usize) -> Answer<Limits> {
        Ok(self.jobs[self.job(handle, Access::QUERY)?].limits.clone())
    }

    /// The same for the caller's own job.
    ///
    /// # Errors
    /// It is in none.
    pub fn own_limits(&self, process: usize) -> Answer<Limits> {
        let job = self.processes[process].job.ok_or(Status::ACCESS_DENIED)?;
        Ok(self.jobs[job].limits.clone())
    }

    /// `CreateProcess`
    ///
    /// # Errors
    /// As the rules of breakaway, nesting and the limits say.
    pub fn spawn(
        &mut self,
        caller: Option<usize>,
        list: &[usize],
        breakaway: bool,
    ) -> Answer<usize> {
        let mut jobs = Vec::new();
        for handle in list {
            jobs.push(self.job(*handle, Access::ASSIGN_PROCESS)?);
        }
        let mut current = caller.and_then(|caller| self.processes[caller].job);
        let mut is_first = true;
        while let Some(job) = current {
            let limits = &self.jobs[job].limits;
            if !(limits.silent_breakaway_ok || breakaway && limits.breakaway_ok) {
                if breakaway && is_first {
                    return Err(Status::ACCESS_DENIED);
                }
                break;
            }
            current = self.jobs[job].parent;
            is_first = false;
        }
        let mut linked = Vec::new();
        for (index, &job) in jobs.iter().enumerate() {
            match (self.may_nest(current, job), current) {
                (Some(true), Some(parent)) => {
                    self.jobs[job].parent = Some(parent);
                    linked.push(job);
                }
                (Some(_), _) => {}
                (None, _) => {
                    if index > 0 {
                        self.attempt(&self.chain(current));
                    }
                    return Err(Status::ACCESS_DENIED);
                }
            }
            current = Some(job);
        }
        let chain = self.chain(current);
        self.enter(&chain, &chain, &linked, None)?;
        let process = self.born(current);
        self.arrive(process, &chain, &[]);
        Ok(process)
    }

    /// `AssignProcessToJobObject`
    ///
    /// # Errors
    /// As 01 §3 says.
    pub fn assign(&mut self, handle: usize, process: usize) -> Answer {
        let job = self.job(handle, Access::ASSIGN_PROCESS)?;
        if !self.processes[process].alive {
            return Err(Status::ACCESS_DENIED);
        }
        let current = self.processes[process].job;
        if self.single && current.is_some() {
            return Err(Status::ACCESS_DENIED);
        }
        if current == Some(job) {
            return Ok(());
        }
        let mut linked = Vec::new();
        if self.may_nest(current, job).ok_or(Status::ACCESS_DENIED)? {
            self.jobs[job].parent = current;
            linked.push(job);
        }
        let chain = self.chain(Some(job));
        let old = self.chain(current);
        let (joined, kept): (Vec<_>, Vec<_>) = chain.iter().partition(|job| !old.contains(job));
        self.enter(&chain, &joined, &linked, Some(process))?;
        self.processes[process].job = Some(job);
        self.arrive(process, &joined, &kept);
        Ok(())
    }

    /// `IsProcessInJob`
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn is_in_job(&self, handle: Option<usize>, process: usize) -> Answer<bool> {
        let job = handle.map(|handle| self.job(handle, Access::QUERY)).transpose()?;
        let chain = self.chain(self.processes[process].job);
        Ok(job.map_or(!chain.is_empty(), |job| chain.contains(&job)))
    }

    /// The process-id list.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn list(&mut self, handle: usize) -> Answer<Vec<usize>> {
        let job = self.job(handle, Access::QUERY)?;
        let members = self.members(job);
        for &process in &members {
            let chain = self.chain(self.processes[process].job);
            if !self.jobs[chain[0]].seen.contains(&process) {
                chain.iter().for_each(|level| self.jobs[*level].see(process));
            }
        }
        let seen = self.jobs[job].seen.iter().copied();
        Ok(seen.filter(|process| members.contains(process)).collect())
    }

    /// `TerminateJobObject`
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn terminate(&mut self, handle: usize, reason: EndReason) -> Answer {
        let job = self.job(handle, Access::TERMINATE)?;
        for below in self.subtree(job) {
            self.jobs[below].terminated = true;
        }
        self.end(job, reason);
        Ok(())
    }

    /// Asks to leave; kills after the grace.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn stop(&mut self, handle: usize, grace_ms: u64, reason: EndReason) -> Answer {
        let job = self.job(handle, Access::TERMINATE)?;
        let subtree = self.subtree(job);
        for &below in &subtree {
            self.jobs[below].terminated = true;
        }
        let over = self.now_ms + grace_ms;
        let members = self.members(job);
        if self.jobs[job].asked {
            self.jobs[job].stop = Some(self.jobs[job].stop.map_or(over, |old| old.min(over)));
        } else if !members.is_empty() {
            self.blame(job, reason);
            for &below in &subtree {
                self.jobs[below].asked = true;
            }
            self.jobs[job].stop = Some(over);
            self.thaw_all(&subtree);
            for process in members {
                self.processes[process].asked_to_leave = true;
            }
        }
        self.settle();
        Ok(())
    }

    /// Suspends.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn freeze(&mut self, handle: usize) -> Answer {
        let job = self.job(handle, Access::SET_ATTRIBUTES)?;
        self.jobs[job].freezes += 1;
        Ok(())
    }

    /// Resumes.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right; a job that is not frozen.
    pub fn thaw(&mut self, handle: usize) -> Answer {
        let job = self.job(handle, Access::SET_ATTRIBUTES)?;
        let freezes = self.jobs[job].freezes;
        self.jobs[job].freezes = freezes.checked_sub(1).ok_or(Status::INVALID_PARAMETER)?;
        self.settle();
        Ok(())
    }

    /// Basic accounting.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn accounting(&self, handle: usize) -> Answer<Figures> {
        let id = self.job(handle, Access::QUERY)?;
        let job = &self.jobs[id];
        let user = self.user(id);
        Ok(Figures {
            user,
            period_user: user.minus(job.period_start),
            total: job.seen.len() as u64 + job.attempts,
            active: (self.members(id).len() + job.refused.len()) as u32,
            terminated: job.ended_by_time,
        })
    }

    /// Why the members are gone.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn reason(&self, handle: usize) -> Answer<EndReason> {
        Ok(self.jobs[self.job(handle, Access::QUERY)?].reason)
    }

    /// Whether the object is signaled, and whether newcomers are refused.
    ///
    /// # Errors
    /// A handle that is closed or lacks the right.
    pub fn state(&self, handle: usize) -> Answer<(bool, bool)> {
        let job = &self.jobs[self.job(handle, Access::SYNCHRONIZE)?];
        Ok((job.terminated || job.job_time_up, job.doomed || job.asked))
    }

    /// The live processes of the job and those below it, in the order of their birth.
    #[must_use]
    pub fn members(&self, job: usize) -> Vec<usize> {
        let alive = 0..self.processes.len();
        alive
            .filter(|key| self.processes[*key].alive)
            .filter(|key| self.chain(self.processes[*key].job).contains(&job))
            .collect()
    }

    /// How many jobs exist, those without handles included.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.iter().filter(|job| job.exists).count()
    }

    // Rules.

    fn job(&self, handle: usize, right: Access) -> Answer<usize> {
        let (job, access) = self.handles[handle].ok_or(Status::INVALID_HANDLE)?;
        if access.contains(right) { Ok(job) } else { Err(Status::ACCESS_DENIED) }
    }

    fn open(&mut self, job: usize, access: Access) -> usize {
        self.handles.push(Some((job, access)));
        self.handles.len() - 1
    }

    /// The job and its ancestors, innermost first.
    fn chain(&self, job: Option<usize>) -> Vec<usize> {
        std::iter::successors(job, |job| self.jobs[*job].parent).collect()
    }

    fn subtree(&self, root: usize) -> Vec<usize> {
        (0..self.jobs.len())
            .filter(|job| self.jobs[*job].exists && self.chain(Some(*job)).contains(&root))
            .collect()
    }

    /// Whether a process in `current` may enter `job`, and if so, whether that nests the job.
    fn may_nest(&self, current: Option<usize>, job: usize) -> Option<bool> {
        let Some(parent) = current else { return Some(false) };
        if self.single {
            return None;
        }
        if self.chain(Some(job)).contains(&parent) {
            return Some(false);
        }
        let is_fresh = !self.jobs[job].used && self.jobs[job].parent.is_none();
        (is_fresh && !self.chain(current).contains(&job)).then_some(true)
    }

    /// Every rule that can still refuse a newcomer.
    fn enter(
        &mut self,
        chain: &[usize],
        joined: &[usize],
        linked: &[usize],
        candidate: Option<usize>,
    ) -> Answer {
        if chain.iter().any(|job| self.jobs[*job].doomed || self.jobs[*job].asked) {
            for job in linked {
                self.jobs[*job].parent = None;
            }
            return Err(Status::INVALID_PARAMETER);
        }
        let is_up = |job: &usize| self.jobs[*job].job_time_up || self.jobs[*job].wall_time_up;
        let is_full = |job: &usize| {
            let active = self.members(*job).len() + self.jobs[*job].refused.len();
            self.jobs[*job].limits.active_processes.is_some_and(|most| active >= most as usize)
        };
        if !joined.iter().any(|job| is_up(job) || is_full(job)) {
            return Ok(());
        }
        self.attempt(joined);
        if let Some(candidate) = candidate {
            for job in joined {
                self.jobs[*job].refused.insert(candidate);
            }
            self.die(candidate);
        }
        Err(Status::NOT_ENOUGH_QUOTA)
    }

    fn attempt(&mut self, jobs: &[usize]) {
        for job in jobs {
            self.jobs[*job].used = true;
            self.jobs[*job].attempts += 1;
        }
    }

    fn arrive(&mut self, process: usize, joined: &[usize], kept: &[usize]) {
        for &level in joined {
            let job = &mut self.jobs[level];
            job.used = true;
            job.wall_start.get_or_insert(self.now_ms);
            job.see(process);
            job.ever.insert(process);
            if !job.asked {
                job.reason = EndReason::Exited;
            }
        }
        for &level in kept {
            self.jobs[level].see(process);
        }
        self.settle();
        self.check_job_time();
    }

    fn born(&mut self, job: Option<usize>) -> usize {
        self.processes.push(Process {
            alive: true,
            job,
            user: Ticks(0),
            held: false,
            ignores: false,
            asked_to_leave: false,
        });
        let process = self.processes.len() - 1;
        for level in self.chain(job) {
            self.jobs[level].ever.insert(process);
        }
        process
    }

    fn is_frozen(&self, process: usize) -> bool {
        self.chain(self.processes[process].job).iter().any(|job| self.jobs[*job].freezes > 0)
    }

    fn thaw_all(&mut self, jobs: &[usize]) {
        for &job in jobs {
            self.jobs[job].freezes = 0;
        }
        self.settle();
    }

    /// Kills everybody in the job and below it.
    fn end(&mut self, job: usize, reason: EndReason) -> u32 {
        let members = self.members(job);
        self.blame(job, reason);
        for &process in &members {
            self.processes[process].alive = false;
        }
        self.settle();
        members.len() as u32
    }

    /// Puts a reason on record where somebody is about to be ended, unless there is one.
    fn blame(&mut self, root: usize, reason: EndReason) {
        for job in self.subtree(root) {
            if !self.members(job).is_empty() && !self.jobs[job].asked {
                self.jobs[job].reason = reason;
            }
        }
    }

    fn die(&mut self, process: usize) {
        self.processes[process].alive = false;
        self.settle();
    }

    /// Whatever follows from what has just happened.
    fn settle(&mut self) {
        for process in 0..self.processes.len() {
            let leaves = self.processes[process].asked_to_leave && self.runs(process);
            if leaves {
                self.processes[process].asked_to_leave = false;
                self.processes[process].alive = self.processes[process].ignores;
            }
        }
        for root in 0..self.jobs.len() {
            if !self.members(root).is_empty() {
                continue;
            }
            self.jobs[root].tolerated = 0;
            if self.jobs[root].stop.is_some() {
                let subtree = self.subtree(root);
                for &below in &subtree {
                    self.jobs[below].stop = None;
                }
                for below in subtree {
                    let above = self.chain(self.jobs[below].parent);
                    self.jobs[below].asked = above.iter().any(|job| self.jobs[*job].stop.is_some());
                }
            }
        }
        self.release_dead();
        self.forget_jobs();
    }

    fn release_dead(&mut self) {
        let gone: Vec<usize> = (0..self.processes.len())
            .filter(|key| !self.processes[*key].alive && !self.processes[*key].held)
            .collect();
        for job in &mut self.jobs {
            job.refused.retain(|process| !gone.contains(process));
        }
    }

    /// A job ends with its last handle, its last member and its last child.
    fn forget_jobs(&mut self) {
        loop {
            let is_over = |job: &usize| {
                self.jobs[*job].exists
                    && self.handles.iter().flatten().all(|(open, _)| open != job)
                    && self.members(*job).is_empty()
                    && !self.jobs.iter().any(|child| child.exists && child.parent == Some(*job))
            };
            let Some(job) = (0..self.jobs.len()).find(is_over) else { return };
            self.jobs[job].exists = false;
        }
    }

    fn user(&self, job: usize) -> Ticks {
        let ever = self.jobs[job].ever.iter();
        ever.fold(Ticks(0), |sum, process| sum.plus(self.processes[*process].user))
    }

    fn check_job_time(&mut self) {
        for id in 0..self.jobs.len() {
            let job = &self.jobs[id];
            let used = self.user(id).minus(job.period_start);
            let is_up = matches!(job.limits.job_time, JobTime::Limit(limit) if used >= limit);
            if is_up && job.exists && job.used && !job.job_time_up {
                self.jobs[id].job_time_up = true;
                self.strike(id, LimitKind::JobTime);
            }
        }
    }

    fn deadlines(&mut self, id: usize) {
        let job = &self.jobs[id];
        if !job.exists {
            return;
        }
        if job.stop.is_some_and(|over| over <= self.now_ms) {
            let reason = job.reason;
            self.end(id, reason);
        }
        let job = &self.jobs[id];
        let wall = job.limits.wall_time.map(|wall| wall.as_millis() as u64);
        if let (Some(start), Some(wall), false) = (job.wall_start, wall, job.wall_time_up)
            && start + wall <= self.now_ms
        {
            self.jobs[id].wall_time_up = true;
            self.strike(id, LimitKind::WallTime);
        }
        self.check_job_time();
    }

    fn strike(&mut self, job: usize, limit: LimitKind) {
        let ended = self.end(job, EndReason::Limit(limit));
        // The first cause counts: of members that somebody has asked to leave it is not the limit.
        if self.jobs[job].reason == EndReason::Limit(limit) {
            self.jobs[job].ended_by_time += ended;
        }
    }

    /// Ends the newest that members forked over the active-process limit.
    fn scan(&mut self, id: usize) {
        let Some(limit) = self.jobs[id].limits.active_processes else { return };
        let keep = limit.max(self.jobs[id].tolerated);
        let mut members = self.members(id);
        while members.len() > keep as usize {
            if let Some(newest) = members.pop() {
                self.die(newest);
            }
        }
        let left = members.len() as u32;
        let job = &mut self.jobs[id];
        job.tolerated = if left == 0 { 0 } else { job.tolerated.min(left).max(limit) };
    }
}

impl Job {
    fn see(&mut self, process: usize) {
        if !self.seen.contains(&process) {
            self.seen.push(process);
        }
    }
}
