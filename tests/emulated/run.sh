#!/bin/sh
# run.sh - run a command in an emulated machine that has KVM; see --help.
#
# The machine: QEMU's emulator (no KVM needed here), an EPYC with SVM and nested paging,
# Debian's cloud kernel, and a root file system (ext4 on a disk, made for this run) with
# busybox and with what the command needs, all of it at the same absolute paths as
# here: so a command line means the same inside and outside.
#
# SPDX-License-Identifier: MIT
set -eu

usage()
{
        cat <<END
Usage: sh tests/emulated/run.sh [options] COMMAND [ARGUMENT...]

Runs COMMAND as root, with /dev/kvm, in an emulated machine without a network.  Its
output and exit status are the script's.  Inside are the programs and plugins of the
build directory, COMMAND's own program, busybox for all else, and /tmp on an ext4 disk;
the current directory has the same name as here.

  --build DIR       the build directory (build/ of this checkout)
  --input PATH      a file or directory for the machine, at the same path there; a program
                    (also found by its name in \$PATH) comes with its libraries; repeatable
  --output DIR      a directory that the command finds empty, whose files are brought
                    back into DIR; repeatable
  --disk FILE       a raw disk, written in place: /dev/vdb, the next one /dev/vdc, ...
  --memory MIB      memory (1024)
  --cpus N          processors (2)
  --hugepages N     huge pages of 2 MiB to set aside (0); the kernel's transparent ones
                    are always on
  --one-thread      run all processors on one thread, which is slower; with a thread for
                    each, QEMU 7.2 took the state of the machine for that of the guest in
                    it, twice in some 300 rounds of savevm and loadvm.  So for those: this
                    or --cpus 1
  --timeout SECONDS (300)
  --pid-file FILE   the emulator's process id: 'kill -9' cuts the machine's power
  --console FILE    what the machine's kernel prints
  --prefer-host     where /dev/kvm works on this machine, just run COMMAND here
  --help            this text

Exit status: COMMAND's; 124 timed out, 125 the machine failed, 137 its power was cut.
END
}

die()
{
        echo "run: $*" >&2
        exit 125
}

here=$(cd "$(dirname "$0")" && pwd)
cache=$here/../../build/emulated
build=$here/../../build
inputs= outputs= disks=
memory=1024 cpus=2 hugepages=0 limit=300 pid_file= console= prefer_host=0 threading=multi
newline='
'

# The host may be busy: the kernel is not to measure its timers and give up on them.
kernel_options="no_timer_check tsc=reliable mitigations=off"

# Prints an absolute path for a file that may not exist yet.
absolute()
{
        case $1 in
        /*) printf '%s' "$1" ;;
        *) printf '%s' "$PWD/$1" ;;
        esac
}

while [ $# -gt 0 ]; do
        case $1 in
        --build | --input | --output | --disk | --memory | --cpus | --hugepages | --timeout | \
        --pid-file | --console)
                [ $# -ge 2 ] || die "$1 needs a value" ;;
        esac
        case $1 in
        --build) build=$2; shift ;;
        --input) inputs=$inputs$2$newline; shift ;;
        --output) outputs=$outputs$(absolute "$2")$newline; shift ;;
        --disk) disks=$disks$2$newline; shift ;;
        --memory) memory=$2; shift ;;
        --cpus) cpus=$2; shift ;;
        --hugepages) hugepages=$2; shift ;;
        --timeout) limit=$2; shift ;;
        --pid-file) pid_file=$2; shift ;;
        --console) console=$2; shift ;;
        --one-thread) threading=single ;;
        --prefer-host) prefer_host=1 ;;
        --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) die "no such option: $1 (try --help)" ;;
        *) break ;;
        esac
        shift
done
[ $# -gt 0 ] || die "no command (try --help)"
case $memory$cpus$hugepages$limit in
*[!0-9]*) die "--memory, --cpus, --hugepages and --timeout take whole numbers" ;;
esac

# KVM_GET_API_VERSION, KVM_CREATE_VM.  In perl, which every Debian has.
host_has_kvm()
{
        perl -e '
                open(my $kvm, "+<", "/dev/kvm") or exit 1;
                (ioctl($kvm, 0xAE00, 0) // 0) == 12 or exit 1;
                defined(ioctl($kvm, 0xAE01, 0)) or exit 1;
        ' 2>/dev/null
}

if [ "$prefer_host" = 1 ] && host_has_kvm; then
        exec timeout "$limit" "$@"
fi

# Prints $* as words for a shell.
quoted()
{
        for word in "$@"; do
                printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
        done
}

# Files and directories that go into the machine, one a line.
contents()
{
        find "$build/hv-glue" "$build/driver" -maxdepth 1 -type f \
                \( -perm -u+x -o -name '*.so' \) 2>/dev/null || true
        command_file=$(command -v -- "$1" || true)
        case $command_file in
        */*)
                # Applets of the machine's own busybox are there already.
                [ -e "$root$command_file" ] || printf '%s\n' "$command_file" ;;
        esac
        printf '%s' "$inputs" | while read -r path; do
                if [ -e "$path" ]; then
                        absolute "$path"
                        echo
                else
                        command -v -- "$path" || die "no such file or program: $path"
                fi
        done
}

# The shared libraries, and their loader, of files named on stdin.
libraries()
{
        xargs -r -d '\n' ldd 2>/dev/null |
                awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*[^:]$/ { print $1 }' |
                sort -u
}

# Fills $root with all that the command sees.
fill_root()
{
        contents "$@" >"$dir/contents"
        xargs -d '\n' sh -c 'find -L "$@" -type f -perm -u+x' - <"$dir/contents" >"$dir/programs"
        libraries <"$dir/programs" >>"$dir/contents"
        xargs -d '\n' cp -rL --remove-destination --parents -t "$root" <"$dir/contents"
        mkdir -p "$root$PWD"
        printf '%s' "$outputs" | while read -r path; do
                rm -rf "$root$path"
                mkdir -p "$root$path"
                printf '%s\n' "${path#/}" >>"$root/output.list"
        done
        {
                echo "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp"
                echo "cd $(quoted "$PWD") || exit 125"
                echo "exec $(quoted "$@")"
        } >"$root/run.sh"
}

# The disk that the root directory lies on; sparse, so it costs what is in it.
make_root_disk()
{
        truncate -s 16G "$dir/root.ext4"
        mke2fs -q -F -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 \
                -d "$root" "$dir/root.ext4" >"$dir/mke2fs.log" 2>&1 || {
                cat "$dir/mke2fs.log" >&2
                die "cannot make the machine's disk"
        }
}

# Runs the emulator until the machine is off; emulator arguments that vary in "$@".
power_on()
{
        timeout --foreground -k 5 "$limit" qemu-system-x86_64 \
                -accel tcg,thread=$threading -cpu EPYC,+svm,+npt -smp "$cpus" -m "$memory" \
                -nodefaults -no-user-config -display none -no-reboot -pidfile "$pid_file" \
                -kernel "$cache/vmlinuz" -initrd "$cache/base.cpio" \
                -append "console=ttyS0 panic=-1 $kernel_options hugepages=$hugepages" \
                -chardev "file,id=console,path=$console" -serial chardev:console \
                -device virtio-serial-pci \
                -chardev "file,id=stdout,path=$dir/stdout" \
                -device virtserialport,nr=1,chardev=stdout \
                -chardev "file,id=stderr,path=$dir/stderr" \
                -device virtserialport,nr=2,chardev=stderr \
                -chardev "file,id=output,path=$dir/output.tar" \
                -device virtserialport,nr=3,chardev=output \
                -chardev "file,id=status,path=$dir/status" \
                -device virtserialport,nr=4,chardev=status \
                -drive "if=virtio,format=raw,cache=unsafe,discard=unmap,file=$dir/root.ext4" \
                "$@" </dev/null >"$dir/emulator.log" 2>&1
}

finish()
{
        [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true
        rm -rf "$dir"
}

command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64; run tests/setup.sh"
sh "$here/prepare.sh" >&2 || die "no kernel for the machine"
build=$(cd "$build" && pwd) || die "no build directory"
cache=$(cd "$cache" && pwd)
dir=$(mktemp -d)
emulator=
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
root=$dir/root
: "${pid_file:=$dir/pid}" "${console:=$dir/console}"
cp -a "$cache/root" "$root"
fill_root "$@"
make_root_disk
rm -rf "$root"

# Options, commas doubled for the emulator, become its arguments.
set --
while read -r disk; do
        [ -n "$disk" ] || continue
        set -- "$@" -drive "if=virtio,format=raw,cache=writeback,discard=unmap,file=$(
                absolute "$disk" | sed 's/,/,,/g')"
done <<END
$disks
END

# This shell holds both ends until the emulator has gone, so that no open blocks.
mkfifo "$dir/stdout" "$dir/stderr"
exec 3<>"$dir/stdout" 4<>"$dir/stderr"
cat "$dir/stdout" 3>&- 4>&- &
copies=$!
cat "$dir/stderr" 3>&- 4>&- >&2 &
copies="$copies $!"
power_on "$@" 3>&- 4>&- &
emulator=$!
status=0
wait "$emulator" || status=$?
emulator=
exec 3>&- 4>&-
wait $copies

case $status in
0) ;;
124 | 137) exit "$status" ;;
*)
        cat "$dir/emulator.log" >&2
        die "the emulator failed" ;;
esac
if ! read -r status <"$dir/status"; then
        tail -n 40 "$console" >&2
        die "the machine stopped without an exit status; the end of its console is above"
fi
if [ -n "$outputs" ]; then
        tar -x -C / -f "$dir/output.tar" || die "what the machine sent back is damaged"
fi
exit "$status"
