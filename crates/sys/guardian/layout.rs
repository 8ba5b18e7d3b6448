//! The table that an engine and its guardian share: which groups are ours, and which are to be killed.
//!
//! One memory file of fixed size. The engine writes it with plain atomic stores *before* it makes the
//! directory or the first member, so that a job costs no message and an engine that is killed between
//! two instructions has never made what its guardian does not know. The guardian reads it when the
//! engine is gone, and then nobody writes it any more. Invariants:
//! - a slot in use has a parent: a root, or another slot in use;
//! - a job's group is the directory named by its slot number in decimal, in its parent's group;
//! - `paths` up to `roots` are complete, NUL-terminated and relative to the cgroup mount;
//! - every slot that was ever in use is below `high_water`.
//!
//! The file is sparse: a page that no job has touched costs nothing.

#![allow(dead_code, reason = "each of the two programs that share this file uses a part of it")]

use core::sync::atomic::{AtomicU8, AtomicU32};

/// "jobT", the first word of the table.
pub(crate) const MAGIC: u32 = 0x6a6f_6254;
/// Changes whenever the layout does: engine and guardian are always built together.
pub(crate) const VERSION: u32 = 1;

/// How many jobs one engine can have groups for at a time.
pub(crate) const SLOTS: usize = 65_536;
/// How many directories there can be below which an engine has its jobs.
pub(crate) const ROOTS: usize = 8;
/// The room for the path of a root, with its NUL.
pub(crate) const ROOT_PATH: usize = 1024;

/// [`Layout::state`]: the guardian acts when its owner is gone.
pub(crate) const OPEN: u32 = 0;
/// [`Layout::state`]: the guardian leaves and touches nothing.
pub(crate) const DISMISSED: u32 = 1;

/// [`Entry::flags`]: the slot is a job's.
pub(crate) const USED: u32 = 1;
/// [`Entry::flags`]: the job's members are killed when the owner is gone.
pub(crate) const KILL: u32 = 2;

/// [`Entry::parent`]: the rest is the number of a root, not of a slot.
pub(crate) const ROOT_BIT: u32 = 0x8000_0000;

/// The whole table.
#[repr(C)]
pub(crate) struct Layout {
    pub(crate) magic: AtomicU32,
    pub(crate) version: AtomicU32,
    pub(crate) state: AtomicU32,
    pub(crate) high_water: AtomicU32,
    pub(crate) roots: AtomicU32,
    /// Set by the guardian when it no longer depends on anything of its owner's but the table.
    pub(crate) ready: AtomicU32,
    pub(crate) spare: [AtomicU32; 10],
    pub(crate) paths: [[AtomicU8; ROOT_PATH]; ROOTS],
    pub(crate) entries: [Entry; SLOTS],
}

/// One job.
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) flags: AtomicU32,
    pub(crate) parent: AtomicU32,
}

/// The size of the memory file, in bytes.
pub(crate) const SIZE: usize = size_of::<Layout>();

const _: () = assert!(SIZE == 64 + ROOTS * ROOT_PATH + SLOTS * 8);
