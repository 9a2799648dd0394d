/*
 * embed.S - the built-in guest, linked, as bytes of the hypervisor.
 *
 * SPDX-License-Identifier: MIT
 */
        .section .rodata
        .globl  boot_builtin_begin
        .hidden boot_builtin_begin
        .balign 16
boot_builtin_begin:
        .incbin GUEST_FILE
        .globl  boot_builtin_end
        .hidden boot_builtin_end
boot_builtin_end:
        .section .note.GNU-stack, "", @progbits
