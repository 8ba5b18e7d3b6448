//! Win32 error codes, as far as job objects use them.
//!
//! Values of `winerror.h`; 698, 759 and 760 lack names in most headers.

use std::fmt;

/// A Win32 error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $win32:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every code that has a name here, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in `winerror.h`, `None` for a number that has no role here.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($win32),)*
                    _ => None,
                }
            }

            /// What Windows says of it, in our words.
            #[must_use]
            pub fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// It worked.
    SUCCESS = 0, "ERROR_SUCCESS", "the operation succeeded";
    /// The name is not known, or its last handle was closed.
    FILE_NOT_FOUND = 2, "ERROR_FILE_NOT_FOUND", "no job of that name exists";
    /// A handle lacks a right, a process is dead, or the jobs cannot nest.
    ACCESS_DENIED = 5, "ERROR_ACCESS_DENIED", "access is denied";
    /// Not a handle, or not a job's.
    INVALID_HANDLE = 6, "ERROR_INVALID_HANDLE", "the handle is invalid";
    /// No memory.
    NOT_ENOUGH_MEMORY = 8, "ERROR_NOT_ENOUGH_MEMORY", "not enough memory";
    /// A structure of the wrong size.
    BAD_LENGTH = 24, "ERROR_BAD_LENGTH", "the length of the structure is wrong";
    /// Not to be had here.
    NOT_SUPPORTED = 50, "ERROR_NOT_SUPPORTED", "the request is not supported";
    /// A value that makes no sense, or a job that is terminating.
    INVALID_PARAMETER = 87, "ERROR_INVALID_PARAMETER", "a parameter is incorrect";
    /// A name that is taken.
    ALREADY_EXISTS = 183, "ERROR_ALREADY_EXISTS", "the object exists already";
    /// A buffer too small for the whole list.
    MORE_DATA = 234, "ERROR_MORE_DATA", "more data is available";
    /// A wait ran out of time.
    WAIT_TIMEOUT = 258, "WAIT_TIMEOUT", "the wait timed out";
    /// The process is in no job.
    PROCESS_NOT_IN_JOB = 759, "ERROR_PROCESS_NOT_IN_JOB", "the process is not part of a job";
    /// The process is in a job.
    PROCESS_IN_JOB = 760, "ERROR_PROCESS_IN_JOB", "the process is part of a job";
    /// A buffer that cannot be read or written.
    NOACCESS = 998, "ERROR_NOACCESS", "invalid access to a memory location";
    /// A privilege is missing.
    PRIVILEGE_NOT_HELD = 1314, "ERROR_PRIVILEGE_NOT_HELD", "a required privilege is not held";
    /// Out of descriptors, groups or other things the system has only so many of.
    NO_SYSTEM_RESOURCES = 1450, "ERROR_NO_SYSTEM_RESOURCES", "not enough system resources";
    /// The active-process limit, or a used-up job time.
    NOT_ENOUGH_QUOTA = 1816, "ERROR_NOT_ENOUGH_QUOTA", "not enough quota is available";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// Exit code of a candidate that the active-process limit refused: `STATUS_QUOTA_EXCEEDED`.
pub const QUOTA_EXCEEDED: u32 = 0xC000_0044;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(Status::PROCESS_IN_JOB.to_string(), "ERROR_PROCESS_IN_JOB (760)");
        assert_eq!(Status(4711).to_string(), "error 4711");
        assert!(Status::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
