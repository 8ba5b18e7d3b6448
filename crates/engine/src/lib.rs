//! Object manager and mechanism, joined.
//!
//! An [`Engine`] takes calls on their callers' threads: a step of the object manager under a short
//! lock, the effects without it. It has a thread of its own only while a deadline is armed that no
//! caller waits for. One engine serves a process ([`Engine::of_this_process`]); a fork of that
//! process owns nothing, and everything here refuses in it.

#![forbid(unsafe_code)]

mod clock;
mod engine;
mod error;
mod timers;
mod wait;

pub use engine::{Drive, Ended, Engine, Spawned};
pub use error::Error;
pub use jobobject_core::{Facts, Fault, JobId, Nesting, Refusal};
pub use jobobject_linux as linux;
pub use wait::Wait;
