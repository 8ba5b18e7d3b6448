//! The platform: effects in, outcomes and facts out.
//!
//! Invariants:
//! - no lock is held across a birth, a move, or anything else that another process can delay;
//! - a slot is claimed in the shared table before its directory is made and freed after it is removed;
//! - in a fork of the process that made the platform nothing is done at all.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::units::is_signal;
use jobobject_abi::{Enforcement, LimitKind};
use jobobject_core::{
    Effect, Fault, GroupKey, Outcome, Place, ProcessFacts, ProcessKey, ProcessState, Target,
};
use jobobject_sys::clock;
use jobobject_sys::clone::join_before_exec;
use jobobject_sys::fork::ForkWatch;
use jobobject_sys::guardian::Guardian;
use jobobject_sys::table::{Parent, Table};
use rustix::io::Errno;

use crate::birth::Births;
use crate::command::{Command, Prepared};
use crate::fault::{self, OrFault, fault, forked, gone, group_fault, io_fault, trouble};
use crate::files;
use crate::group::{self, Group, Leaf};
use crate::guard::{Guard, GuardianFacts};
use crate::kill::{self, Obstacle};
use crate::mount;
use crate::place;
use crate::probe::{self, Learnt};
use crate::process::{self, Process, Registry, Stat};
use crate::record::{Owner, Record};
use crate::root::Root;
use crate::site::Site;
use crate::watch::EmptyWatch;

/// How many empty groups are kept for the next jobs.
const POOL: usize = 8;
/// How many groups may have descriptors open for accounting; the one that opened first gives way.
const OPEN_GROUPS: usize = 64;
/// How many descriptors are held back: what it takes to kill, and to list a few levels of jobs.
const RESERVE: usize = 4;
/// How many slots the shared table has.
const SLOTS: u32 = 65_536;

/// What a test may want to be otherwise. The default is what everybody else wants.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Make roots in this directory of the cgroup file system, wherever we are.
    pub base: Option<PathBuf>,
    /// Read the mounts from this file.
    pub mountinfo: Option<PathBuf>,
    /// Behave as on a kernel without `cgroup.kill` (before 5.14).
    pub without_group_kill: bool,
    /// Behave as where `clone3` into a group is refused.
    pub without_into_cgroup: bool,
}

/// How long a guardian that was sent away may take to go.
const LEAVING: Duration = Duration::from_secs(1);

/// The mechanism: carries out what the object manager decided, and says what the kernel says.
///
/// Every method may be called from any thread at any time.
#[derive(Debug)]
pub struct Platform {
    options: Options,
    fork: Arc<ForkWatch>,
    site: OnceLock<Site>,
    guard: Guard,
    births: Births,
    registry: Arc<Registry>,
    roots: RwLock<Vec<Arc<Root>>>,
    groups: RwLock<Groups>,
    pool: Mutex<Vec<Arc<Group>>>,
    /// Groups that have descriptors open, the oldest first. May name groups that are gone.
    open: Mutex<VecDeque<GroupKey>>,
    /// Descriptors held back for kills and lists.
    reserve: Mutex<Vec<OwnedFd>>,
    /// 0: not tried; 1: it works; 2: it does not.
    fuse: AtomicU8,
}

/// The groups by slot.
#[derive(Debug, Default)]
struct Groups {
    by_slot: Vec<Option<Arc<Group>>>,
    /// Slots below the end of `by_slot` that are free.
    free: Vec<u16>,
}

/// One job around a process, as its group tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The job's number, unique below its root at a time.
    pub number: u32,
    /// Its members die with its owner.
    pub guarded: bool,
    /// Its group, as the kernel names it.
    pub group: String,
    /// Whose it is, if the root says.
    pub owner: Option<Owner>,
}

impl Platform {
    /// A platform for this process. Touches nothing yet: where we are is found out with the first group.
    ///
    /// # Errors
    /// No memory.
    pub fn new(options: Options) -> Result<Self, Fault> {
        let fork = ForkWatch::new().map_err(|error| io_fault("madvise", "fork watch", &error))?;
        let fork = Arc::new(fork);
        let births = Births::default();
        if options.without_into_cgroup {
            births.refuse();
        }
        Ok(Self {
            options,
            registry: Arc::new(Registry::new(Arc::clone(&fork))),
            fork,
            site: OnceLock::new(),
            guard: Guard::default(),
            births,
            roots: RwLock::default(),
            groups: RwLock::default(),
            pool: Mutex::default(),
            open: Mutex::default(),
            reserve: Mutex::default(),
            fuse: AtomicU8::new(0),
        })
    }

    /// Carries out an effect other than [`Effect::Birth`], which needs a command: see
    /// [`birth`](Self::birth).
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn execute(&self, effect: &Effect) -> Result<Outcome, Fault> {
        if !self.is_owner() {
            return Err(forked("execute"));
        }
        match *effect {
            Effect::MakeGroup { parent, guarded } => {
                self.make_group(parent, guarded).map(Outcome::Group)
            }
            Effect::Guard { group, guarded } => {
                self.set_guarded(group, guarded).map(|()| Outcome::Done)
            }
            Effect::FreshLeaf { group } => self.group(group)?.fresh_leaf().map(|()| Outcome::Done),
            Effect::Birth { .. } => Err(trouble("birth", "effect", "a birth needs its command")),
            Effect::Move { process, group } => self.move_process(process, group),
            Effect::Kill { group, count } => self.kill(group, count),
            Effect::KillProcess { process } => {
                self.registry.get(process)?.kill().map(|()| Outcome::Done)
            }
            Effect::Trim { group, keep } => {
                let (ended, active) = kill::trim(&*self.group(group)?, keep)?;
                Ok(Outcome::Trimmed { ended, active })
            }
            Effect::Signal { group, signal, resume } => self.signal(group, signal, resume),
            Effect::Freeze { group, frozen } => self.freeze(group, frozen).map(|()| Outcome::Done),
            Effect::Usage { group, active } => self.usage(group, active),
            Effect::List { group } => {
                let group = self.group(group)?;
                self.with_reserve(|| group.list()).map(Outcome::Members)
            }
            Effect::Fuse { group, processes } => {
                self.fuse(group, processes).map(|()| Outcome::Done)
            }
            Effect::Retire { group } => self.retire(group),
        }
    }

    /// Starts the process that `command` describes. Its [`Outcome`] is [`Process::born`]; whoever wants to
    /// name it in later effects keeps it.
    ///
    /// # Errors
    /// What the kernel refused; then no process is left.
    pub fn birth(&self, target: Target, command: &Command) -> Result<Arc<Process>, Fault> {
        if !self.is_owner() {
            return Err(forked("birth"));
        }
        let prepared = Prepared::new(command)?;
        let birth = match target {
            Target::Inherit => self.with_room(|| self.births.plain(command, &prepared))?,
            Target::Outside => match self.outside()? {
                None => self.with_room(|| self.births.plain(command, &prepared))?,
                Some(outside) => {
                    let site = self.site()?;
                    let relative = site.mount.relative(&outside).unwrap_or(".");
                    let mount = site.mount.dir.as_fd();
                    self.with_room(|| self.births.beside(mount, relative, command, &prepared))?
                }
            },
            Target::Group { group, frozen } => {
                let group = self.group(group)?;
                self.keep_guarded(&group)?;
                let open = |leaf: &Leaf| {
                    self.with_files(&group, &mut false, |group, opened| {
                        group.open_leaf(leaf, opened)
                    })
                };
                self.with_room(|| self.births.in_group(&group, open, frozen, command, &prepared))?
            }
        };
        Ok(self.registry.enter(birth.pid, birth.pidfd))
    }

    /// The process with this id.
    ///
    /// # Errors
    /// There is none (any more): the fault says `gone`.
    pub fn open_process(&self, pid: u32) -> Result<Arc<Process>, Fault> {
        if !self.is_owner() {
            return Err(forked("open"));
        }
        self.registry.open(pid)
    }

    /// The process of a descriptor.
    ///
    /// # Errors
    /// It is no pidfd, or the process has been reaped.
    pub fn open_pidfd(&self, pidfd: BorrowedFd<'_>) -> Result<Arc<Process>, Fault> {
        if !self.is_owner() {
            return Err(forked("open"));
        }
        self.registry.open_pidfd(pidfd)
    }

    /// What the kernel says of a process, now.
    ///
    /// # Errors
    /// The hierarchy cannot be found. That the process has ended is no error but a fact.
    pub fn facts(&self, process: &Process) -> Result<ProcessFacts, Fault> {
        if !self.is_owner() {
            return Err(forked("facts"));
        }
        let pid = process.pid();
        let facts = |state, place| Ok(ProcessFacts { process: process.key(), pid, state, place });
        if process.ended() {
            return facts(ProcessState::Ended, Place::Outside);
        }
        let state = match Stat::of(pid) {
            Some(stat) if stat.kernel_thread() => ProcessState::Kernel,
            Some(stat) if stat.ended() => ProcessState::Ended,
            Some(_) if pid == 1 => ProcessState::Init,
            Some(_) => ProcessState::Alive,
            None => ProcessState::Ended,
        };
        if state != ProcessState::Alive {
            return facts(state, Place::Outside);
        }
        let place = self.place_of(pid)?;
        // What was read by its pid was read of it only if it is still there.
        match place {
            Some(place) if !process.ended() => facts(ProcessState::Alive, place),
            _ => facts(ProcessState::Ended, Place::Outside),
        }
    }

    /// Where this process is: in a job of ours, or outside. One that contains us is no job of ours.
    ///
    /// # Errors
    /// Our own group cannot be read.
    pub fn own_place(&self) -> Result<Place, Fault> {
        if !self.is_owner() {
            return Err(forked("facts"));
        }
        // Without a root there is no job of ours to be in, and nothing needs to be known of this place.
        let Some(site) = self.site.get() else { return Ok(Place::Outside) };
        let roots = self.roots();
        if roots.is_empty() {
            return Ok(Place::Outside);
        }
        let own = site.own()?;
        let ours = roots.iter().any(|root| mount::within(&root.group, &own));
        Ok(if ours {
            place::place(site, &roots, &own, &own, |root, slot| self.top(root, slot))
        } else {
            Place::Outside
        })
    }

    /// Where the process with this id is; `None` when there is none.
    fn place_of(&self, pid: u32) -> Result<Option<Place>, Fault> {
        match process::group(pid) {
            Some(group) => self.place_in(&group).map(Some),
            None => Ok(None),
        }
    }

    /// What a group is to us.
    fn place_in(&self, group: &str) -> Result<Place, Fault> {
        let site = self.site()?;
        let own = site.own()?;
        let roots = self.roots().clone();
        Ok(place::place(site, &roots, &own, group, |root, slot| self.top(root, slot)))
    }

    /// Whether nobody is in a group, as far as that can be told at little cost: to be asked before
    /// [`watch`](Self::watch), which can always tell.
    ///
    /// # Errors
    /// No such group.
    pub fn is_empty(&self, group: GroupKey) -> Result<bool, Fault> {
        if !self.is_owner() {
            return Err(forked("watch"));
        }
        let group = self.group(group)?;
        let empty = self.with_files(&group, &mut false, |group, opened| group.is_empty(opened));
        Ok(empty.unwrap_or(false))
    }

    /// Watches for the end of a group's last member.
    ///
    /// # Errors
    /// No descriptor left, or no such group.
    pub fn watch(&self, group: GroupKey) -> Result<EmptyWatch, Fault> {
        if !self.is_owner() {
            return Err(forked("watch"));
        }
        let group = self.group(group)?;
        self.with_room(|| EmptyWatch::new(Arc::clone(&group), self.guard.watched()))
    }

    /// Makes another guardian if the last one has been killed and this group needs one. That it cannot be done
    /// now is told to the next who needs it.
    pub fn renew_guardian(&self, group: GroupKey) {
        if self.is_owner()
            && let Ok(group) = self.group(group)
        {
            let _ = self.keep_guarded(&group);
        }
    }

    /// Readable when the guardian has been killed: for those who wait long for something other than the end of
    /// a group. Then [`guard_again`](Self::guard_again) is due.
    #[must_use]
    pub fn guardian_fd(&self) -> Option<OwnedFd> {
        self.guard.watched()
    }

    /// Makes another guardian if the last one has been killed.
    ///
    /// # Errors
    /// None can be started.
    pub fn guard_again(&self) -> Result<(), Fault> {
        let root = self.roots().first().cloned();
        match root {
            Some(root) if self.is_owner() && self.guard.has_fallen() => {
                self.ensure_guardian(self.site()?, &root)
            }
            _ => Ok(()),
        }
    }

    /// Which members do not die although they were killed, and what keeps them, as far as it can be seen.
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn obstacles(&self, group: GroupKey) -> Result<Vec<Obstacle>, Fault> {
        if !self.is_owner() {
            return Err(forked("obstacles"));
        }
        kill::obstacles(&*self.group(group)?)
    }

    /// How well a limit is kept here.
    #[must_use]
    pub fn enforcement(&self, limit: LimitKind) -> Enforcement {
        let fuse = match self.fuse.load(Relaxed) {
            0 => None,
            known => Some(known == 1),
        };
        probe::enforcement(limit, Learnt { guardian: self.guardian(), fuse })
    }

    /// The guardian, if one was needed.
    #[must_use]
    pub fn guardian(&self) -> Option<GuardianFacts> {
        self.is_owner().then(|| self.guard.facts()).flatten()
    }

    /// The group of a job in the file system, for people.
    ///
    /// # Errors
    /// No such group.
    pub fn group_path(&self, group: GroupKey) -> Result<PathBuf, Fault> {
        if !self.is_owner() {
            return Err(forked("group"));
        }
        Ok(PathBuf::from(self.site()?.mount.shown(&self.group(group)?.path())))
    }

    /// The jobs around a process, the innermost first, whoever's they are.
    ///
    /// # Errors
    /// There is no such process, or no hierarchy.
    pub fn which(&self, pid: u32) -> Result<Vec<Link>, Fault> {
        let site = self.site()?;
        let group = process::group(pid).ok_or_else(|| gone("read", pid))?;
        Ok(chain(site, &group))
    }

    /// Whether this process made the platform: a fork of it owns nothing.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.fork.is_original()
    }

    /// Leaves nothing behind: pooled groups, roots and guardian go. With members left in some group all is left
    /// to the guardian, which acts when this process ends. Final: no group is made afterwards.
    pub fn shutdown(&self) {
        if let Some(guardian) = self.clean_up() {
            let _ = guardian.wait_gone(Some(LEAVING));
        }
    }

    /// [`shutdown`](Self::shutdown) for a process that ends now. The guardian has been sent away, and is waited
    /// for only where somebody would see it: inside a job of another, where it is a member, and where it is our
    /// child.
    pub fn leave(&self) {
        let seen = self.roots().iter().any(|root| root.base.group != root.base.outside)
            || self.guard.facts().is_some_and(|facts| facts.child);
        match self.clean_up() {
            Some(guardian) if seen => drop(guardian.wait_gone(Some(LEAVING))),
            _ => {}
        }
    }

    /// Removes what can be removed, and if that is all of it sends the guardian away.
    fn clean_up(&self) -> Option<Guardian> {
        if !self.is_owner() {
            return None;
        }
        let site = self.site.get()?;
        self.drain_pool(site);
        let mut gone = true;
        for root in self.roots().iter() {
            gone &= root.retire(&site.mount);
        }
        if gone { self.guard.dismiss() } else { None }
    }
}

impl Platform {
    fn site(&self) -> Result<&Site, Fault> {
        if let Some(site) = self.site.get() {
            return Ok(site);
        }
        let site = Site::open(&self.options)?;
        let site = self.site.get_or_init(|| site);
        hold_back(&mut self.reserve(), site);
        Ok(site)
    }

    fn roots(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Root>>> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Vec<Arc<Group>>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, key: GroupKey) -> Result<Arc<Group>, Fault> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = usize::try_from(key.0)
            .ok()
            .and_then(|slot| groups.by_slot.get(slot))
            .cloned()
            .flatten();
        group.ok_or_else(|| Group::missing(key))
    }

    /// The group in a slot directly below a root.
    fn top(&self, root: &Root, slot: u16) -> Option<Arc<Group>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = groups.by_slot.get(usize::from(slot))?.clone()?;
        (group.root.index == root.index && group.parent.is_none()).then_some(group)
    }

    /// Where a process that is to be in no job of ours goes; `None`: it is born there anyway.
    fn outside(&self) -> Result<Option<String>, Fault> {
        let Some(site) = self.site.get() else { return Ok(None) };
        let own = site.own()?;
        let roots = self.roots();
        let around = roots.iter().find(|root| mount::within(&root.group, &own));
        Ok(around.map(|root| root.base.outside.clone()))
    }

    /// The root for a new group: that of the place where we are, or the one around us if we are in a job of ours.
    fn root(&self, site: &Site, table: &Table) -> Result<Arc<Root>, Fault> {
        let own = site.own_recently()?;
        let find = |roots: &[Arc<Root>]| {
            let ours = |root: &&Arc<Root>| {
                self.options.base.is_some()
                    || *root.base.outside == *own
                    || mount::within(&root.group, &own)
            };
            roots.iter().find(ours).cloned()
        };
        if let Some(root) = find(&self.roots()) {
            return Ok(root);
        }
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = find(&roots) {
            return Ok(root);
        }
        let root = Arc::new(Root::plan(site, table, site.base(&own))?);
        roots.push(Arc::clone(&root));
        Ok(root)
    }

    fn make_group(&self, parent: Option<GroupKey>, guarded: bool) -> Result<GroupKey, Fault> {
        let site = self.site()?;
        let table = self.guard.table()?;
        let parent = parent.map(|parent| self.group(parent)).transpose()?;
        let root = match &parent {
            Some(parent) => Arc::clone(&parent.root),
            None => self.root(site, table)?,
        };
        if guarded {
            self.with_room(|| root.check(site))?;
            self.ensure_guardian(site, &root)?;
        }
        if parent.is_none()
            && let Some(group) = self.take_pooled(&root, table, guarded)
        {
            return Ok(group.key);
        }
        let dir = self.with_room(|| root.enter(&site.mount))?;
        let made = self.make_in(table, &root, dir, parent, guarded);
        if made.is_err() {
            root.leave(&site.mount, self.guard.stands());
        }
        made
    }

    /// Claims a slot and makes its directories.
    fn make_in(
        &self,
        table: &Table,
        root: &Arc<Root>,
        dir: Arc<OwnedFd>,
        parent: Option<Arc<Group>>,
        guarded: bool,
    ) -> Result<GroupKey, Fault> {
        let slot = self.claim()?;
        let place = match &parent {
            Some(parent) => Parent::Slot(parent.slot),
            None => Parent::Root(root.index),
        };
        table.claim(slot, place, guarded);
        let made =
            self.with_room(|| Group::make(root, Arc::clone(&dir), parent.clone(), slot, guarded));
        match made {
            Ok(group) => {
                let key = group.key;
                let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
                groups.by_slot[usize::from(slot)] = Some(group);
                Ok(key)
            }
            Err(fault) => {
                table.free(slot);
                self.release(slot);
                Err(fault)
            }
        }
    }

    fn claim(&self) -> Result<u16, Fault> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = groups.free.pop() {
            return Ok(slot);
        }
        let next = groups.by_slot.len();
        match u16::try_from(next) {
            Ok(slot) => {
                groups.by_slot.push(None);
                Ok(slot)
            }
            Err(_) => {
                let message = format!("one process can have {SLOTS} jobs with members at a time");
                Err(Fault { message, ..fault("claim", "job table", Errno::NOSPC) })
            }
        }
    }

    fn release(&self, slot: u16) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.by_slot[usize::from(slot)] = None;
        groups.free.push(slot);
    }

    /// Nobody comes into a group while a guardian that was needed is dead: somebody may have killed it.
    fn keep_guarded(&self, group: &Group) -> Result<(), Fault> {
        if self.guard.has_fallen() {
            self.ensure_guardian(self.site()?, &group.root)?;
        }
        Ok(())
    }

    fn ensure_guardian(&self, site: &Site, root: &Root) -> Result<(), Fault> {
        self.guard.ensure(site.mount.dir.as_fd(), || {
            let outside = &root.base.outside;
            if self.options.base.is_none() && *site.own_recently()? == **outside {
                return Ok(None);
            }
            let relative = site.mount.relative(outside).unwrap_or(".");
            files::open_path(&site.mount.dir, relative)
                .or_group_fault("open", || &**outside)
                .map(Some)
        })
    }

    /// A group from the pool, as good as new.
    fn take_pooled(&self, root: &Root, table: &Table, guarded: bool) -> Option<Arc<Group>> {
        let group = {
            let mut pool = self.pool();
            let at = pool.iter().rposition(|group| group.root.index == root.index)?;
            pool.swap_remove(at)
        };
        // The table before anything else: from here on it is a job's.
        table.set_kill(group.slot, guarded);
        group.set_guarded(guarded);
        let mut opened = false;
        let rebased = self.with_files(&group, &mut opened, |group, opened| group.rebase(opened));
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.by_slot[usize::from(group.slot)] = Some(Arc::clone(&group));
        drop(groups);
        match rebased {
            Ok(()) => Some(group),
            Err(_) => {
                // Somebody has removed it: make another.
                let _ = self.discard(&group);
                None
            }
        }
    }

    fn set_guarded(&self, key: GroupKey, guarded: bool) -> Result<(), Fault> {
        let group = self.group(key)?;
        if guarded {
            self.ensure_guardian(self.site()?, &group.root)?;
        }
        self.guard.table()?.set_kill(group.slot, guarded);
        group.set_guarded(guarded);
        Ok(())
    }

    fn move_process(&self, process: ProcessKey, group: GroupKey) -> Result<Outcome, Fault> {
        let process = self.registry.get(process)?;
        let group = self.group(group)?;
        self.keep_guarded(&group)?;
        let pid = process.pid();
        // By its pid, so believed only if the process is still there afterwards.
        let (user, total) = (clock::user_ns(pid), clock::total_ns(pid));
        let leaf = group.leaf();
        let procs = format!("{}/cgroup.procs", leaf.name);
        if process.ended() {
            return Err(gone("move", pid));
        }
        match self.with_room(|| match files::put(&group.dir, &procs, &pid.to_string()) {
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => Err(fault("open", &procs, errno)),
            other => Ok(other),
        })? {
            Ok(()) => {}
            Err(Errno::SRCH) => return Err(gone("move", pid)),
            Err(errno) => {
                let fault =
                    group_fault("move", format!("process {pid} to {}", group.path()), errno);
                return Err(Fault { hint: move_hint(errno).or(fault.hint.clone()), ..fault });
            }
        }
        // To move a zombie succeeds and moves nothing: what counts is where the kernel says it is.
        let place = self.place_of(pid)?;
        let (Some(place), false) = (place, process.ended()) else { return Err(gone("move", pid)) };
        let total = total.unwrap_or(0);
        let user = user.unwrap_or(0).min(total);
        let used = CpuTimes::from_durations(
            Duration::from_nanos(user),
            Duration::from_nanos(total.saturating_sub(user)),
        );
        Ok(Outcome::Moved { place, used })
    }

    fn kill(&self, key: GroupKey, count: bool) -> Result<Outcome, Fault> {
        let group = self.group(key)?;
        self.with_reserve(|| self.kill_group(&group, count))
    }

    fn kill_group(&self, group: &Group, count: bool) -> Result<Outcome, Fault> {
        let shown = || group.path();
        let events = match group.open("cgroup.events") {
            Ok(events) => events,
            // Somebody has removed the group: nobody is in it.
            Err(errno) if files::vanished(errno) => {
                return Ok(Outcome::Killed {
                    members: count.then_some(0),
                    found: false,
                    empty: true,
                });
            }
            Err(errno) => return Err(group_fault("open", shown(), errno)),
        };
        let members = if count { Some(self.count(group)?) } else { None };
        let found = group::populated_in(&events).or_group_fault("read", shown)?;
        group.mark_killed();
        let written = match self.options.without_group_kill {
            true => Err(Errno::NOENT),
            false => group.put("cgroup.kill", "1"),
        };
        match written {
            Ok(()) => {}
            Err(Errno::NOENT) => kill::kill_each(group)?,
            Err(errno) if files::vanished(errno) => {}
            Err(errno) => return Err(group_fault("kill", shown(), errno)),
        }
        let empty = !group::populated_in(&events).or_group_fault("read", shown)?;
        Ok(Outcome::Killed { members, found, empty })
    }

    fn signal(&self, key: GroupKey, signal: i32, resume: bool) -> Result<Outcome, Fault> {
        if !is_signal(signal) {
            return Err(fault("kill", format!("signal {signal}"), Errno::INVAL));
        }
        let group = self.group(key)?;
        let signals: &[i32] = if resume { &[signal, kill::SIGCONT] } else { &[signal] };
        let members = self.with_reserve(|| kill::signal_each(&group, signals))?;
        Ok(Outcome::Signaled { members })
    }

    fn freeze(&self, key: GroupKey, frozen: bool) -> Result<(), Fault> {
        let group = self.group(key)?;
        group.use_up();
        group
            .put("cgroup.freeze", if frozen { "1" } else { "0" })
            .or_group_fault("freeze", || group.path())?;
        group.state().frozen = frozen;
        Ok(())
    }

    fn usage(&self, key: GroupKey, active: bool) -> Result<Outcome, Fault> {
        let group = self.group(key)?;
        let cpu = self
            .with_files(&group, &mut false, |group, opened| group.usage(opened))
            .or_group_fault("read", || format!("{}/cpu.stat", group.path()))?;
        let active = if active { Some(self.count(&group)?) } else { None };
        Ok(Outcome::Usage { cpu, active })
    }

    fn count(&self, group: &Group) -> Result<u32, Fault> {
        self.with_files(group, &mut false, |group, opened| group.count(opened))
            .or_group_fault("read", || format!("{}/cgroup.procs", group.path()))
    }

    /// Sets the fuse where there is one; that there is none is no fault.
    fn fuse(&self, key: GroupKey, processes: Option<u32>) -> Result<(), Fault> {
        let group = self.group(key)?;
        let value = match processes {
            // Threads count as well, and zombies.
            Some(processes) => (u64::from(processes) * 64 + 1024).to_string(),
            None => "max".to_owned(),
        };
        let mut set = group.put("pids.max", &value);
        if set == Err(Errno::NOENT) {
            self.enable_pids(&group)?;
            set = group.put("pids.max", &value);
        }
        if set.is_ok() {
            group.use_up();
        }
        self.fuse.store(if set.is_ok() { 1 } else { 2 }, Relaxed);
        Ok(())
    }

    /// Asks every group from the base down to hand the pids controller on. Possible only where no processes
    /// are in the way: in the topmost group, or beside the leaf of a job.
    fn enable_pids(&self, group: &Group) -> Result<(), Fault> {
        let site = self.site()?;
        let enable = |dir: BorrowedFd<'_>, name: &str| {
            let _ = files::put(dir, format!("{name}/cgroup.subtree_control"), "+pids");
        };
        if let Some(base) = site.mount.relative(&group.root.base.group)
            && can_hand_on(site.mount.dir.as_fd(), base)
        {
            enable(site.mount.dir.as_fd(), base);
        }
        enable(group.dir.as_fd(), ".");
        let mut above = Vec::new();
        let mut at = group.parent.as_ref();
        while let Some(parent) = at {
            above.push(parent);
            at = parent.parent.as_ref();
        }
        for parent in above.into_iter().rev() {
            enable(group.dir.as_fd(), &parent.name);
        }
        Ok(())
    }

    fn retire(&self, key: GroupKey) -> Result<Outcome, Fault> {
        let group = self.group(key)?;
        if group.has_children() {
            return Ok(Outcome::Populated);
        }
        if self.guard.stands()
            && self.pool().len() < POOL
            && self
                .with_files(&group, &mut false, |group, opened| group.reusable(opened))
                .unwrap_or(false)
        {
            self.guard.table()?.set_kill(group.slot, false);
            let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
            groups.by_slot[usize::from(group.slot)] = None;
            drop(groups);
            self.pool().push(group);
            return Ok(Outcome::Retired);
        }
        match group.populated() {
            Ok(true) => return Ok(Outcome::Populated),
            Ok(false) => {}
            Err(fault) if fault.errno == Errno::NOENT.raw_os_error() => {}
            Err(fault) => return Err(fault),
        }
        self.discard(&group)
    }

    /// Removes an empty group for good.
    fn discard(&self, group: &Group) -> Result<Outcome, Fault> {
        let site = self.site()?;
        if !self.with_room(|| group.remove())? {
            return Ok(Outcome::Populated);
        }
        self.guard.table()?.free(group.slot);
        self.release(group.slot);
        group.root.leave(&site.mount, self.guard.stands());
        Ok(Outcome::Retired)
    }

    fn drain_pool(&self, site: &Site) {
        let pooled = std::mem::take(&mut *self.pool());
        for group in pooled {
            if let (Ok(true), Ok(table)) = (group.remove(), self.guard.table()) {
                table.free(group.slot);
                self.release(group.slot);
                group.root.leave(&site.mount, true);
            }
        }
    }

    /// Asks something of a group's own files, keeping account of who has any open.
    fn with_files<T>(
        &self,
        group: &Group,
        opened: &mut bool,
        ask: impl Fn(&Group, &mut bool) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut answer = ask(group, opened);
        if matches!(answer, Err(Errno::MFILE | Errno::NFILE)) {
            self.close_all_files();
            answer = ask(group, opened);
        }
        if *opened {
            self.note_open(group.key);
        }
        answer
    }

    fn note_open(&self, key: GroupKey) {
        let oldest = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.contains(&key) {
                return;
            }
            open.push_back(key);
            if open.len() > OPEN_GROUPS { open.pop_front() } else { None }
        };
        if let Some(group) = oldest.and_then(|oldest| self.group(oldest).ok()) {
            group.close_files();
        }
    }

    fn close_all_files(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for group in open.into_iter().filter_map(|key| self.group(key).ok()) {
            group.close_files();
        }
        for group in self.pool().iter() {
            group.close_files();
        }
    }

    /// Does something that needs descriptors; when there are none left, once more without the ones that are
    /// only kept for speed.
    fn with_room<T>(&self, act: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        match act() {
            Err(fault) if fault::no_descriptors(&fault) => {
                self.close_all_files();
                act()
            }
            other => other,
        }
    }

    /// Does what must not fail for want of descriptors: when there are none left, once more with those that
    /// are held back for it. Whoever has used up all of his still gets rid of his members.
    fn with_reserve<T>(&self, act: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        match self.with_room(&act) {
            Err(fault) if fault::no_descriptors(&fault) => {
                let mut reserve = self.reserve();
                reserve.clear();
                let outcome = act();
                // What the act has opened to stay open goes first.
                self.close_all_files();
                if let Some(site) = self.site.get() {
                    hold_back(&mut reserve, site);
                }
                outcome
            }
            other => other,
        }
    }

    fn reserve(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills the reserve, as far as there are descriptors.
fn hold_back(reserve: &mut Vec<OwnedFd>, site: &Site) {
    while reserve.len() < RESERVE
        && let Ok(copy) = site.mount.dir.try_clone()
    {
        reserve.push(copy);
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// What the engine asks on its way to the object manager.
impl Platform {
    /// Starts a command of `std`'s, which forks; it joins the group before it executes anything.
    ///
    /// # Errors
    /// What `std` or the kernel says; then no process is left.
    pub fn birth_std(
        &self,
        target: Target,
        command: &mut std::process::Command,
    ) -> Result<(std::process::Child, Arc<Process>), Fault> {
        if !self.is_owner() {
            return Err(forked("birth"));
        }
        let joining = match target {
            Target::Inherit => None,
            Target::Outside => {
                return Err(trouble("birth", "command", "a command of std cannot break away"));
            }
            Target::Group { group, .. } => {
                let group = self.group(group)?;
                self.keep_guarded(&group)?;
                let procs = self.with_room(|| group.open_leaf_procs())?;
                Some(join_before_exec(command, procs))
            }
        };
        let shown = || command.get_program().to_string_lossy().into_owned();
        let program = shown();
        let mut child = command.spawn().map_err(|error| io_fault("execve", program, &error))?;
        drop(joining);
        match self.with_room(|| self.open_process(child.id())) {
            Ok(process) => Ok((child, process)),
            Err(fault) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(fault)
            }
        }
    }

    /// The name of a process's program, as `ps` shows it; empty when there is no such process.
    #[must_use]
    pub fn command_name(&self, pid: u32) -> String {
        process::comm(pid)
    }
}

/// What the groups above (and including) this one say.
fn chain(site: &Site, group: &str) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let mut at = Some(group);
    while let Some(group) = at {
        match site.record(group) {
            Some(Record::Job { number, guarded }) => {
                links.push(Link { number, guarded, group: group.to_owned(), owner: None });
            }
            Some(Record::Root(owner)) => {
                for link in links.iter_mut().filter(|link| link.owner.is_none()) {
                    link.owner = Some(owner.clone());
                }
            }
            None => {}
        }
        at = mount::parent(group);
    }
    links
}

/// Whether a group can hand a controller on and stay what it is. The topmost can; any other with members would
/// silently become the root of threaded groups, and no process could enter what is below it.
fn can_hand_on(dir: BorrowedFd<'_>, group: &str) -> bool {
    let file = |name: &str| files::open(dir, format!("{group}/{name}"));
    let is_topmost = file("cgroup.type").is_err();
    let mut members = Vec::new();
    let is_read = file("cgroup.procs").and_then(|procs| files::reread(&procs, &mut members));
    is_topmost || (is_read.is_ok() && members.is_empty())
}

fn move_hint(errno: Errno) -> Option<String> {
    let text = match errno {
        Errno::PERM | Errno::ACCESS => {
            "moving a process needs the right to write to cgroup.procs of the group above both places: run as its \
             manager or as root"
        }
        Errno::BUSY => "the group hands controllers on and cannot have members itself",
        Errno::INVAL => "the kernel does not let this process be moved: a thread of the kernel's",
        _ => return None,
    };
    Some(text.to_owned())
}
