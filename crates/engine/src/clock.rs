//! The engine's clock: what it calls now.

use std::time::{Duration, Instant};

use jobobject_abi::Tick;

/// Counts from the moment it was made.
#[derive(Debug)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { zero: Instant::now() }
    }

    pub(crate) fn now(&self) -> Tick {
        Tick::default().after(self.zero.elapsed())
    }

    /// When a tick is, on the system's monotonic clock; `None` for one that never comes.
    pub(crate) fn instant(&self, tick: Tick) -> Option<Instant> {
        self.zero.checked_add(Duration::from_nanos(tick.0))
    }
}
