//! `job explain`: what the codes of job objects mean on Windows, what they mean here, and what to do.

use clap::Args;
use jobobject::Status;
use serde::Serialize;

use crate::{FAILED, render};

const SCHEMA: u32 = 1;

/// Where texts begin, and where lines end.
const INDENT: usize = 11;
const WIDTH: usize = 100;

const EXAMPLES: &str = "\
Examples:
  job explain 760
  job explain ERROR_NOT_ENOUGH_QUOTA
  job explain 0xC0000044
  job explain                  lists all";

/// Say what an error code of job objects means here, and what to do about it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// A number, decimal or hexadecimal (0x), or a name; without it all are listed
    #[arg(value_name = "CODE|NAME", allow_negative_numbers = true)]
    code: Option<String>,

    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// A code, and all there is to say about it.
#[derive(Debug, Clone, Copy, Serialize)]
struct Entry {
    code: u32,
    name: &'static str,
    /// What Windows says.
    text: &'static str,
    /// When it comes up in this system.
    here: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

/// An NTSTATUS that a process may have exited with; the others are Win32 codes.
const STATUS_QUOTA_EXCEEDED: Entry = Entry {
    code: 0xC000_0044,
    name: "STATUS_QUOTA_EXCEEDED",
    text: "insufficient quota exists to complete the operation",
    here: "the exit code on record of a process that was ended because the job already had as many \
           processes as its active-process limit allows",
    remedy: "raise the limit (job run -p N), or have fewer processes at a time",
};

const STATUS_PROCESS_IS_TERMINATING: Entry = Entry {
    code: 0xC000_010A,
    name: "STATUS_PROCESS_IS_TERMINATING",
    text: "an attempt was made to access an exiting process",
    here: "the process had ended, or was about to, when it was to be put into a job; callers of the \
           Win32 functions see ERROR_ACCESS_DENIED (5)",
    remedy: "nothing needs to be done for a process that has ended; to lose no race, start it inside \
             the job instead of assigning it",
};

pub(crate) fn main(options: &Options) -> u8 {
    let Some(wanted) = &options.code else {
        let all: Vec<Entry> = all().collect();
        if options.json {
            render::answer_json(&Answer { schema: SCHEMA, codes: &all });
        } else {
            render::answer(&all.iter().map(Entry::line).collect::<String>());
        }
        return 0;
    };
    let Some(entry) = find(wanted) else {
        render::complain(
            format_args!("nothing is known about `{wanted}`"),
            Some("job explain without a code lists all that job objects use"),
        );
        return FAILED;
    };
    if options.json {
        render::answer_json(&Answer { schema: SCHEMA, codes: &[entry] });
    } else {
        render::answer(&entry.text());
    }
    0
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    schema: u32,
    codes: &'a [Entry],
}

fn all() -> impl Iterator<Item = Entry> {
    let named = Status::ALL.iter().filter_map(|status| entry(*status));
    named.chain([STATUS_QUOTA_EXCEEDED, STATUS_PROCESS_IS_TERMINATING])
}

fn find(wanted: &str) -> Option<Entry> {
    if let Some(code) = number(wanted) {
        // An HRESULT that wraps a Win32 code is that code.
        let code = if code >> 16 == 0x8007 { code & 0xffff } else { code };
        return all().find(|entry| entry.code == code);
    }
    let wanted = wanted.to_ascii_uppercase();
    all().find(|entry| {
        entry.name == wanted
            || entry.name.strip_prefix("ERROR_") == Some(&wanted)
            || entry.name.strip_prefix("STATUS_") == Some(&wanted)
    })
}

/// A code as people meet it: decimal, hexadecimal, or negative, as shells show an NTSTATUS.
fn number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(digits, 16).ok();
    }
    text.parse::<u32>().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

impl Entry {
    fn line(&self) -> String {
        format!("{:>10}  {:<30} {}\n", self.shown(), self.name, self.text)
    }

    fn shown(&self) -> String {
        match self.code {
            code @ 0x8000_0000.. => format!("0x{code:08X}"),
            code => code.to_string(),
        }
    }

    fn text(&self) -> String {
        let mut shown = format!("{} ({})\n", self.name, self.shown());
        for (what, text) in [("Windows", self.text), ("here", self.here), ("to do", self.remedy)] {
            shown += &format!("  {what:<8} {}\n", render::wrapped(text, INDENT, WIDTH));
        }
        shown
    }
}

/// What there is to say about a Win32 code.
fn entry(status: Status) -> Option<Entry> {
    let (here, remedy) = match status {
        Status::SUCCESS => ("nothing went wrong", "nothing"),
        Status::FILE_NOT_FOUND => (
            "no job has that name, or its last handle was closed and its members are gone; of a \
             command: there is no such program",
            "check the name; a job lives as long as a handle to it or a member of it",
        ),
        Status::ACCESS_DENIED => (
            "one of: the process has ended; it is init or a kernel thread; it is in a job that the \
             target cannot be nested in (760 is the finer code); its job does not allow breakaway; a \
             handle lacks a right; the kernel does not let this user make groups or move the process",
            "the message tells which. For a process in another job see job which PID; for missing \
             permissions run as root or in a group of your own: systemd-run --user --scope -p \
             Delegate=yes -- COMMAND",
        ),
        Status::INVALID_HANDLE => (
            "the handle was closed or is not a job's, or this process is a fork of the one that has \
             the jobs: a fork owns none of them",
            "use the job in the process that made it; after a fork make a new one",
        ),
        Status::NOT_ENOUGH_MEMORY => (
            "the kernel had no memory for a group, a process or a descriptor",
            "free memory, or raise the memory limit of the container this runs in",
        ),
        Status::BAD_LENGTH => (
            "a structure was passed with a size that its class does not have",
            "pass sizeof of the structure that belongs to the information class",
        ),
        Status::NOT_SUPPORTED => (
            "this kernel or this place cannot keep the limit that was asked for, and best effort was \
             not allowed",
            "allow it (job run --best-effort) and see in the report what is kept, or run where the \
             kernel offers more",
        ),
        Status::INVALID_PARAMETER => (
            "a value that no limit can have, an unknown flag or signal, or a job that is being \
             terminated and takes no newcomers just now",
            "check the value; wait until the job is empty, then use it again",
        ),
        Status::ALREADY_EXISTS => (
            "a job of that name exists and was opened instead: the limits that were asked for are \
             not applied to it",
            "nothing if sharing it is what you want; otherwise choose another name",
        ),
        Status::MORE_DATA => (
            "the list of process ids has more members than the buffer has room for; as many as fit \
             are in it",
            "ask again with a larger buffer; members come and go, so leave some room",
        ),
        Status::WAIT_TIMEOUT => (
            "the time of a wait was over before the job became signaled or empty",
            "wait longer, or end it: job run -t DURATION does both",
        ),
        Status::PROCESS_NOT_IN_JOB => (
            "the process is in no job of ours. The calls that Windows answers with the generic \
             ERROR_ACCESS_DENIED (5) have this as the finer code",
            "start it with job run, or assign it; job which PID tells what a process is in",
        ),
        Status::PROCESS_IN_JOB => (
            "the process is in a job already, and that is not one that the target could be nested in: \
             a process enters a job only from the parent chain of that job. The finer code where \
             Windows answers ERROR_ACCESS_DENIED (5)",
            "job which PID shows where it is. Assign it before it enters the other job, use a new job \
             (one that was never used can be nested below), or let it break away where its job allows",
        ),
        Status::NOACCESS => (
            "a buffer cannot be read or written, or is not aligned",
            "check the pointer that was passed",
        ),
        Status::PRIVILEGE_NOT_HELD => (
            "the limit needs a privilege on Windows, and a capability here",
            "run with the capability that the message names, or without that limit",
        ),
        Status::NO_SYSTEM_RESOURCES => (
            "descriptors, groups or processes have run out",
            "raise the number of open files (ulimit -n) or of processes (ulimit -u, pids.max), see \
             cgroup.max.descendants above, or end jobs that are done",
        ),
        Status::NOT_ENOUGH_QUOTA => (
            "the job has as many processes as its limit allows, or its CPU time is used up. A process \
             that was to be assigned has been ended, as on Windows",
            "raise the limit (job run -p N, --cpu-time DURATION); setting a new time lets newcomers \
             in again",
        ),
        _ => return None,
    };
    Some(Entry { code: status.0, name: status.name()?, text: status.text()?, here, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_can_come_up_is_explained() {
        for status in Status::ALL {
            assert!(entry(*status).is_some(), "{status}");
        }
    }

    #[test]
    fn a_code_is_found_in_every_form_in_which_people_meet_it() {
        for text in ["760", "0x2f8", "ERROR_PROCESS_IN_JOB", "process_in_job", "0x800702F8"] {
            assert_eq!(find(text).map(|entry| entry.code), Some(760), "{text}");
        }
        for text in ["0xC0000044", "3221225540", "-1073741756", "STATUS_QUOTA_EXCEEDED"] {
            assert_eq!(find(text).map(|entry| entry.name), Some("STATUS_QUOTA_EXCEEDED"), "{text}");
        }
        for text in ["", "4711", "0x", "ERROR_", "ERROR_WHATEVER", "99999999999", "7 60"] {
            assert!(find(text).is_none(), "{text:?}");
        }
    }
}
