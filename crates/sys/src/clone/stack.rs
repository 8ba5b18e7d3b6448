//! Stacks for newborns that share our memory. A few are kept, so that a birth maps nothing.

use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::Mutex;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Room for the child, which needs a few hundred bytes, and for unoptimised builds, which need more.
const SIZE: usize = 64 * 1024;
/// The largest page there is on our architectures: below the stack, nothing can be touched.
const GUARD: usize = 64 * 1024;
/// How many idle stacks are kept.
const KEPT: usize = 4;

/// A stack with an unmapped page below it; goes back to the pool when dropped.
pub(crate) struct Stack(ManuallyDrop<Mapping>);

struct Mapping {
    base: *mut c_void,
    size: usize,
}

// SAFETY: a mapping is memory like any other; whoever has the value is the only one to use it.
unsafe impl Send for Mapping {}

static POOL: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

impl Stack {
    /// A stack from the pool, or a new one.
    pub(crate) fn take() -> io::Result<Self> {
        // Never waits: in a fork of the host, the lock may be held by a thread that is not there.
        let kept = POOL.try_lock().ok().and_then(|mut pool| pool.pop());
        let mapping = kept.map_or_else(|| Mapping::new(SIZE), Ok)?;
        Ok(Self(ManuallyDrop::new(mapping)))
    }

    /// A stack of `size` bytes, which the pool does not keep.
    pub(crate) fn large(size: usize) -> io::Result<Self> {
        Ok(Self(ManuallyDrop::new(Mapping::new(size)?)))
    }

    /// The lowest address that the kernel is told.
    pub(crate) fn base(&self) -> *mut c_void {
        self.0.base.wrapping_byte_add(GUARD)
    }

    /// From the base to the top.
    pub(crate) fn size(&self) -> usize {
        self.0.size - GUARD
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.0) };
        if mapping.size == SIZE + GUARD
            && let Ok(mut pool) = POOL.try_lock()
            && pool.len() < KEPT
        {
            pool.push(mapping);
        }
    }
}

impl Mapping {
    fn new(size: usize) -> io::Result<Self> {
        let size = size + GUARD;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: the kernel chooses the place; nothing else is there.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), size, access, flags) }?;
        let mapping = Self { base, size };
        // SAFETY: the lowest part of a mapping that is ours and that nobody uses yet.
        unsafe { mprotect(base, GUARD, MprotectFlags::empty()) }?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no process runs on it any more.
        let _ = unsafe { munmap(self.base, self.size) };
    }
}
