//! The life of jobs, as the crate's users see it.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::*;
use jobobject::{
    AssignOptions, CommandExt as _, EndOfJobAction, EndReason, Enforcement, ErrorKind, Job,
    JobTime, LeaderEnd, LimitKind, Stdio, Ticks,
};

roles!(assigns_itself, adds_up, burns);

const TERM: i32 = 15;
const KILL: i32 = 9;

/// A member that no polite signal ends.
fn stubborn(job: &Job) -> jobobject::Child {
    ready(job, "trap '' TERM HUP INT; echo ready; exec sleep 1000")
}

/// A time limit that a member has the time to be ready in.
fn short() -> Duration {
    Duration::from_millis(scaled(50, 2_000) as u64)
}

/// Uses user time until it is ended.
fn burns() {
    say("ready");
    loop {
        std::hint::spin_loop();
    }
}

fn burner(job: &Job) -> jobobject::Child {
    let mut child = role_command("burns", "").stdout(Stdio::piped()).spawn_in(job).unwrap();
    hear(child.stdout.as_mut().unwrap());
    child
}

// Start, wait, output

#[test]
fn a_command_is_a_member_from_its_first_instruction() {
    let job = Job::new().unwrap();
    let mut child = sleeper(&job);
    let group = base_of(child.id());
    let output = sh("cat /proc/self/cgroup").output_in(&job).unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(&group));
    assert_eq!(job.members().unwrap(), [child.id()]);
    child.kill().unwrap();
    assert_eq!(signal_of(&mut child), Some(KILL));
    assert_eq!(end_of(&job).reason, EndReason::Exited);
}

/// The group of a process, as the kernel names it.
fn base_of(pid: u32) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

/// What `configure` makes of a command of `std`'s and of ours.
macro_rules! same {
    ($what:literal, $program:expr, |$command:ident| $configure:expr) => {{
        let job = Job::new().unwrap();
        let mut $command = std::process::Command::new($program);
        $configure;
        let theirs = $command.output();
        let mut $command = jobobject::Command::new($program);
        $configure;
        let ours = $command.output_in(&job);
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                assert_eq!(theirs.status, ours.status, "{}", $what);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                assert_eq!(text(&theirs.stdout), text(&ours.stdout), "{}", $what);
                assert_eq!(text(&theirs.stderr), text(&ours.stderr), "{}", $what);
            }
            (Err(theirs), Err(ours)) => {
                // std has no number for what it refuses by itself.
                let theirs_number = theirs.raw_os_error().or(ours.raw_os_error());
                assert_eq!(theirs_number, ours.raw_os_error(), "{}: {ours}", $what);
                assert_eq!(theirs.kind(), std::io::Error::from(ours).kind(), "{}", $what);
            }
            (theirs, ours) => panic!("{}: std says {theirs:?}, we say {ours:?}", $what),
        }
        assert_eq!(job.members().unwrap(), []);
    }};
}

#[test]
fn a_command_behaves_as_one_of_std() {
    let env = "env | grep -v -e ^_= -e ^SHLVL= -e ^PWD= -e ^OLDPWD= | sort";
    same!("arguments", "/bin/sh", |c| c.args(["-c", "echo \"$0\" \"$@\"", "a b", "", "*"]));
    same!("zeroth argument", "/bin/sh", |c| c.arg0("name").args(["-c", "echo $0; exit 3"]));
    same!("found in PATH", "sh", |c| c.args(["-c", "exit 7"]));
    same!("environment", "/bin/sh", |c| c
        .args(["-c", env])
        .env("A", "1")
        .env("A", "2")
        .env("B", ""));
    same!("less environment", "/bin/sh", |c| c
        .args(["-c", env])
        .env("A", "1")
        .env_remove("A")
        .env_remove("HOME"));
    same!("new environment", "/bin/sh", |c| c
        .args(["-c", env])
        .env_clear()
        .envs([("PATH", "/bin:/usr/bin"), ("X", "y")]));
    same!("no PATH", "sh", |c| c.args(["-c", "echo ok"]).env_clear());
    same!("a PATH without it", "sh", |c| c.args(["-c", "echo ok"]).env("PATH", "/nowhere"));
    same!("directory", "/bin/sh", |c| c.args(["-c", "pwd"]).current_dir("/proc"));
    same!("no such directory", "/bin/sh", |c| c.args(["-c", "pwd"]).current_dir("/nowhere"));
    same!("no such program", "/nowhere/at-all", |c| c.arg("x"));
    same!("no such program in PATH", "there-is-no-such-program", |c| c.arg("x"));
    same!("a directory", "/proc", |c| c.arg("x"));
    same!("not executable", "/proc/self/status", |c| c.arg("x"));
    same!("a NUL", "/bin/sh", |c| c.arg("a\0b"));
    same!("too long", "/bin/sh", |c| c.arg("x".repeat(3 << 20)));
    same!("killed", "/bin/sh", |c| c.args(["-c", "kill -9 $$"]));
    same!("aborted", "/bin/sh", |c| c.args(["-c", "ulimit -c 0; kill -ABRT $$"]));
    same!("both streams", "/bin/sh", |c| c.args(["-c", "echo out; echo err >&2"]));
    same!("streams to null", "/bin/sh", |c| c
        .args(["-c", "echo out; echo err >&2"])
        .stdout(fs::File::create("/dev/null").unwrap())
        .stderr(fs::File::create("/dev/null").unwrap()));
    same!("standard input", "cat", |c| c.stdin(fs::File::open("/proc/self/mountinfo").unwrap()));
    same!("no standard input", "cat", |c| c.arg("-"));
    same!("user and group", "/bin/sh", |c| c
        .args(["-c", "id -u; id -g; id -G"])
        .uid(65534)
        .gid(65534));
    same!("user alone", "/bin/sh", |c| c.args(["-c", "id -u; id -g; id -G"]).uid(65534));
    // Not what is ignored: glibc's posix_spawn ignores the two signals that it keeps for itself.
    let signals = "grep -e ^SigBlk -e ^SigCgt /proc/self/status";
    same!("signals", "/bin/sh", |c| c.args(["-c", signals]));
    same!("nothing else of ours", "/bin/sh", |c| c.args(["-c", "umask; ulimit -n; nice"]));
    let group = "set -- $(cat /proc/$$/stat); test $5 = $$ && echo leads; test $6 = $$ || echo in our session";
    same!("process group", "/bin/sh", |c| c.args(["-c", group]).process_group(0));
    same!("no process group", "/bin/sh", |c| c.args(["-c", group]));
}

#[test]
fn a_command_has_no_descriptor_of_ours() {
    let job = Job::new().unwrap();
    let _member = sleeper(&job);
    let list = "for fd in /proc/$$/fd/*; do readlink $fd; done; true";
    let seen = |output: std::process::Output| {
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| !line.starts_with("pipe:"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let ours = seen(sh(list).output_in(&job).unwrap());
    let theirs = std::process::Command::new("/bin/sh").args(["-c", list]).output().unwrap();
    assert_eq!(ours, seen(theirs));
}

#[test]
fn a_command_ignores_what_we_were_started_with_but_not_sigpipe() {
    // SAFETY: no handler is installed. This is what Rust's runtime does, where there is one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let job = Job::new().unwrap();
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = |status: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        u64::from_str_radix(set, 16).unwrap()
    };
    let output = jobobject::Command::new("cat").arg("/proc/self/status").output_in(&job).unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(ignored(&theirs), ignored(&ours) & !(1 << (libc::SIGPIPE - 1)));
}

#[test]
fn a_command_has_the_mask_session_and_group_that_it_was_given() {
    let job = Job::new().unwrap();
    let output = sh("umask").umask(0o027).output_in(&job).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "0027");
    let leads = "set -- $(cat /proc/$$/stat); test $6 = $$";
    assert!(sh(leads).new_session(true).status_in(&job).unwrap().success());
    let mut first = sh("echo ready; exec sleep 1000");
    let mut first = first.process_group(0).stdout(Stdio::piped()).spawn_in(&job).unwrap();
    hear(first.stdout.as_mut().unwrap());
    let same = format!("set -- $(cat /proc/$$/stat); test $5 = {}", first.id());
    assert!(sh(&same).process_group(first.id()).status_in(&job).unwrap().success());
    let groups = sh("id -G").groups(&[7, 8]).gid(9).output_in(&job).unwrap();
    assert_eq!(String::from_utf8(groups.stdout).unwrap().trim(), "9 7 8");
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let path = std::env::temp_dir().join(format!("script-{}", std::process::id()));
    fs::write(&path, "echo by the shell $1\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    let job = Job::new().unwrap();
    let output = jobobject::Command::new(&path).arg("x").output_in(&job);
    fs::remove_file(&path).unwrap();
    assert_eq!(output.unwrap().stdout, b"by the shell x\n");
}

#[test]
fn the_streams_of_a_command_are_pipes_on_demand() {
    let job = Job::new().unwrap();
    let mut command = jobobject::Command::new("cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_in(&job).unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"hello\n").unwrap();
    assert_eq!(hear(child.stdout.as_mut().unwrap()), "hello");
    assert_eq!(child.try_wait().unwrap(), None);
    // Waiting closes its input, which ends it; and what was told once is told again.
    assert!(status_of(&mut child).success());
    assert!(child.wait().unwrap().success());
    assert_eq!(child.try_wait().unwrap().map(|status| status.code()), Some(Some(0)));
    child.kill().unwrap();

    let script =
        "i=0; while [ $i -lt 20000 ]; do echo 0123456789; echo 9876543210 >&2; i=$((i+1)); done";
    let output = within("two full pipes", {
        let job = job.clone();
        let script = script.replace("20000", &scaled(20_000, 8_000).to_string());
        move || sh(&script).output_in(&job).unwrap()
    });
    assert_eq!(output.stdout.len(), scaled(20_000, 8_000) * 11);
    assert_eq!(output.stderr.len(), output.stdout.len());
}

#[test]
fn a_child_that_is_dropped_lives_on() {
    let job = Job::new().unwrap();
    let pid = sleeper(&job).id();
    assert!(job.contains(pid).unwrap() && alive(pid));
    job.terminate(0).unwrap();
    end_of(&job);
}

#[test]
fn what_cannot_be_started_leaves_a_job_as_it_was() {
    let job = Job::new().unwrap();
    for _ in 0..20 {
        let error = jobobject::Command::new("/nowhere").spawn_in(&job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.failed_call(), Some("execve"));
        assert!(error.hint().is_some());
    }
    assert_eq!(job.members().unwrap(), []);
    assert_eq!(job.wait().unwrap().accounting.total_processes.count(), 0);
    // Still unused: it can be nested.
    let outer = Job::new().unwrap();
    let member = sleeper(&outer);
    job.assign_child(&member).unwrap();
    assert!(outer.contains_child(&member).unwrap() && job.contains_child(&member).unwrap());
}

#[test]
fn a_command_of_std_can_be_started_inside() {
    let job = Job::new().unwrap();
    let _member = sleeper(&job);
    for round in 0..2 {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "cat /proc/self/cgroup"]).stdout(std::process::Stdio::piped());
        let child = command.spawn_in(&job).unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().any(|line| line.contains("/job-")), "round {round}: {pid}: {text}");
        // Again after a kill, in whose leaf nobody can be born.
        job.terminate(1).unwrap();
        end_of(&job);
    }
    let error = std::process::Command::new("/nowhere").spawn_in(&job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

// Assignment, membership

#[test]
fn running_processes_are_assigned_by_pid_and_by_child() {
    let job = Job::new().unwrap();
    let outsider = Outsider::new();
    assert!(!job.contains(outsider.pid()).unwrap());
    job.assign(outsider.pid()).unwrap();
    assert!(job.contains(outsider.pid()).unwrap());
    job.assign(outsider.pid()).unwrap(); // Once more is no error.
    let mut free = sh("echo ready; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    hear(free.stdout.as_mut().unwrap());
    assert!(!job.contains_child(&free).unwrap());
    job.assign_child(&free).unwrap();
    assert_eq!(job.members().unwrap(), [outsider.pid(), free.id()]);
    job.terminate(0).unwrap();
    assert_eq!(signal_of(&mut free), Some(KILL));
    end_of(&job);
}

#[test]
fn the_host_can_assign_itself() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "assigns_itself", "");
    let numbers = actor.hear_numbers();
    assert_eq!(numbers[0], actor.pid());
    // Ending the job ends the host, which is a member, and nothing is left of it all the same.
    actor.tell();
    assert_eq!(actor.end().signal(), Some(KILL));
    base.expect_nothing_left("after a job that its owner was in");
}

fn assigns_itself() {
    let job = Job::new().unwrap();
    let us = std::process::id();
    job.assign(us).unwrap();
    assert!(job.contains(us).unwrap());
    assert_eq!(job.members().unwrap(), [us]);
    // What it starts is in it, though not asked for; and jobs it makes are nested in it.
    let mut plain = sh("echo ready; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    hear(plain.stdout.as_mut().unwrap());
    assert!(job.contains_child(&plain).unwrap());
    let inner = Job::new().unwrap();
    let member = sleeper(&inner);
    assert!(job.contains_child(&member).unwrap() && inner.contains_child(&member).unwrap());
    assert!(!inner.contains(us).unwrap());
    assert_eq!(job.members().unwrap(), [us, plain.id(), member.id()]);
    inner.terminate(3).unwrap();
    end_of(&inner);
    plain.kill().unwrap();
    status_of(&mut plain);
    assert_eq!(job.members().unwrap(), [us]);
    say(us);
    until_let_go();
    job.terminate(1).unwrap();
    end_of(&job);
}

#[test]
fn members_are_listed_in_the_order_in_which_they_came() {
    let job = Job::new().unwrap();
    let mut first = ready(&job, "sleep 1000 & echo ready; exec sleep 1000");
    let listed = job.members().unwrap();
    assert_eq!((listed.len(), listed[0]), (2, first.id()));
    let outsider = Outsider::new();
    job.assign(outsider.pid()).unwrap();
    let last = sleeper(&job);
    let order = [first.id(), listed[1], outsider.pid(), last.id()];
    assert_eq!(job.members().unwrap(), order);
    first.kill().unwrap();
    status_of(&mut first);
    assert_eq!(job.members().unwrap(), order[1..]);
}

#[test]
fn the_dead_are_remembered_as_members_while_somebody_holds_them() {
    let job = Job::new().unwrap();
    let other = Job::new().unwrap();
    let mut child = sleeper(&job);
    child.kill().unwrap();
    assert!(readable(child.as_fd(), PATIENCE));
    assert!(job.contains_child(&child).unwrap(), "a zombie");
    assert!(job.contains(child.id()).unwrap(), "a zombie, by its pid");
    child.wait().unwrap();
    assert!(job.contains_child(&child).unwrap(), "reaped");
    assert!(!other.contains_child(&child).unwrap());
    let error = job.contains(child.id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProcessEnded, "{error}");
}

// Nesting

#[test]
fn jobs_nest_in_levels() {
    let outer = Job::new().unwrap();
    let middle = outer.child().unwrap();
    let inner = middle.child().unwrap();
    let mut in_outer = sleeper(&outer);
    let mut in_middle = sleeper(&middle);
    let mut in_inner = sleeper(&inner);
    let pids = [in_outer.id(), in_middle.id(), in_inner.id()];
    let sorted = |job: &Job| {
        let mut pids = job.members().unwrap();
        pids.sort_unstable();
        pids
    };
    let mut all = pids.to_vec();
    all.sort_unstable();
    assert_eq!(sorted(&outer), all);
    let mut two = pids[1..].to_vec();
    two.sort_unstable();
    assert_eq!(sorted(&middle), two);
    assert_eq!(inner.members().unwrap(), [pids[2]]);
    assert!(!inner.contains_child(&in_middle).unwrap());
    assert_eq!(outer.accounting().unwrap().active_processes, Some(3));

    middle.terminate(9).unwrap();
    assert_eq!(signal_of(&mut in_middle), Some(KILL));
    assert_eq!(signal_of(&mut in_inner), Some(KILL));
    for job in [&inner, &middle] {
        let end = end_of(job);
        assert!(matches!(end.reason, EndReason::Terminated { code: 9, .. }), "{end:?}");
    }
    assert!(alive(in_outer.id()));
    assert_eq!(outer.wait_timeout(Duration::ZERO).unwrap(), None);

    // All levels go on.
    let again = sleeper(&inner);
    assert!(outer.contains_child(&again).unwrap() && middle.contains_child(&again).unwrap());
    drop(again);
    outer.terminate(1).unwrap();
    assert_eq!(signal_of(&mut in_outer), Some(KILL));
    assert!(matches!(end_of(&inner).reason, EndReason::Terminated { code: 1, .. }));
    end_of(&outer);
}

#[test]
fn closing_a_nested_job_ends_its_members_alone() {
    let outer = Job::new().unwrap();
    let inner = outer.child().unwrap();
    let outer_member = sleeper(&outer);
    let mut inner_member = sleeper(&inner);
    drop(inner);
    assert_eq!(signal_of(&mut inner_member), Some(KILL));
    assert!(alive(outer_member.id()));
    // The outer one's close ends what is in jobs below, whatever those say.
    let mut spared = outer.child_with(jobobject::Limits::default()).unwrap();
    let mut member = sleeper(&spared);
    drop(std::mem::replace(&mut spared, Job::new().unwrap()));
    assert!(alive(member.id()), "its own job did not ask for the end");
    drop(outer);
    assert_eq!(signal_of(&mut member), Some(KILL));
}

#[test]
fn a_job_whose_parent_is_closed_too_early_says_so() {
    let outer = Job::new().unwrap();
    let inner = outer.child().unwrap();
    drop(outer);
    let error = sh("exit 0").spawn_in(&inner).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Terminating, "{error}");
    let outsider = Outsider::new();
    let error = inner.assign(outsider.pid()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Terminating, "{error}");
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn jobs_that_do_not_fit_into_each_other_refuse() {
    let (one, two) = (Job::new().unwrap(), Job::new().unwrap());
    let in_one = sleeper(&one);
    let mut in_two = sleeper(&two);
    let refused = |error: jobobject::Error| {
        assert_eq!((error.win32_code(), error.win32_detail()), (5, Some(760)), "{error}");
        assert_eq!(error.kind(), ErrorKind::InAnotherJob);
    };
    refused(two.assign_child(&in_one).unwrap_err());
    in_two.kill().unwrap();
    status_of(&mut in_two);
    end_of(&two);
    refused(two.assign_child(&in_one).unwrap_err()); // Once used is used for good.
    let unused = Job::new().unwrap();
    unused.assign_child(&in_one).unwrap();
    let free = Outsider::new();
    two.assign(free.pid()).unwrap();
    refused(unused.assign(free.pid()).unwrap_err()); // It is a child of `one` now.
    let sibling = one.child().unwrap();
    let _in_sibling = sleeper(&sibling);
    refused(sibling.assign_child(&in_one).unwrap_err());
    refused(one.assign(free.pid()).unwrap_err());
    assert!(one.contains_child(&in_one).unwrap() && two.contains(free.pid()).unwrap());
}

// The end

#[test]
fn a_terminated_job_tells_why_and_can_be_used_again() {
    let job = Job::new().unwrap();
    assert!(!job.is_signaled().unwrap());
    for code in [7, u32::MAX] {
        let mut members: Vec<_> = (0..5).map(|_| stubborn(&job)).collect();
        job.terminate(code).unwrap();
        let end = end_of(&job);
        let EndReason::Terminated { code: told, by } = end.reason else { panic!("{end:?}") };
        assert_eq!((told, by.pid), (code, std::process::id()));
        for member in &mut members {
            assert_eq!(signal_of(member), Some(KILL));
        }
        assert!(job.is_signaled().unwrap());
        assert_eq!(job.accounting().unwrap().active_processes, Some(0));
    }
    let mut last = sh("exit 4").spawn_in(&job).unwrap();
    assert_eq!(status_of(&mut last).code(), Some(4));
    assert_eq!(end_of(&job).reason, EndReason::Exited);
}

#[test]
fn nobody_at_all_can_be_terminated_and_waited_for() {
    let job = Job::new().unwrap();
    assert_eq!(job.wait().unwrap().reason, EndReason::Exited);
    job.terminate(5).unwrap();
    job.terminate(6).unwrap();
    assert_eq!(job.wait().unwrap().leader, None);
    assert_eq!(job.signal(TERM).unwrap(), 0);
    assert_eq!(job.stop(TERM, PATIENCE).unwrap().stop.signaled, 0);
    assert_eq!(job.obstacles().unwrap(), []);
    let mut child = sh("exit 0").spawn_in(&job).unwrap();
    assert!(status_of(&mut child).success());
}

#[test]
fn a_stop_asks_first_and_counts_who_needed_what() {
    let job = Job::new().unwrap();
    let mut polite = sleeper(&job);
    let mut deaf = stubborn(&job);
    let mut stopped = ready(&job, "echo ready; kill -STOP $$; exec sleep 1000");
    until_state(stopped.id(), b'T');
    let start = Instant::now();
    let grace = Duration::from_millis(300);
    let end = within("a stop", {
        let job = job.clone();
        move || job.stop(TERM, grace).unwrap()
    });
    assert!(start.elapsed() >= grace);
    assert_eq!((end.stop.signaled, end.stop.left, end.stop.killed), (3, 2, 1), "{end:?}");
    assert!(matches!(end.reason, EndReason::Terminated { code: 137, .. }), "{end:?}");
    assert_eq!(signal_of(&mut polite), Some(TERM));
    assert_eq!(signal_of(&mut stopped), Some(TERM));
    assert_eq!(signal_of(&mut deaf), Some(KILL));

    // Nobody waits for the end of a grace that nobody needs.
    let mut polite = sleeper(&job);
    let end = within("a stop", {
        let job = job.clone();
        move || job.stop(TERM, Duration::from_secs(1000)).unwrap()
    });
    assert_eq!((end.stop.signaled, end.stop.left, end.stop.killed), (1, 1, 0), "{end:?}");
    assert_eq!(signal_of(&mut polite), Some(TERM));
    // And the job is free for the next.
    let mut next = sh("exit 0").spawn_in(&job).unwrap();
    assert!(status_of(&mut next).success());
}

#[test]
fn a_member_that_leaves_at_once_is_counted_though_somebody_reaps_it_at_once() {
    for _ in 0..scaled(100, 10) {
        let job = Job::new().unwrap();
        let mut member = sleeper(&job);
        let reaper = std::thread::spawn(move || signal_of(&mut member));
        let end = job.stop(TERM, PATIENCE).unwrap();
        assert_eq!((end.stop.signaled, end.stop.left, end.stop.killed), (1, 1, 0), "{end:?}");
        assert_eq!(reaper.join().unwrap(), Some(TERM));
    }
}

#[test]
fn a_stop_thaws_who_is_frozen() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    job.freeze().unwrap();
    job.freeze().unwrap();
    let end = within("a stop", {
        let job = job.clone();
        move || job.stop(TERM, PATIENCE).unwrap()
    });
    assert_eq!((end.stop.left, end.stop.killed), (1, 0), "{end:?}");
    assert_eq!(signal_of(&mut member), Some(TERM));
}

#[test]
fn a_signal_reaches_every_member() {
    let job = Job::new().unwrap();
    let inner = job.child().unwrap();
    let mut members = [sleeper(&job), sleeper(&job), sleeper(&inner)];
    assert_eq!(job.signal(10).unwrap(), 3);
    for member in &mut members {
        assert_eq!(signal_of(member), Some(10));
    }
    assert_eq!(end_of(&job).reason, EndReason::Exited);
    for bad in [0, -1, 65, i32::MAX, i32::MIN] {
        assert_eq!(job.signal(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        assert_eq!(job.stop(bad, PATIENCE).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
    }
}

#[test]
fn a_real_time_signal_reaches_members_too() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    assert_eq!(job.signal(40).unwrap(), 1);
    assert_eq!(signal_of(&mut member), Some(40));
    let mut member = sleeper(&job);
    member.signal(41).unwrap();
    assert_eq!(signal_of(&mut member), Some(41));
}

#[test]
fn a_dropped_job_ends_its_members_unless_told_otherwise() {
    let job = Job::new().unwrap();
    let clone = job.clone();
    let mut member = stubborn(&job);
    drop(job);
    assert!(clone.contains_child(&member).unwrap());
    assert_eq!(clone.wait_timeout(Duration::ZERO).unwrap(), None, "a clone keeps it open");
    drop(clone);
    assert_eq!(signal_of(&mut member), Some(KILL));

    let job = Job::builder().kill_on_close(false).create().unwrap();
    let mut member = sleeper(&job);
    job.freeze().unwrap();
    drop(job);
    // Nobody could thaw it any more, so it is thawed: a signal arrives.
    member.signal(TERM).unwrap();
    assert_eq!(signal_of(&mut member), Some(TERM));
}

#[test]
fn kill_on_close_can_be_set_and_taken_back() {
    for kill in [false, true] {
        let job = Job::builder().kill_on_close(!kill).create().unwrap();
        let mut member = sleeper(&job);
        let mut limits = job.limits().unwrap();
        limits.kill_on_close = kill;
        job.set_limits(limits).unwrap();
        drop(job);
        if !kill {
            assert!(alive(member.id()));
            member.kill().unwrap();
        }
        assert_eq!(signal_of(&mut member), Some(KILL));
    }
}

// Waiting

#[test]
fn a_wait_ends_with_the_last_member_not_with_the_leader() {
    let job = Job::new().unwrap();
    let mut leader = ready(&job, "(exec setsid sleep 1000 >/dev/null 2>&1) & echo $!; exit 5");
    let mut waiter = job.waiter();
    assert_eq!(waiter.check().unwrap(), None);
    assert_eq!(status_of(&mut leader).code(), Some(5));
    assert_eq!(job.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    assert_eq!(waiter.check().unwrap(), None);
    let left = job.leftover().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    kill(pidfd(left[0].pid));
    let end = waiter.block(Some(Instant::now() + PATIENCE)).unwrap().unwrap();
    assert_eq!(end.reason, EndReason::Exited);
    assert_eq!(end.leftover.len(), 1, "{end:?}");
    assert_eq!(end.leftover[0].pid, left[0].pid);
    assert_eq!(end.leader.and_then(LeaderEnd::status).unwrap().code(), Some(5));
    assert_eq!(end.accounting.active_processes, None);
    assert!(end.accounting.total_processes.count() >= 2, "{end:?}");
}

#[test]
fn leftovers_are_told_by_name() {
    let job = Job::new().unwrap();
    let mut leader = ready(
        &job,
        "sleep 1000 >/dev/null & until grep -q sleep /proc/$!/comm; do :; done; echo ready",
    );
    status_of(&mut leader);
    let left = job.leftover().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(matches!(&*left[0].command, "sleep" | "busybox"), "{left:?}");
    assert!(job.contains(left[0].pid).unwrap());
}

#[test]
fn a_wait_fits_into_an_event_loop() {
    let job = Job::new().unwrap();
    let members: Vec<_> = (0..3).map(|_| sleeper(&job)).collect();
    let mut waiter = job.waiter();
    assert!(waiter.fd().is_none());
    let mut rounds = 0;
    let end = loop {
        if let Some(end) = waiter.check().unwrap() {
            break end;
        }
        if let Some(member) = members.get(rounds) {
            member.signal(KILL).unwrap();
        }
        rounds += 1;
        let timeout = waiter.recheck_after().unwrap_or(PATIENCE);
        let ready = readable(waiter.fd().unwrap(), timeout);
        assert!(ready || waiter.recheck_after().is_some(), "nothing is heard of the end");
    };
    assert_eq!(end.reason, EndReason::Exited);
    assert!(rounds < 1000, "{rounds} rounds: a busy loop");
}

#[test]
fn many_threads_wait_for_one_job_and_one_child() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    let ends: Vec<_> = (0..8)
        .map(|_| {
            let job = job.clone();
            std::thread::spawn(move || job.wait_timeout(PATIENCE).unwrap().unwrap())
        })
        .collect();
    job.terminate(2).unwrap();
    for end in ends {
        let end = end.join().unwrap();
        assert!(matches!(end.reason, EndReason::Terminated { code: 2, .. }), "{end:?}");
        assert_eq!(end.leader.and_then(LeaderEnd::status).unwrap().signal(), Some(KILL));
    }
    assert_eq!(signal_of(&mut member), Some(KILL));
}

#[test]
fn a_wait_ends_only_after_newcomers_that_came_meanwhile() {
    let job = Job::new().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut first = jobobject::Command::new("cat");
    let first_end = first.stdin(Stdio::piped()).stdout(Stdio::null()).spawn_in(&job).unwrap();
    let waiting = std::thread::spawn({
        let job = job.clone();
        move || job.wait_timeout(PATIENCE).unwrap().unwrap()
    });
    let mut second = sh("echo ready; exec sleep 1000");
    let second = second.stdout(std::os::fd::OwnedFd::from(writer)).spawn_in(&job).unwrap();
    hear(&mut reader);
    drop(first_end); // Closes its input.
    pause(Duration::from_millis(30));
    assert!(!waiting.is_finished());
    second.signal(KILL).unwrap();
    waiting.join().unwrap();
}

// Freezing

/// Whether the kernel has been told to suspend the job of this member.
fn told_to_freeze(member: &jobobject::Child) -> bool {
    let leaf = mount().join(base_of(member.id()).trim_start_matches('/'));
    fs::read_to_string(leaf.parent().unwrap().join("cgroup.freeze")).unwrap().trim() == "1"
}

fn frozen(member: &jobobject::Child) -> bool {
    let leaf = mount().join(base_of(member.id()).trim_start_matches('/'));
    fs::read_to_string(leaf.join("cgroup.events")).unwrap().contains("frozen 1")
}

#[test]
fn freezes_count() {
    let job = Job::new().unwrap();
    let mut command = jobobject::Command::new("cat");
    let mut echo = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_in(&job).unwrap();
    for _ in 0..3 {
        job.freeze().unwrap();
    }
    until("frozen", || frozen(&echo));
    std::io::Write::write_all(echo.stdin.as_mut().unwrap(), b"hello\n").unwrap();
    for left in (0..3).rev() {
        assert!(told_to_freeze(&echo), "{left} more thaws are needed");
        assert!(!readable(echo.stdout.as_ref().unwrap().as_fd(), Duration::from_millis(5)));
        job.thaw().unwrap();
    }
    assert!(!told_to_freeze(&echo));
    assert_eq!(hear(echo.stdout.as_mut().unwrap()), "hello");
    let error = job.thaw().unwrap_err();
    assert_eq!((error.kind(), error.win32_code()), (ErrorKind::InvalidInput, 87), "{error}");
}

#[test]
fn what_is_started_in_a_frozen_job_runs_when_it_is_thawed() {
    let job = Job::new().unwrap();
    // Frozen before there is anything to freeze, and later.
    for _ in 0..3 {
        job.freeze().unwrap();
        let mut child = within("a spawn into a frozen job", {
            let job = job.clone();
            move || sh("echo ran").stdout(Stdio::piped()).spawn_in(&job).unwrap()
        });
        let missing = jobobject::Command::new("/nowhere").spawn_in(&job);
        assert!(job.contains_child(&child).unwrap());
        assert!(!readable(child.stdout.as_ref().unwrap().as_fd(), Duration::from_millis(30)));
        assert_eq!(child.try_wait().unwrap(), None);
        job.thaw().unwrap();
        assert_eq!(hear(child.stdout.as_mut().unwrap()), "ran");
        assert!(status_of(&mut child).success());
        // Only now could it turn out that there is no such program.
        assert_eq!(status_of(&mut missing.unwrap()).code(), Some(127));
        end_of(&job);
    }
}

#[test]
fn a_frozen_job_can_be_killed_and_closed() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    job.freeze().unwrap();
    until("frozen", || frozen(&member));
    let mut unborn = sh("echo never").spawn_in(&job).unwrap();
    job.terminate(1).unwrap();
    assert_eq!(signal_of(&mut member), Some(KILL));
    assert_eq!(signal_of(&mut unborn), Some(KILL));
    end_of(&job);
    // It is frozen still: that is a state of the job's, not of its members.
    let mut next = sh("exit 0").spawn_in(&job).unwrap();
    assert!(!readable(next.as_fd(), Duration::from_millis(20)));
    job.thaw().unwrap();
    assert!(status_of(&mut next).success());
    let mut last = sleeper(&job);
    job.freeze().unwrap();
    drop(job);
    assert_eq!(signal_of(&mut last), Some(KILL));
}

#[test]
fn a_nested_job_is_frozen_with_the_outer_one_and_by_itself() {
    let outer = Job::new().unwrap();
    let inner = outer.child().unwrap();
    let outer_member = sleeper(&outer);
    let inner_member = sleeper(&inner);
    inner.freeze().unwrap();
    until("the inner one frozen", || frozen(&inner_member));
    assert!(!frozen(&outer_member));
    outer.freeze().unwrap();
    inner.thaw().unwrap();
    until("both frozen", || frozen(&outer_member) && frozen(&inner_member));
    let mut child = sh("exit 0").spawn_in(&inner).unwrap();
    outer.thaw().unwrap();
    assert!(status_of(&mut child).success());
    until("both thawed", || !frozen(&outer_member) && !frozen(&inner_member));
}

// Accounting

#[test]
fn accounting_adds_up() {
    Actor::new("adds_up", "").finish();
}

/// The user and system time of our children, the reaped ones.
fn used_by_children() -> Duration {
    // SAFETY: zeros are a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live and writable.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn adds_up() {
    let job = Job::new().unwrap();
    let inner = job.child().unwrap();
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let script = format!("({work}) & ({work}); wait; {work}");
    let before = used_by_children();
    assert!(sh(&script).status_in(&job).unwrap().success());
    assert!(sh(work).status_in(&inner).unwrap().success());
    let end = end_of(&job);
    let used = used_by_children() - before;
    let told = end.accounting.user_time.to_duration() + end.accounting.kernel_time.to_duration();
    let error = used.abs_diff(told);
    assert!(error < Duration::from_millis(20) + used / 10, "children: {used:?}, job: {told:?}");
    assert!(used > Duration::from_millis(50), "{used:?} is no burner");
    let inner = inner.times().unwrap();
    assert!(inner.user_time < end.accounting.user_time, "{inner:?}");
    assert!(inner.user_time.0 > 0);
    assert_eq!(inner.active_processes, None);
    // A pooled group does not hand on what others have used in it.
    drop(job);
    let next = Job::new().unwrap();
    assert!(sh("exit 0").status_in(&next).unwrap().success());
    let next = next.times().unwrap();
    assert!(next.user_time.to_duration() < Duration::from_millis(20), "{next:?}");
}

#[test]
fn what_a_process_used_before_it_was_assigned_counts() {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; exec sleep 1000";
    let outsider = Outsider::running(script);
    let stat = fs::read_to_string(format!("/proc/{}/stat", outsider.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
    let ticks: u64 = fields[12..14].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let before = Duration::from_millis(ticks * 10);
    let job = Job::new().unwrap();
    job.assign(outsider.pid()).unwrap();
    let told = job.accounting().unwrap();
    let user = told.user_time.to_duration();
    let used = user + told.kernel_time.to_duration();
    assert!(
        used.abs_diff(before) < Duration::from_millis(30) + before / 10,
        "{used:?}, {before:?}"
    );
    assert!(user > Duration::ZERO, "{told:?}"); // Which mode it was is sampled.
    assert_eq!((told.active_processes, told.total_processes.count()), (Some(1), 1));
}

#[test]
fn parents_are_charged_for_the_jobs_below() {
    let outer = Job::new().unwrap();
    let inner = outer.child().unwrap();
    for _ in 0..3 {
        assert!(sh("exit 0").status_in(&inner).unwrap().success());
    }
    let member = sleeper(&inner);
    for job in [&outer, &inner] {
        let told = job.accounting().unwrap();
        assert_eq!((told.active_processes, told.total_processes.count()), (Some(1), 4));
    }
    drop(inner);
    assert!(ends(&member));
    end_of(&outer);
    assert_eq!(outer.accounting().unwrap().total_processes.count(), 4);
}

// Limits

#[test]
fn own_spawns_never_exceed_the_process_limit() {
    for limit in [1, 10] {
        let job = Job::builder().processes(limit).create().unwrap();
        let refused = AtomicU32::new(0);
        let born = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        match jobobject::Command::new("sleep").arg("1000").spawn_in(&job) {
                            Ok(child) => born.lock().unwrap().push(child),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
                                assert_eq!(error.win32_code(), 1816);
                                refused.fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let born = born.into_inner().unwrap();
        assert_eq!((born.len() as u32, refused.into_inner()), (limit, 32 - limit));
        assert!(born.iter().all(|child| alive(child.id())));
        // A place that becomes free is given away again.
        born[0].signal(KILL).unwrap();
        assert!(ends(&born[0]));
        let next = sleeper(&job);
        assert!(alive(next.id()));
    }
}

#[test]
fn an_assignment_over_the_limit_ends_the_candidate() {
    let job = Job::builder().processes(1).create().unwrap();
    let member = sleeper(&job);
    let mut candidate = Outsider::new();
    let error = job.assign(candidate.pid()).unwrap_err();
    assert_eq!((error.kind(), error.win32_code()), (ErrorKind::LimitReached, 1816), "{error}");
    assert_eq!(candidate.end().signal(), Some(KILL));
    assert!(alive(member.id()));
    let told = job.accounting().unwrap();
    assert_eq!((told.active_processes, told.total_processes.count()), (Some(1), 2), "{told:?}");
    assert_eq!(job.members().unwrap(), [member.id()]);
}

#[test]
fn a_limit_of_no_process_lets_nobody_in() {
    let job = Job::builder().processes(0).create().unwrap();
    assert_eq!(sh("exit 0").spawn_in(&job).unwrap_err().win32_code(), 1816);
    let mut candidate = Outsider::new();
    assert_eq!(job.assign(candidate.pid()).unwrap_err().win32_code(), 1816);
    assert_eq!(candidate.end().signal(), Some(KILL));
}

#[test]
fn forks_over_the_limit_are_ended_the_newest_first() {
    let job = Job::builder().processes(5).create().unwrap();
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo ready; wait; exec sleep 1000";
    let leader = ready(&job, script);
    until("trimmed", || job.accounting().unwrap().active_processes == Some(5));
    let members = job.members().unwrap();
    assert_eq!(members.len(), 5);
    assert!(members.contains(&leader.id()), "the oldest stays");
    job.terminate(0).unwrap();
    let end = end_of(&job);
    assert!(end.over_limit >= 6, "{end:?}");
}

#[test]
fn lowering_the_process_limit_ends_nobody() {
    let job = Job::builder().processes(8).create().unwrap();
    let members: Vec<_> = (0..5).map(|_| sleeper(&job)).collect();
    let mut limits = job.limits().unwrap();
    limits.active_processes = Some(2);
    job.set_limits(limits).unwrap();
    pause(Duration::from_millis(100)); // Ten looks.
    assert!(members.iter().all(|member| alive(member.id())));
    assert_eq!(sh("exit 0").spawn_in(&job).unwrap_err().win32_code(), 1816);
    for member in &members[..4] {
        member.signal(KILL).unwrap();
        assert!(ends(member));
    }
    assert!(sh("exit 0").status_in(&job).unwrap().success());
}

#[test]
fn the_process_limit_of_an_outer_job_binds_below() {
    let outer = Job::builder().processes(2).create().unwrap();
    let inner = outer.child().unwrap();
    let _members = [sleeper(&outer), sleeper(&inner)];
    assert_eq!(sh("exit 0").spawn_in(&inner).unwrap_err().win32_code(), 1816);
    // Moving down inside the outer job adds nobody to it.
    let third = outer.child().unwrap();
    third.assign_child(&_members[0]).unwrap();
    assert!(third.contains_child(&_members[0]).unwrap());
}

#[test]
fn a_used_up_cpu_time_ends_the_job_and_keeps_newcomers_out() {
    for action in [EndOfJobAction::Terminate, EndOfJobAction::Post] {
        let limit = Duration::from_millis(scaled(200, 3_000) as u64);
        let job = Job::builder().cpu_time(limit).end_of_job(action).create().unwrap();
        let mut burners = [burner(&job), burner(&job)];
        let end = end_of(&job);
        assert_eq!(end.reason, EndReason::Limit(LimitKind::JobTime));
        assert!(burners.iter_mut().all(|burner| signal_of(burner) == Some(KILL)));
        let used = end.accounting.user_time.to_duration();
        assert!(used >= limit, "{used:?}");
        assert!(used < limit + Duration::from_millis(scaled(150, 1_500) as u64), "{used:?}");
        assert_eq!(end.accounting.terminated_processes, 2, "{end:?}");
        assert!(job.is_signaled().unwrap());

        let error = sh("exit 0").spawn_in(&job).unwrap_err();
        assert_eq!((error.kind(), error.win32_code()), (ErrorKind::LimitReached, 1816), "{error}");
        let mut candidate = Outsider::new();
        assert_eq!(job.assign(candidate.pid()).unwrap_err().win32_code(), 1816);
        assert_eq!(candidate.end().signal(), Some(KILL));

        let mut limits = job.limits().unwrap();
        limits.job_time = JobTime::Limit(Ticks::from_duration(limit));
        job.set_limits(limits).unwrap();
        assert!(!job.is_signaled().unwrap());
        assert!(sh("exit 0").status_in(&job).unwrap().success());
        let mut burner = burner(&job);
        assert_eq!(end_of(&job).reason, EndReason::Limit(LimitKind::JobTime));
        assert_eq!(signal_of(&mut burner), Some(KILL));
    }
}

#[test]
fn the_past_of_an_assigned_process_counts_against_the_cpu_time() {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; exec sleep 1000";
    let mut old = Outsider::running(script);
    let job = Job::builder().cpu_time(Duration::from_millis(30)).create().unwrap();
    job.assign(old.pid()).unwrap();
    assert_eq!(old.end().signal(), Some(KILL));
    assert_eq!(end_of(&job).reason, EndReason::Limit(LimitKind::JobTime));
}

#[test]
fn a_wall_clock_time_ends_the_job() {
    let limit = Duration::from_millis(scaled(150, 2_000) as u64);
    let job = Job::builder().time(limit).create().unwrap();
    pause(limit); // It begins with the first member.
    let start = Instant::now();
    let mut member = stubborn(&job);
    let end = end_of(&job);
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
    assert!(
        start.elapsed() < limit + Duration::from_secs(scaled(2, 15) as u64),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(end.reason, EndReason::Limit(LimitKind::WallTime));
    assert_eq!(signal_of(&mut member), Some(KILL));
    assert_eq!(sh("exit 0").spawn_in(&job).unwrap_err().win32_code(), 1816);
}

#[test]
fn a_time_limit_with_grace_asks_first() {
    let job =
        Job::builder().time(short()).grace(TERM, Duration::from_millis(200)).create().unwrap();
    let mut polite = sleeper(&job);
    let mut deaf = stubborn(&job);
    let end = end_of(&job);
    assert_eq!(end.reason, EndReason::Limit(LimitKind::WallTime));
    assert_eq!((end.stop.signaled, end.stop.left, end.stop.killed), (2, 1, 1), "{end:?}");
    assert_eq!(signal_of(&mut polite), Some(TERM));
    assert_eq!(signal_of(&mut deaf), Some(KILL));
}

#[test]
fn a_time_limit_strikes_a_frozen_job() {
    let job = Job::builder().time(short()).create().unwrap();
    let mut member = sleeper(&job);
    job.freeze().unwrap();
    assert_eq!(end_of(&job).reason, EndReason::Limit(LimitKind::WallTime));
    assert_eq!(signal_of(&mut member), Some(KILL));
}

#[test]
fn a_limit_can_be_taken_off_in_time() {
    let limit = Duration::from_millis(scaled(300, 3_000) as u64);
    let job = Job::builder().time(limit).create().unwrap();
    let member = sleeper(&job);
    let mut limits = job.limits().unwrap();
    assert_eq!(limits.wall_time, Some(limit));
    limits.wall_time = None;
    job.set_limits(limits).unwrap();
    assert_eq!(job.wait_timeout(limit + Duration::from_millis(100)).unwrap(), None);
    assert!(alive(member.id()));
}

#[test]
fn extreme_limits_are_kept_or_refused_but_never_wrap() {
    let forever = Job::builder()
        .time(Duration::MAX)
        .cpu_time(Duration::MAX)
        .processes(u32::MAX)
        .grace(TERM, Duration::MAX)
        .create()
        .unwrap();
    assert!(sh("exit 0").status_in(&forever).unwrap().success());
    assert_eq!(end_of(&forever).reason, EndReason::Exited);
    let member = sleeper(&forever);
    forever.begin_stop(10, Duration::MAX).unwrap();
    assert!(ends(&member));
    let none = Job::builder().time(Duration::ZERO).cpu_time(Duration::ZERO).create().unwrap();
    if let Ok(mut child) = sh("exec sleep 1000").spawn_in(&none) {
        assert_eq!(signal_of(&mut child), Some(KILL));
        assert!(matches!(end_of(&none).reason, EndReason::Limit(_)));
    }
    let error = Job::builder().grace(77, Duration::ZERO).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn how_well_limits_are_kept_is_told() {
    let job = Job::builder()
        .processes(3)
        .time(Duration::from_secs(1000))
        .cpu_time(Duration::from_secs(1000))
        .create()
        .unwrap();
    let _member = sleeper(&job);
    let told = job.enforcement().unwrap();
    let of = |kind| &told.iter().find(|(told, _)| *told == kind).unwrap().1;
    assert_eq!(*of(LimitKind::KillOnClose), Enforcement::Exact);
    assert_eq!(*of(LimitKind::JobTime), Enforcement::Exact);
    assert_eq!(*of(LimitKind::WallTime), Enforcement::Exact);
    let Enforcement::Approximate(why) = of(LimitKind::ActiveProcesses) else { panic!("{told:?}") };
    assert!(why.contains("10 ms"), "{why}");
    let plain = Job::builder().kill_on_close(false).create().unwrap();
    assert_eq!(plain.enforcement().unwrap(), []);
}

#[test]
fn foreign_processes_are_taken_only_when_asked_for() {
    let foreign = Base::new();
    let outsider = Outsider::new();
    fs::write(foreign.0.join("cgroup.procs"), outsider.pid().to_string()).unwrap();
    let job = Job::new().unwrap();
    let error = job.assign(outsider.pid()).unwrap_err();
    assert_eq!((error.kind(), error.win32_code()), (ErrorKind::PermissionDenied, 5), "{error}");
    assert!(error.hint().unwrap().contains("from_foreign"));
    job.assign_with(outsider.pid(), AssignOptions { from_foreign: true }).unwrap();
    assert!(job.contains(outsider.pid()).unwrap());
}

#[test]
fn a_job_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Job>();
    let job = Arc::new(Job::new().unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let job = Arc::clone(&job);
            std::thread::spawn(move || {
                for _ in 0..scaled(25, 5) {
                    assert!(sh("exit 0").status_in(&job).unwrap().success());
                    job.members().unwrap();
                    job.times().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(end_of(&job).accounting.total_processes.count(), scaled(100, 20) as u64);
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::*;

    #[tokio::test]
    async fn a_job_is_awaited() {
        let job = Job::new().unwrap();
        assert_eq!(job.wait_async().await.unwrap().reason, EndReason::Exited);
        let mut member = sleeper(&job);
        let given_up = tokio::time::timeout(Duration::from_millis(20), job.wait_async()).await;
        assert!(given_up.is_err());
        let waiting = tokio::spawn({
            let job = job.clone();
            async move { job.wait_async().await.unwrap() }
        });
        tokio::task::yield_now().await;
        job.terminate(3).unwrap();
        let end = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert!(matches!(end.reason, EndReason::Terminated { code: 3, .. }), "{end:?}");
        let status = tokio::time::timeout(PATIENCE, member.wait_async()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(KILL));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn children_are_awaited_side_by_side() {
        let job = Job::new().unwrap();
        let mut waits = Vec::new();
        for code in 0..scaled(20, 5) {
            let mut child = sh(&format!("exit {code}")).spawn_in(&job).unwrap();
            waits.push(tokio::spawn(async move { child.wait_async().await.unwrap().code() }));
        }
        for (code, wait) in waits.into_iter().enumerate() {
            let told = tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
            assert_eq!(told, Some(code as i32));
        }
        tokio::time::timeout(PATIENCE, job.wait_async()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_limit_strikes_while_the_job_is_awaited() {
        let job = Job::builder().time(short()).create().unwrap();
        let _member = sleeper(&job);
        let end = tokio::time::timeout(PATIENCE, job.wait_async()).await.unwrap().unwrap();
        assert_eq!(end.reason, EndReason::Limit(LimitKind::WallTime));
    }
}
