//! The only place that prints.
//!
//! Messages go to standard error, each with our name before it; answers go to standard output. A
//! reader that has gone away is no reason to fail: nobody is left to be told.

use std::fmt::Display;
use std::io::{self, Write};

use jobobject::Error;
use serde::Serialize;

/// A message.
pub(crate) fn say(message: impl Display) {
    lines(&format!("job: {message}"));
}

/// What went wrong, and what can be done about it.
pub(crate) fn complain(message: impl Display, hint: Option<&str>) {
    match hint {
        Some(hint) => lines(&format!("job: {message}\nhint: {hint}")),
        None => say(message),
    }
}

/// What went wrong in the library.
pub(crate) fn failed(error: &Error) {
    complain(error, error.hint());
}

/// Text for standard error, in one piece: others may be writing to it too.
pub(crate) fn lines(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// An answer.
pub(crate) fn answer(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// An answer for programs.
pub(crate) fn answer_json(value: &impl Serialize) {
    answer(&json(value));
}

/// A value as JSON, with a line feed at its end.
pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("our own types have string keys only");
    text + "\n"
}

/// A word with its number: `1 process`, `3 processes`.
pub(crate) fn count(number: impl Into<u64>, one: &str, more: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    }
}
