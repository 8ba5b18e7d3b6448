//! Where something runs out, is forbidden or missing, and members that make it hard.

// What a run has seen, and why something was skipped, is for whoever reads its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use jobobject::{Command, ErrorKind, Job, Stdio, Why};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

roles!(
    has_many_jobs,
    runs_out_of_descriptors,
    has_few_descriptors,
    runs_out_of_groups,
    on_a_read_only_mount,
    without_a_mount,
    is_nobody,
    without_clone3,
    cycles_without_leaks,
    slippery,
    traces,
    is_init,
    one_job,
    writes_its_own_groups
);

const KILL: i32 = 9;

fn descriptors_at_most(limit: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..getrlimit(Resource::Nofile) })
        .unwrap();
}

/// A job with a member that sleeps, started as cheaply as possible.
fn job_with_sleeper() -> jobobject::Result<(Job, jobobject::Child)> {
    let job = Job::new()?;
    let child = Command::new("sleep").arg("1000").spawn_in(&job)?;
    Ok((job, child))
}

// Many jobs

#[test]
fn ten_thousand_jobs_with_a_member_each() {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let jobs = scaled(10_000, 300);
    if most < 2 * jobs as u64 {
        return skip(format!("{most} descriptors are allowed, twice {jobs} are needed"));
    }
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "has_many_jobs", jobs);
    while actor.hear() != ["ready"] {}
    assert_eq!(base.everybody().len(), jobs + 2, "members, owner and guardian");
    actor.tell();
    while actor.hear() != ["closed"] {}
    actor.finish();
    base.expect_nothing_left("after many jobs");
}

fn has_many_jobs() {
    let count: usize = arg().parse().unwrap();
    descriptors_at_most(2 * count as u64);
    let start = std::time::Instant::now();
    let mut jobs = Vec::with_capacity(count);
    while jobs.len() < count {
        jobs.push(job_with_sleeper().unwrap());
        if jobs.len() % 250 == 0 {
            say(format!("{} jobs", jobs.len())); // Whoever listens knows that it goes on.
        }
    }
    let made = start.elapsed();
    for (job, child) in &jobs {
        assert_eq!(job.members().unwrap(), [child.id()]);
        assert_eq!(job.accounting().unwrap().active_processes, Some(1));
    }
    say("ready");
    until_let_go();
    let start = std::time::Instant::now();
    for (nth, (job, mut child)) in jobs.into_iter().enumerate() {
        drop(job);
        assert_eq!(signal_of(&mut child), Some(KILL));
        if nth % 250 == 0 {
            say(nth);
        }
    }
    say("closed");
    eprintln!("{count} jobs made in {made:?}, closed in {:?}", start.elapsed());
}

#[test]
fn too_many_jobs_for_the_descriptors_are_refused_and_nothing_is_lost() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "runs_out_of_descriptors", scaled(1_024, 256));
    let made: usize = actor.hear()[0].parse().unwrap();
    assert_eq!(base.everybody().len(), made + 2, "members, owner and guardian");
    actor.tell();
    actor.finish();
    base.expect_nothing_left("after too many jobs");
}

fn runs_out_of_descriptors() {
    let limit: u64 = arg().parse().unwrap();
    descriptors_at_most(limit);
    let mut jobs = Vec::new();
    let error = loop {
        match job_with_sleeper() {
            Ok(job) => jobs.push(job),
            Err(error) => break error,
        }
        assert!(jobs.len() < limit as usize, "{} jobs", jobs.len());
    };
    eprintln!("after {} jobs: {error}", jobs.len());
    assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
    assert!(error.hint().unwrap().contains("ulimit -n"), "{error}");
    assert!(jobs.len() as u64 > limit * 3 / 4, "{} jobs only", jobs.len());
    // What is there can be told and ended, as long as there are the few that the library holds back.
    for (job, child) in &jobs {
        assert_eq!(job.members().unwrap(), [child.id()]);
    }
    say(jobs.len());
    until_let_go();
    // Nobody lives on for want of a descriptor; and with a few places more it goes on.
    for (job, mut child) in jobs.drain(..10) {
        job.terminate(1).unwrap();
        assert_eq!(signal_of(&mut child), Some(KILL));
    }
    let again = job_with_sleeper().unwrap();
    assert!(again.0.contains_child(&again.1).unwrap());
    for (job, mut child) in jobs {
        drop(job);
        assert_eq!(signal_of(&mut child), Some(KILL));
    }
}

#[test]
fn a_job_that_lacks_descriptors_fails_clearly_whichever_it_is() {
    let base = Base::new();
    let mut outcomes = Vec::new();
    for spare in (0..30).step_by(scaled(1, 3)) {
        let mut actor = Actor::inside(&base.0, "has_few_descriptors", spare);
        outcomes.extend(actor.hear());
        actor.finish();
        base.expect_nothing_left(format!("with {spare} descriptors to spare"));
    }
    assert_eq!(outcomes[0], "refused");
    assert_eq!(outcomes.last().unwrap(), "done", "{outcomes:?}");
}

fn has_few_descriptors() {
    let spare: u64 = arg().parse().unwrap();
    let full = getrlimit(Resource::Nofile).current.unwrap();
    let used = open_descriptors() as u64;
    descriptors_at_most(used + spare);
    let mut outcome = "done";
    for _ in 0..2 {
        let job = Job::new().unwrap();
        let mut results = Vec::new();
        for _ in 0..3 {
            results.push(Command::new("sleep").arg("1000").spawn_in(&job));
        }
        let outsider_like = job.members();
        descriptors_at_most(full);
        let born = results.iter().flatten().count();
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
            assert!(error.hint().is_some(), "{error}");
            outcome = "refused";
        }
        if let Err(error) = outsider_like {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
        }
        assert_eq!(job.members().unwrap().len(), born, "nobody is there whom nobody was told of");
        // Enough descriptors again: all is well.
        let mut child = sh("exit 0").spawn_in(&job).unwrap();
        assert!(status_of(&mut child).success());
        descriptors_at_most(used + spare);
        drop(job);
        descriptors_at_most(full);
        for mut child in results.into_iter().flatten() {
            assert_eq!(signal_of(&mut child), Some(KILL));
        }
        descriptors_at_most(used + spare);
    }
    descriptors_at_most(full);
    say(outcome);
}

#[test]
fn a_job_that_finds_no_room_for_a_group_fails_clearly() {
    for file in ["cgroup.max.descendants", "cgroup.max.depth"] {
        let base = Base::new();
        for most in 0..8 {
            fs::write(base.0.join(file), most.to_string()).unwrap();
            let argument = base.0.join(file).display().to_string();
            Actor::inside(&base.0, "runs_out_of_groups", argument).finish();
            base.expect_nothing_left(format!("{file} {most}"));
        }
    }
}

fn runs_out_of_groups() {
    let job = Job::new().unwrap();
    let inner = job.child().unwrap();
    let innermost = inner.child().unwrap();
    let jobs = [&job, &inner, &innermost, &Job::new().unwrap()];
    let mut born = Vec::new();
    for job in jobs {
        match Command::new("sleep").arg("1000").spawn_in(job) {
            Ok(child) => born.push(child),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
                assert!(error.hint().unwrap().contains("cgroup.max"), "{error}");
            }
        }
    }
    for job in jobs {
        job.terminate(1).unwrap();
        end_of(job);
    }
    born.iter_mut().for_each(|child| assert_eq!(signal_of(child), Some(KILL)));
    // With room again all of it works, on the very same jobs.
    fs::write(arg(), "max").unwrap();
    for job in jobs {
        assert!(sh("exit 0").status_in(job).unwrap().success());
    }
}

// Processes that cannot be assigned

#[test]
fn pids_of_nobody_are_refused() {
    let job = Job::new().unwrap();
    for pid in [0, u32::MAX, i32::MAX as u32, i32::MAX as u32 + 1, 4_194_305] {
        let error = job.assign(pid).unwrap_err();
        assert_eq!(
            (error.kind(), error.win32_code()),
            (ErrorKind::ProcessEnded, 5),
            "{pid}: {error}"
        );
        assert_eq!(job.contains(pid).unwrap_err().kind(), ErrorKind::ProcessEnded, "{pid}");
    }
    // A thread is not a process.
    let tid = std::thread::spawn(|| rustix::thread::gettid().as_raw_pid() as u32).join().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (said, tids) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        said.send(rustix::thread::gettid().as_raw_pid() as u32).unwrap();
        let _ = receiver.recv();
    });
    for tid in [tid, tids.recv().unwrap()] {
        assert_eq!(job.assign(tid).unwrap_err().kind(), ErrorKind::ProcessEnded, "thread {tid}");
    }
    drop(sender);
    thread.join().unwrap();
}

#[test]
fn zombies_init_and_kernel_threads_are_refused() {
    let job = Job::new().unwrap();
    let mut zombie = std::process::Command::new("true").spawn().unwrap();
    assert!(ends(pidfd(zombie.id())));
    assert_eq!(job.assign(zombie.id()).unwrap_err().kind(), ErrorKind::ProcessEnded);
    zombie.wait().unwrap();
    let error = job.assign(1).unwrap_err();
    assert_eq!((error.kind(), error.win32_code()), (ErrorKind::PermissionDenied, 5), "{error}");
    let kernels = processes().find(|pid| {
        fs::read_link(format!("/proc/{pid}/exe")).is_err()
            && state(*pid).is_some_and(|s| s != b'Z')
            && *pid != 1
            && fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
    });
    match kernels {
        Some(pid) => {
            let error = job.assign(pid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{pid}: {error}");
            assert!(error.to_string().contains("kernel"), "{error}");
        }
        None => skip("no kernel thread can be seen here"),
    }
    assert_eq!(job.members().unwrap(), []);
}

#[test]
fn a_process_that_ends_meanwhile_is_in_or_refused() {
    let job = Job::new().unwrap();
    let keeper = sleeper(&job);
    let (mut inside, mut refused) = (0, 0);
    for round in 0..scaled(300, 30) {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        match job.assign(child.id()) {
            Ok(()) => inside += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ProcessEnded, "{error}");
                refused += 1;
            }
        }
        child.wait().unwrap();
    }
    eprintln!("{inside} were in, {refused} refused");
    until("the dead are gone", || job.members().unwrap() == [keeper.id()]);
    assert_eq!(job.accounting().unwrap().active_processes, Some(1));
}

// Places

fn expect_refusal(kinds: &[ErrorKind], hint: &str) {
    let job = Job::new().unwrap();
    for _ in 0..3 {
        let error = sh("exit 0").spawn_in(&job).unwrap_err();
        eprintln!("{error}: {:?}", error.hint());
        assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
        assert!(
            error.hint().is_some_and(|text| text.contains(hint)),
            "{error}: {:?}",
            error.hint()
        );
        let error = job.assign(std::process::id()).unwrap_err();
        assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
    }
    assert_eq!(guardians_of(std::process::id()), [0; 0], "a guardian of nothing");
    assert_eq!(job.wait().unwrap().accounting.total_processes.count(), 0);
    drop(job);
}

fn enter_mounts_of_our_own() {
    // SAFETY: there is one thread, and nothing depends on the directory being shared with another.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

#[test]
fn a_read_only_hierarchy_is_told_with_a_hint() {
    let base = Base::new();
    Actor::inside(&base.0, "on_a_read_only_mount", "").finish();
    base.expect_nothing_left("a read-only hierarchy");
}

fn on_a_read_only_mount() {
    enter_mounts_of_our_own();
    let point = mount();
    rustix::mount::mount_remount(&point, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    expect_refusal(&[ErrorKind::PermissionDenied], "read-only");
}

#[test]
fn a_missing_hierarchy_is_told_with_a_hint() {
    let base = Base::new();
    Actor::inside(&base.0, "without_a_mount", "").finish();
    base.expect_nothing_left("no hierarchy");
}

fn without_a_mount() {
    enter_mounts_of_our_own();
    let point = mount();
    rustix::mount::unmount(&point, UnmountFlags::DETACH).unwrap();
    expect_refusal(&[ErrorKind::Unsupported], "mount");
}

fn become_nobody() {
    let (user, group) =
        (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
}

#[test]
fn a_user_without_permission_is_told_what_to_do() {
    let base = Base::new();
    Actor::inside(&base.0, "is_nobody", "").finish();
    base.expect_nothing_left("nobody's");
}

fn is_nobody() {
    become_nobody();
    expect_refusal(&[ErrorKind::PermissionDenied], "systemd-run");
}

#[test]
fn a_user_with_a_group_of_its_own_needs_no_more() {
    let base = Base::new();
    let owned = base.0.join("delegated");
    fs::create_dir(&owned).unwrap();
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(owned.join(file), Some(65534), Some(65534)).unwrap();
    }
    let mut actor = Actor::inside(&owned, "writes_its_own_groups", "");
    let members: Vec<_> = actor.hear_numbers().into_iter().map(pidfd).collect();
    actor.kill();
    assert!(members.iter().all(ends));
    until("the guardian is gone", || base.everybody().is_empty());
    assert_eq!(base.groups(), std::slice::from_ref(&owned));
    fs::remove_dir(&owned).unwrap();
}

fn writes_its_own_groups() {
    become_nobody();
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    let inner = job.child().unwrap();
    sleeper(&inner);
    inner.terminate(1).unwrap();
    end_of(&inner);
    let mut free = sh("exec sleep 1000").spawn().unwrap();
    job.assign_child(&free).unwrap();
    free.kill().unwrap();
    status_of(&mut free);
    member.kill().unwrap();
    status_of(&mut member);
    end_of(&job);
    let kept = (sleeper(&job), sleeper(&inner));
    say(format!("{} {}", kept.0.id(), kept.1.id()));
    until_let_go();
}

/// Lets the system call fail with `errno` in this thread and its children, for ever.
fn refuse(call: libc::c_long, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is live and as long as it says; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn where_clone3_is_refused_members_join_by_themselves() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let base = Base::new();
        let mut actor = Actor::inside(&base.0, "without_clone3", errno);
        actor.hear();
        actor.kill();
        base.expect_nothing_left("without clone3");
    }
}

fn without_clone3() {
    refuse(libc::SYS_clone3, arg().parse().unwrap());
    let job = Job::new().unwrap();
    for _ in 0..2 {
        let output = sh("cat /proc/self/cgroup").output_in(&job).unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("/job-"));
        let mut member = sleeper(&job);
        assert_eq!(job.members().unwrap(), [member.id()]);
        let error = Command::new("/nowhere").spawn_in(&job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        job.terminate(1).unwrap();
        assert_eq!(signal_of(&mut member), Some(KILL));
        end_of(&job);
    }
    let inner = job.child().unwrap();
    let kept = sleeper(&inner);
    assert!(job.contains_child(&kept).unwrap());
    // Frozen births have their own way.
    inner.freeze().unwrap();
    let mut later = sh("exit 3").spawn_in(&inner).unwrap();
    assert_eq!(later.try_wait().unwrap(), None);
    inner.thaw().unwrap();
    assert_eq!(status_of(&mut later).code(), Some(3));
    say("ready");
    until_let_go();
}

#[test]
fn a_container_whose_init_is_the_owner_leaves_nothing_that_the_next_does_not_remove() {
    let base = Base::new();
    let mut actor = Actor::inside(&base.0, "is_init", "");
    actor.hear();
    actor.kill();
    base.expect_nobody("after the end of an init");
    // The guardian died with its namespace, so somebody else has to clean up.
    Actor::inside(&base.0, "one_job", "").finish();
    base.expect_nothing_left("after the next owner");
}

fn is_init() {
    // SAFETY: there is one thread.
    let unshared = unsafe {
        rustix::thread::unshare_unsafe(
            rustix::thread::UnshareFlags::NEWPID | rustix::thread::UnshareFlags::NEWNS,
        )
    };
    unshared.unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let init = fork(|| {
        // It ends with the one that the test kills.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .unwrap();
        rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), None).unwrap();
        assert_eq!(std::process::id(), 1);
        let job = Job::new().unwrap();
        let member = sleeper(&job);
        assert_eq!(job.members().unwrap(), [member.id()]);
        assert_eq!(job.leftover().unwrap().len(), 1);
        let mut orphaned = ready(&job, "(exec setsid sleep 1000 >/dev/null 2>&1) & echo $!");
        status_of(&mut orphaned);
        job.terminate(1).unwrap();
        end_of(&job);
        let inner = job.child().unwrap();
        let _kept = [sleeper(&job), sleeper(&inner)];
        assert_eq!(job.members().unwrap().len(), 2);
        say("ready");
        loop {
            std::thread::park();
        }
    });
    reap(init);
}

fn one_job() {
    assert!(sh("exit 0").status_in(&Job::new().unwrap()).unwrap().success());
}

#[test]
fn nothing_grows_with_the_number_of_jobs() {
    let base = Base::new();
    Actor::inside(&base.0, "cycles_without_leaks", scaled(1_000, 60)).finish();
    base.expect_nothing_left("after many cycles");
}

/// The resident pages of this process.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse().unwrap()
}

fn cycles_without_leaks() {
    let count: usize = arg().parse().unwrap();
    let plain = || {
        let job = Job::new().unwrap();
        assert!(Command::new("true").status_in(&job).unwrap().success());
        end_of(&job);
        assert!(job.accounting().is_ok() && job.members().unwrap().is_empty());
    };
    let killing = || {
        let job = Job::new().unwrap();
        let inner = job.child().unwrap();
        let mut members: Vec<_> = [&job, &inner]
            .map(|job| Command::new("sleep").arg("1000").spawn_in(job).unwrap())
            .into_iter()
            .collect();
        assert!(Command::new("/nowhere").spawn_in(&job).is_err());
        job.terminate(1).unwrap();
        end_of(&job);
        members.push(Command::new("sleep").arg("1000").spawn_in(&job).unwrap());
        drop((job, inner));
        assert!(members.iter_mut().all(|member| signal_of(member) == Some(KILL)));
    };
    for _ in 0..20 {
        plain();
    }
    assert_eq!(threads(), 1, "there is nothing to watch");
    let open = open_descriptors();
    for _ in 0..count {
        plain();
    }
    assert_eq!(threads(), 1, "there is nothing to watch");
    assert!(open_descriptors() <= open, "{} descriptors, {open} before", open_descriptors());
    for _ in 0..20 {
        killing();
    }
    let (open, used) = (open_descriptors(), resident());
    for _ in 0..count / 2 {
        killing();
    }
    // A group that is being removed may have its files open for a moment more.
    until("the descriptors are closed", || open_descriptors() <= open);
    assert!(resident() < used + 256, "{} pages, {used} before", resident());
    assert!(threads() <= 2, "{}", threads());
}

// Members that make it hard

/// Closes all descriptors, calls itself something else, forks twice into a session of its own, ignores
/// what can be ignored and stops.
fn slippery() {
    println!("ready");
    for signal in [1, 2, 3, 13, 15] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for _ in 0..2 {
        // SAFETY: there is one thread; the parent ends without its handlers.
        unsafe {
            if libc::fork() != 0 {
                libc::_exit(0);
            }
            libc::setsid();
        }
    }
    rustix::thread::set_name(c"kworker/0:1) R 1").unwrap();
    // SAFETY: nothing is used afterwards that was open.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    loop {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
            .unwrap();
    }
}

#[test]
fn a_slippery_member_is_found_and_ended() {
    let job = Job::new().unwrap();
    let mut leader = role_command("slippery", "").stdout(Stdio::piped()).spawn_in(&job).unwrap();
    hear(leader.stdout.as_mut().unwrap());
    assert!(status_of(&mut leader).success());
    // The ones between have ended, and the last has stopped.
    until(
        "it is alone and has stopped",
        || matches!(job.members().unwrap()[..], [pid] if state(pid) == Some(b'T')),
    );
    let left = job.leftover().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].command.starts_with("kworker"), "{left:?}");
    assert!(job.contains(left[0].pid).unwrap());
    let end = {
        let job = job.clone();
        within("a stop", move || job.stop(15, Duration::from_millis(50)).unwrap())
    };
    assert_eq!((end.stop.signaled, end.stop.killed), (1, 1), "{end:?}");
    assert!(!alive(left[0].pid));
}

/// Traces the process that it is told, and stops.
fn traces() {
    let pid: i32 = arg().parse().unwrap();
    let options = libc::PTRACE_O_TRACEEXIT;
    // SAFETY: to be traced does nothing to our memory.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, options) };
    assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
    say("ready");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
        .unwrap();
    until_let_go();
}

#[test]
fn a_stopped_tracer_outside_is_named() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    let mut tracer = Actor::new("traces", member.id());
    tracer.hear();
    until_state(tracer.pid(), b'T');
    job.terminate(1).unwrap();
    assert_eq!(job.wait_timeout(Duration::from_millis(100)).unwrap(), None);
    let obstacles = job.obstacles().unwrap();
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert_eq!(obstacles[0].pid, member.id());
    let Why::Traced { pid, stopped, .. } = &obstacles[0].why else { panic!("{obstacles:?}") };
    assert_eq!((*pid, *stopped), (tracer.pid(), true));
    assert_eq!(sh("exit 0").spawn_in(&job).unwrap_err().kind(), ErrorKind::Terminating);
    tracer.kill();
    assert_eq!(signal_of(&mut member), Some(KILL));
    end_of(&job);
    assert!(sh("exit 0").status_in(&job).unwrap().success());
}

#[test]
fn a_member_frozen_by_somebody_else_is_ended() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    let leaf = group_of(member.id());
    fs::write(leaf.join("cgroup.freeze"), "1").unwrap();
    until("frozen", || {
        fs::read_to_string(leaf.join("cgroup.events")).unwrap().contains("frozen 1")
    });
    job.terminate(1).unwrap();
    assert_eq!(signal_of(&mut member), Some(KILL));
    end_of(&job);
    // And a stop asks in vain, then kills.
    let mut member = sleeper(&job);
    fs::write(group_of(member.id()).join("cgroup.freeze"), "1").unwrap();
    let end = {
        let job = job.clone();
        within("a stop", move || job.stop(15, Duration::from_millis(50)).unwrap())
    };
    assert_eq!(end.stop.signaled, 1, "{end:?}");
    assert!(signal_of(&mut member).is_some());
}

#[test]
fn a_member_in_a_frozen_group_of_version_1_is_named() {
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        return skip("there is no version 1 freezer");
    }
    struct Frozen(PathBuf);
    impl Drop for Frozen {
        fn drop(&mut self) {
            let _ = fs::write(self.0.join("freezer.state"), "THAWED");
            until("the group is removed", || fs::remove_dir(&self.0).is_ok());
        }
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.split_once(":freezer:/").map(|(_, path)| path));
    let path = freezer.join(own.unwrap()).join(format!("test-{}", std::process::id()));
    fs::create_dir(&path).unwrap();
    let frozen = Frozen(path);
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    fs::write(frozen.0.join("cgroup.procs"), member.id().to_string()).unwrap();
    fs::write(frozen.0.join("freezer.state"), "FROZEN").unwrap();
    let state = || fs::read_to_string(frozen.0.join("freezer.state")).unwrap();
    until("frozen", || state().trim() == "FROZEN");
    job.terminate(1).unwrap();
    assert_eq!(job.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    let obstacles = job.obstacles().unwrap();
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert_eq!((obstacles[0].pid, &obstacles[0].why), (member.id(), &Why::Frozen));
    drop(frozen);
    assert_eq!(signal_of(&mut member), Some(KILL));
    end_of(&job);
}

#[test]
fn groups_that_members_make_inside_go_with_the_job() {
    let job = Job::new().unwrap();
    let leaf = group_of(sleeper(&job).id());
    let script = format!(
        "mkdir -p {0}/a/b && echo $$ >{0}/a/b/cgroup.procs && echo ready && exec sleep 1000",
        leaf.display()
    );
    let mut member = ready(&job, &script);
    assert!(group_of(member.id()).ends_with("a/b"));
    assert!(job.contains_child(&member).unwrap());
    assert!(job.members().unwrap().contains(&member.id()));
    assert_eq!(job.accounting().unwrap().active_processes, Some(2));
    drop(job);
    assert_eq!(signal_of(&mut member), Some(KILL));
    until("the groups are gone", || !leaf.parent().unwrap().exists());
}

#[test]
fn a_group_that_somebody_removes_is_no_disaster() {
    let job = Job::new().unwrap();
    let mut member = sleeper(&job);
    let leaf = group_of(member.id());
    member.kill().unwrap();
    status_of(&mut member);
    end_of(&job);
    until("removed", || fs::remove_dir(&leaf).is_ok() || !leaf.exists());
    let _ = fs::remove_dir(leaf.parent().unwrap());
    // Whatever the answer is, it is one, and the next job has no part in it.
    let spawned = sh("exit 0").spawn_in(&job);
    let _ = (job.members(), job.accounting(), job.terminate(1), job.signal(15));
    drop((spawned, job));
    let next = Job::new().unwrap();
    let mut member = sleeper(&next);
    drop(next);
    assert_eq!(signal_of(&mut member), Some(KILL));
    assert!(readable(member.as_fd(), PATIENCE));
    assert_eq!(member.wait().unwrap().signal(), Some(KILL));
}
