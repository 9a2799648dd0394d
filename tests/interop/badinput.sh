#!/bin/sh
# badinput.sh - images that break a limit by one, and files that are no images: each
# is refused with a text that names the field, the value and the limit.
#
# The images are qemu-img's, with bytes changed.  The header's fields, by offset: 4
# version, 8 backing offset, 16 backing length, 20 cluster bits, 24 size, 32
# encryption, 36 L1 entries, 40 L1 offset, 48 refcount table offset, 56 its clusters,
# 60 snapshots, 64 their table's offset, 72 incompatible, 80 compatible, 88 autoclear
# features, 96 refcount order, 100 header length, 104 compression.
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/interop/images.sh"

qemu=refuses                    # what QEMU does with the image in hand
create good.qcow2 1M
qemu-io -f qcow2 -c 'write -q 0 128k' good.qcow2
qemu-img snapshot -c one good.qcow2
create old.qcow2 1M compat=0.10

# refused FILE OFFSET HEX TEXT...: with these bytes, opening fails, read-write and
# read-only, and says each TEXT.
refused()
{
        cp "$1" bad.qcow2
        poke bad.qcow2 "$2" "$3"
        shift 3
        for mode in "" -r; do
                "$hv_io" -f qcow2 $mode -c 'read -q 0 512' bad.qcow2 >said.txt 2>&1
                status=$?
                cat said.txt
                [ $status = 1 ] || { echo "exit status $status $mode"; return 1; }
                for text in "$@"; do
                        grep -qiE -- "$text" said.txt && continue
                        echo "does not say: $text"
                        return 1
                done
        done
        [ $qemu = opens ] || ! qemu-io -f qcow2 -c 'read -q 0 512' bad.qcow2 && return
        echo "qemu-io opens it: a wrong test?"
        return 1
}

# header NAME OFFSET HEX TEXT...: of a version 3 image.
header()
{
        name=$1
        shift
        qemu=refuses
        check "$name" refused good.qcow2 "$@"
}

# The same where we are stricter than QEMU.
strict_header()
{
        name=$1
        shift
        qemu=opens
        check "$name" refused good.qcow2 "$@"
        qemu=refuses
}

header_fields()
{
        header "magic" 0 514649fc 'magic|not (a|in) qcow2'
        header "version 4" 4 00000004 version 4
        header "version 1" 4 00000001 version 1
        header "cluster bits 8" 20 00000008 'cluster' '8|256' '9|512'
        header "cluster bits 22" 20 00000016 'cluster' '22|4194304' '21|2097152|2 MiB'
        header "cluster bits 2^32 - 1" 20 ffffffff 'cluster' '4294967295|0xffffffff'
        header "encryption 1" 32 00000001 'encrypt|crypt' 1
        header "encryption 3" 32 00000003 'encrypt|crypt' 3
        header "L1 of 32 MiB + 8 bytes" 36 00400001 'L1' '4194305|0x400001|33554440' \
                '4194304|33554432|32 MiB'
        header "L1 of 2^32 - 1 entries" 36 ffffffff 'L1' '4294967295|0xffffffff|34359738360'
        header "L1 smaller than the disk" 36 00000000 'L1' 0
        header "L1 offset not aligned" 40 0000000000030001 'L1' '0x30001|196609' 'align|multiple'
        strict_header "L1 offset of 2^56" 40 0100000000000000 'L1' '0x100000000000000'
        header "refcount table offset not aligned" 48 0000000000010200 'ref(erence )?count table' \
                '0x10200|66048' 'align|multiple'
        header "refcount table of 8 MiB and a cluster" 56 00000081 'ref(erence )?count table' \
                '129|8454144' '128|8388608|8 MiB'
        header "refcount table of no cluster" 56 00000000 'ref(erence )?count table' 0
        header "refcount table at the end of numbers" 48 ffffffffffff0000 \
                'ref(erence )?count table' '0xffffffffffff0000'
        header "65,537 snapshots" 60 00010001 'snapshot' 65537 65536
        header "snapshot table not aligned" 64 0000000000050004 'snapshot table' \
                '0x50004|327684' 'align|multiple'
        header "snapshot table beyond 2^63" 64 fffffffffffffff8 'snapshot table'
        header "refcount order 7" 96 00000007 'ref(erence )?count' '7|128' '6|64'
        header "header length 103" 100 00000067 'header' 103 '104|multiple'
        strict_header "header length 105" 100 00000069 'header' 105 'multiple|align'
        header "header longer than a cluster" 100 00010008 'header' '65544|0x10008' '65536|cluster'
        header "compression type 2" 104 02 compression 2
        header "compression type without its feature" 104 01 compression
        header "unknown incompatible feature" 72 8000000000000000 'feature' '63|8000000000000000'
        header "external data file without a name" 72 0000000000000004 'data file'
        header "size of 2^63" 24 8000000000000000 'size|big' \
                '9223372036854775808|0x8000000000000000'
}

backing_name()
{
        header "backing name of 1,024 bytes" 8 000000000000040000000400 backing 1024 1023
        header "backing name beyond the first cluster" 8 000000000000ff9c000003ff backing
        strict_header "backing name inside the header" 8 000000000000000800000010 backing
        check "backing name of a version 2 image" refused old.qcow2 8 000000000000080000000400 \
                backing 1024 1023
}

# The feature name table names bit 62 of the incompatible ones.
names_feature()
{
        table=$(LC_ALL=C grep -obUaP '\x68\x03\xf8\x57' good.qcow2 | head -n 1 | cut -d : -f 1)
        cp good.qcow2 named.qcow2
        poke named.qcow2 $((table + 8)) '00 3e 7769646765742066726f6273 00'
        refused named.qcow2 72 4000000000000000 'widget frobs'
}

snapshot_entries()
{
        table=$(number good.qcow2 64 8)
        header "extra data of 1,025 bytes" $((table + 36)) 00000401 'extra' 1025 1024
        strict_header "snapshot id beyond the end" $((table + 12)) ffff 'snapshot'
}

# snapshot_refused OFFSET HEX TEXT: the image opens, going to the snapshot and
# deleting it are refused, and nothing changes.
snapshot_refused()
{
        cp good.qcow2 bad.qcow2
        poke bad.qcow2 "$(number good.qcow2 64 8) + $1" "$2"
        cp bad.qcow2 before.qcow2
        fails "$3" ours bad.qcow2 'snapshot -a one' || return
        fails "$3" ours bad.qcow2 'snapshot -d one' || return
        fails "$3" "$hv_io" -r -f qcow2 -c 'snapshot -t one' bad.qcow2 || return
        ours bad.qcow2 'snapshot -l' | grep -q one || return
        cmp bad.qcow2 before.qcow2
}

snapshot_tables()
{
        check "snapshot L1 of 32 MiB + 8 bytes" snapshot_refused 8 00400001 'L1 table too large|L1'
        check "snapshot L1 not aligned" snapshot_refused 0 0000000000030001 'L1.*(invalid|align)'
        check "snapshot L1 beyond the end of numbers" snapshot_refused 0 ffffffffffff0000 'L1'
}

# table_entry TABLE HEX RESULT: wrong pointers inside tables.  The request may fail,
# and must if RESULT says so; the program must not.
table_entry()
{
        l1=$(number good.qcow2 40 8)
        l2=$(($(number good.qcow2 "$l1" 8) & 0x00fffffffffffe00))
        cp good.qcow2 bad.qcow2
        case $1 in
        l1) poke bad.qcow2 "$l1" "$2" ;;
        l2) poke bad.qcow2 "$l2" "$2" ;;
        esac
        for command in 'read 0 64k' 'write 0 64k' 'write 1k 1k' 'snapshot -c two' \
                       'snapshot -d one' 'discard 0 64k' 'truncate 64k' map check; do
                cp bad.qcow2 try.qcow2
                ours try.qcow2 "$command" >said.txt 2>&1
                status=$?
                if [ $status -gt 1 ]; then
                        cat said.txt
                        echo "'$command' ends with status $status"
                        return 1
                fi
        done
        [ "$3" = any ] || fails "failed" ours bad.qcow2 'read 0 64k'
}

entries()
{
        check "L2 table offset not aligned" table_entry l1 8000000000010200 fail
        check "L2 table beyond the file" table_entry l1 8000000100000000 any
        check "L2 table beyond the refcount table" table_entry l1 80fffffffffe0000 any
        check "cluster offset not aligned" table_entry l2 8000000000050200 fail
        check "compressed cluster beyond the file" table_entry l2 7fffffffffffffff fail
        check "compressed cluster of garbage" table_entry l2 4000000000050000 fail
}

# unreadable FILE TEXT
unreadable()
{
        fails "$2" timeout 10 "$hv_io" -f qcow2 -c 'read 0 512' "$1" &&
                fails "$2" timeout 10 "$hv_io" -r -f qcow2 -c 'read 0 512' "$1"
}

no_images()
{
        : >empty.img
        check "an empty file" unreadable empty.img 'qcow2|short|truncated|empty|header'
        mkdir -p directory
        check "a directory" unreadable directory 'directory|regular'
        head -c 1M /dev/zero >zeros.img
        check "a raw file" unreadable zeros.img 'magic|not (a|in) qcow2'
        head -c 60 good.qcow2 >short.img
        check "sixty bytes of an image" unreadable short.img 'header|short|end'
        mkfifo fifo
        check "a FIFO" unreadable fifo 'regular|FIFO|file'
        check "a file that is not there" unreadable nothing.img 'No such file'
        cp good.qcow2 cut.img
        truncate -s 200000 cut.img
        check "an image cut before its L1 table" unreadable cut.img 'L1|end|short|failed|table'
}

# backing NAME TEXT [FORMAT]: of a backing file, is refused.
backing()
{
        create base.qcow2 1M
        qemu-img create -q -u -f qcow2 -b "$1" -F "${3:-qcow2}" over.qcow2 1M
        fails "$2" ours over.qcow2 'read 0 512'
}

# qemu-img does not make such an image: it gets its name afterwards.
own_backing()
{
        qemu-img create -q -u -f qcow2 -b own.qcow2 -F qcow2 over.qcow2 1M
        mv over.qcow2 own.qcow2
        fails 'loop|cycle' ours own.qcow2 'read 0 512'
}

backing_files()
{
        check "backing file that is not there" backing gone.qcow2 'gone.qcow2.*No such file'
        check "backing file of a protocol" backing nbd://localhost/disk nbd
        check "backing file as JSON" backing 'json:{"driver":"qcow2"}' json
        check "backing file of another format" backing base.qcow2 vmdk vmdk
        check "image that is its own backing file" own_backing
        check "backing file that is a directory" backing . 'directory|regular'
}

# No format is stored: a guest may have written a header into a raw file.
backing_without_format()
{
        create base.qcow2 1M
        create over.qcow2 1M
        name=$(printf 'base.qcow2' | od -A n -t x1)
        poke over.qcow2 1024 "$name"
        poke over.qcow2 8 0000000000000400
        poke over.qcow2 16 0000000a
        "$hv_io" -f qcow2 -c 'read 0 512' over.qcow2 2>&1 | tee said.txt
        grep -qi 'format\|prob' said.txt
}

# A request that begins in a cluster of data and goes on into one that is the L1 table.
goes_on_into_l1()
{
        create run.qcow2 1M
        theirs run.qcow2 'write -q -P 1 0 128k'
        l1=$(number run.qcow2 40 8)
        l2=$(number run.qcow2 $((l1 + 1)) 7)          # without the flag
        poke run.qcow2 "$l2" "$(printf 80%014x $((l1 - 65536)))"
        poke run.qcow2 $((l2 + 8)) "$(printf 80%014x "$l1")"
        before=$(hex run.qcow2 "$l1" 4096)
        fails 'Input/output error|metadata' ours run.qcow2 'write -P 7 0 128k' || return
        [ "$(hex run.qcow2 "$l1" 4096)" = "$before" ] || { echo "the L1 table is gone"; return 1; }
}

header_fields
backing_name
check "unknown feature by its name" names_feature
snapshot_entries
snapshot_tables
entries
no_images
backing_files
check "guest data goes on into the L1 table" goes_on_into_l1
check "backing file without a format: at least a warning" backing_without_format
done_testing
