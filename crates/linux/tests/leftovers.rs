//! Nothing is left behind: not by a failure, not by many jobs, not by an owner that was killed.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says why it skips")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::*;
use jobobject_core::{Effect, Outcome};
use jobobject_linux::{Options, Platform};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The group that this process is in, as a directory.
fn own() -> PathBuf {
    let platform = platform();
    let group = make(&platform, None, false);
    let own = root(&platform, group).parent().unwrap().to_owned();
    assert_eq!(retire(&platform, group), Outcome::Retired);
    own
}

/// A directory to be the base of a test, removed with it.
struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> Self {
        let path = own().join(format!("test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn platform(&self) -> Platform {
        Platform::new(Options { base: Some(self.0.clone()), ..Options::default() }).unwrap()
    }

    fn is_empty(&self) -> bool {
        directories(&self.0).is_empty()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // A guardian that has removed everything lives in here until it has ended.
        let start = std::time::Instant::now();
        let mut removed = std::fs::remove_dir(&self.0);
        while removed.is_err() && start.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::yield_now();
            removed = std::fs::remove_dir(&self.0);
        }
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
}

#[test]
fn without_a_guardian_the_last_group_takes_the_root_with_it() {
    let base = Base::new("last");
    let platform = base.platform();
    for _ in 0..2 {
        let groups = [make(&platform, None, false), make(&platform, None, false)];
        let root = root(&platform, groups[0]);
        assert_eq!(retire(&platform, groups[0]), Outcome::Retired);
        assert!(root.is_dir());
        assert_eq!(retire(&platform, groups[1]), Outcome::Retired);
        assert!(base.is_empty());
    }
    assert!(platform.guardian().is_none());
}

#[test]
fn a_shutdown_takes_pool_root_and_guardian() {
    let base = Base::new("shutdown");
    let platform = base.platform();
    let groups: Vec<_> = (0..12).map(|_| make(&platform, None, true)).collect();
    for group in groups {
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
    assert!(!base.is_empty(), "some are kept");
    let guardian = platform.guardian().unwrap();
    platform.shutdown();
    assert!(base.is_empty());
    // Whoever inherited it may not have reaped it yet.
    let left = std::fs::read_to_string(format!("/proc/{}/stat", guardian.pid)).unwrap_or_default();
    assert!(left.is_empty() || left.contains(") Z "), "{left}");
    platform.execute(&Effect::MakeGroup { parent: None, guarded: true }).unwrap_err();
}

#[test]
fn a_guardian_that_was_killed_is_replaced() {
    let base = Base::new("replaced");
    let platform = base.platform();
    let first = make(&platform, None, true);
    let before = platform.guardian().unwrap().pid;
    let victim = platform.open_process(before).unwrap();
    rustix::process::pidfd_send_signal(victim.pidfd(), rustix::process::Signal::KILL).unwrap();
    wait_readable(victim.pidfd(), PATIENCE);
    let second = make(&platform, None, true);
    assert_ne!(platform.guardian().unwrap().pid, before);
    for group in [first, second] {
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
}

#[test]
fn a_thousand_cycles_leave_no_descriptor_and_no_directory() {
    let base = Base::new("cycles");
    let platform = base.platform();
    let cycle = |guarded| {
        let group = make(&platform, None, guarded);
        let child = platform.birth(into(group), &sh(":")).unwrap();
        reap(&child);
        active(&platform, group);
        assert_eq!(retire(&platform, group), Outcome::Retired);
    };
    cycle(true);
    let before = open_descriptors();
    for round in 0..scaled(1_000, 30) {
        cycle(round % 3 != 0);
    }
    // Other tests of this program run meanwhile; a leak of one per cycle is more than all they have open.
    let after = open_descriptors();
    assert!(after < before + scaled(300, 25), "{before} descriptors before, {after} after");
    platform.shutdown();
    assert!(base.is_empty());
}

#[test]
fn without_descriptors_there_is_an_error_and_no_directory() {
    play("role_without_descriptors");
}

#[test]
#[ignore = "a role"]
fn role_without_descriptors() {
    assert!(playing("role_without_descriptors"));
    let base = Base::new("descriptors");
    let highest = open_descriptors() as u64;
    let limits = getrlimit(Resource::Nofile);
    // From nothing left to just enough, so that it fails at every step once.
    let mut made = 0;
    for room in 0..24 {
        let platform = base.platform();
        setrlimit(Resource::Nofile, Rlimit { current: Some(highest + room), ..limits }).unwrap();
        match platform.execute(&Effect::MakeGroup { parent: None, guarded: true }) {
            Ok(Outcome::Group(group)) => {
                made += 1;
                match platform.birth(into(group), &sh(":")) {
                    Ok(child) => drop(reap(&child)),
                    Err(fault) => assert_eq!(errno(&fault), Errno::MFILE, "{fault}"),
                }
                setrlimit(Resource::Nofile, limits).unwrap();
                wait_empty(&platform, group);
                assert_eq!(retire(&platform, group), Outcome::Retired);
            }
            Ok(other) => panic!("{other:?}"),
            Err(fault) => {
                assert!(errno(&fault) == Errno::MFILE, "{fault}");
                assert!(fault.hint.unwrap().contains("ulimit"));
                // Without its root's directory a platform has nothing to remove: none may be there.
            }
        }
        setrlimit(Resource::Nofile, limits).unwrap();
        platform.shutdown();
        assert!(base.is_empty(), "with room for {room}: {:?}", directories(&base.0));
    }
    assert!(made > 0, "it worked in the end");
}

#[test]
fn without_room_for_groups_there_is_an_error_with_a_hint_and_no_directory() {
    let base = Base::new("room");
    // The root, the group and its leaf make three.
    for room in 0..3 {
        std::fs::write(base.0.join("cgroup.max.descendants"), room.to_string()).unwrap();
        let platform = base.platform();
        let fault =
            platform.execute(&Effect::MakeGroup { parent: None, guarded: false }).unwrap_err();
        assert_eq!(errno(&fault), Errno::AGAIN, "{fault}");
        assert!(fault.hint.unwrap().contains("cgroup.max.descendants"));
        assert!(base.is_empty(), "with room for {room}: {:?}", directories(&base.0));
    }
    std::fs::write(base.0.join("cgroup.max.descendants"), "3").unwrap();
    let platform = base.platform();
    let group = make(&platform, None, false);
    platform.execute(&Effect::MakeGroup { parent: None, guarded: false }).unwrap_err();
    platform.execute(&Effect::MakeGroup { parent: Some(group), guarded: false }).unwrap_err();
    platform.execute(&Effect::FreshLeaf { group }).unwrap_err();
    assert_eq!(retire(&platform, group), Outcome::Retired);
    assert!(base.is_empty());
}

#[test]
fn without_a_hierarchy_there_is_an_error_with_a_hint() {
    let file = std::env::temp_dir().join(format!("mountinfo-{}", std::process::id()));
    for (mounts, errno_, words) in [
        ("23 1 0:1 / / rw - ext4 /dev/sda rw\n", Errno::OPNOTSUPP, "mount -t cgroup2"),
        ("41 31 0:38 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", Errno::ROFS, "read-only"),
        ("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 ro\n", Errno::ROFS, "read-only"),
    ] {
        std::fs::write(&file, mounts).unwrap();
        let platform =
            Platform::new(Options { mountinfo: Some(file.clone()), ..Options::default() }).unwrap();
        let fault =
            platform.execute(&Effect::MakeGroup { parent: None, guarded: true }).unwrap_err();
        assert_eq!(errno(&fault), errno_, "{fault}");
        assert!(fault.hint.as_ref().unwrap().contains(words), "{:?}", fault.hint);
        assert!(platform.guardian().is_none());
    }
    std::fs::remove_file(file).unwrap();
}

/// Starts an owner that makes a group, says where, and waits to be killed.
fn owner(role_name: &str, base: &Path) -> (std::process::Child, PathBuf) {
    let mut owner =
        role(role_name).env("JOB_TEST_BASE", base).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.split_once("GROUP ").map(|(_, path)| path.to_owned()));
    (owner, PathBuf::from(line.unwrap()))
}

fn role_base() -> Platform {
    let base = PathBuf::from(std::env::var_os("JOB_TEST_BASE").unwrap());
    Platform::new(Options { base: Some(base), ..Options::default() }).unwrap()
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "a role"]
fn role_unguarded_owner() {
    assert!(playing("role_unguarded_owner"));
    let platform = role_base();
    let group = make(&platform, None, false);
    println!("GROUP {}", path(&platform, group).display());
    wait_for_ever();
}

#[test]
#[ignore = "a role"]
fn role_guarded_owner() {
    assert!(playing("role_guarded_owner"));
    let platform = role_base();
    let group = make(&platform, None, true);
    let _child = sleeper(&platform, into(group));
    println!("GROUP {}", path(&platform, group).display());
    wait_for_ever();
}

#[test]
fn what_a_killed_owner_left_is_swept_by_the_next_and_a_living_ones_is_not() {
    let base = Base::new("stale");
    let (mut dead, stale) = owner("role_unguarded_owner", &base.0);
    let (mut alive, live) = owner("role_unguarded_owner", &base.0);
    dead.kill().unwrap();
    dead.wait().unwrap();
    assert!(stale.is_dir() && live.is_dir());
    let platform = base.platform();
    let group = make(&platform, None, false);
    assert!(!stale.parent().unwrap().exists(), "swept");
    assert!(live.is_dir(), "its owner lives");
    assert_eq!(retire(&platform, group), Outcome::Retired);
    alive.kill().unwrap();
    alive.wait().unwrap();
    let group = make(&platform, None, false);
    assert_eq!(retire(&platform, group), Outcome::Retired);
    assert!(base.is_empty());
}

#[test]
fn what_somebody_still_lives_in_is_not_swept() {
    let base = Base::new("inhabited");
    let (mut dead, stale) = owner("role_unguarded_owner", &base.0);
    let platform = base.platform();
    let child = sleeper(&platform, jobobject_core::Target::Inherit);
    std::fs::write(stale.join("m0/cgroup.procs"), child.pid().to_string()).unwrap();
    dead.kill().unwrap();
    dead.wait().unwrap();
    let group = make(&platform, None, false);
    assert!(stale.is_dir());
    assert_eq!(retire(&platform, group), Outcome::Retired);
    rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL).unwrap();
    reap(&child);
    let group = make(&platform, None, false);
    assert_eq!(retire(&platform, group), Outcome::Retired);
    assert!(base.is_empty());
}

#[test]
fn a_directory_that_only_has_our_name_is_left_alone() {
    let base = Base::new("name");
    let theirs = base.0.join("job-1-00000000");
    std::fs::create_dir(&theirs).unwrap();
    let platform = base.platform();
    let group = make(&platform, None, false);
    assert_eq!(retire(&platform, group), Outcome::Retired);
    std::fs::remove_dir(theirs).unwrap();
}

#[test]
fn the_guardian_ends_what_a_killed_owner_left() {
    let base = Base::new("killed");
    let (mut owner, group) = owner("role_guarded_owner", &base.0);
    let root = group.parent().unwrap().to_owned();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let start = std::time::Instant::now();
    while root.exists() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn an_inner_engine_nests_beside_the_leaf_and_leaves_nothing() {
    let outer = platform();
    let group = make(&outer, None, true);
    let mut command = jobobject_linux::Command::new(std::env::current_exe().unwrap()).args([
        "--ignored",
        "--exact",
        "--nocapture",
        "role_inner_engine",
    ]);
    let strings = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    let strings = strings.chain(["JOB_TEST_ROLE=role_inner_engine".to_owned()]);
    let strings = strings.map(|string| std::ffi::CString::new(string).unwrap()).collect();
    command.environment = jobobject_linux::Environment::Exact(std::sync::Arc::new(strings));
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = std::sync::Arc::new(std::os::fd::OwnedFd::from(writer));
    command.descriptors.push(jobobject_linux::Descriptor::Give { from: writer, to: 1 });
    let inner = outer.birth(into(group), &command).unwrap();
    drop(command);
    let mut lines = BufReader::new(reader).lines().map(|line| line.unwrap());
    let place =
        lines.find_map(|line| line.split_once("GROUP ").map(|(_, path)| PathBuf::from(path)));
    let place = place.expect("the inner engine made a group");
    assert_eq!(place.parent().unwrap().parent().unwrap(), path(&outer, group), "beside the leaf");
    // The inner engine, its member, and its guardian.
    let seen = members(&outer, group);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|member| member.group == group));
    assert_eq!(seen.iter().filter(|member| jobobject_linux::is_guardian(member.pid)).count(), 1);
    kill(&outer, group);
    reap(&inner);
    wait_empty(&outer, group);
    assert_eq!(retire(&outer, group), Outcome::Retired);
}

#[test]
#[ignore = "a role"]
fn role_inner_engine() {
    assert!(playing("role_inner_engine"));
    let platform = platform();
    let group = make(&platform, None, true);
    let _child = sleeper(&platform, into(group));
    println!("GROUP {}", path(&platform, group).display());
    wait_for_ever();
}

#[test]
fn many_jobs_are_made_and_removed() {
    let base = Base::new("many");
    let platform = base.platform();
    let groups: Vec<_> = (0..scaled(2_000, 100)).map(|_| make(&platform, None, true)).collect();
    for &group in &groups {
        platform.execute(&Effect::Usage { group, active: true }).unwrap();
    }
    assert!(open_descriptors() < 600, "{} descriptors", open_descriptors());
    for group in groups {
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
    platform.shutdown();
    assert!(base.is_empty());
}

#[test]
fn a_group_with_members_holds_two_descriptors_at_most_and_a_retired_one_none() {
    play("role_descriptors_of_a_group");
}

#[test]
#[ignore = "a role"]
fn role_descriptors_of_a_group() {
    assert!(playing("role_descriptors_of_a_group"));
    let base = Base::new("held");
    let platform = base.platform();
    let first = make(&platform, None, true);
    active(&platform, first);
    let before = open_descriptors();
    let groups: Vec<_> = (0..10).map(|_| make(&platform, None, true)).collect();
    assert_eq!(open_descriptors(), before, "a group alone holds nothing");
    let children: Vec<_> = groups.iter().map(|&group| sleeper(&platform, into(group))).collect();
    for &group in &groups {
        active(&platform, group);
    }
    // Each child's pidfd is the child's.
    assert!(open_descriptors() - before - children.len() <= 2 * groups.len());
    for (&group, child) in groups.iter().zip(&children) {
        kill(&platform, group);
        reap(child);
        wait_empty(&platform, group);
        assert_eq!(retire(&platform, group), Outcome::Retired);
    }
    drop(children);
    assert_eq!(open_descriptors(), before);
    assert_eq!(retire(&platform, first), Outcome::Retired);
}

#[test]
fn an_owner_that_is_moved_makes_new_groups_where_it_is_then() {
    play("role_moved_owner");
}

#[test]
#[ignore = "a role"]
fn role_moved_owner() {
    assert!(playing("role_moved_owner"));
    let platform = platform();
    let before = make(&platform, None, true);
    let home = root(&platform, before).parent().unwrap().to_owned();
    let elsewhere = Base::new("moved");
    std::fs::write(elsewhere.0.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    // The moment for which a look at our own group is good has to pass.
    assert_eq!(platform.own_place().unwrap(), jobobject_core::Place::Outside);
    let after = make(&platform, None, true);
    assert_eq!(root(&platform, after).parent().unwrap(), elsewhere.0);
    let children = [sleeper(&platform, into(before)), sleeper(&platform, into(after))];
    for (group, child) in [before, after].into_iter().zip(children) {
        clean_up(&platform, group, &[child]);
    }
    platform.shutdown();
    std::fs::write(home.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

#[test]
fn without_permission_there_is_an_error_with_a_hint_and_no_guardian() {
    use std::os::unix::process::CommandExt;
    // An ordinary user, wherever this runs, in a group that is root's.
    let output = match role("role_nobody").uid(65_534).gid(65_534).current_dir("/").output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: an ordinary user cannot execute this program: {error}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "a role"]
fn role_nobody() {
    assert!(playing("role_nobody"));
    let platform = platform();
    for guarded in [true, false, true] {
        let fault = platform.execute(&Effect::MakeGroup { parent: None, guarded }).unwrap_err();
        assert_eq!(errno(&fault), Errno::ACCESS, "{fault}");
        assert!(fault.hint.unwrap().contains("Delegate=yes"));
    }
    assert!(platform.guardian().is_none());
}

#[test]
fn births_kills_and_fresh_leaves_at_the_same_time_lose_nobody() {
    let base = Base::new("storm");
    let platform = base.platform();
    let group = make(&platform, None, true);
    let births = scaled(200, 20);
    std::thread::scope(|scope| {
        let born: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..births {
                        // It may be killed at any time, at birth too; but there is always a process, and
                        // one status to take.
                        let child = platform.birth(into(group), &sh("exec sleep 1000")).unwrap();
                        rustix::process::pidfd_send_signal(
                            child.pidfd(),
                            rustix::process::Signal::KILL,
                        )
                        .unwrap();
                        reap(&child);
                    }
                })
            })
            .collect();
        while !born.iter().all(|thread| thread.is_finished()) {
            kill(&platform, group);
            platform.execute(&Effect::FreshLeaf { group }).unwrap();
            platform.execute(&Effect::Usage { group, active: true }).unwrap();
            platform.execute(&Effect::List { group }).unwrap();
        }
    });
    wait_empty(&platform, group);
    assert_eq!(retire(&platform, group), Outcome::Retired);
    platform.shutdown();
    assert!(base.is_empty());
}

#[test]
fn several_threads_share_groups_pool_and_root() {
    let base = Base::new("threads");
    let platform = base.platform();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let platform = &platform;
            scope.spawn(move || {
                for round in 0..scaled(100, 8) {
                    let outer = make(platform, None, thread % 2 == 0);
                    let inner = (round % 3 == 0).then(|| make(platform, Some(outer), true));
                    let child = platform.birth(into(inner.unwrap_or(outer)), &sh(":")).unwrap();
                    reap(&child);
                    wait_empty(platform, outer);
                    if let Some(inner) = inner {
                        assert_eq!(retire(platform, inner), Outcome::Retired);
                    }
                    assert_eq!(active(platform, outer), 0);
                    assert_eq!(retire(platform, outer), Outcome::Retired);
                }
            });
        }
    });
    platform.shutdown();
    assert!(base.is_empty());
}
