//! Job objects for Linux: groups of processes, managed as a unit.
//!
//! Whatever a member of a [`Job`] spawns is a member too, and nobody slips out: the kernel keeps the
//! membership. Limits bind, everything is accounted for, one call ends them all, and when the last
//! handle closes nothing is left behind, not even when this process is killed with SIGKILL.
//!
//! ```no_run
//! use jobobject::{Command, Job};
//!
//! let job = Job::new()?;
//! let mut child = Command::new("make").arg("-j8").spawn_in(&job)?;
//! child.wait()?;
//! job.terminate(0)?; // whatever make has left running
//! let end = job.wait()?;
//! println!("{} of user time", end.accounting.user_time.to_duration().as_secs_f64());
//! # Ok::<(), jobobject::Error>(())
//! ```
//!
//! The semantics are those of Windows job objects; items name their counterparts there. A `Job` is a
//! handle: clones share it, and the last drop closes it.
//!
//! # What it needs
//! A cgroup v2 hierarchy (also beside v1, as on hybrid hosts) in which this process may make groups:
//! root has that, and so has a user with a delegated group. No daemon, no set-up.
//!
//! # Forks
//! A fork of the process that made a job owns nothing of it: every call says so, and dropping the
//! `Job` does nothing.

#![forbid(unsafe_code)]

mod builder;
mod child;
mod command;
mod end;
mod error;
mod job;
mod std_command;
#[cfg(feature = "tokio")]
mod tokio;

pub use builder::{Breakaway, Builder};
pub use child::Child;
pub use command::{Command, Stdio};
pub use end::{JobEnd, LeaderEnd, Leftover};
pub use error::{Error, ErrorKind, Result};
pub use job::{AssignOptions, Job, Waiter};
pub use jobobject_abi::{
    Access, Accounting, Actor, EndOfJobAction, EndReason, Enforcement, JobTime, LimitKind, Limits,
    OnLimit, Status, StopTally, Tick, Ticks, Total,
};
pub use jobobject_engine::linux::{Obstacle, Why};
pub use std_command::CommandExt;
