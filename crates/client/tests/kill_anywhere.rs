//! The owner may be killed at any instruction: its members die and nothing is left.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use common::*;
use jobobject::Job;

roles!(one_cycle, cycles, eats_memory);

const KILL: i32 = 9;

/// Members that do not die by themselves, of signals, or with their session.
const STUBBORN: &str = "trap '' TERM HUP INT
    for i in 1 2; do setsid sh -c \"trap '' TERM; sleep 1000\" & done
    echo ready; exit 0";

/// Everything that an owner does in the life of a job, and of one in it.
fn one_cycle() {
    let job = Job::new().unwrap();
    let mut leader = ready(&job, STUBBORN);
    assert!(status_of(&mut leader).success());
    let inner = job.child().unwrap();
    ready(&inner, STUBBORN);
    job.terminate(1).unwrap();
    end_of(&job);
    // It goes on with a fresh leaf.
    ready(&job, STUBBORN);
    job.freeze().unwrap();
    drop((job, inner));
    // And with a group from the pool, or another.
    let job = Job::builder().processes(100).time(Duration::from_secs(1000)).create().unwrap();
    assert!(sh("exit 0").status_in(&job).unwrap().success());
}

fn cycles() {
    say("ready");
    loop {
        one_cycle();
    }
}

/// Runs one cycle under strace. Without -f: nobody but the owner is traced, and nobody else is killed.
fn traced(base: &Base, options: &[&str]) -> ExitStatus {
    let role = std_role("one_cycle", "", Some(&base.0));
    let mut strace = Command::new("strace");
    strace.args(["-qqq"]).args(options).arg(role.get_program());
    strace.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.stdin(Stdio::null()).status().unwrap()
}

/// The system calls of one cycle, by name.
fn calls_of_a_cycle(base: &Base) -> BTreeSet<String> {
    let trace = std::env::temp_dir().join(format!("trace-{}", std::process::id()));
    assert!(traced(base, &["-o", trace.to_str().unwrap()]).success());
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(trace).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_is_left_of_an_owner_killed_at_any_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("there is no strace, which kills at a given system call");
    }
    let base = Base::new();
    let names = calls_of_a_cycle(&base);
    base.expect_nothing_left("a cycle that nobody disturbs");
    let mut killed = 0;
    // strace counts the calls of each name by themselves.
    for name in &names {
        for nth in 1.. {
            let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
            let status = traced(&base, &["-o", "/dev/null", "-e", &inject]);
            base.expect_nothing_left(format!("killed at {name} number {nth}"));
            if status.success() {
                break; // There are no more of them.
            }
            // It dies as the owner did.
            assert_eq!(status.signal(), Some(KILL), "at {name} number {nth}: {status}");
            killed += 1;
        }
    }
    eprintln!("killed at {killed} system calls, of {} names", names.len());
    assert!(killed > 200, "{killed}: that was not a whole cycle");
}

#[test]
fn nothing_is_left_of_an_owner_killed_at_a_random_moment() {
    let base = Base::new();
    let mut random = Random::new();
    for round in 0..scaled(200, 20) {
        let mut actor = Actor::inside(&base.0, "cycles", "");
        actor.hear();
        let delay = Duration::from_micros(random.below(scaled(25_000, 400_000) as u64));
        pause(delay);
        assert_eq!(actor.kill().signal(), Some(KILL), "it ended by itself");
        base.expect_nothing_left(format!("round {round}, killed after {delay:?}"));
    }
}

/// A group of the memory controller in which little memory may be used; removed when dropped.
struct LittleMemory {
    path: PathBuf,
    made: bool,
}

impl LittleMemory {
    const BYTES: &str = "67108864";

    /// The test's group itself where the controller is in the v2 hierarchy, else one in its own.
    fn new(base: &Base) -> Result<Self, String> {
        if fs::write(base.0.join("memory.max"), Self::BYTES).is_ok() {
            let _ = fs::write(base.0.join("memory.swap.max"), "0");
            return Ok(Self { path: base.0.clone(), made: false });
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own =
            groups.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| path));
        let own = own.ok_or("there is no memory controller")?;
        let path = PathBuf::from("/sys/fs/cgroup/memory").join(own);
        let path = path.join(format!("test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let little = Self { path, made: true };
        for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
            let set = fs::write(little.path.join(file), Self::BYTES);
            if file.starts_with("memory.limit") {
                set.map_err(|error| format!("{file}: {error}"))?;
            }
        }
        Ok(little)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        if self.made {
            until("the memory group is removed", || fs::remove_dir(&self.path).is_ok());
        }
    }
}

#[test]
fn nothing_is_left_of_an_owner_killed_for_lack_of_memory() {
    let base = Base::new();
    let little = match LittleMemory::new(&base) {
        Ok(little) => little,
        Err(why) => return skip(why),
    };
    let mut actor = Actor::inside(&base.0, "eats_memory", little.path.display());
    let members: Vec<_> = actor.hear_numbers().into_iter().map(pidfd).collect();
    actor.tell();
    assert_eq!(actor.end().signal(), Some(KILL));
    assert!(members.iter().all(ends));
    base.expect_nothing_left("after the end of memory");
}

fn eats_memory() {
    fs::write(format!("{}/cgroup.procs", arg()), "0").unwrap();
    let job = Job::new().unwrap();
    ready(&job, STUBBORN);
    let pids: Vec<_> = job.members().unwrap().iter().map(u32::to_string).collect();
    // Whoever is killed for it, it has to be us.
    fs::write("/proc/self/oom_score_adj", "0").unwrap();
    say(pids.join(" "));
    until_let_go();
    let mut eaten = Vec::new();
    for _ in 0..4096 {
        eaten.push(vec![1_u8; 1 << 20]);
    }
    panic!("{} MiB could be had", eaten.len());
}
