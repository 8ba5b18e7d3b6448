//! What a birth's token stands for: a program and everything that it is to find when it starts.
//!
//! All of it is prepared before the birth, since the newborn may not even allocate. Which candidates there
//! are is decided here, by the rules of `execvp(3)`: the PATH of the *new* environment.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use jobobject_core::Fault;
use jobobject_sys::clone::{CStringArray, CStringArrayBuilder, FdAction, NulInside, Plan};
use jobobject_sys::signal::SignalSet;
use rustix::io::Errno;

use crate::fault::{fault, trouble};

/// Where programs are looked for when the environment has no PATH, as `execvp` does.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The environment of a command.
#[derive(Debug, Clone, Default)]
pub enum Environment {
    /// Ours, as it is at the moment of the birth.
    #[default]
    Inherit,
    /// Exactly these strings, `NAME=value`. Shared by all births of one command.
    Exact(Arc<CStringArray>),
}

/// One descriptor of a command. Whatever is not mentioned is inherited unless it is close-on-exec.
#[derive(Debug, Clone)]
pub enum Descriptor {
    /// `to` in the command is `from` here.
    Give {
        /// A descriptor of ours.
        from: Arc<OwnedFd>,
        /// Its number in the command.
        to: RawFd,
    },
    /// This number is closed in the command.
    Close(RawFd),
}

/// What is to be executed, and how.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program; without a slash it is looked for in the PATH of the new environment.
    pub program: OsString,
    /// All arguments, the name of the program first.
    pub argv: Vec<OsString>,
    /// Its environment.
    pub environment: Environment,
    /// The directory it starts in; relative programs are seen from there.
    pub cwd: Option<PathBuf>,
    /// What becomes of descriptors, in order.
    pub descriptors: Vec<Descriptor>,
    /// It starts a session of its own.
    pub session: bool,
    /// The process group that it enters; 0: one of its own.
    pub process_group: Option<u32>,
    /// Its file mode creation mask.
    pub umask: Option<u32>,
    /// Its supplementary groups.
    pub groups: Option<Vec<u32>>,
    /// Its group.
    pub gid: Option<u32>,
    /// Its user.
    pub uid: Option<u32>,
    /// Signals that do what they do by default.
    pub default: SignalSet,
    /// Signals that are ignored.
    pub ignore: SignalSet,
    /// Signals that are blocked.
    pub mask: SignalSet,
}

impl Command {
    /// The program alone, with everything inherited and no signal blocked.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        Self {
            argv: vec![program.clone()],
            program,
            environment: Environment::Inherit,
            cwd: None,
            descriptors: Vec::new(),
            session: false,
            process_group: None,
            umask: None,
            groups: None,
            gid: None,
            uid: None,
            default: SignalSet::EMPTY,
            ignore: SignalSet::EMPTY,
            mask: SignalSet::EMPTY,
        }
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// The program, for people.
    pub(crate) fn shown(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// A command in the form that a newborn can use.
#[derive(Debug)]
pub(crate) struct Prepared<'c> {
    command: &'c Command,
    paths: Vec<CString>,
    argv: CStringArray,
    cwd: Option<CString>,
    fds: Vec<FdAction<'c>>,
}

impl<'c> Prepared<'c> {
    pub(crate) fn new(command: &'c Command) -> Result<Self, Fault> {
        let fds = command.descriptors.iter().map(|descriptor| match descriptor {
            Descriptor::Give { from, to } => FdAction::Dup { from: from.as_fd(), to: *to },
            Descriptor::Close(fd) => FdAction::Close(*fd),
        });
        Ok(Self {
            paths: candidates(command)?,
            argv: arguments(&command.argv)?,
            cwd: command
                .cwd
                .as_ref()
                .map(|cwd| c_string(cwd.as_os_str(), "directory"))
                .transpose()?,
            fds: fds.collect(),
            command,
        })
    }

    pub(crate) fn plan(&self) -> Plan<'_> {
        let command = self.command;
        Plan {
            session: command.session,
            group: command.process_group,
            fds: &self.fds,
            umask: command.umask,
            groups: command.groups.as_deref(),
            gid: command.gid,
            uid: command.uid,
            cwd: self.cwd.as_deref(),
            default: command.default,
            ignore: command.ignore,
            mask: command.mask,
            envp: match &command.environment {
                Environment::Inherit => None,
                Environment::Exact(strings) => Some(strings),
            },
            ..Plan::new(&self.paths, &self.argv)
        }
    }
}

fn arguments(argv: &[OsString]) -> Result<CStringArray, Fault> {
    let bytes = argv.iter().map(|argument| argument.len() + 1).sum();
    let mut strings = CStringArrayBuilder::with_capacity(argv.len(), bytes);
    for argument in argv {
        let pushed = strings.push(&[argument.as_bytes()]);
        pushed.map_err(|NulInside| nul_inside(argument, "argument"))?;
    }
    Ok(strings.finish())
}

/// The paths to try in turn.
fn candidates(command: &Command) -> Result<Vec<CString>, Fault> {
    let program = command.program.as_bytes();
    if program.is_empty() {
        return Err(fault("execve", "", Errno::NOENT));
    }
    if program.contains(&b'/') {
        return Ok(vec![c_string(&command.program, "program")?]);
    }
    let ours;
    let path = match &command.environment {
        Environment::Inherit => {
            ours = std::env::var_os("PATH");
            ours.as_deref().map(OsStr::as_bytes)
        }
        Environment::Exact(strings) => {
            strings.strings().find_map(|string| string.to_bytes().strip_prefix(b"PATH="))
        }
    };
    let directories = path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':');
    let candidates = directories.map(|directory| {
        let mut candidate = Vec::with_capacity(directory.len() + program.len() + 2);
        candidate.extend_from_slice(directory);
        // An empty directory is the current one.
        if !directory.is_empty() {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(program);
        CString::new(candidate).map_err(|_| nul_inside(&command.program, "program"))
    });
    candidates.collect()
}

fn c_string(text: &OsStr, what: &'static str) -> Result<CString, Fault> {
    CString::new(text.as_bytes()).map_err(|_| nul_inside(text, what))
}

fn nul_inside(text: &OsStr, what: &'static str) -> Fault {
    Fault {
        errno: Errno::INVAL.raw_os_error(),
        ..trouble("execve", text.to_string_lossy(), format!("a NUL byte in the {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(program: &str, environment: &[&str]) -> Vec<String> {
        let strings = environment.iter().map(|string| CString::new(*string).unwrap()).collect();
        let mut command = Command::new(program);
        command.environment = Environment::Exact(Arc::new(strings));
        let found = candidates(&command).unwrap();
        found.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn a_program_is_looked_for_in_the_new_environment() {
        assert_eq!(paths("ls", &["HOME=/", "PATH=/a::/b"]), ["/a/ls", "ls", "/b/ls"]);
        assert_eq!(paths("ls", &["PATHS=/x"]), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(paths("ls", &["PATH="]), ["ls"]);
        assert_eq!(paths("./ls", &["PATH=/a"]), ["./ls"]);
    }

    #[test]
    fn what_cannot_be_a_string_of_c_is_refused_before_anything_happens() {
        let command = Command::new("ls").args(["a\0b"]);
        assert_eq!(Prepared::new(&command).unwrap_err().errno, Errno::INVAL.raw_os_error());
        let fault = Prepared::new(&Command::new("")).unwrap_err();
        assert_eq!(fault.errno, Errno::NOENT.raw_os_error());
    }
}
