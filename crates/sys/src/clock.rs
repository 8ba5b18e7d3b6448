//! The CPU time of another process, without a file and without being its parent.
//!
//! Every process has CPU clocks that anybody may read; the clock's number is made of the pid
//! (`clock_getcpuclockid(3)` knows one of them; the one for user time is the kernel's own,
//! `include/linux/posix-timers_types.h`). A pid names a process only as long as it is not reaped: the
//! caller holds a pidfd and looks at it afterwards if it matters. 0.7 µs for each clock.

/// Time that `pid` has spent in user mode, all its threads together, in ns. None if it is gone.
///
/// The kernel measures only the total; which mode it was spent in is sampled. So the samples give the
/// share, as in `/proc/PID/stat` and `cpu.stat`.
#[must_use]
pub fn user_ns(pid: u32) -> Option<u64> {
    const SAMPLED: i32 = 0;
    const SAMPLED_USER: i32 = 1;
    let (user, both) = (read(pid, SAMPLED_USER)?, read(pid, SAMPLED)?);
    let total = total_ns(pid)?;
    if both == 0 {
        return Some(total); // Too short for a sample.
    }
    u64::try_from(u128::from(user.min(both)) * u128::from(total) / u128::from(both)).ok()
}

/// Time that `pid` has spent in user mode and in the kernel, all its threads together, in ns. None if it
/// is gone.
#[must_use]
pub fn total_ns(pid: u32) -> Option<u64> {
    const MEASURED: i32 = 2;
    read(pid, MEASURED)
}

fn read(pid: u32, which: i32) -> Option<u64> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let clock = (!pid << 3) | which;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is live and writable.
    let rc = unsafe { libc::clock_gettime(clock, &mut time) };
    (rc == 0).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_has_used_time_and_a_reaped_one_is_gone() {
        let me = std::process::id();
        let before = user_ns(me).unwrap();
        while user_ns(me).unwrap() <= before {
            std::hint::spin_loop();
        }
        assert!(total_ns(me).unwrap() > 0);

        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(user_ns(child.id()), None);
        assert_eq!(total_ns(u32::MAX), None);
        assert_eq!(total_ns(0), None, "0 would be the caller's own clock");
    }
}
