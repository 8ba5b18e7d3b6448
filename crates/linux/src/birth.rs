//! Births: which way into a group works here, and what it means when one fails.
//!
//! Best first: `clone3` into the group; the newborn joins by itself before exec. The second is taken where the
//! first is refused (Docker's filter, kernels before 5.7) or deadly: some kernels kill whoever is born into a
//! group that was ever killed, or by somebody who lives in one (docs/kernel.md, traps 1 and 2). What was
//! learnt is remembered, so that no birth fails twice for the same reason.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use jobobject_core::Fault;
use jobobject_sys::clone::{Birth, BirthError, Into, Mode, Step, spawn};
use rustix::io::Errno;

use crate::command::{Command, Prepared};
use crate::fault::{OrFault, fault, trouble};
use crate::files;
use crate::group::{Group, Leaf};

/// After so many newborns in a row died at birth in groups that were never killed, it is our own group that
/// kills them.
const STRIKES: u32 = 2;

/// Of so many births after that, one is tried the best way again: it costs about as much as two.
const RETRY: u32 = 1024;

/// What is known about births into groups.
#[derive(Debug, Default)]
pub(crate) struct Births {
    /// The kernel, or a filter in front of it, refuses them.
    refused: AtomicBool,
    /// Newborns in a row that were killed at birth for no reason of their group's.
    strikes: AtomicU32,
}

impl Births {
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// Whether this newborn has to join by itself, wherever it goes.
    fn must_join(&self) -> bool {
        if self.refused.load(Relaxed) {
            return true;
        }
        // We may have been moved out of the group that is to blame: once in a while it is tried again.
        self.strikes.load(Relaxed) >= STRIKES
            && !self.strikes.fetch_add(1, Relaxed).is_multiple_of(RETRY)
    }

    /// A birth where we are.
    pub(crate) fn plain(&self, command: &Command, prepared: &Prepared<'_>) -> Result<Birth, Fault> {
        spawn(&prepared.plan(), Into::Inherit, Mode::Vfork).map_err(|error| explain(error, command))
    }

    /// A birth in any group, given by its directory.
    pub(crate) fn beside(
        &self,
        mount: BorrowedFd<'_>,
        group: &str,
        command: &Command,
        prepared: &Prepared<'_>,
    ) -> Result<Birth, Fault> {
        let open = || files::open_path(mount, group).map(Arc::new);
        self.attempt(mount, group, open, false, Mode::Vfork, command, prepared)
            .map(|(birth, _)| birth)
    }

    /// A birth in the leaf of a job's group, whose directory `open` opens.
    pub(crate) fn in_group(
        &self,
        group: &Group,
        open: impl Fn(&Leaf) -> Result<Arc<OwnedFd>, Errno>,
        frozen: bool,
        command: &Command,
        prepared: &Prepared<'_>,
    ) -> Result<Birth, Fault> {
        // Nothing may wait for a newborn that is frozen before it can execute anything.
        let mode = if frozen { Mode::Fork } else { Mode::Vfork };
        loop {
            let leaf = group.leaf();
            let dir = group.dir.as_fd();
            let open = || open(&leaf);
            match self.attempt(dir, &leaf.name, open, leaf.poisoned, mode, command, prepared) {
                Ok((birth, stillborn)) => {
                    if stillborn {
                        // Unless somebody killed the group meanwhile, it is not the group's doing.
                        let now = group.leaf();
                        if now.number == leaf.number && !now.poisoned {
                            self.strikes.fetch_add(1, Relaxed);
                        }
                        group.poison(&leaf);
                    }
                    return Ok(birth);
                }
                // Another thread gave the group a fresh leaf meanwhile and removed this one.
                Err(fault)
                    if matches!(fault.call, "open" | "clone3" | "join")
                        && group.leaf().number != leaf.number => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Both ways in turn. Also told: whether a newborn was killed at birth.
    #[allow(clippy::too_many_arguments, reason = "each is one word of the two calls there are")]
    fn attempt(
        &self,
        dir: BorrowedFd<'_>,
        leaf: &str,
        open: impl Fn() -> Result<Arc<OwnedFd>, Errno>,
        poisoned: bool,
        mode: Mode,
        command: &Command,
        prepared: &Prepared<'_>,
    ) -> Result<(Birth, bool), Fault> {
        let plan = prepared.plan();
        let (mut stillborn, mut refused) = (false, false);
        if !poisoned && !self.must_join() {
            let leaf = open().or_group_fault("open", || leaf)?;
            match spawn(&plan, Into::Cgroup(leaf.as_fd()), mode) {
                Ok(birth) => {
                    if self.strikes.load(Relaxed) != 0 {
                        self.strikes.store(0, Relaxed);
                    }
                    return Ok((birth, false));
                }
                Err(BirthError::Stillborn) => stillborn = true,
                Err(BirthError::Clone(
                    Errno::NOSYS | Errno::PERM | Errno::TOOBIG | Errno::INVAL,
                )) => refused = true,
                Err(error) => return Err(explain(error, command)),
            }
        }
        let name = format!("{leaf}/cgroup.procs");
        let procs = files::open_to_write(dir, &*name).or_group_fault("open", || &*name)?;
        let birth = spawn(&plan, Into::Join(procs.as_fd()), mode)
            .map_err(|error| explain(error, command))?;
        if refused {
            // Only now is it known that the way was to blame.
            self.refuse();
        }
        Ok((birth, stillborn))
    }
}

/// A failed birth in the words of the person who asked for it.
fn explain(error: BirthError, command: &Command) -> Fault {
    let program = command.shown();
    match error {
        BirthError::Clone(errno) => {
            let hint = (errno == Errno::AGAIN).then(|| {
                "the number of processes is bounded: see ulimit -u and pids.max of the groups above".to_owned()
            });
            let fault = fault("clone3", program, errno);
            Fault { hint: hint.or(fault.hint.clone()), ..fault }
        }
        BirthError::Stillborn => trouble("clone3", program, "it was killed before it could start"),
        BirthError::Exec(errno) => {
            Fault { hint: exec_hint(errno, &program), ..fault("execve", program, errno) }
        }
        BirthError::Setup { step, errno } => {
            let shown = |value: &dyn std::fmt::Debug| format!("{value:?}");
            match step {
                Step::Cwd => {
                    let cwd = command.cwd.as_ref().map(|cwd| cwd.to_string_lossy().into_owned());
                    fault("chdir", cwd.unwrap_or_default(), errno)
                }
                Step::Join => crate::fault::group_fault("join", program, errno),
                Step::Session => fault("setsid", program, errno),
                Step::Group => fault("setpgid", shown(&command.process_group), errno),
                Step::Fds => fault("dup2", program, errno),
                Step::User => fault("setuid", shown(&(command.uid, command.gid)), errno),
                Step::Exec => fault("execve", program, errno),
            }
        }
    }
}

fn exec_hint(errno: Errno, program: &str) -> Option<String> {
    let text = match errno {
        Errno::NOENT if program.contains('/') => {
            "there is no such file, or the interpreter that its first line or its format names is missing"
        }
        Errno::NOENT => "no directory of PATH has it",
        Errno::ACCESS => "it is not executable, a directory, or on a file system mounted noexec",
        Errno::TXTBSY => "somebody has the file open for writing",
        Errno::TOOBIG => "the arguments and the environment are too long together",
        _ => return None,
    };
    Some(text.to_owned())
}
