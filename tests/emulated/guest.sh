# guest.sh - a Linux guest for a hypervisor under test.  Source it after tap.sh.
#
# The guest is Debian's cloud kernel with linux-guest.c as its initramfs and on its disk.
#
# SPDX-License-Identifier: MIT

guest_program=$build/tests/linux-guest
guest_kernel=$build/emulated/vmlinuz

# What it cannot do without, dependencies first; ext4 is built in.
guest_modules="virtio_ring virtio virtio_mmio virtio_blk"

# guest_initrd FILE: its initramfs.
guest_initrd()
{
        guest_tree=$(mktemp -d)
        mkdir "$guest_tree/dev" "$guest_tree/root" "$guest_tree/lib"
        cp "$guest_program" "$guest_tree/init"
        for guest_module in $guest_modules; do
                find "$build/emulated/lib" -name "$guest_module.ko" \
                        -exec cp {} "$guest_tree/lib/" \;
                echo "/lib/$guest_module.ko" >>"$guest_tree/modules"
        done
        (cd "$guest_tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$1"
        rm -rf "$guest_tree"
}

# guest_disk FILE SIZE: its ext4 file system, as a raw image.
guest_disk()
{
        guest_tree=$(mktemp -d)
        mkdir "$guest_tree/dev" "$guest_tree/sbin"
        cp "$guest_program" "$guest_tree/sbin/init"
        truncate -s "$2" "$1"
        mke2fs -q -F -t ext4 -b 4096 -E root_owner=0:0 -d "$guest_tree" "$1"
        rm -rf "$guest_tree"
}

# guest_image FILE: the same as a qcow2 image.
guest_image()
{
        guest_disk "$1.raw" 64M
        qemu-img convert -f raw -O qcow2 "$1.raw" "$1"
        rm "$1.raw"
}

# guest_image_is_clean FILE: qemu-img and e2fsck find nothing wrong with it.
guest_image_is_clean()
{
        qemu-img check "$1" && qemu-img convert -f qcow2 -O raw "$1" "$1.raw" &&
                e2fsck -fn "$1.raw"
}

savevm_comments() { grep '^#' "$1"; false; }

# savevm_points FILE: what savevm-linux.sh printed becomes points.
savevm_points()
{
        while read -r line; do
                case $line in
                "ok "*) check "${line#ok }" true ;;
                "not ok "*) check "${line#not ok }" savevm_comments "$1" ;;
                esac
        done <"$1"
}
