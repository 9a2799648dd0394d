#!/bin/sh
# run.sh - set up, build, test everything; see --help.
#
# SPDX-License-Identifier: MIT
set -euf

usage()
{
        cat <<END
Usage: sh tests/run.sh [options]

Installs what is missing (setup.sh), builds build/, build-asan/, build-tsan/ and build-fuzz/,
runs the tests two at a time and ends with "N passed, M failed".

  --only NAME      only this suite or this test program; may be repeated.
                   Suites: those of tests/meson.build, and three made from them:
                   sanitize  unit, interop and what is tagged so, with address and UB sanitizers
                   threads   what is tagged so, on the thread engine, with thread sanitizer
                   valgrind  what is tagged so
  --soak MINUTES   only the random tests, each for so long
  --jobs N         run N tests at a time (2)
  --no-setup       install nothing
  --list           list the tests instead
  --help           this text
END
}

die()
{
        echo "run: $*" >&2
        exit 2
}

only= soak=0 jobs=2 setup=1 list=0
while [ $# -gt 0 ]; do
        case $1 in
        --only | --soak | --jobs) [ $# -ge 2 ] || die "$1 needs a value" ;;
        esac
        case $1 in
        --only) only="$only $2"; shift ;;
        --soak) soak=$2; shift ;;
        --jobs) jobs=$2; shift ;;
        --no-setup) setup=0 ;;
        --list) list=1 ;;
        --help) usage; exit 0 ;;
        *) die "no such option: $1 (try --help)" ;;
        esac
        shift
done
case $soak$jobs in
*[!0-9]*) die "--soak and --jobs take whole numbers" ;;
esac

cd "$(dirname "$0")/.."
root=$PWD
RESULTS=$root/build/test-results
export RESULTS
mkdir -p build
rm -rf "$RESULTS"
mkdir "$RESULTS"

# One failed point that is no test program's.
fail()
{
        echo "FAIL $1"
        tail -n 60 "$2" | sed 's/^/     /'
        echo "0 1 0" >"$RESULTS/$1.counts"
}

# programs DIRECTORY TESTS: those that these tests of its tests.list run, and the plugin unless all
# are fuzzers, which have the driver in them; as ninja's targets.  TESTS is awk's; without it
# nothing, which means all.
programs()
{
        [ -z "$2" ] || awk -F '\t' -v root="$root/$1/" '
                '"$2"' {
                        if ($4 !~ /fuzz/ && !plugin++)
                                print "driver/block-qcow2.so"
                        for (i = 5; i <= NF; i++)
                                if (index($i, root) == 1 && !seen[$i]++)
                                        print substr($i, length(root) + 1)
                }' "$1/tests/tests.list"
}

# build [--for TESTS] DIRECTORY OPTIONS...: configures it once, then builds; false when it
# fails.
build()
{
        tests=
        [ "$1" != --for ] || { tests=$2; shift 2; }
        directory=$1
        shift
        log=$RESULTS/$directory.log
        {
                [ -f "$directory/build.ninja" ] || meson setup "$directory" "$@"
        } >"$log" 2>&1 && ninja -C "$directory" build.ninja >>"$log" 2>&1 &&
                ninja -C "$directory" $(programs "$directory" "$tests") >>"$log" 2>&1 && return
        fail "$directory" "$log"
        return 1
}

# What is looked at by sanitizers and fuzzers is not optimized much, and has no more debug
# information than a backtrace shows: that takes longer to compile than it saves.
looked_at='-Doptimization=1 -Dc_args=-g1'
sanitized='(($1 == "unit" || $1 == "interop") && $4 !~ /plain/) || $4 ~ /sanitized/'

# Of the sanitized build's own tests.list what runs so; nothing when it is not asked for or does
# not build.
sanitized_list()
{
        case "$only " in
        " " | *" sanitize "* | *" unit-"* | *" interop-"* | *" proof-"* | *" monitor-"* | \
        *" snapshot-"* | *" vm-"*) ;;
        *) return 0 ;;
        esac
        build --for "$sanitized" build-asan -Db_sanitize=address,undefined $looked_at $werror \
                >&3 || return 0
        awk -F '\t' "$sanitized" build-asan/tests/tests.list
}

# The same of the build for the thread sanitizer.  Its shadow memory lies at fixed
# addresses: some kernels randomise too widely for it.
threads_list()
{
        case "$only " in
        " " | *" threads "* | *" threaded-"*) ;;
        *) return 0 ;;
        esac
        build --for '$4 ~ /threads/' build-tsan -Db_sanitize=thread $looked_at $werror >&3 ||
                return 0
        fixed=
        ! setarch -R true 2>/dev/null || fixed='setarch\t-R\t'
        awk -v fixed="$fixed" 'BEGIN { FS = OFS = "\t" }
                $4 ~ /threads/ {
                        $2 = "threaded-" $2; $1 = "threads"; $3 *= 3; $5 = fixed $5; print
                }' build-tsan/tests/tests.list
}

# The fuzzers, which are clang's.
fuzz_list()
{
        case "$only " in
        " " | *" proof "* | *" fuzz-"*) ;;
        *) return 0 ;;
        esac
        CC=clang build --for '$4 ~ /fuzz/' build-fuzz -Db_sanitize=address,undefined $looked_at \
                $werror >&3 || return 0
        awk -F '\t' '$4 ~ /fuzz/' build-fuzz/tests/tests.list
}

# All tests as lines like those of tests.list.
all_tests()
{
        cat build/tests/tests.list
        sanitized_list | awk 'BEGIN { FS = OFS = "\t" }
                { $2 = $1 "-" $2; $1 = "sanitize"; $3 *= 3; print }'
        threads_list
        fuzz_list
        awk 'BEGIN { FS = OFS = "\t" }
                $4 ~ /valgrind/ {
                        $1 = "valgrind"; $3 *= 10
                        $5 = "valgrind\t-q\t--error-exitcode=99\t--leak-check=full\t" \
                             "--errors-for-leak-kinds=definite\t" $5
                        print
                }' build/tests/tests.list
}

# Of lines on stdin, what the command line asks for.
selected()
{
        awk -v only="$only" -v soak="$soak" 'BEGIN {
                        FS = OFS = "\t"
                        count = split(only, names, " ")
                }
                soak > 0 && $4 !~ /soak/ { next }
                {
                        wanted = count == 0
                        for (i = 1; i <= count; i++)
                                wanted = wanted || $1 == names[i] || $2 == names[i]
                        $3 += 60 * soak
                }
                wanted'
}

# Fresh checkouts of the CI have no excuse for warnings.
werror=
[ -z "${CI:-}" ] || werror=-Dwerror=true

[ "$setup" = 0 ] || SETUP_LOG=$root/build/setup.log sh tests/setup.sh ||
        { echo "0 passed, 1 failed"; exit 1; }

# Half of the programs would wait for a disk most of the time: their files lie in memory.  On the
# disk stay those of scripts, of what compares with QEMU, and of what is tagged so.
MEMORY=$RESULTS
has_room() { [ "$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')" -gt $((4 << 20)) ]; }
is_like_a_disk()
{
        dd if=/dev/zero of="$1/probe" bs=4096 count=1 oflag=direct 2>/dev/null &&
                fallocate -p -o 0 -l 4096 "$1/probe" 2>/dev/null && rm "$1/probe"
}
if has_room /dev/shm 2>/dev/null && memory=$(mktemp -d /dev/shm/block-qcow2.XXXXXX); then
        # What failed keeps its files.
        trap 'rmdir "$memory" 2>/dev/null || true' EXIT
        trap 'rm -rf "$memory"; exit 130' INT TERM
        if is_like_a_disk "$memory"; then
                MEMORY=$memory
        else
                rm -f "$memory/probe"
        fi
fi
export MEMORY

export G_TEST_SRCDIR="$root/tests" G_TEST_BUILDDIR="$root/build/tests"
# A quarantine of 16 MiB, and what is free is kept: see run-one.sh.
asan=detect_stack_use_after_return=1:strict_string_checks=1
asan=$asan:quarantine_size_mb=16:allocator_release_to_os_interval_ms=-1
export ASAN_OPTIONS="${ASAN_OPTIONS:-$asan}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-second_deadlock_stack=1}"
[ "$soak" = 0 ] || export TEST_SECONDS=$((60 * soak))

exec 3>&1
: >"$RESULTS/selected"
if build build $werror; then
        # Longest first: the jobs end together.
        all_tests | selected | sort -t '	' -s -k 3,3nr >"$RESULTS/selected"
        if [ "$list" = 1 ]; then
                cut -f 1-4 "$RESULTS/selected"
                exit 0
        fi
        [ -s "$RESULTS/selected" ] || die "no test is called$only"
        xargs -d '\n' -n 1 -P "$jobs" sh tests/run-one.sh <"$RESULTS/selected" || true
fi

# A test whose runner left no counts was lost: that is a failure too.
while IFS='	' read -r suite name _; do
        [ -f "$RESULTS/$suite-$name.counts" ] && continue
        echo "FAIL $suite/$name: no result"
        echo "0 1 0" >"$RESULTS/$suite-$name.counts"
done <"$RESULTS/selected"

set +f

# What the proofs counted ("# proof: WHAT: N, ..." in their output), added up.
for what in "crash states" "planted bugs" "fault points" "disorder seeds" "hostile images" \
            "hostile inputs"; do
        cat "$RESULTS"/proof-*.out 2>/dev/null | sed -n "s/^# proof: \\($what: .*\\)/\\1/p" |
                awk -f tests/add-figures.awk
done

# Once more, where a long log is cut in the middle.
for counts in "$RESULTS"/*.counts; do
        read -r _ failed _ <"$counts"
        [ "$failed" = 0 ] || echo "failed: $(basename "$counts" .counts)"
done

awk '
        { passed += $1; failed += $2; skipped += $3 }
        END {
                printf "%d passed, %d failed", passed, failed
                if (skipped)
                        printf ", %d skipped", skipped
                printf "\n"
                exit failed > 0 || passed + skipped == 0
        }' "$RESULTS"/*.counts
