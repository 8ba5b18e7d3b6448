//! Commands: what to start, and how, as `std::process::Command` describes it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
use std::sync::Arc;

use jobobject_engine::Engine;
use jobobject_engine::linux::{self, Descriptor, Environment};
use jobobject_sys::clone::{CStringArray, CStringArrayBuilder, NulInside};
use jobobject_sys::signal::SignalSet;
use jobobject_sys::start::at_start;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::child::{Child, Handle};
use crate::error::{Error, Result};
use crate::job::Job;

/// Reset to the default in every command, as `std` does: Rust's runtime ignores it for its own use.
const SIGPIPE: i32 = 13;

/// What a standard descriptor of a command is.
#[derive(Debug, Clone)]
pub struct Stdio(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Inherit,
    Null,
    Piped,
    Fd(Arc<OwnedFd>),
}

impl Stdio {
    /// The one this process has.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe, whose other end is in the [`Child`].
    #[must_use]
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::Fd(Arc::new(fd)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl From<ChildStdin> for Stdio {
    fn from(pipe: ChildStdin) -> Self {
        OwnedFd::from(pipe).into()
    }
}

impl From<ChildStdout> for Stdio {
    fn from(pipe: ChildStdout) -> Self {
        OwnedFd::from(pipe).into()
    }
}

impl From<ChildStderr> for Stdio {
    fn from(pipe: ChildStderr) -> Self {
        OwnedFd::from(pipe).into()
    }
}

/// A change to the environment.
#[derive(Debug, Clone)]
enum EnvChange {
    Clear,
    Set(OsString, OsString),
    Remove(OsString),
}

/// A command to be started inside a job: `std::process::Command` with another birth.
///
/// It behaves as `std`'s does, but that the process is created inside its job, there is no moment
/// outside, and that starting it costs the same however much memory this process has. Programs are
/// looked for in the PATH of the *new* environment, from the new directory.
///
/// ```no_run
/// use jobobject::{Command, Job};
///
/// let job = Job::new()?;
/// let output = Command::new("sh").args(["-c", "echo hello"]).output_in(&job)?;
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok::<(), jobobject::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Command {
    token: linux::Command,
    environment: Vec<EnvChange>,
    stdio: [Option<Stdio>; 3],
    breakaway: bool,
}

impl Command {
    /// A command for `program`, with its name as the only argument and all else inherited.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut token = linux::Command::new(program.as_ref());
        token.default = SignalSet::of(&[SIGPIPE]);
        Self { token, environment: Vec::new(), stdio: [const { None }; 3], breakaway: false }
    }

    /// Appends an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.token.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.token.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the zeroth argument, which is the program's name otherwise.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.token.argv[0] = arg.as_ref().to_owned();
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let change = EnvChange::Set(key.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push(change);
        self
    }

    /// Sets environment variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        for (key, value) in variables {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.environment.push(EnvChange::Remove(key.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.environment.push(EnvChange::Clear);
        self
    }

    /// Sets the directory it starts in.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.token.cwd = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets its standard input. Inherited by default; `/dev/null` for [`Command::output_in`].
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = Some(stdio.into());
        self
    }

    /// Sets its standard output. Inherited by default; a pipe for [`Command::output_in`].
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = Some(stdio.into());
        self
    }

    /// Sets its standard error. Inherited by default; a pipe for [`Command::output_in`].
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = Some(stdio.into());
        self
    }

    /// Puts it into a process group; 0 is one of its own.
    pub fn process_group(&mut self, group: u32) -> &mut Self {
        self.token.process_group = Some(group);
        self
    }

    /// Starts a session of its own, without a terminal.
    pub fn new_session(&mut self, session: bool) -> &mut Self {
        self.token.session = session;
        self
    }

    /// Sets its user. Without [`Command::groups`] the supplementary groups are dropped if this
    /// process is root, as `std` does.
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.token.uid = Some(uid);
        self
    }

    /// Sets its group.
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.token.gid = Some(gid);
        self
    }

    /// Sets its supplementary groups.
    pub fn groups(&mut self, groups: &[u32]) -> &mut Self {
        self.token.groups = Some(groups.to_vec());
        self
    }

    /// Sets its file mode creation mask.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.token.umask = Some(mask);
        self
    }

    /// Passes on what this process itself was started with, rather than what Rust's runtime made of
    /// it: the signal mask, which signals were ignored, and which standard descriptors were closed.
    /// For commands that stand between a shell and another command.
    pub fn as_started(&mut self) -> &mut Self {
        let start = at_start();
        self.token.mask = start.mask;
        // Nothing to do for those that still are; whoever has changed one since has done so for itself.
        self.token.ignore = start.ignored;
        self.token.default = SignalSet::EMPTY;
        if !start.sigpipe_ignored() {
            self.token.default = SignalSet::of(&[SIGPIPE]);
        }
        for (fd, closed) in (0..).zip(start.closed) {
            if closed {
                self.token.descriptors.push(Descriptor::Close(fd));
            }
        }
        self
    }

    /// Asks to leave the jobs that this process is in itself, as far as they allow.
    #[doc(alias = "CREATE_BREAKAWAY_FROM_JOB")]
    pub fn breakaway(&mut self, breakaway: bool) -> &mut Self {
        self.breakaway = breakaway;
        self
    }

    /// The program.
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        &self.token.program
    }

    /// The arguments, without the zeroth.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.token.argv[1..].iter().map(OsString::as_os_str)
    }

    /// The directory it starts in, when it is not this process's.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.token.cwd.as_deref()
    }

    /// Starts it inside `job`, and inside the jobs that this process is in itself.
    ///
    /// # Errors
    /// What `std` says when a program cannot be started; every refusal of a newcomer.
    #[doc(alias = "CreateProcess")]
    pub fn spawn_in(&mut self, job: &Job) -> Result<Child> {
        let stdio = self.stdio.clone().map(|stdio| stdio.unwrap_or(Stdio(Kind::Inherit)));
        job.start(self, stdio)
    }

    /// Starts it in no other jobs than those that this process is in itself, less those it breaks
    /// away from.
    ///
    /// # Errors
    /// As [`Command::spawn_in`]; breakaway that the immediate job does not allow.
    #[doc(alias = "CreateProcess")]
    pub fn spawn(&mut self) -> Result<Child> {
        let stdio = self.stdio.clone().map(|stdio| stdio.unwrap_or(Stdio(Kind::Inherit)));
        self.start(&Engine::of_this_process()?, &[], stdio)
    }

    /// Starts it inside `job` and waits for it.
    ///
    /// # Errors
    /// As [`Command::spawn_in`] and [`Child::wait`].
    pub fn status_in(&mut self, job: &Job) -> Result<ExitStatus> {
        self.spawn_in(job)?.wait()
    }

    /// Starts it inside `job`, collects what it writes and waits for it. Reading ends when the
    /// command has ended and the pipes are drained or closed: a member it leaves behind with the
    /// pipe open is read from until it ends too.
    ///
    /// # Errors
    /// As [`Command::spawn_in`] and [`Child::wait_with_output`].
    pub fn output_in(&mut self, job: &Job) -> Result<Output> {
        let [stdin, stdout, stderr] = self.stdio.clone();
        let stdio = [
            stdin.unwrap_or(Stdio(Kind::Null)),
            stdout.unwrap_or(Stdio(Kind::Piped)),
            stderr.unwrap_or(Stdio(Kind::Piped)),
        ];
        job.start(self, stdio)?.wait_with_output()
    }

    pub(crate) fn start(
        &self,
        engine: &Arc<Engine>,
        jobs: &[jobobject_abi::Handle],
        stdio: [Stdio; 3],
    ) -> Result<Child> {
        // Most commands are started as they are.
        let mut token = Cow::Borrowed(&self.token);
        if !self.environment.is_empty() {
            token.to_mut().environment = Environment::Exact(Arc::new(self.strings()?));
        }
        if token.uid.is_some() && token.groups.is_none() && rustix::process::geteuid().is_root() {
            token.to_mut().groups = Some(Vec::new());
        }
        let pipes = connect(stdio, &mut token)?;
        let spawned = engine.spawn(jobs, self.breakaway, &token)?;
        Ok(Child::new(Handle::new(Arc::clone(engine), spawned.process), pipes))
    }

    /// The environment with its changes, as strings.
    fn strings(&self) -> Result<CStringArray> {
        let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        for change in &self.environment {
            match change {
                EnvChange::Clear => variables.clear(),
                EnvChange::Remove(key) => variables.retain(|(name, _)| name != key),
                EnvChange::Set(key, value) => {
                    variables.retain(|(name, _)| name != key);
                    variables.push((key.clone(), value.clone()));
                }
            }
        }
        let mut strings = CStringArrayBuilder::with_capacity(variables.len(), 4096);
        for (name, value) in variables {
            if name.is_empty() || name.as_bytes()[1..].contains(&b'=') {
                let name = name.to_string_lossy();
                return Err(Error::invalid(format!("{name:?} cannot name a variable")));
            }
            strings
                .push(&[name.as_bytes(), b"=", value.as_bytes()])
                .map_err(|NulInside| Error::invalid("a NUL byte in the environment"))?;
        }
        Ok(strings.finish())
    }
}

/// Our ends of a command's pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

/// Gives the command its standard descriptors and keeps the other ends of pipes.
fn connect(stdio: [Stdio; 3], token: &mut Cow<'_, linux::Command>) -> Result<Pipes> {
    let mut pipes = Pipes::default();
    for (to, stdio) in (0..).zip(stdio) {
        let from = match stdio.0 {
            Kind::Inherit => continue,
            Kind::Null => Arc::new(open_null()?),
            Kind::Fd(fd) => fd,
            Kind::Piped => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
                    .map_err(|errno| Error::io("pipe", "", &errno.into()))?;
                // One end is the command's, the other ours.
                let theirs = match to {
                    0 => {
                        pipes.stdin = Some(writer.into());
                        reader
                    }
                    1 => {
                        pipes.stdout = Some(reader.into());
                        writer
                    }
                    _ => {
                        pipes.stderr = Some(reader.into());
                        writer
                    }
                };
                Arc::new(theirs)
            }
        };
        token.to_mut().descriptors.push(Descriptor::Give { from, to });
    }
    Ok(pipes)
}

fn open_null() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty());
    null.map_err(|errno| Error::io("open", "/dev/null", &errno.into()))
}
