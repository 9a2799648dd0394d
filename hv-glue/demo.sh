#!/bin/sh
# demo.sh - the main job, seen: a running machine goes back to a snapshot, memory and disk
# together, and QEMU's tools agree.
#
# Sets up and builds what is needed; then demo-machine.sh runs hv where there is KVM: here, or
# in an emulated machine; then demo-embedding.sh does the same for the small example that
# embeds the driver, on a real file system.
#
# SPDX-License-Identifier: MIT
set -eu

cd "$(dirname "$0")/.."
sh tests/setup.sh
if [ ! -f build/build.ninja ]; then
        meson setup build >/dev/null
fi
ninja -C build driver/block-qcow2.so hv-glue/hv hv-glue/hv-img hv-glue/hv-io \
        hv-glue/live-snapshot >build/demo-build.log || { cat build/demo-build.log; exit 1; }

root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir out
sh "$root/tests/emulated/run.sh" --prefer-host --one-thread --output out --timeout 240 \
        --input "$root/hv-glue/demo-machine.sh" --input "$root/tests/emulated/hypervisor.sh" \
        sh "$root/hv-glue/demo-machine.sh" "$root/build/hv-glue" out/disk.qcow2 \
        "$(cat /proc/sys/kernel/random/boot_id)"

# As much RAM in QEMU, which stands still from the beginning of each to its end: longer, the more
# RAM there is.
if command -v qemu-system-x86_64 >/dev/null; then
        qemu-img create -q -f qcow2 peer.qcow2 64M
        head -c 4M /dev/urandom >ram
        python3 "$root/tests/bench/qemu-savevm.py" peer.qcow2 ram 64 |
                awk '{ printf "   QEMU, not emulated, stands still: savevm %.1f ms, loadvm " \
                              "%.1f ms\n", $1 * 1000, $2 * 1000 }'
fi

echo "6. What QEMU says of that disk: $(qemu-img --version | head -n 1)"
qemu-img snapshot -l out/disk.qcow2 | sed 's/^/   /'
qemu-img check out/disk.qcow2 | sed 's/^/   /'

sh "$root/hv-glue/demo-embedding.sh"
