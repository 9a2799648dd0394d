#!/bin/sh
# run-one.sh - run one test program, for run.sh.
#
#   run-one.sh LINE     a line of tests.list: suite, name, seconds, tags, command...,
#                       separated by tabs
#
# RESULTS, from the environment, is a directory that gets <suite>-<name>.counts
# ("passed failed skipped") and beside it .out, .err and .report.  MEMORY is one for files that
# need no disk.
#
# SPDX-License-Identifier: MIT
set -euf

IFS='	'
set -- $1
unset IFS
suite=$1 name=$2 seconds=$3 tags=$4
shift 4

# valgrind does not see what a ring writes; the thread sanitizer is there for threads.
case $suite in
valgrind | threads) export TEST_ENGINE=threads ;;
esac
[ "$suite" != threads ] || export G_TEST_BUILDDIR="$PWD/build-tsan/tests"
[ "$suite" != sanitize ] || export G_TEST_BUILDDIR="$PWD/build-asan/tests"
base=$RESULTS/$suite-$name
export TMPDIR="$base.tmp"
case $suite,$tags, in
*,disk,*) ;;
unit,* | snapshot,* | monitor,* | vm,* | sanitize,* | threads,* | valgrind,*)
        TMPDIR=$MEMORY/$suite-$name.tmp ;;
esac
mkdir -p "$TMPDIR"
ulimit -c 0

# Memory that was freed is used again: where page faults are slow (virtual machines), to give
# it back to the kernel each time takes longer than the tests themselves.
export MALLOC_TRIM_THRESHOLD_=$((1 << 30)) MALLOC_MMAP_THRESHOLD_=$((1 << 30)) \
        MALLOC_TOP_PAD_=$((16 << 20))

begin=$(date +%s.%N)
status=0
timeout -k 5 "$seconds" "$@" >"$base.out" 2>"$base.err" </dev/null || status=$?
end=$(date +%s.%N)

# Points that were planned and never came count as failed, and so does a program
# that failed without saying which point did.
awk -v status="$status" -v seconds="$seconds" '
        /^ok[ \t]/ {
                seen++
                if (toupper($0) ~ /# *SKIP/)
                        skipped++
                else
                        passed++
        }
        /^not ok/ {
                seen++
                failed++
        }
        /^1\.\.[0-9]+/ {
                planned = 1
                plan = substr($1, 4) + 0
        }
        END {
                if (!seen && (status == 77 || (planned && plan == 0 && status == 0)))
                        skipped = 1
                else if (!planned)
                        why = "no plan"
                else if (plan != seen)
                        why = seen + 0 " points of " plan " planned"

                if (status == 124 || status == 137)
                        why = "timed out after " seconds " s, " why
                else if (status > 128)
                        why = "signal " status - 128 ", " why
                else if (status != 0 && !failed && !skipped)
                        why = "exit status " status ", " why
                sub(/, $/, "", why)

                failed += plan > seen ? plan - seen : 0
                if (why != "" && !failed)
                        failed = 1
                print passed + 0, failed + 0, skipped + 0, why
        }' "$base.out" >"$base.counts"
read -r passed failed skipped why <"$base.counts"

# Programs' own comments say more than "not ok" does; a screenful of each.
report()
{
        counts="$passed passed"
        [ "$failed" = 0 ] || counts="$counts, $failed failed"
        [ "$skipped" = 0 ] || counts="$counts, $skipped skipped"
        verdict=ok
        [ "$failed" = 0 ] || verdict=FAIL
        awk -v v="$verdict" -v n="$suite/$name" -v b="$begin" -v e="$end" -v c="$counts" \
                'BEGIN { printf "%-4s %-36s %7.2f s  %s\n", v, n, e - b, c }'
        [ "$failed" = 0 ] && return
        [ -z "$why" ] || echo "     $why"
        awk '/^ok/ { next } /^#/ && !bad { held = $0; next } /^(not ok|Bail)/ { bad = 1 }
             bad' "$base.out" | head -n 60 | sed 's/^/     /'
        tail -n 40 "$base.err" | sed 's/^/     | /'
        echo "     all of it: $base.{out,err}; scratch files: $TMPDIR"
}

report >"$base.report"
flock "$RESULTS" cat "$base.report"
[ "$failed" != 0 ] || rm -rf "$TMPDIR"
