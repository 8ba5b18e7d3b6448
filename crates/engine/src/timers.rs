//! Deadlines that the object manager has armed.

use std::collections::HashMap;

use jobobject_abi::Tick;
use jobobject_core::TimerId;

/// A handful at most, so a search beats a heap.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    armed: HashMap<TimerId, Tick>,
}

impl Timers {
    pub(crate) fn arm(&mut self, timer: TimerId, at: Tick) {
        self.armed.insert(timer, at);
    }

    pub(crate) fn disarm(&mut self, timer: TimerId) {
        self.armed.remove(&timer);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.armed.values().min().copied()
    }

    /// Takes one timer that is due by `now`, the earliest first.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<TimerId> {
        let due = self.armed.iter().filter(|(_, at)| **at <= now);
        let timer = due.min_by_key(|(timer, at)| (**at, **timer)).map(|(timer, _)| *timer)?;
        self.armed.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use jobobject_core::{JobId, Timer};

    use super::*;

    #[test]
    fn the_earliest_deadline_comes_first_and_once() {
        let timer = |job| TimerId { job: JobId(job), timer: Timer::Wall };
        let mut timers = Timers::default();
        timers.arm(timer(1), Tick(30));
        timers.arm(timer(2), Tick(10));
        timers.arm(timer(3), Tick(20));
        timers.arm(timer(1), Tick(5)); // A second arming replaces the first.
        timers.disarm(timer(3));
        assert_eq!(timers.next(), Some(Tick(5)));
        assert_eq!(timers.take_due(Tick(4)), None);
        assert_eq!(timers.take_due(Tick(40)), Some(timer(1)));
        assert_eq!(timers.take_due(Tick(40)), Some(timer(2)));
        assert!(timers.is_empty());
    }
}
