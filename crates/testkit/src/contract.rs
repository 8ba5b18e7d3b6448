//! What the core relies on: the promises of the platform, as functions that prove them.
//!
//! They run against [`FakeKernel`] with its traps open and shut, and against the real platform. A
//! promise says "at last" where the real kernel may take its time; then it is asked again.

use std::time::Duration;

use jobobject_abi::Ticks;
use jobobject_abi::info::CpuTimes;
use jobobject_core::{
    Effect, Fault, GroupKey, Member, Outcome, Place, ProcessFacts, ProcessKey, ProcessState, Target,
};

use crate::kernel::FakeKernel;

/// A platform, and what a test must be able to do on it.
pub trait Kernel {
    /// Carries an effect out. A birth starts a process that sleeps.
    ///
    /// # Errors
    /// What the kernel could not do.
    fn carry_out(&mut self, effect: &Effect) -> Result<Outcome, Fault>;

    /// Starts a process that sleeps, in no job.
    fn start(&mut self) -> ProcessKey;

    /// What the kernel says of a process.
    fn facts(&mut self, process: ProcessKey) -> ProcessFacts;

    /// Makes a process fork a child that sleeps.
    fn fork(&mut self, process: ProcessKey) -> ProcessKey;

    /// Makes a process exit; nobody takes its status.
    fn exit(&mut self, process: ProcessKey);

    /// Makes a process use user time.
    fn burn(&mut self, process: ProcessKey, time: Duration);

    /// It is suspended.
    fn is_frozen(&mut self, process: ProcessKey) -> bool;

    /// The kernel still says that somebody is in the group or below it.
    fn is_populated(&mut self, group: GroupKey) -> bool;

    /// Lets a little time pass. False: so much has passed that waiting is no use.
    fn wait(&mut self, round: u32) -> bool;
}

impl Kernel for FakeKernel {
    fn carry_out(&mut self, effect: &Effect) -> Result<Outcome, Fault> {
        self.carry_out(effect, None)
    }

    fn start(&mut self) -> ProcessKey {
        self.start(Place::Outside)
    }

    fn facts(&mut self, process: ProcessKey) -> ProcessFacts {
        FakeKernel::facts(self, process)
    }

    fn fork(&mut self, process: ProcessKey) -> ProcessKey {
        self.fork(process).expect("it can fork")
    }

    fn exit(&mut self, process: ProcessKey) {
        assert!(self.exit(process, 0), "it can exit");
    }

    fn burn(&mut self, process: ProcessKey, time: Duration) {
        let used = CpuTimes::from_durations(time, Duration::ZERO);
        assert!(self.burn(process, used), "it runs");
    }

    fn is_frozen(&mut self, process: ProcessKey) -> bool {
        FakeKernel::is_frozen(self, process)
    }

    fn is_populated(&mut self, group: GroupKey) -> bool {
        FakeKernel::is_populated(self, group)
    }

    fn wait(&mut self, round: u32) -> bool {
        for process in self.take_dying() {
            self.let_die(process);
        }
        round < 3
    }
}

/// A promise, and what proves it.
pub type Promise<K> = (&'static str, fn(&mut K));

/// All of them. Each is proved on a platform of its own.
#[must_use]
pub fn promises<K: Kernel>() -> Vec<Promise<K>> {
    vec![
        ("a newborn is inside from the start", newborn_is_inside),
        ("a birth outside is in no job", birth_outside),
        ("a child of a member is inside", fork_is_inside),
        ("a group contains the groups below it", nested_is_inside),
        ("a move puts a process inside and tells what it had used", moved_is_inside),
        ("a move of the dead is refused as such", dead_do_not_move),
        ("a list names no process 0 and nobody twice", list_names_processes),
        ("a kill reaches everybody below and nobody else", kill_reaches_below),
        ("a kill of nobody says so", kill_of_nobody),
        ("a kill reaches the frozen", kill_reaches_frozen),
        ("a fresh leaf is fit for births after a kill", fresh_leaf_after_kill),
        ("a new group below a killed one is fit for births", new_group_after_kill),
        ("usage covers the dead and groups that are gone", usage_is_complete),
        ("usage counts the living when asked", usage_counts),
        ("a trim ends the newest first", trim_ends_newest),
        ("a signal reaches everybody below", signal_reaches_below),
        ("a freeze suspends everybody below until the thaw", freeze_suspends),
        ("a birth in a frozen group returns", frozen_birth_returns),
        ("a refused candidate can be ended", candidate_ends),
        ("a group with members stays, an empty one goes at last", retire_at_last),
        ("two groups have two names, and a name used again is an empty group", names_are_clean),
        ("a guard and a fuse can be put on and taken off", guard_and_fuse),
    ]
}

// What the proofs are made of.

fn at_last<K: Kernel>(kernel: &mut K, what: &str, mut holds: impl FnMut(&mut K) -> bool) {
    let mut round = 0;
    while !holds(kernel) {
        assert!(kernel.wait(round), "it never comes that {what}");
        round += 1;
    }
}

fn done<K: Kernel>(kernel: &mut K, effect: Effect) -> Outcome {
    match kernel.carry_out(&effect) {
        Ok(outcome) => outcome,
        Err(fault) => panic!("{effect:?}: {fault}"),
    }
}

fn group<K: Kernel>(kernel: &mut K, parent: Option<GroupKey>) -> GroupKey {
    match done(kernel, Effect::MakeGroup { parent, guarded: false }) {
        Outcome::Group(group) => group,
        other => panic!("no group: {other:?}"),
    }
}

fn birth<K: Kernel>(kernel: &mut K, target: Target) -> ProcessKey {
    match done(kernel, Effect::Birth { target }) {
        Outcome::Born { process, pid } => {
            assert!(pid > 0);
            process
        }
        other => panic!("nobody was born: {other:?}"),
    }
}

fn member<K: Kernel>(kernel: &mut K, group: GroupKey) -> ProcessKey {
    birth(kernel, Target::Group { group, frozen: false })
}

fn list<K: Kernel>(kernel: &mut K, group: GroupKey) -> Vec<Member> {
    match done(kernel, Effect::List { group }) {
        Outcome::Members(members) => members,
        other => panic!("no list: {other:?}"),
    }
}

fn usage<K: Kernel>(kernel: &mut K, group: GroupKey) -> (Ticks, u32) {
    match done(kernel, Effect::Usage { group, active: true }) {
        Outcome::Usage { cpu, active: Some(active) } => (cpu.user, active),
        other => panic!("no usage: {other:?}"),
    }
}

/// Whether there were members, and how many.
fn kill<K: Kernel>(kernel: &mut K, group: GroupKey) -> (bool, Option<u32>) {
    match done(kernel, Effect::Kill { group, count: true }) {
        Outcome::Killed { found, members, .. } => (found, members),
        other => panic!("no kill: {other:?}"),
    }
}

fn is_alive<K: Kernel>(kernel: &mut K, process: ProcessKey) -> bool {
    kernel.facts(process).state == ProcessState::Alive
}

fn dies<K: Kernel>(kernel: &mut K, process: ProcessKey) {
    at_last(kernel, "it is dead", |kernel| !is_alive(kernel, process));
}

fn retire<K: Kernel>(kernel: &mut K, group: GroupKey) {
    at_last(kernel, "the group is removed", |kernel| {
        kernel.carry_out(&Effect::Retire { group }) == Ok(Outcome::Retired)
    });
}

// The proofs.

fn newborn_is_inside<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let process = member(kernel, group);
    let facts = kernel.facts(process);
    assert_eq!((facts.place, facts.state), (Place::Group(group), ProcessState::Alive));
    assert_eq!(list(kernel, group), [Member { pid: facts.pid, group }]);
}

fn birth_outside<K: Kernel>(kernel: &mut K) {
    let process = birth(kernel, Target::Outside);
    assert_eq!(kernel.facts(process).place, Place::Outside);
}

fn fork_is_inside<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let parent = member(kernel, group);
    let child = kernel.fork(parent);
    assert_eq!(kernel.facts(child).place, Place::Group(group));
    assert_eq!(list(kernel, group).len(), 2);
}

fn nested_is_inside<K: Kernel>(kernel: &mut K) {
    let outer = group(kernel, None);
    let inner = group(kernel, Some(outer));
    let process = member(kernel, inner);
    let pid = kernel.facts(process).pid;
    assert_eq!(kernel.facts(process).place, Place::Group(inner));
    assert_eq!(list(kernel, outer), [Member { pid, group: inner }]);
    assert_eq!(usage(kernel, outer).1, 1);
}

fn moved_is_inside<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let process = kernel.start();
    kernel.burn(process, Duration::from_millis(60));
    match done(kernel, Effect::Move { process, group }) {
        Outcome::Moved { place, used } => {
            assert_eq!(place, Place::Group(group));
            assert!(used.user >= Ticks(400_000), "used {used:?} before");
        }
        other => panic!("not moved: {other:?}"),
    }
    assert_eq!(kernel.facts(process).place, Place::Group(group));
    assert!(usage(kernel, group).0 < Ticks(400_000), "what came before is not the group's");
}

fn dead_do_not_move<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let process = kernel.start();
    kernel.exit(process);
    dies(kernel, process);
    let moved = kernel.carry_out(&Effect::Move { process, group });
    assert!(matches!(moved, Err(Fault { gone: true, .. })), "{moved:?}");
    assert_eq!(list(kernel, group), []);
}

fn list_names_processes<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    for _ in 0..8 {
        let process = member(kernel, group);
        kernel.fork(process);
        kernel.exit(process);
    }
    at_last(kernel, "the dead are off the list", |kernel| list(kernel, group).len() == 8);
    let mut pids: Vec<u32> = list(kernel, group).iter().map(|member| member.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 8);
    assert!(!pids.contains(&0));
    assert_eq!(usage(kernel, group).1, 8);
}

fn kill_reaches_below<K: Kernel>(kernel: &mut K) {
    let outer = group(kernel, None);
    let inner = group(kernel, Some(outer));
    let other = group(kernel, None);
    let (first, second) = (member(kernel, outer), member(kernel, inner));
    let third = kernel.fork(second);
    let (bystander, outsider) = (member(kernel, other), kernel.start());
    assert_eq!(kill(kernel, outer), (true, Some(3)));
    for process in [first, second, third] {
        dies(kernel, process);
    }
    assert!(is_alive(kernel, bystander) && is_alive(kernel, outsider));
    at_last(kernel, "nobody is left", |kernel| !kernel.is_populated(outer));
    assert_eq!(usage(kernel, outer).1, 0);
}

fn kill_of_nobody<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let killed = done(kernel, Effect::Kill { group, count: false });
    assert_eq!(killed, Outcome::Killed { members: None, found: false, empty: true });
}

fn kill_reaches_frozen<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let process = member(kernel, group);
    done(kernel, Effect::Freeze { group, frozen: true });
    assert!(kill(kernel, group).0);
    dies(kernel, process);
}

fn fresh_leaf_after_kill<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    member(kernel, group);
    kill(kernel, group);
    at_last(kernel, "nobody is left", |kernel| !kernel.is_populated(group));
    done(kernel, Effect::FreshLeaf { group });
    let process = member(kernel, group);
    kernel.wait(0);
    assert!(is_alive(kernel, process));
    assert_eq!(kernel.facts(process).place, Place::Group(group));
}

fn new_group_after_kill<K: Kernel>(kernel: &mut K) {
    let outer = group(kernel, None);
    kill(kernel, outer);
    let inner = group(kernel, Some(outer));
    let process = member(kernel, inner);
    kernel.wait(0);
    assert!(is_alive(kernel, process));
}

fn usage_is_complete<K: Kernel>(kernel: &mut K) {
    let outer = group(kernel, None);
    let inner = group(kernel, Some(outer));
    let process = member(kernel, inner);
    kernel.burn(process, Duration::from_millis(60));
    kernel.exit(process);
    at_last(kernel, "nobody is left", |kernel| !kernel.is_populated(inner));
    assert!(usage(kernel, inner).0 >= Ticks(400_000));
    retire(kernel, inner);
    assert!(usage(kernel, outer).0 >= Ticks(400_000));
}

fn usage_counts<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let first = member(kernel, group);
    member(kernel, group);
    assert_eq!(usage(kernel, group).1, 2);
    kernel.exit(first);
    // A zombie is no member.
    at_last(kernel, "one is left", |kernel| usage(kernel, group).1 == 1);
    let unasked = done(kernel, Effect::Usage { group, active: false });
    assert!(matches!(unasked, Outcome::Usage { active: None, .. }), "{unasked:?}");
}

fn trim_ends_newest<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let members: Vec<ProcessKey> = (0..4).map(|_| member(kernel, group)).collect();
    let trimmed = done(kernel, Effect::Trim { group, keep: 2 });
    assert_eq!(trimmed, Outcome::Trimmed { ended: 2, active: 2 });
    dies(kernel, members[2]);
    dies(kernel, members[3]);
    assert!(is_alive(kernel, members[0]) && is_alive(kernel, members[1]));
    at_last(kernel, "the trim is over", |kernel| usage(kernel, group).1 == 2);
    let again = done(kernel, Effect::Trim { group, keep: 2 });
    assert_eq!(again, Outcome::Trimmed { ended: 0, active: 2 });
}

fn signal_reaches_below<K: Kernel>(kernel: &mut K) {
    const SIGTERM: i32 = 15;
    const SIGSTOP: i32 = 19;
    let outer = group(kernel, None);
    let inner = group(kernel, Some(outer));
    let (first, second) = (member(kernel, outer), member(kernel, inner));
    let outsider = kernel.start();
    let stop = Effect::Signal { group: inner, signal: SIGSTOP, resume: false };
    assert_eq!(done(kernel, stop), Outcome::Signaled { members: 1 });
    // Only who runs can act on a signal.
    let leave = Effect::Signal { group: outer, signal: SIGTERM, resume: true };
    assert_eq!(done(kernel, leave), Outcome::Signaled { members: 2 });
    dies(kernel, first);
    dies(kernel, second);
    assert!(is_alive(kernel, outsider));
}

fn freeze_suspends<K: Kernel>(kernel: &mut K) {
    let outer = group(kernel, None);
    let inner = group(kernel, Some(outer));
    let (first, second) = (member(kernel, outer), member(kernel, inner));
    done(kernel, Effect::Freeze { group: outer, frozen: true });
    for process in [first, second] {
        at_last(kernel, "it is suspended", |kernel| kernel.is_frozen(process));
        assert!(is_alive(kernel, process));
    }
    done(kernel, Effect::Freeze { group: outer, frozen: false });
    for process in [first, second] {
        at_last(kernel, "it is resumed", |kernel| !kernel.is_frozen(process));
    }
}

fn frozen_birth_returns<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    done(kernel, Effect::Freeze { group, frozen: true });
    let process = birth(kernel, Target::Group { group, frozen: true });
    at_last(kernel, "it is suspended", |kernel| kernel.is_frozen(process));
    assert_eq!(kernel.facts(process).place, Place::Group(group));
    done(kernel, Effect::Freeze { group, frozen: false });
    at_last(kernel, "it is resumed", |kernel| !kernel.is_frozen(process));
    assert!(is_alive(kernel, process));
}

fn candidate_ends<K: Kernel>(kernel: &mut K) {
    let process = kernel.start();
    done(kernel, Effect::KillProcess { process });
    dies(kernel, process);
}

fn retire_at_last<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    let process = member(kernel, group);
    assert_eq!(done(kernel, Effect::Retire { group }), Outcome::Populated);
    assert_eq!(kernel.facts(process).place, Place::Group(group));
    kernel.exit(process);
    retire(kernel, group);
}

fn names_are_clean<K: Kernel>(kernel: &mut K) {
    let (first, second) = (group(kernel, None), group(kernel, None));
    assert_ne!(first, second);
    let process = member(kernel, first);
    done(kernel, Effect::Freeze { group: first, frozen: true });
    kill(kernel, first);
    dies(kernel, process);
    retire(kernel, first);
    for _ in 0..4 {
        let again = group(kernel, None);
        assert_ne!(again, second);
        assert_eq!(usage(kernel, again), (Ticks(0), 0));
        let process = member(kernel, again);
        kernel.wait(0);
        assert!(is_alive(kernel, process) && !kernel.is_frozen(process));
    }
}

fn guard_and_fuse<K: Kernel>(kernel: &mut K) {
    let group = group(kernel, None);
    for guarded in [true, false] {
        assert_eq!(done(kernel, Effect::Guard { group, guarded }), Outcome::Done);
    }
    for processes in [Some(3), None] {
        assert_eq!(done(kernel, Effect::Fuse { group, processes }), Outcome::Done);
    }
    let process = member(kernel, group);
    assert!(is_alive(kernel, process));
}
