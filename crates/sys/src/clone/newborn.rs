//! The clone calls themselves: the one place where a call returns twice.
//!
//! A newborn that shares our memory runs on a stack of its own and never returns into the code that cloned it:
//! it calls one function, which ends in exec or exit. So nothing on the parent's stack is ever run twice.

use std::ffi::c_void;
use std::os::fd::RawFd;

use crate::raw::{self, nr};

pub(crate) const CLONE_VM: u64 = 0x100;
pub(crate) const CLONE_FILES: u64 = 0x400;
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_VFORK: u64 = 0x4000;
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Not libc's constant: that one is a `c_int`, in which this flag does not fit and becomes 0.
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a newborn runs. It must not return.
pub(crate) type Entry = extern "C" fn(*mut c_void) -> !;

/// The kernel's `struct clone_args`, as long as it has been since `cgroup` (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

/// How a process is to be born.
#[derive(Clone, Copy)]
pub(crate) struct Newborn {
    /// Without `CLONE_PIDFD` and `CLONE_INTO_CGROUP`, which follow from the fields below.
    pub(crate) flags: u64,
    /// The signal for the parent at its end; 0: none.
    pub(crate) exit_signal: i32,
    /// Lowest address and size; null and 0 to go on with a copy of the parent's.
    pub(crate) stack: (*mut c_void, usize),
    /// Where the pidfd goes; may be null.
    pub(crate) pidfd: *mut RawFd,
    /// The directory of the cgroup to be born into.
    pub(crate) cgroup: Option<RawFd>,
}

/// Whoever is born, with the pid; or the errno.
pub(crate) type Pid = Result<i32, i32>;

/// A process by `clone3` (Linux 5.3; into a cgroup 5.7).
///
/// # Safety
/// `entry(arg)` must be safe to run in the newborn. If that shares our memory: with `CLONE_VFORK`, or with
/// `arg` and the stack alive as long as it runs; the stack must be unused, and the pidfd's place writable.
pub(crate) unsafe fn clone3(newborn: &Newborn, entry: Entry, arg: *mut c_void) -> Pid {
    let mut args = CloneArgs {
        flags: newborn.flags,
        pidfd: newborn.pidfd as u64,
        exit_signal: newborn.exit_signal as u64,
        stack: newborn.stack.0 as u64,
        stack_size: newborn.stack.1 as u64,
        ..CloneArgs::default()
    };
    if !newborn.pidfd.is_null() {
        args.flags |= CLONE_PIDFD;
    }
    if let Some(cgroup) = newborn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    let args = [&raw const args as usize, size_of::<CloneArgs>(), 0];
    // SAFETY: the arguments are live and as long as the second one says; the rest is the caller's promise.
    raw::check(unsafe { twice(nr::CLONE3, args, entry, arg) }).map(|pid| pid as i32)
}

/// A process by `clone`, for where `clone3` is missing or refused. Cannot be born into a cgroup, and keeps
/// the handlers of its parent: both are left to the newborn.
///
/// # Safety
/// As for [`clone3`].
pub(crate) unsafe fn clone2(newborn: &Newborn, entry: Entry, arg: *mut c_void) -> Pid {
    let mut flags = (newborn.flags & !CLONE_CLEAR_SIGHAND) | newborn.exit_signal as u64;
    if !newborn.pidfd.is_null() {
        flags |= CLONE_PIDFD;
    }
    let (base, size) = newborn.stack;
    let top = base.wrapping_byte_add(size) as usize;
    // SAFETY: the caller's promise. The third argument is where this call puts the pidfd.
    let pid =
        unsafe { twice(nr::CLONE, [flags as usize, top, newborn.pidfd as usize], entry, arg) };
    raw::check(pid).map(|pid| pid as i32)
}

/// The system call `nr`; in the newborn, which sees 0, it is followed by `entry(arg)`.
///
/// # Safety
/// As for [`clone3`].
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn twice(nr: usize, args: [usize; 3], entry: Entry, arg: *mut c_void) -> isize {
    let ret: isize;
    // SAFETY: the parent sees a system call. The newborn has the registers of the parent, a stack that is
    // its own (or a copy) and aligned, and leaves by the call, which does not return.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") nr => ret,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") 0, in("r8") 0,
            in("r12") entry, in("r13") arg,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}

/// The system call `nr`; in the newborn, which sees 0, it is followed by `entry(arg)`.
///
/// # Safety
/// As for [`clone3`].
#[cfg(target_arch = "aarch64")]
#[inline(never)]
unsafe fn twice(nr: usize, args: [usize; 3], entry: Entry, arg: *mut c_void) -> isize {
    let ret: isize;
    // SAFETY: the parent sees a system call. The newborn has the registers of the parent, a stack that is
    // its own (or a copy) and aligned, and leaves by the call, which does not return.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x10",
            "blr x9",
            "brk 1",
            "2:",
            in("x8") nr,
            inlateout("x0") args[0] => ret,
            in("x1") args[1], in("x2") args[2], in("x3") 0, in("x4") 0,
            in("x9") entry, in("x10") arg,
        );
    }
    ret
}
