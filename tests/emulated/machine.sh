#!/bin/sh
# machine.sh - run.sh: what goes into the emulated machine and what comes out.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

command -v qemu-system-x86_64 >/dev/null || skip_all "no qemu-system-x86_64"
sh "$tests/emulated/prepare.sh" >&2 || skip_all "no kernel for the machine"

cd "$TMPDIR" || exit 1
emulated() { sh "$tests/emulated/run.sh" --build "$build" --timeout 240 "$@"; }

# One machine for all that needs no more.
head -c 100000 /dev/urandom >"input file"
cat >script <<'EOF2'
[ -c /dev/kvm ] && echo "kvm $(id -u)"
pwd
grep HugePages_Total /proc/meminfo
nproc
printf '%s,' "$@"
echo
/usr/bin/sort --version | grep -o coreutils | head -n 1
mkdir "out put/sub"
cp "input file" "out put/sub/copy"
"$BUILD/hv-glue/hv-img" create -f qcow2 "out put/disk.qcow2" 1M >&2
exit 7
EOF2
busybox_before=$(cksum <"$(command -v busybox)")
emulated --input "input file" --input script --input sort --output "out put" \
        --hugepages 20 --cpus 3 \
        env BUILD="$(cd "$build" && pwd)" sh script "one two" "it's" >out 2>err
status=$?
cat >expected <<END
kvm 0
$PWD
HugePages_Total:      20
3
one two,it's,
coreutils
END
check "a command has KVM and is told what it was told here" diff expected out
check "a program that comes in takes an applet's place there, and nothing's here" \
        [ "$busybox_before" = "$(cksum <"$(command -v busybox)")" ]
check "its status comes out" [ "$status" = 7 ]
check "its errors come out, apart" grep Formatting err
check "its files come out" cmp "input file" "out put/sub/copy"
check "the build's programs run in it" qemu-img check "out put/disk.qcow2"

check "a program that is not there is said so" \
        sh -c '! sh "$1" no-such-program-anywhere 2>err && grep no-such-program-anywhere err' \
        - "$tests/emulated/run.sh"

# The power is cut: what was flushed is on the disk, what was not is gone.
truncate -s 64M disk
mke2fs -q -F -t ext4 disk
cat >writer <<'EOF2'
echo 100000000 >/proc/sys/vm/dirty_expire_centisecs
mount -t ext4 /dev/vdb /mnt
echo lost >/mnt/not-flushed
count=0
while count=$((count + 1)); do
        echo "$count" >/mnt/flushed
        sync /mnt/flushed
        echo "$count"
done
EOF2
mkfifo lines
emulated --disk disk --pid-file pid --input writer sh writer >lines &
machine=$!
while read -r count; do
        printed=$count
        [ "$count" != 20 ] || kill -9 "$(cat pid)"
done <lines
wait "$machine"
check "a power cut is the machine's end" [ $? = 137 ]
e2fsck -p disk >/dev/null 2>&1
flushed=$(debugfs -R "cat /flushed" disk 2>/dev/null)
check "what was flushed is on the disk: $flushed, $printed was printed" \
        [ "$flushed" -ge "$printed" ]
check "what was not flushed is lost" [ -z "$(debugfs -R "cat /not-flushed" disk 2>/dev/null)" ]
done_testing
