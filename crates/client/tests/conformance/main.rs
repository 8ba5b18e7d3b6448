//! The conformance cases on real processes.
//!
//! Each case is played in a process of its own, so that the caller can itself be a member: a case in
//! which a member spawns is played by that member. The other processes are actors: this test program
//! again, doing what it is told through a socket.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod actor;
mod driver;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jobobject_testkit::conformance::{Case, Tally, play, read};

use crate::driver::RealDriver;

/// The number of the case that a process is to play.
const CASE: &str = "JOB_CONFORMANCE_CASE";
/// Where it writes what came of it.
const RESULT: &str = "JOB_CONFORMANCE_RESULT";

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/cases");
    read(&folder).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The entry of every process but the first.
#[test]
fn role() {
    if let Some(case) = std::env::var_os(CASE) {
        play_one(case.to_str().and_then(|case| case.parse().ok()).expect("a number"));
    }
    if actor::is_one() {
        actor::act();
    }
}

#[test]
fn real_processes_meet_every_case_but_the_known_gaps() {
    let cases = cases();
    let folder = std::env::temp_dir().join(format!("job-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut tally = Tally::default();
    for (number, case) in cases.iter().enumerate() {
        let start = std::time::Instant::now();
        play_elsewhere(number, case, &folder, &mut tally);
        println!("{:>6} ms  {case}", start.elapsed().as_millis());
    }
    std::fs::remove_dir_all(&folder).unwrap();
    println!("{tally}");
    assert!(tally.failures.is_empty(), "{tally}");
    assert!(tally.passed.len() > cases.len() / 2, "too little was played: {tally}");
}

fn play_elsewhere(number: usize, case: &Case, folder: &Path, tally: &mut Tally) {
    let result: PathBuf = folder.join(number.to_string());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["role", "--exact", "--nocapture", "--test-threads=1", "--quiet"]);
    command.env(CASE, number.to_string()).env(RESULT, &result);
    let output = command.output().unwrap();
    let said = std::fs::read_to_string(&result).unwrap_or_default();
    let (verdict, text) = said.split_once('\n').unwrap_or_default();
    match verdict {
        "passed" => tally.passed.push(case.to_string()),
        "gap" => tally.gaps.push(case.to_string()),
        "skipped" => tally.skipped.push((case.to_string(), text.to_owned())),
        "failed" => tally.failures.push(text.to_owned()),
        _ if output.status.signal() == Some(9) && driver::caller(case).is_some() => {
            let why = "the caller is a member that the case ends";
            tally.skipped.push((case.to_string(), why.to_owned()));
        }
        _ => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            tally.failures.push(format!("{case}: {}: {stderr}", output.status));
        }
    }
}

fn play_one(number: usize) -> ! {
    let case = cases().swap_remove(number);
    let mut driver = RealDriver::new(&case);
    let mut tally = Tally::default();
    play(&case, &mut driver, &mut tally);
    driver.end();
    let said = if let Some(failure) = tally.failures.pop() {
        format!("failed\n{failure}")
    } else if let Some((_, reason)) = tally.skipped.pop() {
        format!("skipped\n{reason}")
    } else if tally.gaps.pop().is_some() {
        "gap\n".to_owned()
    } else {
        "passed\n".to_owned()
    };
    std::fs::write(std::env::var_os(RESULT).expect("a place for the result"), said).unwrap();
    std::process::exit(0);
}
