//! `cargo xtask vm`: the tests, or any static program, as root on kernels that this machine does not
//! run, with every cgroup v2 controller there.

mod contents;
mod guest;
mod initramfs;
mod outcome;
mod parts;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use self::outcome::Outcome;
pub(crate) use self::parts::Series;

use self::guest::Run;
use self::parts::Kernel;
use self::qemu::{Ending, Machine};
use crate::args::{self, Args};
use crate::cargo::Workspace;
use crate::trouble::Trouble;

/// The kernels that we promise to run on: the oldest and the newest that Debian 12 ships.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

const HELP: &str = "\
Boots Debian kernels in an emulator, all at once, and runs the tests in them as root.

Usage: cargo xtask vm [OPTIONS] [-- PROGRAM [ARGS...]]

  --kernel SERIES    a kernel series, such as 6.12; again for more (default: 6.1 and 6.12)
  --package NAME     only this package's tests, with only its executables; again for more
  --filter NAME      only the tests whose name contains this; again for more
  --timeout SECONDS  for one kernel, from power-on to power-off (default: 1500)
  --memory SIZE      of the machine, as the emulator takes it (default: 2G)
  --append WORDS     more words for the kernel's command line
  -- PROGRAM ARGS    run this instead: a static executable, or a command that busybox has

In the guest JOB_VM is the kernel series, and JOB_BIN the path of `job`, which is in PATH as well.
Processes are slow there, tens of milliseconds each: a test scales its sizes down by JOB_VM.
The exit status is 0 when everything passed, the program's with PROGRAM, 124 after a timeout.

What is missing comes from Debian's archive: qemu-system-x86 is installed, which needs root; kernels
and a busybox are downloaded into the user's cache, which does not.
";

/// What to boot, and what to run there.
#[derive(Debug)]
pub(crate) struct Options {
    kernels: Vec<Series>,
    packages: Vec<String>,
    filters: Vec<String>,
    limit: Duration,
    memory: String,
    append: String,
    program: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernels: Vec::new(),
            packages: Vec::new(),
            filters: Vec::new(),
            limit: Duration::from_secs(1500),
            memory: "2G".to_owned(),
            append: String::new(),
            program: Vec::new(),
        }
    }
}

/// What came of each kernel.
pub(crate) type Outcomes = Vec<(Series, Result<Outcome, Trouble>)>;

pub(crate) fn main(mut args: Args) -> Result<ExitCode, Trouble> {
    let mut options = Options::default();
    while let Some(option) = args.option()? {
        match option.as_str() {
            "--kernel" => options.kernels.push(args.value(&option)?.parse()?),
            "--package" | "-p" => options.packages.push(args.value(&option)?),
            "--filter" => options.filters.push(args.value(&option)?),
            "--timeout" => options.limit = seconds(&args.value(&option)?)?,
            "--memory" => options.memory = args.value(&option)?,
            "--append" => options.append = args.value(&option)?,
            "-h" | "--help" => return args::help(HELP),
            other => return Err(args::unknown("vm", other)),
        }
    }
    options.program = args.rest();
    run(&Workspace::load()?, &options).map(report)
}

/// Tells of each kernel. The first trouble is the exit status.
fn report(outcomes: Outcomes) -> ExitCode {
    println!();
    let statuses = outcomes.into_iter().map(|(kernel, outcome)| match outcome {
        Ok(outcome) => {
            println!("{kernel:6} {}", outcome.summary);
            ExitCode::from(outcome.status)
        }
        Err(trouble) => trouble.report(),
    });
    let statuses = statuses.collect::<Vec<_>>();
    statuses.into_iter().find(|status| *status != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}

fn seconds(text: &str) -> Result<Duration, Trouble> {
    let number =
        text.parse().map_err(|_| Trouble::usage(format!("`{text}` is no number of seconds")))?;
    Ok(Duration::from_secs(number))
}

/// Runs everything on every kernel. A kernel that cannot be had does not keep the others from
/// running; what all of them need does.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Outcomes, Trouble> {
    let emulator = parts::emulator()?;
    let cache = parts::cache(&workspace.target)?;
    let busybox = parts::busybox(&cache)?;
    let kernels = kernels(options)?;
    let folder = workspace.target.join("vm");
    fs::create_dir_all(&folder).map_err(Trouble::io(folder.display()))?;

    let contents = contents::contents(workspace, options, &busybox, &folder)?;
    let initramfs = own_file(&folder);
    contents.root.write(&initramfs).map_err(Trouble::io(initramfs.display()))?;

    let (memory, append, limit) = (options.memory.clone(), options.append.clone(), options.limit);
    let machine = Machine { emulator, initramfs, logs: folder, memory, append, limit };
    let kernels = kernels.into_iter().map(|series| {
        let kernel = parts::kernel(&series, &cache);
        (series, kernel)
    });
    let outcomes = on_kernels(&machine, kernels.collect(), &contents.runs);
    fs::remove_file(&machine.initramfs).map_err(Trouble::io(machine.initramfs.display()))?;
    Ok(outcomes)
}

fn kernels(options: &Options) -> Result<Vec<Series>, Trouble> {
    match options.kernels.as_slice() {
        [] => KERNELS.iter().map(|text| text.parse()).collect(),
        chosen => Ok(chosen.to_vec()),
    }
}

/// A name for an initramfs that no other run uses. Those of runs that were killed go.
fn own_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let dead = files.filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.strip_prefix("initramfs-").map(|pid| Path::new("/proc").join(pid));
        owner.is_some_and(|process| !process.exists())
    });
    // Another run may have been faster.
    dead.for_each(|file| drop(fs::remove_file(file)));
    folder.join(format!("initramfs-{}", std::process::id()))
}

/// All at once: a machine keeps one processor of ours busy, whatever it has itself.
fn on_kernels(
    machine: &Machine,
    kernels: Vec<(Series, Result<Kernel, Trouble>)>,
    runs: &[Run],
) -> Outcomes {
    std::thread::scope(|scope| {
        let started = kernels.into_iter().map(|(series, kernel)| {
            let booted =
                scope.spawn(|| kernel.and_then(|kernel| on_kernel(machine, &kernel, runs)));
            (series, booted)
        });
        let started: Vec<_> = started.collect();
        let ended = started.into_iter().map(|(series, booted)| {
            let outcome = booted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (series, outcome)
        });
        ended.collect()
    })
}

fn on_kernel(machine: &Machine, kernel: &Kernel, runs: &[Run]) -> Result<Outcome, Trouble> {
    let image = kernel.image.file_name().unwrap_or_default().to_string_lossy();
    println!("[{}] booting {image}", kernel.series);
    let boot = machine.run(kernel)?;
    outcome::print_programs(kernel, &boot, runs);
    if boot.ending != Ending::PoweredOff {
        outcome::print_accident(kernel, &boot, &machine.log(kernel));
    }
    Ok(Outcome::of(&boot))
}
