//! Arguments: from words to options, and from clap's complaints to ours.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Command, Error, FromArgMatches};

use crate::{FAILED, render};

/// What `words` say to `command`; the first word is its name.
pub(crate) fn parse<T: FromArgMatches>(
    mut command: Command,
    words: &[OsString],
) -> Result<T, Error> {
    let matches = command.try_get_matches_from_mut(words)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Shows help, the version, or what is wrong with the arguments; the exit status for it.
pub(crate) fn tell(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever has closed the pipe has read enough.
            let _ = error.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            FAILED
        }
        _ => {
            render::lines(&reworded(&error.render().to_string()));
            FAILED
        }
    }
}

/// clap's `error:` and `tip:` in the words of all our messages.
fn reworded(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let line = line.trim_end();
        match (line.strip_prefix("error: "), line.trim_start().strip_prefix("tip: ")) {
            (Some(rest), _) => format!("job: {rest}"),
            (_, Some(rest)) => format!("hint: {rest}"),
            _ if line.starts_with("For more information") => "hint: see --help".to_owned(),
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_begins_with_our_name_and_says_what_to_do() {
        let text = "error: unexpected argument '--tim' found\n\n  tip: a similar argument exists: \
                    '--time'\n\nUsage: job run [OPTIONS]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            reworded(text),
            "job: unexpected argument '--tim' found\nhint: a similar argument exists: '--time'\n\
             Usage: job run [OPTIONS]\nhint: see --help"
        );
    }
}
