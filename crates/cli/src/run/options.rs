//! What `job run` can be told.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::duration;
use crate::run::signals::{self, SIGTERM};

/// How long members may take to leave when nobody says otherwise.
const GRACE: &str = "2s";

const EXAMPLES: &str = "\
Examples:
  job run make -j8                          nothing that make starts outlives it
  job run -t 10m --report -- ./test.sh      at most ten minutes, and say what it took
  job run -p 64 --cpu-time 30s ./untrusted  at most 64 processes and 30 s of user CPU time
  job run --on-leftover fail ./test.sh      a process that is left behind is a failure
  job run -t 1h --report=run.json make      the report in a file, as JSON

Exit status:
  that of COMMAND, or death by the signal that COMMAND died of;
  124  a time limit struck         125  job failed, or --on-leftover fail
  126  COMMAND is not executable   127  COMMAND was not found
  129, 130, 143  stopped by SIGHUP, SIGINT, SIGTERM
  137  killed on request: --interrupt kill, or a second SIGTERM

Durations are written 250ms, 1.5s, 90s, 10m, 1h30m.";

/// Run a command inside a job, so that nothing of it is left behind.
///
/// The command behaves as without `job run`: the same terminal, signals, descriptors, environment
/// and exit status. When it ends, whatever it has left running is ended too, also what has left its
/// session; and when `job run` itself is killed, all of it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// At most N processes at a time (not threads)
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) processes: Option<u32>,

    /// At most so much user CPU time, all processes together
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse_limit)]
    pub(crate) cpu_time: Option<Duration>,

    /// At most so much time
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse_limit)]
    pub(crate) time: Option<Duration>,

    /// How long processes may take to leave before they are killed, when a time limit or a signal
    /// to `job run` stops the job
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = GRACE, value_parser = duration::parse)]
    pub(crate) grace: Duration,

    /// What they are asked to leave with: a name or a number
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signals::parse)]
    pub(crate) stop_signal: i32,

    /// What to do with processes that outlive the command
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnLeftover::Kill)]
    pub(crate) on_leftover: OnLeftover,

    /// What Ctrl-C does to the job
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Interrupt::Pass)]
    pub(crate) interrupt: Interrupt,

    /// Go on without a limit that cannot be kept here, and say so
    #[arg(long)]
    pub(crate) best_effort: bool,

    /// Change to this directory before the command is looked for
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,

    /// Set an environment variable of the command; what is not mentioned is inherited
    #[arg(short = 'E', long = "env", value_name = "NAME=VALUE", value_parser = variable())]
    pub(crate) env: Vec<Variable>,

    /// Report on the job when it has ended: to standard error, to FILE, or to standard output (-)
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) report: Option<Option<PathBuf>>,

    /// How to report; without it by the name of FILE: JSON if it ends in .json
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) report_format: Option<Format>,

    /// Report as JSON: short for --report --report-format json
    #[arg(long, conflicts_with = "report_format")]
    pub(crate) json: bool,

    /// Say nothing about limits and leftovers
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// What to run; its own options need no -- before them
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

impl Options {
    /// The format of the report.
    pub(crate) fn format(&self) -> Format {
        let json = self.json
            || self.report.iter().flatten().any(|file| {
                file.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("json"))
            });
        self.report_format.unwrap_or(if json { Format::Json } else { Format::Text })
    }

    /// Where the report goes, if one is wanted.
    pub(crate) fn destination(&self) -> Option<Destination<'_>> {
        match &self.report {
            Some(None) => Some(Destination::Stderr),
            Some(Some(file)) if file.as_os_str() == "-" => Some(Destination::Stdout),
            Some(Some(file)) => Some(Destination::File(file)),
            None => (self.json || self.report_format.is_some()).then_some(Destination::Stderr),
        }
    }

    /// Whether a limit is set that may end members.
    pub(crate) fn limited(&self) -> bool {
        self.processes.is_some() || self.timed()
    }

    /// Whether a limit is set that ends the job.
    pub(crate) fn timed(&self) -> bool {
        self.cpu_time.is_some() || self.time.is_some()
    }
}

/// Where a report goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    Stderr,
    Stdout,
    File(&'a PathBuf),
}

/// What happens to processes that outlive the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLeftover {
    /// Kill them at once
    Kill,
    /// Wait until they end
    Wait,
    /// Leave them running and say so; limits end with `job run`
    Report,
    /// Kill them and exit with 125
    Fail,
}

impl OnLeftover {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Wait => "wait",
            Self::Report => "report",
            Self::Fail => "fail",
        }
    }
}

/// What Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Interrupt {
    /// The command decides, as without `job run`
    Pass,
    /// The job is stopped: the stop signal, the grace, the kill
    Stop,
    /// The job is killed at once
    Kill,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: OsString,
    pub(crate) value: OsString,
}

impl Variable {
    fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        // A name may begin with `=`, strange as that is: the environment can hold it.
        let Some(at) = bytes.iter().position(|&byte| byte == b'=') else {
            return Err("there is no value: write NAME=VALUE, or NAME= for an empty one; what is \
                        not mentioned is inherited"
                .to_owned());
        };
        let (name, value) = (&bytes[..at], &bytes[at + 1..]);
        if name.is_empty() {
            return Err("a variable needs a name".to_owned());
        }
        let owned = |bytes| OsStr::from_bytes(bytes).to_owned();
        Ok(Self { name: owned(name), value: owned(value) })
    }
}

fn variable() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(|text| Variable::parse(&text))
}

/// The default stop signal is the one that is asked with everywhere else.
const _: () = assert!(SIGTERM == 15);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        let words: Vec<OsString> =
            ["run"].iter().chain(words).map(|word| OsString::from(*word)).collect();
        crate::usage::parse(crate::run::command(), &words)
    }

    #[test]
    fn options_after_the_command_are_its_own() {
        let options = parse(&["-t", "5s", "make", "-j8", "--time", "x"]).unwrap();
        assert_eq!(options.command, ["make", "-j8", "--time", "x"]);
        assert_eq!(options.time, Some(Duration::from_secs(5)));
        assert_eq!(parse(&["--", "-x"]).unwrap().command, ["-x"]);
        assert_eq!(parse(&["a", "--", "b"]).unwrap().command, ["a", "--", "b"]);
    }

    #[test]
    fn a_report_goes_where_its_value_says_and_takes_no_other_word() {
        assert_eq!(parse(&["a"]).unwrap().destination(), None);
        let options = parse(&["--report", "a"]).unwrap();
        assert_eq!(
            (options.destination(), options.format()),
            (Some(Destination::Stderr), Format::Text)
        );
        let options = parse(&["--report=x.json", "a"]).unwrap();
        assert_eq!(options.format(), Format::Json);
        let options = parse(&["--report=-", "--report-format=json", "a"]).unwrap();
        assert_eq!(
            (options.destination(), options.format()),
            (Some(Destination::Stdout), Format::Json)
        );
        let options = parse(&["--json", "a"]).unwrap();
        assert_eq!(
            (options.destination(), options.format()),
            (Some(Destination::Stderr), Format::Json)
        );
    }

    #[test]
    fn a_variable_is_a_name_and_a_value() {
        let options = parse(&["-E", "A=b=c", "-E", "B=", "x"]).unwrap();
        let pair = |variable: &Variable| (variable.name.clone(), variable.value.clone());
        assert_eq!(pair(&options.env[0]), ("A".into(), "b=c".into()));
        assert_eq!(pair(&options.env[1]), ("B".into(), "".into()));
        assert!(parse(&["-E", "A", "x"]).is_err());
        assert!(parse(&["-E", "=a", "x"]).is_err());
    }

    #[test]
    fn limits_that_nothing_can_meet_are_refused() {
        for words in [
            &["-p", "0", "x"][..],
            &["-p", "-1", "x"],
            &["-p", "4294967296", "x"],
            &["-p", "many", "x"],
            &["-t", "0s", "x"],
            &["-t", "10", "x"],
            &["-t=-1s", "x"],
            &["--cpu-time", "0ms", "x"],
            &["--cpu-time", "999999999999h", "x"],
            &["--grace", "1", "x"],
            &["--stop-signal", "TERMINATE", "x"],
            &["--stop-signal", "0", "x"],
            &["--on-leftover", "keep", "x"],
            &["--interrupt", "never", "x"],
            &["-q", "-v", "x"],
            &[],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
