//! Who is a member, and what the members have used.

mod common;

use common::*;
use jobobject_abi::info::CpuTimes;
use jobobject_core::{Effect, GroupKey, Member, Outcome};
use jobobject_linux::Platform;

fn usage(platform: &Platform, group: GroupKey) -> CpuTimes {
    match platform.execute(&Effect::Usage { group, active: false }).unwrap() {
        Outcome::Usage { cpu, active: None } => cpu,
        other => panic!("{other:?}"),
    }
}

/// Uses CPU time, mostly in user mode.
const BURN: &str = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";

#[test]
fn the_list_shows_each_member_with_its_innermost_group() {
    let platform = platform();
    let outer = make(&platform, None, true);
    let inner = make(&platform, Some(outer), true);
    let innermost = make(&platform, Some(inner), true);
    let children = [outer, outer, inner, innermost].map(|group| sleeper(&platform, into(group)));
    let expected: Vec<_> = [outer, outer, inner, innermost]
        .iter()
        .zip(&children)
        .map(|(&group, child)| Member { pid: child.pid(), group })
        .collect();
    let mut listed = members(&platform, outer);
    listed[..2].sort_by_key(|member| member.pid);
    assert_eq!(listed, expected);
    assert_eq!(members(&platform, inner), expected[2..]);
    assert_eq!(active(&platform, outer), 4);
    assert_eq!(active(&platform, innermost), 1);
    assert_eq!(retire(&platform, outer), Outcome::Populated);
    kill(&platform, outer);
    for child in &children {
        reap(child);
    }
    wait_empty(&platform, outer);
    for group in [innermost, inner, outer] {
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
}

#[test]
fn a_group_with_a_nested_one_is_not_retired_before_it() {
    let platform = platform();
    let outer = make(&platform, None, true);
    let inner = make(&platform, Some(outer), true);
    assert_eq!(retire(&platform, outer), Outcome::Populated);
    assert_eq!(retire(&platform, inner), Outcome::Retired);
    assert_eq!(retire(&platform, outer), Outcome::Retired);
}

#[test]
fn members_in_groups_that_somebody_else_made_inside_are_counted() {
    let platform = platform();
    let group = make(&platform, None, true);
    let child = sleeper(&platform, into(group));
    assert_eq!(active(&platform, group), 1);
    for place in ["m0/theirs", "theirs"] {
        let theirs = path(&platform, group).join(place);
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("cgroup.procs"), child.pid().to_string()).unwrap();
        assert_eq!(active(&platform, group), 1, "{place}");
        assert_eq!(members(&platform, group), [Member { pid: child.pid(), group }], "{place}");
    }
    // Retiring takes what is empty with it, whoever made it.
    clean_up(&platform, group, &[child]);
}

#[test]
fn what_members_use_adds_up_to_what_they_are_told() {
    let platform = platform();
    let group = make(&platform, None, true);
    let mut told = 0;
    for _ in 0..4 {
        let child = platform.birth(into(group), &sh(BURN)).unwrap();
        // Field 14 and 15 of its stat, in ticks of 10 ms, read when it has ended and is not yet reaped.
        wait_readable(child.pidfd(), PATIENCE);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split(' ');
        let ticks: u64 = fields.skip(12).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        told += ticks * 100_000;
        reap(&child);
    }
    let cpu = usage(&platform, group);
    let used = cpu.user.0 + cpu.kernel.0;
    // Each of the two is cut to whole ticks.
    assert!(used.abs_diff(told) <= 4 * 2 * 100_000, "used {used}, told {told}");
    assert!(used > 0);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn what_nested_jobs_used_stays_with_the_job_around_when_they_are_gone() {
    let platform = platform();
    let outer = make(&platform, None, true);
    let inner = make(&platform, Some(outer), true);
    let child = platform.birth(into(inner), &sh(BURN)).unwrap();
    reap(&child);
    let used = usage(&platform, inner).user.0;
    wait_empty(&platform, inner);
    assert_eq!(retire(&platform, inner), Outcome::Retired);
    assert!(usage(&platform, outer).user.0 >= used);
    assert_eq!(retire(&platform, outer), Outcome::Retired);
}

#[test]
fn a_group_from_the_pool_has_used_nothing() {
    let platform = platform();
    let first = make(&platform, None, true);
    let place = path(&platform, first);
    let child = platform.birth(into(first), &sh(BURN)).unwrap();
    reap(&child);
    wait_empty(&platform, first);
    assert!(usage(&platform, first).user.0 > 0);
    assert_eq!(retire(&platform, first), Outcome::Retired);
    assert!(place.is_dir(), "kept for the next job");
    let second = make(&platform, None, true);
    assert_eq!(path(&platform, second), place);
    assert_eq!(usage(&platform, second), CpuTimes::default());
    assert_eq!(retire(&platform, second), Outcome::Retired);
}

#[test]
fn a_killed_or_frozen_group_goes_to_nobody_else() {
    let platform = platform();
    for effect in [
        |group| Effect::Kill { group, count: false },
        |group| Effect::Freeze { group, frozen: true },
    ] {
        let group = make(&platform, None, true);
        let place = path(&platform, group);
        platform.execute(&effect(group)).unwrap();
        assert_eq!(retire(&platform, group), Outcome::Retired);
        assert!(!place.exists());
    }
}

#[test]
fn many_members_are_all_listed() {
    let platform = platform();
    let group = make(&platform, None, true);
    let count = scaled(400, 40);
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do sleep 1000 3>&- & i=$((i+1)); done; echo ready >&3; exec 3>&-; wait"
    );
    let child = ready(&platform, into(group), &script);
    assert_eq!(members(&platform, group).len(), count + 1);
    assert_eq!(active(&platform, group) as usize, count + 1);
    let killed = platform.execute(&Effect::Kill { group, count: true }).unwrap();
    assert!(
        matches!(killed, Outcome::Killed { members: Some(members), found: true, .. } if members as usize == count + 1)
    );
    reap(&child);
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn the_fuse_is_set_where_there_is_one_and_nothing_is_said_where_not() {
    let platform = platform();
    let group = make(&platform, None, true);
    platform.execute(&Effect::Fuse { group, processes: Some(3) }).unwrap();
    let enforcement = platform.enforcement(jobobject_abi::LimitKind::ActiveProcesses).to_string();
    match std::fs::read_to_string(path(&platform, group).join("pids.max")) {
        Ok(max) => {
            assert_eq!(max.trim(), (3 * 64 + 1024).to_string());
            assert!(enforcement.contains("fuse"), "{enforcement}");
            platform.execute(&Effect::Fuse { group, processes: None }).unwrap();
            let max = std::fs::read_to_string(path(&platform, group).join("pids.max")).unwrap();
            assert_eq!(max.trim(), "max");
        }
        Err(_) => assert!(enforcement.contains("no pids controller"), "{enforcement}"),
    }
    // Members live in leaves, so the controller is in nobody's way.
    let child = sleeper(&platform, into(group));
    clean_up(&platform, group, &[child]);
}
