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

/// The parsers of what others write, for fuzzers.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    /// Gives `text` to each of them: none may panic, whatever it is.
    pub fn parse(text: &[u8]) {
        let _ = crate::mount::parse(text);
        let _ = crate::mount::group_of(text);
        let _ = crate::process::Stat::parse(text);
        let _ = crate::group::pids(text).count();
        let _ = crate::group::count_pids(text);
        let _ = crate::files::value(text, "user_usec");
        if let Ok(text) = std::str::from_utf8(text) {
            let _ = crate::record::Record::decode(text);
        }
    }
}
