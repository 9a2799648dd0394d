#!/bin/sh
# header-alone.sh - include/hv-block.h needs nothing of this project, in C and C++,
# and the plugin shows nothing but its entry.
#
# SPDX-License-Identifier: MIT
set -eu

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$tap_output"' EXIT

# Included twice: its guard works.
for suffix in c cc; do
        printf '#include "hv-block.h"\n#include "hv-block.h"\n' >"$work/alone.$suffix"
done

compiles()      # COMPILER STANDARD SUFFIX
{
        "$1" "-std=$2" -Wall -Wextra -Wconversion -pedantic -Werror -fsyntax-only \
                -I "$source/include" "$work/alone.$3"
}

# The header includes libc's only.
foreign_includes()
{
        ! grep -n '#include' "$source/include/hv-block.h" |
                grep -vE '<(stddef|stdint|sys/uio)\.h>'
}

exports_entry_only()
{
        nm -D --defined-only "$build/driver/block-qcow2.so" | awk '{ print $3 }' >"$work/exports"
        cat "$work/exports"
        [ "$(cat "$work/exports")" = hvb_driver_entry ]
}

# Every library that the plugin needs, so that a new one is noticed here.
needs_known_libraries()
{
        objdump -p "$build/driver/block-qcow2.so" | awk '$1 == "NEEDED" { print $2 }' |
                grep -vE '^(lib(c|m|pthread|glib-2\.0|z|zstd|uring)\.so|ld-linux)' && return 1
        return 0
}

for compiler in gcc clang; do
        for standard in c99 c11; do
                name="$compiler -std=$standard"
                if command -v $compiler >/dev/null; then
                        check "$name" compiles $compiler $standard c
                else
                        skip "$name" "no $compiler"
                fi
        done
done
for compiler in g++ clang++; do
        for standard in c++11 c++17; do
                name="$compiler -std=$standard"
                if command -v $compiler >/dev/null; then
                        check "$name" compiles $compiler $standard cc
                else
                        skip "$name" "no $compiler"
                fi
        done
done
check "includes libc only" foreign_includes
check "the plugin exports its entry only" exports_entry_only
check "the plugin needs no library that is not named here" needs_known_libraries
done_testing
