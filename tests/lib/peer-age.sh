# peer-age.sh - what an older QEMU says otherwise.  Our tools speak as QEMU 10 does.
#
# Each difference is looked for in the installed qemu-img, and only those found are
# taken back from our output before it is compared: with QEMU 10 nothing is touched.
#
# SPDX-License-Identifier: MIT

# find_peer_age: sets peer_lacks to some of the words children, compressed, columns, words.
find_peer_age()
{
        peer_lacks=
        peer_sample=$(mktemp -d) || exit 1
        qemu-img create -q -f qcow2 "$peer_sample/image" 1M
        qemu-img snapshot -c one "$peer_sample/image"
        peer_says info '^Child node' || peer_lacks="$peer_lacks children"
        peer_says 'map --output=json' compressed || peer_lacks="$peer_lacks compressed"
        peer_says 'snapshot -l' VM_SIZE || peer_lacks="$peer_lacks columns"
        peer_says 'snapshot -f qcow2 -l' one || peer_lacks="$peer_lacks words"
        rm -r "$peer_sample"
}

peer_says()     # COMMAND PATTERN
{
        qemu-img $1 "$peer_sample/image" 2>/dev/null | grep -q -e "$2"
}

peer_lacks()    # WORD
{
        case " $peer_lacks " in
        *" $1 "*) true ;;
        *) false ;;
        esac
}

# as_the_peer FILE: our output, without what the installed QEMU does not say yet.
as_the_peer()
{
        ! peer_lacks children || without_children "$1"
        ! peer_lacks compressed || sed -i 's/, "compressed": [a-z]*//' "$1"
        ! peer_lacks columns || older_columns "$1"
        ! peer_lacks words || older_words "$1"
}

# Before 8.0: info says nothing of the protocol layer.
without_children()
{
        awk '
        array { if ($0 == end) array = 0; next }
        /^ *"children": \[$/ { end = $0; sub(/".*/, "],", end); array = 1; next }
        /^Child node / { child = 1; next }
        child && /^ / { next }
        { child = 0; print }' "$1" >"$1.older"
        mv "$1.older" "$1"
}

# Lists of snapshots had other widths, two digits of hours, and blank for no icount.
older_columns()
{
        sed -i -e 's/^ID .*VM_SIZE.*VM_CLOCK/ID TAG VM SIZE DATE VM CLOCK/' \
                -e '/[0-9]  *00[0-9][0-9]:[0-9][0-9]:/ {
                        s/  *00\([0-9][0-9]:[0-9][0-9]:\)/ \1/
                        s/ *--$//
                }' "$1"
        squeeze_columns "$1"
}

squeeze_columns()
{
        sed -i -e '/^ID \|[0-9] [0-9][0-9]:[0-9][0-9]:/ { s/  */ /g; s/ $//; }' "$1"
}

# Before 10.0 commands had no help of their own, and numbers were refused otherwise.
older_words()
{
        suffixes="You may use k, M, G, T, P or E suffixes for\\
qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        older_end "Try 'qemu-img " "Try 'qemu-img --help' for more information" "$1"
        for what in "image size" "buffer size for sparse output"; do
                what="qemu-img: Invalid $what specified"
                older_end "$what: " "$what. $suffixes" "$1"
        done
        what="qemu-img: Invalid number of coroutines"
        older_end "$what specified" "$what. Allowed number of coroutines is between 1 and 16" "$1"
        older_end "qemu-img: Expecting image file name and size" \
                "qemu-img: Not enough arguments" "$1"
        what="Unknown option value for -r (expecting 'leaks' or 'all')"
        sed -i "s/--repair (-r) expects 'leaks' or 'all' not '\(.*\)'$/$what: \1/" "$1"
        sed -i "/^qemu-img: --output expects 'human' or 'json'/ {
                        N
                        s/.*/qemu-img: --output must be used with human or json as argument./
                }" "$1"
}

# older_end START LINE FILE: LINE takes the place of each line that starts so.
older_end()
{
        sed -i "s/^$1.*/$2/" "$3"
}
