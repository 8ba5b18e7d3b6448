//! What the mechanism costs here: medians, in microseconds. `cargo run --release --example measure [PROGRAM]`;
//! PROGRAM ends at once, best a static one.

#![allow(clippy::print_stdout, reason = "it is what it is for")]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use jobobject_core::{Effect, GroupKey, Outcome, Target};
use jobobject_linux::{Command, Environment, Options, Platform, Process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().unwrap_or_else(|| "/bin/true".to_owned());
    let only = arguments.next();
    let runs = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let platform = Platform::new(Options::default()).unwrap();
    let strings = std::env::vars()
        .map(|(name, value)| std::ffi::CString::new(format!("{name}={value}")).unwrap());
    let mut command = Command::new(&program);
    command.environment = Environment::Exact(std::sync::Arc::new(strings.collect()));

    // The guardian, the root, the pool.
    let group = make(&platform);
    if runs("std") {
        measure("std::process::Command spawn+wait", 1_000, || {
            std::process::Command::new(&program).status().unwrap();
        });
    }
    if runs("birth") {
        measure("birth+wait in an existing group", 1_000, || {
            reap(&platform.birth(into(group), &command).unwrap())
        });
    }
    if runs("cycle") {
        retire(&platform, group);
        measure("group, birth, wait, retire (pool)", 1_000, || {
            let group = make(&platform);
            reap(&platform.birth(into(group), &command).unwrap());
            retire(&platform, group);
        });
        let group = make(&platform);
        retire(&platform, group);
        measure("group, retire (pool)", 1_000, || {
            let group = make(&platform);
            retire(&platform, group);
        });
    }
    let group = make(&platform);
    if runs("cold") {
        measure("group, killed, retire (no pool)", 300, || {
            let group = make(&platform);
            platform.execute(&Effect::Kill { group, count: false }).unwrap();
            retire(&platform, group);
        });
    }
    if runs("usage") {
        measure("usage, times", 10_000, || {
            platform.execute(&Effect::Usage { group, active: false }).unwrap();
        });
        let sleepers: Vec<_> = (0..10).map(|_| sleeper(&platform, group)).collect();
        measure("usage, times and active at 10 members", 10_000, || {
            platform.execute(&Effect::Usage { group, active: true }).unwrap();
        });
        let one = &sleepers[0];
        measure("facts of a member", 2_000, || {
            platform.facts(one).unwrap();
        });
        platform.execute(&Effect::Kill { group, count: false }).unwrap();
        sleepers.iter().for_each(|sleeper| reap(sleeper));
        platform.execute(&Effect::FreshLeaf { group }).unwrap();
    }
    if runs("end") {
        let mut bare = end(&platform, false);
        let mut watched = end(&platform, true);
        bare.sort();
        watched.sort();
        println!(
            "{:>9.1}  last exit told by a bare pidfd, after the kill",
            micros(bare[bare.len() / 2])
        );
        println!(
            "{:>9.1}  last exit told by the watch, after the kill",
            micros(watched[watched.len() / 2])
        );
    }
    if runs("kill") {
        for members in [100, 1_000] {
            let (mut bare, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..7 {
                bare.push(terminate(&platform, members, false));
                ours.push(terminate(&platform, members, true));
            }
            bare.sort();
            ours.sort();
            println!(
                "{:>9.1}  {members} members, bare cgroup.kill until populated 0",
                micros(bare[3])
            );
            println!("{:>9.1}  {members} members, kill effect and watch", micros(ours[3]));
        }
    }
}

fn make(platform: &Platform) -> GroupKey {
    match platform.execute(&Effect::MakeGroup { parent: None, guarded: true }).unwrap() {
        Outcome::Group(group) => group,
        other => panic!("{other:?}"),
    }
}

fn retire(platform: &Platform, group: GroupKey) {
    while platform.execute(&Effect::Retire { group }).unwrap() != Outcome::Retired {}
}

fn into(group: GroupKey) -> Target {
    Target::Group { group, frozen: false }
}

fn sleeper(platform: &Platform, group: GroupKey) -> std::sync::Arc<Process> {
    platform.birth(into(group), &Command::new("/bin/sleep").args(["1000"])).unwrap()
}

fn reap(process: &Process) {
    waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED).unwrap();
}

fn end(platform: &Platform, watched: bool) -> Vec<Duration> {
    let mut late = Vec::new();
    for _ in 0..300 {
        let group = make(platform);
        let child = sleeper(platform, group);
        let mut watch = platform.watch(group).unwrap();
        assert!(!watch.check().unwrap());
        let start = Instant::now();
        rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL).unwrap();
        if watched {
            loop {
                poll(&mut [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)], None).unwrap();
                if watch.check().unwrap() {
                    break;
                }
            }
        } else {
            poll(&mut [PollFd::from_borrowed_fd(child.pidfd(), PollFlags::IN)], None).unwrap();
        }
        late.push(start.elapsed());
        reap(&child);
        retire(platform, group);
    }
    late
}

fn terminate(platform: &Platform, members: usize, ours: bool) -> Duration {
    let group = make(platform);
    let children: Vec<_> = (0..members).map(|_| sleeper(platform, group)).collect();
    let directory = platform.group_path(group).unwrap();
    let events = directory.join("cgroup.events");
    let start = Instant::now();
    if ours {
        let mut watch = platform.watch(group).unwrap();
        platform.execute(&Effect::Kill { group, count: false }).unwrap();
        while !watch.check().unwrap() {
            let timeout = watch.recheck_after().map(|after| after.try_into().unwrap());
            poll(&mut [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)], timeout.as_ref())
                .unwrap();
        }
    } else {
        std::fs::write(directory.join("cgroup.kill"), "1").unwrap();
        while !std::fs::read_to_string(&events).unwrap().contains("populated 0") {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    let took = start.elapsed();
    children.iter().for_each(|child| reap(child));
    platform.execute(&Effect::Kill { group, count: false }).unwrap();
    retire(platform, group);
    took
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn measure(name: &str, times: usize, mut act: impl FnMut()) {
    let mut took: Vec<_> = (0..times)
        .map(|_| {
            let start = Instant::now();
            act();
            start.elapsed()
        })
        .collect();
    took.sort();
    println!("{:>9.1}  {name}", micros(took[times / 2]));
}
