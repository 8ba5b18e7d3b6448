//! Reports.

use serde_json::Value;

use crate::common::{Scratch, ran, run, sh};

fn json(text: &str) -> Value {
    let value: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert_eq!(value["schema"], 1);
    value
}

#[test]
fn a_report_for_programs_goes_to_a_file_by_its_suffix() {
    let scratch = Scratch::new("report");
    let file = scratch.path("run.json");
    let option = format!("--report={}", file.display());
    let child = ran(&mut sh(&[&option, "-t", "1h", "-p", "64"], "sh -c 'exit 0'; exit 7"));
    assert_eq!((child.code(), &*child.err), (7, ""));
    let report = json(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(report["command"][0], "/bin/sh");
    assert_eq!(report["exit_status"], 7);
    assert_eq!(report["ended"]["reason"], "exited");
    assert_eq!(report["leader"]["exit_code"], 7);
    assert_eq!(report["leader"]["signal"], Value::Null);
    assert!(report["leader"]["pid"].as_u64().unwrap() > 0);
    let wall = report["wall_seconds"].as_f64().unwrap();
    assert!(wall > 0.0 && wall < 3600.0, "{wall}");
    assert!(report["cpu"]["user_seconds"].as_f64().unwrap() >= 0.0);
    assert!(report["cpu"]["kernel_seconds"].as_f64().unwrap() >= 0.0);
    assert!(report["processes"]["total"].as_u64().unwrap() >= 1);
    assert_eq!(report["leftover"]["processes"].as_array().unwrap().len(), 0);
    let limits = report["limits"].as_array().unwrap();
    let limit = |name: &str| limits.iter().find(|limit| limit["name"] == name).unwrap();
    assert_eq!(limit("time")["value"], "1h");
    assert_eq!(limit("time")["enforcement"], "exact");
    assert_eq!(limit("processes")["value"], "64");
}

#[test]
fn a_report_goes_to_standard_error_and_names_everything() {
    let script = "(setsid sleep 1000 >/dev/null 2>&1 &); exit 0";
    let child = ran(&mut sh(&["--report"], script));
    assert_eq!((child.code(), &*child.out), (0, ""));
    for word in
        ["ended", "exit status 0", "time", "wall", "user", "kernel", "processes", "left over"]
    {
        assert!(child.err.contains(word), "{word} in {child:?}");
    }
}

#[test]
fn a_report_can_go_to_standard_output() {
    let child = ran(&mut sh(&["--report=-", "--report-format=json"], "exit 2"));
    assert_eq!((child.code(), &*child.err), (2, ""));
    assert_eq!(json(&child.out)["exit_status"], 2);
    let child = ran(&mut sh(&["--json", "-q"], "exit 2"));
    assert_eq!(json(&child.err)["exit_status"], 2);
}

#[test]
fn a_report_tells_what_a_limit_and_a_stop_took() {
    let script = "trap '' TERM; while :; do sleep 1000; done";
    let child = ran(&mut sh(&["--json", "-q", "-t", "100ms", "--grace", "50ms"], script));
    let report = json(&child.err);
    assert_eq!(report["exit_status"], 124);
    assert_eq!(report["ended"]["reason"], "limit");
    assert_eq!(report["ended"]["limit"], "time");
    assert_eq!(report["leader"]["signal"], "SIGKILL");
    assert_eq!(report["stop"]["signal"], "SIGTERM");
    assert!(report["stop"]["killed"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["stop"]["seconds"].as_f64().unwrap() > 0.02, "{report}");
}

#[test]
fn a_report_names_what_was_left_over_and_what_became_of_it() {
    let script = "(setsid sleep 1000 >/dev/null 2>&1 &); exit 0";
    let child = ran(&mut sh(&["--json", "-q", "--on-leftover", "fail"], script));
    let report = json(&child.err);
    assert_eq!(report["exit_status"], 125);
    assert_eq!(report["ended"]["reason"], "exited");
    assert_eq!(report["leftover"]["policy"], "fail");
    let left = report["leftover"]["processes"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{report}");
}

#[test]
fn a_report_of_a_command_that_could_not_be_started_says_why() {
    let child = ran(&mut run(&["--report=-", "--report-format=json", "/nonexistent/command"]));
    assert_eq!(child.code(), 127);
    let report = json(&child.out);
    assert_eq!(report["exit_status"], 127);
    assert_eq!(report["ended"]["reason"], "not started");
    assert!(report["ended"]["error"].as_str().unwrap().contains("/nonexistent/command"));
}

#[test]
fn a_report_counts_the_processor_time_of_the_dead() {
    let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; exit 0";
    let child = ran(&mut sh(&["--json", "-q"], script));
    let report = json(&child.err);
    assert!(report["cpu"]["user_seconds"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn verbose_says_what_happens() {
    let child = ran(&mut sh(&["-v", "-t", "100ms"], "exec sleep 1000"));
    assert!(child.err.contains("job: started as process "), "{child:?}");
    assert!(child.err.contains("job: exit status 124"), "{child:?}");
}
