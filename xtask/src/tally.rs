//! How many tests ran, read from what libtest prints.

use std::fmt;
use std::ops::AddAssign;

/// Test results, as libtest counts them; *skipped* is its *ignored*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    /// What a line of a test binary's output adds: something only for its `test result: ...` line.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => tally.passed = number.parse().ok()?,
                Some((number, "failed")) => tally.failed = number.parse().ok()?,
                Some((number, "ignored")) => tally.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(tally)
    }

    /// The same, for a run that ended badly: a binary that died, or did not even build, tells of no
    /// failed test, and its silence must not read like a pass.
    pub(crate) fn of_failed_run(self) -> Self {
        Self { failed: self.failed.max(1), ..self }
    }
}

/// Counts the results in the output of one `cargo test`, its messages included.
///
/// A test may start its own binary again as a helper, whose result line then stands among the
/// others. So of each binary only the last one counts. Documentation has no such tests, but is run in
/// parts, each with a line of its own.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    settled: Tally,
    last: Tally,
    documentation: bool,
}

impl Counter {
    pub(crate) fn read(&mut self, line: &str) {
        let message = line.trim_start();
        let documentation = message.starts_with("Doc-tests ");
        if documentation || message.starts_with("Running ") {
            *self = Self { settled: self.sum(), last: Tally::default(), documentation };
        } else if let Some(results) = Tally::of_line(line) {
            match self.documentation {
                true => self.last += results,
                false => self.last = results,
            }
        }
    }

    pub(crate) fn sum(&self) -> Tally {
        let mut sum = self.settled;
        sum += self.last;
        sum
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted_and_what_was_filtered_out_is_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 4 ignored; 0 measured; 5 filtered out; finished in 0.01s";
        assert_eq!(Tally::of_line(line), Some(Tally { passed: 12, failed: 3, skipped: 4 }));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "test reads ... ok",
            "running 3 tests",
            "the test result: ok. 1 passed",
            "test result: odd",
        ] {
            assert_eq!(Tally::of_line(line), None, "{line}");
        }
    }

    #[test]
    fn a_helper_that_a_test_started_is_not_counted() {
        let mut counter = Counter::default();
        let one = "test result: ok. 1 passed; 0 failed; 0 ignored";
        let ten = "test result: ok. 9 passed; 0 failed; 1 ignored";
        let parts = ["     Running tests/a.rs (x)", one, ten, "     Running tests/b.rs (y)", one];
        parts.iter().for_each(|line| counter.read(line));
        assert_eq!(counter.sum(), Tally { passed: 10, failed: 0, skipped: 1 });
        ["   Doc-tests a", one, one].iter().for_each(|line| counter.read(line));
        assert_eq!(counter.sum().passed, 12);
    }

    #[test]
    fn a_binary_that_died_counts_as_a_failure() {
        assert_eq!(Tally::default().of_failed_run().failed, 1);
        assert_eq!(Tally { failed: 3, ..Tally::default() }.of_failed_run().failed, 3);
    }
}
