//! Chance by seed: what a run did once it does again.

/// A source of numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The source that `seed` names.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `n` times; never when `n` is zero.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// One of `items`, `None` when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let len = items.len() as u64;
        (len > 0).then(|| &items[self.below(len) as usize])
    }
}

/// The seeds of a simulation: `default` many, `JOB_SEEDS` many when that is set, or only the one
/// that `JOB_SEED` names, to replay a failure.
pub fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("JOB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("JOB_SEEDS").unwrap_or(default),
    }
}

/// Runs `check` once for every seed; a failure names the seed and how to replay it.
///
/// # Panics
/// When `check` does.
pub fn for_each_seed(default: u64, check: impl Fn(u64)) {
    for seed in seeds(default) {
        let run = std::panic::AssertUnwindSafe(|| check(seed));
        if let Err(cause) = std::panic::catch_unwind(run) {
            let text = cause
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| cause.downcast_ref::<&str>().copied())
                .unwrap_or("(no message)");
            panic!(
                "seed {seed} fails: {text}\nreplay: JOB_SEED={seed} cargo test -p jobobject-testkit"
            );
        }
    }
}
