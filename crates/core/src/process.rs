//! Processes, as the object manager knows them: by key, never by pid alone.

use std::fmt;

/// Names a process for as long as anybody here remembers it; unlike a pid it is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey(pub u64);

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

use crate::effect::GroupKey;

/// Where the kernel says a process is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the group that ours are made below: in no job of ours.
    Outside,
    /// In the group of a job of ours, or somewhere below it that is no job of ours.
    Group(GroupKey),
    /// In a job of another engine, one that does not contain us.
    ForeignJob(String),
    /// In a group of another manager, named by its path.
    ForeignGroup(String),
}

/// What the kernel said of a process, a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its key.
    pub process: ProcessKey,
    /// Its id.
    pub pid: u32,
    /// What state it is in.
    pub state: ProcessState,
    /// Where it is. Of a process that is gone, this is not looked at.
    pub place: Place,
}

/// Whether a process can still be assigned to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcessState {
    /// It can.
    Alive,
    /// It has ended, and perhaps nobody has taken its status yet.
    Ended,
    /// It is the init process.
    Init,
    /// It is a thread of the kernel.
    Kernel,
}

/// A process found in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub pid: u32,
    /// The innermost group of ours that it is in.
    pub group: GroupKey,
}
