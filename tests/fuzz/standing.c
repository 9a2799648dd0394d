/*
 * standing.c - what stands while other actions go on: a snapshot that is held, one that is
 * prepared.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/trial.h"

static const char *name_or_null(const struct hvb_snapshot_info *info)
{
        return info->id_str[0] ? NULL : info->name;
}

static const char *id_or_null(const struct hvb_snapshot_info *info)
{
        return info->id_str[0] ? info->id_str : NULL;
}

void standing_hold(struct trial *t, const struct hvb_snapshot_info *info)
{
        struct standing *st = &t->standing;
        struct subject *s = &t->subject;
        struct subject_call c;

        if (st->held_users > 0)
                return;
        subject_call_begin(s, &c);
        if (st->held) {
                s->driver->snapshot_close(st->held, c.request, NULL);
                st->held = NULL;
                subject_call_end(s, &c);
                return;
        }
        s->driver->snapshot_open(s->image, c.request, id_or_null(info), name_or_null(info), NULL,
                                 &st->held, NULL);
        if (subject_call_end(s, &c) < 0)
                st->held = NULL;
}

/* Of the next steps of what is prepared, one, which may be the wrong one. */
static void go_on(struct trial *t, uint8_t flags)
{
        struct standing *st = &t->standing;
        struct subject *s = &t->subject;
        struct subject_call c;

        subject_call_begin(s, &c);
        switch (flags % 4) {
        case 0:
                s->driver->snapshot_switch(s->image, c.request, NULL);
                st->is_switched |= subject_call_end(s, &c) == 0;
                return;
        case 1:
                s->driver->snapshot_publish(s->image, c.request, &st->info, NULL);
                subject_call_end(s, &c);
                st->is_prepared = !st->is_switched;
                return;
        case 2:
                if (st->goes) {
                        s->driver->snapshot_goto(s->image, c.request, id_or_null(&st->info),
                                                 name_or_null(&st->info), NULL);
                        subject_call_end(s, &c);
                        st->is_prepared = false;
                        return;
                }
                break;
        }
        s->driver->snapshot_abort(s->image, c.request, NULL);
        subject_call_end(s, &c);
        st->is_prepared = false;
}

void standing_prepare(struct trial *t, const struct hvb_snapshot_info *info, uint8_t flags)
{
        struct standing *st = &t->standing;
        struct subject *s = &t->subject;
        struct subject_call c;

        if (st->is_prepared) {
                go_on(t, flags);
                return;
        }
        st->is_switched = false;
        st->goes = flags & 16;
        st->info = *info;
        subject_call_begin(s, &c);
        if (st->goes)
                s->driver->snapshot_goto_prepare(s->image, c.request, id_or_null(info),
                                                 name_or_null(info), NULL);
        else
                s->driver->snapshot_prepare(s->image, c.request, info,
                                            flags & 32 ? HVB_SNAPSHOT_REPLACE : 0, NULL);
        st->is_prepared = subject_call_end(s, &c) == 0;
}
