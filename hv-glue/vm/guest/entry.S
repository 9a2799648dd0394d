/*
 * entry.S - where the built-in guest begins, and where its interrupts arrive.
 *
 * Entered in 64-bit mode, memory mapped one to one, RSI = boot_params.
 *
 * SPDX-License-Identifier: MIT
 */
        .section .text.entry, "ax"
        .globl  guest_entry
guest_entry:
        lea     stack_end(%rip), %rsp
        xor     %ebp, %ebp
        mov     %rsi, %rdi
        call    guest_main
1:      hlt
        jmp     1b

        .text
/*
 * Sleeps until an interrupt.  Called with interrupts off; they are on when it returns.
 *
 * STI keeps interrupts off for one more instruction, so that none comes before HLT, which would
 * then sleep for ever.  But a virtual processor may forget that at an exit in between, as those
 * of KVM in QEMU's emulator do: so one that comes there has its handler return behind HLT.
 */
        .globl  interrupt_sleep
interrupt_sleep:
        sti
sleep_begins:
        hlt
        ret

/* The disk's interrupt: the C part acknowledges it. */
        .globl  interrupt_disk
interrupt_disk:
        push    %rax
        lea     sleep_begins(%rip), %rax
        cmp     %rax, 8(%rsp)
        jne     1f
        incq    8(%rsp)                 /* HLT is one byte */
1:
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        cld
        call    disk_interrupted
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

/* Anything else is a bug of ours: say so and power off. */
        .globl  interrupt_other
interrupt_other:
        call    guest_crashed

        .bss
        .balign 16
        .skip   16384
stack_end:
