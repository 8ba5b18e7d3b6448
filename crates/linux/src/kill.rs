//! Signals to everything in a group, and what stands in their way.
//!
//! A pid may be used again between being listed and being named. So a process is opened first and the list
//! read again: who is still listed then is the one that was opened, or has ended, to which a signal does
//! nothing.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jobobject_core::Fault;
use jobobject_sys::signal;
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use crate::fault::{OrFault, fault};
use crate::files;
use crate::group::Group;
use crate::process::{self, Stat};

pub(crate) const SIGKILL: i32 = Signal::KILL.as_raw();
pub(crate) const SIGCONT: i32 = Signal::CONT.as_raw();

/// How many processes are held open at a time while they are signaled.
const BATCH: usize = 128;
/// How often the list is read again for those who were born meanwhile, when each is signaled by itself.
const ROUNDS: usize = 2;

/// How often within one pass of killing: the caller repeats passes until nobody is left.
const KILL_ROUNDS: usize = 64;

/// Something that keeps a killed member from going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Its id.
    pub pid: u32,
    /// The name of its program.
    pub comm: String,
    /// What keeps it.
    pub why: Why,
}

/// What keeps a process from dying of SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It sleeps in the kernel, usually for a device or a file server, and cannot be woken.
    Uninterruptible {
        /// In which function of the kernel, where that may be read.
        at: Option<String>,
    },
    /// A debugger outside the job holds it at its end.
    Traced {
        /// The debugger.
        pid: u32,
        /// The name of its program.
        comm: String,
        /// The debugger itself is stopped, and so cannot let go.
        stopped: bool,
    },
    /// Somebody has frozen it by a version 1 freezer, which holds even the killed.
    Frozen,
}

/// Kills every member, one by one, where there is no `cgroup.kill` (Linux before 5.14): frozen meanwhile, so
/// that none is born while the list is read. One pass.
pub(crate) fn kill_each(group: &Group) -> Result<(), Fault> {
    let us = getpid();
    let mut members = group.pids()?;
    let inside = members.contains(&(us.as_raw_pid() as u32));
    // Frozen ourselves we could not go on.
    if !inside {
        let _ = group.put("cgroup.freeze", "1");
    }
    let mut seen = HashSet::new();
    let mut rounds = 0;
    let outcome = loop {
        rounds += 1;
        members.retain(|pid| *pid != us.as_raw_pid() as u32 && seen.insert(*pid));
        if members.is_empty() || rounds > KILL_ROUNDS {
            break Ok(());
        }
        if let Err(fault) = send(group, &members, &[SIGKILL]) {
            break Err(fault);
        }
        match group.pids() {
            Ok(now) => members = now,
            Err(fault) => break Err(fault),
        }
    };
    let refreeze = group.state().frozen;
    if !inside && !refreeze {
        let _ = group.put("cgroup.freeze", "0");
    }
    outcome?;
    if inside {
        kill_process(us, Signal::KILL).or_fault("kill", || "ourselves")?;
    }
    Ok(())
}

/// Sends signals in turn to every member, and once more to those who were born meanwhile; how many there were.
pub(crate) fn signal_each(group: &Group, signals: &[i32]) -> Result<u32, Fault> {
    let mut seen = HashSet::new();
    let mut sent = 0;
    for _ in 0..ROUNDS {
        let mut members = group.pids()?;
        members.retain(|pid| seen.insert(*pid));
        if members.is_empty() {
            break;
        }
        sent += send(group, &members, signals)?;
    }
    Ok(sent)
}

/// Sends signals in turn to those of `pids` that are members; how many were reached.
pub(crate) fn send(group: &Group, pids: &[u32], signals: &[i32]) -> Result<u32, Fault> {
    let mut rest = pids;
    let mut reached = 0;
    while !rest.is_empty() {
        let mut open: HashMap<u32, OwnedFd> = HashMap::new();
        let mut looked = 0;
        for &pid in rest.iter().take(BATCH) {
            match process::open(pid) {
                Ok(Some(pidfd)) => {
                    open.insert(pid, pidfd);
                }
                Ok(None) => {}
                // Fewer at a time, then.
                Err(Errno::MFILE | Errno::NFILE) if !open.is_empty() => break,
                Err(errno) => return Err(fault("pidfd_open", format!("process {pid}"), errno)),
            }
            looked += 1;
        }
        rest = &rest[looked..];
        for pid in group.pids()? {
            let Some(pidfd) = open.remove(&pid) else { continue };
            // It may end, and be reaped, of the first of them: then it was reached.
            let mut was_reached = false;
            for signal in signals {
                match send_to(pidfd.as_fd(), *signal) {
                    Ok(()) => was_reached = true,
                    Err(Errno::SRCH) => {}
                    Err(errno) => {
                        return Err(fault("pidfd_send_signal", format!("process {pid}"), errno));
                    }
                }
            }
            reached += u32::from(was_reached);
        }
    }
    Ok(reached)
}

/// Kills the newest members until no more than `keep` are left; how many were killed, and how many stay.
pub(crate) fn trim(group: &Group, keep: u32) -> Result<(u32, u32), Fault> {
    let members = group.pids()?;
    let count = members.len() as u32;
    let Some(surplus) = count.checked_sub(keep).filter(|&surplus| surplus > 0) else {
        return Ok((0, count));
    };
    let us = getpid().as_raw_pid() as u32;
    let mut by_age: Vec<_> = members
        .into_iter()
        .filter(|&pid| pid != us && !is_guardian(pid))
        .filter_map(|pid| Stat::of(pid).map(|stat| (stat.started, pid)))
        .collect();
    by_age.sort_unstable();
    let newest: Vec<_> = by_age.iter().rev().take(surplus as usize).map(|&(_, pid)| pid).collect();
    let ended = send(group, &newest, &[SIGKILL])?;
    Ok((ended, count - ended.min(count)))
}

/// Whether this is the guardian of an engine: a member like any other, but nobody's leftover.
#[must_use]
pub fn is_guardian(pid: u32) -> bool {
    process::comm(pid) == "job-guardian"
        && rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new())
            .is_ok_and(|exe| exe.to_bytes().starts_with(b"/memfd:job-guardian"))
}

/// Who in the group does not die although it was killed, and why, as far as it can be seen.
pub(crate) fn obstacles(group: &Group) -> Result<Vec<Obstacle>, Fault> {
    let members = group.pids()?;
    let all: HashSet<_> = members.iter().copied().collect();
    let found = members.into_iter().filter_map(|pid| {
        let why = obstacle(pid, &all)?;
        Some(Obstacle { pid, comm: process::comm(pid), why })
    });
    Ok(found.collect())
}

fn obstacle(pid: u32, members: &HashSet<u32>) -> Option<Why> {
    if let Some(tracer) = tracer(pid).filter(|tracer| !members.contains(tracer)) {
        let stopped = Stat::of(tracer).is_some_and(|stat| matches!(stat.state, b'T' | b't'));
        return Some(Why::Traced { pid: tracer, comm: process::comm(tracer), stopped });
    }
    if Stat::of(pid)?.state != b'D' {
        return None;
    }
    let at = files::read_proc(format!("/proc/{pid}/wchan")).ok();
    let at = at
        .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        .filter(|at| !matches!(&**at, "" | "0"));
    if at.as_deref().is_some_and(|at| at.contains("refrigerator")) || frozen_v1(pid) {
        return Some(Why::Frozen);
    }
    Some(Why::Uninterruptible { at })
}

/// The process that traces this one.
fn tracer(pid: u32) -> Option<u32> {
    let status = files::read_proc(format!("/proc/{pid}/status")).ok()?;
    let line =
        status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:\t"))?;
    files::number(line)
        .and_then(|(tracer, _)| u32::try_from(tracer).ok())
        .filter(|&tracer| tracer > 0)
}

/// Whether its group of the version 1 freezer, where that is mounted at the usual place, is frozen.
fn frozen_v1(pid: u32) -> bool {
    let Ok(text) = files::read_proc(format!("/proc/{pid}/cgroup")) else { return false };
    let text = String::from_utf8_lossy(&text);
    let path = text.lines().find_map(|line| line.split_once(":freezer:").map(|(_, path)| path));
    path.is_some_and(|path| {
        files::read_proc(format!("/sys/fs/cgroup/freezer{path}/freezer.state"))
            .is_ok_and(|state| !state.starts_with(b"THAWED"))
    })
}

/// Any signal, the real-time ones included.
fn send_to(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    signal::send(pidfd, signal).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
