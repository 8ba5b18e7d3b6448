//! What people write on a command line, and how it is written back.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/cli/src/duration.rs"]
mod duration;

fuzz_target!(|text: &str| {
    let _ = duration::parse_limit(text);
    if let Ok(read) = duration::parse(text) {
        let written = duration::exact(read);
        assert!(duration::parse(&written).is_ok(), "{text:?} was written back as {written:?}");
    }
});
