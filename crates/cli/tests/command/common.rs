//! What the tests have in common: commands, and processes that are waited for.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jobobject_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// What takes longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const JOB: &str = env!("CARGO_BIN_EXE_job");

/// `job run` with these words.
pub(crate) fn run(words: &[&str]) -> Command {
    let mut command = Command::new(JOB);
    command.arg("run").args(words);
    as_usual(&mut command);
    command
}

/// No signal ignored and none blocked, wherever the tests were started.
pub(crate) fn as_usual(command: &mut Command) {
    first(command, || {
        signal::set_mask(SignalSet::EMPTY);
        for signal in 1..=31 {
            // SIGKILL and SIGSTOP are what they are.
            let _ = signal::set_default(signal);
        }
        Ok(())
    });
}

/// `job run` with these options, for a script.
pub(crate) fn sh(options: &[&str], script: &str) -> Command {
    let mut command = run(options);
    command.args(["--", "/bin/sh", "-c", script]);
    command
}

/// Something to be done between fork and exec.
pub(crate) fn first<F>(command: &mut Command, act: F) -> &mut Command
where
    F: FnMut() -> io::Result<()> + Send + Sync + 'static,
{
    // SAFETY: what the tests do here is a few system calls: no lock, no allocation.
    unsafe { command.pre_exec(act) }
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("no exit: {self:?}"))
    }

    /// What we have said; a shell may say more.
    pub(crate) fn said(&self) -> Vec<&str> {
        self.err.lines().filter(|line| line.starts_with("job: ")).collect()
    }

    pub(crate) fn signal(&self) -> i32 {
        self.status.signal().unwrap_or_else(|| panic!("no signal: {self:?}"))
    }
}

/// Runs it to its end, without standard input unless it has one.
pub(crate) fn ran(command: &mut Command) -> Ran {
    finish(command.stdin(Stdio::null()))
}

pub(crate) fn finish(command: &mut Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (pid, shown) = (child.id(), format!("{command:?}"));
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(PATIENCE) else {
        send_signal(pid, Signal::KILL);
        panic!("{shown} does not end");
    };
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status, out: text(output.stdout), err: text(output.stderr) }
}

/// A command that runs while the test looks on.
#[derive(Debug)]
pub(crate) struct Live {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Live {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        line(&mut self.out)
    }

    /// The next line of its standard error.
    pub(crate) fn err_line(&mut self) -> String {
        line(&mut self.err)
    }

    /// The number on the next line.
    pub(crate) fn number(&mut self) -> u32 {
        let line = self.line();
        line.parse().unwrap_or_else(|_| panic!("{line:?} is no number"))
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Its end, and what it has said besides.
    pub(crate) fn end(mut self) -> Ran {
        drop(self.stdin.take());
        ends(open(self.pid()), "the command");
        let status = self.child.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.err.read_to_string(&mut err).unwrap();
        Ran { status, out, err }
    }

    /// Reaps it after it was seen to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        ends(open(self.pid()), "the command");
        self.child.wait().unwrap()
    }
}

fn line<F: Read + AsFd>(from: &mut BufReader<F>) -> String {
    if from.buffer().is_empty() {
        readable(from.get_ref(), "a line");
    }
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

impl Drop for Live {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.child.kill();
        }
    }
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// A process, to be waited for. Must be there.
pub(crate) fn open(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Waits until a process has ended.
pub(crate) fn ends(pidfd: impl AsFd, what: &str) {
    readable(pidfd, &format!("the end of {what}"));
}

pub(crate) fn has_ended(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

pub(crate) fn readable(fd: impl AsFd, what: &str) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience)));
    assert_eq!(ready, Ok(1), "waited in vain for {what}");
}

/// Waits for something that sends no event.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        // Not to let anything happen, but to let others have the processor meanwhile.
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
    }
}

/// The letter of `/proc/PID/stat`; `None` when there is no such process.
pub(crate) fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process has become this program: a shell that is about to execute it may treat
/// signals in its own way until then.
pub(crate) fn becomes(pid: u32, name: &str) {
    let file = format!("/proc/{pid}/comm");
    until(&format!("{pid} is {name}"), || {
        fs::read_to_string(&file).is_ok_and(|comm| comm.trim() == name)
    });
}

/// A line of `/proc/PID/status`.
pub(crate) fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// The mask in a line of `/proc/PID/status`.
pub(crate) fn mask(text: &str, name: &str) -> u64 {
    u64::from_str_radix(&field(text, name), 16).unwrap()
}

/// Where the groups of version 2 are.
pub(crate) fn mount() -> &'static Path {
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists()).expect("cgroup v2")
}

/// The directories that the engine of this process keeps its jobs in.
pub(crate) fn roots_of(pid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(mount(), &format!("job-{pid}-"), &mut found);
    found
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
            collect(&entry.path(), prefix, found);
        }
    }
}

/// A directory that is removed with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("job-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this text and these permissions.
    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
