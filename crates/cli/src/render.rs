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

/// Text in lines of at most `width` characters, all but the first after `indent` blanks.
pub(crate) fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let (mut wrapped, mut column) = (String::new(), indent);
    for word in text.split_whitespace() {
        if column > indent && column + 1 + word.chars().count() > width {
            wrapped += &format!("\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            wrapped.push(' ');
            column += 1;
        }
        wrapped += word;
        column += word.chars().count();
    }
    wrapped
}

/// A command line as one could type it.
pub(crate) fn command_line(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

fn quoted(word: &str) -> std::borrow::Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./,:=+@%^".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_never_lost() {
        assert_eq!(wrapped("one two three", 2, 9), "one two\n  three");
        assert_eq!(wrapped("extraordinarily long", 2, 9), "extraordinarily\n  long");
        assert_eq!(wrapped("", 2, 9), "");
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        let words = ["sh", "-c", "it's $x", "", "a=b"].map(str::to_owned);
        assert_eq!(command_line(&words), r"sh -c 'it'\''s $x' '' a=b");
    }
}
