#!/bin/sh
# run.sh - measure ourselves against QEMU and against the bare ring; see --help.
#
# Every figure is a median over runs that alternate: ours, peer, ours, peer.  Both
# sides get the same work: fresh copies of one image, the same offsets in the same
# order, the same depth and cache mode.
#
# SPDX-License-Identifier: MIT
set -euf
export LC_ALL=C

usage()
{
        cat <<END
Usage: sh tests/bench/run.sh [options] [NAME...]

Sets up, builds a release into build-bench/, measures, prints a table.  The ratio
says how many times better we are than the peer.

  snapshots    create, go to, delete; 64 GiB and 1 TiB, all mapped, 64 KiB clusters.
               Peer: qemu-img snapshot, whole processes.  Without a peer: the
               operation itself, in a process that has the image open
  requests     4 KiB, 64 in flight: reads, writes in place, allocating writes; with
               flushes.  Peers: qemu-img bench, and a plain file through a ring
  sequential   1 MiB, 8 in flight: reads, writes in place.  Peers: the same
  live         what a guest that writes (4 KiB, 32 in flight) feels of a snapshot being
               prepared, published, gone back to, deleted; 64 GiB, 1 TiB and 16 TiB, all
               mapped: how long the operation takes, the longest that a write took, writes
               a second.  Peer: the same writes without the operation.  countdown: going
               back, peer: writes that copy as much while nothing is counted.
               live/64G/stopped: peer is the time that qemu-img snapshot needs, in
               which a guest would stand
  savevm       1 GiB of RAM in use, all of it random, of 1.25 GiB: savevm and loadvm,
               the guest stopped throughout.  Ours: hv-glue/snapshot with a machine that
               has RAM, devices and a disk but no vcpus.  Peer: qemu-system-x86_64 -S, the
               commands through its monitor
  pause        how long a guest that writes stands still for savevm and loadvm: 1 GiB and
               8 GiB of RAM in use, in huge and in small pages; what a second savevm
               writes after 5 % of RAM has changed.  Peer: QEMU's savevm and loadvm of as
               much RAM, throughout which its guest stands still, once for each size (where
               memory is free for that)
  (all of them when none is named)

  --runs N     runs of each side (5)
  --dir DIR    where images lie (/dev/shm if it is a tmpfs with room, else TMPDIR)
  --direct     O_DIRECT for requests and sequential; DIR must be on a disk
  --cpu        live: the clock is the CPU time of the guest's thread, which goes on only when
               that does: for a machine that is busy with something else
  --check      check the 1 TiB image too when done (64 GiB always is)
  --small      tiny images and few requests: does everything still run?
  --tsv        a line a figure: name, ours, peer, ratio, unit
  --keep       keep the images
  --build DIR  measure this build as it is; install and build nothing
  --help       this text
END
}

die()
{
        echo "bench: $*" >&2
        exit 1
}

say()
{
        echo "bench: $*" >&2
}

# ---- The command line -----------------------------------------------------------

all='snapshots requests sequential live savevm pause'
runs=5 directory= direct=0 cpu= check=0 small=0 tsv=0 keep=0 build= wanted=
while [ $# -gt 0 ]; do
        case $1 in
        --runs | --dir | --build) [ $# -ge 2 ] || die "$1 needs a value" ;;
        esac
        case $1 in
        --runs) runs=$2; shift ;;
        --dir) directory=$2; shift ;;
        --build) build=$2; shift ;;
        --direct) direct=1 ;;
        --cpu) cpu=-c ;;
        --check) check=1 ;;
        --small) small=1 ;;
        --tsv) tsv=1 ;;
        --keep) keep=1 ;;
        --help) usage; exit 0 ;;
        snapshots | requests | sequential | live | savevm | pause) wanted="$wanted $1" ;;
        *) die "no such option or benchmark: $1 (try --help)" ;;
        esac
        shift
done
case $runs in
'' | 0* | *[!0-9]*) die "--runs takes a whole number from 1 on" ;;
esac
: "${wanted:=$all}"

# Sizes, and how many requests make a run long enough to be measured.
snapshot_sizes='64G 1T' live_sizes='64G 1T 16T'
disk_bytes=$((1 << 30)) sparse_bytes=$((1 << 32))
read_count=400000 write_count=200000 allocate_count=20000 flush_count=8192 stream_count=4096
room_kib=$((12 << 20)) ram_mib=1024 pause_mib='1024 8192'
if [ $small = 1 ]; then
        snapshot_sizes=64M live_sizes=1G
        disk_bytes=$((64 << 20)) sparse_bytes=$((64 << 20))
        read_count=640 write_count=640 allocate_count=640 flush_count=640 stream_count=64 ram_mib=16
        pause_mib=16
        room_kib=$((1 << 20))
fi

# ---- Building, and a place for images -------------------------------------------

root=$(cd "$(dirname "$0")/../.." && pwd)

set_up()
{
        mkdir -p "$root/build-bench"
        SETUP_LOG=$root/build-bench/setup.log
        export SETUP_LOG
        QEMU_FROM_BACKPORTS=1 sh "$root/tests/setup.sh" >&2 && return
        say "going on with the QEMU that is here"
        sh "$root/tests/setup.sh" >&2
}

if [ -z "$build" ]; then
        set_up
        build=$root/build-bench
        {
                [ -f "$build/build.ninja" ] || meson setup "$build" "$root" --buildtype=release
                ninja -C "$build"
        } >"$build/bench.log" 2>&1 || { tail -n 40 "$build/bench.log" >&2; die "no build"; }
fi
build=$(cd "$build" && pwd)
hv_img=$build/hv-glue/hv-img
bin=$build/tests
command -v qemu-img >/dev/null || die "no qemu-img to compare with"

if [ -z "$directory" ]; then
        directory=${TMPDIR:-/tmp}
        [ "$(stat -f -c %T /dev/shm 2>/dev/null)" != tmpfs ] ||
                [ "$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')" -lt $room_kib ] ||
                directory=/dev/shm
fi
case $direct:$(stat -f -c %T "$directory") in
1:tmpfs) die "--direct: $directory is a tmpfs, which has no O_DIRECT" ;;
esac
work=$(mktemp -d "$directory/bench.XXXXXX")
clean_up()
{
        if [ $keep = 1 ]; then
                say "images are in $work"
        else
                rm -rf "$work"
        fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
log=$work/log
: >"$log"
: >"$work/samples"

# ---- Measuring ------------------------------------------------------------------

# sample NAME SIDE VALUE UNIT
sample()
{
        printf '%s\t%s\t%s\t%s\n' "$@" >>"$work/samples"
}

# Runs a command that prints one line, and prints it; its troubles end everything.
measure()
{
        "$@" 2>"$log" || { cat "$log" >&2; die "failed: $*"; }
}

# The seconds that a whole process takes.
timed()
{
        measure "$bin/bench-time" "$@"
}

# rate SECONDS COUNT: how many a second.
rate()
{
        awk -v s="$1" -v n="$2" 'BEGIN { print (s > 0 ? n / s : 0) }'
}

# As a program of ours prints it: "seconds engine".
seconds_of()
{
        echo "${1%% *}"
}

# Fresh copies, none of them with writeback under way.
copy()
{
        cp --sparse=always "$1" "$2"
        sync "$2"
}

# ---- snapshots ------------------------------------------------------------------

# One line an operation: its name and the arguments of both tools.
snapshot_operations='create-first -c a
create-second -c b
goto -a a
delete -d b
delete-last -d a'

# snapshot_run SIZE: one run of each operation on both sides.
snapshot_run()
{
        copy "$work/base" "$work/ours"
        copy "$work/base" "$work/peer"
        echo "$snapshot_operations" | while read -r operation option name; do
                s=$(timed "$hv_img" snapshot "$option" "$name" "$work/ours")
                sample "snapshots/$1/$operation" ours "$s" s
                s=$(timed qemu-img snapshot "$option" "$name" "$work/peer")
                sample "snapshots/$1/$operation" peer "$s" s
        done
        rm "$work/ours" "$work/peer"
}

# snapshot_inside SIZE: the operations themselves; leaves the image in ours.
snapshot_inside()
{
        copy "$work/base" "$work/ours"
        measure "$bin/bench-snapshots" "$work/ours" >"$work/inside"
        while read -r operation _ s _ engine_used; do
                sample "snapshots/$1/$operation/inside" ours "$s" s
                echo "$engine_used" >"$work/engine"
        done <"$work/inside"
}

bench_snapshots()
{
        for size in $snapshot_sizes; do
                say "snapshots of $size"
                qemu-img create -q -f qcow2 -o cluster_size=64k,preallocation=metadata \
                        "$work/base" "$size"
                run=0
                while [ $((run += 1)) -le "$runs" ]; do
                        snapshot_run "$size"
                        snapshot_inside "$size"
                done
                if [ "$size" != 1T ] || [ $check = 1 ]; then
                        measure "$hv_img" snapshot -c left "$work/ours"
                        measure qemu-img check -q -f qcow2 "$work/ours"
                        say "qemu-img check finds our image of $size clean"
                fi
                rm "$work/base" "$work/ours"
        done
}

# ---- requests and sequential ----------------------------------------------------

# What bench-requests and bench-raw write.
pattern=165
cache=writeback direct_option=
[ $direct = 0 ] || { cache=none; direct_option=-n; }

# An odd number of blocks, so that each of the 2^n is visited before any twice; near
# the golden section, so that neighbours in time are far apart on the disk.
step()          # DISK_BYTES BLOCK_BYTES
{
        echo $((($1 / $2 * 382 / 1000 | 1) * $2))
}

# QEMU's name for what drives its I/O, the ring if it has one.
find_qemu_aio()
{
        qemu_aio=threads
        qemu-img create -q -f qcow2 "$work/probe" 1M
        ! qemu-img bench -q -f qcow2 -i io_uring -c 1 "$work/probe" >/dev/null 2>&1 ||
                qemu_aio=io_uring
        rm "$work/probe"
}

# qemu COUNT DEPTH BYTES STEP FLUSH_INTERVAL [-w] FILE: the seconds.
qemu()
{
        qemu_options="-f qcow2 -t $cache -i $qemu_aio -c $1 -d $2 -s $3 -S $4"
        [ "$5" = 0 ] || qemu_options="$qemu_options --flush-interval=$5"
        case " $* " in
        *' -w '*) qemu_options="$qemu_options --pattern=$pattern" ;;
        esac
        shift 5
        said=$(measure qemu-img bench $qemu_options "$@")
        said=${said##*Run completed in }
        echo "${said%% seconds*}"
}

# ours PROGRAM COUNT DEPTH BYTES STEP FLUSH_INTERVAL [-w] FILE: "seconds engine".
ours()
{
        our_program=$bin/$1
        our_options="-c $2 -d $3 -s $4 -S $5 -f $6 $direct_option"
        shift 6
        measure "$our_program" $our_options "$@"
}

# Two disks of the same length full of the same data: full.qcow2 and full.raw.
make_full()
{
        [ ! -f "$work/full.raw" ] || return 0
        for format in qcow2 raw; do
                qemu-img create -q -f $format "$work/full.$format" $disk_bytes
                measure qemu-img bench -f $format -w --pattern=$pattern -s 1M -d 1 \
                        -c $((disk_bytes >> 20)) "$work/full.$format" >/dev/null
                sync "$work/full.$format"
        done
}

# Two empty disks of the same length: new.qcow2 and new.raw, and new.peer.
make_new()
{
        rm -f "$work/new.qcow2" "$work/new.peer" "$work/new.raw"
        qemu-img create -q -f qcow2 "$work/new.qcow2" $sparse_bytes
        qemu-img create -q -f qcow2 "$work/new.peer" $sparse_bytes
        qemu-img create -q -f raw "$work/new.raw" $sparse_bytes
        # A file made by another process a moment ago is no fair start on a disk.
        sync "$work/new.qcow2" "$work/new.peer" "$work/new.raw"
}

# compare NAME UNIT OURS PEER RAW COUNT DEPTH BYTES STEP FLUSH_INTERVAL [-w]:
# one run of the plugin, of QEMU ("-": not), and of the bare ring, on those files.
compare()
{
        name=$1 unit=$2 our_file=$3 peer_file=$4 raw_file=$5
        shift 5
        line=$(ours bench-requests "$@" "$work/$our_file")
        echo "${line#* }" >"$work/engine"
        ours_rate=$(rate "$(seconds_of "$line")" "$1")
        if [ "$peer_file" != - ]; then
                s=$(qemu "$@" "$work/$peer_file")
                sample "$name/qemu" ours "$ours_rate" "$unit"
                sample "$name/qemu" peer "$(rate "$s" "$1")" "$unit"
        fi
        line=$(ours bench-raw "$@" "$work/$raw_file")
        sample "$name/raw" ours "$ours_rate" "$unit"
        sample "$name/raw" peer "$(rate "$(seconds_of "$line")" "$1")" "$unit"
}

# The same allocating writes as whole processes: what was put off until the image
# is closed counts.  Rates of writes.
compare_whole()
{
        make_new
        s=$(timed "$bin/bench-requests" -c $allocate_count -d 64 -s 4096 -S "$cluster_step" -w \
                $direct_option "$work/new.qcow2")
        sample requests/allocate-4k-closed/qemu ours "$(rate "$s" $allocate_count)" 1/s
        s=$(timed qemu-img bench -f qcow2 -t $cache -i $qemu_aio -c $allocate_count -d 64 -s 4096 \
                -S "$cluster_step" -w --pattern=$pattern "$work/new.peer")
        sample requests/allocate-4k-closed/qemu peer "$(rate "$s" $allocate_count)" 1/s
}

bench_requests()
{
        say "requests"
        make_full
        block_step=$(step $disk_bytes 4096)
        cluster_step=$(step $sparse_bytes 65536)
        full='1/s full.qcow2 full.qcow2 full.raw'
        alone='1/s full.qcow2 - full.raw'
        new='1/s new.qcow2 new.peer new.raw'
        run=0
        while [ $((run += 1)) -le "$runs" ]; do
                compare requests/read-4k $full $read_count 64 4096 "$block_step" 0
                compare requests/read-4k-random $alone $read_count 64 4096 0 0 -r
                compare requests/write-4k $full $write_count 64 4096 "$block_step" 0 -w
                compare requests/write-4k-random $alone $write_count 64 4096 0 0 -w -r
                make_new
                compare requests/allocate-4k $new $allocate_count 64 4096 "$cluster_step" 0 -w
                compare_whole
                make_new
                compare requests/allocate-4k-flush-32 $new $flush_count 32 4096 \
                        "$cluster_step" 32 -w
        done
        measure qemu-img check -q -f qcow2 "$work/new.qcow2"
        measure qemu-img compare -q -f qcow2 -F qcow2 "$work/new.qcow2" "$work/new.peer"
        say "after the last run our image is clean for qemu-img and holds the same data"
        rm "$work/new.qcow2" "$work/new.peer" "$work/new.raw"
}

bench_sequential()
{
        say "sequential"
        make_full
        full='MiB/s full.qcow2 full.qcow2 full.raw'
        run=0
        while [ $((run += 1)) -le "$runs" ]; do
                compare sequential/read-1m $full $stream_count 8 1048576 1048576 0
                compare sequential/write-1m $full $stream_count 8 1048576 1048576 0 -w
        done
}

# ---- live -----------------------------------------------------------------------

# bytes SIZE: of 64G and its like.
bytes()
{
        case $1 in
        *G) echo $((${1%G} << 30)) ;;
        *T) echo $((${1%T} << 40)) ;;
        esac
}

# live_samples SIZE: what bench-live said.
live_samples()
{
        while read -r operation s plain_stall stall plain_rate rate; do
                if [ "$operation" = memory ]; then
                        sample "live/$1/memory" ours "$s" MiB
                        continue
                fi
                sample "live/$1/$operation" ours "$s" s
                sample "live/$1/$operation/stall" ours "$stall" s
                sample "live/$1/$operation/stall" peer "$plain_stall" s
                sample "live/$1/$operation/writes" ours "$rate" 1/s
                sample "live/$1/$operation/writes" peer "$plain_rate" 1/s
        done <"$work/live"
}

# live_stopped SIZE: the longest stall of each operation next to the time that QEMU stands.
live_stopped()
{
        for pair in create:-c goto:-a delete:-d; do
                case $pair in
                create:*) parts='prepare publish' ;;
                *) parts=${pair%:*} ;;
                esac
                awk -v parts=" $parts " 'index(parts, " " $1 " ") && $4 > m { m = $4 }
                        END { print m }' "$work/live" >"$work/longest"
                sample "live/$1/stopped/${pair%:*}" ours "$(cat "$work/longest")" s
                run=0
                while [ $((run += 1)) -le "$runs" ]; do
                        copy "$work/base" "$work/peer"
                        [ "${pair%:*}" = create ] || measure qemu-img snapshot -c a "$work/peer"
                        s=$(timed qemu-img snapshot "${pair#*:}" a "$work/peer")
                        sample "live/$1/stopped/${pair%:*}" peer "$s" s
                        rm "$work/peer"
                done
        done
}

bench_live()
{
        for size in $live_sizes; do
                say "live, $size"
                measure "$bin/make-mapped" "$work/live.qcow2" "$(bytes "$size")"
                [ "$size" != 64G ] || copy "$work/live.qcow2" "$work/base"
                measure "$bin/bench-live" $cpu "$work/live.qcow2" "$runs" >"$work/live"
                live_samples "$size"
                if [ "$size" = 64G ]; then
                        live_stopped "$size"
                        measure qemu-img check -q -f qcow2 "$work/live.qcow2"
                        say "qemu-img check finds our image of $size clean"
                        rm "$work/base"
                fi
                rm "$work/live.qcow2"
        done
        [ -f "$work/engine" ] || echo "its own ring" >"$work/engine"
}

# ---- savevm ---------------------------------------------------------------------

# QEMU's RAM comes from $work/ram.
peer_savevm() # MIB
{
        qemu-img create -q -f qcow2 "$work/peer" 64M
        measure python3 "$root/tests/bench/qemu-savevm.py" "$work/peer" "$work/ram" \
                $(($1 + $1 / 4 + 64))
        rm "$work/peer"
}

# The peer's RAM comes from a file; ours is filled with as many words that differ.
bench_savevm()
{
        say "savevm of $ram_mib MiB"
        command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64 to compare with"
        head -c $((ram_mib << 20)) /dev/urandom >"$work/ram"
        run=0
        while [ $((run += 1)) -le "$runs" ]; do
                measure "$bin/bench-savevm" "$work/ours" $ram_mib >"$work/said"
                save=$(awk -F '[\t ]' '$1 == "savevm" && $3 == "s" { print $2 }' "$work/said")
                load=$(awk -F '[\t ]' '$1 == "loadvm" && $3 == "s" { print $2 }' "$work/said")
                sample savevm/save ours "$save" s
                sample savevm/load ours "$load" s
                said=$(peer_savevm $ram_mib)
                sample savevm/save peer "${said% *}" s
                sample savevm/load peer "${said#* }" s
                rm "$work/ours"
        done
        rm "$work/ram"
        [ -f "$work/engine" ] || echo "its own ring" >"$work/engine"
}

# ---- pause ----------------------------------------------------------------------

# Lines "NAME VALUE" of bench-pause become samples.
pause_samples() # MIB PAGES
{
        while read -r name value; do
                case $name in
                *-pause | *-stall | *-touch) unit=ms ;;
                *-bytes) unit=% ;;
                *) unit=s ;;
                esac
                sample "pause/$1-MiB/$2/$name" ours "$value" $unit
        done
}

# QEMU's guest stands still from the beginning to the end.  RAM, its file and its image take
# three times its size.
pause_peer() # MIB
{
        available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
        if ! command -v qemu-system-x86_64 >/dev/null || [ $available -lt $((4 * $1)) ]; then
                return
        fi
        head -c $(($1 << 20)) /dev/urandom >"$work/ram"
        said=$(peer_savevm $1)
        rm "$work/ram"
        for pages in huge small; do
                sample "pause/$1-MiB/$pages/savevm-pause" peer "$(to_msec "${said% *}")" ms
                sample "pause/$1-MiB/$pages/loadvm-pause" peer "$(to_msec "${said#* }")" ms
        done
}

to_msec() { awk -v s="$1" 'BEGIN { print s * 1000 }'; }

bench_pause()
{
        for mib in $pause_mib; do
                for pages in huge small; do
                        say "pause, $mib MiB in $pages pages"
                        run=0
                        while [ $((run += 1)) -le "$runs" ]; do
                                measure "$bin/bench-pause" "$work/ours" $mib $pages >"$work/said"
                                pause_samples $mib $pages <"$work/said"
                                rm "$work/ours"
                        done
                done
                pause_peer $mib
        done
        [ -f "$work/engine" ] || echo "its own ring" >"$work/engine"
}

# ---- All of it ------------------------------------------------------------------

# The machine, in a line.
machine()
{
        cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
        qemu=$(qemu-img --version | sed -n 's/^qemu-img version \([^ ]*\).*/\1/p')
        echo "$(uname -sr), $(nproc) cores (${cpu:-unknown}), load $load" \
                "before; $(stat -f -c %T "$directory"), cache $cache; QEMU $qemu with $qemu_aio;" \
                "ours with $(cat "$work/engine"); medians of $runs"
}

find_qemu_aio
load=$(cut -d ' ' -f 1 /proc/loadavg)
for benchmark in $wanted; do
        "bench_$benchmark"
done
[ $tsv = 1 ] || awk -f "$root/tests/bench/table.awk" "$work/samples"
[ $tsv = 0 ] || awk -v tsv=1 -f "$root/tests/bench/table.awk" "$work/samples"
[ $tsv = 1 ] && machine >&2 || machine
