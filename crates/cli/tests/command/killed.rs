//! `job run` may be killed at any instruction: the command and all it has started die, and no group is left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;

use crate::common::{JOB, as_usual, first, mount, send_signal, until};

/// A command that leaves stubborn processes behind, outside its session.
const COMMAND: &str = "trap '' TERM HUP INT
    for i in 1 2; do setsid sh -c \"trap '' TERM; sleep 1000\" & done
    exit 0";

/// A group that everything happens in, so that whatever is left is seen.
struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = mount().join(format!("test-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn is_clean(&self) -> bool {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        let groups = entries.filter(|entry| entry.path().is_dir()).count();
        groups == 0 && fs::read_to_string(self.0.join("cgroup.procs")).unwrap().is_empty()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let _ = fs::remove_dir(&self.0);
    }
}

/// `job run` under strace, in the group. Without -f: nobody else is traced, and nobody else is killed.
fn traced(base: &Base, options: &[&str]) -> ExitStatus {
    let mut strace = Command::new("strace");
    strace.arg("-qqq").args(options);
    strace.args([JOB, "run", "--time", "10m", "--", "/bin/sh", "-c", COMMAND]);
    as_usual(&mut strace);
    let join = base.0.join("cgroup.procs");
    first(&mut strace, move || fs::write(&join, "0"));
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().unwrap()
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed_at_any_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: there is no strace, which kills at a given system call");
        return;
    }
    let Ok(base) = Base::new("killed") else {
        eprintln!("SKIPPED: no group can be made here");
        return;
    };
    let trace = std::env::temp_dir().join(format!("trace-run-{}", std::process::id()));
    assert!(traced(&base, &["-o", trace.to_str().unwrap()]).success());
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(trace).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let names: BTreeSet<&str> = names.filter(is_name).collect();
    let mut killed = 0;
    for name in names {
        for nth in 1.. {
            let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
            let status = traced(&base, &["-o", "/dev/null", "-e", &inject]);
            until(&format!("nothing is left, killed at {name} number {nth}"), || base.is_clean());
            if status.success() {
                break; // There are no more of them.
            }
            assert_eq!(status.signal(), Some(9), "at {name} number {nth}: {status}");
            killed += 1;
        }
    }
    assert!(killed > 100, "{killed} system calls: that was not a whole run");
}

/// The guardian in the group, one that lives and is not `but`.
fn guardian(base: &Base, but: Option<u32>) -> Option<u32> {
    let members = fs::read_to_string(base.0.join("cgroup.procs")).unwrap();
    let comm = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut pids = members.lines().filter_map(|pid| pid.parse().ok());
    pids.find(|pid| Some(*pid) != but && comm(*pid).trim() == "job-guardian")
}

#[test]
fn a_guardian_that_was_killed_is_followed_by_another_while_the_command_runs() {
    let Ok(base) = Base::new("guardian") else {
        eprintln!("SKIPPED: no group can be made here");
        return;
    };
    let mut run = Command::new(JOB);
    run.args(["run", "--", "/bin/sh", "-c", "setsid sleep 1000 & sleep 1000"]);
    as_usual(&mut run);
    let join = base.0.join("cgroup.procs");
    first(&mut run, move || fs::write(&join, "0"));
    let mut run = run.stdin(Stdio::null()).spawn().unwrap();
    let mut killed = None;
    for _ in 0..2 {
        until("there is a guardian", || guardian(&base, killed).is_some());
        let pid = guardian(&base, killed).unwrap();
        send_signal(pid, Signal::KILL);
        killed = Some(pid);
    }
    until("there is another guardian", || guardian(&base, killed).is_some());
    run.kill().unwrap();
    run.wait().unwrap();
    until("nothing is left", || base.is_clean());
}
