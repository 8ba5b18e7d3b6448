//! Other processes to be: this very program, executed again in a role.
//!
//! A role is played before `main`, on the first thread and with no other: it may fork, leave its
//! namespaces and become another user, and nothing but the role makes system calls.

use std::io::Write;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};

use super::{PATIENCE, ends, hear, pidfd, readable};

/// The name of the role, in the environment.
const ROLE: &str = "JOB_TEST_ROLE";
/// What the role is told.
const ARGUMENT: &str = "JOB_TEST_ARGUMENT";
/// The group that the actor enters before it plays.
const GROUP: &str = "JOB_TEST_GROUP";

/// Declares the roles of a test program.
macro_rules! roles {
    ($($role:ident),* $(,)?) => {
        #[used]
        // SAFETY: the section is an array of functions of this very type, which the loader calls one
        // by one.
        #[unsafe(link_section = ".init_array")]
        static ROLES: extern "C" fn() = {
            extern "C" fn play() {
                common::play(&[$((stringify!($role), $role as fn())),*]);
            }
            play
        };
    };
}
pub(crate) use roles;

/// Plays the role that the environment names, if any, and ends.
pub fn play(roles: &[(&str, fn())]) {
    let Ok(name) = std::env::var(ROLE) else { return };
    if let Ok(group) = std::env::var(GROUP) {
        std::fs::write(format!("{group}/cgroup.procs"), "0").unwrap();
    }
    let role = roles.iter().find(|(role, _)| *role == name);
    let played = std::panic::catch_unwind(|| role.expect("a role of this program").1());
    std::process::exit(if played.is_ok() { 0 } else { 101 });
}

/// What the role was told.
pub fn arg() -> String {
    std::env::var(ARGUMENT).unwrap_or_default()
}

/// Says a line to the process that started this one.
pub fn say(words: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{words}").unwrap();
    out.flush().unwrap();
}

/// Waits until the process that started this one lets go.
pub fn until_let_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// A command for a job's member in a role.
pub fn role_command(role: &str, argument: impl ToString) -> jobobject::Command {
    let mut command = jobobject::Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).env(ARGUMENT, argument.to_string()).env_remove(GROUP);
    command.stdin(jobobject::Stdio::null());
    command
}

/// A command for another process in a role; in `group`, if one is given.
pub fn std_role(
    role: &str,
    argument: impl ToString,
    group: Option<&std::path::Path>,
) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).env(ARGUMENT, argument.to_string()).env_remove(GROUP);
    if let Some(group) = group {
        command.env(GROUP, group);
    }
    command
}

/// Another process that plays a role. Ended when dropped.
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Actor {
    pub fn new(role: &str, argument: impl ToString) -> Self {
        Self::start(std_role(role, argument, None))
    }

    /// One that lives in a group of the test's.
    pub fn inside(group: &std::path::Path, role: &str, argument: impl ToString) -> Self {
        Self::start(std_role(role, argument, Some(group)))
    }

    pub fn start(mut command: std::process::Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The words of the next line that it says.
    pub fn hear(&mut self) -> Vec<String> {
        loop {
            let line = hear(&mut self.stdout);
            if let Some((_, said)) = line.split_once('@') {
                return said.split_whitespace().map(str::to_owned).collect();
            }
        }
    }

    /// The next line that it says, as numbers.
    pub fn hear_numbers(&mut self) -> Vec<u32> {
        self.hear().iter().map(|word| word.parse().unwrap()).collect()
    }

    /// Says a line to it.
    pub fn tell(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Kills it as it is.
    pub fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Its end, whatever it is.
    pub fn end(mut self) -> ExitStatus {
        assert!(ends(pidfd(self.pid())), "{} lives on", self.pid());
        self.child.wait().unwrap()
    }

    /// Lets it go on to its end, which must be a good one.
    pub fn finish(mut self) {
        drop(self.stdin.take());
        while readable(std::os::fd::AsFd::as_fd(&self.stdout), PATIENCE) {
            let mut rest = [0; 4096];
            if std::io::Read::read(&mut self.stdout, &mut rest).unwrap() == 0 {
                break;
            }
        }
        assert!(ends(pidfd(self.pid())), "{} lives on", self.pid());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
