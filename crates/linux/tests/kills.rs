//! Ending, signaling, suspending what is in a group.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says why it skips")]

mod common;

use std::os::fd::AsFd;

use common::*;
use jobobject_core::{Effect, GroupKey, Outcome};
use jobobject_linux::{Options, Platform, Why};
use rustix::process::Signal;

/// Members that fork for ever, ignore what can be ignored and leave their session.
const STORM: &str = "trap '' TERM INT HUP
    storm() { while :; do sh -c 'exec sleep 0.01' & sh -c 'trap \"\" TERM; sleep 0.02; exit 0' & wait $!; done; }
    storm & storm & storm & storm & echo ready >&3; exec 3>&-; storm";

fn without_group_kill() -> Platform {
    Platform::new(Options { without_group_kill: true, ..Options::default() }).unwrap()
}

/// Kills until nobody is left, as an engine does.
fn end(platform: &Platform, group: GroupKey) {
    let start = std::time::Instant::now();
    let mut watch = platform.watch(group).unwrap();
    loop {
        kill(platform, group);
        if watch.check().unwrap() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "still there: {:?}", members(platform, group));
        wait_readable(watch.as_fd(), std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_fork_storm_is_ended() {
    let platform = platform();
    let group = make(&platform, None, true);
    let child = ready(&platform, into(group), STORM);
    end(&platform, group);
    reap(&child);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_fork_storm_is_ended_one_by_one_where_groups_cannot_be_killed() {
    let platform = without_group_kill();
    let group = make(&platform, None, true);
    let child = ready(&platform, into(group), STORM);
    end(&platform, group);
    reap(&child);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_kill_reaches_nested_groups_and_says_what_it_found() {
    for platform in [platform(), without_group_kill()] {
        let outer = make(&platform, None, true);
        let inner = make(&platform, Some(outer), true);
        assert_eq!(
            kill(&platform, outer),
            Outcome::Killed { members: None, found: false, empty: true }
        );
        platform.execute(&Effect::FreshLeaf { group: outer }).unwrap();
        platform.execute(&Effect::FreshLeaf { group: inner }).unwrap();
        let children = [sleeper(&platform, into(outer)), sleeper(&platform, into(inner))];
        let killed = platform.execute(&Effect::Kill { group: outer, count: true }).unwrap();
        assert!(
            matches!(killed, Outcome::Killed { members: Some(2), found: true, .. }),
            "{killed:?}"
        );
        for child in &children {
            assert_eq!(reap(child).terminating_signal(), Some(Signal::KILL.as_raw()));
        }
        wait_empty(&platform, outer);
        assert_eq!(retire(&platform, inner), Outcome::Retired);
        assert_eq!(retire(&platform, outer), Outcome::Retired);
    }
}

#[test]
fn a_group_that_somebody_removed_has_nobody_to_kill() {
    let platform = platform();
    let group = make(&platform, None, true);
    std::fs::remove_dir(path(&platform, group).join("m0")).unwrap();
    std::fs::remove_dir(path(&platform, group)).unwrap();
    assert_eq!(
        kill(&platform, group),
        Outcome::Killed { members: None, found: false, empty: true }
    );
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn the_newest_are_ended_first() {
    let platform = platform();
    let group = make(&platform, None, true);
    let children: Vec<_> = (0..5).map(|_| sleeper(&platform, into(group))).collect();
    let trimmed = platform.execute(&Effect::Trim { group, keep: 2 }).unwrap();
    assert_eq!(trimmed, Outcome::Trimmed { ended: 3, active: 2 });
    for child in &children[2..] {
        reap(child);
    }
    assert!(!children[0].ended() && !children[1].ended());
    let trimmed = platform.execute(&Effect::Trim { group, keep: 2 }).unwrap();
    assert_eq!(trimmed, Outcome::Trimmed { ended: 0, active: 2 });
    clean_up(&platform, group, &children[..2]);
}

#[test]
fn a_signal_reaches_every_member_even_a_stopped_one() {
    let platform = platform();
    let group = make(&platform, None, true);
    let inner = make(&platform, Some(group), true);
    let script =
        "trap 'exit 9' TERM; echo ready >&3; exec 3>&-; while :; do sleep 1000 & wait; done";
    let children = [ready(&platform, into(group), script), ready(&platform, into(inner), script)];
    platform
        .execute(&Effect::Signal { group, signal: Signal::STOP.as_raw(), resume: false })
        .unwrap();
    let sent = platform
        .execute(&Effect::Signal { group, signal: Signal::TERM.as_raw(), resume: true })
        .unwrap();
    assert!(matches!(sent, Outcome::Signaled { members } if members >= 2), "{sent:?}");
    for child in &children {
        assert_eq!(reap(child).exit_status(), Some(9));
    }
    end(&platform, group);
    assert_eq!(retire(&platform, inner), Outcome::Retired);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_frozen_member_does_nothing_and_can_be_killed() {
    let platform = platform();
    let group = make(&platform, None, true);
    let script =
        "trap 'exit 9' TERM; echo ready >&3; exec 3>&-; while :; do sleep 1000 & wait; done";
    let child = ready(&platform, into(group), script);
    platform.execute(&Effect::Freeze { group, frozen: true }).unwrap();
    let events = path(&platform, group).join("cgroup.events");
    while !std::fs::read_to_string(&events).unwrap().contains("frozen 1") {
        std::thread::yield_now();
    }
    // (One without a handler would die: the kernel lets the fatal through.)
    let shell = child.pid();
    let term = rustix::process::Pid::from_raw(shell as i32).unwrap();
    rustix::process::kill_process(term, Signal::TERM).unwrap();
    assert!(
        !wait_readable(child.pidfd(), std::time::Duration::from_millis(50)),
        "it acted on a signal"
    );
    kill(&platform, group);
    assert_eq!(reap(&child).terminating_signal(), Some(Signal::KILL.as_raw()));
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_frozen_group_thaws_and_goes_on() {
    let platform = platform();
    let group = make(&platform, None, true);
    let script =
        "trap 'exit 9' TERM; echo ready >&3; exec 3>&-; while :; do sleep 1000 & wait; done";
    let child = ready(&platform, into(group), script);
    platform.execute(&Effect::Freeze { group, frozen: true }).unwrap();
    platform
        .execute(&Effect::Signal { group, signal: Signal::TERM.as_raw(), resume: true })
        .unwrap();
    platform.execute(&Effect::Freeze { group, frozen: false }).unwrap();
    assert_eq!(reap(&child).exit_status(), Some(9));
    end(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_refused_candidate_is_ended() {
    let platform = platform();
    let group = make(&platform, None, true);
    let child = sleeper(&platform, into(group));
    platform.execute(&Effect::KillProcess { process: child.key() }).unwrap();
    assert_eq!(reap(&child).terminating_signal(), Some(Signal::KILL.as_raw()));
    platform.execute(&Effect::KillProcess { process: child.key() }).unwrap();
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_number_that_is_no_signal_is_refused() {
    let platform = platform();
    let group = make(&platform, None, true);
    for signal in [-1, 0, 65, i32::MAX] {
        platform.execute(&Effect::Signal { group, signal, resume: false }).unwrap_err();
    }
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_stopped_tracer_outside_is_named() {
    let strace = std::process::Command::new("strace").arg("-V").output();
    if strace.is_err() {
        eprintln!("skipped: no strace here");
        return;
    }
    let platform = platform();
    let group = make(&platform, None, true);
    let child = sleeper(&platform, into(group));
    let mut tracer = std::process::Command::new("strace")
        .args(["-q", "-o", "/dev/null", "-p", &child.pid().to_string()])
        .spawn()
        .unwrap();
    let traced = || std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    while !traced().contains(&format!("TracerPid:\t{}\n", tracer.id())) {
        std::thread::yield_now();
    }
    let tracer_pid = rustix::process::Pid::from_raw(tracer.id() as i32).unwrap();
    rustix::process::kill_process(tracer_pid, Signal::STOP).unwrap();
    while !std::fs::read_to_string(format!("/proc/{}/stat", tracer.id())).unwrap().contains(") T ")
    {
        std::thread::yield_now();
    }
    let found = platform.obstacles(group).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].pid, &*found[0].comm), (child.pid(), "sleep"));
    assert_eq!(
        found[0].why,
        Why::Traced { pid: tracer.id(), comm: "strace".to_owned(), stopped: true }
    );
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    clean_up(&platform, group, &[child]);
}
