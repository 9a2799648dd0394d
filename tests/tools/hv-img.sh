#!/bin/sh
# hv-img.sh - hv-img and qemu-img, the same commands on the same images: the same
# output and exit status, and images that qemu-img finds whole and equal.
#
#   HV_IMG=path   another hv-img than the build's
#
# SPDX-License-Identifier: MIT
set -u

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"
. "$tests/lib/peer-age.sh"

command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || skip_all "no qemu-img, qemu-io"

hv_img=${HV_IMG:-$(cd "$build" && pwd)/hv-glue/hv-img}
work=$(mktemp -d)
trap 'rm -rf "$work" "$tap_output"' EXIT
cd "$work" || exit 1
mkdir base

# ---- Comparing ----------------------------------------------------------------------

# run_both OURS THEIRS ARGUMENT...: each in its directory; leaves *.out, *.err, *.status.
run_both()
{
        in_ours=$1
        in_theirs=$2
        shift 2
        (cd "$in_ours" && "$hv_img" "$@") >ours.out 2>ours.rawerr </dev/null
        echo $? >ours.status
        (cd "$in_theirs" && qemu-img "$@") >theirs.out 2>theirs.err </dev/null
        echo $? >theirs.status
        sed 's/^hv-img\([: ]\)/qemu-img\1/; s/Try .hv-img/Try '"'"'qemu-img/' ours.rawerr >ours.err
        as_the_peer ours.out
        as_the_peer ours.err
        ! peer_lacks columns || squeeze_columns theirs.out
        ! peer_lacks words || sed -i '$a\' theirs.err    # its last line may lack an end
}

said_the_same()
{
        diff -u theirs.status ours.status && diff -u theirs.out ours.out &&
                diff -u theirs.err ours.err
}

# Both read the very same files.
compare_reading()
{
        run_both base base "$@"
        said_the_same
}

reading()       # NAME ARGUMENT...
{
        name=$1
        shift
        check "$name" compare_reading "$@"
}

fresh_copies()
{
        rm -rf ours theirs
        cp -r base ours
        cp -r base theirs
}

# A qcow2 image: whole, and the same by contents and by what info says of it.
same_image()
{
        qemu-img check -q ours/"$1" || return
        qemu-img compare -f qcow2 -F qcow2 ours/"$1" theirs/"$1" >/dev/null || return
        for who in ours theirs; do
                (cd $who && qemu-img info "$1") |
                        sed -e '/^ *disk size/d' -e '/file length/d' \
                                -e 's/[-0-9]* [0-9:]* \( *[0-9]*:00:\)/DATE \1/' >$who.info
        done
        diff -u theirs.info ours.info
}

# compare_changing IMAGE ARGUMENT...: on copies; then IMAGE is the same, if it is there.
compare_changing()
{
        image=$1
        shift
        fresh_copies
        run_both ours theirs "$@"
        said_the_same || return
        [ -e theirs/"$image" ] || { [ ! -e ours/"$image" ]; return; }
        case $image in
        *.raw) cmp ours/"$image" theirs/"$image" ;;
        *) same_image "$image" ;;
        esac
}

changing()      # NAME IMAGE ARGUMENT...
{
        name=$1
        shift
        check "$name" compare_changing "$@"
}

# compare_failing ARGUMENT...: both refuse, with the same words and status.
compare_failing()
{
        fresh_copies
        run_both ours theirs "$@"
        [ "$(cat ours.status)" != 0 ] && said_the_same
}

failing()       # NAME ARGUMENT...
{
        name=$1
        shift
        check "$name" compare_failing "$@"
}

# The words may differ, the status does not.
compare_status()
{
        fresh_copies
        run_both ours theirs "$@"
        diff -u theirs.status ours.status
}

same_status()
{
        name=$1
        shift
        check "$name" compare_status "$@"
}

# Refused too, but an older qemu-img found other words.
failing_in_other_words()
{
        if peer_lacks words; then
                same_status "$@"
        else
                failing "$@"
        fi
}

# ---- Images, by qemu-img --------------------------------------------------------------

poke()          # FILE OFFSET OCTAL
{
        printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

quietly()
{
        "$@" >/dev/null || exit 1
}

# Refcounts of a fresh image with 64k clusters: one block, at 128k, 2 bytes a cluster.
make_images()
{
        quietly qemu-img create -f qcow2 a.qcow2 64M
        quietly qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 5M 128k' -c 'write -z 8M 64k' a.qcow2
        quietly qemu-img snapshot -c one a.qcow2
        quietly qemu-io -c 'write -P 3 512k 1M' a.qcow2
        quietly qemu-img snapshot -c 'a longer name than the column has' a.qcow2
        quietly qemu-img snapshot -c 3 a.qcow2
        quietly qemu-img create -f qcow2 -b a.qcow2 -F qcow2 top.qcow2 96M
        quietly qemu-io -c 'write -P 4 1M 64k' -c 'write -P 5 70M 64k' top.qcow2
        quietly qemu-img create -f qcow2 -o compat=0.10,cluster_size=4k v2.qcow2 10M
        quietly qemu-io -c 'write -P 6 1M 3k' v2.qcow2
        quietly qemu-img create -f qcow2 \
                -o cluster_size=512,refcount_bits=64,lazy_refcounts=on odd.qcow2 1000k
        quietly qemu-img create -u -f qcow2 -b gone.qcow2 -F qcow2 orphan.qcow2 1M
        quietly qemu-img convert -c -O qcow2 -o compression_type=zstd a.qcow2 zstd.qcow2
        quietly qemu-img convert -c -O qcow2 a.qcow2 zlib.qcow2
        quietly qemu-img convert -O raw a.qcow2 a.raw
        quietly qemu-img create -f qcow2 -b a.raw -F raw overraw.qcow2
        quietly qemu-img create -f qcow2 plain.qcow2 4M
        quietly qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 2M 64k' plain.qcow2
        mkdir sub
        quietly qemu-img create -u -f qcow2 -b ../a.qcow2 -F qcow2 sub/up.qcow2 64M
}

make_damaged()
{
        for i in leak corrupt both dirty marked; do
                cp plain.qcow2 $i.qcow2
        done
        poke leak.qcow2 131092 '\0\2'           # cluster 10: 2 for 1
        poke corrupt.qcow2 131086 '\0\0\0\0'    # clusters 7 and 8: 0 for 1
        poke both.qcow2 131086 '\0\0\0\1\0\3'
        poke dirty.qcow2 79 '\1'
        poke marked.qcow2 79 '\2'
}

# ---- Commands ------------------------------------------------------------------------------

info()
{
        for i in a.qcow2 top.qcow2 v2.qcow2 odd.qcow2 orphan.qcow2 zstd.qcow2 dirty.qcow2 \
                marked.qcow2 sub/up.qcow2; do
                reading "info $i" info "$i"
                reading "info --output=json $i" info --output=json "$i"
        done
        reading "info of a raw file" info -f raw a.raw
        reading "info of a raw file, json" info -f raw --output json a.raw
        reading "info of a raw file, probed" info a.raw
        reading "info --backing-chain" info --backing-chain top.qcow2
        reading "info --backing-chain, json" info --backing-chain --output=json top.qcow2
        reading "info --backing-chain of a raw base" info --backing-chain overraw.qcow2
        reading "info --backing-chain without a base" info --backing-chain orphan.qcow2
        reading "info -U" info -U a.qcow2
}

check_command()
{
        for i in a v2 odd zstd zlib leak corrupt both dirty marked; do
                reading "check $i" check $i.qcow2
                reading "check --output=json $i" check --output=json $i.qcow2
                reading "check -q $i" check -q $i.qcow2
        done
        for i in leak corrupt both dirty; do
                check "check -r leaks $i" repairs_leaks $i
                check "check -r all $i repairs" repairs $i.qcow2
        done
        reading "check of a raw file" check -f raw a.raw
        reading "check of a file that is not there" check nofile
}

# What leaks are the least of: QEMU gives up with EIO there, we say what is left.
repairs_leaks()
{
        case $1 in
        corrupt | both) left=2 ;;
        *) left=0 ;;
        esac
        fresh_copies
        run_both ours theirs check -r leaks "$1.qcow2"
        echo "status $(cat ours.status), qemu-img's $(cat theirs.status)"
        [ "$(cat ours.status)" = $left ] && { [ $left = 0 ] || [ "$(cat theirs.status)" != 0 ]; }
}

# Words between differ with the way of repairing; the end is a clean image.
repairs()
{
        fresh_copies
        run_both ours theirs check -r all "$1"
        diff -u theirs.status ours.status || return
        qemu-img check -q ours/"$1" &&
                qemu-img compare -q -f qcow2 -F qcow2 ours/"$1" theirs/"$1"
}

snapshot()
{
        reading "snapshot -l" snapshot -l a.qcow2
        if peer_lacks words; then
                check "snapshot without operation lists" lists_without_operation
        else
                reading "snapshot without operation lists" snapshot a.qcow2
        fi
        reading "snapshot -l of an image without any" snapshot -l plain.qcow2
        changing "snapshot -c" plain.qcow2 snapshot -c new plain.qcow2
        changing "snapshot -c on another" a.qcow2 snapshot -c 'new one' a.qcow2
        changing "snapshot -a by name" a.qcow2 snapshot -a one a.qcow2
        changing "snapshot -a by id" a.qcow2 snapshot -a 1 a.qcow2
        changing "snapshot -a: the id counts before the name" a.qcow2 snapshot -a 3 a.qcow2
        changing "snapshot -d" a.qcow2 snapshot -d one a.qcow2
        changing "snapshot -d takes names only" a.qcow2 snapshot -d 1 a.qcow2
        changing "snapshot -d of a name that is an id" a.qcow2 snapshot -d 3 a.qcow2
        failing "snapshot -a of none" snapshot -a nope a.qcow2
        failing "snapshot -d of none" snapshot -d nope a.qcow2
        failing "snapshot with two operations" snapshot -l -c x a.qcow2
        failing "snapshot -c -U" snapshot -c x -U a.qcow2
}

lists_without_operation()
{
        "$hv_img" snapshot base/a.qcow2 >without.out &&
                "$hv_img" snapshot -l base/a.qcow2 >with.out && diff -u with.out without.out
}

map()
{
        for i in a top v2 zstd overraw odd plain; do
                reading "map --output=json $i" map --output=json $i.qcow2
                reading "map $i" map $i.qcow2
        done
        reading "map of a raw file" map -f raw --output=json a.raw
        reading "map of a range" map --output=json -s 512k -l 6M a.qcow2
        reading "map of a range off the clusters" map --output=json -s 1000 -l 70000 a.qcow2
        reading "map past the end" map --output=json -s 65M a.qcow2
        failing "map without its base" map orphan.qcow2
}

compare_command()
{
        reading "compare with itself" compare a.qcow2 a.qcow2
        reading "compare with what was converted" compare a.qcow2 zstd.qcow2
        reading "compare with raw" compare -f qcow2 -F raw a.qcow2 a.raw
        reading "compare of different" compare a.qcow2 top.qcow2
        reading "compare of different sizes, zeros behind" compare odd.qcow2 orphan.qcow2
        reading "compare of different sizes" compare plain.qcow2 odd.qcow2
        reading "compare -s of different sizes" compare -s a.qcow2 top.qcow2
        reading "compare -q" compare -q plain.qcow2 odd.qcow2
        reading "compare with a missing file" compare a.qcow2 nofile
}

create()
{
        changing "create" n.qcow2 create -f qcow2 n.qcow2 10M
        changing "create with options" n.qcow2 create -f qcow2 \
                -o cluster_size=4k,refcount_bits=8,lazy_refcounts=on,compression_type=zstd \
                n.qcow2 1.5G
        changing "create version 2" n.qcow2 create -f qcow2 -o compat=0.10 n.qcow2 1000
        changing "create -o size" n.qcow2 create -f qcow2 -o size=3M n.qcow2
        changing "create preallocated" n.qcow2 create -f qcow2 -o preallocation=metadata n.qcow2 3M
        changing "create preallocated in full" n.qcow2 create -f qcow2 -o preallocation=full \
                n.qcow2 3M
        changing "create on a base" n.qcow2 create -f qcow2 -b a.qcow2 -F qcow2 n.qcow2
        changing "create on a base, larger" n.qcow2 create -f qcow2 -o \
                backing_file=a.qcow2,backing_fmt=qcow2 n.qcow2 80M
        changing "create -q over another" plain.qcow2 create -q -f qcow2 plain.qcow2 1M
        changing "create raw" n.raw create n.raw 1000
        failing "create without size" create -f qcow2 n.qcow2
        failing "create with two sizes" create -f qcow2 -o size=1M n.qcow2 2M
        failing "create on a missing base" create -f qcow2 -b gone -F qcow2 n.qcow2
        failing "create on a base without format" create -f qcow2 -b a.qcow2 n.qcow2
        failing "create on a base of unknown format" create -f qcow2 -b a.qcow2 -F nope n.qcow2
        failing "create on itself" create -f qcow2 -b n.qcow2 -F qcow2 n.qcow2 1M
        failing "create with a format but no base" create -f qcow2 -F qcow2 n.qcow2 1M
        failing "create in no directory" create -f qcow2 nodir/n.qcow2 1M
        failing "create of an unknown format" create -f nope n.qcow2 1M
        failing "create without name" create -f qcow2
        failing "create with too many words" create -f qcow2 n.qcow2 1M more
        failing "create of size 1X" create -f qcow2 n.qcow2 1X
        failing_in_other_words "create of size -1" create -f qcow2 n.qcow2 -- -1
        failing "create of size 9E" create -f qcow2 n.qcow2 9E
        for i in bogus=1 lazy_refcounts=maybe cluster_size=abc compat=0.12 preallocation=nope; do
                failing "create -o $i" create -f qcow2 -o $i n.qcow2 1M
        done
        # We name the value that is wrong.
        for i in cluster_size=1000 cluster_size=4M refcount_bits=3 refcount_bits=8,compat=0.10 \
                lazy_refcounts=on,compat=0.10 compression_type=zstd,compat=0.10; do
                same_status "create -o $i" create -f qcow2 -o $i n.qcow2 1M
        done
}

resize()
{
        changing "resize" plain.qcow2 resize plain.qcow2 10M
        changing "resize +" plain.qcow2 resize plain.qcow2 +1M
        changing "resize -" plain.qcow2 resize --shrink plain.qcow2 -3M
        changing "resize - after --" plain.qcow2 resize --shrink plain.qcow2 -- -1M
        changing "resize -q" a.qcow2 resize -q a.qcow2 1G
        changing "resize on a base" top.qcow2 resize top.qcow2 +4M
        changing "resize preallocated" plain.qcow2 resize --preallocation=metadata plain.qcow2 5M
        changing "resize raw" a.raw resize -f raw a.raw 65M
        changing "resize raw, shorter" a.raw resize -f raw --shrink a.raw 1M
        failing "resize without --shrink" resize plain.qcow2 1M
        failing "resize to nothing" resize --shrink plain.qcow2 -- -4M
        failing "resize to an odd size" resize plain.qcow2 5000001
        failing "resize to no number" resize plain.qcow2 abc
        failing "resize with one word" resize plain.qcow2
        failing "resize, unknown preallocation" resize --preallocation=x plain.qcow2 5M
        failing "resize, shorter and preallocated" resize --shrink --preallocation=falloc \
                plain.qcow2 1M
}

convert()
{
        for i in a top v2 odd zstd zlib overraw; do
                changing "convert $i to raw" n.raw convert $i.qcow2 n.raw
                changing "convert $i to qcow2" n.qcow2 convert -O qcow2 $i.qcow2 n.qcow2
        done
        changing "convert from raw" n.qcow2 convert -f raw -O qcow2 a.raw n.qcow2
        changing "convert -c" n.qcow2 convert -c -O qcow2 a.qcow2 n.qcow2
        changing "convert -c zstd -W -m 16" n.qcow2 convert -c -W -m 16 -O qcow2 \
                -o compression_type=zstd a.qcow2 n.qcow2
        changing "convert -c of small clusters" n.qcow2 convert -c -O qcow2 -o cluster_size=4k \
                v2.qcow2 n.qcow2
        changing "convert to small clusters, -m 1" n.qcow2 convert -m 1 -O qcow2 \
                -o cluster_size=512 v2.qcow2 n.qcow2
        changing "convert -W" n.qcow2 convert -W -m 16 -O qcow2 a.qcow2 n.qcow2
        changing "convert -S 0" n.raw convert -S 0 plain.qcow2 n.raw
        changing "convert -S 64k" n.qcow2 convert -S 64k -O qcow2 plain.qcow2 n.qcow2
        changing "convert -l by name" n.qcow2 convert -l one -O qcow2 a.qcow2 n.qcow2
        changing "convert -l by id" n.qcow2 convert -l 1 -O qcow2 a.qcow2 n.qcow2
        changing "convert -l by snapshot.name" n.qcow2 convert -l snapshot.name=one -O qcow2 \
                a.qcow2 n.qcow2
        changing "convert on a base" n.qcow2 convert -B a.qcow2 -F qcow2 -O qcow2 top.qcow2 n.qcow2
        changing "convert -n" zstd.qcow2 convert -n -O qcow2 plain.qcow2 zstd.qcow2
        changing "convert several" n.qcow2 convert -O qcow2 plain.qcow2 v2.qcow2 n.qcow2
        changing "convert -t none -T none" n.qcow2 convert -t none -T none -O qcow2 plain.qcow2 \
                n.qcow2
        changing "convert -t writethrough" n.qcow2 convert -t writethrough -O qcow2 plain.qcow2 \
                n.qcow2
        check "convert to and fro" convert_round
        check "convert -p shows the way" shows_progress
}

convert_round()
{
        rm -rf rounds
        mkdir rounds
        "$hv_img" convert -O qcow2 -o cluster_size=4k base/a.raw -f raw rounds/1.qcow2 &&
                "$hv_img" convert -c -O qcow2 rounds/1.qcow2 rounds/2.qcow2 &&
                "$hv_img" convert -O raw rounds/2.qcow2 rounds/3.raw &&
                cmp base/a.raw rounds/3.raw && "$hv_img" compare -s -f raw -F raw base/a.raw \
                rounds/3.raw && qemu-img check -q rounds/1.qcow2 && qemu-img check -q rounds/2.qcow2
}

shows_progress()
{
        "$hv_img" convert -p -O qcow2 base/a.qcow2 p.qcow2 >progress.txt &&
                tr '\r' '\n' <progress.txt | grep -x '    (0.00/100%)' &&
                tr '\r' '\n' <progress.txt | grep -x '    (100.00/100%)' &&
                tr '\r' '\n' <progress.txt | grep . | grep -v -x '    ([0-9.]*/100%)'
        [ $? = 1 ]
}

convert_refusals()
{
        failing "convert without target" convert -O qcow2 a.qcow2
        failing "convert from nothing" convert -O qcow2 nofile n.qcow2
        failing "convert to an unknown format" convert -O nope a.qcow2 n.qcow2
        failing "convert from an unknown format" convert -f nope a.qcow2 n.qcow2
        failing "convert from the wrong format" convert -f qcow2 a.raw n.qcow2
        failing "convert into no directory" convert -O qcow2 a.qcow2 nodir/n.qcow2
        failing "convert onto itself" convert -O qcow2 a.qcow2 a.qcow2
        failing "convert -c to raw" convert -c -O raw a.qcow2 n.raw
        failing "convert -l of none" convert -l nope -O qcow2 a.qcow2 n.qcow2
        failing "convert -l of no id" convert -l snapshot.id=9 -O qcow2 a.qcow2 n.qcow2
        failing "convert -l of no key" convert -l snapshot.foo=9 -O qcow2 a.qcow2 n.qcow2
        failing "convert -n into a shorter one" convert -n -O qcow2 a.qcow2 plain.qcow2
        failing "convert -n into none" convert -n -O qcow2 a.qcow2 n.qcow2
        failing "convert -n -o" convert -n -o cluster_size=4k -O qcow2 plain.qcow2 a.qcow2
        failing "convert -m 0" convert -m 0 a.qcow2 n.raw
        failing "convert -m abc" convert -m abc a.qcow2 n.raw
        failing "convert -S 100" convert -S 100 a.qcow2 n.raw
        failing "convert -S abc" convert -S abc a.qcow2 n.raw
        failing "convert -t bogus" convert -t bogus a.qcow2 n.raw
        failing "convert -T bogus" convert -T bogus a.qcow2 n.raw
        failing "convert -B without format" convert -B a.qcow2 -O qcow2 a.qcow2 n.qcow2
        failing "convert -B to raw" convert -B a.qcow2 -F qcow2 -O raw a.qcow2 n.raw
        failing "convert, preallocated and compressed" convert -O qcow2 -o preallocation=metadata \
                -c a.qcow2 n.qcow2
        failing "convert --target-is-zero without -n" convert --target-is-zero a.qcow2 n.raw
        failing "convert several onto a base" convert -B a.qcow2 -F qcow2 -O qcow2 plain.qcow2 \
                a.qcow2 n.qcow2
}

# An older qemu-img's snapshot has no -f: its info says what there is to say.
compare_failing_with_info()
{
        compare_failing info "$@" && "$hv_img" snapshot "$@" 2>snapshot.err
        [ $? = 1 ] && sed 's/^hv-img:/qemu-img:/' snapshot.err | diff -u theirs.err -
}

refusing_format()       # COMMAND NAME ARGUMENT...
{
        command=$1
        name=$2
        shift 2
        if [ "$command" = snapshot ] && peer_lacks words; then
                (cd base && cp a.qcow2 a.raw ..)
                check "$name" compare_failing_with_info "$@"
        else
                failing "$name" "$command" "$@"
        fi
}

refusals()
{
        failing "no command"
        failing "an unknown command" bogus
        failing "an unknown option instead of a command" --bogus
        for i in info check snapshot map; do
                failing "$i of nothing" $i
                failing "$i of a file that is not there" $i nofile
                case $i in
                snapshot) failing_in_other_words "$i of a directory" $i sub ;;
                *) failing "$i of a directory" $i sub ;;
                esac
                refusing_format $i "$i of an unknown format" -f nope a.qcow2
                refusing_format $i "$i of a raw file as qcow2" -f qcow2 a.raw
                failing "$i of an unknown protocol" $i foo:bar
        done
        failing "info, unknown output" info --output=xml a.qcow2
        failing "check, unknown repair" check -r some a.qcow2
        failing "check -r with -U" check -r all -U a.qcow2
}

# ---- Locks ---------------------------------------------------------------------------------

# Someone else has plain.qcow2 open for writing.
locked()
{
        mkfifo held
        qemu-io base/plain.qcow2 <held >qemu-io.out 2>&1 &
        holder=$!
        exec 3>held
        until [ -s qemu-io.out ] || ! kill -0 $holder 2>/dev/null; do
                echo length >&3
        done
        for i in info check 'snapshot -l' map; do
                reading "$i of an image in use" $i plain.qcow2
                reading "$i -U of an image in use" $i -U plain.qcow2
        done
        reading "snapshot -c of an image in use" snapshot -c x plain.qcow2
        reading "create over an image in use" create -f qcow2 plain.qcow2 1M
        reading "resize of an image in use" resize plain.qcow2 5M
        reading "compare of an image in use" compare plain.qcow2 a.qcow2
        reading "convert of an image in use" convert -O raw plain.qcow2 n.raw
        reading "convert onto an image in use" convert -O qcow2 a.qcow2 plain.qcow2
        exec 3>&-
        wait $holder
        rm -f base/n.raw
}

# ---- Ours only -------------------------------------------------------------------------------

# Every long option of the command's help in qemu-img, but for what we say we have not.
has_options()
{
        without='image-opts|object|bitmaps|rate|copy-range-offloading|salvage'
        qemu-img "$1" --help | sed -n 's/^ *\(-., \)\{0,1\}--\([a-z-]*\).*/\2/p' |
                grep -v -E "$without" | sort >theirs.options
        "$hv_img" "$1" --help | sed -n 's/^ *\(-., \)\{0,1\}--\([a-z-]*\).*/\2/p' | sort \
                >ours.options
        comm -23 theirs.options ours.options >missing
        cat missing
        [ ! -s missing ]
}

helps()
{
        "$hv_img" --help | grep -q 'hv-img COMMAND' && "$hv_img" --version | grep '^hv-img version'
}

finds_loop()
{
        (cd base && qemu-img create -q -f qcow2 -u -b loop2.qcow2 -F qcow2 loop1.qcow2 1M &&
                qemu-img create -q -f qcow2 -u -b loop1.qcow2 -F qcow2 loop2.qcow2 1M)
        timeout 20 "$hv_img" info --backing-chain base/loop1.qcow2 2>loop.err && return 1
        grep 'creates an infinite loop' loop.err || return
        timeout 20 "$hv_img" map base/loop1.qcow2 2>loop.err && return 1
        grep 'infinite loop' loop.err
}

refuses_fifo()
{
        mkfifo base/fifo
        timeout 20 "$hv_img" info -f raw base/fifo
        [ $? = 1 ]
}

ours_only()
{
        check "--help and --version" helps
        for i in create info check snapshot map compare convert resize; do
                check "$i --help has qemu-img's options" has_options $i
        done
        check "a chain that bites its tail ends" finds_loop
        check "a FIFO is refused, not waited for" refuses_fifo
}

find_peer_age
(cd base && make_images && make_damaged) || exit 1
info
check_command
snapshot
map
compare_command
create
resize
convert
convert_refusals
refusals
locked
ours_only
done_testing
