//! Signals as data: sets of them, reading them from a descriptor, what they do, and dying of one.
//!
//! rustix leaves these calls to C libraries. Sending signals is rustix's (`kill_process`,
//! `pidfd_send_signal`). A mask is the thread's, a disposition the process's.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::raw::{self, Disposition};

/// A set of the signals 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal, those included that a C library keeps for itself.
    pub const ALL: Self = Self(!0);

    /// The set of these signals. Numbers outside 1 to 64 are not signals and left out.
    #[must_use]
    pub const fn of(signals: &[i32]) -> Self {
        let (mut set, mut at) = (Self::EMPTY, 0);
        while at < signals.len() {
            set = set.with(signals[at]);
            at += 1;
        }
        set
    }

    /// The set whose bit 0 is signal 1, as in `/proc/<pid>/status`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit 0 is signal 1, as in `/proc/<pid>/status`.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This set and `signal`.
    #[must_use]
    pub const fn with(self, signal: i32) -> Self {
        Self(self.0 | bit(signal))
    }

    /// This set but for `signal`.
    #[must_use]
    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !bit(signal))
    }

    /// Whether `signal` is in the set.
    #[must_use]
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & bit(signal) != 0
    }

    /// Whether there is no signal in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signals of the set, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = i32> {
        (1..=64).filter(move |signal| self.contains(*signal))
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<i32> for SignalSet {
    fn from_iter<T: IntoIterator<Item = i32>>(signals: T) -> Self {
        signals.into_iter().fold(Self::EMPTY, Self::with)
    }
}

const fn bit(signal: i32) -> u64 {
    if signal >= 1 && signal <= 64 { 1 << (signal - 1) } else { 0 }
}

/// The signals that are blocked in this thread.
#[must_use]
pub fn mask() -> SignalSet {
    SignalSet(raw::mask())
}

/// Sets which signals are blocked in this thread; returns those that were.
pub fn set_mask(mask: SignalSet) -> SignalSet {
    SignalSet(raw::set_mask(mask.0))
}

/// Blocks `signals` in this thread, besides those that already are; returns those that were.
pub fn block(signals: SignalSet) -> SignalSet {
    let old = raw::mask();
    raw::set_mask(old | signals.0);
    SignalSet(old)
}

/// Lets `signal` do what it does by default.
///
/// # Errors
/// EINVAL for numbers that are not signals, SIGKILL and SIGSTOP.
pub fn set_default(signal: i32) -> io::Result<()> {
    set_disposition(signal, &Disposition::DEFAULT)
}

/// Lets `signal` be ignored.
///
/// # Errors
/// EINVAL for numbers that are not signals, SIGKILL and SIGSTOP.
pub fn set_ignored(signal: i32) -> io::Result<()> {
    set_disposition(signal, &Disposition::IGNORE)
}

/// Whether `signal` is ignored in this process.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    raw::disposition(signal).is_ok_and(|now| now.handler == Disposition::IGNORE.handler)
}

fn set_disposition(signal: i32, to: &Disposition) -> io::Result<()> {
    // SAFETY: the two dispositions that the callers pass have no handler.
    unsafe { raw::set_disposition(signal, to) }.map_err(io::Error::from_raw_os_error)
}

/// Does to this process what `signal` does by default, whatever its disposition and the mask are; both
/// are as before afterwards, if there is an afterwards. So a process stops itself as SIGTSTP would.
pub fn raise_default(signal: i32) {
    let Ok(before) = raw::disposition(signal) else {
        // Not a signal at all, or one that only the kernel knows.
        return;
    };
    // SAFETY: the default has no handler. SIGKILL and SIGSTOP refuse, and need no change.
    let _ = unsafe { raw::set_disposition(signal, &Disposition::DEFAULT) };
    let mask = raw::mask();
    // Pending before it is unblocked, so that it strikes in this thread, before the next instruction.
    raw::set_mask(mask | bit(signal));
    // SAFETY: no pointer; the default action is what is wanted.
    unsafe { libc::raise(signal) };
    raw::set_mask(mask & !bit(signal));
    raw::set_mask(mask);
    // SAFETY: this is what `disposition` returned: its handler was in place until a moment ago.
    let _ = unsafe { raw::set_disposition(signal, &before) };
}

/// Dies of `signal`, without a core file: so that whoever waits for us sees what happened to the process
/// that we waited for. Where that is impossible (the first process of a pid namespace is spared, some
/// signals do not end anybody) it exits with 128 + `signal`, as shells do.
pub fn die_of(signal: i32) -> ! {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // A core that goes through a pipe to a collector does not ask the limit.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if !matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
        raise_default(signal);
    }
    std::process::exit(128_i32.wrapping_add(signal))
}

/// A signal that has been read, and who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signo: i32,
    /// Who sent it, if `code` says that a process did; for SIGCHLD, which child.
    pub pid: u32,
    /// The sender's real user id.
    pub uid: u32,
    /// `SI_USER`, `SI_KERNEL`, `CLD_EXITED` …: see `sigaction(2)`.
    pub code: i32,
}

/// Signals to be read instead of handled. They must be blocked, in every thread.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// A descriptor, close-on-exec and non-blocking, that is readable when one of `signals` is pending.
    ///
    /// # Errors
    /// No descriptor or memory left.
    pub fn new(signals: SignalSet) -> io::Result<Self> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is live; the kernel's set has 8 bytes, as the argument says.
        let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const signals.0, 8, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The next pending signal, taken away. None if there is none.
    ///
    /// # Errors
    /// None that is to be expected.
    pub fn read(&self) -> io::Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut bytes = [0_u8; SIZE];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut bytes)) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // signo, errno, code, pid, uid: the first words of `struct signalfd_siginfo`.
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at * 4..at * 4 + 4]);
            u32::from_ne_bytes(word)
        };
        let (signo, code) = (word(0) as i32, word(2) as i32);
        Ok(Some(Received { signo, pid: word(3), uid: word(4), code }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Sends any signal, the real-time ones included, which rustix has no names for, to the process of a pidfd.
/// Signal 0 only asks whether that is permitted.
///
/// # Errors
/// ESRCH when the process has ended and been reaped, EPERM when it is not ours to signal, EINVAL for a number
/// that is no signal.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: without a siginfo the call takes nothing but numbers; the descriptor is open.
    let rc = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0_u32)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_with_its_sender() {
        let old = block(SignalSet::of(&[libc::SIGUSR2]));
        let signals = SignalFd::new(SignalSet::of(&[libc::SIGUSR2])).unwrap();
        assert_eq!(signals.read().unwrap(), None);
        // SAFETY: the signal is blocked in this thread, to which it goes.
        unsafe { libc::raise(libc::SIGUSR2) };
        let got = signals.read().unwrap().unwrap();
        assert_eq!((got.signo, got.pid), (libc::SIGUSR2, std::process::id()));
        assert_eq!(got.code, libc::SI_TKILL);
        set_mask(old);
    }

    #[test]
    fn sets_are_what_proc_shows() {
        let set = SignalSet::of(&[1, 13, 64, 65, 0, -1]);
        assert_eq!(set.bits(), 1 | 1 << 12 | 1 << 63);
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 13, 64]);
        assert!(!set.without(13).contains(13));
    }
}
