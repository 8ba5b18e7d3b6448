//! The job: a handle to a group of processes.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jobobject_abi::{Accounting, Enforcement, LimitKind, Limits};
use jobobject_engine::linux::{Obstacle, Platform, Process, is_guardian};
use jobobject_engine::{Engine, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::builder::Builder;
use crate::child::{Child, Handle, Shared};
use crate::command::{Command, Stdio};
use crate::end::{JobEnd, LeaderEnd, Leftover};
use crate::error::{Error, Result};

/// The exit code on record for members that a stop had to kill.
const STOPPED: u32 = 137;

/// A group of processes, managed as a unit.
///
/// A `Job` is a handle: clones share it, and the last drop closes it, which ends the members unless
/// the job was made with [`Builder::kill_on_close`]`(false)`. All methods take `&self` and may be
/// called from any thread; a job can be terminated, frozen or waited for while others spawn into it.
#[derive(Debug, Clone)]
pub struct Job {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    handle: jobobject_abi::Handle,
    /// The job it was made to be nested in, until its first process has nested it.
    parent: Option<jobobject_abi::Handle>,
    nested: AtomicBool,
    /// The first process that was spawned into it.
    leader: OnceLock<Arc<Shared>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A fork is told that it owns nothing; there is nobody to tell it to.
        let _ = self.engine.close(self.handle);
    }
}

/// How a running process is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AssignOptions {
    /// Take it out of the group of another manager, such as systemd or a container runtime, which
    /// then loses sight of it.
    pub from_foreign: bool,
}

impl Job {
    /// A job that ends its members when its last handle closes.
    ///
    /// # Errors
    /// None today; a place that could never keep a job would be one.
    #[doc(alias = "CreateJobObject")]
    pub fn new() -> Result<Self> {
        Self::builder().create()
    }

    /// A job with limits.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn create(
        engine: Arc<Engine>,
        limits: Limits,
        parent: Option<jobobject_abi::Handle>,
    ) -> Result<Self> {
        let handle = engine.create(limits)?;
        let nested = AtomicBool::new(parent.is_none());
        let inner = Inner { engine, handle, parent, nested, leader: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A job inside this one: its members are this job's too. It becomes a child when its first
    /// process is started or assigned, as on Windows; until then this job must have a handle.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn child(&self) -> Result<Self> {
        let limits = Limits { kill_on_close: true, ..Limits::default() };
        self.child_with(limits)
    }

    /// A job inside this one, with limits.
    ///
    /// # Errors
    /// As [`Job::set_limits`].
    pub fn child_with(&self, limits: Limits) -> Result<Self> {
        Self::create(Arc::clone(self.engine()), limits, Some(self.inner.handle))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    /// The jobs a newcomer has to be put into, outer to inner.
    fn list(&self) -> ([jobobject_abi::Handle; 2], usize) {
        let Inner { handle, parent, ref nested, .. } = *self.inner;
        match parent {
            Some(parent) if !nested.load(Ordering::Acquire) => ([parent, handle], 2),
            _ => ([handle, handle], 1),
        }
    }

    /// Does something with the jobs that a newcomer has to be put into.
    fn enter<T>(&self, mut enter: impl FnMut(&[jobobject_abi::Handle]) -> Result<T>) -> Result<T> {
        let (list, length) = self.list();
        let [parent, _] = list;
        match enter(&list[..length]) {
            Err(error) if length > 1 && error.is_invalid_handle(parent) => match self.list() {
                // Somebody else's newcomer has nested this job before its parent was closed.
                (list, 1) => enter(&list[..1]),
                _ => Err(Error::parent_closed()),
            },
            other => other,
        }
    }

    pub(crate) fn start(&self, command: &Command, stdio: [Stdio; 3]) -> Result<Child> {
        let child = self.enter(|jobs| command.start(self.engine(), jobs, stdio.clone()))?;
        self.entered(child.shared());
        Ok(child)
    }

    pub(crate) fn start_std(
        &self,
        command: &mut std::process::Command,
    ) -> Result<(std::process::Child, Arc<Process>)> {
        let mut child = None;
        let mut birth = |platform: &Platform, target| {
            let (born, process) = platform.birth_std(target, command)?;
            child = Some(born);
            Ok(process)
        };
        let spawned = self.enter(|jobs| Ok(self.engine().spawn_by(jobs, &mut birth)?))?;
        Ok((child.expect("a birth that succeeded has a child"), spawned.process))
    }

    pub(crate) fn entered(&self, shared: &Arc<Shared>) {
        self.inner.nested.store(true, Ordering::Release);
        self.inner.leader.get_or_init(|| Arc::clone(shared));
    }

    /// Puts a running process into the job, with all that it will start from now on. It cannot be
    /// taken out again. A process that breaks a limit by it is ended. Our own process may be
    /// assigned too.
    ///
    /// # Errors
    /// The process has ended, is init or the kernel's, is in a job that this one cannot be nested
    /// in, or belongs to another manager; the job is terminating or its limit reached.
    #[doc(alias = "AssignProcessToJobObject")]
    pub fn assign(&self, pid: u32) -> Result<()> {
        self.assign_with(pid, AssignOptions::default())
    }

    /// [`Job::assign`], with options.
    ///
    /// # Errors
    /// As [`Job::assign`].
    pub fn assign_with(&self, pid: u32, options: AssignOptions) -> Result<()> {
        let process = self.open(pid)?;
        self.assign_process(&process, options)
    }

    /// [`Job::assign`] for a process that was started here: its pid cannot have been used again.
    ///
    /// # Errors
    /// As [`Job::assign`].
    pub fn assign_child(&self, child: &Child) -> Result<()> {
        self.assign_process(child.shared().process(), AssignOptions::default())
    }

    fn assign_process(&self, process: &Process, options: AssignOptions) -> Result<()> {
        self.enter(|jobs| {
            let mut jobs = jobs.iter();
            Ok(jobs.try_for_each(|job| self.engine().assign(*job, process, options.from_foreign))?)
        })?;
        self.inner.nested.store(true, Ordering::Release);
        Ok(())
    }

    fn open(&self, pid: u32) -> Result<HeldProcess> {
        if !self.engine().is_original() {
            return Err(jobobject_engine::Error::Forked.into());
        }
        let process = self.engine().platform().open_process(pid)?;
        Ok(HeldProcess(Handle::new(Arc::clone(self.engine()), process)))
    }

    /// The process ids of the members, those of nested jobs included, in the order in which they
    /// came as far as we saw it. A snapshot: members come and go meanwhile.
    ///
    /// # Errors
    /// The kernel could not tell.
    #[doc(alias = "JOBOBJECT_BASIC_PROCESS_ID_LIST")]
    pub fn members(&self) -> Result<Vec<u32>> {
        Ok(self.engine().members(self.inner.handle)?)
    }

    /// Whether a process is in this job or in one nested in it.
    ///
    /// # Errors
    /// There is no such process.
    #[doc(alias = "IsProcessInJob")]
    pub fn contains(&self, pid: u32) -> Result<bool> {
        let process = self.open(pid)?;
        Ok(self.engine().is_in_job(&process, Some(self.inner.handle))?)
    }

    /// [`Job::contains`] for a process that was started here, which may have ended since.
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn contains_child(&self, child: &Child) -> Result<bool> {
        Ok(self.engine().is_in_job(child.shared().process(), Some(self.inner.handle))?)
    }

    /// The limits as they were set.
    ///
    /// # Errors
    /// This process is a fork.
    #[doc(alias = "QueryInformationJobObject")]
    pub fn limits(&self) -> Result<Limits> {
        Ok(self.engine().limits(self.inner.handle)?)
    }

    /// Replaces all limits. They bind present members at once, but for the active-process limit,
    /// which only gates newcomers.
    ///
    /// # Errors
    /// A value that no limit can have, or a limit that cannot be kept here; nothing is changed then.
    #[doc(alias = "SetInformationJobObject")]
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        if let Some((limit, why)) = self.engine().unavailable(&limits).into_iter().next() {
            return Err(Error::unenforceable(limit, why));
        }
        Ok(self.engine().set_limits(self.inner.handle, limits)?)
    }

    /// How well the limits that are set are kept here.
    ///
    /// # Errors
    /// As [`Job::limits`].
    pub fn enforcement(&self) -> Result<Vec<(LimitKind, Enforcement)>> {
        Ok(self.engine().enforcement(&self.limits()?))
    }

    /// Ends every member and those of nested jobs, at once and without asking. `code` goes on record
    /// as their exit code. Returns when the kill has been sent; [`Job::wait`] tells when they are
    /// gone. The job can be used again after that.
    ///
    /// # Errors
    /// The kernel could not do it.
    #[doc(alias = "TerminateJobObject")]
    pub fn terminate(&self, code: u32) -> Result<()> {
        Ok(self.engine().terminate(self.inner.handle, code)?)
    }

    /// Asks every member to leave with `signal`, and kills what has not left after `grace`. Returns
    /// when nobody is left; [`JobEnd::stop`] tells who needed what. Members that were frozen or
    /// stopped are resumed.
    ///
    /// # Errors
    /// A number that is no signal; the kernel could not do it.
    pub fn stop(&self, signal: i32, grace: Duration) -> Result<JobEnd> {
        self.begin_stop(signal, grace)?;
        self.wait()
    }

    /// The first half of [`Job::stop`]: asks, and returns.
    ///
    /// # Errors
    /// As [`Job::stop`].
    pub fn begin_stop(&self, signal: i32, grace: Duration) -> Result<()> {
        Ok(self.engine().stop(self.inner.handle, signal, grace, STOPPED)?)
    }

    /// Sends a signal to every member; tells to how many.
    ///
    /// # Errors
    /// A number that is no signal; the kernel could not do it.
    pub fn signal(&self, signal: i32) -> Result<u32> {
        Ok(self.engine().signal(self.inner.handle, signal)?)
    }

    /// Suspends every member. Counts: as many thaws are needed. What comes into the job meanwhile is
    /// suspended too; a command that is started in it runs when it is thawed, and only then can it
    /// turn out that there was nothing to execute (exit status 127 or 126).
    ///
    /// # Errors
    /// The kernel could not do it.
    #[doc(alias = "JOBOBJECT_FREEZE_INFORMATION")]
    pub fn freeze(&self) -> Result<()> {
        Ok(self.engine().freeze(self.inner.handle)?)
    }

    /// Takes one freeze back.
    ///
    /// # Errors
    /// The job is not frozen; the kernel could not do it.
    pub fn thaw(&self) -> Result<()> {
        Ok(self.engine().thaw(self.inner.handle)?)
    }

    /// What the members have used, the dead included.
    ///
    /// # Errors
    /// The kernel could not tell.
    #[doc(alias = "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION")]
    pub fn accounting(&self) -> Result<Accounting> {
        Ok(self.engine().accounting(self.inner.handle, true)?)
    }

    /// [`Job::accounting`] without the active count, which is what costs most.
    ///
    /// # Errors
    /// As [`Job::accounting`].
    pub fn times(&self) -> Result<Accounting> {
        Ok(self.engine().accounting(self.inner.handle, false)?)
    }

    /// Whether the job object is signaled: it has been terminated, or its CPU time is used up. An
    /// empty job is not signaled.
    ///
    /// # Errors
    /// This process is a fork.
    #[doc(alias = "WaitForSingleObject")]
    pub fn is_signaled(&self) -> Result<bool> {
        Ok(self.engine().job_state(self.inner.handle)?.0)
    }

    /// Whether its members are being ended just now: somebody has asked for it or a limit has struck,
    /// and not all of them are known to be gone.
    ///
    /// # Errors
    /// This process is a fork.
    pub fn is_terminating(&self) -> Result<bool> {
        Ok(self.engine().job_state(self.inner.handle)?.1)
    }

    /// What keeps members alive that have been killed: an uninterruptible sleep, a tracer outside
    /// that does not run.
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn obstacles(&self) -> Result<Vec<Obstacle>> {
        Ok(self.engine().obstacles(self.inner.handle)?)
    }

    /// Waits until nobody is left in the job or in those nested in it. At once when nobody ever was.
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn wait(&self) -> Result<JobEnd> {
        let end = self.waiter().block(None)?;
        Ok(end.expect("a wait without a deadline ends with the job"))
    }

    /// [`Job::wait`], for at most `timeout`. `None` when somebody is still there.
    ///
    /// # Errors
    /// As [`Job::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<JobEnd>> {
        self.waiter().block(Instant::now().checked_add(timeout))
    }

    /// A wait for hosts with an event loop of their own.
    #[must_use]
    pub fn waiter(&self) -> Waiter {
        let wait = Wait::new(Arc::clone(self.engine()), self.inner.handle);
        Waiter { job: self.clone(), wait, leader: None, leftover: Vec::new() }
    }

    /// Members that are not part of this library's own machinery, with their command names.
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn leftover(&self) -> Result<Vec<Leftover>> {
        let platform = self.engine().platform();
        let members = self.members()?.into_iter().filter(|pid| !is_guardian(*pid));
        Ok(members.map(|pid| Leftover { pid, command: platform.command_name(pid) }).collect())
    }
}

/// A process that was opened for one call.
struct HeldProcess(Handle);

impl std::ops::Deref for HeldProcess {
    type Target = Process;

    fn deref(&self) -> &Process {
        self.0.process()
    }
}

/// A wait for the end of a job, in steps.
#[derive(Debug)]
pub struct Waiter {
    job: Job,
    wait: Wait,
    leader: Option<LeaderEnd>,
    leftover: Vec<Leftover>,
}

impl Waiter {
    /// Looks whether nobody is left. To be called at first, whenever [`Waiter::fd`] is readable, and
    /// after [`Waiter::recheck_after`].
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn check(&mut self) -> Result<Option<JobEnd>> {
        // Its end first: who is there after it has outlived it.
        let leader_ended = self.look_at_leader()?;
        if !self.wait.check()? {
            if leader_ended {
                self.leftover = self.job.leftover()?;
            }
            return Ok(None);
        }
        // Whoever came last may have been the leader.
        self.look_at_leader()?;
        let ended = self.job.engine().ended(self.job.inner.handle)?;
        Ok(Some(JobEnd {
            reason: ended.reason,
            leader: self.leader,
            accounting: ended.accounting,
            leftover: std::mem::take(&mut self.leftover),
            stop: ended.stop,
            over_limit: ended.over_limit,
        }))
    }

    /// Whether the leader has ended since it was last looked at.
    fn look_at_leader(&mut self) -> Result<bool> {
        if self.leader.is_some() {
            return Ok(false);
        }
        let Some(leader) = self.job.inner.leader.get() else { return Ok(false) };
        self.leader = leader.try_end()?;
        Ok(self.leader.is_some())
    }

    /// Readable when [`Waiter::check`] may have something new to say. `None` before the first check,
    /// and while nobody is in the job.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.wait.fd()
    }

    /// How soon to check again even if nothing was readable. `None`: no need.
    #[must_use]
    pub fn recheck_after(&self) -> Option<Duration> {
        self.wait.recheck_after()
    }

    /// Waits until nobody is left, or until `deadline`; `None` when that came first.
    ///
    /// # Errors
    /// The kernel could not tell.
    pub fn block(&mut self, deadline: Option<Instant>) -> Result<Option<JobEnd>> {
        loop {
            if let Some(end) = self.check()? {
                return Ok(Some(end));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            self.sleep(deadline);
        }
    }

    /// Sleeps until a check is worth it. The leader's end is one reason of its own: only then can it
    /// be seen who outlives it.
    fn sleep(&self, deadline: Option<Instant>) {
        let leader = self.job.inner.leader.get().filter(|_| self.leader.is_none());
        let (Some(leader), Some(fd)) = (leader, self.wait.fd()) else {
            return self.wait.sleep(deadline);
        };
        let timeout = self.wait.timeout(deadline);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::from_borrowed_fd(leader.process().pidfd(), PollFlags::IN),
        ];
        let _ = poll(&mut fds, timeout.as_ref());
        self.wait.run_due();
    }
}
