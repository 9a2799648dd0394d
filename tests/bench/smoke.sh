#!/bin/sh
# smoke.sh - the benchmarks still run, and say what they measured.  Figures of tiny
# images mean nothing and are not looked at.
#
# SPDX-License-Identifier: MIT
set -eu

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

command -v qemu-img >/dev/null || skip_all "no qemu-img"

# Are all lines five fields, of them two or three positive numbers, and their names $@?
figures_are()
{
        awk -F '\t' -v names="$*" '
                BEGIN {
                        n = split(names, name, " ")
                }
                NF != 5 || $1 != name[NR] || $2 <= 0 || $5 !~ /^(s|ms|%|1\/s|MiB(\/s)?)$/ {
                        print "line " NR ": " $0; bad = 1
                }
                END {
                        if (NR != n)
                                print NR " figures of " n
                        exit bad || NR != n
                }'
}

runs()          # BENCHMARK FIGURE...
{
        benchmark=$1
        shift
        figures=$(sh "$tests/bench/run.sh" --small --runs 1 --tsv --build "$build" \
                --dir "${TMPDIR:-/tmp}" "$benchmark") || return
        echo "$figures" | figures_are "$@"
}

snapshot_figures=
for form in '' /inside; do
        for operation in create-first create-second goto delete delete-last; do
                snapshot_figures="$snapshot_figures snapshots/64M/$operation$form"
        done
done

live_figures=
for operation in prepare publish goto countdown delete; do
        for figure in '' /stall /writes; do
                live_figures="$live_figures live/1G/$operation$figure"
        done
done

check "snapshots runs" runs snapshots $snapshot_figures
check "requests runs" runs requests requests/read-4k/qemu requests/read-4k/raw \
        requests/read-4k-random/raw requests/write-4k/qemu requests/write-4k/raw \
        requests/write-4k-random/raw requests/allocate-4k/qemu requests/allocate-4k/raw \
        requests/allocate-4k-closed/qemu requests/allocate-4k-flush-32/qemu \
        requests/allocate-4k-flush-32/raw
check "sequential runs" runs sequential sequential/read-1m/qemu sequential/read-1m/raw \
        sequential/write-1m/qemu sequential/write-1m/raw
check "live runs" runs live $live_figures live/1G/memory
check "savevm runs" runs savevm savevm/save savevm/load
pause_figures=
for pages in huge small; do
        for figure in savevm-total savevm-pause savevm-stall savevm-again-total \
                      savevm-again-pause savevm-again-stall savevm-again-bytes loadvm-total \
                      loadvm-pause loadvm-stall loadvm-whole loadvm-touch \
                      loadvm-again-touch; do
                pause_figures="$pause_figures pause/16-MiB/$pages/$figure"
        done
done
check "pause runs" runs pause $pause_figures
done_testing
