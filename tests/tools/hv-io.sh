#!/bin/sh
# hv-io.sh - hv-io and qemu-io, the same commands on copies of the same image:
# the same output (but for times and rates), the same exit status, the same disk.
#
#   HV_IO_FORMAT=raw   run what does not need qcow2, on raw files
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

command -v qemu-io >/dev/null || skip_all "no qemu-io"

hv_io=$(cd "$build" && pwd)/hv-glue/hv-io
format=${HV_IO_FORMAT:-qcow2}
work=$(mktemp -d)
trap 'rm -rf "$work" "$tap_output"' EXIT
cd "$work" || exit 1

# Times, rates, summaries of commands and the program's name are no part of it.
normalise()
{
        sed -e 's/\(ops\); .*/\1/' -e 's/\(\] off len.*\) -- .*/\1/' \
                -e 's/^\([0-9]*,[0-9]*\),.*/\1/' -e 's/^hv-io:/qemu-io:/' -e "$peer_age"
}

# What an older qemu-io has not: read -r, of which only the summary tells.
peer_age=
qemu-io -c 'help read' | grep -q -e -abCqrv || peer_age='s/-abCqrv/-abCqv/'

# run_both [OPTION]... [-c COMMAND]...: on copies of base.img, leaving *.out, *.err
# and in $ours and $theirs the exit statuses.
run_both()
{
        cp base.img ours.img
        cp base.img theirs.img
        "$hv_io" -f "$format" "$@" ours.img >ours.raw 2>ours.rawerr </dev/null
        ours=$?
        qemu-io -f "$format" "$@" theirs.img >theirs.raw 2>theirs.rawerr </dev/null
        theirs=$?
        for who in ours theirs; do
                normalise <$who.raw >$who.out
                normalise <$who.rawerr >$who.err
        done
}

# Both said the same, with the same status, and left the same disk.
same_effect()
{
        diff -u theirs.out ours.out || return
        diff -u theirs.err ours.err || return
        if [ $ours != $theirs ]; then
                echo "exit status $ours, qemu-io's $theirs"
                return 1
        fi
        qemu-img compare -q -f "$format" -F "$format" ours.img theirs.img || return
        [ "$format" != qcow2 ] || qemu-img check -q -f qcow2 ours.img
}

compare()
{
        run_both "$@"
        same_effect
}

# The order of lines is left open.
compare_sorted()
{
        run_both "$@"
        sort -o ours.out ours.out
        sort -o theirs.out theirs.out
        same_effect
}

# Texts of errors from below differ.
compare_without_errors()
{
        run_both "$@"
        : >ours.err
        : >theirs.err
        same_effect
}

same()
{
        name=$1
        shift
        check "$name" compare "$@"
}

same_sorted()
{
        name=$1
        shift
        check "$name" compare_sorted "$@"
}

same_but_errors()
{
        name=$1
        shift
        check "$name" compare_without_errors "$@"
}

new_image()     # qemu-img create's arguments
{
        rm -f base.img
        qemu-img create -q -f "$format" "$@" || exit 1
}

basics()
{
        same "read of zeros" -c 'read 0 64k' -c 'read -P 0 512 1M' -c 'read -C 0 4k' \
                -c 'read -q 0 1'
        same "write and read back" -c 'write -P 0xab 0 64k' -c 'read -P 0xab 0 64k' \
                -c 'read -P 0 0 64k' -c 'write 65k 3k' -c 'read -v 66500 100'
        same "pattern ranges" -c 'write -P 1 4k 4k' -c 'read -P 1 -s 4k -l 4k 0 12k' \
                -c 'read -P 1 -s 4k 0 8k' -c 'read -P 1 -l 4k 4k 8k' -c 'read -P 1 -l 4k 0 8k' \
                -c 'read -P 1 -s 4k -l 8k 0 8k' -c 'read -s 4k 0 8k'
        same "sizes with suffixes" -c 'write 1.5k 0x200' -c 'write 1k 1.5k' -c 'read 1m 64K' \
                -c 'write 0 10x' -c 'write 0 99999999999999999999' -c 'read x 5' -c 'read 0 zz' \
                -c 'read 0 512b'
        same "write zeroes" -c 'write -P 3 0 256k' -c 'write -z 64k 64k' -c 'write -z -u 128k 64k' \
                -c 'read -P 0 64k 128k' -c 'write -z -f 1k 512' -c 'read -P 3 2k 62k'
        same "force unit access" -c 'write -f -P 5 0 64k' -c 'writev -f 64k 1k 2k' -c flush
        same "vectors" -c 'writev 0 512 1k 3' -c 'readv -v 0 1 2 3' -c 'writev -P 7 3 5 8k' \
                -c 'readv -P 7 3 5 8k' -c 'readv -P 8 3 5 8k' -c 'writev -q 0 1' -c 'writev 0 0'
        same "from a file" -c 'write -s pattern.txt 0 1000' -c 'read -v 0 64' \
                -c 'write -s nofile 0 512' -c 'write -s pattern.txt -P 3 0 512'
        same "discard" -c 'write -P 9 0 192k' -c 'discard 64k 64k' -c 'read -P 9 0 64k' \
                -c 'read -P 9 128k 64k' -c 'discard -q 0 64k' -c 'discard -C 0 64k' -c 'discard 0'
        same "length and truncate" -c length -c 'truncate 3M' -c length -c 'read -P 0 1M 2M' \
                -c 'truncate 512k' -c length -c 'truncate -m bogus 1M'
        same_sorted "asynchronous" -c 'aio_write -P 4 0 64k' -c 'aio_write -P 5 128k 1k 1k' \
                -c 'aio_write -z -u 256k 64k' -c aio_flush -c 'aio_read -P 4 0 64k' \
                -c 'aio_read -P 9 128k 512' -c 'aio_read -q 0 1' -c aio_flush
        same_sorted "asynchronous, wrong use" -c 'aio_write -z 0 1 1' -c 'aio_read -i 0 512' \
                -c 'aio_write -i 0 512' -c 'aio_write -u 0 512' -c 'aio_write 4M 512' -c aio_flush
        same "beyond the end" -c 'write 2M 512' -c 'read 1M 512' -c 'discard 512k 1M' \
                -c 'write 1048064 1k' -c 'write -z 1M 1'
        same "no more than 2 GiB" -c 'write 0 4G' -c 'read 0 4G' -c 'discard 0 4G'
        same "wrong flags" -c 'write -P 300 0 512' -c 'write -P xx 0 512' -c 'write -u 0 512' \
                -c 'write -n 0 512' -c 'write -z -P 1 0 512' -c 'write -b -z 0 512'
        same "wrong counts" -c 'read 0' -c bogus -c 'flush 1' -c truncate -c alloc -c sleep \
                -c 'sleep x' -c 'discard 0' -c 'help nope'
        same "close and open" -c close -c length -c "open -o driver=$format other.img" -c length
        same "reopen" -c 'write -P 6 0 64k' -c 'reopen -r' -c 'read -P 6 0 64k' -c 'reopen -w' \
                -c 'write 0 512' -c 'reopen -r -w'
        same "read-only" -r -c 'read 0 512' -c 'write 0 512' -c length
        same_but_errors "no such file" -c close -c 'open nothere' -c length
        same "caches" -t none -c 'write 4k 4k' -c 'read -P 0xcd 4k 4k'
        same "sigraise" -c 'sigraise 0' -c 'sleep 1'
}

qcow2_only()
{
        same "allocation" -c 'write 0 64k' -c 'write 192k 64k' -c 'alloc 0' -c 'alloc 0 1M' -c map \
                -c 'alloc 0 2M' -c 'alloc 1' -c 'alloc 64k 64k' -c 'alloc 0 0' -c 'alloc 0 x'
        same "compressed" -c 'write -c -P 2 64k 64k' -c 'read -P 2 64k 64k' -c 'write -c 0 512' \
                -c 'write -c 1 1' -c map
        same "VM state" -c 'write -b -P 7 0 4k' -c 'read -b -P 7 0 4k' -c 'write -b 1 7' \
                -c 'read -b -P 7 0 512'
        same "info" -c info
        same_but_errors "bad option" -c close -c 'open -o driver=qcow2,no-such=1 other.img'
        new_image -o compat=0.10,cluster_size=4k base.img 1M
        same "info, version 2" -c info -c 'write 5k 1k' -c map
        new_image -o lazy_refcounts=on,refcount_bits=1 base.img 1M
        same "info, lazy refcounts" -c info
        qemu-img create -q -f qcow2 back.img 512k
        qemu-io -f qcow2 -c 'write -P 8 0 256k' back.img >/dev/null
        new_image -b back.img -F qcow2 base.img 1M
        same "backing file" -c 'read -P 8 0 256k' -c 'write -P 1 64k 512' -c 'read -P 8 66k 62k' \
                -c 'read -P 0 512k 512k' -c map -c 'alloc 0 1M' -c 'write -z 0 64k' \
                -c 'read -P 0 0 64k'
}

# What differs from qemu-io on purpose, or does not exist there.
reads_standard_input()
{
        cp base.img ours.img
        printf 'length\nbogus\n\n  read   -P  0   0  512  \nquit\nlength\n' |
                "$hv_io" -f "$format" ours.img 2>err.txt | normalise >out.txt
        printf '1 MiB\nread 512/512 bytes at offset 0\n512 bytes, 1 ops\n' | diff - out.txt &&
                grep 'command "bogus" not found' err.txt
}

fails_by_standard_input()
{
        ! echo 'read -P 1 0 512' | "$hv_io" -f "$format" base.img
}

quits_early()
{
        "$hv_io" -f "$format" -c 'read -P 1 0 512' -c quit -c bogus base.img 2>err.txt
        [ $? = 1 ] && [ ! -s err.txt ]
}

# Names of commands that a help text on stdin lists.
command_names()
{
        sed -n 's/ .*-- .*//p' | sort
}

helps_for_each()
{
        "$hv_io" -c help | command_names | while read -r command; do
                "$hv_io" -c "help $command" | grep -q "^$command " || echo "$command"
        done >missing.txt
        cat missing.txt
        [ ! -s missing.txt ]
}

has_all_commands()
{
        qemu-io -c help | command_names | grep -v -e '^zone_' -e break -e '^resume' >theirs.txt
        "$hv_io" -c help | command_names | comm -13 - theirs.txt >missing.txt
        cat missing.txt
        [ ! -s missing.txt ]
}

helps_and_tells_version()
{
        "$hv_io" --help | grep '^Usage: hv-io' && "$hv_io" -V
}

# refuses TEXT ARGUMENT...: fails, and says TEXT.
refuses()
{
        text=$1
        shift
        "$hv_io" "$@" >out.txt 2>&1
        [ $? = 1 ] && grep -- "$text" out.txt && return
        cat out.txt
        return 1
}

ours_only()
{
        check "commands from standard input, no prompt in a pipe" reads_standard_input
        check "a failed command from standard input gives status 1" fails_by_standard_input
        check "quit ends the list of commands and keeps the status" quits_early
        check "help knows every command that it lists" helps_for_each
        check "every command of qemu-io's is there" has_all_commands
        check "--help and --version" helps_and_tells_version
        check "an unknown format is named" refuses nosuch -f nosuch -c length base.img
        check "an unknown option is refused" refuses Usage -Z base.img
        check "an unknown cache mode is refused" refuses 'Invalid cache option' -t fast base.img
        check "two files are refused" refuses Usage a b
}

makes_snapshots()
{
        "$hv_io" -f qcow2 -c 'write -q -P 1 0 64k' -c 'snapshot -c one' -c 'write -q -P 2 0 64k' \
                -c 'write -q -b -P 3 0 4k' -c 'snapshot -c two -s 4k' -c 'write -q -P 4 0 64k' \
                -c 'snapshot -l' base.img >out.txt || return
        printf '1\tone\tdisk 1048576\tvmstate 0\n2\ttwo\tdisk 1048576\tvmstate 4096\n' |
                diff - out.txt
}

reads_deleted()
{
        cp base.img copy.img
        "$hv_io" -f qcow2 -c 'snapshot -o two' -c 'snapshot -d two' -c 'write -q -P 6 0 64k' \
                -c 'read -q -S -P 2 0 64k' -c 'read -q -S -b -P 3 0 4k' -c check \
                -c 'snapshot -x' -c check copy.img && qemu-img check -q copy.img
}

repairs_deleted()
{
        cp base.img copy.img
        "$hv_io" -f qcow2 -c 'snapshot -o two' -c 'snapshot -d two' -c abort copy.img
        # The kernel closes a dead ring's files, and with them the locks, a moment later.
        tries=50
        while status=0 && { qemu-img check -q copy.img || status=$?; } && [ $status = 1 ] &&
                [ $((tries -= 1)) -gt 0 ]; do
                sleep 0.1
        done
        [ $status = 3 ] || return                       # what was read has leaked
        "$hv_io" -f qcow2 -c 'write -q -P 7 0 64k' -c check copy.img &&
                qemu-img check -q copy.img
}

deletes_snapshots()
{
        "$hv_io" -f qcow2 -c 'snapshot -d one' -c 'snapshot -d two' -c 'snapshot -l' base.img \
                >out.txt && [ ! -s out.txt ] && qemu-img check -q base.img
}

snapshots()
{
        check "snapshot -c and -l" makes_snapshots
        check "snapshot -a by name and by id" \
                "$hv_io" -f qcow2 -c 'snapshot -a one' -c 'read -q -P 1 0 64k' -c 'snapshot -a 2' \
                -c 'read -q -P 2 0 64k' -c 'read -q -b -P 3 0 4k' -c check base.img
        check "snapshot -b reads a snapshot's VM state, the disk stays" \
                "$hv_io" -f qcow2 -c 'write -q -P 4 0 64k' -c 'snapshot -b two' \
                -c 'read -q -b -P 3 0 4k' -c 'read -q -P 4 0 64k' -c 'snapshot -b 1' \
                -c 'read -q -b -P 0 0 4k' base.img
        check "snapshot -b of none" refuses "snapshot 'no' not found" -f qcow2 \
                -c 'snapshot -b no' base.img
        check "snapshot -t shows a snapshot" \
                "$hv_io" -f qcow2 -r -c 'snapshot -t one' -c 'read -q -P 1 0 64k' base.img
        check "snapshot -o reads a snapshot beside the disk" \
                "$hv_io" -f qcow2 -c 'snapshot -o two' -c 'write -q -P 5 0 64k' \
                -c 'read -q -S -P 2 0 64k' -c 'read -q -S -b -P 3 0 4k' -c 'read -q -P 5 0 64k' \
                -c 'snapshot -o 1' -c 'read -q -S -P 1 0 64k' -c 'read -q -S -b -P 0 0 4k' \
                -c 'snapshot -x' base.img
        check "snapshot -o of none" refuses "snapshot 'no' not found" -f qcow2 \
                -c 'snapshot -o no' base.img
        check "read -S beyond its disk" refuses 'read failed' -f qcow2 -c 'snapshot -o one' \
                -c 'read -S 1M 512' base.img
        check "read -S without a snapshot" refuses 'no snapshot is open' -f qcow2 \
                -c 'read -S 0 512' base.img
        check "a snapshot is read on when it is deleted" reads_deleted
        check "a crash while a deleted snapshot is read is repaired" repairs_deleted
        check "snapshot -d takes no id" refuses . -f qcow2 -c 'snapshot -d 1' base.img
        check "snapshot -d" deletes_snapshots
}

hands_over()
{
        "$hv_io" -f qcow2 -c 'write -q -P 1 0 64k' -c inactivate -c 'write -q 0 64k' base.img
        [ $? = 1 ] || return
        "$hv_io" -f qcow2 -c inactivate -c activate -c 'read -q -P 1 0 64k' \
                -c 'write -q -P 2 0 64k' -c 'status 0 64k' -c operations base.img &&
                qemu-img check -q base.img
}

printf 'hello world\n' >pattern.txt
qemu-img create -q -f "$format" other.img 2M || exit 1
new_image base.img 1M
basics
[ "$format" != qcow2 ] || qcow2_only
new_image base.img 1M
ours_only
if [ "$format" = qcow2 ]; then
        snapshots
        check "inactivate and activate" hands_over
fi
done_testing
