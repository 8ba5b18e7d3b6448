//! Places that `job run` is used in.

use std::process::Command;

use crate::common::{JOB, Live, Scratch, first, open, ran, roots_of, run, sh};

fn script(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text, JOB]);
    crate::common::as_usual(&mut command);
    command
}

#[test]
fn inside_another_it_is_as_if_it_were_not_there() {
    let ran = ran(&mut run(&[JOB, "run", JOB, "run", "sh", "-c", "echo in; exit 9"]));
    assert_eq!((ran.code(), &*ran.out, &*ran.err), (9, "in\n", ""));
}

#[test]
fn its_guardian_is_nobodys_leftover() {
    // If it were one, the outer job would say so and fail.
    for _ in 0..20 {
        let ran = ran(&mut run(&["--on-leftover", "fail", JOB, "run", "true"]));
        assert_eq!((ran.code(), &*ran.err), (0, ""));
    }
}

#[test]
fn a_nested_job_run_that_is_killed_takes_its_members_with_it_and_is_no_leftover() {
    let inner = format!(
        "{JOB} run sh -c 'echo $$; exec sleep 1000' & pid=$!; read line; kill -KILL $pid; \
                         wait $pid 2>/dev/null; echo over; exit 0"
    );
    let mut live = Live::start(&mut sh(&[], &inner));
    let member = open(live.number());
    live.say("kill it");
    assert_eq!(live.line(), "over");
    crate::common::ends(&member, "the member of the inner job");
    assert_eq!(live.end().code(), 0);
}

#[test]
fn the_outer_ones_end_is_the_inner_ones() {
    let mut live = Live::start(&mut run(&[JOB, "run", "sh", "-c", "echo $$; exec sleep 1000"]));
    let member = open(live.number());
    let pid = live.pid();
    live.signal(rustix::process::Signal::KILL);
    live.wait();
    crate::common::ends(&member, "the member of both");
    crate::common::until("the group is removed", || roots_of(pid).is_empty());
}

#[test]
fn a_time_limit_inside_is_seen_outside() {
    let ran = ran(&mut run(&[JOB, "run", "-t", "100ms", "sleep", "1000"]));
    assert_eq!(ran.code(), 124, "{ran:?}");
}

#[test]
fn under_timeout_it_stops_with_what_timeout_sends() {
    let script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut command = Command::new("timeout");
    crate::common::as_usual(&mut command);
    command.args(["600", JOB, "run", "--grace", "1h", "sh", "-c", script]);
    let mut live = Live::start(&mut command);
    assert_eq!(live.line(), "ready");
    // It passes this on as it would send its own: to us, and once more to the group. Where it is
    // busybox's, it is us whom it gets to.
    live.signal(rustix::process::Signal::TERM);
    assert_eq!(live.line(), "asked");
    assert!(matches!(live.end().code(), 124 | 143));
}

#[test]
fn under_xargs_many_run_at_a_time() {
    let ran = ran(&mut script("seq 20 | xargs -n 1 -P 8 $0 run echo"));
    assert_eq!(ran.code(), 0, "{ran:?}");
    let mut seen: Vec<u32> = ran.out.lines().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    assert_eq!(ran.err, "");
}

#[test]
fn in_a_pipeline_each_end_is_seen_by_the_other() {
    let mut command =
        script("$0 run sh -c 'while echo y; do :; done' | $0 run head -n 2; echo over");
    // Python and Rust programs start others with SIGPIPE ignored; a shell does not.
    first(&mut command, || jobobject_sys::signal::set_default(13));
    assert_eq!(ran(&mut command).out, "y\ny\nover\n");
}

#[test]
fn under_make_the_jobserver_is_passed_on() {
    if Command::new("make").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no make here");
        return;
    }
    let scratch = Scratch::new("make");
    let targets = (0..8).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
    let inner = format!("all: {targets}\n\nt%:\n\t@echo $@\n");
    scratch.file("inner.mk", &inner, 0o644);
    let outer = format!("all:\n\t+@{JOB} run $(MAKE) -s -f inner.mk\n");
    scratch.file("Makefile", &outer, 0o644);
    let mut make = Command::new("make");
    make.args(["-s", "-j4"]).current_dir(scratch.path(""));
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        make.env_remove(variable);
    }
    let ran = ran(&mut make);
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(ran.out.lines().count(), 8, "{ran:?}");
    assert!(!ran.err.contains("jobserver"), "{ran:?}");
}

#[test]
fn under_sudo() {
    if Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|sudo| sudo.status.success()) {
        let ran = ran(Command::new("sudo").args(["-n", JOB, "run", "sh", "-c", "exit 4"]));
        assert_eq!(ran.code(), 4, "{ran:?}");
    } else {
        eprintln!("SKIPPED: there is no sudo here");
    }
}

/// Runs a script as the first process of a pid namespace, with a `/proc` of its own.
fn as_init(text: &str) -> Command {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let inner = format!("mount -t proc proc /proc && {text}");
    // The shell outside waits for the one inside, which is the first of its namespace.
    let mut command = script("/bin/sh -c \"$1\" $0; exit $?");
    command.arg(inner);
    first(&mut command, || {
        let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
        // SAFETY: this process has one thread, and is about to execute another program.
        unsafe { unshare_unsafe(flags) }?;
        Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
    });
    command
}

/// Makes an orphan that ends at once and waits until somebody has reaped it.
const ORPHAN: &str = "orphan=$(sh -c \"true & echo \\$!\"); \
                      while [ -e /proc/$orphan ]; do sleep 0.01; done; echo reaped";

#[test]
fn as_the_first_process_of_a_container_it_reaps_what_it_inherits() {
    let text = format!("exec $0 run sh -c '[ $PPID = 1 ] && echo first; {ORPHAN}; exit 6'");
    let ran = ran(&mut as_init(&text));
    assert_eq!((ran.code(), &*ran.out, &*ran.err), (6, "first\nreaped\n", ""));
}

#[test]
fn as_the_first_process_it_tells_a_death_by_signal_as_a_status() {
    // It cannot die of a signal there: the kernel spares it.
    let ran = ran(&mut as_init("exec $0 run sh -c 'kill -TERM $$'"));
    assert_eq!(ran.code(), 143, "{ran:?}");
}

#[test]
fn as_the_first_process_it_stops_and_kills_leftovers_like_anywhere() {
    let leave = "(setsid sleep 1000 >/dev/null 2>&1 &); exit 3";
    let ran = ran(&mut as_init(&format!("exec $0 run sh -c '{leave}'")));
    assert_eq!(ran.code(), 3, "{ran:?}");
    assert!(ran.err.contains("killed what was left over: 1 process"), "{ran:?}");
}

#[test]
fn as_a_subreaper_it_reaps_what_it_inherits() {
    let mut command = sh(&[], &format!("{ORPHAN}; exit 2"));
    first(&mut command, || {
        Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
    });
    let ran = ran(&mut command);
    assert_eq!((ran.code(), &*ran.out), (2, "reaped\n"));
}

#[test]
fn children_of_whoever_became_us_are_reaped_and_not_mistaken_for_the_command() {
    let text = "true & exec $0 run sh -c 'for pid in $(cat /proc/$PPID/task/$PPID/children); do \
                [ $pid = $$ ] || while [ -e /proc/$pid ]; do sleep 0.01; done; done; exit 3'";
    assert_eq!(ran(&mut script(text)).code(), 3);
}

#[test]
fn a_command_that_closes_everything_forks_twice_and_changes_its_name_is_ended() {
    let text = "(setsid sh -c 'exec 0<&- 1>&- 2>&-; echo x > /proc/self/comm; \
                setsid sh -c \"exec sleep 1000\" & exit' &); exit 0";
    let mut live = Live::start(&mut sh(&[], text));
    live.stdin.take();
    let pid = live.pid();
    assert_eq!(live.end().code(), 0);
    assert!(roots_of(pid).is_empty());
}
