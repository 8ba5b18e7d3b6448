//! The group of one job: its directory, the leaf its members live in, and what can be read from them.
//!
//! ```text
//! <root>/<slot>/m<n>/       the members
//! <root>/<slot>/<slot>/     the group of a nested job, with the same inside
//! ```
//!
//! Invariants:
//! - a group has one leaf that newcomers go to; earlier ones are there only while somebody dying is in them;
//! - at most two descriptors, each opened by the first who needs it, closed again when others need the room;
//! - the group's lock is held over reads of small files, never over a birth, a move or a wait.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jobobject_abi::Ticks;
use jobobject_abi::info::CpuTimes;
use jobobject_core::{Fault, GroupKey, Member};
use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};
use rustix::io::Errno;

use crate::fault::{OrFault, trouble};
use crate::files;
use crate::record::Record;
use crate::root::{Root, remove_tree, rmdir_patiently};

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    pub(crate) slot: u16,
    pub(crate) root: Arc<Root>,
    /// The root's directory, which all names here are seen from.
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) parent: Option<Arc<Group>>,
    /// The group's name below the root: `3`, or `3/7` for a nested one.
    pub(crate) name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The number of the leaf that newcomers go to.
    leaf: u32,
    /// Earlier leaves that were still busy when they were given up.
    given_up: Vec<u32>,
    /// A birth into the leaf would be killed: the group was killed since the leaf was made.
    poisoned: bool,
    /// Killed, frozen or fused at some time: not to be given to another job.
    used_up: bool,
    /// Frozen by us.
    pub(crate) frozen: bool,
    /// What the record and the table say.
    pub(crate) guarded: bool,
    /// The groups of nested jobs.
    children: Vec<Arc<Group>>,
    /// What earlier owners of a pooled group have used.
    baseline: CpuTimes,
    stat: Option<OwnedFd>,
    procs: Option<OwnedFd>,
    /// The leaf's directory, for births: kept only while one of the others is closed.
    leaf_dir: Option<Arc<OwnedFd>>,
}

/// A place to be born in.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// Its name below the root.
    pub(crate) name: String,
    /// Its number in its group.
    pub(crate) number: u32,
    /// Whoever is born here is killed: join instead.
    pub(crate) poisoned: bool,
}

impl Group {
    /// Makes the directories of a group whose slot has been claimed. What was made is removed when it fails.
    pub(crate) fn make(
        root: &Arc<Root>,
        dir: Arc<OwnedFd>,
        parent: Option<Arc<Self>>,
        slot: u16,
        guarded: bool,
    ) -> Result<Arc<Self>, Fault> {
        let name = match &parent {
            Some(parent) => format!("{}/{slot}", parent.name),
            None => slot.to_string(),
        };
        let group = Self {
            key: GroupKey(u32::from(slot)),
            slot,
            root: Arc::clone(root),
            dir,
            parent,
            name,
            state: Mutex::new(State { guarded, ..State::default() }),
        };
        let mode = Mode::from_raw_mode(0o755);
        mkdirat(&group.dir, &*group.name, mode).or_group_fault("mkdir", || group.path())?;
        let leaf = group.leaf();
        let made =
            mkdirat(&group.dir, &*leaf.name, mode).and_then(|()| group.write_record(guarded));
        if let Err(errno) = made {
            let _ = unlinkat(&group.dir, &*leaf.name, AtFlags::REMOVEDIR);
            let _ = unlinkat(&group.dir, &*group.name, AtFlags::REMOVEDIR);
            return Err(errno).or_group_fault("mkdir", || group.path());
        }
        root.note_made(2);
        let group = Arc::new(group);
        if let Some(parent) = &group.parent {
            parent.state().children.push(Arc::clone(&group));
        }
        Ok(group)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group as the kernel names it.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.root.group, self.name)
    }

    /// The name of a control file of the group.
    fn file(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    pub(crate) fn leaf(&self) -> Leaf {
        let state = self.state();
        Leaf { name: self.leaf_name(state.leaf), number: state.leaf, poisoned: state.poisoned }
    }

    /// The directory of a leaf, to be born in.
    pub(crate) fn open_leaf(&self, leaf: &Leaf, opened: &mut bool) -> Result<Arc<OwnedFd>, Errno> {
        let mut state = self.state();
        let present = state.leaf == leaf.number;
        if let Some(dir) = state.leaf_dir.as_ref().filter(|_| present) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(files::open_path(&self.dir, &*leaf.name)?);
        if present && (state.stat.is_none() || state.procs.is_none()) {
            *opened = true;
            files::remember(&dir, c"cgroup.procs");
            state.leaf_dir = Some(Arc::clone(&dir));
        }
        Ok(dir)
    }

    /// The file by which a process joins the members.
    pub(crate) fn open_leaf_procs(&self) -> Result<OwnedFd, Fault> {
        let name = format!("{}/cgroup.procs", self.leaf().name);
        files::open_to_write(&self.dir, &*name).or_group_fault("open", || &*name)
    }

    fn leaf_name(&self, number: u32) -> String {
        let mut name = String::with_capacity(self.name.len() + 8);
        // Writing to a string does not fail.
        let _ = write!(name, "{}/m{number}", self.name);
        name
    }

    /// Remembers that whoever is born into this leaf is killed.
    pub(crate) fn poison(&self, leaf: &Leaf) {
        let mut state = self.state();
        if state.leaf == leaf.number {
            state.poisoned = true;
            state.used_up = true;
        }
    }

    fn write_record(&self, guarded: bool) -> Result<(), Errno> {
        let dir = files::open_dir(&self.dir, &*self.name)?;
        Record::Job { number: u32::from(self.slot), guarded }.write(dir);
        Ok(())
    }

    /// Sets whether the members die with the owner; the table is the caller's.
    pub(crate) fn set_guarded(&self, guarded: bool) {
        let mut state = self.state();
        if state.guarded != guarded {
            state.guarded = guarded;
            // The record informs others; that it cannot be written changes nothing.
            let _ = self.write_record(guarded);
        }
    }

    /// Gives the group a new leaf.
    pub(crate) fn fresh_leaf(&self) -> Result<(), Fault> {
        let mut state = self.state();
        let (old, new) = (state.leaf, state.leaf + 1);
        mkdirat(&self.dir, self.leaf_name(new), Mode::from_raw_mode(0o755))
            .or_group_fault("mkdir", || format!("{}/m{new}", self.path()))?;
        state.leaf = new;
        state.poisoned = false;
        state.procs = None;
        state.leaf_dir = None;
        if unlinkat(&self.dir, self.leaf_name(old), AtFlags::REMOVEDIR).is_err() {
            self.root.note_made(1);
            state.given_up.push(old);
        }
        Ok(())
    }

    /// Freezing, killing and fusing leave traces: such a group goes to nobody else.
    pub(crate) fn use_up(&self) {
        self.state().used_up = true;
    }

    /// Marks the group and those below as killed, before it is done.
    pub(crate) fn mark_killed(&self) {
        let children = {
            let mut state = self.state();
            state.poisoned = true;
            state.used_up = true;
            state.children.clone()
        };
        for child in children {
            child.mark_killed();
        }
    }

    /// Writes a control file of the group.
    pub(crate) fn put(&self, file: &str, text: &str) -> Result<(), Errno> {
        files::put(&self.dir, self.file(file), text)
    }

    /// Opens a control file of the group.
    pub(crate) fn open(&self, file: &str) -> Result<OwnedFd, Errno> {
        files::open(&self.dir, self.file(file))
    }

    /// Whether anybody is in the group or below.
    pub(crate) fn populated(&self) -> Result<bool, Fault> {
        populated(&self.dir, &self.name)
            .or_group_fault("read", || format!("{}/cgroup.events", self.path()))
    }

    /// What the group has used since it was given out. Opens a descriptor the first time: `opened` is told.
    pub(crate) fn usage(&self, opened: &mut bool) -> Result<CpuTimes, Errno> {
        let mut state = self.state();
        let now = self.read_stat(&mut state, opened)?;
        Ok(now.minus(state.baseline))
    }

    fn read_stat(&self, state: &mut State, opened: &mut bool) -> Result<CpuTimes, Errno> {
        let stat = match state.stat.take() {
            Some(stat) => stat,
            None => {
                *opened = true;
                self.open("cpu.stat")?
            }
        };
        if state.procs.is_some() {
            state.leaf_dir = None;
        }
        let stat = state.stat.insert(stat);
        let mut room = [0_u8; 2048];
        let text = files::peek(stat, &mut room)?;
        let time = |key| Ticks::from_micros(files::value(text, key).unwrap_or(0));
        Ok(CpuTimes { user: time("user_usec"), kernel: time("system_usec") })
    }

    /// How many processes are in the group and below.
    pub(crate) fn count(&self, opened: &mut bool) -> Result<u32, Errno> {
        let plain = {
            let mut state = self.state();
            if self.is_plain(&state)? {
                Some(self.read_procs(&mut state, opened, count_pids)?)
            } else {
                None
            }
        };
        match plain {
            Some(count) => Ok(count),
            None => {
                let mut count = 0;
                self.visit(&mut |_, text| count += count_pids(text))?;
                Ok(count)
            }
        }
    }

    /// Whether the leaf is all there is: no earlier leaf, no nested job, nothing that somebody else made.
    fn is_plain(&self, state: &State) -> Result<bool, Errno> {
        if !state.children.is_empty() || !state.given_up.is_empty() {
            return Ok(false);
        }
        Ok(self.root.untouched(&self.dir)
            || files::subdirectories(&self.dir, &*self.name)? == 1
                && files::subdirectories(&self.dir, self.leaf_name(state.leaf))? == 0)
    }

    /// Reads the list of the leaf's processes, in one piece where that is possible.
    fn read_procs<T>(
        &self,
        state: &mut State,
        opened: &mut bool,
        look: impl Fn(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let procs = match state.procs.take() {
            Some(procs) => procs,
            None => {
                *opened = true;
                files::open(&self.dir, format!("{}/cgroup.procs", self.leaf_name(state.leaf)))?
            }
        };
        if state.stat.is_some() {
            state.leaf_dir = None;
        }
        let procs = state.procs.insert(procs);
        let mut room = [0_u8; 1024];
        let text = files::peek(&*procs, &mut room)?;
        if text.len() < 1000 {
            return Ok(look(text));
        }
        let mut long = Vec::with_capacity(16 * 1024);
        files::reread(procs, &mut long)?;
        Ok(look(&long))
    }

    /// Who is in the group and below, the leaf before the nested.
    pub(crate) fn list(&self) -> Result<Vec<Member>, Fault> {
        let mut members = Vec::new();
        self.visit(&mut |group, text| members.extend(pids(text).map(|pid| Member { pid, group })))
            .or_group_fault("read", || format!("{}/cgroup.procs", self.path()))?;
        Ok(members)
    }

    /// Shows `look` the process list of every group here and below, with the innermost of ours around it.
    pub(crate) fn visit(&self, look: &mut dyn FnMut(GroupKey, &[u8])) -> Result<(), Errno> {
        let dir = files::open_dir(&self.dir, &*self.name)?;
        let mut text = Vec::new();
        self.visit_dir(&dir, true, &mut text, look)
    }

    /// `own`: the directory is the group's own, where nested jobs are found.
    fn visit_dir(
        &self,
        dir: &OwnedFd,
        own: bool,
        text: &mut Vec<u8>,
        look: &mut dyn FnMut(GroupKey, &[u8]),
    ) -> Result<(), Errno> {
        match files::open(dir, c"cgroup.procs").and_then(|procs| files::reread(procs, text)) {
            Ok(()) => look(self.key, text),
            // In a threaded group there is no list of processes; they are listed where its domain is.
            Err(Errno::OPNOTSUPP) => {}
            Err(errno) if files::vanished(errno) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        let mut names = match files::list_directories(dir) {
            Ok(names) => names,
            Err(errno) if files::vanished(errno) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        // Leaves first, then by age of the slot, so that the order is always the same.
        names.sort_by_key(|name| (name.to_bytes()[0] != b'm', name.to_bytes().len(), name.clone()));
        for name in names {
            let below = match files::open_dir(dir, &*name) {
                Ok(below) => below,
                Err(errno) if files::vanished(errno) => continue,
                Err(errno) => return Err(errno),
            };
            match own.then(|| self.child_called(&name)).flatten() {
                Some(child) => child.visit_dir(&below, true, text, look)?,
                None => self.visit_dir(&below, false, text, look)?,
            }
        }
        Ok(())
    }

    fn child_called(&self, name: &CStr) -> Option<Arc<Self>> {
        let slot: u16 = name.to_str().ok()?.parse().ok()?;
        self.child(slot)
    }

    /// The group of the nested job in this slot.
    pub(crate) fn child(&self, slot: u16) -> Option<Arc<Self>> {
        self.state().children.iter().find(|child| child.slot == slot).cloned()
    }

    /// Whether nested jobs have groups here.
    pub(crate) fn has_children(&self) -> bool {
        !self.state().children.is_empty()
    }

    /// Whether nobody is in the group or below, as far as that can be told at little cost.
    pub(crate) fn is_empty(&self, opened: &mut bool) -> Result<bool, Errno> {
        let mut state = self.state();
        let empty = match self.is_plain(&state) {
            Ok(true) => self.read_procs(&mut state, opened, <[u8]>::is_empty),
            Ok(false) => populated(&self.dir, &self.name).map(|populated| !populated),
            Err(errno) => Err(errno),
        };
        match empty {
            Err(errno) if files::vanished(errno) => Ok(true),
            other => other,
        }
    }

    /// Whether nobody is in the group and it could serve another job as it is.
    pub(crate) fn reusable(&self, opened: &mut bool) -> Result<bool, Errno> {
        let mut state = self.state();
        if state.used_up || self.parent.is_some() || !self.is_plain(&state)? {
            return Ok(false);
        }
        self.read_procs(&mut state, opened, <[u8]>::is_empty)
    }

    /// Starts counting anew, for another job.
    pub(crate) fn rebase(&self, opened: &mut bool) -> Result<(), Errno> {
        let mut state = self.state();
        state.baseline = self.read_stat(&mut state, opened)?;
        Ok(())
    }

    /// Removes the directories. The group must be empty and without nested jobs; `false`: somebody is in it
    /// after all, and it stays as it was.
    pub(crate) fn remove(&self) -> Result<bool, Fault> {
        let mut state = self.state();
        state.stat = None;
        state.procs = None;
        state.leaf_dir = None;
        let leaf = state.leaf;
        let ours = state.given_up.len() as u64 + 2;
        self.root.note_removing(ours);
        match self.remove_dirs(&mut state) {
            Ok(()) => {
                drop(state);
                if let Some(parent) = &self.parent {
                    parent.state().children.retain(|child| child.key != self.key);
                }
                Ok(true)
            }
            Err(Errno::BUSY) => {
                // Whatever was in the way, newcomers find a leaf.
                let made = mkdirat(&self.dir, self.leaf_name(leaf), Mode::from_raw_mode(0o755));
                self.root.note_made(state.given_up.len() as u64 + 2);
                match made {
                    Ok(()) | Err(Errno::EXIST) => Ok(false),
                    Err(errno) => {
                        Err(errno).or_group_fault("mkdir", || format!("{}/m{leaf}", self.path()))
                    }
                }
            }
            Err(errno) => Err(errno).or_group_fault("rmdir", || self.path()),
        }
    }

    fn remove_dirs(&self, state: &mut State) -> Result<(), Errno> {
        while let Some(&old) = state.given_up.last() {
            rmdir_patiently(&self.dir, &*self.leaf_name(old))?;
            state.given_up.pop();
        }
        rmdir_patiently(&self.dir, &*self.leaf_name(state.leaf)).or_else(|errno| match errno {
            // Somebody made groups inside the leaf: they go with it.
            Errno::BUSY => remove_tree(&self.dir, &*self.leaf_name(state.leaf)),
            errno => Err(errno),
        })?;
        remove_tree(&self.dir, &*self.name)
    }

    /// Gives its descriptors back.
    pub(crate) fn close_files(&self) {
        let mut state = self.state();
        state.stat = None;
        state.procs = None;
        state.leaf_dir = None;
    }

    /// Which processes, as one list without order; for those who look at each of them.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, Fault> {
        Ok(self.list()?.into_iter().map(|member| member.pid).collect())
    }

    /// A name for people and faults.
    pub(crate) fn missing(key: GroupKey) -> Fault {
        trouble("group", key.0.to_string(), "there is no such group")
    }
}

/// Whether anybody is in a group or below it.
pub(crate) fn populated(dir: impl AsFd, name: &str) -> Result<bool, Errno> {
    let events = files::open(dir, format!("{name}/cgroup.events"))?;
    populated_in(&events)
}

/// Likewise, by an open `cgroup.events`.
pub(crate) fn populated_in(events: &OwnedFd) -> Result<bool, Errno> {
    let mut room = [0_u8; 256];
    match files::peek(events, &mut room) {
        Ok(text) => Ok(files::value(text, "populated") != Some(0)),
        // The group has been removed: nobody can be in it.
        Err(Errno::NODEV) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The pids in a process list. 0 stands for one that is just being reaped or that we may not see: it cannot
/// be named, and `kill(0)` would mean ourselves.
pub(crate) fn pids(text: &[u8]) -> impl Iterator<Item = u32> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| files::number(line).and_then(|(pid, _)| u32::try_from(pid).ok()))
        .filter(|&pid| pid > 0)
}

/// How many there are, without looking at each.
pub(crate) fn count_pids(text: &[u8]) -> u32 {
    let mut count = 0;
    let mut first = true;
    for &byte in text {
        count += u32::from(first && byte != b'0');
        first = byte == b'\n';
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_of_zero_is_nobody() {
        let text = b"12\n0\n345\n0\n";
        assert_eq!(pids(text).collect::<Vec<_>>(), [12, 345]);
        assert_eq!(count_pids(text), 2);
        assert_eq!(count_pids(b""), 0);
        assert_eq!(count_pids(b"1\n20\n300\n"), 3);
    }
}
