//! Limits, and how they are told.

use crate::common::{Live, has_ended, open, ran, roots_of, run, sh};

#[test]
fn a_time_limit_is_124_whatever_the_command_answers() {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let ran = ran(&mut sh(&["-t", "100ms"], script));
    assert_eq!(ran.code(), 124, "{ran:?}");
    let [said] = ran.said()[..] else { panic!("one line is enough: {ran:?}") };
    assert!(said.starts_with("job: time limit of 100ms reached: "), "{ran:?}");
}

#[test]
fn a_command_that_ends_in_time_is_not_touched() {
    let ran = ran(&mut sh(&["-t", "1h", "--cpu-time", "1h", "-p", "1000"], "exit 3"));
    assert_eq!((ran.code(), &*ran.err), (3, ""));
}

#[test]
fn what_ignores_the_stop_signal_is_killed_after_the_grace() {
    let script = "trap '' TERM; echo $$; setsid sh -c 'echo $$; exec sleep 1000' & \
                  while :; do sleep 1000; done";
    let mut live = Live::start(&mut sh(&["-t", "300ms", "--grace", "50ms"], script));
    let members = [open(live.number()), open(live.number())];
    let pid = live.pid();
    let ran = live.end();
    assert_eq!(ran.code(), 124);
    assert!(members.iter().all(has_ended));
    assert!(ran.err.contains("killed after 50ms"), "{ran:?}");
    assert!(roots_of(pid).is_empty());
}

#[test]
fn everybody_is_asked_and_has_the_grace() {
    let script = "sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.01; done' & \
                  trap 'wait; echo parent; exit 0' TERM; while :; do sleep 0.01; done";
    let ran = ran(&mut sh(&["-t", "500ms", "--grace", "1m"], script));
    assert_eq!(ran.code(), 124);
    assert!(ran.out.contains("child\n") && ran.out.contains("parent\n"), "{ran:?}");
}

#[test]
fn the_stop_signal_can_be_chosen() {
    for signal in ["USR1", "SIGUSR1", "10"] {
        let script = "trap 'echo usr1; exit' USR1; while :; do sleep 0.01; done";
        let ran = ran(&mut sh(&["-t", "200ms", "--stop-signal", signal], script));
        assert_eq!((ran.code(), &*ran.out), (124, "usr1\n"), "{}", ran.err);
    }
}

#[test]
fn without_grace_it_is_killed_at_once() {
    let script = "trap 'echo asked; exit' TERM; while :; do :; done";
    let ran = ran(&mut sh(&["-t", "100ms", "--grace", "0s", "--stop-signal", "KILL"], script));
    assert_eq!((ran.code(), &*ran.out), (124, ""));
}

#[test]
fn cpu_time_is_limited_for_all_together() {
    let script = "burn() { while :; do :; done; }; burn & burn & wait";
    let ran = ran(&mut sh(&["--cpu-time", "200ms", "--grace", "0s"], script));
    assert_eq!(ran.code(), 124, "{ran:?}");
    assert!(ran.err.contains("job: CPU time limit of 200ms reached: "), "{ran:?}");
}

#[test]
fn waiting_uses_up_no_cpu_time() {
    let ran = ran(&mut sh(&["--cpu-time", "10s"], "sleep 0.1; exit 2"));
    assert_eq!((ran.code(), &*ran.err), (2, ""));
}

#[test]
fn processes_over_the_limit_are_killed_and_told() {
    let script = "i=0; while [ $i -lt 5 ]; do sleep 1000 & i=$((i+1)); done; wait; echo all gone";
    let ran = ran(&mut sh(&["-p", "1", "-t", "1m"], script));
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(ran.out.contains("all gone"), "{ran:?}");
    assert!(ran.err.contains("over the limit of 1 killed"), "{ran:?}");
}

#[test]
fn a_stopped_command_meets_its_time_limit() {
    // Without a terminal there is nobody to continue it: we go on, so that the clock does.
    let ran = ran(&mut sh(&["-t", "200ms"], "kill -STOP $$; exit 0"));
    assert_eq!(ran.code(), 124, "{ran:?}");
}

#[test]
fn a_limit_binds_what_is_waited_for_too() {
    let script = "(setsid sleep 1000 >/dev/null 2>&1 &); exit 0";
    let ran = ran(&mut sh(&["--on-leftover", "wait", "-t", "300ms"], script));
    assert_eq!(ran.code(), 124, "{ran:?}");
}

#[test]
fn best_effort_runs_with_what_can_be_kept() {
    let ran = ran(&mut run(&["--best-effort", "-p", "64", "-t", "1h", "true"]));
    assert_eq!(ran.code(), 0, "{ran:?}");
}
