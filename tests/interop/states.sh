#!/bin/sh
# states.sh - images in special states: dirty, corrupt, with features and extensions
# that nobody knows, on a disk that is full.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/interop/images.sh"

dirty()
{
        [ $(($(number "$1" 72 8) & 1)) = 1 ]
}

# The peer dies with lazy refcounts in memory only.
make_dirty()
{
        create dirty.qcow2 1M lazy_refcounts=on
        (ulimit -c 0; theirs dirty.qcow2 'write -q -P 5 0 256k' flush abort) 2>/dev/null
        dirty dirty.qcow2
}

repairs_on_open()
{
        make_dirty || { echo "cannot make a dirty image"; return 1; }
        ! qemu-img check -q dirty.qcow2 2>/dev/null || { echo "nothing to repair"; return 1; }
        ours dirty.qcow2 'read -P 5 0 256k' || return
        ! dirty dirty.qcow2 && clean dirty.qcow2
}

reads_while_dirty()
{
        make_dirty || return
        cp dirty.qcow2 before.qcow2
        "$hv_io" -r -f qcow2 -c 'read -P 5 0 256k' dirty.qcow2 && cmp dirty.qcow2 before.qcow2
}

# The kernel ends a dead process's I/O, and with that its locks, a little after the process.
dies()
{
        (ulimit -c 0; ours "$@" abort) 2>/dev/null
        tries=0
        until commands 'qemu-io -r' "$1" 'length' >said.txt 2>&1; do
                tries=$((tries + 1))
                grep -q lock said.txt && [ $tries -lt 200 ] || return 0
        done
}

# We die, the peer repairs.
dies_dirty()
{
        create dirty.qcow2 1M lazy_refcounts=on
        dies dirty.qcow2 'write -q -P 6 0 256k' flush
        theirs dirty.qcow2 'read -P 6 0 256k' && clean dirty.qcow2
}

# Without lazy refcounts a crash may leak and no more, and what was flushed is there.
dies_flushed()
{
        create dead.qcow2 1M "$1"
        dies dead.qcow2 'write -q -P 6 0 256k' flush 'write -q 512k 64k'
        qemu-img check -r leaks dead.qcow2 >said.txt 2>&1
        cat said.txt
        theirs dead.qcow2 'read -P 6 0 256k' && clean dead.qcow2
}

closes_clean()
{
        create lazy.qcow2 1M lazy_refcounts=on
        ours lazy.qcow2 'write -q -P 6 0 256k' && ! dirty lazy.qcow2 && clean lazy.qcow2
}

corrupt_is_read_only()
{
        create corrupt.qcow2 1M
        theirs corrupt.qcow2 'write -q -P 5 0 64k'
        poke corrupt.qcow2 79 02
        cp corrupt.qcow2 before.qcow2
        fails 'corrupt' ours corrupt.qcow2 'read 0 512' || return
        "$hv_io" -r -f qcow2 -c 'read -P 5 0 64k' corrupt.qcow2 || return
        cmp corrupt.qcow2 before.qcow2
}

# A header extension, compatible and autoclear bits of the future.
future()
{
        create future.qcow2 1M
        poke future.qcow2 80 8000000000000000
        poke future.qcow2 88 4000000000000000
        table=$(number future.qcow2 100 4)
        while [ "$(number future.qcow2 $table 4)" != 0 ]; do
                table=$((table + 8 + ($(number future.qcow2 $((table + 4)) 4) + 7) / 8 * 8))
        done
        poke future.qcow2 $table '6e657720 00000005 68656c6c 6f000000 00000000 00000000'
}

keeps_unknown()
{
        future
        cp future.qcow2 before.qcow2
        ours future.qcow2 'write -q 0 64k' 'snapshot -c one' 'truncate 2M' || return
        [ "$(hex future.qcow2 80 8)" = 8000000000000000 ] ||
                { echo "compatible bit lost"; return 1; }
        [ "$(hex future.qcow2 88 8)" = 0000000000000000 ] ||
                { echo "unknown autoclear bit kept"; return 1; }
        [ "$(hex future.qcow2 $table 13)" = 6e6577200000000568656c6c6f ] ||
                { echo "unknown extension lost"; return 1; }
        clean future.qcow2
}

autoclear_stays_when_reading()
{
        future
        cp future.qcow2 before.qcow2
        "$hv_io" -r -f qcow2 -c 'read -q 0 512' future.qcow2 && cmp future.qcow2 before.qcow2
}

# Bitmaps that are not updated must not pass as good.
stale_bitmaps()
{
        create bitmap.qcow2 1M
        qemu-img bitmap --add bitmap.qcow2 changes
        ours bitmap.qcow2 'write -q 0 64k' || return
        [ $(($(number bitmap.qcow2 88 8) & 1)) = 0 ] && return
        qemu-img map --image-opts --output=json \
                driver=qcow2,file.filename=bitmap.qcow2 >/dev/null &&
                qemu-img check bitmap.qcow2
}

# Blocks that the file takes are given back for what nothing else refers to.
unmaps()
{
        create holes.qcow2 16M
        "$hv_io" -o discard=unmap -f qcow2 -c 'write -q -P 3 0 8M' -c 'write -c -q -P 4 8M 64k' \
                -c 'write -c -q -P 5 9M 64k' -c 'snapshot -c keeps' -c 'write -q -P 6 0 1M' \
                -c flush -c 'discard -q 0 512k' -c 'discard -q 8M 64k' holes.qcow2 || return
        full=$(stat -c %b holes.qcow2)
        "$hv_io" -o discard=unmap -f qcow2 -c 'snapshot -d keeps' -c 'discard -q 1M 4M' \
                holes.qcow2 || return
        echo "$full blocks before, $(stat -c %b holes.qcow2) after"
        [ "$(stat -c %b holes.qcow2)" -le $((full - 8192)) ] || return
        theirs holes.qcow2 'read -P 0 0 512k' 'read -P 6 512k 512k' 'read -P 0 1M 4M' \
                'read -P 3 5M 3M' 'read -P 5 9M 64k' >said.txt
        ! grep Pattern said.txt && clean holes.qcow2
}

full_disk()
{
        mkdir -p full
        mount -t tmpfs -o size=2m tmpfs full || return
        fill_disk
        result=$?
        umount full
        return $result
}

# 2 MiB for an image that wants 8.
fill_disk()
{
        create full/image.qcow2 8M "$full_options"
        ours full/image.qcow2 'write -q -P 1 0 512k' flush 'snapshot -c one' \
                'write -q -P 2 0 512k' flush 'write -q -P 3 1M 6M' 'snapshot -c two' \
                'read -q -P 2 0 512k' >said.txt 2>&1
        status=$?
        cat said.txt
        [ $status = 1 ] && grep -q 'write failed: No space left on device' said.txt || return
        ! grep -q Pattern said.txt || return
        qemu-img check -r leaks full/image.qcow2 >check.txt 2>&1
        cat check.txt
        clean full/image.qcow2 || return
        [ "$(names full/image.qcow2 | head -n 1)" = one ] || return
        theirs full/image.qcow2 'read -P 2 0 512k' || return
        ours full/image.qcow2 'snapshot -d one' >said.txt 2>&1 ||
                { fails_full && clean full/image.qcow2 && room_again; }
}

fails_full()
{
        cat said.txt
        grep -q 'No space left on device' said.txt
}

# What a full disk refused works as soon as there is room, and nothing was lost.
room_again()
{
        mount -o remount,size=4m full || return
        ours full/image.qcow2 'read -P 2 0 512k' 'snapshot -a one' 'read -P 1 0 512k' \
                'snapshot -d one' && clean full/image.qcow2
}

# keeps_what_was_cut WHAT: clusters that are still referenced are not allocated once more.
keeps_what_was_cut()
{
        create cut.qcow2 8M
        theirs cut.qcow2 'write -q -P 1 0 2M'
        truncate -s 1M cut.qcow2
        "$hv_img" check -r "$1" cut.qcow2 >said.txt 2>&1
        ours cut.qcow2 'write -q -P 9 4M 2M' 'read -P 9 4M 2M' || return
        commands qemu-io cut.qcow2 'read -P 9 0 1' >said.txt 2>&1
        grep -q verification said.txt || { echo "two owners"; return 1; }
        ! qemu-img check cut.qcow2 2>&1 | grep -E "refcount=1 reference=2|multiple"
}

unopened_is_unchanged()
{
        create base.qcow2 1M
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o lazy_refcounts=on over.qcow2
        cp over.qcow2 before.qcow2
        rm base.qcow2
        ! ours over.qcow2 'write -q 0 1' 2>/dev/null || return
        cmp over.qcow2 before.qcow2
}

check "what lies beyond a file that was cut is not given to others" keeps_what_was_cut leaks
check "... and all of it repaired" keeps_what_was_cut all
check "a backing file that is not there: the image is not written to" unopened_is_unchanged
check "a dirty image is repaired when it is opened" repairs_on_open
check "a dirty image may be read, and stays as it is" reads_while_dirty
check "QEMU repairs what we left dirty" dies_dirty
check "lazy refcounts: a clean close" closes_clean
check "a crash after a flush, version 3" dies_flushed compat=1.1
check "a crash after a flush, version 2" dies_flushed compat=0.10
check "a crash after a flush, clusters of 512 bytes" dies_flushed cluster_size=512
check "a corrupt image may be read but not written" corrupt_is_read_only
check "features and extensions of the future are kept" keeps_unknown
check "a read-only open changes nothing" autoclear_stays_when_reading
check "bitmaps that we do not update are no longer good" stale_bitmaps
check "discard=unmap makes holes in the file" unmaps
for full_options in cluster_size=65536 cluster_size=4096 compat=0.10; do
        name="a full disk, $full_options"
        if [ "$(id -u)" = 0 ]; then
                check "$name" full_disk
        else
                skip "$name" "not root: no mount"
        fi
done
done_testing
