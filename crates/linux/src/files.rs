//! Small files of a kernel file system, read and written whole, by a name below a directory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::{Errno, pread, write};
use rustix::path::Arg;

/// Opens for reading, never following a link that somebody put there.
pub(crate) fn open(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens for writing.
pub(crate) fn open_to_write(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a directory to name things in it; costs no more than the look-up.
pub(crate) fn open_path(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir, name, flags, Mode::empty())
}

/// Opens a directory for listing and locking.
pub(crate) fn open_dir(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir, name, flags, Mode::empty())
}

/// Reads a file that is open, from its start, into `text`.
pub(crate) fn reread(file: impl AsFd, text: &mut Vec<u8>) -> Result<(), Errno> {
    text.clear();
    let mut chunk = [0_u8; 4096];
    loop {
        match pread(&file, &mut chunk, text.len() as u64) {
            Ok(0) => return Ok(()),
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a file that is open, from its start, as far as it fits: for those whose size is known to be small.
pub(crate) fn peek(file: impl AsFd, room: &mut [u8]) -> Result<&[u8], Errno> {
    loop {
        match pread(&file, &mut *room, 0) {
            Ok(read) => return Ok(&room[..read]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a whole file.
pub(crate) fn read(dir: impl AsFd, name: impl Arg) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    reread(open(dir, name)?, &mut text)?;
    Ok(text)
}

/// Reads a whole file of /proc.
pub(crate) fn read_proc(name: impl Arg) -> Result<Vec<u8>, Errno> {
    read(CWD, name)
}

/// Writes a control file in one write, as the kernel wants it.
pub(crate) fn put(dir: impl AsFd, name: impl Arg, text: &str) -> Result<(), Errno> {
    let file = open_to_write(dir, name)?;
    loop {
        match write(&file, text.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// How many directories are in a directory, by its link count: no listing.
pub(crate) fn subdirectories(dir: impl AsFd, name: impl Arg) -> Result<u64, Errno> {
    #[allow(
        clippy::useless_conversion,
        reason = "the type of st_nlink differs between architectures"
    )]
    let links = u64::from(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink);
    Ok(links.saturating_sub(2))
}

/// Looks a file up, so that the kernel has its inode at hand when it needs that itself: it asks those of
/// `cgroup.procs` whether a birth into a group is allowed, and would make and drop them each time (2 µs).
pub(crate) fn remember(dir: impl AsFd, name: impl Arg) {
    let _ = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
}

/// The names of the directories in a directory.
pub(crate) fn list_directories(dir: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A group that vanished while it was looked at says so in one of two ways.
pub(crate) fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

/// The number in decimal at the start of `text`, and the rest.
pub(crate) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let value = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((value, &text[digits..]))
}

/// The value of a line `key value`.
pub(crate) fn value(text: &[u8], key: &str) -> Option<u64> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?;
        number(rest).map(|(value, _)| value)
    })
}
