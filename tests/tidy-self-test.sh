#!/bin/sh
# tidy-self-test.sh - every rule of tidy.sh catches what it is for.
#
# Each case plants one file in an empty tree; its rule, and no other, must
# complain about it.  The last case only looks like violations.
#
# SPDX-License-Identifier: MIT
set -eu

. "${G_TEST_SRCDIR:?run by meson test or tests/run.sh}/lib/tap.sh"

tree=$(mktemp -d)
trap 'rm -rf "$tree" "$tap_output"' EXIT

# The violations of the tree must all be of rule $1 and one must match $2.
only_complaint()
{
        sh "$tests/tidy.sh" --root "$tree" --list >"$tree.found"
        cat "$tree.found"
        [ "$(cut -f 1 "$tree.found" | sort -u)" = "$1" ] || return 1
        [ -z "$2" ] || grep -q "$2" "$tree.found"
}

# caught RULE PATTERN FILE: plants stdin as FILE, below a licence, and names it in
# a meson.build.
caught()
{
        mkdir -p "$tree/$(dirname "$3")"
        [ "$1" = licence ] || echo '/* SPDX-License-Identifier: MIT */' >"$tree/$3"
        cat >>"$tree/$3"
        [ "$1" = built ] || [ ! -d "$tree/${3%%/*}" ] ||
                echo "'${3#*/}'" >"$tree/${3%%/*}/meson.build"
        check "$1: ${2:-no complaint}" only_complaint "$1" "$2"
        find "$tree" -mindepth 1 -delete
}

# repeat COUNT LINE
repeat()
{
        awk -v count="$1" -v line="$2" 'BEGIN { while (count-- > 0) print line }'
}

# ---- includes

caught floors 'disk/a.c:2: floor 0 must not include the higher async/co.h' driver/disk/a.c <<'END'
#include "async/co.h"
END
caught floors 'meta/a.h:3: floor 2' driver/meta/a.h <<'END'
#include "disk/format.h"
# include <ops/read.h>
END
caught floors 'async/ knows no qcow2' driver/async/a.c <<'END'
#include "disk/format.h"
END
caught floors 'ops/a.c:2: .*, not ../meta/map.h' driver/ops/a.c <<'END'
#include "../meta/map.h"
END
caught floors 'not host/error.h' driver/driver.c <<'END'
#include "host/error.h"
END
caught floors 'driver/ has no such floor' driver/misc/a.c </dev/null
caught glue 'host/a.c:2: hv-glue/ must not include meta/map.h' hv-glue/host/a.c <<'END'
#include "meta/map.h"
END
caught glue 'must not include ../driver/disk/header.h' hv-glue/host/a.c <<'END'
#include "../driver/disk/header.h"
END

# ---- the house

caught house 'docs: does not belong' docs/page.md </dev/null
caught house 'notes.txt: does not belong' notes.txt </dev/null
caught built 'disk/a.c: not in driver/meson.build' driver/disk/a.c </dev/null
caught built 'test-a.c: not in tests/meson.build' tests/unit/test-a.c </dev/null

# ---- lengths

caught file-length 'a.c:701: 701 lines' driver/ops/a.c <<END
$(repeat 700 '//')
END
caught function-length 'a.c:75: f() has 71 lines' hv-glue/vm/a.c <<END
int f(void)
{
$(repeat 71 '        g();')
}
END
caught function-length ' f() has 71 lines' driver/ops/a.c <<END
static int f(int a,
             int b) {
$(repeat 71 '        if (a) { g("}"); } /* } */')
}
END
caught columns 'a.c:2: 101 columns' driver/meta/a.c <<END
$(printf '/* %095d */' 0)
END

# ---- awaits

caught await-switch 'a.c:9: await inside a switch' driver/ops/a.c <<'END'
int f(struct s *s)
{
        CO_BEGIN(s);
        switch (s->kind) {
        case A:
                for (;;) {
                        if (s->x)
                                CO_TRY(s, done, g(s));
                }
        }
}
END
caught await-switch 'a.c:4: await inside a switch' driver/ops/a.c <<'END'
int f(struct s *s)
{
        switch (s->kind) { default: CO_UNDO(s, g(s)); }
}
END
caught await-line 'a.c:4: more than one await' driver/ops/a.c <<'END'
int f(struct s *s)
{
        CO_AWAIT(s, g(s)); CO_AWAIT(s, h(s));
}
END
caught await-macro 'a.c:3: awaits are written out' driver/ops/a.c <<'END'
#define BOTH(s) \
        do { CO_AWAIT(s, g(s)); } while (0)
END

# ---- text

later=TO
caught unfinished 'a.h:2:' include/a.h <<END
/* ${later}DO: more */
END
later=FIX
caught unfinished 'a.sh:2:' tests/a.sh <<END
# ${later}ME
END
caught licence 'a.h:1: no SPDX' hv-glue/vm/a.h <<'END'
int a;
END
caught whitespace 'a.h:2: trailing' include/a.h <<END
int a;$(printf ' \n/')
END
caught whitespace 'a.c:2: tab' driver/disk/a.c <<END
$(printf '\tint a;')
END
caught silence 'a.c:2: the driver' driver/meta/a.c <<'END'
void f(void) { g_printerr("no"); }
END
caught silence 'driver.c:2:' driver/driver.c <<'END'
void f(void) { if (x) exit(1); }
END

# ---- what only looks so

caught '' '' driver/ops/a.c <<END
#include <stdio.h>
#include "async/co.h"
#include "disk/header.h"
#include "ops/a.h"
#include "hv-block.h"

/* switch (x) { printf("and CO_TRY(s, label, call()) here"); */
int f(struct s *s)
{
        CO_BEGIN(s);
        for (s->i = 0; s->i < 3; s->i++) {
                switch (s->kind) {
                case '{':
                        break; // }
                }
                snprintf(s->text, 4, "exit(%d) {", 1);
                CO_TRY(s, done, g(s, "CO_TRY("));
        }
done:
        CO_END(s);
}

int g(void)
{
$(repeat 70 '        g();')
}
/* é$(printf '%093d' 0) */
END

done_testing
