//! The command line of a chore: a handful of options, so a handful of lines instead of a parser
//! that every first `cargo xtask` on a machine would have to compile.

use std::collections::VecDeque;
use std::process::ExitCode;

use crate::trouble::Trouble;

/// The words not yet consumed.
#[derive(Debug)]
pub(crate) struct Args {
    words: VecDeque<String>,
    /// The `VALUE` of the `--option=VALUE` just given out, until it is asked for.
    attached: Option<String>,
}

impl Args {
    pub(crate) fn from_env() -> Result<Self, Trouble> {
        std::env::args_os()
            .skip(1)
            .map(|word| {
                word.into_string().map_err(|word| Trouble::usage(format!("not UTF-8: {word:?}")))
            })
            .collect::<Result<_, _>>()
            .map(|words| Self { words, attached: None })
    }

    /// The first word.
    pub(crate) fn chore(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// The next option, without its value; `None` at the end or after `--`. A word that is no
    /// option is given out as it is, for the caller to refuse.
    pub(crate) fn option(&mut self) -> Result<Option<String>, Trouble> {
        if let Some(value) = self.attached.take() {
            return Err(Trouble::usage(format!("the option before `={value}` takes no value")));
        }
        let Some(word) = self.words.pop_front().filter(|word| word != "--") else {
            return Ok(None);
        };
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                self.attached = Some(value.to_owned());
                Ok(Some(name.to_owned()))
            }
            _ => Ok(Some(word)),
        }
    }

    /// The value of the option just given out.
    pub(crate) fn value(&mut self, option: &str) -> Result<String, Trouble> {
        self.attached
            .take()
            .or_else(|| self.words.pop_front())
            .ok_or_else(|| Trouble::usage(format!("{option} needs a value")))
    }

    /// Everything after `--`.
    pub(crate) fn rest(self) -> Vec<String> {
        self.words.into()
    }
}

/// What every chore answers to `--help`.
pub(crate) fn help(text: &str) -> Result<ExitCode, Trouble> {
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// What every chore answers to an option that it does not have.
pub(crate) fn unknown(chore: &str, option: &str) -> Trouble {
    Trouble::usage(format!(
        "{chore} does not know `{option}`; `cargo xtask {chore} --help` tells what it knows"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        Args { words: words.iter().map(|word| (*word).to_owned()).collect(), attached: None }
    }

    #[test]
    fn a_value_follows_its_option_or_is_attached_to_it() {
        let mut args = args(&["--kernel", "6.1", "--kernel=6.12"]);
        for expected in ["6.1", "6.12"] {
            let option = args.option().unwrap().unwrap();
            assert_eq!(
                (option.as_str(), args.value(&option).unwrap().as_str()),
                ("--kernel", expected)
            );
        }
        assert_eq!(args.option(), Ok(None));
    }

    #[test]
    fn a_value_that_nobody_wanted_is_refused() {
        let mut args = args(&["--no-vm=please", "--no-lint"]);
        assert_eq!(args.option(), Ok(Some("--no-vm".to_owned())));
        assert!(matches!(args.option(), Err(Trouble::Usage(_))));
    }

    #[test]
    fn what_follows_two_dashes_is_left_alone() {
        let mut args = args(&["--", "prog", "--kernel=1"]);
        assert_eq!(args.option(), Ok(None));
        assert_eq!(args.rest(), ["prog", "--kernel=1"]);
    }
}
