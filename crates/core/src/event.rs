//! What the platform tells the object manager without being asked.

use crate::effect::GroupKey;
use crate::process::ProcessKey;

/// A fact that came up from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The kernel says that nobody is in the group or below it.
    Emptied {
        /// Which group.
        group: GroupKey,
        /// What [`ObjectManager::commits`](crate::ObjectManager::commits) said before the kernel
        /// was asked: if somebody has come since, the news is old.
        commits: u64,
    },
    /// A process has ended and the last handle to it is closed: nobody can ask about it any more.
    Released {
        /// Which process.
        process: ProcessKey,
    },
}
