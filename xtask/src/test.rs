//! `cargo xtask test`: everything that must pass, here and in CI, in one command.
//!
//! Every step runs, whatever the steps before it said: one run tells all that is wrong. A step that
//! could not run is said so loudly, and in CI it fails the whole.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::apt;
use crate::args::{self, Args};
use crate::cargo::{Workspace, show};
use crate::tally::{Counter, Tally};
use crate::trouble::{self, Trouble};
use crate::vm;

const HELP: &str = "\
Runs everything that must pass: formatting, lints, documentation, the tests on this machine, and the
tests in virtual machines with other kernels (see `cargo xtask vm --help`).

Usage: cargo xtask test [OPTIONS]

  --no-lint     without formatting, lints and documentation
  --no-vm       without the virtual machines
  --require-vm  fail when a step could not run on this machine; implied where CI is set

Where a step cannot run, because something is missing that cannot be installed, the reason and the
fix are printed in a frame. The last line is the sum of all test results.
";

/// What is asked for, beyond the tests on this machine.
#[derive(Debug, Clone, Copy)]
struct Options {
    lint: bool,
    vm: bool,
    /// Whether a step that cannot run is a failure.
    strict: bool,
}

/// A line of the summary.
#[derive(Debug)]
struct Step {
    name: String,
    verdict: Verdict,
    took: Duration,
    tally: Tally,
}

#[derive(Debug)]
enum Verdict {
    Passed(String),
    Failed(String),
    /// Nobody wanted it.
    LeftOut(&'static str),
    /// It was wanted, and this machine cannot do it.
    CouldNotRun {
        reason: String,
        fix: String,
    },
}

pub(crate) fn main(mut args: Args) -> Result<ExitCode, Trouble> {
    let mut options = Options { lint: true, vm: true, strict: in_ci() };
    while let Some(option) = args.option()? {
        match option.as_str() {
            "--no-lint" => options.lint = false,
            "--no-vm" => options.vm = false,
            "--require-vm" => options.strict = true,
            "-h" | "--help" => return args::help(HELP),
            other => return Err(args::unknown("test", other)),
        }
    }
    if let Some(word) = args.rest().first() {
        return Err(args::unknown("test", word));
    }
    let steps = run(&Workspace::load()?, options);
    Ok(summarize(&steps, options.strict))
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
}

fn run(workspace: &Workspace, options: Options) -> Vec<Step> {
    let mut steps = Vec::new();
    if options.lint {
        steps.extend(lints(workspace));
    } else {
        steps.push(Step::left_out("lints", "--no-lint"));
    }
    steps.push(tests_here(workspace));
    if options.vm {
        steps.extend(tests_in_machines(workspace));
    } else {
        steps.push(Step::left_out("virtual machines", "--no-vm"));
    }
    steps
}

fn lints(workspace: &Workspace) -> [Step; 3] {
    let fmt = workspace.cargo(["fmt", "--all", "--check"]);
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    let clippy = workspace.cargo(clippy);
    let mut doc = workspace.cargo(["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    [
        component("formatting", "rustfmt", workspace.cargo(["fmt", "--version"]), fmt),
        component("lints", "clippy", workspace.cargo(["clippy", "--version"]), clippy),
        step("documentation", |_| checked(&mut doc)),
    ]
}

/// A step that takes a component of the toolchain which a minimal installation leaves out.
fn component(name: &str, component: &str, mut probe: Command, mut command: Command) -> Step {
    step(name, |_| {
        let there = probe
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if there {
            return checked(&mut command);
        }
        Err(Trouble::unavailable(
            format!("the toolchain has no {component}"),
            format!("rustup component add {component}"),
        ))
    })
}

fn tests_here(workspace: &Workspace) -> Step {
    // Some tests kill at a given system call, by it; they say so when they are skipped without.
    if let Err(Trouble::Unavailable { reason, fix }) = apt::ensure_program("strace", "strace") {
        trouble::frame("SOME TESTS WILL BE SKIPPED: NO STRACE", &reason, &fix);
    }
    // Not nextest: a fresh machine has none.
    let mut cargo = workspace.cargo(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    step("tests, this machine", |tally| counted(&mut cargo, tally))
}

fn tests_in_machines(workspace: &Workspace) -> Vec<Step> {
    let began = Instant::now();
    headline("virtual machines");
    match vm::run(workspace, &vm::Options::default()) {
        Ok(outcomes) => {
            outcomes.into_iter().map(|(kernel, outcome)| in_machine(&kernel, outcome)).collect()
        }
        Err(trouble) => vec![Step::troubled(
            "virtual machines",
            trouble,
            began.elapsed(),
            Tally::default().of_failed_run(),
        )],
    }
}

fn in_machine(kernel: &vm::Series, outcome: Result<vm::Outcome, Trouble>) -> Step {
    let name = format!("tests, Linux {kernel}");
    match outcome {
        Ok(vm::Outcome { status: 0, tally, took, summary, .. }) => {
            Step { name, verdict: Verdict::Passed(summary), took, tally }
        }
        Ok(vm::Outcome { tally, took, summary, .. }) => {
            Step { name, verdict: Verdict::Failed(summary), took, tally: tally.of_failed_run() }
        }
        Err(trouble) => Step::troubled(&name, trouble, Duration::ZERO, Tally::default()),
    }
}

impl Step {
    fn left_out(name: &str, why: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::LeftOut(why),
            took: Duration::ZERO,
            tally: Tally::default(),
        }
    }

    /// A step that is not through, with the tests that it counted until then.
    fn troubled(name: &str, trouble: Trouble, took: Duration, tally: Tally) -> Self {
        let (verdict, tally) = match trouble {
            Trouble::Unavailable { reason, fix } => {
                (Verdict::CouldNotRun { reason, fix }, Tally::default())
            }
            Trouble::Failed(why) | Trouble::Usage(why) => (Verdict::Failed(why), tally),
        };
        Self { name: name.to_owned(), verdict, took, tally }
    }
}

/// Does a step, which counts its tests as it goes.
fn step(name: &str, body: impl FnOnce(&mut Tally) -> Result<String, Trouble>) -> Step {
    let began = Instant::now();
    let mut tally = Tally::default();
    headline(name);
    match body(&mut tally) {
        Ok(note) => Step {
            name: name.to_owned(),
            verdict: Verdict::Passed(note),
            took: began.elapsed(),
            tally,
        },
        Err(trouble) => Step::troubled(name, trouble, began.elapsed(), tally),
    }
}

fn headline(name: &str) {
    println!("\n=== {name}");
}

/// Runs a command that is right or wrong.
fn checked(command: &mut Command) -> Result<String, Trouble> {
    println!("{}", show(command));
    let status = command.status().map_err(Trouble::io(show(command)))?;
    if status.success() {
        Ok(String::new())
    } else {
        Err(Trouble::failed(format!("{}: {status}", show(command))))
    }
}

/// Runs a `cargo test`, and counts the results as they pass by.
fn counted(command: &mut Command, tally: &mut Tally) -> Result<String, Trouble> {
    let shown = show(command);
    println!("{shown}");
    let mut counter = Counter::default();
    let status = each_line(command, |line| {
        println!("{line}");
        counter.read(line);
    });
    *tally = counter.sum();
    match status.map_err(Trouble::io(&shown))? {
        status if status.success() => Ok(tally.to_string()),
        status => {
            *tally = tally.of_failed_run();
            Err(Trouble::failed(format!("{tally}; {status}")))
        }
    }
}

/// Runs a command and hands over what it writes, in the order in which it writes it: through one
/// pipe, since what cargo says tells whose output follows.
///
/// The end of the command ends it, not that of the output: a process that a test left behind may
/// hold the pipe open for ever.
fn each_line(command: &mut Command, mut take: impl FnMut(&str)) -> io::Result<ExitStatus> {
    const PAUSE: Duration = Duration::from_secs(1);
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command still has the ends that it gave to the child.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
        lines.map(|line| send.send(line)).find(Result::is_err)
    });
    loop {
        // Asked before the pause, so that what it wrote last arrives within it.
        let ended = child.try_wait()?;
        match (lines.recv_timeout(PAUSE), ended) {
            (Ok(line), _) => take(&String::from_utf8_lossy(&line)),
            (Err(RecvTimeoutError::Disconnected), _) => return child.wait(),
            (Err(RecvTimeoutError::Timeout), Some(status)) => return Ok(status),
            (Err(RecvTimeoutError::Timeout), None) => {}
        }
    }
}

/// Tells how it went, ending with the sum of the tests on a line of its own.
fn summarize(steps: &[Step], strict: bool) -> ExitCode {
    for step in steps {
        if let Verdict::CouldNotRun { reason, fix } = &step.verdict {
            trouble::frame(&format!("DID NOT RUN: {}", step.name), reason, fix);
        }
    }
    println!("\n=== summary");
    println!("{:24} {:14} {:>8}", "step", "result", "seconds");
    steps.iter().for_each(print_row);
    let failed = steps.iter().any(|step| step.verdict.fails(strict));
    println!("\n{}\n", closing_word(steps, failed));
    let mut sum = Tally::default();
    steps.iter().for_each(|step| sum += step.tally);
    println!("{sum}");
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn closing_word(steps: &[Step], failed: bool) -> &'static str {
    let could_not = |step: &Step| matches!(step.verdict, Verdict::CouldNotRun { .. });
    match failed {
        true => "FAILED",
        false if steps.iter().any(could_not) => "passed, as far as it could be run on this machine",
        false => "passed",
    }
}

fn print_row(step: &Step) {
    let (result, note) = match &step.verdict {
        Verdict::Passed(note) => ("passed", note.as_str()),
        Verdict::Failed(why) => ("FAILED", why.as_str()),
        Verdict::LeftOut(why) => ("left out", *why),
        Verdict::CouldNotRun { reason, .. } => ("DID NOT RUN", reason.as_str()),
    };
    let note = note.lines().next().unwrap_or_default();
    println!(
        "{}",
        format!("{:24} {result:14} {:>8.1}  {note}", step.name, step.took.as_secs_f64()).trim_end()
    );
}

impl Verdict {
    fn fails(&self, strict: bool) -> bool {
        match self {
            Self::Passed(_) | Self::LeftOut(_) => false,
            Self::Failed(_) => true,
            Self::CouldNotRun { .. } => strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_run_fails_only_where_it_is_required() {
        let could_not = Verdict::CouldNotRun { reason: String::new(), fix: String::new() };
        assert!(could_not.fails(true) && !could_not.fails(false));
        assert!(!Verdict::LeftOut("--no-vm").fails(true));
        assert!(Verdict::Failed(String::new()).fails(false));
    }

    #[test]
    fn tests_that_died_with_their_binary_are_counted_as_one_failure() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 1 ignored'; exit 101"]);
        let mut tally = Tally::default();
        assert!(counted(&mut command, &mut tally).is_err());
        assert_eq!(tally, Tally { passed: 2, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_process_that_keeps_the_output_open_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 2 passed'; sleep 30 & exit 0"]);
        let (mut tally, began) = (Tally::default(), Instant::now());
        counted(&mut command, &mut tally).unwrap();
        assert_eq!(tally.passed, 2);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
