//! Plays the steps of a case on real processes, through an engine.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobobject_abi::{Handle, JobTime, Limits, OnLimit, Ticks};
use jobobject_engine::linux::{Command, Environment, Options, Process};
use jobobject_engine::{Drive, Engine, Error, Nesting, Wait};
use jobobject_sys::signal;
use jobobject_testkit::conformance::{
    Case, Driver, Fact, Observed, Step, Unplayable, limits_in_words, reason_in_words,
};

use crate::actor;

/// How long anything may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer everything takes than the cases say: the processors of a virtual machine are slow, and
/// starting an actor must not use up its job's time.
fn slowness() -> u32 {
    if std::env::var_os("JOB_VM").is_some() { 8 } else { 2 }
}

/// Limits as a case gives them, for this machine.
fn slowed(limits: &Limits) -> Limits {
    let mut limits = limits.clone();
    if let JobTime::Limit(time) = limits.job_time {
        limits.job_time = JobTime::Limit(Ticks(time.0 * u64::from(slowness())));
    }
    limits.wall_time = limits.wall_time.map(|time| time * slowness());
    if let OnLimit::Stop { grace, .. } = &mut limits.on_limit {
        *grace *= slowness();
    }
    limits
}

/// Limits of this machine, as a case gives them.
fn as_given(mut limits: Limits) -> Observed {
    if let JobTime::Limit(time) = limits.job_time {
        limits.job_time = JobTime::Limit(Ticks(time.0 / u64::from(slowness())));
    }
    limits.wall_time = limits.wall_time.map(|time| time / slowness());
    if let OnLimit::Stop { grace, .. } = &mut limits.on_limit {
        *grace /= slowness();
    }
    Observed::Value(limits_in_words(&limits))
}

/// The process of a case that calls us, or is asked what it sees: the driver must be it.
pub(crate) fn caller(case: &Case) -> Option<String> {
    callers(case).into_iter().next()
}

fn callers(case: &Case) -> HashSet<String> {
    let steps = case.rows.iter().flat_map(|row| &row.steps);
    let named = steps.filter_map(|(step, _)| match step {
        Step::Spawn { by: Some(by), .. } => Some(by.clone()),
        Step::OwnLimits(process) => Some(process.clone()),
        _ => None,
    });
    named.collect()
}

/// See the module.
pub(crate) struct RealDriver {
    engine: Arc<Engine>,
    callers: HashSet<String>,
    handles: HashMap<String, Handle>,
    /// `None`: it was never born.
    processes: HashMap<String, Option<Arc<Process>>>,
    held: HashSet<String>,
    /// Refused for a limit, and about to die of it.
    refused: HashSet<String>,
    released: HashSet<String>,
    actors: HashMap<String, BufReader<UnixStream>>,
    listener: UnixListener,
    socket: PathBuf,
}

impl RealDriver {
    pub(crate) fn new(case: &Case) -> Self {
        let mut socket = std::env::var_os(crate::RESULT).expect("a place of our own");
        socket.push(".actors");
        let socket = PathBuf::from(socket);
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        // Those who are forked without us find it there.
        Self {
            engine: engine(Nesting::Hierarchy),
            callers: callers(case),
            handles: HashMap::new(),
            processes: HashMap::new(),
            held: HashSet::new(),
            refused: HashSet::new(),
            released: HashSet::new(),
            actors: HashMap::new(),
            listener,
            socket,
        }
    }

    fn handle(&self, name: &str) -> Result<Handle, Unplayable> {
        self.handles.get(name).copied().ok_or_else(|| Unplayable(format!("{name} was never made")))
    }

    fn process(&self, name: &str) -> Result<Arc<Process>, Unplayable> {
        let process = self.processes.get(name).cloned().flatten();
        process.ok_or_else(|| Unplayable(format!("{name} was never born")))
    }

    fn is_us(&self, name: &str) -> bool {
        self.callers.contains(name)
    }

    /// A command for an actor.
    fn command(&self, name: &str) -> Command {
        let mut variables: Vec<(OsString, OsString)> = std::env::vars_os()
            .filter(|(key, _)| !key.to_string_lossy().starts_with("JOB_CONFORMANCE"))
            .collect();
        variables.push((actor::NAME.into(), name.into()));
        variables.push((actor::SOCKET.into(), self.socket.clone().into()));
        let strings = variables.into_iter().map(|(key, value)| {
            let mut text = key.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            CString::new(text).unwrap()
        });
        let mut command = Command::new(std::env::current_exe().unwrap()).args(actor::ARGUMENTS);
        command.environment = Environment::Exact(Arc::new(strings.collect()));
        command
    }

    /// The stage of an actor, which may take a moment to come.
    fn actor(&mut self, name: &str) -> Result<&mut BufReader<UnixStream>, Unplayable> {
        let start = Instant::now();
        while !self.actors.contains_key(name) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    if stream.read_line(&mut line).is_ok()
                        && let Some((who, _)) = line.split_once(' ')
                    {
                        self.actors.insert(who.to_owned(), stream);
                    }
                }
                Err(_) if start.elapsed() > PATIENCE => {
                    return Err(Unplayable(format!("{name} does not come to the stage")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(self.actors.get_mut(name).expect("it has come"))
    }

    fn order(&mut self, name: &str, order: &str) -> Result<(), Unplayable> {
        let actor = self.actor(name)?;
        writeln!(actor.get_mut(), "{order}")
            .map_err(|error| Unplayable(format!("{name} does not listen: {error}")))
    }

    fn ask(&mut self, name: &str, order: &str) -> Result<String, Unplayable> {
        self.order(name, order)?;
        let mut line = String::new();
        let read = self.actor(name)?.read_line(&mut line);
        match read {
            Ok(length) if length > 0 => Ok(line.trim().to_owned()),
            _ => Err(Unplayable(format!("{name} does not answer `{order}`"))),
        }
    }

    fn enter(&mut self, name: &str, process: Option<Arc<Process>>) {
        self.processes.insert(name.to_owned(), process);
    }

    fn spawn(
        &mut self,
        name: &str,
        jobs: &[String],
        breakaway: bool,
    ) -> Result<Observed, Unplayable> {
        let jobs = jobs.iter().map(|job| self.handle(job)).collect::<Result<Vec<_>, _>>()?;
        if self.is_us(name) {
            return self.play_ourselves(name, &jobs);
        }
        let spawned = self.engine.spawn(&jobs, breakaway, &self.command(name));
        self.enter(name, spawned.as_ref().ok().map(|spawned| Arc::clone(&spawned.process)));
        Ok(observe(spawned.map(drop)))
    }

    /// The caller of the case is spawned: that is us, who are there already.
    fn play_ourselves(&mut self, name: &str, jobs: &[Handle]) -> Result<Observed, Unplayable> {
        if self.callers.len() > 1 {
            return Err(Unplayable("several members call, and we are one process".to_owned()));
        }
        let process = self.engine.platform().open_process(std::process::id()).expect("ourselves");
        self.enter(name, Some(Arc::clone(&process)));
        for &job in jobs {
            if let Err(error) = self.engine.assign(job, &process, false) {
                return Ok(observe(Err(error)));
            }
        }
        Ok(Observed::Done)
    }

    fn fork(&mut self, parent: &str, child: &str) -> Result<Observed, Unplayable> {
        let pid = if self.is_us(parent) {
            let command = self.command(child);
            let spawned = self.engine.spawn(&[], false, &command);
            let spawned = spawned.map_err(|error| Unplayable(error.to_string()))?;
            spawned.process.pid()
        } else {
            let answer = self.ask(parent, &format!("fork {child}"))?;
            answer.parse().map_err(|_| Unplayable(format!("{parent} has forked `{answer}`")))?
        };
        let process = self.engine.platform().open_process(pid);
        self.enter(child, Some(process.map_err(|fault| Unplayable(fault.to_string()))?));
        Ok(Observed::Done)
    }

    fn assign(&mut self, name: &str, job: &str) -> Result<Observed, Unplayable> {
        let (process, job) = (self.process(name)?, self.handle(job)?);
        let observed = observe(self.engine.assign(job, &process, false));
        if matches!(observed, Observed::Refused(jobobject_abi::Status::NOT_ENOUGH_QUOTA, _)) {
            self.refused.insert(name.to_owned());
        }
        Ok(observed)
    }

    /// Whoever is dead and not held can be asked about no more.
    fn release_the_dead(&mut self) {
        for (name, process) in &self.processes {
            let Some(process) = process else { continue };
            if self.refused.contains(name) {
                let start = Instant::now();
                while !process.ended() && start.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            if process.ended() && !self.held.contains(name) && self.released.insert(name.clone()) {
                self.engine.released(process.key());
            }
        }
    }

    /// Lets every kill that has done its work be over: on a real system that takes a moment.
    fn let_kills_end(&self) {
        for &job in self.handles.values() {
            let is_over = || {
                let _ = Wait::new(Arc::clone(&self.engine), job).check();
                let terminating =
                    self.engine.job_state(job).is_ok_and(|(_, terminating)| terminating);
                // A stop is not over while somebody has not left.
                !terminating || self.processes.values().flatten().any(|p| self.is_member(p, job))
            };
            wait_until(is_over);
        }
    }

    fn is_member(&self, process: &Process, job: Handle) -> bool {
        !process.ended() && self.engine.is_in_job(process, Some(job)).unwrap_or(false)
    }

    fn name_of(&self, pid: u32) -> String {
        let known = self.processes.iter();
        let mut named = known.filter(|(_, p)| p.as_ref().is_some_and(|p| p.pid() == pid));
        named.next().map_or_else(|| format!("stranger {pid}"), |(name, _)| name.clone())
    }

    fn list(&self, job: Handle) -> Observed {
        match self.engine.members(job) {
            Ok(pids) if pids.is_empty() => Observed::Value("nobody".to_owned()),
            Ok(pids) => {
                let names: Vec<String> = pids.into_iter().map(|pid| self.name_of(pid)).collect();
                Observed::Value(names.join(" "))
            }
            Err(error) => observe(Err(error)),
        }
    }

    fn account(&self, job: Handle) -> Observed {
        // What members have forked is counted when it is seen.
        let _ = self.engine.members(job);
        match self.engine.accounting(job, true) {
            Ok(figures) => Observed::Figures(vec![
                ("total", figures.total_processes.count()),
                ("active", u64::from(figures.active_processes.unwrap_or(u32::MAX))),
                ("terminated", u64::from(figures.terminated_processes)),
                ("user", micros(figures.user_time)),
                ("period_user", micros(figures.period_user_time)),
            ]),
            Err(error) => observe(Err(error)),
        }
    }

    /// Leaves nothing of the case behind.
    pub(crate) fn end(&mut self) {
        for (name, process) in &self.processes {
            if let Some(process) = process
                && !self.callers.contains(name)
                && !process.ended()
            {
                let _ = signal::send(process.pidfd(), 9);
            }
        }
        let others = self.processes.iter().filter(|(name, _)| !self.callers.contains(*name));
        for process in others.filter_map(|(_, process)| process.as_ref()) {
            wait_until(|| process.ended());
        }
        self.engine.hang_up();
        self.engine.shutdown();
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn engine(nesting: Nesting) -> Arc<Engine> {
    Engine::new(Drive::Thread, nesting, Options::default()).unwrap()
}

fn micros(ticks: Ticks) -> u64 {
    ticks.to_duration().as_micros() as u64 / u64::from(slowness())
}

fn observe(result: Result<(), Error>) -> Observed {
    observe_value(result.map(|()| Observed::Done))
}

fn observe_value(result: Result<Observed, Error>) -> Observed {
    match result {
        Ok(observed) => observed,
        Err(Error::Refused(refusal)) => Observed::Refused(refusal.status(), refusal.detail()),
        Err(error) => Observed::Value(error.to_string()),
    }
}

impl Driver for RealDriver {
    fn begin(&mut self) {
        // A driver plays one case.
    }

    fn play(&mut self, step: &Step) -> Result<Observed, Unplayable> {
        self.release_the_dead();
        Ok(match step {
            Step::WithoutNesting => {
                self.engine = engine(Nesting::Single);
                Observed::Done
            }
            Step::Create(name, limits) => observe(self.engine.create(slowed(limits)).map(|job| {
                self.handles.insert(name.clone(), job);
            })),
            Step::Duplicate(from, to, access) => {
                let copy = self.engine.duplicate(self.handle(from)?, *access);
                observe(copy.map(|copy| {
                    self.handles.insert(to.clone(), copy);
                }))
            }
            Step::Close(name) => observe(self.engine.close(self.handle(name)?)),
            Step::HangUp => {
                self.engine.hang_up();
                Observed::Done
            }
            Step::Set(name, limits) => {
                observe(self.engine.set_limits(self.handle(name)?, slowed(limits)))
            }
            Step::Spawn { process, jobs, breakaway, .. } => {
                self.spawn(process, jobs, *breakaway)?
            }
            Step::Fork(parent, child) => self.fork(parent, child)?,
            Step::Assign(name, job) => self.assign(name, job)?,
            Step::Exit(name, _) | Step::Kill(name) if self.is_us(name) => {
                return Err(Unplayable(format!("{name} is the caller, and plays on")));
            }
            Step::Exit(name, code) => {
                self.order(name, &format!("exit {code}"))?;
                let process = self.process(name)?;
                wait_until(|| process.ended());
                Observed::Done
            }
            Step::Kill(name) => {
                let process = self.process(name)?;
                signal::send(process.pidfd(), 9).map_err(|error| Unplayable(error.to_string()))?;
                wait_until(|| process.ended());
                Observed::Done
            }
            Step::IgnoreSignals(name) => {
                self.ask(name, "ignore")?;
                Observed::Done
            }
            Step::Hold(name) => {
                self.held.insert(name.clone());
                Observed::Done
            }
            Step::Release(name) => {
                self.held.remove(name);
                Observed::Done
            }
            Step::Terminate(name, code) => {
                observe(self.engine.terminate(self.handle(name)?, *code))
            }
            Step::Stop(name, grace) => {
                observe(self.engine.stop(self.handle(name)?, 15, *grace * slowness(), 143))
            }
            Step::Signal(name, number) => {
                let sent = self.engine.signal(self.handle(name)?, *number);
                observe_value(sent.map(|n| Observed::Value(format!("signaled {n}"))))
            }
            Step::Freeze(name) => observe(self.engine.freeze(self.handle(name)?)),
            Step::Thaw(name) => observe(self.engine.thaw(self.handle(name)?)),
            Step::Burn(name, time) if self.is_us(name) => {
                actor::burn(*time * slowness());
                Observed::Done
            }
            Step::Burn(name, time) => {
                // It may be ended while it burns; that is for the facts to say.
                self.order(name, &format!("burn {}", (*time * slowness()).as_millis()))?;
                let mut line = String::new();
                if !matches!(self.actor(name)?.read_line(&mut line), Ok(length) if length > 0) {
                    let process = self.process(name)?;
                    wait_until(|| process.ended());
                }
                self.let_kills_end();
                Observed::Done
            }
            Step::Pass(time) => {
                // Real time is late rather than early.
                std::thread::sleep(*time * slowness() + Duration::from_millis(50));
                Observed::Done
            }
            Step::WaitEmpty(name) => {
                let mut wait = Wait::new(Arc::clone(&self.engine), self.handle(name)?);
                let empty = wait.block(Some(Instant::now() + PATIENCE));
                match empty {
                    Ok(true) => self.list(self.handle(name)?),
                    Ok(false) => Observed::Value("never empty".to_owned()),
                    Err(error) => observe(Err(error)),
                }
            }
            Step::IsIn(name, job) => {
                let job = Some(self.handle(job)?);
                yes_or_no(self.engine.is_in_job(&*self.process(name)?, job))
            }
            Step::IsInAny(name) => yes_or_no(self.engine.is_in_job(&*self.process(name)?, None)),
            Step::List(name) => self.list(self.handle(name)?),
            Step::Account(name) => self.account(self.handle(name)?),
            Step::Limits(name) => {
                observe_value(self.engine.limits(self.handle(name)?).map(as_given))
            }
            Step::OwnLimits(_) => observe_value(self.engine.own_limits().map(as_given)),
            Step::State(name) => {
                let state = self.engine.job_state(self.handle(name)?);
                observe_value(state.map(|(signaled, terminating)| {
                    let signaled = if signaled { "signaled" } else { "not signaled" };
                    let terminating = if terminating { " terminating" } else { "" };
                    Observed::Value(format!("{signaled}{terminating}"))
                }))
            }
            Step::End(name) => {
                let ended = self.engine.ended(self.handle(name)?);
                observe_value(ended.map(|ended| Observed::Value(reason_in_words(ended.reason))))
            }
        })
    }

    fn holds(&mut self, fact: &Fact) -> Result<bool, Unplayable> {
        let (name, wanted) = match fact {
            Fact::Alive(name) => return Ok(!self.process(name)?.ended()),
            Fact::Dead(name) => match self.processes.get(name) {
                Some(Some(process)) => {
                    let process = Arc::clone(process);
                    let dead = wait_until(|| process.ended());
                    self.let_kills_end();
                    return Ok(dead);
                }
                Some(None) => return Ok(true),
                None => return Err(Unplayable(format!("nobody was ever called {name}"))),
            },
            Fact::Frozen(name) => (name, true),
            Fact::Runs(name) => (name, false),
        };
        let process = self.process(name)?;
        Ok(wait_until(|| !process.ended() && is_frozen(process.pid()) == Some(wanted)))
    }
}

fn yes_or_no(result: Result<bool, Error>) -> Observed {
    let word = |inside| if inside { "yes" } else { "no" };
    observe_value(result.map(|inside| Observed::Value(word(inside).to_owned())))
}

/// Waits for what takes its time on a real system; false when it does not come.
fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Whether the process's group says that it is frozen.
fn is_frozen(pid: u32) -> Option<bool> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    if own == "/" {
        return Some(false); // The topmost group has no state to tell.
    }
    let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|mount| std::path::Path::new(&format!("{mount}{own}/cgroup.events")).exists())?;
    let events = std::fs::read_to_string(format!("{mount}{own}/cgroup.events")).ok()?;
    Some(events.contains("frozen 1"))
}
