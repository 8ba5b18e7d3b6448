//! `job which` and `job explain`.

use std::process::Command;

use serde_json::Value;

use crate::common::{JOB, Live, ran, run};

fn job(words: &[&str]) -> Command {
    let mut command = Command::new(JOB);
    command.args(words);
    command
}

#[test]
fn which_shows_the_chain_of_jobs_around_a_process() {
    let mut live = Live::start(&mut run(&[JOB, "run", "sh", "-c", "echo $$; read line"]));
    let pid = live.number().to_string();
    let answer = ran(&mut job(&["which", &pid]));
    assert_eq!(answer.code(), 0, "{answer:?}");
    assert!(answer.out.contains("is in 2 jobs, the innermost first:"), "{answer:?}");
    assert!(answer.out.contains(&format!("of process {} (job)", live.pid())), "{answer:?}");

    let answer = ran(&mut job(&["which", "--json", &pid]));
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["win32_code"], 760);
    let jobs = value["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[1]["owner"]["pid"], live.pid());
    assert_eq!(jobs[1]["kill_on_close"], true);
    assert!(jobs[0]["group"].as_str().unwrap().starts_with(jobs[1]["group"].as_str().unwrap()));

    live.say("end");
    assert_eq!(live.end().code(), 0);
}

#[test]
fn which_says_that_a_process_is_in_no_job() {
    let pid = std::process::id().to_string();
    let inside = ran(&mut job(&["which", &pid]));
    if inside.code() == 0 {
        eprintln!("SKIPPED: these tests run inside a job");
        return;
    }
    assert_eq!(inside.code(), 1, "{inside:?}");
    assert!(
        inside.out.contains("is not part of a job: ERROR_PROCESS_NOT_IN_JOB (759)"),
        "{inside:?}"
    );
    let answer = ran(&mut job(&["which", "--json", &pid]));
    assert_eq!(answer.code(), 1);
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(value["win32_code"], 759);
}

#[test]
fn which_knows_init_and_the_kernels_own_and_refuses_what_is_no_process() {
    assert_eq!(ran(&mut job(&["which", "1"])).code(), 1);
    // kthreadd, where it can be seen.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        assert_eq!(ran(&mut job(&["which", "2"])).code(), 1);
    }
    let answer = ran(&mut job(&["which", "2147483647"]));
    assert_eq!(answer.code(), 125);
    assert!(answer.err.starts_with("job: there is no process 2147483647\nhint: "), "{answer:?}");
    for word in ["0", "-1", "self", "", "4294967296"] {
        let answer = ran(&mut job(&["which", word]));
        assert_eq!(answer.code(), 125, "{word:?}");
        assert!(answer.err.starts_with("job: "), "{answer:?}");
    }
}

#[test]
fn which_answers_about_a_zombie() {
    let mut child = Command::new("true").stdin(std::process::Stdio::null()).spawn().unwrap();
    let pid = child.id();
    crate::common::until("it has ended", || crate::common::state(pid) == Some('Z'));
    let answer = ran(&mut job(&["which", &pid.to_string()]));
    assert!(matches!(answer.code(), 0 | 1), "{answer:?}");
    child.wait().unwrap();
}

#[test]
fn explain_takes_codes_in_every_form() {
    for (word, name) in [
        ("759", "ERROR_PROCESS_NOT_IN_JOB"),
        ("0x2f8", "ERROR_PROCESS_IN_JOB"),
        ("ERROR_NOT_ENOUGH_QUOTA", "ERROR_NOT_ENOUGH_QUOTA"),
        ("access_denied", "ERROR_ACCESS_DENIED"),
        ("0xC0000044", "STATUS_QUOTA_EXCEEDED"),
        ("-1073741756", "STATUS_QUOTA_EXCEEDED"),
    ] {
        let answer = ran(&mut job(&["explain", word]));
        assert_eq!(answer.code(), 0, "{word}: {answer:?}");
        assert!(answer.out.starts_with(name), "{word}: {answer:?}");
        assert!(answer.out.contains("\n  to do "), "{word}: {answer:?}");
    }
}

#[test]
fn explain_knows_every_code_of_the_list_and_says_so_of_others() {
    for code in [0, 2, 5, 6, 8, 24, 50, 87, 183, 234, 258, 759, 760, 998, 1314, 1450, 1816] {
        assert_eq!(ran(&mut job(&["explain", &code.to_string()])).code(), 0, "{code}");
    }
    let answer = ran(&mut job(&["explain", "4711"]));
    assert_eq!(answer.code(), 125);
    assert!(answer.err.starts_with("job: nothing is known about `4711`\nhint: "), "{answer:?}");
}

#[test]
fn explain_lists_all_for_people_and_for_programs() {
    let answer = ran(&mut job(&["explain"]));
    assert!(answer.out.lines().count() >= 17, "{answer:?}");
    let answer = ran(&mut job(&["explain", "--json"]));
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(value["schema"], 1);
    assert!(value["codes"].as_array().unwrap().len() >= 17);
}

#[test]
fn no_subcommand_and_an_unknown_one_are_usage_errors() {
    for words in [&[][..], &["walk"], &["runn", "true"]] {
        let answer = ran(&mut job(words));
        assert_eq!(answer.code(), 125, "{words:?}");
        assert!(!answer.err.is_empty());
    }
}
