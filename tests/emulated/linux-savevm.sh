#!/bin/sh
# linux-savevm.sh - hv with a Linux guest in the emulated machine: savevm, loadvm twice in a
# row, and once in a new process; memory and disk stay one.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/emulated/guest.sh"

build=$(cd "$build" && pwd)
hv=$build/hv-glue/hv
[ -x "$hv" ] || skip_all "this build has no hv"
command -v qemu-system-x86_64 >/dev/null || skip_all "no qemu-system-x86_64"
sh "$tests/emulated/prepare.sh" >&2 || skip_all "no kernel for a guest"
cd "$TMPDIR" || exit 1

guest_initrd guest.cpio
guest_image disk.qcow2
cat >scenario <<END
cp disk.qcow2 out/
sh $tests/emulated/savevm-linux.sh 60 $hv -m 256M -no-reboot \\
        -kernel $build/emulated/vmlinuz -initrd guest.cpio \\
        -append "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests rounds=60" \\
        -drive file=out/disk.qcow2,format=qcow2,if=virtio,discard=unmap \\
        -monitor stdio
END
sh "$tests/emulated/run.sh" --build "$build" --timeout 800 --cpus 1 --output out \
        --input disk.qcow2 \
        --input guest.cpio --input scenario --input "$build/emulated/vmlinuz" \
        --input "$tests/emulated/savevm-linux.sh" \
        --input "$tests/emulated/hypervisor.sh" sh scenario >points
check "the scenario runs to its end" [ $? = 0 ]
savevm_points points
check "hv leaves a clean file system" guest_image_is_clean out/disk.qcow2
check "qemu-img lists the snapshot" sh -c 'qemu-img snapshot -l out/disk.qcow2 | grep " a  *[0-9]"'

# The disk as it was at savevm: a moment of a running guest, so its journal is replayed first.
disk_at_save()
{
        qemu-img convert -l a -f qcow2 -O raw out/disk.qcow2 saved.raw || return 1
        e2fsck -p saved.raw
        [ $? -le 1 ] && e2fsck -fn saved.raw
}
check "the disk of the snapshot has a sound file system" disk_at_save
done_testing
