//! How an errno becomes a [`Fault`]: the call, its object, and what a person can do about it.

use jobobject_core::Fault;
use rustix::io::Errno;

/// What to do when the caller may not make groups where it is.
const NO_PERMISSION: &str = "run as root, or give this user a group of its own: \
    systemd-run --user --scope -p Delegate=yes -- COMMAND";
/// What to do when the hierarchy cannot be written to.
const READ_ONLY: &str = "the cgroup file system is read-only here, as in most containers: start the container with \
    a writable one (podman: --cgroups=split or --security-opt unmask=/sys/fs/cgroup; docker: --privileged \
    --cgroupns=private, or a cgroup bind mount with :rw), or remount it: mount -o remount,rw PATH";
/// What to do when there is no hierarchy.
pub(crate) const NOT_MOUNTED: &str = "mount the cgroup v2 hierarchy, as root: \
    mount -t cgroup2 none /sys/fs/cgroup; a container needs it from its runtime";
/// What to do when a group above bounds the number of groups.
const NO_ROOM: &str = "a group above bounds their number or depth: see cgroup.max.descendants and cgroup.max.depth \
    there, or end jobs first";
/// What to do when descriptors run out.
const NO_DESCRIPTORS: &str =
    "raise the number of open files (ulimit -n), or keep fewer jobs at a time";

/// The kernel said no.
pub(crate) fn fault(call: &'static str, target: impl Into<String>, errno: Errno) -> Fault {
    let hint = matches!(errno, Errno::MFILE | Errno::NFILE).then(|| NO_DESCRIPTORS.to_owned());
    let errno = errno.raw_os_error();
    Fault { call, target: target.into(), errno, message: words(errno), hint, gone: false }
}

/// The kernel said no to something done to a group.
pub(crate) fn group_fault(call: &'static str, target: impl Into<String>, errno: Errno) -> Fault {
    let fault = fault(call, target, errno);
    let hint = match errno {
        Errno::PERM | Errno::ACCESS => NO_PERMISSION,
        Errno::ROFS => READ_ONLY,
        Errno::AGAIN | Errno::NOSPC => NO_ROOM,
        _ => return fault,
    };
    Fault { hint: Some(hint.to_owned()), ..fault }
}

/// A call of the standard library or of `sys` failed.
pub(crate) fn io_fault(
    call: &'static str,
    target: impl Into<String>,
    error: &std::io::Error,
) -> Fault {
    match Errno::from_io_error(error) {
        Some(errno) => fault(call, target, errno),
        None => trouble(call, target, error.to_string()),
    }
}

/// The kernel said yes and we cannot go on nevertheless.
pub(crate) fn trouble(
    call: &'static str,
    target: impl Into<String>,
    message: impl Into<String>,
) -> Fault {
    Fault {
        call,
        target: target.into(),
        errno: 0,
        message: message.into(),
        hint: None,
        gone: false,
    }
}

/// The process that was to be acted on has ended.
pub(crate) fn gone(call: &'static str, pid: u32) -> Fault {
    let errno = Errno::SRCH.raw_os_error();
    Fault {
        call,
        target: format!("process {pid}"),
        errno,
        message: "the process has ended".to_owned(),
        hint: None,
        gone: true,
    }
}

/// A forked copy of the owner asked: it owns nothing.
pub(crate) fn forked(call: &'static str) -> Fault {
    Fault {
        hint: Some("jobs stay with the process that made them: use them there, or make new ones after exec".to_owned()),
        errno: Errno::PERM.raw_os_error(),
        ..trouble(call, "fork", "this process is a fork of the jobs' owner and owns none of them")
    }
}

/// Whether it is for want of descriptors.
pub(crate) fn no_descriptors(fault: &Fault) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| errno.raw_os_error() == fault.errno)
}

/// The errno as the C library words it.
pub(crate) fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Turns the errno of a failed call into a [`Fault`].
pub(crate) trait OrFault<T> {
    /// Names the call and, only when it failed, its object.
    fn or_fault<S: Into<String>>(
        self,
        call: &'static str,
        target: impl FnOnce() -> S,
    ) -> Result<T, Fault>;

    /// Likewise, with what to do about it, for something done to a group.
    fn or_group_fault<S: Into<String>>(
        self,
        call: &'static str,
        target: impl FnOnce() -> S,
    ) -> Result<T, Fault>;
}

impl<T> OrFault<T> for Result<T, Errno> {
    fn or_fault<S: Into<String>>(
        self,
        call: &'static str,
        target: impl FnOnce() -> S,
    ) -> Result<T, Fault> {
        self.map_err(|errno| fault(call, target(), errno))
    }

    fn or_group_fault<S: Into<String>>(
        self,
        call: &'static str,
        target: impl FnOnce() -> S,
    ) -> Result<T, Fault> {
        self.map_err(|errno| group_fault(call, target(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_was_tried_why_it_failed_and_what_to_do() {
        let fault = group_fault("mkdir", "/sys/fs/cgroup/x", Errno::ACCESS);
        assert_eq!(fault.to_string(), "mkdir(/sys/fs/cgroup/x): Permission denied");
        assert!(fault.hint.unwrap().contains("Delegate=yes"));
        assert!(!fault.gone);
    }
}
