//! The mechanism: cgroup v2 and pidfds. It acts and never decides.
//!
//! A [`Platform`] carries out the [`Effect`](jobobject_core::Effect)s that the object manager asks for, and
//! reads the facts that its decisions start from. There are no rules here: who may enter a job, what a close
//! means, when a limit strikes is known above. What is known here is how this kernel, in this place, is made to
//! do it, and what it costs.

#![forbid(unsafe_code)]

mod birth;
mod command;
mod fault;
mod files;
mod group;
mod guard;
mod kill;
mod mount;
mod place;
mod platform;
mod probe;
mod process;
mod record;
mod recover;
mod root;
mod site;
mod watch;

pub use command::{Command, Descriptor, Environment};
pub use guard::GuardianFacts;
pub use kill::{Obstacle, Why, is_guardian};
pub use platform::{Link, Options, Platform};
pub use process::Process;
pub use record::Owner;
pub use watch::EmptyWatch;
