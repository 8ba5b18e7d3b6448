//! `job run`: a command inside a job, as if we were not there.
//!
//! One thread, one loop, no locale, no configuration. The order matters: signals are taken before there
//! is a command that they could be about, the terminal is remembered before anybody can change it, the
//! report's file is opened before anything has happened, and the status is told after nothing is left.

mod exit;
mod options;
mod report;
mod signals;
mod supervisor;
mod terminal;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use jobobject::{Builder, Child, Command, Enforcement, Error, Job, Limits};
use jobobject_engine::linux::Options as Place;
use jobobject_engine::{Drive, Engine, Nesting};
use jobobject_sys::signal::die_of;
use rustix::stdio;

use self::exit::{Exit, NOT_EXECUTABLE, NOT_FOUND};
use self::options::Destination;
use self::options::Format;
pub(crate) use self::options::Options;
use self::report::Report;
use self::supervisor::Supervisor;
use self::terminal::Terminal;
use crate::{FAILED, render};

/// The arguments of `job run`, as clap wants to be told.
pub(crate) fn command() -> clap::Command {
    let command = clap::Command::new("job run").bin_name("job run");
    Options::augment_args(command).override_usage("job run [OPTIONS] [--] COMMAND [ARGUMENTS]...")
}

/// Runs the command; the status to exit with, unless we die of a signal.
pub(crate) fn main(options: Options) -> u8 {
    match run(&options) {
        Ok(Exit::Status(status)) => status,
        Ok(Exit::Signal(signal)) => die_of(signal),
        Err(status) => status,
    }
}

/// Everything; an error has been told already, and what is left of it is the status.
fn run(options: &Options) -> Result<Exit, u8> {
    let sink = Sink::open(options)?;
    let signals = signals::take().map_err(|error| failed(&error))?;
    let terminal = Terminal::remember();
    let engine = Engine::new(Drive::Caller, Nesting::Hierarchy, Place::default())
        .map_err(|error| refused(&error.into()))?;

    let job = make(options, &engine).map_err(|error| refused(&error))?;
    let begun = Instant::now();
    let child = match start(options, &job) {
        Ok(child) => child,
        Err(error) => {
            let status = not_started(options, &error);
            sink.write(options, || Report::not_started(options, &error, status));
            return Err(status);
        }
    };
    release();
    if options.verbose {
        tell_start(&child, &job);
    }

    let supervisor = Supervisor::new(options, &engine, job.clone(), child, signals, terminal);
    let ending = supervisor.run().map_err(|error| refused(&error))?;
    let exit = ending.story.exit();
    if !options.quiet {
        report::tell(options, &ending, exit);
    }
    sink.write(options, || Report::of(options, &job, &ending, exit, begun));
    drop(job);
    drop(ending);
    // Nothing of ours may be seen in the job around us after our end.
    engine.leave();
    Ok(exit)
}

/// The job, with the limits that can be kept.
fn make(options: &Options, engine: &Arc<Engine>) -> Result<Job, Error> {
    let mut builder = Builder::new().engine(Arc::clone(engine)).best_effort(options.best_effort);
    if let Some(processes) = options.processes {
        builder = builder.processes(processes);
    }
    if let Some(time) = options.cpu_time {
        builder = builder.cpu_time(time);
    }
    if let Some(time) = options.time {
        builder = builder.time(time);
    }
    if options.timed() {
        builder = builder.grace(options.stop_signal, options.grace);
    }
    let job = builder.create()?;
    if options.best_effort && options.limited() && !options.quiet {
        tell_left_out(options, engine, &job.limits()?);
    }
    Ok(job)
}

/// Nothing is silently dropped.
fn tell_left_out(options: &Options, engine: &Engine, kept: &Limits) {
    for (limit, why) in engine.unavailable(&report::asked(options)) {
        if !report::is_set(limit, kept) {
            render::say(format_args!(
                "the {limit} limit cannot be kept here and is left out: {why}"
            ));
        }
    }
}

fn start(options: &Options, job: &Job) -> Result<Child, Error> {
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]).as_started();
    if let Some(directory) = &options.chdir {
        command.current_dir(directory);
    }
    for variable in &options.env {
        command.env(&variable.name, &variable.value);
    }
    command.spawn_in(job)
}

/// From here on we hold neither standard input nor standard output: whoever reads from the command
/// must not wait for us. Both become standard error, which we need.
fn release() {
    let _ = stdio::dup2_stdin(stdio::stderr());
    let _ = stdio::dup2_stdout(stdio::stderr());
}

fn tell_start(child: &Child, job: &Job) {
    render::say(format_args!("started as process {}", child.id()));
    for (limit, how) in job.enforcement().unwrap_or_default() {
        if how != Enforcement::Exact {
            render::say(format_args!("{limit}: {how}"));
        }
    }
}

/// Says why there is no command, in the words of those who start commands.
fn not_started(options: &Options, error: &Error) -> u8 {
    let program = options.command[0].to_string_lossy();
    let Some(errno) = error.raw_os_error().filter(|_| error.failed_call() == Some("execve")) else {
        return refused(error);
    };
    let found = errno != rustix::io::Errno::NOENT.raw_os_error();
    render::complain(format_args!("cannot run {program}: {}", report::words(errno)), error.hint());
    if found { NOT_EXECUTABLE } else { NOT_FOUND }
}

fn refused(error: &Error) -> u8 {
    render::failed(error);
    FAILED
}

fn failed(error: &std::io::Error) -> u8 {
    render::say(error);
    FAILED
}

/// Where the report goes, held open from before the start: what cannot be written is told in time.
enum Sink {
    None,
    Stderr,
    File(File),
}

impl Sink {
    fn open(options: &Options) -> Result<Self, u8> {
        let (file, name) = match options.destination() {
            None => return Ok(Self::None),
            Some(Destination::Stderr) => return Ok(Self::Stderr),
            Some(Destination::Stdout) => {
                let copy = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3);
                (copy.map(File::from).map_err(Into::into), "standard output".into())
            }
            Some(Destination::File(path)) => (File::create(path), path.to_string_lossy()),
        };
        file.map(Self::File).map_err(|error| {
            let why = report::words(error.raw_os_error().unwrap_or(0));
            render::complain(
                format_args!("cannot write the report to {name}: {why}"),
                Some("nothing was started"),
            );
            FAILED
        })
    }

    fn write(self, options: &Options, report: impl FnOnce() -> Report) {
        let text = |report: Report| match options.format() {
            Format::Json => render::json(&report),
            Format::Text => report.text(),
        };
        match self {
            Self::None => {}
            Self::Stderr => render::lines(text(report()).trim_end()),
            Self::File(mut file) => {
                if let Err(error) = file.write_all(text(report()).as_bytes()) {
                    render::say(format_args!("cannot write the report: {error}"));
                }
            }
        }
    }
}
