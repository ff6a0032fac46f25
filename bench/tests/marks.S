/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program for EL2, and a guest below it whose operations have a known cost,
 * for test_marks.py. "N/M" says what EL2 runs: N instructions, M memory
 * operations.
 */
        .macro  func name
        .globl  \name
        .type   \name, %function
\name:
        .endm

        .macro  end name
        .size   \name, . - \name
        .endm

        .macro  operation number, what
        mov     x0, #\number
        mov     x1, #\what
        hint    #124
        hvc     #0
        hint    #125
        .endm

        .text
func _start
        adr     x0, vectors
        msr     vbar_el2, x0
        ldr     x0, =stack_top
        mov     sp, x0
        bl      outer
        bl      outer
        mov     x0, #(1 << 31)          /* EL1 is 64-bit */
        msr     hcr_el2, x0
        adr     x0, guest
        msr     elr_el2, x0
        mov     x0, #0x3c5              /* EL1h, all masked */
        msr     spsr_el2, x0
        eret
end _start

func small                              /* 1/0; what it returns is x0 */
        ret
end small

func give_back                          /* 1/0 */
        ret
end give_back

func pages                              /* 1/0 */
        ret
end pages

func point                              /* 1/0 */
        ret
end point

func outer                              /* twice, at the start: 10/2 */
        stp     x29, x30, [sp, #-16]!
        mov     x0, #50
        bl      small
        bl      give_back
        bl      point
        ldp     x29, x30, [sp], #16
        ret
end outer

func lock                               /* 6/4: STXR compares and stores */
        ldxr    w2, [sp]
        stxr    w3, w2, [sp]
        dmb     ish
        str     w2, [sp]
        dsb     ish
        ret
end lock

func nested                             /* the vector's, and this: 2/0 */
        eret
end nested

func guest_exception                    /* with the vector's branch: */
        cbz     x1, 1f                  /* what 0: 3/0 */
        subs    x2, x1, #1
        b.eq    2f
        subs    x2, x1, #2
        b.eq    3f
        ldr     w0, =0x84000008         /* PSCI SYSTEM_OFF */
        smc     #0
1:      eret

2:      mov     x19, x0                 /* what 1: 5 and 3 + 1, 2 + 1 | 1, 2 + 6 + 2: 22/4 */
        mov     x0, #100
        bl      small
        mov     x0, #2
        bl      pages
        bl      point
        bl      lock
        mov     x0, x19
        eret

3:      mrs     x3, elr_el2             /* what 2: 6 and 3 + 2 + 3: 14/0 */
        mrs     x4, spsr_el2
        hvc     #0
        msr     elr_el2, x3
        msr     spsr_el2, x4
        eret
end guest_exception

        .ltorg

        .balign 0x800
func vectors
        .space  0x200
        b       nested
        .balign 0x400
        b       guest_exception
        .balign 0x800
end vectors

/* Behind the window that counts. */

func guest
        mov     x1, #1
        hvc     #0                      /* too early */
        mov     x0, #0
        ldr     x1, =stack_top          /* the last cache line of the program's */
        add     x2, x1, #64
        hint    #124
        mov     x2, #0x10000            /* time to translate anew */
1:      subs    x2, x2, #1
        b.ne    1b
        operation 1, 0
        operation 1, 0
        operation 2, 1
        operation 3, 2
        mov     x0, #4                  /* two trips */
        mov     x1, #0
        hint    #124
        hvc     #0
        hvc     #0
        hint    #125
        mov     x0, #5                  /* none */
        hint    #124
        hint    #125
        mov     x1, #1                  /* not marked */
        hvc     #0
#ifdef BROKEN
        mov     x0, #6
        hint    #124
        mov     x0, #7
        hint    #125
#endif
#ifdef NESTED
        mov     x0, #6
        hint    #124
        hint    #124
        hint    #125
#endif
#ifdef UNENDED
        mov     x0, #6
        hint    #124
#endif
        mov     x1, #3
        hvc     #0
        b       .
end guest
        .ltorg

        .bss
        .balign 64
        .space  4096
stack_top:
        .space  64
