//! The platform keeps the promises that the object manager relies on, and that the fake kernel of the
//! simulations keeps too.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use common::{platform, sh};
use jobobject_core::{
    Effect, Fault, GroupKey, Outcome, ProcessFacts, ProcessKey, ProcessState, Target,
};
use jobobject_linux::{Command, Descriptor, Platform, Process};
use jobobject_sys::signal;
use jobobject_testkit::contract::{Kernel, promises};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// A process that sleeps until it is told what to do.
const ACTOR: &str = "while read order; do case $order in
    fork) sleep 1000 & echo $!;;
    burn) i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo burnt;;
    exit) exit 0;;
    esac; done";

/// An actor's ends of its pipes.
struct Stage {
    orders: File,
    answers: BufReader<PipeReader>,
}

/// The real platform, and its actors.
struct Real {
    platform: Platform,
    processes: HashMap<ProcessKey, Arc<Process>>,
    stages: HashMap<ProcessKey, Stage>,
    groups: Vec<GroupKey>,
}

impl Real {
    fn new() -> Self {
        let (processes, stages) = (HashMap::new(), HashMap::new());
        Self { platform: platform(), processes, stages, groups: Vec::new() }
    }

    fn birth(&mut self, target: Target) -> Result<Outcome, Fault> {
        let (orders_out, orders_in) = std::io::pipe().unwrap();
        let (answers_out, answers_in) = std::io::pipe().unwrap();
        let mut command: Command = sh(ACTOR);
        let give = |fd: OwnedFd, to| Descriptor::Give { from: Arc::new(fd), to };
        command.descriptors = vec![give(orders_out.into(), 0), give(answers_in.into(), 1)];
        let process = self.platform.birth(target, &command)?;
        let stage =
            Stage { orders: OwnedFd::from(orders_in).into(), answers: BufReader::new(answers_out) };
        let outcome = process.born();
        self.stages.insert(process.key(), stage);
        self.processes.insert(process.key(), process);
        Ok(outcome)
    }

    fn order(&mut self, process: ProcessKey, order: &str) {
        writeln!(self.stages.get_mut(&process).expect("an actor").orders, "{order}").unwrap();
    }

    fn ask(&mut self, process: ProcessKey, order: &str) -> String {
        self.order(process, order);
        let mut line = String::new();
        let stage = self.stages.get_mut(&process).expect("an actor");
        stage.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for process in self.processes.values() {
            let _ = signal::send(process.pidfd(), 9);
        }
        for process in self.processes.values() {
            // What an actor has forked is not ours to reap.
            let _ = waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED);
        }
        // The innermost were made last. Some are gone already.
        while let Some(group) = self.groups.pop() {
            let retire = Effect::Retire { group };
            let mut round = 0;
            while self.platform.execute(&retire) == Ok(Outcome::Populated) && self.wait(round) {
                round += 1;
            }
        }
    }
}

impl Kernel for Real {
    fn carry_out(&mut self, effect: &Effect) -> Result<Outcome, Fault> {
        match effect {
            Effect::Birth { target } => self.birth(*target),
            effect => {
                let outcome = self.platform.execute(effect);
                if let Ok(Outcome::Group(group)) = outcome {
                    self.groups.push(group);
                }
                outcome
            }
        }
    }

    fn start(&mut self) -> ProcessKey {
        match self.birth(Target::Inherit).unwrap() {
            Outcome::Born { process, .. } => process,
            other => panic!("nobody was born: {other:?}"),
        }
    }

    fn facts(&mut self, process: ProcessKey) -> ProcessFacts {
        self.platform.facts(&self.processes[&process]).unwrap()
    }

    fn fork(&mut self, process: ProcessKey) -> ProcessKey {
        let pid = self.ask(process, "fork").parse().expect("a pid");
        let child = self.platform.open_process(pid).unwrap();
        let key = child.key();
        self.processes.insert(key, child);
        key
    }

    fn exit(&mut self, process: ProcessKey) {
        self.order(process, "exit");
    }

    fn burn(&mut self, process: ProcessKey, time: Duration) {
        let pid = self.processes[&process].pid();
        let used = || jobobject_sys::clock::user_ns(pid).unwrap_or(0);
        let enough = used() + u64::try_from(time.as_nanos()).unwrap();
        while used() < enough {
            assert_eq!(self.ask(process, "burn"), "burnt");
        }
    }

    fn is_frozen(&mut self, process: ProcessKey) -> bool {
        let ProcessFacts { place, state, .. } = self.facts(process);
        let jobobject_core::Place::Group(group) = place else { return false };
        let path = self.platform.group_path(group).unwrap();
        let events = std::fs::read_to_string(path.join("cgroup.events")).unwrap();
        state == ProcessState::Alive && events.contains("frozen 1")
    }

    fn is_populated(&mut self, group: GroupKey) -> bool {
        !self.platform.is_empty(group).unwrap()
    }

    fn wait(&mut self, round: u32) -> bool {
        // A promise says "at last": the kernel may take its time.
        std::thread::sleep(Duration::from_millis(1));
        round < 30_000
    }
}

#[test]
fn the_platform_keeps_every_promise() {
    for (promise, prove) in promises::<Real>() {
        let mut kernel = Real::new();
        let run = std::panic::AssertUnwindSafe(|| prove(&mut kernel));
        assert!(std::panic::catch_unwind(run).is_ok(), "broken: {promise}");
    }
}
