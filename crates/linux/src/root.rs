//! The directory that an engine keeps its jobs' groups in: `<own>/job-<pid>-<random>`.
//!
//! Invariants:
//! - a root is in the table before it is in the kernel;
//! - a root that carries its record is locked by its engine, which holds the lock as long as it lives;
//! - without a guardian the root exists only as long as there is a group in it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jobobject_core::Fault;
use jobobject_sys::table::{RootIndex, Table};
use rustix::fs::{Access, AtFlags, FlockOperation, Mode, accessat, flock, mkdirat, unlinkat};
use rustix::io::Errno;

use crate::fault::{OrFault, group_fault, io_fault};
use crate::mount::{self, Mount};
use crate::record::{Owner, Record};
use crate::site::{Base, Site};
use crate::{files, recover};

/// Names of roots begin like this; whether it is one, its record says.
pub(crate) const PREFIX: &str = "job-";

#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) base: Base,
    /// Its group, as the kernel names it.
    pub(crate) group: String,
    /// The same, from the mounted directory.
    relative: String,
    pub(crate) index: RootIndex,
    state: Mutex<State>,
    /// How many directories below the root are of our making, never more than there are.
    made: AtomicU64,
    /// The root's `cgroup.stat`, opened by the first who asks whether there are others.
    stat: Mutex<Option<OwnedFd>>,
}

#[derive(Debug, Default)]
struct State {
    /// The directory, locked; present as long as it exists.
    dir: Option<Arc<OwnedFd>>,
    /// How many groups are in it, pooled ones included.
    groups: usize,
}

impl Root {
    /// Gives a root its name and its place in the table. Nothing is made yet.
    pub(crate) fn plan(site: &Site, table: &Table, base: Base) -> Result<Self, Fault> {
        let unique = random();
        let group =
            mount::join(&base.group, &format!("{PREFIX}{}-{unique:08x}", std::process::id()));
        let relative =
            site.mount.relative(&group).ok_or_else(|| unreachable_group(&group))?.to_owned();
        let index =
            table.add_root(&relative).map_err(|error| io_fault("table", &*group, &error))?;
        let (state, made, stat) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Ok(Self { base, group, relative, index, state, made, stat })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether groups can be made here, asked before a guardian is started for them.
    pub(crate) fn check(&self, site: &Site) -> Result<(), Fault> {
        if self.state().dir.is_some() {
            return Ok(());
        }
        let base = site
            .mount
            .relative(&self.base.group)
            .ok_or_else(|| unreachable_group(&self.base.group))?;
        accessat(&site.mount.dir, base, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .or_group_fault("mkdir", || site.mount.shown(&self.group))
    }

    /// The directory, for one more group: made if it does not exist. [`leave`](Self::leave) must follow.
    pub(crate) fn enter(&self, mount: &Mount) -> Result<Arc<OwnedFd>, Fault> {
        let mut state = self.state();
        let dir = match &state.dir {
            Some(dir) => Arc::clone(dir),
            None => Arc::new(self.make(mount)?),
        };
        state.dir = Some(Arc::clone(&dir));
        state.groups += 1;
        Ok(dir)
    }

    fn make(&self, mount: &Mount) -> Result<OwnedFd, Fault> {
        let shown = || mount.shown(&self.group);
        if let Some(base) = mount.relative(&self.base.group) {
            recover::sweep(mount, base);
            // Whoever goes from our own group into one below needs the right to write here.
            files::remember(&mount.dir, format!("{base}/cgroup.procs"));
        }
        mkdirat(&mount.dir, &*self.relative, Mode::from_raw_mode(0o755))
            .or_group_fault("mkdir", shown)?;
        let made = files::open_dir(&mount.dir, &*self.relative).and_then(|dir| {
            // Locked first: a record says that whoever can take the lock may clean up.
            flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
            Record::Root(Owner::current()).write(&dir);
            Ok(dir)
        });
        if made.is_err() {
            let _ = unlinkat(&mount.dir, &*self.relative, AtFlags::REMOVEDIR);
        }
        made.or_group_fault("open", shown)
    }

    /// One group less. `keep`: the root stays although it may be empty now.
    pub(crate) fn leave(&self, mount: &Mount, keep: bool) {
        let mut state = self.state();
        state.groups = state.groups.saturating_sub(1);
        if state.groups == 0 && !keep {
            self.remove(mount, &mut state);
        }
    }

    /// Removes the root if no group is left in it; whether it is gone.
    pub(crate) fn retire(&self, mount: &Mount) -> bool {
        let mut state = self.state();
        if state.groups == 0 {
            self.remove(mount, &mut state);
        }
        state.dir.is_none()
    }

    /// So many directories have been made below the root.
    pub(crate) fn note_made(&self, directories: u64) {
        self.made.fetch_add(directories, Relaxed);
    }

    /// So many are about to be removed.
    pub(crate) fn note_removing(&self, directories: u64) {
        // Never below zero: whoever asks would believe in directories that nobody made.
        let _ =
            self.made.fetch_update(Relaxed, Relaxed, |made| Some(made.saturating_sub(directories)));
    }

    /// Whether there is no directory below the root but those of our making: one read that spares a look at
    /// each of them. `false` may also mean that it is not known.
    pub(crate) fn untouched(&self, dir: &OwnedFd) -> bool {
        let mut stat = self.stat.lock().unwrap_or_else(PoisonError::into_inner);
        if stat.is_none() {
            *stat = files::open(dir, c"cgroup.stat").ok();
        }
        let Some(file) = &*stat else { return false };
        let mut room = [0_u8; 1024];
        let made = self.made.load(Relaxed);
        let there =
            files::peek(file, &mut room).ok().and_then(|text| files::value(text, "nr_descendants"));
        there == Some(made)
    }

    fn remove(&self, mount: &Mount, state: &mut State) {
        let Some(dir) = &state.dir else { return };
        // It is of this very directory, not of one that is made later under the same name.
        *self.stat.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // What engines inside our jobs left here is ours now that nobody is in it.
        match remove_tree(&mount.dir, &*self.relative) {
            Ok(()) | Err(Errno::NOENT) => state.dir = None,
            // Somebody made a group in here and is in it: it stays with its record, unlocked at our end.
            Err(_) => debug_assert!(Arc::strong_count(dir) > 0),
        }
    }
}

fn unreachable_group(group: &str) -> Fault {
    group_fault("find", group, Errno::NOENT)
}

/// Tells the roots of one process apart, also from those of a process that had its pid before.
fn random() -> u32 {
    let mut bytes = [0_u8; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        // Early at boot: any moment will do.
        _ => rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec as u32,
    }
}

/// Removes a group and all below it, the deepest first, if nobody is in any of them.
pub(crate) fn remove_tree(
    parent: impl AsFd,
    name: impl rustix::path::Arg + Copy,
) -> Result<(), Errno> {
    match rmdir(&parent, name) {
        // EBUSY: there is something below, or somebody in it.
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        other => return other,
    }
    let dir = match files::open_dir(&parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for below in files::list_directories(&dir)? {
        remove_tree(&dir, &*below)?;
    }
    drop(dir);
    rmdir_patiently(parent, name)
}

fn rmdir(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Right after the last exit a group may say EBUSY for a moment more.
pub(crate) fn rmdir_patiently(
    parent: impl AsFd,
    name: impl rustix::path::Arg + Copy,
) -> Result<(), Errno> {
    let mut pause_us = 0;
    loop {
        match rmdir(&parent, name) {
            Err(Errno::BUSY) if pause_us < 4_000 => {}
            other => return other,
        }
        if pause_us == 0 {
            std::thread::yield_now();
            pause_us = 30;
        } else {
            std::thread::sleep(std::time::Duration::from_micros(pause_us));
            pause_us *= 2;
        }
    }
}
