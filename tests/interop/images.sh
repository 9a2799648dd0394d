# images.sh - making images, changing their bytes, asking both sides about them.
# Source it after tap.sh; it changes into a directory of its own, $work.
#
# SPDX-License-Identifier: MIT

command -v qemu-io >/dev/null || skip_all "no qemu-io"

hv_io=$(cd "$build" && pwd)/hv-glue/hv-io
hv_img=$(dirname "$hv_io")/hv-img
work=$(mktemp -d)
trap 'rm -rf "$work" "$tap_output"' EXIT
cd "$work" || exit 1

# create FILE SIZE [OPTIONS]: by qemu-img.
create()
{
        rm -f "$1"
        qemu-img create -q -f qcow2 ${3:+-o "$3"} "$1" "$2"
}

# commands TOOL FILE COMMAND...: each command with -c; TOOL may have options.
commands()
{
        tool=$1
        file=$2
        shift 2
        for command in "$@"; do
                shift
                set -- "$@" -c "$command"
        done
        $tool -f qcow2 "$@" "$file"
}

ours()
{
        commands "$hv_io" "$@"
}

theirs()
{
        commands qemu-io "$@"
}

# poke FILE OFFSET HEX: puts bytes there.
poke()
{
        printf "$(echo "$3" | sed 's/ //g; s/\(..\)/\\\\x\1/g' | escape_octal)" |
                dd of="$1" bs=1 seek="$(($2))" conv=notrunc status=none
}

# POSIX printf knows \ooo, not \xhh.
escape_octal()
{
        awk '{
                digits = "0123456789abcdef"
                n = split(tolower($0), part, "\\\\+x")
                for (i = 2; i <= n; i++) {
                        value = (index(digits, substr(part[i], 1, 1)) - 1) * 16 + \
                                index(digits, substr(part[i], 2, 1)) - 1
                        printf "\\%03o", value
                }
        }'
}

# hex FILE OFFSET LENGTH: the bytes there, without blanks.
hex()
{
        od -A n -v -t x1 -j "$(($2))" -N "$3" "$1" | tr -d ' \n'
}

# number FILE OFFSET LENGTH: the big-endian number there.
number()
{
        echo $((0x$(hex "$1" "$2" "$3")))
}

# clean FILE: qemu-img check finds nothing.
clean()
{
        qemu-img check -f qcow2 "$1"
}

# names FILE: of its snapshots, as qemu-img lists them, one a line.
names()
{
        qemu-img snapshot -l "$1" | sed -n '3,$p' | awk '{ print $2 }'
}

# fails TEXT COMMAND...: exit status 1, and an output that matches the extended
# regular expression TEXT.
fails()
{
        text=$1
        shift
        "$@" >said.txt 2>&1
        status=$?
        cat said.txt
        [ $status = 1 ] || { echo "exit status $status"; return 1; }
        grep -qiE -- "$text" said.txt && return
        echo "does not say: $text"
        return 1
}
