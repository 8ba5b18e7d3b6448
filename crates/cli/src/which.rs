//! `job which`: the jobs that a process is in.
//!
//! What the groups around the process say of themselves, whoever's they are. A job has no name; it is
//! known by its owner, its number there, and its group.

use clap::Args;
use jobobject::{Error, Status};
use jobobject_engine::linux::{Link, Options as Place, Platform};
use serde::Serialize;

use crate::{FAILED, render};

/// The process is in no job.
const IN_NONE: u8 = 1;

const SCHEMA: u32 = 1;

const EXAMPLES: &str = "\
Examples:
  job which 4711
  job which --json $(pgrep -n make)

Exit status: 0 if it is in a job, 1 if it is in none, 125 if that cannot be told.";

/// Show the jobs that a process is in, the innermost first.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The process
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pid: u32,

    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    pid: u32,
    command: String,
    jobs: Vec<Job>,
    /// ERROR_PROCESS_IN_JOB or ERROR_PROCESS_NOT_IN_JOB.
    win32_code: u32,
}

#[derive(Debug, Serialize)]
struct Job {
    number: u32,
    group: String,
    /// Whether its members end with its owner.
    kill_on_close: bool,
    owner: Option<Owner>,
}

#[derive(Debug, Serialize)]
struct Owner {
    pid: u32,
    command: String,
}

pub(crate) fn main(options: &Options) -> u8 {
    match answer(options.pid) {
        Ok(answer) => {
            if options.json {
                render::answer_json(&answer);
            } else {
                render::answer(&answer.text());
            }
            if answer.jobs.is_empty() { IN_NONE } else { 0 }
        }
        Err(error) => {
            if error.kind() == jobobject::ErrorKind::ProcessEnded {
                render::complain(
                    format_args!("there is no process {}", options.pid),
                    Some("it has ended, or it is in another pid namespace"),
                );
            } else {
                render::failed(&error);
            }
            FAILED
        }
    }
}

fn answer(pid: u32) -> Result<Answer, Error> {
    let platform = Platform::new(Place::default())?;
    let jobs: Vec<Job> =
        platform.which(pid)?.into_iter().map(|link| Job::of(&platform, link)).collect();
    let status = if jobs.is_empty() { Status::PROCESS_NOT_IN_JOB } else { Status::PROCESS_IN_JOB };
    let command = platform.command_name(pid);
    Ok(Answer { schema: SCHEMA, pid, command, jobs, win32_code: status.0 })
}

impl Job {
    fn of(platform: &Platform, link: Link) -> Self {
        let owner = link
            .owner
            .map(|owner| Owner { pid: owner.pid, command: platform.command_name(owner.pid) });
        Self { number: link.number, group: link.group, kill_on_close: link.guarded, owner }
    }
}

impl Answer {
    fn text(&self) -> String {
        let process = match &*self.command {
            "" => format!("process {}", self.pid),
            command => format!("process {} ({command})", self.pid),
        };
        if self.jobs.is_empty() {
            let status = Status::PROCESS_NOT_IN_JOB;
            return format!("{process} is not part of a job: {status}\n");
        }
        let mut text = match self.jobs.len() {
            1 => format!("{process} is in a job:\n"),
            jobs => format!("{process} is in {jobs} jobs, the innermost first:\n"),
        };
        for job in &self.jobs {
            let owner = match &job.owner {
                Some(Owner { pid, command }) if command.is_empty() => {
                    format!("process {pid}, which is gone")
                }
                Some(Owner { pid, command }) => format!("process {pid} ({command})"),
                None => "an unknown owner".to_owned(),
            };
            let end = if job.kill_on_close { "ends with it" } else { "outlives it" };
            text += &format!("  job {} of {owner}, {end}\n    {}\n", job.number, job.group);
        }
        text
    }
}
