#!/usr/bin/env python3
"""qemu-savevm.py - how long QEMU's savevm and loadvm take.

    qemu-savevm.py IMAGE RAM_FILE MIB

A machine of MIB that never runs (-S), RAM_FILE's bytes in its memory from 16 MiB on, one
qcow2 disk.  Prints the seconds of savevm and of loadvm, from QMP's command to its reply.

SPDX-License-Identifier: MIT
"""
import json
import os
import subprocess
import sys
import time

image, ram_file, mib = sys.argv[1:]
accelerators = ["-accel", "kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else []
qemu = subprocess.Popen(
    ["qemu-system-x86_64", *accelerators, "-accel", "tcg", "-S", "-m", mib, "-nodefaults",
     "-no-user-config", "-display", "none", "-qmp", "stdio",
     "-drive", f"file={image},format=qcow2,if=virtio,cache=writeback",
     "-device", f"loader,file={ram_file},addr=0x1000000,force-raw=on"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(command, **arguments):
    """The reply's value; events come between."""
    qemu.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qemu.stdin.flush()
    for line in qemu.stdout:
        reply = json.loads(line)
        if "return" in reply:
            return reply["return"]
        if "error" in reply:
            sys.exit(f"{command}: {reply['error']['desc']}")
    sys.exit(f"{command}: QEMU has gone")


def seconds(line):
    began = time.monotonic()
    text = ask("human-monitor-command", **{"command-line": line})
    took = time.monotonic() - began
    if text:
        sys.exit(f"{line}: {text.strip()}")
    return took


ask("qmp_capabilities")
print(f"{seconds('savevm bench'):.6f} {seconds('loadvm bench'):.6f}")
ask("quit")
qemu.wait()
