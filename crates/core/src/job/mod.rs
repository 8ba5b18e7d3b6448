//! A job: what the kernel cannot know of a group of processes.

pub(crate) mod accounting;
pub(crate) mod close;
pub(crate) mod entry;
pub(crate) mod freeze;
pub(crate) mod limits;
pub(crate) mod tree;

use std::collections::HashMap;
use std::fmt;

use jobobject_abi::info::CpuTimes;
use jobobject_abi::{EndReason, LimitKind, Limits, StopTally, Tick};

use crate::effect::GroupKey;
use crate::manager::{Serial, Timer};
use crate::process::ProcessKey;

/// Names a job object for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// Whether a process can be in more than one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Nesting {
    /// In a hierarchy of jobs, as since Windows 8.
    #[default]
    Hierarchy,
    /// In one job only, as before.
    Single,
}

/// The group that stands for a job in the kernel. It is made by the first newcomer: only then is
/// its place known. At most one effect that changes it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// There is none.
    None,
    /// Being made.
    Making,
    /// There.
    Ready(GroupKey),
    /// There, and getting a fresh leaf.
    Renewing(GroupKey),
    /// Being removed, if nobody is in it.
    Retiring(GroupKey),
}

impl Group {
    pub(crate) fn key(self) -> Option<GroupKey> {
        match self {
            Self::None | Self::Making => None,
            Self::Ready(key) | Self::Renewing(key) | Self::Retiring(key) => Some(key),
        }
    }
}

/// What is on record of a job's past.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Processes that were ever in it, as far as we saw, refused ones included.
    pub(crate) total: u64,
    /// Processes that a time limit ended.
    pub(crate) terminated: u32,
    /// Processes that were ended because they exceeded the active-process limit.
    pub(crate) over_limit: u32,
    /// CPU time that members had used before they came.
    pub(crate) before: CpuTimes,
    /// CPU time, that time included, when the present period began.
    pub(crate) period_start: CpuTimes,
    /// Members seen, by pid, with the number of their arrival.
    pub(crate) seen: HashMap<u32, u64>,
    /// How many may be on record before it is looked who of them is alive.
    pub(crate) forget_at: usize,
    /// Refused candidates that are not dead, or to which somebody holds a handle.
    pub(crate) refused: Vec<ProcessKey>,
}

/// How far the end of the members has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// Nothing is being ended.
    #[default]
    No,
    /// Members were asked to leave, by a stop of `root`; what has not left when the grace is over
    /// is killed.
    Stopping {
        /// The job whose stop it is: this one or an ancestor.
        root: JobId,
    },
    /// Members are being killed, until nobody is left.
    Killing {
        /// The job whose kill it is: this one or an ancestor.
        root: JobId,
        /// How often it has been tried.
        round: u32,
        /// What `root` had committed when the last kill was sent: a newcomer after that may have
        /// been missed.
        commits: u64,
        /// A stop came before it: who is found now did not leave when asked.
        after_stop: bool,
    },
}

/// The freeze count, and how far the kernel follows it.
#[derive(Debug, Default)]
pub(crate) struct Freezer {
    /// Freezes less thaws.
    pub(crate) count: u32,
    /// What the kernel was last told.
    pub(crate) frozen: bool,
    /// An effect is on its way.
    pub(crate) busy: bool,
    /// Calls that the effect on its way carries out.
    pub(crate) served: Vec<Turn>,
    /// Calls that came later: they are answered when the kernel has followed.
    pub(crate) waiting: Vec<Turn>,
}

/// A freeze or a thaw that is not answered yet.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) serial: Serial,
    /// What it did to the count, to be taken back when it fails.
    pub(crate) by: i32,
}

impl Freezer {
    /// The kernel may be suspending newcomers, or may be about to.
    pub(crate) fn may_suspend(&self) -> bool {
        self.count > 0 || self.frozen || self.busy
    }

    /// Takes all freezes back, those that are not answered yet included.
    pub(crate) fn reset(&mut self) {
        self.count = 0;
        for turn in self.served.iter_mut().chain(&mut self.waiting) {
            turn.by = 0;
        }
    }
}

/// Which of a job's timers are armed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timers(u8);

impl Timers {
    fn bit(timer: Timer) -> u8 {
        1 << (timer as u8)
    }

    pub(crate) fn arm(&mut self, timer: Timer) {
        self.0 |= Self::bit(timer);
    }

    pub(crate) fn is_armed(self, timer: Timer) -> bool {
        self.0 & Self::bit(timer) != 0
    }

    /// Disarms; tells whether it was armed.
    pub(crate) fn take(&mut self, timer: Timer) -> bool {
        let armed = self.is_armed(timer);
        self.0 &= !Self::bit(timer);
        armed
    }
}

/// A job object.
#[derive(Debug)]
pub(crate) struct Job {
    /// Open handles, in all sessions.
    pub(crate) handles: u32,
    pub(crate) parent: Option<JobId>,
    pub(crate) children: Vec<JobId>,
    /// As set. `job_time` is never [`jobobject_abi::JobTime::Keep`].
    pub(crate) limits: Limits,
    pub(crate) group: Group,
    /// The parent when the group was asked for: the group is below that one's.
    pub(crate) group_parent: Option<JobId>,
    /// The present leaf has lived through a kill: nobody can be born in it.
    pub(crate) stale_leaf: bool,
    /// The count of kills when the group or its leaf was last asked for.
    pub(crate) leaf_kills: u64,
    /// What the platform was last told of the members' fate when the owner dies.
    pub(crate) guarded: bool,
    /// A process was once put into it, or tried to be: it cannot become somebody's child any more.
    pub(crate) used: bool,
    /// Newcomers on their way into this job or one below it, from admission to the end.
    pub(crate) entering: u32,
    /// Of those, the ones that the active-process limit has let through.
    pub(crate) admitted: u32,
    /// Of those, the ones that the kernel is at.
    pub(crate) acting: u32,
    /// Entries that wait for the group, or for a place under the active-process limit.
    pub(crate) waiting: Vec<entry::EntryId>,
    /// The arrival that was committed last, so that a count of members, or the news that nobody is
    /// left, knows whether it is out of date. No two jobs that may have the same group, one after
    /// the other, have the same.
    pub(crate) commits: u64,
    pub(crate) history: History,
    pub(crate) ending: Ending,
    /// Counts kills, so that a birth knows whether one has passed it by.
    pub(crate) kills: u64,
    pub(crate) reason: EndReason,
    /// The reason that goes on record again if the ending meets nobody.
    pub(crate) reason_before: Option<EndReason>,
    /// Kills and stop signals on their way: the ending is not over before they have arrived.
    pub(crate) shots: u32,
    /// When the grace of a stop is over.
    pub(crate) grace_over: Option<Tick>,
    /// Nobody is there, as far as is known: the reason stands until somebody comes.
    pub(crate) settled: bool,
    pub(crate) tally: StopTally,
    /// The job-time limit has struck: newcomers are refused until it is set again.
    pub(crate) job_time_up: bool,
    /// The wall-clock limit has struck, likewise.
    pub(crate) wall_time_up: bool,
    /// [`jobobject_abi::Call::Terminate`] has signaled the object, for ever.
    pub(crate) terminated: bool,
    /// No newcomer any more: the last handle of a kill-on-close job is closed.
    pub(crate) doomed: bool,
    /// And its members have been killed for it.
    pub(crate) swept: bool,
    pub(crate) freezer: Freezer,
    pub(crate) timers: Timers,
    /// When the wall-clock time began to run.
    pub(crate) wall_start: Option<Tick>,
    /// Members that were there before the active-process limit was set below them may stay.
    pub(crate) tolerated: u32,
}

impl Job {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            handles: 0,
            parent: None,
            children: Vec::new(),
            limits: Limits { job_time: limits.job_time.or_unlimited(), ..limits },
            group: Group::None,
            group_parent: None,
            stale_leaf: false,
            leaf_kills: 0,
            guarded: false,
            used: false,
            entering: 0,
            admitted: 0,
            acting: 0,
            waiting: Vec::new(),
            commits: 0,
            history: History::default(),
            ending: Ending::No,
            kills: 0,
            reason: EndReason::Exited,
            reason_before: None,
            shots: 0,
            grace_over: None,
            settled: true,
            tally: StopTally::default(),
            job_time_up: false,
            wall_time_up: false,
            terminated: false,
            doomed: false,
            swept: false,
            freezer: Freezer::default(),
            timers: Timers::default(),
            wall_start: None,
            tolerated: 0,
        }
    }

    /// Nobody was ever in it and nobody is on the way: it can still become somebody's child.
    pub(crate) fn never_used(&self) -> bool {
        !self.used && self.entering == 0
    }

    /// It can become a child. "Empty" means never used: a job whose processes have ended cannot.
    pub(crate) fn can_nest(&self) -> bool {
        // Somebody's parent is not free either: a job list can name a job twice, and a failed entry
        // leaves a child for as long as its group takes to go.
        self.never_used() && self.parent.is_none() && self.children.is_empty()
    }

    /// A wait for the job object would succeed.
    pub(crate) fn is_signaled(&self) -> bool {
        self.terminated || self.job_time_up
    }

    /// The time limit that has struck, if one has.
    pub(crate) fn time_up(&self) -> Option<LimitKind> {
        match (self.job_time_up, self.wall_time_up) {
            (true, _) => Some(LimitKind::JobTime),
            (_, true) => Some(LimitKind::WallTime),
            _ => None,
        }
    }

    /// The group was made before the job got its parent: it is not where it belongs.
    pub(crate) fn is_misplaced(&self) -> bool {
        self.group.key().is_some() && self.group_parent != self.parent
    }
}
