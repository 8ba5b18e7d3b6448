//! Conformance cases: a table that makes no sense is an error with a line, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = jobobject_testkit::conformance::parse(Path::new("fuzz.md"), text);
});
