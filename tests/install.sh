#!/bin/sh
# install.sh - what is installed is enough: a host that knows pkg-config's answers
# and the header loads the plugin from where it went.
#
# SPDX-License-Identifier: MIT
set -eu

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$tap_output"' EXIT

# pc ARGUMENT...: pkg-config that sees only what was installed, at its place under
# the staging directory.
pc()
{
        PKG_CONFIG_LIBDIR=$(dirname "$(find "$work/stage" -name hv-block.pc)") \
                pkg-config --define-variable=prefix="$work/stage$prefix" "$@" hv-block
}

host_compiles()
{
        cat >"$work/host.c" <<'END'
#include <dlfcn.h>
#include <hv-block.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
        void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
        hvb_driver_entry_fn entry;
        const struct hvb_driver *driver;

        if (!plugin)
                return fprintf(stderr, "%s\n", dlerror()), 1;
        *(void **)&entry = dlsym(plugin, HVB_DRIVER_ENTRY);
        if (!entry)
                return fprintf(stderr, "no entry\n"), 1;
        driver = entry(HVB_ABI_VERSION);
        if (!driver || driver->abi_version != HVB_ABI_VERSION)
                return fprintf(stderr, "version %u is refused\n", HVB_ABI_VERSION), 1;
        if (strcmp(driver->format_name, "qcow2") || !HVB_HAS(driver, preadv))
                return fprintf(stderr, "not a whole qcow2 driver\n"), 1;
        if (entry(999))
                return fprintf(stderr, "version 999 is served\n"), 1;
        return 0;
}
END
        cc -Wall -Werror $(pc --cflags) -o "$work/host" "$work/host.c" -ldl
}

tools_find_plugin()
{
        unset HV_BLOCK_PATH
        "$work/stage$prefix/bin/hv-img" create -f qcow2 "$work/disk.qcow2" 1M &&
                "$work/stage$prefix/bin/hv-io" -f qcow2 -c 'write -P 5 0 4k' "$work/disk.qcow2"
}

prefix=$(pkg-config --variable=prefix "$build/meson-private/hv-block.pc")

check "meson install" meson install -C "$build" --no-rebuild --destdir "$work/stage"
check "a host compiles by pkg-config" host_compiles
check "the host loads the plugin; version 1 is served, 999 refused" \
        "$work/host" "$(pc --variable=plugindir)/block-qcow2.so"
check "installed tools find the installed plugin" tools_find_plugin
done_testing
