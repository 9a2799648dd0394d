#!/bin/sh
# fuzz.sh - fuzzes one mode for a while, as a test.
#
#   fuzz.sh PROGRAM MODE SECONDS WHAT
#                           seconds: TEST_SECONDS, where set, counts instead
#                           what: is hostile, an "image" or "input"
#
# FUZZ_SEED is libFuzzer's seed; without it CI takes the same each time and a soak the clock's.
# An input that fails is kept in $TMPDIR, and how to replay it is printed.
#
# SPDX-License-Identifier: MIT
set -u

program=$1 mode=$2 seconds=${TEST_SECONDS:-$3} what=$4
if [ -n "${TEST_SECONDS:-}" ]; then
        seed=${FUZZ_SEED:-$(date +%s)}
else
        seed=${FUZZ_SEED:-1}
fi
work=${TMPDIR:?an empty directory}
log=$work/fuzz.log

# Memory: an allocation of an image's choice beyond 256 MiB is a failure, not luck; one that
# fails must be survived.  Time: no input may take 20 s, on a machine that does other things too.
export ASAN_OPTIONS="allocator_may_return_null=1:quarantine_size_mb=8:malloc_context_size=6"
ASAN_OPTIONS="$ASAN_OPTIONS:allocator_release_to_os_interval_ms=-1"
export UBSAN_OPTIONS="print_stacktrace=1"

mkdir -p "$work/seeds" "$work/corpus"
if ! "$program" --seeds="$work/seeds" >"$log" 2>&1; then
        sed 's/^/# /' "$log"
        echo "not ok 1 - $mode: seeds"
        echo "1..1"
        exit 1
fi

crashed=0
"$program" --mode="$mode" -seed="$seed" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=131072 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work/corpus" "$work/seeds" >"$log" 2>&1 || crashed=1
tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")

echo "# seed $seed"
if [ $crashed != 0 ]; then
        grep -E 'violated|differs|ERROR|SUMMARY|runtime error|^  (we|qemu-img):|^    #' "$log" |
                head -n 40 | sed 's/^/# /'
        for input in "$work"/crash-* "$work"/timeout-* "$work"/oom-* "$work"/leak-*; do
                [ ! -f "$input" ] || echo "# replay: $program --mode=$mode $input"
        done
        echo "not ok 1 - $mode: no $what does harm"
else
        echo "ok 1 - $mode: no $what does harm"
fi
echo "1..1"
echo "# proof: hostile ${what}s: ${tried:-0}, crashed: $crashed"
exit $crashed
