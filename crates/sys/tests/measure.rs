//! What things cost. Prints, asserts nothing: `cargo test --release -p jobobject-sys --test measure -- --ignored --nocapture`.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tests talk")]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{Group, Program, mount, open_dir, program, wait};
use jobobject_sys::clone::{Into, Mode, Plan, spawn};
use jobobject_sys::guardian;
use jobobject_sys::table::Table;

/// A tiny static program: the guardian itself, which ends at once where there is no table.
const TINY: &str = concat!(env!("OUT_DIR"), "/job-guardian");

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let us = |at: usize| times[at].as_secs_f64() * 1e6;
    let n = times.len();
    println!(
        "{name:44} median {:7.1} µs   min {:7.1}   p99 {:7.1}",
        us(n / 2),
        us(0),
        us(n * 99 / 100)
    );
}

/// Time until the call has returned, and until the process has been waited for.
fn measure<T>(name: &str, mut start: impl FnMut() -> T, mut end: impl FnMut(T)) {
    let (mut returned, mut waited) = (Vec::new(), Vec::new());
    for _ in 0..3_000 {
        let before = Instant::now();
        let child = start();
        returned.push(before.elapsed());
        end(child);
        waited.push(before.elapsed());
    }
    show(&format!("{name}, returns"), returned);
    show(&format!("{name}, waited for"), waited);
}

#[test]
#[ignore = "a measurement"]
fn spawn_and_wait() {
    let tiny: Program = program(&[TINY]);
    let plan = Plan { envp: Some(&tiny.envp), ..Plan::new(&tiny.paths, &tiny.argv) };
    for _ in 0..2 {
        let go = |into: Into<'_>| spawn(&plan, into, Mode::Vfork).unwrap();
        measure("spawn", || go(Into::Inherit), |birth| _ = wait(&birth));
        if let Some(group) = Group::fresh() {
            let (dir, procs) = (group.dir(), group.file("cgroup.procs"));
            measure("spawn into group", || go(Into::Cgroup(dir.as_fd())), |birth| _ = wait(&birth));
            measure("spawn, joins", || go(Into::Join(procs.as_fd())), |birth| _ = wait(&birth));
        }
        let mut command = std::process::Command::new(TINY);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        measure("std::process::Command", || command.spawn().unwrap(), |mut child| _ = child.wait());
    }
}

#[test]
#[ignore = "a measurement"]
fn guardians() {
    let mount = open_dir(&mount());
    for (name, forked) in [("guardian start", false), ("guardian start, forked", true)] {
        let mut times = Vec::new();
        for _ in 0..300 {
            let table = Table::create().unwrap();
            let before = Instant::now();
            let start = if forked { guardian::start_forked } else { guardian::start };
            let mut started = start(&table, mount.as_fd(), None).unwrap();
            times.push(before.elapsed());
            if times.len() == 300 {
                let pid = started.guardian.pid();
                let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
                let lines = text.lines().filter(|line| {
                    ["Rss", "Pss:", "Private", "Shared"].iter().any(|name| line.starts_with(name))
                });
                println!("{}", lines.collect::<Vec<_>>().join("\n"));
            }
            started.guardian.dismiss(&table);
            assert!(started.guardian.wait_gone(None));
        }
        show(name, times);
    }
    println!("image: {} bytes", fs::metadata(TINY).unwrap().len());
}
