//! Where the cgroup v2 hierarchy is, and where in it we are.
//!
//! It need not be at `/sys/fs/cgroup`: hybrid hosts mount it below, containers mount a part of it
//! elsewhere. A group has one name that everybody of one cgroup namespace agrees on, the one in
//! `/proc/PID/cgroup`; how to get there through a mount is this file's secret. Sources: cgroups(7),
//! proc_pid_mountinfo(5).

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jobobject_core::Fault;
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use crate::fault::{NOT_MOUNTED, OrFault, group_fault, trouble};
use crate::files;

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A mount of the hierarchy, through which groups can be made.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The path of the group that is mounted there: `/` unless only a part is.
    pub(crate) root: String,
    /// The mounted directory.
    pub(crate) dir: OwnedFd,
}

/// A line of mountinfo that may serve.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    point: PathBuf,
    root: String,
    read_only: bool,
}

impl Mount {
    /// The mount through which `own` can be reached and written; `mountinfo` as in /proc/self.
    pub(crate) fn find(mountinfo: &Path, own: &str) -> Result<Self, Fault> {
        let text = files::read(CWD, mountinfo).or_fault("read", || mountinfo.to_string_lossy())?;
        let candidates = parse(&text);
        if candidates.is_empty() {
            return Err(Fault {
                errno: Errno::OPNOTSUPP.raw_os_error(),
                hint: Some(NOT_MOUNTED.to_owned()),
                ..trouble("find", "cgroup2", "the cgroup v2 hierarchy is not mounted")
            });
        }
        let mut refusal = None;
        for candidate in candidates {
            match candidate.open(own) {
                Ok(mount) => return Ok(mount),
                // The reason that a person can do something about is the one worth telling.
                Err(fault) if refusal.is_none() || fault.errno == Errno::ROFS.raw_os_error() => {
                    refusal = Some(fault)
                }
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or_else(|| trouble("cgroup2", own, "no mount of it can be used")))
    }

    /// The name below [`Mount::dir`] of a group; `None` when it is not below what is mounted.
    pub(crate) fn relative<'p>(&self, group: &'p str) -> Option<&'p str> {
        below(&self.root, group)
    }

    /// Where a group is in the file system, for people.
    pub(crate) fn shown(&self, group: &str) -> String {
        match self.relative(group) {
            Some(".") | None => self.point.to_string_lossy().into_owned(),
            Some(relative) => self.point.join(relative).to_string_lossy().into_owned(),
        }
    }

    /// The name of the group at a path of the file system.
    pub(crate) fn group_at(&self, path: &Path) -> Option<String> {
        let relative = path.strip_prefix(&self.point).ok()?.to_str()?;
        Some(if relative.is_empty() { self.root.clone() } else { join(&self.root, relative) })
    }
}

impl Candidate {
    fn open(&self, own: &str) -> Result<Mount, Fault> {
        let shown = || self.point.to_string_lossy().into_owned();
        if self.read_only {
            return Err(group_fault("cgroup2", shown(), Errno::ROFS));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &self.point, flags, Mode::empty()).or_fault("open", shown)?;
        // Something may be mounted over it. (The type of f_type differs between architectures.)
        let magic = fstatfs(&dir).or_fault("statfs", shown)?.f_type;
        if magic as u64 != CGROUP2_SUPER_MAGIC {
            return Err(trouble("cgroup2", shown(), "something else is mounted over it"));
        }
        let mount = Mount { point: self.point.clone(), root: self.root.clone(), dir };
        let Some(relative) = mount.relative(own) else {
            return Err(trouble(
                "cgroup2",
                shown(),
                format!("our own group {own} is not below what is mounted there"),
            ));
        };
        files::open_path(&mount.dir, relative).or_fault("open", || mount.shown(own))?;
        Ok(mount)
    }
}

/// `path` as a name below `root`, both from the same origin.
fn below<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    match rest {
        "" | "/" => Some("."),
        _ => rest.strip_prefix('/'),
    }
}

/// A name below a group.
pub(crate) fn join(group: &str, name: &str) -> String {
    format!("{}/{name}", group.trim_end_matches('/'))
}

/// The group above; `None` for the topmost.
pub(crate) fn parent(group: &str) -> Option<&str> {
    match group.rsplit_once('/') {
        Some(("", "")) | None => None,
        Some(("", _)) => Some("/"),
        Some((parent, _)) => Some(parent),
    }
}

/// Whether `group` is `above` or below it.
pub(crate) fn within(above: &str, group: &str) -> bool {
    below(above, group).is_some()
}

/// The mounts of the hierarchy in mountinfo, the last first: a later mount hides an earlier one.
pub(crate) fn parse(text: &[u8]) -> Vec<Candidate> {
    let mut found: Vec<_> = text.split(|&byte| byte == b'\n').filter_map(parse_line).collect();
    found.reverse();
    found
}

/// `36 35 98:0 /root /point rw,noatime master:1 - cgroup2 source rw`.
fn parse_line(line: &[u8]) -> Option<Candidate> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let options = fields.next()?;
    // Optional fields, as many as there are, end with a dash.
    fields.find(|field| *field == b"-")?;
    if fields.next()? != b"cgroup2" {
        return None;
    }
    let _source = fields.next()?;
    let super_options = fields.next().unwrap_or_default();
    let read_only =
        |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"ro");
    let root = String::from_utf8(unescape(root)).ok()?;
    // A mount from above our cgroup namespace says "/..": nothing below it can be named.
    if root.starts_with("/..") {
        return None;
    }
    Some(Candidate {
        point: PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(point))),
        root,
        read_only: read_only(options) || read_only(super_options),
    })
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let (b'\\', Some(digits)) = (byte, octal) {
            plain.push(
                digits
                    .iter()
                    .fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
            );
            rest = &tail[3..];
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

/// The path of the v2 group in the text of /proc/PID/cgroup, and whether that group still exists.
pub(crate) fn group_of(text: &[u8]) -> Option<(&str, bool)> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    let path = std::str::from_utf8(line).ok()?;
    Some(match path.strip_suffix(" (deleted)") {
        Some(path) => (path, false),
        None => (path, true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_hierarchy_is_found_where_it_is() {
        let found = parse(HYBRID);
        let expected = Candidate {
            point: "/sys/fs/cgroup/unified".into(),
            root: "/".into(),
            read_only: false,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_space_in_a_mount_point_is_written_in_octal() {
        let found = parse(b"41 31 0:38 /a\\040b /mnt/with\\040space\\134x ro - cgroup2 none rw\n");
        let expected =
            Candidate { point: "/mnt/with space\\x".into(), root: "/a b".into(), read_only: true };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_mount_whose_file_system_is_read_only_is_known_as_such() {
        assert!(parse(b"1 2 0:3 / /c rw - cgroup2 none ro\n")[0].read_only);
    }

    #[test]
    fn a_mount_from_above_our_namespace_cannot_be_used() {
        assert_eq!(parse(b"1 2 0:3 /../.. /c rw - cgroup2 none rw\n"), []);
    }

    #[test]
    fn a_part_of_the_hierarchy_names_only_what_is_below_it() {
        assert_eq!(below("/docker/abc", "/docker/abc/job"), Some("job"));
        assert_eq!(below("/docker/abc", "/docker/abc"), Some("."));
        assert_eq!(below("/docker/abc", "/docker/abcd"), None);
        assert_eq!(below("/", "/a/b"), Some("a/b"));
        assert_eq!(below("/", "/"), Some("."));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), None);
    }

    #[test]
    fn the_group_of_a_zombie_may_be_deleted() {
        assert_eq!(group_of(b"1:cpu:/x\n0::/a b (deleted)\n"), Some(("/a b", false)));
        assert_eq!(group_of(b"0::/\n"), Some(("/", true)));
        assert_eq!(group_of(b"1:cpu:/x\n"), None);
    }
}
