#!/bin/sh
# snapshots.sh - snapshots made by one side, used and deleted by the other.
#
# qemu-img makes no VM state.  What savevm does is done by hand: qemu-io writes the
# state behind the disk, qemu-img takes the snapshot, and its entry gets the size.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/interop/images.sh"

# size_vm_state FILE BYTES: into the only snapshot's entry, both fields.
size_vm_state()
{
        table=$(number "$1" 64 8)
        poke "$1" $((table + 32)) "$(printf %08x "$2")"
        poke "$1" $((table + 40)) "$(printf %016x "$2")"
}

ours_to_theirs()
{
        create a.qcow2 4M "$1"
        ours a.qcow2 'write -q -P 1 0 1M' 'write -q -b -P 11 0 100k' 'snapshot -c one -s 100k' \
                'write -q -P 2 512k 1M' 'snapshot -c two' 'write -q -P 3 0 4M' \
                'write -q -b -P 13 0 4k' 'snapshot -c three -s 4k' 'discard -q 0 4M' || return
        clean a.qcow2 || return
        [ "$(names a.qcow2 | tr '\n' ' ')" = "one two three " ] || return
        qemu-img snapshot -l a.qcow2 | grep '^1 .*one .*100 KiB' || return
        qemu-img snapshot -a one a.qcow2 || return
        theirs a.qcow2 'read -P 1 0 1M' 'read -P 0 1M 3M' 'read -b -P 11 0 100k' || return
        qemu-img snapshot -d one a.qcow2 && clean a.qcow2 || return
        qemu-img snapshot -a 2 a.qcow2 || return
        theirs a.qcow2 'read -P 1 0 512k' 'read -P 2 512k 1M' 'read -P 0 1536k 2560k' || return
        qemu-img snapshot -a three a.qcow2 || return
        theirs a.qcow2 'read -P 3 0 4M' 'read -b -P 13 0 4k' || return
        qemu-img snapshot -d two a.qcow2 && qemu-img snapshot -d three a.qcow2 && clean a.qcow2
}

theirs_to_ours()
{
        create a.qcow2 4M "$1"
        theirs a.qcow2 'write -q -P 1 0 1M' 'write -q -b -P 11 0 100k' || return
        qemu-img snapshot -c one a.qcow2 && size_vm_state a.qcow2 102400 && clean a.qcow2 || return
        theirs a.qcow2 'write -q -P 2 512k 1M' || return
        qemu-img snapshot -c two a.qcow2
        ours a.qcow2 'read -q -P 2 512k 1M' 'write -q -P 3 0 4M' 'snapshot -a one' \
                'read -q -P 1 0 1M' 'read -q -P 0 1M 3M' 'read -q -b -P 11 0 100k' \
                'read -q -b -P 0 100k 100k' || return
        clean a.qcow2 || return
        "$hv_io" -r -f qcow2 -c 'snapshot -t two' -c 'read -q -P 2 512k 1M' -c 'snapshot -t one' \
                -c 'read -q -b -P 11 0 100k' a.qcow2 || return
        ours a.qcow2 'snapshot -d one' 'snapshot -a 2' 'read -q -P 1 0 512k' \
                'read -q -P 2 512k 1M' 'write -q -P 4 0 64k' || return
        clean a.qcow2 || return
        ours a.qcow2 'snapshot -d two' 'read -q -P 4 0 64k' 'read -q -P 1 64k 448k' &&
                clean a.qcow2
}

# Each side deletes in the middle of the other's.
in_turns()
{
        create a.qcow2 1M "$1"
        for i in 1 2 3 4 5 6; do
                if [ $((i % 2)) = 0 ]; then
                        ours a.qcow2 "write -q -P $i 0 64k" "snapshot -c s$i" || return
                else
                        theirs a.qcow2 "write -q -P $i 0 64k" || return
                        qemu-img snapshot -c s$i a.qcow2 || return
                fi
        done
        qemu-img snapshot -d s2 a.qcow2 && ours a.qcow2 'snapshot -d s5' 'snapshot -d s1' || return
        clean a.qcow2 || return
        [ "$(names a.qcow2 | tr '\n' ' ')" = "s3 s4 s6 " ] || return
        ours a.qcow2 'snapshot -c s7' 'snapshot -l' | grep -q '^7' || return
        for i in 3 4 6; do
                ours a.qcow2 "snapshot -a s$i" "read -P $i 0 64k" || return
                qemu-img snapshot -a s$i a.qcow2 && theirs a.qcow2 "read -P $i 0 64k" || return
        done
        clean a.qcow2
}

other_sizes()
{
        create a.qcow2 1M
        ours a.qcow2 'write -q -P 1 0 1M' 'snapshot -c small' 'truncate 3M' 'write -q -P 2 2M 1M' \
                'snapshot -c large' 'truncate 512k' || return
        clean a.qcow2 || return
        cp a.qcow2 b.qcow2
        ours a.qcow2 'snapshot -a large' length 'read -q -P 2 2M 1M' 'read -q -P 0 1M 1M' \
                'snapshot -a small' length 'read -q -P 1 0 1M' 'truncate 3M' 'read -q -P 0 1M 2M' \
                >said.txt || { cat said.txt; return 1; }
        cat said.txt
        [ "$(tr '\n' ' ' <said.txt)" = "3 MiB 1 MiB " ] && clean a.qcow2 || return
        qemu-img snapshot -a large b.qcow2 &&
                theirs b.qcow2 'read -q -P 2 2M 1M' 'read -q -P 0 1M 1M' || return
        qemu-img snapshot -a small b.qcow2 && theirs b.qcow2 'read -q -P 1 0 1M' && clean b.qcow2
}

# Resizing below a snapshot cannot happen there, so the header is changed by hand.
version_2_size()
{
        create a.qcow2 1M compat=0.10
        ours a.qcow2 'write -q -P 1 0 64k' 'snapshot -c one' || return
        fails 'version 2|snapshot' ours a.qcow2 'truncate 2M' || return
        poke a.qcow2 24 0000000000200000
        fails . ours a.qcow2 'snapshot -a one' || return
        ours a.qcow2 length 'read -q -P 1 0 64k' 'read -q -P 0 1M 1M' && clean a.qcow2
}

# overflows BITS MOST: so many references fit; one snapshot less than that.
overflows()
{
        for maker in ours theirs; do
                create a.qcow2 1M "refcount_bits=$1"
                theirs a.qcow2 'write -q -P 1 0 64k' || return
                i=1
                while [ $i -lt "$2" ]; do
                        if [ $maker = ours ]; then
                                ours a.qcow2 "snapshot -c s$i"
                        else
                                qemu-img snapshot -c "s$i" a.qcow2
                        fi || { echo "snapshot $i by $maker"; return 1; }
                        i=$((i + 1))
                done
                names a.qcow2 >before.txt
                fails 'refcount|reference|overflow|Invalid' ours a.qcow2 'snapshot -c more' ||
                        return
                clean a.qcow2 || return
                fails . qemu-img snapshot -c more a.qcow2 || return
                names a.qcow2 | diff before.txt - || return
                qemu-img check -q -r leaks a.qcow2      # qemu-img's own, of its failure
                ours a.qcow2 'read -q -P 1 0 64k' 'write -q -P 2 0 64k' 'read -q -P 2 0 64k' ||
                        return
                clean a.qcow2 || return
                for name in $(cat before.txt); do
                        ours a.qcow2 "snapshot -d $name" || return
                done
                ours a.qcow2 'read -q -P 2 0 64k' && clean a.qcow2 || return
        done
}

# refused snapshots with VM state leave none of it behind
overflow_with_state()
{
        create a.qcow2 1M refcount_bits=1
        fails . ours a.qcow2 'write -q -P 1 0 64k' 'write -q -b 0 1M' 'snapshot -c one -s 1M' &&
                clean a.qcow2 && [ -z "$(names a.qcow2)" ]
}

replaces()
{
        create a.qcow2 1M
        ours a.qcow2 'write -q -P 1 0 64k' 'snapshot -c one' 'snapshot -c two' \
                'write -q -P 2 0 64k' 'snapshot -c one -R' 'write -q -P 3 0 64k' || return
        clean a.qcow2 || return
        [ "$(names a.qcow2 | sort | tr '\n' ' ')" = "one two " ] || return
        qemu-img snapshot -a one a.qcow2 && theirs a.qcow2 'read -P 2 0 64k' || return
        ours a.qcow2 'snapshot -a two' 'read -P 1 0 64k'
}

by_name_only()
{
        create a.qcow2 1M
        ours a.qcow2 'write -q -P 1 0 64k' 'snapshot -c 2' 'write -q -P 2 0 64k' 'snapshot -c 1' ||
                return
        ours a.qcow2 'snapshot -a 1' 'read -q -P 1 0 64k' 'snapshot -a 2' 'read -q -P 2 0 64k' ||
                return
        ours a.qcow2 'snapshot -d 2' || return
        [ "$(qemu-img snapshot -l a.qcow2 | sed -n '3s/ .*//p')" = 2 ] || return
        fails 'not found|no such|does not exist|No such' ours a.qcow2 'snapshot -d 2' || return
        fails . ours a.qcow2 'snapshot -a none' && fails . ours a.qcow2 'snapshot -d none'
}

long_names()
{
        long=$(printf '%0255d' 7)
        create a.qcow2 1M
        ours a.qcow2 "snapshot -c $long" || return
        [ "$(names a.qcow2)" = "$long" ] && ours a.qcow2 "snapshot -a $long" || return
        qemu-img snapshot -d "$long" a.qcow2 && qemu-img snapshot -c "$long" a.qcow2 || return
        ours a.qcow2 'snapshot -l' | grep -q "$long" && ours a.qcow2 "snapshot -d $long" &&
                clean a.qcow2
}

# A backing file changes below: snapshots see through to it as the disk does.
with_backing()
{
        create base.qcow2 1M
        theirs base.qcow2 'write -q -P 9 0 512k'
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 2M
        ours a.qcow2 'snapshot -c empty' 'write -q -P 1 64k 64k' 'snapshot -c one' \
                'write -q -z 0 1M' 'snapshot -c zero' || return
        clean a.qcow2 || return
        qemu-img snapshot -a one a.qcow2 &&
                theirs a.qcow2 'read -P 9 0 64k' 'read -P 1 64k 64k' 'read -P 9 128k 384k' || return
        qemu-img snapshot -a zero a.qcow2 && theirs a.qcow2 'read -P 0 0 2M' || return
        ours a.qcow2 'snapshot -a empty' 'read -P 9 0 512k' 'read -P 0 512k 1536k' \
                'snapshot -d zero' 'snapshot -d one' && clean a.qcow2
}

for options in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M lazy_refcounts=on \
               refcount_bits=4 refcount_bits=64; do
        check "made by us, used by QEMU, $options" ours_to_theirs $options
        check "made by QEMU, used by us, $options" theirs_to_ours $options
        check "in turns, $options" in_turns $options
done
check "snapshots of other disk sizes" other_sizes
check "version 2: no way to another disk size" version_2_size
check "counts of 1 bit: no snapshot of what is not empty" overflows 1 1
check "counts of 2 bits: two snapshots" overflows 2 3
check "counts of 4 bits: fourteen snapshots" overflows 4 15
check "a refused snapshot leaves no VM state" overflow_with_state
check "replace by name" replaces
check "ids and names" by_name_only
check "names of 255 characters" long_names
check "snapshots above a backing file" with_backing
done_testing
