#!/bin/sh
# builtin-guest.sh - hv with the guest that is built in: rounds of savevm, loadvm and delvm, QMP,
# restarts, a hostile guest, and an image without a leak in the end.
#
# On this machine's KVM where there is one.  Many more rounds where $TEST_SECONDS is set.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/emulated/guest.sh"

build=$(cd "$build" && pwd)
command -v qemu-system-x86_64 >/dev/null || skip_all "no qemu-system-x86_64"
sh "$tests/emulated/prepare.sh" >&2 || skip_all "no kernel for the machine"
cd "$TMPDIR" || exit 1

rounds=12
[ -z "${TEST_SECONDS-}" ] || rounds=50
"$build/hv-glue/hv-img" create -q -f qcow2 disk.qcow2 64M
cat >scenario <<END
mkdir -p out
cp disk.qcow2 out/
exec sh $tests/emulated/savevm-builtin.sh $rounds $build/hv-glue/hv $build/hv-glue/hv-img \\
        out/disk.qcow2
END
sh "$tests/emulated/run.sh" --build "$build" --timeout 800 --one-thread --prefer-host \
        --output out \
        --input disk.qcow2 --input scenario --input nc.openbsd \
        --input "$tests/emulated/savevm-builtin.sh" --input "$tests/emulated/hypervisor.sh" \
        sh scenario >points
check "the scenario runs to its end" [ $? = 0 ]
savevm_points points
check "qemu-img finds no error and no leak" qemu-img check out/disk.qcow2
check "no snapshot is left" sh -c '! qemu-img snapshot -l "$1" | grep .' - out/disk.qcow2
done_testing
