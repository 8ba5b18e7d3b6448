//! Signals to `job run` itself: who sent them, and what they mean.
//!
//! All of them are read from a descriptor and none is handled, so nothing is ever interrupted. What was
//! ignored at the start stays ignored. The terminal's signals go to the whole foreground process group,
//! so the command has them already; the kernel says of them that it sent them itself.

use std::io;

use jobobject_sys::signal::{self, Received, SignalFd, SignalSet};
use jobobject_sys::start::at_start;

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGQUIT: i32 = 3;
pub(crate) const SIGUSR1: i32 = 10;
pub(crate) const SIGUSR2: i32 = 12;
pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGCONT: i32 = 18;
pub(crate) const SIGTSTP: i32 = 20;
pub(crate) const SIGTTIN: i32 = 21;
pub(crate) const SIGTTOU: i32 = 22;
pub(crate) const SIGWINCH: i32 = 28;

/// Those that we act on. SIGTTOU is among them so that setting the terminal right never stops us.
const READ: SignalSet = SignalSet::of(&[
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGWINCH,
]);

/// What a signal to us means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Something became of a child.
    Child,
    /// We were continued, if we were stopped.
    Continued,
    /// The job is to be stopped.
    Stop(i32),
    /// Somebody pressed Ctrl-C.
    Interrupt,
    /// It is meant for the command.
    Forward(i32),
    /// The command has it already.
    Shared,
}

/// What a signal means that was received.
pub(crate) fn meaning(received: Received) -> Meaning {
    // SI_KERNEL is positive, SI_USER zero, what other processes can make up negative.
    let by_kernel = received.code > 0;
    match received.signo {
        SIGCHLD => Meaning::Child,
        SIGCONT => Meaning::Continued,
        SIGTERM | SIGHUP => Meaning::Stop(received.signo),
        SIGINT if by_kernel => Meaning::Interrupt,
        SIGINT => Meaning::Stop(SIGINT),
        _ if by_kernel => Meaning::Shared,
        signal => Meaning::Forward(signal),
    }
}

/// The signals to this process, from here on.
pub(crate) fn take() -> io::Result<SignalFd> {
    let ignored = at_start().ignored;
    let mut taken = SignalSet::from_bits(READ.bits() & !ignored.bits());
    // These two tell what became of the command and of us, whatever else they do.
    taken = taken.with(SIGCHLD).with(SIGCONT);
    if ignored.contains(SIGCHLD) {
        // Or the kernel would throw the command's status away.
        signal::set_default(SIGCHLD)?;
    }
    signal::block(taken);
    SignalFd::new(taken)
}

/// The signals by name, without SIG.
const NAMES: [(i32, &str); 31] = [
    (SIGHUP, "HUP"),
    (SIGINT, "INT"),
    (SIGQUIT, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (SIGUSR1, "USR1"),
    (11, "SEGV"),
    (SIGUSR2, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (SIGTERM, "TERM"),
    (16, "STKFLT"),
    (SIGCHLD, "CHLD"),
    (SIGCONT, "CONT"),
    (19, "STOP"),
    (SIGTSTP, "TSTP"),
    (SIGTTIN, "TTIN"),
    (SIGTTOU, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (SIGWINCH, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// A signal by its name, with or without SIG, or by its number.
pub(crate) fn parse(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = text.parse::<i32>().ok();
    let found = NAMES.iter().find(|(signal, name)| *name == bare || Some(*signal) == number);
    found.map(|found| found.0).ok_or_else(|| "not a signal: write TERM, SIGTERM or 15".to_owned())
}

/// The name of a signal, with SIG.
pub(crate) fn name(signal: i32) -> String {
    match NAMES.iter().find(|named| named.0 == signal) {
        Some((_, name)) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SI_USER: i32 = 0;
    const SI_TKILL: i32 = -6;
    const SI_KERNEL: i32 = 0x80;

    fn of(signo: i32, code: i32) -> Meaning {
        meaning(Received { signo, pid: 1, uid: 0, code })
    }

    #[test]
    fn the_terminal_speaks_to_the_command_and_kill_speaks_to_us() {
        assert_eq!(of(SIGINT, SI_KERNEL), Meaning::Interrupt);
        assert_eq!(of(SIGINT, SI_USER), Meaning::Stop(SIGINT));
        assert_eq!(of(SIGINT, SI_TKILL), Meaning::Stop(SIGINT));
        assert_eq!(of(SIGTERM, SI_USER), Meaning::Stop(SIGTERM));
        assert_eq!(of(SIGHUP, SI_USER), Meaning::Stop(SIGHUP));
        assert_eq!(of(SIGHUP, SI_KERNEL), Meaning::Stop(SIGHUP));
        for signal in [SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH] {
            assert_eq!(of(signal, SI_KERNEL), Meaning::Shared);
            assert_eq!(of(signal, SI_USER), Meaning::Forward(signal));
        }
        assert_eq!(of(SIGUSR1, SI_TKILL), Meaning::Forward(SIGUSR1));
    }

    #[test]
    fn signals_go_by_name_and_by_number() {
        for text in ["TERM", "SIGTERM", "term", "SigTerm", "15"] {
            assert_eq!(parse(text), Ok(SIGTERM), "{text}");
        }
        for text in ["", "SIG", "0", "-9", "32", "65", "TERMINATE", "9x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(name(SIGHUP), "SIGHUP");
        assert_eq!(name(40), "signal 40");
    }

    #[test]
    fn every_signal_has_one_name_and_its_own_number() {
        for (at, (signal, name)) in (1..).zip(NAMES) {
            assert_eq!(signal, at, "{name}");
        }
    }
}
