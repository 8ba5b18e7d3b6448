//! What the kernel says of a process, and where it can be moved.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says why it skips")]

mod common;

use common::*;
use jobobject_core::{Effect, Fault, GroupKey, Outcome, Place, ProcessState};
use jobobject_linux::{Platform, Process};
use rustix::process::Signal;

fn move_to(platform: &Platform, process: &Process, group: GroupKey) -> Result<Outcome, Fault> {
    platform.execute(&Effect::Move { process: process.key(), group })
}

fn end(process: &Process) {
    rustix::process::pidfd_send_signal(process.pidfd(), Signal::KILL).unwrap();
}

#[test]
fn a_running_process_is_moved_with_what_it_has_used() {
    let platform = platform();
    let group = make(&platform, None, true);
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo ready >&3; exec 3>&-; exec sleep 1000";
    let child = ready(&platform, jobobject_core::Target::Inherit, script);
    assert_eq!(platform.facts(&child).unwrap().place, Place::Outside);
    let moved = move_to(&platform, &child, group).unwrap();
    let Outcome::Moved { place, used } = moved else { panic!("{moved:?}") };
    assert_eq!(place, Place::Group(group));
    assert!(used.user.0 + used.kernel.0 > 10_000, "{used:?}");
    assert_eq!(pids(&platform, group), [child.pid()]);
    clean_up(&platform, group, &[child]);
}

#[test]
fn a_zombie_cannot_be_moved_although_the_kernel_says_so() {
    let platform = platform();
    let group = make(&platform, None, true);
    let child = sleeper(&platform, jobobject_core::Target::Inherit);
    end(&child);
    wait_readable(child.pidfd(), PATIENCE);
    let fault = move_to(&platform, &child, group).unwrap_err();
    assert!(fault.gone, "{fault}");
    assert_eq!(platform.facts(&child).unwrap().state, ProcessState::Ended);
    reap(&child);
    assert!(move_to(&platform, &child, group).unwrap_err().gone);
    assert_eq!(platform.facts(&child).unwrap().state, ProcessState::Ended);
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn init_and_kernel_threads_are_known_as_such() {
    let platform = platform();
    let group = make(&platform, None, false);
    let init = platform.open_process(1).unwrap();
    assert_eq!(platform.facts(&init).unwrap().state, ProcessState::Init);
    // kthreadd and its children, where this pid namespace shows them.
    let thread = std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        (pid != 1 && stat.split(')').next_back()?.split(' ').nth(2)? == "0" && pid < 100)
            .then_some(pid)
    });
    match thread {
        Some(pid) => {
            let thread = platform.open_process(pid).unwrap();
            assert_eq!(platform.facts(&thread).unwrap().state, ProcessState::Kernel);
        }
        None => eprintln!("skipped in part: no kernel thread can be seen here"),
    }
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn a_nested_place_is_the_innermost_group() {
    let platform = platform();
    let outer = make(&platform, None, true);
    let inner = make(&platform, Some(outer), true);
    let child = sleeper(&platform, into(inner));
    assert_eq!(platform.facts(&child).unwrap().place, Place::Group(inner));
    // A group that the member made for itself is part of the job's.
    let theirs = path(&platform, inner).join("m0/theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("cgroup.procs"), child.pid().to_string()).unwrap();
    assert_eq!(platform.facts(&child).unwrap().place, Place::Group(inner));
    kill(&platform, outer);
    reap(&child);
    wait_empty(&platform, outer);
    for group in [inner, outer] {
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
}

#[test]
fn a_member_of_another_engine_is_in_a_foreign_job() {
    let (ours, theirs) = (platform(), platform());
    let group = make(&theirs, None, true);
    let child = sleeper(&theirs, into(group));
    let seen = ours.open_process(child.pid()).unwrap();
    let place = ours.facts(&seen).unwrap().place;
    assert!(matches!(&place, Place::ForeignJob(path) if path.ends_with("/m0")), "{place:?}");
    clean_up(&theirs, group, &[child]);
}

#[test]
fn a_process_in_somebody_elses_group_is_foreign() {
    let platform = platform();
    let group = make(&platform, None, true);
    let base = root(&platform, group).parent().unwrap().to_owned();
    let theirs = base.join(format!("theirs-{}", std::process::id()));
    std::fs::create_dir(&theirs).unwrap();
    let child = sleeper(&platform, jobobject_core::Target::Inherit);
    std::fs::write(theirs.join("cgroup.procs"), child.pid().to_string()).unwrap();
    let place = platform.facts(&child).unwrap().place;
    assert!(matches!(&place, Place::ForeignGroup(path) if path.contains("/theirs-")), "{place:?}");
    end(&child);
    reap(&child);
    std::fs::remove_dir(theirs).unwrap();
    assert_eq!(retire(&platform, group), Outcome::Retired);
}

#[test]
fn any_process_can_be_asked_for_the_jobs_around_it() {
    let (ours, theirs) = (platform(), platform());
    let outer = make(&theirs, None, true);
    let inner = make(&theirs, Some(outer), false);
    let child = sleeper(&theirs, into(inner));
    let links = ours.which(child.pid()).unwrap();
    assert_eq!(
        links.iter().map(|link| (link.number, link.guarded)).collect::<Vec<_>>(),
        [(inner.0, false), (outer.0, true)]
    );
    for link in &links {
        assert_eq!(link.owner.as_ref().map(|owner| owner.pid), Some(std::process::id()));
    }
    assert_eq!(ours.which(std::process::id()).unwrap(), []);
    assert!(ours.which(u32::MAX).unwrap_err().gone);
    kill(&theirs, outer);
    reap(&child);
    wait_empty(&theirs, outer);
    for group in [inner, outer] {
        assert_eq!(retire(&theirs, group), Outcome::Retired);
    }
}
