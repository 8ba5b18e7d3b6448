//! What there is to say afterwards: one line when something was out of the ordinary, or a report.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use jobobject::{
    EndReason, Enforcement, Error, Job, JobEnd, JobTime, Leftover, LimitKind, Limits, Ticks, Total,
};
use serde::Serialize;

use crate::run::exit::{Asked, Exit};
use crate::run::options::{OnLeftover, Options};
use crate::run::signals;
use crate::run::supervisor::Ending;
use crate::{duration, render};

/// Rises when a field of the JSON report changes its meaning or goes; new ones may come at any time.
const SCHEMA: u32 = 1;

/// How many leftovers a line names.
const NAMED: usize = 5;

/// Where values begin, and where lines end.
const INDENT: usize = 13;
const WIDTH: usize = 100;

/// The errno in words, as a message has them.
pub(crate) fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.rfind(" (os error").map_or(&*text, |end| &text[..end]);
    text[..1].to_lowercase() + &text[1..]
}

/// The limits that were asked for.
pub(crate) fn asked(options: &Options) -> Limits {
    Limits {
        active_processes: options.processes,
        job_time: options
            .cpu_time
            .map_or(JobTime::Unlimited, |time| JobTime::Limit(Ticks::from_duration(time))),
        wall_time: options.time,
        ..Limits::default()
    }
}

/// Whether one of them is set.
pub(crate) fn is_set(limit: LimitKind, limits: &Limits) -> bool {
    match limit {
        LimitKind::ActiveProcesses => limits.active_processes.is_some(),
        LimitKind::JobTime => limits.job_time != JobTime::Unlimited,
        LimitKind::WallTime => limits.wall_time.is_some(),
        LimitKind::KillOnClose => limits.kill_on_close,
        LimitKind::Breakaway => limits.breakaway_ok || limits.silent_breakaway_ok,
    }
}

/// Says in one line what was out of the ordinary.
pub(crate) fn tell(options: &Options, ending: &Ending, exit: Exit) {
    let mut said = Vec::new();
    if let Some(end) = &ending.end {
        if let EndReason::Limit(limit) = end.reason {
            said.push(struck(options, limit, end));
        }
        if end.over_limit > 0 {
            let ended = render::count(end.over_limit, "process", "processes");
            said.push(format!(
                "{ended} over the limit of {} killed",
                options.processes.unwrap_or(0)
            ));
        }
    }
    if !ending.leftover.is_empty() && options.on_leftover != OnLeftover::Wait {
        let what = match options.on_leftover {
            OnLeftover::Report => "left running",
            _ => "killed what was left over",
        };
        said.push(format!("{what}: {}", list(&ending.leftover)));
    }
    if !said.is_empty() {
        render::say(said.join("; "));
    }
    if options.verbose {
        render::say(format_args!("exit status {}", exit.shown()));
    }
}

/// Says for whom we are waiting.
pub(crate) fn tell_waiting(leftover: &[Leftover]) {
    render::say(format_args!("waiting for what is left over: {}", list(leftover)));
}

fn struck(options: &Options, limit: LimitKind, end: &JobEnd) -> String {
    let value = match limit {
        LimitKind::JobTime => options.cpu_time,
        _ => options.time,
    };
    let value = value.map(duration::exact).unwrap_or_default();
    format!("{limit} limit of {value} reached: {}", stopped(options, end))
}

/// What a stop took.
fn stopped(options: &Options, end: &JobEnd) -> String {
    let signal = signals::name(options.stop_signal);
    let asked = render::count(end.stop.signaled, "process", "processes");
    match end.stop.killed {
        0 => format!("{asked} left on {signal}"),
        killed => {
            format!("{signal} to {asked}, {killed} killed after {}", duration::exact(options.grace))
        }
    }
}

fn list(leftover: &[Leftover]) -> String {
    let mut names: Vec<String> = leftover.iter().take(NAMED).map(named).collect();
    if leftover.len() > NAMED {
        names.push(format!("and {} more", leftover.len() - NAMED));
    }
    let count = render::count(leftover.len() as u64, "process", "processes");
    format!("{count} ({})", names.join(", "))
}

fn named(leftover: &Leftover) -> String {
    match &*leftover.command {
        "" => leftover.pid.to_string(),
        command => format!("{} {command}", leftover.pid),
    }
}

/// The report. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    command: Vec<String>,
    /// What `job run` exits with; 128 and the number for a signal.
    exit_status: i32,
    ended: Ended,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Leader>,
    wall_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Processes>,
    leftover: LeftOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
    limits: Vec<Limit>,
}

/// Why the job is over.
#[derive(Debug, Serialize)]
struct Ended {
    /// `exited`, `limit`, `stopped`, `killed`, `not started`.
    reason: &'static str,
    /// Which limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    /// The signal to `job run` that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Why it was not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How the command ended.
#[derive(Debug, Serialize)]
struct Leader {
    pid: u32,
    exit_code: Option<i32>,
    signal: Option<String>,
    core_dumped: bool,
    wall_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    user_seconds: f64,
    kernel_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Processes {
    total: u64,
    /// Whether `total` is all there were, or only what was seen.
    total_is_exact: bool,
    ended_by_limits: u32,
    over_limit: u32,
}

#[derive(Debug, Serialize)]
struct LeftOver {
    policy: &'static str,
    processes: Vec<Process>,
}

#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    command: String,
}

#[derive(Debug, Serialize)]
struct Stop {
    signal: String,
    grace_seconds: f64,
    signaled: u32,
    left: u32,
    killed: u32,
    seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Limit {
    name: &'static str,
    value: String,
    /// `exact`, `approximate`, `unavailable`.
    enforcement: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Report {
    pub(crate) fn of(
        options: &Options,
        job: &Job,
        ending: &Ending,
        exit: Exit,
        begun: Instant,
    ) -> Self {
        let since = |at: Instant| at.saturating_duration_since(begun);
        // Where some are left running, the engine has no end on record.
        let accounting = ending.end.as_ref().map(|end| end.accounting);
        let accounting = accounting.or_else(|| job.times().ok());
        let end = ending.end.as_ref();
        Self {
            schema: SCHEMA,
            command: command(options),
            exit_status: exit.shown(),
            ended: Ended::of(ending),
            leader: ending
                .story
                .leader
                .map(|status| Leader::of(ending.pid, status, ending.leader_at.map(since))),
            wall_seconds: since(ending.at).as_secs_f64(),
            cpu: accounting.map(|accounting| Cpu {
                user_seconds: accounting.user_time.to_duration().as_secs_f64(),
                kernel_seconds: accounting.kernel_time.to_duration().as_secs_f64(),
            }),
            processes: accounting.map(|accounting| Processes {
                total: accounting.total_processes.count(),
                total_is_exact: matches!(accounting.total_processes, Total::Exact(_)),
                ended_by_limits: accounting.terminated_processes,
                over_limit: end.map_or(0, |end| end.over_limit),
            }),
            leftover: LeftOver::of(options, &ending.leftover),
            stop: end.filter(|end| end.stop.signaled > 0).map(|end| Stop {
                signal: signals::name(options.stop_signal),
                grace_seconds: options.grace.as_secs_f64(),
                signaled: end.stop.signaled,
                left: end.stop.left,
                killed: end.stop.killed,
                seconds: ending.ending_since.map(|begun| (ending.at - begun).as_secs_f64()),
            }),
            limits: limits(options, job),
        }
    }

    /// Of a command that could not be started.
    pub(crate) fn not_started(options: &Options, error: &Error, status: u8) -> Self {
        let error = Some(error.to_string());
        Self {
            schema: SCHEMA,
            command: command(options),
            exit_status: status.into(),
            ended: Ended { reason: "not started", limit: None, by: None, error },
            leader: None,
            wall_seconds: 0.0,
            cpu: None,
            processes: None,
            leftover: LeftOver::of(options, &[]),
            stop: None,
            limits: Vec::new(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("job: {}\n", render::command_line(&self.command));
        let mut line = |name: &str, value: String| {
            text += &format!("  {name:<10} {}\n", render::wrapped(&value, INDENT, WIDTH));
        };
        line("ended", self.how());
        let time = |seconds| duration::rounded(Duration::from_secs_f64(seconds));
        match &self.cpu {
            Some(cpu) => line(
                "time",
                format!(
                    "{} wall, {} user, {} kernel",
                    time(self.wall_seconds),
                    time(cpu.user_seconds),
                    time(cpu.kernel_seconds)
                ),
            ),
            None => line("time", format!("{} wall", time(self.wall_seconds))),
        }
        if let Some(processes) = &self.processes {
            let least = if processes.total_is_exact { "" } else { "at least " };
            let over = match processes.over_limit {
                0 => String::new(),
                over => format!(", {over} of them killed over the limit"),
            };
            line("processes", format!("{least}{}{over}", processes.total));
        }
        if !self.leftover.processes.is_empty() {
            let what = match self.leftover.policy {
                "wait" => "waited for",
                "report" => "left running",
                _ => "killed",
            };
            let processes = &self.leftover.processes;
            let left: Vec<_> =
                processes.iter().map(|left| format!("{} {}", left.pid, left.command)).collect();
            line("left over", format!("{what}: {}", left.join(", ")));
        }
        if let Some(stop) = &self.stop {
            let took = stop.seconds.map(|took| format!(", in {}", time(took))).unwrap_or_default();
            line(
                "stop",
                format!(
                    "{} to {}: {} left, {} killed{took}",
                    stop.signal, stop.signaled, stop.left, stop.killed
                ),
            );
        }
        for limit in &self.limits {
            let why = limit.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            line("limit", format!("{} {}, {}{why}", limit.name, limit.value, limit.enforcement));
        }
        text
    }

    fn how(&self) -> String {
        let leader = self.leader.as_ref().map(|leader| match (&leader.signal, leader.exit_code) {
            (Some(signal), _) => format!("died of {signal}"),
            (None, Some(code)) => format!("exit status {code}"),
            (None, None) => "status unknown".to_owned(),
        });
        let leader = leader.unwrap_or_else(|| "not ended".to_owned());
        match (self.ended.reason, self.ended.limit, &self.ended.by, &self.ended.error) {
            (_, Some(limit), ..) => format!("by its {limit} limit; {leader}"),
            ("not started", .., Some(error)) => format!("not started: {error}"),
            ("exited", ..) => leader,
            (reason, _, Some(by), _) => format!("{reason} by {by}; {leader}"),
            (reason, ..) => format!("{reason}; {leader}"),
        }
    }
}

impl Ended {
    fn of(ending: &Ending) -> Self {
        let mut ended = Self { reason: "exited", limit: None, by: None, error: None };
        match (ending.story.reason, ending.story.asked) {
            (EndReason::Limit(limit), _) => {
                ended.reason = "limit";
                ended.limit = Some(limit_name(limit));
            }
            (_, Some(Asked::Kill)) => ended.reason = "killed",
            (_, Some(Asked::Interrupt)) => {
                ended.reason = "stopped";
                ended.by = Some("Ctrl-C".to_owned());
            }
            (_, Some(Asked::Signal(signal))) => {
                ended.reason = "stopped";
                ended.by = Some(signals::name(signal));
            }
            // Whatever we did to the leftovers, the command had ended by then.
            _ => {}
        }
        ended
    }
}

impl Leader {
    fn of(pid: u32, status: ExitStatus, wall: Option<Duration>) -> Self {
        Self {
            pid,
            exit_code: status.code(),
            signal: status.signal().map(signals::name),
            core_dumped: status.core_dumped(),
            wall_seconds: wall.map(|wall| wall.as_secs_f64()),
        }
    }
}

impl LeftOver {
    fn of(options: &Options, leftover: &[Leftover]) -> Self {
        let process = |left: &Leftover| Process { pid: left.pid, command: left.command.clone() };
        Self {
            policy: options.on_leftover.name(),
            processes: leftover.iter().map(process).collect(),
        }
    }
}

fn command(options: &Options) -> Vec<String> {
    options.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn limit_name(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::JobTime => "cpu-time",
        LimitKind::WallTime => "time",
        LimitKind::ActiveProcesses => "processes",
        LimitKind::KillOnClose => "kill-on-close",
        LimitKind::Breakaway => "breakaway",
    }
}

/// The limits that were asked for, and how well they were kept.
fn limits(options: &Options, job: &Job) -> Vec<Limit> {
    let kept = job.enforcement().unwrap_or_default();
    let values = [
        (LimitKind::ActiveProcesses, options.processes.map(|limit| limit.to_string())),
        (LimitKind::JobTime, options.cpu_time.map(duration::exact)),
        (LimitKind::WallTime, options.time.map(duration::exact)),
    ];
    let asked = values.into_iter().filter_map(|(limit, value)| Some((limit, value?)));
    let limits = asked.map(|(limit, value)| {
        let how = kept.iter().find(|(kept, _)| *kept == limit).map(|(_, how)| how.clone());
        let left_out = || Enforcement::Unavailable("left out".to_owned());
        let (enforcement, why) = match how.unwrap_or_else(left_out) {
            Enforcement::Exact => ("exact", None),
            Enforcement::Approximate(why) => ("approximate", Some(why)),
            Enforcement::Unavailable(why) => ("unavailable", Some(why)),
        };
        Limit { name: limit_name(limit), value, enforcement, why }
    });
    limits.collect()
}
