//! What the command finds is what it would have found without us.

use std::fs::File;
use std::process::Command;

use jobobject_sys::signal::{self, SignalSet};

use crate::common::{Live, Scratch, first, mask, ran, run, sh};

/// What a process is, as it sees itself, without and with us in between.
fn same(options: &[&str], script: &str, prepare: impl Fn(&mut Command)) -> String {
    let mut plain = Command::new("/bin/sh");
    plain.args(["-c", script]);
    crate::common::as_usual(&mut plain);
    prepare(&mut plain);
    let mut ours = sh(options, script);
    prepare(&mut ours);
    let (plain, ours) = (ran(&mut plain), ran(&mut ours));
    assert_eq!((plain.status, &plain.out), (ours.status, &ours.out), "{}", ours.err);
    ours.out
}

/// The lines of `status` that are about signals, and nothing else.
fn signals(prepare: impl Fn(&mut Command)) -> String {
    let script = "while read -r name rest; do case $name in Sig[BI]*|ShdPnd:) echo $name $rest; \
                  esac; done < /proc/self/status";
    same(&[], script, prepare)
}

#[test]
fn the_signal_mask_is_the_callers() {
    signals(|_| {});
    let blocked = SignalSet::of(&[10, 12, 15, 20]);
    // A shell may change its own mask; a program that does not is asked here.
    let mut command = run(&["cat", "/proc/self/status"]);
    first(&mut command, move || {
        signal::set_mask(blocked);
        Ok(())
    });
    assert_eq!(mask(&ran(&mut command).out, "SigBlk"), blocked.bits());
    let mut command = run(&["cat", "/proc/self/status"]);
    first(&mut command, move || {
        signal::set_mask(SignalSet::EMPTY);
        Ok(())
    });
    assert_eq!(mask(&ran(&mut command).out, "SigBlk"), 0);
}

#[test]
fn ignored_signals_stay_ignored_and_others_do_not_become_so() {
    let cat = || run(&["cat", "/proc/self/status"]);
    // Those above 31 are the C library's own.
    let ignored = |command: &mut Command| mask(&ran(command).out, "SigIgn") & 0x7fff_ffff;
    assert_eq!(ignored(&mut cat()), 0, "SIGPIPE included");
    let set: &'static [i32] = &[1, 2, 3, 13, 15, 17, 20];
    let mut command = cat();
    first(&mut command, || set.iter().try_for_each(|signal| signal::set_ignored(*signal)));
    assert_eq!(ignored(&mut command), SignalSet::of(set).bits());
}

#[test]
fn the_status_is_known_although_sigchld_was_ignored() {
    let mut command = sh(&[], "exit 9");
    first(&mut command, || signal::set_ignored(17));
    assert_eq!(ran(&mut command).code(), 9);
}

#[test]
fn a_closed_standard_descriptor_is_closed_for_the_command() {
    for fd in 0..3 {
        let script = "for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ] || echo $fd >> $1; done";
        let scratch = Scratch::new(&format!("closed-{fd}"));
        let list = scratch.path("list");
        let mut command = sh(&[], script);
        command.arg("sh").arg(&list);
        first(&mut command, move || {
            // SAFETY: nobody uses it between here and exec.
            drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
            Ok(())
        });
        assert_eq!(ran(&mut command).code(), 0);
        assert_eq!(std::fs::read_to_string(&list).unwrap(), format!("{fd}\n"));
    }
}

#[test]
fn descriptors_of_the_caller_reach_the_command_and_none_of_ours_do() {
    // As make's jobserver: two numbers in the environment, two pipes that nobody mentions.
    let script = "ls /proc/self/fd | sort -n; [ -e /proc/self/fd/107 ] && [ -e /proc/self/fd/108 ] && echo both";
    let list = same(&[], script, |command| {
        first(command, || {
            let null = File::open("/dev/null")?;
            for fd in [107, 108] {
                let mut to = fd_slot(fd);
                rustix::io::dup3(&null, &mut to, rustix::io::DupFlags::empty())?;
                std::mem::forget(to);
            }
            Ok(())
        });
    });
    assert!(list.ends_with("both\n"), "{list}");
}

/// A number that nobody owns yet.
fn fd_slot(fd: i32) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: dup3 makes it a descriptor of ours, and the caller forgets it.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
}

#[test]
fn umask_limits_directory_and_environment_are_the_callers() {
    let scratch = Scratch::new("inherits");
    let directory = scratch.path("");
    let script = "umask; ulimit -n; ulimit -c; pwd; env | grep JOB_TEST | sort; ulimit -s";
    let out = same(&[], script, |command| {
        command.current_dir(&directory).env("JOB_TEST_A", "1").env("JOB_TEST_B", "two words");
        first(command, || {
            use rustix::process::{Resource, Rlimit, setrlimit};
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
            setrlimit(Resource::Nofile, Rlimit { current: Some(333), maximum: Some(444) })?;
            Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(512) })?)
        });
    });
    assert!(out.starts_with("0027\n333\n"), "{out}");
}

#[test]
fn the_environment_is_passed_on_as_it_is() {
    let script = "env | grep -v -e '^_=' -e '^SHLVL=' | sort";
    same(&[], script, |command| {
        command.env_clear().env("PATH", "/bin:/usr/bin").env("EMPTY", "");
    });
}

#[test]
fn the_process_group_and_session_are_the_callers() {
    let script = "read -r pid comm state parent group session rest < /proc/self/stat; \
                  echo $group $session";
    same(&[], script, |_| {});
}

#[test]
fn variables_are_set_for_the_command_only_and_the_last_one_counts() {
    let mut command = sh(&["-E", "A=1", "-E", "A=2=3", "-E", "B="], "echo $A-${B-unset}-");
    assert_eq!(ran(command.env("B", "x")).out, "2=3--\n");
}

#[test]
fn a_program_is_looked_for_in_the_new_path_after_the_change_of_directory() {
    let scratch = Scratch::new("path");
    scratch.file("one/tool", "#!/bin/sh\necho one\n", 0o755);
    scratch.file("two/tool", "#!/bin/sh\necho two\n", 0o755);
    scratch.file("no/tool", "#!/bin/sh\necho no\n", 0o644);
    scratch.file("text/tool", "echo text $0 $1\n", 0o755);
    let at = |name: &str| scratch.path(name).to_str().unwrap().to_owned();

    let path = format!("PATH={}", at("two"));
    let mut command = run(&["-E", &path, "tool"]);
    assert_eq!(ran(command.env("PATH", at("one"))).out, "two\n", "the new environment's PATH");

    let path = format!("PATH={}:{}", at("no"), at("one"));
    assert_eq!(
        ran(&mut run(&["-E", &path, "tool"])).out,
        "one\n",
        "passes over what it may not execute"
    );

    let path = format!("PATH={}:/nonexistent", at("no"));
    assert_eq!(ran(&mut run(&["-E", &path, "tool"])).code(), 126, "and remembers it");

    let path = format!("PATH={}", at("text"));
    let out = ran(&mut run(&["-E", &path, "tool", "a"])).out;
    assert_eq!(out, format!("text {}/tool a\n", at("text")), "a text is a shell's");

    assert_eq!(ran(&mut run(&["-C", &at("one"), "./tool"])).out, "one\n", "relative to -C");
    assert_eq!(ran(&mut run(&["-C", &at("two"), "-E", "PATH=.", "tool"])).out, "two\n");
    assert_eq!(ran(&mut run(&["-C", &at("one"), "pwd"])).out.trim(), at("one"));
}

#[test]
fn a_reader_of_our_output_waits_for_the_command_and_not_for_us() {
    let mut live = Live::start(&mut sh(&[], "echo $$; exec >&-; read line; exit 4"));
    let _command = live.number();
    assert_eq!(live.line(), "", "end of file");
    live.say("go on");
    assert_eq!(live.end().code(), 4);
}

#[test]
fn a_writer_to_our_input_learns_that_nobody_reads_it() {
    use std::io::Write;
    let mut live = Live::start(&mut sh(&[], "exec <&-; echo closed; exec sleep 1000"));
    assert_eq!(live.line(), "closed");
    let mut stdin = live.stdin.take().unwrap();
    // We let go of it a moment after the command has got it.
    crate::common::until("nobody holds it", || stdin.write_all(b"x").is_err());
    live.signal(rustix::process::Signal::TERM);
    assert_eq!(live.end().code(), 143);
}

#[test]
fn standard_input_reaches_the_command() {
    let mut live = Live::start(&mut run(&["cat"]));
    live.say("hello");
    assert_eq!(live.line(), "hello");
    assert_eq!(live.end().code(), 0);
}

#[test]
fn it_works_with_standard_input_closed_and_with_everything_closed() {
    let scratch = Scratch::new("all-closed");
    let mark = scratch.path("mark");
    let mut command = sh(&[], "echo done > $1; exit 3");
    command.arg("sh").arg(&mark);
    first(&mut command, || {
        for fd in 0..3 {
            drop(fd_slot(fd));
        }
        Ok(())
    });
    assert_eq!(ran(&mut command).code(), 3);
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "done\n");
}
