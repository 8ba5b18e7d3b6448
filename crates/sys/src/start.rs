//! What the process was started with, before Rust's runtime changed it.
//!
//! Before `main`, Rust's `std` ignores SIGPIPE and opens `/dev/null` where 0, 1 or 2 is closed. A command
//! that is started between a shell and its child has to pass on what it was given. So a constructor, which the
//! loader runs before all that, writes it down. It allocates nothing and only asks.
//!
//! In a library that is loaded later (`dlopen`), the start is the moment of loading.

use std::cell::UnsafeCell;

use crate::raw;
use crate::signal::SignalSet;

/// What the process was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtStart {
    /// The signals that were ignored.
    pub ignored: SignalSet,
    /// The signals that were blocked in the first thread.
    pub mask: SignalSet,
    /// Which of the descriptors 0, 1 and 2 were closed.
    pub closed: [bool; 3],
}

impl AtStart {
    /// Whether SIGPIPE was ignored: by default it is not, and Rust's runtime ignores it for its own use.
    #[must_use]
    pub fn sigpipe_ignored(&self) -> bool {
        self.ignored.contains(libc::SIGPIPE)
    }
}

/// What the process was started with.
#[must_use]
pub fn at_start() -> &'static AtStart {
    // The linker keeps what is used: without this the constructor could be left out of a static program.
    std::hint::black_box(&CONSTRUCTOR);
    // SAFETY: the one write happens in the constructor, before any caller can run.
    unsafe { &*RECORD.0.get() }
}

struct Record(UnsafeCell<AtStart>);

// SAFETY: written once, by the constructor, before there is a second thread that knows of it; read-only
// from then on.
unsafe impl Sync for Record {}

static RECORD: Record = Record(UnsafeCell::new(AtStart {
    ignored: SignalSet::EMPTY,
    mask: SignalSet::EMPTY,
    closed: [false; 3],
}));

#[used]
// SAFETY: the section is an array of functions of this very type, which the loader calls one by one.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = record;

extern "C" fn record() {
    let mut ignored = SignalSet::EMPTY;
    for signal in 1..=64 {
        if raw::disposition(signal).is_ok_and(|now| now.handler == 1) {
            ignored = ignored.with(signal);
        }
    }
    let closed = [0, 1, 2].map(|fd| !raw::is_open(fd));
    let at_start = AtStart { ignored, mask: SignalSet::from_bits(raw::mask()), closed };
    // SAFETY: nobody reads yet: the loader is still at work.
    unsafe { *RECORD.0.get() = at_start };
}
