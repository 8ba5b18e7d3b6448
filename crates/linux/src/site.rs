//! Where this process is: the mount it reaches groups by, its own group, and where new roots belong.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jobobject_core::Fault;
use jobobject_sys::pidfd;
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::fault::{OrFault, trouble};
use crate::mount::{self, Mount};
use crate::platform::Options;
use crate::record::Record;
use crate::{files, process};

/// What is found out once, at the first group.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) mount: Mount,
    /// Our own `/proc/self/cgroup`, held open: an outside manager may move us at any time.
    own: OwnedFd,
    /// Ourselves, where the kernel tells by that which group we are in (Linux 6.13).
    this: Option<OwnedFd>,
    /// Our own group, when it was last asked for.
    last: Mutex<Option<Seen>>,
    /// Where roots are made, if somebody insists.
    base: Option<String>,
}

/// Our own group, as it once was.
#[derive(Debug)]
struct Seen {
    name: Arc<str>,
    /// What the kernel calls it and no other group, if it says.
    id: Option<u64>,
    when: Instant,
}

/// For so long our own group is not read again by one and the same call: a look at where the caller is, and
/// the making of a group for it.
const RECENT: Duration = Duration::from_millis(1);

/// Where a root belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// The group that it is made in.
    pub(crate) group: String,
    /// The group of a process that is in none of our jobs: `group`, or the leaf in it of the job around us.
    pub(crate) outside: String,
}

impl Site {
    pub(crate) fn open(options: &Options) -> Result<Self, Fault> {
        let own = files::open(CWD, "/proc/self/cgroup").or_fault("open", || "/proc/self/cgroup")?;
        let group = read_own(&own)?;
        let mountinfo =
            options.mountinfo.clone().unwrap_or_else(|| PathBuf::from("/proc/self/mountinfo"));
        let mount = Mount::find(&mountinfo, &group)?;
        let base = match &options.base {
            Some(path) => {
                let shown = || path.to_string_lossy().into_owned();
                Some(
                    mount
                        .group_at(path)
                        .ok_or_else(|| trouble("base", shown(), "not below the cgroup v2 mount"))?,
                )
            }
            None => None,
        };
        let this = process::open(std::process::id()).ok().flatten();
        Ok(Self { mount, own, this, last: Mutex::default(), base })
    }

    /// Our own group, now. Its id tells whether it is the one whose name we know, in 0.6 µs instead of the 3 µs
    /// of a text that names every hierarchy.
    pub(crate) fn own(&self) -> Result<Arc<str>, Fault> {
        let id = self.own_id();
        if let Some(seen) = self.last().as_mut().filter(|seen| id.is_some() && seen.id == id) {
            seen.when = Instant::now();
            return Ok(Arc::clone(&seen.name));
        }
        let name: Arc<str> = read_own(&self.own)?.into();
        // Moved meanwhile: then it is not known whose name was read.
        let id = id.filter(|id| self.own_id() == Some(*id));
        *self.last() = Some(Seen { name: Arc::clone(&name), id, when: Instant::now() });
        Ok(name)
    }

    fn last(&self) -> MutexGuard<'_, Option<Seen>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_id(&self) -> Option<u64> {
        pidfd::cgroup_id(self.this.as_ref()?.as_fd()).ok()
    }

    /// Our own group, a moment ago at most.
    pub(crate) fn own_recently(&self) -> Result<Arc<str>, Fault> {
        if let Some(seen) = self.last().as_ref().filter(|seen| seen.when.elapsed() < RECENT) {
            return Ok(Arc::clone(&seen.name));
        }
        self.own()
    }

    /// Where a root belongs when our own group is `own`: below it, or beside it when it is the leaf of a job.
    pub(crate) fn base(&self, own: &str) -> Base {
        if let Some(base) = &self.base {
            return Base { group: base.clone(), outside: base.clone() };
        }
        let around = mount::parent(own)
            .filter(|parent| matches!(self.record(parent), Some(Record::Job { .. })));
        Base { group: around.unwrap_or(own).to_owned(), outside: own.to_owned() }
    }

    /// What a group says of itself.
    pub(crate) fn record(&self, group: &str) -> Option<Record> {
        let relative = self.mount.relative(group)?;
        Record::read(files::open_dir(&self.mount.dir, relative).ok()?)
    }
}

fn read_own(file: &OwnedFd) -> Result<String, Fault> {
    let mut room = [0_u8; 4096];
    let mut long = Vec::new();
    let shown = || "/proc/self/cgroup";
    let mut text = files::peek(file, &mut room).or_fault("read", shown)?;
    if text.len() == 4096 {
        files::reread(file, &mut long).or_fault("read", shown)?;
        text = &long;
    }
    match mount::group_of(text) {
        Some((path, _)) => Ok(path.to_owned()),
        None => Err(Fault {
            errno: Errno::OPNOTSUPP.raw_os_error(),
            hint: Some(crate::fault::NOT_MOUNTED.to_owned()),
            ..trouble("read", shown(), "this kernel has no cgroup v2 hierarchy")
        }),
    }
}
