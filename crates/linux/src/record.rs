//! What a group says of itself, in an extended attribute: so that another engine, `job which` and a
//! successor can read what it is, whatever its directory is called.
//!
//! A root says who owns it; a job's group says only which one it is, since its owner is its root's and a
//! job should cost one attribute call. Text, a version first: `1 root 4711 98765 <boot id>`, `1 job 3 k`.
//! `user.` attributes exist on cgroup2 since 5.7; before that only `trusted.`, which needs
//! CAP_SYS_ADMIN; where there is neither, groups have no record and nobody else cleans them up.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use crate::files;
use crate::process;

const NAMES: [&str; 2] = ["user.jobobject", "trusted.jobobject"];

/// What a group of our kind is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The directory that an engine keeps its groups in.
    Root(Owner),
    /// The group of a job.
    Job {
        /// Its number, unique below its root at a time.
        number: u32,
        /// Its members die with the owner.
        guarded: bool,
    },
}

/// The process that an engine runs in; a pid alone could be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its id, in its own pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Which boot.
    pub boot: String,
}

impl Owner {
    /// This process.
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        let started = process::Stat::of(pid).map_or(0, |stat| stat.started);
        Self { pid, started, boot: boot_id().to_owned() }
    }

    /// Whether it still runs, as far as can be seen from here.
    pub(crate) fn alive(&self) -> bool {
        self.boot == boot_id()
            && process::Stat::of(self.pid)
                .is_some_and(|stat| stat.started == self.started && !stat.ended())
    }
}

/// Tells one boot from another; empty where the kernel does not say.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = files::read_proc("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    })
}

impl Record {
    fn encode(&self) -> String {
        match self {
            Self::Root(owner) => format!("1 root {} {} {}", owner.pid, owner.started, owner.boot),
            Self::Job { number, guarded } => {
                format!("1 job {number} {}", if *guarded { "k" } else { "-" })
            }
        }
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != "1" {
            return None;
        }
        match words.next()? {
            "root" => Some(Self::Root(Owner {
                pid: words.next()?.parse().ok()?,
                started: words.next()?.parse().ok()?,
                boot: words.next()?.to_owned(),
            })),
            "job" => Some(Self::Job {
                number: words.next()?.parse().ok()?,
                guarded: words.next()?.contains('k'),
            }),
            _ => None,
        }
    }

    /// Writes it on a directory, where that is possible.
    pub(crate) fn write(&self, dir: impl AsFd) {
        let text = self.encode();
        for name in NAMES {
            if fsetxattr(&dir, name, text.as_bytes(), XattrFlags::empty()).is_ok() {
                return;
            }
        }
    }

    /// Reads it from an open directory; `None` for a group that is none of our kind.
    pub(crate) fn read(dir: impl AsFd) -> Option<Self> {
        let mut room = [0_u8; 128];
        for name in NAMES {
            match fgetxattr(&dir, name, &mut room) {
                Ok(len) => return Self::decode(std::str::from_utf8(&room[..len]).ok()?),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let owner = Owner { pid: 7, started: 123_456, boot: "d0c5".to_owned() };
        for record in [Record::Root(owner), Record::Job { number: 3, guarded: true }] {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn what_is_no_record_of_ours_is_refused() {
        for text in ["", "1", "2 root 1 2 x", "1 root x 2 y", "1 job", "1 job 3", "1 moon 3 k"] {
            assert_eq!(Record::decode(text), None, "{text:?}");
        }
    }
}
