//! The object manager: jobs, handles, the job tree, limits, accounting, lifetime.
//!
//! Data in, data out: [`ObjectManager::step`] takes one [`Input`] and gives [`Output`]s. Nothing
//! here holds a descriptor, looks up a pid, reads a clock or starts a thread; who does is the
//! platform, by the [`Effect`]s it is asked for. Membership is the kernel's: the manager maps groups
//! to jobs and keeps history only.

#![forbid(unsafe_code)]

pub mod effect;
pub mod event;
mod invariant;
mod job;
mod manager;
mod object;
pub mod process;
pub mod refusal;

pub use effect::{Effect, EffectId, Fault, GroupKey, Outcome, Target};
pub use event::Event;
pub use job::{JobId, Nesting};
pub use manager::{Config, Facts, Input, ObjectManager, Output, Serial, SessionId, Timer, TimerId};
pub use process::{Member, Place, ProcessFacts, ProcessKey, ProcessState};
pub use refusal::Refusal;
