//! What a pidfd can tell besides its poll: the cgroup of a process, and the exit status after somebody else
//! has reaped it.
//!
//! `PIDFD_GET_INFO` came with Linux 6.13, the exit status with 6.15. It is known only *after* the reaping,
//! by whomever it was done (the kernel itself where SIGCHLD is ignored), and to every holder of a pidfd
//! that was open then.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How a process ended, and what it belonged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitInfo {
    /// The status as `wait` reports it: to be read with `WIFEXITED` and its like, or by
    /// `std::os::unix::process::ExitStatusExt::from_raw`.
    pub status: i32,
    /// The id (inode number) of the cgroup that it was in; 0 if the kernel does not say.
    pub cgroup: u64,
}

/// The kernel's `struct pidfd_info`, as long as it was when it got the exit status
/// (`include/uapi/linux/pidfd.h`). It is extensible; the size is part of the request's number.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

const INFO_CGROUPID: u64 = 1 << 2;
const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xff, 11, struct pidfd_info)`
const PIDFD_GET_INFO: u64 = 3 << 30 | (size_of::<Info>() as u64) << 16 | 0xff << 8 | 11;

/// How the process of `pidfd` ended. None while the kernel does not know it: it lives, or nobody has
/// reaped it yet.
///
/// # Errors
/// `Unsupported` before Linux 6.13. ESRCH if the process is reaped and nothing is known of it: before 6.15,
/// or when the pidfd was made too late.
pub fn exit_info(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitInfo>> {
    let info = info(pidfd, INFO_EXIT | INFO_CGROUPID)?;
    let known = info.mask & INFO_EXIT != 0;
    Ok(known.then_some(ExitInfo { status: info.exit_code, cgroup: info.cgroup }))
}

/// The id of the cgroup (in the v2 hierarchy) that a living process is in: that of no other cgroup, ever.
///
/// # Errors
/// `Unsupported` before Linux 6.13. ESRCH if the process is reaped.
pub fn cgroup_id(pidfd: BorrowedFd<'_>) -> io::Result<u64> {
    let info = info(pidfd, INFO_CGROUPID)?;
    let known = info.mask & INFO_CGROUPID != 0 && info.cgroup != 0;
    known.then_some(info.cgroup).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn info(pidfd: BorrowedFd<'_>, mask: u64) -> io::Result<Info> {
    let mut info = Info { mask, ..Info::default() };
    // SAFETY: the structure is live and writable, and the request's number carries its size.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if rc == 0 {
        return Ok(info);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL) => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}
