#!/bin/sh
# guest-in-qemu.sh - the Linux guest in QEMU's emulator: a machine with virtio-mmio and
# ACPI, as a small hypervisor has.  It has no clock that the TSC could be measured by, so
# the guest is told some frequency and to believe it.
#
#   guest-in-qemu.sh CACHE INITRD IMAGE OPTIONS [ARGUMENT...]
#
# CACHE is build/emulated/, IMAGE qcow2, OPTIONS are for the guest, ARGUMENTs for QEMU.
#
# SPDX-License-Identifier: MIT
set -eu

cache=$1 initrd=$2 image=$3 options=$4
shift 4
exec qemu-system-x86_64 -accel tcg -m 256 -nodefaults -no-reboot -display none \
        -M microvm,acpi=on,auto-kernel-cmdline=off,pic=on,pit=on \
        -kernel "$cache/vmlinuz" -initrd "$initrd" \
        -append "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests $options
                 no_timer_check tsc_early_khz=1000000 tsc=reliable" \
        -global virtio-mmio.force-legacy=false \
        -drive "if=none,id=disk,file=$image,format=qcow2" \
        -device virtio-blk-device,drive=disk "$@"
