//! Durations as people write them: `250ms`, `1.5s`, `1h30m`.

use std::time::Duration;

/// Longer than this is meant as for ever, and is more than a kernel's clock can be asked for.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// A duration, which may be zero.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    use humantime::DurationError::{NumberOverflow, UnknownUnit};
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a duration cannot be negative".to_owned());
    }
    let duration = humantime::parse_duration(text).map_err(|error| match error {
        UnknownUnit { unit, .. } if unit.is_empty() => {
            format!("the unit is missing: write {text}s, {text}m or {text}ms")
        }
        UnknownUnit { unit, .. } => {
            format!("there is no unit `{unit}`: use ms, s, m, h or d, as in 250ms, 1.5s, 1h30m")
        }
        NumberOverflow => "more than can be represented".to_owned(),
        _ => "not a duration: write it as in 250ms, 1.5s, 1h30m".to_owned(),
    })?;
    if duration > LONGEST { Err("longer than 1000 years".to_owned()) } else { Ok(duration) }
}

/// A duration that limits something.
pub(crate) fn parse_limit(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("nothing can be done in no time".to_owned()),
        duration => Ok(duration),
    }
}

/// As one would write it: `1h30m`, `1.5s`, `250ms`.
pub(crate) fn exact(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 {
        return match seconds {
            0 => trimmed(duration.as_secs_f64() * 1e3, "ms"),
            _ => trimmed(duration.as_secs_f64(), "s"),
        };
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: String =
        parts.iter().filter(|part| part.0 > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// As one would say it: three digits of seconds, or minutes.
pub(crate) fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0 => "0 s".to_owned(),
        0.0..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..0.01 => format!("{:.2} ms", seconds * 1e3),
        0.01..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..10.0 => format!("{seconds:.2} s"),
        10.0..60.0 => format!("{seconds:.1} s"),
        _ => exact(Duration::from_secs(seconds.round() as u64)),
    }
}

fn trimmed(number: f64, unit: &str) -> String {
    let digits = format!("{number:.6}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood_and_written_back() {
        for (text, millis) in [
            ("250ms", 250),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            ("10m", 600_000),
            ("0s", 0),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(parse(&exact(duration)).unwrap(), duration, "{text}");
        }
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused_with_the_way_to_write_it() {
        assert!(parse("10").unwrap_err().contains("write 10s, 10m"));
        assert!(parse("-5s").unwrap_err().contains("negative"));
        assert!(parse("5 parsecs").unwrap_err().contains("no unit `parsecs`"));
        for text in ["", "s", "1..5s", "1e9s", "five", "0x10s", "inf"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in ["99999999999999999999s", "18446744073709551615s", "40000000000h"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse_limit("0s").is_err());
        assert!(parse_limit("0.0ms").is_err());
    }

    #[test]
    fn what_was_measured_is_said_shortly() {
        for (micros, text) in [
            (0, "0 s"),
            (740, "740 µs"),
            (3_210, "3.21 ms"),
            (42_400, "42 ms"),
            (1_234_000, "1.23 s"),
            (12_340_000, "12.3 s"),
            (3_723_000_000, "1h2m3s"),
        ] {
            assert_eq!(rounded(Duration::from_micros(micros)), text);
        }
    }
}
