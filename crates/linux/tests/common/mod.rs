//! What the tests of the platform have in common: real processes, real groups, no sleeping.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobobject_core::{Effect, Fault, GroupKey, Member, Outcome, Target};
use jobobject_linux::{Command, Descriptor, Options, Platform, Process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// Nothing in here takes as long as this, not even under emulation.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A platform like anybody's.
pub fn platform() -> Platform {
    Platform::new(Options::default()).unwrap()
}

/// Sizes for a machine, or for an emulated one.
pub fn scaled(here: usize, in_vm: usize) -> usize {
    if std::env::var_os("JOB_VM").is_some() { in_vm } else { here }
}

pub fn make(platform: &Platform, parent: Option<GroupKey>, guarded: bool) -> GroupKey {
    match platform.execute(&Effect::MakeGroup { parent, guarded }).unwrap() {
        Outcome::Group(group) => group,
        other => panic!("{other:?}"),
    }
}

pub fn into(group: GroupKey) -> Target {
    Target::Group { group, frozen: false }
}

pub fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

/// A process that says a line on descriptor 3 when it is where the test wants it.
pub fn ready(platform: &Platform, target: Target, script: &str) -> Arc<Process> {
    ready_line(platform, target, script).0
}

/// Likewise, with the line.
pub fn ready_line(platform: &Platform, target: Target, script: &str) -> (Arc<Process>, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = sh(script);
    command.descriptors.push(Descriptor::Give { from: Arc::new(OwnedFd::from(writer)), to: 3 });
    let process = platform.birth(target, &command).unwrap();
    drop(command);
    let mut line = String::new();
    BufReader::new(&mut reader).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "{script}: ended before it was ready");
    (process, line.trim().to_owned())
}

/// A member that sleeps until it is killed.
pub fn sleeper(platform: &Platform, target: Target) -> Arc<Process> {
    ready(platform, target, "echo ready >&3; exec 3>&-; exec sleep 1000")
}

/// Takes the status of a child of ours.
pub fn reap(process: &Process) -> WaitIdStatus {
    waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED).unwrap().unwrap()
}

pub fn kill(platform: &Platform, group: GroupKey) -> Outcome {
    platform.execute(&Effect::Kill { group, count: false }).unwrap()
}

pub fn members(platform: &Platform, group: GroupKey) -> Vec<Member> {
    match platform.execute(&Effect::List { group }).unwrap() {
        Outcome::Members(members) => members,
        other => panic!("{other:?}"),
    }
}

pub fn pids(platform: &Platform, group: GroupKey) -> Vec<u32> {
    members(platform, group).iter().map(|member| member.pid).collect()
}

pub fn active(platform: &Platform, group: GroupKey) -> u32 {
    match platform.execute(&Effect::Usage { group, active: true }).unwrap() {
        Outcome::Usage { active: Some(active), .. } => active,
        other => panic!("{other:?}"),
    }
}

/// Waits until nobody is in the group.
pub fn wait_empty(platform: &Platform, group: GroupKey) {
    let start = Instant::now();
    let mut watch = platform.watch(group).unwrap();
    while !watch.check().unwrap() {
        assert!(start.elapsed() < PATIENCE, "still there: {:?}", members(platform, group));
        let timeout = watch.recheck_after().unwrap_or(PATIENCE);
        wait_readable(watch.as_fd(), timeout);
    }
}

/// Whether it became readable.
pub fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

pub fn retire(platform: &Platform, group: GroupKey) -> Outcome {
    platform.execute(&Effect::Retire { group }).unwrap()
}

/// Kills, reaps what is ours, retires.
pub fn clean_up(platform: &Platform, group: GroupKey, children: &[Arc<Process>]) {
    kill(platform, group);
    for child in children {
        reap(child);
    }
    wait_empty(platform, group);
    assert_eq!(retire(platform, group), Outcome::Retired);
}

/// The directory of a group; the root's is its parent.
pub fn path(platform: &Platform, group: GroupKey) -> PathBuf {
    platform.group_path(group).unwrap()
}

pub fn root(platform: &Platform, group: GroupKey) -> PathBuf {
    path(platform, group).parent().unwrap().to_owned()
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs a test of this program that is marked `#[ignore]`, as a process of its own; whatever it changes of
/// itself ends with it.
pub fn role(name: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
        .env("JOB_TEST_ROLE", name);
    command
}

/// Runs it and wants it to succeed.
pub fn play(name: &str) {
    let output = role(name).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{name}: {}\n{out}\n{err}",
        output.status
    );
}

/// Whether we are the process that plays this role.
pub fn playing(name: &str) -> bool {
    std::env::var("JOB_TEST_ROLE").is_ok_and(|role| role == name)
}

pub fn errno(fault: &Fault) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(fault.errno)
}
