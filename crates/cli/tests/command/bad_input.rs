//! What cannot be done is refused clearly, before anything has started.

use std::process::Command;

use crate::common::{Ran, Scratch, ran, run, sh};

fn refused(words: &[&str]) -> Ran {
    let scratch = Scratch::new("never");
    let started = scratch.path("started");
    let script = format!("echo > {}", started.display());
    let ran = ran(&mut sh(words, &script));
    assert_eq!(ran.code(), 125, "{words:?}: {ran:?}");
    assert!(ran.err.starts_with("job: "), "{words:?}: {ran:?}");
    assert!(!started.exists(), "{words:?} was refused and started all the same");
    ran
}

#[test]
fn a_limit_of_zero_is_refused() {
    for words in [["-p", "0"], ["-t", "0s"], ["--cpu-time", "0ms"]] {
        refused(&words);
    }
}

#[test]
fn a_negative_limit_is_refused() {
    for words in [&["-p", "-1"][..], &["-t", "-5s"], &["--cpu-time=-1s"], &["--grace", "-1s"]] {
        refused(words);
    }
}

#[test]
fn a_limit_that_does_not_fit_is_refused() {
    for words in [
        ["-p", "4294967296"],
        ["-t", "99999999999999999999s"],
        ["--cpu-time", "999999999999h"],
        ["--grace", "18446744073709551616s"],
    ] {
        refused(&words);
    }
}

#[test]
fn a_duration_without_a_unit_is_refused_with_the_way_to_write_it() {
    for option in ["-t", "--cpu-time", "--grace"] {
        let ran = refused(&[option, "10"]);
        assert!(ran.err.contains("write 10s, 10m or 10ms"), "{ran:?}");
    }
}

#[test]
fn words_that_are_no_value_of_an_option_are_refused() {
    for words in [
        &["-t", "soon"][..],
        &["-p", "many"],
        &["--stop-signal", "TERMINATE"],
        &["--stop-signal", "0"],
        &["--stop-signal", "65"],
        &["--on-leftover", "keep"],
        &["--interrupt", "sometimes"],
        &["--report-format", "xml"],
        &["-q", "-v"],
        &["--unknown"],
        &["-E", "NAME"],
        &["-E", "=value"],
    ] {
        refused(words);
    }
}

#[test]
fn a_directory_that_is_not_there_is_our_failure() {
    let ran = refused(&["-C", "/nonexistent/directory"]);
    assert!(ran.err.contains("/nonexistent/directory"), "{ran:?}");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_start() {
    let ran = refused(&["--report=/nonexistent/report.json"]);
    assert!(ran.err.contains("/nonexistent/report.json"), "{ran:?}");
}

#[test]
fn an_argument_list_that_is_too_long_is_told() {
    let long = "x".repeat(100_000);
    let words: Vec<&str> = std::iter::once("true").chain([&*long; 40]).collect();
    let mut command = run(&["--"]);
    command.args(&words);
    // The kernel refuses our own start if it refuses the command's, which is shorter.
    if let Ok(child) = command.spawn() {
        let status = child.wait_with_output().unwrap().status;
        assert!(matches!(status.code(), Some(0 | 126)), "{status:?}");
    }
}

#[test]
fn without_descriptors_there_is_an_error_and_nothing_is_lost() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for limit in 4..20 {
        let mut command = run(&["true"]);
        crate::common::first(&mut command, move || {
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            Ok(setrlimit(Resource::Nofile, limit)?)
        });
        let child = ran(&mut command);
        match child.status.code() {
            Some(0) => {}
            Some(125) => assert!(child.err.starts_with("job: "), "{limit}: {child:?}"),
            _ => panic!("{limit} descriptors: {child:?}"),
        }
    }
}

#[test]
fn a_read_only_group_file_system_is_an_error_with_a_hint() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let mount = crate::common::mount();
    let mut command = run(&["true"]);
    crate::common::first(&mut command, move || {
        // SAFETY: this process has one thread, and is about to execute another program.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(mount_remount(mount, MountFlags::BIND | MountFlags::RDONLY, "")?)
    });
    let child = ran(&mut command);
    assert_eq!(child.code(), 125, "{child:?}");
    assert!(child.err.contains("hint: the cgroup file system is read-only"), "{child:?}");
}

#[test]
fn a_missing_group_file_system_is_an_error_with_a_hint() {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let mount = crate::common::mount();
    let mut command = run(&["true"]);
    crate::common::first(&mut command, move || {
        // SAFETY: this process has one thread, and is about to execute another program.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(unmount(mount, UnmountFlags::DETACH)?)
    });
    let child = ran(&mut command);
    assert_eq!(child.code(), 125, "{child:?}");
    assert!(child.err.contains("\nhint: mount the cgroup v2 hierarchy"), "{child:?}");
}

#[test]
fn without_permission_there_is_an_error_with_a_hint() {
    let scratch = Scratch::new("nobody");
    // Where only root may look, nobody can execute it.
    let job = scratch.path("job");
    // By another process: a descriptor of ours that is open for writing would be in a fork of some
    // other test's for a moment, and a file that is open for writing cannot be executed.
    assert!(ran(Command::new("cp").arg(crate::common::JOB).arg(&job)).status.success());
    let mut command = Command::new(&job);
    command.args(["run", "true"]);
    {
        use std::os::unix::process::CommandExt;
        command.uid(65534).gid(65534);
    }
    let child = ran(&mut command);
    assert_eq!(child.code(), 125, "{child:?}");
    assert!(child.err.contains("hint: run as root, or give this user a group"), "{child:?}");
}
