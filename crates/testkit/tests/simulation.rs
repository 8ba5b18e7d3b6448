//! What holds whatever is delayed, reordered or fails: random scripts ruled by seeds.
//!
//! `JOB_SEEDS=n` tries more seeds, `JOB_SEED=n` replays one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{
    Access, Actor, Call, EndReason, Handle, JobTime, Limits, OnLimit, Reply, Ticks,
};
use jobobject_core::{Config, Event, Input, JobId, Place, ProcessKey, Serial, SessionId};
use jobobject_testkit::kernel::{Death, Killer};
use jobobject_testkit::{Traps, World, for_each_seed};

const BY: Actor = Actor { pid: 1 };

/// A handle that the script has open.
#[derive(Debug, Clone, Copy)]
struct Open {
    session: SessionId,
    handle: Handle,
    job: JobId,
}

/// What a script has done that its judge must know.
#[derive(Debug, Default)]
struct Script {
    open: Vec<Open>,
    /// Every handle there ever was.
    handles: HashMap<Handle, JobId>,
    limits: HashMap<JobId, Limits>,
    processes: Vec<ProcessKey>,
    /// Jobs whose members may be killed.
    causes: BTreeSet<JobId>,
    /// Who must be dead when everything is quiet.
    doomed: Vec<(ProcessKey, &'static str)>,
    /// Spawns that were under way when their job was terminated or closed.
    caught: Vec<(Serial, &'static str)>,
    /// Freezes less thaws, as far as no stop has taken them back.
    freezes: HashMap<JobId, i32>,
    stops: bool,
    /// Jobs of which it is not known whether their last close kills: several sets were under way.
    unsure: BTreeSet<JobId>,
    counted: BTreeSet<Serial>,
}

fn some_limits(world: &mut World) -> Limits {
    let chance = &mut world.chance;
    Limits {
        kill_on_close: chance.one_in(2),
        breakaway_ok: chance.one_in(4),
        silent_breakaway_ok: chance.one_in(8),
        active_processes: chance.one_in(4).then(|| chance.below(4) as u32),
        job_time: match chance.below(6) {
            0 => JobTime::Limit(Ticks(10_000 * (1 + chance.below(200)))),
            1 => JobTime::Keep,
            _ => JobTime::Unlimited,
        },
        wall_time: chance.one_in(6).then(|| Duration::from_millis(1 + chance.below(60))),
        on_limit: if chance.one_in(3) {
            OnLimit::Stop { signal: 15, grace: Duration::from_millis(chance.below(20)) }
        } else {
            OnLimit::Kill
        },
        ..Limits::default()
    }
}

impl Script {
    fn note_limits(&mut self, job: JobId, limits: &Limits) {
        if limits.wall_time.is_some() || limits.job_time != JobTime::Unlimited {
            self.causes.insert(job);
            self.stops |= matches!(limits.on_limit, OnLimit::Stop { .. });
        }
    }

    fn create(&mut self, world: &mut World) {
        let session = SessionId(1 + world.chance.below(2) as u32);
        let limits = some_limits(world);
        let serial = world.call_from(session, None, None, Call::Create { limits: limits.clone() });
        let Ok(Reply::Handle(handle)) = world.answer(serial) else { panic!("a job is refused") };
        let job = world.manager.job_of(session, handle, Access::empty()).expect("just made");
        self.note_limits(job, &limits);
        self.limits.insert(job, limits);
        self.handles.insert(handle, job);
        self.open.push(Open { session, handle, job });
    }

    fn members(&self, world: &World, job: JobId) -> Vec<ProcessKey> {
        let group = world.manager.group_of(job);
        group.map(|group| world.kernel.members(group)).unwrap_or_default()
    }

    /// Whoever is in the job now, or is on the way into it, must not be there when it is over.
    fn doom(&mut self, world: &World, job: JobId, why: &'static str) {
        self.causes.insert(job);
        self.doomed.extend(self.members(world, job).into_iter().map(|key| (key, why)));
        for serial in world.unanswered() {
            let record = world.record(serial);
            let Call::Spawn { jobs, .. } = &record.call else { continue };
            let handle = |handle: &Handle| {
                self.open.iter().find(|open| open.handle == *handle).map(|open| open.job)
            };
            if jobs.iter().filter_map(handle).any(|named| named == job) {
                self.caught.push((serial, why));
            }
        }
    }

    fn terminate(&mut self, world: &mut World, open: Open) {
        self.doom(world, open.job, "terminated");
        let call = Call::Terminate { job: open.handle, code: 42, by: BY };
        world.call_from(open.session, None, None, call);
    }

    fn close(&mut self, world: &mut World, index: usize) {
        let open = self.open[index];
        let last = self.open.iter().filter(|other| other.job == open.job).count() == 1;
        if last && self.unsure.contains(&open.job) {
            self.causes.insert(open.job);
        } else if last && self.limits[&open.job].kill_on_close {
            self.doom(world, open.job, "closed");
        }
        self.open.remove(index);
        world.call_from(open.session, None, None, Call::Close { job: open.handle });
    }

    /// One step of the script.
    fn go_on(&mut self, world: &mut World) {
        self.note_answers(world);
        let Some(&open) = world.chance.pick(&self.open) else { return self.create(world) };
        let alive: Vec<ProcessKey> = world.kernel.living();
        let someone = world.chance.pick(&alive).copied();
        let handle = open.handle;
        let ask = |world: &mut World, call| world.call_from(open.session, None, None, call);
        match (world.chance.below(32), someone) {
            (0..3, _) => self.create(world),
            (3..9, _) => self.spawn(world, open, someone),
            (9..14, Some(process)) => {
                let call = Call::Assign { job: handle, from_foreign: false };
                world.call_from(open.session, None, Some(process), call);
            }
            (14, _) => self.terminate(world, open),
            (15, _) => {
                self.causes.insert(open.job);
                self.stops = true;
                let grace = Duration::from_micros(world.chance.below(20_000));
                let stop = Call::Stop { job: handle, signal: 15, grace, code: 143, by: BY };
                ask(world, stop);
            }
            (16..18, _) => {
                let index = world.chance.below(self.open.len() as u64) as usize;
                self.close(world, index);
            }
            (18, _) => {
                let call = Call::Duplicate { job: handle, access: Access::ALL };
                let serial = ask(world, call);
                if let Ok(Reply::Handle(handle)) = world.answer(serial) {
                    self.handles.insert(handle, open.job);
                    self.open.push(Open { handle, ..open });
                }
            }
            (19, _) => {
                ask(world, Call::Freeze { job: handle });
            }
            (20, _) => {
                ask(world, Call::Thaw { job: handle });
            }
            (21, _) => {
                let limits = some_limits(world);
                self.note_limits(open.job, &limits);
                let kill_on_close = self.limits[&open.job].kill_on_close;
                let flips = world.chance.one_in(3);
                if flips {
                    self.unsure.insert(open.job);
                }
                let limits = Limits { kill_on_close: kill_on_close != flips, ..limits };
                ask(world, Call::SetLimits { job: handle, limits });
            }
            (22, _) => {
                ask(world, Call::Members { job: handle });
            }
            (23, _) => {
                ask(world, Call::Accounting { job: handle, active: true });
            }
            (24, _) => {
                ask(world, Call::End { job: handle });
            }
            (25..28, Some(process)) => {
                world.act(|kernel| kernel.fork(process));
            }
            (28, Some(process)) => {
                world.act(|kernel| kernel.exit(process, 0));
            }
            (29, Some(process)) => {
                let used =
                    CpuTimes { user: Ticks(world.chance.below(2_000_000)), kernel: Ticks(7) };
                world.act(|kernel| kernel.burn(process, used));
            }
            (30, Some(process)) => world.kernel.ignore_signals(process),
            (31, Some(process)) if world.chance.one_in(4) => world.start_storm(process, 12),
            _ => {
                let process = world.kernel.start(Place::Outside);
                self.processes.push(process);
            }
        }
    }

    fn spawn(&mut self, world: &mut World, open: Open, someone: Option<ProcessKey>) {
        let mut jobs = Vec::new();
        for other in self.open.iter().filter(|other| other.session == open.session) {
            if world.chance.one_in(3) {
                jobs.push(other.handle);
            }
        }
        let caller = someone.filter(|key| !world.kernel.is_frozen(*key));
        let caller = caller.filter(|_| world.chance.one_in(2));
        let breakaway = world.chance.one_in(5);
        world.call_from(open.session, caller, None, Call::Spawn { jobs, breakaway });
    }

    fn note_answers(&mut self, world: &World) {
        for (serial, record) in world.calls() {
            let Some((_, Ok(_))) = record.answer else { continue };
            let (Call::Freeze { job } | Call::Thaw { job }) = record.call else { continue };
            let (Some(job), true) = (self.handles.get(&job), self.counted.insert(*serial)) else {
                continue;
            };
            let count = self.freezes.entry(*job).or_default();
            match record.call {
                Call::Freeze { .. } => *count += 1,
                _ => *count -= 1,
            }
        }
    }

    /// What must hold when nothing is on its way.
    fn judge(&mut self, world: &World) {
        self.note_answers(world);
        assert_eq!(world.unanswered(), [], "calls without an answer");
        assert_eq!(world.kernel.violations(), [] as [String; 0]);
        for (process, why) in &self.doomed {
            assert!(!world.kernel.is_alive(*process), "{process} was {why} and lives");
        }
        for (serial, why) in &self.caught {
            let record = world.record(*serial);
            if let Some(born) = record.born {
                assert!(!world.kernel.is_alive(born), "born while its job was {why}: {record:?}");
            }
        }
        for kill in world.kills() {
            let job = kill.job.expect("a kill is for the group of a job");
            assert!(
                kill.victims.is_empty() || self.causes.contains(&job),
                "{job} has no reason to be killed: {kill:?}"
            );
        }
        self.judge_membership(world);
        for group in world.kernel.groups() {
            let owner = world.job_of_group(group).and_then(|job| world.manager.group_of(job));
            assert_eq!(owner, Some(group), "{group:?} belongs to no job");
        }
        for open in self.open.iter().filter(|_| !self.stops) {
            if let Some(count) = self.freezes.get(&open.job)
                && let Some(group) = world.manager.group_of(open.job)
            {
                let told = world.kernel.was_told_to_freeze(group);
                assert_eq!(told, *count > 0, "{} is frozen {count} times", open.job);
            }
        }
    }

    /// Who was put into a job, or born in it, is in it or dead.
    fn judge_membership(&self, world: &World) {
        for record in world.calls().values() {
            let Some((_, Ok(_))) = record.answer else { continue };
            let (process, handles) = match &record.call {
                Call::Assign { job, .. } => (record.process, vec![*job]),
                Call::Spawn { jobs, .. } => (record.born, jobs.clone()),
                _ => continue,
            };
            let Some(process) = process else { continue };
            if let Some(Death::Killed(Killer::Poison(group))) = world.kernel.death(process) {
                let killed = |kill: &&jobobject_testkit::world::KillRecord| {
                    kill.at >= record.asked && kill.groups.contains(&group)
                };
                assert!(
                    world.kills().iter().any(|kill| killed(&kill)),
                    "born into a stale leaf though nobody killed: {record:?}"
                );
            }
            if !world.kernel.is_alive(process) {
                continue;
            }
            let Place::Group(place) = world.kernel.place(process) else {
                assert!(handles.is_empty(), "{process} has slipped out: {record:?}");
                continue;
            };
            let chain = world.kernel.chain(place);
            for handle in handles {
                let Some(open) = self.open.iter().find(|open| open.handle == handle) else {
                    continue;
                };
                let group = world.manager.group_of(open.job);
                assert!(
                    group.is_some_and(|group| chain.contains(&group)),
                    "{process} is in {place:?}, not in {}: {record:?}",
                    open.job
                );
            }
        }
    }

    /// Everybody goes; nothing may be left.
    fn wind_up(&mut self, world: &mut World) {
        world.pace.fault_one_in = 0;
        while !self.open.is_empty() {
            self.close(world, 0);
            if world.chance.one_in(2) {
                world.pass(world.now().after(Duration::from_millis(1)));
            }
        }
        world.run_until_quiet();
        self.judge(world);
        for process in world.kernel.living() {
            world.act(|kernel| kernel.kill_by_stranger(process));
        }
        world.run_until_quiet();
        world.look_everywhere();
        world.run_until_quiet();
        assert_eq!(world.manager.job_count(), 0, "jobs without handles and members");
        assert_eq!(world.kernel.groups(), [], "groups without jobs");
    }
}

/// A random script in a random world.
fn random_run(seed: u64, fault_one_in: u64) {
    let mut world = World::new(seed);
    world.pace.fault_one_in = fault_one_in;
    let mut script = Script::default();
    for _ in 0..3 {
        let process = world.kernel.start(Place::Outside);
        script.processes.push(process);
        script.create(&mut world);
    }
    for _ in 0..40 {
        script.go_on(&mut world);
        for _ in 0..world.chance.below(6) {
            world.pass(world.now().after(Duration::from_millis(20)));
        }
    }
    world.run_until_quiet();
    script.judge(&world);
    script.wind_up(&mut world);
}

#[test]
fn nothing_slips_out_lingers_or_is_killed_for_nothing() {
    for_each_seed(400, |seed| random_run(seed, 0));
}

#[test]
fn nothing_slips_out_lingers_or_is_killed_for_nothing_when_effects_fail() {
    for_each_seed(400, |seed| random_run(seed, 12));
}

/// A job with a member whose children fork children, everything under way.
fn fork_storm_in_job(world: &mut World, limits: Limits) -> (Handle, ProcessKey) {
    let job = world.create(limits);
    let serial = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
    world.answer(serial).expect("a first member");
    let first = world.record(serial).born.expect("it was born");
    world.kernel.ignore_signals(first);
    world.start_storm(first, 40);
    let pause = Duration::from_micros(world.chance.below(4_000));
    world.advance(pause);
    (job, first)
}

fn alive_in_storm(world: &World) -> usize {
    world.kernel.living().len()
}

#[test]
fn last_close_kills_even_while_members_fork() {
    for_each_seed(300, |seed| {
        let mut world = World::new(seed);
        let limits = Limits { kill_on_close: true, ..Limits::default() };
        let (job, _) = fork_storm_in_job(&mut world, limits);
        world.pace.fault_one_in = 8;
        world.call(Call::Spawn { jobs: vec![job], breakaway: false });
        world.call(Call::Close { job });
        world.run_until_quiet();
        assert_eq!(alive_in_storm(&world), 0);
        assert_eq!(world.manager.job_count(), 0);
        assert_eq!(world.kernel.groups(), []);
    });
}

#[test]
fn a_lost_client_takes_its_fork_storm_along() {
    for_each_seed(100, |seed| {
        let mut world = World::new(seed);
        let limits = Limits { kill_on_close: true, ..Limits::default() };
        fork_storm_in_job(&mut world, limits);
        world.hang_up(World::SESSION);
        world.run_until_quiet();
        assert_eq!(alive_in_storm(&world), 0);
        assert_eq!(world.kernel.groups(), []);
    });
}

#[test]
fn a_terminated_job_is_empty_and_usable_again_though_members_fork() {
    for_each_seed(300, |seed| {
        let mut world = World::new(seed);
        let (job, _) = fork_storm_in_job(&mut world, Limits::default());
        if world.chance.one_in(2) {
            world.call(Call::Freeze { job });
        }
        let late = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
        let stop = world.chance.one_in(2);
        world.call(if stop {
            let grace = Duration::from_millis(5);
            Call::Stop { job, signal: 15, grace, code: 42, by: BY }
        } else {
            Call::Terminate { job, code: 42, by: BY }
        });
        world.call(Call::Terminate { job, code: 43, by: BY });
        world.run_until_quiet();
        assert_eq!(alive_in_storm(&world), 0);
        let Ok(Reply::End { reason, .. }) = world.ask(Call::End { job }) else { panic!("no end") };
        assert_eq!(reason, EndReason::Terminated { code: 42, by: BY }, "the first cause counts");
        assert!(world.record(late).answer.is_some());
        let again = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
        assert!(world.answer(again).is_ok(), "the job stays usable");
        world.run_until_quiet();
        let born = world.record(again).born.expect("it was born");
        assert!(world.kernel.is_alive(born), "{:?}", world.kernel.death(born));
    });
}

#[test]
fn a_time_limit_always_strikes() {
    for_each_seed(300, |seed| {
        let mut world = World::new(seed);
        world.pace.fault_one_in = [0, 10][world.chance.below(2) as usize];
        let ms = 5 + world.chance.below(60);
        let on_limit = if world.chance.one_in(2) {
            OnLimit::Kill
        } else {
            OnLimit::Stop { signal: 15, grace: Duration::from_millis(5) }
        };
        let wall = world.chance.one_in(2);
        let limits = Limits {
            wall_time: wall.then(|| Duration::from_millis(ms)),
            job_time: if wall { JobTime::Unlimited } else { JobTime::Limit(Ticks(ms * 10_000)) },
            on_limit,
            ..Limits::default()
        };
        let job = world.create(limits);
        let limited = world.job(job).expect("it is open");
        let mut first = None;
        while first.is_none() {
            let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
            if world.answer(spawn).is_ok() {
                first = world.record(spawn).born;
            }
        }
        let first = first.expect("it was born");
        world.kernel.ignore_signals(first);
        world.start_storm(first, 6);
        let closes_at = world.chance.below(2 * ms);
        let reads_at = world.chance.below(2 * ms);
        // Much longer than any delay of this world, retries included.
        for at in 0..ms + 1_500 {
            if alive_in_storm(&world) == 0 {
                break;
            }
            let used = CpuTimes { user: Ticks(10_000), kernel: Ticks(0) };
            let busy = world.kernel.living().into_iter().next();
            world.act(|kernel| busy.is_some_and(|busy| kernel.burn(busy, used)));
            world.advance(Duration::from_millis(1));
            if at == reads_at && closes_at > at {
                world.call(Call::Accounting { job, active: true });
            }
            if at == closes_at {
                world.call(Call::Close { job });
            }
        }
        assert_eq!(alive_in_storm(&world), 0, "{limited} outlives its limit");
    });
}

#[test]
fn the_active_process_limit_is_kept_and_never_stricter_than_it_says() {
    for_each_seed(400, |seed| {
        let mut world = World::new(seed);
        let limit = world.chance.below(5) as u32;
        let outer = world.create(Limits::default());
        let job = world.create(Limits { active_processes: Some(limit), ..Limits::default() });
        let nested = world.chance.one_in(2);
        let jobs = if nested { vec![outer, job] } else { vec![job] };
        let attempts = 1 + world.chance.below(8) as u32;
        let mut serials = Vec::new();
        for _ in 0..attempts {
            if world.chance.one_in(3) && !nested {
                let process = world.kernel.start(Place::Outside);
                let call = Call::Assign { job, from_foreign: false };
                serials.push(world.call_about(process, call));
            } else {
                serials.push(world.call(Call::Spawn { jobs: jobs.clone(), breakaway: false }));
            }
            for _ in 0..world.chance.below(5) {
                world.pass(world.now().after(Duration::from_millis(1)));
                let group = world.job(job).and_then(|job| world.manager.group_of(job));
                let members = group.map_or(0, |group| world.kernel.members(group).len());
                assert!(members as u32 <= limit, "{members} members, limit {limit}");
            }
        }
        world.run_until_quiet();
        let admitted = serials.iter().filter(|serial| world.answer(**serial).is_ok()).count();
        assert_eq!(admitted as u32, limit.min(attempts), "admitted of {attempts}, limit {limit}");
        for serial in serials {
            if let (Err(_), Some(process)) = (world.answer(serial), world.record(serial).process) {
                assert!(!world.kernel.is_alive(process), "a refused candidate is ended");
            }
        }
    });
}

#[test]
fn a_birth_that_a_kill_has_overtaken_does_not_live() {
    for_each_seed(300, |seed| {
        let mut world = World::new(seed);
        let outer = world.create(Limits::default());
        let inner = world.create(Limits::default());
        let jobs = vec![outer, inner];
        let mut spawns = Vec::new();
        for _ in 0..4 {
            spawns.push(world.call(Call::Spawn { jobs: jobs.clone(), breakaway: false }));
            for _ in 0..world.chance.below(8) {
                world.pass(world.now().after(Duration::from_millis(5)));
            }
        }
        let target = if world.chance.one_in(2) { outer } else { inner };
        world.call(Call::Terminate { job: target, code: 1, by: BY });
        world.run_until_quiet();
        for serial in spawns {
            let born = world.record(serial).born;
            assert!(born.is_none_or(|born| !world.kernel.is_alive(born)), "a survivor");
        }
    });
}

#[test]
fn who_comes_into_a_frozen_job_is_frozen_when_the_call_returns() {
    for_each_seed(200, |seed| {
        let mut world = World::new(seed);
        let job = world.create(Limits::default());
        if world.chance.one_in(2) {
            let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
            world.answer(spawn).expect("a member");
        }
        let freeze = world.call(Call::Freeze { job });
        world.answer(freeze).expect("it freezes");
        let process = world.kernel.start(Place::Outside);
        let assign = world.call_about(process, Call::Assign { job, from_foreign: false });
        let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
        world.answer(assign).expect("it is assigned");
        assert!(world.kernel.is_frozen(process));
        world.answer(spawn).expect("it is born");
        assert!(world.kernel.is_frozen(world.record(spawn).born.expect("born")));
        assert_eq!(world.kernel.violations(), [] as [String; 0]);
    });
}

#[test]
fn an_assignment_finds_the_process_where_the_one_before_it_put_it() {
    for_each_seed(200, |seed| {
        let mut world = World::new(seed);
        let (a, b) = (world.create(Limits::default()), world.create(Limits::default()));
        let process = world.kernel.start(Place::Outside);
        let first = world.call_about(process, Call::Assign { job: a, from_foreign: false });
        let second = world.call_about(process, Call::Assign { job: b, from_foreign: false });
        world.answer(first).expect("it was in no job");
        world.answer(second).expect("b nests below a");
        for job in [a, b] {
            let inside = world.call_about(process, Call::IsInJob { job: Some(job) });
            assert_eq!(world.answer(inside), Ok(Reply::InJob(true)));
        }
    });
}

/// The news that a group is empty, as of now.
fn emptied(world: &World, job: Handle) -> Input {
    let job = world.job(job).expect("it is open");
    let group = world.manager.group_of(job).expect("it has a group");
    let commits = world.manager.commits(job).expect("nobody is on the way");
    Input::Event(Event::Emptied { group, commits })
}

fn spawned_in(world: &mut World, job: Handle) -> ProcessKey {
    let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
    world.answer(spawn).expect("it is born");
    world.record(spawn).born.expect("it was born")
}

/// A job that is taken for empty is not stopped.
fn stop_reaches(world: &mut World, job: Handle, member: ProcessKey) {
    let grace = Duration::ZERO;
    world.ask(Call::Stop { job, signal: 15, grace, code: 143, by: BY }).expect("it is stopped");
    assert!(!world.kernel.is_alive(member), "old news was believed");
}

#[test]
fn old_news_of_an_empty_job_is_not_believed() {
    let mut world = World::orderly(Config::default(), Traps::orderly());
    let job = world.create(Limits::default());
    let first = spawned_in(&mut world, job);
    world.act(|kernel| kernel.exit(first, 0));
    let news = emptied(&world, job);
    let second = spawned_in(&mut world, job);
    world.tell(news);
    stop_reaches(&mut world, job, second);
}

#[test]
fn news_of_a_group_that_is_gone_does_not_concern_the_next_one_of_that_name() {
    let mut world = World::orderly(Config::default(), Traps::orderly());
    let old = world.create(Limits::default());
    let first = spawned_in(&mut world, old);
    let old_group = world.job(old).and_then(|job| world.manager.group_of(job));
    world.act(|kernel| kernel.exit(first, 0));
    let news = emptied(&world, old);
    world.ask(Call::Close { job: old }).expect("it closes");
    let new = world.create(Limits::default());
    let second = spawned_in(&mut world, new);
    assert_eq!(world.job(new).and_then(|job| world.manager.group_of(job)), old_group);
    world.tell(news);
    stop_reaches(&mut world, new, second);
}

#[test]
fn time_that_the_last_member_used_up_counts_though_it_left() {
    let mut world = World::orderly(Config::default(), Traps::orderly());
    let job =
        world.create(Limits { job_time: JobTime::Limit(Ticks(1_000_000)), ..Limits::default() });
    let member = spawned_in(&mut world, job);
    // Between two looks.
    let used = CpuTimes { user: Ticks(2_000_000), kernel: Ticks(0) };
    assert!(world.kernel.burn(member, used));
    world.act(|kernel| kernel.exit(member, 0));
    let state = world.ask(Call::State { job });
    assert_eq!(state, Ok(Reply::State { signaled: true, terminating: false }));
}

#[test]
fn a_stop_from_above_does_not_hold_up_a_kill_below() {
    for_each_seed(200, |seed| {
        let mut world = World::new(seed);
        let outer = world.create(Limits::default());
        let inner = world.create(Limits::default());
        let stubborn = spawned_in(&mut world, outer);
        world.kernel.ignore_signals(stubborn);
        let spawn = world.call(Call::Spawn { jobs: vec![outer, inner], breakaway: false });
        world.answer(spawn).expect("it is born");
        let first = world.record(spawn).born.expect("it was born");
        world.kernel.ignore_signals(first);
        world.start_storm(first, 20);
        world.advance(Duration::from_micros(500));
        world.call(Call::Terminate { job: inner, code: 1, by: BY });
        let grace = Duration::from_secs(60);
        world.call(Call::Stop { job: outer, signal: 15, grace, code: 143, by: BY });
        world.advance(Duration::from_secs(2));
        assert_eq!(world.kernel.living(), [stubborn]);
        world.advance(grace);
        assert_eq!(world.kernel.living(), []);
    });
}

#[test]
fn every_call_is_answered_though_its_job_is_gone_meanwhile() {
    for_each_seed(200, |seed| {
        let mut world = World::new(seed);
        let job = world.create(Limits::default());
        let member = spawned_in(&mut world, job);
        world.act(|kernel| kernel.exit(member, 0));
        world.run_until_quiet();
        let time = JobTime::Limit(Ticks(1_000_000));
        let calls = [
            Call::SetLimits { job, limits: Limits { kill_on_close: true, ..Limits::default() } },
            Call::SetLimits { job, limits: Limits { job_time: time, ..Limits::default() } },
            Call::Accounting { job, active: true },
            Call::End { job },
            Call::Members { job },
            Call::Signal { job, signal: 15 },
            Call::Freeze { job },
            Call::Terminate { job, code: 1, by: BY },
        ];
        let first = world.chance.below(calls.len() as u64) as usize;
        for call in &calls[first..] {
            world.call(call.clone());
        }
        world.call(Call::Close { job });
        world.run_until_quiet();
        world.look_everywhere();
        world.run_until_quiet();
        assert_eq!(world.unanswered(), []);
        assert_eq!(world.manager.job_count(), 0);
    });
}

#[test]
fn a_kill_that_meets_a_leaf_in_the_making_spoils_no_later_birth() {
    for_each_seed(300, |seed| {
        let mut world = World::new(seed);
        let job = world.create(Limits::default());
        for _ in 0..3 {
            let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
            if world.chance.one_in(2) {
                let _ = world.answer(spawn);
            }
            for _ in 0..world.chance.below(4) {
                world.pass(world.now().after(Duration::from_millis(40)));
            }
            world.call(Call::Terminate { job, code: 1, by: BY });
            if world.chance.one_in(2) {
                world.run_until_quiet();
            }
        }
        world.run_until_quiet();
        let last = spawned_in(&mut world, job);
        world.run_until_quiet();
        assert!(world.kernel.is_alive(last), "{:?}", world.kernel.death(last));
    });
}

#[test]
fn members_are_guarded_though_the_flag_came_while_the_group_was_made() {
    for_each_seed(100, |seed| {
        let mut world = World::new(seed);
        let kill_on_close = world.chance.one_in(2);
        let limits = |kill_on_close| Limits { kill_on_close, ..Limits::default() };
        let job = world.create(limits(!kill_on_close));
        let spawn = world.call(Call::Spawn { jobs: vec![job], breakaway: false });
        for _ in 0..world.chance.below(3) {
            world.pass(world.now().after(Duration::from_millis(40)));
        }
        let set = world.call(Call::SetLimits { job, limits: limits(kill_on_close) });
        world.answer(set).expect("it is set");
        world.answer(spawn).expect("it is born");
        let group = world.job(job).and_then(|job| world.manager.group_of(job)).expect("a group");
        assert_eq!(world.kernel.is_guarded(group), kill_on_close);
    });
}
