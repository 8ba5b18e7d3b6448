//! What the kernel and other engines write: mountinfo, cgroup files, /proc, records.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| jobobject_linux::fuzzing::parse(text));
