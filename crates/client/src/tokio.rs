//! The waits, for tokio.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::child::Child;
use crate::end::JobEnd;
use crate::error::{Error, Result};
use crate::job::Job;

/// A descriptor of our own: the reactor keeps it registered while the wait may replace its own.
struct Registered(OwnedFd);

impl AsRawFd for Registered {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

// The new name is unsafe because a `T` could give another descriptor each time; ours owns one.
#[allow(deprecated)]
fn register(fd: impl AsFd) -> Result<AsyncFd<Registered>> {
    let copy = fd.as_fd().try_clone_to_owned();
    let registered = copy.and_then(|fd| AsyncFd::with_interest(Registered(fd), Interest::READABLE));
    registered.map_err(|error| Error::io("epoll_ctl", "wait", &error))
}

impl Job {
    /// [`Job::wait`] without blocking the thread. Dropping the future ends the wait, not the job.
    ///
    /// # Errors
    /// As [`Job::wait`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn wait_async(&self) -> Result<JobEnd> {
        let mut waiter = self.waiter();
        loop {
            if let Some(end) = waiter.check()? {
                return Ok(end);
            }
            let registered = waiter.fd().map(register).transpose()?;
            let news = async {
                match &registered {
                    Some(fd) => drop(fd.readable().await),
                    None => sleep(Duration::from_millis(1)).await,
                }
            };
            match waiter.recheck_after() {
                Some(delay) => drop(tokio::time::timeout(delay, news).await),
                None => news.await,
            }
        }
    }
}

impl Child {
    /// [`Child::wait`] without blocking the thread.
    ///
    /// # Errors
    /// As [`Child::wait`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn wait_async(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let registered = register(&*self)?;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match registered.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return Err(Error::io("epoll_wait", "pidfd", &error)),
            }
        }
    }
}
