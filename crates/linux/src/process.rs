//! Processes by descriptor, and what `/proc` says of them.
//!
//! A pid names a process only as long as nobody reaps it; a pidfd names one for ever. So whatever is read
//! by pid is believed only when the pidfd says afterwards that the process was still there.
//! Invariants of the registry:
//! - two live keys never name the same process: a pid whose pidfd still answers is not looked up again;
//! - a key is known as long as somebody holds its [`Process`], and is never used again.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jobobject_core::{Fault, Outcome, ProcessKey};
use jobobject_sys::fork::ForkWatch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::fault::{OrFault, gone, trouble};
use crate::{files, mount};

/// Set in the flags of a kernel thread.
const PF_KTHREAD: u64 = 0x0020_0000;

/// A process that somebody here remembers.
#[derive(Debug)]
pub struct Process {
    key: ProcessKey,
    pid: u32,
    pidfd: OwnedFd,
    registry: Weak<Registry>,
}

impl Process {
    /// How it is called in effects.
    #[must_use]
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Its id. Once it has been reaped another process may have it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has ended, whether or not anybody has taken its status.
    #[must_use]
    pub fn ended(&self) -> bool {
        readable(self.pidfd.as_fd())
    }

    /// The outcome of its birth.
    #[must_use]
    pub fn born(&self) -> Outcome {
        Outcome::Born { process: self.key, pid: self.pid }
    }

    /// Whether `pid` is still its own: it runs, or nobody has taken its status yet.
    fn names(&self, pid: u32) -> bool {
        matches!(pid_of(self.pidfd.as_fd()), Ok(Some(own)) if own == pid)
    }

    /// Kills it. One that has ended already is no error.
    pub(crate) fn kill(&self) -> Result<(), Fault> {
        kill(self.pidfd.as_fd()).or_fault("pidfd_send_signal", || format!("process {}", self.pid))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(self.key, self.pid);
        }
    }
}

/// Whether a descriptor has something to say, without waiting.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&at_once)), Ok(1..))
}

/// Kills by descriptor. One that has ended already is no error.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A descriptor of a process; `None` when there is no such process (any more).
pub(crate) fn open(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL is said of a dying process and, as ENOENT since 6.10, of a thread that leads no process.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The processes that somebody remembers.
#[derive(Debug)]
pub(crate) struct Registry {
    /// A fork of ours may have been made while another thread held the lock: there it is never taken.
    fork: Arc<ForkWatch>,
    known: Mutex<Known>,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<ProcessKey, Weak<Process>>,
    by_pid: HashMap<u32, ProcessKey>,
}

impl Registry {
    pub(crate) fn new(fork: Arc<ForkWatch>) -> Self {
        Self { fork, known: Mutex::default(), last: AtomicU64::new(0) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that was just born or opened, and that has no key yet.
    pub(crate) fn enter(self: &Arc<Self>, pid: u32, pidfd: OwnedFd) -> Arc<Process> {
        self.enter_in(&mut self.known(), pid, pidfd)
    }

    fn enter_in(self: &Arc<Self>, known: &mut Known, pid: u32, pidfd: OwnedFd) -> Arc<Process> {
        let key = ProcessKey(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let process = Arc::new(Process { key, pid, pidfd, registry: Arc::downgrade(self) });
        known.by_key.insert(key, Arc::downgrade(&process));
        known.by_pid.insert(pid, key);
        process
    }

    /// The process with this id, under the key it has already if it has one.
    pub(crate) fn open(self: &Arc<Self>, pid: u32) -> Result<Arc<Process>, Fault> {
        if let Some(process) = self.by_pid(pid) {
            return Ok(process);
        }
        let pidfd = open(pid).or_fault("pidfd_open", || format!("process {pid}"))?;
        let pidfd = pidfd.ok_or_else(|| gone("pidfd_open", pid))?;
        Ok(self.adopt(pid, pidfd))
    }

    /// The process of a descriptor.
    pub(crate) fn open_pidfd(
        self: &Arc<Self>,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Arc<Process>, Fault> {
        let shown = || "the given descriptor".to_owned();
        let pid = pid_of(pidfd).or_fault("pidfd", shown)?;
        let pid = pid.ok_or_else(|| Fault { target: shown(), ..gone("pidfd", 0) })?;
        if let Some(process) = self.by_pid(pid) {
            return Ok(process);
        }
        let own = pidfd
            .try_clone_to_owned()
            .map_err(|error| trouble("dup", shown(), error.to_string()))?;
        Ok(self.adopt(pid, own))
    }

    /// Enters a process unless another thread just did.
    fn adopt(self: &Arc<Self>, pid: u32, pidfd: OwnedFd) -> Arc<Process> {
        // Declared before the lock, so dropped after it: the last drop of a process takes the lock.
        let stale;
        let mut known = self.known();
        match lookup(&known, pid) {
            Some(process) if process.names(pid) => return process,
            other => stale = other,
        }
        let process = self.enter_in(&mut known, pid, pidfd);
        drop(known);
        drop(stale);
        process
    }

    fn by_pid(&self, pid: u32) -> Option<Arc<Process>> {
        let process = lookup(&self.known(), pid);
        process.filter(|process| process.names(pid))
    }

    /// A process that somebody still remembers.
    pub(crate) fn get(&self, key: ProcessKey) -> Result<Arc<Process>, Fault> {
        let process = self.known().by_key.get(&key).and_then(Weak::upgrade);
        process.ok_or_else(|| trouble("process", key.to_string(), "nobody remembers it"))
    }

    fn forget(&self, key: ProcessKey, pid: u32) {
        if !self.fork.is_original() {
            return;
        }
        let mut known = self.known();
        known.by_key.remove(&key);
        if known.by_pid.get(&pid) == Some(&key) {
            known.by_pid.remove(&pid);
        }
    }
}

/// The process that last had this id, if somebody remembers it.
fn lookup(known: &Known, pid: u32) -> Option<Arc<Process>> {
    known.by_pid.get(&pid).and_then(|key| known.by_key.get(key)).and_then(Weak::upgrade)
}

/// The id, in our pid namespace, of a process that nobody has reaped yet.
fn pid_of(pidfd: BorrowedFd<'_>) -> Result<Option<u32>, Errno> {
    let text = files::read_proc(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:\t"));
    match line {
        // -1: reaped; 0: in a pid namespace that we do not see.
        Some(value) => Ok(files::number(value)
            .and_then(|(pid, _)| u32::try_from(pid).ok())
            .filter(|&pid| pid > 0)),
        None => Err(Errno::BADF),
    }
}

/// What `/proc/PID/stat` says that we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter.
    pub(crate) state: u8,
    /// `PF_*`.
    pub(crate) flags: u64,
    /// When it was started, in clock ticks since boot.
    pub(crate) started: u64,
}

impl Stat {
    /// Of the process with this id, if there is one.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&files::read_proc(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, in parentheses, may hold anything, parentheses too.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = text.get(name_end + 2..)?.split(|&byte| byte == b' ');
        let state = *fields.next()?.first()?;
        // Fields are numbered from 1 in proc_pid_stat(5); the state is the third.
        let mut field =
            |skip: usize| fields.nth(skip).and_then(files::number).map(|(value, _)| value);
        let flags = field(5)?;
        let started = field(12)?;
        Some(Self { state, flags, started })
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub(crate) fn kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

/// The group of a process, as the kernel names it: a zombie's may be deleted, which is cut off.
pub(crate) fn group(pid: u32) -> Option<String> {
    let text = files::read_proc(format!("/proc/{pid}/cgroup")).ok()?;
    mount::group_of(&text).map(|(path, _)| path.to_owned())
}

/// The name of the program, as `ps` shows it.
pub(crate) fn comm(pid: u32) -> String {
    let text = files::read_proc(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Arc<Registry> {
        Arc::new(Registry::new(Arc::new(ForkWatch::new().unwrap())))
    }

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse_the_fields() {
        let text = b"42 (a) S 1 (b)) R 7 42 42 0 -1 2097216 1 2 3 4 5 6 7 8 20 0 1 0 99887 0 0";
        assert_eq!(
            Stat::parse(text),
            Some(Stat { state: b'R', flags: 0x20_0040, started: 99_887 })
        );
        assert!(Stat::parse(text).unwrap().kernel_thread());
        assert_eq!(Stat::parse(b"42 (a"), None);
    }

    #[test]
    fn a_process_has_one_key_as_long_as_somebody_remembers_it() {
        let registry = registry();
        let first = registry.open(std::process::id()).unwrap();
        let again = registry.open(std::process::id()).unwrap();
        assert_eq!(first.key(), again.key());
        let by_descriptor = registry.open_pidfd(first.pidfd()).unwrap();
        assert_eq!(first.key(), by_descriptor.key());
        let key = first.key();
        drop((first, again, by_descriptor));
        assert!(registry.get(key).is_err(), "nobody remembers it any more");
        assert_ne!(registry.open(std::process::id()).unwrap().key(), key);
    }

    #[test]
    fn a_pid_that_was_used_again_gets_a_new_key() {
        let registry = registry();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let process = registry.open(child.id()).unwrap();
        child.wait().unwrap();
        let error = registry.open(child.id()).unwrap_err();
        assert!(error.gone, "the pid is free: {error}");
        drop(process);
    }

    #[test]
    fn no_process_is_told_as_gone() {
        let registry = registry();
        for pid in [0, u32::MAX, i32::MAX as u32] {
            assert!(registry.open(pid).unwrap_err().gone, "{pid}");
        }
    }
}
