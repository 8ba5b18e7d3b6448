//! `cargo xtask bench`: what things cost, against what they are compared with.
//!
//! The measurements are in `crates/bench`; here is what they are for: the goal of each, and the table.
//! A shared machine is noisy: both sides of a comparison take turns within one run, every measurement is
//! run several times, and what is told is the run whose ratio is the median.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::args::{self, Args};
use crate::cargo::{Workspace, show};
use crate::dist;
use crate::trouble::Trouble;

const HELP: &str = "\
Measures what things cost and prints a table.

Usage: cargo xtask bench [OPTIONS] [MEASUREMENT...]

Measurements (all of them by default): spawn, jobs, unused, run, terminate, end, account, memory, allocations

Options:
  --quick    fewer rounds: for a first look
  --write    make docs/benchmarks.md of it; takes all measurements, and not the quick way
";

/// How often each measurement is run.
const RUNS: usize = 3;

/// What is run, and what comes out of it.
struct Measurement {
    name: &'static str,
    /// What the bench program is told; more than one where each needs a process of its own.
    calls: &'static [&'static [&'static str]],
    /// It needs the command, in both builds.
    command: bool,
    rows: &'static [Row],
    method: &'static str,
}

/// A line of the table.
struct Row {
    /// What the bench program calls it.
    figure: &'static str,
    what: &'static str,
    against: &'static str,
    unit: Unit,
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Unit {
    Time,
    Bytes,
    Count,
}

#[derive(Clone, Copy)]
enum Goal {
    /// At most so many times theirs.
    Ratio(f64),
    /// At least so many times their throughput.
    Throughput(f64),
    /// At most so much more than theirs.
    Extra(f64),
    /// At most so much.
    Most(f64),
    /// It is told for comparison.
    None,
}

const STD: &str = "`std::process::Command`, no job";
const US: f64 = 1e3;
const MIB: f64 = 1024.0 * 1024.0;

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "spawn",
        calls: &[&["spawn", "8"], &["spawn", "512"], &["spawn", "2048"]],
        command: false,
        rows: &[
            row("spawn 8", "spawn and wait in a job, parent of 8 MiB", STD, Goal::Ratio(0.8)),
            row("spawn 512", "the same, 512 MiB", STD, Goal::Ratio(0.8)),
            row("spawn 2048", "the same, 2 GiB", STD, Goal::Ratio(0.8)),
        ],
        method: "`Command::spawn_in` and `Child::wait` in a job that exists, from a parent with that much \
                 written-to memory, in turns of 20 with `std`'s `spawn` and `wait`; medians of single calls. Ours \
                 alone makes a pidfd and puts the child in a group.",
    },
    Measurement {
        name: "jobs",
        calls: &[&["jobs", "1"], &["jobs", "2"]],
        command: false,
        rows: &[
            row("jobs 1", "a job per command, 1 worker", STD, Goal::Throughput(1.0)),
            row("jobs 1 end", "the same with `Job::wait`", STD, Goal::None),
            row("jobs 1 cold", "the same without the pool", STD, Goal::None),
            row("jobs 2", "a job per command, 2 workers", STD, Goal::Throughput(1.0)),
            row("jobs 2 end", "the same with `Job::wait`", STD, Goal::None),
            row("jobs 2 cold", "the same without the pool", STD, Goal::None),
        ],
        method: "`Job::new`, `spawn_in`, `Child::wait`, drop, in turns of 100 cycles with `std`'s `spawn` and `wait`, \
                 in so many threads at once. Without the pool: 128 jobs at a time, so that most groups are made \
                 and removed.",
    },
    Measurement {
        name: "unused",
        calls: &[&["unused"]],
        command: false,
        rows: &[row("unused", "create and close a job nobody uses", "–", Goal::Most(US))],
        method: "`Job::new` and drop, 16 at a time between two looks at the clock; median.",
    },
    Measurement {
        name: "run",
        calls: &[&["run"]],
        command: true,
        rows: &[
            row(
                "run shipped",
                "`job run true`, the static binary",
                "`timeout 5 true`",
                Goal::Ratio(1.0),
            ),
            row(
                "run plain",
                "`job run true`, the plain build",
                "`timeout 5 true`",
                Goal::Ratio(1.35),
            ),
        ],
        method: "Both started by one harness (`posix_spawn`), in turns of 20; medians from start to end.",
    },
    Measurement {
        name: "terminate",
        calls: &[&["terminate", "1000"]],
        command: false,
        rows: &[row(
            "terminate 1000",
            "terminate 1,000 members until empty",
            "bare `cgroup.kill`",
            Goal::Ratio(1.1),
        )],
        method: "`Job::terminate` and `Job::wait`, in turns with one write to `cgroup.kill` and a look at \
                 `cgroup.events` every 50 µs; fresh members each time, reaped outside the measurement.",
    },
    Measurement {
        name: "end",
        calls: &[&["end"]],
        command: false,
        rows: &[
            row(
                "end fresh",
                "last exit until `Job::wait` returns, fresh job",
                "pidfd poll",
                Goal::Extra(100.0 * US),
            ),
            row("end old", "the same, job of 25 ms", "pidfd poll", Goal::Extra(100.0 * US)),
        ],
        method: "From SIGKILL to the only member until a thread that waits has heard, in turns with a thread that \
                 polls the pidfd. A fresh job is 2 ms old: of those the kernel tells late by `cgroup.events`.",
    },
    Measurement {
        name: "account",
        calls: &[&["account", "1"], &["account", "10"], &["account", "1000"]],
        command: false,
        rows: &[
            row("times 1", "`Job::times`, 1 member", "–", Goal::Most(3.0 * US)),
            row("times 10", "`Job::times`, 10 members", "–", Goal::Most(3.0 * US)),
            row("times 1000", "`Job::times`, 1,000 members", "–", Goal::Most(3.0 * US)),
            row("accounting 1", "`Job::accounting`, 1 member", "–", Goal::Most(6.0 * US)),
            row("accounting 10", "`Job::accounting`, 10 members", "–", Goal::Most(6.0 * US)),
            row("accounting 1000", "`Job::accounting`, 1,000 members", "–", Goal::None),
        ],
        method: "16 calls at a time between two looks at the clock; median.",
    },
    Measurement {
        name: "memory",
        calls: &[&["memory"]],
        command: true,
        rows: &[Row {
            figure: "memory",
            what: "peak memory of `job run` (RSS)",
            against: "–",
            unit: Unit::Bytes,
            goal: Goal::Most(4.0 * MIB),
        }],
        method: "`VmHWM` of the static binary, read over and over until it ends; the most of many runs.",
    },
    Measurement {
        name: "allocations",
        calls: &[&["allocations"]],
        command: false,
        rows: &[
            count("allocations unused", "allocations: create and close"),
            count("allocations spawn", "allocations: spawn and wait in a job"),
            count("allocations cycle", "allocations: a job per command, with `Job::wait`"),
        ],
        method: "Counted in the calling thread, after the first 200 calls.",
    },
];

const fn row(figure: &'static str, what: &'static str, against: &'static str, goal: Goal) -> Row {
    Row { figure, what, against, unit: Unit::Time, goal }
}

const fn count(figure: &'static str, what: &'static str) -> Row {
    Row { figure, what, against: STD, unit: Unit::Count, goal: Goal::None }
}

/// A figure: ours and, where there is something to compare with, theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figure {
    ours: f64,
    theirs: Option<f64>,
}

impl Figure {
    fn ratio(self) -> Option<f64> {
        self.theirs.filter(|theirs| *theirs > 0.0).map(|theirs| self.ours / theirs)
    }
}

pub(crate) fn main(mut args: Args) -> Result<ExitCode, Trouble> {
    let (mut quick, mut write, mut names) = (false, false, Vec::new());
    while let Some(option) = args.option()? {
        match option.as_str() {
            "-h" | "--help" => return args::help(HELP),
            "--quick" => quick = true,
            "--write" => write = true,
            name if MEASUREMENTS.iter().any(|known| known.name == name) => names.push(option),
            other => return Err(args::unknown("bench", other)),
        }
    }
    if write && (quick || !names.is_empty()) {
        return Err(Trouble::usage("--write takes all measurements, and not the quick way"));
    }
    let wanted = |measurement: &&Measurement| {
        names.is_empty() || names.iter().any(|name| name == measurement.name)
    };
    let wanted: Vec<_> = MEASUREMENTS.iter().filter(wanted).collect();

    let workspace = Workspace::load()?;
    let program = release(&workspace, "jobobject-bench", "jobobject-bench")?;
    let commands = match wanted.iter().any(|measurement| measurement.command) {
        true => Some((dist::build(&workspace)?, release(&workspace, "jobobject-cli", "job")?)),
        false => None,
    };
    let mut figures = BTreeMap::new();
    for measurement in &wanted {
        eprintln!("measuring {}", measurement.name);
        let runs = if quick { 1 } else { RUNS };
        let mut all: BTreeMap<String, Vec<Figure>> = BTreeMap::new();
        for _ in 0..runs {
            for call in measurement.calls {
                let figures = measure(&program, quick, call, commands.as_ref())?;
                figures
                    .into_iter()
                    .for_each(|(name, figure)| all.entry(name).or_default().push(figure));
            }
        }
        figures.extend(all.into_iter().map(|(name, runs)| (name, typical(runs))));
    }
    let table = table(&wanted, &figures)?;
    print!("{table}");
    if write {
        let page = workspace.root.join("docs/benchmarks.md");
        fs::write(&page, document(&table, &wanted)).map_err(Trouble::io(page.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An executable of the release build.
fn release(workspace: &Workspace, package: &str, name: &str) -> Result<PathBuf, Trouble> {
    let cargo = workspace.cargo(["build", "--release", "--package", package, "--bin", name]);
    let built = workspace.build(cargo)?;
    let built = built.into_iter().find(|executable| executable.name == name);
    built
        .map(|executable| executable.path)
        .ok_or_else(|| Trouble::failed(format!("no `{name}` was built")))
}

/// One run of the bench program.
fn measure(
    program: &Path,
    quick: bool,
    call: &[&str],
    commands: Option<&(PathBuf, PathBuf)>,
) -> Result<Vec<(String, Figure)>, Trouble> {
    let mut command = Command::new(program);
    // The kernel copies the environment of every child: that of this machine is nobody else's.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.args(quick.then_some("--quick")).args(call).stdin(Stdio::null());
    match (call, commands) {
        (["run"], Some((shipped, plain))) => drop(command.args([shipped, plain])),
        (["memory"], Some((shipped, _))) => drop(command.arg(shipped)),
        _ => {}
    }
    let shown = show(&command);
    let output = command.stderr(Stdio::inherit()).output().map_err(Trouble::io(&shown))?;
    if !output.status.success() {
        return Err(Trouble::failed(format!("{shown}: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures = text.lines().map(|line| {
        figure(line).ok_or_else(|| Trouble::failed(format!("{shown} printed `{line}`")))
    });
    figures.collect()
}

/// Reads a line: the name, ours, theirs or nothing.
fn figure(line: &str) -> Option<(String, Figure)> {
    let mut words = line.split('\t');
    let (name, ours, theirs) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let theirs = if theirs.is_empty() { None } else { Some(theirs.parse().ok()?) };
    Some((name.to_owned(), Figure { ours, theirs }))
}

/// The run whose ratio, or else whose time, is the median.
fn typical(mut runs: Vec<Figure>) -> Figure {
    let by = |figure: &Figure| figure.ratio().unwrap_or(figure.ours);
    runs.sort_by(|a, b| by(a).total_cmp(&by(b)));
    runs[runs.len() / 2]
}

fn table(
    measurements: &[&Measurement],
    figures: &BTreeMap<String, Figure>,
) -> Result<String, Trouble> {
    let mut table = String::from(
        "| what | against | ours | theirs | ratio | goal | met |\n|---|---|---:|---:|---:|---|---|\n",
    );
    for row in measurements.iter().flat_map(|measurement| measurement.rows) {
        let figure = figures.get(row.figure);
        let figure =
            figure.ok_or_else(|| Trouble::failed(format!("nothing told `{}`", row.figure)))?;
        let theirs = figure.theirs.map_or("–".to_owned(), |theirs| row.unit.show(theirs));
        let ratio = figure.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let (goal, met) = row.goal.show(row.unit, *figure);
        let ours = row.unit.show(figure.ours);
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| {} | {} | {ours} | {theirs} | {ratio} | {goal} | {met} |",
            row.what, row.against
        );
    }
    Ok(table)
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Time if value < 1e3 => format!("{value:.0} ns"),
            Self::Time if value < 1e5 => format!("{:.1} µs", value / 1e3),
            Self::Time if value < 1e6 => format!("{:.0} µs", value / 1e3),
            Self::Time => format!("{:.1} ms", value / 1e6),
            Self::Bytes => format!("{:.1} MiB", value / MIB),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl Goal {
    /// In words, and whether it is met.
    fn show(self, unit: Unit, figure: Figure) -> (String, &'static str) {
        let ratio = figure.ratio().unwrap_or(f64::INFINITY);
        let (goal, met) = match self {
            Self::Ratio(most) => (format!("≤ {most:.2}"), ratio <= most),
            Self::Throughput(least) => {
                (format!("≥ {least:.1} of the throughput"), 1.0 / ratio >= least)
            }
            Self::Extra(most) => {
                let extra = figure.ours - figure.theirs.unwrap_or(0.0);
                (format!("≤ +{}", unit.show(most)), extra <= most)
            }
            Self::Most(most) => (format!("≤ {}", unit.show(most)), figure.ours <= most),
            Self::None => return ("–".to_owned(), "–"),
        };
        (goal, if met { "yes" } else { "**no**" })
    }
}

/// The page that keeps it.
fn document(table: &str, measurements: &[&Measurement]) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut page = format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench --write`, on {} with {cores} cores, Linux {}.\n\n\
         The two sides of a comparison take turns within one run, in short rounds; each measurement is run \
         {RUNS} times, and told is the run whose ratio is the median. The times are this machine's, which others \
         use too; the ratios are what to look at. Unless a row says otherwise the child is a static program of \
         one page that only exits, and the environment is PATH alone: what exec has to do is the same for \
         everybody and hides the difference.\n\n{table}\n## How\n\n",
        std::env::consts::ARCH,
        kernel.trim(),
    );
    for measurement in measurements {
        let _ = writeln!(page, "- **{}**: {}", measurement.name, measurement.method);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_a_name_and_one_or_two_numbers() {
        let compared = Figure { ours: 1.5, theirs: Some(3.0) };
        assert_eq!(figure("a b\t1.5\t3.0"), Some(("a b".to_owned(), compared)));
        let alone = Figure { ours: 1.5, theirs: None };
        assert_eq!(figure("a\t1.5\t"), Some(("a".to_owned(), alone)));
        assert_eq!(figure("a"), None);
        assert_eq!(figure("a\tmany\t"), None);
    }

    #[test]
    fn the_median_run_is_told_and_goals_are_judged_by_it() {
        let figure = |ours| Figure { ours, theirs: Some(10.0) };
        let told = typical(vec![figure(30.0), figure(8.0), figure(9.0)]);
        assert_eq!(told, figure(9.0));
        assert_eq!(Goal::Ratio(0.8).show(Unit::Time, told).1, "**no**");
        assert_eq!(Goal::Throughput(1.0).show(Unit::Time, told).1, "yes");
        assert_eq!(Goal::Extra(0.0).show(Unit::Time, told).1, "yes");
        assert_eq!(Goal::Most(8.0).show(Unit::Time, told).1, "**no**");
    }

    #[test]
    fn every_figure_is_asked_for_once() {
        let mut names: Vec<_> =
            MEASUREMENTS.iter().flat_map(|of| of.rows).map(|row| row.figure).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
