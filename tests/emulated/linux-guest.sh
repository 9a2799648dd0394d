#!/bin/sh
# linux-guest.sh - the Linux guest itself, under QEMU: what linux-savevm.sh expects of a
# hypervisor comes from there, and the guest notices what it is there to notice.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/emulated/guest.sh"

command -v qemu-system-x86_64 >/dev/null || skip_all "no qemu-system-x86_64"
sh "$tests/emulated/prepare.sh" >&2 || skip_all "no kernel for a guest"

image=$TMPDIR/disk.qcow2
initrd=$TMPDIR/guest.cpio
serial=$TMPDIR/serial
monitor=$TMPDIR/monitor

# The last whole line of the guest that says a round's number.
printed_round()
{
        sed -n 's/^guest: round \([0-9]*\) at .* disk ok.*/\1/p' "$serial" | tail -n 1 | grep . ||
                echo 0
}

# Waits until the guest has printed round $1; not for ever.
await_round()
{
        tries=3000
        while [ "$(printed_round)" -lt "$1" ] && [ "$tries" -gt 0 ]; do
                tries=$((tries - 1))
                sleep 0.1
        done
}

# Starts the guest; what it prints is in $serial.
power_on()
{
        : >"$serial"
        sh "$tests/emulated/guest-in-qemu.sh" "$build/emulated" "$initrd" "$image" "$@" \
                -serial "file:$serial" -monitor stdio <"$monitor" >"$TMPDIR/qemu.log" 2>&1 7>&- &
        machine=$!
}

power_cut()
{
        kill -9 "$machine"
        wait "$machine" 2>/dev/null
}

guest_says() { grep "guest: $1" "$serial" || { tail -n 5 "$serial"; false; }; }
is_at_least() { echo "$1, at least $2"; [ "$1" -ge "$2" ]; }

guest_initrd "$initrd"
mkfifo "$monitor"
exec 7<>"$monitor"

# Without a snapshot: power cut, next boot.
guest_image "$image"
power_on "rounds=1000000"
await_round 12
power_cut
printed=$(printed_round)
check "the guest counts" is_at_least "$printed" 12
power_on "rounds=$((printed + 10))"
wait "$machine"
disk_round=$(sed -n 's/^guest: the disk is of round \([0-9]*\).*/\1/p' "$serial")
check "what it printed before a power cut is on the disk" is_at_least "${disk_round:-0}" "$printed"
check "it goes on after a power cut" guest_says "done after round $((printed + 10))"
# QEMU leaks what it had allocated ahead of the cut.
qemu-img check -q -r leaks "$image"
check "it leaves a clean file system" guest_image_is_clean "$image"

# A disk that says something else than memory.  The guest overwrites the count in each round:
# what is written here must hit between that and the next look at it.
count_block=$(debugfs -R "blocks /data/count" "$image.raw" 2>/dev/null | tr -d ' ')
check "the count has one place on the disk: ${count_block:=0}" [ "$count_block" -gt 0 ]
power_on "rounds=1000000"
await_round $((printed + 15))
tries=200
while [ "$tries" -gt 0 ] && kill -0 "$machine" 2>/dev/null; do
        echo "qemu-io disk \"write -P 0 $((count_block * 4096)) 4096\"" >&7
        tries=$((tries - 1))
        sleep 0.1
done
[ "$tries" -gt 0 ] || power_cut
wait "$machine"
check "it notices a disk that is not of memory's moment" \
        guest_says "FAILED: /data/count is of round 0, not of"

# What is asked of hv, asked of a peer.
guest_image "$image"
sh "$tests/emulated/savevm-linux.sh" 60 \
        sh "$tests/emulated/guest-in-qemu.sh" "$build/emulated" "$initrd" "$image" "rounds=60" \
        -monitor stdio >"$TMPDIR/points" 7>&-
check "QEMU passes what is asked of hv" [ $? = 0 ]
savevm_points "$TMPDIR/points"
check "QEMU leaves a clean file system" guest_image_is_clean "$image"
done_testing
