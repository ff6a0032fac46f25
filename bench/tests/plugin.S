/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program for EL2 whose every call has a known cost, for test_plugin.py.
 * The comment "N/M" behind a function says what one call of it must count:
 * N instructions, M memory operations (a pair is one), callees included.
 */
        .macro  func name
        .globl  \name
        .type   \name, %function
\name:
        .endm

        .macro  end name
        .size   \name, . - \name
        .endm

        .text
func _start
        adr     x0, vectors
        msr     vbar_el2, x0
        ldr     x0, =stack_top
        mov     sp, x0
        bl      leaf
        bl      caller
        mov     x0, #3
        bl      recurse
        bl      tail
        bl      interrupted
        mov     x0, #(1 << 31)          /* EL1 is 64-bit */
        msr     hcr_el2, x0
        bl      enter_guest
end _start

func leaf                               /* 3/1 */
        add     x1, x1, #1
        ldr     x2, [sp]
        ret
end leaf

func caller                             /* 11/4 */
        stp     x29, x30, [sp, #-16]!
        bl      leaf
        bl      leaf
        ldp     x29, x30, [sp], #16
        ret
end caller

func recurse                            /* 5/2, then 11/4, then 17/6 */
        stp     x29, x30, [sp, #-16]!
        subs    x0, x0, #1
        b.eq    1f
        bl      recurse
1:      ldp     x29, x30, [sp], #16
        ret
end recurse

func tail                               /* 6/1 */
        nop
        nop
        b       leaf
end tail

func interrupted                        /* 8/3: the handler is not its own */
        stp     x29, x30, [sp, #-16]!
        hvc     #0
        bl      leaf
        ldp     x29, x30, [sp], #16
        ret
end interrupted

func enter_guest                        /* never returns: lost */
        adr     x0, guest
        msr     elr_el2, x0
        mov     x0, #0x3c5              /* EL1h, all masked */
        msr     spsr_el2, x0
        ldr     x0, =guest_top
        msr     sp_el1, x0
        eret
end enter_guest

func own_exception                      /* from EL2 to EL2 */
        str     x30, [sp, #-16]!
        bl      leaf
        ldr     x30, [sp], #16
        eret
end own_exception

func guest_exception
        add     x20, x20, #1
        cmp     x20, #2
        b.lt    1f
        b.eq    2f
        cmp     x20, #3
        b.eq    3f
        ldr     w0, =0x84000008         /* PSCI SYSTEM_OFF */
        smc     #0
2:      bl      leaf                    /* trip 2: two calls */
1:      bl      leaf                    /* trip 1: one call: 1+3+1+3+1 = 9/1 */
3:      eret                            /* trip 3: none */
end guest_exception

func guest                              /* EL1, in the same addresses */
        bl      leaf                    /* not the hypervisor's call */
        hvc     #0
        hvc     #0
        hvc     #0
        hvc     #0
        b       .
end guest
        .ltorg

        .balign 0x800
func vectors
        .space  0x200
        b       own_exception
        .balign 0x400
        b       guest_exception
        .balign 0x800
end vectors

        .bss
        .balign 16
        .space  4096
stack_top:
        .space  4096
guest_top:
