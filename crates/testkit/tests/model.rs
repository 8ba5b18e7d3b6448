//! The object manager and the naive model, side by side: one random call after the other, every
//! effect done at once. After every step they agree on the answer and on who is alive.
//!
//! `JOB_SEEDS=n` tries more scripts, `JOB_SEED=n` others; a failure prints the shortest script.

use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{
    Access, Actor, Call, EndReason, Handle, JobTime, Limits, OnLimit, Reply, Status, Ticks,
};
use jobobject_core::{Config, Nesting, Place, ProcessKey, Refusal};
use jobobject_testkit::model::Figures;
use jobobject_testkit::{Model, Traps, World};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const BY: Actor = Actor { pid: 1 };

/// A step of a script. Numbers name whatever there is, modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    Create(Limits),
    Duplicate(u8, Access),
    Close(u8),
    SetLimits(u8, Limits),
    QueryLimits(u8),
    QueryOwn(u8),
    Start,
    Spawn { caller: Option<u8>, jobs: Vec<u8>, breakaway: bool },
    Assign(u8, u8),
    IsInJob(Option<u8>, u8),
    Members(u8),
    Terminate(u8),
    Stop(u8, u8),
    Freeze(u8),
    Thaw(u8),
    Accounting(u8),
    Reason(u8),
    State(u8),
    Fork(u8),
    Exit(u8),
    Ignore(u8),
    Hold(u8, bool),
    Burn(u8, u8),
    Advance(u8),
}

fn limits() -> impl Strategy<Value = Limits> {
    let often_none = || prop::option::weighted(0.2, 0..4u32);
    let job_time = prop_oneof![
        6 => Just(JobTime::Unlimited),
        1 => Just(JobTime::Keep),
        2 => (1..12u64).prop_map(|ms| JobTime::Limit(Ticks(ms * 100_000))),
    ];
    // No two deadlines at the same moment: which comes first is nobody's promise.
    let wall =
        prop::option::weighted(0.15, (1..20u64).prop_map(|n| Duration::from_millis(n * 10 + 3)));
    (
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
        often_none(),
        job_time,
        wall,
    )
        .prop_map(
            |(
                kill_on_close,
                breakaway_ok,
                silent_breakaway_ok,
                active_processes,
                job_time,
                wall_time,
            )| {
                Limits {
                    kill_on_close,
                    breakaway_ok,
                    silent_breakaway_ok,
                    active_processes,
                    job_time,
                    wall_time,
                    on_limit: OnLimit::Kill,
                    ..Limits::default()
                }
            },
        )
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        Just(Access::ALL),
        Just(Access::QUERY),
        Just(Access::ASSIGN_PROCESS | Access::QUERY),
        Just(Access::TERMINATE),
        Just(Access::SET_ATTRIBUTES | Access::SYNCHRONIZE),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        3 => limits().prop_map(Step::Create),
        1 => (n(), access()).prop_map(|(h, a)| Step::Duplicate(h, a)),
        2 => n().prop_map(Step::Close),
        1 => (n(), limits()).prop_map(|(h, l)| Step::SetLimits(h, l)),
        1 => n().prop_map(Step::QueryLimits),
        1 => n().prop_map(Step::QueryOwn),
        1 => Just(Step::Start),
        6 => (prop::option::of(n()), prop::collection::vec(n(), 0..4), prop::bool::weighted(0.25))
            .prop_map(|(caller, jobs, breakaway)| Step::Spawn { caller, jobs, breakaway }),
        5 => (n(), n()).prop_map(|(h, p)| Step::Assign(h, p)),
        2 => (prop::option::of(n()), n()).prop_map(|(h, p)| Step::IsInJob(h, p)),
        2 => n().prop_map(Step::Members),
        1 => n().prop_map(Step::Terminate),
        1 => (n(), 0..6u8).prop_map(|(h, g)| Step::Stop(h, g)),
        1 => n().prop_map(Step::Freeze),
        1 => n().prop_map(Step::Thaw),
        2 => n().prop_map(Step::Accounting),
        2 => n().prop_map(Step::Reason),
        1 => n().prop_map(Step::State),
        3 => n().prop_map(Step::Fork),
        2 => n().prop_map(Step::Exit),
        1 => n().prop_map(Step::Ignore),
        1 => (n(), any::<bool>()).prop_map(|(p, held)| Step::Hold(p, held)),
        2 => (n(), 1..8u8).prop_map(|(p, ms)| Step::Burn(p, ms)),
        1 => (1..8u8).prop_map(Step::Advance),
    ]
}

/// What a step gave, in words that both sides can say.
#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    Code(Status),
    Bool(bool),
    Two(bool, bool),
    Processes(Vec<usize>),
    Figures(Figures),
    Limits(Limits),
    Reason(EndReason),
}

impl<T: Into<Seen>> From<Result<T, Status>> for Seen {
    fn from(answer: Result<T, Status>) -> Self {
        answer.map_or_else(Seen::Code, Into::into)
    }
}

impl From<()> for Seen {
    fn from((): ()) -> Self {
        Self::Nothing
    }
}

struct Pair {
    world: World,
    model: Model,
    handles: Vec<Handle>,
    processes: Vec<ProcessKey>,
    /// Forked, and never in a call: when such a process is dead nobody knows where it was.
    unknown: Vec<usize>,
}

fn pick(n: u8, len: usize) -> Option<usize> {
    (len > 0).then(|| usize::from(n) % len)
}

impl Pair {
    fn new(nesting: Nesting) -> Self {
        // A pid that is used again would be taken for a process seen before: "at least" is less
        // than the model's count then.
        let traps = Traps { pid_reuse: false, ..Traps::orderly() };
        let config = Config { nesting, cpus: 1, ..Config::default() };
        Self {
            world: World::orderly(config, traps),
            model: Model::new(nesting == Nesting::Single),
            handles: Vec::new(),
            processes: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn ask(&mut self, call: Call) -> Result<Reply, Status> {
        self.world.ask(call).map_err(|refusal: Refusal| refusal.status())
    }

    fn about(&mut self, process: usize, call: Call) -> Result<Reply, Status> {
        let serial = self.world.call_about(self.processes[process], call);
        self.world.answer(serial).map_err(|refusal| refusal.status())
    }

    /// Does a step on both sides; what each saw, the manager first.
    fn go(&mut self, step: &Step) -> (Seen, Seen) {
        let h = |n: &u8| pick(*n, self.handles.len());
        let p = |n: &u8| pick(*n, self.processes.len());
        let none = (Seen::Nothing, Seen::Nothing);
        match step {
            Step::Create(limits) => {
                let handle = self.world.create(limits.clone());
                self.handles.push(handle);
                self.model.create(limits.clone());
                none
            }
            Step::Duplicate(n, access) => {
                let Some(h) = h(n) else { return none };
                let call = Call::Duplicate { job: self.handles[h], access: *access };
                let real = self.ask(call);
                let naive = self.model.duplicate(h, *access);
                if let Ok(Reply::Handle(handle)) = real {
                    self.handles.push(handle);
                }
                (real.map(|_| ()).into(), naive.map(|_| ()).into())
            }
            Step::Close(n) => {
                let Some(h) = h(n) else { return none };
                let call = Call::Close { job: self.handles[h] };
                (self.done(call), self.model.close(h).into())
            }
            Step::SetLimits(n, limits) => {
                let Some(h) = h(n) else { return none };
                let call = Call::SetLimits { job: self.handles[h], limits: limits.clone() };
                (self.done(call), self.model.set_limits(h, limits.clone()).into())
            }
            Step::QueryLimits(n) => {
                let Some(h) = h(n) else { return none };
                let real = self.ask(Call::QueryLimits { job: Some(self.handles[h]) });
                (limits_in(real), self.model.limits(h).map_or_else(Seen::Code, Seen::Limits))
            }
            Step::QueryOwn(n) => {
                let Some(p) = p(n).filter(|p| self.model.is_alive(*p)) else { return none };
                let call = Call::QueryLimits { job: None };
                let serial = self.world.call_as(self.processes[p], call);
                let real = self.world.answer(serial).map_err(|refusal| refusal.status());
                (limits_in(real), self.model.own_limits(p).map_or_else(Seen::Code, Seen::Limits))
            }
            Step::Start => {
                let process = self.world.kernel.start(Place::Outside);
                self.processes.push(process);
                self.model.start();
                none
            }
            Step::Spawn { caller, jobs, breakaway } => {
                let caller = caller.as_ref().and_then(p).filter(|p| self.model.runs(*p));
                let list: Vec<usize> = jobs.iter().filter_map(h).collect();
                let jobs = list.iter().map(|h| self.handles[*h]).collect();
                let call = Call::Spawn { jobs, breakaway: *breakaway };
                let caller_key = caller.map(|p| self.processes[p]);
                let serial = self.world.call_from(World::SESSION, caller_key, None, call);
                let real = self.world.answer(serial).map_err(|refusal| refusal.status());
                if real.is_ok() {
                    self.processes.push(self.world.record(serial).born.expect("born"));
                }
                let naive = self.model.spawn(caller, &list, *breakaway);
                (real.map(|_| ()).into(), naive.map(|_| ()).into())
            }
            Step::Assign(n, m) => {
                let (Some(h), Some(p)) = (h(n), p(m)) else { return none };
                let call = Call::Assign { job: self.handles[h], from_foreign: false };
                let real = self.about(p, call);
                self.unknown.retain(|unknown| *unknown != p || real.is_err());
                (real.map(|_| ()).into(), self.model.assign(h, p).into())
            }
            Step::IsInJob(n, m) => {
                let h = n.as_ref().and_then(h);
                let Some(p) = p(m) else { return none };
                if !self.model.is_alive(p) && self.forgotten(p) {
                    return none;
                }
                let job = h.map(|h| self.handles[h]);
                let real = match self.about(p, Call::IsInJob { job }) {
                    Ok(Reply::InJob(inside)) => Seen::Bool(inside),
                    other => other.map(|_| ()).into(),
                };
                (real, self.model.is_in_job(h, p).map_or_else(Seen::Code, Seen::Bool))
            }
            Step::Members(n) => {
                let Some(h) = h(n) else { return none };
                let real = match self.ask(Call::Members { job: self.handles[h] }) {
                    Ok(Reply::Members(pids)) => {
                        Seen::Processes(pids.iter().map(|pid| self.number_of(*pid)).collect())
                    }
                    other => other.map(|_| ()).into(),
                };
                (real, self.model.list(h).map_or_else(Seen::Code, Seen::Processes))
            }
            Step::Terminate(n) => {
                let Some(h) = h(n) else { return none };
                let call = Call::Terminate { job: self.handles[h], code: 42, by: BY };
                let reason = EndReason::Terminated { code: 42, by: BY };
                (self.done(call), self.model.terminate(h, reason).into())
            }
            Step::Stop(n, tens) => {
                let Some(h) = h(n) else { return none };
                let grace_ms = u64::from(*tens) * 10 + 7;
                let grace = Duration::from_millis(grace_ms);
                let call =
                    Call::Stop { job: self.handles[h], signal: 15, grace, code: 143, by: BY };
                let reason = EndReason::Terminated { code: 143, by: BY };
                (self.done(call), self.model.stop(h, grace_ms, reason).into())
            }
            Step::Freeze(n) => {
                let Some(h) = h(n) else { return none };
                (self.done(Call::Freeze { job: self.handles[h] }), self.model.freeze(h).into())
            }
            Step::Thaw(n) => {
                let Some(h) = h(n) else { return none };
                (self.done(Call::Thaw { job: self.handles[h] }), self.model.thaw(h).into())
            }
            Step::Accounting(n) => {
                let Some(h) = h(n) else { return none };
                let call = Call::Accounting { job: self.handles[h], active: true };
                let real = match self.ask(call) {
                    Ok(Reply::Accounting(real)) => Seen::Figures(Figures {
                        user: real.user_time,
                        period_user: real.period_user_time,
                        total: real.total_processes.count(),
                        active: real.active_processes.unwrap_or(u32::MAX),
                        terminated: real.terminated_processes,
                    }),
                    other => other.map(|_| ()).into(),
                };
                (real, self.model.accounting(h).map_or_else(Seen::Code, Seen::Figures))
            }
            Step::Reason(n) => {
                let Some(h) = h(n) else { return none };
                let real = match self.ask(Call::End { job: self.handles[h] }) {
                    Ok(Reply::End { reason, .. }) => Seen::Reason(reason),
                    other => other.map(|_| ()).into(),
                };
                (real, self.model.reason(h).map_or_else(Seen::Code, Seen::Reason))
            }
            Step::State(n) => {
                let Some(h) = h(n) else { return none };
                let real = match self.ask(Call::State { job: self.handles[h] }) {
                    Ok(Reply::State { signaled, terminating }) => Seen::Two(signaled, terminating),
                    other => other.map(|_| ()).into(),
                };
                let naive = self.model.state(h).map(|(signaled, ends)| Seen::Two(signaled, ends));
                (real, naive.unwrap_or_else(Seen::Code))
            }
            Step::Fork(n) => {
                let Some(p) = p(n).filter(|p| self.model.runs(*p)) else { return none };
                let parent = self.processes[p];
                let child = self.world.act(|kernel| kernel.fork(parent)).expect("it runs");
                self.unknown.push(self.processes.len());
                self.processes.push(child);
                self.model.fork(p);
                none
            }
            Step::Exit(n) => {
                let Some(p) = p(n).filter(|p| self.model.runs(*p)) else { return none };
                let process = self.processes[p];
                self.world.act(|kernel| kernel.exit(process, 0));
                self.model.exit(p);
                none
            }
            Step::Ignore(n) => {
                let Some(p) = p(n).filter(|p| self.model.is_alive(*p)) else { return none };
                self.world.kernel.ignore_signals(self.processes[p]);
                self.model.ignore_signals(p);
                none
            }
            Step::Hold(n, held) => {
                let Some(p) = p(n) else { return none };
                if *held && self.model.is_alive(p) {
                    self.world.hold(self.processes[p]);
                    self.model.hold(p, true);
                } else if !held {
                    self.world.let_go(self.processes[p]);
                    self.model.hold(p, false);
                }
                none
            }
            Step::Burn(n, tens) => {
                let Some(p) = p(n) else { return none };
                let ms = u64::from(*tens) * 10;
                for _ in 0..ms {
                    let used = CpuTimes { user: Ticks(10_000), kernel: Ticks(0) };
                    self.world.kernel.burn(self.processes[p], used);
                    self.world.advance(Duration::from_millis(1));
                }
                self.model.burn(p, ms);
                none
            }
            Step::Advance(tens) => {
                self.world.advance(Duration::from_millis(u64::from(*tens) * 10));
                self.model.advance(u64::from(*tens) * 10);
                none
            }
        }
    }

    fn done(&mut self, call: Call) -> Seen {
        self.ask(call).map(|_| ()).into()
    }

    fn number_of(&self, pid: u32) -> usize {
        let key = self.world.kernel.find(pid).expect("a pid of this kernel");
        self.processes.iter().position(|other| *other == key).expect("a process of this script")
    }

    /// It is dead and nobody has a handle to it, or nobody ever told where it was.
    fn forgotten(&self, process: usize) -> bool {
        self.unknown.contains(&process) || !self.world.is_held(self.processes[process])
    }

    fn alive(&self) -> (Vec<bool>, Vec<bool>) {
        let numbers = 0..self.processes.len();
        let real = self.processes.iter().map(|key| self.world.kernel.is_alive(*key)).collect();
        (real, numbers.map(|number| self.model.is_alive(number)).collect())
    }
}

fn limits_in(real: Result<Reply, Status>) -> Seen {
    match real {
        Ok(Reply::Limits(limits)) => Seen::Limits(limits),
        other => other.map(|_| ()).into(),
    }
}

fn agree(nesting: Nesting, script: &[Step]) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(nesting);
    for step in script {
        let (real, naive) = pair.go(step);
        prop_assert_eq!(real, naive, "the manager (left) and the model differ: {:?}", step);
        // Forks over a limit are found at the next scan.
        pair.world.advance(Duration::from_millis(10));
        pair.model.advance(10);
        let (real, naive) = pair.alive();
        prop_assert_eq!(real, naive, "alive, by the manager (left) and the model: {:?}", step);
        prop_assert_eq!(pair.world.kernel.violations(), &[] as &[String]);
        pair.world.look_everywhere();
        prop_assert_eq!(pair.world.manager.job_count(), pair.model.job_count(), "jobs: {:?}", step);
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    ProptestConfig {
        cases: number("JOB_SEEDS").unwrap_or(300) as u32,
        // The same scripts on every run, others with another seed.
        rng_seed: RngSeed::Fixed(number("JOB_SEED").unwrap_or(0)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn manager_and_model_agree(script in prop::collection::vec(step(), 1..60)) {
        agree(Nesting::Hierarchy, &script)?;
    }

    #[test]
    fn manager_and_model_agree_where_jobs_cannot_nest(
        script in prop::collection::vec(step(), 1..40)
    ) {
        agree(Nesting::Single, &script)?;
    }
}
