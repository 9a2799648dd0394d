#!/bin/sh
# builtin-guest.sh - hv with the guest that is built in: it runs, goes back, and its disk is
# sound; a hostile one harms nobody.  On this machine's KVM where there is one.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/emulated/guest.sh"

build=$(cd "$build" && pwd)
hv=$build/hv-glue/hv
command -v qemu-system-x86_64 >/dev/null || skip_all "no qemu-system-x86_64"
sh "$tests/emulated/prepare.sh" >&2 || skip_all "no kernel for the machine"
cd "$TMPDIR" || exit 1

# Runs within the machine, where there is nothing but busybox.  Prints "ok WHAT" or "not ok
# WHAT" for each thing that must hold.
cat >scenario <<'END'
hv=$1
serial=out/serial
hold()
{
        what=$1
        shift
        if "$@"; then
                echo "ok $what"
        else
                echo "not ok $what"
                tail -n 12 "$serial" monitor | sed 's/^/# /'
        fi
}
rounds() { grep -c 'ram ok, disk ok' "$serial"; }
last() { sed -n 's/^guest: round \([0-9]*\), ram ok.*/\1/p' "$serial" | tail -n 1; }
says() { grep -q "$1" "$serial"; }
# Waits for a condition, not for ever.
await()
{
        tries=1200
        until "$@"; do
                tries=$((tries - 1))
                [ "$tries" -gt 0 ] || return 1
                sleep 0.1
        done
}
more_than() { [ "$(rounds)" -gt "$1" ]; }
answered() { [ "$(grep -c 'VM status: running' monitor)" -ge "$answers" ]; }
# The monitor answers in order: the answer to "info status" ends what came before.
command()
{
        answers=$((answers + 1))
        printf '%s\ninfo status\n' "$1" >&7
        await answered
}
power_on()
{
        rm -f monitor.in
        mkfifo monitor.in
        : >"$serial"
        answers=0
        exec 7<>monitor.in
        "$hv" -m 32M -drive file=out/disk.qcow2,discard=unmap -append "ram=1M blocks=64" \
                -serial "file:$serial" -monitor stdio "$@" <monitor.in >monitor 2>&1 7>&- &
        pid=$!
}
power_off()
{
        echo quit >&7
        wait "$pid"
}
goes_on() { seen=$(rounds); await more_than $((seen + 2)); }
went_back() { grep 'ram ok' "$serial" | awk '{ n = $3 + 0; if (n < last) back = 1; last = n }
                                             END { exit !back }'; }

power_on
hold "it counts" await more_than 2
command "savevm a"
hold "savevm: it goes on" goes_on
command "loadvm a"
hold "loadvm: it goes on, memory and disk as one" goes_on
hold "loadvm: it went back" went_back
command "system_reset"
hold "system_reset: it begins anew with the disk it has" await says "the disk is of round [1-9]"
hold "system_reset: it goes on" goes_on
command "stop"
hold "quit ends hv well" power_off

power_on -loadvm a
hold "-loadvm a: it goes on in a new process" goes_on
hold "-loadvm a: it did not begin anew" sh -c '! grep -q hello "$1"' - "$serial"
command "delvm a"
hold "quit ends the new hv well" power_off

"$hv" -m 32M -smp 2 -drive file=out/disk.qcow2,cache=none -append "rounds=2" -serial stdio \
        -monitor none >"$serial" 2>&1
hold "the guest's power-off ends hv well" [ $? = 0 ]
hold "it says so" says "done: power off"
"$hv" -m 32M -drive file=out/disk.qcow2 -append hostile -serial stdio -monitor none \
        >"$serial" 2>&1
hold "a hostile guest does hv no harm" [ $? = 0 ]
hold "all that it tried was refused" says "hostile: 26 cases, 26 refused"
END

"$build/hv-glue/hv-img" create -q -f qcow2 disk.qcow2 64M
echo 'mkdir -p out; cp disk.qcow2 out/; exec sh scenario "$@"' >start
sh "$tests/emulated/run.sh" --build "$build" --timeout 500 --prefer-host --output out \
        --input disk.qcow2 --input scenario --input start sh start "$hv" >points
check "the scenario runs to its end" [ $? = 0 ]
savevm_points points
check "its disk is clean" qemu-img check out/disk.qcow2
done_testing
