//! What this place can do, in words for people.

use jobobject_abi::{Enforcement, LimitKind};

use crate::guard::GuardianFacts;

/// What has been learnt so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learnt {
    /// A guardian is there, and how it was started.
    pub(crate) guardian: Option<GuardianFacts>,
    /// The fuse behind the process limit: set, impossible, or not tried yet.
    pub(crate) fuse: Option<bool>,
}

/// How well a limit is kept here.
pub(crate) fn enforcement(limit: LimitKind, learnt: Learnt) -> Enforcement {
    match limit {
        LimitKind::JobTime | LimitKind::WallTime | LimitKind::Breakaway => Enforcement::Exact,
        LimitKind::ActiveProcesses => {
            let fuse = match learnt.fuse {
                Some(true) => "; pids.max is set as a fuse",
                Some(false) => "; there is no pids controller here to bound a fork storm meanwhile",
                None => "",
            };
            Enforcement::Approximate(format!(
                "exact for assignments and our own spawns; members' own forks are looked at every 10 ms, and the \
                 newest over the limit are ended{fuse}"
            ))
        }
        LimitKind::KillOnClose => match learnt.guardian {
            Some(GuardianFacts { child: true, .. }) => Enforcement::Approximate(
                "this process is init or a subreaper: the guardian has become its child, and whoever waits for \
                 all children sees it"
                    .to_owned(),
            ),
            Some(GuardianFacts { forked: true, .. }) => Enforcement::Approximate(
                "a memory file cannot be executed here: the guardian is a copy of this process and costs its \
                 memory maps"
                    .to_owned(),
            ),
            _ => Enforcement::Exact,
        },
    }
}
