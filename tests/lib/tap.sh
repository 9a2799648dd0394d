# tap.sh - TAP for shell tests.  Source it; call check or skip for each point and
# end with done_testing.
#
# SPDX-License-Identifier: MIT

tests=${G_TEST_SRCDIR:?run by meson test or tests/run.sh}
build=${G_TEST_BUILDDIR:?}/..
source=$tests/..
tap_points=0
tap_failures=0
tap_output=$(mktemp)
trap 'rm -f "$tap_output"' EXIT

# check NAME COMMAND...: one point; a failing command's output becomes comments.
check()
{
        tap_name=$1
        shift
        tap_points=$((tap_points + 1))
        if ("$@") >"$tap_output" 2>&1; then
                echo "ok $tap_points $tap_name"
        else
                tap_failures=$((tap_failures + 1))
                echo "not ok $tap_points $tap_name"
                sed 's/^/# /' "$tap_output"
        fi
}

# skip NAME REASON: one point that cannot be tested here.
skip()
{
        tap_points=$((tap_points + 1))
        echo "ok $tap_points $1 # SKIP $2"
}

# skip_all REASON: ends the program, nothing of which can be tested here.
skip_all()
{
        echo "1..0 # SKIP $1"
        exit 0
}

done_testing()
{
        echo "1..$tap_points"
        [ "$tap_failures" = 0 ]
        exit
}
