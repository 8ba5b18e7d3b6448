//! System calls without a C library: for code that runs between birth and exec, and for the guardian.
//!
//! Nothing here allocates, takes a lock, touches `errno` or thread-local storage, or panics. That is
//! what a child that shares its parent's memory may do, and all that a program without `std` can.
//! The file belongs to two programs: the library (`crate::raw`) and the guardian, which is compiled by
//! the build script. So it uses `core` only.
//!
//! Errors are plain errno values. Descriptors are plain numbers: their owners are elsewhere.

#![allow(dead_code, reason = "each of the two programs that share this file uses a part of it")]

use core::ffi::CStr;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("jobobject-sys speaks to the kernel of x86_64 and aarch64 only");

/// The numbers of the calls used here.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) mod nr {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const LSEEK: usize = 8;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const CHDIR: usize = 80;
    pub(crate) const UMASK: usize = 95;
    pub(crate) const SETUID: usize = 105;
    pub(crate) const SETGID: usize = 106;
    pub(crate) const SETPGID: usize = 109;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const SETGROUPS: usize = 116;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const FUTEX: usize = 202;
    pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const UNLINKAT: usize = 263;
    pub(crate) const PPOLL: usize = 271;
    pub(crate) const DUP3: usize = 292;
    pub(crate) const EXECVEAT: usize = 322;
    pub(crate) const CLONE3: usize = 435;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

/// The numbers of the calls used here.
#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
pub(crate) mod nr {
    pub(crate) const DUP3: usize = 24;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const UNLINKAT: usize = 35;
    pub(crate) const CHDIR: usize = 49;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const GETDENTS64: usize = 61;
    pub(crate) const LSEEK: usize = 62;
    pub(crate) const READ: usize = 63;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const PPOLL: usize = 73;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const FUTEX: usize = 98;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const SETGID: usize = 144;
    pub(crate) const SETUID: usize = 146;
    pub(crate) const SETPGID: usize = 154;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const SETGROUPS: usize = 159;
    pub(crate) const UMASK: usize = 166;
    pub(crate) const PRCTL: usize = 167;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const EXECVEAT: usize = 281;
    pub(crate) const CLONE3: usize = 435;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

/// The errno values that decide something here; the same on every architecture we know.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const ENOEXEC: i32 = 8;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const ENOTDIR: i32 = 20;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOSYS: i32 = 38;
    pub(crate) const ETIMEDOUT: i32 = 110;
    pub(crate) const ESTALE: i32 = 116;
}

pub(crate) const O_RDONLY: i32 = 0;
pub(crate) const O_WRONLY: i32 = 1;
pub(crate) const O_CLOEXEC: i32 = 0o2_000_000;
#[cfg(target_arch = "x86_64")]
pub(crate) const O_DIRECTORY: i32 = 0o200_000;
#[cfg(target_arch = "x86_64")]
pub(crate) const O_NOFOLLOW: i32 = 0o400_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_DIRECTORY: i32 = 0o40_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_NOFOLLOW: i32 = 0o100_000;

/// One system call. A negative return between -4095 and -1 is an errno.
///
/// # Safety
/// The arguments must be what the call asks for: pointers live, writable where it writes, and as long
/// as it takes them to be.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn call6(
    nr: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let ret: isize;
    // SAFETY: the instruction clobbers rcx and r11 besides its result; what the call does to memory is
    // the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// One system call. A negative return between -4095 and -1 is an errno.
///
/// # Safety
/// The arguments must be what the call asks for: pointers live, writable where it writes, and as long
/// as it takes them to be.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) unsafe fn call6(
    nr: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let ret: isize;
    // SAFETY: the kernel preserves every register but x0; what the call does to memory is the caller's
    // promise.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr,
            inlateout("x0") a => ret,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    ret
}

/// [`call6`] with fewer arguments.
///
/// # Safety
/// As for [`call6`].
#[inline(always)]
pub(crate) unsafe fn call3(nr: usize, a: usize, b: usize, c: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { call6(nr, a, b, c, 0, 0, 0) }
}

/// What a raw return value means.
#[inline(always)]
pub(crate) fn check(ret: isize) -> Result<usize, i32> {
    if (-4095..0).contains(&ret) { Err(-(ret as i32)) } else { Ok(ret as usize) }
}

/// A descriptor as a call's argument.
#[inline(always)]
fn arg(fd: i32) -> usize {
    fd as isize as usize
}

pub(crate) fn read(fd: i32, buf: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the buffer is live and writable for its length.
    check(unsafe { call3(nr::READ, arg(fd), buf.as_mut_ptr() as usize, buf.len()) })
}

pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result<usize, i32> {
    // SAFETY: the bytes are live for their length; the kernel only reads them.
    check(unsafe { call3(nr::WRITE, arg(fd), bytes.as_ptr() as usize, bytes.len()) })
}

pub(crate) fn close(fd: i32) {
    // SAFETY: no pointer. The callers close only numbers of their own.
    unsafe { call3(nr::CLOSE, arg(fd), 0, 0) };
}

/// Closes every descriptor from `first` to `last`, both included.
pub(crate) fn close_range(first: i32, last: i32) {
    // SAFETY: no pointer. The callers run in a process with a descriptor table of its own.
    let done = check(unsafe { call3(nr::CLOSE_RANGE, arg(first), arg(last), 0) });
    if done.is_err() {
        // Linux before 5.9, or a filter that does not know the call. The bound covers every limit that
        // is usual; nobody but a host that raised its limit and has never set CLOEXEC loses by it.
        let mut fd = first;
        while fd <= last && fd < 65_536 {
            close(fd);
            fd += 1;
        }
    }
}

pub(crate) fn openat(dir: i32, path: &CStr, flags: i32) -> Result<i32, i32> {
    // SAFETY: the path is live and NUL-terminated; without O_CREAT there is no fourth argument.
    check(unsafe {
        call6(nr::OPENAT, arg(dir), path.as_ptr() as usize, arg(flags | O_CLOEXEC), 0, 0, 0)
    })
    .map(|fd| fd as i32)
}

/// Removes the empty directory `path`, seen from `dir`.
pub(crate) fn rmdirat(dir: i32, path: &CStr) -> Result<(), i32> {
    const AT_REMOVEDIR: usize = 0x200;
    // SAFETY: the path is live and NUL-terminated.
    check(unsafe { call3(nr::UNLINKAT, arg(dir), path.as_ptr() as usize, AT_REMOVEDIR) })
        .map(|_| ())
}

pub(crate) fn getdents(dir: i32, buf: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the buffer is live and writable for its length.
    check(unsafe { call3(nr::GETDENTS64, arg(dir), buf.as_mut_ptr() as usize, buf.len()) })
}

/// A descriptor to wait on, as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: i32,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

pub(crate) const POLLIN: i16 = 0x1;
pub(crate) const POLLPRI: i16 = 0x2;

/// Waits for one of `fds`; at most `timeout_ms`, or without end.
pub(crate) fn poll(fds: &mut [PollFd], timeout_ms: Option<u32>) -> Result<usize, i32> {
    let ms = timeout_ms.unwrap_or(0);
    let time = [(ms / 1000) as i64, (ms % 1000) as i64 * 1_000_000];
    let time = if timeout_ms.is_some() { time.as_ptr() as usize } else { 0 };
    // SAFETY: the array is live and writable, the time is live or absent, and there is no mask.
    check(unsafe { call6(nr::PPOLL, fds.as_mut_ptr() as usize, fds.len(), time, 0, 8, 0) })
}

/// Kills one process. Never `pid` 0 or below: those would be whole process groups, our own first.
pub(crate) fn sigkill(pid: i32) {
    if pid > 0 {
        // SAFETY: no pointer.
        unsafe { call3(nr::KILL, arg(pid), 9, 0) };
    }
}

pub(crate) fn dup3(from: i32, to: i32, flags: i32) -> Result<(), i32> {
    // SAFETY: no pointer. The callers run in a process with a descriptor table of its own.
    check(unsafe { call3(nr::DUP3, arg(from), arg(to), arg(flags)) }).map(|_| ())
}

/// A close-on-exec copy of `fd`, numbered `least` or above.
pub(crate) fn dup_above(fd: i32, least: i32) -> Result<i32, i32> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    // SAFETY: no pointer.
    check(unsafe { call3(nr::FCNTL, arg(fd), F_DUPFD_CLOEXEC, arg(least)) }).map(|fd| fd as i32)
}

/// Lets `fd` pass through exec.
pub(crate) fn clear_cloexec(fd: i32) -> Result<(), i32> {
    const F_SETFD: usize = 2;
    // SAFETY: no pointer.
    check(unsafe { call3(nr::FCNTL, arg(fd), F_SETFD, 0) }).map(|_| ())
}

/// Whether `fd` is open.
pub(crate) fn is_open(fd: i32) -> bool {
    const F_GETFD: usize = 1;
    // SAFETY: no pointer.
    check(unsafe { call3(nr::FCNTL, arg(fd), F_GETFD, 0) }).is_ok()
}

pub(crate) fn chdir(path: &CStr) -> Result<(), i32> {
    // SAFETY: the path is live and NUL-terminated.
    check(unsafe { call3(nr::CHDIR, path.as_ptr() as usize, 0, 0) }).map(|_| ())
}

pub(crate) fn setsid() -> Result<(), i32> {
    // SAFETY: no pointer.
    check(unsafe { call3(nr::SETSID, 0, 0, 0) }).map(|_| ())
}

/// The name that `ps` and `/proc/<pid>/comm` show.
pub(crate) fn set_name(name: &CStr) {
    const PR_SET_NAME: usize = 15;
    // SAFETY: the name is live and NUL-terminated; the kernel reads 16 bytes at most and stops at the NUL.
    unsafe { call3(nr::PRCTL, PR_SET_NAME, name.as_ptr() as usize, 0) };
}

/// Sets the mask of blocked signals of this thread; the one before is returned.
pub(crate) fn set_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0_u64;
    let (new, was) = (&raw const mask as usize, &raw mut old as usize);
    // SAFETY: both sets are live and 8 bytes long, which is what the last argument says.
    unsafe { call6(nr::RT_SIGPROCMASK, SIG_SETMASK, new, was, 8, 0, 0) };
    old
}

/// The mask of blocked signals of this thread.
pub(crate) fn mask() -> u64 {
    let mut now = 0_u64;
    // SAFETY: there is no new set; the old one is live and 8 bytes long.
    unsafe { call6(nr::RT_SIGPROCMASK, 0, 0, &raw mut now as usize, 8, 0, 0) };
    now
}

/// What a signal does, as the kernel has it (the same layout on both architectures).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Disposition {
    /// 0 is the default, 1 is to ignore it, anything else is a handler.
    pub(crate) handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

impl Disposition {
    pub(crate) const DEFAULT: Self = Self { handler: 0, flags: 0, restorer: 0, mask: 0 };
    pub(crate) const IGNORE: Self = Self { handler: 1, flags: 0, restorer: 0, mask: 0 };
}

/// What `signal` does in this process.
pub(crate) fn disposition(signal: i32) -> Result<Disposition, i32> {
    let mut now = Disposition::DEFAULT;
    // SAFETY: there is no new action; the old one is live and has the kernel's layout.
    check(unsafe { call6(nr::RT_SIGACTION, arg(signal), 0, &raw mut now as usize, 8, 0, 0) })
        .map(|_| now)
}

/// Sets what `signal` does in this process.
///
/// # Safety
/// `to` must be [`Disposition::DEFAULT`], [`Disposition::IGNORE`], or what [`disposition`] returned.
pub(crate) unsafe fn set_disposition(signal: i32, to: &Disposition) -> Result<(), i32> {
    let new = &raw const *to as usize;
    // SAFETY: the action is live and has the kernel's layout; that its handler may run is the caller's
    // promise.
    check(unsafe { call6(nr::RT_SIGACTION, arg(signal), new, 0, 8, 0, 0) }).map(|_| ())
}

/// Replaces this process by a program. Returns only an errno.
///
/// # Safety
/// `argv` and `envp` must be arrays of NUL-terminated strings that end in a null pointer.
pub(crate) unsafe fn execve(
    path: &CStr,
    argv: *const *const core::ffi::c_char,
    envp: *const *const core::ffi::c_char,
) -> i32 {
    // SAFETY: the path is live; the arrays are the caller's promise.
    let ret = unsafe { call3(nr::EXECVE, path.as_ptr() as usize, argv as usize, envp as usize) };
    -(ret as i32)
}

/// Replaces this process by the program that is open as `fd`. Returns only an errno.
///
/// # Safety
/// `argv` and `envp` must be arrays of NUL-terminated strings that end in a null pointer.
pub(crate) unsafe fn execve_fd(
    fd: i32,
    argv: *const *const core::ffi::c_char,
    envp: *const *const core::ffi::c_char,
) -> i32 {
    const AT_EMPTY_PATH: usize = 0x1000;
    let path = c"".as_ptr() as usize;
    // SAFETY: the path is live; the arrays are the caller's promise.
    let ret = unsafe {
        call6(nr::EXECVEAT, arg(fd), path, argv as usize, envp as usize, AT_EMPTY_PATH, 0)
    };
    -(ret as i32)
}

/// Reaps the child `pid`, whatever it was cloned with. Waits for its end.
pub(crate) fn reap(pid: i32) {
    const WALL: usize = 0x4000_0000;
    loop {
        // SAFETY: neither status nor usage is asked for.
        let done = check(unsafe { call6(nr::WAIT4, arg(pid), 0, WALL, 0, 0, 0) });
        if done != Err(errno::EINTR) {
            return;
        }
    }
}

/// Ends this process.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: no pointer, and no return.
        unsafe { call3(nr::EXIT_GROUP, arg(status), 0, 0) };
    }
}

/// Wakes whoever waits for `word` to change, in whichever process.
pub(crate) fn futex_wake(word: &core::sync::atomic::AtomicU32) {
    const FUTEX_WAKE: usize = 1;
    // SAFETY: the word is live and aligned.
    unsafe { call3(nr::FUTEX, word.as_ptr() as usize, FUTEX_WAKE, i32::MAX as usize) };
}

/// Waits while `word` is `value`; at most `timeout_ms`. May return early: look again.
pub(crate) fn futex_wait(word: &core::sync::atomic::AtomicU32, value: u32, timeout_ms: u32) {
    const FUTEX_WAIT: usize = 0;
    let time = [(timeout_ms / 1000) as i64, (timeout_ms % 1000) as i64 * 1_000_000];
    let at = word.as_ptr() as usize;
    // SAFETY: the word and the time are live; the kernel only reads them.
    unsafe { call6(nr::FUTEX, at, FUTEX_WAIT, value as usize, time.as_ptr() as usize, 0, 0) };
}
