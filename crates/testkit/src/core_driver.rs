//! The conformance cases played on the object manager and the fake kernel, everything at once.

use std::collections::HashMap;
use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{Actor, Call, Handle, Reply, Ticks};
use jobobject_core::{Config, Nesting, Place, ProcessKey, Serial};

use crate::conformance::{
    Driver, Fact, Observed, Step, Unplayable, limits_in_words, reason_in_words,
};
use crate::kernel::Traps;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct CoreDriver {
    world: World,
    handles: HashMap<String, Handle>,
    /// `None`: it was never born.
    processes: HashMap<String, Option<ProcessKey>>,
}

impl Default for CoreDriver {
    fn default() -> Self {
        Self::new(Nesting::Hierarchy)
    }
}

impl CoreDriver {
    fn new(nesting: Nesting) -> Self {
        let config = Config { nesting, cpus: 1, ..Config::default() };
        Self {
            world: World::orderly(config, Traps::orderly()),
            handles: HashMap::new(),
            processes: HashMap::new(),
        }
    }

    fn handle(&self, name: &str) -> Result<Handle, Unplayable> {
        self.handles.get(name).copied().ok_or_else(|| Unplayable(format!("{name} was never made")))
    }

    fn process(&self, name: &str) -> Result<ProcessKey, Unplayable> {
        let process = self.processes.get(name).copied().flatten();
        process.ok_or_else(|| Unplayable(format!("{name} was never born")))
    }

    fn ask(&mut self, call: Call) -> Observed {
        let serial = self.world.call(call);
        self.observe(serial)
    }

    fn observe(&mut self, serial: Serial) -> Observed {
        match self.world.answer(serial) {
            Ok(reply) => self.in_words(reply),
            Err(refusal) => Observed::Refused(refusal.status(), refusal.detail()),
        }
    }

    fn in_words(&self, reply: Reply) -> Observed {
        match reply {
            Reply::Done | Reply::Handle(_) | Reply::Spawned { .. } => Observed::Done,
            Reply::Limits(limits) => Observed::Value(limits_in_words(&limits)),
            Reply::InJob(inside) => Observed::Value(if inside { "yes" } else { "no" }.to_owned()),
            Reply::Members(pids) if pids.is_empty() => Observed::Value("nobody".to_owned()),
            Reply::Members(pids) => {
                let names: Vec<String> = pids.iter().map(|pid| self.name_of(*pid)).collect();
                Observed::Value(names.join(" "))
            }
            Reply::Signaled(members) => Observed::Value(format!("signaled {members}")),
            Reply::Accounting(figures) => Observed::Figures(vec![
                ("total", figures.total_processes.count()),
                ("active", u64::from(figures.active_processes.unwrap_or(u32::MAX))),
                ("terminated", u64::from(figures.terminated_processes)),
                ("user", micros(figures.user_time)),
                ("period_user", micros(figures.period_user_time)),
            ]),
            Reply::End { reason, .. } => Observed::Value(reason_in_words(reason)),
            Reply::State { signaled, terminating } => {
                let not = if signaled { "signaled" } else { "not signaled" };
                let terminating = if terminating { " terminating" } else { "" };
                Observed::Value(format!("{not}{terminating}"))
            }
        }
    }

    fn name_of(&self, pid: u32) -> String {
        let key = self.world.kernel.find(pid);
        let named = self.processes.iter().find(|(_, known)| **known == key);
        named.map_or_else(|| format!("stranger {pid}"), |(name, _)| name.clone())
    }

    fn act(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut World, ProcessKey),
    ) -> Result<Observed, Unplayable> {
        let process = self.process(name)?;
        act(&mut self.world, process);
        Ok(Observed::Done)
    }
}

fn micros(ticks: Ticks) -> u64 {
    ticks.to_duration().as_micros() as u64
}

impl Driver for CoreDriver {
    fn begin(&mut self) {
        *self = Self::default();
    }

    fn play(&mut self, step: &Step) -> Result<Observed, Unplayable> {
        let by = Actor { pid: 1 };
        let observed = match step {
            Step::WithoutNesting => {
                *self = Self::new(Nesting::Single);
                Observed::Done
            }
            Step::Create(name, limits) => {
                let serial = self.world.call(Call::Create { limits: limits.clone() });
                if let Ok(Reply::Handle(handle)) = self.world.answer(serial) {
                    self.handles.insert(name.clone(), handle);
                }
                self.observe(serial)
            }
            Step::Duplicate(from, to, access) => {
                let call = Call::Duplicate { job: self.handle(from)?, access: *access };
                let serial = self.world.call(call);
                if let Ok(Reply::Handle(handle)) = self.world.answer(serial) {
                    self.handles.insert(to.clone(), handle);
                }
                self.observe(serial)
            }
            Step::Close(name) => self.ask(Call::Close { job: self.handle(name)? }),
            Step::HangUp => {
                self.world.hang_up(World::SESSION);
                Observed::Done
            }
            Step::Set(name, limits) => {
                self.ask(Call::SetLimits { job: self.handle(name)?, limits: limits.clone() })
            }
            Step::Spawn { process, by, jobs, breakaway } => {
                let list: Vec<String> = jobs.clone();
                let jobs = list.iter().map(|name| self.handle(name)).collect::<Result<_, _>>()?;
                let caller = by.as_ref().map(|by| self.process(by)).transpose()?;
                if caller.is_none() && list.is_empty() && !breakaway {
                    let newborn = self.world.kernel.start(Place::Outside);
                    self.processes.insert(process.clone(), Some(newborn));
                    return Ok(Observed::Done);
                }
                let call = Call::Spawn { jobs, breakaway: *breakaway };
                let serial = self.world.call_from(World::SESSION, caller, None, call);
                let observed = self.observe(serial);
                let born = self.world.record(serial).born;
                self.processes.insert(process.clone(), born);
                observed
            }
            Step::Fork(parent, child) => {
                let parent = self.process(parent)?;
                let born = self.world.act(|kernel| kernel.fork(parent));
                let born = born.ok_or_else(|| Unplayable("it is dead or suspended".to_owned()))?;
                self.processes.insert(child.clone(), Some(born));
                Observed::Done
            }
            Step::Assign(name, job) => {
                let call = Call::Assign { job: self.handle(job)?, from_foreign: false };
                let serial = self.world.call_about(self.process(name)?, call);
                self.observe(serial)
            }
            Step::Exit(name, code) => {
                let code = *code;
                self.act(name, |world, key| assert!(world.act(|kernel| kernel.exit(key, code))))?
            }
            Step::Kill(name) => {
                self.act(name, |world, key| world.act(|kernel| kernel.kill_by_stranger(key)))?
            }
            Step::IgnoreSignals(name) => {
                self.act(name, |world, key| world.kernel.ignore_signals(key))?
            }
            Step::Hold(name) => self.act(name, World::hold)?,
            Step::Release(name) => self.act(name, World::let_go)?,
            Step::Terminate(name, code) => {
                self.ask(Call::Terminate { job: self.handle(name)?, code: *code, by })
            }
            Step::Stop(name, grace) => {
                let job = self.handle(name)?;
                self.ask(Call::Stop { job, signal: 15, grace: *grace, code: 143, by })
            }
            Step::Signal(name, signal) => {
                self.ask(Call::Signal { job: self.handle(name)?, signal: *signal })
            }
            Step::Freeze(name) => self.ask(Call::Freeze { job: self.handle(name)? }),
            Step::Thaw(name) => self.ask(Call::Thaw { job: self.handle(name)? }),
            Step::Burn(name, time) => {
                let process = self.process(name)?;
                for _ in 0..time.as_millis() {
                    let used = CpuTimes { user: Ticks(10_000), kernel: Ticks(0) };
                    self.world.kernel.burn(process, used);
                    self.world.advance(Duration::from_millis(1));
                }
                Observed::Done
            }
            Step::Pass(time) => {
                self.world.advance(*time);
                Observed::Done
            }
            Step::WaitEmpty(name) => {
                let handle = self.handle(name)?;
                for _ in 0..10_000 {
                    match self.ask(Call::Members { job: handle }) {
                        Observed::Value(members) if members != "nobody" => {
                            self.world.advance(Duration::from_millis(1));
                        }
                        observed => return Ok(observed),
                    }
                }
                Observed::Value("never empty".to_owned())
            }
            Step::IsIn(name, job) => {
                let call = Call::IsInJob { job: Some(self.handle(job)?) };
                let serial = self.world.call_about(self.process(name)?, call);
                self.observe(serial)
            }
            Step::IsInAny(name) => {
                let call = Call::IsInJob { job: None };
                let serial = self.world.call_about(self.process(name)?, call);
                self.observe(serial)
            }
            Step::List(name) => self.ask(Call::Members { job: self.handle(name)? }),
            Step::Account(name) => {
                self.ask(Call::Accounting { job: self.handle(name)?, active: true })
            }
            Step::Limits(name) => self.ask(Call::QueryLimits { job: Some(self.handle(name)?) }),
            Step::OwnLimits(name) => {
                let serial =
                    self.world.call_as(self.process(name)?, Call::QueryLimits { job: None });
                self.observe(serial)
            }
            Step::State(name) => self.ask(Call::State { job: self.handle(name)? }),
            Step::End(name) => self.ask(Call::End { job: self.handle(name)? }),
        };
        Ok(observed)
    }

    fn holds(&mut self, fact: &Fact) -> Result<bool, Unplayable> {
        let kernel = &self.world.kernel;
        Ok(match fact {
            Fact::Alive(name) => kernel.is_alive(self.process(name)?),
            Fact::Dead(name) => match self.processes.get(name) {
                Some(Some(process)) => !kernel.is_alive(*process),
                Some(None) => true,
                None => return Err(Unplayable(format!("nobody was ever called {name}"))),
            },
            Fact::Frozen(name) => kernel.is_frozen(self.process(name)?),
            Fact::Runs(name) => {
                let process = self.process(name)?;
                kernel.is_alive(process) && !kernel.is_frozen(process)
            }
        })
    }
}
