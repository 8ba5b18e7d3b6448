//! Guardians, with real owners, members and groups.
//!
//! The owner is another process: this program again, in a role. It says the pids of its guardian and its
//! members, and then waits to be killed.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tests talk")]

mod common;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use common::{Actor, Group, ends, mount, open_dir, pidfd, program};
use jobobject_sys::clone::{Birth, FdAction, Into, Mode, Plan, spawn};
use jobobject_sys::guardian::{self, How, Started};
use jobobject_sys::table::{Parent, Table};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

/// The groups of an owner that another process plays.
struct Scene {
    owner: Actor,
    root: PathBuf,
    guardian: (u32, OwnedFd),
    /// As the owner has said them.
    members: Vec<OwnedFd>,
    _cleaner: Cleaner,
}

/// Leaves nothing behind when a test fails.
struct Cleaner(PathBuf);

impl Drop for Cleaner {
    fn drop(&mut self) {
        if self.0.exists() {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
        }
    }
}

impl Scene {
    /// None where groups cannot be made.
    fn open(role: &str) -> Option<Self> {
        drop(Group::fresh()?);
        let name = Group::name();
        let mut owner = Actor::start(role, &name);
        let said = owner.hear();
        let mut pids = said.iter().map(|pid| pid.parse::<u32>().unwrap());
        let guardian = pids.next().unwrap();
        let root = mount().join(name);
        let members = pids.map(pidfd).collect();
        let cleaner = Cleaner(root.clone());
        Some(Self {
            owner,
            root,
            guardian: (guardian, pidfd(guardian)),
            members,
            _cleaner: cleaner,
        })
    }

    fn guardian_leaves(&self) {
        assert!(ends(self.guardian.1.as_fd()), "the guardian has not ended");
        assert!(!self.root.exists(), "{} is left", self.root.display());
    }
}

fn lives(pidfd: &OwnedFd) -> bool {
    !common::ends_within(pidfd.as_fd(), 0)
}

#[test]
fn flagged_members_of_a_killed_owner_die_and_the_groups_go() {
    let Some(mut scene) = Scene::open("owner") else { return };
    assert!(lives(&scene.guardian.1));
    assert!(scene.members.iter().all(lives));
    scene.owner.kill();
    // 0 is in a flagged job, 1 in an unflagged one, 2 in a flagged job nested in that.
    assert!(ends(scene.members[0].as_fd()));
    assert!(ends(scene.members[2].as_fd()));
    assert!(lives(&scene.members[1]), "nobody asked for its death");
    assert!(lives(&scene.guardian.1), "somebody is left to be waited for");
    assert!(scene.root.join("8/m0").exists());
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

#[test]
fn a_forked_guardian_does_the_same() {
    let Some(mut scene) = Scene::open("owner, forked") else { return };
    scene.owner.kill();
    assert!(ends(scene.members[0].as_fd()));
    assert!(ends(scene.members[2].as_fd()));
    assert!(lives(&scene.members[1]));
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

#[test]
fn a_worker_that_outlives_its_owner_holds_nothing_up() {
    let Some(mut scene) = Scene::open("owner with worker") else { return };
    // The worker is the last of the members, outside of all groups, and has the pipe open.
    let worker = scene.members.pop().unwrap();
    scene.owner.kill();
    assert!(ends(scene.members[0].as_fd()));
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
    assert!(lives(&worker));
    pidfd_send_signal(&worker, Signal::KILL).unwrap();
}

#[test]
fn an_owner_that_executes_something_else_is_gone() {
    let Some(mut scene) = Scene::open("owner that execs") else { return };
    // It executes `cat` when it is let go: the same process, and yet nobody's owner.
    let mut stdin = scene.owner.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
    assert!(ends(scene.members[0].as_fd()));
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
    assert_eq!(scene.owner.child.try_wait().unwrap(), None, "the process itself goes on");
    drop(stdin);
    assert!(scene.owner.child.wait().unwrap().success());
}

#[test]
fn a_killed_member_that_forks_like_mad_does_not_escape() {
    let Some(mut scene) = Scene::open("owner of a bomb") else { return };
    scene.owner.kill();
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

#[test]
fn groups_that_others_made_below_the_root_go_too() {
    let Some(mut scene) = Scene::open("owner") else { return };
    for path in ["7/inner/1/m0", "stray", "8/m0/x/y/z"] {
        fs::create_dir_all(scene.root.join(path)).unwrap();
    }
    scene.owner.kill();
    assert!(ends(scene.members[2].as_fd()));
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

#[test]
fn an_owner_that_dies_before_it_made_anything_leaves_no_guardian() {
    let Some(mut scene) = Scene::open("owner of nothing") else { return };
    scene.owner.kill();
    scene.guardian_leaves();
}

#[test]
fn a_dismissed_guardian_touches_nothing() {
    let Some(mut scene) = Scene::open("owner that dismisses") else { return };
    let stdin = scene.owner.child.stdin.as_mut().unwrap();
    std::io::Write::write_all(stdin, b"go\n").unwrap();
    assert_eq!(scene.owner.hear(), ["dismissed"]);
    assert!(ends(scene.guardian.1.as_fd()));
    assert!(scene.members.iter().all(lives));
    scene.owner.kill();
    assert!(scene.members.iter().all(lives));
    fs::write(scene.root.join("cgroup.kill"), "1").unwrap();
    assert!(scene.members.iter().all(|member| ends(member.as_fd())));
    for group in ["8/9/m0", "8/9", "8/m0", "8", "7/m0", "7", ""] {
        fs::remove_dir(scene.root.join(group)).unwrap();
    }
}

#[test]
fn the_guardian_has_nothing_of_its_owners() {
    let Some(mut scene) = Scene::open("owner") else { return };
    let proc = PathBuf::from(format!("/proc/{}", scene.guardian.0));
    let mut fds: Vec<String> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    fds.sort();
    assert_eq!(fds, ["3", "4", "5", "6"]);
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), PathBuf::from("/"));
    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
    assert_eq!(fs::read(proc.join("cmdline")).unwrap(), b"job-guardian\0");
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let (_, stat) = stat.rsplit_once(") ").unwrap();
    let field = |number: usize| stat.split(' ').nth(number - 3).unwrap().to_owned();
    let pid = scene.guardian.0.to_string();
    assert_eq!((field(5), field(6)), (pid.clone(), pid), "a group and a session of its own");
    assert_ne!(field(4), scene.owner.child.id().to_string(), "not the owner's child");
    assert_eq!(fs::read_dir(proc.join("task")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "job-guardian\n");
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(
        status.contains("SigBlk:\tfffffffe7ffbfeff")
            || status.contains("SigBlk:\tfffffffffffbfeff"),
        "{status}"
    );
    scene.owner.kill();
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

#[test]
fn where_a_memory_file_may_not_be_executed_a_copy_watches() {
    let Some(mut scene) = Scene::open("owner without execveat") else { return };
    scene.owner.kill();
    assert!(ends(scene.members[0].as_fd()));
    pidfd_send_signal(&scene.members[1], Signal::TERM).unwrap();
    scene.guardian_leaves();
}

/// The owner, its guardian and all members are in one group here, so that its emptiness tells when all is over.
#[test]
fn an_owner_killed_at_any_moment_leaves_nothing() {
    let exe = std::env::current_exe().unwrap();
    let argv = [exe.to_str().unwrap(), "role", "--exact", "--nocapture", "--test-threads=1"];
    let mut with_groups = 0;
    for round in 0..100_u32 {
        let Some(group) = Group::fresh() else { return };
        let name = group.path.file_name().unwrap().to_str().unwrap();
        let root = group.path.join("root");
        let mut owner = program(&argv);
        let words = ["JOB_SYS_ROLE=owner in a hurry", &format!("JOB_SYS_ARGUMENT={name}/root")];
        owner.envp = words.iter().map(|word| std::ffi::CString::new(*word).unwrap()).collect();
        let mut plan = Plan::new(&owner.paths, &owner.argv);
        plan.envp = Some(&owner.envp);
        let (dir, null) = (group.dir(), fs::File::options().write(true).open("/dev/null").unwrap());
        let fds = [FdAction::Dup { from: null.as_fd(), to: 1 }];
        plan.fds = &fds;
        let birth = spawn(&plan, Into::Cgroup(dir.as_fd()), Mode::Vfork).unwrap();
        // Every moment of its life, from the first, some 80 µs apart; it does not end by itself.
        assert!(!common::ends_within_us(birth.pidfd.as_fd(), round * 80));
        with_groups += u32::from(root.exists());
        pidfd_send_signal(&birth.pidfd, Signal::KILL).unwrap();
        common::wait(&birth);
        group.empties();
        assert!(!root.exists(), "round {round}");
    }
    println!("killed {with_groups} times of 100 with groups made");
}

#[test]
fn the_host_has_no_child_and_sees_the_guardian_end() {
    Actor::start("host", "").finish();
}

#[test]
fn a_guardian_lives_in_the_group_it_was_given() {
    let Some(group) = Group::fresh() else { return };
    let (table, mount) = (Table::create().unwrap(), open_dir(&mount()));
    for forked in [false, true] {
        // The second time, the group is one that kills its newborns on some kernels.
        let start = if forked { guardian::start_forked } else { guardian::start };
        for _ in 0..2 {
            let dir = group.dir();
            let mut started = start(&table, mount.as_fd(), Some(dir.as_fd())).unwrap();
            assert_eq!(group.pids(), [started.guardian.pid()]);
            started.guardian.dismiss(&table);
            assert!(started.guardian.wait_gone(None));
            fs::write(group.path.join("cgroup.kill"), "1").unwrap();
        }
    }
}

fn spawn_into(path: PathBuf, argv: &[&str]) -> Birth {
    fs::create_dir_all(&path).unwrap();
    let (program, dir) = (program(argv), open_dir(&path));
    let plan = Plan { envp: Some(&program.envp), ..Plan::new(&program.paths, &program.argv) };
    spawn(&plan, Into::Cgroup(dir.as_fd()), Mode::Vfork).unwrap()
}

/// Plays an owner: a table, a guardian, three jobs; says who they are; waits.
fn own(role: &str, name: &str) {
    if role.ends_with("without execveat") {
        common::refuse(libc::SYS_execveat, libc::EACCES);
    }
    let (table, mount_dir, root) =
        (Table::create().unwrap(), open_dir(&mount()), mount().join(name));
    let index = table.add_root(name).unwrap();
    let start = if role.ends_with("forked") { guardian::start_forked } else { guardian::start };
    let Started { mut guardian, how, .. } = start(&table, mount_dir.as_fd(), None).unwrap();
    match role {
        "owner, forked" => assert_eq!(how, How::Forked(0)),
        "owner without execveat" => assert_eq!(how, How::Forked(libc::EACCES)),
        _ => assert_eq!(how, How::Memfd),
    }
    guardian.wait_ready(&table).unwrap();
    let mut said = guardian.pid().to_string();
    if role != "owner of nothing" {
        let sleep = ["/bin/sleep", "1000"];
        let bomb = [
            "/bin/sh",
            "-c",
            "for n in 1 2 3; do (while :; do (:) & (:) & wait; done) & done; wait",
        ];
        table.claim(7, Parent::Root(index), true);
        let first = if role.ends_with("bomb") { &bomb[..] } else { &sleep[..] };
        let first = spawn_into(root.join("7/m0"), first);
        table.claim(8, Parent::Root(index), false);
        let second = spawn_into(root.join("8/m0"), &sleep);
        table.claim(9, Parent::Slot(8), false);
        table.set_kill(9, true);
        let third = spawn_into(root.join("8/9/m0"), &sleep);
        said += &format!(" {} {} {}", first.pid, second.pid, third.pid);
    }
    if role.ends_with("worker") {
        // SAFETY: the child does nothing but wait for its end.
        let worker = unsafe { libc::fork() };
        if worker == 0 {
            loop {
                // SAFETY: no argument.
                unsafe { libc::pause() };
            }
        }
        said += &format!(" {worker}");
    }
    common::say(&said);
    common::until_let_go();
    if role.ends_with("dismisses") {
        guardian.dismiss(&table);
        assert!(guardian.wait_gone(None));
        common::say("dismissed");
        common::until_let_go();
    }
    if role.ends_with("execs") {
        let error =
            std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("/bin/cat"));
        panic!("{error}");
    }
}

/// Plays an owner that makes flagged jobs as fast as it can, until it is killed.
fn hurry(name: &str) {
    let (table, mount_dir, root) =
        (Table::create().unwrap(), open_dir(&mount()), mount().join(name));
    let index = table.add_root(name).unwrap();
    let _started = guardian::start(&table, mount_dir.as_fd(), None).unwrap();
    for slot in 0..500 {
        let parent = if slot % 3 == 2 { Parent::Slot(slot - 1) } else { Parent::Root(index) };
        let path =
            if slot % 3 == 2 { format!("{}/{slot}/m0", slot - 1) } else { format!("{slot}/m0") };
        table.claim(slot, parent, true);
        spawn_into(root.join(path), &["/bin/sleep", "1000"]);
    }
    loop {
        std::thread::park();
    }
}

/// Plays a host that waits for all of its children, and whose guardian is killed.
fn host() {
    let (table, mount) = (Table::create().unwrap(), open_dir(&mount()));
    for start in [guardian::start, guardian::start_forked] {
        let started = start(&table, mount.as_fd(), None).unwrap();
        assert!(!started.reparented_to_us);
        assert!(started.guardian.is_alive());
        let options = rustix::process::WaitOptions::NOHANG;
        assert!(matches!(rustix::process::waitpid(None, options), Err(Errno::CHILD)));
        // SAFETY: neither status nor usage is asked for; __WALL sees every kind of child.
        let any = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
        assert_eq!(any, -1, "not even a clone without an exit signal is left");
        pidfd_send_signal(started.guardian.pidfd(), Signal::KILL).unwrap();
        assert!(started.guardian.wait_gone(None));
        assert!(!started.guardian.is_alive());
    }
}

#[test]
fn role() {
    match common::role() {
        Some((role, name)) if role == "owner in a hurry" => hurry(&name),
        Some((role, name)) if role.starts_with("owner") => own(&role, &name),
        Some((role, _)) if role == "host" => host(),
        _ => {}
    }
}
