/*
 * check-copied.c - COPIED flags of the active tree against the counts.
 *
 * The flag says that the count is exactly 1.  It is looked at in the active L1 and in the
 * L2 tables below it; snapshots' own L1 tables may have it set or not.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "ops/check-parts.h"

static bool flag_is_right(const struct check_context *c, uint64_t entry, uint32_t *ret_count)
{
        *ret_count = tally_get(&c->tally, entry_host_offset(entry) >>
                                          image_geometry(c->img)->cluster_bits);
        return (*ret_count == 1) == ((entry & ENTRY_COPIED) != 0);
}

static void found(struct check_context *c, bool repair, uint32_t times)
{
        if (repair)
                c->result->corruptions_fixed++;
        else
                c->result->corruptions += times;
}

static void compare_l1(struct check_copied *s, struct check_context *c)
{
        uint32_t i;

        for (i = 0; i < c->l1_entries; i++) {
                uint64_t entry = c->l1[i];
                uint32_t count;

                if (entry_host_offset(entry) == 0 || flag_is_right(c, entry, &count))
                        continue;
                check_report(c, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%" PRIx64
                             " refcount=%u", check_verb(s->repair), i, entry, count);
                found(c, s->repair, 1);
                if (s->repair)
                        l1_set(&c->img->active, i, entry ^ ENTRY_COPIED);
        }
}

static void compare_l2(struct check_copied *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);
        const struct check_l2 *l2 = &g_array_index(c->l2s, struct check_l2, s->tag);
        bool repair = s->repair && (l2->offset & (g->cluster_bytes - 1)) == 0;
        uint64_t noted = UINT64_MAX;
        uint64_t i;

        for (i = 0; i < g->l2_entries; i++) {
                uint64_t entry = be64_load(s->bytes + i * 8);
                uint64_t slice = l2->offset + round_down(i * 8, g->slice_bytes);
                uint32_t count;

                if (entry == 0 || (entry & ENTRY_COMPRESSED) || entry_host_offset(entry) == 0 ||
                    flag_is_right(c, entry, &count))
                        continue;
                check_report(c, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%u",
                             check_verb(repair), entry, count);
                found(c, repair, l2->active_refs);
                if (repair && slice != noted)
                        g_array_append_val(c->copied_slices, slice);
                noted = slice;
        }
        check_progress(c, g->cluster_bytes);
}

static bool is_comparable(const struct check_context *c, const struct check_l2 *l2)
{
        bool is_odd = (l2->offset & (image_geometry(c->img)->cluster_bytes - 1)) != 0;

        return l2->active_refs > 0 && l2->offset < c->file_bytes && !(is_odd && c->too_many_odd);
}

static void begin_l2(struct check_copied *s, struct check_context *c)
{
        const struct check_l2 *l2 = &g_array_index(c->l2s, struct check_l2, s->next);

        if (is_comparable(c, l2))
                table_reads_begin(&s->reads, l2->offset, s->next);
        s->next++;
}

/* With counts repaired the flags follow them.  Repairing leaks alone repairs flags only
 * where the counts are beyond doubt. */
static bool wants_repair(const struct check_context *c)
{
        const struct hvb_check_result *r = c->result;

        if (c->fix == 0 || r->check_errors > 0)
                return false;
        return (c->fix & HVB_CHECK_FIX_ERRORS) || (r->corruptions == 0 && r->leaks == 0);
}

int check_copied(struct check_copied *s, struct check_context *c)
{
        CO_BEGIN(s);
        s->next = 0;
        s->repair = wants_repair(c);
        compare_l1(s, c);
        CO_TRY(s, out, table_reads_open(&s->reads, &c->img->file,
                                        image_geometry(c->img)->cluster_bytes, c->l2s->len));
        for (;;) {
                while (s->next < c->l2s->len && !table_reads_full(&s->reads))
                        begin_l2(s, c);
                if (table_reads_idle(&s->reads))
                        break;
                CO_AWAIT(s, table_reads_next(&s->reads, &s->bytes, &s->tag));
                if (s->co.ret < 0)
                        c->result->check_errors++;
                else
                        compare_l2(s, c);
                CO_TRY(s, close, check_cancelled());
        }
close:
        CO_UNDO(s, table_reads_close(&s->reads));
out:
        CO_END(s);
}
