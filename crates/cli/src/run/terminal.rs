//! The terminal, left as it was.
//!
//! Whoever we kill cannot set the terminal right again: an editor's modes, a shell's foreground process
//! group. So both are remembered and put back, but only while the terminal is ours: a job that the user
//! has put into the background must not take it from the shell.
//! Nothing here can stop us: SIGTTOU is blocked.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

/// How the terminal was when it was ours.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// None until it is ours for the first time: before that they are a shell's.
    modes: Option<Termios>,
    foreground: bool,
}

impl Terminal {
    /// Remembers the controlling terminal, if there is one.
    pub(crate) fn remember() -> Option<Self> {
        let mut terminal = Self { modes: None, foreground: false };
        terminal.look(&open()?);
        Some(terminal)
    }

    /// Looks again whether it is ours: we were stopped, and may go on in the background.
    pub(crate) fn look_again(&mut self) {
        match open() {
            Some(file) => self.look(&file),
            None => self.foreground = false,
        }
    }

    fn look(&mut self, file: &File) {
        self.foreground = tcgetpgrp(file).is_ok_and(|group| group == getpgrp());
        if self.foreground && self.modes.is_none() {
            self.modes = tcgetattr(file).ok();
        }
    }

    /// Whether another process group of the job has the terminal.
    pub(crate) fn lent(&self) -> bool {
        let taken = |file| tcgetpgrp(&file).is_ok_and(|group| group != getpgrp());
        self.foreground && open().is_some_and(taken)
    }

    /// Puts modes and foreground process group back.
    pub(crate) fn restore(&self) {
        if !self.foreground {
            return;
        }
        let Some(file) = open() else { return };
        if tcgetpgrp(&file) != Ok(getpgrp()) {
            let _ = tcsetpgrp(&file, getpgrp());
        }
        if let Some(modes) = &self.modes {
            // At once: output that nobody reads must not hold us up.
            let _ = tcsetattr(&file, OptionalActions::Now, modes);
        }
    }
}

/// It is not held open: who hangs it up must not wait for us.
fn open() -> Option<File> {
    let flags = OFlags::NOCTTY.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()
}
