//! Units as types, so that a number never loses what it counts.

use std::fmt;
use std::time::Duration;

/// A moment: nanoseconds of a monotonic clock whose zero is the engine's start.
///
/// The object manager is told the time with every input and never asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `delay` after this one; the end of time when that cannot be represented.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An amount of time in units of 100 ns, as every time of a Windows job object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(pub u64);

impl Ticks {
    /// The greatest amount that fits a signed 64-bit `LARGE_INTEGER`.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// From a duration, rounded down to 100 ns; [`Ticks::MAX`] when it is longer than that.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos() / 100).unwrap_or(u64::MAX).min(Self::MAX.0))
    }

    /// From microseconds, the unit of `cpu.stat`.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(10).min(Self::MAX.0))
    }

    /// The same amount as a duration.
    #[must_use]
    pub fn to_duration(self) -> Duration {
        Duration::new(self.0 / 10_000_000, (self.0 % 10_000_000) as u32 * 100)
    }

    /// The sum; [`Ticks::MAX`] when it does not fit.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::MAX.0))
    }

    /// The difference; zero when `other` is the greater.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A handle to a job, valid in the session that got it. Never zero; a closed value is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Linux has the signals 1 to 64.
#[must_use]
pub fn is_signal(number: i32) -> bool {
    (1..=64).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_the_way_to_a_duration_and_back() {
        for ticks in [0, 1, 9_999_999, 10_000_000, 123_456_789_012, i64::MAX as u64] {
            assert_eq!(Ticks::from_duration(Ticks(ticks).to_duration()), Ticks(ticks));
        }
    }

    #[test]
    fn a_duration_longer_than_any_large_integer_saturates() {
        assert_eq!(Ticks::from_duration(Duration::MAX), Ticks::MAX);
        assert_eq!(Ticks::MAX.plus(Ticks(1)), Ticks::MAX);
        assert_eq!(Ticks::from_micros(u64::MAX), Ticks::MAX);
    }

    #[test]
    fn a_deadline_beyond_the_end_of_time_is_the_end_of_time() {
        assert_eq!(Tick(5).after(Duration::MAX), Tick(u64::MAX));
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
