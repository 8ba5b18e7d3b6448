//! The words of job objects: what callers, the object manager and the mechanism agree on.
//!
//! Plain data without behaviour of its own: access rights, calls and their replies, limits, what
//! can be asked of a job, and the Win32 codes. No I/O, no clock, and no codec yet: today both sides
//! live in one process.

#![forbid(unsafe_code)]

pub mod access;
pub mod call;
pub mod info;
pub mod limits;
pub mod status;
pub mod units;

pub use access::Access;
pub use call::{Call, Reply};
pub use info::{Accounting, Actor, EndReason, Enforcement, LimitKind, StopTally, Total};
pub use limits::{EndOfJobAction, JobTime, Limits, OnLimit};
pub use status::Status;
pub use units::{Handle, Tick, Ticks};
