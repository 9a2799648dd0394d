#!/bin/sh
# sandbox.sh - the sandbox of hv-img and hv-io: what an image cannot make them open, and
# that --allow-dir and --no-sandbox open it.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/interop/images.sh"

hv_img=$(dirname "$hv_io")/hv-img
outside="in none of the allowed directories"

mkdir vm store
qemu-img create -q -f raw store/secret.raw 64k
qemu-io -f raw -c 'write -q -P 7 0 64k' store/secret.raw
qemu-img create -q -f qcow2 -b "$work/store/secret.raw" -F raw vm/far.qcow2
qemu-img create -q -f qcow2 -b ../store/secret.raw -F raw vm/up.qcow2
qemu-img create -q -f qcow2 -b ../vm/../store/secret.raw -F raw store/near.qcow2
ln -s ../store/secret.raw vm/link.raw
qemu-img create -q -f qcow2 -b link.raw -F raw vm/link.qcow2

# Nothing of the file outside got into the copy.
no_leak()
{
        fails "$outside" "$hv_img" convert -O raw vm/"$1".qcow2 vm/copy.raw || return
        [ ! -s vm/copy.raw ]
}

for image in far up link; do
        check "convert does not copy what $image.qcow2 names" no_leak $image
        check "nor does hv-io read it" \
                fails "$outside" "$hv_io" -c 'read -P 7 0 64k' vm/$image.qcow2
        check "nor does map look at it" fails "$outside" "$hv_img" map vm/$image.qcow2
done
check "info looks at the image alone" "$hv_img" info vm/far.qcow2
check "info --backing-chain does not look outside" \
        fails "$outside" "$hv_img" info --backing-chain vm/far.qcow2
check "a name that leads back into the directory is fine" \
        "$hv_io" -c 'read -P 7 0 64k' store/near.qcow2

check "--allow-dir allows it: hv-img" \
        "$hv_img" convert --allow-dir store -O raw vm/up.qcow2 vm/allowed.raw
check "--allow-dir allows it: info" \
        "$hv_img" info --allow-dir store --backing-chain vm/far.qcow2
check "--allow-dir allows it: hv-io" \
        "$hv_io" --allow-dir store -c 'read -P 7 0 64k' vm/link.qcow2

opened_for_writing()
{
        (cd vm && echo 'open ../store/near.qcow2' | "$hv_io" --allow-dir ../store)
}
check "what it allows is not written to" fails "Permission denied" opened_for_writing
check "--no-sandbox allows it: hv-img" \
        "$hv_img" convert --no-sandbox -O raw vm/up.qcow2 vm/free.raw
check "--no-sandbox allows it: hv-io" "$hv_io" --no-sandbox -c 'read -P 7 0 64k' vm/far.qcow2
check "both copies are whole" cmp vm/allowed.raw vm/free.raw

# The operator's own names need no permission.
check "create -b: a backing file elsewhere" \
        "$hv_img" create -q -f qcow2 -b ../store/near.qcow2 -F qcow2 vm/new.qcow2
check "convert -B: a backing file elsewhere" "$hv_img" convert -O qcow2 -B ../store/near.qcow2 \
        -F qcow2 store/near.qcow2 vm/cow.qcow2
check "compare of two directories" "$hv_img" compare store/near.qcow2 store/secret.raw

# hv-io opens more than one file.
check "open, close and reopen from -c" "$hv_io" -c 'open -o driver=raw store/secret.raw' \
        -c 'read -P 7 0 64k' -c 'reopen -r' -c 'close' -c 'open store/near.qcow2' \
        -c 'write -q 0 4k'
check "write -s from -c" "$hv_io" -c 'write -qs store/secret.raw 0 64k' store/near.qcow2

repl()
{
        printf '%s\n' 'open store/near.qcow2' 'write -q 0 4k' 'reopen -r' 'close' \
                'open -r vm/allowed.raw' 'write -q 0 4k' | "$hv_io" -f raw
        printf '%s\n' 'open /etc/passwd' | (cd vm && "$hv_io") >said.txt 2>&1
        grep -q 'Permission denied' said.txt
}
check "commands from standard input: the current directory, and nothing else" repl

check "--version tells what there is" sh -c '"$0" --version | grep "^sandbox: "' "$hv_img"
for option in --no-sandbox --allow-dir; do
        check "hv-img convert --help: $option" sh -c '"$0" convert --help | grep -e "$1"' \
                "$hv_img" $option
        check "hv-io --help: $option" sh -c '"$0" --help | grep -e "$1"' "$hv_io" $option
done
done_testing
