#!/bin/sh
# savevm-builtin.sh - hv with its built-in guest: rounds of savevm, loadvm and delvm under I/O,
# the same by QMP, starts from snapshots, what must be refused, and a hostile guest.
#
#   savevm-builtin.sh ROUNDS HV HV_IMG DISK
#
# DISK is an empty qcow2 disk.  The guest never rests and verifies itself (vm/guest/guest.c);
# what is looked for here is that it goes on from the right round and that nothing grows.
# Needs nc.openbsd for the monitors' sockets.
#
# Prints "ok WHAT" or "not ok WHAT" for each thing that must hold.
#
# SPDX-License-Identifier: MIT
set -eu

limit=60
count=$1 hv=$2 hv_img=$3 disk=$4
. "$(dirname "$0")/hypervisor.sh"

machine="$hv -m 16M -drive file=$disk,format=qcow2,discard=unmap,id=disk"
options="ram=256K blocks=64"
warm=6                          # rounds after which nothing grows any more, but the allocator a bit

# The numbers of rounds whose lines are whole, in the serial line from byte $1 on.
round_numbers() { sed -n 's/^guest: round \([0-9]*\), ram ok, disk ok, .*/\1/p'; }
rounds() { printed "$1" | round_numbers; }
last_round() { tail -n 4 "$serial" | round_numbers | tail -n 1 | grep . || echo 0; }
reached() { [ "$(last_round)" -ge "$1" ]; }
# Since byte $1 of the serial line the guest is back at savevm's moment, and goes on.
is_back()
{
        rounds "$1" | awk -v before="$before" -v after="$after" '
                back && $1 == last + 1 { going = 1 }
                $1 <= after { if (!back) first = $1; back = 1 }
                { last = $1 }
                END { exit !(going && first > before) }'
}
no_bad() { ! grep -e BAD -e FAILED "$serial"; }
no_errors() { ! grep Error "$dir/monitor"; }
file_kib() { du -k "$disk" | cut -f 1; }
memory_kib() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$hypervisor/status"; }
descriptors() { ls "/proc/$hypervisor/fd" | wc -l; }
is_within() { echo "$1, at most $2"; [ "$1" -le "$2" ]; }

# save COMMAND...: takes a snapshot; the guest goes on for some rounds, which overwrite all.
# A load of it goes back to a moment after round $before; up to $after, since a line that was
# being printed is lost.
save()
{
        before=$(last_round)
        "$@"
        after=$(($(last_round) + 2))
        await reached $((after + 1))
}

# load COMMAND...: takes the machine back.
load()
{
        begin=$(position)
        "$@"
        await is_back "$begin"
}

# qmp_job ID COMMAND [ARGUMENTS]: a job that ends well.
qmp_job()
{
        qmp "$2" "\"job-id\": \"$1\", \"tag\": \"q\", \"devices\": [\"disk\"]${3-}"
        await qmp_says JOB_STATUS_CHANGE '"concluded"' "\"id\": \"$1\""
        qmp query-jobs
        hold "QMP: $2 ends well" no_job_failed
        qmp job-dismiss "\"id\": \"$1\""
}
no_job_failed() { grep -q '"concluded"' "$dir/reply" && ! grep '"error"' "$dir/reply"; }

# refused TEXT ARGUMENT...: hv does not start, and says TEXT.
refused()
{
        text=$1
        shift
        status=0
        timeout 60 $machine -serial none -monitor none "$@" 2>"$dir/said" || status=$?
        cat "$dir/said"
        [ "$status" = 1 ] && grep -q "$text" "$dir/said"
}

# Ends well by itself, having said $1.
hold_end()
{
        await grep -q "$1" "$serial"
        status=0
        wait "$hypervisor" || status=$?
        hypervisor=
        hold "$2: '$1', and hv ends well" [ "$status" = 0 ]
}

# ---- Rounds ------------------------------------------------------------------------------

power_on_socket $machine -append "$options" -qmp "unix:$dir/qmp"
await reached 2
round=0
while [ $((round += 1)) -le "$count" ]; do
        save command "savevm a"
        load command "loadvm a"
        command "delvm a"
        if [ "$round" = "$warm" ]; then
                file_before=$(file_kib) memory_before=$(memory_kib)
                descriptors_before=$(descriptors)
        fi
done
hold "$count times savevm, loadvm, delvm: each goes back, and on" [ "$round" -gt "$count" ]
hold "memory and disk were of one moment, always" no_bad
hold "the monitor on a socket reports no error" no_errors
hold "the image does not grow" is_within "$(file_kib)" $((file_before + 512))
hold "the process does not grow" is_within "$(memory_kib)" $((memory_before + 4096))
hold "no descriptor is left" [ "$(descriptors)" = "$descriptors_before" ]

# A vcpu that has not yet noticed that it may run is asked to stop again.
stop_and_cont() { seq 100 | sed 's/.*/stop\ncont/'; }
command "$(stop_and_cont)"
hold "100 times stop and cont, one behind the other" no_errors
from=$(last_round)
await reached $((from + 2))
hold "behind that the guest goes on" no_bad

# ---- The same by QMP ---------------------------------------------------------------------

qmp_open
save qmp_job save snapshot-save ', "vmstate": "disk"'
load qmp_job load snapshot-load ', "vmstate": "disk"'
hold "QMP: the guest is back, memory and disk as one" no_bad
qmp snapshot-save '"job-id": "again", "tag": "q", "vmstate": "disk", "devices": ["disk"]'
await qmp_says JOB_STATUS_CHANGE '"concluded"' '"again"'
qmp query-jobs
hold "QMP: snapshot-save does not replace" grep -q "'q' already exists" "$dir/reply"
qmp job-dismiss '"id": "again"'
qmp_job delete snapshot-delete
qmp query-status
hold "QMP: the guest runs" grep -q '"running": true' "$dir/reply"

# ---- One process, then another -----------------------------------------------------------

command "system_reset"
await grep -q 'the disk is of round [1-9]' "$serial"
from=$(last_round)
await reached $((from + 2))
hold "system_reset: it begins anew with the disk it has" no_bad
save command "savevm z"
save command "savevm z"
hold "savevm replaces a snapshot" no_errors
power_off
hold "QMP: quit is told" grep -q '"event": "SHUTDOWN"' "$dir/qmp.said"

power_on $machine -append "$options" -loadvm z -monitor stdio
await is_back 0
hold "-loadvm z: back at round $(rounds 0 | head -n 1), saved between $before and $after" \
        between "$(rounds 0 | head -n 1)" "$before" "$after"
hold "-loadvm z: goes on, memory and disk as one" no_bad
hold "-loadvm z: it did not begin anew" sh -c '! grep hello "$1"' - "$serial"
power_off

hold "-loadvm of what is not there is refused" \
        refused "Snapshot 'nix' does not exist" -loadvm nix
"$hv_img" snapshot -c loadvm-unfinished:z "$disk"
hold "disks that a loadvm left halfway are refused" \
        refused "loadvm of 'z' was interrupted" -append "$options"
power_on $machine -append "$options" -loadvm z -monitor stdio
await is_back 0
command "delvm z"
command "info snapshots"
hold "repeating that loadvm mends it" grep -q "There is no snapshot available" "$dir/monitor"
power_off

# ---- Guests that end ---------------------------------------------------------------------

power_on $machine,cache=none -smp 2 -append "$options rounds=2" -monitor none
hold_end "done: power off" "the guest powers off"
power_on $machine -append hostile -monitor none
hold_end "hostile: 26 cases, 26 refused" "a hostile guest"
