//! What the object manager asks of the platform.
//!
//! An effect is short: it never waits for another process to do something. It ends in
//! [`Input::Done`](crate::Input::Done) with an [`Outcome`] or a [`Fault`].

use jobobject_abi::Ticks;
use jobobject_abi::info::CpuTimes;

use crate::process::{Member, Place, ProcessKey};

/// Names an effect until it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId(pub u64);

/// Names the group of a job: a slot that the platform gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub u32);

/// Where a newcomer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Where its creator is: nothing to be done.
    Inherit,
    /// Out of all our jobs: the group that the jobs' groups are made below.
    Outside,
    /// The members' leaf of a group.
    Group {
        /// Which group.
        group: GroupKey,
        /// The group is frozen: the newcomer stops at birth, so nothing may wait for it.
        frozen: bool,
    },
}

/// Something the platform is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a group for a job, with a leaf for its members. [`Outcome::Group`].
    MakeGroup {
        /// The parent job's group; `None`: below the caller's own.
        parent: Option<GroupKey>,
        /// The members die with the owner: whatever guards that must stand before the first member
        /// can.
        guarded: bool,
    },
    /// Set whether the members die with the owner. [`Outcome::Done`].
    Guard {
        /// Which group.
        group: GroupKey,
        /// They do.
        guarded: bool,
    },
    /// Give the group a fresh leaf: nobody can be born in one that was ever killed. [`Outcome::Done`].
    FreshLeaf {
        /// Which group.
        group: GroupKey,
    },
    /// Start the process that the call's token describes. [`Outcome::Born`].
    Birth {
        /// Where.
        target: Target,
    },
    /// Move a running process. [`Outcome::Moved`]
    Move {
        /// Which process.
        process: ProcessKey,
        /// Where to.
        group: GroupKey,
    },
    /// Kill everything in the group and below it, once. [`Outcome::Killed`].
    Kill {
        /// Which group.
        group: GroupKey,
        /// Tell how many there were.
        count: bool,
    },
    /// Kill one process: a candidate that was refused. [`Outcome::Done`].
    KillProcess {
        /// Which process.
        process: ProcessKey,
    },
    /// Kill the newest members until no more than `keep` are left. [`Outcome::Trimmed`].
    Trim {
        /// Which group.
        group: GroupKey,
        /// How many may stay.
        keep: u32,
    },
    /// Send a signal to everything in the group and below it. [`Outcome::Signaled`].
    Signal {
        /// Which group.
        group: GroupKey,
        /// The signal's number.
        signal: i32,
        /// Send SIGCONT after it, so that stopped members can act on it.
        resume: bool,
    },
    /// Suspend or resume everything in the group and below it. [`Outcome::Done`].
    Freeze {
        /// Which group.
        group: GroupKey,
        /// Suspend.
        frozen: bool,
    },
    /// Read what the group has used since it was made. [`Outcome::Usage`].
    Usage {
        /// Which group.
        group: GroupKey,
        /// Count the members as well.
        active: bool,
    },
    /// List the members, those below included. [`Outcome::Members`].
    List {
        /// Which group.
        group: GroupKey,
    },
    /// Bound the number of tasks as a fuse against fork storms, where the kernel has one.
    /// [`Outcome::Done`], whether or not it could be set.
    Fuse {
        /// Which group.
        group: GroupKey,
        /// The active-process limit it backs; `None` takes it off.
        processes: Option<u32>,
    },
    /// Remove the group if nobody is in it. [`Outcome::Retired`] or [`Outcome::Populated`].
    Retire {
        /// Which group.
        group: GroupKey,
    },
}

/// What was learnt when an effect was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The group's name.
    Group(GroupKey),
    /// A process was born.
    Born {
        /// How it is called from now on.
        process: ProcessKey,
        /// Its id.
        pid: u32,
    },
    /// A process was moved.
    Moved {
        /// Where the kernel says it is now.
        place: Place,
        /// What it had used before, in its whole life.
        used: CpuTimes,
    },
    /// A kill was delivered.
    Killed {
        /// How many were there, when that was asked.
        members: Option<u32>,
        /// Somebody was in the group before the kill.
        found: bool,
        /// Nobody is left.
        empty: bool,
    },
    /// The newest were ended.
    Trimmed {
        /// How many were ended.
        ended: u32,
        /// How many are left.
        active: u32,
    },
    /// A signal was sent.
    Signaled {
        /// To how many processes.
        members: u32,
    },
    /// What a group has used.
    Usage {
        /// CPU time.
        cpu: CpuTimes,
        /// Live members, those below included, when that was asked.
        active: Option<u32>,
    },
    /// Who is in it.
    Members(Vec<Member>),
    /// The group is gone.
    Retired,
    /// The group has members and stays.
    Populated,
}

/// The kernel could not do what the rules allow. Names the call, its object, and the errno.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}({target}): {message}")]
pub struct Fault {
    /// The system call or step.
    pub call: &'static str,
    /// What it was done to.
    pub target: String,
    /// The error number, 0 when the kernel gave none.
    pub errno: i32,
    /// The errno in words, or what else went wrong.
    pub message: String,
    /// What the caller can do about it, when something can be done.
    pub hint: Option<String>,
    /// The process it concerned is gone.
    pub gone: bool,
}

/// The share of a period that may pass before `remaining` CPU time can be used up: all CPUs at once.
#[must_use]
pub fn soonest(remaining: Ticks, cpus: u32) -> std::time::Duration {
    remaining.to_duration() / cpus.max(1)
}
