//! What holds whatever is delayed, reordered or fails: random scripts ruled by seeds.
//!
//! `JOB_SEEDS=n` tries more seeds, `JOB_SEED=n` replays one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{
    Access, Actor, Call, Handle, JobTime, Limits, OnLimit, Reply, Ticks,
};
use jobobject_core::{JobId, Place, ProcessKey, Serial, SessionId};
use jobobject_testkit::kernel::{Death, Killer};
use jobobject_testkit::{World, for_each_seed};

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
        if last && self.limits[&open.job].kill_on_close {
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
                // Only one set at a time: which of two is the last is not known.
                let kill_on_close = self.limits[&open.job].kill_on_close;
                let limits = Limits { kill_on_close, ..limits };
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
                let used = CpuTimes { user: Ticks(world.chance.below(2_000_000)), kernel: Ticks(7) };
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
