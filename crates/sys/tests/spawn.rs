//! Births, with real processes.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tests talk")]

mod common;

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Actor, Group, Program, program, sh, wait};
use jobobject_sys::clone::{BirthError, CStringArray, FdAction, Into, Mode, Plan, Step, spawn};
use jobobject_sys::pidfd::exit_info;
use jobobject_sys::signal::{self, SignalSet};
use rustix::io::Errno;

fn plan(program: &Program) -> Plan<'_> {
    Plan { envp: Some(&program.envp), ..Plan::new(&program.paths, &program.argv) }
}

fn run(plan: &Plan<'_>) -> i32 {
    wait(&spawn(plan, Into::Inherit, Mode::Vfork).unwrap())
}

/// What the command writes to its standard output.
fn output(change: impl FnOnce(&mut Plan<'_>), program: &Program) -> String {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let fds = [FdAction::Dup { from: write.as_fd(), to: 1 }];
    let mut plan = plan(program);
    plan.fds = &fds;
    change(&mut plan);
    let birth = spawn(&plan, Into::Inherit, Mode::Vfork).unwrap();
    drop(write);
    let mut text = String::new();
    fs::File::from(read).read_to_string(&mut text).unwrap();
    wait(&birth);
    text
}

/// A directory for files of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(Group::name());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> CString {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        CString::new(path.to_str().unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_status_and_the_pid_are_the_commands() {
    assert_eq!(run(&plan(&sh("exit 7"))), 7);
    assert_eq!(run(&plan(&sh("kill -9 $$"))), -9);
    let program = sh("exit $$");
    let birth = spawn(&plan(&program), Into::Inherit, Mode::Vfork).unwrap();
    assert_eq!(wait(&birth), (birth.pid & 0xff) as i32);
    assert!(rustix::io::fcntl_getfd(&birth.pidfd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn what_is_not_there_is_reported_and_leaves_no_child() {
    let missing = program(&["/nowhere/at/all"]);
    let result = spawn(&plan(&missing), Into::Inherit, Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Exec(Errno::NOENT));
    let nothing = Program { paths: vec![], ..program(&["x"]) };
    let result = spawn(&plan(&nothing), Into::Inherit, Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Exec(Errno::NOENT));
}

#[test]
fn a_denied_candidate_is_passed_over_but_remembered() {
    let scratch = Scratch::new();
    let denied = scratch.file("denied", "", 0o644);
    let mut candidates = program(&["true", "one"]);
    candidates.paths = vec![denied.clone(), c"/nowhere".into()];
    let result = spawn(&plan(&candidates), Into::Inherit, Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Exec(Errno::ACCESS));
    candidates.paths = vec![c"/nowhere".into(), denied, c"/bin/true".into()];
    assert_eq!(run(&plan(&candidates)), 0);
}

#[test]
fn a_text_without_an_interpreter_goes_to_the_shell() {
    let scratch = Scratch::new();
    let mut script = program(&["name", "3", "4"]);
    script.paths = vec![scratch.file("script", "exit $(($1 + $2 + $#))", 0o755)];
    assert_eq!(run(&plan(&script)), 9);
    script.argv = CStringArray::default();
    assert_eq!(run(&plan(&script)), 0, "no arguments, not even a name");
}

#[test]
fn without_an_environment_of_its_own_a_command_gets_ours_as_it_is_now() {
    let ours = |name: &str| std::env::var(name).unwrap_or_default();
    let mut print = program(&["sh", "-c", "printf '%s' \"$CARGO_MANIFEST_DIR\""]);
    print.paths = vec![c"/bin/sh".into()];
    assert_eq!(output(|plan| plan.envp = None, &print), ours("CARGO_MANIFEST_DIR"));
    assert_eq!(output(|_| {}, &print), "", "and otherwise only its own");
}

#[test]
fn descriptors_are_arranged_whatever_lies_in_the_way() {
    let scratch = Scratch::new();
    let open = |name: &str| -> OwnedFd {
        let path = scratch.file(name, name, 0o644);
        fs::File::open(path.to_str().unwrap()).unwrap().into()
    };
    let (a, b, c) = (open("a"), open("b"), open("c"));
    let (na, nb) = (a.as_raw_fd(), b.as_raw_fd());
    // Two change places, a third takes its own number, and all is seen through the shell.
    let exchange = [
        FdAction::Dup { from: a.as_fd(), to: nb },
        FdAction::Dup { from: b.as_fd(), to: na },
        FdAction::Dup { from: c.as_fd(), to: c.as_raw_fd() },
    ];
    let text = [na, nb, c.as_raw_fd()].map(|fd| format!("cat /proc/$$/fd/{fd}; ")).concat();
    let (out, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut fds = exchange.to_vec();
    fds.push(FdAction::Dup { from: write.as_fd(), to: 1 });
    let program = sh(&text);
    let mut all = plan(&program);
    all.fds = &fds;
    assert_eq!(run(&all), 0);
    drop(write);
    let mut got = String::new();
    fs::File::from(out).read_to_string(&mut got).unwrap();
    assert_eq!(got, "bac");

    // A source that an earlier action closes is still the parent's.
    let closed = [FdAction::Close(na), FdAction::Dup { from: a.as_fd(), to: 0 }];
    let program = sh(&format!("read x; [ $x = a ] && [ ! -e /proc/$$/fd/{na} ]"));
    let mut with_closed = plan(&program);
    with_closed.fds = &closed;
    assert_eq!(run(&with_closed), 0);
}

#[test]
fn standard_input_can_be_closed() {
    let program = sh("[ ! -e /proc/$$/fd/0 ]");
    let mut closed = plan(&program);
    closed.fds = &[FdAction::Close(0)];
    assert_eq!(run(&closed), 0);
}

#[test]
fn a_closed_source_is_a_failed_setup() {
    // SAFETY: nothing is done with the number in this process; that it is not open is the point.
    let nothing = unsafe { BorrowedFd::borrow_raw(9_999) };
    let program = sh("exit 0");
    let mut bad = plan(&program);
    let fds = [FdAction::Dup { from: nothing, to: 5 }];
    bad.fds = &fds;
    let result = spawn(&bad, Into::Inherit, Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Setup { step: Step::Fds, errno: Errno::BADF });
}

fn status_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

#[test]
fn mask_and_dispositions_are_as_planned() {
    let status = program(&["/bin/cat", "/proc/self/status"]);
    // Rust ignores SIGPIPE in this process.
    let text = output(|_| {}, &status);
    assert_eq!(status_field(&text, "SigBlk"), 0);
    let ignored = SignalSet::from_bits(status_field(&text, "SigIgn"));
    assert!(ignored.contains(libc::SIGPIPE));
    let text = output(
        |plan| {
            plan.mask = SignalSet::of(&[libc::SIGUSR1]);
            plan.default = SignalSet::of(&[libc::SIGPIPE]);
            plan.ignore = SignalSet::of(&[libc::SIGHUP, libc::SIGINT]);
        },
        &status,
    );
    assert_eq!(status_field(&text, "SigBlk"), SignalSet::of(&[libc::SIGUSR1]).bits());
    let expected = ignored.without(libc::SIGPIPE).with(libc::SIGHUP).with(libc::SIGINT);
    assert_eq!(status_field(&text, "SigIgn"), expected.bits());
    assert!(signal::mask().is_empty(), "the parent has its own mask back");
}

#[test]
fn directory_session_group_umask_and_user_are_as_planned() {
    let pwd = sh("pwd; umask; cut -d' ' -f5,6 /proc/$$/stat; echo $$; id -u; id -g; id -G");
    let text = output(
        |plan| {
            plan.cwd = Some(c"/usr");
            plan.umask = Some(0o027);
            plan.session = true;
            plan.uid = Some(65_533);
            plan.gid = Some(65_532);
            plan.groups = Some(&[65_531]);
        },
        &pwd,
    );
    let lines: Vec<&str> = text.lines().collect();
    let pid = lines[3];
    let expected = ["/usr", "0027", &format!("{pid} {pid}"), pid, "65533", "65532", "65532 65531"];
    assert_eq!(lines, expected);
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::Dumpable);

    let program = sh("exit 0");
    let mut lost = plan(&program);
    lost.cwd = Some(c"/nowhere");
    let result = spawn(&lost, Into::Inherit, Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Setup { step: Step::Cwd, errno: Errno::NOENT });
}

#[test]
fn a_relative_path_is_seen_from_the_new_directory() {
    let mut relative = program(&["true"]);
    relative.paths = vec![c"./true".into()];
    let mut plan = plan(&relative);
    plan.cwd = Some(c"/bin");
    assert_eq!(run(&plan), 0);
}

#[test]
fn a_fork_like_birth_tells_by_its_status() {
    for (path, status) in [("/bin/true", 0), ("/nowhere", 127), ("/etc/passwd", 126)] {
        let program = program(&[path]);
        let birth = spawn(&plan(&program), Into::Inherit, Mode::Fork).unwrap();
        assert_eq!(wait(&birth), status, "{path}");
    }
}

#[test]
fn a_child_is_in_its_group_from_the_first_instruction_on() {
    let Some(group) = Group::fresh() else { return };
    let name = group.path.file_name().unwrap().to_str().unwrap();
    let own = sh(&format!("grep -q ^0::/{name}$ /proc/self/cgroup"));
    let (dir, procs) = (group.dir(), group.file("cgroup.procs"));
    for mode in [Mode::Vfork, Mode::Fork] {
        for into in [Into::Cgroup(dir.as_fd()), Into::Join(procs.as_fd())] {
            let birth = spawn(&plan(&own), into, mode).unwrap();
            assert_eq!(wait(&birth), 0, "{into:?} {mode:?}");
        }
    }
}

#[test]
fn a_child_that_cannot_join_runs_nothing() {
    let Some(group) = Group::fresh() else { return };
    let procs = group.file("cgroup.procs");
    drop(group);
    let program = sh("exit 0");
    let result = spawn(&plan(&program), Into::Join(procs.as_fd()), Mode::Vfork);
    assert_eq!(result.unwrap_err(), BirthError::Setup { step: Step::Join, errno: Errno::NODEV });
}

#[test]
fn a_birth_into_a_killed_group_is_a_stillbirth_or_none() {
    let Some(group) = Group::fresh() else { return };
    fs::write(group.path.join("cgroup.kill"), "1").unwrap();
    let (dir, procs) = (group.dir(), group.file("cgroup.procs"));
    let program = sh("exit 3");
    match spawn(&plan(&program), Into::Cgroup(dir.as_fd()), Mode::Vfork) {
        Err(error) => assert_eq!(error, BirthError::Stillborn),
        Ok(birth) => {
            eprintln!("this kernel does not kill newborns of killed groups");
            assert_eq!(wait(&birth), 3);
        }
    }
    let birth = spawn(&plan(&program), Into::Join(procs.as_fd()), Mode::Vfork).unwrap();
    assert_eq!(wait(&birth), 3, "joining works where being born does not");
}

#[test]
fn a_frozen_group_takes_a_fork_like_birth_without_waiting() {
    let Some(group) = Group::fresh() else { return };
    fs::write(group.path.join("cgroup.freeze"), "1").unwrap();
    let dir = group.dir();
    let program = sh("exit 5");
    let birth = spawn(&plan(&program), Into::Cgroup(dir.as_fd()), Mode::Fork).unwrap();
    assert_eq!(group.pids(), [birth.pid]);
    fs::write(group.path.join("cgroup.freeze"), "0").unwrap();
    assert_eq!(wait(&birth), 5);
}

#[test]
fn the_status_is_known_after_a_foreign_reap() {
    let program = sh("exit 42");
    let birth = spawn(&plan(&program), Into::Inherit, Mode::Vfork).unwrap();
    match exit_info(birth.pidfd.as_fd()) {
        Ok(none) => assert_eq!(none, None, "nobody has reaped it"),
        Err(error) => return eprintln!("SKIPPED: PIDFD_GET_INFO: {error}"),
    }
    let pid = rustix::process::Pid::from_raw(birth.pid as i32).unwrap();
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    match exit_info(birth.pidfd.as_fd()) {
        Ok(info) => assert_eq!(info.unwrap().status, 42 << 8),
        Err(error) => eprintln!("SKIPPED: no exit status before Linux 6.15: {error}"),
    }
}

#[test]
fn many_threads_can_give_birth_at_once() {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let program = sh(&format!("exit {number}"));
                for _ in 0..25 {
                    assert_eq!(run(&plan(&program)), number);
                }
            });
        }
    });
}

#[test]
fn without_clone3_births_go_on_but_not_into_groups() {
    Actor::start("no clone3", "").finish();
}

#[test]
fn what_was_given_at_the_start_is_remembered() {
    // Rust has ignored SIGPIPE before `main`; the starter had not, and has not closed anything.
    let exe = CString::new(std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    let argv = [exe.as_c_str(), c"role", c"--exact", c"--nocapture"];
    let program = Program {
        paths: vec![exe.clone()],
        argv: argv.into_iter().map(CString::from).collect(),
        envp: vec![c"JOB_SYS_ROLE=at start".into()].into(),
    };
    let mut changed = plan(&program);
    changed.fds = &[FdAction::Close(0)];
    changed.mask = SignalSet::of(&[libc::SIGUSR2]);
    changed.default = SignalSet::ALL;
    changed.ignore = SignalSet::of(&[libc::SIGHUP]);
    assert_eq!(run(&changed), 0);
}

#[test]
fn one_can_die_of_a_signal() {
    for signal in [libc::SIGTERM, libc::SIGSEGV, libc::SIGPIPE, libc::SIGKILL] {
        let mut actor = Actor::start("die", &signal.to_string());
        let status = actor.child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal));
        assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status));
    }
}

#[test]
fn role() {
    match common::role() {
        Some((role, _)) if role == "no clone3" => {
            common::refuse(libc::SYS_clone3, libc::ENOSYS);
            assert_eq!(run(&plan(&sh("exit 4"))), 4);
            let Some(group) = Group::fresh() else { return };
            let (dir, procs) = (group.dir(), group.file("cgroup.procs"));
            let program = sh("exit 6");
            let into = Into::Cgroup(dir.as_fd());
            let refused = spawn(&plan(&program), into, Mode::Vfork).unwrap_err();
            assert_eq!(refused, BirthError::Clone(Errno::NOSYS));
            for mode in [Mode::Vfork, Mode::Fork] {
                let birth = spawn(&plan(&program), Into::Join(procs.as_fd()), mode).unwrap();
                assert_eq!(wait(&birth), 6);
            }
        }
        Some((role, _)) if role == "at start" => {
            let at_start = jobobject_sys::start::at_start();
            assert_eq!(at_start.closed, [true, false, false]);
            assert!(!at_start.sigpipe_ignored());
            assert_eq!(at_start.ignored, SignalSet::of(&[libc::SIGHUP]));
            assert_eq!(at_start.mask, SignalSet::of(&[libc::SIGUSR2]));
        }
        Some((role, signal)) if role == "die" => signal::die_of(signal.parse().unwrap()),
        _ => {}
    }
}
