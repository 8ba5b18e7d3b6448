//! Taking turns, and medians.

use std::time::{Duration, Instant};

/// How long a measurement may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) quick: bool,
}

impl Effort {
    /// How many rounds instead of `rounds`.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        if self.quick { rounds.div_ceil(8) } else { rounds }
    }
}

/// How often each side acts before it is the other's turn.
const TURN: usize = 20;

/// What one call of `act` takes.
pub(crate) fn time(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// The medians of both, which act in turns.
pub(crate) fn compare(
    rounds: usize,
    mut ours: impl FnMut(),
    mut theirs: impl FnMut(),
) -> (Duration, Duration) {
    let mut times = [Vec::with_capacity(rounds * TURN), Vec::with_capacity(rounds * TURN)];
    for round in 0..rounds {
        // Whoever comes first in a round comes second in the next.
        for side in [round % 2, (round + 1) % 2] {
            for _ in 0..TURN {
                let took = if side == 0 { time(&mut ours) } else { time(&mut theirs) };
                times[side].push(took);
            }
        }
    }
    let [ours, theirs] = times;
    (median(ours), median(theirs))
}

/// The median of `calls` times so many calls that the clock does not matter.
pub(crate) fn each(calls: usize, mut act: impl FnMut()) -> Duration {
    const AT_ONCE: u32 = 16;
    let times = (0..calls / AT_ONCE as usize).map(|_| {
        time(|| {
            for _ in 0..AT_ONCE {
                act();
            }
        }) / AT_ONCE
    });
    median(times.collect())
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Prints a figure for `cargo xtask bench`.
pub(crate) fn report(name: &str, ours: Duration, theirs: Option<Duration>) {
    report_number(name, ours.as_secs_f64() * 1e9, theirs.map(|theirs| theirs.as_secs_f64() * 1e9));
}

/// Likewise, for what is no time.
pub(crate) fn report_number(name: &str, ours: f64, theirs: Option<f64>) {
    let theirs = theirs.map_or(String::new(), |theirs| format!("{theirs:.1}"));
    println!("{name}\t{ours:.1}\t{theirs}");
}
