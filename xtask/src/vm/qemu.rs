//! One virtual machine, from power-on to power-off.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::guest::Transcript;
use super::parts::Kernel;
use crate::apt;
use crate::trouble::Trouble;

/// A boot takes three seconds; one that has not said a word after this is not coming up.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Boots that are tried before the fault is taken for ours. The emulator sometimes crashes a kernel
/// that patches its own code on one processor while another runs it ("int3" in the kernel's log).
const TRIES: usize = 3;

/// What every boot of one command has in common.
#[derive(Debug)]
pub(crate) struct Machine {
    pub emulator: PathBuf,
    pub initramfs: PathBuf,
    /// The folder for the kernels' logs.
    pub logs: PathBuf,
    pub memory: String,
    /// More words for the kernel's command line.
    pub append: String,
    pub limit: Duration,
}

/// What came of a boot.
#[derive(Debug)]
pub(crate) struct Boot {
    pub transcript: Transcript,
    pub ending: Ending,
    pub took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything was run, and the guest switched itself off.
    PoweredOff,
    /// It was still running at the limit.
    TimedOut,
    /// It never came up.
    Stuck,
    /// The kernel or the emulator ended first.
    Died(ExitStatus),
}

impl Machine {
    /// Boots until a boot gets as far as running something, and follows that one to its end. From
    /// then on nothing is tried twice: a crash could be what a test found.
    pub(crate) fn run(&self, kernel: &Kernel) -> Result<Boot, Trouble> {
        for _ in 1..TRIES {
            let boot = self.boot(kernel)?;
            if boot.ending == Ending::PoweredOff || boot.transcript.has_begun() {
                return Ok(boot);
            }
            println!(
                "[{}] it {} before anything ran; booting again",
                kernel.series,
                boot.describe()
            );
        }
        self.boot(kernel)
    }

    pub(crate) fn log(&self, kernel: &Kernel) -> PathBuf {
        self.logs.join(format!("console-{}.log", kernel.series))
    }

    fn boot(&self, kernel: &Kernel) -> Result<Boot, Trouble> {
        // The log of another boot must not explain this one.
        fs::write(self.log(kernel), "").map_err(Trouble::io(self.log(kernel).display()))?;
        let began = Instant::now();
        let mut emulator =
            self.command(kernel).spawn().map_err(Trouble::io(self.emulator.display()))?;
        let pieces = pieces(emulator.stdout.take().expect("stdout was asked to be a pipe"));
        let (transcript, overdue) = self.follow(kernel, &pieces, began);
        let status =
            end(&mut emulator, overdue.is_some()).map_err(Trouble::io(self.emulator.display()))?;
        let complete = transcript.done && status.success();
        let ending =
            overdue.unwrap_or(if complete { Ending::PoweredOff } else { Ending::Died(status) });
        Ok(Boot { transcript, ending, took: began.elapsed() })
    }

    /// q35 because the microvm machine has no timer to calibrate clocks by, and hangs in one boot of
    /// five. One thread for all of the guest's processors: with a thread each, 6.12 crashes now and
    /// then while it patches its own code. No KVM, even where the device exists: it is not ours to use in containers and CI.
    fn command(&self, kernel: &Kernel) -> Command {
        let mut command = dying_with_us(&self.emulator);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args([
                "-M",
                "q35",
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                &self.memory,
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &self.kernel_words(kernel)])
            .arg("-serial")
            .arg(format!("file:{}", self.log(kernel).display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// An oops is a panic and a panic ends the machine. What the kernel does not know, JOB_VM here,
    /// becomes the environment of the guest's first process.
    fn kernel_words(&self, kernel: &Kernel) -> String {
        let series = &kernel.series;
        format!(
            "console=ttyS0 loglevel=5 panic=-1 oops=panic lsm=landlock,lockdown,yama,bpf JOB_VM={series} {}",
            self.append
        )
    }

    /// Reads and shows until the machine closes its line, or is overdue.
    fn follow(
        &self,
        kernel: &Kernel,
        pieces: &Receiver<Vec<u8>>,
        began: Instant,
    ) -> (Transcript, Option<Ending>) {
        let mut transcript = Transcript::default();
        loop {
            let (limit, ending) = match transcript.release {
                Some(_) => (self.limit, Ending::TimedOut),
                None => (BOOT_LIMIT.min(self.limit), Ending::Stuck),
            };
            match pieces.recv_timeout(limit.saturating_sub(began.elapsed())) {
                Ok(piece) => transcript
                    .feed(&piece)
                    .iter()
                    .for_each(|line| println!("[{}] {line}", kernel.series)),
                Err(RecvTimeoutError::Disconnected) => return (transcript, None),
                Err(RecvTimeoutError::Timeout) => return (transcript, Some(ending)),
            }
        }
    }
}

impl Boot {
    /// How it ended, to follow a word like "it".
    pub(crate) fn describe(&self) -> String {
        let at = self.transcript.at();
        let seconds = self.took.as_secs();
        match self.ending {
            Ending::PoweredOff => "switched itself off".to_owned(),
            Ending::TimedOut => format!("was still running after {seconds} s and was killed {at}"),
            Ending::Stuck => format!("was not up after {seconds} s"),
            Ending::Died(status) if status.success() => format!("crashed {at}"),
            Ending::Died(status) => format!("ended with the emulator's {status} {at}"),
        }
    }
}

/// A command for a program that the kernel kills when we die, however we die.
fn dying_with_us(program: &Path) -> Command {
    match apt::program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// What arrives on a pipe. A thread reads it: a read has no time limit.
fn pieces(mut pipe: ChildStdout) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if send.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

fn end(emulator: &mut Child, kill: bool) -> std::io::Result<ExitStatus> {
    if kill {
        emulator.kill()?;
    }
    emulator.wait()
}
