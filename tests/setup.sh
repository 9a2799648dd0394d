#!/bin/sh
# setup.sh - install what building and testing needs, on Debian.
#
# Only missing packages are installed, and package lists are fetched only when
# something is missing: with everything in place this neither needs a network
# nor root.  Quiet; what apt says is in LOG and shown when it fails.
#
# The kernel of the emulated machine is fetched and kept in build/: no boot loader
# learns of it.
#
#   SETUP_LOG=FILE            where apt's output goes (default: build/setup.log)
#   QEMU_FROM_BACKPORTS=1     bring qemu-utils to the backports suite's version,
#                             the one to measure against
#
# SPDX-License-Identifier: MIT
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
log=${SETUP_LOG:-$here/build/setup.log}
backports=${QEMU_FROM_BACKPORTS:-0}

# The compiler and what meson calls; the libraries; the peers and judges of tests.
packages="
        gcc g++ clang libclang-rt-14-dev libc6-dev binutils meson ninja-build pkg-config python3
        libglib2.0-dev libjson-glib-dev zlib1g-dev liburing-dev libzstd-dev
        libseccomp-dev
        qemu-utils e2fsprogs util-linux libasan8 libubsan1 libtsan2 valgrind
        qemu-system-x86 busybox-static cpio netcat-openbsd
"

die()
{
        echo "setup: $*" >&2
        exit 1
}

installed()
{
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Runs a command as root, its output in the log, which is shown if it fails.
as_root()
{
        sudo=
        if [ "$(id -u)" != 0 ]; then
                command -v sudo >/dev/null ||
                        die "neither root nor sudo for '$1 ${2-}'; install by hand:$missing"
                sudo=sudo
        fi
        $sudo env DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1 </dev/null && return
        tail -n 40 "$log" >&2
        die "'$1 ${2-}' failed; all its output is in $log"
}

# Prints the machine's own package sources with the suite named $1 changed to $2:
# deb822 stanzas from *.sources on stdin.
rename_suite_stanzas()
{
        awk -v from="$1" -v to="$2" '
                BEGIN { RS = ""; FS = "\n" }
                {
                        text = ""; matched = 0; enabled = 1
                        for (i = 1; i <= NF; i++) {
                                if ($i ~ /^#/)
                                        continue
                                if (tolower($i) ~ /^enabled:[ \t]*no/)
                                        enabled = 0
                                if ($i ~ /^Types:/)
                                        $i = "Types: deb"
                                if ($i ~ /^Suites:/) {
                                        count = split($i, suite, /[ \t]+/)
                                        for (j = 2; j <= count; j++)
                                                matched = matched || suite[j] == from
                                        $i = "Suites: " to
                                }
                                text = text $i "\n"
                        }
                        if (matched && enabled) {
                                printf "%s", text
                                exit
                        }
                }'
}

# The same for one-line entries: deb [options] where suite components.
rename_suite_lines()
{
        awk -v from="$1" -v to="$2" '
                $1 == "deb" {
                        suite = 3
                        if ($2 ~ /^\[/) {
                                for (i = 2; $i !~ /\]$/ && i < NF; i++)
                                        ;
                                suite = i + 2
                        }
                        if ($suite == from) {
                                $suite = to
                                print
                                exit
                        }
                }'
}

# Fills directory $1 with the machine's sources and one for its backports suite.
# The machine's own configuration stays as it is.
write_sources()
{
        codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
        [ -n "$codename" ] || die "no VERSION_CODENAME in /etc/os-release"
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
                    /etc/apt/sources.list.d/*.sources; do
                [ ! -f "$file" ] || cp "$file" "$1/"
        done
        # An empty line between files: stanzas must not run together.
        for file in "$1"/*.sources; do
                [ ! -f "$file" ] || { cat "$file"; echo; }
        done | rename_suite_stanzas "$codename" "$codename-backports" >"$1/backports.sources"
        [ ! -s "$1/backports.sources" ] || return 0
        rm "$1/backports.sources"
        for file in "$1"/*.list; do
                [ ! -f "$file" ] || cat "$file"
        done | rename_suite_lines "$codename" "$codename-backports" >"$1/backports.list"
        [ -s "$1/backports.list" ] || die "no package source for suite $codename to derive from"
}

install_backport()
{
        sources=$(mktemp -d)
        trap 'rm -rf "$sources"' EXIT
        chmod 755 "$sources"
        write_sources "$sources"
        options="-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$sources
                 -o APT::Get::List-Cleanup=false"
        as_root apt-get $options update
        as_root apt-get $options install -y --no-install-recommends -t "$codename-backports" "$@"
}

# Without root too, as long as there are package lists.
fetch_kernel()
{
        prepare=$here/tests/emulated/prepare.sh
        sh "$prepare" >>"$log" 2>&1 </dev/null && return
        as_root apt-get update
        sh "$prepare" >>"$log" 2>&1 </dev/null && return
        tail -n 40 "$log" >&2
        die "no kernel for the emulated machine; all output is in $log"
}

missing=
for package in $packages; do
        installed "$package" || missing="$missing $package"
done
case $backports:$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true) in
1:*~bpo*) backports=0 ;;
esac

kernel=$here/build/emulated/release
[ -n "$missing" ] || [ "$backports" = 1 ] || [ ! -f "$kernel" ] || exit 0

command -v apt-get >/dev/null || die "no apt-get here; install by hand:$missing"
mkdir -p "$(dirname "$log")"
: >"$log"

if [ -n "$missing" ]; then
        echo "setup: installing$missing"
        as_root apt-get update
        as_root apt-get install -y --no-install-recommends $missing
fi
if [ "$backports" = 1 ]; then
        echo "setup: installing qemu-utils from backports"
        install_backport qemu-utils
fi
if [ ! -f "$kernel" ]; then
        echo "setup: fetching the emulated machine's kernel"
        fetch_kernel
fi
