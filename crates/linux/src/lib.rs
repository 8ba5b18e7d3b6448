//! The mechanism.
#![forbid(unsafe_code)]
mod fault; mod files; mod mount; mod process; mod record;
