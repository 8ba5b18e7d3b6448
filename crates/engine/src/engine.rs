//! A call, from the caller's thread to the object manager and the kernel and back.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use jobobject_abi::{
    Access, Accounting, Actor, Call, EndReason, Enforcement, Handle, JobTime, LimitKind, Limits,
    Reply, StopTally, Tick,
};
use jobobject_core::{
    Config, Effect, EffectId, Event, Facts, Fault, GroupKey, Input, JobId, Nesting, ObjectManager,
    Outcome, Output, ProcessKey, Refusal, Serial, SessionId, Target,
};
use jobobject_linux::{Command, Options, Platform, Process};

use crate::clock::Clock;
use crate::error::Error;
use crate::timers::Timers;

/// The only client of an embedded engine: its own process.
const SESSION: SessionId = SessionId(0);

/// How long the engine's thread stays when nothing is armed any more: long enough that a host that
/// runs limited jobs one after the other starts one thread, not one for each.
const IDLE: Duration = Duration::from_secs(5);

/// Who looks after deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drive {
    /// A thread of the engine's own, started when the first deadline is armed.
    #[default]
    Thread,
    /// The caller, who promises to call [`Engine::run_due`] by [`Engine::next_deadline`].
    Caller,
}

/// A process that was born.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub process: Arc<Process>,
}

/// How a job ended, as far as the engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why the members are gone.
    pub reason: EndReason,
    /// What a stop took.
    pub stop: StopTally,
    /// How many processes were ended because they exceeded the active-process limit.
    pub over_limit: u32,
    /// What was used.
    pub accounting: Accounting,
}

/// An object manager, the platform it acts on, and what is on its way between the two.
pub struct Engine {
    /// For the timer thread.
    this: Weak<Self>,
    state: Mutex<State>,
    /// A reply or an effect for another thread's call has come.
    delivered: Condvar,
    /// The timer thread's: an earlier deadline was armed.
    rearmed: Condvar,
    platform: Platform,
    clock: Clock,
    drive: Drive,
}

/// Whoever prints a job or a child does not want to see all jobs there are.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    manager: ObjectManager,
    timers: Timers,
    next_serial: u64,
    /// Replies that came up on another thread than their caller's.
    replies: HashMap<Serial, Result<Reply, Refusal>>,
    /// Births and moves that came up on another thread than their caller's, who has the command.
    handed_over: HashMap<Serial, (EffectId, Effect)>,
    thread_runs: bool,
    /// What the timer thread sleeps for.
    thread_wakes: Option<Tick>,
    /// Empty but for the room in them, so that a step does not allocate: what one came to, and what of
    /// it is still to be done.
    outputs: Vec<Output>,
    queue: VecDeque<Output>,
}

/// What a caller brings along that never enters the object manager: how to start its process.
type Token<'a> = &'a mut dyn FnMut(&Platform, Target) -> Result<Arc<Process>, Fault>;

impl Engine {
    /// An engine. Touches nothing: the first group is made for the first member.
    ///
    /// # Errors
    /// No memory.
    pub fn new(drive: Drive, nesting: Nesting, options: Options) -> Result<Arc<Self>, Error> {
        let platform = Platform::new(options)?;
        let config = Config { nesting, cpus: online_cpus(), ..Config::default() };
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            state: Mutex::new(State {
                manager: ObjectManager::new(config),
                timers: Timers::default(),
                next_serial: 1,
                replies: HashMap::new(),
                handed_over: HashMap::new(),
                thread_runs: false,
                thread_wakes: None,
                outputs: Vec::new(),
                queue: VecDeque::new(),
            }),
            delivered: Condvar::new(),
            rearmed: Condvar::new(),
            platform,
            clock: Clock::new(),
            drive,
        }))
    }

    /// The engine that all jobs of this process share. A fork of the process gets one of its own.
    ///
    /// # Errors
    /// No memory.
    pub fn of_this_process() -> Result<Arc<Self>, Error> {
        static FIRST: Generation = Generation::new();
        FIRST.current()
    }

    /// This process is the one that made the engine, not a fork of it.
    #[must_use]
    pub fn is_original(&self) -> bool {
        self.platform.is_owner()
    }

    /// The mechanism below: what it can tell without the object manager.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Makes a job. No kernel state is touched.
    ///
    /// # Errors
    /// [`Refusal::BadLimit`].
    pub fn create(&self, limits: Limits) -> Result<Handle, Error> {
        match self.call(Call::Create { limits })? {
            Reply::Handle(handle) => Ok(handle),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Makes a second handle to the same job, with no more rights than the first has.
    ///
    /// # Errors
    /// A bad handle, or a right that it does not have.
    pub fn duplicate(&self, job: Handle, access: Access) -> Result<Handle, Error> {
        match self.call(Call::Duplicate { job, access })? {
            Reply::Handle(handle) => Ok(handle),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Closes all handles, as the end of their owner does.
    pub fn hang_up(&self) {
        if self.is_original() {
            self.input(Input::Hangup { session: SESSION });
        }
    }

    /// The limits of the job that this process is in itself.
    ///
    /// # Errors
    /// It is in none of this engine's.
    pub fn own_limits(&self) -> Result<Limits, Error> {
        self.check_origin()?;
        match self.carry(Call::QueryLimits { job: None }, of_caller, None)? {
            (Reply::Limits(limits), _) => Ok(limits),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Closes a handle. In a fork this does nothing: the fork never owned it.
    ///
    /// # Errors
    /// [`Refusal::InvalidHandle`].
    pub fn close(&self, job: Handle) -> Result<(), Error> {
        self.call(Call::Close { job }).map(drop)
    }

    /// Replaces the limits of a job.
    ///
    /// # Errors
    /// [`Refusal::BadLimit`], a missing right, or a [`Fault`] when a guardian cannot be had.
    pub fn set_limits(&self, job: Handle, limits: Limits) -> Result<(), Error> {
        self.call(Call::SetLimits { job, limits }).map(drop)
    }

    /// The limits of a job as they were set.
    ///
    /// # Errors
    /// A bad handle or a missing right.
    pub fn limits(&self, job: Handle) -> Result<Limits, Error> {
        match self.call(Call::QueryLimits { job: Some(job) })? {
            Reply::Limits(limits) => Ok(limits),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Starts a process inside `jobs`, listed outer to inner, below the jobs that this process is in
    /// itself.
    ///
    /// # Errors
    /// Every refusal of an entry, and a [`Fault`] when the process cannot be started.
    pub fn spawn(
        &self,
        jobs: &[Handle],
        breakaway: bool,
        command: &Command,
    ) -> Result<Spawned, Error> {
        self.spawn_with(jobs, breakaway, &mut |platform, target| platform.birth(target, command))
    }

    /// Starts a process by other means: `birth` is given the way into the group and starts it.
    ///
    /// # Errors
    /// As [`Engine::spawn`].
    pub fn spawn_by(&self, jobs: &[Handle], birth: Token<'_>) -> Result<Spawned, Error> {
        self.spawn_with(jobs, false, birth)
    }

    fn spawn_with(
        &self,
        jobs: &[Handle],
        breakaway: bool,
        birth: Token<'_>,
    ) -> Result<Spawned, Error> {
        self.check_origin()?;
        let call = Call::Spawn { jobs: jobs.to_vec(), breakaway };
        match self.carry(call, of_caller, Some(birth))? {
            (_, Some(process)) => Ok(Spawned { process }),
            (reply, None) => Err(unexpected(&reply)),
        }
    }

    /// Puts a running process into a job.
    ///
    /// # Errors
    /// Every refusal of an assignment. A candidate that breaks a limit is ended.
    pub fn assign(&self, job: Handle, process: &Process, from_foreign: bool) -> Result<(), Error> {
        self.check_origin()?;
        let facts = |platform: &Platform| {
            Ok(Facts { caller: platform.own_place()?, process: Some(platform.facts(process)?) })
        };
        self.carry(Call::Assign { job, from_foreign }, facts, None).map(drop)
    }

    /// Whether a process is in a job, or in any.
    ///
    /// # Errors
    /// A bad handle or a missing right.
    pub fn is_in_job(&self, process: &Process, job: Option<Handle>) -> Result<bool, Error> {
        self.check_origin()?;
        let facts = |platform: &Platform| {
            let process = Some(platform.facts(process)?);
            Ok(Facts { caller: jobobject_core::Place::Outside, process })
        };
        match self.carry(Call::IsInJob { job }, facts, None)?.0 {
            Reply::InJob(inside) => Ok(inside),
            reply => Err(unexpected(&reply)),
        }
    }

    /// The process ids of the members.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn members(&self, job: Handle) -> Result<Vec<u32>, Error> {
        match self.call(Call::Members { job })? {
            Reply::Members(pids) => Ok(pids),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Ends every member.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn terminate(&self, job: Handle, code: u32) -> Result<(), Error> {
        self.call(Call::Terminate { job, code, by: us() }).map(drop)
    }

    /// Asks every member to leave; what has not left after `grace` is killed.
    ///
    /// # Errors
    /// As [`Engine::terminate`]; [`Refusal::BadSignal`].
    pub fn stop(&self, job: Handle, signal: i32, grace: Duration, code: u32) -> Result<(), Error> {
        self.call(Call::Stop { job, signal, grace, code, by: us() }).map(drop)
    }

    /// Sends a signal to every member; tells how many there were.
    ///
    /// # Errors
    /// As [`Engine::stop`].
    pub fn signal(&self, job: Handle, signal: i32) -> Result<u32, Error> {
        match self.call(Call::Signal { job, signal })? {
            Reply::Signaled(members) => Ok(members),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Suspends every member.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn freeze(&self, job: Handle) -> Result<(), Error> {
        self.call(Call::Freeze { job }).map(drop)
    }

    /// Takes one freeze back.
    ///
    /// # Errors
    /// [`Refusal::NotFrozen`], and as [`Engine::freeze`].
    pub fn thaw(&self, job: Handle) -> Result<(), Error> {
        self.call(Call::Thaw { job }).map(drop)
    }

    /// What the job has used; with the active count when `active`.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn accounting(&self, job: Handle, active: bool) -> Result<Accounting, Error> {
        match self.call(Call::Accounting { job, active })? {
            Reply::Accounting(accounting) => Ok(accounting),
            reply => Err(unexpected(&reply)),
        }
    }

    /// What is on record of the job's end.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn ended(&self, job: Handle) -> Result<Ended, Error> {
        match self.call(Call::End { job })? {
            Reply::End { reason, stop, over_limit, accounting } => {
                Ok(Ended { reason, stop, over_limit, accounting })
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// The state of the job object: signaled, terminating.
    ///
    /// # Errors
    /// A bad handle or a missing right.
    pub fn job_state(&self, job: Handle) -> Result<(bool, bool), Error> {
        match self.call(Call::State { job })? {
            Reply::State { signaled, terminating } => Ok((signaled, terminating)),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Which of these limits cannot be kept here, and why.
    #[must_use]
    pub fn unavailable(&self, limits: &Limits) -> Vec<(LimitKind, String)> {
        let kept = self.enforcement(limits).into_iter();
        kept.filter_map(|(limit, how)| match how {
            Enforcement::Unavailable(why) => Some((limit, why)),
            _ => None,
        })
        .collect()
    }

    /// How well these limits are kept here.
    #[must_use]
    pub fn enforcement(&self, limits: &Limits) -> Vec<(LimitKind, Enforcement)> {
        let set = [
            (LimitKind::KillOnClose, limits.kill_on_close),
            (LimitKind::Breakaway, limits.breakaway_ok || limits.silent_breakaway_ok),
            (LimitKind::ActiveProcesses, limits.active_processes.is_some()),
            (LimitKind::JobTime, limits.job_time != JobTime::Unlimited),
            (LimitKind::WallTime, limits.wall_time.is_some()),
        ];
        let set = set.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(limit, _)| (limit, self.platform.enforcement(limit))).collect()
    }

    /// Leaves nothing behind, for hosts that end soon: see [`Platform::shutdown`].
    pub fn shutdown(&self) {
        if self.is_original() {
            self.platform.shutdown();
        }
    }

    /// The same for a process that ends now: see [`Platform::leave`].
    pub fn leave(&self) {
        if self.is_original() {
            self.platform.leave();
        }
    }

    /// What keeps members alive that have been killed.
    ///
    /// # Errors
    /// A bad handle, a missing right, or a [`Fault`].
    pub fn obstacles(&self, job: Handle) -> Result<Vec<jobobject_linux::Obstacle>, Error> {
        match self.job_and_group(job)?.1 {
            Some(group) => Ok(self.platform.obstacles(group)?),
            None => Ok(Vec::new()),
        }
    }

    /// A process is dead and the last handle to it is closed.
    pub fn released(&self, process: ProcessKey) {
        if self.is_original() {
            self.tell(Event::Released { process });
        }
    }

    /// When [`Engine::run_due`] must be called next, if nobody else does it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = self.lock().timers.next()?;
        self.clock.instant(next)
    }

    /// Does what is due.
    pub fn run_due(&self) {
        if !self.is_original() {
            return;
        }
        loop {
            let now = self.clock.now();
            let Some(timer) = self.lock().timers.take_due(now) else { return };
            self.input(Input::Deadline { timer });
        }
    }

    /// Any call that needs no facts.
    fn call(&self, call: Call) -> Result<Reply, Error> {
        self.check_origin()?;
        self.carry(call, |_| Ok(Facts::NONE), None).map(|(reply, _)| reply)
    }

    fn check_origin(&self) -> Result<(), Error> {
        if self.is_original() { Ok(()) } else { Err(Error::Forked) }
    }

    fn carry(
        &self,
        call: Call,
        facts: impl FnOnce(&Platform) -> Result<Facts, Fault>,
        token: Option<Token<'_>>,
    ) -> Result<(Reply, Option<Arc<Process>>), Error> {
        let mut state = self.lock();
        // Under the lock, so that no other call changes what they say before this one is decided.
        let facts = facts(&self.platform)?;
        let serial = Serial(state.next_serial);
        state.next_serial += 1;
        let input = Input::Call { session: SESSION, serial, call, facts };
        let mut caller = Caller { serial: Some(serial), token, born: None, reply: None };
        state = self.step(state, input, &mut caller);
        while caller.reply.is_none() {
            if let Some(reply) = state.replies.remove(&serial) {
                caller.reply = Some(reply);
            } else if let Some((id, effect)) = state.handed_over.remove(&serial) {
                state = self.carry_out(state, id, &effect, &mut caller);
            } else {
                // Another thread is at what this call waits for.
                state = self.delivered.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.look_after_timers(state);
        let reply = caller.reply.take().expect("the loop ends with a reply")?;
        Ok((reply, caller.born))
    }

    /// Tells the object manager something that nobody waits for.
    pub(crate) fn tell(&self, event: Event) {
        self.input(Input::Event(event));
    }

    fn input(&self, input: Input) {
        let mut nobody = Caller { serial: None, token: None, born: None, reply: None };
        let state = self.step(self.lock(), input, &mut nobody);
        self.look_after_timers(state);
    }

    /// One step and all that follows from it. The lock is given up for births and moves, which wait for
    /// other processes; all other effects are short, and are carried out in the order in which they were
    /// asked for.
    fn step<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        input: Input,
        caller: &mut Caller<'_>,
    ) -> MutexGuard<'a, State> {
        let mut queue = std::mem::take(&mut state.queue);
        self.advance(&mut state, input, &mut queue);
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Reply { serial, result } if Some(serial) == caller.serial => {
                    caller.reply = Some(result);
                }
                Output::Reply { serial, result } => {
                    state.replies.insert(serial, result);
                    self.delivered.notify_all();
                }
                Output::Arm { timer, at } => state.timers.arm(timer, at),
                Output::Disarm { timer } => state.timers.disarm(timer),
                Output::Effect { id, serial: Some(serial), effect }
                    if Some(serial) != caller.serial && effect_needs_caller(&effect) =>
                {
                    state.handed_over.insert(serial, (id, effect));
                    self.delivered.notify_all();
                }
                // What others wait for comes before what may take its time.
                slow if is_slow(&slow) && !queue.iter().all(is_slow) => {
                    queue.push_back(slow);
                }
                Output::Effect { id, effect, .. } => {
                    let outcome = if effect_needs_caller(&effect) {
                        drop(state);
                        let outcome = self.execute(&effect, caller);
                        state = self.lock();
                        outcome
                    } else {
                        self.execute(&effect, caller)
                    };
                    self.advance(&mut state, Input::Done { effect: id, outcome }, &mut queue);
                }
            }
        }
        state.queue = queue;
        state
    }

    /// One step; what it came to goes to the end of the queue.
    fn advance(&self, state: &mut State, input: Input, queue: &mut VecDeque<Output>) {
        state.manager.step(self.clock.now(), input, &mut state.outputs);
        queue.extend(state.outputs.drain(..));
    }

    fn carry_out<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        id: EffectId,
        effect: &Effect,
        caller: &mut Caller<'_>,
    ) -> MutexGuard<'a, State> {
        drop(state);
        let outcome = self.execute(effect, caller);
        self.step(self.lock(), Input::Done { effect: id, outcome }, caller)
    }

    fn execute(&self, effect: &Effect, caller: &mut Caller<'_>) -> Result<Outcome, Fault> {
        match (effect, caller.token.as_mut()) {
            (Effect::Birth { target }, Some(birth)) => {
                let process = birth(&self.platform, *target)?;
                let outcome = Outcome::Born { process: process.key(), pid: process.pid() };
                caller.born = Some(process);
                Ok(outcome)
            }
            _ => self.platform.execute(effect),
        }
    }

    pub(crate) fn job_and_group(
        &self,
        handle: Handle,
    ) -> Result<(JobId, Option<GroupKey>, Option<u64>), Error> {
        self.check_origin()?;
        let state = self.lock();
        let job = state.manager.job_of(SESSION, handle, Access::QUERY)?;
        Ok((job, state.manager.group_of(job), state.manager.commits(job)))
    }

    /// Tells the object manager that a group is empty, unless somebody came since `commits` was
    /// read. True when it was still so, and no kill is on its way to whoever comes next.
    pub(crate) fn found_empty(&self, job: JobId, group: GroupKey, commits: u64) -> bool {
        self.tell(Event::Emptied { group, commits });
        self.lock().manager.commits(job) == Some(commits)
    }

    /// Waits until something that another thread is at has come to an end, at most a moment.
    pub(crate) fn pause(&self, at_most: Duration) {
        let state = self.lock();
        drop(self.delivered.wait_timeout(state, at_most));
    }

    pub(crate) fn drive(&self) -> Drive {
        self.drive
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a step is a bug of ours; the state it leaves is as good as any other answer,
        // and a host that drops its jobs in an unwinding must not hang or abort.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine of a process, and those of its forks, of their forks and so on: a fork has a copy of
/// its parent's, with which it can do nothing, and makes the next. Nothing here can be found locked
/// by a thread that the fork does not have.
struct Generation {
    engine: OnceLock<Arc<Engine>>,
    next: OnceLock<Box<Generation>>,
}

impl Generation {
    const fn new() -> Self {
        Self { engine: OnceLock::new(), next: OnceLock::new() }
    }

    fn current(&self) -> Result<Arc<Engine>, Error> {
        let engine = match self.engine.get() {
            Some(engine) => engine,
            None => {
                let new = Engine::new(Drive::Thread, Nesting::Hierarchy, Options::default())?;
                self.engine.get_or_init(|| new)
            }
        };
        if engine.is_original() {
            return Ok(Arc::clone(engine));
        }
        self.next.get_or_init(|| Box::new(Self::new())).current()
    }
}

/// The caller of a step: its call, what it brought and what it gets.
struct Caller<'a> {
    serial: Option<Serial>,
    token: Option<Token<'a>>,
    born: Option<Arc<Process>>,
    reply: Option<Result<Reply, Refusal>>,
}

/// Only the caller has what a birth needs, and its thread is the one to wait for a move.
fn effect_needs_caller(effect: &Effect) -> bool {
    matches!(effect, Effect::Birth { .. } | Effect::Move { .. })
}

/// How many CPUs members could run on at once. Not what `available_parallelism` tells of ourselves: a
/// quota bounds how much is used, not how fast, and members can widen an affinity.
fn online_cpus() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
    online.ok().and_then(|ranges| count_cpus(ranges.trim_end())).unwrap_or_else(|| {
        let ours = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(ours).unwrap_or(1)
    })
}

/// Of a list such as `0-3,8`.
fn count_cpus(ranges: &str) -> Option<u32> {
    ranges.split(',').try_fold(0_u32, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The facts of a call that depends on where this process is itself.
fn of_caller(platform: &Platform) -> Result<Facts, Fault> {
    Ok(Facts { caller: platform.own_place()?, process: None })
}

fn is_slow(output: &Output) -> bool {
    matches!(output, Output::Effect { effect, .. } if effect_needs_caller(effect))
}

fn us() -> Actor {
    Actor { pid: std::process::id() }
}

fn unexpected(reply: &Reply) -> Error {
    let message = format!("the object manager answered {reply:?}");
    Fault {
        call: "step",
        target: "object manager".into(),
        errno: 0,
        message,
        hint: None,
        gone: false,
    }
    .into()
}

/// The timer thread.
impl Engine {
    /// Makes sure that somebody wakes up for the next deadline.
    fn look_after_timers(&self, mut state: MutexGuard<'_, State>) {
        if self.drive == Drive::Caller || state.timers.is_empty() {
            return;
        }
        if state.thread_runs {
            let next = state.timers.next();
            if state.thread_wakes.is_some_and(|wakes| next.is_some_and(|next| next < wakes)) {
                self.rearmed.notify_one();
            }
            return;
        }
        state.thread_runs = true;
        drop(state);
        if !self.start_thread() {
            self.lock().thread_runs = false;
        }
    }

    fn start_thread(&self) -> bool {
        let Some(engine) = self.this.upgrade() else { return false };
        let thread = std::thread::Builder::new().name("job-timers".into()).stack_size(128 << 10);
        thread.spawn(move || engine.run_timers()).is_ok()
    }

    fn run_timers(&self) {
        let mut idle_since = None;
        loop {
            self.run_due();
            let mut state = self.lock();
            let now = self.clock.now();
            let wait = match state.timers.next() {
                Some(next) => {
                    idle_since = None;
                    next.since(now)
                }
                None => IDLE.saturating_sub(now.since(*idle_since.get_or_insert(now))),
            };
            if state.timers.is_empty() && wait.is_zero() {
                state.thread_runs = false;
                return;
            }
            state.thread_wakes = Some(now.after(wait));
            let woken = self.rearmed.wait_timeout(state, wait);
            woken.unwrap_or_else(PoisonError::into_inner).0.thread_wakes = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_in_ranges() {
        assert_eq!(count_cpus("0"), Some(1));
        assert_eq!(count_cpus("0-3,8,10-11"), Some(7));
        for text in ["", "a", "3-1", "0-4294967295", "0,"] {
            assert_eq!(count_cpus(text), None, "{text:?}");
        }
    }
}
