#!/bin/sh
# hv.sh - hv's command line: what it says to what is wrong with it.  Needs no KVM.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

hv=$build/hv-glue/hv
cd "$TMPDIR" || exit 1
"$build/hv-glue/hv-img" create -q -f qcow2 disk.qcow2 16M

# refuses TEXT ARGUMENT...: it fails, and says TEXT in one line.
refuses()
{
        text=$1
        shift
        "$hv" "$@" >out 2>err </dev/null
        status=$?
        cat out err
        [ "$status" = 1 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] &&
                grep -q "^hv: " err && grep -qF -e "$text" err
}

# Every option of the help is known, and whoever takes an argument misses it.
help_is_true()
{
        "$hv" --help >help || return 1
        for option in m smp drive backing-dir kernel initrd append serial monitor qmp loadvm \
                      huge-pages pidfile; do
                grep -q "^  -$option [A-Za-z]" help || { echo "no -$option in the help"; return 1; }
                refuses "-$option needs an argument" "-$option" || return 1
        done
}
check "help says what there is" help_is_true
check "-help is --help" sh -c '"$1" -help | cmp - help' - "$hv"
check "--version names the driver" sh -c '"$1" --version | grep "block driver qcow2"' - "$hv"

check "an unknown option" refuses "-foo: no such option" -foo
check "a disk without -drive" refuses "disks are given by -drive" disk.qcow2
check "an option that takes no argument" refuses "takes no argument" --S=on
check "-m: no number" refuses "'lots' is no size" -m lots
check "-m: too little" refuses "from 8 MiB" -m 1M
check "-m: not whole MiB" refuses "whole MiB" -m 16385K
check "-smp 0" refuses "from 1 to 64" -smp 0
check "-smp 65" refuses "from 1 to 64" -smp 65
check "-drive without a file" refuses "file= is missing" -drive format=qcow2
check "-drive: no key=value" refuses "'disk.qcow2' is not key=value" -drive disk.qcow2
check "-drive: unknown key" refuses "'color' is unknown" -drive file=disk.qcow2,color=red
check "-drive: unknown format" refuses "must be qcow2 or raw" -drive file=disk.qcow2,format=vmdk
check "-drive: unknown cache mode" refuses "'cache=fast'" -drive file=disk.qcow2,cache=fast
check "-drive: long serial number" refuses "at most 20 bytes" \
        -drive file=disk.qcow2,serial=123456789012345678901
check "-drive: odd queue size" refuses "a power of 2" -drive file=disk.qcow2,queue-size=100
check "-drive: reads never lack space" refuses "'rerror=enospc'" \
        -drive file=disk.qcow2,rerror=enospc
check "-drive: the same id twice" refuses "two disks with id 'a'" \
        -drive file=disk.qcow2,id=a -drive file=disk.qcow2,id=a
check "-serial: nowhere" refuses "-serial: 'file:'" -serial file:
check "-monitor: a file" refuses "-monitor: 'file:x'" -monitor file:x
check "-qmp: the terminal" refuses "-qmp: 'stdio'" -qmp stdio
check "-initrd without a kernel" refuses "-initrd needs a -kernel" -initrd disk.qcow2
check "-kernel: no such file" refuses "No such file" -kernel nothing -serial none
check "-kernel: no kernel" refuses "neither a bzImage nor an ELF file" -serial none \
        -kernel disk.qcow2
check "-backing-dir: no such directory" refuses "nothing" -backing-dir nothing
check "a command line too long for anybody" refuses "a command line of" -serial none \
        -append "$(head -c 5000 /dev/zero | tr '\0' x)"

# waits_for_client SOCKET: hv listens there, as process $waiting.
waits_for_client()
{
        "$hv" -serial "unix:$1,server" -monitor none >out 2>err </dev/null &
        waiting=$!
        until grep -q "waiting for a client at '$1'" err; do
                kill -0 "$waiting" 2>/dev/null || { cat err; return 1; }
                sleep 0.1
        done
}

# A signal ends the waiting; what an hv that was killed leaves is in nobody's way.
serial_server()
{
        for signal in HUP TERM KILL; do
                waits_for_client serial.socket || return 1
                kill "-$signal" "$waiting"
                wait "$waiting"
                status=$?
                [ "$status" -gt 128 ] || { echo "SIG$signal: status $status"; return 1; }
        done
        [ -S serial.socket ]
}
check "-serial unix:PATH,server waits, and a signal ends that" serial_server
check "-serial unix:PATH,server: a file in the way" refuses "Address already in use" \
        -serial unix:disk.qcow2,server

if [ -e /dev/kvm ]; then
        skip "no /dev/kvm: how to get it" "there is one"
else
        check "no /dev/kvm: how to get it" refuses "modprobe kvm_intel" -serial none
fi
done_testing
