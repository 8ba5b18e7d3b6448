//! A kernel that exists only in memory and keeps the promises that the platform makes to the core.
//!
//! It has groups in a tree, each with a leaf for its members; processes that fork, exit, burn CPU
//! time and ignore signals when a script says so; and the traps of the real one, each with a switch.
//! An effect is carried out at one instant; what lies between asking and answering is the business
//! of [`crate::world`].
//!
//! Invariants:
//! - a process is in one place; it keeps the place until it is moved;
//! - the usage of a group covers everything ever spent in it or below it, by the dead too and in
//!   groups that are gone;
//! - [`FakeKernel::violations`] lists what a correct core never asks for.
//!
//! Source: `docs/kernel.md`, traps; `contract.rs` says the promises one by one.

use std::collections::{BTreeMap, BTreeSet};

use jobobject_abi::info::CpuTimes;
use jobobject_core::{
    Effect, Fault, GroupKey, Member, Outcome, Place, ProcessFacts, ProcessKey, ProcessState, Target,
};

use crate::seed::Chance;

/// Which traps of the real kernel are open.
#[derive(Debug, Clone, Default)]
pub struct Traps {
    /// A leaf that lived through a kill kills whatever is born in it: the birth itself succeeds.
    pub poisoned_leaves: bool,
    /// And some such births fail instead, as where the platform noticed and gave up.
    pub poison_faults: bool,
    /// A killed process stays a member for a while: it is in an uninterruptible sleep.
    pub slow_death: bool,
    /// A kill misses a fork that was under way, as before Linux 6.14.
    pub fork_race: bool,
    /// The first removal of an empty group fails with EBUSY.
    pub busy_rmdir: bool,
    /// The slot of a removed group is given out again at once.
    pub slot_reuse: bool,
    /// The pid of a dead process is given out again at once.
    pub pid_reuse: bool,
    /// `cgroup.procs` lists 0 for a task that is just being reaped.
    pub pid_zero: bool,
}

impl Traps {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self {
            poisoned_leaves: true,
            poison_faults: true,
            slow_death: true,
            fork_race: true,
            busy_rmdir: true,
            slot_reuse: true,
            pid_reuse: true,
            pid_zero: true,
        }
    }

    /// Some: what one trap catches another one may hide.
    #[must_use]
    pub fn some(chance: &mut Chance) -> Self {
        Self {
            poisoned_leaves: chance.one_in(2),
            poison_faults: chance.one_in(2),
            slow_death: chance.one_in(2),
            fork_race: chance.one_in(2),
            busy_rmdir: chance.one_in(2),
            slot_reuse: !chance.one_in(4),
            pid_reuse: chance.one_in(2),
            pid_zero: chance.one_in(2),
        }
    }

    /// Those of a kernel that carries everything out at once: a model can be compared with it.
    #[must_use]
    pub fn orderly() -> Self {
        Self { slow_death: false, fork_race: false, busy_rmdir: false, ..Self::all() }
    }
}

/// How a process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It left by itself.
    Exited(u32),
    /// Something killed it.
    Killed(Killer),
}

/// What killed a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killer {
    /// A kill of a group.
    Group(GroupKey),
    /// A trim of a group.
    Trim(GroupKey),
    /// The end of a refused candidate.
    Candidate,
    /// A signal that it did not ignore.
    Signal(i32),
    /// It was born in a leaf that had lived through a kill.
    Poison(GroupKey),
    /// Somebody who has nothing to do with us.
    Stranger,
}

/// SIGKILL, SIGSTOP and SIGCONT, which the fake tells from all others.
mod signal {
    pub(super) const KILL: i32 = 9;
    pub(super) const CONT: i32 = 18;
    pub(super) const STOP: i32 = 19;
}

/// Error numbers of the fake's faults.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const EAGAIN: i32 = 11;
    pub(super) const EBUSY: i32 = 16;
}

#[derive(Debug)]
struct Process {
    pid: u32,
    place: Place,
    /// The state of a process that no job can have; `Alive` otherwise.
    nature: ProcessState,
    /// Killed, and not dead yet.
    dying: Option<Killer>,
    death: Option<Death>,
    parent: Option<ProcessKey>,
    cpu: CpuTimes,
    ignores_signals: bool,
    stopped: bool,
    pending: Vec<i32>,
    /// Forks whenever the script gives it a turn, and so do its children.
    storms: bool,
}

#[derive(Debug, Default)]
struct Slot {
    parent: Option<GroupKey>,
    poisoned: bool,
    frozen: bool,
    guarded: bool,
    fuse: Option<u32>,
    cpu: CpuTimes,
    was_busy: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FakeKernel {
    traps: Traps,
    chance: Chance,
    groups: BTreeMap<GroupKey, Slot>,
    /// Keys grow with every start, so their order is the order of starting.
    processes: BTreeMap<ProcessKey, Process>,
    /// Those of [`Self::processes`] that are not dead.
    living: BTreeSet<ProcessKey>,
    free_slots: Vec<GroupKey>,
    free_pids: Vec<u32>,
    next_slot: u32,
    next_pid: u32,
    next_key: u64,
    /// Deaths since [`Self::take_deaths`]: who, and the groups it was in, innermost first.
    deaths: Vec<(ProcessKey, Vec<GroupKey>)>,
    newly_dying: Vec<ProcessKey>,
    violations: Vec<String>,
}

impl FakeKernel {
    /// A kernel without groups and processes.
    #[must_use]
    pub fn new(traps: Traps, seed: u64) -> Self {
        Self {
            traps,
            chance: Chance::new(seed ^ 0x6B65_726E),
            groups: BTreeMap::new(),
            processes: BTreeMap::new(),
            living: BTreeSet::new(),
            free_slots: Vec::new(),
            free_pids: Vec::new(),
            next_slot: 1,
            next_pid: 100,
            next_key: 1,
            deaths: Vec::new(),
            newly_dying: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Opens and closes traps from now on.
    pub fn set_traps(&mut self, traps: Traps) {
        self.traps = traps;
    }

    // What processes do by themselves.

    /// Starts a process in a place of its own, whatever that is.
    pub fn start(&mut self, place: Place) -> ProcessKey {
        self.born(place, None)
    }

    /// Starts a process that can be in no job.
    pub fn start_special(&mut self, nature: ProcessState) -> ProcessKey {
        let key = self.born(Place::Outside, None);
        self.process_mut(key).nature = nature;
        key
    }

    /// A process forks: its child is where it is. `None`: it cannot, being dead or suspended.
    pub fn fork(&mut self, parent: ProcessKey) -> Option<ProcessKey> {
        if !self.runs(parent) {
            return None;
        }
        let process = &self.processes[&parent];
        let (place, storms) = (process.place.clone(), process.storms);
        let ignores = process.ignores_signals;
        let child = self.born(place, Some(parent));
        let process = self.process_mut(child);
        process.storms = storms;
        process.ignores_signals = ignores;
        Some(child)
    }

    /// A process leaves. False: it cannot, being dead or suspended.
    pub fn exit(&mut self, process: ProcessKey, code: u32) -> bool {
        let runs = self.runs(process);
        if runs {
            self.bury(process, Death::Exited(code));
        }
        runs
    }

    /// Somebody who has nothing to do with us kills a process.
    pub fn kill_by_stranger(&mut self, process: ProcessKey) {
        self.kill(process, Killer::Stranger);
    }

    /// A process uses CPU time. False: it cannot.
    pub fn burn(&mut self, process: ProcessKey, used: CpuTimes) -> bool {
        if !self.runs(process) {
            return false;
        }
        let process = self.process_mut(process);
        process.cpu = process.cpu.plus(used);
        if let Place::Group(group) = process.place {
            for level in self.chain(group) {
                if let Some(slot) = self.groups.get_mut(&level) {
                    slot.cpu = slot.cpu.plus(used);
                }
            }
        }
        true
    }

    /// From now on it ignores every signal it can.
    pub fn ignore_signals(&mut self, process: ProcessKey) {
        self.process_mut(process).ignores_signals = true;
    }

    /// From now on it forks whenever [`Self::storm`] gives it a turn.
    pub fn start_storm(&mut self, process: ProcessKey) {
        self.process_mut(process).storms = true;
    }

    /// Gives every storming process a turn, as long as fewer than `most` of them live.
    pub fn storm(&mut self, most: usize) {
        let storming: Vec<ProcessKey> =
            self.living.iter().copied().filter(|key| self.processes[key].storms).collect();
        let mut count = storming.len();
        for key in storming {
            if count >= most {
                return;
            }
            count += usize::from(self.fork(key).is_some());
        }
    }

    /// True while somebody storms.
    #[must_use]
    pub fn has_storm(&self) -> bool {
        self.living.iter().any(|key| self.processes[key].storms)
    }

    /// Lets a process that was killed die at last.
    pub fn let_die(&mut self, process: ProcessKey) {
        if let Some(killer) = self.processes.get(&process).and_then(|process| process.dying) {
            self.bury(process, Death::Killed(killer));
        }
    }

    /// Processes that were killed since the last call and are not dead yet.
    pub fn take_dying(&mut self) -> Vec<ProcessKey> {
        std::mem::take(&mut self.newly_dying)
    }

    // What anybody can see.

    /// What the kernel says of a process.
    #[must_use]
    pub fn facts(&self, process: ProcessKey) -> ProcessFacts {
        let found = &self.processes[&process];
        let state = if found.death.is_some() { ProcessState::Ended } else { found.nature };
        ProcessFacts { process, pid: found.pid, state, place: found.place.clone() }
    }

    /// Where a process is.
    #[must_use]
    pub fn place(&self, process: ProcessKey) -> Place {
        self.processes[&process].place.clone()
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self, process: ProcessKey) -> u32 {
        self.processes[&process].pid
    }

    /// It is not dead. One that was killed and lingers is as good as dead.
    #[must_use]
    pub fn is_alive(&self, process: ProcessKey) -> bool {
        self.processes.get(&process).is_some_and(|p| p.death.is_none() && p.dying.is_none())
    }

    /// How it ended.
    #[must_use]
    pub fn death(&self, process: ProcessKey) -> Option<Death> {
        self.processes.get(&process).and_then(|process| process.death)
    }

    /// Who forked or started it.
    #[must_use]
    pub fn parent(&self, process: ProcessKey) -> Option<ProcessKey> {
        self.processes.get(&process).and_then(|process| process.parent)
    }

    /// What it has used.
    #[must_use]
    pub fn cpu(&self, process: ProcessKey) -> CpuTimes {
        self.processes[&process].cpu
    }

    /// It is suspended by a group.
    #[must_use]
    pub fn is_frozen(&self, process: ProcessKey) -> bool {
        match self.processes[&process].place {
            Place::Group(group) => self.is_group_frozen(group),
            _ => false,
        }
    }

    /// The group or one above it is frozen.
    #[must_use]
    pub fn is_group_frozen(&self, group: GroupKey) -> bool {
        self.chain(group).iter().any(|level| self.groups[level].frozen)
    }

    /// The group itself was told to freeze.
    #[must_use]
    pub fn was_told_to_freeze(&self, group: GroupKey) -> bool {
        self.groups.get(&group).is_some_and(|slot| slot.frozen)
    }

    /// The members of the group die with the owner.
    #[must_use]
    pub fn is_guarded(&self, group: GroupKey) -> bool {
        self.groups.get(&group).is_some_and(|slot| slot.guarded)
    }

    /// The active-process limit that the group's fuse backs.
    #[must_use]
    pub fn fuse(&self, group: GroupKey) -> Option<u32> {
        self.groups.get(&group).and_then(|slot| slot.fuse)
    }

    /// Every group there is.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupKey> {
        self.groups.keys().copied().collect()
    }

    /// The group it was made below.
    #[must_use]
    pub fn parent_group(&self, group: GroupKey) -> Option<GroupKey> {
        self.groups.get(&group).and_then(|slot| slot.parent)
    }

    /// Every process that is not dead, in the order of starting.
    #[must_use]
    pub fn living(&self) -> Vec<ProcessKey> {
        self.living.iter().copied().filter(|key| self.is_alive(*key)).collect()
    }

    /// The live members of the group and of those below, in the order of starting.
    #[must_use]
    pub fn members(&self, group: GroupKey) -> Vec<ProcessKey> {
        self.inside(group).into_iter().filter(|key| self.is_alive(*key)).collect()
    }

    /// Somebody is in the group or below it, if only a process that takes long to die.
    #[must_use]
    pub fn is_populated(&self, group: GroupKey) -> bool {
        !self.inside(group).is_empty()
    }

    /// The group and those above it, innermost first.
    #[must_use]
    pub fn chain(&self, group: GroupKey) -> Vec<GroupKey> {
        let mut chain = Vec::new();
        let mut next = Some(group);
        while let Some(level) = next {
            let Some(slot) = self.groups.get(&level) else { break };
            chain.push(level);
            next = slot.parent;
        }
        chain
    }

    /// The process with this id that started last.
    #[must_use]
    pub fn find(&self, pid: u32) -> Option<ProcessKey> {
        self.processes.iter().rev().find(|(_, process)| process.pid == pid).map(|(key, _)| *key)
    }

    /// Deaths since the last call: who, and the groups it was in, innermost first.
    pub fn take_deaths(&mut self) -> Vec<(ProcessKey, Vec<GroupKey>)> {
        std::mem::take(&mut self.deaths)
    }

    /// What a correct core never asks for, and yet was asked.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// `cgroup.procs` of the group's own leaf, word for word: 0 may be in it.
    #[must_use]
    pub fn procs(&self, group: GroupKey) -> Vec<u32> {
        let leaf = self.inside(group).into_iter();
        let leaf = leaf.filter(|key| self.processes[key].place == Place::Group(group));
        let zero = self.traps.pid_zero.then_some(0);
        leaf.map(|key| self.processes[&key].pid).chain(zero).collect()
    }

    /// Writes a process into `cgroup.procs`. Succeeds for the dead and moves nothing then.
    ///
    /// # Errors
    /// The group is gone.
    pub fn join(&mut self, process: ProcessKey, group: GroupKey) -> Result<(), Fault> {
        self.existing("cgroup.procs", group)?;
        let process = self.process_mut(process);
        if process.death.is_none() {
            process.place = Place::Group(group);
        }
        Ok(())
    }

    // What the core asks for.

    /// Carries an effect out, at once. `caller`: who asks for a birth.
    ///
    /// # Errors
    /// What the kernel could not do.
    pub fn carry_out(
        &mut self,
        effect: &Effect,
        caller: Option<ProcessKey>,
    ) -> Result<Outcome, Fault> {
        match *effect {
            Effect::MakeGroup { parent, guarded } => self.make_group(parent, guarded),
            Effect::Guard { group, guarded } => {
                self.existing("guardian", group)?.guarded = guarded;
                Ok(Outcome::Done)
            }
            Effect::FreshLeaf { group } => {
                self.existing("mkdir", group)?.poisoned = false;
                Ok(Outcome::Done)
            }
            Effect::Birth { target } => self.birth(target, caller),
            Effect::Move { process, group } => {
                let used = self.processes.get(&process).map_or_else(CpuTimes::default, |p| p.cpu);
                self.join(process, group)?;
                if self.death(process).is_some() {
                    // The write succeeded; reading back tells that it moved nothing.
                    return Err(Fault { gone: true, ..fault("cgroup.procs", errno::ESRCH) });
                }
                Ok(Outcome::Moved { place: self.place(process), used })
            }
            Effect::Kill { group, count } => self.kill_group(group, count),
            Effect::KillProcess { process } => {
                self.kill(process, Killer::Candidate);
                Ok(Outcome::Done)
            }
            Effect::Trim { group, keep } => self.trim(group, keep),
            Effect::Signal { group, signal, resume } => {
                self.existing("kill", group)?;
                let members = self.members(group);
                for &process in &members {
                    self.signal(process, signal);
                    if resume {
                        self.signal(process, signal::CONT);
                    }
                }
                Ok(Outcome::Signaled { members: members.len() as u32 })
            }
            Effect::Freeze { group, frozen } => {
                self.existing("cgroup.freeze", group)?.frozen = frozen;
                for process in self.members(group) {
                    self.deliver(process);
                }
                Ok(Outcome::Done)
            }
            Effect::Usage { group, active } => {
                let cpu = self.existing("cpu.stat", group)?.cpu;
                let active = active.then(|| self.inside(group).len() as u32);
                Ok(Outcome::Usage { cpu, active })
            }
            Effect::List { group } => {
                self.existing("cgroup.procs", group)?;
                let member = |key: ProcessKey| {
                    let process = &self.processes[&key];
                    let Place::Group(group) = process.place else { unreachable!("a member") };
                    Member { pid: process.pid, group }
                };
                Ok(Outcome::Members(self.inside(group).into_iter().map(member).collect()))
            }
            Effect::Fuse { group, processes } => {
                self.existing("pids.max", group)?.fuse = processes;
                Ok(Outcome::Done)
            }
            Effect::Retire { group } => self.retire(group),
        }
    }

    fn make_group(&mut self, parent: Option<GroupKey>, guarded: bool) -> Result<Outcome, Fault> {
        if let Some(parent) = parent {
            self.existing("mkdir", parent)?;
        }
        let reused = if self.traps.slot_reuse { self.free_slots.pop() } else { None };
        let key = reused.unwrap_or_else(|| {
            self.next_slot += 1;
            GroupKey(self.next_slot - 1)
        });
        self.groups.insert(key, Slot { parent, guarded, ..Slot::default() });
        Ok(Outcome::Group(key))
    }

    fn birth(&mut self, target: Target, caller: Option<ProcessKey>) -> Result<Outcome, Fault> {
        let place = match target {
            Target::Inherit => match caller {
                Some(caller) if self.death(caller).is_some() => {
                    return Err(fault("clone3", errno::ESRCH)); // Nobody is there to call.
                }
                Some(caller) => self.place(caller),
                None => Place::Outside,
            },
            Target::Outside => Place::Outside,
            Target::Group { group, frozen } => {
                self.existing("clone3", group)?;
                if self.is_group_frozen(group) && !frozen {
                    let text = format!("a birth in {group:?} waits for a child that is suspended");
                    self.violations.push(text);
                }
                Place::Group(group)
            }
        };
        let poisoned = match target {
            Target::Group { group, .. } if self.traps.poisoned_leaves => {
                self.groups[&group].poisoned.then_some(group)
            }
            _ => None,
        };
        if poisoned.is_some() && self.traps.poison_faults && self.chance.one_in(2) {
            return Err(fault("clone3", errno::EAGAIN));
        }
        let process = self.born(place, caller);
        if let Some(group) = poisoned {
            self.bury(process, Death::Killed(Killer::Poison(group)));
        }
        Ok(Outcome::Born { process, pid: self.pid(process) })
    }

    fn kill_group(&mut self, group: GroupKey, count: bool) -> Result<Outcome, Fault> {
        self.existing("cgroup.kill", group)?;
        for level in self.below(group) {
            if let Some(slot) = self.groups.get_mut(&level) {
                slot.poisoned = true;
            }
        }
        let found = self.is_populated(group);
        let members = self.members(group);
        let missed = members.iter().copied().find(|key| self.processes[key].storms);
        let missed = missed.filter(|_| self.traps.fork_race && self.chance.one_in(2));
        let missed = missed.and_then(|parent| self.fork(parent));
        for &process in &members {
            debug_assert_ne!(Some(process), missed);
            self.kill(process, Killer::Group(group));
        }
        let members = count.then_some(members.len() as u32);
        Ok(Outcome::Killed { members, found, empty: !self.is_populated(group) })
    }

    fn trim(&mut self, group: GroupKey, keep: u32) -> Result<Outcome, Fault> {
        self.existing("cgroup.procs", group)?;
        let mut members = self.members(group);
        let mut ended = 0;
        while members.len() as u64 > u64::from(keep) {
            if let Some(newest) = members.pop() {
                self.kill(newest, Killer::Trim(group));
                ended += 1;
            }
        }
        Ok(Outcome::Trimmed { ended, active: members.len() as u32 })
    }

    fn retire(&mut self, group: GroupKey) -> Result<Outcome, Fault> {
        self.existing("rmdir", group)?;
        if self.is_populated(group) {
            return Ok(Outcome::Populated);
        }
        if self.groups.values().any(|slot| slot.parent == Some(group)) {
            self.violations.push(format!("{group:?} is removed before what is below it"));
            return Err(fault("rmdir", errno::EBUSY));
        }
        let busy = self.traps.busy_rmdir;
        let slot = self.existing("rmdir", group)?;
        if busy && !std::mem::replace(&mut slot.was_busy, true) {
            return Err(fault("rmdir", errno::EBUSY));
        }
        self.groups.remove(&group);
        self.free_slots.push(group);
        // Of the dead in it the kernel only says that the group is deleted.
        for process in self.processes.values_mut().filter(|p| p.place == Place::Group(group)) {
            process.place = Place::Outside;
        }
        Ok(Outcome::Retired)
    }

    // Helpers.

    fn existing(&mut self, call: &'static str, group: GroupKey) -> Result<&mut Slot, Fault> {
        if !self.groups.contains_key(&group) {
            self.violations.push(format!("{call}: {group:?} does not exist"));
        }
        self.groups
            .get_mut(&group)
            .ok_or_else(|| Fault { target: format!("{group:?}"), ..fault(call, errno::ENOENT) })
    }

    fn born(&mut self, place: Place, parent: Option<ProcessKey>) -> ProcessKey {
        let reused = if self.traps.pid_reuse { self.free_pids.pop() } else { None };
        let pid = reused.unwrap_or_else(|| {
            self.next_pid += 1;
            self.next_pid - 1
        });
        let key = ProcessKey(self.next_key);
        self.next_key += 1;
        let process = Process {
            pid,
            place,
            nature: ProcessState::Alive,
            dying: None,
            death: None,
            parent,
            cpu: CpuTimes::default(),
            ignores_signals: false,
            stopped: false,
            pending: Vec::new(),
            storms: false,
        };
        self.processes.insert(key, process);
        self.living.insert(key);
        key
    }

    fn kill(&mut self, process: ProcessKey, killer: Killer) {
        if !self.is_alive(process) {
            return;
        }
        if self.traps.slow_death && self.chance.one_in(4) {
            self.process_mut(process).dying = Some(killer);
            self.newly_dying.push(process);
        } else {
            self.bury(process, Death::Killed(killer));
        }
    }

    fn bury(&mut self, process: ProcessKey, death: Death) {
        let groups = match self.place(process) {
            Place::Group(group) => self.chain(group),
            _ => Vec::new(),
        };
        let dead = self.process_mut(process);
        dead.death = Some(death);
        dead.dying = None;
        self.living.remove(&process);
        self.deaths.push((process, groups));
    }

    /// Nobody holds the process any more: its pid is free.
    pub fn release(&mut self, process: ProcessKey) {
        let pid = self.pid(process);
        self.free_pids.push(pid);
    }

    fn signal(&mut self, process: ProcessKey, number: i32) {
        match number {
            signal::KILL => self.kill(process, Killer::Signal(number)),
            signal::STOP => self.process_mut(process).stopped = true,
            signal::CONT => {
                self.process_mut(process).stopped = false;
                self.deliver(process);
            }
            _ => {
                self.process_mut(process).pending.push(number);
                self.deliver(process);
            }
        }
    }

    /// Pending signals reach a process that runs.
    fn deliver(&mut self, process: ProcessKey) {
        if !self.runs(process) {
            return;
        }
        let receiver = self.process_mut(process);
        let pending = std::mem::take(&mut receiver.pending);
        if let (Some(number), false) = (pending.first(), receiver.ignores_signals) {
            self.bury(process, Death::Killed(Killer::Signal(*number)));
        }
    }

    /// It can do something by itself.
    fn runs(&self, process: ProcessKey) -> bool {
        self.is_alive(process) && !self.is_frozen(process) && !self.processes[&process].stopped
    }

    /// The group and every group below it.
    #[must_use]
    pub fn below(&self, group: GroupKey) -> BTreeSet<GroupKey> {
        self.groups.keys().copied().filter(|key| self.chain(*key).contains(&group)).collect()
    }

    /// Everybody who is in the group or below it, those who take long to die included.
    fn inside(&self, group: GroupKey) -> Vec<ProcessKey> {
        let groups = self.below(group);
        let is_inside = |key: &&ProcessKey| match &self.processes[*key].place {
            Place::Group(group) => groups.contains(group),
            _ => false,
        };
        self.living.iter().filter(is_inside).copied().collect()
    }

    fn process_mut(&mut self, process: ProcessKey) -> &mut Process {
        self.processes.get_mut(&process).expect("a process of this kernel")
    }
}

/// A fault of `call` with a number and nothing else.
#[must_use]
pub fn fault(call: &'static str, errno: i32) -> Fault {
    let message = format!("errno {errno}");
    Fault { call, target: String::new(), errno, message, hint: None, gone: false }
}
