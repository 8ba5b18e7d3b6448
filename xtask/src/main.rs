//! Every chore of this workspace; `cargo xtask help` lists them.
//!
//! A chore is a file. What it needs beyond cargo it installs itself, so that a fresh Debian with
//! rustup is enough; what it cannot have it names, together with the way to get it.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore's product is what it prints"
)]

mod apt;
mod args;
mod bench;
mod cargo;
mod dist;
mod tally;
mod test;
mod trouble;
mod vm;

use std::process::ExitCode;

use crate::args::Args;
use crate::trouble::Trouble;

const HELP: &str = "\
Every chore of this workspace.

Usage: cargo xtask CHORE [OPTIONS]

Chores:
  test    formatting, lints, docs, the tests on this machine and in virtual machines: what CI runs
  vm      boot Debian kernels and run the tests, or a program, in them as root
  dist    build the static `job` binary that we ship
  bench   measure what things cost, against what they are compared with
  help    this text

`cargo xtask CHORE --help` tells the options of one.
";

fn main() -> ExitCode {
    let outcome = Args::from_env().and_then(|mut args| match args.chore().as_deref() {
        Some("test") => test::main(args),
        Some("vm") => vm::main(args),
        Some("dist") => dist::main(args),
        Some("bench") => bench::main(args),
        Some("help" | "-h" | "--help") => args::help(HELP),
        None => Err(Trouble::usage("which chore? `cargo xtask help` lists them")),
        Some(other) => Err(Trouble::usage(format!(
            "no chore is called `{other}`; `cargo xtask help` lists them"
        ))),
    });
    outcome.unwrap_or_else(|trouble| trouble.report())
}
