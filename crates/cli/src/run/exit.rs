//! How `job run` ends: with what status, or of what signal.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use jobobject::{EndReason, LimitKind};

use crate::FAILED;
use crate::run::signals::SIGINT;

/// A time limit struck.
const TIMED_OUT: u8 = 124;
/// The command could not be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;
/// We killed it because somebody asked us to.
const KILLED: u8 = 137;

/// The end of `job run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this status.
    Status(u8),
    /// By dying of this signal, so that a shell sees what happened to the command.
    Signal(i32),
}

impl Exit {
    /// The status as a shell shows it.
    pub(crate) fn shown(self) -> i32 {
        match self {
            Self::Status(status) => status.into(),
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Who asked us to end the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A signal to us: stop.
    Signal(i32),
    /// Ctrl-C, which is to stop.
    Interrupt,
    /// A second signal while it was being stopped, or Ctrl-C which is to kill: kill.
    Kill,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Story {
    /// Why the members are gone, as the engine has recorded it.
    pub(crate) reason: EndReason,
    /// Who asked us, the last of them.
    pub(crate) asked: Option<Asked>,
    /// How the command ended.
    pub(crate) leader: Option<ExitStatus>,
    /// Something was left over, and that is a failure.
    pub(crate) left_over: bool,
}

impl Story {
    /// The end that it leads to.
    pub(crate) fn exit(&self) -> Exit {
        if let EndReason::Limit(LimitKind::JobTime | LimitKind::WallTime) = self.reason {
            return Exit::Status(TIMED_OUT);
        }
        match self.asked {
            Some(Asked::Signal(signal)) => return Exit::Status(128 + signal as u8),
            // A shell's loop ends on Ctrl-C if its command dies of it.
            Some(Asked::Interrupt) => return Exit::Signal(SIGINT),
            Some(Asked::Kill) => return Exit::Status(KILLED),
            None => {}
        }
        if self.left_over {
            return Exit::Status(FAILED);
        }
        let Some(leader) = self.leader else { return Exit::Status(FAILED) };
        match (leader.code(), leader.signal()) {
            (Some(code), _) => Exit::Status(code as u8),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Status(FAILED),
        }
    }
}

#[cfg(test)]
mod tests {
    use jobobject::Actor;

    use super::*;
    use crate::run::signals::{SIGHUP, SIGTERM};

    const EXITED: Story =
        Story { reason: EndReason::Exited, asked: None, leader: None, left_over: false };

    fn code(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn without_us_in_it_the_end_is_the_commands_own() {
        assert_eq!(Story { leader: code(7), ..EXITED }.exit(), Exit::Status(7));
        let leader = Some(ExitStatus::from_raw(11 | 0x80));
        assert_eq!(Story { leader, ..EXITED }.exit(), Exit::Signal(11));
    }

    #[test]
    fn a_time_limit_is_told_whatever_the_command_answered() {
        for limit in [LimitKind::WallTime, LimitKind::JobTime] {
            let reason = EndReason::Limit(limit);
            for asked in [None, Some(Asked::Signal(SIGTERM)), Some(Asked::Kill)] {
                let story = Story { reason, asked, leader: code(0), left_over: true };
                assert_eq!(story.exit(), Exit::Status(124));
            }
        }
        let reason = EndReason::Limit(LimitKind::ActiveProcesses);
        assert_eq!(Story { reason, leader: code(3), ..EXITED }.exit(), Exit::Status(3));
    }

    #[test]
    fn a_stop_is_told_by_its_signal_and_a_kill_as_one() {
        let reason = EndReason::Terminated { code: 137, by: Actor { pid: 1 } };
        let story = Story { reason, leader: code(0), ..EXITED };
        let asked = |asked| Story { asked: Some(asked), ..story }.exit();
        assert_eq!(asked(Asked::Signal(SIGTERM)), Exit::Status(143));
        assert_eq!(asked(Asked::Signal(SIGHUP)), Exit::Status(129));
        assert_eq!(asked(Asked::Signal(SIGINT)), Exit::Status(130));
        assert_eq!(asked(Asked::Interrupt), Exit::Signal(SIGINT));
        assert_eq!(asked(Asked::Kill), Exit::Status(137));
    }

    #[test]
    fn a_leftover_fails_only_where_that_was_asked_for() {
        assert_eq!(Story { leader: code(0), left_over: true, ..EXITED }.exit(), Exit::Status(125));
        assert_eq!(Story { leader: code(0), ..EXITED }.exit(), Exit::Status(0));
    }
}
