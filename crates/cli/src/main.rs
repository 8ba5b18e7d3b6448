//! `job`: job objects in a shell.
//!
//! One file per subcommand; what they print goes through `render`. Exit status 125 always means that
//! `job` itself could not do what it was asked to.

#![forbid(unsafe_code)]

mod duration;
mod explain;
mod render;
mod run;
mod usage;
mod which;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

/// `job` itself failed, or was used wrongly.
const FAILED: u8 = 125;

#[derive(Debug, Parser)]
#[command(
    name = "job",
    version,
    about = "Job objects for Linux: whatever a command starts is ended with it",
    after_help = "Exit status 125 means that job itself failed or was used wrongly."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command inside a job, so that nothing of it is left behind
    Run(run::Options),
    /// Show the jobs that a process is in
    Which(which::Options),
    /// Say what an error code of job objects means here, and what to do about it
    Explain(explain::Options),
}

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = match arguments.get(1) {
        // Commands are started with this one all the time: the others need not be prepared for it.
        Some(word) if word == "run" => {
            usage::parse(run::command(), &arguments[1..]).map(Command::Run)
        }
        _ => usage::parse::<Arguments>(Arguments::command(), &arguments).map(|all| all.command),
    };
    let status = match command {
        Ok(Command::Run(options)) => run::main(options),
        Ok(Command::Which(options)) => which::main(&options),
        Ok(Command::Explain(options)) => explain::main(&options),
        Err(error) => usage::tell(&error),
    };
    std::process::exit(status.into());
}
