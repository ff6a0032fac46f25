// SPDX-License-Identifier: GPL-2.0-only
//! The kernel image header, entry, exception vectors and secondary entry.

use core::arch::global_asm;

/// The most CPUs that are used.
pub const MAX_CPUS: usize = 8;
/// Bytes of stack for each CPU.
const STACK: usize = 64 << 10;

/// The stacks, from CPU 0's.
#[repr(C, align(65536))]
struct Stacks([[u8; STACK]; MAX_CPUS]);

#[unsafe(no_mangle)]
static mut GUEST_STACKS: Stacks = Stacks([[0; STACK]; MAX_CPUS]);

global_asm!(
    r#"
    .section .head, "ax"
    .global _start
_start:
    b       3f
    nop
    .quad   0                       // text_offset
.Lsize:
    .quad   _end - .Lsize + 16      // image_size, with what is not in the file
    .quad   0xa                     // little-endian, 4 KB pages, anywhere
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

3:  mov     x19, x0
    adrp    x20, _start
    add     x20, x20, :lo12:_start
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16
    ldr     x5, [x1], #8
    cmp     w4, #1027               // R_AARCH64_RELATIVE
    b.ne    1b
    add     x5, x5, x20
    str     x5, [x3, x20]
    b       1b
2:  adrp    x1, __bss_start
    adrp    x2, __bss_end
4:  stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    4b
    mov     x0, x19
    mov     x1, #0
    adrp    x3, rust_main
    add     x3, x3, :lo12:rust_main
    b       5f

    // A secondary: x0 is its number, as CPU_ON was told.
    .global secondary_entry
secondary_entry:
    mov     x1, x0
    adrp    x3, rust_secondary
    add     x3, x3, :lo12:rust_secondary

5:  adrp    x2, GUEST_STACKS
    add     x4, x1, #1
    lsl     x4, x4, #16
    add     x2, x2, x4
    msr     SPSel, #1
    mov     sp, x2
    msr     daifset, #0xf
    adrp    x2, vectors
    add     x2, x2, :lo12:vectors
    msr     vbar_el1, x2
    msr     tpidr_el1, x1
    isb
    mov     x29, #0
    mov     x30, #0
    br      x3

    .section .text
    .balign 2048
vectors:
    .set    n, 0
    .rept   16
    .balign 128
    sub     sp, sp, #176
    stp     x0, x1, [sp]
    mov     x0, #n
    b       6f
    .set    n, n + 1
    .endr
    .balign 128
6:  stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x30, [sp, #144]
    bl      rust_exception
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x30, [sp, #144]
    ldp     x0, x1, [sp]
    add     sp, sp, #176
    eret
"#
);

unsafe extern "C" {
    fn secondary_entry();
    fn _start();
}

/// Where the image was loaded; addresses in its ELF file count from there.
pub fn load_address() -> u64 {
    _start as *const () as u64
}

/// Where a secondary CPU starts, for CPU_ON.
pub fn secondary_address() -> u64 {
    secondary_entry as *const () as u64
}
