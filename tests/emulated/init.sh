#!/bin/sh
# init.sh - the emulated machine's /init: see run.sh.
#
# The machine's root is the ext4 file system on /dev/vda, and /run.sh there is what to
# run in it.  Ports of the virtio console lead out: 1 stdout, 2 stderr, 3 the tar archive of
# what is brought back, 4 the exit status, last.
#
# SPDX-License-Identifier: MIT

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

while read -r module; do
        insmod "$module"
done </modules

mount -t ext4 -o noinit_itable /dev/vda /mnt
cd /mnt || poweroff -f
mkdir -p /dev/pts /dev/shm /dev/hugepages
for directory in proc sys dev; do
        mount -o bind "/$directory" "$directory"
done
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t hugetlbfs hugetlbfs dev/hugepages
mount -t tmpfs tmpfs run
ip link set lo up
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr

# A port can be opened once only, hence the pipes.
mkfifo /stdout /stderr
cat /stdout >/dev/vport0p1 &
cat /stderr >/dev/vport0p2 &

if [ -c /dev/kvm ]; then
        setsid chroot . /bin/sh /run.sh </dev/null >/stdout 2>/stderr
        status=$?
else
        {
                echo "run: no /dev/kvm in the machine; its kernel says:"
                dmesg | grep -i -e kvm -e svm
        } >/stderr 2>&1
        : >/stdout
        status=125
fi

# What it left running, which would hold the pipes open.
for process in /proc/[0-9]*; do
        [ "$(readlink "$process/root")" != /mnt ] || kill -9 "${process#/proc/}"
done
wait

if [ -s output.list ]; then
        set --
        while read -r path; do
                set -- "$@" "$path"
        done <output.list
        tar -c -f /dev/vport0p3 "$@" || status=125
fi
cd /
# In reverse order; the root itself is busy, and of no interest any more.
umount -a -t ext4 2>/dev/null
sync
echo "$status" >/dev/vport0p4
poweroff -f
