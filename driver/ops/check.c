/*
 * check.c - the whole check, top to bottom.
 *
 *   1. count what everything references              check-tree.c, check-bitmaps.c
 *   2. compare with the counts on disk               check-counts.c
 *   3. repair counts: in place, or, where blocks
 *      are missing or broken, all of them anew      check-repair.c, check-rebuild.c
 *   4. compare COPIED with the counts, and repair    check-copied.c, check-repair.c
 *   5. after repairs: 1, 2 and 4 again; if nothing is left, the root loses its dirty
 *      and corrupt bits
 *
 * Nothing is repaired when a part of the image could not be read: what it
 * references would pass for leaked; nor when the header's tables lie on each other: to
 * correct the one would destroy the other.  Each repair is durable before the next begins,
 * and each leaves an image that is no worse than it was (the files say why); a crash
 * anywhere needs nothing but the same repair again.  The bits go last.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "ops/check.h"

/* ---- one pass ---- */

static bool may_fix(const struct check_context *c, uint32_t flag)
{
        return (c->fix & flag) && c->result->check_errors == 0;
}

/* A rebuild is asked for, but may not be made. */
static bool must_not_rebuild(struct check_context *c)
{
        if (!c->rebuild || (may_fix(c, HVB_CHECK_FIX_ERRORS) && !c->uncounted))
                return false;
        check_report(c, "ERROR need to rebuild refcount structures");
        c->result->check_errors++;
        return true;
}

static int repair_counts(struct check_pass *s)
{
        struct check_context *c = &s->context;

        CO_BEGIN(&s->repair);
        if (c->fix == 0 || c->result->check_errors > 0 || must_not_rebuild(c))
                goto out;
        if (c->zero_slices->len > 0)
                CO_TRY(&s->repair, out, check_zero_entries(&s->entries, c));
        if (c->rebuild)
                CO_TRY(&s->repair, out, check_rebuild(&s->rebuild, c));
        else
                CO_TRY(&s->repair, out, check_fix_counts(&s->fix, c));
out:
        CO_END(&s->repair);
}

static int check_list(struct check_pass *s)
{
        struct check_context *c = &s->context;

        CO_BEGIN(&s->list);
        s->incomplete = check_snapshot_entries(c);
        c->result->corruptions += s->incomplete;
        if (s->incomplete == 0 || !may_fix(c, HVB_CHECK_FIX_ERRORS))
                goto out;
        CO_TRY(&s->list, out, check_fix_snapshots(&s->snapshots, c));
        c->result->corruptions -= s->incomplete;
        c->result->corruptions_fixed += s->incomplete;
out:
        CO_END(&s->list);
}

/* What may not be written is not repaired. */
static void judge_metadata(struct check_context *c)
{
        struct hvb_error why = { .struct_bytes = sizeof(why) };

        if (c->fix == 0 || image_judge_metadata(c->img, &why) == 0)
                return;
        check_report(c, "ERROR %s", why.text);
        c->result->check_errors++;
}

/* What lies beyond the end of the file is referenced, and must not be handed out again. */
static void keep_leaks(struct check_context *c)
{
        if (!c->uncounted || !(c->fix & HVB_CHECK_FIX_LEAKS))
                return;
        check_report(c, "Leaks are not repaired: what references them cannot be told");
        c->fix &= ~(uint32_t)HVB_CHECK_FIX_LEAKS;
}

static int check_once(struct check_pass *s)
{
        struct check_context *c = &s->context;

        CO_BEGIN(s);
        c->result->total_clusters = div_up(image_size(c->img),
                                           image_geometry(c->img)->cluster_bytes);
        judge_metadata(c);
        CO_TRY(s, out, check_tree(&s->tree, c));
        keep_leaks(c);
        CO_TRY(s, out, check_counts(&s->counts, c));
        CO_TRY(s, out, repair_counts(s));
        if (c->fix && c->result->check_errors > 0)
                goto out;               /* the tally has references, not counts */
        CO_TRY(s, out, check_copied(&s->copied, c));
        if (s->copied.repair)
                CO_TRY(s, out, check_fix_copied(&s->entries, c));
        CO_TRY(s, out, check_list(s));
out:
        check_context_clear(c);
        CO_END(s);
}

static int begin_pass(struct check *s, struct image *img, uint32_t fix,
                      struct hvb_check_result *result)
{
        int ret = check_context_init(&s->pass.context, img, fix, result);

        s->pass.context.progress_done = s->progress_done;
        s->pass.context.progress_total = s->progress_total;
        s->pass.context.silent = fix == 0 && s->recheck;
        return ret;
}

/* ---- results ---- */

static void result_begin(struct hvb_check_result *r)
{
        *r = (struct hvb_check_result) {
                .struct_bytes = r->struct_bytes,
                .report = r->report,
                .opaque = r->opaque,
        };
}

/* The second pass says what is left; what was fixed only the first knows. */
static void result_merge(struct hvb_check_result *r, const struct hvb_check_result *second)
{
        struct hvb_check_result first = *r;

        *r = *second;
        r->struct_bytes = first.struct_bytes;
        r->report = first.report;
        r->opaque = first.opaque;
        r->corruptions_fixed = first.corruptions_fixed;
        r->leaks_fixed = first.leaks_fixed;
}

static bool is_sound(const struct hvb_check_result *r)
{
        return r->corruptions == 0 && r->check_errors == 0;
}

/* ---- the operation ---- */

static int check_writable(struct image *img, uint32_t flags, struct hvb_error *err)
{
        int ret = flags ? image_check_writable(img) : 0;

        if (ret < 0)
                return error_set(err, ret, "'%s' cannot be repaired: %s", img->name,
                                 img->writable ? g_strerror(-ret) : "it was opened read-only");
        if (img->is_raw || img->state == IMAGE_POISONED || img->state == IMAGE_INACTIVE)
                return error_set(err, -EIO, "'%s' cannot be checked: its metadata is not known",
                                 img->name);
        return 0;
}

/* Leaves the bits to who holds the image dirty. */
static bool bits_to_clear(struct check *s, struct image *img)
{
        uint64_t bits = img->header.incompatible & (INCOMPAT_DIRTY | INCOMPAT_CORRUPT);

        if (img->dirty_holders > 0)
                bits &= ~INCOMPAT_DIRTY;
        s->change = (struct root_change) {
                .what = ROOT_INCOMPAT_CLEAR,
                .incompatible_clear = bits,
        };
        return bits != 0;
}

/* Features that we do not know may have clusters, which look like leaks; without its bit none is
 * valid any more. */
static bool others_own_clusters(struct check *s, const struct image *img)
{
        uint64_t known = img->header.autoclear & AUTOCLEAR_BITMAPS;

        s->change = (struct root_change) { .what = ROOT_AUTOCLEAR, .autoclear = known };
        return img->header.autoclear != known;
}

static int check_and_fix(struct check *s, struct image *img, uint32_t flags,
                         struct hvb_check_result *result, bool twice)
{
        CO_BEGIN(&s->guarded);
        result_begin(result);
        s->recheck = false;
        if (flags && others_own_clusters(s, img))
                CO_TRY(&s->guarded, out, root_switch(&s->root, img, &s->change));
        CO_TRY(&s->guarded, out, begin_pass(s, img, flags, result));
        CO_TRY(&s->guarded, out, check_once(&s->pass));
        if (twice && (result->corruptions_fixed > 0 || result->leaks_fixed > 0)) {
                s->recheck = true;
                s->second = (struct hvb_check_result) { .report = result->report,
                                                        .opaque = result->opaque };
                CO_TRY(&s->guarded, out, begin_pass(s, img, 0, &s->second));
                CO_TRY(&s->guarded, out, check_once(&s->pass));
                result_merge(result, &s->second);
        }
        if (flags && is_sound(result) && bits_to_clear(s, img))
                CO_TRY(&s->guarded, out, root_switch(&s->root, img, &s->change));
out:
        CO_END(&s->guarded);
}

static int check_alone(struct check *s, struct image *img, uint32_t flags,
                       struct hvb_check_result *result, bool twice)
{
        CO_BEGIN(s);
        CO_TRY(s, out, co_lock_acquire(&img->control, &s->control));
        if (!img->writable) {
                CO_TRY(s, unlock, check_and_fix(s, img, flags, result, twice));
                goto unlock;
        }
        CO_TRY(s, unlock, gate_close(&img->writes, &s->gate));
        CO_TRY(s, open_gate, meta_settle(&s->settle, img));
        CO_TRY(s, open_gate, check_and_fix(s, img, flags, result, twice));
open_gate:
        gate_open(&img->writes);
unlock:
        co_lock_release(&img->control);
out:
        CO_END(s);
}

int check_image(struct check *s, struct image *img, uint32_t flags,
                struct hvb_check_result *result, struct hvb_error *err)
{
        int ret = s->co.line == 0 ? check_writable(img, flags, err) : 0;

        if (ret == 0)
                ret = check_alone(s, img, flags, result, true);
        if (ret < 0)
                error_set(err, ret, "Checking '%s' failed: %s", img->name, g_strerror(-ret));
        return ret;
}

/* ---- dirty images ---- */

static int repair_result(struct check *s, struct image *img, int ret, struct hvb_error *err)
{
        if (ret == 0 && s->own.check_errors > 0)
                ret = -EIO;
        image_event(img, HVB_EVENT_REPAIR_END, ret, "%s: repair of the dirty image ended: %" PRIu64
                    " corruptions and %" PRIu64 " leaks repaired", img->name,
                    s->own.corruptions_fixed, s->own.leaks_fixed);
        if (ret < 0)
                return error_set(err, ret, "Could not repair dirty image '%s': %s", img->name,
                                 g_strerror(-ret));
        return 0;
}

int repair_dirty(struct check *s, struct image *img, struct hvb_error *err)
{
        int ret;

        if (s->co.line == 0) {
                s->own = (struct hvb_check_result) { .struct_bytes = sizeof(s->own) };
                image_event(img, HVB_EVENT_REPAIR_BEGIN, 0, "%s was not closed cleanly: repairing",
                            img->name);
        }
        ret = check_alone(s, img, HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS, &s->own, false);
        return ret == CO_PENDING ? ret : repair_result(s, img, ret, err);
}
