#!/bin/sh
# savevm-linux.sh - savevm, loadvm and a restart under a Linux guest that counts.
#
#   savevm-linux.sh LAST COMMAND...
#
# COMMAND starts the hypervisor with linux-guest.c's guest (rounds=LAST) on a qcow2 disk; a
# monitor on stdin and stdout, -serial and -loadvm are added here.  The guest itself sees in
# its next round whether memory and disk are of one moment; what is looked for here is that
# it goes on from the right one.  Runs where there is nothing but busybox.
#
# Prints "ok WHAT" or "not ok WHAT" for each thing that must hold.
#
# SPDX-License-Identifier: MIT
set -eu

last=$1
shift
. "$(dirname "$0")/hypervisor.sh"

# The rounds in whole lines from byte $1 on.  Around a load a line may be that of two
# moments in parts.
rounds()
{
        tail -c +"$(($1 + 1))" "$serial" | tr -d '\r' |
                sed -n 's/^guest: round \([0-9]*\) at [0-9.]* s, memory ok, disk ok$/\1/p'
}

# The same from where the guest, last known to be in round $2, went back.
rounds_again()
{
        rounds "$1" | awk -v last="$2" '$1 <= last { back = 1 } back { print } { last = $1 }'
}

last_round() { rounds 0 | tail -n 1 | grep . || echo 0; }
reached() { [ "$(last_round)" -ge "$1" ]; }
goes_on() { [ "$(rounds_again "$1" "$2" | wc -l)" -gt 5 ]; }
goes_on_meanwhile() { ! grep -qE 'guest (is stopped|waits)' "$dir/monitor"; }
is_done() { grep -q "guest: done after round $last" "$serial"; }

# From byte $1 on the guest, last known to be in round $2, counts from the moment of savevm
# again, and goes on well.  One line may have been lost at the load, one at the save.
hold_back_at_save()
{
        await goes_on "$1" "$2"
        again=$(rounds_again "$1" "$2" | head -n 1)
        hold "$3: back at round $again, saved between $before and $after" \
                between "$again" "$before" $((after + 2))
        hold "$3: goes on, memory and disk as one" goes_on "$1" "$2"
}

load()
{
        await reached $((after + 10))
        from=$(last_round)
        begin=$(position)
        command "loadvm a"
        hold_back_at_save "$begin" "$from" "$1"
}

power_on "$@"
await reached 8
before=$(last_round)
command "savevm a"
after=$(last_round)
await reached $((after + 3))
hold "savevm a: goes on after it" reached $((after + 3))
load "loadvm a"
load "loadvm a once more"
command "savevm b"
hold "the guest goes on while RAM is saved and loaded" goes_on_meanwhile
command "info snapshots"
hold "info snapshots lists a" grep -q ' a  ' "$dir/monitor"
hold "info snapshots lists b" grep -q ' b  ' "$dir/monitor"
power_off

power_on "$@" -loadvm a
hold_back_at_save 0 "$last" "-loadvm a in a new process"
command "delvm b"
await is_done
hold "the guest ends well after round $last" is_done
wait "$hypervisor" || lost "the hypervisor ends with its guest: status $?"
hypervisor=
echo "ok the hypervisor ends with its guest"
