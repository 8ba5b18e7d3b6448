//! The guardian as a program of its own: no `std`, no C library, a few pages.
//!
//! Compiled by the build script, embedded in the library, executed from a sealed memory file: so it
//! depends on nothing of its owner's, neither his memory nor a file. What it does is in `watch.rs`.

#![no_std]
#![no_main]

mod layout;
mod raw;
mod watch;

use layout::{Layout, MAGIC, SIZE, VERSION};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    raw::exit(101)
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", "brk 1", main = sym main);

extern "C" fn main() -> ! {
    let Some(table) = map_table() else { raw::exit(102) };
    raw::exit(watch::watch(table))
}

/// Maps the table that the owner shares with us.
fn map_table() -> Option<&'static Layout> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_SHARED: usize = 1;
    // SAFETY: the kernel chooses the place; nothing else is there.
    let ret = unsafe {
        raw::call6(raw::nr::MMAP, 0, SIZE, PROT_READ_WRITE, MAP_SHARED, watch::TABLE_FD as usize, 0)
    };
    let address = raw::check(ret).ok()?;
    // SAFETY: the mapping is as long as the layout and lives as long as the process; the file cannot
    // shrink (it is sealed); every field is an atomic, for which any bytes are a value.
    let table = unsafe { &*(address as *const Layout) };
    let known = table.magic.load(core::sync::atomic::Ordering::Acquire) == MAGIC
        && table.version.load(core::sync::atomic::Ordering::Relaxed) == VERSION;
    known.then_some(table)
}

// The compiler calls these by name. There is no C library to bring them.

#[cfg(target_arch = "x86_64")]
mod memory {
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: the caller's promise is that of memcpy; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        // SAFETY: the caller's promise is that of memset; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
        }
        to
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod memory {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        let mut at = 0;
        while at < len {
            // SAFETY: the caller's promise is that of memcpy. Volatile, so that the loop does not become
            // a call of this very function.
            unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
            at += 1;
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        let mut at = 0;
        while at < len {
            // SAFETY: the caller's promise is that of memset. Volatile as above.
            unsafe { to.add(at).write_volatile(byte as u8) };
            at += 1;
        }
        to
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller's promise is that of memcmp. Volatile as above.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, len) }
}

// Parts of `core` come compiled with tables for unwinding, which name this function. Nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
