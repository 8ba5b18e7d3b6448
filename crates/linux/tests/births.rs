//! Births: inside from the first instruction, in whatever way works here.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says why it skips")]

mod common;

use common::*;
use jobobject_core::{Effect, Outcome, Place, Target};
use jobobject_linux::{Command, Options, Platform};
use rustix::io::Errno;

/// Without a child of its own, which would be a member too.
const SAY_GROUP: &str =
    "while read line; do case $line in 0::*) echo $line >&3; esac; done </proc/self/cgroup
    exec 3>&-; exec sleep 1000";

#[test]
fn a_process_is_born_in_its_group() {
    let platform = platform();
    let group = make(&platform, None, true);
    let (child, line) = ready_line(&platform, into(group), SAY_GROUP);
    let root = path(&platform, group);
    assert!(
        line.ends_with(&format!("{}/m0", root.file_name().unwrap().to_str().unwrap())),
        "{line}"
    );
    assert_eq!(platform.facts(&child).unwrap().place, Place::Group(group));
    assert_eq!(pids(&platform, group), [child.pid()]);
    clean_up(&platform, group, &[child]);
}

#[test]
fn where_births_into_a_group_are_refused_the_newborn_joins_by_itself() {
    let platform =
        Platform::new(Options { without_into_cgroup: true, ..Options::default() }).unwrap();
    let group = make(&platform, None, true);
    let (child, line) = ready_line(&platform, into(group), SAY_GROUP);
    assert!(line.ends_with("/m0"), "{line}");
    assert_eq!(pids(&platform, group), [child.pid()]);
    clean_up(&platform, group, &[child]);
}

#[test]
fn after_a_kill_births_work_in_a_fresh_leaf() {
    let platform = platform();
    let group = make(&platform, None, true);
    for round in 0..3 {
        let child = sleeper(&platform, into(group));
        assert_eq!(
            kill(&platform, group),
            Outcome::Killed { members: None, found: true, empty: child.ended() }
        );
        reap(&child);
        wait_empty(&platform, group);
        platform.execute(&Effect::FreshLeaf { group }).unwrap();
        let leaf = path(&platform, group).join(format!("m{}", round + 1));
        assert!(leaf.is_dir(), "{leaf:?}");
    }
    let child = sleeper(&platform, into(group));
    clean_up(&platform, group, &[child]);
}

#[test]
fn a_birth_into_a_killed_leaf_joins_and_lives() {
    let platform = platform();
    let group = make(&platform, None, true);
    // On some kernels whoever is born here now is killed before its first instruction.
    kill(&platform, group);
    let child = sleeper(&platform, into(group));
    assert_eq!(pids(&platform, group), [child.pid()]);
    clean_up(&platform, group, &[child]);
}

#[test]
fn a_leaf_that_somebody_else_killed_is_found_out_and_joined() {
    let platform = platform();
    let group = make(&platform, None, true);
    let leaf = path(&platform, group).join("m0/cgroup.kill");
    if !leaf.exists() {
        eprintln!("skipped: no cgroup.kill before Linux 5.14");
        return;
    }
    std::fs::write(leaf, "1").unwrap();
    let children = [sleeper(&platform, into(group)), sleeper(&platform, into(group))];
    assert_eq!(pids(&platform, group).len(), 2);
    // One such leaf says nothing about the others.
    let other = make(&platform, None, true);
    let child = sleeper(&platform, into(other));
    clean_up(&platform, other, &[child]);
    clean_up(&platform, group, &children);
}

#[test]
fn a_birth_into_a_frozen_group_does_not_wait_for_the_thaw() {
    let platform = platform();
    let group = make(&platform, None, true);
    platform.execute(&Effect::Freeze { group, frozen: true }).unwrap();
    let child = platform.birth(Target::Group { group, frozen: true }, &sh("exit 7")).unwrap();
    assert_eq!(pids(&platform, group), [child.pid()]);
    platform.execute(&Effect::Freeze { group, frozen: false }).unwrap();
    assert_eq!(reap(&child).exit_status(), Some(7));
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_failed_birth_leaves_nobody_and_says_what_failed() {
    let platform = platform();
    let group = make(&platform, None, true);
    let missing = platform.birth(into(group), &Command::new("no-such-program")).unwrap_err();
    assert_eq!((missing.call, errno(&missing)), ("execve", Errno::NOENT));
    assert_eq!(missing.target, "no-such-program");
    let denied = platform.birth(into(group), &Command::new("/proc/self/stat")).unwrap_err();
    assert_eq!((denied.call, errno(&denied)), ("execve", Errno::ACCESS));
    assert!(!denied.hint.unwrap().contains("Delegate"), "not about groups");
    let mut nowhere = sh(":");
    nowhere.cwd = Some("/no/such/directory".into());
    let nowhere = platform.birth(into(group), &nowhere).unwrap_err();
    assert_eq!(
        (nowhere.call, &*nowhere.target, errno(&nowhere)),
        ("chdir", "/no/such/directory", Errno::NOENT)
    );
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn outside_is_where_the_owner_is() {
    let platform = platform();
    let group = make(&platform, None, true);
    for target in [Target::Outside, Target::Inherit] {
        let child = sleeper(&platform, target);
        assert_eq!(platform.facts(&child).unwrap().place, Place::Outside);
        rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL).unwrap();
        reap(&child);
    }
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_member_owner_bears_children_outside_and_makes_groups_beside() {
    play("role_member_owner");
}

#[test]
#[ignore = "a role"]
fn role_member_owner() {
    assert!(playing("role_member_owner"));
    let platform = platform();
    let group = make(&platform, None, true);
    let us = platform.open_process(std::process::id()).unwrap();
    let moved = platform.execute(&Effect::Move { process: us.key(), group }).unwrap();
    assert!(
        matches!(moved, Outcome::Moved { place: Place::Group(at), .. } if at == group),
        "{moved:?}"
    );
    let inside = sleeper(&platform, Target::Inherit);
    assert_eq!(platform.facts(&inside).unwrap().place, Place::Group(group));
    let outside = sleeper(&platform, Target::Outside);
    assert_eq!(platform.facts(&outside).unwrap().place, Place::Outside);
    // A second group is not in the first one: that would be a rule's business.
    let second = make(&platform, None, true);
    assert_eq!(root(&platform, second), root(&platform, group));
    for child in [&inside, &outside] {
        rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL).unwrap();
        reap(child);
    }
    assert_eq!(retire(&platform, second), Outcome::Retired);
    assert_eq!(retire(&platform, group), Outcome::Populated, "we are in it");
    let home = root(&platform, group).parent().unwrap().join("cgroup.procs");
    std::fs::write(home, std::process::id().to_string()).unwrap();
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn where_our_own_group_was_killed_once_births_still_live() {
    play("role_in_a_killed_group");
}

#[test]
#[ignore = "a role"]
fn role_in_a_killed_group() {
    assert!(playing("role_in_a_killed_group"));
    let outer = platform();
    let group = make(&outer, None, false);
    kill(&outer, group);
    let us = outer.open_process(std::process::id()).unwrap();
    outer.execute(&Effect::Move { process: us.key(), group }).unwrap();
    // We live in a once-killed group now: fresh targets are deadly too (trap 19).
    let platform = platform();
    for _ in 0..4 {
        let group = make(&platform, None, true);
        let child = sleeper(&platform, into(group));
        assert_eq!(platform.facts(&child).unwrap().place, Place::Group(group));
        clean_up(&platform, group, &[child]);
    }
    // Back where we came from, so that all can be removed.
    let home = root(&outer, group).parent().unwrap().join("cgroup.procs");
    drop(platform);
    std::fs::write(home, std::process::id().to_string()).unwrap();
    assert_eq!(retire(&outer, group), Outcome::Retired);
}
