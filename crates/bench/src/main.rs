//! What job objects cost: one measurement a call, `cargo xtask bench` makes the table.
//!
//! `jobobject-bench [--quick] MEASUREMENT [ARGUMENT…]` prints one line per figure: its name, ours and, where there is
//! something to compare with, theirs, separated by tabs; times in nanoseconds.
//!
//! Every comparison is made within one run, in short rounds that take turns: what else the machine does
//! hits both sides alike. Medians are told, and only their ratio means anything elsewhere.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its product is what it prints")]

mod account;
mod allocations;
mod cli;
mod end;
mod jobs;
mod sample;
mod spawn;
mod terminate;

use std::process::ExitCode;

use crate::sample::Effort;

/// A program that only exits; with an argument it sleeps for ever.
pub(crate) const CHILD: &str = concat!(env!("OUT_DIR"), "/only-exits");

/// What a measurement may fail with: nothing that it could do anything about.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.first().is_some_and(|word| word == "--quick");
    if quick {
        words.remove(0);
    }
    match measure(Effort { quick }, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobobject-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(effort: Effort, words: &[String]) -> Result {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["spawn", mib] => spawn::spawn(effort, mib.parse()?),
        ["jobs", workers] => jobs::jobs(effort, workers.parse()?),
        ["unused"] => jobs::unused(effort),
        ["terminate", members] => terminate::terminate(effort, members.parse()?),
        ["end"] => end::end(effort),
        ["account", members] => account::account(effort, members.parse()?),
        ["run", shipped, plain] => cli::run(effort, shipped, plain),
        ["memory", job] => cli::memory(effort, job),
        ["allocations"] => allocations::count(),
        ["repeat", what, times] => jobs::repeat(what, times.parse()?),
        _ => Err(format!("no measurement is called `{}`", words.join(" ")).into()),
    }
}
