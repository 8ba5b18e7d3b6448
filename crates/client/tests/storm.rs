//! Many at once: fork bombs, thousands of members, spawns in flight, engines beside and inside each other.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::*;
use jobobject::{Child, Command, EndReason, ErrorKind, Job, Stdio};

roles!(
    bomb,
    herd,
    ends_thousands,
    signals_thousands,
    drops_a_bomb,
    some_cycles,
    engine_inside,
    owns_engines,
    spawns_in_flight
);

const KILL: i32 = 9;

/// A number that this process shares with all its forks.
fn shared_number() -> &'static AtomicU32 {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping, aligned to a page, zero, and never unmapped.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<AtomicU32>()
    }
}

/// Forks without end, ignores whatever can be ignored, and leaves every session and group. Up to as many
/// as asked for live at a time; from then on each is followed by its child. Says so when they are that many.
fn bomb() {
    let limit: u32 = arg().parse().unwrap();
    let live = shared_number();
    live.store(1, Relaxed);
    for signal in (1..=64).filter(|signal| !matches!(signal, 9 | 19 | 32 | 33)) {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // The first one stays and inherits the orphans. It ignores SIGCHLD, so the kernel reaps them at once:
    // left to init they would fill the machine's pid table, for everybody on it.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    // SAFETY: there is one thread.
    if unsafe { libc::fork() } != 0 {
        loop {
            // SAFETY: it waits.
            unsafe { libc::pause() };
        }
    }
    loop {
        // SAFETY: there is one thread, and what is called here takes no lock.
        unsafe {
            libc::setsid();
            if live.fetch_add(1, Relaxed) < limit {
                match libc::fork() {
                    0 => {}
                    -1 => drop(live.fetch_sub(1, Relaxed)),
                    _ if live.load(Relaxed) == limit => {
                        // Maybe more than one of them says so.
                        libc::write(1, c"ready\n".as_ptr().cast(), 6);
                    }
                    _ => {}
                }
                continue;
            }
            live.fetch_sub(1, Relaxed);
            match libc::fork() {
                0 | -1 => {}
                _ => libc::_exit(0),
            }
        }
    }
}

/// Forks as many as asked for, who wait for their end.
fn herd() {
    let count: u32 = arg().parse().unwrap();
    for _ in 0..count {
        // SAFETY: there is one thread; the child only waits.
        unsafe {
            match libc::fork() {
                0 => loop {
                    libc::pause();
                },
                -1 => panic!("fork: {}", std::io::Error::last_os_error()),
                _ => {}
            }
        }
    }
    println!("ready");
    loop {
        // SAFETY: it waits.
        unsafe { libc::pause() };
    }
}

/// A member in one of these roles, which has said that it is ready.
fn member(job: &Job, role: &str, size: usize) -> Child {
    let mut child = role_command(role, size).stdout(Stdio::piped()).spawn_in(job).unwrap();
    hear(child.stdout.as_mut().unwrap());
    child
}

fn a_bombs_size() -> usize {
    scaled(600, 60)
}

/// Whether anybody is in the job of this member or below; asked of the kernel.
fn kernel_says_empty(group: &std::path::Path) -> bool {
    match fs::read_to_string(group.join("cgroup.events")) {
        Ok(events) => events.contains("populated 0"),
        Err(_) => true,
    }
}

/// The group of the job that a member is in.
fn job_group(member: &Child) -> std::path::PathBuf {
    group_of(member.id()).parent().unwrap().to_owned()
}

#[test]
fn one_terminate_ends_a_fork_bomb() {
    for _ in 0..scaled(5, 2) {
        let job = Job::new().unwrap();
        let group = job_group(&sleeper(&job));
        let _bomb = member(&job, "bomb", a_bombs_size());
        let active = job.accounting().unwrap().active_processes.unwrap();
        let start = Instant::now();
        job.terminate(1).unwrap();
        let end = end_of(&job);
        eprintln!("a bomb of {active} ended in {:?}", start.elapsed());
        assert!(matches!(end.reason, EndReason::Terminated { code: 1, .. }), "{end:?}");
        assert!(kernel_says_empty(&group));
        assert_eq!(job.members().unwrap(), []);
        assert!(active as usize > a_bombs_size() / 2, "{active} only");
    }
}

#[test]
fn a_stop_ends_a_fork_bomb() {
    let job = Job::new().unwrap();
    let group = job_group(&sleeper(&job));
    let _bomb = member(&job, "bomb", scaled(200, 40));
    job.begin_stop(15, Duration::from_millis(50)).unwrap();
    let end = end_of(&job);
    assert!(kernel_says_empty(&group));
    assert!(end.stop.killed > 0, "{end:?}");
}

#[test]
fn a_limit_ends_a_fork_bomb() {
    let time = Duration::from_millis(scaled(500, 4_000) as u64);
    let job = Job::builder().time(time).processes(20).create().unwrap();
    let group = job_group(&sleeper(&job));
    let _bomb = role_command("bomb", scaled(200, 60)).stdout(Stdio::null()).spawn_in(&job).unwrap();
    let end = end_of(&job);
    assert!(kernel_says_empty(&group));
    assert_eq!(end.reason, EndReason::Limit(jobobject::LimitKind::WallTime));
    // No word on `over_limit`: who hops is often gone before it can be ended for being one too many.
}

#[test]
fn a_frozen_fork_bomb_stands_still_and_dies() {
    let job = Job::new().unwrap();
    let sleeper = sleeper(&job);
    let group = job_group(&sleeper);
    let _bomb = member(&job, "bomb", scaled(300, 40));
    job.freeze().unwrap();
    until("frozen", || {
        fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1")
    });
    let sorted = || {
        let mut pids = job.members().unwrap();
        pids.sort_unstable();
        pids
    };
    let before = sorted();
    pause(Duration::from_millis(30));
    assert_eq!(sorted(), before);
    drop(job);
    until("empty", || kernel_says_empty(&group));
}

#[test]
fn a_dropped_fork_bomb_leaves_nothing() {
    let base = Base::new();
    for how in ["drop", "exit", "kill"] {
        let mut actor = Actor::inside(&base.0, "drops_a_bomb", how);
        actor.hear();
        if how == "kill" {
            actor.kill();
        } else {
            actor.finish();
        }
        base.expect_nothing_left(how);
    }
}

fn drops_a_bomb() {
    let job = Job::new().unwrap();
    let group = job_group(&sleeper(&job));
    member(&job, "bomb", a_bombs_size() / 2);
    say("ready");
    match &*arg() {
        "drop" => {
            drop(job);
            until("empty", || kernel_says_empty(&group));
        }
        "exit" => std::mem::forget(job),
        _ => until_let_go(),
    }
}

/// Inherits the orphans of its jobs, so that they are not left to init by the thousand: to be reaped is
/// slower than to die, and until then they fill the machine's pid table.
fn inherit_orphans() {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
}

/// Reaps them; the guardian, which lives, is not waited for.
fn bury_orphans() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

#[test]
fn thousands_of_members_end_by_one_call() {
    let base = Base::new();
    Actor::inside(&base.0, "ends_thousands", scaled(5_000, 1_000)).finish();
    base.expect_nothing_left("after thousands");
}

fn ends_thousands() {
    let size: usize = arg().parse().unwrap();
    inherit_orphans();
    let job = Job::new().unwrap();
    let mut herd = member(&job, "herd", size);
    let group = job_group(&herd);
    assert_eq!(job.members().unwrap().len(), size + 1);
    assert_eq!(job.accounting().unwrap().active_processes, Some(size as u32 + 1));
    let start = Instant::now();
    job.terminate(2).unwrap();
    let end = end_of(&job);
    eprintln!("{size} members ended in {:?}", start.elapsed());
    assert!(kernel_says_empty(&group));
    assert_eq!(signal_of(&mut herd), Some(KILL));
    assert_eq!(end.accounting.total_processes.count(), size as u64 + 1);
    bury_orphans();
}

#[test]
fn thousands_of_members_are_signaled_each() {
    let base = Base::new();
    Actor::inside(&base.0, "signals_thousands", scaled(2_000, 300)).finish();
    base.expect_nothing_left("after thousands");
}

fn signals_thousands() {
    let size: usize = arg().parse().unwrap();
    inherit_orphans();
    let job = Job::new().unwrap();
    let mut herd = member(&job, "herd", size);
    assert_eq!(job.signal(15).unwrap(), size as u32 + 1);
    assert_eq!(end_of(&job).reason, EndReason::Exited);
    assert_eq!(signal_of(&mut herd), Some(15));
    bury_orphans();
}

/// Starts `sleep 1000` again and again, from four threads, until told to stop or refused for good. Who was
/// started, and how often a terminating job refused.
fn spawn_until(job: &Job, done: &AtomicBool, most: usize) -> (Vec<Child>, u32) {
    std::thread::scope(|scope| {
        let spawner = || {
            let (mut born, mut refused) = (Vec::new(), 0);
            while !done.load(Relaxed) && born.len() < most {
                match Command::new("sleep").arg("1000").spawn_in(job) {
                    Ok(child) => born.push(child),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Terminating, "{error}");
                        refused += 1;
                        std::thread::yield_now();
                    }
                }
            }
            (born, refused)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(spawner)).collect();
        let all = threads.into_iter().map(|thread| thread.join().unwrap());
        all.fold((Vec::new(), 0), |(mut born, refused), (more, again)| {
            born.extend(more);
            (born, refused + again)
        })
    })
}

#[test]
fn spawns_in_flight_meet_terminate_close_and_freeze() {
    let base = Base::new();
    Actor::inside(&base.0, "spawns_in_flight", "").finish();
    base.expect_nothing_left("after spawns in flight");
}

fn spawns_in_flight() {
    let mut random = Random::new();
    // The engine's own thread and files come with the first use.
    drop(Job::builder().time(Duration::from_secs(1000)).create().map(|job| sleeper(&job)));
    let rounds = scaled(150, 12);
    let mut total = 0;
    for round in 0..rounds {
        let delays: Vec<_> = (0..8).map(|_| Duration::from_micros(random.below(3_000))).collect();
        total += within(&format!("round {round}"), move || match round % 3 {
            0 => terminate_while_spawning(&delays),
            1 => close_while_spawning(&delays),
            _ => freeze_while_spawning(&delays),
        });
    }
    eprintln!("{total} processes in {rounds} rounds");
    // One descriptor each for what is kept for speed; nothing grows with the rounds.
    let open = open_descriptors();
    assert!(open < 60, "{open} descriptors are open");
    assert!(threads() <= 2, "{} threads", threads());
    assert!(std::fs::read_dir("/proc/self/task").unwrap().count() <= 2);
}

fn expect_all_killed(mut born: Vec<Child>) -> usize {
    for child in &mut born {
        assert_eq!(signal_of(child), Some(KILL));
    }
    born.len()
}

fn terminate_while_spawning(delays: &[Duration]) -> usize {
    let job = Job::new().unwrap();
    let done = AtomicBool::new(false);
    let (born, _refused) = std::thread::scope(|scope| {
        let spawning = scope.spawn(|| spawn_until(&job, &done, 50));
        for (code, delay) in delays.iter().enumerate() {
            pause(*delay);
            job.terminate(code as u32).unwrap();
        }
        done.store(true, Relaxed);
        spawning.join().unwrap()
    });
    job.terminate(1).unwrap();
    end_of(&job);
    assert_eq!(job.members().unwrap(), []);
    expect_all_killed(born)
}

/// The handle of a job cannot be closed while somebody spawns by it; that of the job around it can.
fn close_while_spawning(delays: &[Duration]) -> usize {
    let outer = Job::new().unwrap();
    let inner = outer.child().unwrap();
    let done = AtomicBool::new(false);
    let (born, _refused) = std::thread::scope(|scope| {
        let spawning = scope.spawn(|| spawn_until(&inner, &done, 50));
        pause(delays[0]);
        let nested = outer.members().is_ok_and(|members| !members.is_empty());
        drop(outer);
        pause(delays[1]);
        done.store(true, Relaxed);
        let told = spawning.join().unwrap();
        if nested {
            // Whoever came before it is ended, and nobody comes after it.
            end_of(&inner);
            let error = sh("exit 0").spawn_in(&inner).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Terminating, "{error}");
        }
        told
    });
    drop(inner);
    expect_all_killed(born)
}

fn freeze_while_spawning(delays: &[Duration]) -> usize {
    let job = Job::new().unwrap();
    let done = AtomicBool::new(false);
    let (born, refused) = std::thread::scope(|scope| {
        let spawning = scope.spawn(|| spawn_until(&job, &done, 10));
        for delay in delays {
            job.freeze().unwrap();
            pause(*delay / 2);
            job.thaw().unwrap();
            pause(*delay / 2);
        }
        done.store(true, Relaxed);
        spawning.join().unwrap()
    });
    assert_eq!(refused, 0);
    let members = job.members().unwrap();
    assert!(born.iter().all(|child| members.contains(&child.id())), "somebody is missing");
    job.freeze().unwrap();
    drop(job);
    expect_all_killed(born)
}

#[test]
fn a_job_is_free_again_as_soon_as_the_wait_says_so() {
    for round in 0..scaled(300, 30) {
        let job = Job::new().unwrap();
        for _ in 0..3 {
            let child = Command::new("sleep").arg("1000").spawn_in(&job);
            let mut child = child.unwrap_or_else(|error| panic!("round {round}: {error}"));
            job.terminate(1).unwrap();
            end_of(&job);
            assert_eq!(signal_of(&mut child), Some(KILL));
        }
    }
}

#[test]
fn many_threads_terminate_one_job_at_once() {
    for _ in 0..scaled(50, 5) {
        let job = Job::new().unwrap();
        let mut members: Vec<_> =
            (0..4).map(|_| Command::new("sleep").arg("1000").spawn_in(&job).unwrap()).collect();
        std::thread::scope(|scope| {
            for code in 0..4 {
                let job = &job;
                scope.spawn(move || {
                    job.terminate(code).unwrap();
                    end_of(job);
                });
            }
        });
        assert!(members.iter_mut().all(|member| signal_of(member) == Some(KILL)));
        assert!(sh("exit 0").status_in(&job).unwrap().success());
    }
}

fn some_cycles() {
    for _ in 0..arg().parse().unwrap() {
        let job = Job::new().unwrap();
        let inner = job.child().unwrap();
        let mut members = [sleeper(&job), sleeper(&inner)];
        assert_eq!(job.members().unwrap().len(), 2);
        job.terminate(1).unwrap();
        end_of(&job);
        assert!(members.iter_mut().all(|member| signal_of(member) == Some(KILL)));
    }
}

#[test]
fn engines_of_many_processes_do_not_get_in_each_others_way() {
    let base = Base::new();
    let rounds = scaled(30, 5);
    let actors: Vec<_> = (0..4).map(|_| Actor::inside(&base.0, "some_cycles", rounds)).collect();
    // One of them is killed in the middle of it, and others come and sweep.
    let victim = Actor::inside(&base.0, "some_cycles", 1_000_000);
    pause(Duration::from_millis(20));
    victim.kill();
    actors.into_iter().for_each(Actor::finish);
    base.expect_nothing_left("four engines at once");
}

/// Runs the crate itself, so deep: at the deepest there is one who sleeps.
fn engine_inside() {
    let depth: u32 = arg().parse().unwrap();
    let job = Job::new().unwrap();
    let mut child =
        if depth == 0 { sleeper(&job) } else { member(&job, "engine_inside", depth as usize - 1) };
    println!("{}", child.id());
    // Until it is ended, from above or from below.
    status_of_patiently(&mut child);
    end_of(&job);
}

fn status_of_patiently(child: &mut Child) -> std::process::ExitStatus {
    child.wait().unwrap()
}

#[test]
fn an_engine_inside_a_job_nests_there_and_goes_with_it() {
    for how in ["terminate", "kill the engine", "drop"] {
        let job = Job::new().unwrap();
        let marker = sleeper(&job);
        let group = job_group(&marker);
        let mut inner = member(&job, "engine_inside", 2);
        // Three engines, each with a guardian, and the one who sleeps.
        until("all are there", || job.members().unwrap().len() == 8);
        let guardian = guardian_of(inner.id());
        assert!(job.contains(guardian).unwrap());
        let left = job.leftover().unwrap();
        assert_eq!(left.len(), 5, "a guardian is nobody's leftover: {left:?}");
        match how {
            "terminate" => {
                job.terminate(1).unwrap();
                end_of(&job);
            }
            "drop" => {
                drop(job);
            }
            _ => {
                // Its own guardian ends what it had, and those theirs.
                inner.kill().unwrap();
                until("its members and guardians are gone", || {
                    job.members().unwrap() == [marker.id()]
                });
                until("and their groups", || {
                    fs::read_dir(&group).unwrap().flatten().filter(|e| e.path().is_dir()).count()
                        == 1
                });
                assert_eq!(job.leftover().unwrap().len(), 1);
                drop(job);
            }
        }
        assert_eq!(signal_of(&mut inner), Some(KILL));
        until("empty", || kernel_says_empty(&group));
    }
}

#[test]
fn an_engine_inside_ends_without_a_trace_when_it_is_done() {
    let job = Job::new().unwrap();
    let marker = sleeper(&job);
    let group = job_group(&marker);
    for _ in 0..scaled(10, 2) {
        let mut inner = role_command("some_cycles", 2).spawn_in(&job).unwrap();
        assert!(status_of(&mut inner).success());
        until("its guardian is gone", || job.members().unwrap() == [marker.id()]);
    }
    let below = fs::read_dir(&group).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(below.count(), 1, "the leaf alone");
}

#[test]
fn nested_engines_die_with_the_outermost_owner() {
    let base = Base::new();
    for _ in 0..scaled(5, 2) {
        let mut actor = Actor::inside(&base.0, "owns_engines", "");
        actor.hear();
        actor.kill();
        base.expect_nothing_left("after an owner of engines");
    }
}

fn owns_engines() {
    let job = Job::new().unwrap();
    member(&job, "engine_inside", 2);
    say("ready");
    until_let_go();
}

#[test]
fn a_second_wait_sees_what_the_first_saw() {
    let job = Job::new().unwrap();
    let mut children: Vec<_> =
        (0..scaled(50, 10)).map(|_| sh("exit 3").spawn_in(&job).unwrap()).collect();
    let first = end_of(&job);
    let second = end_of(&job);
    assert_eq!((first.reason, first.leader), (second.reason, second.leader));
    for child in &mut children {
        assert!(readable(child.as_fd(), PATIENCE));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    assert_eq!(status_of_patiently(&mut children[0]).signal(), None);
}
