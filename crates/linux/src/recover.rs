//! What an engine left that could not clean up: killed, without a guardian, or together with it.
//!
//! A root is stale when its record says so (not its name), its lock can be taken, its owner is gone and nobody
//! is in it. The lock alone would not do: a host that closes all its descriptors loses it and lives on.
//! One with somebody in it is left alone: either its guardian is at work, or its jobs were not to be killed.

use rustix::fs::{FlockOperation, flock};

use crate::mount::Mount;
use crate::record::Record;
use crate::{files, group, root};

/// Removes the stale roots in the group `base`, given by its name from the mounted directory. One listing when
/// there is none.
pub(crate) fn sweep(mount: &Mount, base: &str) {
    let Ok(dir) = files::open_dir(&mount.dir, base) else { return };
    let Ok(names) = files::list_directories(&dir) else { return };
    for name in names {
        if !name.to_bytes().starts_with(root::PREFIX.as_bytes()) {
            continue;
        }
        let Ok(stale) = files::open_dir(&dir, &*name) else { continue };
        let Some(Record::Root(owner)) = Record::read(&stale) else { continue };
        if flock(&stale, FlockOperation::NonBlockingLockExclusive).is_err()
            || owner.alive()
            || group::populated(&stale, ".").unwrap_or(true)
        {
            continue;
        }
        // Another engine may do the same at the same time: what is gone is gone.
        let _ = root::remove_tree(&dir, &*name);
    }
}
