//! `job` as its users meet it: real commands, real signals, real terminals.
//!
//! Everything here runs on any machine that has `sh` and the usual small tools, busybox's will do.
//! Nothing sleeps to let something happen: it is waited for, and what takes too long is a failure.

#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod answers;
mod bad_input;
mod common;
mod inherits;
mod killed;
mod leftovers;
mod limits;
mod places;
mod reports;
mod signals;
mod statuses;
mod terminal;
