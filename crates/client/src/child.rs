//! A process that was started here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use jobobject_engine::Engine;
use jobobject_engine::linux::Process;
use jobobject_sys::pidfd;
use jobobject_sys::signal::send;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::command::Pipes;
use crate::end::LeaderEnd;
use crate::error::{Error, Result};

/// A hold on a process: while one exists, the object manager can be asked about it.
#[derive(Debug)]
pub(crate) struct Handle {
    engine: Arc<Engine>,
    process: Arc<Process>,
}

impl Handle {
    pub(crate) fn new(engine: Arc<Engine>, process: Arc<Process>) -> Self {
        Self { engine, process }
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if Arc::strong_count(&self.process) == 1 {
            self.engine.released(self.process.key());
        }
    }
}

/// What a [`Child`] and the job it leads know of a process.
#[derive(Debug)]
pub(crate) struct Shared {
    handle: Handle,
    /// Its end, once it is known. Whoever takes the status from the kernel holds the lock.
    end: Mutex<Option<LeaderEnd>>,
}

impl Shared {
    pub(crate) fn pid(&self) -> u32 {
        self.handle.process().pid()
    }

    pub(crate) fn process(&self) -> &Process {
        self.handle.process()
    }

    /// Its end, if it has ended.
    pub(crate) fn try_end(&self) -> Result<Option<LeaderEnd>> {
        match self.try_lock() {
            Some(mut end) => self.take(&mut end, WaitIdOptions::NOHANG),
            // Somebody waits for it and has not returned.
            None if !self.process().ended() => Ok(None),
            None => self.take(&mut self.lock(), WaitIdOptions::NOHANG),
        }
    }

    /// Waits for its end.
    pub(crate) fn end(&self) -> Result<LeaderEnd> {
        loop {
            let ended = match self.try_lock() {
                Some(mut end) => self.take(&mut end, WaitIdOptions::empty())?,
                None => {
                    wait_readable(self.process().pidfd());
                    self.try_end()?
                }
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    fn take(&self, known: &mut Option<LeaderEnd>, how: WaitIdOptions) -> Result<Option<LeaderEnd>> {
        if known.is_some() {
            return Ok(*known);
        }
        let process = self.process();
        let end = loop {
            match waitid(WaitId::PidFd(process.pidfd()), how | WaitIdOptions::EXITED) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => break LeaderEnd::Status(raw_status(&status)),
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) if how.contains(WaitIdOptions::NOHANG) && !process.ended() => {
                    return Ok(None);
                }
                Err(Errno::CHILD) => break self.end_after_reap(),
                Err(errno) => {
                    return Err(Error::io("waitid", process.pid().to_string(), &errno.into()));
                }
            }
        };
        *known = Some(end);
        Ok(*known)
    }

    /// Another part of this process reaps all children, or the kernel does. Linux tells the status
    /// all the same from 6.15 on.
    fn end_after_reap(&self) -> LeaderEnd {
        wait_readable(self.process().pidfd());
        match pidfd::exit_info(self.process().pidfd()) {
            Ok(Some(info)) => LeaderEnd::Status(ExitStatus::from_raw(info.status)),
            _ => LeaderEnd::Taken,
        }
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Option<LeaderEnd>>> {
        match self.end.try_lock() {
            Ok(end) => Some(end),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<LeaderEnd>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raw_status(status: &rustix::process::WaitIdStatus) -> ExitStatus {
    const CORE: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | CORE,
        (None, Some(signal)) => signal,
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}

/// Waits until `fd` is readable.
fn wait_readable(fd: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
}

/// A process that was started by a [`Command`](crate::Command), as `std::process::Child`.
///
/// Dropping it neither ends the process nor waits for it.
#[derive(Debug)]
pub struct Child {
    /// The writing end of its standard input, if that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// The reading end of its standard output, if that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// The reading end of its standard error, if that is a pipe.
    pub stderr: Option<ChildStderr>,
    shared: Arc<Shared>,
}

impl Child {
    pub(crate) fn new(handle: Handle, pipes: Pipes) -> Self {
        let shared = Arc::new(Shared { handle, end: Mutex::new(None) });
        Self { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr, shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.shared.pid()
    }

    /// Kills it alone. What it has started lives on: for all of it see
    /// [`Job::terminate`](crate::Job::terminate). One that has ended is no error.
    ///
    /// # Errors
    /// When it is not this process's to kill any more: it has become another user's.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(9)
    }

    /// Sends it a signal. One that has ended is no error.
    ///
    /// # Errors
    /// A number that is no signal; a process that has become another user's.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if !jobobject_abi::units::is_signal(signal) {
            return Err(Error::invalid(format!("{signal} is not a signal")));
        }
        match send(self.shared.process().pidfd(), signal) {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                Err(Error::io("pidfd_send_signal", self.id().to_string(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Closes its standard input, if that is a pipe, and waits for its end.
    ///
    /// # Errors
    /// [`StatusTaken`](crate::ErrorKind::StatusTaken) when it has ended and another part of this
    /// process has taken its status.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        self.status(self.shared.end()?)
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.shared.try_end()?.map(|end| self.status(end)).transpose()
    }

    fn status(&self, end: LeaderEnd) -> Result<ExitStatus> {
        end.status().ok_or_else(|| Error::status_taken(self.id()))
    }

    /// Closes its standard input, reads all of its output and waits for it.
    ///
    /// # Errors
    /// As [`Child::wait`]; what reading a pipe may fail with.
    pub fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) =
            read_both(stdout, stderr).map_err(|error| Error::io("read", "pipe", &error))?;
        let status = self.wait()?;
        Ok(Output { status, stdout, stderr })
    }
}

/// Reads two pipes to their ends, whichever has something to say: a command that fills one must not
/// wait for the other to be read. Without a thread, which may not be had.
fn read_both(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut pipes = [stdout.map(OwnedFd::from), stderr.map(OwnedFd::from)];
    let mut texts = [Vec::new(), Vec::new()];
    let mut room = vec![0; 64 << 10];
    while pipes.iter().any(Option::is_some) {
        let open = pipes.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let mut open: Vec<_> = open.collect();
        retry_on_intr(|| poll(&mut open, None))?;
        let ready: Vec<_> = open.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        for (pipe, text) in pipes.iter_mut().zip(&mut texts) {
            let Some(fd) = pipe else { continue };
            if ready.next() != Some(true) {
                continue;
            }
            match retry_on_intr(|| read(&*fd, &mut *room))? {
                0 => *pipe = None,
                length => text.extend_from_slice(&room[..length]),
            }
        }
    }
    let [stdout, stderr] = texts;
    Ok((stdout, stderr))
}

/// Its pidfd: readable when it has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.process().pidfd()
    }
}
