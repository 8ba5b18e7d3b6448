//! What this place can do, in words for people.

use jobobject_abi::{Enforcement, LimitKind};

use jobobject_sys::guardian;

use crate::guard::GuardianFacts;

const ADOPTED: &str = "this process is init or a subreaper: the guardian becomes its child, and whoever waits \
                       for all children sees it";

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
        LimitKind::JobTime | LimitKind::WallTime => Enforcement::Exact,
        LimitKind::Breakaway => Enforcement::Approximate(
            "kept for spawns of our own; what members fork by themselves stays inside".to_owned(),
        ),
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
            Some(GuardianFacts { child: true, .. }) => {
                Enforcement::Approximate(ADOPTED.to_owned())
            },
            Some(GuardianFacts { forked: true, .. }) => Enforcement::Approximate(
                "a memory file cannot be executed here: the guardian is a copy of this process and costs its \
                 memory maps"
                    .to_owned(),
            ),
            None if guardian::adopts_orphans() => Enforcement::Approximate(ADOPTED.to_owned()),
            _ => Enforcement::Exact,
        },
    }
}
