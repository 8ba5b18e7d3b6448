//! What the tests of the crate have in common: members, other processes to be, and a group of our own
//! to see that nothing is left in it.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test program uses a part of it"
)]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tests talk")]

mod actor;
mod base;

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) use actor::roles;
pub use actor::{Actor, arg, play, role_command, say, std_role, until_let_go};
pub use base::{Base, group_of, mount, own_group};
use jobobject::{Child, Command, Job, JobEnd, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Nothing in here takes as long as this: whoever waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sizes for a machine, or for an emulated one.
pub fn scaled(here: usize, in_vm: usize) -> usize {
    if std::env::var_os("JOB_VM").is_some() { in_vm } else { here }
}

/// Says that something is not tested here, and why.
pub fn skip(why: impl std::fmt::Display) {
    eprintln!("SKIPPED: {why}");
}

pub fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

/// A member that runs `script` and has said a line, which is given back.
pub fn ready_line(job: &Job, script: &str) -> (Child, String) {
    let mut child = sh(script).stdout(Stdio::piped()).spawn_in(job).unwrap();
    let line = hear(child.stdout.as_mut().unwrap());
    (child, line)
}

/// A member that runs `script` and has said a line.
pub fn ready(job: &Job, script: &str) -> Child {
    ready_line(job, script).0
}

/// A member that sleeps until it is ended.
pub fn sleeper(job: &Job) -> Child {
    ready(job, "echo ready; exec sleep 1000")
}

/// A process outside of all jobs that sleeps until it is ended, which happens when the value is dropped.
pub struct Outsider(pub std::process::Child);

impl Outsider {
    pub fn new() -> Self {
        Self::running("echo ready; exec sleep 1000")
    }

    /// One that runs `script` and has said a line.
    pub fn running(script: &str) -> Self {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).stdin(std::process::Stdio::null());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        hear(child.stdout.as_mut().unwrap());
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its end, which has to come.
    pub fn end(&mut self) -> ExitStatus {
        assert!(ends(pidfd(self.pid())), "{} lives on", self.pid());
        self.0.wait().unwrap()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The next line of a pipe, without its end.
pub fn hear(pipe: &mut (impl Read + AsFd)) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        assert!(readable(pipe.as_fd(), PATIENCE), "nothing to hear");
        let read = pipe.read(&mut byte).unwrap();
        assert!(read > 0, "the other end has closed after {:?}", String::from_utf8_lossy(&line));
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// Whether it becomes readable, or hangs up, in time.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// How a job ended, which it has to.
pub fn end_of(job: &Job) -> JobEnd {
    match job.wait_timeout(PATIENCE).unwrap() {
        Some(end) => end,
        None => panic!("still there: {:?}; {:?}", job.leftover(), job.obstacles()),
    }
}

/// The status of a child, which has to end.
pub fn status_of(child: &mut Child) -> ExitStatus {
    drop(child.stdin.take());
    assert!(readable(child.as_fd(), PATIENCE), "{} lives on", child.id());
    child.wait().unwrap()
}

/// The signal that ended a child.
pub fn signal_of(child: &mut Child) -> Option<i32> {
    status_of(child).signal()
}

pub fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Whether the process of this descriptor ends in time.
pub fn ends(pidfd: impl AsFd) -> bool {
    readable(pidfd.as_fd(), PATIENCE)
}

/// Kills a process that may have ended already.
pub fn kill(pidfd: impl AsFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// The letter of its state; `None` when there is no such process.
pub fn state(pid: u32) -> Option<u8> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(name_end + 2).copied()
}

/// Waits until a process is in this state.
pub fn until_state(pid: u32, wanted: u8) {
    until(&format!("{pid} in state {}", wanted as char), || state(pid) == Some(wanted));
}

pub fn alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some(b'Z' | b'X'))
}

/// Looks every millisecond, for what no event tells.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
    }
}

/// Does something that has to come to an end, on a thread of its own.
pub fn within<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(act());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(value) => {
            let _ = thread.join();
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: does not come to an end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what}: {:?}", thread.join()),
    }
}

/// The guardians of a living process: those that hold a pidfd of it.
pub fn guardians_of(owner: u32) -> Vec<u32> {
    let line = format!("Pid:\t{owner}");
    let is_ours = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "job-guardian\n")
            && fs::read_to_string(format!("/proc/{pid}/fdinfo/5"))
                .is_ok_and(|info| info.lines().any(|found| found == line))
    };
    processes().filter(is_ours).collect()
}

/// The one guardian of a living process. One that was just born may not be known by its name yet.
pub fn guardian_of(owner: u32) -> u32 {
    until("there is a guardian", || !guardians_of(owner).is_empty());
    let guardians = guardians_of(owner);
    assert_eq!(guardians.len(), 1, "one guardian per process: {guardians:?}");
    guardians[0]
}

pub fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub fn open_descriptors() -> usize {
    // Less the one that lists them.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Forks this process. The child ends with the status that `child` gives, or 101 after a panic.
///
/// Only for processes with one thread, which may do anything in their forks.
pub fn fork(child: impl FnOnce() -> i32) -> u32 {
    assert_eq!(threads(), 1, "a fork has a copy of one thread only");
    // SAFETY: there is no other thread that could hold a lock or be in the middle of something.
    match unsafe { libc::fork() } {
        0 => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: no handler and no destructor of the parent's may run here.
            unsafe { libc::_exit(outcome.unwrap_or(101)) }
        }
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        pid => pid as u32,
    }
}

/// The status of a child that was forked, as the kernel gives it; it has to end.
pub fn reap(pid: u32) -> ExitStatus {
    assert!(ends(pidfd(pid)), "{pid} lives on");
    let mut status = 0;
    // SAFETY: `status` is live.
    let waited = unsafe { libc::waitpid(pid as i32, &raw mut status, 0) };
    assert_eq!(waited, pid as i32, "{}", io::Error::last_os_error());
    ExitStatus::from_raw(status)
}

/// Numbers that look random and come again with the same seed.
pub struct Random(u64);

impl Random {
    /// From the clock, or from JOB_SEED; said, so that a failure can be repeated.
    pub fn new() -> Self {
        let seed = std::env::var("JOB_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        });
        eprintln!("JOB_SEED={seed}");
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Pauses for a moment whose length is itself what is tested.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}
