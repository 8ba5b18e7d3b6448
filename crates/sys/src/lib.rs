//! The system calls that rustix does not have, and the guardian.
//!
//! Where rustix stops: births inside a cgroup, the exit status of foreign processes, CPU clocks of
//! others, signals as data, the knowledge of being a fork. This crate and `win32` are the only ones
//! with unsafe code; every block of it carries its argument. There are no rules here and no policy:
//! what is to be done is decided above.
//!
//! Two parts of it run where Rust usually does not, and say so at their beginning: the child between
//! birth and exec ([`clone`]), and the guardian ([`guardian`]), which is a program of its own.

#[cfg(not(target_os = "linux"))]
compile_error!("jobobject-sys is about Linux");

pub mod clock;
pub mod clone;
pub mod fork;
pub mod guardian;
pub mod pidfd;
pub mod signal;
pub mod start;
pub mod table;

#[path = "../guardian/layout.rs"]
mod layout;
#[path = "../guardian/raw.rs"]
mod raw;
#[path = "../guardian/watch.rs"]
mod watch;
