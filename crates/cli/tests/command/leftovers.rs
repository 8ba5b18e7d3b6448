//! What outlives the command.

use rustix::process::Signal;

use crate::common::{Live, ends, has_ended, open, ran, roots_of, sh};

/// Leaves a grandchild with a session of its own behind, and says its number. It holds no descriptor of
/// ours, so that nobody waits for it by mistake.
const LEAVE: &str =
    "(setsid sh -c 'echo $$; exec >&- 2>&-; exec sleep 1000' &) | { read pid; echo $pid; }";

fn leave(options: &[&str], then: &str) -> (Live, u32) {
    let mut live = Live::start(&mut sh(options, &format!("{LEAVE}; read line; {then}")));
    let left = live.number();
    crate::common::becomes(left, "sleep");
    (live, left)
}

#[test]
fn a_grandchild_that_left_the_session_is_killed_with_the_end_of_the_command() {
    let (mut live, left) = leave(&[], "exit 3");
    let left = open(left);
    assert!(!has_ended(&left));
    live.say("end");
    let (pid, ran) = (live.pid(), live.end());
    assert_eq!(ran.code(), 3);
    assert!(has_ended(&left), "it must be gone before we are");
    assert!(ran.err.starts_with("job: killed what was left over: 1 process ("), "{ran:?}");
    assert!(ran.err.contains("sleep"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    assert!(roots_of(pid).is_empty(), "no group may be left");
}

#[test]
fn what_ignores_every_signal_is_killed_as_well() {
    let script = "trap '' HUP INT TERM QUIT; (setsid sh -c 'echo $$; exec >&- 2>&-; \
                  while :; do sleep 1000; done' &) | { read pid; echo $pid; }; read line";
    let mut live = Live::start(&mut sh(&[], script));
    let left = open(live.number());
    live.say("end");
    assert_eq!(live.end().code(), 0);
    assert!(has_ended(&left));
}

#[test]
fn nothing_is_said_of_leftovers_with_quiet() {
    let (mut live, left) = leave(&["-q"], "exit 0");
    let left = open(left);
    live.say("end");
    let ran = live.end();
    assert_eq!((ran.code(), &*ran.err), (0, ""));
    assert!(has_ended(&left));
}

#[test]
fn to_wait_is_to_wait_and_to_say_so() {
    let (mut live, left) = leave(&["--on-leftover", "wait"], "exit 6");
    let process = open(left);
    live.say("end");
    let said = live.err_line();
    assert!(said.starts_with("job: waiting for what is left over: 1 process ("), "{said:?}");
    assert!(!has_ended(&process));
    crate::common::send_signal(left, Signal::TERM);
    let ran = live.end();
    assert_eq!(ran.code(), 6, "the command's own status, when the last one has gone");
    assert!(has_ended(&process));
    assert_eq!(ran.err, "");
}

#[test]
fn waiting_can_be_ended() {
    let (mut live, left) = leave(&["--on-leftover", "wait"], "exit 0");
    let process = open(left);
    live.say("end");
    assert!(live.err_line().contains("waiting"));
    live.signal(Signal::TERM);
    assert_eq!(live.end().code(), 143);
    assert!(has_ended(&process));
}

#[test]
fn to_report_leaves_it_running() {
    let (mut live, left) = leave(&["--on-leftover", "report", "-t", "1h"], "exit 5");
    let process = open(left);
    live.say("end");
    let (pid, ran) = (live.pid(), live.end());
    assert_eq!(ran.code(), 5);
    assert!(ran.err.starts_with("job: left running: 1 process ("), "{ran:?}");
    assert!(!has_ended(&process), "it was to be left running");
    crate::common::send_signal(left, Signal::KILL);
    ends(&process, "what was left running");
    crate::common::until("its group is removed", || roots_of(pid).is_empty());
}

#[test]
fn to_fail_kills_and_fails() {
    let (mut live, left) = leave(&["--on-leftover", "fail"], "exit 0");
    let process = open(left);
    live.say("end");
    let ran = live.end();
    assert_eq!(ran.code(), 125);
    assert!(has_ended(&process));
    assert!(ran.err.contains("killed what was left over"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

#[test]
fn many_leftovers_are_counted_and_some_of_them_named() {
    let script =
        "i=0; while [ $i -lt 12 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; exit 0";
    let ran = ran(&mut sh(&[], script));
    assert_eq!(ran.code(), 0);
    assert!(ran.err.contains("12 processes ("), "{ran:?}");
    assert!(ran.err.contains("and 7 more)"), "{ran:?}");
}

#[test]
fn a_fork_bomb_is_left_behind_by_nobody() {
    // Each forks another and goes on: a moving target that ignores what it can.
    let script = "trap '' TERM HUP INT; bomb() { n=$1; while [ $n -gt 0 ]; do n=$((n-1)); \
                  (setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.01; done' \
                  >/dev/null 2>&1 &); done; }; bomb 40; echo armed; exit 0";
    let mut live = Live::start(&mut sh(&["-q"], script));
    assert_eq!(live.line(), "armed");
    let pid = live.pid();
    assert_eq!(live.end().code(), 0);
    assert!(roots_of(pid).is_empty());
}
