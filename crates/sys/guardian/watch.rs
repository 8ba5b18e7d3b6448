//! What a guardian does: it waits for the end of its owner, and leaves nothing of him behind.
//!
//! When the owner is gone, the flagged jobs are killed until they are empty, the members of the others
//! are waited for, and every group below the owner's roots is removed. Invariants:
//! - nothing outside the roots is touched, and no process is killed that is not in a flagged group;
//! - everything below a root is the owner's, the roots of engines that ran inside his jobs included;
//! - a dismissed guardian touches nothing at all.
//!
//! The file belongs to two programs: the guardian itself, without `std`, and the library, which runs it
//! in a forked child where a memory file may not be executed. No heap, no lock, no panic.

#![allow(dead_code, reason = "each of the two programs that share this file uses a part of it")]

use core::ffi::CStr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::layout::{DISMISSED, Entry, KILL, Layout, ROOT_BIT, ROOT_PATH, ROOTS, SLOTS, USED};
use crate::raw::{self, POLLIN, POLLPRI, PollFd, errno};

/// Where a guardian finds what it needs.
pub(crate) const TABLE_FD: i32 = 3;
/// The root directory of the cgroup mount.
pub(crate) const MOUNT_FD: i32 = 4;
/// The owner, as a pidfd.
pub(crate) const OWNER_FD: i32 = 5;
/// The read end of a pipe whose write end the owner holds: it hangs up when he executes something else.
pub(crate) const PIPE_FD: i32 = 6;
/// The guardian's own program, open until it runs.
pub(crate) const IMAGE_FD: i32 = 7;

/// The longest path of a group that is looked at: a root, and some 500 nested jobs.
const PATH: usize = 4096;
/// How deep below a root groups are removed: the walk holds one descriptor and one buffer per level.
const DEPTH: usize = 128;

/// Leaves the owner's descriptors, session and directory; `fds` (table, mount, owner, pipe, image) get
/// their fixed numbers. Runs in the newborn guardian, before exec.
pub(crate) fn settle(fds: [i32; 5]) -> Result<(), i32> {
    // The sources may lie anywhere, in each other's way too: all of them go up first.
    let mut moved = [-1; 5];
    for (to, from) in moved.iter_mut().zip(fds) {
        if from >= 0 {
            *to = raw::dup_above(from, IMAGE_FD + 1)?;
        }
    }
    for (number, from) in (TABLE_FD..).zip(moved) {
        let flags = if number == IMAGE_FD { raw::O_CLOEXEC } else { 0 };
        if from >= 0 {
            raw::dup3(from, number, flags)?;
        }
    }
    raw::close_range(0, TABLE_FD - 1);
    let [.., image] = moved;
    raw::close_range(if image < 0 { IMAGE_FD } else { IMAGE_FD + 1 }, i32::MAX);
    // A session of its own: whatever is sent to the owner's process group, SIGKILL above all, stays there.
    raw::setsid()?;
    raw::chdir(c"/")
}

/// The whole life of a guardian; returns its exit status.
pub(crate) fn watch(table: &Layout) -> i32 {
    raw::set_name(c"job-guardian");
    // It survives whatever can be survived.
    raw::set_mask(!0);
    table.ready.store(1, Release);
    raw::futex_wake(&table.ready);
    let mut fds = [
        PollFd { fd: OWNER_FD, events: POLLIN, revents: 0 },
        PollFd { fd: PIPE_FD, events: POLLIN, revents: 0 },
    ];
    // An error other than an interruption (there is none to be expected) must not end the watch, nor
    // turn it into a busy loop: then the owner is looked at once a second.
    while !matches!(raw::poll(&mut fds, None), Ok(1..)) {
        let _ = raw::poll(&mut [], Some(1000));
    }
    if table.state.load(Acquire) == DISMISSED {
        return 0;
    }
    clean_up(table)
}

/// Kills, waits and removes until all roots are gone.
///
/// Not inlined: what it needs of the stack would be touched, and kept, by a guardian that only waits.
#[inline(never)]
fn clean_up(table: &Layout) -> i32 {
    let mut pause = Pause::default();
    loop {
        let alive = kill_flagged(table);
        // Events are opened before the attempt to remove, so that a change after it is not missed.
        let mut events = [PollFd { fd: -1, events: POLLPRI, revents: 0 }; ROOTS];
        let left = look(table, &mut events);
        let removed = remove_roots(table);
        if !removed {
            let _ = raw::poll(&mut events, Some(pause.next(alive, left)));
        }
        for event in events {
            if event.fd >= 0 {
                raw::close(event.fd);
            }
        }
        if removed {
            return 0;
        }
        if pause.hopeless() {
            return 1;
        }
    }
}

/// How long to wait for an event before the next attempt.
#[derive(Default)]
struct Pause {
    ms: u32,
    kind: Kind,
    /// Attempts for the same reason.
    rounds: u32,
    /// Attempts with nobody left in any group, and yet a directory that could not be removed.
    stuck: u32,
}

/// What is waited for.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Killed members to be gone, or empty groups to become removable (EBUSY for a moment): soon.
    #[default]
    Soon,
    /// Members that nobody kills: whenever they like.
    Members,
}

impl Pause {
    /// Doubles from attempt to attempt, within bounds that depend on what is waited for.
    fn next(&mut self, flagged_alive: bool, populated: bool) -> u32 {
        let kind = if populated && !flagged_alive { Kind::Members } else { Kind::Soon };
        if kind != self.kind {
            self.ms = 0;
            self.kind = kind;
            self.rounds = 0;
        }
        self.rounds = self.rounds.saturating_add(1);
        self.stuck = if populated { 0 } else { self.stuck.saturating_add(1) };
        let (least, most) = match kind {
            // A member that waits for a device, or is held by a tracer, dies when that lets go of it.
            Kind::Soon if self.rounds > 100 => (50, 1000),
            Kind::Soon => (1, 50),
            Kind::Members => (1000, 30_000),
        };
        // Not `clamp`: it may panic, and what it would say is larger than the rest of the program.
        self.ms = self.ms.saturating_mul(2).max(least).min(most);
        self.ms
    }

    /// A minute or more without a member and without success: somebody else's rights are in the way.
    fn hopeless(&self) -> bool {
        self.stuck > 200
    }
}

/// Opens `cgroup.events` of every root that is there, to be polled; whether anybody is in one of them.
fn look(table: &Layout, events: &mut [PollFd; ROOTS]) -> bool {
    let mut populated = false;
    for (root, event) in (0..roots(table)).zip(events.iter_mut()) {
        let mut path = Path::new();
        if !(path.root(table, root) && path.enter(b"cgroup.events")) {
            continue;
        }
        let Some(Ok(fd)) = path.as_c_str().map(|path| raw::openat(MOUNT_FD, path, raw::O_RDONLY))
        else {
            continue;
        };
        // Reading arms the poll: it reports what changes after the last read.
        let mut text = [0; 128];
        let len = raw::read(fd, &mut text).unwrap_or(0);
        let text = text.get(..len).unwrap_or(&[]);
        populated |= text.windows(11).any(|word| word == b"populated 1");
        event.fd = fd;
    }
    populated
}

/// The number of roots; never more than there is room for.
fn roots(table: &Layout) -> usize {
    (table.roots.load(Acquire) as usize).min(ROOTS)
}

/// Kills the members of every flagged job. Whether one of those groups was still there.
fn kill_flagged(table: &Layout) -> bool {
    let mut alive = false;
    let high_water = (table.high_water.load(Acquire) as usize).min(SLOTS);
    for (slot, entry) in table.entries.iter().enumerate().take(high_water) {
        if entry.flags.load(Acquire) & (USED | KILL) != USED | KILL {
            continue;
        }
        let mut path = Path::new();
        if path.job(table, slot) {
            alive |= kill(&mut path);
        }
    }
    alive
}

/// Kills everybody in one group and below it; whether the group is there.
fn kill(path: &mut Path) -> bool {
    match path.write(b"cgroup.kill", b"1") {
        Ok(()) => return true,
        Err(errno::ENOENT) => {}
        // Its file is there and refuses: the next attempt may do better.
        Err(_) => return true,
    }
    // Linux before 5.14 has no such file, or there is no such group. Frozen members cannot fork away
    // from the list of them; killing does not need the thaw, the thaw is for what was missed.
    if path.write(b"cgroup.freeze", b"1").is_err() {
        return false;
    }
    if let Some(Ok(dir)) = path.as_c_str().map(open_dir) {
        kill_below(dir, DEPTH);
        raw::close(dir);
    }
    let _ = path.write(b"cgroup.freeze", b"0");
    true
}

fn open_dir(path: &CStr) -> Result<i32, i32> {
    raw::openat(MOUNT_FD, path, raw::O_RDONLY | raw::O_DIRECTORY | raw::O_NOFOLLOW)
}

/// Kills the members of a group and of the groups in it, one by one.
fn kill_below(dir: i32, depth: usize) {
    if let Ok(procs) = raw::openat(dir, c"cgroup.procs", raw::O_RDONLY) {
        let (mut buf, mut pid) = ([0; 512], 0_i32);
        while let Ok(len @ 1..) = raw::read(procs, &mut buf) {
            for byte in buf.iter().take(len) {
                match byte {
                    b'0'..=b'9' => {
                        pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
                    }
                    // The list can contain 0: a process that is just being reaped. `sigkill` knows.
                    _ => {
                        raw::sigkill(pid);
                        pid = 0;
                    }
                }
            }
        }
        raw::close(procs);
    }
    each_child(dir, depth, &mut |child, _, depth| kill_below(child, depth));
}

/// Removes every root and all groups in it, as far as nobody is in them. Whether all are gone.
fn remove_roots(table: &Layout) -> bool {
    let mut gone = true;
    for root in 0..roots(table) {
        let mut path = Path::new();
        if !path.root(table, root) {
            continue;
        }
        let Some(path) = path.as_c_str() else { continue };
        match open_dir(path) {
            Ok(dir) => {
                remove_below(dir, DEPTH);
                raw::close(dir);
                gone &= matches!(raw::rmdirat(MOUNT_FD, path), Ok(()) | Err(errno::ENOENT));
            }
            Err(errno::ENOENT) => {}
            Err(_) => gone = false,
        }
    }
    gone
}

/// Removes the groups in a group, the deepest first.
fn remove_below(dir: i32, depth: usize) {
    each_child(dir, depth, &mut |child, name, depth| {
        remove_below(child, depth);
        // EBUSY: somebody is in it, now or until a moment ago. The next round tries again.
        let _ = raw::rmdirat(dir, name);
    });
}

/// Calls `visit` with each directory in `dir`: open, its name, and the depth that is left.
fn each_child(dir: i32, depth: usize, visit: &mut dyn FnMut(i32, &CStr, usize)) {
    const NAME: usize = 19; // In a directory entry: inode 8, offset 8, length 2, type 1, then the name.
    const DT_DIR: u8 = 4;
    let Some(depth) = depth.checked_sub(1) else { return };
    let mut buf = [0; 1024];
    while let Ok(len @ 1..) = raw::getdents(dir, &mut buf) {
        let mut rest = buf.get(..len).unwrap_or(&[]);
        while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, kind, ..] = rest {
            let size = usize::from(u16::from_ne_bytes([*low, *high]));
            let name = rest.get(NAME..size).unwrap_or(&[]);
            if *kind == DT_DIR
                && let Ok(name) = CStr::from_bytes_until_nul(name)
                && !matches!(name.to_bytes(), b"." | b"..")
                && let Ok(child) =
                    raw::openat(dir, name, raw::O_RDONLY | raw::O_DIRECTORY | raw::O_NOFOLLOW)
            {
                visit(child, name, depth);
                raw::close(child);
            }
            rest = if size == 0 { &[] } else { rest.get(size..).unwrap_or(&[]) };
        }
    }
}

/// The path of a group, seen from the mount; always NUL-terminated.
struct Path {
    bytes: [u8; PATH],
    /// Where the NUL is.
    len: usize,
}

impl Path {
    fn new() -> Self {
        Self { bytes: [0; PATH], len: 0 }
    }

    /// The path, if it leads anywhere: an empty one would be the mount itself.
    fn as_c_str(&self) -> Option<&CStr> {
        if self.len == 0 {
            return None;
        }
        CStr::from_bytes_until_nul(&self.bytes).ok()
    }

    /// Appends `/name`; whether there was room.
    fn enter(&mut self, name: &[u8]) -> bool {
        let slash = usize::from(self.len > 0);
        let end = self.len + slash + name.len();
        let Some(room) = self.bytes.get_mut(self.len..=end) else { return false };
        let mut bytes = b"/".iter().take(slash).chain(name).chain(b"\0");
        for to in room {
            *to = *bytes.next().unwrap_or(&0);
        }
        self.len = end;
        true
    }

    /// Cuts the path back to `len`.
    fn leave(&mut self, len: usize) {
        if let Some(byte) = self.bytes.get_mut(len) {
            *byte = 0;
            self.len = len;
        }
    }

    /// The path of a root; whether there is one.
    fn root(&mut self, table: &Layout, root: usize) -> bool {
        let Some(path) = table.paths.get(root) else { return false };
        for (to, from) in self.bytes.iter_mut().zip(path) {
            match from.load(Relaxed) {
                0 => break,
                byte => *to = byte,
            }
            self.len += 1;
        }
        self.len > 0 && self.len < ROOT_PATH
    }

    /// The path of a job's group; false if a parent of it is killed anyway, or the slots make no sense.
    fn job(&mut self, table: &Layout, slot: usize) -> bool {
        // From the job up to its root, and back: the parents are not known top down. A chain that is
        // longer than there are levels to write down has no end: somebody else's bytes.
        let mut chain = [0_u32; PATH / 6];
        let (mut slot, mut depth) = (slot as u32, 0);
        let root = loop {
            let Some(level) = chain.get_mut(depth) else { return false };
            *level = slot;
            depth += 1;
            let Some(entry) = table.entries.get(slot as usize) else { return false };
            let parent = entry.parent.load(Relaxed);
            if parent & ROOT_BIT != 0 {
                break parent & !ROOT_BIT;
            }
            let above = table.entries.get(parent as usize);
            if above.is_some_and(|above: &Entry| {
                above.flags.load(Relaxed) & (USED | KILL) == USED | KILL
            }) {
                return false;
            }
            slot = parent;
        };
        if root as usize >= roots(table) || !self.root(table, root as usize) {
            return false;
        }
        chain.iter().take(depth).rev().all(|slot| {
            let (digits, start) = decimal(*slot);
            self.enter(digits.get(start..).unwrap_or(&[]))
        })
    }

    /// Writes `text` to the file `name` of the group.
    fn write(&mut self, name: &[u8], text: &[u8]) -> Result<(), i32> {
        let len = self.len;
        if len == 0 || !self.enter(name) {
            return Err(errno::ENOENT);
        }
        let path = CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"");
        let opened = raw::openat(MOUNT_FD, path, raw::O_WRONLY);
        self.leave(len);
        let fd = opened?;
        let written = raw::write(fd, text).map(|_| ());
        raw::close(fd);
        written
    }
}

/// A number in decimal: the digits are at the end of the array, from the index on.
fn decimal(mut number: u32) -> ([u8; 10], usize) {
    let (mut digits, mut start) = ([b'0'; 10], 10);
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    (digits, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_names() {
        for number in [0, 7, 10, 65_535, u32::MAX] {
            let (digits, start) = decimal(number);
            assert_eq!(digits[start..], *number.to_string().as_bytes());
        }
    }

    /// A table on the heap: it is too large for a test's stack.
    fn table() -> crate::table::Table {
        crate::table::Table::create().unwrap()
    }

    fn path_of(table: &crate::table::Table, slot: usize) -> Option<String> {
        let mut path = Path::new();
        let found = path.job(table.layout(), slot);
        found.then(|| path.as_c_str().unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_jobs_path_leads_through_its_parents() {
        use crate::table::Parent;
        let table = table();
        let root = table.add_root("some/where").unwrap();
        table.claim(0, Parent::Root(root), false);
        table.claim(65_535, Parent::Slot(0), false);
        table.claim(12, Parent::Slot(65_535), true);
        assert_eq!(path_of(&table, 12).unwrap(), "some/where/0/65535/12");
        table.set_kill(0, true);
        assert_eq!(path_of(&table, 12), None, "it dies with its grandparent's group");
    }

    #[test]
    fn a_chain_without_an_end_leads_nowhere() {
        use crate::table::Parent;
        let table = table();
        table.add_root("root").unwrap();
        table.claim(1, Parent::Slot(2), false);
        table.claim(2, Parent::Slot(1), false);
        assert_eq!(path_of(&table, 1), None);
        assert_eq!(path_of(&table, 2), None);
    }

    #[test]
    fn a_long_path_is_refused_and_not_cut() {
        let mut path = Path::new();
        let name = [b'x'; 1000];
        assert!((0..4).all(|_| path.enter(&name)));
        let len = path.len;
        assert!(!path.enter(&name));
        assert_eq!((path.len, path.as_c_str().unwrap().to_bytes().len()), (len, len));
    }

    /// What is done before Linux 5.14, on a kernel that could do better.
    #[test]
    fn members_are_killed_one_by_one_where_groups_cannot_be() {
        use std::os::fd::AsRawFd;
        let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(std::path::Path::new)
            .into_iter()
            .find(|mount| mount.join("cgroup.procs").exists());
        let Some(mount) = mount else { return };
        let root = mount.join(format!("jobobject-sys-unit-{}", std::process::id()));
        let inner = root.join("inner");
        if std::fs::create_dir_all(&inner).is_err() {
            return;
        }
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        std::fs::write(inner.join("cgroup.procs"), child.id().to_string()).unwrap();
        let dir = std::fs::File::open(&root).unwrap();
        kill_below(dir.as_raw_fd(), DEPTH);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        // Opened anew: the first walk has read the directory to its end.
        let dir = std::fs::File::open(&root).unwrap();
        remove_below(dir.as_raw_fd(), DEPTH);
        assert!(!inner.exists());
        std::fs::remove_dir(&root).unwrap();
    }
}
