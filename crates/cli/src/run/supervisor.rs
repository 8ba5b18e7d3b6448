//! From the start of the command until nothing of it is left.
//!
//! One loop over three descriptors: our signals, the command, and, once the command is gone, whoever is
//! left in the job. Deadlines of the engine are kept in between. Invariants:
//! - the command's status is taken by nobody else: everything that ends below us is reaped here;
//! - while the command lives we follow what it does and decide nothing that it could decide;
//! - the loop ends when nobody is left, or when who is left shall stay.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobobject::{Child, EndReason, Error, Job, JobEnd, Leftover, LimitKind, Waiter};
use jobobject_engine::Engine;
use jobobject_engine::linux::{Obstacle, Why};
use jobobject_sys::signal::{SignalFd, raise_default};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpgid, getsid, kill_process_group, wait};

use crate::render;
use crate::run::exit::{Asked, Story};
use crate::run::options::{Interrupt, OnLeftover, Options};
use crate::run::signals::{self, Meaning, SIGHUP, SIGINT};
use crate::run::terminal::Terminal;

/// The exit code on record for those whom we kill.
const KILLED: u32 = 137;

/// A second signal counts as one only after this: `timeout` and others signal us twice in a row, once by
/// our id and once with our group.
const AGAIN: Duration = Duration::from_millis(250);

/// How long after a kill it is said what keeps somebody from dying.
const SLOW: Duration = Duration::from_secs(1);
/// How long after a kill we leave the rest to the guardian.
const TOO_SLOW: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What decides our own end.
    pub(crate) story: Story,
    /// What the engine has on record. None where nobody asked, or somebody is left.
    pub(crate) end: Option<JobEnd>,
    /// Who outlived the command.
    pub(crate) leftover: Vec<Leftover>,
    /// The command's process id.
    pub(crate) pid: u32,
    /// When the command had ended.
    pub(crate) leader_at: Option<Instant>,
    /// When nobody was left.
    pub(crate) at: Instant,
    /// When it was begun to end the job.
    pub(crate) ending_since: Option<Instant>,
}

/// What we do after the command has gone.
#[derive(Debug)]
enum Phase {
    /// It has not.
    Running,
    /// Waiting until nobody is left.
    Draining(Box<Waiter>),
    /// Nothing.
    Over(Option<JobEnd>),
}

#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    options: &'a Options,
    engine: &'a Arc<Engine>,
    job: Job,
    child: Child,
    signals: SignalFd,
    /// Tells when somebody has killed the guardian.
    guardian: Option<OwnedFd>,
    terminal: Option<Terminal>,
    phase: Phase,
    leader: Option<ExitStatus>,
    leader_at: Option<Instant>,
    /// The command is stopped, and so are we.
    stopped: bool,
    asked: Option<Asked>,
    asked_at: Instant,
    leftover: Vec<Leftover>,
    /// One of those whom we killed after the command had gone had the terminal.
    lent: bool,
    ending_since: Option<Instant>,
    obstacles_told: bool,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        options: &'a Options,
        engine: &'a Arc<Engine>,
        job: Job,
        child: Child,
        signals: SignalFd,
        terminal: Option<Terminal>,
    ) -> Self {
        Self {
            options,
            engine,
            job,
            child,
            signals,
            guardian: engine.platform().guardian_fd(),
            terminal,
            phase: Phase::Running,
            leader: None,
            leader_at: None,
            stopped: false,
            asked: None,
            asked_at: Instant::now(),
            leftover: Vec::new(),
            lent: false,
            ending_since: None,
            obstacles_told: false,
        }
    }

    pub(crate) fn run(mut self) -> Result<Ending, Error> {
        // Whoever became us by exec may have left children that had ended already.
        self.children();
        loop {
            let leader = self.sleep();
            self.engine.run_due();
            while let Ok(Some(received)) = self.signals.read() {
                self.heard(signals::meaning(received))?;
            }
            if leader {
                self.children();
            }
            if self.leader.is_some() && matches!(self.phase, Phase::Running) {
                self.phase = self.leader_gone()?;
            }
            if let Phase::Draining(waiter) = &mut self.phase
                && let Some(end) = waiter.check()?
            {
                self.phase = Phase::Over(Some(end));
            }
            if self.watch_ending()? {
                self.phase = Phase::Over(None);
            }
            if let Phase::Over(end) = &mut self.phase {
                let end = end.take();
                return Ok(self.over(end));
            }
        }
    }

    /// Sleeps until something has happened or is due; whether the command has ended.
    fn sleep(&mut self) -> bool {
        let waiter = match &self.phase {
            Phase::Draining(waiter) => Some(waiter),
            _ => None,
        };
        let due = self.engine.next_deadline();
        let watch = self.ending_since.and_then(|since| since.checked_add(self.patience()));
        let due = [due, watch].into_iter().flatten().min();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let recheck = waiter.and_then(|waiter| waiter.recheck_after());
        let timeout = [due, recheck].into_iter().flatten().min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());

        let fd = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let running = matches!(self.phase, Phase::Running);
        // A waiter looks after the guardian by itself.
        let (second, third) = match waiter {
            Some(waiter) => (waiter.fd(), None),
            None if running => (Some(self.child.as_fd()), self.guardian.as_ref().map(AsFd::as_fd)),
            None => (None, None),
        };
        let signals = self.signals.as_fd();
        let mut room = [fd(signals), fd(second.unwrap_or(signals)), fd(third.unwrap_or(signals))];
        let length = 1 + usize::from(second.is_some()) + usize::from(third.is_some());
        let woken = poll(&mut room[..length], timeout.as_ref()).is_ok();
        let heard = |nth: usize| woken && nth < length && !room[nth].revents().is_empty();
        let (ended, fallen) = (running && heard(1), running && heard(2));
        if fallen {
            self.guard_again();
        }
        ended
    }

    /// Somebody has killed the guardian: without another the command would outlive us if we were killed too.
    fn guard_again(&mut self) {
        let platform = self.engine.platform();
        // Where none can be started any more there is none to watch.
        self.guardian = platform.guard_again().ok().and_then(|()| platform.guardian_fd());
    }

    fn heard(&mut self, meaning: Meaning) -> Result<(), Error> {
        match meaning {
            Meaning::Child => self.children(),
            Meaning::Continued => self.continued(),
            Meaning::Stop(signal) => self.stop(Asked::Signal(signal))?,
            Meaning::Interrupt => self.interrupt()?,
            Meaning::Forward(signal) if self.leader.is_none() => {
                // It may have become somebody else's; then it is not ours to signal.
                let _ = self.child.signal(signal);
            }
            Meaning::Forward(_) | Meaning::Shared => {}
        }
        Ok(())
    }

    /// Takes note of what became of our children, and of those that we have inherited as the first
    /// process of a container, as a subreaper, or from whoever became us by exec.
    fn children(&mut self) {
        let leader = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // ECHILD and nothing to tell are the same to us.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            if Some(pid) != leader || self.leader.is_some() {
                continue;
            }
            if let Some(signal) = status.stopping_signal() {
                self.follow(signal);
            } else {
                self.leader = Some(ExitStatus::from_raw(status.as_raw()));
                self.leader_at = Some(Instant::now());
                return;
            }
        }
    }

    /// The command has been stopped: so are we, and whoever waits for us sees it. Our clocks stand still
    /// meanwhile: a time limit that has passed strikes when we are continued.
    fn follow(&mut self, signal: i32) {
        // Without a terminal there may be nobody to continue us, and the limit must strike all the same.
        if self.ending_since.is_some() || (self.options.timed() && self.terminal.is_none()) {
            return;
        }
        self.stopped = true;
        raise_default(signal);
        // Here we have been continued, or could not be stopped.
    }

    fn continued(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.look_again();
        }
        if !std::mem::take(&mut self.stopped) || self.leader.is_some() {
            return;
        }
        // Whoever continued our process group has continued the command.
        let leader = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Ok(group) = getpgid(leader) {
            let _ = kill_process_group(group, Signal::CONT);
        }
    }

    fn interrupt(&mut self) -> Result<(), Error> {
        match self.options.interrupt {
            Interrupt::Pass if matches!(self.phase, Phase::Running) && !self.has_left() => Ok(()),
            // Nobody is there who could decide: the command does not get it, or was gone before.
            Interrupt::Pass | Interrupt::Stop => self.stop(Asked::Interrupt),
            Interrupt::Kill => self.kill(Asked::Kill),
        }
    }

    /// Whether the command has left our session, so that the terminal's keys do not reach it.
    fn has_left(&self) -> bool {
        let leader = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        getsid(leader).is_ok_and(|session| getsid(None) != Ok(session))
    }

    /// Asks everybody to leave; the second time, makes them.
    fn stop(&mut self, asked: Asked) -> Result<(), Error> {
        if self.asked == Some(Asked::Kill) {
            return Ok(());
        }
        if self.asked == Some(asked) && asked != Asked::Signal(SIGHUP) {
            if self.asked_at.elapsed() < AGAIN {
                return Ok(());
            }
            let now = if asked == Asked::Interrupt { asked } else { Asked::Kill };
            return self.kill(now);
        }
        self.note(asked);
        self.job.begin_stop(self.options.stop_signal, self.options.grace)
    }

    fn kill(&mut self, asked: Asked) -> Result<(), Error> {
        self.note(asked);
        self.job.terminate(KILLED)
    }

    fn note(&mut self, asked: Asked) {
        if self.options.verbose {
            let what = match asked {
                Asked::Signal(signal) => format!("{} received: stopping", signals::name(signal)),
                Asked::Interrupt => "Ctrl-C: stopping".to_owned(),
                Asked::Kill => "asked again, or to kill: killing".to_owned(),
            };
            render::say(what);
        }
        self.asked = Some(asked);
        self.asked_at = Instant::now();
    }

    /// The command has ended: who is left, and what becomes of them?
    fn leader_gone(&mut self) -> Result<Phase, Error> {
        let over = |supervisor: &Self| {
            if supervisor.wants_record() { supervisor.drain() } else { Phase::Over(None) }
        };
        // Those who are being stopped have until the end of the grace.
        if self.asked.is_some() || (self.options.limited() && self.job.is_terminating()?) {
            return Ok(self.drain());
        }
        // Cheaper than the list, and nearly always the end of it.
        if self.job.accounting()?.active_processes == Some(0) {
            return Ok(over(self));
        }
        self.leftover = self.job.leftover()?;
        if self.leftover.is_empty() {
            // The guardian of a job inside, which is about to go, or somebody who has just gone.
            return Ok(self.drain());
        }
        match self.options.on_leftover {
            OnLeftover::Kill | OnLeftover::Fail => {
                self.lent = self.terminal.as_ref().is_some_and(Terminal::lent);
                self.job.terminate(KILLED)?;
                Ok(self.drain())
            }
            OnLeftover::Wait => {
                if !self.options.quiet {
                    super::report::tell_waiting(&self.leftover);
                }
                Ok(self.drain())
            }
            OnLeftover::Report => {
                self.job.set_limits(jobobject::Limits::default())?;
                Ok(Phase::Over(None))
            }
        }
    }

    fn drain(&self) -> Phase {
        Phase::Draining(Box::new(self.job.waiter()))
    }

    /// Whether anybody wants to know what the engine knows.
    fn wants_record(&self) -> bool {
        self.options.limited() || self.options.destination().is_some() || self.options.verbose
    }

    /// Sees how an ending proceeds; whether we do not wait for it any longer.
    fn watch_ending(&mut self) -> Result<bool, Error> {
        let may_end = self.asked.is_some()
            || self.options.limited()
            || (matches!(self.phase, Phase::Draining(_)) && !self.leftover.is_empty());
        if !may_end || matches!(self.phase, Phase::Over(_)) || !self.job.is_terminating()? {
            return Ok(false);
        }
        let since = *self.ending_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.patience() {
            return Ok(false);
        }
        let obstacles = self.job.obstacles()?;
        if !self.obstacles_told {
            self.obstacles_told = true;
            obstacles.iter().for_each(tell_obstacle);
            return Ok(false);
        }
        render::say("not waiting any longer for what does not die; its guardian does");
        Ok(true)
    }

    /// How long after the beginning of an ending it is time to look what is the matter.
    fn patience(&self) -> Duration {
        let after = if self.obstacles_told { TOO_SLOW } else { SLOW };
        let at_once = self.asked == Some(Asked::Kill) || !self.leftover.is_empty();
        if at_once { after } else { self.options.grace.saturating_add(after) }
    }

    fn over(mut self, end: Option<JobEnd>) -> Ending {
        let reason = match &end {
            Some(end) => end.reason,
            // Somebody does not die; who else than a limit would have ended the job?
            None if self.ending_since.is_some()
                && self.leader.is_none()
                && self.asked.is_none() =>
            {
                EndReason::Limit(LimitKind::WallTime)
            }
            None => EndReason::Exited,
        };
        let story = Story {
            reason,
            asked: self.asked,
            leader: self.leader,
            left_over: !self.leftover.is_empty() && self.options.on_leftover == OnLeftover::Fail,
        };
        let ended = self.asked.is_some() || matches!(reason, EndReason::Limit(_)) || self.lent;
        if let Some(terminal) = self.terminal.as_ref().filter(|_| ended) {
            terminal.restore();
        }
        Ending {
            story,
            end,
            leftover: std::mem::take(&mut self.leftover),
            pid: self.child.id(),
            leader_at: self.leader_at,
            at: Instant::now(),
            ending_since: self.ending_since,
        }
    }
}

fn tell_obstacle(obstacle: &Obstacle) {
    let Obstacle { pid, comm, why } = obstacle;
    let why = match why {
        Why::Uninterruptible { at: Some(at) } => format!("it sleeps in the kernel, in {at}"),
        Why::Uninterruptible { at: None } => "it sleeps in the kernel".to_owned(),
        Why::Traced { pid, comm, stopped } => {
            let how = if *stopped { ", which is stopped" } else { "" };
            format!("it is held by its debugger {pid} ({comm}){how}")
        }
        Why::Frozen => "it is frozen from outside".to_owned(),
    };
    render::say(format_args!("process {pid} ({comm}) was killed and does not die: {why}"));
}

/// SIGINT by its name here: what Ctrl-C is in every table.
const _: () = assert!(SIGINT == 2);
