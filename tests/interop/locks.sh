#!/bin/sh
# locks.sh - QEMU and we keep out of each other's images.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/interop/images.sh"

# hold COMMAND...: runs a reader of commands in the background that has opened its
# file when hold returns; release ends it.
hold()
{
        rm -f control
        mkfifo control
        "$@" <control >held.txt 2>&1 &
        holder=$!
        exec 9>control
        echo length >&9
        tries=0
        until grep -q MiB held.txt; do
                tries=$((tries + 1))
                [ $tries -lt 200 ] || { cat held.txt; release; return 1; }
                sleep 0.05
        done
}

release()
{
        echo quit >&9
        exec 9>&-
        wait "$holder"
}

# while_held HOLDER... -- COMMAND...
while_held()
{
        count=0
        for word in "$@"; do
                [ "$word" != -- ] || break
                count=$((count + 1))
        done
        holder_words=
        while [ $count -gt 0 ]; do
                holder_words="$holder_words $1"
                shift
                count=$((count - 1))
        done
        shift
        hold $holder_words || return
        "$@"
        result=$?
        release
        return $result
}

ours_rw="$hv_io -f qcow2"
ours_ro="$hv_io -r -f qcow2"
theirs_rw="qemu-io -f qcow2"
theirs_ro="qemu-io -r -f qcow2"
write_lock='Failed to get "write" lock'
shared_lock='Failed to get shared "write" lock'

create image.qcow2 1M
create base.qcow2 1M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2

check "qemu-io cannot open what we write" \
        while_held $ours_rw image.qcow2 -- fails "$write_lock" $theirs_rw -c length image.qcow2
check "we cannot open what qemu-io writes" \
        while_held $theirs_rw image.qcow2 -- fails "$write_lock" $ours_rw -c length image.qcow2
check "we cannot open twice what we write" \
        while_held $ours_rw image.qcow2 -- fails "$write_lock" $ours_rw -c length image.qcow2
check "the error has QEMU's hint" while_held $theirs_rw image.qcow2 -- \
        fails 'Is another process using the image \[?.*image.qcow2' $ours_rw -c length image.qcow2
check "qemu-img snapshot is kept out" while_held $ours_rw image.qcow2 -- \
        fails "$write_lock" qemu-img snapshot -c one image.qcow2
check "qemu-io cannot read what we write" \
        while_held $ours_rw image.qcow2 -- fails "$shared_lock" $theirs_ro -c length image.qcow2
check "we cannot read what qemu-io writes" \
        while_held $theirs_rw image.qcow2 -- fails "$shared_lock" $ours_ro -c length image.qcow2
check "qemu-io cannot write what we read" \
        while_held $ours_ro image.qcow2 -- fails "$write_lock" $theirs_rw -c length image.qcow2
check "we cannot write what qemu-io reads" \
        while_held $theirs_ro image.qcow2 -- fails "$write_lock" $ours_rw -c length image.qcow2
check "both may read" while_held $ours_ro image.qcow2 -- $theirs_ro -c length image.qcow2
check "both may read, qemu-io first" \
        while_held $theirs_ro image.qcow2 -- $ours_ro -c length image.qcow2
check "we read beside a writer by force" \
        while_held $theirs_rw image.qcow2 -- $ours_ro -U -c length image.qcow2
check "qemu-io reads beside us by force" \
        while_held $ours_rw image.qcow2 -- $theirs_ro -U -c length image.qcow2
check "qemu-img info is kept out without force" \
        while_held $ours_rw image.qcow2 -- fails "lock" qemu-img info image.qcow2
check "qemu-img info by force" while_held $ours_rw image.qcow2 -- qemu-img info -U image.qcow2

check "our backing file cannot be written by qemu-io" \
        while_held $ours_rw over.qcow2 -- fails "$write_lock" $theirs_rw -c length base.qcow2
check "qemu-io's backing file cannot be written by us" \
        while_held $theirs_rw over.qcow2 -- fails "$write_lock" $ours_rw -c length base.qcow2
check "our backing file may be read by qemu-io" \
        while_held $ours_rw over.qcow2 -- $theirs_ro -c length base.qcow2
check "a backing file that qemu-io writes is refused" \
        while_held $theirs_rw base.qcow2 -- fails "$shared_lock" $ours_rw -c length over.qcow2
check "qemu-io refuses a backing file that we write" \
        while_held $ours_rw base.qcow2 -- fails "$shared_lock" $theirs_rw -c length over.qcow2

# The image is inactive while the commands run.
while_inactive()
{
        hold $ours_rw image.qcow2 || return
        echo inactivate >&9
        echo 'sleep 1' >&9
        echo length >&9
        tries=0
        until [ "$(grep -c MiB held.txt)" -ge 2 ] || [ $tries -ge 200 ]; do
                tries=$((tries + 1))
                sleep 0.05
        done
        "$@"
        result=$?
        release
        cat held.txt
        return $result
}

check "an inactive image is free for qemu-io" \
        while_inactive $theirs_rw -c 'write -q -P 7 0 64k' image.qcow2
check "locks are gone after close" $theirs_rw -c 'read -q -P 7 0 64k' image.qcow2
done_testing
