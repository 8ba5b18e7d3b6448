//! The guardian: a process that outlives its owner by as long as it takes to leave nothing behind.
//!
//! One per process that has jobs, never one per job. It is a tiny static program, embedded here and executed
//! from a sealed memory file: it holds neither the owner's memory nor a file of his. It is born twice, so
//! that the owner never has it as a child: a host that waits for all its children must not wait for ours.
//! Invariants:
//! - when [`start`] returns, the guardian depends on nothing of the owner's but the shared table, and has left
//!   his process group: the owner may be killed at the next instruction;
//! - it holds no descriptor of the owner's but the four that it needs;
//! - it acts when the owner is gone or executes something else, and only then, and not if dismissed.
//!
//! What it does then is in `guardian/watch.rs`. In a fork of the owner nothing here may be called.

use std::ffi::{c_char, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{
    AtomicI32, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::clone::bury;
use crate::clone::newborn::{self, Newborn};
use crate::clone::stack::Stack;
use crate::table::{self, Table};
use crate::{layout, raw, watch};

/// The program that `build.rs` has made of the folder `guardian`.
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/job-guardian"));

/// A guardian of this process. Dropping it without [`dismiss`](Self::dismiss) has it clean up now, as if
/// this process were gone.
#[derive(Debug)]
pub struct Guardian {
    pid: u32,
    pidfd: OwnedFd,
    /// The write end: the guardian wakes when it is closed everywhere.
    pipe: Option<OwnedFd>,
}

/// What the guardian runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its own program, from a memory file: a few pages.
    Memfd,
    /// A copy of this process, because executing the memory file was refused with this errno (0: it was not
    /// tried). Costs what a fork of this process costs.
    Forked(i32),
}

/// A guardian that has been started, and what is to be known about it.
#[derive(Debug)]
pub struct Started {
    /// The guardian.
    pub guardian: Guardian,
    /// What it runs.
    pub how: How,
    /// Whether it has become a child of this process after all: because this is the first process of its pid
    /// namespace, or a subreaper.
    pub reparented_to_us: bool,
}

/// Starts the guardian of this process, which will keep to what `table` says. `mount` is the root directory of
/// the cgroup mount (`O_PATH` will do). `into`: the cgroup that it lives in, given by its directory; otherwise
/// that of this thread.
///
/// # Errors
/// No process, memory or descriptor left; `into` cannot be entered; no pidfds (Linux before 5.3).
pub fn start(
    table: &Table,
    mount: BorrowedFd<'_>,
    into: Option<BorrowedFd<'_>>,
) -> io::Result<Started> {
    let refused = match table::image(c"job-guardian", IMAGE) {
        Ok(image) => match Owner::new(table, mount, into)?.bear(Some(image.as_fd())) {
            Err(Fault { stage: Stage::Exec, errno }) => errno,
            other => return Ok(started(other?, How::Memfd)),
        },
        Err(error) => error.raw_os_error().unwrap_or(libc::EPERM),
    };
    start_as_fork(table, mount, into, refused)
}

/// Starts a guardian that is a copy of this process: what [`start`] does where a memory file may not be
/// executed.
///
/// # Errors
/// As for [`start`].
pub fn start_forked(
    table: &Table,
    mount: BorrowedFd<'_>,
    into: Option<BorrowedFd<'_>>,
) -> io::Result<Started> {
    start_as_fork(table, mount, into, 0)
}

fn start_as_fork(
    table: &Table,
    mount: BorrowedFd<'_>,
    into: Option<BorrowedFd<'_>>,
    refused: i32,
) -> io::Result<Started> {
    let guardian = Owner::new(table, mount, into)?.bear(None)?;
    // An executed guardian has settled before we were let go on; a forked one says so.
    guardian.wait_ready(table)?;
    Ok(started(guardian, How::Forked(refused)))
}

fn started(guardian: Guardian, how: How) -> Started {
    Started { guardian, how, reparented_to_us: adopts_orphans() }
}

/// Whether processes that lose their parent become children of this one: it is the first of its pid
/// namespace, or a subreaper. Orphans of its namespace may go to another subreaper in between.
#[must_use]
pub fn adopts_orphans() -> bool {
    getpid().is_init() || matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

impl Guardian {
    /// Its pid, as long as it lives.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The guardian itself: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until it runs its own program and has the table before it. Nothing depends on it: when
    /// [`start`] returns, the guardian can no longer be stopped from getting there.
    ///
    /// # Errors
    /// It has ended before.
    pub fn wait_ready(&self, table: &Table) -> io::Result<()> {
        while table.layout().ready.load(Acquire) == 0 {
            if !self.is_alive() {
                return Err(io::Error::other("the guardian ended before it began"));
            }
            raw::futex_wait(&table.layout().ready, 0, 10);
        }
        Ok(())
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.wait_until(Some(Instant::now()))
    }

    /// Sends it away: it touches nothing, whatever the table says. It is gone a moment later.
    pub fn dismiss(&mut self, table: &Table) {
        table.dismiss();
        self.pipe = None;
        // The pipe may be open in a forked worker of ours. Nothing is lost by ending what does nothing.
        // EPERM, if we have become another user since: then it leaves when the last worker does.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits until it has ended, at most for `timeout`; whether it has. Where it has become a child of ours,
    /// it is reaped.
    #[must_use]
    pub fn wait_gone(&self, timeout: Option<Duration>) -> bool {
        let gone = self.wait_until(timeout.map(|timeout| Instant::now() + timeout));
        if gone && adopts_orphans() {
            bury(self.pid as i32, self.pidfd.as_fd());
        }
        gone
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| rustix::time::Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Why a guardian was not born.
struct Fault {
    stage: Stage,
    errno: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stage {
    /// Cloning one of the two.
    Clone = 1,
    /// Joining the group that it is to live in.
    Join = 2,
    /// Leaving the owner's descriptors and session.
    Settle = 3,
    /// Executing the memory file.
    Exec = 4,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::from_raw_os_error(fault.errno)
    }
}

/// What a guardian gets from its owner.
struct Owner<'a> {
    table: &'a Table,
    mount: BorrowedFd<'a>,
    into: Option<BorrowedFd<'a>>,
    /// An open `cgroup.procs` of `into`, for where a birth into a group is refused.
    join: Option<OwnedFd>,
    pidfd: OwnedFd,
    read: OwnedFd,
    write: OwnedFd,
}

impl<'a> Owner<'a> {
    fn new(
        table: &'a Table,
        mount: BorrowedFd<'a>,
        into: Option<BorrowedFd<'a>>,
    ) -> io::Result<Self> {
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty())?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let procs = |directory| {
            openat(directory, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        };
        let join = into.map(procs).transpose()?;
        Ok(Self { table, mount, into, join, pidfd, read, write })
    }

    /// Has a guardian born by an intermediate that ends at once.
    fn bear(self, image: Option<BorrowedFd<'_>>) -> Result<Guardian, Fault> {
        let no_stack = |_| Fault { stage: Stage::Clone, errno: raw::errno::ENOMEM };
        let between_stack = Stack::take().map_err(no_stack)?;
        // A forked guardian lives on, on a copy of its stack, and walks deep trees; one that shares ours needs
        // it only until exec.
        let stack = if image.is_some() { Stack::take() } else { Stack::large(1 << 20) };
        let stack = stack.map_err(no_stack)?;
        // There may have been a guardian before, dismissed or killed.
        self.table.layout().state.store(layout::OPEN, Relaxed);
        self.table.layout().ready.store(0, Release);
        let name = c"job-guardian".as_ptr();
        let (argv, envp) = ([name, std::ptr::null()], [std::ptr::null()]);
        let between = Between {
            layout: self.table.layout(),
            fds: [
                self.table.as_fd().as_raw_fd(),
                self.mount.as_raw_fd(),
                self.pidfd.as_raw_fd(),
                self.read.as_raw_fd(),
                image.map_or(-1, |image| image.as_raw_fd()),
            ],
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            into: self.into.map(|into| into.as_raw_fd()),
            join: self.join.as_ref().map(AsRawFd::as_raw_fd),
            joins: AtomicU32::new(0),
            stack: (stack.base(), stack.size()),
            pid: AtomicI32::new(0),
            pidfd: AtomicI32::new(-1),
            started: AtomicU32::new(0),
            stage: AtomicU32::new(0),
            errno: AtomicI32::new(0),
        };
        // No signal of the host's at the end of the intermediate (exit signal 0), and its descriptors are
        // ours: so the pidfd of the guardian, which only its parent gets, is ours too.
        let newborn = Newborn {
            flags: newborn::CLONE_VM | newborn::CLONE_VFORK | newborn::CLONE_FILES,
            exit_signal: 0,
            stack: (between_stack.base(), between_stack.size()),
            pidfd: std::ptr::null_mut(),
            cgroup: None,
        };
        let arg = (&raw const between).cast_mut().cast::<c_void>();
        let mask = raw::set_mask(!0);
        // SAFETY: `live_between` is made for a newborn and asks for a `Between`; the kernel holds us until
        // it has ended; the stack is ours alone. `clone` does all that is needed, and is always there.
        let pid = unsafe { newborn::clone2(&newborn, live_between, arg) };
        if let Ok(pid) = pid {
            // Not by `waitid`: only a wait for all kinds of children sees one without an exit signal.
            raw::reap(pid);
        }
        raw::set_mask(mask);

        pid.map_err(|errno| Fault { stage: Stage::Clone, errno })?;
        let pidfd = between.pidfd.load(Relaxed);
        // SAFETY: the kernel has stored a new descriptor, which nobody else owns.
        let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        let errno = between.errno.load(Relaxed);
        let stage = match between.stage.load(Acquire) {
            0 => None,
            stage if stage == Stage::Exec as u32 => Some(Stage::Exec),
            stage if stage == Stage::Settle as u32 => Some(Stage::Settle),
            stage if stage == Stage::Join as u32 => Some(Stage::Join),
            _ => Some(Stage::Clone),
        };
        match (stage, pidfd) {
            (None, Some(pidfd)) => {
                let pid = between.pid.load(Relaxed) as u32;
                Ok(Guardian { pid, pidfd, pipe: Some(self.write) })
            }
            (stage, _) => {
                let errno = if errno == 0 { raw::errno::EIO } else { errno };
                Err(Fault { stage: stage.unwrap_or(Stage::Clone), errno })
            }
        }
    }
}

/// What owner, intermediate and guardian have in common, as long as they share memory.
struct Between<'a> {
    layout: &'a layout::Layout,
    /// Table, mount, owner, pipe, image (-1: none, run the copy).
    fds: [RawFd; 5],
    argv: *const *const c_char,
    envp: *const *const c_char,
    into: Option<RawFd>,
    join: Option<RawFd>,
    /// Whether the guardian joins `into` by itself.
    joins: AtomicU32,
    stack: (*mut c_void, usize),
    pid: AtomicI32,
    pidfd: AtomicI32,
    /// Set by the guardian's first instruction.
    started: AtomicU32,
    /// The [`Stage`] that failed; 0: none.
    stage: AtomicU32,
    errno: AtomicI32,
}

impl Between<'_> {
    fn fail(&self, stage: Stage, errno: i32) {
        self.errno.store(errno, Relaxed);
        self.stage.store(stage as u32, Release);
    }

    fn is_forked(&self) -> bool {
        self.fds[4] < 0
    }
}

/// The life of the intermediate: it bears the guardian and ends. The rules of `clone/child.rs` hold.
extern "C" fn live_between(between: *mut c_void) -> ! {
    // SAFETY: the owner passes its `Between`, and waits until we have ended.
    let between_ref = unsafe { &*between.cast::<Between<'_>>() };
    let shared = if between_ref.is_forked() { 0 } else { newborn::CLONE_VM | newborn::CLONE_VFORK };
    let mut newborn = Newborn {
        flags: shared,
        exit_signal: libc::SIGCHLD,
        stack: between_ref.stack,
        pidfd: between_ref.pidfd.as_ptr(),
        cgroup: between_ref.into,
    };
    // A copy joins by itself: that it is stillborn, as in groups that were killed once, could not be seen.
    if between_ref.into.is_some() && !between_ref.is_forked() {
        // SAFETY: `live` is made for a newborn and asks for a `Between`. The kernel holds us until it has
        // executed or ended. The stack is its alone.
        if let Ok(pid) = unsafe { newborn::clone3(&newborn, live, between) } {
            if between_ref.started.load(Acquire) != 0 {
                finish(between_ref, pid);
            }
            raw::reap(pid);
            raw::close(between_ref.pidfd.swap(-1, Relaxed));
        }
    }
    between_ref.joins.store(u32::from(between_ref.into.is_some()), Relaxed);
    newborn.cgroup = None;
    // SAFETY: as above, but that a copy is not waited for: it has its own memory, and the stack in it.
    match unsafe { newborn::clone2(&newborn, live, between) } {
        Ok(pid) => finish(between_ref, pid),
        Err(errno) => between_ref.fail(Stage::Clone, errno),
    }
    raw::exit(0)
}

/// Passes on what came of the guardian.
fn finish(between: &Between<'_>, pid: i32) -> ! {
    between.pid.store(pid, Relaxed);
    if between.stage.load(Acquire) != 0 {
        raw::reap(pid);
    } else if !between.is_forked() && between.started.load(Acquire) == 0 {
        raw::reap(pid);
        between.fail(Stage::Clone, raw::errno::EIO);
    }
    raw::exit(0)
}

/// The life of the guardian: until exec if it shares our memory, to its end if it is a copy.
extern "C" fn live(between: *mut c_void) -> ! {
    // SAFETY: the intermediate passes the owner's `Between`, and waits until we have executed or ended; or
    // this is a copy.
    let between = unsafe { &*between.cast::<Between<'_>>() };
    between.started.store(1, Release);
    if let Some(procs) = between.join
        && between.joins.load(Relaxed) != 0
        && let Err(errno) = raw::write(procs, b"0")
    {
        between.fail(Stage::Join, errno);
        raw::exit(126);
    }
    if let Err(errno) = watch::settle(between.fds) {
        between.fail(Stage::Settle, errno);
        raw::exit(126);
    }
    if between.is_forked() {
        raw::exit(watch::watch(between.layout));
    }
    // SAFETY: the owner's arrays are strings and end in null.
    let errno = unsafe { raw::execve_fd(watch::IMAGE_FD, between.argv, between.envp) };
    between.fail(Stage::Exec, errno);
    raw::exit(127)
}
