/*
 * ram-live.c - RAM on its way into a VM state while the guest runs, behind a cut.
 *
 * A copy belongs to its writes; the last one to land gives it back.  While it is made into
 * writes the saver holds one more, so that it does not go before all are started.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/ram-live.h"

static void put(struct ram_live *s, struct ram_copy *copy)
{
        if (--copy->writes == 0)
                ram_guard_give_back(s->guard, copy);
}

int ram_live_landed(void *opaque, const struct vmstate_span *span)
{
        struct ram_live *s = opaque;

        /* Others than copies are saved through the same io. */
        if (span->opaque != NULL)
                put(s, span->opaque);
        return 0;
}

static int save_copy(struct ram_live *s, struct ram_copy *copy)
{
        int ret;

        copy->writes = 1;
        ret = ram_save_copy(&s->save, copy->unit * RAM_UNIT_PAGES, RAM_UNIT_PAGES, copy->bytes,
                            &copy->writes, copy);
        /* After an error nothing lands any more: ram_guard_end takes what is left. */
        if (ret == 0)
                put(s, copy);
        return ret;
}

int ram_live_save(struct ram_live *s)
{
        struct ram_copy *copy;
        int landed;
        int ret;

        while ((ret = ram_guard_take(s->guard, &copy)) > 0) {
                ret = save_copy(s, copy);
                if (ret < 0)
                        break;
        }
        landed = vmstate_io_wait(s->save.io);
        return ret < 0 ? ret : landed;
}
