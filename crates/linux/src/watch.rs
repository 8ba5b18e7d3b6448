//! The end of a tree, told promptly.
//!
//! `cgroup.events` is the truth but its notification may come 10 ms late (the kernel sends one per 10 ms
//! and file). A pidfd is prompt but only of one process. So a few members are held, spread over the list: when
//! the last of those has ended the list is read again, and when few are left all of them are held.
//! `populated 0` alone ends the watch.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jobobject_core::Fault;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::fault::{OrFault, group_fault};
use crate::group::{self, Group};
use crate::process;

/// How many members are held.
const HELD: usize = 16;
/// How often a group whose members have all ended is asked at once whether it is empty now.
const SPINS: usize = 64;
/// What the events file is called among the pidfds.
const EVENTS: u64 = 0;
/// What the guardian is called among them.
const GUARDIAN: u64 = u64::MAX;

/// Waits for a group, with all below it, to become empty. To be polled together with other descriptors:
/// readable means that [`check`](Self::check) is worth calling.
#[derive(Debug)]
pub struct EmptyWatch {
    group: Arc<Group>,
    epoll: OwnedFd,
    events: OwnedFd,
    held: HashMap<u32, OwnedFd>,
    guardian: Option<OwnedFd>,
    guardian_fell: bool,
    recheck: Option<Duration>,
}

impl EmptyWatch {
    pub(crate) fn new(group: Arc<Group>, guardian: Option<OwnedFd>) -> Result<Self, Fault> {
        let shown = || format!("{}/cgroup.events", group.path());
        let events = group.open("cgroup.events").or_group_fault("open", shown)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).or_fault("epoll_create", shown)?;
        epoll::add(&epoll, &events, epoll::EventData::new_u64(EVENTS), epoll::EventFlags::PRI)
            .or_fault("epoll_ctl", shown)?;
        if let Some(guardian) = &guardian {
            let data = epoll::EventData::new_u64(GUARDIAN);
            epoll::add(&epoll, guardian, data, epoll::EventFlags::IN)
                .or_fault("epoll_ctl", shown)?;
        }
        let (held, recheck) = (HashMap::new(), Some(Duration::ZERO));
        Ok(Self { group, epoll, events, held, guardian, guardian_fell: false, recheck })
    }

    /// Whether nobody is left. To be called at the start, when the descriptor is readable, and after
    /// [`recheck_after`](Self::recheck_after).
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn check(&mut self) -> Result<bool, Fault> {
        let empty = self.look().map_err(|errno| group_fault("read", self.group.path(), errno))?;
        if empty {
            self.held.clear();
            self.recheck = None;
        }
        Ok(empty)
    }

    /// When to check again although nothing was heard: no member could be held. `None`: what is to come
    /// will be heard.
    #[must_use]
    pub fn recheck_after(&self) -> Option<Duration> {
        self.recheck
    }

    /// The last check has heard that the guardian has been killed. Whoever waits on should have another made
    /// ([`Platform::renew_guardian`](crate::Platform::renew_guardian)) and watch with that.
    #[must_use]
    pub fn guardian_fell(&self) -> bool {
        self.guardian_fell
    }

    fn look(&mut self) -> Result<bool, Errno> {
        self.let_go()?;
        for _ in 0..SPINS {
            // Reading also says to the kernel that we know.
            if !group::populated_in(&self.events)? {
                return Ok(true);
            }
            if !self.held.is_empty() {
                self.recheck = None;
                return Ok(false);
            }
            match self.hold()? {
                Found::Live => {
                    self.recheck = None;
                    return Ok(false);
                }
                // Members that cannot be named: the events file will tell, late.
                Found::Nameless => {
                    self.recheck = Some(Duration::from_millis(20));
                    return Ok(false);
                }
                // On the way out: a matter of microseconds, unless they are held up.
                Found::Ended => std::thread::yield_now(),
            }
        }
        self.recheck = Some(Duration::from_millis(1));
        Ok(false)
    }

    /// Closes what has ended.
    fn let_go(&mut self) -> Result<(), Errno> {
        let mut room = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; HELD + 2];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = match epoll::wait(&self.epoll, &mut room, Some(&at_once)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno),
        };
        for event in &room[..ready] {
            let data = event.data;
            if data.u64() == GUARDIAN
                && let Some(guardian) = self.guardian.take()
            {
                let _ = epoll::delete(&self.epoll, &guardian);
                self.guardian_fell = true;
            }
            // A descriptor that is closed everywhere leaves the set by itself; a fork of ours may hold a copy.
            if let Some(pidfd) =
                u32::try_from(data.u64()).ok().and_then(|pid| self.held.remove(&pid))
            {
                let _ = epoll::delete(&self.epoll, &pidfd);
            }
        }
        Ok(())
    }

    /// Holds up to [`HELD`] members.
    fn hold(&mut self) -> Result<Found, Errno> {
        let mut members = Vec::new();
        self.group.visit(&mut |_, text| members.extend(group::pids(text)))?;
        if members.is_empty() {
            return Ok(Found::Nameless);
        }
        // Spread, the last included: members tend to end in the order of the list.
        let count = members.len().min(HELD);
        for nth in 1..=count {
            let pid = members[nth * members.len() / count - 1];
            let pidfd = match process::open(pid) {
                Ok(Some(pidfd)) => pidfd,
                Ok(None) => continue,
                Err(Errno::MFILE | Errno::NFILE) if !self.held.is_empty() => break,
                Err(Errno::MFILE | Errno::NFILE) => return Ok(Found::Nameless),
                Err(errno) => return Err(errno),
            };
            if process::readable(pidfd.as_fd()) {
                continue;
            }
            let data = epoll::EventData::new_u64(u64::from(pid));
            epoll::add(&self.epoll, &pidfd, data, epoll::EventFlags::IN)?;
            self.held.insert(pid, pidfd);
        }
        Ok(if self.held.is_empty() { Found::Ended } else { Found::Live })
    }
}

impl AsFd for EmptyWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// What became of an attempt to hold members.
enum Found {
    Live,
    Ended,
    Nameless,
}
