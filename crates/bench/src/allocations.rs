//! How often the hot paths ask for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use jobobject::{Command, Job};

use crate::sample::report_number;
use crate::{CHILD, Result};

/// The system's allocator, with a count. A thread's own, so that counting costs next to nothing.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    COUNT.set(COUNT.get() + 1);
}

// SAFETY: everything is passed on as it came; counting neither allocates nor fails, since the counter is
// made with its thread and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations per operation, after the first ones.
pub(crate) fn count() -> Result {
    let job = Job::new()?;
    let spawned = || {
        let status = Command::new(CHILD).spawn_in(&job).and_then(|mut child| child.wait());
        assert!(status.is_ok_and(|status| status.success()));
    };
    let plain = || {
        let status = std::process::Command::new(CHILD).spawn().and_then(|mut child| child.wait());
        assert!(status.is_ok_and(|status| status.success()));
    };
    let cycle = || {
        let job = Job::new().expect("a job can be made");
        let status = Command::new(CHILD).spawn_in(&job).and_then(|mut child| child.wait());
        assert!(status.is_ok_and(|status| status.success()));
        job.wait().expect("a job can be waited for");
    };
    report_number("allocations unused", per_call(|| drop(Job::new())), None);
    report_number("allocations spawn", per_call(spawned), Some(per_call(plain)));
    report_number("allocations cycle", per_call(cycle), None);
    Ok(())
}

fn per_call(act: impl Fn()) -> f64 {
    const CALLS: u32 = 200;
    (0..CALLS).for_each(|_| act());
    let before = COUNT.get();
    (0..CALLS).for_each(|_| act());
    (COUNT.get() - before) as f64 / f64::from(CALLS)
}
