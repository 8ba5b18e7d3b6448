//! Conformance cases: tables anyone can read, played by whoever can.
//!
//! `conformance/README.md` describes the files and the step language. Here they are parsed, strictly:
//! a step that nobody knows is an error with its file and line. A [`Driver`] plays the steps on the
//! object manager, on real processes, or on Windows; [`run`] compares what it observed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobobject_abi::{Access, EndOfJobAction, JobTime, LimitKind, Limits, OnLimit, Status, Ticks};

/// A case of a file.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it is.
    pub file: PathBuf,
    /// The line of its heading.
    pub line: usize,
    /// What it claims.
    pub claim: String,
    /// Where that is written.
    pub source: String,
    /// The number of the deviation that keeps us from meeting it.
    pub gap: Option<u32>,
    /// Its steps.
    pub rows: Vec<Row>,
}

/// A row of a case's table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its line in the file.
    pub line: usize,
    /// The line as it is written.
    pub text: String,
    /// What to do, and what it must give.
    pub steps: Vec<(Step, Expected)>,
    /// What must be true when all of it is done.
    pub facts: Vec<Fact>,
}

/// A step. Jobs are named by their handles, processes by names of the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `without nesting`: jobs as before Windows 8. The first step of its case.
    WithoutNesting,
    /// `create A LIMIT…`
    Create(String, Limits),
    /// `duplicate A as B with RIGHT, …`
    Duplicate(String, String, Access),
    /// `close A`
    Close(String),
    /// `hang up`: the client that holds all handles is gone.
    HangUp,
    /// `set A LIMIT…`
    Set(String, Limits),
    /// `spawn p in A, B`, `q spawns p with breakaway in A`
    Spawn {
        /// The process to be.
        process: String,
        /// A process that calls; `None`: the test, which is in no job.
        by: Option<String>,
        /// The job list.
        jobs: Vec<String>,
        /// It asks to leave the inherited jobs.
        breakaway: bool,
    },
    /// `q forks p`: without asking us.
    Fork(String, String),
    /// `assign p to A`
    Assign(String, String),
    /// `p exits 3`
    Exit(String, u32),
    /// `kill p`: by somebody who has nothing to do with us.
    Kill(String),
    /// `p ignores signals`
    IgnoreSignals(String),
    /// `hold p`: somebody keeps a handle to it.
    Hold(String),
    /// `release p`: and closes it.
    Release(String),
    /// `terminate A 42`
    Terminate(String, u32),
    /// `stop A 100ms`: SIGTERM, and SIGKILL after that time.
    Stop(String, Duration),
    /// `signal A 15`
    Signal(String, i32),
    /// `freeze A`
    Freeze(String),
    /// `thaw A`
    Thaw(String),
    /// `burn p 300ms`: so much user time, and at least as much time passes.
    Burn(String, Duration),
    /// `pass 100ms`
    Pass(Duration),
    /// `wait A empty`
    WaitEmpty(String),
    /// `is p in A`
    IsIn(String, String),
    /// `is p in any job`
    IsInAny(String),
    /// `list A`
    List(String),
    /// `account A`
    Account(String),
    /// `limits A`
    Limits(String),
    /// `own limits p`: what a process sees that asks without a handle.
    OwnLimits(String),
    /// `state A`
    State(String),
    /// `end A`: why its members are gone.
    End(String),
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// It worked, and there is nothing else to say.
    Done,
    /// It was refused; the finer code too, where there is one.
    Refused(Status, Option<Status>),
    /// A value, in the words of the step language.
    Value(String),
    /// Figures by name: counts, and times in microseconds.
    Figures(Vec<(&'static str, u64)>),
}

/// What a row wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// `ok`: anything but a refusal.
    Ok,
    /// `ERROR_…`, or `ERROR_… (760)` where the finer code counts too.
    Refused(String, Option<u32>),
    /// A value, word for word.
    Value(String),
    /// `total=2 user>=300ms`: these figures, and any others.
    Figures(Vec<(String, Relation, u64)>),
}

/// How a figure compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Is,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
}

/// What is true of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// `p alive`
    Alive(String),
    /// `p dead`, or never born.
    Dead(String),
    /// `p frozen`
    Frozen(String),
    /// `p runs`: alive and not suspended by a job.
    Runs(String),
}

/// Why a driver cannot play a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplayable(pub String);

/// Whoever plays the steps.
pub trait Driver {
    /// Forgets the last case and everything in it.
    fn begin(&mut self);

    /// Plays a step to its end.
    ///
    /// # Errors
    /// It cannot be played here, which is no verdict on the case.
    fn play(&mut self, step: &Step) -> Result<Observed, Unplayable>;

    /// Whether it is true; if things take their time here, whether it becomes true soon.
    ///
    /// # Errors
    /// It cannot be seen here.
    fn holds(&mut self, fact: &Fact) -> Result<bool, Unplayable>;
}

/// What came of all cases.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases that passed.
    pub passed: Vec<String>,
    /// Known gaps that are still there.
    pub gaps: Vec<String>,
    /// Cases that could not be played, and why.
    pub skipped: Vec<(String, String)>,
    /// Cases that failed, and gaps that passed, each with its table.
    pub failures: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, gaps) = (self.passed.len(), self.gaps.len());
        let (skipped, failed) = (self.skipped.len(), self.failures.len());
        writeln!(f, "{passed} passed, {gaps} known gaps, {skipped} skipped, {failed} failed")?;
        for (case, reason) in &self.skipped {
            writeln!(f, "skipped: {case}: {reason}")?;
        }
        self.failures.iter().try_for_each(|failure| write!(f, "\n{failure}"))
    }
}

/// Plays every case of every file in a folder.
///
/// # Errors
/// What is wrong with a file: its name, the line and the problem.
pub fn run(folder: &Path, driver: &mut impl Driver) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for case in read(folder)? {
        play(&case, driver, &mut tally);
    }
    Ok(tally)
}

/// Plays one case.
pub fn play(case: &Case, driver: &mut impl Driver, tally: &mut Tally) {
    driver.begin();
    for row in &case.rows {
        match (play_row(row, driver), case.gap) {
            (Ok(()), _) => {}
            (Err(Miss::Unplayable(Unplayable(reason))), _) => {
                return tally.skipped.push((case.to_string(), reason));
            }
            // What leads up to a gap must work, or the gap is another one than it says.
            (Err(Miss::Other(_)), Some(_))
                if case.rows.last().is_some_and(|l| l.line == row.line) =>
            {
                return tally.gaps.push(case.to_string());
            }
            (Err(Miss::Other(what)), _) => {
                return tally.failures.push(case.failure(Some(row.line), &what));
            }
        }
    }
    match case.gap {
        Some(number) => {
            let what = format!("gap {number} is met now: take the mark and the deviation away");
            tally.failures.push(case.failure(None, &what));
        }
        None => tally.passed.push(case.to_string()),
    }
}

enum Miss {
    Unplayable(Unplayable),
    Other(String),
}

impl From<Unplayable> for Miss {
    fn from(unplayable: Unplayable) -> Self {
        Self::Unplayable(unplayable)
    }
}

fn play_row(row: &Row, driver: &mut impl Driver) -> Result<(), Miss> {
    for (step, expected) in &row.steps {
        let observed = driver.play(step)?;
        if !expected.is_met_by(&observed) {
            return Err(Miss::Other(format!("observed {observed}, of {step:?}")));
        }
    }
    for fact in &row.facts {
        if !driver.holds(fact)? {
            return Err(Miss::Other(format!("not so: {fact:?}")));
        }
    }
    Ok(())
}

impl Expected {
    fn is_met_by(&self, observed: &Observed) -> bool {
        match (self, observed) {
            (Self::Ok, observed) => !matches!(observed, Observed::Refused(..)),
            (Self::Refused(name, detail), Observed::Refused(status, finer)) => {
                status.name() == Some(name.as_str())
                    && detail.is_none_or(|detail| finer.map(|finer| finer.0) == Some(detail))
            }
            (Self::Value(wanted), Observed::Value(value)) => wanted == value,
            (Self::Figures(wanted), Observed::Figures(figures)) => {
                wanted.iter().all(|(name, relation, amount)| {
                    let figure = figures.iter().find(|(known, _)| known == name);
                    figure.is_some_and(|(_, figure)| match relation {
                        Relation::Is => figure == amount,
                        Relation::AtLeast => figure >= amount,
                        Relation::Below => figure < amount,
                    })
                })
            }
            _ => false,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Refused(status, None) => write!(f, "{status}"),
            Self::Refused(status, Some(detail)) => write!(f, "{status}, {detail}"),
            Self::Value(value) => write!(f, "`{value}`"),
            Self::Figures(figures) => {
                let all: Vec<String> =
                    figures.iter().map(|(name, figure)| format!("{name}={figure}")).collect();
                f.write_str(&all.join(" "))
            }
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{name}:{}: {}", self.line, self.claim)
    }
}

impl Case {
    /// The case as it is written, with the row that failed marked.
    fn failure(&self, failing: Option<usize>, what: &str) -> String {
        let mut text = format!("{self}\n    {}\n", self.source);
        for row in &self.rows {
            let mark = if failing == Some(row.line) { "--> " } else { "    " };
            text.push_str(&format!("{mark}{}\n", row.text));
        }
        text.push_str(&format!("    {what}\n"));
        text
    }
}

// Reading.

/// Every case of every `.md` file in a folder, in the order of names.
///
/// # Errors
/// What is wrong with a file: its name, the line and the problem.
pub fn read(folder: &Path) -> Result<Vec<Case>, String> {
    let listed = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        listed.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        cases.extend(parse(&file, &text)?);
    }
    Ok(cases)
}

/// The cases of a file.
///
/// # Errors
/// The line and the problem.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |problem: String| format!("{}:{number}: {problem}", file.display());
        if let Some(heading) = line.strip_prefix("## ") {
            let (claim, source) = heading
                .split_once("Source:")
                .ok_or_else(|| at("a case says where its claim is written: `Source: …`".into()))?;
            cases.push(Case {
                file: file.to_owned(),
                line: number,
                claim: claim.trim().to_owned(),
                source: format!("Source: {}", source.trim()),
                gap: None,
                rows: Vec::new(),
            });
        } else if line.starts_with('|') {
            let case = cases
                .last_mut()
                .ok_or_else(|| at("a table belongs below a `## ` heading".into()))?;
            if let Some(row) = parse_row(line, number).map_err(at)? {
                case.rows.push(row);
            }
        } else if let Some(rest) = line.strip_prefix("gap ") {
            let case = cases.last_mut().ok_or_else(|| at("a gap belongs to a case".into()))?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let number = digits.parse().map_err(|_| at("a gap has a number".into()))?;
            case.gap = Some(number);
        }
    }
    if let Some(case) = cases.iter().find(|case| case.rows.is_empty()) {
        return Err(format!("{}:{}: a case without steps", file.display(), case.line));
    }
    Ok(cases)
}

fn parse_row(line: &str, number: usize) -> Result<Option<Row>, String> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let [steps, expected] = cells[..] else {
        return Err(format!("a row has two cells, step and expect; this one has {}", cells.len()));
    };
    let is_rule = |cell: &str| !cell.is_empty() && cell.chars().all(|c| matches!(c, '-' | ':'));
    if (steps, expected) == ("step", "expect") || is_rule(steps) && is_rule(expected) {
        return Ok(None);
    }
    let mut parsed = Vec::new();
    for text in steps.split(';') {
        // What has several names stands for several steps, each with the same expectation.
        parsed.push(parse_step(text.trim())?);
    }
    let mut wanted: Vec<&str> = expected.split(';').map(str::trim).collect();
    let mut facts = Vec::new();
    for cell in &mut wanted {
        // Facts stand after a comma, or alone.
        let mut parts: Vec<&str> = cell.split(',').map(str::trim).collect();
        while let Some(fact) = parts.last().and_then(|part| parse_fact(part)) {
            facts.push(fact);
            parts.pop();
        }
        match parts[..] {
            [] => *cell = "ok",
            [only] => *cell = only,
            _ => return Err(format!("`{cell}`: one expectation, then facts of processes")),
        }
    }
    let expectations: Vec<Expected> =
        wanted.iter().map(|cell| parse_expected(cell)).collect::<Result<_, _>>()?;
    let steps = match (&expectations[..], parsed.len()) {
        ([one], _) => parsed.into_iter().flatten().map(|step| (step, one.clone())).collect(),
        (many, count) if many.len() == count => {
            let pairs = parsed.into_iter().zip(expectations);
            pairs.flat_map(|(steps, e)| steps.into_iter().map(move |s| (s, e.clone()))).collect()
        }
        (many, count) => {
            return Err(format!("{count} steps and {} expectations", many.len()));
        }
    };
    Ok(Some(Row { line: number, text: line.to_owned(), steps, facts }))
}

fn is_job(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_process(word: &str) -> bool {
    let digits = word.strip_prefix('p').unwrap_or_default();
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

fn job(word: &str) -> Result<String, String> {
    is_job(word).then(|| word.to_owned()).ok_or_else(|| format!("`{word}` is no name of a job"))
}

fn process(word: &str) -> Result<String, String> {
    let known = is_process(word).then(|| word.to_owned());
    known.ok_or_else(|| format!("`{word}` is no name of a process"))
}

fn names<T>(text: &str, name: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|word| name(word.trim())).collect()
}

/// A step, or as many as it has names.
fn parse_step(text: &str) -> Result<Vec<Step>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let unknown = || format!("unknown step `{text}`");
    let one = |step| Ok(vec![step]);
    match words[..] {
        ["without", "nesting"] => one(Step::WithoutNesting),
        ["hang", "up"] => one(Step::HangUp),
        ["create", ..] => {
            let rest = text.strip_prefix("create").unwrap_or_default().trim();
            // The names end with the first word that no comma announces.
            let mut made = Vec::new();
            let mut rest = rest;
            loop {
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                made.push(job(&rest[..end])?);
                rest = rest[end..].trim_start();
                match rest.strip_prefix(',') {
                    Some(more) => rest = more.trim_start(),
                    None => break,
                }
            }
            let limits = parse_limits(rest)?;
            Ok(made.into_iter().map(|name| Step::Create(name, limits.clone())).collect())
        }
        ["duplicate", from, "as", to] => one(Step::Duplicate(job(from)?, job(to)?, Access::ALL)),
        ["duplicate", from, "as", to, "with", ..] => {
            let rights = text.split_once(" with ").map(|(_, rights)| rights).unwrap_or_default();
            let access = names(rights, right)?.into_iter().fold(Access::empty(), |a, b| a | b);
            one(Step::Duplicate(job(from)?, job(to)?, access))
        }
        ["set", name, ..] => {
            let limits = text.split_once(name).map(|(_, limits)| limits).unwrap_or_default();
            one(Step::Set(job(name)?, parse_limits(limits)?))
        }
        ["spawn", ..] => {
            let rest = text.strip_prefix("spawn ").ok_or_else(unknown)?;
            let (newborns, jobs) = match rest.split_once(" in ") {
                Some((newborns, jobs)) => (newborns, names(jobs, job)?),
                None => (rest, Vec::new()),
            };
            let spawn =
                |process| Step::Spawn { process, by: None, jobs: jobs.clone(), breakaway: false };
            Ok(names(newborns, process)?.into_iter().map(spawn).collect())
        }
        [by, "spawns", newborn, ref rest @ ..] => {
            let (breakaway, rest) = match rest {
                ["with", "breakaway", rest @ ..] => (true, rest),
                rest => (false, rest),
            };
            let jobs = match rest {
                [] => Vec::new(),
                ["in", jobs @ ..] => names(&jobs.join(" "), job)?,
                _ => return Err(unknown()),
            };
            let (process, by) = (process(newborn)?, Some(process(by)?));
            one(Step::Spawn { process, by, jobs, breakaway })
        }
        [parent, "forks", child] => one(Step::Fork(process(parent)?, process(child)?)),
        ["assign", .., "to", target] => {
            let (listed, _) = text.rsplit_once(" to ").ok_or_else(unknown)?;
            let listed = listed.strip_prefix("assign ").ok_or_else(unknown)?;
            let target = job(target)?;
            let assign = |process| Step::Assign(process, target.clone());
            Ok(names(listed, process)?.into_iter().map(assign).collect())
        }
        [who, "exits"] => one(Step::Exit(process(who)?, 0)),
        [who, "exits", code] => one(Step::Exit(process(who)?, count(code)? as u32)),
        [who, "ignores", "signals"] => one(Step::IgnoreSignals(process(who)?)),
        ["kill", ..] => each(text, "kill", process, Step::Kill),
        ["hold", ..] => each(text, "hold", process, Step::Hold),
        ["release", ..] => each(text, "release", process, Step::Release),
        ["terminate", name, code] => one(Step::Terminate(job(name)?, count(code)? as u32)),
        ["stop", name, grace] => one(Step::Stop(job(name)?, duration(grace)?)),
        ["signal", name, number] => {
            one(Step::Signal(job(name)?, number.parse().map_err(|_| unknown())?))
        }
        ["burn", who, time] => one(Step::Burn(process(who)?, duration(time)?)),
        ["pass", time] => one(Step::Pass(duration(time)?)),
        ["wait", name, "empty"] => one(Step::WaitEmpty(job(name)?)),
        ["is", who, "in", "any", "job"] => one(Step::IsInAny(process(who)?)),
        ["is", who, "in", name] => one(Step::IsIn(process(who)?, job(name)?)),
        ["own", "limits", who] => one(Step::OwnLimits(process(who)?)),
        ["close", ..] => each(text, "close", job, Step::Close),
        ["freeze", ..] => each(text, "freeze", job, Step::Freeze),
        ["thaw", ..] => each(text, "thaw", job, Step::Thaw),
        ["list", ..] => each(text, "list", job, Step::List),
        ["account", ..] => each(text, "account", job, Step::Account),
        ["limits", ..] => each(text, "limits", job, Step::Limits),
        ["state", ..] => each(text, "state", job, Step::State),
        ["end", ..] => each(text, "end", job, Step::End),
        _ => Err(unknown()),
    }
}

fn each(
    text: &str,
    verb: &str,
    name: impl Fn(&str) -> Result<String, String>,
    step: impl Fn(String) -> Step,
) -> Result<Vec<Step>, String> {
    let rest = text.strip_prefix(verb).unwrap_or_default();
    Ok(names(rest, name)?.into_iter().map(step).collect())
}

fn right(word: &str) -> Result<Access, String> {
    Ok(match word {
        "assign" => Access::ASSIGN_PROCESS,
        "set" => Access::SET_ATTRIBUTES,
        "query" => Access::QUERY,
        "terminate" => Access::TERMINATE,
        "synchronize" => Access::SYNCHRONIZE,
        "all" => Access::ALL,
        _ => return Err(format!("`{word}` is no right")),
    })
}

fn parse_limits(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for word in text.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "kill_on_close" => limits.kill_on_close = true,
            "breakaway_ok" => limits.breakaway_ok = true,
            "silent_breakaway_ok" => limits.silent_breakaway_ok = true,
            "active_processes" => limits.active_processes = Some(count(value)? as u32),
            "job_time" => {
                limits.job_time = JobTime::Limit(Ticks::from_duration(duration(value)?));
            }
            "keep_job_time" => limits.job_time = JobTime::Keep,
            "post_at_end_of_job" => limits.end_of_job = EndOfJobAction::Post,
            "wall_time" => limits.wall_time = Some(duration(value)?),
            "stop_on_limit" => {
                limits.on_limit = OnLimit::Stop { signal: 15, grace: duration(value)? };
            }
            "nothing" => {}
            _ => return Err(format!("`{word}` is no limit")),
        }
    }
    Ok(limits)
}

/// Limits in the words of the step language, `nothing` when there are none.
#[must_use]
pub fn limits_in_words(limits: &Limits) -> String {
    let mut words = Vec::new();
    let flags = [
        (limits.kill_on_close, "kill_on_close"),
        (limits.breakaway_ok, "breakaway_ok"),
        (limits.silent_breakaway_ok, "silent_breakaway_ok"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
    if let Some(processes) = limits.active_processes {
        words.push(format!("active_processes={processes}"));
    }
    if let JobTime::Limit(time) = limits.job_time {
        words.push(format!("job_time={}ms", time.to_duration().as_millis()));
    }
    if limits.end_of_job == EndOfJobAction::Post {
        words.push("post_at_end_of_job".to_owned());
    }
    if let Some(time) = limits.wall_time {
        words.push(format!("wall_time={}ms", time.as_millis()));
    }
    if let OnLimit::Stop { grace, .. } = limits.on_limit {
        words.push(format!("stop_on_limit={}ms", grace.as_millis()));
    }
    if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
}

/// Why members are gone, in the words of the step language.
#[must_use]
pub fn reason_in_words(reason: jobobject_abi::EndReason) -> String {
    use jobobject_abi::EndReason;
    match reason {
        EndReason::Exited => "exited".to_owned(),
        EndReason::Terminated { code, .. } => format!("terminated {code}"),
        EndReason::Limit(LimitKind::JobTime) => "limit job_time".to_owned(),
        EndReason::Limit(LimitKind::WallTime) => "limit wall_time".to_owned(),
        EndReason::Limit(other) => format!("limit {other}"),
        EndReason::OwnerClosed => "owner closed".to_owned(),
    }
}

fn parse_fact(text: &str) -> Option<Fact> {
    let (who, what) = text.split_once(' ')?;
    let who = process(who).ok()?;
    Some(match what {
        "alive" => Fact::Alive(who),
        "dead" => Fact::Dead(who),
        "frozen" => Fact::Frozen(who),
        "runs" => Fact::Runs(who),
        _ => return None,
    })
}

fn parse_expected(text: &str) -> Result<Expected, String> {
    if text == "ok" {
        return Ok(Expected::Ok);
    }
    if text.starts_with("ERROR_") {
        let (name, detail) = match text.split_once(" (") {
            Some((name, detail)) => (name, Some(count(detail.trim_end_matches(')'))? as u32)),
            None => (text, None),
        };
        if !Status::ALL.iter().any(|status| status.name() == Some(name)) {
            return Err(format!("`{name}` is no error that we know"));
        }
        return Ok(Expected::Refused(name.to_owned(), detail));
    }
    let is_figure = |word: &str| word.contains(['=', '<']) && !is_limit(word);
    if !text.is_empty() && text.split_whitespace().all(is_figure) {
        return text
            .split_whitespace()
            .map(figure)
            .collect::<Result<_, _>>()
            .map(Expected::Figures);
    }
    let is_value = match text {
        "yes" | "no" | "nobody" | "exited" | "owner closed" | "nothing" => true,
        "signaled" | "not signaled" | "signaled terminating" | "not signaled terminating" => true,
        _ => {
            let mut words = text.split_whitespace();
            words.clone().all(is_process)
                || words.clone().all(is_limit)
                || matches!(words.next(), Some("terminated" | "limit" | "signaled"))
        }
    };
    if is_value && !text.is_empty() {
        Ok(Expected::Value(text.to_owned()))
    } else {
        Err(format!("unknown expectation `{text}`"))
    }
}

fn is_limit(word: &str) -> bool {
    parse_limits(word).is_ok()
}

fn figure(word: &str) -> Result<(String, Relation, u64), String> {
    let found = [(">=", Relation::AtLeast), ("<", Relation::Below), ("=", Relation::Is)]
        .into_iter()
        .find_map(|(sign, relation)| word.split_once(sign).map(|(name, v)| (name, relation, v)));
    let (name, relation, value) = found.ok_or_else(|| format!("`{word}` is no figure"))?;
    let amount = match name {
        "total" | "active" | "terminated" | "over_limit" => count(value)?,
        "user" | "period_user" => duration(value)?.as_micros() as u64,
        _ => return Err(format!("`{name}` is no figure")),
    };
    Ok((name.to_owned(), relation, amount))
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no time: 300ms, 2s");
    let (digits, unit) = text.split_at(text.find(char::is_alphabetic).ok_or_else(bad)?);
    let amount: u64 = digits.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(amount)),
        "s" => Ok(Duration::from_secs(amount)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(Path::new("x.md"), text).expect_err("it is wrong")
    }

    #[test]
    fn an_unknown_step_is_an_error_with_file_and_line() {
        let text = "## A claim  Source: here\n| step | expect |\n|--|--|\n| frobnicate A | ok |\n";
        assert_eq!(problem(text), "x.md:4: unknown step `frobnicate A`");
    }

    #[test]
    fn whatever_is_not_understood_is_an_error() {
        let row = |row: &str| problem(&format!("## A claim  Source: here\n{row}\n"));
        assert!(row("| close A | mostly ok |").contains("unknown expectation"));
        assert!(row("| close A | ERROR_WHATEVER |").contains("no error"));
        assert!(row("| create A soft | ok |").contains("no limit"));
        assert!(row("| close p1 | ok |").contains("no name of a job"));
        assert!(row("| close A; close B; close C | ok; ok |").contains("3 steps and 2"));
        assert!(row("| close A |").contains("two cells"));
        assert!(row("| account A | totl=3 |").contains("no figure"));
        assert!(problem("## A claim\n").contains("Source"));
        assert!(problem("## A claim  Source: here\n").contains("without steps"));
    }

    #[test]
    fn names_stand_for_as_many_steps() {
        let text = "## A  Source: b\n| create A, B kill_on_close; spawn p1, p2 in A | ok |\n";
        let cases = parse(Path::new("x.md"), text).expect("it is right");
        let steps: Vec<&Step> = cases[0].rows[0].steps.iter().map(|(step, _)| step).collect();
        let limits = Limits { kill_on_close: true, ..Limits::default() };
        assert_eq!(steps[0], &Step::Create("A".into(), limits.clone()));
        assert_eq!(steps[1], &Step::Create("B".into(), limits));
        assert_eq!(steps.len(), 4);
    }

    /// Says the same to every step.
    struct Parrot(Observed);

    impl Driver for Parrot {
        fn begin(&mut self) {}
        fn play(&mut self, step: &Step) -> Result<Observed, Unplayable> {
            match step {
                Step::HangUp => Err(Unplayable("it has no hands".into())),
                _ => Ok(self.0.clone()),
            }
        }
        fn holds(&mut self, _: &Fact) -> Result<bool, Unplayable> {
            Ok(false)
        }
    }

    fn tally(text: &str, observed: Observed) -> Tally {
        let mut tally = Tally::default();
        for case in parse(Path::new("x.md"), text).expect("it is right") {
            play(&case, &mut Parrot(observed.clone()), &mut tally);
        }
        tally
    }

    #[test]
    fn a_failure_shows_the_table_and_marks_the_row() {
        let text = "## A claim  Source: here\n| create A | ok |\n| list A | p1 |\n";
        let tally = tally(text, Observed::Done);
        assert!(tally.failures[0].contains("    | create A | ok |\n--> | list A | p1 |"));
    }

    #[test]
    fn a_gap_that_passes_fails() {
        let text = "## A claim  Source: here\ngap 7\n| create A | ok |\n";
        assert!(tally(text, Observed::Done).failures[0].contains("gap 7"));
        let refused = Observed::Refused(Status::ACCESS_DENIED, None);
        assert_eq!(tally(text, refused.clone()).gaps.len(), 1);
        let early = format!("{text}| close A | ok |\n");
        assert_eq!(tally(&early, refused).failures.len(), 1, "only the last row may miss");
    }

    #[test]
    fn what_cannot_be_played_is_skipped_with_the_reason() {
        let text = "## A claim  Source: here\n| hang up | ok |\n";
        assert_eq!(tally(text, Observed::Done).skipped[0].1, "it has no hands");
    }

    #[test]
    fn facts_stand_after_a_comma_or_alone() {
        for cell in ["ok, p1 dead", "p1 dead"] {
            let text = format!("## A claim  Source: here\n| kill p1 | {cell} |\n");
            assert!(tally(&text, Observed::Done).failures[0].contains("not so"));
        }
    }
}
