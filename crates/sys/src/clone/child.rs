//! The child, between its birth and exec.
//!
//! It shares the memory of a parent whose other threads go on running: so it allocates nothing, takes no
//! lock, does not panic, and calls the kernel only through `crate::raw`. Its descriptors, directory, umask,
//! dispositions and credentials are its own. What it has to tell, it writes into [`Report`].

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed, Ordering::Release};

use super::{CStringArray, FdAction, Plan, Step, strings};
use crate::raw::{self, Disposition, errno, nr};

/// What the child knows: prepared by the parent, which waits (or has given it a copy).
pub(super) struct Child<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// An open `cgroup.procs` to join by.
    pub(super) join: Option<RawFd>,
    /// One free place, then the arguments, then null.
    pub(super) argv: *mut *const c_char,
    /// One place per descriptor action; empty if no source is in another action's way.
    pub(super) moved: *mut RawFd,
    pub(super) collide: bool,
    /// Whether handlers are still in place: they must not run in here.
    pub(super) clear_handlers: bool,
    pub(super) report: Report,
}

/// What the child tells its parent, as far as they share memory.
#[derive(Default)]
pub(super) struct Report {
    /// Set by the child's first instruction.
    pub(super) started: AtomicU32,
    /// The [`Step`] that failed; 0: none.
    pub(super) step: AtomicU32,
    pub(super) errno: AtomicI32,
}

/// The child's whole life. Not to be called but as the entry of a newborn, with a `Child`.
pub(super) extern "C" fn live(child: *mut c_void) -> ! {
    // SAFETY: the parent passes its `Child` and leaves it alone until we execute or exit.
    let child = unsafe { &*child.cast::<Child<'_>>() };
    child.report.started.store(1, Release);
    let (step, error) = match child.set_up() {
        Err(failed) => failed,
        Ok(()) => (Step::Exec, child.execute()),
    };
    child.report.errno.store(error, Relaxed);
    child.report.step.store(step as u32, Release);
    // Seen only where nobody waits for the report: what a shell would say.
    let missing = step == Step::Exec && matches!(error, errno::ENOENT | errno::ENOTDIR);
    raw::exit(if missing { 127 } else { 126 })
}

impl Child<'_> {
    fn set_up(&self) -> Result<(), (Step, i32)> {
        let plan = self.plan;
        if let Some(procs) = self.join {
            // First of all: nothing of the command's happens outside.
            raw::write(procs, b"0").map_err(|error| (Step::Join, error))?;
        }
        if plan.session {
            raw::setsid().map_err(|error| (Step::Session, error))?;
        }
        if let Some(group) = plan.group {
            plain(nr::SETPGID, 0, group as usize).map_err(|error| (Step::Group, error))?;
        }
        self.arrange_fds().map_err(|error| (Step::Fds, error))?;
        if let Some(umask) = plan.umask {
            let _ = plain(nr::UMASK, umask as usize, 0);
        }
        self.become_user().map_err(|error| (Step::User, error))?;
        if let Some(cwd) = plan.cwd {
            raw::chdir(cwd).map_err(|error| (Step::Cwd, error))?;
        }
        if self.clear_handlers {
            clear_handlers();
        }
        for (set, to) in
            [(plan.default, &Disposition::DEFAULT), (plan.ignore, &Disposition::IGNORE)]
        {
            let mut bits = set.bits();
            while bits != 0 {
                let signal = bits.trailing_zeros() as i32 + 1;
                bits &= bits.wrapping_sub(1);
                // SIGKILL and SIGSTOP refuse: they are what they are.
                // SAFETY: neither the default nor ignoring has a handler.
                let _ = unsafe { raw::set_disposition(signal, to) };
            }
        }
        raw::set_mask(plan.mask.bits());
        Ok(())
    }

    fn arrange_fds(&self) -> Result<(), i32> {
        let actions = self.plan.fds;
        if self.collide {
            // Somebody's source is somebody else's target: all sources go above all targets first.
            let target = |action: &FdAction<'_>| match *action {
                FdAction::Dup { to, .. } => to,
                FdAction::Close(fd) => fd,
            };
            let least = actions.iter().map(target).fold(2, i32::max).saturating_add(1);
            for (at, action) in actions.iter().enumerate() {
                if let FdAction::Dup { from, .. } = action {
                    let copy = raw::dup_above(from.as_raw_fd(), least)?;
                    // SAFETY: the parent has made one place per action, for us alone.
                    unsafe { self.moved.add(at).write(copy) };
                }
            }
        }
        for (at, action) in actions.iter().enumerate() {
            match *action {
                FdAction::Dup { to, .. } if self.collide => {
                    // SAFETY: written above. The copies are close-on-exec.
                    raw::dup3(unsafe { self.moved.add(at).read() }, to, 0)?;
                }
                FdAction::Dup { from, to } if from.as_raw_fd() == to => raw::clear_cloexec(to)?,
                FdAction::Dup { from, to } => raw::dup3(from.as_raw_fd(), to, 0)?,
                FdAction::Close(fd) => raw::close(fd),
            }
        }
        Ok(())
    }

    fn become_user(&self) -> Result<(), i32> {
        let plan = self.plan;
        if let Some(groups) = plan.groups {
            plain(nr::SETGROUPS, groups.len(), groups.as_ptr() as usize)?;
        }
        if let Some(gid) = plan.gid {
            plain(nr::SETGID, gid as usize, 0)?;
        }
        if let Some(uid) = plan.uid {
            plain(nr::SETUID, uid as usize, 0)?;
        }
        Ok(())
    }

    /// Tries the candidates in order, by the rules of `execvp`. Returns only the errno.
    fn execute(&self) -> i32 {
        let (mut denied, mut last) = (false, errno::ENOENT);
        for path in self.plan.paths {
            match self.execute_one(path) {
                errno::EACCES => denied = true,
                error @ (errno::ENOENT
                | errno::ENOTDIR
                | errno::ESTALE
                | errno::ENODEV
                | errno::ETIMEDOUT) => last = error,
                errno::ENOEXEC => return self.execute_script(path),
                error => return error,
            }
        }
        if denied { errno::EACCES } else { last }
    }

    fn execute_one(&self, path: &CStr) -> i32 {
        // SAFETY: the parent made the array of a free place and the arguments, ended by null.
        unsafe { raw::execve(path, self.argv.add(1), self.envp()) }
    }

    fn envp(&self) -> *const *const c_char {
        self.plan.envp.map_or_else(strings::host_environment, CStringArray::as_ptr)
    }

    /// A text without `#!`: the shell's, with the path in place of the name.
    fn execute_script(&self, path: &CStr) -> i32 {
        const SHELL: &CStr = c"/bin/sh";
        // SAFETY: there are at least two places, the free one and that of the name, before the null.
        unsafe {
            self.argv.write(SHELL.as_ptr());
            self.argv.add(1).write(path.as_ptr());
            raw::execve(SHELL, self.argv, self.envp());
        }
        errno::ENOEXEC
    }
}

/// A call whose arguments are numbers, or an array that is live.
fn plain(nr: usize, a: usize, b: usize) -> Result<(), i32> {
    // SAFETY: the callers pass numbers, or a slice's length and pointer, which the kernel only reads.
    raw::check(unsafe { raw::call3(nr, a, b, 0) }).map(|_| ())
}

/// What `CLONE_CLEAR_SIGHAND` does: handlers go, what is ignored stays so.
fn clear_handlers() {
    for signal in 1..=64 {
        if raw::disposition(signal).is_ok_and(|now| now.handler > 1) {
            // SAFETY: the default has no handler.
            let _ = unsafe { raw::set_disposition(signal, &Disposition::DEFAULT) };
        }
    }
}
