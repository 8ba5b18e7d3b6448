//! Births: a process that is in its cgroup from its first instruction on.
//!
//! A clone that shares our memory and holds this thread until the child has executed or ended
//! (`CLONE_VM|CLONE_VFORK`): no copy of the parent, however large, and the child's failure is known when
//! the call returns. Invariants:
//! - the child does nothing but what its [`Plan`] says; all of it was prepared before the birth;
//! - no signal handler of ours runs in the child: everything is blocked until its own mask is set;
//! - an error means that no process of ours is left; a child that has failed is reaped here;
//! - no descriptor of ours reaches the command but by the plan, or by not being close-on-exec.
//!
//! The call blocks as long as the child cannot reach exec: while its group is frozen, for one. Never hold a
//! lock across it.

mod child;
pub(crate) mod newborn;
pub(crate) mod stack;
mod strings;

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Acquire, Ordering::Relaxed};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions};

use self::child::{Child, Report};
use self::newborn::Newborn;
use self::stack::Stack;
pub use self::strings::{CStringArray, CStringArrayBuilder, NulInside};
use crate::raw;
use crate::signal::SignalSet;

/// Something to be done to the descriptors of the child.
#[derive(Debug, Clone, Copy)]
pub enum FdAction<'a> {
    /// `to` becomes what `from` is in the parent, and passes through exec. `from` always means the parent's
    /// descriptor, even if an earlier action has used its number; `from` may be `to`.
    Dup {
        /// A descriptor of ours.
        from: BorrowedFd<'a>,
        /// A number in the child.
        to: RawFd,
    },
    /// Closes a number in the child; it need not be open.
    Close(RawFd),
}

impl FdAction<'_> {
    fn target(&self) -> RawFd {
        match *self {
            Self::Dup { to, .. } | Self::Close(to) => to,
        }
    }
}

/// What the child does between its birth and the first instruction of the program, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Make a new session (`setsid`).
    pub session: bool,
    /// Enter this process group; 0 makes a new one.
    pub group: Option<u32>,
    /// Arrange descriptors, in order.
    pub fds: &'a [FdAction<'a>],
    /// Set the file mode creation mask.
    pub umask: Option<u32>,
    /// Set the supplementary groups.
    pub groups: Option<&'a [u32]>,
    /// Set all group ids.
    pub gid: Option<u32>,
    /// Set all user ids.
    pub uid: Option<u32>,
    /// Change to this directory. Relative program paths are seen from here.
    pub cwd: Option<&'a CStr>,
    /// Let these signals do what they do by default. Handlers are reset in any case, what is ignored is not.
    pub default: SignalSet,
    /// Let these signals be ignored.
    pub ignore: SignalSet,
    /// Block exactly these signals.
    pub mask: SignalSet,
    /// Execute the first of these that can be, by the rules of `execvp(3)`: what is not there is passed over,
    /// what may not be executed too but is reported if nothing else is found, a text without `#!` goes to
    /// `/bin/sh`, any other error ends the search.
    pub paths: &'a [CString],
    /// With these arguments, the name of the program first.
    pub argv: &'a CStringArray,
    /// In this environment; `None`: ours as it is at that moment. That is read as `posix_spawn(3)` reads
    /// `environ`, without any lock: whoever changes the environment while other threads are about is bound to
    /// know that (`std::env::set_var`, Safety). If the kernel stumbles over a change, it is given a copy.
    pub envp: Option<&'a CStringArray>,
}

impl<'a> Plan<'a> {
    /// Executes `paths` in our environment and changes nothing else, but that no signal is blocked.
    #[must_use]
    pub fn new(paths: &'a [CString], argv: &'a CStringArray) -> Self {
        Self {
            session: false,
            group: None,
            fds: &[],
            umask: None,
            groups: None,
            gid: None,
            uid: None,
            cwd: None,
            default: SignalSet::EMPTY,
            ignore: SignalSet::EMPTY,
            mask: SignalSet::EMPTY,
            paths,
            argv,
            envp: None,
        }
    }

    /// Whether a source has been overwritten or closed by an earlier action when its turn comes.
    fn collides(&self) -> bool {
        self.fds.iter().enumerate().any(|(at, action)| match action {
            FdAction::Dup { from, .. } => {
                self.fds[..at].iter().any(|earlier| earlier.target() == from.as_raw_fd())
            }
            FdAction::Close(_) => false,
        })
    }

    fn changes_user(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups.is_some()
    }
}

/// The cgroup that a child is born into.
#[derive(Debug, Clone, Copy)]
pub enum Into<'a> {
    /// That of this thread.
    Inherit,
    /// This one, given by its directory (`O_PATH` will do): from its first instruction on. Linux 5.7.
    Cgroup(BorrowedFd<'a>),
    /// This one, given by its open `cgroup.procs`: the child writes itself into it before it does anything
    /// else. For where a birth into a cgroup is refused.
    Join(BorrowedFd<'a>),
}

/// What the parent does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lends its memory and waits for exec. What fails is reported.
    Vfork,
    /// Gives the child a copy of its memory and does not wait: for a group that is frozen, where the child
    /// does not get as far as exec until the thaw. What fails ends the child with 127 (no such program) or 126.
    Fork,
}

/// A process that was born.
#[derive(Debug)]
pub struct Birth {
    /// Its pid, until somebody reaps it.
    pub pid: u32,
    /// The process itself; close-on-exec.
    pub pidfd: OwnedFd,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Joining its cgroup.
    Join = 1,
    /// Making a session.
    Session = 2,
    /// Entering a process group.
    Group = 3,
    /// Arranging descriptors.
    Fds = 4,
    /// Becoming another user.
    User = 5,
    /// Changing the directory.
    Cwd = 6,
    /// Executing the program.
    Exec = 7,
}

impl Step {
    fn from_raw(raw: u32) -> Option<Self> {
        use Step::{Cwd, Exec, Fds, Group, Join, Session, User};
        [Join, Session, Group, Fds, User, Cwd, Exec].into_iter().find(|step| *step as u32 == raw)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join => "join its cgroup",
            Self::Session => "make a session",
            Self::Group => "enter its process group",
            Self::Fds => "arrange its descriptors",
            Self::User => "become its user",
            Self::Cwd => "change to its directory",
            Self::Exec => "execute its program",
        })
    }
}

/// Why there is no process. If there was one for a moment, it is reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BirthError {
    /// The kernel refused the birth. ENOSYS, EPERM, E2BIG and EINVAL for [`Into::Cgroup`] mean that another
    /// way may do.
    Clone(Errno),
    /// The child was killed before its first instruction: so some kernels treat whoever is born into a
    /// group that was killed once.
    Stillborn,
    /// The child could not do what the plan says.
    Setup {
        /// What it was doing.
        step: Step,
        /// What the kernel answered.
        errno: Errno,
    },
    /// None of the paths could be executed.
    Exec(Errno),
}

impl BirthError {
    /// What the kernel answered, if it was asked.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match *self {
            Self::Clone(errno) | Self::Setup { errno, .. } | Self::Exec(errno) => Some(errno),
            Self::Stillborn => None,
        }
    }
}

impl fmt::Display for BirthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone(errno) => write!(f, "no process can be made: {errno}"),
            Self::Stillborn => f.write_str("the process was killed at birth"),
            Self::Setup { step, errno } => write!(f, "the process could not {step}: {errno}"),
            Self::Exec(errno) => write!(f, "the program cannot be executed: {errno}"),
        }
    }
}

impl std::error::Error for BirthError {}

/// Makes a process that carries out `plan` in the cgroup `into`.
///
/// # Errors
/// See [`BirthError`]; with [`Mode::Fork`] only `Clone`.
pub fn spawn(plan: &Plan<'_>, into: Into<'_>, mode: Mode) -> Result<Birth, BirthError> {
    match spawn_once(plan, into, mode) {
        Err(BirthError::Exec(Errno::FAULT)) if plan.envp.is_none() => {
            let copy = strings::copy_of_environment();
            spawn_once(&Plan { envp: Some(&copy), ..*plan }, into, mode)
        }
        other => other,
    }
}

fn spawn_once(plan: &Plan<'_>, into: Into<'_>, mode: Mode) -> Result<Birth, BirthError> {
    // A free place for the shell, the arguments (and room for a name if there is none), null.
    let arguments = plan.argv.pointers();
    let mut argv = Vec::with_capacity(arguments.len().max(1) + 2);
    argv.push(std::ptr::null());
    argv.extend_from_slice(arguments);
    argv.push(std::ptr::null());
    if arguments.is_empty() {
        argv.push(std::ptr::null());
    }
    let collide = plan.collides();
    let mut moved = vec![-1; if collide { plan.fds.len() } else { 0 }];
    let stack = match mode {
        Mode::Vfork => Some(Stack::take().map_err(|_| BirthError::Clone(Errno::NOMEM))?),
        Mode::Fork => None,
    };
    let mut pidfd = -1;
    let newborn = Newborn {
        flags: newborn::CLONE_CLEAR_SIGHAND
            | if stack.is_some() { newborn::CLONE_VM | newborn::CLONE_VFORK } else { 0 },
        exit_signal: libc::SIGCHLD,
        stack: stack
            .as_ref()
            .map_or((std::ptr::null_mut(), 0), |stack| (stack.base(), stack.size())),
        pidfd: &raw mut pidfd,
        cgroup: match into {
            Into::Cgroup(directory) => Some(directory.as_raw_fd()),
            Into::Inherit | Into::Join(_) => None,
        },
    };
    let mut child = Child {
        plan,
        join: match into {
            Into::Join(procs) => Some(procs.as_raw_fd()),
            Into::Inherit | Into::Cgroup(_) => None,
        },
        argv: argv.as_mut_ptr(),
        moved: moved.as_mut_ptr(),
        collide,
        clear_handlers: false,
        report: Report::default(),
    };

    // A change of user makes the memory undumpable, and for a while it is ours as well.
    let dumpable =
        (stack.is_some() && plan.changes_user()).then(rustix::process::dumpable_behavior);
    let mask = raw::set_mask(!0);
    let pid = clone_by_any_means(&newborn, &mut child);
    raw::set_mask(mask);
    if let Some(Ok(DumpableBehavior::Dumpable)) = dumpable {
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    }

    let pid = pid.map_err(|errno| BirthError::Clone(Errno::from_raw_os_error(errno)))?;
    // SAFETY: the kernel has stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let error = match mode {
        Mode::Fork => None,
        Mode::Vfork => failure(&child.report),
    };
    match error {
        None => Ok(Birth { pid: pid as u32, pidfd }),
        Some(error) => {
            bury(pid, pidfd.as_fd());
            Err(error)
        }
    }
}

/// Whether `clone3` was refused as such: then it is not tried again where it is not needed.
static NO_CLONE3: AtomicBool = AtomicBool::new(false);

/// `clone3`, or `clone` where that is missing or refused and would do.
fn clone_by_any_means(newborn: &Newborn, child: &mut Child<'_>) -> newborn::Pid {
    let needed = newborn.cgroup.is_some();
    if needed || !NO_CLONE3.load(Relaxed) {
        let arg = (&raw mut *child).cast();
        // SAFETY: `live` is made for a newborn, and `arg` is what it asks for. With shared memory the kernel
        // holds us until it has executed or ended; the stack is ours alone.
        let pid = unsafe { newborn::clone3(newborn, child::live, arg) };
        match pid {
            // EINVAL: Linux 5.3 and 5.4 do not know CLONE_CLEAR_SIGHAND.
            Err(libc::ENOSYS | libc::EPERM | libc::EINVAL) if !needed => {}
            other => return other,
        }
        NO_CLONE3.store(true, Relaxed);
    }
    child.clear_handlers = true;
    // SAFETY: as above.
    unsafe { newborn::clone2(newborn, child::live, (&raw mut *child).cast()) }
}

/// What the child has reported, or failed to.
fn failure(report: &Report) -> Option<BirthError> {
    if report.started.load(Acquire) == 0 {
        return Some(BirthError::Stillborn);
    }
    let step = Step::from_raw(report.step.load(Acquire))?;
    let errno = Errno::from_raw_os_error(report.errno.load(Relaxed));
    Some(match step {
        Step::Exec => BirthError::Exec(errno),
        step => BirthError::Setup { step, errno },
    })
}

/// Reaps a child that is ending. Somebody else may have been faster: that is as good.
pub(crate) fn bury(pid: i32, pidfd: BorrowedFd<'_>) {
    let ended = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)
    });
    // Linux 5.3 has pidfds but cannot wait for one.
    if matches!(ended, Err(Errno::INVAL)) {
        raw::reap(pid);
    }
}

/// Makes the next births of a `std` command join a group by themselves before exec, as [`Into::Join`]
/// does, until the returned guard is dropped. The command keeps what it takes for good, since `std` has
/// no way to take it out again; afterwards it does nothing.
pub fn join_before_exec(command: &mut std::process::Command, procs: OwnedFd) -> Joining {
    use std::os::unix::process::CommandExt as _;
    let fd = Arc::new(AtomicI32::new(procs.as_raw_fd()));
    let theirs = Arc::clone(&fd);
    let join = move || match theirs.load(Relaxed) {
        -1 => Ok(()),
        // SAFETY: the guard in the parent keeps the descriptor open until the births are over, and this
        // is a copy of it.
        fd => Ok(rustix::io::write(unsafe { BorrowedFd::borrow_raw(fd) }, b"0").map(drop)?),
    };
    // SAFETY: the closure, which runs in the forked child, only loads an atomic and makes a system call.
    unsafe { command.pre_exec(join) };
    Joining { fd, _procs: procs }
}

/// See [`join_before_exec`].
#[derive(Debug)]
pub struct Joining {
    fd: Arc<AtomicI32>,
    _procs: OwnedFd,
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.fd.store(-1, Relaxed);
    }
}
