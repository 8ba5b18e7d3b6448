//! Whether this process is the one it was, or a fork of it.
//!
//! A fork owns nothing of what its parent manages. A remembered pid cannot tell: pids are reused, and a
//! fork inside a new pid namespace may even get the same. So the kernel tells: one page that it empties
//! in every fork (`MADV_WIPEONFORK`, Linux 4.14).

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Remembers the process that made it.
#[derive(Debug)]
pub struct ForkWatch {
    word: NonNull<AtomicU32>,
}

const PAGE: usize = 4096;

// SAFETY: the page is only read after `new`, and every reader goes through an atomic.
unsafe impl Send for ForkWatch {}
// SAFETY: as above.
unsafe impl Sync for ForkWatch {}

impl ForkWatch {
    /// Remembers this process.
    ///
    /// # Errors
    /// No memory, or a kernel before 4.14 (EINVAL).
    pub fn new() -> io::Result<Self> {
        // SAFETY: the kernel chooses the place; nothing else is there.
        let page = unsafe {
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            mmap_anonymous(std::ptr::null_mut(), PAGE, access, flags)
        }?;
        let word = NonNull::new(page.cast::<AtomicU32>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let watch = Self { word };
        // SAFETY: the page is ours and new; being emptied in a fork is what its word is for.
        unsafe { madvise(page, PAGE, Advice::LinuxWipeOnFork) }?;
        watch.word().store(1, Relaxed);
        Ok(watch)
    }

    /// Whether this is the process that made the watch, and not a fork of it. Costs one load.
    #[must_use]
    pub fn is_original(&self) -> bool {
        self.word().load(Relaxed) != 0
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page lives as long as `self`, and any bytes are a value of an atomic integer.
        unsafe { self.word.as_ref() }
    }
}

impl Drop for ForkWatch {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.word.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_knows_that_it_is_one() {
        let watch = ForkWatch::new().unwrap();
        assert!(watch.is_original());
        // SAFETY: the child loads one word and exits.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            raw_exit(i32::from(watch.is_original()));
        }
        let mut status = 0;
        // SAFETY: the status is live and writable.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "the fork believed to be the original");
        assert!(watch.is_original());
    }

    fn raw_exit(status: i32) -> ! {
        crate::raw::exit(status)
    }
}
