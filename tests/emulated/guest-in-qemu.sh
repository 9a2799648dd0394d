#!/bin/sh
# guest-in-qemu.sh - the Linux guest in QEMU's emulator: a machine with virtio-mmio and
# ACPI, as a small hypervisor has.  Its time goes by instructions: a host that is busy would
# otherwise make the guest measure its timers wrong, and stop for good.
#
#   guest-in-qemu.sh CACHE INITRD IMAGE OPTIONS [ARGUMENT...]
#
# CACHE is build/emulated/, IMAGE qcow2, OPTIONS are for the guest, ARGUMENTs for QEMU.
#
# SPDX-License-Identifier: MIT
set -eu

cache=$1 initrd=$2 image=$3 options=$4
shift 4
exec qemu-system-x86_64 -accel tcg -icount shift=2 -m 256 -nodefaults -no-reboot -display none \
        -M microvm,acpi=on,auto-kernel-cmdline=off,pic=on,pit=on \
        -kernel "$cache/vmlinuz" -initrd "$initrd" \
        -append "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests $options" \
        -global virtio-mmio.force-legacy=false \
        -drive "if=none,id=disk,file=$image,format=qcow2" \
        -device virtio-blk-device,drive=disk "$@"
