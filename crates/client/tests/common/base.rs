//! A group of the test's own, for owners to live in: their roots, members and guardians are all below
//! it, so that the kernel tells when nothing is left.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::PATIENCE;

/// Where the cgroup2 hierarchy is mounted.
pub fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    line.split(' ').nth(4).unwrap().into()
}

/// The directory of the group that a process is in.
pub fn group_of(pid: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    mount().join(own)
}

/// The directory of the group that this process is in.
pub fn own_group() -> PathBuf {
    group_of(std::process::id())
}

/// A fresh group below our own; removed, with everybody in it, when dropped.
pub struct Base(pub PathBuf);

impl Base {
    pub fn new() -> Self {
        Self::below(&own_group())
    }

    pub fn below(group: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = group.join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Whoever is in the group itself.
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// The groups below it, at any depth.
    pub fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut next = vec![self.0.clone()];
        while let Some(group) = next.pop() {
            let entries = fs::read_dir(&group).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<_> = below.map(|entry| entry.path()).collect();
            found.extend_from_slice(&below);
            next.extend(below);
        }
        found
    }

    /// Everybody in it or below.
    pub fn everybody(&self) -> Vec<u32> {
        let groups = self.groups().into_iter().chain([self.0.clone()]);
        let lists = groups.filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
        lists
            .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect()
    }

    /// Waits until nobody is in it or below: owner, members and guardian are gone. A guardian is the
    /// last to go, so then there is no group left either.
    pub fn expect_nothing_left(&self, when: impl std::fmt::Display) {
        self.expect_nobody(&when);
        assert_eq!(self.groups(), [] as [PathBuf; 0], "{when}: groups are left behind");
    }

    /// Waits until nobody is in it or below.
    pub fn expect_nobody(&self, when: impl std::fmt::Display) {
        let events = fs::File::open(self.0.join("cgroup.events")).unwrap();
        let start = Instant::now();
        loop {
            let mut text = [0; 64];
            let length = rustix::io::pread(&events, &mut text, 0).unwrap();
            if text[..length].windows(11).any(|word| word == b"populated 0") {
                return;
            }
            if start.elapsed() > PATIENCE {
                let left: Vec<_> =
                    self.everybody().into_iter().map(|pid| (pid, describe(pid))).collect();
                panic!("{when}: somebody is left: {left:?} in {:?}", self.groups());
            }
            let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        }
    }
}

fn describe(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let state = super::state(pid).map_or('?', char::from);
    format!("{} {state} {}", read("comm").trim(), read("cgroup").lines().last().unwrap_or_default())
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let mut groups = self.groups();
            groups.sort_by_key(|group| std::cmp::Reverse(group.as_os_str().len()));
            for group in groups.iter().chain([&self.0]) {
                let _ = fs::remove_dir(group);
            }
            if !self.0.exists() {
                return;
            }
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
        }
        eprintln!("{} is left behind: {:?}", self.0.display(), self.everybody());
    }
}
