#!/bin/sh
# demo-embedding.sh - the example that embeds the driver, on a real file system.
#
# mkfs.ext4 and qemu-img make an image; live-snapshot takes a snapshot of it while it writes
# and goes back; qemu-img and e2fsck judge.  After demo.sh's set-up and build.
#
# SPDX-License-Identifier: MIT
set -eu

cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
img=$dir/disk.qcow2

say() { printf '%s\n' "$*"; }

# Where the blocks of a file lie on the disk: "offset length", in bytes.
ranges_of()
{
        debugfs -R "blocks $1" "$dir/fs.raw" 2>/dev/null | tr -s ' ' '\n' |
                awk '/^[0-9]+$/ && $1 > 0 { print $1 * 4096, 4096 }'
}

# The same for every file but the one we overwrite: names, owners, contents.
fingerprint()
{
        rm -rf "$dir/out"
        mkdir "$dir/out"
        debugfs -R "rdump /tree $dir/out" "$1" 2>/dev/null
        (cd "$dir/out" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum
}

say "7. Embedded: an ext4 file system with this source tree, made a qcow2 image by qemu-img"
mkdir "$dir/root"
mkdir "$dir/root/tree"
cp -r driver include hv-glue tests "$dir/root/tree/"
head -c 33554432 /dev/urandom >"$dir/root/scratch"
mkfs.ext4 -q -b 4096 -d "$dir/root" "$dir/fs.raw" 128M >"$dir/mkfs.log" 2>&1
qemu-img convert -f raw -O qcow2 "$dir/fs.raw" "$img"
before=$(fingerprint "$dir/fs.raw")
ranges_of /scratch >"$dir/ranges"
say "   $(find "$dir/root/tree" -type f | wc -l) files, $(qemu-img --version | head -n 1)"

say "8. A host process loads block-qcow2.so and writes, with a snapshot in the middle"
build/hv-glue/live-snapshot "$img" "$dir/ranges"

say "9. What others say"
qemu-img check "$img" | sed 's/^/   qemu-img check: /'
qemu-img convert -f qcow2 -O raw "$img" "$dir/after.raw"
e2fsck -fn "$dir/after.raw" 2>&1 | tail -n 1 | sed 's/^/   e2fsck -fn: /'
after=$(fingerprint "$dir/after.raw")
[ "$before" = "$after" ] || { say "   the files differ"; exit 1; }
say "   every file of the tree is as it was"
