//! Signals to `job run` itself.

use std::process::Command;

use jobobject_sys::signal;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::common::{Live, first, has_ended, open, roots_of, send_signal, sh, state, until};

/// A command that says its number, waits, and ends by itself with 5 when it hears a line.
const WAIT: &str = "echo $$; read line; exit 5";

#[test]
fn term_hup_and_int_stop_every_member() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let script =
            "(setsid sh -c 'trap \"exit 0\" TERM; echo $$; while :; do sleep 0.01; done' &)
                      trap 'exit 0' TERM; echo $$; while :; do sleep 0.01; done";
        let mut live = Live::start(&mut sh(&["--grace", "1h"], script));
        let members = [open(live.number()), open(live.number())];
        live.signal(signal);
        let pid = live.pid();
        let ran = live.end();
        assert_eq!(ran.code(), code, "{signal:?}: {ran:?}");
        assert!(members.iter().all(has_ended), "{signal:?}");
        assert!(ran.said().is_empty(), "nothing is out of the ordinary: {ran:?}");
        assert!(roots_of(pid).is_empty());
    }
}

#[test]
fn what_does_not_leave_is_killed_after_the_grace() {
    let script = "trap '' TERM; echo $$; while :; do sleep 1000; done";
    let mut live = Live::start(&mut sh(&["--grace", "50ms"], script));
    let member = open(live.number());
    live.signal(Signal::TERM);
    assert_eq!(live.end().code(), 143);
    assert!(has_ended(&member));
}

#[test]
fn a_second_term_kills_at_once() {
    let script = "trap '' TERM; echo $$; while :; do sleep 1000; done";
    let mut live = Live::start(&mut sh(&["--grace", "1h"], script));
    let member = open(live.number());
    until("it is killed", || {
        live.signal(Signal::TERM);
        has_ended(&member)
    });
    assert_eq!(live.end().code(), 137);
}

#[test]
fn two_at_once_are_one() {
    // As `timeout` does it: once to us, once to our group.
    let script = "trap 'sleep 0.1; echo bye; exit 0' TERM; echo $$; while :; do sleep 0.01; done";
    let mut live = Live::start(&mut sh(&["--grace", "1h"], script));
    live.number();
    live.signal(Signal::TERM);
    live.signal(Signal::TERM);
    assert_eq!(live.line(), "bye");
    assert_eq!(live.end().code(), 143);
}

#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    let mut command = sh(&[], WAIT);
    first(&mut command, || signal::set_ignored(1));
    let mut live = Live::start(&mut command);
    live.number();
    live.signal(Signal::HUP);
    live.say("go on");
    assert_eq!(live.end().code(), 5);
}

#[test]
fn nohup_works() {
    let mut nohup = Command::new("nohup");
    nohup.arg(crate::common::JOB).args(["run", "sh", "-c", WAIT]);
    if Command::new("nohup").arg("true").output().is_err() {
        eprintln!("SKIPPED: there is no nohup here");
        return;
    }
    let mut live = Live::start(&mut nohup);
    live.number();
    live.signal(Signal::HUP);
    live.say("go on");
    assert_eq!(live.end().code(), 5);
}

#[test]
fn an_interrupt_that_was_ignored_stays_ignored() {
    // As a shell without job control does for what it starts in the background.
    let mut command = sh(&[], WAIT);
    first(&mut command, || signal::set_ignored(2));
    let mut live = Live::start(&mut command);
    live.number();
    live.signal(Signal::INT);
    live.say("go on");
    assert_eq!(live.end().code(), 5);
}

#[test]
fn signals_of_the_users_and_those_sent_in_the_terminals_name_go_to_the_command() {
    for (signal, name) in [
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::QUIT, "QUIT"),
    ] {
        let script =
            format!("trap 'echo got {name}; exit 8' {name}; echo $$; while :; do sleep 0.01; done");
        let mut live = Live::start(&mut sh(&[], &script));
        live.number();
        live.signal(signal);
        assert_eq!(live.line(), format!("got {name}"));
        assert_eq!(live.end().code(), 8);
    }
}

#[test]
fn a_forwarded_quit_that_kills_the_command_kills_us() {
    let mut live = Live::start(&mut sh(&[], "echo $$; exec sleep 1000"));
    crate::common::becomes(live.number(), "sleep");
    live.signal(Signal::QUIT);
    assert_eq!(live.end().signal(), Signal::QUIT.as_raw());
}

#[test]
fn when_the_command_stops_so_do_we_and_we_continue_it() {
    for signal in ["STOP", "TSTP", "TTIN", "TTOU"] {
        let script = format!("echo $$; kill -{signal} $$; echo back; exit 6");
        // A group of its own in a session with a parent: not orphaned, so that all of these stop it.
        let mut command = sh(&[], &script);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut live = Live::start(&mut command);
        let leader = live.number();
        let us = Pid::from_raw(live.pid() as i32).unwrap();
        let seen = stop_of(us);
        let orphaned = seen.is_none();
        if orphaned {
            eprintln!("SKIPPED: {signal}: this session has no process that could continue it");
        } else {
            let number = signals_number(signal);
            assert_eq!(seen, Some(number), "we stop with the same signal");
            assert_eq!(state(leader), Some('T'));
            send_signal(live.pid(), Signal::CONT);
        }
        assert_eq!(live.line(), "back");
        assert_eq!(live.end().code(), 6);
    }
}

/// The signal that a child of ours has been stopped by; `None` if it could not be.
fn stop_of(child: Pid) -> Option<i32> {
    let mut seen = None;
    until("it is stopped or has ended", || {
        let options = WaitOptions::UNTRACED | WaitOptions::NOHANG;
        if let Ok(Some((_, status))) = waitpid(Some(child), options) {
            seen = status.stopping_signal();
            assert!(seen.is_some(), "{status:?}");
        }
        seen.is_some()
    });
    seen
}

fn signals_number(name: &str) -> i32 {
    let signal = match name {
        "STOP" => Signal::STOP,
        "TSTP" => Signal::TSTP,
        "TTIN" => Signal::TTIN,
        _ => Signal::TTOU,
    };
    signal.as_raw()
}

#[test]
fn a_stop_resumes_those_who_are_stopped() {
    let script =
        "(sh -c 'trap \"exit 0\" TERM; echo $$; kill -STOP $$; while :; do sleep 0.01; done' &)
                  trap 'exit 0' TERM; echo $$; while :; do sleep 0.01; done";
    let mut live = Live::start(&mut sh(&["--grace", "1h"], script));
    let members = [live.number(), live.number()];
    until("one of them is stopped", || members.iter().any(|pid| state(*pid) == Some('T')));
    live.signal(Signal::TERM);
    assert_eq!(live.end().code(), 143);
}

#[test]
fn a_command_that_stops_us_can_be_continued_by_anybody() {
    let mut live = Live::start(&mut sh(&[], "kill -STOP $PPID; echo stopped; read line; exit 7"));
    assert_eq!(live.line(), "stopped");
    until("we are stopped", || state(live.pid()) == Some('T'));
    live.signal(Signal::CONT);
    live.say("go on");
    assert_eq!(live.end().code(), 7);
}

#[test]
fn killed_with_sigkill_we_leave_nothing_behind() {
    let script = "trap '' TERM HUP INT; (setsid sh -c 'echo $$; exec sleep 1000' &) ; echo $$; \
                  while :; do sleep 1000; done";
    let mut live = Live::start(&mut sh(&[], script));
    let members = [open(live.number()), open(live.number())];
    let pid = live.pid();
    assert!(!roots_of(pid).is_empty(), "it has a group as long as it runs");
    live.signal(Signal::KILL);
    live.wait();
    for member in &members {
        crate::common::ends(member, "a member");
    }
    until("its group is removed", || roots_of(pid).is_empty());
}
