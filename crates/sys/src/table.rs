//! The engine's side of the table that it shares with its guardian.
//!
//! Every change is a few plain stores, no call and no message. The order is the engine's part of the
//! bargain: it claims a slot *before* it makes the group, and frees it *after* it has removed the group.
//! Then an engine that is killed at any instruction has made nothing that its guardian does not know.
//! What the bytes mean is in `guardian/layout.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Relaxed, Release};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::layout::{self, KILL, Layout, ROOT_BIT, ROOT_PATH, ROOTS, SIZE, USED};

/// A job's place in the table, and the name of its group's directory, in decimal. Any number is a slot.
pub type Slot = u16;

/// A directory below which an engine has its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootIndex(u8);

/// What a job's group is a subdirectory of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    /// One of the engine's roots.
    Root(RootIndex),
    /// The group of another job.
    Slot(Slot),
}

/// The table. It belongs to the process that made it: in a fork of it, nothing may be called.
#[derive(Debug)]
pub struct Table {
    file: OwnedFd,
    layout: NonNull<Layout>,
    /// How many roots there are; locked while one is added.
    roots: Mutex<u8>,
}

// SAFETY: the mapping is shared between processes, let alone threads: all of it is atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// A new, empty table.
    ///
    /// # Errors
    /// No memory or no descriptor left.
    pub fn create() -> io::Result<Self> {
        let file = memfd(c"job-table", MemfdFlags::NOEXEC_SEAL)?;
        ftruncate(&file, SIZE as u64)?;
        // Nobody can shrink the file below what the guardian has mapped.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: the kernel chooses the place; nothing else is there.
        let place = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), SIZE, access, MapFlags::SHARED, &file, 0)
        }?;
        let layout = NonNull::new(place.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let table = Self { file, layout, roots: Mutex::new(0) };
        table.layout().version.store(layout::VERSION, Relaxed);
        table.layout().magic.store(layout::MAGIC, Release);
        Ok(table)
    }

    /// Names a directory below which jobs will be: `path` seen from the root of the cgroup mount. To be
    /// called before the directory is made. When the owner is gone, the guardian removes *every* group below it.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is empty, absolute, too long, or has empty, `.` or `..` components;
    /// `QuotaExceeded` if there are too many roots.
    pub fn add_root(&self, path: &str) -> io::Result<RootIndex> {
        let usual = |name: &str| !matches!(name, "" | "." | "..");
        if path.len() >= ROOT_PATH || path.contains('\0') || !path.split('/').all(usual) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut roots = self.roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = *roots;
        let Some(place) = self.layout().paths.get(usize::from(index)) else {
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        for (to, byte) in place.iter().zip(path.bytes().chain([0])) {
            to.store(byte, Relaxed);
        }
        *roots += 1;
        self.layout().roots.store(u32::from(*roots), Release);
        Ok(RootIndex(index))
    }

    /// Gives a job the slot `slot`, whose group will be in `parent`. `kill`: its members are killed when the
    /// owner is gone. The slot must be free.
    pub fn claim(&self, slot: Slot, parent: Parent, kill: bool) {
        let parent = match parent {
            Parent::Root(root) => ROOT_BIT | u32::from(root.0),
            Parent::Slot(slot) => u32::from(slot),
        };
        let entry = self.entry(slot);
        entry.parent.store(parent, Relaxed);
        self.layout().high_water.fetch_max(u32::from(slot) + 1, Release);
        entry.flags.store(flags(kill), Release);
    }

    /// Sets whether the members of the job in `slot`, which is in use, are killed when the owner is gone.
    pub fn set_kill(&self, slot: Slot, kill: bool) {
        self.entry(slot).flags.store(flags(kill), Release);
    }

    /// Frees a slot whose group has been removed, or was never made.
    pub fn free(&self, slot: Slot) {
        self.entry(slot).flags.store(0, Release);
    }

    /// Says that the guardian has nothing to do, whatever the table says.
    pub fn dismiss(&self) {
        self.layout().state.store(layout::DISMISSED, Release);
    }

    pub(crate) fn layout(&self) -> &Layout {
        // SAFETY: the mapping is as long as the layout and lives as long as `self`; the file cannot
        // shrink; every field is an atomic, for which any bytes are a value.
        unsafe { self.layout.as_ref() }
    }

    fn entry(&self, slot: Slot) -> &layout::Entry {
        // A slot is 16 bits and there are 65,536 of them.
        &self.layout().entries[usize::from(slot)]
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.layout.as_ptr().cast(), SIZE) };
    }
}

const _: () = assert!(layout::SLOTS == Slot::MAX as usize + 1 && ROOTS <= u8::MAX as usize);

fn flags(kill: bool) -> u32 {
    if kill { USED | KILL } else { USED }
}

/// A memory file that can be sealed. `extra` (whether it may be executed) came with Linux 6.3: left out
/// where it is not known.
pub(crate) fn memfd(name: &std::ffi::CStr, extra: MemfdFlags) -> io::Result<OwnedFd> {
    let usual = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, usual | extra) {
        Err(Errno::INVAL) => Ok(memfd_create(name, usual)?),
        other => Ok(other?),
    }
}

/// A memory file with `bytes` in it, to be executed, which nobody can change any more.
pub(crate) fn image(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let mut file = File::from(memfd(name, MemfdFlags::EXEC)?);
    file.write_all(bytes)?;
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_never_the_mount_itself_nor_outside_it() {
        let table = Table::create().unwrap();
        for path in ["", "/", "/a", "a/", ".", "..", "a/../..", "a//b", "a\0b", &"x".repeat(1024)] {
            assert!(table.add_root(path).is_err(), "{path:?}");
        }
        for root in 0..ROOTS {
            table.add_root(&format!("root/{root}")).unwrap();
        }
        assert_eq!(table.add_root("one/more").unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn the_table_cannot_be_cut_short() {
        let table = Table::create().unwrap();
        assert_eq!(ftruncate(&table, 0), Err(Errno::PERM));
    }

    #[test]
    fn an_unused_table_costs_a_page_or_two() {
        let table = Table::create().unwrap();
        table.add_root("root").unwrap();
        table.claim(0, Parent::Root(RootIndex(0)), true);
        let stat = rustix::fs::fstat(&table).unwrap();
        assert!(stat.st_blocks * 512 <= 3 * 4096, "{} blocks", stat.st_blocks);
    }
}
