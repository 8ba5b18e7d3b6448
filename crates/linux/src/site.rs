//! Where this process is: the mount it reaches groups by, its own group, and where new roots belong.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jobobject_core::Fault;
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::fault::{OrFault, trouble};
use crate::files;
use crate::mount::{self, Mount};
use crate::platform::Options;
use crate::record::Record;

/// What is found out once, at the first group.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) mount: Mount,
    /// Our own `/proc/self/cgroup`, held open: an outside manager may move us at any time.
    own: OwnedFd,
    /// What it said last, and when.
    last: Mutex<Option<(Instant, Arc<str>)>>,
    /// Where roots are made, if somebody insists.
    base: Option<String>,
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
        Ok(Self { mount, own, last: Mutex::default(), base })
    }

    /// Our own group, now. 1 to 3 µs: the text names every hierarchy.
    pub(crate) fn own(&self) -> Result<Arc<str>, Fault> {
        let group: Arc<str> = read_own(&self.own)?.into();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&group)));
        Ok(group)
    }

    /// Our own group, a moment ago at most.
    pub(crate) fn own_recently(&self) -> Result<Arc<str>, Fault> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some((when, group)) if when.elapsed() < RECENT => Ok(group),
            _ => self.own(),
        }
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
            errno: Errno::NOENT.raw_os_error(),
            hint: Some(crate::fault::NOT_MOUNTED.to_owned()),
            ..trouble("read", shown(), "this kernel has no cgroup v2 hierarchy")
        }),
    }
}
