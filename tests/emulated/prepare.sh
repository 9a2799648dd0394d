#!/bin/sh
# prepare.sh - what every emulated machine has in common, kept in build/emulated/.
#
#   release          the kernel's release
#   vmlinuz          Debian's cloud kernel; no boot loader sees it
#   lib/modules/     its modules
#   base.cpio        initramfs: busybox, modules, init.sh as /init.  Not compressed: the
#                    emulator is slow at inflating
#   root/            bare root directory of the machine: busybox and its applets
#
# Does nothing when all that is there and not older than the scripts.  Only fetching the
# kernel needs a network.
#
# SPDX-License-Identifier: MIT
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$here/../../build/emulated
metapackage=linux-image-cloud-amd64

# Loaded by init.sh, with what they depend on.
modules="virtio_pci virtio_blk virtio_console virtio_mmio kvm_amd loop"

die()
{
        echo "prepare: $*" >&2
        exit 1
}

# The package of the kernel that the metapackage stands for.
kernel_package()
{
        apt-cache depends --important "$metapackage" 2>/dev/null |
                awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

fetch_kernel()
{
        package=$(kernel_package)
        [ -n "$package" ] || die "no package $metapackage is known; run tests/setup.sh"
        (cd "$1" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package") ||
                die "cannot download $package"
}

# Modules of release $1 in the current directory that $modules need, dependencies first.
needed_modules()
{
        awk -F '[: ]+' -v wanted="$modules" '
                function name(path)
                {
                        sub(/.*\//, "", path)
                        sub(/\.ko$/, "", path)
                        gsub(/-/, "_", path)
                        return path
                }
                { line[name($1)] = $0 }
                END {
                        count = split(wanted, names, " ")
                        for (i = 1; i <= count; i++) {
                                if (!(names[i] in line))
                                        exit 1
                                # The nearest dependency stands first.
                                for (j = split(line[names[i]], paths, "[: ]+"); j > 0; j--)
                                        if (paths[j] != "" && !seen[paths[j]]++)
                                                print paths[j]
                        }
                }' "lib/modules/$1/modules.dep"
}

extract_kernel()
{
        work=$(mktemp -d "$cache/kernel.XXXXXX")
        fetch_kernel "$work"
        dpkg-deb -x "$work"/*.deb "$work"
        release=$(ls "$work/lib/modules")
        busybox depmod -b "$work" "$release"
        rm -rf "$cache/lib"
        mv "$work/lib" "$cache/lib"
        mv "$work/boot/vmlinuz-$release" "$cache/vmlinuz"
        rm -rf "$work"
        echo "$release" >"$cache/release"
}

# A directory with busybox and its applets.
make_root()
{
        mkdir -p "$1"
        (
                cd "$1"
                mkdir -p bin sbin usr/bin usr/sbin lib lib64 dev proc sys run tmp root etc mnt
                chmod 1777 tmp
                cp "$(command -v busybox)" bin/busybox
                busybox --list-full | while read -r applet; do
                        [ -e "$applet" ] || ln -s /bin/busybox "$applet"
                done
                echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
                echo 'root:x:0:' >etc/group
                ln -s /proc/mounts etc/mtab
        )
}

make_base()
{
        read -r release <"$cache/release"
        rm -rf "$cache/root" "$cache/base"
        make_root "$cache/root"
        cp -a "$cache/root" "$cache/base"
        (
                cd "$cache"
                needed_modules "$release" >base/modules || die "no such modules: $modules"
                while read -r path; do
                        cp "lib/modules/$release/$path" base/lib/
                done <base/modules
                sed 's|.*/|/lib/|' base/modules >base/modules.new
                mv base/modules.new base/modules
                cp "$here/init.sh" base/init
                chmod 755 base/init
                cd base
                find . | cpio --quiet -o -H newc -R 0:0 >../base.cpio.new
        )
        rm -rf "$cache/base"
        mv "$cache/base.cpio.new" "$cache/base.cpio"
}

# Static, or it would not run where there is no library yet.
busybox true 2>/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ||
        die "no static busybox; install busybox-static"
command -v cpio >/dev/null || die "no cpio; install cpio"

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/lock"
flock 9
[ -f "$cache/release" ] || extract_kernel
if [ ! -f "$cache/base.cpio" ] ||
   [ -n "$(find "$here/init.sh" "$0" -newer "$cache/base.cpio")" ]; then
        make_base
fi
