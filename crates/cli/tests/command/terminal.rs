//! Terminals: `job run` between a command and its terminal, on a real one.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use crate::common::{JOB, PATIENCE, as_usual, ends, first, has_ended, open, state, until};

const CTRL_C: &str = "\x03";
const CTRL_BACKSLASH: &str = "\x1c";
const CTRL_Z: &str = "\x1a";

/// A terminal with a program on it that leads its session.
struct Session {
    master: OwnedFd,
    child: Child,
    seen: String,
}

impl Session {
    /// None, and loudly so, where there are no terminals.
    fn start(words: &[&str]) -> Option<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = match openpt(flags) {
            Ok(master) => master,
            Err(error) => {
                eprintln!("SKIPPED: no terminal to be had here: {error}");
                return None;
            }
        };
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(stdio()).stdout(stdio()).stderr(stdio());
        // Shells read no start-up files of this machine, and prompt in a way that can be found.
        command.env("PS1", "ready> ").env_remove("ENV").env("HISTFILE", "/dev/null");
        command.env("JOB", JOB).env("TERM", "dumb");
        as_usual(&mut command);
        first(&mut command, || {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
        let child = command.spawn().unwrap();
        Some(Self { master, child, seen: String::new() })
    }

    /// A shell with job control, at its prompt.
    fn shell() -> Option<Self> {
        let mut session = Self::start(&["/bin/sh", "-i"])?;
        session.expect("ready> ");
        Some(session)
    }

    fn types(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows `text`; what came before it.
    fn expect(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + text.len());
                return before;
            }
            let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&patience));
            let mut room = [0; 4096];
            // EIO: nobody has it open any more.
            let read = match fds[0].revents().is_empty() {
                true => 0,
                false => rustix::io::read(&self.master, &mut room).unwrap_or(0),
            };
            self.seen += &String::from_utf8_lossy(&room[..read]);
            assert!(begun.elapsed() < PATIENCE, "{text:?} does not come; seen: {:?}", self.seen);
        }
    }

    /// The number that follows `text`.
    fn number(&mut self, text: &str) -> u32 {
        self.expect(text);
        self.expect("\r\n").trim().parse().unwrap()
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    fn end(mut self) -> ExitStatus {
        ends(open(self.child.id()), "the session's leader");
        self.child.wait().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both show the same.
fn same(one: &Termios, other: &Termios) -> bool {
    one.local_modes == other.local_modes
        && one.input_modes == other.input_modes
        && one.output_modes == other.output_modes
}

#[test]
fn ctrl_c_ends_the_command_and_we_die_of_it() {
    let Some(mut session) =
        Session::start(&[JOB, "run", "sh", "-c", "echo pid $$; exec sleep 1000"])
    else {
        return;
    };
    let command = open(session.number("pid "));
    session.types(CTRL_C);
    let status = session.end();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");
    assert!(has_ended(&command));
}

#[test]
fn the_command_decides_what_ctrl_c_does() {
    let script = "trap 'echo caught; exit 7' INT; echo pid $$; while :; do sleep 0.01; done";
    let Some(mut session) = Session::start(&[JOB, "run", "sh", "-c", script]) else { return };
    session.number("pid ");
    session.types(CTRL_C);
    session.expect("caught");
    assert_eq!(session.end().code(), Some(7));

    let script = "trap '' INT; echo pid $$; read line; echo got $line; exit 8";
    let Some(mut session) = Session::start(&[JOB, "run", "sh", "-c", script]) else { return };
    session.number("pid ");
    session.types(CTRL_C);
    session.types("on\n");
    session.expect("got on");
    assert_eq!(session.end().code(), Some(8));
}

#[test]
fn ctrl_backslash_reaches_the_command_and_we_die_of_it() {
    let Some(mut session) =
        Session::start(&[JOB, "run", "sh", "-c", "echo pid $$; exec sleep 1000"])
    else {
        return;
    };
    crate::common::becomes(session.number("pid "), "sleep");
    session.types(CTRL_BACKSLASH);
    let status = session.end();
    assert_eq!(status.signal(), Some(Signal::QUIT.as_raw()), "{status:?}");
    assert!(!status.core_dumped());
}

#[test]
fn ctrl_c_ends_what_it_does_not_reach_when_the_command_is_gone() {
    let script = "(setsid sh -c 'echo left $$; exec sleep 1000' &); read line";
    let Some(mut session) = Session::start(&[JOB, "run", "sh", "-c", script]) else { return };
    let left = open(session.number("left "));
    session.types(CTRL_C);
    session.end();
    assert!(has_ended(&left));
}

#[test]
fn ctrl_c_ends_a_command_that_has_left_the_session() {
    let Some(mut session) =
        Session::start(&[JOB, "run", "setsid", "sh", "-c", "echo pid $$; exec sleep 1000"])
    else {
        return;
    };
    let command = open(session.number("pid "));
    session.types(CTRL_C);
    let status = session.end();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");
    assert!(has_ended(&command));
}

#[test]
fn interrupt_stop_and_kill_end_what_ignores_ctrl_c() {
    let ignore = "trap '' INT; echo pid $$; while :; do sleep 0.01; done";
    let Some(mut session) =
        Session::start(&[JOB, "run", "--interrupt", "stop", "sh", "-c", ignore])
    else {
        return;
    };
    session.number("pid ");
    session.types(CTRL_C);
    let status = session.end();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");

    let ignore = "trap '' INT TERM; echo pid $$; while :; do sleep 0.01; done";
    let words = [JOB, "run", "--interrupt", "kill", "--grace", "1h", "sh", "-c", ignore];
    let Some(mut session) = Session::start(&words) else { return };
    let command = open(session.number("pid "));
    session.types(CTRL_C);
    assert_eq!(session.end().code(), Some(137));
    assert!(has_ended(&command));
}

#[test]
fn ctrl_c_ends_a_loop_in_a_shell() {
    let Some(mut session) = Session::shell() else { return };
    session.types("while :; do $JOB run sh -c 'echo pi''d $$; exec sleep 1000'; done\n");
    session.number("pid ");
    session.types(CTRL_C);
    session.expect("ready> ");
    session.types("echo af''ter\n");
    let between = session.expect("after");
    assert!(!between.contains("pid "), "the loop went on: {between:?}");
    session.types("exit\n");
    session.end();
}

#[test]
fn ctrl_z_stops_both_and_fg_continues_both() {
    let Some(mut session) = Session::shell() else { return };
    // What is typed is shown as well: quotes tell it from what is said.
    let script = "echo u''s $PPID; echo pi''d $$; read line; echo got $line; exit 9";
    session.types(&format!("$JOB run sh -c '{script}'\n"));
    let us = session.number("us ");
    let command = session.number("pid ");
    session.types(CTRL_Z);
    session.expect("ready> ");
    until("both are stopped", || [us, command].iter().all(|pid| state(*pid) == Some('T')));
    session.types("fg\n");
    until("both go on", || [us, command].iter().all(|pid| state(*pid) != Some('T')));
    session.types("hello\n");
    session.expect("got hello");
    session.expect("ready> ");
    session.types("echo sta''tus $?\n");
    assert_eq!(session.number("status "), 9);
    session.types("exit\n");
    session.end();
}

#[test]
fn a_command_that_ignores_ctrl_z_is_not_stopped_and_neither_are_we() {
    let Some(mut session) = Session::shell() else { return };
    let script = "trap \"\" TSTP; echo u''s $PPID; read line; echo got $line";
    session.types(&format!("$JOB run sh -c '{script}'\n"));
    session.number("us ");
    session.types(CTRL_Z);
    session.types("on\n");
    session.expect("got on");
    session.expect("ready> ");
    session.types("exit\n");
    session.end();
}

#[test]
fn the_modes_are_as_before_after_a_kill() {
    let script = "stty raw -echo; echo pid $$; trap '' TERM; while :; do sleep 1000; done";
    let run = ["run", "-q", "-t", "500ms", "--grace", "0s", "sh", "-c", script];
    let words: Vec<&str> =
        ["/bin/sh", "-c", "stty sane; echo before; \"$@\"; echo after; read line", "sh", JOB]
            .into_iter()
            .chain(run)
            .collect();
    let Some(mut session) = Session::start(&words) else { return };
    session.expect("before");
    session.expect("pid ");
    let raw = session.modes();
    assert!(!raw.local_modes.contains(LocalModes::ECHO), "the command has changed them");
    session.expect("after");
    let after = session.modes();
    assert!(after.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON), "{after:?}");
    assert!(!same(&raw, &after));
    session.types("end\n");
    session.end();
}

#[test]
fn modes_that_the_command_leaves_behind_by_itself_are_its_own_business() {
    let words = ["/bin/sh", "-c", "$JOB run stty -echo; echo after; read line"];
    let Some(mut session) = Session::start(&words) else { return };
    session.expect("after");
    assert!(!session.modes().local_modes.contains(LocalModes::ECHO));
    session.types("end\n");
    session.end();
}

#[test]
fn the_foreground_is_as_before_after_a_kill() {
    // A shell with job control gives the terminal to what it starts; then all of it is killed.
    let inner = "set -m; sh -c 'echo pid $$; exec sleep 1000'";
    let outer = "$JOB run -q -t 500ms --grace 0s --stop-signal KILL sh -c \"$0\"; echo after $?; \
                 read line; echo got $line";
    let Some(mut session) = Session::start(&["/bin/sh", "-c", outer, inner]) else { return };
    let command = session.number("pid ");
    let _gone = open(command);
    assert_eq!(session.number("after "), 124);
    // Not in the foreground, it would be refused this line.
    session.types("hello\n");
    session.expect("got hello");
    session.end();
}

#[test]
fn a_job_in_the_background_takes_nothing_and_is_not_stopped_for_it() {
    let Some(mut session) = Session::shell() else { return };
    // With tostop even a message would stop whoever writes it from the background.
    session.types("stty tostop; $JOB run -t 300ms sleep 1000 & wait $!; echo sta''tus $?\n");
    assert_eq!(session.number("status "), 124);
    session.types("echo still he''re\n");
    session.expect("still here");
    session.types("exit\n");
    session.end();
}

#[test]
fn a_job_put_into_the_background_leaves_the_terminal_to_the_shell() {
    let Some(mut session) = Session::shell() else { return };
    session.types("$JOB run -q -t 2s sh -c 'echo u''s $PPID; exec sleep 1000'\n");
    let us = session.number("us ");
    session.types(CTRL_Z);
    session.expect("ready> ");
    session.types("bg; wait; echo ov''er\n");
    ends(open(us), "the job");
    session.expect("over");
    session.types("echo still he''re\n");
    session.expect("still here");
    session.types("exit\n");
    session.end();
}

#[test]
fn a_hangup_of_the_terminal_stops_the_job() {
    let script = "trap '' HUP; echo pid $$; exec sleep 1000";
    let Some(mut session) = Session::start(&[JOB, "run", "sh", "-c", script]) else { return };
    let command = open(session.number("pid "));
    // The terminal goes away, as when a window is closed.
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    drop(std::mem::replace(&mut session.master, null.unwrap()));
    ends(&command, "the command");
    ends(open(session.child.id()), "job run");
    assert_eq!(session.child.wait().unwrap().code(), Some(129));
}

#[test]
fn a_size_change_reaches_the_command_once() {
    use rustix::termios::{Winsize, tcsetwinsize};
    let script = "trap 'echo resized' WINCH; echo pid $$; n=0; \
                  while [ $n -lt 20 ]; do sleep 0.02; n=$((n+1)); done; echo counted";
    let Some(mut session) = Session::start(&[JOB, "run", "sh", "-c", script]) else { return };
    session.number("pid ");
    let size = Winsize { ws_row: 40, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&session.master, size).unwrap();
    let shown = session.expect("counted");
    assert_eq!(shown.matches("resized").count(), 1, "{shown:?}");
    session.end();
}
