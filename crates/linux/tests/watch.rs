//! The end of a tree, told promptly and only once it is true.

mod common;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::*;
use jobobject_core::Outcome;

#[test]
fn an_empty_group_is_empty_at_once() {
    let platform = platform();
    let group = make(&platform, None, true);
    assert!(platform.watch(group).unwrap().check().unwrap());
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn the_end_of_a_young_group_is_told_before_the_kernel_would() {
    let platform = platform();
    let mut late = Vec::new();
    for _ in 0..scaled(50, 5) {
        let group = make(&platform, None, true);
        let child = ready(&platform, into(group), "echo ready >&3; exec 3>&-; exec sleep 1000");
        let mut watch = platform.watch(group).unwrap();
        assert!(!watch.check().unwrap());
        rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL).unwrap();
        wait_readable(child.pidfd(), PATIENCE);
        let ended = Instant::now();
        while !watch.check().unwrap() {
            wait_readable(watch.as_fd(), watch.recheck_after().unwrap_or(PATIENCE));
        }
        late.push(ended.elapsed());
        reap(&child);
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
    late.sort();
    let median = late[late.len() / 2];
    // By cgroup.events alone it would be 10 ms for a group this young.
    let bound = Duration::from_micros(scaled(1_000, 8_000) as u64);
    assert!(median < bound, "{median:?} of {late:?}");
}

#[test]
fn grandchildren_in_sessions_of_their_own_and_nested_groups_are_waited_for() {
    let platform = platform();
    let outer = make(&platform, None, true);
    let inner = make(&platform, Some(outer), true);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = sh("setsid sh -c 'read line <&4' & exit 0");
    command.descriptors.push(jobobject_linux::Descriptor::Give {
        from: std::sync::Arc::new(reader.into()),
        to: 4,
    });
    let child = platform.birth(into(inner), &command).unwrap();
    drop(command);
    reap(&child);
    let mut watch = platform.watch(outer).unwrap();
    assert!(!watch.check().unwrap(), "the grandchild still reads");
    drop(writer);
    while !watch.check().unwrap() {
        wait_readable(watch.as_fd(), watch.recheck_after().unwrap_or(PATIENCE));
    }
    assert_eq!(retire(&platform, inner), Outcome::Retired);
    assert_eq!(retire(&platform, outer), Outcome::Retired);
}

#[test]
fn more_members_than_are_held_are_waited_for() {
    let platform = platform();
    let group = make(&platform, None, true);
    let count = scaled(200, 24);
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do sh -c 'read line <&4' 3>&- & i=$((i+1)); done; echo ready >&3; exec 3>&-; wait"
    );
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = sh(&script);
    let (mut started, ready) = std::io::pipe().unwrap();
    for (from, to) in [(reader.into(), 4), (ready.into(), 3)] {
        command
            .descriptors
            .push(jobobject_linux::Descriptor::Give { from: std::sync::Arc::new(from), to });
    }
    let child = platform.birth(into(group), &command).unwrap();
    drop(command);
    std::io::Read::read(&mut started, &mut [0; 8]).unwrap();
    let mut watch = platform.watch(group).unwrap();
    assert!(!watch.check().unwrap());
    // One line lets one of them go; the rest sees the end of the file.
    for _ in 0..count / 2 {
        std::io::Write::write_all(&mut writer, b"\n").unwrap();
    }
    drop(writer);
    while !watch.check().unwrap() {
        wait_readable(watch.as_fd(), watch.recheck_after().unwrap_or(PATIENCE));
    }
    assert_eq!(active(&platform, group), 0);
    reap(&child);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}
