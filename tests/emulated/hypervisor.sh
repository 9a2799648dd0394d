# hypervisor.sh - start a hypervisor, talk to its monitor, wait for its guest.  Source it.
#
# All that a script needs who tests a hypervisor from within the emulated machine: busybox is
# enough, but for monitors on sockets, which need nc.openbsd.
#
# SPDX-License-Identifier: MIT

: "${limit:=240}"               # seconds for each wait
dir=$(mktemp -d)
serial=$dir/serial
hypervisor=

finish()
{
        [ -z "$hypervisor" ] || kill -9 "$hypervisor" 2>/dev/null || true
        rm -rf "$dir"
}
trap finish EXIT

lost()
{
        echo "not ok $*"
        echo "# the end of the monitor and of the serial line:"
        tail -n 12 "$dir/monitor" "$serial" | sed 's/^/# /'
        exit 1
}

# hold WHAT TEST...: prints whether it does.
hold()
{
        what=$1
        shift
        "$@" || lost "$what: $*"
        echo "ok $what"
}

# Waits for a command to succeed; fails when the hypervisor ends or time is up.
await()
{
        waited=0
        until "$@"; do
                if grep -q 'guest: FAILED' "$serial"; then
                        lost "the guest's own verification"
                fi
                kill -0 "$hypervisor" 2>/dev/null || "$@" || lost "the hypervisor goes on: $*"
                waited=$((waited + 1))
                [ "$waited" -lt $((limit * 10)) ] || lost "within $limit s: $*"
                sleep 0.1
        done
}

position() { wc -c <"$serial"; }
between() { [ "$1" -gt "$2" ] && [ "$1" -le "$3" ]; }

# The monitor answers commands in order, so the answer to this one ends the previous one.
answered()
{
        [ "$(grep -c 'VM status: ' "$dir/monitor")" -ge "$answers" ]
}

command()
{
        answers=$((answers + 1))
        printf '%s\ninfo status\n' "$1" >&7
        await answered
}

# What the monitor answered to the last command, plainly.
answer()
{
        tr -d '\r' <"$dir/monitor" | awk '
                /^\(qemu\) / { kept = text; text = "" ; next }
                { text = text $0 "\n" }
                /^VM status: / { printed = kept }
                END { printf "%s", printed }'
}

# What the serial line printed from byte $1 on.
printed() { tail -c +"$(($1 + 1))" "$serial" | tr -d '\r'; }

# Starts a hypervisor, its monitor on stdin and stdout ("-monitor stdio" is its caller's to say).
power_on()
{
        prepare_monitor
        "$@" -serial "file:$serial" <"$dir/monitor.in" >"$dir/monitor" 2>&1 7>&- &
        hypervisor=$!
}

# The same with its monitor on a unix socket.
power_on_socket()
{
        prepare_monitor
        "$@" -serial "file:$serial" -monitor "unix:$dir/socket" </dev/null 2>&1 7>&- &
        hypervisor=$!
        await [ -S "$dir/socket" ]
        nc.openbsd -U "$dir/socket" <"$dir/monitor.in" >"$dir/monitor" 7>&- &
}

# Talks to the QMP monitor at socket $dir/qmp; what it says is in $dir/qmp.said.
qmp_open()
{
        rm -f "$dir/qmp.in"
        mkfifo "$dir/qmp.in"
        : >"$dir/qmp.said"
        exec 8<>"$dir/qmp.in"
        nc.openbsd -U "$dir/qmp" <"$dir/qmp.in" >"$dir/qmp.said" 7>&- 8>&- &
        asked=0
        qmp qmp_capabilities
}

# qmp COMMAND [ARGUMENTS]: the reply is in $dir/reply.
qmp()
{
        asked=$((asked + 1))
        printf '{"execute": "%s", "arguments": {%s}, "id": %d}\n' "$1" "${2-}" "$asked" >&8
        await grep -q "\"id\": $asked[,}]" "$dir/qmp.said"
        grep "\"id\": $asked[,}]" "$dir/qmp.said" >"$dir/reply"
}

# qmp_says WORD...: something was said in one line, all in that order.
qmp_says()
{
        grep -q "$(printf '%s.*' "$@")" "$dir/qmp.said"
}

prepare_monitor()
{
        rm -f "$dir/monitor.in"
        mkfifo "$dir/monitor.in"
        : >"$dir/monitor"
        : >"$serial"
        answers=0
        exec 7<>"$dir/monitor.in"
}

power_off()
{
        echo quit >&7
        wait "$hypervisor" || lost "the hypervisor ends well: status $?"
        hypervisor=
        exec 7>&-
}
