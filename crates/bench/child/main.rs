//! The program that the measurements start. It exits; with an argument it sleeps for ever.
//!
//! No libc, no loader, one page: whatever starts it, its own part in the time is as small as it can be.

#![no_std]
#![no_main]

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "cmp qword ptr [rsp], 1", // argc
    "jg 2f",
    "mov eax, 231", // exit_group(0)
    "xor edi, edi",
    "syscall",
    "2:",
    "mov eax, 34", // pause()
    "syscall",
    "jmp 2b",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "ldr x0, [sp]", // argc
    "cmp x0, 1",
    "b.gt 2f",
    "mov x8, 94", // exit_group(0)
    "mov x0, 0",
    "svc 0",
    "2:",
    "mov x8, 73", // ppoll(null, 0, null, null)
    "mov x0, 0",
    "mov x1, 0",
    "mov x2, 0",
    "mov x3, 0",
    "svc 0",
    "b 2b",
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
