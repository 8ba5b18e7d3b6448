//! A host program does not notice its guardian, and may do what it likes: nothing is left behind.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::*;
use jobobject::{EndReason, Enforcement, ErrorKind, Job, LeaderEnd, LimitKind};

roles!(
    counts_children,
    has_things_open,
    survives_its_guardian,
    has_a_worker,
    forks,
    reaps_all,
    ignores_children,
    is_a_subreaper,
    executes,
    waits,
    dies,
    closes_all,
    becomes_nobody,
    moves_house,
    has_short_threads,
    makes_a_job_at_exit
);

const KILL: i32 = 9;

static SIGCHLDS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_signal: i32) {
    SIGCHLDS.fetch_add(1, Relaxed);
}

fn handle_sigchld(handler: libc::sighandler_t) {
    // SAFETY: the handler only counts, or is one of the kernel's.
    assert_ne!(unsafe { libc::signal(libc::SIGCHLD, handler) }, libc::SIG_ERR);
}

/// What `waitpid` says of any child: a pid, 0, or minus the errno.
fn waitpid_any(flags: i32) -> i32 {
    // SAFETY: no status is asked for.
    match unsafe { libc::waitpid(-1, std::ptr::null_mut(), flags) } {
        -1 => -std::io::Error::last_os_error().raw_os_error().unwrap(),
        pid => pid,
    }
}

#[test]
fn no_sigchld_and_no_child_comes_of_a_guardian() {
    let base = Base::new();
    Actor::inside(&base.0, "counts_children", "").finish();
    base.expect_nothing_left("after a host that counts its children");
}

fn counts_children() {
    handle_sigchld(count as *const () as libc::sighandler_t);
    let all = libc::WNOHANG | libc::__WALL;
    let job = Job::new().unwrap();
    let mut child = sleeper(&job);
    let us = std::process::id();
    let guardian = guardian_of(us);
    assert_eq!(waitpid_any(all), 0, "the member only");
    assert_eq!(SIGCHLDS.load(Relaxed), 0);
    // Neither does its end, nor the birth of another.
    let ended = pidfd(guardian);
    kill(&ended);
    assert!(ends(ended));
    assert_eq!((waitpid_any(all), SIGCHLDS.load(Relaxed)), (0, 0));
    let mut second = sleeper(&job);
    assert_ne!(guardian_of(us), guardian);
    assert_eq!((waitpid_any(all), SIGCHLDS.load(Relaxed)), (0, 0));
    for child in [&mut child, &mut second] {
        child.kill().unwrap();
        assert_eq!(signal_of(child), Some(KILL));
    }
    end_of(&job);
    assert_eq!((waitpid_any(all), waitpid_any(0)), (-libc::ECHILD, -libc::ECHILD));
    assert!((1..=2).contains(&SIGCHLDS.load(Relaxed)), "one for each member, maybe merged");
    assert_eq!(guardians_of(us).len(), 1);
}

#[test]
fn a_guardian_has_nothing_of_its_host() {
    let base = Base::new();
    let folder = std::env::temp_dir().join(format!("host-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut command = std_role("has_things_open", "", Some(&base.0));
    command.current_dir(&folder);
    let mut actor = Actor::start(command);
    let [guardian] = actor.hear_numbers()[..] else { panic!("a pid") };

    let link = |name: &str| fs::read_link(format!("/proc/{guardian}/{name}")).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    let open = fs::read_dir(format!("/proc/{guardian}/fd")).unwrap();
    let mut open: Vec<_> = open
        .map(|entry| link(&format!("fd/{}", entry.unwrap().file_name().to_str().unwrap())))
        .collect();
    open.sort();
    let ours = mount();
    for what in &open {
        let shown = what.to_str().unwrap();
        let known = shown.starts_with("/memfd:job") || shown.starts_with("pipe:");
        let known = known || shown.starts_with("anon_inode:[pidfd]") || shown.starts_with("pidfd:");
        assert!(known || *what == ours, "{open:?}");
    }
    assert_eq!(open.len(), 4, "table, mount, owner, pipe: {open:?}");
    let stat = fs::read_to_string(format!("/proc/{guardian}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let guardian_s = guardian.to_string();
    assert_eq!(fields[2..4], [&*guardian_s, &*guardian_s], "a group and a session of its own");
    assert_eq!(fields[4], "0", "no terminal");
    let resident: u64 = fields[21].parse().unwrap();
    assert!(resident <= 32, "{resident} pages");
    assert_eq!(fs::read(format!("/proc/{guardian}/environ")).unwrap(), b"");
    fs::remove_dir(&folder).unwrap();
    actor.finish();
    base.expect_nothing_left("after a host with things open");
}

fn has_things_open() {
    let (reader, writer) = std::io::pipe().unwrap();
    for fd in [reader.as_fd(), writer.as_fd()] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }
    let job = Job::new().unwrap();
    let _member = sleeper(&job);
    say(guardian_of(std::process::id()));
    until_let_go();
}

#[test]
fn another_guardian_follows_one_that_was_killed() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "survives_its_guardian", "");
    let members = actor.hear_numbers();
    for round in 0..3 {
        kill(pidfd(guardian_of(actor.pid())));
        until("the guardian is gone", || guardians_of(actor.pid()).is_empty());
        assert!(members.iter().all(|pid| alive(*pid)), "round {round}");
        actor.tell();
        actor.hear();
        guardian_of(actor.pid());
    }
    let members: Vec<_> = members.into_iter().map(pidfd).collect();
    actor.kill();
    assert!(members.iter().all(ends));
    base.expect_nothing_left("after a host whose guardians were killed");
}

fn survives_its_guardian() {
    let (one, two) = (Job::new().unwrap(), Job::new().unwrap());
    let members = [sleeper(&one), sleeper(&two)];
    say(format!("{} {}", members[0].id(), members[1].id()));
    loop {
        until_let_go();
        // Whichever job has its next member: the guardian is for all.
        say(sleeper(&one).id());
    }
}

#[test]
fn members_die_with_the_owner_though_a_worker_of_his_lives_on() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "has_a_worker", "");
    let [member, worker] = actor.hear_numbers()[..] else { panic!("two pids") };
    let (member, worker_fd) = (pidfd(member), pidfd(worker));
    actor.kill();
    assert!(ends(member));
    assert!(alive(worker));
    kill(&worker_fd);
    base.expect_nothing_left("after an owner with a worker");
}

fn has_a_worker() {
    let job = Job::new().unwrap();
    let member = sleeper(&job);
    let worker = fork(|| {
        loop {
            std::thread::park();
        }
    });
    say(format!("{} {worker}", member.id()));
    until_let_go();
}

#[test]
fn a_fork_of_the_host_owns_nothing() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "forks", "");
    let [member] = actor.hear_numbers()[..] else { panic!("a pid") };
    assert!(alive(member));
    actor.finish();
    base.expect_nothing_left("after a host that forked");
}

fn forks() {
    let job = Job::new().unwrap();
    let child = sleeper(&job);
    let pid = child.id();
    let mut waiter = job.waiter();
    assert_eq!(waiter.check().unwrap(), None);
    for round in 0..2 {
        let (job, child) = (job.clone(), &child);
        // The fork has a copy of the handle, and drops it when it ends.
        let fork = fork(move || {
            let forked = |error: jobobject::Error| {
                assert_eq!(error.kind(), ErrorKind::Forked, "{error}");
                assert_eq!(error.win32_code(), 6);
            };
            forked(job.members().unwrap_err());
            forked(job.terminate(1).unwrap_err());
            forked(job.stop(15, PATIENCE).unwrap_err());
            forked(job.signal(KILL).unwrap_err());
            forked(job.freeze().unwrap_err());
            forked(job.accounting().unwrap_err());
            forked(job.limits().unwrap_err());
            forked(job.contains(pid).unwrap_err());
            forked(job.contains_child(child).unwrap_err());
            forked(job.assign(std::process::id()).unwrap_err());
            forked(job.wait().unwrap_err());
            forked(sh("exit 0").spawn_in(&job).unwrap_err());
            forked(job.set_limits(jobobject::Limits::default()).unwrap_err());
            forked(job.obstacles().unwrap_err());
            drop(job);
            if round == 1 {
                // It may have jobs of its own.
                let own = Job::new().unwrap();
                let mut member = sleeper(&own);
                assert_eq!(own.members().unwrap(), [member.id()]);
                drop(own);
                assert_eq!(signal_of(&mut member), Some(KILL));
            }
            0
        });
        assert_eq!(reap(fork).code(), Some(0));
        assert!(alive(pid));
    }
    assert_eq!(job.members().unwrap(), [pid]);
    say(pid);
    until_let_go();
    job.terminate(0).unwrap();
    assert!(matches!(end_of(&job).reason, EndReason::Terminated { code: 0, .. }));
}

/// Whether this kernel tells a status that somebody else has taken.
fn tells_taken_statuses() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

fn expect_status_or_taken(job: &Job, child: &mut jobobject::Child, code: i32) {
    assert!(readable(child.as_fd(), PATIENCE));
    let end = end_of(job);
    if tells_taken_statuses() {
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(end.leader.and_then(LeaderEnd::status).unwrap().code(), Some(code));
    } else {
        match child.wait() {
            // We were faster.
            Ok(status) => assert_eq!(status.code(), Some(code)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StatusTaken, "{error}");
                assert!(error.hint().is_some());
            }
        }
        assert!(end.leader.is_some());
    }
}

#[test]
fn a_status_that_the_host_reaped_is_told_or_said_to_be_taken() {
    for role in ["reaps_all", "ignores_children"] {
        let base = Base::new();
        Actor::inside(&base.0, role, "").finish();
        base.expect_nothing_left(role);
    }
}

fn reaps_all() {
    std::thread::spawn(|| {
        loop {
            if waitpid_any(libc::__WALL) < 0 {
                std::thread::yield_now();
            }
        }
    });
    for code in 0..scaled(50, 5) {
        let job = Job::new().unwrap();
        let mut child = sh(&format!("exit {code}")).spawn_in(&job).unwrap();
        expect_status_or_taken(&job, &mut child, code as i32);
    }
}

fn ignores_children() {
    handle_sigchld(libc::SIG_IGN);
    for code in 0..scaled(50, 5) {
        let job = Job::new().unwrap();
        let mut child = sh(&format!("exit {code}")).spawn_in(&job).unwrap();
        expect_status_or_taken(&job, &mut child, code as i32);
    }
}

#[test]
fn a_subreaper_gets_jobs_and_is_told_what_it_sees_of_them() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "is_a_subreaper", "");
    let [member] = actor.hear_numbers()[..] else { panic!("a pid") };
    let member = pidfd(member);
    actor.kill();
    assert!(ends(member));
    base.expect_nothing_left("after a subreaper");
}

fn is_a_subreaper() {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    let job = Job::new().unwrap();
    let mut leader = ready(&job, "(exec setsid sleep 1000 >/dev/null 2>&1) & echo $!");
    status_of(&mut leader);
    let told = job.enforcement().unwrap();
    let (_, how) = told.iter().find(|(kind, _)| *kind == LimitKind::KillOnClose).unwrap();
    let Enforcement::Approximate(why) = how else { panic!("{told:?}") };
    assert!(why.contains("subreaper"), "{why}");
    let left = job.leftover().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    // A guardian that is our child is replaced, and its body buried.
    let us = std::process::id();
    let first = guardian_of(us);
    let ended = pidfd(first);
    kill(&ended);
    assert!(ends(ended));
    let mut next = sh("exit 0").spawn_in(&job).unwrap();
    status_of(&mut next);
    assert_ne!(guardian_of(us), first);
    assert_eq!(state(first), None, "a zombie is left");
    say(left[0].pid);
    until_let_go();
}

#[test]
fn members_die_when_the_host_executes_something_else() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "executes", "");
    let [member] = actor.hear_numbers()[..] else { panic!("a pid") };
    assert!(ends(pidfd(member)));
    assert_eq!(actor.hear(), ["executed"]);
    until("the guardian is gone too", || base.everybody() == [actor.pid()]);
    assert_eq!(base.groups(), [] as [std::path::PathBuf; 0]);
    actor.finish();
    base.expect_nothing_left("after an exec");
}

fn executes() {
    let job = Job::new().unwrap();
    say(sleeper(&job).id());
    // A moment for the test to name the member. It sees its end in any case.
    panic!("{}", std_role("waits", "", None).exec());
}

fn waits() {
    say("executed");
    until_let_go();
}

#[test]
fn members_die_with_the_owner_however_he_dies() {
    for how in ["return", "exit", "_exit", "abort", "segv", "panic", "kill", "term", "thread"] {
        let base = Base::new();
        let mut actor = Actor::inside(&base.0, "dies", how);
        let pids = actor.hear_numbers();
        let members: Vec<_> = pids.into_iter().map(pidfd).collect();
        actor.tell();
        let status = actor.end();
        assert!(members.iter().all(ends), "{how}");
        base.expect_nothing_left(how);
        let signal = status.signal();
        match how {
            "abort" => assert_eq!(signal, Some(libc::SIGABRT)),
            "segv" => assert_eq!(signal, Some(libc::SIGSEGV)),
            "kill" => assert_eq!(signal, Some(KILL)),
            "term" => assert_eq!(signal, Some(libc::SIGTERM)),
            _ => assert_eq!(signal, None, "{how}: {status}"),
        }
    }
}

fn dies() {
    rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    )
    .unwrap();
    let job = Job::new().unwrap();
    let inner = job.child().unwrap();
    let stubborn =
        "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 1000\" & echo ready; exec sleep 1000";
    ready(&job, stubborn);
    ready(&inner, stubborn);
    let pids: Vec<_> = job.members().unwrap().iter().map(u32::to_string).collect();
    say(pids.join(" "));
    until_let_go();
    let forgotten = std::mem::ManuallyDrop::new((job, inner));
    match &*arg() {
        "exit" => std::process::exit(3),
        // SAFETY: it ends the process and nothing else.
        "_exit" => unsafe { libc::_exit(3) },
        "abort" => std::process::abort(),
        "panic" => panic!("as asked"),
        "kill" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap()
        }
        "term" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
                .unwrap()
        }
        // SAFETY: to be wrong is the purpose.
        "segv" => unsafe { std::ptr::null_mut::<u32>().write_volatile(1) },
        "thread" => std::thread::spawn(|| std::process::exit(0)).join().unwrap(),
        _ => drop(std::mem::ManuallyDrop::into_inner(forgotten)),
    }
}

#[test]
fn a_host_that_closes_our_descriptors_loses_its_jobs_and_leaves_nothing() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "closes_all", "");
    assert_eq!(actor.hear(), ["ended"]);
    actor.finish();
    base.expect_nothing_left("after a host that closed all descriptors");
}

/// As `daemon(3)` and many a server's start do. To the guardian it looks like an exec.
fn closes_all() {
    let job = Job::new().unwrap();
    // What was ours is not ours to close any more.
    let member = std::mem::ManuallyDrop::new(sleeper(&job));
    // SAFETY: whatever is closed here is not used as Rust's afterwards, but by the library itself, which
    // must not take harm.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
    until("the member is gone", || !alive(member.id()));
    let _ = (job.terminate(1), job.members(), sh("exit 0").spawn_in(&job));
    say("ended");
    until_let_go();
}

#[test]
fn an_owner_that_becomes_another_user_is_cleaned_up_by_its_guardian() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "becomes_nobody", "");
    let [member] = actor.hear_numbers()[..] else { panic!("a pid") };
    let member = pidfd(member);
    actor.finish();
    assert!(ends(member));
    base.expect_nothing_left("after an owner that became nobody");
}

fn becomes_nobody() {
    let job = Job::new().unwrap();
    let member = sleeper(&job);
    let nobody = rustix::process::Uid::from_raw(65534);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
    let error = job.terminate(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.hint().is_some());
    assert!(alive(member.id()));
    // And for the next job it is too late.
    let error = sh("exit 0").spawn_in(&Job::new().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    say(member.id());
    until_let_go();
}

#[test]
fn an_owner_that_somebody_moves_keeps_its_jobs() {
    let (base, other) = (Base::new(), Base::new());
    let mut actor = Actor::inside(&base.0, "moves_house", other.0.display());
    let words = actor.hear();
    assert_eq!(words, ["moved"]);
    let guardian = guardian_of(actor.pid());
    assert_eq!(group_of(guardian), base.0, "there is one guardian, where it was born");
    actor.kill();
    base.expect_nothing_left("the old place");
    other.expect_nothing_left("the new place");
}

fn moves_house() {
    let old = Job::new().unwrap();
    let mut in_old = sleeper(&old);
    fs::write(format!("{}/cgroup.procs", arg()), "0").unwrap();
    let new = Job::new().unwrap();
    let in_new = sleeper(&new);
    assert!(group_of(in_new.id()).starts_with(arg()));
    assert!(!group_of(in_old.id()).starts_with(arg()));
    // Both go on.
    assert!(sh("exit 0").status_in(&old).unwrap().success());
    old.terminate(1).unwrap();
    assert_eq!(signal_of(&mut in_old), Some(KILL));
    end_of(&old);
    std::mem::forget((sleeper(&old), in_new));
    let _kept = std::mem::ManuallyDrop::new((old, new));
    say("moved");
    until_let_go();
}

#[test]
fn members_outlive_the_thread_that_started_them() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "has_short_threads", "");
    let pids = actor.hear_numbers();
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?}");
    actor.kill();
    base.expect_nothing_left("after short threads");
}

fn has_short_threads() {
    let job = Job::new().unwrap();
    let born: Vec<_> = (0..3)
        .map(|_| {
            let job = job.clone();
            std::thread::spawn(move || sleeper(&job).id()).join().unwrap()
        })
        .collect();
    // The guardian was started by a thread that is gone.
    let guardian = guardian_of(std::process::id());
    say(format!("{} {} {} {guardian}", born[0], born[1], born[2]));
    until_let_go();
}

#[test]
fn a_job_made_while_the_host_exits_is_cleaned_up() {
    let base = Base::new();
    Actor::inside(&base.0, "makes_a_job_at_exit", "").finish();
    base.expect_nothing_left("after an exit handler");
}

fn makes_a_job_at_exit() {
    extern "C" fn late() {
        let job = Job::new().unwrap();
        sleeper(&job);
        std::mem::forget(job);
    }
    // SAFETY: the handler does nothing that an exit handler may not.
    assert_eq!(unsafe { libc::atexit(late) }, 0);
}
