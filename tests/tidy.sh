#!/bin/sh
# tidy.sh - the house rules are a test.
#
#   tidy.sh [--root DIRECTORY]           one TAP point a rule, violations as comments
#   tidy.sh [--root DIRECTORY] --list    violations only: rule, tab, file:line: what
#
# That each rule can fail is tested by tidy-self-test.sh.
#
# SPDX-License-Identifier: MIT
set -euf
export LC_ALL=C

tests=$(cd "$(dirname "$0")" && pwd)
root=$tests/..
mode=check

# rule: what holds
rules='floors: a floor of driver/ includes only itself and lower ones, async/ not disk/
glue: hv-glue/ includes nothing of driver/
house: the top level holds what it should
built: every source file is named in a meson.build
file-length: files of driver/ and hv-glue/ have at most 700 lines
function-length: their functions have at most 70
await-switch: no switch around an await
await-line: at most one await on a line
await-macro: no macro hides an await
unfinished: nothing is left to be finished
licence: every file names its licence
whitespace: no trailing whitespace, no tabs in C
columns: lines have at most 100 columns
silence: the driver neither prints nor exits'

# Files of the checkout under the given names, build directories left out.
files()
{
        find "$@" -type f | sort
}

check_house()
{
        ls -A | while read -r entry; do
                case $entry in
                driver | include | hv-glue | tests | .ci | .git) ;;
                meson.build | README.md | LICENSE | .gitignore | .clang-format) ;;
                build*) ;;
                *) printf 'house\t%s: does not belong at the top level\n' "$entry" ;;
                esac
        done
}

# A test's key stands in tests/meson.build without "test-" and ".c".
check_built()
{
        for directory in driver hv-glue tests; do
                [ -d "$directory" ] || continue
                files "$directory" | grep '\.c$' | while read -r file; do
                        path=${file#"$directory"/}
                        key=${path##*/test-}
                        grep -qF "'$path'" "$directory/meson.build" && continue
                        case $path in
                        */test-*.c) grep -q "^ *'${key%.c}':" tests/meson.build && continue ;;
                        esac
                        printf 'built\t%s: not in %s/meson.build\n' "$file" "$directory"
                done
        done
}

# Prints "rule<TAB>violation" lines for the current directory.
violations()
{
        check_house
        check_built
        set --
        for directory in driver include hv-glue tests; do
                [ ! -d "$directory" ] || set -- "$@" "$directory"
        done
        files "$@" | grep -E '\.(c|h|sh|awk|py)$' | xargs -d '\n' awk -f "$tests/tidy.awk"
}

check()
{
        found=$(mktemp)
        trap 'rm -f "$found"' EXIT
        violations >"$found"
        echo "$rules" | awk -F '\t' -v found="$found" '
                BEGIN {
                        while ((getline <found) > 0)
                                text[$1] = text[$1] "# " $2 "\n"
                }
                {
                        rule = $0
                        sub(/:.*/, "", rule)
                        bad = rule in text
                        printf "%sok %d - %s\n", bad ? "not " : "", NR, $0
                        printf "%s", text[rule]
                        failures += bad
                }
                END {
                        print "1.." NR
                        exit failures > 0
                }'
}

while [ $# -gt 0 ]; do
        case $1 in
        --root) root=$2; shift ;;
        --list) mode=violations ;;
        *) echo "tidy: no such option: $1" >&2; exit 2 ;;
        esac
        shift
done
cd "$root"
$mode
