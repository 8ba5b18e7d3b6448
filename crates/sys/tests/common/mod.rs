//! What the tests of this crate share: fresh groups, programs, and other processes to be.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tests talk")]

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use jobobject_sys::clone::{Birth, CStringArray};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// The cgroup2 mount.
pub fn mount() -> PathBuf {
    for path in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        if Path::new(path).join("cgroup.procs").exists() {
            return path.into();
        }
    }
    panic!("no cgroup2 mount")
}

/// A group of our own; removed with everybody in it.
pub struct Group {
    pub path: PathBuf,
}

impl Group {
    /// None, and loudly so, where groups cannot be made.
    pub fn fresh() -> Option<Self> {
        let group = Self { path: mount().join(Self::name()) };
        match fs::create_dir(&group.path) {
            Ok(()) => Some(group),
            Err(error) => {
                eprintln!("SKIPPED: {} cannot be made: {error}", group.path.display());
                std::mem::forget(group);
                None
            }
        }
    }

    /// A name that no other test has.
    pub fn name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("jobobject-sys-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
    }

    pub fn dir(&self) -> OwnedFd {
        open_dir(&self.path)
    }

    pub fn file(&self, name: &str) -> fs::File {
        fs::OpenOptions::new().write(true).open(self.path.join(name)).unwrap()
    }

    /// Waits until nobody is in it or below it: ten seconds without a change are a failure.
    pub fn empties(&self) {
        let events = fs::File::open(self.path.join("cgroup.events")).unwrap();
        loop {
            let mut text = [0; 64];
            let len = rustix::io::pread(&events, &mut text, 0).unwrap();
            if String::from_utf8_lossy(&text[..len]).contains("populated 0") {
                return;
            }
            let mut fds = [PollFd::new(&events, PollFlags::PRI)];
            assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })), Ok(1));
        }
    }

    pub fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..1_000 {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
        }
        eprintln!("{} is left behind", self.path.display());
    }
}

pub fn open_dir(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .unwrap()
}

/// A program and its arguments, ready for a plan.
pub struct Program {
    pub paths: Vec<CString>,
    pub argv: CStringArray,
    pub envp: CStringArray,
}

pub fn program(argv: &[&str]) -> Program {
    let strings = || argv.iter().map(|arg| CString::new(*arg).unwrap());
    Program {
        paths: strings().take(1).collect(),
        argv: strings().collect(),
        envp: CStringArray::from(vec![c"PATH=/usr/bin:/bin".into()]),
    }
}

pub fn sh(script: &str) -> Program {
    program(&["/bin/sh", "-c", script])
}

/// The exit status; or minus the signal.
pub fn wait(birth: &Birth) -> i32 {
    let status = rustix::io::retry_on_intr(|| {
        waitid(WaitId::PidFd(birth.pidfd.as_fd()), WaitIdOptions::EXITED)
    });
    let status = status.unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| -status.terminating_signal().unwrap())
}

/// Whether the process is gone within ten seconds.
pub fn ends(pidfd: BorrowedFd<'_>) -> bool {
    ends_within(pidfd, 10)
}

pub fn ends_within(pidfd: BorrowedFd<'_>, seconds: i64) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
}

pub fn ends_within_us(pidfd: BorrowedFd<'_>, us: u32) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: i64::from(us) * 1_000 })).unwrap() == 1
}

pub fn pidfd(pid: u32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

/// Another process that runs the test `role` of this very program with `JOB_SYS_ROLE` set.
pub struct Actor {
    pub child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Actor {
    pub fn start(role: &str, argument: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["role", "--exact", "--nocapture", "--test-threads=1"]);
        command.env("JOB_SYS_ROLE", role).env("JOB_SYS_ARGUMENT", argument);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The words of the next line that it says.
    pub fn hear(&mut self) -> Vec<String> {
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some((_, said)) = line.split_once('@') {
                return said.split_whitespace().map(str::to_owned).collect();
            }
        }
    }

    /// Kills it as it is.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it go on to its end, which must be a good one.
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        while self.out.read_line(&mut rest).unwrap() > 0 {}
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

/// The role that this process is to play, and its argument.
pub fn role() -> Option<(String, String)> {
    let role = std::env::var("JOB_SYS_ROLE").ok()?;
    Some((role, std::env::var("JOB_SYS_ARGUMENT").unwrap_or_default()))
}

/// Says a line to the process that started this one.
pub fn say(words: &str) {
    println!("@{words}");
}

/// Waits until the process that started this one lets go.
pub fn until_let_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Lets the system call `nr` fail with `errno` in this thread and its children, for ever.
pub fn refuse(nr: libc::c_long, errno: i32) {
    let stmt = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = [
        stmt((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: nr as u32,
        },
        stmt((libc::BPF_RET | libc::BPF_K) as u16, libc::SECCOMP_RET_ERRNO | errno as u32),
        stmt((libc::BPF_RET | libc::BPF_K) as u16, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is live and as long as it says; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}
