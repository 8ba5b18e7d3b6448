//! The object manager, a fake kernel, a clock and timers, ruled by a seed.
//!
//! A call reads its facts and takes its first step at once, as an engine does under its lock. What
//! follows takes time: an effect is carried out at some later moment, and the manager hears of it at
//! a still later one, so that anything may happen in between. Effects on one group are carried out
//! in the order in which they were asked, as an engine that holds its lock does; births and moves,
//! which take their time outside the lock, and effects on different groups, in any order; and what
//! is told comes in any order at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use jobobject_abi::{Access, Call, Handle, Limits, Reply, Tick};
use jobobject_core::{
    Config, Effect, EffectId, Event, Facts, Fault, GroupKey, Input, JobId, ObjectManager, Outcome,
    Output, Place, ProcessKey, Refusal, Serial, SessionId, Target, Timer, TimerId,
};

use crate::kernel::{FakeKernel, Traps, fault};
use crate::seed::Chance;

/// How long things take, and how often they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The longest time until an effect is carried out, and until the manager hears of it. Zero:
    /// everything is done at once and in order.
    pub delay: Duration,
    /// One in so many effects fails; zero: none.
    pub fault_one_in: u64,
}

impl Pace {
    /// At once, in order, without failures.
    pub const ORDERLY: Self = Self { delay: Duration::ZERO, fault_one_in: 0 };
}

/// A call, from its question to its answer.
#[derive(Debug)]
pub struct CallRecord {
    /// Whose handles it names.
    pub session: SessionId,
    /// What was asked.
    pub call: Call,
    /// By whom; `None`: by somebody in no job.
    pub caller: Option<ProcessKey>,
    /// About which process.
    pub process: Option<ProcessKey>,
    /// When.
    pub asked: Tick,
    /// When it was answered, and how.
    pub answer: Option<(Tick, Result<Reply, Refusal>)>,
    /// Who was born for it.
    pub born: Option<ProcessKey>,
}

/// A kill that was carried out.
#[derive(Debug)]
pub struct KillRecord {
    /// When.
    pub at: Tick,
    /// The group it was for, and those below it.
    pub groups: BTreeSet<GroupKey>,
    /// Which job's group it was for, as far as known.
    pub job: Option<JobId>,
    /// Whom it found.
    pub victims: Vec<ProcessKey>,
}

#[derive(Debug)]
enum Happening {
    Execute(EffectId),
    Tell(Input),
    Die(ProcessKey),
    Look(GroupKey),
    Release(ProcessKey),
    Storm,
}

#[derive(Debug)]
struct InFlight {
    serial: Option<Serial>,
    effect: Effect,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The rules.
    pub manager: ObjectManager,
    /// The mechanism.
    pub kernel: FakeKernel,
    /// Every choice that is left to chance, the script's too.
    pub chance: Chance,
    /// How long things take from now on.
    pub pace: Pace,
    now: Tick,
    queue: BTreeMap<(Tick, u64), Happening>,
    next_happening: u64,
    timers: BTreeMap<TimerId, Tick>,
    calls: BTreeMap<Serial, CallRecord>,
    effects: BTreeMap<EffectId, InFlight>,
    /// When the last effect of a group is carried out: the next one comes after it.
    last_on_group: HashMap<GroupKey, Tick>,
    /// Jobs that were ever made, and whose each group is.
    jobs: Vec<JobId>,
    group_jobs: HashMap<GroupKey, JobId>,
    kills: Vec<KillRecord>,
    /// Processes that somebody holds a handle to.
    held: HashSet<ProcessKey>,
    /// Born, and not told yet.
    newborns: HashSet<ProcessKey>,
    most_storming: usize,
    storming: bool,
    traces: bool,
}

impl World {
    /// The session of every call that does not name another.
    pub const SESSION: SessionId = SessionId(1);

    /// A world in which everything takes its time and some or all traps are open.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let delay = Duration::from_micros([20, 200, 3_000, 30_000][chance.below(4) as usize]);
        let pace = Pace { delay, fault_one_in: 0 };
        let config = Config { cpus: 1 + chance.below(3) as u32, ..Config::default() };
        let traps = if chance.one_in(3) { Traps::all() } else { Traps::some(&mut chance) };
        Self::with(config, pace, traps, seed)
    }

    /// A world in which everything is done at once.
    #[must_use]
    pub fn orderly(config: Config, traps: Traps) -> Self {
        Self::with(config, Pace::ORDERLY, traps, 0)
    }

    /// A world of one's own choice.
    #[must_use]
    pub fn with(config: Config, pace: Pace, traps: Traps, seed: u64) -> Self {
        Self {
            manager: ObjectManager::new(config),
            kernel: FakeKernel::new(traps, seed),
            chance: Chance::new(seed ^ 0x0077_6F72_6C64),
            pace,
            now: Tick(0),
            queue: BTreeMap::new(),
            next_happening: 0,
            timers: BTreeMap::new(),
            calls: BTreeMap::new(),
            effects: BTreeMap::new(),
            last_on_group: HashMap::new(),
            jobs: Vec::new(),
            group_jobs: HashMap::new(),
            kills: Vec::new(),
            held: HashSet::new(),
            newborns: HashSet::new(),
            most_storming: 24,
            storming: false,
            traces: std::env::var_os("JOB_TRACE").is_some(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    // Calls.

    /// Asks; the answer comes when it comes.
    pub fn call_from(
        &mut self,
        session: SessionId,
        caller: Option<ProcessKey>,
        process: Option<ProcessKey>,
        call: Call,
    ) -> Serial {
        let serial = Serial(self.calls.len() as u64 + 1);
        let place = caller.map_or(Place::Outside, |caller| self.kernel.place(caller));
        let facts = Facts { caller: place, process: process.map(|key| self.kernel.facts(key)) };
        let record = CallRecord {
            session,
            call: call.clone(),
            caller,
            process,
            asked: self.now,
            answer: None,
            born: None,
        };
        self.calls.insert(serial, record);
        self.step(Input::Call { session, serial, call, facts });
        serial
    }

    /// Asks from outside of all jobs.
    pub fn call(&mut self, call: Call) -> Serial {
        self.call_from(Self::SESSION, None, None, call)
    }

    /// Asks about a process.
    pub fn call_about(&mut self, process: ProcessKey, call: Call) -> Serial {
        self.call_from(Self::SESSION, None, Some(process), call)
    }

    /// Asks as a process.
    pub fn call_as(&mut self, caller: ProcessKey, call: Call) -> Serial {
        self.call_from(Self::SESSION, Some(caller), None, call)
    }

    /// Lets time pass until the call is answered.
    ///
    /// # Errors
    /// As it was refused.
    ///
    /// # Panics
    /// When it is never answered.
    pub fn answer(&mut self, serial: Serial) -> Result<Reply, Refusal> {
        while self.calls[&serial].answer.is_none() {
            assert!(self.pass(Tick(u64::MAX)), "{:?} is never answered", self.calls[&serial]);
        }
        self.calls[&serial].answer.clone().expect("it is answered").1
    }

    /// Asks from outside of all jobs and waits for the answer.
    ///
    /// # Errors
    /// As it was refused.
    pub fn ask(&mut self, call: Call) -> Result<Reply, Refusal> {
        let serial = self.call(call);
        self.answer(serial)
    }

    /// Makes a job.
    ///
    /// # Panics
    /// When it is refused.
    pub fn create(&mut self, limits: Limits) -> Handle {
        match self.ask(Call::Create { limits }) {
            Ok(Reply::Handle(handle)) => handle,
            other => panic!("a job cannot be made: {other:?}"),
        }
    }

    /// The job behind a handle of the usual session.
    #[must_use]
    pub fn job(&self, handle: Handle) -> Option<JobId> {
        self.manager.job_of(Self::SESSION, handle, Access::empty()).ok()
    }

    /// Something is told out of turn.
    pub fn tell(&mut self, input: Input) {
        self.step(input);
    }

    /// A client is gone.
    pub fn hang_up(&mut self, session: SessionId) {
        self.step(Input::Hangup { session });
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> &BTreeMap<Serial, CallRecord> {
        &self.calls
    }

    /// One call.
    #[must_use]
    pub fn record(&self, serial: Serial) -> &CallRecord {
        &self.calls[&serial]
    }

    /// The calls that wait for their answer.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Serial> {
        let open = self.calls.iter().filter(|(_, record)| record.answer.is_none());
        open.map(|(serial, _)| *serial).collect()
    }

    /// Every kill of a group that was carried out.
    #[must_use]
    pub fn kills(&self) -> &[KillRecord] {
        &self.kills
    }

    /// Whose group that is.
    #[must_use]
    pub fn job_of_group(&self, group: GroupKey) -> Option<JobId> {
        self.group_jobs.get(&group).copied()
    }

    // Processes.

    /// Somebody holds a handle to the process: it can be asked about when it is dead.
    pub fn hold(&mut self, process: ProcessKey) {
        self.held.insert(process);
    }

    /// Somebody holds a handle to it.
    #[must_use]
    pub fn is_held(&self, process: ProcessKey) -> bool {
        self.held.contains(&process)
    }

    /// Nobody does any more.
    pub fn let_go(&mut self, process: ProcessKey) {
        if self.held.remove(&process) && self.kernel.death(process).is_some() {
            self.schedule_release(process);
            self.settle_down();
        }
    }

    /// The process forks and so do all its children, again and again, up to `most` of them.
    pub fn start_storm(&mut self, process: ProcessKey, most: usize) {
        self.kernel.start_storm(process);
        self.most_storming = most;
        if !self.storming {
            self.storming = true;
            self.schedule(Duration::from_micros(50), Happening::Storm);
        }
    }

    /// A process does something by itself; what follows from it is noticed.
    pub fn act<T>(&mut self, act: impl FnOnce(&mut FakeKernel) -> T) -> T {
        let result = act(&mut self.kernel);
        self.notice_deaths();
        self.settle_down();
        result
    }

    // Time.

    /// Lets so much time pass.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.pass(until) {}
        self.now = until;
    }

    /// Lets time pass until nothing is on its way any more: every effect is done, every call
    /// answered, every ending over. Limits that are still watched stay watched.
    ///
    /// # Panics
    /// When that never comes.
    pub fn run_until_quiet(&mut self) {
        for _ in 0..200_000 {
            if self.is_quiet() {
                return;
            }
            self.pass(Tick(u64::MAX));
        }
        panic!(
            "no quiet: {:?}\ntimers {:?}\nunanswered {:?}",
            self.queue.values().take(8).collect::<Vec<_>>(),
            self.timers,
            self.unanswered()
        );
    }

    /// Nothing is on its way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let ends = |timer: &TimerId| matches!(timer.timer, Timer::Rekill | Timer::Grace);
        self.queue.values().all(|happening| matches!(happening, Happening::Storm))
            && self.effects.is_empty()
            && !self.timers.keys().any(ends)
    }

    /// Which timers are armed.
    #[must_use]
    pub fn timers(&self) -> &BTreeMap<TimerId, Tick> {
        &self.timers
    }

    /// Lets the next thing happen if it is due by `until`; tells whether something did.
    pub fn pass(&mut self, until: Tick) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self.timers.iter().map(|(timer, at)| (*at, *timer)).min();
        match (queued, timer) {
            (None, None) => false,
            (Some(at), timer) if timer.is_none_or(|(due, _)| at <= due) => {
                if at > until {
                    return false;
                }
                self.now = self.now.max(at);
                let (_, happening) = self.queue.pop_first().expect("one is there");
                self.happen(happening);
                true
            }
            (_, Some((due, timer))) => {
                if due > until {
                    return false;
                }
                self.now = self.now.max(due);
                self.timers.remove(&timer);
                self.step(Input::Deadline { timer });
                true
            }
            (Some(_), None) => unreachable!("what is queued comes before no timer"),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Execute(id) => self.execute(id),
            Happening::Tell(input) => {
                if let Input::Done { outcome: Ok(Outcome::Born { process, .. }), .. } = &input {
                    self.newborns.remove(process);
                }
                self.step(input);
            }
            Happening::Die(process) => {
                self.kernel.let_die(process);
                self.notice_deaths();
            }
            Happening::Look(group) => self.look(group),
            Happening::Release(process) => self.release(process),
            Happening::Storm => {
                self.kernel.storm(self.most_storming);
                self.storming = self.kernel.has_storm();
                if self.storming {
                    let pause = Duration::from_micros(50 + self.chance.below(200));
                    self.schedule(pause, Happening::Storm);
                }
            }
        }
    }

    // The way of an input.

    fn step(&mut self, input: Input) {
        let mut outputs = VecDeque::from(self.take(input));
        while let Some(output) = outputs.pop_front() {
            if let Some(told) = self.absorb(output) {
                outputs.extend(self.take(told));
            }
        }
        self.settle_down();
    }

    fn take(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.trace(&input);
        self.manager.step(self.now, input, &mut out);
        self.trace(&out);
        assert_eq!(self.manager.broken_invariant(), None);
        for &job in &self.jobs {
            if let Some(group) = self.manager.group_of(job) {
                self.group_jobs.insert(group, job);
            }
        }
        out
    }

    /// With `JOB_TRACE` set, a replayed run tells all that goes in and comes out.
    #[expect(clippy::print_stderr, reason = "it is asked for")]
    fn trace(&self, what: &impl std::fmt::Debug) {
        if self.traces {
            eprintln!("{:>12} {what:?}", self.now.0);
        }
    }

    /// Does what an output says; the input that follows from it at once.
    fn absorb(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Reply { serial, result } => {
                let record = self.calls.get_mut(&serial).expect("an answer needs a question");
                assert!(record.answer.is_none(), "answered twice: {record:?}, now {result:?}");
                let session = record.session;
                if let Ok(Reply::Handle(handle)) = result
                    && let Ok(job) = self.manager.job_of(session, handle, Access::empty())
                    && !self.jobs.contains(&job)
                {
                    self.jobs.push(job);
                }
                record.answer = Some((self.now, result));
                None
            }
            Output::Arm { timer, at } => {
                self.timers.insert(timer, at);
                None
            }
            Output::Disarm { timer } => {
                self.timers.remove(&timer);
                None
            }
            Output::Effect { id, serial, effect } => {
                let order = ordered_by(&effect);
                self.effects.insert(id, InFlight { serial, effect });
                if self.pace.delay.is_zero() {
                    let outcome = self.carry_out(id);
                    return Some(Input::Done { effect: id, outcome });
                }
                let mut at = self.now.after(self.delay());
                if let Some(group) = order {
                    let last = self.last_on_group.entry(group).or_default();
                    at = at.max(*last);
                    *last = at;
                }
                self.schedule_at(at, Happening::Execute(id));
                None
            }
        }
    }

    fn execute(&mut self, id: EffectId) {
        let outcome = self.carry_out(id);
        if let Ok(Outcome::Born { process, .. }) = outcome {
            self.newborns.insert(process);
        }
        let delay = self.delay();
        self.schedule(delay, Happening::Tell(Input::Done { effect: id, outcome }));
        self.notice_deaths();
    }

    fn carry_out(&mut self, id: EffectId) -> Result<Outcome, Fault> {
        let InFlight { serial, effect } = self.effects.remove(&id).expect("it is on its way");
        if let Effect::Kill { group, .. } = effect {
            let job = self.group_jobs.get(&group).copied();
            let victims = self.kernel.members(group);
            let groups = self.kernel.below(group);
            self.kills.push(KillRecord { at: self.now, groups, job, victims });
        }
        if self.chance.one_in(self.pace.fault_one_in)
            && let Some(fault) = possible_fault(&effect)
        {
            return Err(fault);
        }
        let caller = serial.and_then(|serial| self.calls[&serial].caller);
        let outcome = self.kernel.carry_out(&effect, caller);
        if let (Some(serial), Ok(Outcome::Born { process, .. })) = (serial, &outcome) {
            self.calls.get_mut(&serial).expect("it was asked").born = Some(*process);
        }
        outcome
    }

    // What the platform watches.

    fn notice_deaths(&mut self) {
        for process in self.kernel.take_dying() {
            let delay = Duration::from_micros(self.chance.below(20_000));
            self.schedule(delay, Happening::Die(process));
        }
        for (process, groups) in self.kernel.take_deaths() {
            for group in groups {
                let delay = self.delay();
                self.schedule(delay, Happening::Look(group));
            }
            self.schedule_release(process);
        }
    }

    fn schedule_release(&mut self, process: ProcessKey) {
        let delay = self.delay();
        self.schedule(delay, Happening::Release(process));
    }

    /// Looks whether a group is empty, as the platform does when a member has died.
    fn look(&mut self, group: GroupKey) {
        let known = self.kernel.groups().contains(&group);
        let Some(&job) = self.group_jobs.get(&group) else { return };
        if !known || self.manager.group_of(job) != Some(group) || self.kernel.is_populated(group) {
            return;
        }
        match self.manager.commits(job) {
            Some(commits) => {
                let news = Input::Event(Event::Emptied { group, commits });
                if self.pace.delay.is_zero() {
                    self.step(news);
                } else {
                    let delay = self.delay();
                    self.schedule(delay, Happening::Tell(news));
                }
            }
            None => self.schedule(Duration::from_millis(1), Happening::Look(group)),
        }
    }

    /// The last handle to a dead process is closed, unless somebody still has one.
    fn release(&mut self, process: ProcessKey) {
        let asked = self.unanswered().into_iter().any(|serial| {
            let record = &self.calls[&serial];
            record.process == Some(process) || record.caller == Some(process)
        });
        let candidate = self.effects.values().any(
            |flight| matches!(flight.effect, Effect::KillProcess { process: p } if p == process),
        );
        if self.held.contains(&process) {
            return;
        }
        if asked || candidate || self.newborns.contains(&process) {
            return self.schedule(Duration::from_millis(1), Happening::Release(process));
        }
        self.kernel.release(process);
        self.step(Input::Event(Event::Released { process }));
    }

    /// In an orderly world what was noticed is told before anything else happens.
    fn settle_down(&mut self) {
        if !self.pace.delay.is_zero() {
            return;
        }
        self.notice_deaths();
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now
        {
            let happening = entry.remove();
            self.happen(happening);
            self.notice_deaths();
        }
    }

    fn delay(&mut self) -> Duration {
        let most = self.pace.delay.as_nanos() as u64;
        if most == 0 {
            return Duration::ZERO;
        }
        // Mostly short, sometimes long: what races is what is near.
        let most = if self.chance.one_in(4) { most } else { (most / 16).max(1) };
        Duration::from_nanos(self.chance.below(most))
    }

    fn schedule(&mut self, delay: Duration, happening: Happening) {
        self.schedule_at(self.now.after(delay), happening);
    }

    fn schedule_at(&mut self, at: Tick, happening: Happening) {
        self.queue.insert((at, self.next_happening), happening);
        self.next_happening += 1;
    }

    /// Somebody from below looks at every group, as an engine does before it goes.
    pub fn look_everywhere(&mut self) {
        for group in self.kernel.groups() {
            self.look(group);
        }
    }
}

/// The group whose effects keep their order. Births and moves take their time.
fn ordered_by(effect: &Effect) -> Option<GroupKey> {
    match *effect {
        Effect::Guard { group, .. }
        | Effect::FreshLeaf { group }
        | Effect::Kill { group, .. }
        | Effect::Trim { group, .. }
        | Effect::Signal { group, .. }
        | Effect::Freeze { group, .. }
        | Effect::Usage { group, .. }
        | Effect::List { group }
        | Effect::Fuse { group, .. }
        | Effect::Retire { group } => Some(group),
        Effect::MakeGroup { .. }
        | Effect::Birth { .. }
        | Effect::Move { .. }
        | Effect::KillProcess { .. } => None,
    }
}

/// How an effect can fail through nobody's fault.
fn possible_fault(effect: &Effect) -> Option<Fault> {
    const EAGAIN: i32 = 11;
    const EBUSY: i32 = 16;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    Some(match effect {
        Effect::MakeGroup { .. } => fault("mkdir", EMFILE),
        Effect::Guard { .. } => fault("guardian", EAGAIN),
        Effect::FreshLeaf { .. } => fault("mkdir", ENOSPC),
        Effect::Birth { target: Target::Inherit } => fault("clone3", EAGAIN),
        Effect::Birth { .. } => fault("clone3", EMFILE),
        Effect::Move { .. } => fault("cgroup.procs", EBUSY),
        Effect::Kill { .. } => fault("cgroup.kill", EMFILE),
        Effect::Trim { .. } | Effect::List { .. } => fault("cgroup.procs", EMFILE),
        Effect::Signal { .. } => fault("cgroup.procs", EMFILE),
        Effect::Freeze { .. } => fault("cgroup.freeze", EMFILE),
        Effect::Usage { .. } => fault("cpu.stat", EMFILE),
        Effect::Retire { .. } => fault("rmdir", EBUSY),
        // A candidate's pidfd is there already, and a fuse is optional.
        Effect::KillProcess { .. } | Effect::Fuse { .. } => return None,
    })
}
