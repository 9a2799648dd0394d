#!/bin/sh
# demo-machine.sh - demo.sh's part that needs KVM: hv with its built-in guest.
#
#   demo-machine.sh PROGRAMS DISK BOOT_ID
#
# Where hv, hv-img and hv-io are; a disk to be made; which machine demo.sh runs on.
#
# SPDX-License-Identifier: MIT
set -eu

programs=$1 disk=$2 boot_id=$3
limit=60
. "$(dirname "$0")/../tests/emulated/hypervisor.sh"

# Whole ones only: the last may be on its way.
rounds() { tr -d '\r' <"$serial" | grep ' ok, disk ok, .* us$'; }
last_line() { rounds | tail -n 1; }
last_round() { last_line | sed 's/^guest: round \([0-9]*\),.*/\1/' | grep . || echo 0; }
reached() { [ "$(last_round)" -ge "$1" ]; }
show_guest() { last_line | sed 's/^/   /'; }
show_answer() { answer | sed 's/^/   (qemu) info jobs: /'; }

# The guest's blocks are of 4 KiB; bytes 8 and 9 of each are the round that wrote it.
show_disk()
{
        "$programs/hv-io" -U -r -f qcow2 -c 'read -v 0 256k' "$disk" |
                awk '/^[0-9a-f]*000: / {
                        digits = "0123456789abcdef"
                        number = 0
                        for (i = 11; i >= 10; i--)
                                for (j = 1; j <= 2; j++)
                                        number = number * 16 + index(digits, substr($i, j, 1)) - 1
                        count[number]++
                }
                END {
                        line = ""
                        for (number in count)
                                line = line ", " count[number] " blocks of round " number
                        print "   disk: " substr(line, 3)
                }'
}

# Of lines on stdin the longest stalls, in milliseconds.
longest()
{
        sed 's|.*longest i/o \([0-9]*\) us, longest cpu stall \([0-9]*\) us$|\1 \2|' |
                awk '{ if ($1 > io) io = $1; if ($2 > cpu) cpu = $2 }
                END { printf "I/O %.1f ms, CPU %.1f ms\n", io / 1000, cpu / 1000 }'
}

"$programs/hv-img" create -q -f qcow2 "$disk" 64M
where="this machine's KVM"
[ "$boot_id" = "$(cat /proc/sys/kernel/random/boot_id)" ] ||
        where="KVM in an emulated machine (/dev/kvm does not open here)"
echo "1. hv runs its built-in guest on $where; it writes memory and disk in rounds"
power_on "$programs/hv" -m 64M -drive "file=$disk,format=qcow2" \
        -append "ram=4M blocks=64 rate=10" -monitor stdio
await reached 20
show_guest

echo "2. savevm while it runs"
usual=$(rounds | tail -n 10 | longest)
before=$(last_round)
command "savevm before"
after=$(last_round)
await reached $((after + 1))
saving=$(rounds | awk -v from="$before" '$3 + 0 > from' | longest)
command "info jobs"
show_answer

echo "3. It goes on and overwrites both"
await reached $((before + 20))
command "stop"
show_guest
show_disk

# Whole lines since `begin`.
since() { tail -c +$((begin + 1)) "$serial" | tr -d '\r' | grep '^guest: round .* us$'; }
said() { [ "$(since | wc -l)" -ge "$1" ]; }

echo "4. loadvm"
command "loadvm before"
show_disk
from=$(last_round)
begin=$(position)
command "cont"
await said 3
echo "   the guest, which had said $from:"
since | head -n 1 | sed 's/^/   /'
again=$(since | head -n 1 | sed 's/^guest: round \([0-9]*\), ram ok, disk ok.*/\1/')
between "$again" "$before" $((after + 2)) || lost "the guest goes on from round $before: $again"

echo "5. loadvm and delvm while it runs"
begin=$(position)
command "loadvm before"
await said 3
loading=$(since | longest)
command "savevm second"
begin=$(position)
command "delvm second"
await said 3
deleting=$(since | longest)
command "info snapshots"
answer | sed 's/^/   /'
echo "   Longest stalls that the guest measured itself"
echo "      usual     $usual"
echo "      savevm    $saving"
echo "      loadvm    $loading"
echo "      delvm     $deleting"
power_off
